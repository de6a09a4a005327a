# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The declaration is the only truth: what does not fit it is refused at opening, or fails at closing. Real runs."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from support.fast_window import BEGINNING, END, WINDOW, FastWindow

SAVE = {"name": "save", "role": "save", "hosts": ["databases"]}
QUIESCE = {"name": "quiesce", "role": "quiesce", "hosts": ["workloads"]}
MAINTAIN = {"name": "maintain", "role": "maintain", "hosts": ["databases"]}
RESUME = {"name": "resume", "role": "resume", "reverts": "quiesce"}
VERIFY = {"name": "verify", "role": "verify", "hosts": ["workloads"]}
Steps = list[dict[str, Any]]


@pytest.mark.parametrize(
    ("steps", "words"),
    [
        (
            [{**SAVE, "hosts": ["databasez"]}],
            "step save names databasez, which is neither a group nor a host of this inventory. Did you mean databases?",
        ),
        ([SAVE, SAVE], "step save is declared twice"),
        (
            [{**SAVE, "needs": ["maintain"]}, {**MAINTAIN, "needs": ["save"]}],
            "needs form a circle: save -> maintain -> save",
        ),
        pytest.param(
            [{**SAVE, "closes": "x"}],
            "step save has the unknown key closes. Use reverts instead",
            marks=pytest.mark.sweep,
        ),
        pytest.param(
            [{**SAVE, "serial": 1}],
            "step save has the unknown key serial. Use batches instead",
            marks=pytest.mark.sweep,
        ),
        ([{"name": "save", "role": "save"}], "step save has no hosts"),
        ([{**SAVE, "tasks": "x.yml"}], "step save has both role and tasks"),
        ([{"name": "check", "tasks": "no/such.yml", "hosts": ["db1"]}], "there is no such file"),
        ([{**SAVE, "batches": [["db1"]] * 2}], "host db1 in two batches"),
        (
            [{**SAVE, "name": f"save{number}"} for number in range(25)],
            "are 25 plays, and this playbook has places for 24",
        ),
        ([], "the list is empty"),
        ("save", "an entry has no name"),
    ],
)
def test_a_declaration_that_cannot_hold_is_refused(window: FastWindow, steps: Steps, words: str) -> None:
    played = window.play(window_steps=steps)
    assert played.rc == 2
    assert ": refused (" in played.verdict
    assert words in played.verdict
    assert window.world() == BEGINNING
    assert not (window.folder / "state").exists()


def test_a_site_declares_other_steps_in_another_order_with_five_batches(window: FastWindow) -> None:
    """No playbook to write: one host after the other, a task file for a step, another role on the control host."""
    tiers = [["web1"], "web2", "db1", ["db2"], "controller"]
    check = {"name": "check", "tasks": "tasks/check_room.yml", "batches": tiers, "reads_only": True}
    played = window.play(window_steps=[MAINTAIN, SAVE, check])
    assert played.rc == 0, played.out
    report = window.report()
    assert list(dict.fromkeys(row["step"] for row in report["steps"])) == ["maintain", "save", "check"]
    checked = [row["host"] for row in report["steps"] if row["step"] == "check"]
    assert checked == ["web1", "web2", "db1", "db2", "controller"]
    assert window.world()["db1"]["vacuums"] == 1


def test_the_batches_of_a_reverting_step_are_those_of_what_it_reverts_in_reverse(window: FastWindow) -> None:
    quiesce = {**QUIESCE, "batches": ["web1", "web2"], "hosts": ["workloads"]}
    steps = [quiesce, {**MAINTAIN, "needs": ["quiesce"]}, RESUME]
    assert window.play(window_steps=steps).rc == 0
    order = [(row["step"], row["host"]) for row in window.report()["steps"] if row["step"] != "maintain"]
    assert order == [("quiesce", "web1"), ("quiesce", "web2"), ("resume", "web2"), ("resume", "web1")]


def test_a_task_file_that_fails_is_a_failed_step(window: FastWindow) -> None:
    check = {"name": "room", "tasks": "tasks/check_room.yml", "hosts": ["databases"], "reads_only": True}
    steps = [QUIESCE, check, {**MAINTAIN, "needs": ["quiesce", "room"]}, RESUME]
    played = window.play(window_steps=steps, room_missing_on="db1")
    assert ": failed_reverted (" in played.verdict
    assert "room on db1: Enough room on the disk: db1 has no room" in played.verdict
    assert window.world()["db2"] == BEGINNING["db2"]
    assert window.world()["web1"] == {"replicas": 3}


def test_a_plain_step_that_is_needed_must_be_done_on_every_host(window: FastWindow) -> None:
    """It was planned and is not due on one host, and is done on the other."""
    window.write({"db1": {"dead": 100, "backup_age": 0}})
    steps = [{**SAVE, "plan": True}, {**MAINTAIN, "needs": ["save"]}]
    assert window.play(window_steps=steps).rc == 0
    assert window.world()["db1"]["vacuums"] == 1
    assert "backups" not in window.world()["db1"]


def test_a_planned_role_that_gives_no_result_is_refused(window: FastWindow) -> None:
    played = window.play(window_steps=[{**MAINTAIN, "role": "noresult", "plan": True}])
    assert ": refused (" in played.verdict
    assert "noresult: it left no result, so whether the step is due is unknown" in played.verdict
    assert "Set the fact noresult_result" in played.verdict
    assert window.world() == BEGINNING


def test_a_role_without_result_that_is_not_planned_is_performed(window: FastWindow) -> None:
    assert window.play(window_steps=[{**MAINTAIN, "role": "noresult"}]).rc == 0
    assert window.world()["db1"]["vacuums"] == 1
    assert window.states() == ["succeeded"]


# -- a playbook of one's own ------------------------------------------------------------------------------------


def test_a_playbook_of_ones_own_with_plain_plays_between(window: FastWindow) -> None:
    plain = {
        "name": "Mine",
        "hosts": "db1",
        "gather_facts": False,
        "tasks": [{"name": "Hello", "debug": {"msg": "mine"}}],
    }
    own = window.write_playbook("save", plain, "quiesce", "maintain", "resume", "verify")
    played = window.play(playbook=own)
    assert played.rc == 0, played.out
    assert "msg: mine" in played.out
    assert window.world() == END


@pytest.mark.parametrize(
    ("plays", "cause"),
    [
        pytest.param(
            ("save", "maintain", "resume", "verify"),
            "it comes after that of quiesce|quiesce before maintain",
            marks=pytest.mark.sweep,
        ),
        (("save", "quiesce", "resume", "verify"), "maintain"),
        (("maintain", "save", "quiesce", "resume", "verify"), "window_steps declares save before maintain"),
        pytest.param(
            ("save", "quiesce", "maintain", "resume"),
            "verify on web1: its play was not reached",
            marks=pytest.mark.sweep,
        ),
        pytest.param(
            ("save", "quiesce", "maintain", "resmue", "verify"),
            "resmue on controller: step resmue: it is not in",
            marks=pytest.mark.sweep,
        ),
        pytest.param(
            ("sage", "quiesce", "maintain", "resume", "verify"),
            "sage on controller: step sage: it is not in",
            marks=pytest.mark.sweep,
        ),
    ],
    ids=[
        "left_out",
        "needed_left_out",
        "order",
        "last_left_out",
        "reverting_misspelt",
        "unknown",
    ],
)
def test_plays_that_do_not_fit_the_declaration_fail(window: FastWindow, plays: tuple[str, ...], cause: str) -> None:
    played = window.play(playbook=window.write_playbook(*plays))
    assert played.rc == 2
    failures = " ".join(window.failures(1))
    assert any(part in failures for part in cause.split("|")), failures
    assert window.world()["web1"] == {"replicas": 3}, "the closing reverts what has no place of its own"
    assert re.search(r": (refused|failed_reverted) \(", played.verdict)


def test_a_reverting_step_that_is_left_out_is_performed_by_the_closing(window: FastWindow) -> None:
    """It fails the run, and the next one of the whole declaration ends well."""
    assert window.play(playbook=window.write_playbook("save", "quiesce", "maintain")).rc == 2
    assert "resume on web1: its play was not reached" in " ".join(window.failures(1))
    assert window.world()["web1"] == {"replicas": 3}
    assert window.play(playbook=WINDOW).rc == 0
    assert window.world()["web1"] == {"replicas": 3}


def step_play(hosts: str, **keywords: Any) -> dict[str, Any]:
    """A play of the step maintain that somebody wrote without the playbook step."""
    role = {"name": "lowtide.ops.window", "tasks_from": "step", "rolespec_validate": False}
    tasks = [{"name": "Step", "import_role": role, "vars": {"window_step": "maintain"}}]
    return {"name": "Maintain", "hosts": hosts, "gather_facts": False, "tasks": tasks, **keywords}


@pytest.mark.parametrize(
    ("play", "cause"),
    [
        (step_play("databases", serial=1), "it has serial, and Ansible ends a run whose batch is lost"),
        pytest.param(
            step_play("databases:control", strategy="free"), "it runs with strategy free", marks=pytest.mark.sweep
        ),
        pytest.param(
            step_play("db1:control"), "its hosts differ from those that window_steps declares", marks=pytest.mark.sweep
        ),
        (step_play("databases"), "with the control host, by controller"),
    ],
    ids=["serial", "strategy", "hosts", "no_control"],
)
def test_a_play_of_a_step_that_differs_from_its_declaration_is_refused(
    window: FastWindow, play: dict[str, Any], cause: str
) -> None:
    steps = [QUIESCE, {**MAINTAIN, "needs": ["quiesce"]}, RESUME]
    own = window.write_playbook("quiesce", play, "resume")
    played = window.play(playbook=own, window_steps=steps)
    assert played.rc == 2
    assert cause in " ".join(window.failures(1))
    assert ": failed_reverted (" in played.verdict
    assert "vacuums" not in window.world()["db1"]
    assert window.world()["web1"] == {"replicas": 3}


def test_an_empty_control_group_is_named(window: FastWindow) -> None:
    inventory = window.folder / "inventory.yml"
    inventory.write_text("all: {hosts: {controller: {ansible_connection: local}}, children: {control: {}}}\n")
    played = window.play(inventory=inventory)
    assert played.rc == 2
    assert "No first item" not in played.out
    assert "it was not opened in this run" in " ".join(played.out.split())
    assert not (window.folder / "state").exists()


@pytest.mark.parametrize("name", [pytest.param("weekly@prod", marks=pytest.mark.sweep), "weekly maintenance / ß"])
def test_any_name_can_be_resumed(window: FastWindow, name: str) -> None:
    steps = [SAVE, MAINTAIN]
    assert window.play(window_name=name, window_steps=steps, fail_maintain="db1").rc == 2
    assert window.play(window_name=name, window_steps=steps).rc == 0
    assert {host: window.world()[host] for host in ("db1", "db2")} == {host: END[host] for host in ("db1", "db2")}
    assert len(set(window.window_ids())) == 1


def test_a_single_procedure_prints_its_summary_and_warns_of_a_window(window: FastWindow) -> None:
    play = {
        "name": "Save",
        "hosts": "databases",
        "gather_facts": False,
        "tasks": [
            {
                "name": "Save",
                "import_role": {"name": "lowtide.ops.window", "tasks_from": "procedure"},
                "vars": {"window_procedure": "save"},
            }
        ],
    }
    alone = window.folder / "save.yml"
    alone.write_text(json.dumps([play]))
    played = window.play(playbook=alone)
    assert played.rc == 0, played.out
    assert "the newest backup is too old" in played.out
    assert "is held by" not in played.out
