# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Limits of ours against those of systemd, and jobs that go on when the client has given up."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence

import pytest

from ansible_collections.lowtide.ops.plugins.module_utils._common.errors import OpsError, Refusal
from ansible_collections.lowtide.ops.plugins.module_utils._common.outcome import Outcome
from ansible_collections.lowtide.ops.plugins.module_utils._common.text import format_duration
from ansible_collections.lowtide.ops.plugins.module_utils._systemd.manager import CommandOutput
from ansible_collections.lowtide.ops.plugins.module_utils._systemd.units import parse_span
from unit.systemd.memory_systemd import MemorySystemd

Ensure = Callable[..., Outcome]


def test_a_stop_that_outlasts_its_client_leaves_nothing_down(systemd: MemorySystemd, ensure: Ensure) -> None:
    """systemd goes on with its stop job: its end is waited for, and the unit serves again. The summary tells it."""
    systemd.add("db")
    systemd.add("api", TimeoutStopUSec="8s")
    systemd.slow_stops["api.service"] = 3
    outcome = Outcome()
    tiers = [["db"], [{"name": "api", "stop_timeout": 9}]]
    with pytest.raises(OpsError, match=r"not ended after 9 s.*api\.service had been stopped before and serves again"):
        ensure(tiers, "restarted", restarted_after=time.time(), outcome=outcome)
    assert systemd.commands == [("stop", "api"), ("start", "api")]
    assert systemd.units["api.service"]["ActiveState"] == "active"
    assert outcome.summary == "restarted api.service"


@pytest.mark.parametrize("check", [False, True])
@pytest.mark.parametrize(("limit", "given"), [("1min 30s", 90), ("8s", 5), ("2min 1.5s", 121)])
def test_a_stop_shorter_than_that_of_systemd_is_refused(
    systemd: MemorySystemd, ensure: Ensure, limit: str, given: int, check: bool
) -> None:
    """Before anything is stopped: systemd would go on when the run has given up."""
    systemd.add("db", TimeoutStopUSec=limit)
    systemd.add("api")
    tiers = [[{"name": "db", "stop_timeout": given}], ["api"]]
    with pytest.raises(Refusal, match=r"unit db\.service, stop_timeout: .* is not longer than its TimeoutStopSec"):
        ensure(tiers, "restarted", check=check, restarted_after=time.time())
    assert systemd.commands == []


@pytest.mark.parametrize(("limit", "seconds"), [("1min 30s", 280), ("500ms", 11.5), ("infinity", 90)])
def test_a_stop_may_take_what_systemd_gives_it(
    systemd: MemorySystemd, ensure: Ensure, limit: str, seconds: float
) -> None:
    """Each of its three phases may take TimeoutStopSec; where that has no end, a stop has one."""
    systemd.add("api", TimeoutStopUSec=limit)
    systemd.slow_stops["api.service"] = 0
    with pytest.raises(OpsError, match=f"systemctl stop had not ended after {format_duration(seconds)}"):
        ensure(["api"], "stopped")


@pytest.mark.parametrize("check", [False, True])
@pytest.mark.parametrize("active", ["inactive", "active"])
@pytest.mark.parametrize(("limit", "given"), [("1min 30s", 90), ("8s", 5)])
def test_a_start_shorter_than_that_of_systemd_is_refused(
    systemd: MemorySystemd, ensure: Ensure, limit: str, given: int, active: str, *, check: bool
) -> None:
    """Before anything is changed: it would be told as failed while systemd goes on starting it."""
    systemd.add("db", active, TimeoutStartUSec=limit)
    with pytest.raises(Refusal, match=r"unit db\.service, start_timeout: .* is not longer than its TimeoutStartSec"):
        ensure([{"name": "db", "start_timeout": given}], "restarted", check=check, restarted_after=time.time())
    assert systemd.commands == []
    systemd.add("db", TimeoutStartUSec=limit)
    assert not ensure([{"name": "db", "start_timeout": given}]).changed


@pytest.mark.parametrize(
    ("limits", "given", "seconds"),
    [
        ({}, {}, 4 * 90 + 280),
        ({"TimeoutStartUSec": "2s", "TimeoutStopUSec": "1s"}, {}, 8 + 13),
        ({"TimeoutStartUSec": "2s", "TimeoutStopUSec": "infinity"}, {}, 8 + 90),
        ({"TimeoutStartUSec": "infinity"}, {}, 90),
        ({"TimeoutStartUSec": "infinity"}, {"start_timeout": 7}, 7),
    ],
)
def test_a_start_that_outlasts_its_client_is_told_as_such(
    systemd: MemorySystemd, ensure: Ensure, limits: dict[str, str], given: dict[str, int], seconds: int
) -> None:
    """It is not cancelled, and no later tier is begun; the next run goes on waiting for it."""
    systemd.add("db", "inactive", **limits)
    systemd.add("api", "inactive")
    systemd.slow_starts.add("db.service")
    outcome = Outcome()
    with pytest.raises(OpsError) as caught:
        ensure([[{"name": "db", **given}], ["api"]], outcome=outcome)
    assert str(caught.value).startswith(
        f"unit db.service: it is still activating (start) after {format_duration(seconds)}, and systemd goes on "
        "starting it; no later tier was started."
    )
    assert systemd.commands == [("start", "db")]
    assert "not as declared: db.service is activating (start)" in outcome.summary
    systemd.slow_starts.clear()
    ensure([[{"name": "db", **given}], ["api"]])
    assert systemd.commands[1:] == [("start", "db"), ("start", "api")]


def test_a_start_that_ended_with_its_client_counts(systemd: MemorySystemd, ensure: Ensure) -> None:
    """What the unit is decides, not what systemctl says."""
    systemd.add("db", "inactive")
    run = systemd.run

    def answer(argv: Sequence[str], seconds: float) -> CommandOutput:
        done = run(argv, seconds)
        return CommandOutput(None, "", "") if argv[1] == "start" else done

    systemd.run = answer  # type: ignore[assignment,method-assign]
    assert ensure(["db"]).summary == "started db.service"
    systemd.add("db", "inactive")
    systemd.on_start = lambda _name: "failed"
    with pytest.raises(OpsError, match=r"tier 1 is not ready, .*it is failed"):
        ensure(["db"])


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0.0),
        ("1us", 1e-6),
        ("1µs", 1e-6),
        ("250ms", 0.25),
        ("1min 30.5s", 90.5),
        ("1h", 3600.0),
        ("1d", 86400.0),
        ("1w 2d", 777600.0),
        ("1month", 2629800.0),
        ("1y", 31557600.0),
        ("infinity", math.inf),
    ],
)
def test_a_time_is_read_as_systemctl_prints_it(text: str, seconds: float) -> None:
    """In all of its units (systemd.time(7))."""
    assert parse_span("api.service", "TimeoutStopUSec", text) == seconds


def test_a_time_that_cannot_be_read_is_named() -> None:
    """With the property, and how to look at it."""
    with pytest.raises(
        OpsError, match=r"printed TimeoutStartUSec=1 parsec, .*--property=TimeoutStartUSec api\.service`"
    ):
        parse_span("api.service", "TimeoutStartUSec", "1 parsec")
