# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Compare a copy with its backup, and with the original. Private to lowtide.ops: do not import from other collections."""

from __future__ import annotations

import time
import typing as t

from .._common.errors import OpsError
from .._common.text import format_count
from .._postgresql.names import format_name
from . import compare, side
from .restoring import dump_database

if t.TYPE_CHECKING:
    from .._common.outcome import Outcome
    from .._postgresql.connection import Session
    from .dump_text import Data, Schema
    from .work import Options, Work


class Comparer:
    """Compares one copy, and notes on it and in the outcome what was found."""

    def __init__(self, session: Session, options: Options, outcome: Outcome, *, copy: str) -> None:
        self._session = session
        self._options = options
        self._outcome = outcome
        self._copy = copy
        self.filled: set[tuple[str, str]] = set()
        """The tables of the copy that have rows."""

    def compare_counts(self, work: Work, data: Data) -> None:
        """Compare the rows in the dump with what was counted when the backup was made."""
        for entry in work.source.read_tables():
            table = (entry["schema"], entry["name"])
            count = data.rows.get(table, compare.NO_ROWS).number
            if count != entry["rows"]:
                raise OpsError(
                    obj=work.source.url,
                    problem=f"table {compare.name_table(table)} has {count} rows, {entry['rows']} were recorded",
                    next_step="Use another backup; find out what altered this one",
                )

    def compare(self, work: Work, *, data: Data | None = None, notes: bool) -> None:
        """Compare the copy with the dump, and with the original if asked; each difference is named.

        With ``notes`` the copy is marked as equal to its backup, or not: others rely on it (corruption_triage).
        """
        started = time.monotonic()
        own, tables = self._options, work.tables
        facts = self._outcome.facts

        def select(found: Data) -> Data:
            return compare.select_tables(found, tables) if tables else found

        schema, actual = dump_database(work.tools, self._copy)
        actual = select(actual)
        expected = select(data or work.restorer.read_data())
        what = f"backup {work.source.run}"
        try:
            self._compare_with(what, work.schema, expected, schema, actual, is_partial=bool(tables))
        except OpsError:
            if notes:
                self._note(is_equal=False)
            raise
        if notes:
            self._note(is_equal=True)
        if own.compare_with == "original":
            original_schema, original = dump_database(work.tools, own.live)
            self._compare_with(
                f"original {own.live}", original_schema, select(original), schema, actual, is_partial=bool(tables)
            )
        self.filled = {table for table, rows in actual.rows.items() if rows.number}
        facts["rows"] = sum(rows.number for rows in actual.rows.values())
        facts["tables"] = len(actual.rows)
        facts["compare_seconds"] = round(time.monotonic() - started, 3)

    def _note(self, *, is_equal: bool) -> None:
        """Note on the copy that it is equal to its backup, or no more."""
        found = side.read_databases(self._session, self._copy).get(self._copy)
        mark = None if found is None else found.mark
        if found is None or mark is None or bool(mark.since) == is_equal:
            return
        since = side.read_time(self._session) if is_equal else ""
        side.set_mark(self._session, found.name, mark._replace(since=since), comment=found.comment)

    def _compare_with(
        self, what: str, schema: Schema, data: Data, own_schema: Schema, own: Data, *, is_partial: bool
    ) -> None:
        """Compare with one other, and raise with the names of all that differs."""
        facts = self._outcome.facts
        differences = compare.compare_data(data, own)
        parts = ["rows"] if is_partial else ["rows", "sequences", "large objects"]
        versions = [(which.server_version, which.program_version) for which in (schema, own_schema)]
        if is_partial:
            facts["not_compared"].append(f"{what}: definitions, since only some tables were asked for")
        elif versions[0] == versions[1]:
            differences += compare.compare_objects(data, own)
            differences += compare.compare_schemas(schema, own_schema)
            differences += compare.compare_databases(schema, own_schema, format_name(self._options.live))
            parts += ["definitions", "owners", "grants", "extensions", "settings"]
        else:
            facts["not_compared"].append(
                f"{what}: definitions, owners, grants, extensions and settings, since they are of PostgreSQL"
                f" {versions[0][0]} (pg_dump {versions[0][1]}) there and {versions[1][0]} (pg_dump {versions[1][1]}) here"
            )
        facts["compared"].append(f"{what}: {', '.join(parts)}")
        if differences:
            facts["differences"] = compare.report(differences)
            raise OpsError(
                obj=f"database {facts['database']}",
                problem=f"{format_count(len(differences), 'difference')} from {what}: {compare.describe(differences)}",
                next_step="It has not taken the live name. "
                + (
                    "It is as the backup has it: find out who has written to the original since, or leave out compare_with"
                    if what.startswith("original ")
                    else "Find out who has changed it; remove it with state: absent, and restore again"
                ),
            )
