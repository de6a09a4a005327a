# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Divide a dump into streams of about the same size; pure. Private to lowtide.ops: do not import from other collections.

The main stream has the schema and all rows but those of some large tables, of which each is in one further stream.
"""

from __future__ import annotations

import os
import typing as t

from .._backup import keys

if t.TYPE_CHECKING:
    from .copy_rows import Table

MIN_TABLE = 1 << 20
"""Bytes that a table has at least to be taken out of the main stream: naming it costs pg_dump half a millisecond."""
MIN_STREAM = 16 << 20
"""Bytes that a stream has at least on average. One with less takes no longer than its start."""
GAIN = 0.1
"""One stream more has to shorten the longest one by at least this share, else fewer do."""
ARGUMENT_BYTES = 96 << 10
"""Bytes of a command line that may name tables. Linux allows 128 KiB, environment included, whatever its limits are."""

_EXCLUDED = "--exclude-table-data="
_ONLY = "--table="


class Stream(t.NamedTuple):
    """One object of a dump: ``tables`` are those that it has the rows of; of the main one, those that it has not."""

    part: str
    tables: tuple[Table, ...]
    size: int

    @property
    def options(self) -> tuple[str, ...]:
        """Return the options of pg_dump that make it this stream."""
        if self.part in (keys.DUMP, keys.MAIN):
            return tuple(f"{_EXCLUDED}{name_pattern(table)}" for table in self.tables)
        return ("--data-only", *(f"{_ONLY}{name_pattern(table)}" for table in self.tables))


def name_pattern(table: Table) -> str:
    """Return the pattern of pg_dump that matches one table only: quoted, so that no character means anything else.

    It carries the bytes of the database's encoding, in which pg_dump takes it.
    """
    return ".".join(os.fsdecode(b'"' + name.replace(b'"', b'""') + b'"') for name in table)


def choose_large(sizes: t.Mapping[Table, int], *, room: int = ARGUMENT_BYTES) -> list[Table]:
    """Return the tables that may be taken out, the largest first: large enough, and as many as a command line may name."""
    chosen: list[Table] = []
    for table in sorted(sizes, key=lambda table: (-sizes[table], table)):
        room -= len(os.fsencode(f"{_EXCLUDED}{name_pattern(table)}")) + 1
        if sizes[table] < MIN_TABLE or room < 0:
            break
        chosen.append(table)
    return chosen


def plan_streams(sizes: t.Mapping[Table, int], *, rest: int, jobs: int) -> list[Stream]:
    """Return the streams of a dump, the main one first: no more than ``jobs``, and as few as take about as long.

    ``sizes`` are the bytes of the tables that may be taken out, ``rest`` those of all that may not.
    """
    total = rest + sum(sizes.values())
    large = choose_large(sizes)
    rest = total - sum(sizes[table] for table in large)
    most = max(1, min(jobs, total // MIN_STREAM))
    packed = [_pack(large, sizes, rest=rest, count=count) for count in range(1, most + 1)]
    longest = [max(stream.size for stream in streams) for streams in packed]
    enough = min(longest) * (1 + GAIN)
    return next(streams for streams, size in zip(packed, longest, strict=True) if size <= enough)


def _pack(tables: t.Sequence[Table], sizes: t.Mapping[Table, int], *, rest: int, count: int) -> list[Stream]:
    """Give each table, the largest first, to the stream that is the smallest so far."""
    loads = [rest] + [0] * (count - 1)
    shares: list[list[Table]] = [[] for _load in loads]
    for table in tables:
        place = loads.index(min(loads))
        loads[place] += sizes[table]
        shares[place].append(table)
    further = [(share, load) for share, load in zip(shares[1:], loads[1:], strict=True) if share]
    taken = tuple(table for share, _load in further for table in share)
    return [
        Stream(keys.MAIN if further else keys.DUMP, taken, loads[0]),
        *(Stream(keys.name_data(number), tuple(share), load) for number, (share, load) in enumerate(further, start=1)),
    ]
