# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The fast window with real ansible-playbook runs: need, failure, unreachable hosts, refusals, rehearsal. No lab is needed."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from .harness import BEGINNING, END, FAST, TASKS, FastWindow

WEBS_AS_BEFORE = {"web1": {"replicas": 3}, "web2": {"replicas": 3}}


def webs(window: FastWindow) -> dict[str, Any]:
    """The workloads' part of the world."""
    return {host: values for host, values in window.world().items() if host.startswith("web")}


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A loopback port on which nobody listens, held so that nobody else takes it."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        yield holder.getsockname()[1]


def test_done_then_nothing_due(window: FastWindow) -> None:
    first = window.play()
    assert first.rc == 0
    assert first.ran == TASKS
    assert first.verdict.startswith("fast@")
    assert ": done (" in first.verdict
    assert window.world() == END
    report = window.report()
    assert report["state"] == "done"
    assert report["evidence"] == ["2 databases looked at"]
    assert list(report["phases"]) == ["save", "quiesce", "maintain", "resume", "verify"]
    page = (window.folder / "state/test/fast.1.html").read_text()
    assert "http" not in page
    assert "workers stop" in page

    second = window.play()
    assert second.rc == 0
    assert ": nothing_to_do (" in second.verdict
    assert "changed=1" not in second.out
    assert window.world() == END
    assert window.states() == ["done", "nothing_to_do"]
    # Goal P2: module tasks (AnsiballZ starts) of a window that finds nothing due: none of the window's own.
    assert "[world" not in second.out
    begun = [record for record in window.records() if record["kind"] == "begin" and record["run"] == 2]
    assert begun == []


@pytest.mark.parametrize(
    ("variables", "cause"),
    [
        ({"fail_quiesce": "web1"}, "quiesce on web1: Stop the workers"),
        ({"fail_quiesce": "web1,web2", "fatal": True}, "quiesce on web"),
        ({"fail_maintain": "db1"}, "maintain on db1: Vacuum: db1: told to fail"),
        ({"quiesce_role": "reraise"}, "Raise it again: raised again: the first error"),
        ({"maintain_role": "reraise", "fatal": True}, "maintain on db1: Raise it again"),
        ({"maintain_role": "handled"}, "role handled: it has handlers"),
        ({"maintain_role": "fatal"}, "role fatal: it sets any_errors_fatal"),
        ({"maintain_role": "unloadable"}, "couldn't resolve module/action 'nobody.has.this'"),
        (
            {"maintain_step": "nobody"},
            "step nobody: it is not in window_steps (save, quiesce, maintain, resume, verify)",
        ),
    ],
    ids=[
        "one_host",
        "all_hosts_any_errors_fatal",
        "serial_first_batch",
        "reraised",
        "serial_any_errors_fatal",
        "handler",
        "fatal_in_role",
        "unloadable",
        "undeclared",
    ],
)
def test_a_failure_is_swallowed_what_follows_skipped_what_is_open_closed(
    window: FastWindow, variables: dict[str, Any], cause: str
) -> None:
    played = window.play(**variables)
    assert played.rc == 2
    assert ": failed_closed (" in played.verdict
    report = window.report()
    assert cause in report["cause"]
    assert webs(window) == WEBS_AS_BEFORE
    world = window.world()
    assert "vacuums" not in {**world["db1"], **world["db2"]}
    assert window.states() == ["failed_closed"]
    db2 = (
        next(row for row in report["steps"] if (row["step"], row["host"]) == ("maintain", "db2"))
        if "maintain_step" not in variables
        else None
    )
    assert db2 is None or db2["outcome"] == "skipped"


def test_a_role_that_helps_itself_has_not_failed(window: FastWindow) -> None:
    played = window.play(maintain_role="rescued")
    assert played.rc == 0
    assert ": done (" in played.verdict
    assert window.world() == END


def test_a_closing_step_that_fails_is_told_and_the_next_run_closes(window: FastWindow) -> None:
    played = window.play(fail_resume="web1")
    assert played.rc == 2
    assert ": failed_open (" in played.verdict
    assert window.report()["still_open"] == ["quiesce on web1"]
    assert window.world()["web1"] == {"replicas": 0, "before": 3}
    assert window.world()["web2"] == {"replicas": 3}
    again = window.play()
    assert again.rc == 0
    assert window.world() == END
    assert window.states() == ["failed_open", "done"]


@pytest.mark.parametrize("vanishing", ["web1", "web1,web2"], ids=["one", "all"])
def test_hosts_that_become_unreachable_in_a_step(window: FastWindow, closed_port: int, vanishing: str) -> None:
    played = window.play(quiesce_role="vanish", vanishing=vanishing, closed_port=closed_port, window_connect_timeout=1)
    assert played.rc in {2, 4}
    assert ": failed_open (" in played.verdict
    report = window.report()
    # Which of several is missed first is chance.
    assert re.match(rf"quiesce on ({vanishing.replace(',', '|')}): it was begun and never ended", report["cause"])
    # Each lost host was tried once more by the closing step, and the maintenance that needed the stop never began.
    retried = {
        row["host"]: row["summary"] for row in report["steps"] if row["step"] == "resume" and row["outcome"] == "failed"
    }
    assert set(retried) == set(vanishing.split(","))
    assert all("timed out" in words for words in retried.values())
    assert "vacuums" not in window.world()["db1"]
    assert webs(window) == WEBS_AS_BEFORE
    again = window.play()
    assert again.rc == 0
    assert window.world() == END


def test_a_host_that_is_unreachable_from_the_start_refuses_the_window(window: FastWindow, closed_port: int) -> None:
    inventory = window.folder / "inventory.yml"
    text = (FAST / "inventory.yml").read_text()
    inventory.write_text(
        text.replace(
            "        db2:\n",
            f"        db2:\n          ansible_connection: ssh\n          ansible_host: 127.0.0.1\n          ansible_port: {closed_port}\n",
        )
    )
    played = window.play(inventory=inventory, window_connect_timeout=1)
    assert played.rc == 2
    assert ": refused (" in played.verdict
    assert "plan of save on db2: Step | reach the host: timed out" in window.report()["cause"]
    assert "PLAY [Proceed, or end here]" in played.out
    assert "PLAY [Back up" not in played.out, "it went on after that"
    assert window.world() == BEGINNING


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--limit", "control"], "--limit control: it would silently leave out"),
        (["--tags", "x"], "--tags x: it would silently leave out"),
        (["--skip-tags", "x"], "--skip-tags x: it would silently leave out"),
        (["--limit", "workloads"], "its window was not opened in this run"),
        (["--start-at-task", "Step | decide"], "it was not opened in this run"),
        (["--start-at-task", "Close | write*"], "it was not opened in this run"),
    ],
    ids=["limit_with_control", "tags", "skip_tags", "limit_without_control", "start_at_step", "start_at_close"],
)
def test_options_that_leave_parts_out_are_refused(window: FastWindow, options: list[str], words: str) -> None:
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
    assert window.play(window_skip=["save"]).rc == 0
    assert window.world() == END
    refused = window.play(window_skip=["resume"])
    assert refused.rc == 2
    assert "window_skip leaves out resume, which closes quiesce" in " ".join(refused.out.split())


def test_a_rehearsal_writes_nothing_and_foretells_the_run(window: FastWindow) -> None:
    played = window.play("--check", "--diff")
    assert played.rc == 0
    assert ": done (" in played.verdict
    assert "Rehearsal of window fast@" in played.out
    assert "cannot be undone" in played.out
    assert "builds on quiesce, which was only rehearsed" in played.out
    assert window.world() == BEGINNING
    assert not (window.folder / "state").exists()


def test_without_a_window_a_step_is_transparent(window: FastWindow) -> None:
    assert window.play(playbook=FAST / "save.yml").rc == 0
    assert window.world()["db1"] == {"dead": 100, "backup_age": 0, "backups": 1}
    window.write(BEGINNING)
    failed = window.play(playbook=FAST / "save.yml", fail_save="db1")
    assert failed.rc == 2
    assert "told to fail" in failed.out
    assert not (window.folder / "state").exists()


def test_changed_inputs_are_refused_on_resume(window: FastWindow) -> None:
    assert window.play(fail_maintain="db2", save_keep=3).rc == 2
    other = window.play(save_keep=4)
    assert other.rc == 2
    assert "it was done at" in window.report(2)["cause"]
    assert "with other inputs" in window.report(2)["cause"]
    assert window.play(save_keep=3).rc == 0
    assert window.world() == END


def test_a_journal_that_cannot_be_trusted_is_refused(window: FastWindow) -> None:
    assert window.play(window_only=["save"]).rc == 0
    journal = window.folder / "state/test/fast.journal"
    whole = journal.read_bytes()
    for text, words in (
        (whole.replace(b'"save"', b'"sage"'), "line 1 is damaged"),
        (whole + b'{"v": 9}\n', "has format 9"),
    ):
        journal.write_bytes(text)
        played = window.play()
        assert played.rc == 2
        assert words in " ".join(played.out.split())
        assert ": refused (" in " ".join(played.out.split())
    journal.write_bytes(whole + b'{"v": 1, "kind": "cut o')
    assert window.play().rc == 0
    assert window.world() == END


def test_the_result_reaches_set_stats(window: FastWindow) -> None:
    played = window.play("--check", env={"ANSIBLE_SHOW_CUSTOM_STATS": "1"})
    flat = " ".join(played.out.split())
    assert '"lowtide_window"' in flat or "lowtide_window:" in flat
    assert json.dumps(str(window.folder)) not in flat.partition("CUSTOM STATS")[2]
    assert "state" in flat.partition("CUSTOM STATS")[2]
