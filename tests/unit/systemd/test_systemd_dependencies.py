# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What systemd would stop or start together with declared units is refused by name."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from ansible_collections.lowtide.ops.plugins.module_utils._common.errors import Refusal
from ansible_collections.lowtide.ops.plugins.module_utils._common.outcome import Outcome
from unit.systemd.memory_systemd import MemorySystemd

Ensure = Callable[..., Outcome]


def test_what_others_need_is_not_stopped(systemd: MemorySystemd, ensure: Ensure) -> None:
    """A running unit that nobody declared and that requires one to stop; one that does not run is no matter."""
    systemd.add("cache", RequiredBy="other.service multi-user.target")
    systemd.add("other")
    with pytest.raises(Refusal, match=r"unit other\.service: it runs, is not declared, and systemd would stop it"):
        ensure(["cache"], "stopped")
    assert systemd.commands == []
    systemd.add("other", "inactive")
    ensure(["cache"], "stopped")
    assert systemd.commands == [("stop", "cache")]


@pytest.mark.parametrize("key", ["RequiredBy", "BoundBy", "ConsistsOf", "RequisiteOf", "PropagatesStopTo"])
def test_every_way_in_which_systemd_stops_another_unit(systemd: MemorySystemd, ensure: Ensure, key: str) -> None:
    """Is known before anything is stopped."""
    systemd.add("cache", **{key: "other.service"})
    systemd.add("other")
    with pytest.raises(
        Refusal, match=r"unit other\.service: it runs, is not declared, .* together with cache\.service"
    ):
        ensure(["cache"], "stopped")
    assert systemd.commands == []


def test_dependents_are_followed_through_other_kinds_of_units(systemd: MemorySystemd, ensure: Ensure) -> None:
    """A target, a socket or a timer passes a stop on; in a circle too, and where it does not run itself."""
    systemd.add("db", RequiredBy="shop.target")
    systemd.add("shop.target", "inactive", ConsistsOf="batch.timer", RequiredBy="db.service")
    systemd.add("batch.timer", "inactive", BoundBy="report.service")
    systemd.add("report")
    with pytest.raises(Refusal, match=r"unit report\.service: it runs, is not declared, .* together with db\.service"):
        ensure(["db"], "stopped")
    assert systemd.commands == []
    ensure([["db"], ["report"]], "restarted", restarted_after=time.time())
    assert systemd.commands == [("stop", "report"), ("stop", "db"), ("start", "db"), ("start", "report")]


def test_what_requires_a_dependent_is_restarted_too(systemd: MemorySystemd, ensure: Ensure) -> None:
    """By a target between them, and the dependents of dependents; the last one has been started since."""
    young = str(int(time.clock_gettime(time.CLOCK_MONOTONIC) * 1e6))
    systemd.add("db", RequiredBy="shop.target")
    systemd.add("shop.target", "inactive", ConsistsOf="api.service")
    systemd.add("api", ActiveEnterTimestampMonotonic=young, RequiredBy="web.service")
    systemd.add("web", ActiveEnterTimestampMonotonic=young)
    ensure([["db"], ["api"], ["web"]], "restarted", restarted_after=time.time() - 60)
    assert [name for verb, name in systemd.commands if verb == "stop"] == ["web", "api", "db"]
    assert [name for verb, name in systemd.commands if verb == "start"] == ["db", "api", "web"]


def test_a_running_timer_that_would_be_stopped_is_a_refusal(systemd: MemorySystemd, ensure: Ensure) -> None:
    """Nobody would start it again."""
    systemd.add("db", BoundBy="backup.timer")
    systemd.add("backup.timer")
    with pytest.raises(Refusal, match=r"unit backup\.timer: it runs, is not declared"):
        ensure(["db"], "restarted", restarted_after=time.time())
    assert systemd.commands == []


@pytest.mark.parametrize("check", [False, True])
@pytest.mark.parametrize("state", ["stopped", "restarted"])
def test_a_target_that_would_go_down_is_a_refusal(
    systemd: MemorySystemd, ensure: Ensure, state: str, check: bool
) -> None:
    """Nothing would start it again. One that is down already is no matter."""
    systemd.add("db", RequiredBy="shop.target")
    systemd.add("shop.target")
    with pytest.raises(
        Refusal,
        match=r"unit shop\.target: it runs, is not declared, and systemd would stop it together with db\.service. "
        r"Let it want db\.service \(Wants=, WantedBy=\) instead of requiring it",
    ):
        ensure(["db"], state, restarted_after=time.time(), check=check)
    assert systemd.commands == []
    systemd.add("shop.target", "inactive")
    ensure(["db"], state, restarted_after=time.time())
    assert systemd.commands[0] == ("stop", "db")


@pytest.mark.parametrize("check", [False, True])
@pytest.mark.parametrize("key", ["Requires", "Wants", "BindsTo", "Upholds"])
def test_what_would_be_started_too_is_a_refusal(systemd: MemorySystemd, ensure: Ensure, key: str, check: bool) -> None:
    """Directly, and through a target that does not run; a restart starts it just the same."""
    systemd.add("api", "inactive", **{key: "shop.target"})
    systemd.add("shop.target", "inactive", Wants="mailer.service")
    systemd.add("mailer", "inactive")
    with pytest.raises(
        Refusal,
        match=r"unit mailer\.service: it does not run, is not declared, and systemd would start it together with "
        r"api\.service \(through shop\.target\)\. Declare it in a tier, or take the dependency on it from shop\.target",
    ):
        ensure(["api"], check=check)
    systemd.add("api", **{key: "mailer.service"})
    with pytest.raises(Refusal, match=r"unit mailer\.service: .* together with api\.service\. Declare it"):
        ensure(["api"], "restarted", restarted_after=time.time(), check=check)
    assert systemd.commands == []
    assert not ensure(["api"]).changed


def test_what_a_start_leaves_alone_is_no_refusal(systemd: MemorySystemd, ensure: Ensure) -> None:
    """What runs, and what only it wants; what is declared, is no unit, ends by itself, or triggers the unit itself."""
    wants = "up.target db.service gone.service network-online.target api.socket var.mount off.target"
    systemd.add("api", "inactive", Wants=wants, TriggeredBy="api.socket")
    systemd.add("up.target", Wants="mailer.service")
    systemd.add("mailer", "inactive")
    systemd.add("db", "inactive")
    systemd.add("network-online.target", "inactive", Wants="wait-online.service")
    systemd.add("wait-online", "inactive", Type="oneshot")
    systemd.add("api.socket", "inactive")
    systemd.add("var.mount", "inactive")
    systemd.add("off.target", "inactive", Wants="masked.service")
    systemd.add("masked", "inactive", LoadState="masked")
    ensure([["db"], ["api"]])
    assert systemd.commands == [("start", "db"), ("start", "api")]


def test_a_socket_of_another_unit_is_not_opened_unseen(systemd: MemorySystemd, ensure: Ensure) -> None:
    """It would take connections for a service that nobody declared."""
    systemd.add("api", "inactive", Requires="spool.socket")
    systemd.add("spool.socket", "inactive")
    with pytest.raises(Refusal, match=r"unit spool\.socket: it does not run, is not declared.*Start it first"):
        ensure(["api"])
    assert systemd.commands == []


@pytest.mark.parametrize("key", ["Conflicts", "ConflictedBy"])
def test_what_a_start_would_stop_is_a_refusal(systemd: MemorySystemd, ensure: Ensure, key: str) -> None:
    """Of the unit itself, and of what it pulls in; not where it is stopped before, or does not run."""
    systemd.add("old")
    systemd.add("api", "inactive", **{key: "old.service"})
    with pytest.raises(
        Refusal, match=r"unit old\.service: it runs, is not declared, and systemd would stop it when api\.service is"
    ):
        ensure(["api"])
    systemd.add("api", "inactive", Wants="shop.target")
    systemd.add("shop.target", "inactive", **{key: "old.service"})
    with pytest.raises(Refusal, match=r"unit old\.service: it runs, is not declared, .* when shop\.target is started"):
        ensure(["api"])
    with pytest.raises(Refusal, match=r"unit old\.service: it runs, is declared too"):
        ensure(["old", "api"])
    assert systemd.commands == []
    systemd.add("old", "inactive")
    ensure(["api"])
    assert systemd.commands == [("start", "api")]


def test_dependents_in_a_circle_are_looked_at_once(systemd: MemorySystemd, ensure: Ensure) -> None:
    """One in which the unit itself is not; the same with what a start pulls in."""
    systemd.add("db", RequiredBy="one.target")
    systemd.add("one.target", "inactive", RequiredBy="two.target", Wants="two.target")
    systemd.add("two.target", "inactive", RequiredBy="one.target", Wants="one.target")
    ensure(["db"], "stopped")
    systemd.add("db", "inactive", Wants="one.target")
    ensure(["db"])
    assert systemd.commands == [("stop", "db"), ("start", "db")]
