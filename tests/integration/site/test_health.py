# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The roles health and event_reconciliation as an inventory uses them: by site variables, and without them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import psycopg2
import pytest
from psycopg2 import sql

from support.playbooks import PlaybookRun

pytestmark = pytest.mark.lab("postgresql", "s3")
PASSWORD = "canary-7d793037"  # noqa: S105 - of a role that lives for one test
Play = Callable[..., PlaybookRun]


@pytest.fixture
def play(ansible_playbook: Callable[..., PlaybookRun]) -> Play:
    """Include a role once for each set of variables, all on one host; a failure of the first is not the end."""

    def run(role: str, *includes: dict[str, Any]) -> PlaybookRun:
        tasks = [
            {"name": "Do it", "block": [{"include_role": {"name": f"lowtide.ops.{role}"}}], "vars": variables}
            for variables in includes
        ]
        plays = [{"hosts": "localhost", "gather_facts": False, "tasks": tasks}]
        return ansible_playbook(plays, env={"ANSIBLE_CALLBACK_RESULT_FORMAT": "yaml"})

    return run


def text(run: PlaybookRun) -> str:
    """What was printed, without line breaks."""
    return " ".join(run.stdout.split())


@pytest.fixture
def database(lab: dict[str, Any]) -> dict[str, Any]:
    """A connection to the cluster, with its identity."""
    facts = lab["postgresql"]
    return {
        "login_host": ",".join(facts["hosts"]),
        "login_db": "postgres",
        "passfile": facts["passfile"],
        "system_identifier": facts["system_identifier"],
    }


@pytest.fixture
def role(lab: dict[str, Any], unique_name: Callable[..., str]) -> Iterator[str]:
    """A role that may connect and nothing else."""
    facts, name = lab["postgresql"], unique_name("health", separator="_")
    connection = psycopg2.connect(
        host=",".join(facts["hosts"]),
        port=facts["port"],
        user=facts["superuser"],
        passfile=facts["passfile"],
        dbname="postgres",
        target_session_attrs="read-write",
    )
    connection.autocommit = True
    with closing(connection), connection.cursor() as cursor:
        cursor.execute(sql.SQL("CREATE ROLE {} LOGIN PASSWORD %s").format(sql.Identifier(name)), (PASSWORD,))
        yield name
        cursor.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(name)))


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({}, ["host localhost: it declares nothing", "postgresql_connection"]),
        ({"kafka_connection": {}, "consumer_groups": []}, ["host localhost: variable consumer_groups: it is empty"]),
        (
            {"kubernetes_connection": {}, "kubernetes_namespace": "shop", "health_workloads": []},
            ["host localhost: variable health_workloads: it is empty"],
        ),
        ({"health_checks": ["backups"], "s3_connection": {}}, ["bucket", "postgresql_connection", "is not set"]),
        ({"health_checks": ["disks"]}, ["disks"]),
    ],
)
def test_a_host_of_which_nothing_is_expected_is_refused(
    play: Play, variables: dict[str, Any], words: list[str]
) -> None:
    """By host and variable, before anything is read."""
    run = play("health", variables)
    assert run.rc == 2
    assert [word for word in words if word not in text(run)] == []
    assert "TASK [lowtide.ops.health : Read the" not in run.stdout


def test_what_cannot_be_read_hides_nothing(play: Play, database: dict[str, Any], lab: dict[str, Any]) -> None:
    """A variable without a value, and a bucket that is not there; the database between them is read too."""
    variables = {
        "kafka_connection": {"brokers": ["{{ nosuch }}"]},
        "consumer_groups": ["orders"],
        "postgresql_connection": database,
        "s3_connection": {
            "endpoint_url": lab["s3"]["endpoint_url"],
            "credentials_file": lab["s3"]["credentials_file"],
        },
        "bucket": "lowtide-bakups",
    }
    run = play("health", variables)
    assert run.rc == 2
    told = text(run)
    for words in (
        "FAIL consumer groups orders: cannot be read:",
        "'nosuch' is undefined",
        "OK database postgres: primary, system identifier",
        "FAIL bucket lowtide-bakups: cannot be read:",
        "(in s3_connection)",
    ):
        assert words in told, run.stdout


def test_what_is_declared_in_part_is_told(play: Play, database: dict[str, Any]) -> None:
    """The database is well; a bus of which no group is named, and a bucket without its server, were not looked at."""
    run = play(
        "health", {"postgresql_connection": database, "kafka_connection": {"brokers": []}, "bucket": "lowtide-backups"}
    )
    assert run.rc == 0, run.stdout
    told = text(run)
    for words in (
        "OK database postgres: primary, system identifier",
        "WARN consumer_groups: not checked: consumer_groups is not set on localhost",
        "WARN backups: not checked: s3_connection is not set on localhost",
    ):
        assert words in told, run.stdout


def test_what_was_read_before_is_not_taken_for_now(play: Play, database: dict[str, Any]) -> None:
    """The role twice in one play: the database is well, and then another one."""
    other = {**database, "system_identifier": "1"}
    run = play("health", {"health_postgresql_connection": database}, {"health_postgresql_connection": other})
    assert run.rc == 2
    assert "OK: all" not in run.stdout.rpartition("TASK [lowtide.ops.health : Ask the primary]")[2]
    assert "or health_postgresql_connection.system_identifier if this is the cluster that is meant" in text(run)


def test_a_role_that_may_not_see_sessions_is_told_what_it_lacks(
    play: Play, database: dict[str, Any], role: str
) -> None:
    """What it cannot see is not taken for zero."""
    account = {**database, "login_user": role, "login_password": PASSWORD}
    del account["passfile"]
    run = play("health", {"postgresql_connection": account})
    assert run.rc == 2
    assert f"GRANT pg_read_all_stats TO {role}" in text(run)
    assert PASSWORD not in run.stdout


@pytest.mark.parametrize("missing", ["kafka_connection", "postgresql_connection", "consumer_groups"])
def test_reconciliation_names_the_variable_that_is_missing(play: Play, missing: str) -> None:
    """And the host, and the input that would do as well."""
    site: dict[str, Any] = {"kafka_connection": {}, "postgresql_connection": {}, "consumer_groups": ["orders"]}
    del site[missing]
    run = play("event_reconciliation", {**site, "event_reconciliation_query": "SELECT 1"})
    assert run.rc == 2
    assert f"localhost: set {missing} or event_reconciliation_" in text(run)
