# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Sessions of an open window: while the store is away, when it is back, and how long is waited for it."""

from __future__ import annotations

import errno
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.lowtide.ops.plugins.module_utils._common.errors import OpsError
from ansible_collections.lowtide.ops.plugins.plugin_utils._window import session as sessions
from ansible_collections.lowtide.ops.plugins.plugin_utils._window.closing import close_window
from ansible_collections.lowtide.ops.plugins.plugin_utils._window.engine import StepCall
from ansible_collections.lowtide.ops.plugins.plugin_utils._window.events import (
    Event,
    StepStarted,
    StepSucceeded,
    WindowClosed,
)
from ansible_collections.lowtide.ops.plugins.plugin_utils._window.lease import LeaseLost
from ansible_collections.lowtide.ops.plugins.plugin_utils._window.places import Place
from ansible_collections.lowtide.ops.plugins.plugin_utils._window.renewal import Moment, read_tick
from ansible_collections.lowtide.ops.plugins.plugin_utils._window.session import OpenWindow
from ansible_collections.lowtide.ops.plugins.plugin_utils._window.store import StoreUnreachable
from ansible_collections.lowtide.ops.plugins.plugin_utils._window.store_file import FileStore
from ansible_collections.lowtide.ops.plugins.plugin_utils._window.verdict import read_verdict

from .builders import ago
from .simulation import Simulation, end, give_earlier_lease, leave_no_room, load_nothing

HOSTS = ("web1", "web2", "ctl")


def begin(simulation: Simulation, step: str, host: str) -> dict[str, Any]:
    """Begin a step on a host."""
    hosts = ("db1", "db2", "ctl") if host.startswith("db") else HOSTS
    return simulation.engine.begin_step(StepCall(host=host, step=step, play_hosts=hosts), preload=load_nothing)


def stop_both(simulation: Simulation) -> None:
    """Open, and stop what is to be started again."""
    simulation.open(only=["maintain"])
    for host in ("web1", "web2"):
        begin(simulation, "quiesce", host)
        end(simulation, "quiesce", host)


@contextmanager
def away(simulation: Simulation) -> Iterator[None]:
    """Let the store be where nobody finds it."""
    directory = simulation.store.directory
    hidden = directory.with_name("away")
    directory.rename(hidden)
    yield
    hidden.rename(directory)


def list_steps(simulation: Simulation) -> list[tuple[str, str, str]]:
    """Return what the journal has of steps that started or ended."""
    kinds = (StepStarted, StepSucceeded)
    events = simulation.read_events()
    return [(type(event).__name__, event.step, event.host) for event in events if isinstance(event, kinds)]


# -- what is kept -----------------------------------------------------------------------------------------------------


def test_what_ended_while_the_store_was_away_is_written_when_it_is_back(simulation: Simulation) -> None:
    simulation.open(only=["save"])
    simulation.plan()
    for host in ("db1", "db2"):
        begin(simulation, "save", host)
    with away(simulation):
        for host in ("db1", "db2"):
            end(simulation, "save", host)
    assert [kind for kind, _step, _host in list_steps(simulation)] == ["StepStarted", "StepStarted"]
    simulation.perform()
    assert list_steps(simulation) == [
        *[("StepStarted", "save", host) for host in ("db1", "db2")],
        *[("StepSucceeded", "save", host) for host in ("db1", "db2")],
    ]
    assert simulation.close()["state"] == "succeeded"
    assert simulation.closed["warnings"] == []


def test_what_was_kept_comes_after_the_journal_whatever_the_clocks_say(
    simulation: Simulation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server's clock is an hour ahead of this machine's."""
    simulation.open(only=["maintain"])
    append = FileStore.append

    def append_an_hour_ahead(self: FileStore, name: str, event: Event) -> Event:
        if self.directory == simulation.store.directory:
            self = FileStore(self.directory, clock=lambda: time.time() + 3600)
        return append(self, name, event)

    monkeypatch.setattr(FileStore, "append", append_an_hour_ahead)
    begin(simulation, "quiesce", "web1")
    with away(simulation):
        end(simulation, "quiesce", "web1")
        begin(simulation, "resume", "web1")
        end(simulation, "resume", "web1")
        with simulation.engine.window.open_session() as session:
            assert session.state.pending == {}
    with simulation.engine.window.open_session() as session:
        assert session.state.pending == {}
        assert not session.lost


def test_what_a_session_wrote_itself_is_known_when_the_store_is_away_afterwards(simulation: Simulation) -> None:
    """The last event before the server went away: what was stopped then has to be started."""
    simulation.open(only=["maintain"])
    begin(simulation, "quiesce", "web1")
    with away(simulation), simulation.engine.window.open_session() as session:
        assert session.state.pending == {("quiesce", "web1"): "resume"}


def test_nothing_is_written_past_what_is_kept(simulation: Simulation, monkeypatch: pytest.MonkeyPatch) -> None:
    simulation.open(only=["maintain"])
    begin(simulation, "quiesce", "web1")
    append, failing = FileStore.append, ["quiesce"]

    def fail(self: FileStore, name: str, event: Any) -> Event:
        if self.directory == simulation.store.directory and getattr(event, "step", "") in failing:
            raise OSError(errno.ENOSPC, "No space left on device")
        return append(self, name, event)

    monkeypatch.setattr(FileStore, "append", fail)
    end(simulation, "quiesce", "web1")
    with pytest.raises(OpsError, match=r"it cannot be written \(\[Errno 28\]"):
        begin(simulation, "quiesce", "web2")
    begin(simulation, "resume", "web1")
    assert len(list_steps(simulation)) == 1
    failing.clear()
    end(simulation, "resume", "web1")
    names = [("StepStarted", "quiesce"), ("StepSucceeded", "quiesce"), ("StepStarted", "resume")]
    assert [one[:2] for one in list_steps(simulation)] == [*names, ("StepSucceeded", "resume")]


def test_an_event_that_was_written_and_whose_answer_was_lost_is_written_once(
    simulation: Simulation, monkeypatch: pytest.MonkeyPatch
) -> None:
    simulation.open(only=["save"])
    simulation.plan()
    begin(simulation, "save", "db1")
    append = FileStore.append

    def lose(self: FileStore, name: str, event: Event) -> Event:
        written = append(self, name, event)
        if self.directory == simulation.store.directory and isinstance(event, StepSucceeded):
            raise StoreUnreachable("the answer is lost")
        return written

    with monkeypatch.context() as patched:
        patched.setattr(FileStore, "append", lose)
        end(simulation, "save", "db1")
    begin(simulation, "save", "db2")
    end(simulation, "save", "db2")
    assert [host for kind, _step, host in list_steps(simulation) if kind == "StepSucceeded"] == ["db1", "db2"]


def test_no_room_in_ansibles_own_directory_is_a_warning(
    simulation: Simulation, monkeypatch: pytest.MonkeyPatch
) -> None:
    simulation.open()
    leave_no_room(monkeypatch)
    with simulation.engine.window.open_session() as session:
        pass
    assert "what the window knows could not be kept in" in session.warnings[0]


# -- how long is waited -----------------------------------------------------------------------------------------------


class SilentStore(FileStore):
    """A store whose server does not answer, after its patience."""

    asked: list[float]

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Wait, and raise."""
        self.asked.append(self.patience)
        time.sleep(min(self.patience, 0.5))
        raise StoreUnreachable("no answer")
        yield


@pytest.fixture
def silent(simulation: Simulation, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """An open window whose server goes silent; for how many seconds it was asked."""
    monkeypatch.setattr(sessions, "WAITED", 0.0)
    simulation.open()
    simulation.engine.window.sign.end_process()  # else its first renewal may come after what a test writes there
    asked: list[float] = []

    def connect(_place: Place, _folder: str) -> SilentStore:
        store = SilentStore(simulation.store.directory)
        store.asked = asked
        return store

    monkeypatch.setattr(Place, "connect", connect)
    return asked


def look(window: OpenWindow) -> None:
    """Open a session of what the run knows."""
    with window.open_session() as session:
        assert session.state.opened is not None
        assert session.store.patience == 2.0, "what a closing asks all the same"


def test_of_hosts_that_begin_together_one_waits_for_a_silent_server(
    simulation: Simulation, silent: list[float]
) -> None:
    window = simulation.engine.window
    threads = [threading.Thread(target=look, args=(window,)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert silent == [30.0], "each waited for itself"


def test_a_server_that_the_renewer_reaches_is_asked_patiently_and_another_one_for_a_moment(
    simulation: Simulation, silent: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    window = simulation.engine.window
    look(window)
    monkeypatch.setattr(sessions, "ASK_INTERVAL", 0.0)
    window.sign.write(ago(20))
    look(window)
    window.sign.write(ago(40))
    look(window)
    assert silent == pytest.approx([30.0, 30.0, 2.0], abs=0.5)


def test_a_clock_that_is_set_back_gives_no_lease(
    simulation: Simulation, silent: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    window = simulation.engine.window
    moment = Moment.now()
    with monkeypatch.context() as patch:
        patch.setattr(Moment, "now", lambda: moment)  # a slow machine would not be in time
        window.sign.write(ago(54))
        look(window)
    window.sign.write(ago(56))
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() - 3600)
    with pytest.raises(OpsError, match=r"and was not renewed for \d\d s, so that another run may hold it"):
        look(window)
    assert silent == [2.0, 2.0], "no longer than the lease has left; then nothing can be done without an answer"


def test_a_server_that_is_lost_in_the_middle_gives_this_machines_time(
    simulation: Simulation, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_self: FileStore) -> float:
        raise StoreUnreachable("no answer")

    simulation.open(only=["maintain"])
    begin(simulation, "quiesce", "web1")
    end(simulation, "quiesce", "web1")
    monkeypatch.setattr(FileStore, "read_clock", fail)
    with pytest.raises(OpsError, match="it cannot be written"):
        begin(simulation, "quiesce", "web2")
    assert begin(simulation, "resume", "web1")["perform"]
    end(simulation, "resume", "web1")
    assert close_window(simulation.engine.window)["ansible_stats"]


class Writes:
    """The writes to the site's store (those in the run's own folder go on), and with what patience each was asked."""

    def __init__(self, simulation: Simulation, monkeypatch: pytest.MonkeyPatch, *methods: str) -> None:
        self.asked: list[tuple[str, float]] = []
        self.failing = True
        self._site = simulation.store.directory
        for method in methods:
            monkeypatch.setattr(FileStore, method, self._wrap(method, getattr(FileStore, method)))

    def _wrap(self, method: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def run(store: FileStore, *arguments: Any) -> Any:
            if store.directory == self._site:
                self.asked.append((method, store.patience))
                if self.failing:
                    raise StoreUnreachable("no room")
            return function(store, *arguments)

        return run


@pytest.mark.parametrize("is_renewed", [True, False])
def test_a_server_that_takes_no_writes_is_waited_for_once_by_all_hosts(
    simulation: Simulation, monkeypatch: pytest.MonkeyPatch, is_renewed: bool
) -> None:
    """A commit that waits for its standby, an etcd without room: what is asked is answered."""
    stop_both(simulation)
    monkeypatch.setattr(sessions, "WAITED", 0.0)
    writes = Writes(simulation, monkeypatch, "renew", "append")
    age = 10 if is_renewed else 40
    simulation.engine.window.sign.write(ago(age))
    for host in ("web1", "web2"):
        assert begin(simulation, "resume", host)["perform"]
        end(simulation, "resume", host)
    assert [patience for _method, patience in writes.asked] == [
        pytest.approx(min(30, simulation.store.ttl - age - 2 * sessions.MARGIN), abs=1)
    ]
    writes.failing = False
    assert "could not be written" not in simulation.close()["cause"]
    for host in ("web1", "web2"):
        assert ("StepSucceeded", "resume", host) in list_steps(simulation)


def test_a_journal_that_takes_nothing_is_waited_for_a_moment_though_the_lease_is_renewed(
    simulation: Simulation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A webhook that matches ConfigMaps and is down; each step comes after the time for which it is left alone."""
    stop_both(simulation)
    monkeypatch.setattr(sessions, "WAITED", 0.0)
    monkeypatch.setattr(sessions, "ASK_INTERVAL", 0.0)
    writes = Writes(simulation, monkeypatch, "append")
    for host in ("web1", "web2"):
        assert begin(simulation, "resume", host)["perform"]
        end(simulation, "resume", host)
    assert writes.asked[0] == ("append", 30.0)
    assert len(writes.asked) > 3
    assert {patience for _method, patience in writes.asked[1:]} == {2.0}


@pytest.mark.parametrize("was_waited_for", [False, True])
def test_one_write_that_failed_is_no_reason_to_refuse_the_next_step(
    simulation: Simulation, monkeypatch: pytest.MonkeyPatch, was_waited_for: bool
) -> None:
    """A switchover, a full disk that is mended, a standby that comes back: a second later the store takes all."""
    simulation.open(only=["save"])
    simulation.plan()
    begin(simulation, "save", "db1")
    monkeypatch.setattr(sessions, "WAITED", 0.0 if was_waited_for else 3600.0)
    writes = Writes(simulation, monkeypatch, "append")
    end(simulation, "save", "db1")
    assert len(writes.asked) == 1
    writes.failing = False
    assert begin(simulation, "save", "db2")["perform"]
    end(simulation, "save", "db2")
    assert [host for kind, _step, host in list_steps(simulation) if kind == "StepSucceeded"] == ["db1", "db2"]
    assert simulation.close()["state"] == "succeeded"


def test_a_step_that_changes_something_asks_a_store_that_could_not_be_read_a_moment_ago(
    simulation: Simulation, monkeypatch: pytest.MonkeyPatch
) -> None:
    simulation.open(only=["save"])
    simulation.plan()
    begin(simulation, "save", "db1")
    monkeypatch.setattr(sessions, "WAITED", 0.0)
    with away(simulation):
        end(simulation, "save", "db1")
    Path(simulation.folder, "lowtide_window_silent").write_text(json.dumps([read_tick(), "no answer"]))
    assert begin(simulation, "save", "db2")["perform"]
    end(simulation, "save", "db2")
    assert simulation.close()["state"] == "succeeded"


def test_an_end_that_is_not_on_record_is_told(simulation: Simulation, monkeypatch: pytest.MonkeyPatch) -> None:
    simulation.open(only=["save"])
    simulation.plan()
    simulation.perform()
    Writes(simulation, monkeypatch, "append")
    simulation.close()
    assert (
        "how the window ended is not in its journal, so that the next run resumes it" in simulation.closed["warnings"]
    )


@pytest.mark.parametrize("was_waited_for", [False, True])
def test_a_report_that_is_refused_leaves_the_end_on_record_and_the_lease_free(
    simulation: Simulation, monkeypatch: pytest.MonkeyPatch, was_waited_for: bool
) -> None:
    """A quota of ConfigMaps, a missing right: the report is the one object that each run adds."""
    simulation.open(only=["save"])
    simulation.plan()
    simulation.perform()
    monkeypatch.setattr(sessions, "WAITED", 0.0 if was_waited_for else 3600.0)
    Writes(simulation, monkeypatch, "write_report")
    assert simulation.close()["state"] == "succeeded"
    assert [words.partition(" (")[0] for words in simulation.closed["warnings"]] == ["the report could not be written"]
    assert isinstance(simulation.read_events()[-1], WindowClosed)
    held = simulation.store.read_lease()
    assert held is not None
    assert held.released


def test_the_closing_asks_a_store_that_was_silent_a_moment_ago(
    simulation: Simulation, monkeypatch: pytest.MonkeyPatch
) -> None:
    simulation.open(only=["save"])
    simulation.plan()
    begin(simulation, "save", "db1")
    end(simulation, "save", "db1")
    begin(simulation, "save", "db2")
    monkeypatch.setattr(sessions, "WAITED", 0.0)
    writes = Writes(simulation, monkeypatch, "append")
    end(simulation, "save", "db2")
    writes.failing = False
    assert simulation.close()["cause"] == ""
    assert isinstance(simulation.read_events()[-1], WindowClosed)
    assert simulation.closed["warnings"] == []


def test_a_store_that_was_left_alone_is_asked_again_after_the_first_time_and_not_after_the_last(
    simulation: Simulation, silent: list[float]
) -> None:
    """A run whose steps come one after the other: what is not asked does not begin the time anew."""
    window = simulation.engine.window
    look(window)
    look(window)
    told = Path(simulation.folder, "lowtide_window_silent")
    tick, words = json.loads(told.read_text())
    told.write_text(json.dumps([tick - sessions.ASK_INTERVAL + 1, words]))
    look(window)
    assert len(silent) == 1
    told.write_text(json.dumps([tick - sessions.ASK_INTERVAL, words]))
    look(window)
    assert len(silent) == 2


# -- the lease is another's, or nobody's ------------------------------------------------------------------------------


@pytest.mark.parametrize("is_released", [False, True])
def test_where_nobody_has_the_site_the_way_back_is_free_however_old_the_lease_was(
    simulation: Simulation, is_released: bool
) -> None:
    """A failover that lost the last commits, a restored copy, a Lease that somebody removed."""
    simulation.open(only=["maintain"])
    begin(simulation, "quiesce", "web1")
    end(simulation, "quiesce", "web1")
    window = simulation.engine.window
    window.sign.end_process()
    if is_released:
        give_earlier_lease(simulation, is_released=True)
    else:
        (simulation.store.directory / "lease").unlink()
    window.sign.write(ago(3600))
    with pytest.raises(OpsError, match=r"cannot be written \(lease .* has lost what was written last, or somebody has"):
        begin(simulation, "quiesce", "web2")
    assert begin(simulation, "resume", "web1")["perform"]
    end(simulation, "resume", "web1")
    with window.open_session() as session:
        assert session.state.pending == {}


def test_an_earlier_lease_that_is_held_may_be_another_runs(simulation: Simulation) -> None:
    """That of a run which acquired it from a server whose clock is behind, as far as one can see from here."""
    simulation.open(only=["maintain"])
    begin(simulation, "quiesce", "web1")
    window = simulation.engine.window
    window.sign.end_process()
    give_earlier_lease(simulation, boot="elsewhere")
    assert begin(simulation, "resume", "web1")["perform"]
    window.sign.write(ago(56))
    with pytest.raises(OpsError, match=r"and was not renewed for \d\d s, so that another run may hold it"):
        begin(simulation, "resume", "web1")


def test_a_loss_that_the_renewer_has_seen_ends_every_session(simulation: Simulation) -> None:
    simulation.open()
    simulation.engine.window.sign.write_loss("bob holds it")
    with pytest.raises(LeaseLost, match=r"has found another owner \(bob holds it\)\. Leave the site"):
        simulation.engine.list_in_force()


def test_a_lease_that_is_lost_while_it_is_given_back_hides_no_verdict(
    simulation: Simulation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its answer was lost, and a job that waited was faster."""
    release: Callable[[FileStore, int], None] = FileStore.release

    def lose(self: FileStore, token: int) -> None:
        release(self, token)
        raise LeaseLost(obj="lease", problem="another holds it", next_step="Leave the site to that run")

    simulation.open(only=["save"])
    simulation.plan()
    simulation.perform()
    monkeypatch.setattr(FileStore, "release", lose)
    assert simulation.close()["state"] == "succeeded"
    assert "the lease could not be given back" in simulation.closed["warnings"][0]
    assert Path(read_verdict(simulation.folder)["report"]).exists()
