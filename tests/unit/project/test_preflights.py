# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Roles refuse by real Ansible what would be found out too late, and find the backups where another role puts them."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support.modules import CHECKOUT
from support.playbooks import PlaybookRun, write_yaml

NOWHERE = {"urls": ["http://127.0.0.1:9"], "request_timeout": 1}
SITE_FAILOVER = {"site_failover_primary": NOWHERE, "site_failover_old_primary": NOWHERE}
SERVER = {"login_host": "127.0.0.1", "login_port": 9, "login_user": "x", "login_password": "x"}
CONNECTIONS = {"mysql_connections_connection": SERVER, "mysql_connections_restart": True}
FIRST = {"site_failover": "Verify, fence the old cluster", "mysql_connections": "Read the evidence first"}
"""The task of each role that reaches a system."""


@pytest.fixture
def perform(tmp_path: Path, ansible_playbook: Callable[..., PlaybookRun]) -> Callable[..., str]:
    """Run a role on some hosts, which fails; return what was said, on one line."""

    def run(role: str, hosts: list[str], **inputs: Any) -> str:
        own = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
        inventory = write_yaml(tmp_path / "hosts.yml", {"all": {"vars": own, "hosts": dict.fromkeys(hosts)}})
        task = {"name": "Perform", "ansible.builtin.include_role": {"name": f"lowtide.ops.{role}"}}
        play = {"hosts": "all", "gather_facts": False, "vars": inputs, "tasks": [task]}
        done = ansible_playbook([play], "-i", str(inventory))
        assert done.rc == 2, done.stdout
        return " ".join(done.stdout.split())

    return run


def test_one_site_takes_over(perform: Callable[..., str]) -> None:
    """Of two in one play, each would take the primary from the other."""
    said = perform("site_failover", ["east_db", "west_db"], **SITE_FAILOVER)
    assert "the play has east_db, west_db, and of two hosts each could take the primary from the other" in said
    assert "for example --limit west_db" in said
    assert FIRST["site_failover"] not in said


WEST = {"site_failover_primary": {"urls": ["http://127.0.0.1:9"], "request_timeout": 1}}
EAST = {"site_failover_primary": {"urls": ["http://127.0.0.2:9"], "request_timeout": 1}}
OTHERS = {"site_failover_primary": {"urls": ["http://127.0.0.3:9"], "request_timeout": 1}}


@pytest.mark.parametrize(
    ("performers", "control", "refused"),
    [
        (["west_db"], "controller", ""),
        (["west_db"], "west_db", ""),
        (["west_db", "east_db"], "controller", "the play has east_db, west_db, and of two hosts each could"),
        (["west_db", "east_db"], "east_db", "the play has east_db, west_db, and of two hosts each could"),
        (["west_db", "other_db"], "controller", ""),
    ],
)
def test_in_a_window_only_hosts_that_move_the_same_clusters_stand_against_each_other(
    tmp_path: Path, ansible_playbook: Callable[..., PlaybookRun], performers: list[str], control: str, refused: str
) -> None:
    """Its plays have the control host, the implicit localhost, and in a plan all hosts that plan anything."""
    own = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
    hosts: dict[str, Any] = {
        "west_db": {**WEST, "site_failover_old_primary": EAST["site_failover_primary"]},
        "east_db": {**EAST, "site_failover_old_primary": WEST["site_failover_primary"]},
        "other_db": {**OTHERS, "site_failover_old_primary": {"urls": ["http://127.0.0.4:9"], "request_timeout": 1}},
        "controller": None,
    }
    children = {"control": {"hosts": {control: None}}}
    inventory = write_yaml(tmp_path / "hosts.yml", {"all": {"vars": own, "hosts": hosts, "children": children}})
    task = {
        "name": "Perform",
        "ansible.builtin.include_role": {"name": "lowtide.ops.site_failover"},
        "vars": {"window_id": "planned"},
        "when": f"inventory_hostname in {performers}",
    }
    play = {"hosts": [*hosts, "localhost"], "gather_facts": False, "tasks": [task]}
    done = ansible_playbook([play], "-i", str(inventory))
    said = " ".join(done.stdout.split())
    assert (FIRST["site_failover"] in said) == (not refused), said
    assert refused in said


def test_the_playbook_says_first_that_one_cluster_takes_over(
    tmp_path: Path, ansible_playbook: Callable[..., PlaybookRun]
) -> None:
    """Also where one of the hosts lacks its connection, of which one would read else."""
    own = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
    hosts = {"west_db": {"site_failover_primary": NOWHERE, "site_failover_old_primary": NOWHERE}, "users_db": None}
    tree = {"all": {"vars": own, "children": {"databases": {"hosts": hosts}}}}
    done = ansible_playbook(
        "lowtide.ops.site_failover", "-i", str(write_yaml(tmp_path / "hosts.yml", tree)), env={"HOME": str(tmp_path)}
    )
    said = " ".join(done.stdout.split())
    assert done.rc == 2
    assert "the play has users_db, west_db, and of two hosts each could take the primary from the other" in said
    assert "set patroni_connection" not in said


@pytest.mark.parametrize(
    ("role", "inputs", "name"),
    [
        ("site_failover", {**SITE_FAILOVER, "site_failover_smoke_tasks": "/etc/hostname"}, "site_failover_dns_tasks"),
        ("site_failover", SITE_FAILOVER, "site_failover_scale_tasks"),
        ("mysql_connections", CONNECTIONS, "mysql_connections_restart_tasks"),
    ],
)
@pytest.mark.parametrize("path", ["/nowhere/tasks.yml", "tasks/tasks.yml"])
def test_a_task_file_that_is_not_there_is_refused_first(
    perform: Callable[..., str], role: str, inputs: dict[str, Any], name: str, path: str
) -> None:
    """Not when a site has been fenced; a relative path leads elsewhere in each playbook."""
    said = perform(role, ["db"], **inputs, **{name: path})
    assert f"{name} is {path}, which is not the absolute path of a file on the controller. Give one" in said
    assert FIRST[role] not in said


def test_a_task_file_that_is_there_is_in_nobody_s_way(perform: Callable[..., str], tmp_path: Path) -> None:
    """The role goes on to the systems, which do not answer here."""
    path = write_yaml(tmp_path / "tasks.yml", [])
    for role, inputs, name in (
        ("site_failover", SITE_FAILOVER, "site_failover_scale_tasks"),
        ("mysql_connections", CONNECTIONS, "mysql_connections_restart_tasks"),
    ):
        assert FIRST[role] in perform(role, ["db"], **inputs, **{name: str(path)})


def test_what_restores_looks_where_backups_are_made(
    tmp_path: Path, ansible_playbook: Callable[..., PlaybookRun]
) -> None:
    """Inputs that say where a backup is are those of the role that made it, where the inventory has these only."""
    made = {
        "backup_prefix": "team/shop",
        "mysql_backup_database": "orders",
        "mysql_backup_prefix": "mysql",
        "mysql_backup_server": "m1",
        "pgbackrest_backup_stanza": "main",
        "pgbackrest_backup_repository": 2,
        "pgbackrest_backup_config": "/etc/other.conf",
    }
    expected = {
        "health_prefix": "team/shop",
        "restore_prefix": "team/shop",
        "restore_drill_prefix": "team/shop",
        "corruption_triage_prefix": "team/shop",
        "mysql_restore_database": "orders",
        "mysql_restore_prefix": "mysql",
        "mysql_restore_server": "m1",
        "pgbackrest_restore_drill_stanza": "main",
        "pgbackrest_restore_drill_repository": 2,
        "pgbackrest_restore_drill_config": "/etc/other.conf",
    }
    roles = ["health", "restore", "restore_drill", "corruption_triage", "mysql_restore", "pgbackrest_restore_drill"]
    values = "{{ dict(names | zip(names | map('extract', vars))) | to_json }}"
    write = {"ansible.builtin.copy": {"content": values, "dest": str(tmp_path / "values"), "mode": "0600"}}
    play = {
        "hosts": "localhost",
        "gather_facts": False,
        "vars": {**made, "names": list(expected), "ansible_python_interpreter": sys.executable},
        "vars_files": [str(CHECKOUT / f"roles/{role}/defaults/main.yml") for role in roles],
        "tasks": [write],
    }
    run = ansible_playbook([play])
    assert run.rc == 0, run.stdout
    assert json.loads((tmp_path / "values").read_text(encoding="utf-8")) == expected


@pytest.mark.parametrize(
    ("assumed", "declared", "words"),
    [
        (["restore"], {}, "host controller: it declares nothing whose health could be checked"),
        (["restore"], {"db": {"postgresql_connection": SERVER}}, ""),
        ([], {"db": {"postgresql_connection": SERVER}}, "[db]: FAILED"),
        (
            ["restore"],
            {"db": {"postgresql_connection": SERVER}, "controller": {"health_checks": ["workloads"]}},
            "host controller: variable health_checks",
        ),
    ],
    ids=["nothing is declared", "on the host of the database", "and that is looked at", "and the other is mistaken"],
)
def test_health_after_a_recovery_looks_where_something_is_declared(
    tmp_path: Path,
    ansible_playbook: Callable[..., PlaybookRun],
    assumed: list[str],
    declared: dict[str, dict[str, Any]],
    words: str,
) -> None:
    """On the control host or on that of the database. A rehearsal, which looks at none, refuses as the run would."""
    own = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
    hosts = {name: declared.get(name) for name in ("controller", "db")}
    inventory = write_yaml(tmp_path / "hosts.yml", {"all": {"vars": own, "hosts": hosts}})
    role = {"name": "lowtide.ops.health", "tasks_from": "afterwards"}
    task = {"name": "Perform", "ansible.builtin.include_role": role, "vars": {"window_assumed": assumed}}
    done = ansible_playbook([{"hosts": "all", "gather_facts": False, "tasks": [task]}], "-i", str(inventory))
    said = " ".join(done.stdout.split())
    assert done.rc == (2 if words else 0), done.stdout
    assert words in said
    if "controller" not in words:
        assert "controller : ok=" in said
        assert "controller: it declares nothing" not in said
