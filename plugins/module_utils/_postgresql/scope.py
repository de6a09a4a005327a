# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The tables that options name. Private to lowtide.ops: do not import from other collections.

Pure. A partitioned table that is named, or excluded, stands for all of its partitions.
"""

from __future__ import annotations

import difflib
import typing as t

from .._common.errors import Refusal
from . import names
from .arguments import Scope
from .catalog import TableState
from .names import TableName
from .plan import build_tree

KINDS = {"v": "a view", "f": "a foreign table, whose rows are another server's to maintain"}


def _matches(table: TableState, name: TableName) -> bool:
    return table.name == name.name and name.schema in {None, table.schema}


def _find_closest(name: str, known: t.Iterable[str]) -> str | None:
    """Return the known name that was probably meant."""
    return next(iter(difflib.get_close_matches(name, list(known), n=1)), None)


def find_excluded(tables: list[TableState], scope: Scope) -> set[int]:
    """Return the oids of the tables that are named to be left alone, with their partitions."""
    return _add_partitions(tables, (table for table in tables if any(_matches(table, name) for name in scope.exclude)))


def find_unmatched(tables: list[TableState], scope: Scope, *, target: str) -> list[str]:
    """Return a warning for each name in exclude that means no table, so that what it was to protect is not."""
    warnings = []
    for name in scope.exclude:
        if any(_matches(table, name) for table in tables):
            continue
        by_name = {table.name: table for table in tables}
        folded = next((known for known in by_name if known.lower() == name.name.lower()), None)
        close = folded or _find_closest(name.name, by_name)
        hint = f"Did you mean {names.format_name(by_name[close].schema, close)}? " if close else ""
        display_name = names.format_name(*(part for part in name if part is not None))
        warnings.append(f"{target}: exclude names {display_name}, and there is no such table. {hint}Correct exclude")
    return warnings


def _add_partitions(tables: list[TableState], chosen: t.Iterable[TableState]) -> set[int]:
    tree = build_tree(tables)
    roots = [table.oid for table in chosen]
    return {*roots, *(part.oid for root in roots for part in tree.descendants.get(root, ()))}


def select_tables(tables: list[TableState], scope: Scope, *, target: str) -> list[TableState]:
    """Return the tables in scope; refuse a name that means none, or something that is not a table here."""
    _check_schemas(tables, scope, target)
    excluded = find_excluded(tables, scope)
    named = None if scope.tables is None else _add_partitions(tables, _find_named(tables, scope, target))
    return [
        table
        for table in tables
        if table.kind not in KINDS
        and table.oid not in excluded
        and (named is None or table.oid in named)
        # Partitions of a table that is named are meant wherever they are.
        and (scope.schemas is None or named is not None or table.schema in scope.schemas)
    ]


def _check_schemas(tables: list[TableState], scope: Scope, target: str) -> None:
    schemas = {table.schema for table in tables}
    for schema in scope.schemas or []:
        if schema not in schemas:
            close = _find_closest(schema, schemas)
            hint = f"Did you mean {close}? " if close else ""
            raise Refusal(
                obj=f"{target}, schema {names.format_name(schema)}",
                problem="no table in it, or no such schema",
                next_step=f"{hint}Correct schemas",
            )


def _find_named(tables: list[TableState], scope: Scope, target: str) -> list[TableState]:
    """Return the tables that the option names, each name at least one."""
    candidates = [table for table in tables if scope.schemas is None or table.schema in scope.schemas]
    by_name: dict[str, list[TableState]] = {}
    for table in candidates:
        by_name.setdefault(table.name, []).append(table)
    chosen: list[TableState] = []
    for name in scope.tables or []:
        matching = [table for table in by_name.get(name.name, []) if _matches(table, name)]
        display_name = names.format_name(*(part for part in name if part is not None))
        if not matching:
            close = _find_closest(name.name, by_name)
            hint = f"Did you mean {names.format_name(by_name[close][0].schema, close)}? " if close else ""
            raise Refusal(
                obj=f"{target}, table {display_name}",
                problem="there is no such table",
                next_step=f"{hint}Correct tables",
            )
        for table in matching:
            if table.kind in KINDS:
                raise Refusal(
                    obj=f"{target}, {display_name}",
                    problem=f"it is {KINDS[table.kind]}",
                    next_step="Take it out of tables",
                )
        chosen += matching
    return chosen
