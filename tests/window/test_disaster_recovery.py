# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The playbook disaster_recovery is a declaration: what it refuses and composes, killed and run again. Real runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from ansible_collections.lowtide.ops.plugins.module_utils._common.errors import Refusal
from ansible_collections.lowtide.ops.plugins.plugin_utils._window.declaration import Declaration, Inventory
from support.checkout import load_yaml, text
from support.fast_window import BEGINNING, CHECKOUT, END, FastWindow
from support.playbooks import write_yaml
from support.readme import BLOCK

PLAYBOOK = CHECKOUT / "playbooks/disaster_recovery.yml"
LOOK: dict[str, Any] = {"name": "triage", "role": "verify", "hosts": ["db1"], "reads_only": True}
STEPS: list[dict[str, Any]] = [
    LOOK,
    {"name": "shutdown", "role": "quiesce", "hosts": ["workloads"]},
    {
        "name": "restore",
        "role": "maintain",
        "hosts": ["db1"],
        "plan": True,
        "needs": ["shutdown"],
        "irreversible": True,
    },
    {"name": "startup", "role": "resume", "reverts": "shutdown", "in_turn": True},
    {"name": "health", "role": "verify", "hosts": ["controller"], "reads_only": True},
    {"name": "backup", "role": "save", "hosts": ["db1"], "only_after": ["restore"]},
]
OPTIONS: dict[str, Any] = {
    "playbook": PLAYBOOK,
    "disaster_recovery": "restore",
    "disaster_recovery_hosts": ["db1"],
    "disaster_recovery_steps": {"restore": STEPS},
}
CHANGED = ["shutdown", "restore", "startup", "backup"]
WHOLE = {**BEGINNING, "db1": END["db1"], "controller": {}}


@pytest.fixture(autouse=True)
def controller(window: FastWindow) -> None:
    """The control host has a world as well, since health runs there."""
    window.write({"controller": {}})


def list_changed(window: FastWindow, run: int) -> list[str]:
    """The steps that changed something."""
    return list(dict.fromkeys(row["step"] for row in window.report(run)["steps"] if row["changed"]))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"disaster_recovery": ""}, "which is none of failover, restore, site_failover. Nothing has been done."),
        ({"disaster_recovery": "restor"}, "disaster_recovery is restor, which is none of"),
        ({"disaster_recovery_hosts": ["db9"]}, "step restore names db9, which is neither a group nor a host"),
    ],
)
def test_what_is_not_declared_is_refused(window: FastWindow, options: dict[str, Any], words: str) -> None:
    named = "{{ __disaster_recovery_hosts }}"
    steps = [{**step, "hosts": named} if step["name"] == "restore" else step for step in STEPS]
    played = window.play(**{**OPTIONS, "disaster_recovery_steps": {"restore": steps}, **options})
    assert played.rc == 2
    assert words in " ".join(played.out.split())
    assert window.world() == {**BEGINNING, "controller": {}}
    assert not (window.folder / "state").exists()


def test_the_databases_are_named_where_there_are_several(window: FastWindow) -> None:
    played = window.play(playbook=PLAYBOOK, disaster_recovery="restore")
    assert played.rc == 2
    assert "disaster_recovery_hosts is not set, and the group databases has db1, db2." in " ".join(played.out.split())
    assert not (window.folder / "state").exists()


@pytest.mark.procedure("A24", "B20", "C21")
def test_it_recovers_once(window: FastWindow) -> None:
    """Rehearsed without a write, done in order, the site's own window_steps not touched, and then nothing is due."""
    rehearsal = window.play("--check", **OPTIONS)
    assert rehearsal.rc == 0, rehearsal.out
    assert "cannot be undone" in rehearsal.out
    assert not (window.folder / "state").exists()
    assert window.world() == {**BEGINNING, "controller": {}}

    done = window.play(**OPTIONS)
    assert done.rc == 0, done.out
    assert window.window_ids()[0].startswith("disaster_recovery_restore@")
    assert list_changed(window, 1) == CHANGED
    assert window.world() == WHOLE

    again = window.play(**OPTIONS)
    assert again.rc == 0, again.out
    assert window.states() == ["succeeded", "no_changes"]
    assert [step for step, _host in window.started_steps(2)] == ["triage", "health"]
    assert window.world() == WHOLE


@pytest.mark.parametrize(
    "point",
    [
        "between:db1:dead rows above the limit:9",
        pytest.param("after:db1:dead rows above the limit:9", marks=pytest.mark.sweep),
        pytest.param("after:web1:workers stop:9", marks=pytest.mark.sweep),
        pytest.param("between:web2:workers start:9", marks=pytest.mark.sweep),
        pytest.param("between:db1:the newest backup is too old:9", marks=pytest.mark.sweep),
    ],
)
def test_killed_it_is_finished_by_the_same_command(window: FastWindow, point: str) -> None:
    """Also where the recovery itself was done already: the backup after it is not forgotten."""
    assert window.play(env={"WORLD_KILL": point}, **OPTIONS).rc == -9
    done = window.play(**OPTIONS)
    assert done.rc == 0, done.out
    assert window.world() == WHOLE
    assert len(set(window.window_ids())) == 1
    resumed = [step for step, _host in window.started_steps(2)]
    assert "restore" not in resumed or "startup" not in resumed[: resumed.index("restore")]


@pytest.mark.procedure("A26", "A27")
def test_what_is_declared_for_each_recovery_holds() -> None:
    """Its references, its order, what cannot be undone, and that nothing is recovered on a host that is not named."""
    (first, _second) = load_yaml(PLAYBOOK.relative_to(CHECKOUT))
    declared = first["vars"]["__disaster_recovery_defaults"]
    inventory = Inventory({"control": ["c"], "databases": ["d", "e"], "workloads": ["w"]}, "c", lambda _path: None)
    for name, steps in declared.items():
        text = json.dumps(steps).replace('"{{ __disaster_recovery_hosts }}"', '["d"]')
        text = text.replace('"{{ __disaster_recovery_workloads }}"', '["workloads"]')
        text = text.replace('"{{ __disaster_recovery_looked_at }}"', '["control", "d"]')
        declaration = Declaration.from_entries(json.loads(text), inventory)
        recovery = declaration[name]
        assert recovery.irreversible
        assert recovery.plan is (name != "site_failover"), "its last tasks are done again by a run that resumes"
        assert "e" not in {host for step in declaration for host in step.hosts}
        assert declaration["backup"].only_after == ((name,) if recovery.plan else ())
        assert [step.name for step in declaration][-2:] == ["backup", "health"]
        assert declaration["health"].hosts == ("c", "d"), "where a database is declared, health looks at it"
    assert list(declared) == ["restore", "failover", "site_failover"]
    with pytest.raises(Refusal):
        Declaration.from_entries([{"name": "restore", "role": "r", "hosts": ["x"]}], inventory)


def write_inventory(folder: Path, **groups: list[str]) -> Path:
    """An inventory with the control host and these groups."""
    children = {name: {"hosts": dict.fromkeys(hosts)} for name, hosts in groups.items()}
    children["control"] = {"hosts": {"controller": None}}
    own = {"ansible_connection": "local", "ansible_python_interpreter": "{{ ansible_playbook_python }}"}
    return write_yaml(folder / "hosts.yml", {"all": {"vars": own, "children": children}})


def compose(window: FastWindow, inventory: Path, **variables: Any) -> dict[str, Any]:
    """What the window is given by the playbook, evaluated by Ansible."""
    (first, _second) = load_yaml(PLAYBOOK.relative_to(CHECKOUT))
    names = ["window_name", "window_steps", "restore_state", "restore_sessions", "mysql_restore_state"]
    values = "{{ dict(names | zip(names | map('extract', vars))) | to_json }}"
    write = {"ansible.builtin.copy": {"content": values, "dest": str(window.folder / "values"), "mode": "0600"}}
    play = {"hosts": "control", "gather_facts": False, "vars": {**first["vars"], "names": names}, "tasks": [write]}
    playbook = window.folder / "compose.yml"
    playbook.write_text(yaml.safe_dump([play], sort_keys=False), encoding="utf-8")
    played = window.play(playbook=playbook, inventory=inventory, **variables)
    assert played.rc == 0, played.out
    return dict(json.loads((window.folder / "values").read_text(encoding="utf-8")))


def declare(composed: dict[str, Any], **groups: list[str]) -> Declaration:
    """The steps as the window reads them."""
    inventory = Inventory({"control": ["controller"], **groups}, "controller", lambda _path: None)
    return Declaration.from_entries(composed["window_steps"], inventory)


def test_a_site_without_workloads_says_that_none_are_stopped(window: FastWindow) -> None:
    """The inventory of the README: refused with what is to be declared, and then a restore is composed without them."""
    groups = {"databases": ["shop_db"]}
    inventory = write_inventory(window.folder, **groups)
    refused = window.play(playbook=PLAYBOOK, inventory=inventory, disaster_recovery="restore")
    assert refused.rc == 2
    said = " ".join(refused.out.split())
    assert "the group workloads has no host, so that nothing would be stopped" in said
    assert "disaster_recovery_workloads: [shop_workers], or declare []" in said
    assert not (window.folder / "state").exists()

    chosen = {"disaster_recovery": "restore", "disaster_recovery_hosts": ""}
    composed = compose(window, inventory, disaster_recovery_workloads=[], **chosen)
    declaration = declare(composed, **groups)
    assert [step.name for step in declaration] == ["triage", "restore", "backup", "health"]
    assert declaration["restore"].needs == ()
    assert declaration["restore"].hosts == ("shop_db",)

    groups["workers"] = ["w1"]
    inventory = write_inventory(window.folder, **groups)
    declaration = declare(compose(window, inventory, disaster_recovery_workloads=["workers"], **chosen), **groups)
    assert [step.name for step in declaration][:4] == ["triage", "shutdown", "restore", "startup"]
    assert declaration["shutdown"].hosts == ("w1",)
    assert declaration["restore"].needs == ("shutdown",)


@pytest.mark.parametrize(
    ("answer", "stopped"),
    [
        (None, ("w1",)),
        ("", ("w1",)),
        ("w2", ("w2",)),
        ("w1, w2", ("w1", "w2")),
        (["workloads", "w2"], ("w1", "w2")),
        ([], None),
        ("[]", None),
    ],
)
def test_only_an_empty_list_says_that_nothing_is_stopped(
    window: FastWindow, answer: list[str] | str | None, stopped: tuple[str, ...] | None
) -> None:
    """A blank answer of a survey is an empty text or null, and none given."""
    groups = {"databases": ["shop_db"], "workloads": ["w1"], "others": ["w2"]}
    inventory = write_inventory(window.folder, **groups)
    chosen = {"disaster_recovery": "restore", "disaster_recovery_hosts": "shop_db"}
    declaration = declare(compose(window, inventory, disaster_recovery_workloads=answer, **chosen), **groups)
    assert ("shutdown" in [step.name for step in declaration]) == (stopped is not None)
    if stopped is not None:
        assert declaration["shutdown"].hosts == stopped
        assert declaration["restore"].needs == ("shutdown",)
    assert declaration["health"].hosts == ("controller", "shop_db")


@pytest.mark.parametrize("answer", ["", None])
def test_a_blank_answer_does_not_say_that_nothing_is_stopped(window: FastWindow, answer: str | None) -> None:
    """Of a survey, where the group workloads has no host."""
    inventory = write_inventory(window.folder, databases=["shop_db"])
    played = window.play(
        playbook=PLAYBOOK, inventory=inventory, disaster_recovery="restore", disaster_recovery_workloads=answer
    )
    assert played.rc == 2
    assert "the group workloads has no host, so that nothing would be stopped" in " ".join(played.out.split())
    assert not (window.folder / "state").exists()


def test_a_list_of_the_site_names_its_own_hosts(window: FastWindow) -> None:
    """Several databases, of which it uses none, do not have to be told apart for it."""
    played = window.play(**{name: value for name, value in OPTIONS.items() if name != "disaster_recovery_hosts"})
    assert played.rc == 0, played.out
    assert list_changed(window, 1) == CHANGED


def test_a_recovery_of_mariadb_as_documented_brings_the_backup_into_place(window: FastWindow) -> None:
    """The list that the page prints, with what the playbook itself sets."""
    (printed,) = [
        match[1]
        for match in BLOCK.finditer(text(Path("docs/disaster-recovery.md")))
        if match[1].startswith("disaster_recovery_steps:")
    ]
    groups = {"mysql_databases": ["orders_db"], "workloads": ["w1"]}
    inventory = write_inventory(window.folder, **groups)
    composed = compose(window, inventory, disaster_recovery="mysql", **yaml.safe_load(printed))
    assert composed["mysql_restore_state"] == "in_place"
    assert composed["window_name"] == "disaster_recovery_mysql"
    declaration = declare(composed, **groups)
    assert [step.name for step in declaration] == ["shutdown", "mysql_restore", "startup", "health"]
    assert declaration["mysql_restore"].needs == ("shutdown",)


def test_a_blank_answer_names_no_database(window: FastWindow) -> None:
    """Of a survey, where there are several."""
    played = window.play(playbook=PLAYBOOK, disaster_recovery="site_failover", disaster_recovery_hosts="")
    assert played.rc == 2
    said = " ".join(played.out.split())
    assert "disaster_recovery_hosts is not set, and the group databases has db1, db2." in said
    assert "Name the one that is to take over" in said
