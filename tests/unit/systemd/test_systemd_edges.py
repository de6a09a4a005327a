# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""States of units between the common ones, and what is shared, masked or held."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from ansible_collections.lowtide.ops.plugins.module_utils._common.errors import OpsError, Refusal
from ansible_collections.lowtide.ops.plugins.module_utils._common.outcome import Outcome
from ansible_collections.lowtide.ops.plugins.module_utils._common.retry import Deadline
from ansible_collections.lowtide.ops.plugins.module_utils._systemd.ensure import ensure_units
from ansible_collections.lowtide.ops.plugins.module_utils._systemd.lock import hold_host
from ansible_collections.lowtide.ops.plugins.module_utils._systemd.manager import CommandOutput, Manager
from ansible_collections.lowtide.ops.plugins.module_utils._systemd.units import parse_shown
from unit.systemd.killed_run import enter_after_switch, leave_killed
from unit.systemd.memory_systemd import MemorySystemd

Ensure = Callable[..., Outcome]
Serve = Callable[..., str]


def end_client(systemd: MemorySystemd, verb: str, **left: str) -> None:
    """Let the first command with this verb outlast its client, and leave its unit so."""
    run = systemd.run
    done: list[str] = []

    def answer(argv: Sequence[str], seconds: float) -> CommandOutput:
        if argv[1] == verb and not done:
            done.append(argv[-1])
            systemd.units[argv[-1]] |= left
            systemd.commands.append((verb, argv[-1].removesuffix(".service")))
            return CommandOutput(None, "", "")
        return run(argv, seconds)

    systemd.run = answer  # type: ignore[assignment,method-assign]


def test_a_late_stop_after_which_the_unit_was_started_anew_counts(systemd: MemorySystemd, ensure: Ensure) -> None:
    """It was stopped, although it is found serving."""
    systemd.add("api")
    end_client(systemd, "stop", InvocationID="woken")
    outcome = Outcome()
    with pytest.raises(OpsError, match=r"; now it is active \(running\); api\.service had been stopped before"):
        ensure(["api"], "restarted", restarted_after=time.time(), outcome=outcome)
    assert outcome.summary == "restarted api.service"


def test_a_late_stop_that_did_nothing_counts_for_nothing(systemd: MemorySystemd, ensure: Ensure) -> None:
    """The very same start of it serves on."""
    systemd.add("api")
    end_client(systemd, "stop")
    outcome = Outcome()
    with pytest.raises(OpsError, match="systemctl stop had not ended"):
        ensure(["api"], "restarted", restarted_after=time.time(), outcome=outcome)
    assert outcome.summary == "nothing was stopped, switched or started"


def test_a_unit_that_ends_while_it_is_drained_is_told(systemd: MemorySystemd, ensure: Ensure, serve: Serve) -> None:
    """Nobody has asked for that end: what was in flight is lost, and not as if it had drained."""
    systemd.add("api")
    asked: list[str] = []
    drain = {"url": serve([(200, "5")], asked), "limit": 9}
    run = systemd.run

    def crash(argv: Sequence[str], seconds: float) -> CommandOutput:
        if asked:
            systemd.units["api.service"] |= {"ActiveState": "failed", "SubState": "failed"}
        return run(argv, seconds)

    systemd.run = crash  # type: ignore[assignment,method-assign]
    with pytest.raises(Refusal, match=r"5 requests in flight after 9 s, so it was not stopped and is failed"):
        ensure([{"name": "api", "drain": drain}], "stopped")


def test_a_start_that_waits_to_be_tried_again_goes_on(systemd: MemorySystemd, ensure: Ensure) -> None:
    """systemd has no job for it in between."""
    systemd.add("api", "inactive")
    end_client(systemd, "start", ActiveState="activating", SubState="auto-restart")
    with pytest.raises(OpsError, match=r"it is still activating \(auto-restart\) after .* systemd goes on starting it"):
        ensure(["api"])


def test_a_unit_started_since_the_switch_is_not_restarted(
    systemd: MemorySystemd, ensure: Ensure, releases: Path
) -> None:
    """Of a run that was killed after that start, only the proof is left to do."""
    leave_killed(releases)
    systemd.add("api", ActiveEnterTimestampMonotonic=enter_after_switch())
    release = {"link": f"{releases}/current", "target": f"{releases}/2"}
    ensure([{"name": "api", "release": release}])
    assert systemd.commands == []
    assert not (releases / "current.lowtide-previous").is_symlink()


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ("stopped", r"unit api\.service: it runs, is shared, and systemd would stop it together with db\.service"),
        ("restarted", r"unit api\.service: it is shared, and systemd stops it together with db\.service \(it runs"),
    ],
)
def test_what_is_shared_is_not_stopped_with_another(
    systemd: MemorySystemd, ensure: Ensure, state: str, message: str
) -> None:
    """By no way round."""
    systemd.add("db", RequiredBy="api.service")
    systemd.add("api")
    with pytest.raises(Refusal, match=message):
        ensure([["db"], [{"name": "api", "shared": True}]], state, restarted_after=time.time())
    assert systemd.commands == []


@pytest.mark.parametrize("active", ["active", "inactive"])
def test_units_that_exclude_each_other_are_not_both_started(
    systemd: MemorySystemd, ensure: Ensure, active: str
) -> None:
    """Also where the one is stopped before: it is started again, and would be stopped by the start of the other."""
    systemd.add("old", active)
    systemd.add("api", "inactive", Conflicts="old.service")
    with pytest.raises(Refusal, match=r"unit old\.service: it .*is declared too, and systemd would stop it when api"):
        ensure([["old"], ["api"]], "restarted", restarted_after=time.time())
    assert systemd.commands == []


@pytest.mark.parametrize("given", [{"LoadState": "masked"}, {"NeedDaemonReload": "yes"}])
def test_what_could_not_be_started_can_be_stopped(
    systemd: MemorySystemd, ensure: Ensure, given: dict[str, str]
) -> None:
    """A stop reads no file."""
    systemd.add("db", **given)
    ensure(["db"], "stopped")
    assert systemd.commands == [("stop", "db")]


@pytest.mark.parametrize(
    ("active", "job", "settled"),
    [("active", "", True), ("deactivating", "", False), ("active", "7", False), ("failed", "0", True)],
)
def test_what_stays_as_it_is(active: str, job: str, *, settled: bool) -> None:
    """Neither while a job is at it, nor while it ends by itself."""
    text = f"LoadState=loaded\nActiveState={active}\nJob={job}\n"
    assert parse_shown(text, ["api.service"], 0.0)["api.service"].settled is settled


@pytest.mark.parametrize("active", ["reloading", "refreshing"])
def test_a_unit_that_reads_its_settings_anew_serves(systemd: MemorySystemd, ensure: Ensure, active: str) -> None:
    """It has been started."""
    systemd.add("api", active)
    assert not ensure(["api"]).changed


def test_a_bad_release_that_cannot_be_stopped_is_not_called_put_back(
    systemd: MemorySystemd, ensure: Ensure, serve: Serve, releases: Path
) -> None:
    """It runs on, and a person is told what to do."""
    systemd.add("api")
    ready = {"url": serve([(200, ""), (500, ""), (200, "")])}

    def start(_name: str) -> str:
        systemd.refusals["stop", "api.service"] = "Access denied"
        return "active"

    systemd.on_start = start
    release = {"link": f"{releases}/current", "target": f"{releases}/2"}
    outcome = Outcome()
    with pytest.raises(OpsError, match=r"failed as well: unit api\.service: this account may not stop it.*By hand"):
        ensure([{"name": "api", "release": release, "ready": ready}], canary_seconds=50, outcome=outcome)
    assert outcome.facts["rolled_back"] is False
    assert [command for command in systemd.commands if command[0] == "start"] == [("start", "api")]


def test_a_run_waits_for_another_one_on_its_host() -> None:
    """The module itself, before it asks systemd anything."""
    given: dict[str, Any] = {"tiers": ["api"], "state": "started", "restarted_after": None, "on_busy": "fail"}
    given |= {"canary_seconds": 0.0, "log_lines": 20, "lock_timeout": 0.0}
    module = cast("Any", SimpleNamespace(params=given, check_mode=False))
    with hold_host(Deadline(60)), pytest.raises(Refusal, match="still holds it after 0 s"):
        ensure_units(module, Outcome())


def test_nothing_is_paged(systemd: MemorySystemd) -> None:
    """Whatever is read."""
    systemd.add("api")
    asked: list[Sequence[str]] = []

    def run(argv: Sequence[str], seconds: float) -> CommandOutput:
        asked.append(argv)
        return systemd.run(argv, seconds)

    manager = Manager(run)
    manager.show(["api.service"])
    manager.read_journal("api.service", 3)
    manager.read_kill_record("api.service", 3.0)
    assert len(asked) == 3
    assert all("--no-pager" in argv for argv in asked)
