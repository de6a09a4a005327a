# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Options of pg_maintenance and pg_maintenance_info, and what they mean. Private to lowtide.ops: do not import from other collections."""

from __future__ import annotations

import typing as t

from .._common.errors import Refusal
from . import names
from .connection import CONNECTION_SPEC
from .names import TableName
from .steps import Conditions

# The declared condition and its scope, shared by pg_maintenance and pg_maintenance_info.
CONDITION_SPEC: dict[str, dict[str, t.Any]] = {
    "schemas": {"type": "list", "elements": "str"},
    "tables": {"type": "list", "elements": "str"},
    "exclude": {"type": "list", "elements": "str", "default": []},
    "system_catalogs": {"type": "bool", "default": False},
    "dead_tuple_ratio": {"type": "float"},
    "changed_tuple_ratio": {"type": "float"},
    "inserted_tuple_ratio": {"type": "float"},
    "minimum_tuples": {"type": "int", "default": 1000},
    "statistics_age": {"type": "int"},
    "transaction_id_age": {"type": "int"},
    "invalid_indexes": {"type": "str", "choices": ["none", "ignore"], "default": "ignore"},
    "index_bloat_ratio": {"type": "float"},
    "minimum_index_size": {"type": "int", "default": 2**20},
    "collation_versions": {"type": "str", "choices": ["ignore", "report", "refresh"], "default": "ignore"},
    "jobs": {"type": "int", "default": 2},
    "time_budget": {"type": "int"},
    "lock_timeout": {"type": "float", "default": 5.0},
}
RUN_SPEC: dict[str, dict[str, t.Any]] = {
    "index_wait_timeout": {"type": "float", "default": 3600.0},
    "timeout": {"type": "int"},
    "truncate": {"type": "bool", "default": True},
    "lock_retries": {"type": "int", "default": 1},
    "on_blocked": {"type": "str", "choices": ["fail", "report"], "default": "fail"},
}
INFO_SPEC = {**CONNECTION_SPEC, **CONDITION_SPEC}
MAINTENANCE_SPEC = {**INFO_SPEC, **RUN_SPEC}


class Scope(t.NamedTuple):
    """Which tables are meant."""

    schemas: list[str] | None
    tables: list[TableName] | None
    exclude: list[TableName]
    system: bool

    @property
    def is_everything(self) -> bool:
        """Whether no table is left out."""
        return self.is_whole_database and not self.exclude

    @property
    def is_whole_database(self) -> bool:
        """Whether all tables are meant, but for named exceptions."""
        return self.schemas is None and self.tables is None


def build_conditions(params: t.Mapping[str, t.Any]) -> Conditions:
    """Return the declared condition; refuses one that cannot be meant."""
    for option in ("dead_tuple_ratio", "changed_tuple_ratio", "inserted_tuple_ratio", "index_bloat_ratio"):
        value = params[option]
        limit = 1.0 if option in {"dead_tuple_ratio", "index_bloat_ratio"} else float("inf")
        if value is not None and not 0 <= value < limit:
            raise Refusal(
                obj=f"option {option}",
                problem=f"{value} is not a ratio from 0 to below 1",
                next_step=f"Write {option} as a share, such as 0.1 for 10 %",
            )
    for option, least in (
        ("minimum_tuples", 0),
        ("statistics_age", 0),
        ("transaction_id_age", 1),
        ("minimum_index_size", 0),
        ("jobs", 1),
        ("time_budget", 1),
    ):
        value = params[option]
        if value is not None and value < least:
            raise Refusal(
                obj=f"option {option}", problem=f"{value} is less than {least}", next_step=f"Correct {option}"
            )
    declared = [
        params[option]
        for option in (
            "dead_tuple_ratio",
            "changed_tuple_ratio",
            "inserted_tuple_ratio",
            "statistics_age",
            "transaction_id_age",
            "index_bloat_ratio",
        )
    ]
    asked = params["invalid_indexes"] == "none" or params["collation_versions"] != "ignore"
    if all(value is None for value in declared) and not asked:
        raise Refusal(
            obj="the declared condition",
            problem="it is empty, so there is nothing to decide by",
            next_step="Set at least one of dead_tuple_ratio, changed_tuple_ratio, inserted_tuple_ratio, statistics_age,"
            " transaction_id_age, invalid_indexes: none, index_bloat_ratio, collation_versions",
        )
    return Conditions(
        dead_tuple_ratio=params["dead_tuple_ratio"],
        changed_tuple_ratio=params["changed_tuple_ratio"],
        inserted_tuple_ratio=params["inserted_tuple_ratio"],
        minimum_tuples=params["minimum_tuples"],
        statistics_age=params["statistics_age"],
        transaction_id_age=params["transaction_id_age"],
        invalid_indexes=params["invalid_indexes"] == "none",
        index_bloat_ratio=params["index_bloat_ratio"],
        minimum_index_size=params["minimum_index_size"],
        collation_versions=params["collation_versions"],
    )


def build_scope(params: t.Mapping[str, t.Any]) -> Scope:
    """Return which tables the options mean; an empty list is a mistake, not everything."""
    for option in ("schemas", "tables"):
        if params[option] is not None and not params[option]:
            raise Refusal(
                obj=f"option {option}",
                problem="the list is empty",
                next_step=f"Name at least one, or leave {option} out to mean all",
            )
    tables = params["tables"]
    return Scope(
        schemas=params["schemas"],
        tables=None if tables is None else [names.parse_name(name, option="tables") for name in tables],
        exclude=[names.parse_name(name, option="exclude") for name in params["exclude"]],
        system=params["system_catalogs"],
    )


def check_waits(params: t.Mapping[str, t.Any]) -> None:
    """Refuse times that would mean to wait for ever, or not at all."""
    for option in ("lock_timeout", "index_wait_timeout", "timeout", "lock_retries"):
        value = params.get(option)
        if value is not None and (value < 0 or (value == 0 and option != "lock_retries")):
            raise Refusal(
                obj=f"option {option}",
                problem=f"{value} would wait for ever, or not at all",
                next_step=f"Set {option} to more than 0",
            )
