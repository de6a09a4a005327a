# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Sessions of an open window that need the store's answer: which one is waited for, and what counts as one."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.lowtide.ops.plugins.module_utils._common.errors import OpsError
from ansible_collections.lowtide.ops.plugins.plugin_utils._window import session as sessions
from ansible_collections.lowtide.ops.plugins.plugin_utils._window.engine import StepCall
from ansible_collections.lowtide.ops.plugins.plugin_utils._window.events import StepStarted
from ansible_collections.lowtide.ops.plugins.plugin_utils._window.lease import LeaseLost
from ansible_collections.lowtide.ops.plugins.plugin_utils._window.renewal import read_tick
from ansible_collections.lowtide.ops.plugins.plugin_utils._window.store import PATIENCE, StoreUnreachable
from ansible_collections.lowtide.ops.plugins.plugin_utils._window.store_file import FileStore

from .builders import GROUPS, ago, make_inventory
from .simulation import Simulation, end, give_earlier_lease, leave_in_force, leave_no_room, load_nothing

MANY = [f"db{number}" for number in range(1, 31)]
STEPS = [
    {"name": "quiesce", "role": "demo.quiesce", "hosts": "web"},
    {"name": "work", "role": "demo.work", "hosts": "db"},
    {"name": "more", "role": "demo.more", "hosts": "db"},
    {"name": "resume", "role": "demo.resume", "reverts": "quiesce"},
]


def begin(simulation: Simulation, step: str, host: str) -> dict[str, Any]:
    """Begin a step on a host."""
    hosts = ("web1", "web2") if host.startswith("web") else ("db1", "db2") if step == "save" else MANY
    call = StepCall(host=host, step=step, play_hosts=(*hosts, "ctl"))
    return simulation.engine.begin_step(call, preload=load_nothing)


def begin_saving(simulation: Simulation) -> None:
    """Open, and begin on both hosts what has ended on the first."""
    simulation.open(only=["save"])
    simulation.plan()
    for host in ("db1", "db2"):
        begin(simulation, "save", host)
    end(simulation, "save", "db1")


@pytest.fixture
def stopped(simulation: Simulation) -> Simulation:
    """Return a window that has stopped what it is to start again, and is about to work on many hosts."""
    opened = simulation.open(steps=STEPS, inventory=make_inventory({**GROUPS, "db": MANY}))
    assert not opened["refused"], opened
    for host in ("web1", "web2"):
        begin(simulation, "quiesce", host)
        end(simulation, "quiesce", host)
    simulation.engine.window.sign.end_process()
    return simulation


class Answers:
    """What the site's store answers to one method, and with which patience it was asked."""

    def __init__(self, simulation: Simulation, monkeypatch: pytest.MonkeyPatch, method: str) -> None:
        self.asked: list[float] = []
        self.needed = float("inf")
        """Seconds of patience with which it answers."""
        self._function: Callable[..., Any] = getattr(FileStore, method)
        self._site = simulation.store.directory

        def ask(store: FileStore, *given: Any) -> Any:
            return self.ask(store, *given)

        monkeypatch.setattr(FileStore, method, ask)
        monkeypatch.setattr(sessions, "WAITED", 0.0)

    def ask(self, store: FileStore, *given: Any) -> Any:
        """Answer, or raise StoreUnreachable."""
        if store.directory == self._site:
            self.asked.append(store.patience)
            if store.patience < self.needed:
                raise StoreUnreachable("no answer")
        return self._function(store, *given)


def be_silent(simulation: Simulation, file: str, seconds: float) -> None:
    """Let the store have been asked in vain so many seconds ago."""
    Path(simulation.folder, file).write_text(json.dumps([read_tick() - seconds, "no answer"]))


def let_pass(simulation: Simulation, file: str, seconds: float) -> None:
    """Let the store have been silent so many seconds earlier."""
    told = Path(simulation.folder, file)
    tick, words = json.loads(told.read_text())
    told.write_text(json.dumps([tick - seconds, words]))


# -- of many hosts one waits ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["load", "append"])
@pytest.mark.parametrize("age", [10, 40])
def test_of_the_hosts_that_begin_a_step_the_first_waits_for_the_store(
    stopped: Simulation, monkeypatch: pytest.MonkeyPatch, method: str, age: int
) -> None:
    """A table that is locked, a standby that is away: the reverting steps have the time of the lease only."""
    answers = Answers(stopped, monkeypatch, method)
    stopped.engine.window.sign.write(ago(age))
    for host in MANY:
        with pytest.raises(OpsError, match=r"it cannot be written \(no answer\)"):
            begin(stopped, "work", host)
    assert answers.asked == [pytest.approx(min(PATIENCE, stopped.store.ttl - age - 2 * sessions.MARGIN), abs=1), 2.0]
    for host in ("web1", "web2"):
        assert begin(stopped, "resume", host)["perform"]


@pytest.mark.parametrize("file", ["lowtide_window_silent", "lowtide_window_takes_no_writes"])
def test_a_host_that_comes_later_asks_for_a_moment(
    stopped: Simulation, monkeypatch: pytest.MonkeyPatch, file: str
) -> None:
    """With more hosts than forks, or inputs that take long to be found: ten seconds have passed."""
    answers = Answers(stopped, monkeypatch, "load" if file == "lowtide_window_silent" else "append")
    stopped.engine.window.sign.write(ago(10))
    for host in ("db1", "db2", "db3"):
        with pytest.raises(OpsError, match="it cannot be written"):
            begin(stopped, "work", host)
        let_pass(stopped, file, 12)
    assert answers.asked == [30.0, 2.0, 2.0, 2.0]


def test_another_play_asks_again(stopped: Simulation, monkeypatch: pytest.MonkeyPatch) -> None:
    """What one play was refused for may be over."""
    answers = Answers(stopped, monkeypatch, "load")
    with pytest.raises(OpsError, match="it cannot be written"):
        begin(stopped, "work", "db1")
    answers.needed = 0.0
    with pytest.raises(OpsError, match="it cannot be written"):
        begin(stopped, "work", "db2")
    assert begin(stopped, "more", "db1")["perform"]


# -- where nothing can be done without an answer ----------------------------------------------------------------------


@pytest.mark.parametrize("step", ["resume", "work"])
def test_a_store_that_is_back_is_asked_where_the_lease_may_be_over(stopped: Simulation, step: str) -> None:
    stopped.engine.window.sign.write(ago(200))
    be_silent(stopped, "lowtide_window_silent", 3)
    assert begin(stopped, step, "web1" if step == "resume" else "db1")["perform"]


def test_what_is_in_force_is_asked_for_where_the_lease_may_be_over(stopped: Simulation) -> None:
    """It is the last chance to revert it: the closing after it gives the lease back."""
    stopped.engine.window.sign.write(ago(200))
    be_silent(stopped, "lowtide_window_silent", 3)
    assert stopped.engine.list_in_force()["items"] == [{"step": "resume", "batch": 0}]


def test_once_the_lease_may_be_over_the_first_waits_as_long_as_ever(
    stopped: Simulation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing can be done without the store's answer, so that nothing is lost by waiting for it."""
    answers = Answers(stopped, monkeypatch, "load")
    stopped.engine.window.sign.write(ago(200))
    be_silent(stopped, "lowtide_window_silent", 12)
    for host in ("web1", "web2"):
        with pytest.raises(OpsError, match=r"its lease cannot be confirmed \(no answer\)"):
            begin(stopped, "resume", host)
    assert answers.asked == [30.0, 2.0]
    with pytest.raises(OpsError, match="its lease cannot be confirmed"):
        stopped.close()
    assert answers.asked[2:] == [2.0]
    answers.needed = 20.0
    with pytest.raises(OpsError, match="its lease cannot be confirmed"):
        stopped.engine.list_in_force()
    let_pass(stopped, "lowtide_window_silent", 12)
    assert stopped.engine.list_in_force()["items"] == [{"step": "resume", "batch": 0}]
    be_silent(stopped, "lowtide_window_silent", 0)
    assert stopped.close()["state"] == "failed_reverted"


@pytest.mark.parametrize("seconds", [3, 12])
@pytest.mark.parametrize("age", [10, 40])
def test_the_closing_waits_for_a_slow_commit(
    simulation: Simulation, monkeypatch: pytest.MonkeyPatch, seconds: float, age: int
) -> None:
    """The standby was away when the last step ended, and catches up: nothing is left whose time the wait would take."""
    begin_saving(simulation)
    answers = Answers(simulation, monkeypatch, "append")
    end(simulation, "save", "db2")
    answers.needed = 8.0
    let_pass(simulation, "lowtide_window_takes_no_writes", seconds)
    simulation.engine.window.sign.write(ago(age))
    assert simulation.close()["state"] == "succeeded"
    assert not [words for words in simulation.closed["warnings"] if "could not be" in words or "not in its" in words]
    held = simulation.store.read_lease()
    assert held is not None
    assert held.released


def test_the_closing_waits_once_for_a_journal_that_takes_nothing(
    simulation: Simulation, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin_saving(simulation)
    end(simulation, "save", "db2")
    answers = Answers(simulation, monkeypatch, "append")
    reports = Answers(simulation, monkeypatch, "write_report")
    simulation.close()
    assert [*reports.asked, *answers.asked] == [30.0, 2.0]


def test_the_closing_waits_no_longer_than_the_lease_is_held(
    simulation: Simulation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that has waited until it is over could tell nothing of how the window ended."""
    begin_saving(simulation)
    window = simulation.engine.window
    window.sign.end_process()
    answers = Answers(simulation, monkeypatch, "load")
    end(simulation, "save", "db2")
    window.sign.write(ago(40))
    simulation.close()
    assert answers.asked[-1] == pytest.approx(simulation.store.ttl - 40 - 2 * sessions.MARGIN, abs=1)


@pytest.mark.parametrize("step", ["work", "resume"])
@pytest.mark.parametrize(("left", "patience"), [(50, 30), (20, 10), (8, 2)])
def test_the_first_who_meets_a_silence_waits_no_longer_than_the_lease_is_held(
    stopped: Simulation, monkeypatch: pytest.MonkeyPatch, step: str, left: int, patience: int
) -> None:
    """What is to be reverted can begin in that time only."""
    answers = Answers(stopped, monkeypatch, "load")
    stopped.engine.window.sign.write(ago(int(stopped.store.ttl) - left))
    if step == "resume":
        assert begin(stopped, step, "web1")["perform"]
    else:
        with pytest.raises(OpsError, match="it cannot be written"):
            begin(stopped, step, "db1")
    assert answers.asked[0] == pytest.approx(patience, abs=1)


# -- an answer that nobody has the site -------------------------------------------------------------------------------


@pytest.mark.parametrize("is_outdated", [False, True])
def test_a_slow_answer_that_nobody_has_the_site_is_one(
    stopped: Simulation, monkeypatch: pytest.MonkeyPatch, is_outdated: bool
) -> None:
    """After a failover the address of the dead server is asked first, each time. A lease that came back with a copy is
    over, by the server's clock, so that any other run may take it."""
    store, window = stopped.store, stopped.engine.window
    path = store.directory / "lease"
    if is_outdated:
        give_earlier_lease(stopped, boot="elsewhere")
        os.utime(path, (time.time() - 7200, time.time() - 7200))
        assert store.is_expired()
    else:
        path.unlink()
    monkeypatch.setattr(sessions, "WAITED", 0.0)
    window.sign.write(ago(3600))
    with pytest.raises(OpsError, match=r"it cannot be written \(lease .* has lost what was written last"):
        begin(stopped, "work", "db1")
    for host in ("web1", "web2"):
        assert begin(stopped, "resume", host)["perform"]
        end(stopped, "resume", host)


def test_an_earlier_lease_whose_process_has_ended_here_is_nobodys(stopped: Simulation) -> None:
    give_earlier_lease(stopped, started=1)
    stopped.engine.window.sign.write(ago(3600))
    assert begin(stopped, "resume", "web1")["perform"]


def test_an_earlier_lease_whose_process_lives_is_another_runs(stopped: Simulation) -> None:
    give_earlier_lease(stopped)
    stopped.engine.window.sign.write(ago(10))
    with pytest.raises(LeaseLost, match="this run held it with token"):
        begin(stopped, "resume", "web1")


# -- what the store has lost, and kept the lease ----------------------------------------------------------------------


def cut_journal(simulation: Simulation, *, keep: int) -> None:
    """Leave the first events of the window's journal only."""
    store, name = simulation.store, simulation.engine.window.journal
    path = next(store.directory.rglob(f"{name}.jsonl"))
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:keep]))
    assert len(store.load(name)) == keep


@pytest.mark.parametrize("keep", [0, 1, 3])
def test_events_that_a_failover_lost_are_written_once_more(stopped: Simulation, keep: int) -> None:
    """To a standby that lagged: the lease, acquired minutes ago, is there, and that the workers were stopped is not."""
    window = stopped.engine.window
    before = stopped.store.load(window.journal)
    cut_journal(stopped, keep=keep)
    answer = begin(stopped, "resume", "web1")
    assert answer["perform"]
    words = f"the store has lost the last {len(before) - keep} events of this window, which are to be written once more"
    assert answer["warnings"] == [words]
    after = stopped.store.load(window.journal)
    assert sessions.are_same(after[: len(before)], before)
    assert [type(event).__name__ for event in after[len(before) :]] == ["StepReached", "StepStarted"]
    end(stopped, "resume", "web1")
    with window.open_session() as session:
        assert list(session.state.pending) == [("quiesce", "web2")]


def test_what_is_lost_with_the_way_to_write_it_is_kept_once(
    stopped: Simulation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store that lost events, and then takes none for a while."""
    window = stopped.engine.window
    before = stopped.store.load(window.journal)
    cut_journal(stopped, keep=2)
    answers = Answers(stopped, monkeypatch, "append")
    assert begin(stopped, "resume", "web1")["perform"]
    end(stopped, "resume", "web1")
    answers.needed = 0.0
    let_pass(stopped, "lowtide_window_takes_no_writes", 12)
    with window.open_session() as session:
        assert list(session.state.pending) == [("quiesce", "web2")]
    after = stopped.store.load(window.journal)
    assert sessions.are_same(after[: len(before)], before)
    names = [type(event).__name__ for event in after[len(before) :]]
    assert names == ["StepReached", "StepStarted", "StepSucceeded"]


def test_what_is_lost_is_known_without_room_for_it(stopped: Simulation, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ansible's temporary directory is full: the way back is refused for nothing that is missing there."""
    before = stopped.store.load(stopped.engine.window.journal)
    cut_journal(stopped, keep=2)
    leave_no_room(monkeypatch)
    answer = begin(stopped, "resume", "web1")
    assert answer["perform"]
    assert any("what the window knows could not be kept in" in words for words in answer["warnings"])
    assert sessions.are_same(stopped.store.load(stopped.engine.window.journal)[: len(before)], before)


def test_a_journal_that_was_taken_away_with_what_earlier_runs_wrote_stops_no_way_back(simulation: Simulation) -> None:
    """No store takes their events from this run, which goes on by what it knows, and changes nothing more."""
    window: dict[str, Any] = {"start": "monday", "steps": STEPS, "inventory": make_inventory({**GROUPS, "db": MANY})}
    assert simulation.kill(3, **window)
    simulation.open(**window)
    for host in ("web1", "web2"):
        begin(simulation, "quiesce", host)
        end(simulation, "quiesce", host)
    cut_journal(simulation, keep=0)
    with pytest.raises(OpsError, match="also of earlier runs, or was taken away"):
        begin(simulation, "work", "db1")
    for host in ("web1", "web2"):
        assert begin(simulation, "resume", host)["perform"]
        end(simulation, "resume", host)
    verdict = simulation.close()
    assert verdict["state"] == "failed_reverted"
    held = simulation.store.read_lease()
    assert held is not None
    assert held.released


def test_events_that_were_lost_before_others_were_written_are_not_taken_for_none(stopped: Simulation) -> None:
    """A failover between the reading of the journal and a write: that a host was stopped is lost, what came after is
    not. The window begins nothing more, and reverts by what it knows."""
    store, window = stopped.store, stopped.engine.window
    events = store.load(window.journal)
    lost, started = next((number, event) for number, event in enumerate(events) if isinstance(event, StepStarted))
    assert started.key == ("quiesce", "web1")
    next(store.directory.rglob(f"{window.journal}.jsonl")).unlink()
    store.copy(window.journal, events[:lost] + events[lost + 1 :])
    window.sign.write(ago(200))
    with pytest.raises(OpsError, match="has lost events between others that it has") as refused:
        begin(stopped, "work", "db1")
    assert "Launch restore_service after this run" in str(refused.value)
    assert window.is_renewed(store)
    for host in ("web1", "web2"):
        assert begin(stopped, "resume", host)["perform"]
        end(stopped, "resume", host)
    with window.open_session() as session:
        assert session.state.pending == {}
    assert stopped.close()["state"] == "failed_reverted"
    assert store.load(window.journal)[-1] == events[-1]


# -- the journals of older occurrences --------------------------------------------------------------------------------


@pytest.mark.parametrize("file", ["lowtide_window_takes_no_writes", "lowtide_window_silent"])
def test_an_older_journal_is_told_though_the_store_was_silent_a_moment_ago(simulation: Simulation, file: str) -> None:
    leave_in_force(simulation, "web1")

    def before(step: str, _host: str) -> None:
        if step == "resume":
            be_silent(simulation, file, 0)

    simulation.before = before
    assert simulation.run(start="tuesday") == "succeeded"
    assert simulation.list_left() == {}


def test_older_journals_that_cannot_be_told_are_waited_for_once(
    simulation: Simulation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The window has failed with the first of them, and what others have to revert needs the time."""
    leave_in_force(simulation, "web1", "web2")
    answers: list[Answers] = []

    def before(step: str, _host: str) -> None:
        if step == "resume" and not answers:
            answers.append(Answers(simulation, monkeypatch, "append"))

    simulation.before = before
    simulation.open(start="tuesday")
    simulation.plan()
    simulation.perform()
    assert simulation.list_left()["weekly@monday"] == [("quiesce", "web1"), ("quiesce", "web2")]
    assert answers[0].asked == [30.0, 2.0]
