# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Prove that an object is a whole dump, with the rows of each table. Private to lowtide.ops: do not import from other collections.

``zstd -d | pg_restore`` with every exit status checked, and the rows counted: listing a dump's contents is not enough, it
succeeds on a truncated one.
"""

from __future__ import annotations

import typing as t

from .._backup.pipeline import Command
from .._backup.verify import NEXT_STEP, NotVerified, Source, decode_part, decompress_command
from .copy_rows import Expected, RowCounter, Table, TableName, name_table

if t.TYPE_CHECKING:
    from .._backup.manifest import Part
    from .._backup.streams import Streams
    from .._common.retry import Deadline


def verify_dump(
    source: Source,
    key: str,
    part: Part,
    *,
    programs: tuple[str, str],
    deadline: Deadline,
    etag: str | None,
    streams: Streams,
) -> RowCounter:
    """Read, compare and decode a dump in one pass, and return what was counted: the rows of each table in it.

    ``programs`` are the paths of pg_restore and zstd; ``etag`` binds the reading to one object. What ends at the deadline
    is no damage, but a :class:`WaitTimeout`; nor is what was stopped by the failure of another one of ``streams``.
    """
    pg_restore, zstd = programs
    counter = RowCounter()
    decode_part(
        source,
        key,
        part,
        commands=[decompress_command(zstd), Command((pg_restore, "--section=data", "-f", "-"), next_step=NEXT_STEP)],
        take=counter.feed,
        deadline=deadline,
        etag=etag,
        streams=streams,
    )
    unfinished = counter.explain_end()
    if unfinished:
        raise NotVerified(obj=source.url(key), problem=f"its text is cut off: {unfinished}", next_step=NEXT_STEP)
    return counter


def compare_tables(obj: str, copies: t.Mapping[Table, int], expected: t.Iterable[Expected]) -> None:
    """Raise where a table that the database had at the moment of the snapshot is not in the dump.

    pg_dump copies each partition of a table that is hashed by an enum into that table (since 14.7 and 15.2): there have to
    be as many COPYs by its name as it has partitions that are not there by their own.
    """
    left = dict(copies)
    missing: list[Table] = []
    for entry in sorted(expected):
        if entry.table in copies:
            continue
        if entry.root is not None and left.get(entry.root, 0) > 0:
            left[entry.root] -= 1
        else:
            missing.append(entry.table)
    if missing:
        names = ", ".join(name_table(table) for table in missing[:5])
        raise NotVerified(
            obj=obj,
            problem=f"{len(missing)} tables of the database are not in it: {names}",
            next_step="It does not count as a backup; report this with the versions of server and pg_dump",
        )


def join_counts(counts: t.Mapping[str, RowCounter]) -> dict[Table, int]:
    """Return the rows of each table of a dump in several objects, counted in each. A table is in one of them only."""
    rows: dict[Table, int] = {}
    places: dict[Table, str] = {}
    for obj, counted in counts.items():
        for table, count in counted.rows.items():
            if table in places:
                raise NotVerified(
                    obj=obj,
                    problem=f"it has rows of {name_table(table)}, and so has {places[table]}",
                    next_step=NEXT_STEP,
                )
            rows[table], places[table] = count, obj
    return rows


def compare_share(obj: str, copies: t.Mapping[Table, int], tables: t.Collection[Table]) -> None:
    """Raise where a further object of a dump has other tables than the one which it was made for."""
    compare_tables(obj, copies, [Expected(table) for table in tables])
    others = sorted(set(copies) - set(tables))
    if others:
        raise NotVerified(
            obj=obj,
            problem=f"it has rows of {name_table(others[0])}, which another object of this dump is for",
            next_step="It does not count as a backup; report this with the versions of server and pg_dump",
        )


def compare_rows(obj: str, rows: t.Mapping[TableName, int], expected: t.Mapping[TableName, int]) -> None:
    """Raise where the counted rows are not those that were counted when the backup was made."""
    for table in sorted({*rows, *expected}):
        if rows.get(table) != expected.get(table):
            raise NotVerified(
                obj=obj,
                problem=f"table {'.'.join(table)} has {rows.get(table, 'no')} rows, {expected.get(table, 'none')} were"
                " recorded",
                next_step=NEXT_STEP,
            )
