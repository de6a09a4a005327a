# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Order, refusals before any change, drain, readiness, and releases that are put back."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.lowtide.ops.plugins.module_utils._common.errors import OpsError, Refusal
from ansible_collections.lowtide.ops.plugins.module_utils._common.outcome import Outcome
from ansible_collections.lowtide.ops.plugins.module_utils._common.retry import Deadline
from ansible_collections.lowtide.ops.plugins.module_utils._common.text import format_duration
from ansible_collections.lowtide.ops.plugins.module_utils._systemd.ensure import parse_time, read_restarted_after
from ansible_collections.lowtide.ops.plugins.module_utils._systemd.lock import hold_host
from ansible_collections.lowtide.ops.plugins.module_utils._systemd.units import parse_tiers
from unit.systemd.memory_systemd import MemorySystemd

Ensure = Callable[..., Outcome]
Serve = Callable[..., str]
TIERS = [["cache"], ["db"], ["api", "web"]]


def test_tiers_start_in_order(systemd: MemorySystemd, ensure: Ensure) -> None:
    """And a second run has nothing to do."""
    for name in ("cache", "db", "api", "web"):
        systemd.add(name, "inactive")
    outcome = ensure(TIERS)
    assert systemd.commands == [("start", name) for name in ("cache", "db", "api", "web")]
    assert outcome.changed
    assert outcome.summary == "started cache.service, db.service, api.service, web.service"
    again = ensure(TIERS)
    assert not again.changed
    assert again.summary == "4 units as declared"
    assert again.plan == []


def test_tiers_stop_in_exactly_the_reverse_order(systemd: MemorySystemd, ensure: Ensure) -> None:
    """What is shared is left alone."""
    for name in ("cache", "db", "api", "web"):
        systemd.add(name)
    outcome = ensure([[{"name": "cache", "shared": True}], ["db"], ["api", "web"]], "stopped")
    assert systemd.commands == [("stop", name) for name in ("web", "api", "db")]
    assert outcome.summary == "stopped web.service, api.service, db.service"
    assert systemd.units["cache.service"]["ActiveState"] == "active"


@pytest.mark.parametrize("state", ["started", "stopped", "restarted"])
def test_check_mode_predicts_and_writes_nothing(systemd: MemorySystemd, ensure: Ensure, state: str) -> None:
    """Plan and diff of the prediction are those of the run."""
    systemd.add("cache")
    systemd.add("db", "inactive")
    predicted = ensure([["cache"], ["db"]], state, check=True, restarted_after=time.time())
    assert systemd.commands == []
    done = ensure([["cache"], ["db"]], state, restarted_after=time.time())
    assert predicted.plan == done.plan
    assert predicted.changed == done.changed
    stopping = predicted.summary.removeprefix("would stop ")
    assert state != "stopped" or done.summary == f"stopped {stopping}"
    assert (predicted.before, predicted.after) == (done.before, done.after)


def test_a_restart_is_due_once(systemd: MemorySystemd, ensure: Ensure) -> None:
    """Stopped from the last tier to the first, started from the first to the last, and not again for the same time."""
    for name in ("cache", "db"):
        systemd.add(name)
    after = time.time() - 1
    outcome = ensure([["cache"], ["db"]], "restarted", restarted_after=after)
    assert systemd.commands == [("stop", "db"), ("stop", "cache"), ("start", "cache"), ("start", "db")]
    assert outcome.summary == "restarted cache.service, db.service"
    assert not ensure([["cache"], ["db"]], "restarted", restarted_after=after).changed


def test_what_requires_a_restarted_unit_is_restarted_in_order(systemd: MemorySystemd, ensure: Ensure) -> None:
    """systemd would stop it too, without a drain and without starting it again."""
    systemd.add("db", RequiredBy="api.service")
    systemd.add("api", ActiveEnterTimestampMonotonic=str(int(time.clock_gettime(time.CLOCK_MONOTONIC) * 1e6)))
    ensure([["db"], ["api"]], "restarted", restarted_after=time.time() - 60)
    assert systemd.commands == [("stop", "api"), ("stop", "db"), ("start", "db"), ("start", "api")]


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        ({"LoadState": "not-found"}, "unit db.service: systemd on this host knows no such unit"),
        ({"LoadState": "masked"}, "unit db.service: its LoadState is masked"),
        ({"NeedDaemonReload": "yes"}, "unit db.service: its file has changed since systemd read it"),
    ],
)
def test_what_cannot_be_started_is_refused_before_any_change(
    systemd: MemorySystemd, ensure: Ensure, prepare: dict[str, str], message: str
) -> None:
    """Although the first tier could be."""
    systemd.add("cache", "inactive")
    systemd.add("db", "inactive", **prepare)
    with pytest.raises(Refusal, match=message):
        ensure([["cache"], ["db"]])
    assert systemd.commands == []


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


def test_a_tier_that_is_not_ready_stops_the_rest(systemd: MemorySystemd, ensure: Ensure, serve: Serve) -> None:
    """It says which, and what it answered."""
    for name in ("cache", "db", "api"):
        systemd.add(name, "inactive")
    url = serve([(503, "warming up")])
    outcome = Outcome()
    systemd.journal["db.service"] = ["starting", "cannot connect: password=planted-5e1d"]
    with pytest.raises(OpsError, match=r"unit db\.service: tier 2 is not ready, .*status 503, not 200: warming up"):
        ensure([["cache"], [{"name": "db", "ready": {"url": url, "timeout": 5}}], ["api"]], outcome=outcome)
    assert systemd.commands == [("start", "cache"), ("start", "db")]
    assert outcome.facts["failed_unit"]["unit"] == "db.service"
    assert outcome.facts["failed_unit"]["journal"] == ["starting", "cannot connect: password=[redacted]"]
    assert "planted" not in str(outcome.as_result())


def test_a_crash_loop_is_not_waited_for(systemd: MemorySystemd, ensure: Ensure, serve: Serve) -> None:
    """Another process that answers on its port does not make it ready."""
    systemd.add("api", "inactive")

    def crash(name: str) -> str:
        systemd.units[f"{name}.service"]["NRestarts"] = "3"
        return "activating"

    systemd.on_start = crash
    with pytest.raises(OpsError, match="it crashes: systemd has restarted it 3 times"):
        ensure([{"name": "api", "ready": {"url": serve([(200, "")]), "timeout": 10**4}}])


def test_restarts_of_the_past_are_no_crash_loop(systemd: MemorySystemd, ensure: Ensure, serve: Serve) -> None:
    """systemd counts them until somebody starts the unit by hand: only those while this run waits say something."""
    systemd.add("api", NRestarts="7")
    ready = {"url": serve([(503, "warming up"), (200, "")]), "timeout": 10**4}
    assert ensure([{"name": "api", "ready": ready}]).summary == "1 unit as declared"
    url = serve([(503, "warming up")])
    systemd.add("api", "inactive", NRestarts="7")

    def start_anew(name: str) -> str:
        systemd.units[f"{name}.service"]["NRestarts"] = "3"  # systemd begins at 0 again
        return "activating"

    systemd.on_start = start_anew
    with pytest.raises(OpsError, match="it crashes: systemd has restarted it 3 times while it was waited for"):
        ensure([{"name": "api", "ready": {"url": url, "timeout": 10**4}}])


def test_a_key_in_the_journal_is_redacted_whole(systemd: MemorySystemd, ensure: Ensure) -> None:
    """Its lines tell nothing by themselves, and its beginning may be before the lines that are kept."""
    systemd.add("api", "inactive")
    systemd.on_start = lambda _name: "failed"
    body = [f"MIIplanted{number:02}" + "Ab1+" * 12 for number in range(30)]
    systemd.journal["api.service"] = ["-----BEGIN PRIVATE KEY-----", *body, "-----END PRIVATE KEY-----", "cannot bind"]
    for lines in (20, 100):
        outcome = Outcome()
        with pytest.raises(OpsError):
            ensure(["api"], outcome=outcome, log_lines=lines)
        assert outcome.facts["failed_unit"]["journal"] == ["[redacted]", "cannot bind"]
        assert "planted" not in str(outcome.as_result())
    systemd.journal["api.service"].pop()
    systemd.journal["api.service"].pop()
    outcome = Outcome()
    with pytest.raises(OpsError):
        ensure(["api"], outcome=outcome)
    assert "planted" not in str(outcome.as_result())


SECRET_BODY = '{"error": "cannot log in", "password": "planted-5e1d", "more": "' + "x" * 300 + '"}'


@pytest.mark.parametrize(
    ("status", "body"),
    [(503, SECRET_BODY), (200, SECRET_BODY), (200, f"token=planted-{'y' * 400}")],
)
def test_answers_are_redacted_before_they_are_shortened(
    systemd: MemorySystemd, ensure: Ensure, serve: Serve, status: int, body: str
) -> None:
    """Of readiness, of a drain, and of what is told before it."""
    systemd.add("api")
    url = serve([(status, body)])
    texts = []
    for entry in (
        {"drain": {"url": url, "limit": 2}},
        {"drain": {"url": url, "field": "password", "limit": 2}},
        {"drain": {"url": url, "begin_url": f"{url}/?token=planted-6", "limit": 2}},
        {"ready": {"url": f"{url}/?token=planted-6", "status": 201, "timeout": 2}},
    ):
        outcome = Outcome()
        with pytest.raises(OpsError) as caught:
            ensure([{"name": "api", **entry}], "started" if "ready" in entry else "stopped", outcome=outcome)
        texts.append(f"{caught.value} {outcome.as_result()}")
    assert "planted" not in " ".join(texts)
    assert status != 503 or all("[redacted]" in text for text in texts)


def test_nothing_is_stopped_with_requests_in_flight(systemd: MemorySystemd, ensure: Ensure, serve: Serve) -> None:
    """It waits for zero; after the limit it refuses, or stops where that was asked for, and says so."""
    systemd.add("api")
    drain = {"url": serve([(200, "3"), (200, "1"), (200, "0")]), "limit": 50}
    outcome = ensure([{"name": "api", "drain": drain}], "stopped")
    assert "api.service: 0 requests in flight before the stop" in outcome.evidence
    systemd.add("api")
    systemd.commands.clear()
    drain = {"url": serve([(200, "2")]), "limit": 5}
    with pytest.raises(Refusal, match=r"unit api\.service: 2 requests in flight after 5 s, so it was not stopped"):
        ensure([{"name": "api", "drain": drain}], "stopped")
    assert systemd.commands == []
    outcome = ensure([{"name": "api", "drain": drain}], "stopped", on_busy="stop")
    assert systemd.commands == [("stop", "api")]
    assert "stopped with 2 requests in flight" in " ".join(outcome.evidence)


def test_a_stop_that_outlasts_its_client_leaves_nothing_down(systemd: MemorySystemd, ensure: Ensure) -> None:
    """systemd goes on with its stop job: its end is waited for, and the unit serves again. The summary tells it."""
    systemd.add("db")
    systemd.add("api", TimeoutStopUSec="8s")
    systemd.slow_stops["api.service"] = 3
    outcome = Outcome()
    tiers = [["db"], [{"name": "api", "stop_timeout": 9}]]
    with pytest.raises(OpsError, match=r"not ended after 9 s.*api\.service had been stopped before and serves again"):
        ensure(tiers, "restarted", restarted_after=time.time(), outcome=outcome)
    assert [command for command in systemd.commands if command[0] != "reset-failed"] == [
        ("stop", "api"),
        ("start", "api"),
    ]
    assert systemd.units["api.service"]["ActiveState"] == "active"
    assert outcome.summary == "restarted api.service"


def test_a_unit_that_stays_down_is_in_the_summary(systemd: MemorySystemd, ensure: Ensure) -> None:
    """Never a unit as declared, nor a restarted one, that does not run."""
    systemd.add("api")
    systemd.slow_stops["api.service"] = 3
    systemd.on_start = lambda _name: "failed"
    outcome = Outcome()
    with pytest.raises(OpsError, match="starting it again failed"):
        ensure(["api"], "restarted", restarted_after=time.time(), outcome=outcome)
    assert outcome.summary == "stopped api.service; not as declared: api.service is failed (failed), result timeout"


def test_a_refused_stop_is_no_unit_as_declared(systemd: MemorySystemd, ensure: Ensure) -> None:
    """It runs on, and nothing is started."""
    systemd.add("api")
    systemd.refusals[("stop", "api.service")] = "Access denied"
    outcome = Outcome()
    with pytest.raises(OpsError, match="this account may not stop it"):
        ensure(["api"], "restarted", restarted_after=time.time(), outcome=outcome)
    assert systemd.commands == [("stop", "api")]
    assert outcome.summary == "nothing was stopped, switched or started"
    with pytest.raises(OpsError, match="this account may not stop it"):
        ensure(["api"], "stopped", outcome=outcome)
    assert outcome.summary.endswith("not as declared: api.service is active (running)")


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


@pytest.mark.parametrize(
    "answer", [(200, ""), (200, "none"), (200, "-1"), (200, '{"x": 0}'), (500, "0"), (200, "true")]
)
def test_what_is_no_number_is_not_zero(
    systemd: MemorySystemd, ensure: Ensure, serve: Serve, answer: tuple[int, str]
) -> None:
    """Missing answers fail closed."""
    systemd.add("api")
    with pytest.raises(Refusal, match="how many requests are in flight is not known"):
        ensure([{"name": "api", "drain": {"url": serve([answer]), "limit": 2}}], "stopped")
    assert systemd.commands == []


def test_a_drain_that_fails_is_taken_back(systemd: MemorySystemd, ensure: Ensure, serve: Serve) -> None:
    """The service takes requests again, and what a restart had stopped before it serves again."""
    systemd.add("db")
    systemd.add("api")
    asked: list[str] = []
    url = serve([(200, "7")], asked)
    drain = {"url": f"{url}/n", "begin_url": f"{url}/drain", "cancel_url": f"{url}/resume", "limit": 2}
    with pytest.raises(OpsError, match=r"api\.service had been stopped before and serves again"):
        ensure([[{"name": "db", "drain": drain}], ["api"]], "restarted", restarted_after=time.time())
    assert asked[0] == "POST /drain"
    assert asked[-1] == "POST /resume"
    assert systemd.commands == [("stop", "api"), ("start", "api")]


def declare_api(releases: Path, target: str, **ready: Any) -> list[dict[str, Any]]:
    """Return the unit api with a release."""
    release = {"link": str(releases / "current"), "target": str(releases / target)}
    return [{"name": "api", "release": release, **({"ready": ready} if ready else {})}]


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
    with pytest.raises(OpsError, match=r"failed as well: .* By hand on this host: ln -sfn .*/1 .*/current; systemctl"):
        ensure(declare_api(releases, "2"))
    assert (releases / "current.lowtide-previous").readlink() == releases / "1"


def test_a_run_after_a_killed_one_goes_on(systemd: MemorySystemd, ensure: Ensure, releases: Path) -> None:
    """Killed after the switch: the old processes are replaced, and what is put back is the release before."""
    systemd.add("api")
    (releases / "current.lowtide-previous").symlink_to(releases / "1")
    (releases / "current").unlink()
    (releases / "current").symlink_to(releases / "2")
    predicted = ensure(declare_api(releases, "2"), check=True)
    assert [item.what for item in predicted.plan] == ["stop", "prove", "start"]
    assert ensure(declare_api(releases, "2")).changed
    assert sorted(os.listdir(releases)) == ["1", "2", "current"]
    assert systemd.commands == [("stop", "api"), ("start", "api")]


def test_a_release_that_was_not_yet_watched_is_watched_by_the_next_run(
    systemd: MemorySystemd, ensure: Ensure, serve: Serve, releases: Path
) -> None:
    """Killed while it was watched: nothing is started, and it is put back all the same when a check fails."""
    (releases / "current.lowtide-previous").symlink_to(releases / "1")
    (releases / "current").unlink()
    (releases / "current").symlink_to(releases / "2")
    systemd.add("api", ActiveEnterTimestampMonotonic=str(int(time.clock_gettime(time.CLOCK_MONOTONIC) * 1e6) + 10**6))
    url = serve([(200, ""), (503, "broken"), (200, "")])
    with pytest.raises(OpsError, match=r"did not stay so: .*status 503.* put back and serving again"):
        ensure(declare_api(releases, "2", url=url), canary_seconds=50)
    assert (releases / "current").readlink() == releases / "1"


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


def test_a_missing_right_is_named(systemd: MemorySystemd, ensure: Ensure) -> None:
    """With the way to get it."""
    systemd.add("api", "inactive")
    systemd.refusals[("start", "api.service")] = "Failed to start api.service: Interactive authentication required."
    with pytest.raises(OpsError, match=r"this account may not start it: .*polkit rule"):
        ensure(["api"])


@pytest.mark.parametrize(
    ("tiers", "message"),
    [
        ([], "no unit is declared"),
        ([["a"], []], "tier 2: it is"),
        (["a", "a.service"], "it is declared twice"),
        ([{"name": "a.timer"}], "it is no service"),
        ([{"name": "a", "pattern": "gunicorn.*"}], "unknown key pattern"),
        ([{"name": "a", "ready": {"port": 1, "url": "http://x/"}}], "neither or both of url and port"),
        ([{"name": "a", "shared": True, "drain": {"url": "http://x/"}}], "it is shared, so it is never stopped"),
        ([{"name": "a", "drain": {"limit": 3}}], "url is missing"),
        ([{"name": "a", "stop_timeout": "soon"}], "is no number from 0"),
        ([{"name": "a", "release": {"link": "current", "target": "/r"}}], "is no absolute path"),
    ],
)
def test_a_declaration_that_cannot_be_understood(tiers: list[Any], message: str) -> None:
    """Names the unit and the value."""
    with pytest.raises(Refusal, match=message):
        parse_tiers(tiers)


def test_texts_of_templates_are_numbers() -> None:
    """An inventory gives numbers as text."""
    ((unit,),) = parse_tiers([{"name": "a", "ready": {"port": "80", "timeout": "5.5"}, "stop_timeout": "7"}])
    assert unit.ready is not None
    assert (unit.ready.port, unit.ready.timeout, unit.stop_timeout) == (80, 5.5, 7.0)


def test_two_runs_on_a_host_wait_for_each_other(tmp_path: Path) -> None:
    """The second is refused only when its time is over, and goes on when the first has ended, however it ended."""
    place = str(tmp_path / "lock")
    script = "import time; print('held', flush=True); time.sleep(0.3)"
    with subprocess.Popen(["flock", place, sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(Refusal, match="still holds it after 0 s"), hold_host(Deadline(0), place):
            raise AssertionError("both hold it")
        with hold_host(Deadline(20), place):
            pass


def test_the_time_of_a_restart() -> None:
    """A zone is needed; a restart without a time, or with one to come, would not be the same when run again."""
    assert parse_time("2026-11-26T02:00:00Z") == parse_time("2026-11-26T04:30:00.0+02:30") == 1795658400.0
    with pytest.raises(Refusal, match="no time after RFC 3339"):
        parse_time("2026-11-26 02:00")
    with pytest.raises(Refusal, match="restarted_after is not set"):
        read_restarted_after({"state": "restarted", "restarted_after": None})
    with pytest.raises(Refusal, match="is in the future"):
        read_restarted_after({"state": "restarted", "restarted_after": "2999-01-01T00:00:00Z"})
    assert read_restarted_after({"state": "started", "restarted_after": "x"}) is None
