# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A whole window without Ansible: need-driven, failing, resumed, killed at every point. Real files, real leases."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ansible_collections.lowtide.ops.plugins.module_utils._common.errors import Refusal
from ansible_collections.lowtide.ops.plugins.module_utils._window.lease import Lost
from ansible_collections.lowtide.ops.plugins.module_utils._window.phases import VERDICT
from ansible_collections.lowtide.ops.plugins.module_utils._window.results import describe_error

from .simulation import BEGINNING, END, KilledError, Simulation


def killed(simulation: Simulation, point: int) -> bool:
    """Run and kill at ``point``; the run's controller is dead afterwards. Whether that point was reached."""
    simulation.kill_at = point
    try:
        simulation.run()
    except KilledError:
        lease = simulation.place / "state/site/weekly.lease"
        if lease.exists():
            held = json.loads(lease.read_text())
            held["owner"]["started"] -= 1  # that process is no more; this pid is somebody else's
            lease.write_text(json.dumps(held))
        return True
    finally:
        simulation.kill_at = 0
    return False


def test_what_is_due_is_done_and_the_next_run_finds_nothing(simulation: Simulation) -> None:
    assert simulation.run() == "done"
    assert simulation.world == END
    assert simulation.run() == "nothing_to_do"
    assert simulation.world == END
    skips = {record["step"]: record["why"] for record in simulation.records("skip") if record["run"] == 2}
    assert skips == {
        "save": "save as it should be",
        "quiesce": "no due step needs it",
        "maintain": "maintain as it should be",
        "resume": "quiesce is not open here",
        "verify": "none of resume, save was performed",
    }


def test_a_need_is_per_window_not_per_host(simulation: Simulation) -> None:
    simulation.world["db1"].update(dead=0, age=0)
    simulation.world["db2"].update(age=0)
    assert simulation.run() == "done"
    assert simulation.world["db1"] == {"dead": 0, "age": 0}
    assert simulation.world["db2"] == {"dead": 0, "age": 0, "maintained": 1}
    assert {(record["step"], record["host"]) for record in simulation.records("begin")} == {
        ("quiesce", "web1"),
        ("quiesce", "web2"),
        ("maintain", "db2"),
        ("resume", "web1"),
        ("resume", "web2"),
        ("verify", "web1"),
        ("verify", "web2"),
    }


def test_killed_at_every_point_the_next_run_ends_in_the_same_state(tmp_path: Path, simulation: Simulation) -> None:
    point = 1
    while True:
        simulation.begin_anew(tmp_path / str(point))
        if not killed(simulation, point):
            break
        assert simulation.run() in {"done", "nothing_to_do"}, f"point {point}"
        assert simulation.world == END, f"point {point}"
        point += 1
    assert point > 60


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(points=st.lists(st.integers(1, 110), min_size=2, max_size=4))
def test_killed_again_and_again_it_still_ends_in_the_same_state(
    tmp_path_factory: pytest.TempPathFactory, simulation: Simulation, points: list[int]
) -> None:
    simulation.begin_anew(tmp_path_factory.mktemp("again"))
    for point in points:
        killed(simulation, point)
    assert simulation.run() in {"done", "nothing_to_do"}
    assert simulation.world == END


@pytest.mark.parametrize("step", ["save", "quiesce", "maintain"])
def test_a_failure_skips_what_follows_and_closes(simulation: Simulation, step: str) -> None:
    host = "web2" if step == "quiesce" else "db1"
    simulation.fail = {(step, host)}
    assert simulation.run() == "failed_closed"
    assert [simulation.world[web] for web in ("web1", "web2")] == [{"replicas": 3}, {"replicas": 3}]
    assert "maintained" not in simulation.world["db2"]
    told = json.loads((simulation.place / "state/site/weekly.1.json").read_text())
    assert told["cause"] == f"{step} on {host}: work: told to fail"
    assert told["evidence"] == ["a line"]
    simulation.fail = set()
    assert simulation.run() == "done"
    assert simulation.world == END


def test_a_closing_step_that_fails_leaves_the_window_open_and_the_next_run_closes_it(simulation: Simulation) -> None:
    simulation.fail = {("resume", "web1")}
    assert simulation.run() == "failed_open"
    told = json.loads((simulation.place / "state/site/weekly.1.json").read_text())
    assert told["still_open"] == ["quiesce on web1"]
    simulation.fail = set()
    assert simulation.run() == "done"
    assert simulation.world == END


@pytest.mark.parametrize("step", ["quiesce", "maintain", "resume"])
def test_a_host_lost_in_the_middle_is_a_failure_before_anything_builds_on_it(simulation: Simulation, step: str) -> None:
    host = "db1" if step == "maintain" else "web1"
    simulation.lost = {(step, host)}
    state = simulation.run()
    assert state == ("failed_open" if step == "resume" else "failed_closed")
    assert "maintained" not in simulation.world["db2"] or step == "resume"
    cause = simulation.records("close")[0]["cause"]
    assert cause == f"{step} on {host}: it was begun and never ended (host unreachable, or its process died)"


def test_a_host_lost_while_planning_is_refused_before_any_change(simulation: Simulation) -> None:
    simulation.lost = {("plan of save", "db1")}
    assert simulation.run() == "refused"
    assert simulation.world == BEGINNING
    assert simulation.records("close")[0]["cause"].startswith("plan of save on db1: ")
    assert simulation.records("skip") == [], "it went on after that"


@pytest.mark.parametrize("lost", [{("plan of save", "db1")}, {("maintain", "db1")}, {("resume", "web1")}])
@pytest.mark.parametrize("failing", ["save", "quiesce", "maintain", "resume", "verify", ""])
def test_ending_where_nothing_is_left_to_do_leaves_nothing_out(
    tmp_path: Path, simulation: Simulation, failing: str, lost: set[tuple[str, str]]
) -> None:
    """The same state, world and brackets as of a run that goes on; and never while something is open."""
    simulation.fail = {(failing, host) for host in ("db1", "web2")}
    simulation.lost = lost
    seen = []
    for ends_early in (True, False):
        simulation.begin_anew(tmp_path / str(ends_early))
        simulation.ends_early = ends_early
        state = simulation.run()
        closed = [(record["cause"], record["state"]) for record in simulation.records("close")]
        begun = [(record["step"], record["host"]) for record in simulation.records("begin")]
        seen.append((state, simulation.world, closed, begun))
    assert seen[0] == seen[1]


def test_a_later_occurrence_closes_what_an_earlier_one_left_open(simulation: Simulation) -> None:
    simulation.fail = {("resume", "web1"), ("resume", "web2")}
    assert simulation.run(start="monday") == "failed_open"
    simulation.fail = set()
    assert simulation.run(start="tuesday") == "done"
    assert simulation.world == END


def test_a_done_step_is_not_done_again_on_resume_and_other_inputs_are_refused(simulation: Simulation) -> None:
    simulation.fail = {("maintain", "db2")}
    assert simulation.run() == "failed_closed"
    simulation.fail = set()
    simulation.digest = "others"
    assert simulation.run() == "failed_closed"
    cause = simulation.records("close")[-1]["cause"]
    assert "save on db1" in cause
    assert "it was done at" in cause
    assert "with other inputs" in cause
    simulation.digest = "inputs"
    assert simulation.run() == "done"
    assert simulation.world == END


def test_facts_that_a_role_sets_while_it_runs_are_not_other_inputs(simulation: Simulation) -> None:
    simulation.own_facts = True
    simulation.fail = {("maintain", "db2")}
    assert simulation.run() == "failed_closed"
    simulation.fail = set()
    assert simulation.run() == "done"
    assert simulation.world == END


def test_a_rehearsal_writes_nothing_and_foretells_the_run(simulation: Simulation) -> None:
    simulation.rehearsal = True
    assert simulation.run() == "done"
    assert simulation.world == BEGINNING
    assert not (simulation.place / "state").exists()


def test_only_one_of_two_runs_holds_the_window(simulation: Simulation, controllers: list[int]) -> None:
    (simulation.place / "run0").mkdir()
    first = simulation.phases("ctl", pid=controllers[5], folder=str(simulation.place / "run0"))
    assert not first.open(simulation.given(), preload=lambda *_: None)["refused"]
    assert f"process {controllers[5]}, since" in simulation.run()
    assert simulation.world == BEGINNING


def test_a_run_that_was_overtaken_writes_no_more(simulation: Simulation) -> None:
    killed(simulation, 40)
    late = simulation.phases("db1")
    assert simulation.run() == "done"
    with pytest.raises(Lost):
        late.begin(simulation.call("save", "db1", ["db1"]), required=True, preload=lambda *_: None)


def test_an_orphan_is_waited_for_and_then_named(simulation: Simulation) -> None:
    killed(simulation, 40)
    code = "import signal; print('up', flush=True); signal.pause()"
    mark = f"{simulation.place / 'state/site/weekly'}#1"
    orphan = subprocess.Popen(
        [sys.executable, "-S", "-c", code], env={"LOWTIDE_WINDOW_RUN": mark}, stdout=subprocess.PIPE
    )
    assert orphan.stdout is not None
    orphan.stdout.readline()
    assert f"process {orphan.pid}" in simulation.run(orphan_timeout=0)
    orphan.kill()
    orphan.wait()
    assert simulation.run() == "done"
    assert simulation.world == END


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"limits": {"--limit": "db1"}}, "--limit db1: it would silently leave out the opening"),
        ({"limits": {"--tags": ["a", "b"]}}, "--tags a,b:"),
        ({"control": []}, "group control: it holds no host"),
        ({"control": ["ctl", "other"]}, "group control: it holds"),
    ],
)
def test_opening_refuses(simulation: Simulation, changes: dict[str, Any], words: str) -> None:
    folder = simulation.place / "run"
    folder.mkdir()
    phases = simulation.phases("ctl", folder=str(folder), **changes)
    result = phases.open(simulation.given(), preload=lambda *_: None)
    assert words in result["msg"]
    assert result["ansible_stats"]["data"]["lowtide_window"]["state"] == "refused"
    verdict = phases.verdict()
    assert verdict["failed"]
    assert verdict["state"] == "refused"
    assert not (simulation.place / "state").exists()


def test_opening_refuses_a_folder_it_cannot_write(simulation: Simulation) -> None:
    blocker = simulation.place / "file"
    blocker.write_text("")
    assert "window_dir" in simulation.run(dir=str(blocker))
    assert simulation.run(name="").startswith("refused: window_name")


def test_without_a_window_a_step_is_transparent_or_refused(simulation: Simulation) -> None:
    (simulation.place / "run").mkdir()
    phases = simulation.phases("db1", folder=str(simulation.place / "run"))
    call = simulation.call("save", "db1", ["db1"])
    assert phases.begin(call, required=False, preload=lambda *_: None)["run"]
    assert phases.end(call, error=None, failed_task=None) == {"changed": False}
    raised = phases.end(call, error={"msg": "as it was", "rc": 3, "_ansible_no_log": False}, failed_task={})
    assert raised == {"msg": "as it was", "rc": 3, "failed": True, "changed": False}
    with pytest.raises(Refusal, match="its window was not opened in this run"):
        phases.begin(call, required=True, preload=lambda *_: None)
    with pytest.raises(Refusal, match="it was not opened in this run"):
        phases.close([])
    with pytest.raises(Refusal, match="it was not opened in this run"):
        phases.proceed()
    with pytest.raises(Refusal, match="neither opened nor refused"):
        phases.verdict()
    assert not (simulation.place / "run" / VERDICT).exists()


def test_a_full_disk_stops_work_but_not_closing(simulation: Simulation, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.write
    place = str(simulation.place / "state")

    def full(descriptor: int, data: bytes) -> int:
        if (
            os.readlink(f"/proc/self/fd/{descriptor}").startswith(place)
            and b'"maintain"' in data
            and b'"begin"' in data
        ):
            monkeypatch.setattr("os.write", full_for_good)
        return real(descriptor, data)

    def full_for_good(descriptor: int, data: bytes) -> int:
        if os.readlink(f"/proc/self/fd/{descriptor}").startswith(place):
            raise OSError(28, "No space left on device")
        return real(descriptor, data)

    monkeypatch.setattr("os.write", full)
    simulation.runs = 1
    (simulation.place / "run1").mkdir()
    assert not simulation.phases("ctl").open(simulation.given(), preload=lambda *_: None)["refused"]
    simulation.step("maintain", ["db1"], planning=True)
    simulation.step("quiesce", ["web1", "web2"])
    simulation.step("maintain", ["db1"])
    simulation.step("maintain", ["db2"])
    assert "maintained" not in simulation.world["db2"]
    simulation.step("resume", ["web1", "web2"])
    assert [simulation.world[web]["replicas"] for web in ("web1", "web2")] == [3, 3]
    simulation.phases("ctl").close([])
    verdict = simulation.phases("ctl").verdict()
    assert verdict["state"] == "failed_closed"
    assert "No space left on device" in verdict["msg"]
    assert "Make room or set window_dir" in verdict["msg"]


def test_settling_forgets_what_was_open(simulation: Simulation) -> None:
    simulation.fail = {("resume", "web1"), ("resume", "web2")}
    assert not simulation.phases("ctl", folder="/nowhere").settle(simulation.given())["changed"]
    assert simulation.run() == "failed_open"
    assert simulation.phases("ctl").settle(simulation.given())["changed"]
    simulation.fail = set()
    simulation.world["web1"] = {"replicas": 3}
    simulation.world["web2"] = {"replicas": 3}
    simulation.rehearsal = True
    assert not simulation.phases("ctl").settle(simulation.given())["changed"]
    simulation.rehearsal = False
    assert simulation.run() == "done"
    assert [
        record["step"] for record in simulation.records("begin") if record["run"] == 2 and record["step"] == "resume"
    ] == []


def test_a_failed_task_is_told_in_words_and_no_log_is_kept() -> None:
    assert describe_error({"msg": "no"}, {"name": "Back up"}) == ("Back up: no", False)
    assert describe_error({"msg": "no", "error": {"refused": True}}, {"action": "pg_backup"}) == ("pg_backup: no", True)
    assert describe_error({"msg": "secret"}, {"name": "Log in", "no_log": True}) == (
        "Log in: failed (its output is hidden by no_log)",
        False,
    )
    assert describe_error(None, None) == ("task: failed", False)
    assert describe_error({"msg": "step x: no"}, {"action": "lowtide.ops.window"}) == ("step x: no", False)
