# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How much of a btree index is wasted space. Private to lowtide.ops: do not import from other collections.

Estimated from statistics, without reading the index, as an interval. What a freshly built index of these rows would need
is bounded from above (no deduplication, every variable value padded to the full) and from below (perfect deduplication, no
padding). An index that is larger than the upper bound allows is bloated for certain, so a rebuild is due; one that is
smaller than the lower bound suggests is not. Between the two, :func:`measured` settles it where pgstattuple is installed,
else it is reported as undecided. A fresh index is never above the upper bound, so a rebuild is never due twice.

Layout figures: src/include/access/{itup,nbtree}.h and src/backend/access/nbtree/{nbtsort,nbtdedup}.c of PostgreSQL 15.
"""

from __future__ import annotations

import math
import typing as t

from .._common.dependencies import require
from .catalog import IndexState

if t.TYPE_CHECKING:
    from .connection import Session

PAGE_HEADER = 24  # PageHeaderData
BTREE_SPECIAL = 16  # BTPageOpaqueData
ITEM_POINTER = 4  # ItemIdData, for each tuple of a page
TUPLE_HEADER = 8  # IndexTupleData
NULL_BITMAP = 8  # the bitmap, aligned
TID = 6  # ItemPointerData, for each row of a posting list
MAX_ALIGN = 8
ALIGNMENT = {"c": 1, "s": 2, "i": 4, "d": 8}
META_AND_ROOT = 3  # pages that even an empty index may have


class Bloat(t.NamedTuple):
    """The share of the index's blocks, 0 to 1, that a rebuild would give back: at least and at most."""

    least: float
    most: float


def _aligned(size: float, to: int) -> float:
    return math.ceil(size / to) * to


def tuple_bytes(columns: list[list[t.Any]]) -> tuple[float, float] | None:
    """Average bytes of one leaf tuple with its item pointer, at least and at most; None when a column has no statistics."""
    least = most = float(TUPLE_HEADER)
    variable = False
    for length, alignment, width, null_share, _distinct in columns:
        nulls = float(null_share or 0.0)
        if length > 0:
            to = ALIGNMENT[alignment]
            most = _aligned(most, to) + length
            least += length * (1 - nulls)
            continue
        if width is None:
            return None
        variable = True
        least += float(width) * (1 - nulls)
        # A value of up to 126 bytes has a 1-byte header that pg_stats' width may count as 4, or is padded to its alignment.
        most += float(width) + ALIGNMENT[alignment] - 1
    if any(column[3] for column in columns):
        most += NULL_BITMAP
    # Rounding up an average loses at most one unit less a byte; with fixed columns it is exact.
    most = most + MAX_ALIGN - 1 if variable else _aligned(most, MAX_ALIGN)
    least = least if variable or any(column[3] for column in columns) else most
    return least + ITEM_POINTER, most + ITEM_POINTER


def distinct_values(columns: list[list[t.Any]], rows: float) -> float:
    """At least how many different keys there are: the most distinct column's number (negative in pg_stats: a share of rows)."""
    numbers = [1.0]
    for column in columns:
        distinct = float(column[4] or 0.0)
        numbers.append(-distinct * rows if distinct < 0 else distinct)
    return min(max(numbers), max(rows, 1.0))


def pages_needed(rows: float, bytes_each: float, *, block_size: int, fillfactor: int) -> float:
    """Blocks of an index of ``rows`` leaf tuples just built: leaves filled to the fill factor, inner pages, the meta page."""
    usable = block_size - PAGE_HEADER - BTREE_SPECIAL
    per_leaf = max(1.0, (usable * fillfactor / 100 - bytes_each) / bytes_each)
    leaves = math.ceil(rows / per_leaf)
    # Inner pages are filled to 70 % (BTREE_NONLEAF_FILLFACTOR); a geometric sum over the levels.
    fanout = max(2.0, usable * 0.7 / bytes_each)
    return leaves + leaves / (fanout - 1) + META_AND_ROOT


def estimate(index: IndexState, *, block_size: int) -> Bloat | None:
    """The interval for one index, or None when the statistics cannot say (no ANALYZE yet, never vacuumed)."""
    if index.columns is None or index.tuples < 0 or index.pages <= 0:
        return None
    widths = tuple_bytes(index.columns)
    if widths is None:
        return None
    least, most = widths
    rows = index.tuples
    largest = pages_needed(rows, most, block_size=block_size, fillfactor=index.fillfactor)
    if index.deduplicates and not index.unique and rows > 0:
        keys = distinct_values(index.columns, rows)
        smallest = pages_needed(
            rows, min(least, TID + least * keys / rows), block_size=block_size, fillfactor=index.fillfactor
        )
    else:
        smallest = pages_needed(rows, least, block_size=block_size, fillfactor=index.fillfactor)
    return Bloat(least=max(0.0, 1 - largest / index.pages), most=max(0.0, 1 - smallest / index.pages))


def measured(*, pages: int, internal_pages: int, leaf_pages: int, density: float, fillfactor: int) -> Bloat:
    """The same from pgstatindex, exact; ``density`` is its avg_leaf_density in per cent (NaN for an index without leaves)."""
    filled = 0.0 if math.isnan(density) else leaf_pages * min(1.0, density / fillfactor)
    wasted = max(0.0, 1 - (filled + internal_pages + META_AND_ROOT) / max(pages, 1))
    return Bloat(least=wasted, most=wasted)


def measure(session: Session, schema: str, index: IndexState) -> Bloat:
    """Read one index with pgstatindex of the extension in ``schema``; as exact as can be, at the price of reading all of it."""
    sql = require("psycopg2.sql", package="psycopg2-binary", why="to quote identifiers")
    statement = sql.SQL(
        "SELECT index_size / %(block)s, internal_pages, leaf_pages, avg_leaf_density FROM {}.pgstatindex(%(oid)s::bigint::oid::regclass)"
    ).format(sql.Identifier(schema))
    row = session.query(statement, {"block": session.server.block_size, "oid": index.oid})[0]
    return measured(pages=row[0], internal_pages=row[1], leaf_pages=row[2], density=row[3], fillfactor=index.fillfactor)
