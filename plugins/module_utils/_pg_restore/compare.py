# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Name each difference between two databases, by what dumps of them say; pure. Private to lowtide.ops: do not import from other collections."""

from __future__ import annotations

import typing as t

from .._common.text import format_count, join_some
from .amcheck import is_amcheck
from .dump_text import Data, Entry, Rows, Schema

SHOWN = 100
"""How many differences are listed; all are counted."""
NO_ROWS = Rows(0, 0)


class Difference(t.NamedTuple):
    """One thing that is not as it should be: which object, and what of it."""

    object: str
    what: str


def compare_data(expected: Data, actual: Data) -> list[Difference]:
    """Return every table, sequence and large object whose content is another. A table without rows may be left out."""
    differences = []
    for table in sorted({*expected.rows, *actual.rows}):
        should, is_now = expected.rows.get(table, NO_ROWS), actual.rows.get(table, NO_ROWS)
        if should.number != is_now.number:
            what = f"it has {format_count(is_now.number, 'row')}, not {should.number}"
            differences.append(Difference(f"table {table}", what))
        elif should.total != is_now.total:
            what = f"it has as many rows ({should.number}), but not the same ones"
            differences.append(Difference(f"table {table}", what))
    for sequence in sorted({*expected.sequences, *actual.sequences}):
        values = [side.sequences.get(sequence) for side in (actual, expected)]
        if values[0] != values[1]:
            words = [_tell_sequence(value) for value in values]
            differences.append(
                Difference(f"sequence {sequence}", f"it {words[0]}, where it should be that it {words[1]}")
            )
    for oid in sorted({*expected.objects, *actual.objects}):
        if oid not in actual.objects:
            differences.append(Difference(f"large object {oid}", "it is missing"))
        elif oid not in expected.objects:
            differences.append(Difference(f"large object {oid}", "it should not be there"))
        elif expected.objects[oid] != actual.objects[oid]:
            differences.append(Difference(f"large object {oid}", "its content is another"))
    return differences


def _tell_sequence(value: tuple[int, bool] | None) -> str:
    if value is None:
        return "is missing"
    return f"is at {value[0]}" if value[1] else f"starts at {value[0]}"


def compare_schemas(expected: Schema, actual: Schema) -> list[Difference]:
    """Return every object that is missing, too many or defined otherwise. Of grants, the statement names the grantee."""
    differences = []
    entries = sorted({*expected.entries, *actual.entries})
    for entry in entries:
        if entry.is_of_database or is_amcheck(entry, entries):
            continue
        should, is_now = expected.entries.get(entry), actual.entries.get(entry)
        if should == is_now:
            continue
        differences += _compare_entry(entry, should, is_now)
    return differences


def _compare_entry(entry: Entry, should: list[str] | None, is_now: list[str] | None) -> list[Difference]:
    if entry.kind != "ACL":
        if is_now is None:
            return [Difference(entry.title, "it is missing")]
        if should is None:
            return [Difference(entry.title, "it should not be there")]
    missing = [line.strip() for line in should or [] if line not in (is_now or [])]
    surplus = [line.strip() for line in is_now or [] if line not in (should or [])]
    words = [
        *([f"missing is {join_some(missing, limit=3)}"] if missing else []),
        *([f"not expected is {join_some(surplus, limit=3)}"] if surplus else []),
    ]
    return [Difference(entry.title, "; ".join(words) or "its statements are in another order")]


def select_tables(data: Data, tables: t.Collection[str]) -> Data:
    """Return of ``data`` the rows of some tables only."""
    return Data({name: rows for name, rows in data.rows.items() if name in tables}, {}, {})


def report(differences: t.Sequence[Difference]) -> list[dict[str, str]]:
    """Return differences as the modules report them."""
    return [difference._asdict() for difference in differences[:SHOWN]]


def describe(differences: t.Sequence[Difference]) -> str:
    """Return the differences in one line."""
    return join_some([f"{difference.object}: {difference.what}" for difference in differences], limit=5)
