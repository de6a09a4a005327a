# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Releases behind a link: switched, proven, put back, and what a killed run leaves of them."""

from __future__ import annotations

import errno
import os
import re
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


def declare_api(releases: Path, target: str, **ready: Any) -> list[dict[str, Any]]:
    """Return the unit api with a release."""
    release = {"link": str(releases / "current"), "target": str(releases / target)}
    return [{"name": "api", "release": release, **({"ready": ready} if ready else {})}]


def test_a_refusal_of_a_drain_puts_no_release_back(
    systemd: MemorySystemd, ensure: Ensure, serve: Serve, releases: Path
) -> None:
    """What a killed run had switched is not proven, and is not disproven by requests in flight either."""
    leave_killed(releases)
    systemd.add("api")
    (declared,) = declare_api(releases, "2")
    drain = {"url": serve([(200, "2")]), "limit": 3}
    outcome = Outcome()
    with pytest.raises(Refusal, match="2 requests in flight after 3 s, so it was not stopped and still serves"):
        ensure([{**declared, "drain": drain}], outcome=outcome)
    assert systemd.commands == []
    assert (releases / "current").readlink() == releases / "2"
    assert (releases / "current.lowtide-previous").readlink() == releases / "1"
    assert not outcome.changed
    assert outcome.facts["rolled_back"] is False
    assert outcome.summary == "nothing was stopped, switched or started"


def test_a_release_is_switched_and_proven(systemd: MemorySystemd, ensure: Ensure, releases: Path) -> None:
    """The note of what was before is gone once it serves; a second run is unchanged."""
    systemd.add("api")
    outcome = ensure(declare_api(releases, "2"), canary_seconds=5)
    assert (releases / "current").readlink() == releases / "2"
    assert systemd.commands == [("stop", "api"), ("start", "api")]
    assert sorted(os.listdir(releases)) == ["1", "2", "current"]
    assert "none failed" in " ".join(outcome.evidence)
    assert not ensure(declare_api(releases, "2"), canary_seconds=5).changed


def test_a_release_that_does_not_stay_ready_is_put_back(
    systemd: MemorySystemd, ensure: Ensure, serve: Serve, releases: Path
) -> None:
    """And proven; the failure has the first cause, and the journal from before it was put back."""
    systemd.add("api")
    url = serve([(200, ""), (200, ""), (500, "broken"), (200, "")])
    outcome = Outcome()
    with pytest.raises(OpsError, match=r"did not stay so: .*status 500.* put back and serving again: .*/1"):
        ensure(declare_api(releases, "2", url=url), canary_seconds=50, outcome=outcome)
    assert (releases / "current").readlink() == releases / "1"
    assert outcome.facts["rolled_back"] is True
    assert sorted(os.listdir(releases)) == ["1", "2", "current"]
    assert systemd.commands[-2:] == [("stop", "api"), ("start", "api")]


def test_putting_back_that_fails_as_well_ends_with_the_step_for_a_person(
    systemd: MemorySystemd, ensure: Ensure, releases: Path
) -> None:
    """Nothing more is changed, and the note stays for the next run."""
    systemd.add("api")
    systemd.on_start = lambda _name: "failed"
    by_hand = r"By hand on this host: ln -sfn .*/1 .*/current; systemctl reset-failed .*; systemctl restart"
    with pytest.raises(OpsError, match=rf"failed as well: .* {by_hand}"):
        ensure(declare_api(releases, "2"))
    assert (releases / "current.lowtide-previous").readlink() == releases / "1"


def test_a_run_after_a_killed_one_goes_on(systemd: MemorySystemd, ensure: Ensure, releases: Path) -> None:
    """Killed after the switch: the old processes are replaced, and what is put back is the release before."""
    systemd.add("api")
    leave_killed(releases)
    predicted = ensure(declare_api(releases, "2"), check=True)
    assert [item.what for item in predicted.plan] == ["stop", "prove", "start"]
    assert ensure(declare_api(releases, "2")).changed
    assert sorted(os.listdir(releases)) == ["1", "2", "current"]
    assert systemd.commands == [("stop", "api"), ("start", "api")]


def test_a_release_that_was_not_yet_watched_is_watched_by_the_next_run(
    systemd: MemorySystemd, ensure: Ensure, serve: Serve, releases: Path
) -> None:
    """Killed while it was watched: nothing is started, and it is put back all the same when a check fails."""
    leave_killed(releases)
    systemd.add("api", ActiveEnterTimestampMonotonic=enter_after_switch())
    url = serve([(200, ""), (503, "broken"), (200, "")])
    with pytest.raises(OpsError, match=r"did not stay so: .*status 503.* put back and serving again"):
        ensure(declare_api(releases, "2", url=url), canary_seconds=50)
    assert (releases / "current").readlink() == releases / "1"


def test_releases_are_put_back_in_order(systemd: MemorySystemd, ensure: Ensure, serve: Serve, releases: Path) -> None:
    """Stopped from the last unit to the first, started from the first to the last."""
    systemd.add("api")
    systemd.add("web")
    (declared,) = declare_api(releases, "2")
    ready = {"url": serve([(200, ""), (500, ""), (200, "")])}
    with pytest.raises(OpsError, match="put back and serving again"):
        ensure([[declared], [{**declared, "name": "web", "ready": ready}]], canary_seconds=50)
    back = systemd.commands[4:]
    assert back == [("stop", "web"), ("stop", "api"), ("start", "api"), ("start", "web")]


def test_the_release_that_was_good_is_not_put_back_to_itself(
    systemd: MemorySystemd, ensure: Ensure, serve: Serve, releases: Path
) -> None:
    """Declared again after a killed run, it fails like any unit: there is nothing before it."""
    systemd.add("api")
    leave_killed(releases)
    outcome = Outcome()
    with pytest.raises(OpsError, match="is not ready") as caught:
        ensure(declare_api(releases, "1", url=serve([(500, "")]), timeout=3), outcome=outcome)
    assert "put" not in str(caught.value)
    assert outcome.facts["rolled_back"] is False
    assert systemd.commands == [("stop", "api"), ("start", "api")]
    assert (releases / "current").readlink() == releases / "1"


def test_what_is_put_back_is_the_last_release_that_served(
    systemd: MemorySystemd, ensure: Ensure, serve: Serve, releases: Path
) -> None:
    """Not the one that a killed run had switched to: nobody has seen that one serve."""
    systemd.add("api")
    leave_killed(releases)
    (releases / "3").mkdir()
    url = serve([(200, ""), (500, ""), (200, "")])
    with pytest.raises(OpsError, match=r"put back and serving again: .*/1"):
        ensure(declare_api(releases, "3", url=url), canary_seconds=50)
    assert (releases / "current").readlink() == releases / "1"


def test_the_note_keeps_the_last_release_that_served(systemd: MemorySystemd, ensure: Ensure, releases: Path) -> None:
    """Also through a second switch after a killed run."""
    systemd.add("api")
    leave_killed(releases)
    (releases / "3").mkdir()
    systemd.on_start = lambda _name: "failed"
    with pytest.raises(OpsError, match="failed as well"):
        ensure(declare_api(releases, "3"))
    assert (releases / "current.lowtide-previous").readlink() == releases / "1"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: (path / "2").rmdir(), "there is no such folder on this host"),
        (lambda path: (path / "current").unlink(), "it does not exist"),
        (lambda path: (path / "current").unlink() or (path / "current").mkdir(), "it is no symbolic link"),
    ],
)
def test_a_release_that_cannot_be_switched_is_refused(
    systemd: MemorySystemd, ensure: Ensure, releases: Path, damage: Callable[[Path], None], message: str
) -> None:
    """Before anything is stopped."""
    systemd.add("api")
    damage(releases)
    with pytest.raises(Refusal, match=message):
        ensure(declare_api(releases, "2"))
    assert systemd.commands == []


def declare_drained(releases: Path, url: str, drain: str, **given: Any) -> list[dict[str, Any]]:
    """Return the unit api with release 2, readiness at a URL, and a drain at another one."""
    (declared,) = declare_api(releases, "2", url=url)
    return [{**declared, "drain": {"url": drain, "limit": 9, **given}}]


def test_a_release_that_is_put_back_is_drained_before(
    systemd: MemorySystemd, ensure: Ensure, serve: Serve, releases: Path
) -> None:
    """It took requests while it was ready: they end before it is stopped, as on the way forward."""
    systemd.add("api")
    asked: list[str] = []
    ready = serve([(200, ""), (500, ""), (200, "")])
    drain = serve([(200, "0"), (200, ""), (200, "2"), (200, "1"), (200, "0")], asked)
    outcome = Outcome()
    with pytest.raises(OpsError, match="put back and serving again"):
        ensure(declare_drained(releases, ready, f"{drain}/n", begin_url=""), canary_seconds=50, outcome=outcome)
    assert len(asked) == 5
    assert outcome.evidence.count("api.service: 0 requests in flight before the stop") == 2
    assert systemd.commands == [("stop", "api"), ("start", "api"), ("stop", "api"), ("start", "api")]


@pytest.mark.parametrize("on_busy", ["fail", "stop"])
def test_a_release_that_does_not_drain_is_put_back_all_the_same(
    systemd: MemorySystemd, ensure: Ensure, serve: Serve, releases: Path, on_busy: str
) -> None:
    """After the limit, with what was in flight in the evidence: it has to go, and so it must where nothing answers."""
    for left, words in (((200, "2"), "stopped with 2 requests in flight"), ((500, ""), "is not known")):
        systemd.add("api")
        (releases / "current").unlink()
        (releases / "current").symlink_to(releases / "1")
        ready, drain = serve([(200, ""), (500, ""), (200, "")]), serve([(200, "0"), left])
        outcome = Outcome()
        with pytest.raises(OpsError, match="put back and serving again"):
            ensure(declare_drained(releases, ready, drain), canary_seconds=50, outcome=outcome, on_busy=on_busy)
        told = [line for line in outcome.evidence if line.endswith("after 9 s, to put its release back")]
        assert len(told) == 1
        assert words in told[0]
        assert (releases / "current").readlink() == releases / "1"


def test_a_drain_that_cannot_begin_does_not_keep_a_release(
    systemd: MemorySystemd, ensure: Ensure, serve: Serve, releases: Path
) -> None:
    """Its refusal is in the evidence, and the number in flight is asked for all the same."""
    systemd.add("api")
    ready, begin = serve([(200, ""), (500, ""), (200, "")]), serve([(200, ""), (503, "no")])
    outcome = Outcome()
    with pytest.raises(OpsError, match="put back and serving again"):
        ensure(
            declare_drained(releases, ready, serve([(200, "0")]), begin_url=begin), canary_seconds=50, outcome=outcome
        )
    assert f"api.service: it could not be told to take no new requests: {begin}: status 503: no" in outcome.evidence
    assert outcome.evidence.count("api.service: 0 requests in flight before the stop") == 2


def test_a_release_that_crashes_has_nothing_to_drain(
    systemd: MemorySystemd, ensure: Ensure, serve: Serve, releases: Path
) -> None:
    """What is down is not asked, and what goes down while it is asked is not waited for."""
    systemd.add("api")
    asked: list[str] = []
    drain = serve([(200, "0"), (200, "5")], asked)

    def crash(name: str) -> str:
        systemd.units[f"{name}.service"]["NRestarts"] = "1"
        return "failed" if (releases / "current").readlink() == releases / "2" else "active"

    systemd.on_start = crash
    outcome = Outcome()
    with pytest.raises(OpsError, match="put back and serving again"):
        ensure(declare_drained(releases, serve([(200, "")]), drain), outcome=outcome)
    assert len(asked) == 1
    assert not [line for line in outcome.evidence if "to put its release back" in line]


def test_what_requires_a_release_is_drained_before_it_is_put_back(
    systemd: MemorySystemd, ensure: Ensure, serve: Serve, releases: Path
) -> None:
    """systemd would stop it too, with its requests in flight."""
    systemd.add("api", RequiredBy="web.service")
    systemd.add("web")
    (declared,) = declare_api(releases, "2", url=serve([(200, ""), (500, ""), (200, "")]))
    web = {"name": "web", "drain": {"url": serve([(200, "0")]), "limit": 9}}
    outcome = Outcome()
    with pytest.raises(OpsError, match="put back and serving again"):
        ensure([[declared], [web]], canary_seconds=50, outcome=outcome)
    assert systemd.commands[4:] == [("stop", "web"), ("stop", "api"), ("start", "api"), ("start", "web")]
    assert outcome.evidence.count("web.service: 0 requests in flight before the stop") == 2


def test_a_release_that_may_be_put_back_takes_nothing_undeclared_down(
    systemd: MemorySystemd, ensure: Ensure, releases: Path
) -> None:
    """Also where a killed run has left only its proof to do, and the unit is not stopped unless it fails."""
    leave_killed(releases)
    systemd.add("api", RequiredBy="other.service", ActiveEnterTimestampMonotonic=enter_after_switch())
    systemd.add("other")
    with pytest.raises(Refusal, match=r"unit other\.service: it runs, is not declared"):
        ensure(declare_api(releases, "2"))
    assert systemd.commands == []


@pytest.mark.parametrize(
    ("number", "step"),
    [
        (errno.EROFS, "remount it: mount -o remount,rw"),
        (errno.ENOSPC, r"Make room on its file system: `df -h "),
        (errno.EACCES, "Give this account the right to write to "),
        (errno.EPERM, "`lsattr -d "),
        (errno.EIO, "See what the host says of "),
    ],
)
@pytest.mark.parametrize("call", ["symlink", "replace"])
def test_a_link_that_cannot_be_switched_is_a_message(
    systemd: MemorySystemd,
    ensure: Ensure,
    releases: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    number: int,
    step: str,
    call: str,
) -> None:
    """With the link, the release and what to do; the link is as it was, and what was stopped serves again."""
    systemd.add("api")
    original = getattr(os, call)

    def fail(source: str, target: str) -> None:
        if call == "replace" and not target.endswith("/current"):
            original(source, target)
            return
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, call, fail)
    link = releases / ("current" if call == "replace" else "current.lowtide-previous")
    target = releases / ("2" if call == "replace" else "1")
    outcome = Outcome()
    with pytest.raises(OpsError) as caught:
        ensure(declare_api(releases, "2"), outcome=outcome)
    words = (
        f"release link {link}: it could not be pointed at {target} and is as it was: {os.strerror(number)}; api.service"
    )
    assert str(caught.value).startswith(f"{words} had been stopped before and serves again. ")
    assert re.search(step, str(caught.value))
    assert (releases / "current").readlink() == releases / "1"
    assert systemd.commands == [("stop", "api"), ("start", "api")]
    monkeypatch.undo()
    ensure(declare_api(releases, "2"))
    assert sorted(os.listdir(releases)) == ["1", "2", "current"]


def test_a_note_that_cannot_be_removed_puts_nothing_back(
    systemd: MemorySystemd, ensure: Ensure, serve: Serve, releases: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The new release serves and stays; after putting back, the old one serves and the note is in the message."""
    systemd.add("api")
    note = releases / "current.lowtide-previous"

    def fail(path: str) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)

    monkeypatch.setattr(os, "unlink", fail)
    outcome = Outcome()
    with pytest.raises(OpsError, match=rf"release link {note}: it could not be removed, though .* Permission denied"):
        ensure(declare_api(releases, "2"), outcome=outcome)
    assert (releases / "current").readlink() == releases / "2"
    assert outcome.summary == f"switched {releases}/current; restarted api.service"
    monkeypatch.undo()
    ensure(declare_api(releases, "2"))
    assert sorted(os.listdir(releases)) == ["1", "2", "current"]
    ready = serve([(200, ""), (500, ""), (200, "")])
    monkeypatch.setattr(os, "unlink", fail)
    with pytest.raises(OpsError, match=rf"put back and serving again: .*/2; release link {note}: it could not"):
        ensure(declare_api(releases, "1", url=ready), canary_seconds=50)
    assert (releases / "current").readlink() == releases / "2"


@pytest.mark.parametrize("check", [False, True])
def test_a_release_on_a_read_only_file_system_is_refused(
    systemd: MemorySystemd, ensure: Ensure, releases: Path, monkeypatch: pytest.MonkeyPatch, check: bool
) -> None:
    """Before anything is stopped, and as what it is: more rights would not help."""
    systemd.add("api")
    real = os.statvfs(releases)
    values = [*real[:8], real.f_flag | os.ST_RDONLY, real.f_namemax]
    monkeypatch.setattr(os, "statvfs", lambda _path: os.statvfs_result(values))
    with pytest.raises(
        Refusal, match=rf"link {releases}/current: the file system of {releases} is mounted read-only\."
    ):
        ensure(declare_api(releases, "2"), check=check)
    assert systemd.commands == []


def test_a_release_that_stops_late_is_put_back_and_told(
    systemd: MemorySystemd, ensure: Ensure, serve: Serve, releases: Path
) -> None:
    """How long its stop took is in the evidence, and no reason to leave it down."""
    systemd.add("api", TimeoutStopUSec="1s")
    ready = serve([(200, ""), (500, ""), (200, "")])

    def start(_name: str) -> str:
        systemd.slow_stops["api.service"] = 2
        return "active"

    systemd.on_start = start
    outcome = Outcome()
    with pytest.raises(OpsError, match="put back and serving again"):
        ensure(declare_api(releases, "2", url=ready), canary_seconds=50, outcome=outcome)
    told = [line for line in outcome.evidence if "systemctl stop had not ended after 13 s; now it is failed" in line]
    assert len(told) == 1


def test_a_release_that_ends_while_it_is_drained_is_not_waited_for(
    systemd: MemorySystemd, ensure: Ensure, serve: Serve, releases: Path
) -> None:
    """What it had in flight is gone with it."""
    systemd.add("api")
    asked: list[str] = []
    drain = serve([(200, "0"), (200, "5")], asked)
    run = systemd.run

    def crash(argv: Sequence[str], seconds: float) -> CommandOutput:
        if len(asked) == 3 and systemd.units["api.service"]["ActiveState"] == "active":
            systemd.units["api.service"] |= {"ActiveState": "failed", "SubState": "failed"}
            asked.append("it crashed")
        return run(argv, seconds)

    systemd.run = crash  # type: ignore[assignment,method-assign]
    outcome = Outcome()
    ready = serve([(200, ""), (500, ""), (200, "")])
    with pytest.raises(OpsError, match="put back and serving again"):
        ensure(declare_drained(releases, ready, drain, limit=10**4), canary_seconds=50, outcome=outcome)
    assert asked[3:] == ["it crashed"]
    assert not [line for line in outcome.evidence if "to put its release back" in line]
    assert systemd.commands == [("stop", "api"), ("start", "api"), ("stop", "api"), ("start", "api")]
