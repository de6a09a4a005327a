# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The role scaling as a step of a window that gives an autoscaler more room, and the step that reverts it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from psycopg2 import sql

from support.moving_autoscaler import describe_autoscaler
from support.playbooks import PlaybookRun, write_yaml

from .conftest import Namespace
from .test_scale_declared import apply_api

pytestmark = pytest.mark.lab("kubernetes")
Json = dict[str, Any]
Playbook = Callable[..., PlaybookRun]
WINDOW = "lowtide.ops.maintenance_window"
ALONE = "lowtide.ops.scaling"
NOTE = "lowtide.ops/autoscaler-before"


@pytest.fixture
def inventory(namespace: Namespace, tmp_path: Path) -> Path:
    """An inventory with a window of three steps; the middle one does what the file work.yml says."""
    folder = tmp_path / "inventory"
    (folder / "group_vars").mkdir(parents=True)
    hosts = {"control": {"hosts": {"controller": None}}, "workloads": {"hosts": {"shop": None}}}
    write_yaml(folder / "hosts.yml", {"all": {"children": hosts, "vars": {"ansible_connection": "local"}}})
    facts = namespace.facts
    write_yaml(
        folder / "group_vars/all.yml",
        {
            "ansible_python_interpreter": "{{ ansible_playbook_python }}",
            "kubernetes_connection": {"kubeconfig": facts["kubeconfig"], "cluster_uid": facts["cluster_uid"]},
            "kubernetes_namespace": namespace.name,
            "scaling_autoscalers": [{"name": "api-hpa", "min_replicas": 3, "max_replicas": 6, "save_before": True}],
            "window_dir": str(tmp_path / "windows"),
            "window_site": namespace.name,
            "window_steps": [
                {"name": "more_room", "role": ALONE, "hosts": ["workloads"]},
                {"name": "work", "tasks": str(tmp_path / "work.yml"), "hosts": ["workloads"], "needs": ["more_room"]},
                {"name": "as_before", "role": ALONE, "tasks_from": "restored", "reverts": "more_room"},
            ],
        },
    )
    task = {"ansible.builtin.fail": {"msg": "the work went wrong"}, "when": "not ansible_check_mode"}
    write_yaml(tmp_path / "work.yml", [{"name": "Work", **task}])
    apply_api(namespace)
    namespace.apply(describe_autoscaler("api", 1, 2, kind="Deployment"))
    return folder


@contextlib.contextmanager
def make_limited_database(facts: Json, name: str) -> Iterator[Callable[[str], None]]:
    """Have a role that owns a database of its name; what it gives runs a statement as the superuser."""
    dsn = {"host": ",".join(facts["hosts"]), "port": facts["port"], "user": facts["superuser"]}
    dsn |= {"passfile": facts["passfile"], "target_session_attrs": "read-write", "dbname": "postgres"}
    with contextlib.closing(psycopg2.connect(**dsn)) as connection:
        connection.autocommit = True

        def run(statement: str) -> None:
            with connection.cursor() as cursor:
                cursor.execute(sql.SQL(statement).format(sql.Identifier(name)))

        run("CREATE ROLE {} LOGIN")
        try:
            run("CREATE DATABASE {}")
            yield run
        finally:
            run("DROP DATABASE IF EXISTS {} WITH (FORCE)")
            run("DROP ROLE {}")


@pytest.mark.lab("kubernetes", "postgresql")
@pytest.mark.procedure("B10")
def test_the_narrowest_limit_of_the_database_bounds_the_replicas(
    namespace: Namespace,
    inventory: Path,
    ansible_playbook: Playbook,
    lab: Json,
    unique_name: Callable[..., str],
) -> None:
    """That of the server, of the database, of the role; a superuser has none but the first."""
    facts, name = lab["postgresql"], unique_name("db", separator="_")
    login = {"login_host": ",".join(facts["hosts"]), "login_user": facts["superuser"], "login_db": name}
    declared = {
        "scaling_autoscalers": [],
        "scaling_workloads": [{"kind": "Deployment", "name": "api", "replicas": 3, "pool_per_replica": 4}],
        "scaling_connection_budget": {"users": [name], "reserved": 1},
        "scaling_postgresql_connection": {**login, "passfile": facts["passfile"]},
    }
    namespace.delete("HorizontalPodAutoscaler", "api-hpa")

    def scale() -> str:
        run = ansible_playbook(ALONE, "-i", str(inventory), "--check", extra_vars=declared)
        return " ".join(run.stdout.split())

    with make_limited_database(facts, name) as run:
        assert "would scale Deployment" in scale()
        run("ALTER DATABASE {} CONNECTION LIMIT 12")
        told = scale()
        assert f"12 of the 12 connections of the database that datconnlimit of database {name} allows, beside" in told
        assert "2 replicas fit" in told
        run("ALTER ROLE {} CONNECTION LIMIT 7")
        assert (
            f"12 of the 7 connections of the database that rolconnlimit of role {name} allows; 1 replica fits"
            in scale()
        )
        run("ALTER ROLE {} SUPERUSER")
        assert "would scale Deployment" in scale()


def read_bounds(namespace: Namespace) -> tuple[int, int, bool]:
    """Return the bounds of the HPA, and whether something is saved on it."""
    hpa = namespace.get("HorizontalPodAutoscaler", "api-hpa")
    return (
        hpa["spec"]["minReplicas"],
        hpa["spec"]["maxReplicas"],
        NOTE in (hpa["metadata"].get("annotations") or {}),
    )


@pytest.mark.procedure("C6", "E11")
def test_a_window_gives_more_room_only_while_it_works(
    namespace: Namespace, inventory: Path, ansible_playbook: Playbook
) -> None:
    """Rehearsed without a write; given back also where the work fails. A person's change for a time is not the window's."""
    rehearsal = ansible_playbook(WINDOW, "-i", str(inventory), "--check")
    assert rehearsal.rc == 0, rehearsal.stdout
    assert "would set minReplicas 1 -> 3, maxReplicas 2 -> 6" in " ".join(rehearsal.stdout.split())
    assert read_bounds(namespace) == (1, 2, False)

    window = ansible_playbook(WINDOW, "-i", str(inventory))
    assert window.rc == 2, window.stdout
    told = " ".join(window.stdout.split())
    assert "the work went wrong" in told
    assert "set minReplicas 3 -> 1, maxReplicas 6 -> 2" in told
    assert read_bounds(namespace) == (1, 2, False)

    by_hand = ansible_playbook(ALONE, "-i", str(inventory))
    assert by_hand.rc == 0, by_hand.stdout
    assert read_bounds(namespace) == (3, 6, True)
    ansible_playbook(WINDOW, "-i", str(inventory))
    assert read_bounds(namespace) == (3, 6, True)
    back = ansible_playbook(ALONE, "-i", str(inventory), "-e", "scaling_state=restored")
    assert back.rc == 0, back.stdout
    assert read_bounds(namespace) == (1, 2, False)


def test_a_host_that_declares_nothing_is_refused_by_the_variables(inventory: Path, ansible_playbook: Playbook) -> None:
    """An empty list that is written is a declaration."""
    play = ("-i", str(inventory), "-e", '{"scaling_autoscalers": []}')
    refused = ansible_playbook(ALONE, *play)
    assert refused.rc == 2
    assert "shop: set scaling_workloads or scaling_autoscalers" in " ".join(refused.stdout.split())
    accepted = ansible_playbook(ALONE, *play, "-e", '{"scaling_workloads": []}')
    assert accepted.rc == 0, accepted.stdout
