# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What is known of units before they are touched, and what is left of a run that fails on the way."""

from __future__ import annotations

import os
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


def make_drain(url: str) -> dict[str, Any]:
    """Return a drain that is begun and can be cancelled."""
    return {"url": f"{url}/n", "begin_url": f"{url}/drain", "cancel_url": f"{url}/resume", "limit": 3}


@pytest.mark.parametrize("state", ["stopped", "restarted"])
def test_a_drain_is_cancelled_when_the_stop_is_refused(
    systemd: MemorySystemd, ensure: Ensure, serve: Serve, state: str
) -> None:
    """The service serves on, so it takes requests again, and the evidence says so."""
    systemd.add("api")
    systemd.refusals["stop", "api.service"] = "Access denied"
    asked: list[str] = []
    outcome = Outcome()
    with pytest.raises(OpsError, match="this account may not stop it"):
        ensure(
            [{"name": "api", "drain": make_drain(serve([(200, "0")], asked))}],
            state,
            restarted_after=time.time(),
            outcome=outcome,
        )
    assert [asked[0], asked[-1]] == ["POST /drain", "POST /resume"]
    assert "api.service: told to take requests again" in outcome.evidence


def test_a_drain_that_may_have_begun_is_cancelled(systemd: MemorySystemd, ensure: Ensure, serve: Serve) -> None:
    """An error as its answer does not mean that the service has not heard it."""
    systemd.add("api")
    asked: list[str] = []
    url = serve([(500, "late"), (200, "")], asked)
    with pytest.raises(OpsError, match="could not be told to take no new requests"):
        ensure([{"name": "api", "drain": make_drain(url)}], "stopped")
    assert asked == ["POST /drain", "POST /resume"]


def test_what_was_started_anew_has_no_drain_to_cancel(systemd: MemorySystemd, ensure: Ensure, serve: Serve) -> None:
    """It began with its start."""
    systemd.add("db")
    systemd.add("api")
    systemd.refusals["stop", "db.service"] = "Access denied"
    asked: list[str] = []
    with pytest.raises(OpsError, match=r"api\.service had been stopped before and serves again"):
        ensure(
            [["db"], [{"name": "api", "drain": make_drain(serve([(200, "0")], asked))}]],
            "restarted",
            restarted_after=time.time(),
        )
    assert asked == ["POST /drain", "GET /n"]


def test_the_drain_of_a_killed_run_is_cancelled_by_the_next(
    systemd: MemorySystemd, ensure: Ensure, serve: Serve
) -> None:
    """It is not due any more, runs and is not ready. What is ready is told nothing, nor is anything in check mode."""
    systemd.add("api")
    asked: list[str] = []
    drain = make_drain(serve([(200, "")], asked))
    ensure([{"name": "api", "drain": drain, "ready": {"url": serve([(503, "draining")])}}], check=True)
    ensure([{"name": "api", "drain": drain, "ready": {"url": serve([(200, "")])}}])
    assert asked == []
    outcome = ensure([{"name": "api", "drain": drain, "ready": {"url": serve([(503, "draining"), (200, "")])}}])
    assert asked == ["POST /resume"]
    assert outcome.changed
    assert systemd.commands == []


@pytest.mark.parametrize("state", ["stopped", "restarted"])
@pytest.mark.parametrize("tiers", [[["web"], ["api"], ["db"]], [["web", "api", "db"]]])
def test_dependents_are_drained_and_stopped_first_wherever_they_are_declared(
    systemd: MemorySystemd, ensure: Ensure, serve: Serve, state: str, tiers: list[list[str]]
) -> None:
    """systemd would stop them together with what they require, with requests in flight; the plan has the same order."""
    systemd.add("db", RequiredBy="api.service")
    systemd.add("api", RequiredBy="web.service")
    systemd.add("web")
    declared = [
        [{"name": name, **({"drain": {"url": serve([(200, "0")])}} if name != "db" else {})} for name in tier]
        for tier in tiers
    ]
    outcome = ensure(declared, state, restarted_after=time.time())
    assert [name for verb, name in systemd.commands if verb == "stop"] == ["web", "api", "db"]
    assert [item.object for item in outcome.plan if item.what == "stop"] == [
        "unit web.service",
        "unit api.service",
        "unit db.service",
    ]
    told = [line for line in outcome.evidence if line.endswith("0 requests in flight before the stop")]
    assert len(told) == 2


def refuse_shows(systemd: MemorySystemd, since: Callable[[], bool], times: int = 10**6) -> None:
    """Let so many questions be unanswered from a moment on."""
    run = systemd.run
    left = [times]

    def answer(argv: Sequence[str], seconds: float) -> CommandOutput:
        if argv[1] == "show" and since() and left[0]:
            left[0] -= 1
            return CommandOutput(None, "", "")
        return run(argv, seconds)

    systemd.run = answer  # type: ignore[assignment,method-assign]


def declare_release(releases: Path, **given: Any) -> list[dict[str, Any]]:
    """Return the unit api with release 2."""
    return [{"name": "api", "release": {"link": f"{releases}/current", "target": f"{releases}/2"}, **given}]


def test_a_question_without_an_answer_is_asked_once_more(systemd: MemorySystemd, ensure: Ensure) -> None:
    """One that has none again is a failure."""
    systemd.add("api")
    refuse_shows(systemd, lambda: True, times=1)
    assert not ensure(["api"]).changed
    refuse_shows(systemd, lambda: True)
    with pytest.raises(OpsError, match="no answer in time"):
        ensure(["api"])


@pytest.mark.parametrize("times", [2, 10**6])
def test_evidence_that_cannot_be_read_keeps_no_release(
    systemd: MemorySystemd, ensure: Ensure, releases: Path, times: int
) -> None:
    """It is put back all the same, or a person is told how; what was not read is told, and so is what was done."""
    systemd.add("api")
    systemd.refusals["start", "api.service"] = "it is broken"

    def is_failing() -> bool:
        if ("start", "api") in systemd.commands:
            systemd.refusals.clear()
            return True
        return False

    refuse_shows(systemd, is_failing, times)
    outcome = Outcome()
    with pytest.raises(OpsError) as caught:
        ensure(declare_release(releases), outcome=outcome)
    assert (releases / "current").readlink().name == "1"
    assert "systemctl start ended with exit 1: it is broken" in str(caught.value)
    assert "api.service: its state could not be read: systemctl show" in " ".join(outcome.evidence)
    if times == 2:
        assert "put back and serving again" in str(caught.value)
    else:
        assert "By hand on this host: ln -sfn" in str(caught.value)
        assert "how the units were left could not be read" in outcome.summary
        assert outcome.facts["units"][0]["state"] == "unknown"


def test_a_success_that_cannot_be_read_back_is_none(systemd: MemorySystemd, ensure: Ensure) -> None:
    """It has been done, and nobody knows how it is: the summary has both."""
    systemd.add("api")
    looks: list[float] = []
    refuse_shows(systemd, lambda: len(looks) > 1, times=2)
    run = systemd.run

    def count(argv: Sequence[str], seconds: float) -> CommandOutput:
        if argv[1] == "show" and systemd.units["api.service"]["ActiveState"] == "inactive":
            looks.append(seconds)
        return run(argv, seconds)

    systemd.run = count  # type: ignore[assignment,method-assign]
    outcome = Outcome()
    with pytest.raises(OpsError, match="no answer in time"):
        ensure(["api"], "stopped", outcome=outcome)
    assert outcome.summary.startswith("stopped api.service; not as declared: how the units were left could not be read")


def test_a_link_that_cannot_be_read_hides_no_failure(
    systemd: MemorySystemd, ensure: Ensure, serve: Serve, releases: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file system that turned read-only, or a release that has vanished, is no refusal any more once it has begun."""
    systemd.add("api")
    real = os.statvfs(releases)

    def start(_name: str) -> str:
        values = [*real[:8], real.f_flag | os.ST_RDONLY, real.f_namemax]
        monkeypatch.setattr(os, "statvfs", lambda _path: os.statvfs_result(values))
        if (releases / "2").exists():
            (releases / "2").rmdir()
        return "active"

    systemd.on_start = start
    ready = {"url": serve([(200, ""), (500, "broken"), (200, "")])}
    outcome = Outcome()
    with pytest.raises(OpsError, match=r"did not stay so: .*status 500.* put back and serving again"):
        ensure(declare_release(releases, ready=ready), canary_seconds=50, outcome=outcome)
    assert outcome.summary == f"put back after a failure: {releases}/1"


def test_a_link_that_is_gone_is_told(systemd: MemorySystemd, ensure: Ensure, releases: Path) -> None:
    """Beside what the run did."""
    systemd.add("api")

    def start(_name: str) -> str:
        (releases / "current").unlink()
        return "active"

    systemd.on_start = start
    assert (
        f"{releases}/current: it could not be read: No such file or directory"
        in ensure(declare_release(releases)).evidence
    )


@pytest.mark.parametrize(
    ("given", "state", "message"),
    [
        ({"Transient": "yes"}, "restarted", r"it has no file \(systemd-run\), so it could not be started again"),
        ({"CanStart": "no"}, "restarted", "systemd does not start it when told to"),
        ({"CanStop": "no"}, "stopped", "systemd does not stop it when told to"),
    ],
)
def test_what_cannot_be_started_or_stopped_by_hand_is_refused_before_any_stop(
    systemd: MemorySystemd, ensure: Ensure, given: dict[str, str], state: str, message: str
) -> None:
    """Nothing else is stopped for it. A transient unit can be stopped for good."""
    systemd.add("db", **given)
    systemd.add("api")
    with pytest.raises(Refusal, match=rf"unit db\.service: {message}"):
        ensure([["db"], ["api"]], state, restarted_after=time.time())
    assert systemd.commands == []
    systemd.add("db", Transient="yes")
    ensure(["db"], "stopped")
    assert systemd.commands == [("stop", "db")]


@pytest.mark.parametrize("key", ["MainPID", "ActiveEnterTimestampMonotonic"])
def test_an_old_systemd_shows_a_new_start_by_process_and_time(
    systemd: MemorySystemd, ensure: Ensure, serve: Serve, key: str
) -> None:
    """Before 232 it has no InvocationID, and before 235 no NRestarts."""
    systemd.add("api", "inactive")
    asked: list[str] = []
    url = serve([(200, "")], asked)
    run = systemd.run

    def answer(argv: Sequence[str], seconds: float) -> CommandOutput:
        unit = systemd.units["api.service"]
        unit.pop("InvocationID", None)
        unit.pop("NRestarts", None)
        if len(asked) == 3:
            unit[key] = str(int(unit[key]) + 7)
            asked.append("started anew")
        return run(argv, seconds)

    systemd.run = answer  # type: ignore[assignment,method-assign]
    with pytest.raises(OpsError, match="did not stay so: it was started anew"):
        ensure([{"name": "api", "ready": {"url": url}}], canary_seconds=50)


def test_a_oneshot_that_remains_is_not_started_unseen(systemd: MemorySystemd, ensure: Ensure) -> None:
    """It stays active, as whatever it has set up."""
    systemd.add("api", "inactive", Wants="firewall.service")
    systemd.add("firewall", "inactive", Type="oneshot", RemainAfterExit="yes")
    with pytest.raises(Refusal, match=r"unit firewall\.service: it does not run, is not declared"):
        ensure(["api"])
    systemd.units["firewall.service"]["RemainAfterExit"] = "no"
    ensure(["api"])
    assert systemd.commands == [("start", "api")]


def test_a_unit_that_another_one_upholds_is_not_stopped(systemd: MemorySystemd, ensure: Ensure) -> None:
    """That one would start it again; where it is to be stopped too, it goes first, wherever it is declared."""
    systemd.add("api", UpheldBy="keeper.service")
    systemd.add("keeper")
    with pytest.raises(Refusal, match=r"unit api\.service: keeper\.service is active and would start it again"):
        ensure(["api"], "stopped")
    assert systemd.commands == []
    ensure([["keeper"], ["api"]], "stopped")
    assert systemd.commands == [("stop", "keeper"), ("stop", "api")]


def test_an_alias_is_the_unit_that_it_stands_for(systemd: MemorySystemd, ensure: Ensure) -> None:
    """In the journal, among its dependents, and in what is told."""
    systemd.add("redis-server", "inactive", Id="redis-server.service")
    systemd.units["redis.service"] = systemd.units["redis-server.service"]
    systemd.add("api", "inactive", Requires="redis-server.service")
    systemd.journal["redis-server.service"] = ["cannot bind"]
    systemd.refusals["start", "redis-server.service"] = "it is broken"
    outcome = Outcome()
    with pytest.raises(OpsError, match=r"unit redis-server\.service: .*it is broken"):
        ensure([["redis"], ["api"]], outcome=outcome)
    assert outcome.facts["failed_unit"]["journal"] == ["cannot bind"]
    with pytest.raises(Refusal, match=r"unit redis-server\.service: it is declared twice, once as redis"):
        ensure([["redis-server"], ["redis"]])
    systemd.refusals.clear()
    assert ensure([["redis"], ["api"]]).summary == "started redis-server.service, api.service"


def test_a_unit_whose_file_is_gone_can_be_stopped(systemd: MemorySystemd, ensure: Ensure) -> None:
    """While it runs; it cannot be started again, and one that does not run is a name that is wrong."""
    systemd.add("api", LoadState="not-found")
    with pytest.raises(Refusal, match="knows no such unit"):
        ensure(["api"], "restarted", restarted_after=time.time())
    ensure(["api"], "stopped")
    assert systemd.commands == [("stop", "api")]
    with pytest.raises(Refusal, match="knows no such unit"):
        ensure(["api"], "stopped")


def test_a_unit_that_is_due_is_not_told_to_take_requests_first(
    systemd: MemorySystemd, ensure: Ensure, serve: Serve
) -> None:
    """It is stopped anyway."""
    systemd.add("api")
    asked: list[str] = []
    ready = {"url": serve([(503, ""), (200, "")])}
    drain = make_drain(serve([(200, "0")], asked))
    ensure([{"name": "api", "drain": drain, "ready": ready}], "restarted", restarted_after=time.time())
    assert asked == ["POST /drain", "GET /n"]


def test_a_release_whose_unit_could_not_be_put_back_is_refused(
    systemd: MemorySystemd, ensure: Ensure, releases: Path
) -> None:
    """Also where a killed run has left only its proof to do."""
    leave_killed(releases)
    systemd.add("api", CanStart="no", ActiveEnterTimestampMonotonic=enter_after_switch())
    with pytest.raises(Refusal, match=r"unit api\.service: systemd does not start it when told to"):
        ensure(declare_release(releases))
