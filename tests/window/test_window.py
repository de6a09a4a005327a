# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The fast window with real ansible-playbook runs: need, failure, lost hosts, refusals, check mode."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from support.fast_window import BEGINNING, END, FAST, STATUS, TASKS, FastWindow

WEBS_AS_BEFORE = {"web1": {"replicas": 3}, "web2": {"replicas": 3}}


def webs(window: FastWindow) -> dict[str, Any]:
    """The workloads' part of the world."""
    return {host: values for host, values in window.world().items() if host.startswith("web")}


def vacuums(window: FastWindow) -> dict[str, int]:
    """How often each database was maintained."""
    return {host: values.get("vacuums", 0) for host, values in window.world().items() if host.startswith("db")}


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A loopback port on which nobody listens, held so that nobody else takes it."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        yield holder.getsockname()[1]


@pytest.mark.every_version
def test_succeeded_then_no_changes(window: FastWindow) -> None:
    first = window.play()
    assert first.rc == 0, first.out
    assert first.ran == TASKS
    assert first.verdict.startswith("fast@")
    assert ": succeeded (" in first.verdict
    assert window.world() == END
    report = window.report()
    assert report["state"] == "succeeded"
    assert list(report["durations"]) == ["save", "quiesce", "maintain", "resume", "verify"]
    order = [(row["step"], row["host"]) for row in report["steps"] if row["step"] == "maintain"]
    assert order == [("maintain", "db1"), ("maintain", "db2")], "batches came one after the other"
    assert "http" not in window.page()
    assert "workers stop" in window.page()
    status = window.play(playbook=STATUS)
    assert status.rc == 0
    assert "not held by anybody" in " ".join(status.out.split())
    assert "succeeded at" in status.out

    second = window.play()
    assert second.rc == 0
    assert ": no_changes (" in second.verdict
    assert "changed=1" not in second.out
    assert window.world() == END
    assert window.states() == ["succeeded", "no_changes"]
    assert len(set(window.window_ids())) == 2, "a finished occurrence is not resumed"
    # Goal P2: module tasks (AnsiballZ starts) of a window that finds nothing due: none of the window's own.
    assert "[world" not in second.out
    assert window.started_steps(2) == []


@pytest.mark.parametrize(
    ("variables", "cause"),
    [
        ({"fail_quiesce": "web1"}, "quiesce on web1: Stop the workers"),
        pytest.param({"fail_quiesce": "web1,web2"}, "quiesce on web", marks=pytest.mark.sweep),
        ({"fail_maintain": "db1"}, "maintain on db1: Vacuum: db1: told to fail"),
        pytest.param(
            {"quiesce_role": "reraise"}, "Raise it again: raised again: the first error", marks=pytest.mark.sweep
        ),
        (
            {"maintain_role": "once", "maintain_plan": False},
            "maintain on db1: Announce it once, for all: the chat server is down",
        ),
        pytest.param(
            {"maintain_role": "handler_fails", "maintain_plan": False},
            "maintain on db1: Fail in a handler: a handler failed",
            marks=pytest.mark.sweep,
        ),
    ],
    ids=["one_host", "all_hosts", "first_batch", "reraised", "run_once", "handler"],
)
def test_a_failure_is_recorded_later_steps_are_skipped_and_what_is_in_force_is_reverted(
    window: FastWindow, variables: dict[str, Any], cause: str
) -> None:
    played = window.play(**variables)
    assert played.rc == 2
    assert ": failed_reverted (" in played.verdict
    report = window.report()
    assert cause in report["cause"]
    assert webs(window) == WEBS_AS_BEFORE
    assert vacuums(window)["db2"] == 0
    assert window.states() == ["failed_reverted"]
    assert window.skips(1)[("maintain", "db2")].startswith("skipped after the failure of")


@pytest.mark.parametrize(
    ("role", "cause"),
    [
        ("fatal", "role fatal: it sets any_errors_fatal"),
        pytest.param("endhost", "role endhost: it has meta: end_host", marks=pytest.mark.sweep),
        pytest.param("endplay", "role endplay: it has meta: end_play", marks=pytest.mark.sweep),
        ("unloadable", "nobody.has.this"),
    ],
)
def test_a_role_that_would_end_the_run_is_refused_at_opening(window: FastWindow, role: str, cause: str) -> None:
    played = window.play(maintain_role=role)
    assert played.rc == 2
    assert ": refused (" in played.verdict
    assert cause in played.verdict
    assert window.world() == BEGINNING


def test_roles_as_people_write_them_are_performed(window: FastWindow) -> None:
    """One that rescues itself, one whose files include files beside them, one with a handler; each planned before."""
    on = {"db1": "rescued", "db2": "nested", "web1": "handled"}
    steps = [{"name": role, "role": role, "hosts": [host], "plan": True} for host, role in on.items()]
    played = window.play(window_steps=steps)
    assert played.rc == 0, played.out
    assert ": succeeded (" in played.verdict
    done = {"dead": 0, "vacuums": 1}
    assert window.world() == {
        "db1": {**BEGINNING["db1"], **done},
        "db2": {**BEGINNING["db2"], **done},
        "web1": {**BEGINNING["web1"], **done, "told": True},
        "web2": BEGINNING["web2"],
    }


def test_planning_runs_no_handler_for_real(window: FastWindow) -> None:
    played = window.play(maintain_role="handled", fail_quiesce="web1")
    assert ": failed_reverted (" in played.verdict
    assert all("told" not in values for values in window.world().values())


def test_a_handler_that_fails_after_its_role_does_not_end_the_run(window: FastWindow) -> None:
    """Ansible would run it at the end of the play, past every rescue: on the control host that ends the run."""
    steps = [
        {"name": "quiesce", "role": "quiesce", "hosts": ["workloads"]},
        {"name": "maintain", "role": "handler_fails", "hosts": ["control"], "needs": ["quiesce"]},
        {"name": "resume", "role": "resume", "reverts": "quiesce"},
    ]
    window.write({"controller": {"dead": 1}})
    played = window.play(window_steps=steps, fail_after_notify=True)
    assert played.rc == 2
    assert ": failed_reverted (" in played.verdict, played.out
    failures = " ".join(window.failures(1))
    assert "the role failed as well" in failures
    assert "a handler failed" in failures
    assert webs(window) == WEBS_AS_BEFORE


def test_a_reverting_step_that_fails_is_told_and_the_next_run_reverts(window: FastWindow) -> None:
    played = window.play(fail_resume="web1")
    assert played.rc == 2
    assert ": failed_not_reverted (" in played.verdict
    assert window.report()["not_reverted"] == ["quiesce on web1"]
    assert window.world()["web1"] == {"replicas": 0, "before": 3}
    assert window.world()["web2"] == {"replicas": 3}
    status = " ".join(window.play(playbook=STATUS).out.split())
    assert "Not reverted yet: quiesce on web1" in status
    again = window.play()
    assert again.rc == 0
    assert window.world() == END
    assert window.states() == ["failed_not_reverted", "succeeded"]


@pytest.mark.parametrize("vanishing", ["web1", pytest.param("web1,web2", marks=pytest.mark.sweep)], ids=["one", "all"])
def test_hosts_that_become_unreachable_in_a_step(window: FastWindow, closed_port: int, vanishing: str) -> None:
    played = window.play(quiesce_role="vanish", vanishing=vanishing, closed_port=closed_port, window_connect_timeout=1)
    assert played.rc in {2, 4}
    assert ": failed_not_reverted (" in played.verdict
    report = window.report()
    # Which of several is missed first is chance.
    assert re.match(rf"quiesce on ({vanishing.replace(',', '|')}): it was started and never finished", report["cause"])
    # Each lost host was tried once more by the reverting step, and the maintenance that needed the stop never began.
    retried = {
        row["host"]: row["summary"] for row in report["steps"] if row["step"] == "resume" and row["outcome"] == "failed"
    }
    assert set(retried) == set(vanishing.split(","))
    assert all("timed out" in words for words in retried.values())
    assert vacuums(window) == {"db1": 0, "db2": 0}
    assert webs(window) == WEBS_AS_BEFORE
    again = window.play()
    assert again.rc == 0
    assert window.world() == END


def test_a_batch_that_is_lost_whole_does_not_end_the_run(window: FastWindow, closed_port: int) -> None:
    """With serial, Ansible ends the run there, with the workers at 0."""
    lost: dict[str, Any] = {
        "maintain_role": "vanish",
        "maintain_plan": False,
        "vanishing": "db1",
        "closed_port": closed_port,
    }
    played = window.play(**lost, window_connect_timeout=1)
    assert played.rc in {2, 4}
    assert ": failed_reverted (" in played.verdict, played.out
    assert webs(window) == WEBS_AS_BEFORE
    assert vacuums(window) == {"db1": 0, "db2": 0}
    assert window.report()["cause"].startswith("maintain on db1: it was started and never finished")
    assert window.skips(1)[("maintain", "db2")].startswith("skipped after")


@pytest.mark.parametrize("last", [False, True], ids=["between", "last"])
def test_a_control_host_that_is_lost_does_not_end_the_run(window: FastWindow, closed_port: int, last: bool) -> None:
    """A task that is delegated to a host that cannot be reached makes the delegating host unreachable, past any
    rescue."""
    quiesce = {"name": "quiesce", "role": "quiesce", "hosts": ["workloads"]}
    stray = {"name": "stray", "role": "strays", "hosts": ["control"]}
    maintain = {"name": "maintain", "role": "maintain", "hosts": ["databases"], "needs": ["quiesce"]}
    resume = {"name": "resume", "role": "resume", "reverts": "quiesce"}
    steps = [quiesce, maintain, resume, stray] if last else [quiesce, stray, maintain, resume]
    played = window.play(window_steps=steps, closed_port=closed_port)
    assert played.rc in {2, 4}
    assert ": failed_reverted (" in played.verdict, played.out
    assert webs(window) == WEBS_AS_BEFORE
    assert vacuums(window) == ({"db1": 1, "db2": 1} if last else {"db1": 0, "db2": 0})
    assert "stray on controller: it was started and never finished" in window.report()["cause"]


def test_a_result_that_failed_is_a_failed_step(window: FastWindow) -> None:
    played = window.play(window_steps=[{"name": "ignores", "role": "ignores", "hosts": ["databases"]}])
    assert played.rc == 2
    assert "its result says that it failed" in window.report()["cause"]


def test_a_host_that_is_unreachable_from_the_start_refuses_the_window(window: FastWindow, closed_port: int) -> None:
    inventory = window.folder / "inventory.yml"
    text = (FAST / "inventory.yml").read_text()
    unreachable = (
        "        db2:\n          ansible_connection: ssh\n          ansible_host: 127.0.0.1\n"
        f"          ansible_port: {closed_port}\n"
    )
    inventory.write_text(text.replace("        db2:\n", unreachable))
    played = window.play(inventory=inventory, window_connect_timeout=1)
    assert played.rc == 2
    assert ": refused (" in played.verdict
    assert "plan of save on db2: Step | reach the host: timed out" in window.report()["cause"]
    assert "TASK [save : Back up]" not in played.out.partition("PLAY [Step save]")[2], "it went on after that"
    assert "PLAY [Step quiesce]" not in played.out
    assert window.world() == BEGINNING


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--limit", "control"], "--limit control: it would silently leave out"),
        (["--tags", "x"], "--tags x: it would silently leave out"),
        pytest.param(["--skip-tags", "x"], "--skip-tags x: it would silently leave out", marks=pytest.mark.sweep),
        pytest.param(["--limit", "workloads"], "it was not opened in this run", marks=pytest.mark.sweep),
        (["--start-at-task", "Step | decide"], "it was not opened in this run"),
        pytest.param(["--start-at-task", "Close | write*"], "it was not opened in this run", marks=pytest.mark.sweep),
    ],
    ids=["limit_with_control", "tags", "skip_tags", "limit_without_control", "start_at_step", "start_at_close"],
)
def test_options_that_leave_parts_out_change_nothing(window: FastWindow, options: list[str], words: str) -> None:
    played = window.play(*options)
    assert played.rc == 2
    assert words in " ".join(played.out.split())
    assert "window_only" in played.out
    assert window.world() == BEGINNING
    assert not (window.folder / "state").exists()


def test_steps_are_chosen_by_name(window: FastWindow) -> None:
    assert window.play(window_only=["save"]).rc == 0
    assert window.world()["db1"] == {"dead": 100, "backup_age": 0, "backups": 1}
    assert webs(window) == WEBS_AS_BEFORE
    assert window.play(window_skip="save, ", window_only="").rc == 0, "a blank survey answer chooses nothing"
    assert window.world() == END
    refused = window.play(window_skip=["resume"])
    assert refused.rc == 2
    assert "window_skip leaves out resume, which reverts quiesce" in " ".join(refused.out.split())


def test_check_mode_writes_nothing_and_predicts_the_run(window: FastWindow) -> None:
    played = window.play("--check", "--diff")
    assert played.rc == 0
    assert ": succeeded (" in played.verdict
    assert "Check mode of window fast@" in played.out
    assert "cannot be undone" in played.out
    assert "builds on quiesce, which was only predicted" in played.out
    assert 'would: web1: {"replicas": 3, "before": null} (workers start)' in played.out, (
        "a revert of what was predicted"
    )
    assert window.world() == BEGINNING
    assert not (window.folder / "state").exists()


def test_evidence_and_blockers_of_the_real_run_are_in_the_report(window: FastWindow) -> None:
    played = window.play(window_steps=[{"name": "maintain", "role": "evident", "hosts": ["databases"]}])
    assert played.rc == 0, played.out
    row = next(row for row in window.report()["steps"] if (row["step"], row["host"]) == ("maintain", "db1"))
    assert row["evidence"] == ["table a has no dead row"]
    assert row["blockers"][0]["holder"] == "process 7"
    flat = " ".join(played.out.split())
    assert "table a has no dead row" in flat
    assert "blocked: table b: cannot be vacuumed, held by process 7. End it" in flat
    assert "table a has no dead row" in window.page()


def test_a_journal_that_cannot_be_trusted_is_refused(window: FastWindow) -> None:
    steps = [
        {"name": "save", "role": "save", "hosts": ["databases"]},
        {"name": "maintain", "role": "maintain", "hosts": ["databases"]},
    ]
    assert window.play(window_steps=steps, fail_maintain="db2").rc == 2
    (journal,) = (window.folder / "state/test/journals").iterdir()
    whole = journal.read_bytes()
    for text, words in (
        (whole.replace(b'"save"', b'"sage"'), "line 1 is damaged"),
        (whole + b'{"v": 9}\n', "has format 9"),
    ):
        journal.write_bytes(text)
        played = window.play(window_steps=steps)
        assert played.rc == 2
        assert words in " ".join(played.out.split())
        assert ": refused (" in " ".join(played.out.split())
    journal.write_bytes(whole + b'{"v": 1, "event": "cut o')
    assert window.play(window_steps=steps).rc == 0
    assert window.world() == {**END, **WEBS_AS_BEFORE}


def test_the_result_reaches_set_stats(window: FastWindow) -> None:
    steps = [{"name": "maintain", "role": "maintain", "hosts": ["databases"]}]
    played = window.play("--check", env={"ANSIBLE_SHOW_CUSTOM_STATS": "1"}, window_steps=steps)
    flat = " ".join(played.out.split())
    assert '"lowtide_window"' in flat or "lowtide_window:" in flat
    assert json.dumps(str(window.folder)) not in flat.partition("CUSTOM STATS")[2]
    assert "state" in flat.partition("CUSTOM STATS")[2]


def test_a_window_that_is_not_what_its_check_mode_has_shown_is_refused(window: FastWindow) -> None:
    """AWX hands the artifact of a workflow's check mode to the job of the window, as an extra variable."""
    steps = [{"name": "maintain", "role": "maintain", "hosts": ["databases"]}]
    checked = window.play("--check", env={"ANSIBLE_SHOW_CUSTOM_STATS": "1"}, window_steps=steps)
    stats = checked.out.partition("CUSTOM STATS")[2]
    (name,) = set(re.findall(r"lowtide_shown_[0-9a-f]{16}", stats))
    shown = dict(re.findall(r'"?(version|steps|hosts|selected)"?: "?([0-9a-z.+-]+)"?', stats.partition(name)[2]))
    assert set(shown) == {"version", "steps", "hosts", "selected"}, stats
    other = window.play(window_steps=[{**steps[0], "hosts": ["db1"]}], **{name: {**shown, "revision": ""}})
    assert other.rc == 2
    assert "and in this run other is: the hosts of its steps. Launch the workflow" in " ".join(other.out.split())
    assert window.world() == BEGINNING
    same = window.play(window_steps=steps, window_approved_only=True, **{name: {**shown, "revision": ""}})
    assert same.rc == 0, same.out
    assert vacuums(window) == {"db1": 1, "db2": 1}
