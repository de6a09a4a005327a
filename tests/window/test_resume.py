# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""After a run that did not end well: resumed, with the journal lost, restored instead. And windows side by side."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from dataclasses import replace
from typing import Any

import pytest

from ansible_collections.lowtide.ops.plugins.plugin_utils._window.events import StepReverted, WindowOpened
from ansible_collections.lowtide.ops.plugins.plugin_utils._window.processes import wait_for_end
from ansible_collections.lowtide.ops.plugins.plugin_utils._window.store_file import FileStore
from support.fast_window import BEGINNING, END, RESTORE, STATUS, FastWindow, Played

STOPPED = {"replicas": 0, "before": 3}
KILL_IN_MAINTENANCE = {"WORLD_KILL": f"before:db1:dead rows above the limit:{int(signal.SIGKILL)}"}
PLAIN = [
    {"name": "check", "role": "verify", "hosts": ["databases"], "reads_only": True},
    {"name": "save", "role": "save", "hosts": ["databases"]},
    {"name": "maintain", "role": "maintain", "hosts": ["databases"], "plan": True},
]


def kill_in_maintenance(window: FastWindow, **variables: Any) -> Played:
    """A run that is killed while the workers are stopped."""
    killed = window.play(env=KILL_IN_MAINTENANCE, **variables)
    assert killed.rc != 0, "it was not killed"
    assert window.world()["web1"] == STOPPED
    return killed


def end_its_time(window: FastWindow) -> None:
    """Rewrite the journals so that their occurrences ended a second ago."""
    store = window.store
    assert isinstance(store, FileStore)
    for name in store.list_occurrences():
        events = [
            replace(event, ends=time.time() - 1) if isinstance(event, WindowOpened) else event
            for event in store.load(name)
        ]
        store.copy(name, events)


def test_readers_run_again_and_plans_are_made_anew_on_a_resume(window: FastWindow) -> None:
    assert window.play(window_steps=PLAIN, fail_maintain="db2").rc == 2
    again = window.play(window_steps=PLAIN)
    assert again.rc == 0
    assert len(set(window.window_ids())) == 1
    *checks, last = window.started_steps(2)
    assert sorted(checks) == [("check", "db1"), ("check", "db2")], "hosts of one step start in any order"
    assert last == ("maintain", "db2")
    assert window.skips(2)[("save", "db1")].startswith("done at")
    assert window.skips(2)[("maintain", "db1")] == "as it should be"


@pytest.mark.sweep
def test_an_occurrence_is_not_resumed_after_its_end(window: FastWindow) -> None:
    """Yesterday's failed night must not make tonight's backup look done."""
    assert window.play(window_steps=PLAIN, fail_maintain="db1").rc == 2
    end_its_time(window)
    window.write({"db1": {"dead": 100, "backup_age": 5}})
    again = window.play(window_steps=PLAIN)
    assert again.rc == 0
    assert len(set(window.window_ids())) == 2
    assert ("save", "db1") in window.started_steps(2)


def test_a_given_start_is_refused_after_its_end(window: FastWindow) -> None:
    assert window.play(window_steps=PLAIN, window_start="tonight", fail_maintain="db1").rc == 2
    end_its_time(window)
    again = window.play(window_steps=PLAIN, window_start="tonight")
    assert ": refused (" in again.verdict
    assert "its time was over at" in again.verdict


def test_an_end_that_is_over_does_not_hold_back_reverting_steps(window: FastWindow) -> None:
    """Killed with the workers at 0; the occurrence that is opened after its end reverts it and does what is due."""
    kill_in_maintenance(window)
    end_its_time(window)
    again = window.play()
    assert again.rc == 0, again.out
    assert "not reverted by a run before: quiesce on web1, quiesce on web2" in " ".join(again.out.split())
    assert window.world() == END
    order = window.started_steps(2)
    assert (
        order.index(("resume", "web1")) < order.index(("save", "db1"))
        if ("save", "db1") in order
        else order[0][0] == "resume"
    )
    reverted = [event for event in window.events() if isinstance(event, StepReverted)]
    assert {event.key for event in reverted} == {("quiesce", "web1"), ("quiesce", "web2")}
    assert "Nothing is left to revert" in " ".join(window.play(playbook=STATUS).out.split())


@pytest.mark.parametrize(
    ("first", "second", "refused"),
    [
        ({"save_keep": 3}, {"save_keep": 4}, True),
        (
            {"save_connection": {"passfile": "/tmp/a", "login_password": "x", "system_identifier": "1"}},
            {"save_connection": {"passfile": "/tmp/b", "login_password": "y", "system_identifier": "1"}},
            False,
        ),
        pytest.param(
            {"save_connection": {"system_identifier": "1"}},
            {"save_connection": {"system_identifier": "2"}},
            True,
            marks=pytest.mark.sweep,
        ),
        pytest.param(
            {"save_s3_connection": {"profile": "a"}},
            {"save_s3_connection": {"profile": "b"}},
            False,
            marks=pytest.mark.sweep,
        ),
        pytest.param({}, {"save_of_a_default": "other"}, True, marks=pytest.mark.sweep),
    ],
    ids=["input", "credentials", "identity", "store", "default_overridden"],
)
def test_what_was_done_counts_only_with_the_same_inputs(
    window: FastWindow, first: dict[str, Any], second: dict[str, Any], refused: bool
) -> None:
    assert window.play(window_steps=PLAIN, fail_maintain="db2", **first).rc == 2
    again = window.play(window_steps=PLAIN, **second)
    assert again.rc == (2 if refused else 0), again.out
    if refused:
        assert "with other inputs" in window.report(2)["cause"]
        assert window.play(window_steps=PLAIN, **first).rc == 0


def test_after_the_journal_is_lost_the_objects_tell(window: FastWindow) -> None:
    """A fresh container, another home, another user: nothing is on record, and the workers are at 0."""
    kill_in_maintenance(window)
    shutil.rmtree(window.folder / "state")
    again = window.play()
    assert again.rc == 0, again.out
    assert window.world() == END


def test_after_the_journal_is_lost_nothing_else_has_to_be_due(window: FastWindow) -> None:
    window.write({"web1": STOPPED, "db1": END["db1"], "db2": END["db2"]})
    played = window.play()
    assert played.rc == 0
    assert ": succeeded (" in played.verdict
    assert window.world()["web1"] == {"replicas": 3}


def test_an_extra_variable_that_looks_like_ours_bends_nothing(window: FastWindow) -> None:
    """The journal is lost and a person wants one step: what is in force is found all the same."""
    window.write({"web1": STOPPED, "db1": END["db1"], "db2": END["db2"]})
    played = window.play(window_step="maintain")
    assert played.rc == 0, played.out
    assert window.world()["web1"] == {"replicas": 3}
    assert window.world()["db1"] == END["db1"]


@pytest.mark.parametrize("strategy", ["free"])
def test_the_way_back_does_not_depend_on_a_setting(window: FastWindow, strategy: str) -> None:
    window.write({"web1": STOPPED})
    restored = window.play(playbook=RESTORE, env={"ANSIBLE_STRATEGY": strategy})
    assert restored.rc == 0, restored.out
    assert window.world()["web1"] == {"replicas": 3}


def test_restore_service_reverts_without_resuming(window: FastWindow) -> None:
    kill_in_maintenance(window)
    restored = window.play(playbook=RESTORE)
    assert restored.rc == 0, restored.out
    world = window.world()
    assert world["web1"] == world["web2"] == {"replicas": 3}
    assert world["db1"]["dead"] == 100
    assert ": succeeded (" in restored.verdict
    again = window.play(playbook=RESTORE)
    assert again.rc == 0
    assert ": no_changes (" in again.verdict
    assert window.play().rc == 0
    assert window.world() == END


def test_restore_service_reverts_every_kind_of_every_window_and_marks_exactly_that(window: FastWindow) -> None:
    """Another window silenced alerts, with steps that this inventory no longer declares."""
    silence = [
        {"name": "silence", "role": "silence", "hosts": ["db1"]},
        {"name": "maintain", "role": "maintain", "hosts": ["db1"], "needs": ["silence"]},
        {"name": "unsilence", "role": "unsilence", "reverts": "silence"},
    ]
    kill_in_maintenance(window)
    hotfix = window.play(window_name="hotfix", window_steps=silence, fail_maintain="db1", fail_unsilence="db1")
    assert ": failed_not_reverted (" in hotfix.verdict
    assert "left not reverted: quiesce on web1, quiesce on web2. Run the playbook restore_service" in " ".join(
        hotfix.out.split()
    )
    partly = window.play(playbook=RESTORE, fail_unsilence="db1")
    assert ": failed_not_reverted (" in partly.verdict
    world = window.world()
    assert world["web1"] == {"replicas": 3}, "one that fails does not hold back the others"
    assert world["db1"]["silence"] is True
    status = " ".join(window.play(playbook=STATUS).out.split())
    assert "Not reverted yet: silence on db1" in status
    assert "Not reverted yet: quiesce" not in status
    restored = window.play(playbook=RESTORE)
    assert restored.rc == 0, restored.out
    assert "silence" not in window.world()["db1"]
    assert "Not reverted yet" not in " ".join(window.play(playbook=STATUS).out.split())


def test_restore_service_works_without_any_journal(window: FastWindow) -> None:
    window.write({"web1": STOPPED})
    checked = window.play("--check", playbook=RESTORE)
    assert checked.rc == 0
    assert window.world()["web1"] == STOPPED
    assert window.play(playbook=RESTORE).rc == 0
    assert window.world()["web1"] == {"replicas": 3}


def test_restore_service_works_with_a_damaged_journal_and_a_broken_declaration(window: FastWindow) -> None:
    kill_in_maintenance(window)
    (journal,) = (window.folder / "state/test/journals").iterdir()
    journal.write_bytes(journal.read_bytes().replace(b'"save"', b'"sage"'))
    damaged = window.play(playbook=RESTORE)
    assert ": failed_not_reverted (" in damaged.verdict, "what else it left in force is not known"
    assert window.world()["web1"] == {"replicas": 3}

    shutil.rmtree(window.folder / "state")
    window.write(BEGINNING)
    kill_in_maintenance(window)
    restored = window.play(playbook=RESTORE, window_steps=[{"name": "broken"}])
    assert ": failed_not_reverted (" in restored.verdict
    assert "What can be read of it, and of journals, is reverted" in " ".join(restored.out.split())
    assert window.world()["web1"] == {"replicas": 3}


def test_restore_service_needs_no_store(window: FastWindow) -> None:
    """The server of the site's store is away, and the container's own directory ends with it."""
    window.write({"web1": STOPPED})
    store = {"postgresql": {"login_host": "127.0.0.1", "login_port": 1, "login_user": "nobody", "login_db": "none"}}
    restored = window.play(
        *("-e", '{"window_store": {}}'),
        playbook=RESTORE,
        window_store=store,
        env={"AWX_ISOLATED_DATA_DIR": str(window.folder)},
    )
    assert restored.rc == 0, restored.out
    assert window.world()["web1"] == {"replicas": 3}
    assert "which is made for one job; what journals elsewhere tell is not known to this run" in " ".join(
        restored.out.split()
    )


# -- side by side -----------------------------------------------------------------------------------------------


def start_and_wait_in_maintenance(window: FastWindow, **variables: Any) -> Any:
    """A window that holds still in its maintenance, with the workers stopped, until the fifo ``go`` is written."""
    world = window.folder / "world"
    os.mkfifo(world / "go")
    process = window.start(maintain_role="orphan", **variables)
    end = time.monotonic() + 300
    while not (world / "started").exists():
        assert process.poll() is None, "it ended before its slow step began"
        assert time.monotonic() < end, "its slow step never began"
        time.sleep(0.05)
    return process


def let_go(window: FastWindow) -> None:
    """Let the slow step end; returns when it reads."""
    (window.folder / "world/go").write_text("go")
    (window.folder / "world/go").unlink()


def test_two_windows_of_a_site_see_each_other(window: FastWindow) -> None:
    """Whatever their names; restore_service too, before it touches anything; a single procedure warns."""
    weekly = start_and_wait_in_maintenance(window)
    stopped = window.world()
    hotfix = window.play(window_name="hotfix")
    assert ": refused (" in hotfix.verdict
    assert f"process {weekly.pid}" in hotfix.verdict
    restored = window.play(playbook=RESTORE)
    assert ": refused (" in restored.verdict
    assert f"process {weekly.pid}" in restored.verdict
    role = {"name": "lowtide.ops.window", "tasks_from": "procedure"}
    tasks = [{"name": "Save", "import_role": role, "vars": {"window_procedure": "verify"}}]
    alone = window.folder / "alone.yml"
    alone.write_text(json.dumps([{"name": "Alone", "hosts": "web1", "gather_facts": False, "tasks": tasks}]))
    procedure = window.play(playbook=alone)
    assert procedure.rc == 0
    assert "is held by" in " ".join(procedure.out.split())
    status = " ".join(window.play(playbook=STATUS).out.split())
    assert f"process {weekly.pid}" in status
    assert "running; no new step starts after" in status
    assert window.world() == stopped
    let_go(window)
    assert window.finish(weekly).rc == 0
    assert window.world() == END


def test_a_run_whose_lease_passed_on_is_ended_with_its_step(window: FastWindow) -> None:
    """By the process that renews; what ansible-playbook does on SIGTERM is the same in each version of ansible-core."""
    process = start_and_wait_in_maintenance(window, env={"FAST_RENEWAL": "3"})
    pid = int((window.folder / "world/started").read_text())
    lease = window.folder / "state/test/lease"
    held = json.loads(lease.read_text())
    other = {**held["owner"], "user": "bob", "boot": "another"}
    lease.write_text(json.dumps({**held, "token": held["token"] + 1, "owner": other}))
    played = window.finish(process)
    assert played.rc == -signal.SIGTERM
    assert f"this run held it with token {held['token']}, and now bob@" in " ".join(played.out.split())
    assert wait_for_end(pid, 120), "its step goes on"
    assert window.world()["db1"]["dead"] == 100


def test_a_run_waits_for_the_orphan_of_a_killed_one(window: FastWindow) -> None:
    killed = start_and_wait_in_maintenance(window)
    killed.kill()
    killed.wait()
    again = window.start(maintain_role="orphan")
    let_go(window)
    played = window.finish(again)
    assert played.rc == 0, played.out
    written = (window.folder / "world/db1.json").stat().st_mtime
    opened = [event.at for event in window.events() if isinstance(event, WindowOpened)]
    assert len(opened) == 2
    assert opened[1] >= written, "the second run did not wait for the orphan"
    assert window.world() == END


ROUNDS = 100 if os.environ.get("LOWTIDE_EXHAUSTIVE") == "1" else 1
SAVE = [{"name": "save", "role": "save", "hosts": ["databases"]}]


@pytest.mark.parametrize("names", [("fast", "fast"), ("fast", "other")], ids=["same_name", "other_name"])
@pytest.mark.parametrize("_round", range(ROUNDS))
def test_two_controllers_at_once(window: FastWindow, names: tuple[str, str], _round: int) -> None:
    """Exactly one runs; LOWTIDE_EXHAUSTIVE=1 tries it a hundred times for each."""
    both = [window.start(window_name=name, window_steps=SAVE) for name in names]
    played = [window.finish(process) for process in both]
    assert sorted(run.rc for run in played) == [0, 2], played[0].out + played[1].out
    loser = next(run for run in played if run.rc)
    winner = next(process for process in both if process.returncode == 0)
    assert "refused" in loser.verdict
    assert f"process {winner.pid}" in loser.verdict
    assert window.world()["db1"] == {"dead": 100, "backup_age": 0, "backups": 1}
    assert window.states() == ["succeeded"]
