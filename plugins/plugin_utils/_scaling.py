# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Compute from the inputs of the role scaling what each workload and autoscaler may take of a database's connections.

The role works through autoscalers, then workloads with a declared number, then those that follow partitions. What came
before counts with the number that is declared for it, so that a rehearsal, which changes nothing, says the same. What
is still to come counts with what it has.

Private to lowtide.ops: do not import from other collections.
"""

from __future__ import annotations

import typing as t

from ansible_collections.lowtide.ops.plugins.module_utils._common.errors import Refusal

Json = dict[str, t.Any]

OPTION = "scaling_connection_budget"


class _Client(t.NamedTuple):
    """A workload with a pool: what it is, the most that one replica opens, and the number that is declared for it."""

    target: Json
    pool: int
    declared: int | None

    @property
    def key(self) -> str:
        """Kind/name."""
        return f"{self.target['kind']}/{self.target['name']}"

    def share(self, *, is_done: bool) -> Json:
        """Return what another workload's option ``shared_with`` says of it."""
        replicas = {"replicas": self.declared} if is_done and self.declared is not None else {}
        return {**self.target, "pool_per_replica": self.pool, **replicas}


def compute_budgets(
    autoscalers: t.Sequence[Json], workloads: t.Sequence[Json], budget: Json, rows: t.Sequence[Json]
) -> dict[str, dict[str, Json]]:
    """Return the option ``connection_budget`` of each entry with a pool: autoscalers by name, workloads by Kind/name.

    ``budget`` is the role's input, ``rows`` what the database says. Raises Refusal.
    """
    scaled = [_read_autoscaler(entry) for entry in autoscalers if entry.get("pool_per_replica") is not None]
    fixed = [entry for entry in workloads if entry.get("replicas") is not None]
    others = [entry for entry in workloads if entry.get("replicas") is None]
    ordered = [_read_workload(entry) for entry in [*fixed, *others] if entry.get("pool_per_replica") is not None]
    clients = [*scaled, *ordered]
    if not budget:
        if clients:
            raise Refusal(
                obj=clients[0].key,
                problem="its pool_per_replica is set, and nothing says which database it is for",
                next_step=f"Set {OPTION} (users, reserved), or leave pool_per_replica out",
            )
        return {"autoscalers": {}, "workloads": {}}
    if not clients:
        raise Refusal(
            obj=OPTION,
            problem="it is set, and no entry of scaling_workloads or scaling_autoscalers has a pool_per_replica",
            next_step="Give pool_per_replica to the workloads that open connections to the database",
        )
    if not budget.get("users"):
        raise Refusal(
            obj=OPTION,
            problem="its users are not set, so that the workloads' own connections would count twice",
            next_step="Name the roles as which the workloads log in to the database (users)",
        )
    server = _read_server(budget, rows)
    budgets = [
        {**server, "pool_per_replica": client.pool, "shared_with": _list_others(clients, number)}
        for number, client in enumerate(clients)
    ]
    names = [entry["name"] for entry in autoscalers if entry.get("pool_per_replica") is not None]
    return {
        "autoscalers": dict(zip(names, budgets[: len(scaled)], strict=True)),
        "workloads": dict(zip([client.key for client in ordered], budgets[len(scaled) :], strict=True)),
    }


def _read_autoscaler(entry: Json) -> _Client:
    target = entry.get("target")
    if not target:
        raise Refusal(
            obj=f"scaling_autoscalers: {entry['name']}",
            problem="its pool_per_replica is set, and not its target, whose replicas open the connections",
            next_step="Give its target (kind, name)",
        )
    return _Client(_name(target), entry["pool_per_replica"], entry.get("max_replicas"))


def _read_workload(entry: Json) -> _Client:
    return _Client(_name(entry), entry["pool_per_replica"], entry.get("replicas"))


def _name(entry: Json) -> Json:
    return {key: entry[key] for key in ("kind", "name", "api_version", "plural") if entry.get(key)}


def _list_others(clients: t.Sequence[_Client], number: int) -> list[Json]:
    """Return what shares the database with a client, each workload once: as it was declared last before that."""
    others: dict[str, Json] = {}
    for position, client in enumerate(clients):
        if client.key != clients[number].key and (client.key not in others or position < number):
            others[client.key] = client.share(is_done=position < number)
    return list(others.values())


def _read_server(budget: Json, rows: t.Sequence[Json]) -> Json:
    if len(rows) != 1:
        raise Refusal(
            obj=OPTION,
            problem=f"the database answered {len(rows)} rows where its connections are one row",
            next_step="Run again; nothing has been scaled",
        )
    return min(_list_limits(budget, rows[0]), key=_count_left)


def _list_limits(budget: Json, row: Json) -> list[Json]:
    """Return each limit that holds: of the server, of the database, and of the roles, all of which have one.

    Sessions of others count in the server and in the database, never against the roles. What the server itself reserves
    counts against max_connections only, what the site keeps free also in the database. -1 is no limit.
    """
    kept = budget.get("reserved") or 0
    limits = [_make_limit("max_connections", row["max_connections"], row["reserved"] + kept, row["used_by_others"])]
    if row["database_limit"] >= 0:
        name = f"datconnlimit of database {row['database']}"
        limits.append(_make_limit(name, row["database_limit"], kept, row["used_in_database"]))
    if row["role_limit"] >= 0:
        users = budget["users"]
        name = f"rolconnlimit of {'role' if len(users) == 1 else 'roles'} {', '.join(users)}"
        limits.append(_make_limit(name, row["role_limit"], 0, 0))
    return limits


def _make_limit(name: str, maximum: int, reserved: int, used: int) -> Json:
    return {"limited_by": name, "max_connections": maximum, "reserved": reserved, "used_by_others": used}


def _count_left(limit: Json) -> int:
    return t.cast("int", limit["max_connections"] - limit["reserved"] - limit["used_by_others"])
