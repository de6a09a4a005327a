# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What is checked on a host follows from what it declares; what cannot be meant is refused by its variable."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.lowtide.ops.plugins.module_utils._common.errors import Refusal
from ansible_collections.lowtide.ops.plugins.plugin_utils._health_inputs import NEEDS, plan_checks

NOTHING: dict[str, Any] = {
    "checks": None,
    "kubernetes_connection": None,
    "namespace": None,
    "workloads": None,
    "stopped_workloads": [],
    "kafka_connection": None,
    "consumer_groups": None,
    "max_lag": 1000,
    "postgresql_connection": None,
    "s3_connection": None,
    "bucket": None,
    "backups": None,
    "backup_max_age": None,
    "backup_due_age": None,
    "alerts_url": None,
    "secrets": None,
    "set_inputs": [],
    "limits": {"warn_ratio": 0.8},
}
API = {"kind": "Deployment", "name": "api"}
SITE: dict[str, Any] = {
    **NOTHING,
    "kubernetes_connection": {},
    "namespace": "shop",
    "workloads": [[API]],
    "kafka_connection": {},
    "consumer_groups": ["orders"],
    "postgresql_connection": {"login_db": "shop", "system_identifier": "7"},
    "s3_connection": {},
    "bucket": "backups",
}


def plan(**inputs: Any) -> dict[str, Any]:
    """The plan of a site with these inputs changed."""
    return plan_checks({**SITE, **inputs}, "web1")


@pytest.mark.parametrize(
    ("inputs", "checks"),
    [
        ({}, ["workloads", "consumer_groups", "database", "backups"]),
        ({"alerts_url": "http://p", "secrets": [{"name": "tls"}]}, list(NEEDS)),
        ({"workloads": None}, ["consumer_groups", "database", "backups"]),
        ({"namespace": None, "consumer_groups": None}, ["database", "backups"]),
        ({"postgresql_connection": None}, ["workloads", "consumer_groups"]),
        (
            {"postgresql_connection": None, "backups": [{"database": "d"}]},
            ["workloads", "consumer_groups", "backups"],
        ),
        ({"checks": ["backups", "workloads"]}, ["workloads", "backups"]),
    ],
)
def test_what_is_declared_is_checked(inputs: dict[str, Any], checks: list[str]) -> None:
    """Each kind whose variables are set, an empty connection included; or those asked for, in the order of reading."""
    assert plan(**inputs)["checks"] == checks


@pytest.mark.parametrize(
    ("inputs", "unchecked"),
    [
        ({}, {}),
        ({"postgresql_connection": None}, {"backups": ["postgresql_connection"]}),
        ({"postgresql_connection": None, "backups": [{"database": "d"}]}, {}),
        ({"s3_connection": None, "bucket": None}, {}),
        ({"s3_connection": None}, {"backups": ["s3_connection"]}),
        (
            {"s3_connection": None, "bucket": None, "backups": [{"database": "d"}]},
            {"backups": ["s3_connection", "bucket"]},
        ),
        (
            {"namespace": None, "workloads": None, "consumer_groups": None},
            {"workloads": ["kubernetes_namespace", "tiers"], "consumer_groups": ["consumer_groups"]},
        ),
        ({"kafka_connection": None, "consumer_groups": None}, {}),
        ({"postgresql_connection": None, "checks": ["workloads"]}, {}),
    ],
)
def test_what_is_declared_in_part_is_known(inputs: dict[str, Any], unchecked: dict[str, list[str]]) -> None:
    """By kind, with what is missing; not where nothing of it is set, nor where the kinds are asked for."""
    assert plan(**inputs)["unchecked"] == unchecked


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        (
            {key: None for key in SITE if NOTHING[key] is None},
            [
                "host web1: it declares nothing whose health could be checked. Set",
                "workloads: kubernetes_connection and kubernetes_namespace and tiers",
                "or name another host for the step",
            ],
        ),
        (
            {key: None for key in SITE if NOTHING[key] is None and key not in ("s3_connection", "bucket")},
            ["it declares nothing whose health could be checked (backups lacks postgresql_connection)"],
        ),
        ({"checks": []}, ["variable health_checks: it is empty"]),
        ({"checks": ["disks"]}, ["disks is no kind of check"]),
        ({"checks": ["alerts"]}, ["it names alerts, and health_alerts_url is not set"]),
        (
            {"checks": ["workloads"], "namespace": None},
            ["kubernetes_namespace is not set", "Set kubernetes_namespace (or health_namespace)"],
        ),
        ({"checks": ["backups"], "postgresql_connection": None}, ["postgresql_connection is not set"]),
        ({"workloads": []}, ["host web1: variable tiers: it is empty"]),
        ({"workloads": [], "set_inputs": ["health_workloads"]}, ["variable health_workloads: it is empty"]),
        ({"workloads": [[], []]}, ["variable tiers: its tiers are empty"]),
        ({"workloads": "api"}, ["variable tiers: it is 'api', not a list"]),
        ({"workloads": ["api"]}, ["'api' is no workload"]),
        ({"workloads": [{"kind": "DaemonSet", "name": "x"}]}, ["DaemonSet", "StatefulSet, Deployment, CronJob, Job"]),
        ({"workloads": [{"kind": "Rollout", "name": "x"}]}, ["Rollout", "or of another API, with its api_version"]),
        ({"stopped_workloads": "api"}, ["variable health_stopped_workloads: it is 'api', not a list"]),
        ({"stopped_workloads": [{"kind": "Job"}]}, ["health_stopped_workloads: {'kind': 'Job'} is no workload"]),
        ({"consumer_groups": []}, ["variable consumer_groups: it is empty"]),
        (
            {"consumer_groups": [{"name": "g", "lag": 1}]},
            ["is no consumer group", "name, max_lag (a number) and states"],
        ),
        ({"consumer_groups": [{"name": "g", "max_lag": "many"}]}, ["is no consumer group"]),
        ({"consumer_groups": [{"name": "g", "states": "stable"}]}, ["is no consumer group"]),
        ({"consumer_groups": [""]}, ["'' is no consumer group"]),
        ({"backups": []}, ["variable health_backups: it is empty"]),
        ({"backups": [{"max_age": "1h"}]}, ["names no database"]),
    ],
)
def test_what_cannot_be_meant_is_refused_by_name(inputs: dict[str, Any], words: list[str]) -> None:
    """Host, variable and what to set."""
    with pytest.raises(Refusal) as caught:
        plan(**inputs)
    assert [word for word in words if word not in str(caught.value)] == []


@pytest.mark.parametrize(
    "tiers",
    [
        [API, {"kind": "StatefulSet", "name": "db", "replicas": 3}],
        [[API], [{"kind": "StatefulSet", "name": "db", "replicas": 3}]],
        [[API, API], [], [{"kind": "StatefulSet", "name": "db"}]],
    ],
)
def test_workloads_are_taken_from_tiers(tiers: list[Any]) -> None:
    """A flat list, tiers, and keys that are not health's business; each workload once."""
    assert plan(workloads=tiers)["workloads"] == [API, {"kind": "StatefulSet", "name": "db"}]


def test_what_is_meant_to_be_stopped_is_read_too() -> None:
    """Whether it is among the tiers or not, and once; Jobs are workloads as well."""
    job = {"kind": "Job", "name": "import"}
    made = plan(stopped_workloads=[API, job])
    assert made["workloads"] == [API, job]
    assert made["stopped_workloads"] == [API, job]


def test_a_workload_of_another_api_keeps_what_finds_it() -> None:
    """Its API and the plural of its kind; of a known kind nothing is needed."""
    rollout = {"kind": "Rollout", "name": "r", "api_version": "argoproj.io/v1alpha1"}
    plural = {**rollout, "name": "s", "plural": "rollouts"}
    made = plan(workloads=[[{**rollout, "plural": None, "replicas": 2}], [{**API, "api_version": "apps/v1"}, plural]])
    assert made["workloads"] == [rollout, API, plural]


def test_consumer_groups_get_the_common_limits() -> None:
    """Those that are only named, and those that leave something out."""
    groups = plan(consumer_groups=["a", {"name": "b", "max_lag": 5}, {"name": "c", "states": ["empty"]}])[
        "consumer_groups"
    ]
    assert groups == [
        {"name": "a", "max_lag": 1000, "states": ["stable"]},
        {"name": "b", "max_lag": 5, "states": ["stable"]},
        {"name": "c", "max_lag": 1000, "states": ["empty"]},
    ]


@pytest.mark.parametrize(
    ("inputs", "age"),
    [
        ({}, "25h"),
        ({"backup_due_age": "7d"}, f"{7 * 86400 + 3600}s"),
        ({"backup_due_age": "7d", "backup_max_age": "2d"}, "2d"),
    ],
)
def test_the_age_of_a_backup_follows_from_when_it_is_due(inputs: dict[str, Any], age: str) -> None:
    """As set; else an hour more than what the site's backups are due by; else 25 hours."""
    (backup,) = plan(**inputs)["backups"]
    assert backup == {"database": "shop", "system_identifier": "7", "hosts": ["localhost:5432"], "max_age": age}
    (own, other) = plan(**inputs, backups=[{"database": "d"}, {"database": "e", "max_age": "1h"}])["backups"]
    assert (own["max_age"], other["max_age"]) == (age, "1h")


@pytest.mark.parametrize(
    ("connection", "backups", "hosts"),
    [
        ({"login_host": "db1, db2", "login_port": 5433}, None, ["db1:5433", "db2:5433"]),
        ({"login_host": "db1"}, [{"database": "shop"}], ["db1:5432"]),
        ({"login_host": "db1"}, [{"database": "shop", "system_identifier": 7}], ["db1:5432"]),
        # Of another cluster or database nothing is known, unless it is said.
        ({"login_host": "db1"}, [{"database": "shop", "system_identifier": "8"}], []),
        ({"login_host": "db1"}, [{"database": "other"}], []),
        ({"login_host": "db1"}, [{"database": "other", "hosts": ["db9:5432"]}], ["db9:5432"]),
        ({"login_host": "db1"}, [{"database": "shop", "hosts": []}], []),
    ],
)
def test_backups_are_those_of_the_servers_of_the_connection(
    connection: dict[str, Any], backups: list[dict[str, Any]] | None, hosts: list[str]
) -> None:
    """A copy of the cluster has its system identifier and its databases."""
    connection = {"login_db": "shop", "system_identifier": "7", **connection}
    assert plan(postgresql_connection=connection, backups=backups)["backups"][0]["hosts"] == hosts


def test_the_variables_are_those_that_were_set() -> None:
    """A role's own input where it is set, else the site's variable."""
    variables = plan(set_inputs=["health_kafka_connection"])["variables"]
    assert variables["consumer_groups"] == "health_kafka_connection"
    assert variables["workloads"] == "kubernetes_connection"


def test_the_plan_holds_no_connection() -> None:
    """It becomes a fact, and connections have secrets."""
    assert "canary" not in str(plan(postgresql_connection={"login_db": "shop", "login_password": "canary"}))


def test_secrets_get_their_limits_in_seconds() -> None:
    """A month for certificates, and none for a password that is not declared."""
    declared = [{"name": "tls"}, {"name": "db", "max_age": "90d", "valid_for": "1d"}]
    assert plan(secrets=declared)["secrets"] == [
        {"name": "tls", "valid_for": 30 * 86400.0, "max_age": None},
        {"name": "db", "valid_for": 86400.0, "max_age": 90 * 86400.0},
    ]


@pytest.mark.parametrize(
    ("secrets", "words"),
    [([], "it is empty"), (["tls"], "names no Secret"), ([{"name": "tls", "valid_for": "soon"}], "is not a duration")],
)
def test_secrets_that_cannot_be_meant_are_refused(secrets: list[Any], words: str) -> None:
    with pytest.raises(Refusal, match=words):
        plan(secrets=secrets)
