# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What systemd counts, and what starts units beside a run: crash loops, sockets, units that hold others up."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.lowtide.ops.plugins.module_utils._common.errors import OpsError, Refusal
from ansible_collections.lowtide.ops.plugins.module_utils._common.outcome import Outcome
from ansible_collections.lowtide.ops.plugins.module_utils._systemd.manager import CommandOutput
from unit.systemd.killed_run import enter_after_switch, leave_killed
from unit.systemd.memory_systemd import MemorySystemd

Ensure = Callable[..., Outcome]
Serve = Callable[..., str]


def declare_api(releases: Path, target: str = "2", **given: Any) -> dict[str, Any]:
    """Return the unit api with a release."""
    return {"name": "api", "release": {"link": f"{releases}/current", "target": f"{releases}/{target}"}, **given}


def follow_releases(systemd: MemorySystemd, releases: Path) -> list[str]:
    """Keep the release that each start of api finds behind the link."""
    started: list[str] = []

    def start(name: str) -> str:
        if name == "api":
            started.append((releases / "current").readlink().name)
        return "active"

    systemd.on_start = start
    return started


def connect_during(systemd: MemorySystemd, verb: str, name: str) -> None:
    """Let a client connect to the socket of api while something is done to another unit."""
    run = systemd.run

    def connect(argv: Sequence[str], seconds: float) -> CommandOutput:
        if argv[1] == verb and name in argv:
            systemd.clients["api.service"] = 1
        return run(argv, seconds)

    systemd.run = connect  # type: ignore[assignment,method-assign]


@pytest.mark.parametrize("burst", ["5", "6"])
def test_a_release_is_put_back_after_a_crash_loop(
    systemd: MemorySystemd, ensure: Ensure, serve: Serve, releases: Path, burst: str
) -> None:
    """Neither systemd's limit of starts nor its count of restarts by the bad release is held against the old one."""
    systemd.add("api", WantedBy="multi-user.target", StartLimitBurst=burst)
    started = follow_releases(systemd, releases)
    systemd.crashing = lambda _name: (releases / "current").readlink().name == "2" and bool(started)
    ready = {"url": serve([(200, "")]), "timeout": 10**4}
    with pytest.raises(OpsError, match=r"it crashes: .* 3 times.* put back and serving again"):
        ensure([declare_api(releases, ready=ready)])
    assert started == ["2", "1"]
    assert systemd.units["api.service"]["ActiveState"] == "active"


def test_counts_that_may_not_be_forgotten_are_told(systemd: MemorySystemd, ensure: Ensure) -> None:
    """An account may be allowed to start and stop only: then the start is tried, and the evidence says it."""
    systemd.add("api", "inactive", NRestarts="7", WantedBy="multi-user.target")
    systemd.refusals["reset-failed", "api.service"] = "Interactive authentication required."
    outcome = ensure(["api"])
    assert outcome.summary == "started api.service"
    assert [line for line in outcome.evidence if "may not reset-failed it" in line]
    systemd.add("web", "inactive")
    assert not [line for line in ensure(["web"]).evidence if "counts of starts" in line]
    assert systemd.resets == ["web"]


@pytest.mark.parametrize("active", ["active", "inactive"])
def test_a_unit_woken_before_the_switch_is_stopped_again(
    systemd: MemorySystemd, ensure: Ensure, releases: Path, active: str
) -> None:
    """A client of its socket starts the old release between stop and switch: what serves then is the new one."""
    systemd.add("slow")
    systemd.add("api", active, TriggeredBy="api.socket")
    systemd.add("api.socket", SubState="listening")
    started = follow_releases(systemd, releases)
    connect_during(systemd, "stop", "slow.service")
    outcome = ensure([["slow"], [declare_api(releases)]], "restarted", restarted_after=time.time())
    assert started == ["1", "2"]
    assert outcome.summary.endswith("restarted slow.service, api.service")


def test_a_unit_woken_after_the_switch_counts_as_started(
    systemd: MemorySystemd, ensure: Ensure, releases: Path
) -> None:
    """It runs the new release already."""
    systemd.add("db")
    systemd.add("api", TriggeredBy="api.socket")
    systemd.add("api.socket", SubState="listening")
    started = follow_releases(systemd, releases)
    connect_during(systemd, "start", "db.service")
    outcome = ensure([["db"], [declare_api(releases)]], "restarted", restarted_after=time.time())
    assert started == ["2"]
    assert outcome.summary.endswith("restarted db.service, api.service")
    assert systemd.commands == [("stop", "api"), ("stop", "db"), ("start", "db")]


def test_a_unit_woken_at_once_is_no_failure_of_its_restart(systemd: MemorySystemd, ensure: Ensure) -> None:
    """It is new all the same, and stopped once more so that it starts in its tier; a stop for good is a failure."""
    systemd.add("api", TriggeredBy="api.socket")
    systemd.add("api.socket", SubState="listening")
    systemd.clients["api.service"] = 1
    outcome = ensure(["api"], "restarted", restarted_after=time.time())
    assert systemd.commands == [("stop", "api"), ("stop", "api"), ("start", "api")]
    assert outcome.summary == "restarted api.service"
    systemd.add("web")
    systemd.clients["web.service"] = 1
    with pytest.raises(OpsError, match=r"was stopped and is active \(running\) again"):
        ensure(["web"], "stopped")


def test_a_unit_that_is_not_due_and_not_ready_stops_nothing(
    systemd: MemorySystemd, ensure: Ensure, serve: Serve
) -> None:
    """Its tier is before that of what would be stopped, which could not be started again past it."""
    systemd.add("db")
    systemd.add("solo")
    db = {"name": "db", "shared": True, "ready": {"url": serve([(503, "no")]), "timeout": 3}}
    with pytest.raises(Refusal, match=r"unit db\.service: .*is not ready.*status 503.*nothing was stopped"):
        ensure([[db], ["solo"]], "restarted", restarted_after=time.time())
    assert systemd.commands == []
    ensure([["solo"], [{**db, "ready": {"url": serve([(503, "no"), (200, "")])}}]], "restarted", restarted_after=1.0)
    systemd.add("solo")
    assert ensure([[db], ["solo"]], "stopped").summary == "stopped solo.service"
    systemd.add("solo")
    warming = {**db, "ready": {"url": serve([(503, "warming"), (200, "")]), "timeout": 9}}
    assert ensure([[warming], ["solo"]], "restarted", restarted_after=time.time()).summary == "restarted solo.service"


def test_what_was_stopped_serves_again_whatever_others_answer(
    systemd: MemorySystemd, ensure: Ensure, serve: Serve
) -> None:
    """One that was ready before the first stop and is not any more leaves nothing down that it has not to do with."""
    systemd.add("db")
    systemd.add("solo")
    systemd.add("web")
    db = {"name": "db", "shared": True, "ready": {"url": serve([(200, ""), (503, "no")]), "timeout": 3}}
    with pytest.raises(
        OpsError, match=r"no later tier was started: .*solo\.service.* had been stopped before and serves again"
    ):
        ensure([[db], ["solo"], ["web"]], "restarted", restarted_after=time.time())
    assert systemd.commands == [("stop", "web"), ("stop", "solo"), ("start", "solo"), ("start", "web")]


def test_a_release_is_put_back_whatever_others_answer(
    systemd: MemorySystemd, ensure: Ensure, serve: Serve, releases: Path
) -> None:
    """An earlier tier that is not ready any more neither keeps it down nor makes its putting back a failure."""
    systemd.add("db")
    systemd.add("api")
    db = {"name": "db", "shared": True, "ready": {"url": serve([(200, ""), (503, "no")]), "timeout": 3}}
    with pytest.raises(OpsError, match=r"tier 1 is not ready.* put back and serving again"):
        ensure([[db], [declare_api(releases)]])
    assert systemd.units["api.service"]["ActiveState"] == "active"
    assert (releases / "current").readlink().name == "1"


def test_taking_back_goes_on_past_a_unit_that_does_not_start(systemd: MemorySystemd, ensure: Ensure) -> None:
    """The others serve again, and the message has the one that does not."""
    systemd.add("db")
    systemd.add("api")
    systemd.add("web")
    systemd.refusals["stop", "db.service"] = "Access denied"
    systemd.add("worker")
    systemd.refusals["start", "api.service"] = "it is broken"
    systemd.refusals["start", "worker.service"] = "it is worn out"
    outcome = Outcome()
    tiers = [["db"], ["api"], ["worker"], ["web"]]
    with pytest.raises(OpsError, match=r"may not stop it.*starting it again failed: unit api\.service.*it is broken"):
        ensure(tiers, "restarted", restarted_after=time.time(), outcome=outcome)
    assert [line for line in outcome.evidence if "it is worn out" in line]
    assert systemd.units["web.service"]["ActiveState"] == "active"


def test_what_has_nothing_to_do_with_a_bad_release_serves_again_too(
    systemd: MemorySystemd, ensure: Ensure, serve: Serve, releases: Path
) -> None:
    """It was stopped by the same run."""
    systemd.add("api")
    systemd.add("web")
    ready = {"url": serve([(500, "")] * 3 + [(200, "")]), "timeout": 2}
    with pytest.raises(OpsError, match="put back and serving again"):
        ensure([[declare_api(releases, ready=ready)], ["web"]], "restarted", restarted_after=time.time())
    assert systemd.units["web.service"]["ActiveState"] == "active"


def test_a_release_of_a_killed_run_that_is_not_ready_is_put_back(
    systemd: MemorySystemd, ensure: Ensure, serve: Serve, releases: Path
) -> None:
    """Although it is not due itself: that it is not ready is its own failure, and none of what stands in the way."""
    leave_killed(releases)
    systemd.add("api", ActiveEnterTimestampMonotonic=enter_after_switch())
    systemd.add("web")
    ready = {"url": serve([(500, "broken")] * 3 + [(200, "")]), "timeout": 2}
    tiers = [[declare_api(releases, ready=ready)], ["web"]]
    with pytest.raises(OpsError, match=r"status 500.* put back and serving again"):
        ensure(tiers, "restarted", restarted_after=time.time())
    assert (releases / "current").readlink().name == "1"
