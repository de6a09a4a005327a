# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How much of a btree index is wasted space. Private to lowtide.ops: do not import from other collections.

Estimated from statistics, without reading the index, as an interval. What a freshly built index of these rows would need
is bounded from above (no deduplication, every variable value padded to the full) and from below (perfect deduplication, no
padding). An index that is larger than the upper bound allows is bloated for certain, so a rebuild is due; one that is
smaller than the lower bound suggests is not. The estimate finds candidates. Where pgstattuple is installed, it decides
about them; else the upper bound does, and what is between the two is reported as undecided. Values that the table stores
out of line are a pointer to the statistics and stand in the index whole, so an index over such a table is never rebuilt
by the estimate alone.

Layout figures: src/include/access/{itup,nbtree}.h and src/backend/access/nbtree/{nbtsort,nbtdedup}.c of PostgreSQL 15.
"""

from __future__ import annotations

import math
import typing as t

from . import names
from .catalog import IndexState, Stattuple, load_sql

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
    """The share of the index's blocks, 0 to 1, that a rebuild would give back: at least and at most.

    ``why_unknown`` says why the interval is not to be had; ``remedy`` what would decide it.
    """

    least: float
    most: float
    why_unknown: str = ""
    remedy: str = ""


NO_STATISTICS = "the table was never analyzed, or login_user may not read it (pg_stats)"
OUT_OF_LINE = "the table stores values out of line, whose length the statistics do not tell"
POSTPONED = "it is measured when the tables above transaction_id_age have been frozen"


def find_remedy(stattuple: Stattuple | None, *, user: str) -> str:
    """Return what it takes to measure an index here; nothing where that is possible."""
    if stattuple is None:
        return "install the extension pgstattuple to have it measured"
    grants = []
    if not stattuple.may_enter:
        grants.append(f"GRANT USAGE ON SCHEMA {names.format_name(stattuple.schema)} TO {names.format_name(user)}")
    if not stattuple.may_execute:
        grants.append(f"GRANT pg_stat_scan_tables TO {names.format_name(user)}")
    return f"{'; '.join(grants)} to have it measured by pgstattuple" if grants else ""


def sort_by_gain(indexes: t.Iterable[tuple[IndexState, Bloat]]) -> list[IndexState]:
    """Return the indexes, those first of which a rebuild could give back the most."""
    return [index for index, bloat in sorted(indexes, key=lambda pair: (-pair[1].most * pair[0].pages, pair[0].oid))]


def _align(size: float, to: int) -> float:
    return math.ceil(size / to) * to


def estimate_tuple_bytes(columns: list[list[t.Any]]) -> tuple[float, float] | None:
    """Return the average bytes of one leaf tuple with its item pointer, at least and at most; None when a column has no statistics."""
    least = most = float(TUPLE_HEADER)
    variable = False
    for length, alignment, width, null_share, _distinct in columns:
        nulls = float(null_share or 0.0)
        if length > 0:
            to = ALIGNMENT[alignment]
            most = _align(most, to) + length
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
    most = most + MAX_ALIGN - 1 if variable else _align(most, MAX_ALIGN)
    least = least if variable or any(column[3] for column in columns) else most
    return least + ITEM_POINTER, most + ITEM_POINTER


def count_distinct(columns: list[list[t.Any]], rows: float) -> float:
    """Return at least how many different keys there are: the most distinct column's number (negative in pg_stats: a share of rows)."""
    numbers = [1.0]
    for column in columns:
        distinct = float(column[4] or 0.0)
        numbers.append(-distinct * rows if distinct < 0 else distinct)
    return min(max(numbers), max(rows, 1.0))


def count_pages(rows: float, bytes_each: float, *, block_size: int, fillfactor: int) -> float:
    """Return the blocks of an index of ``rows`` leaf tuples just built: leaves filled to the fill factor, inner pages, the meta page."""
    usable = block_size - PAGE_HEADER - BTREE_SPECIAL
    per_leaf = max(1.0, (usable * fillfactor / 100 - bytes_each) / bytes_each)
    leaves = math.ceil(rows / per_leaf)
    # Inner pages are filled to 70 % (BTREE_NONLEAF_FILLFACTOR); a geometric sum over the levels.
    fanout = max(2.0, usable * 0.7 / bytes_each)
    return leaves + leaves / (fanout - 1) + META_AND_ROOT


def estimate_bloat(index: IndexState, *, block_size: int) -> Bloat | None:
    """Return the interval for one index, None for one that is not examined; undecided where the statistics cannot say."""
    if index.columns is None or index.pages <= 0:
        return None
    widths = None if index.tuples < 0 else estimate_tuple_bytes(index.columns)
    if widths is None:
        return Bloat(0.0, 1.0, NO_STATISTICS)
    least, most = widths
    rows = index.tuples
    largest = count_pages(rows, most, block_size=block_size, fillfactor=index.fillfactor)
    if index.deduplicates and not index.unique and rows > 0:
        keys = count_distinct(index.columns, rows)
        smallest = count_pages(
            rows, min(least, TID + least * keys / rows), block_size=block_size, fillfactor=index.fillfactor
        )
    else:
        smallest = count_pages(rows, least, block_size=block_size, fillfactor=index.fillfactor)
    bloat = Bloat(least=max(0.0, 1 - largest / index.pages), most=max(0.0, 1 - smallest / index.pages))
    if index.toasted and any(column[0] < 0 for column in index.columns):
        return Bloat(0.0, bloat.most, OUT_OF_LINE)
    return bloat


def compute_bloat(*, pages: int, internal_pages: int, leaf_pages: int, density: float, fillfactor: int) -> Bloat:
    """Return the same from pgstatindex, exact; ``density`` is its avg_leaf_density in per cent (NaN without leaves)."""
    filled = 0.0 if math.isnan(density) else leaf_pages * min(1.0, density / fillfactor)
    wasted = max(0.0, 1 - (filled + internal_pages + META_AND_ROOT) / max(pages, 1))
    return Bloat(least=wasted, most=wasted)


def measure_bloat(session: Session, schema: str, index: IndexState) -> Bloat:
    """Read one index with pgstatindex of the extension in ``schema``; as exact as can be, at the price of reading all of it."""
    sql = load_sql()
    # No bound values: a percent sign in the schema's name would be taken for one.
    statement = sql.SQL(
        "SELECT index_size / {}, internal_pages, leaf_pages, avg_leaf_density FROM {}.pgstatindex({}::bigint::oid::regclass)"
    ).format(sql.Literal(session.server.block_size), sql.SQL(names.quote(schema)), sql.Literal(index.oid))
    pages, internal_pages, leaf_pages, density = session.query(statement)[0]
    return compute_bloat(
        pages=pages,
        internal_pages=internal_pages,
        leaf_pages=leaf_pages,
        density=density,
        fillfactor=index.fillfactor,
    )
