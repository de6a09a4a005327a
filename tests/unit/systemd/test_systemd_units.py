# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Order, refusals before any change, drain, and readiness."""

from __future__ import annotations

import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from typing import Any

import pytest

from ansible_collections.lowtide.ops.plugins.module_utils._common.errors import OpsError, Refusal
from ansible_collections.lowtide.ops.plugins.module_utils._common.outcome import Outcome
from ansible_collections.lowtide.ops.plugins.module_utils._common.retry import Deadline
from ansible_collections.lowtide.ops.plugins.module_utils._systemd.apply import Limits, Run
from ansible_collections.lowtide.ops.plugins.module_utils._systemd.ensure import (
    parse_time,
    perform,
    read_restarted_after,
)
from ansible_collections.lowtide.ops.plugins.module_utils._systemd.lock import hold_host
from ansible_collections.lowtide.ops.plugins.module_utils._systemd.manager import Manager
from ansible_collections.lowtide.ops.plugins.module_utils._systemd.plan import decide
from ansible_collections.lowtide.ops.plugins.module_utils._systemd.units import parse_shown, parse_tiers
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


@pytest.mark.parametrize("trigger", ["api.socket", "nightly.timer", "spool.path"])
def test_a_unit_that_something_would_start_again_is_not_stopped(
    systemd: MemorySystemd, ensure: Ensure, trigger: str
) -> None:
    """The plan says so, in check mode too."""
    systemd.add("api", TriggeredBy=trigger)
    systemd.add(trigger)
    for check in (True, False):
        with pytest.raises(Refusal, match=rf"unit api\.service: {trigger} is active and would start it again"):
            ensure(["api"], "stopped", check=check)
    assert systemd.commands == []
    assert not ensure(["api"]).changed
    ensure(["api"], "restarted", restarted_after=time.time())
    assert systemd.commands == [("stop", "api"), ("start", "api")]
    systemd.commands.clear()
    systemd.add(trigger, "inactive")
    ensure(["api"], "stopped")
    assert systemd.commands == [("stop", "api")]


def test_a_unit_that_is_active_again_after_its_stop_is_a_failure(systemd: MemorySystemd, ensure: Ensure) -> None:
    """What systemctl says of a stop is read back."""
    systemd.add("db")
    systemd.add("api")
    systemd.on_stop = lambda _name: "active"
    with pytest.raises(OpsError, match=r"unit api\.service: it was stopped and is active \(running\) again"):
        ensure([["db"], ["api"]], "stopped")
    assert systemd.commands == [("stop", "api")]


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
    systemd.crashing = lambda _name: True
    with pytest.raises(OpsError, match="it crashes: systemd has restarted it 3 times"):
        ensure([{"name": "api", "ready": {"url": serve([(200, "")]), "timeout": 10**4}}])


def test_restarts_of_the_past_are_no_crash_loop(systemd: MemorySystemd, ensure: Ensure, serve: Serve) -> None:
    """systemd counts them until somebody starts the unit by hand: only those while this run waits say something."""
    systemd.add("api", NRestarts="7")
    ready = {"url": serve([(503, "warming up"), (200, "")]), "timeout": 10**4}
    assert ensure([{"name": "api", "ready": ready}]).summary == "1 unit as declared"
    url = serve([(503, "warming up")])
    systemd.add("api", "inactive", NRestarts="7", WantedBy="multi-user.target")
    systemd.crashing = lambda _name: True
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


def test_a_service_that_was_told_to_take_no_requests_is_not_said_to_serve(
    systemd: MemorySystemd, ensure: Ensure, serve: Serve
) -> None:
    """Where there is no way to tell it the opposite."""
    systemd.add("api")
    url = serve([(200, "2")])
    with pytest.raises(Refusal, match="still runs, but may take no new requests"):
        ensure([{"name": "api", "drain": {"url": url, "begin_url": f"{url}/drain", "limit": 3}}], "stopped")


def test_a_unit_without_a_main_process_is_drained(systemd: MemorySystemd, ensure: Ensure, serve: Serve) -> None:
    """systemd may not know which of its processes is the main one; only what waits to be restarted cannot answer."""
    drain = {"url": serve([(200, "2")]), "limit": 3}
    systemd.add("api", MainPID="0")
    with pytest.raises(Refusal, match="2 requests in flight"):
        ensure([{"name": "api", "drain": drain}], "stopped")
    assert systemd.commands == []
    systemd.add("api", "activating", SubState="auto-restart")
    ensure([{"name": "api", "drain": drain}], "stopped")
    assert systemd.commands == [("stop", "api")]


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
    assert asked.count("POST /resume") == 1
    assert systemd.commands == [("stop", "api"), ("start", "api")]


def test_a_restart_by_systemd_is_a_failure_of_the_watch(systemd: MemorySystemd, ensure: Ensure, serve: Serve) -> None:
    """Although each check finds the unit active and ready."""
    systemd.add("api", "inactive")
    asked: list[str] = []
    url = serve([(200, "")], asked)
    count = systemd.run

    def run(argv: Any, seconds: float) -> Any:
        systemd.units["api.service"]["NRestarts"] = "1" if len(asked) > 2 else "0"
        return count(argv, seconds)

    systemd.run = run  # type: ignore[assignment,method-assign]
    with pytest.raises(OpsError, match="did not stay so: it was started anew"):
        ensure([{"name": "api", "ready": {"url": url}}], canary_seconds=50)


def test_a_stop_that_systemd_had_to_force_is_told(systemd: MemorySystemd, ensure: Ensure) -> None:
    """The processes were killed at the end of TimeoutStopSec."""
    systemd.add("api", Result="timeout")
    systemd.add("web")
    outcome = ensure(["api", "web"], "stopped")
    told = [line for line in outcome.evidence if "TimeoutStopSec" in line]
    assert told == ["api.service: it did not end within its own TimeoutStopSec, and systemd killed its processes"]


def test_what_had_been_stopped_is_not_started_past_a_tier_that_failed(
    systemd: MemorySystemd, ensure: Ensure, serve: Serve
) -> None:
    """Once the start has begun, no later tier is touched."""
    systemd.add("db")
    systemd.add("api")
    ready = {"url": serve([(503, "")]), "timeout": 3}
    with pytest.raises(OpsError, match="tier 1 is not ready, and no later tier was started") as caught:
        ensure([[{"name": "db", "ready": ready}], ["api"]], "restarted", restarted_after=time.time())
    assert "had been stopped before" not in str(caught.value)
    assert systemd.commands == [("stop", "api"), ("stop", "db"), ("start", "db")]


def test_a_unit_that_was_started_at_that_very_time_is_not_restarted() -> None:
    """Only one that runs since before it."""
    tiers = parse_tiers(["api"])
    text = "LoadState=loaded\nActiveState=active\nSubState=running\nActiveEnterTimestampMonotonic=5000000\n"
    states = parse_shown(text, ["api.service"], 1000.0)
    for after, due in ((1005.0, []), (1004.5, []), (1005.5, ["api.service"])):
        assert list(decide(tiers, states, {}, state="restarted", restarted_after=after).stop) == due


def test_a_missing_right_is_named(systemd: MemorySystemd, ensure: Ensure) -> None:
    """With the way to get it."""
    systemd.add("api", "inactive")
    systemd.refusals[("start", "api.service")] = "Failed to start api.service: Interactive authentication required."
    with pytest.raises(OpsError, match=r"this account may not start it: .*polkit rule"):
        ensure(["api"])
    systemd.refusals[("start", "api.service")] = "Job for api.service failed."
    with pytest.raises(OpsError, match=r"systemctl start ended with exit 1: Job for api\.service failed\. "):
        ensure(["api"])


@pytest.mark.parametrize(
    ("tiers", "message"),
    [
        ([], "no unit is declared"),
        ([["a"], []], "tier 2: it is"),
        (["a", "a.service"], "it is declared twice"),
        ([{"name": "a.timer"}], "it is no service"),
        (["shop-*"], r"unit shop-\*\.service: it is no name of one unit"),
        (["shop-?.service"], "it is no name of one unit"),
        (["shop-[ab]"], "it is no name of one unit"),
        (["/usr/bin/shop.service"], "it is no name of one unit"),
        (["shop@.service"], "it is no name of one unit"),
        (["shop api"], "it is no name of one unit"),
        (
            [{"name": "a", "ready": {"url": "ftp://x/"}}],
            r"unit a\.service, ready, url 'ftp://x/': it is no http or https",
        ),
        ([{"name": "a", "ready": {"url": "127.0.0.1:80/ready"}}], "it is no http or https URL"),
        ([{"name": "a", "ready": {"url": "http:///ready"}}], "it has no host"),
        ([{"name": "a", "ready": {"url": "http://x:99999/"}}], "its host or its port cannot be read"),
        ([{"name": "a", "ready": {"url": "http://x:port/"}}], "its host or its port cannot be read"),
        ([{"name": "a", "ready": {"url": "http://[::1/"}}], "its host or its port cannot be read"),
        ([{"name": "a", "ready": {"url": "http://x/a b"}}], "it has a space"),
        ([{"name": "a", "ready": {"url": "http://me:planted@x/"}}], r"url 'http://x/': it has a user or a password"),
        ([{"name": "a", "ready": {"port": 70000}}], "port 70000 is above 65535"),
        ([{"name": "a", "drain": {"url": "x"}}], "drain, url 'x': it is no http or https URL"),
        ([{"name": "a", "drain": {"url": ""}}], "its url is empty"),
        ([{"name": "a", "drain": {"url": "http://x/", "begin_url": "x?t=planted"}}], r"begin_url 'x\?\[redacted\]'"),
        (
            [{"name": "a", "drain": {"url": "http://x/", "cancel_url": "http://"}}],
            "cancel_url 'http://': it has no host",
        ),
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


def test_names_of_units_are_taken() -> None:
    """Instances and escaped names too."""
    tiers = parse_tiers(["shop@1", "shop@a\\x2db.service", "getty@tty1", "a_b:c-1.2.service"])
    assert [unit.name for unit in tiers[0]] == [
        "shop@1.service",
        "shop@a\\x2db.service",
        "getty@tty1.service",
        "a_b:c-1.2.service",
    ]


def test_a_token_in_a_url_is_not_told(systemd: MemorySystemd, ensure: Ensure, serve: Serve) -> None:
    """Neither as proof nor in a failure."""
    systemd.add("api")
    url = serve([(200, ""), (200, ""), (500, "")])
    ready = {"url": f"{url}/ready?token=planted-77", "timeout": 3}
    outcome = ensure([{"name": "api", "ready": ready}])
    assert f"{url}/ready?[redacted] answers 200" in " ".join(outcome.evidence)
    ensure([{"name": "api", "ready": ready}])
    failed = Outcome()
    with pytest.raises(OpsError, match="status 500") as caught:
        ensure([{"name": "api", "ready": ready}], outcome=failed)
    drain = {"url": f"{url}/n?token=planted-77", "limit": 2, "begin_url": ""}
    with pytest.raises(Refusal, match="is not known") as busy:
        ensure([{"name": "api", "drain": drain}], "stopped", outcome=failed)
    told = {**drain, "begin_url": f"{url}/drain?token=planted-77"}
    with pytest.raises(OpsError, match="could not be told") as untold:
        ensure([{"name": "api", "drain": told}], "stopped", outcome=failed)
    assert "planted" not in f"{outcome.as_result()} {failed.as_result()} {caught.value} {busy.value} {untold.value}"


def test_texts_of_templates_are_numbers() -> None:
    """An inventory gives numbers as text."""
    ((unit,),) = parse_tiers([{"name": "a", "ready": {"port": "80", "timeout": "5.5"}, "stop_timeout": "7"}])
    assert unit.ready is not None
    assert (unit.ready.port, unit.ready.timeout, unit.stop_timeout) == (80, 5.5, 7.0)


def test_two_runs_on_a_host_wait_for_each_other() -> None:
    """The second is refused only when its time is over, and goes on when the first has ended, however it ended."""
    name = f"lowtide.ops-test-{uuid.uuid4().hex}"
    script = (
        "import socket, sys, time; lock = socket.socket(socket.AF_UNIX); lock.bind(chr(0) + sys.argv[1]);"
        " print('held', flush=True); time.sleep(0.3)"
    )
    with subprocess.Popen([sys.executable, "-c", script, name], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(Refusal, match="still holds it after 0 s"), hold_host(Deadline(0), name):
            raise AssertionError("both hold it")
        with hold_host(Deadline(20), name):
            pass


def test_the_lock_is_free_after_a_failure() -> None:
    """A run that failed holds nothing."""
    name = f"lowtide.ops-test-{uuid.uuid4().hex}"
    with pytest.raises(ZeroDivisionError), hold_host(Deadline(0), name):
        raise ZeroDivisionError
    with hold_host(Deadline(0), name):
        pass


def test_a_lock_that_cannot_be_taken_is_a_message() -> None:
    """Not the bare error of the system."""
    with pytest.raises(OpsError, match=r"lock @x+: it cannot be taken: "), hold_host(Deadline(0), "x" * 200):
        raise AssertionError("it is held")


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
    assert read_restarted_after({"state": "restarted", "restarted_after": "1970-01-01T00:01:00Z"}) == 60.0


def test_a_rehearsal_has_what_each_unit_says_as_evidence(systemd: MemorySystemd, ensure: Ensure, serve: Serve) -> None:
    """One line for each, whether it runs or not, is ready or not."""
    systemd.add("db", "inactive")
    systemd.add("api")
    systemd.add("web")
    up, down = serve([(200, "")]), serve([(503, "warming")])
    tiers = ["db", {"name": "api", "ready": {"url": up}}, {"name": "web", "ready": {"url": down}}]
    lines = ensure(tiers, check=True).evidence
    assert lines[0] == "db.service: inactive (dead)"
    assert lines[1].startswith("api.service: active (running) since ")
    assert lines[1].endswith(", ready")
    assert lines[2].endswith(f", not ready: {down}: status 503, not 200: warming")


@pytest.mark.parametrize(("status", "is_told"), [(399, True), (400, False)])
def test_a_drain_begins_where_its_url_says_so(
    systemd: MemorySystemd, ensure: Ensure, serve: Serve, status: int, *, is_told: bool
) -> None:
    """An error of the client is none either."""
    systemd.add("api")
    drain = {"url": serve([(200, "0")]), "begin_url": serve([(status, "")])}
    if is_told:
        ensure([{"name": "api", "drain": drain}], "stopped")
    else:
        with pytest.raises(OpsError, match=r"could not be told to take no new requests: .*status 400"):
            ensure([{"name": "api", "drain": drain}], "stopped")
    assert systemd.commands == ([("stop", "api")] if is_told else [])


def test_a_wait_says_how_long_it_was_unless_it_was_in_vain(
    systemd: MemorySystemd, ensure: Ensure, serve: Serve
) -> None:
    """What crashed was not waited for."""
    systemd.add("api", "inactive")
    with pytest.raises(OpsError, match=r"status 503, not 200: +\(after 4 s\)\."):
        ensure([{"name": "api", "ready": {"url": serve([(503, "")]), "timeout": 4}}])
    systemd.add("api", "inactive")
    systemd.on_start = lambda _name: "failed"
    with pytest.raises(OpsError, match=r"it is failed \(failed\)\."):
        ensure(["api"])


def test_units_are_looked_at_once_a_second_while_they_are_watched(systemd: MemorySystemd) -> None:
    """Neither without a pause nor more seldom than that."""
    systemd.add("api", "inactive")
    pauses: list[float] = []
    made = Run(
        parse_tiers(["api"]),
        Manager(systemd.run),
        Outcome(),
        Limits(canary_seconds=3.0),
        deadline=lambda seconds: Deadline(seconds, clock=lambda: sum(pauses), sleep=pauses.append),
    )
    perform(made, state="started", restarted_after=None)
    assert pauses == [1.0, 1.0, 1.0]
    assert "4 checks in 3 s, none failed" in made.outcome.evidence
