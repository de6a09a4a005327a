# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Name each difference between two databases, by what dumps of them say; pure. Private to lowtide.ops: do not import from other collections."""

from __future__ import annotations

import re
import typing as t

from .._common.text import format_count, join_some
from .._postgresql.names import format_name
from .amcheck import is_amcheck
from .dump_text import Data, Entry, Rows, Schema
from .side import read_comment
from .sql_text import read_literal

SHOWN = 100
"""How many differences are listed; all are counted."""
NO_ROWS = Rows(0, 0)
_COMMENT = re.compile(r"COMMENT ON DATABASE .+? IS (E?'.*');", re.DOTALL)


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
            differences.append(Difference(f"table {name_table(table)}", what))
        elif should.total != is_now.total:
            what = f"it has as many rows ({should.number}), but not the same ones"
            differences.append(Difference(f"table {name_table(table)}", what))
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


def name_table(table: tuple[str, str]) -> str:
    """Return a table as a person reads it; no other one has that name."""
    return format_name(*table)


def compare_objects(expected: Data, actual: Data) -> list[Difference]:
    """Return every large object in both whose owner, grants or comment are others; only between dumps of one version."""
    return [
        Difference(f"large object {oid}", "its owner, grants or comment are others")
        for oid in sorted(set(expected.objects) & set(actual.objects))
        if expected.about.get(oid) != actual.about.get(oid)
    ]


def compare_databases(expected: Schema, actual: Schema, quoted: str) -> list[Difference]:
    """Return what is another of the database itself: owner, grants, settings of it and of roles in it, comment but our mark."""
    should, is_now = (list_properties(schema, quoted) for schema in (expected, actual))
    if not should:
        return []  # a dump that does not say
    missing = [line for line in should if line not in is_now]
    surplus = [line for line in is_now if line not in should]
    words = _tell_statements(missing, surplus)
    return [Difference("database", words)] if words else []


def list_properties(schema: Schema, quoted: str) -> list[str]:
    """Return the statements that make the database of a dump, for one named ``quoted``; none if it has none."""
    made = schema.name_copy(quoted)
    statements = []
    for statement in [made.creating, *made.further, *made.properties] if schema.has_database else []:
        match = _COMMENT.fullmatch(statement)
        own = statement if match is None else read_comment(read_literal(match[1]))[0]
        if match is None:
            statements.append(own)
        elif own:
            statements.append(f"COMMENT ON DATABASE {quoted} IS {own!r};")
    return statements


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
    words = _tell_statements(missing, surplus)
    return [Difference(entry.title, words or "its statements are in another order")]


def _tell_statements(missing: t.Sequence[str], surplus: t.Sequence[str]) -> str:
    words = [
        *([f"missing is {join_some(missing, limit=3)}"] if missing else []),
        *([f"not expected is {join_some(surplus, limit=3)}"] if surplus else []),
    ]
    return "; ".join(words)


def select_tables(data: Data, tables: t.Collection[tuple[str, str]]) -> Data:
    """Return of ``data`` the rows of some tables only."""
    return Data({name: rows for name, rows in data.rows.items() if name in tables}, {}, {}, {})


def report(differences: t.Sequence[Difference]) -> list[dict[str, str]]:
    """Return differences as the modules report them."""
    return [difference._asdict() for difference in differences[:SHOWN]]


def describe(differences: t.Sequence[Difference]) -> str:
    """Return the differences in one line."""
    return join_some([f"{difference.object}: {difference.what}" for difference in differences], limit=5)
