# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What each entry of the role scaling may take of a database's connections."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.lowtide.ops.plugins.module_utils._common.errors import Refusal
from ansible_collections.lowtide.ops.plugins.plugin_utils._scaling import compute_budgets

Json = dict[str, Any]
BUDGET: Json = {"users": ["shop"], "reserved": 5}
ROW: Json = {
    "max_connections": 100,
    "reserved": 3,
    "used_by_others": 12,
    "database": "shop",
    "database_limit": -1,
    "used_in_database": 7,
    "role_limit": -1,
}
ROWS: list[Json] = [ROW]
WEB: Json = {
    "name": "web-hpa",
    "target": {"kind": "Deployment", "name": "web"},
    "max_replicas": 4,
    "pool_per_replica": 1,
}
API: Json = {"kind": "Deployment", "name": "api", "replicas": 6, "pool_per_replica": 2}
WORKER: Json = {"kind": "StatefulSet", "name": "worker", "topics": ["t"], "pool_per_replica": 3}
PLAIN: Json = {"kind": "Deployment", "name": "plain", "replicas": 2}


def test_each_counts_the_others_as_they_will_be_by_then() -> None:
    """Autoscalers come first, then declared numbers, then what follows partitions, in whatever order they are given."""
    budgets = compute_budgets([WEB], [WORKER, PLAIN, API], BUDGET, ROWS)
    server = {"limited_by": "max_connections", "max_connections": 100, "reserved": 8, "used_by_others": 12}
    web = {"kind": "Deployment", "name": "web", "pool_per_replica": 1}
    api = {"kind": "Deployment", "name": "api", "pool_per_replica": 2}
    worker = {"kind": "StatefulSet", "name": "worker", "pool_per_replica": 3}
    assert budgets["autoscalers"] == {"web-hpa": {**server, "pool_per_replica": 1, "shared_with": [api, worker]}}
    assert budgets["workloads"] == {
        "Deployment/api": {**server, "pool_per_replica": 2, "shared_with": [{**web, "replicas": 4}, worker]},
        "StatefulSet/worker": {
            **server,
            "pool_per_replica": 3,
            "shared_with": [{**web, "replicas": 4}, {**api, "replicas": 6}],
        },
    }


def test_a_workload_that_is_there_twice_counts_once() -> None:
    """As the target of an autoscaler, and by its declared number."""
    web = {**API, "name": "web"}
    budgets = compute_budgets([WEB], [web, WORKER], BUDGET, ROWS)
    shared = budgets["workloads"]["StatefulSet/worker"]["shared_with"]
    assert shared == [{"kind": "Deployment", "name": "web", "pool_per_replica": 2, "replicas": 6}]
    assert [entry["name"] for entry in budgets["workloads"]["Deployment/web"]["shared_with"]] == ["worker"]


def test_nothing_is_computed_where_nothing_is_declared() -> None:
    """Neither a database nor a pool."""
    assert compute_budgets([], [PLAIN], {}, []) == {"autoscalers": {}, "workloads": {}}


@pytest.mark.parametrize(
    ("autoscalers", "workloads", "budget", "rows", "words"),
    [
        ([], [API], {}, [], "Deployment/api: its pool_per_replica is set, and nothing says which database"),
        ([], [PLAIN], BUDGET, ROWS, "no entry of scaling_workloads or scaling_autoscalers has a pool_per_replica"),
        ([{**WEB, "target": None}], [], BUDGET, ROWS, "scaling_autoscalers: web-hpa: its pool_per_replica is set"),
        ([], [API], {"reserved": 5}, ROWS, "its users are not set"),
        ([], [API], BUDGET, [], "answered 0 rows"),
    ],
)
def test_what_cannot_be_meant_is_refused(
    autoscalers: list[Json], workloads: list[Json], budget: Json, rows: list[Json], words: str
) -> None:
    """By the input's name."""
    with pytest.raises(Refusal, match=words):
        compute_budgets(autoscalers, workloads, budget, rows)


@pytest.mark.parametrize(
    ("row", "limit"),
    [
        ({}, ("max_connections", 100, 8, 12)),
        ({"database_limit": 91}, ("datconnlimit of database shop", 91, 5, 7)),
        ({"database_limit": 92}, ("max_connections", 100, 8, 12)),
        ({"database_limit": 0}, ("datconnlimit of database shop", 0, 5, 7)),
        ({"role_limit": 79}, ("rolconnlimit of role shop", 79, 0, 0)),
        ({"role_limit": 80}, ("max_connections", 100, 8, 12)),
        ({"role_limit": 0}, ("rolconnlimit of role shop", 0, 0, 0)),
        ({"role_limit": 30, "database_limit": 41}, ("datconnlimit of database shop", 41, 5, 7)),
        ({"role_limit": 30, "database_limit": 43}, ("rolconnlimit of role shop", 30, 0, 0)),
    ],
)
def test_the_narrowest_limit_counts(row: Json, limit: tuple[str, int, int, int]) -> None:
    """Each without what others use of it: in the server, in the database; nobody else logs in as the role."""
    (budget,) = compute_budgets([], [API], BUDGET, [{**ROW, **row}])["workloads"].values()
    names = ("limited_by", "max_connections", "reserved", "used_by_others")
    assert tuple(budget[name] for name in names) == limit


def test_several_roles_are_named() -> None:
    """Their limits add up, since which workload logs in as which is not known."""
    budget = {**BUDGET, "users": ["shop", "jobs"]}
    (api,) = compute_budgets([], [API], budget, [{**ROW, "role_limit": 5}])["workloads"].values()
    assert (api["limited_by"], api["max_connections"]) == ("rolconnlimit of roles shop, jobs", 5)
