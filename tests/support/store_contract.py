# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What every store must do: exclude, fence, keep what it said it kept.

A file of tests imports all of this and gives the fixture ``backend``.
"""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import pytest

from ansible_collections.lowtide.ops.plugins.module_utils._common.errors import Refusal
from ansible_collections.lowtide.ops.plugins.plugin_utils._window.events import StepPlanned, WindowClosed, WindowOpened
from ansible_collections.lowtide.ops.plugins.plugin_utils._window.lease import LeaseLost
from ansible_collections.lowtide.ops.plugins.plugin_utils._window.processes import Owner
from ansible_collections.lowtide.ops.plugins.plugin_utils._window.store import (
    Store,
    StoreUnreachable,
    find_obstacle,
)

from .window_stores import NAME, append, dead, me, start_process, take

Start = Callable[[], subprocess.Popen[bytes]]


class Backend(Protocol):
    """A place for stores of one kind."""

    def connect(self) -> Store:
        """Return one more client of the same store, as another process of a run has it."""

    def connect_apart(self) -> Store:
        """Return one more client of the same store, as the run of another machine has it."""

    def expire(self) -> None:
        """Make the lease one that nobody renewed for its whole time."""


def make_opened(window_id: str = NAME) -> WindowOpened:
    """Return the event that opens an occurrence."""
    return WindowOpened(
        window="weekly",
        window_id=window_id,
        start="monday",
        mode="window",
        steps=[],
        selected=[],
        control="ctl",
        ends=4e9,
        version="1.0.0",
    )


def make_planned(host: str, summary: str = "") -> StepPlanned:
    """Return the event of a step that was planned."""
    return StepPlanned(step="save", host=host, due=True, summary=summary)


def make_closed() -> WindowClosed:
    """Return the event of a run that came to its end."""
    return WindowClosed(state="succeeded", cause="")


@pytest.fixture
def connect(backend: Backend) -> Callable[[], Store]:
    """Make one more client of the same store."""
    return backend.connect


@pytest.fixture
def store(backend: Backend) -> Store:
    """A store that nobody has used."""
    return backend.connect()


@pytest.fixture
def start_controller() -> Iterator[Start]:
    """Start a process that lives until the test ends it, or is over."""
    processes: list[subprocess.Popen[bytes]] = []

    def start() -> subprocess.Popen[bytes]:
        processes.append(start_process())
        return processes[-1]

    yield start
    for process in processes:
        process.kill()
        process.wait()


def give_back(store: Store, token: int) -> None:
    """Release the lease as a run does."""
    with store.lock():
        store.release(token)


def list_calls(store: Store, token: int) -> list[Callable[[], object]]:
    """Return every method that asks the server."""
    return [
        store.read_lease,
        store.is_expired,
        store.read_last_renewal,
        lambda: store.check(token),
        lambda: store.renew(token),
        lambda: store.release(token),
        lambda: take(store, me()),
        store.list_occurrences,
        lambda: store.load(NAME),
        lambda: store.read_last_event(NAME),
        lambda: store.append(NAME, make_planned("db1")),
        lambda: store.write_report(NAME, token, {".json": "{}"}),
        lambda: store.remove([NAME]),
    ]


def elsewhere() -> Owner:
    """A process of another machine."""
    return replace(me(), host="other", boot="another boot")


# -- the lock -------------------------------------------------------------------------------------------------------


def test_the_lock_excludes_threads(connect: Callable[[], Store]) -> None:
    inside: list[int] = []
    overlaps: list[int] = []

    def work() -> None:
        store = connect()
        for _ in range(50):
            with store.lock():
                inside.append(1)
                overlaps.append(len(inside))
                inside.pop()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert overlaps == [1] * 200


def count_up(backend: Backend, counter: Path) -> None:
    """Read, add one and write, under the lock; without it some would be lost."""
    store = backend.connect()
    for _ in range(100):
        with store.lock():
            value = int(counter.read_text())
            counter.write_text(str(value + 1))


def test_the_lock_excludes_processes(backend: Backend, tmp_path: Path) -> None:
    counter = tmp_path / "counter"
    counter.write_text("0")
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=count_up, args=(backend, counter)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    assert counter.read_text() == "300"


def hold_lock(backend: Backend, ready: Any) -> None:
    """Hold the lock until killed."""
    with backend.connect().lock():
        ready.set()
        threading.Event().wait()


def test_the_lock_ends_with_the_process_that_holds_it(backend: Backend) -> None:
    context = multiprocessing.get_context("fork")
    ready = context.Event()
    process = context.Process(target=hold_lock, args=(backend, ready))
    process.start()
    assert ready.wait(120)
    process.kill()
    process.join()
    with backend.connect().lock():
        assert process.exitcode == -9


# -- the lease ------------------------------------------------------------------------------------------------------


def test_nobody_ever_held_it(store: Store) -> None:
    assert store.read_lease() is None
    with pytest.raises(StoreUnreachable, match="this run holds it with token 1, and the store has no lease"):
        store.check(1)


def test_tokens_rise_and_stay_on_record(connect: Callable[[], Store]) -> None:
    last = 0
    for _run in range(3):
        token = take(connect(), me()).token
        assert token > last
        give_back(connect(), token)
        held = connect().read_lease()
        assert held is not None
        assert (held.token, held.released) == (token, True)
        last = token


def test_the_holder_is_on_record(connect: Callable[[], Store]) -> None:
    with connect().lock():
        record = connect().acquire(me(), NAME, pipe="pipe:[1]")
    assert connect().read_lease() == record
    assert (record.owner.pid, record.window_id, record.pipe, record.released) == (os.getpid(), NAME, "pipe:[1]", False)
    connect().check(record.token)


def test_a_living_owner_is_never_succeeded_however_old_its_lease(
    backend: Backend, store: Store, start_controller: Start
) -> None:
    controller = start_controller()
    first = take(store, Owner.from_pid(controller.pid)).token
    backend.expire()
    with pytest.raises(Refusal) as caught:
        take(store, me())
    assert f"process {controller.pid}, since " in str(caught.value)
    assert f"holds it with window {NAME} (that process lives). Wait for its end, or stop that" in str(caught.value)
    controller.kill()
    controller.wait()
    assert take(store, me()).token > first, "at once, without waiting for an expiry"


def test_an_owner_that_cannot_be_looked_at_holds_it_until_it_expires(
    backend: Backend, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = take(store, elsewhere()).token
    monkeypatch.setattr(time, "time", lambda: 4e9)  # this controller's clock is decades ahead, and nobody asks it
    assert not store.is_expired()
    with pytest.raises(Refusal, match=r"other, process \d+, since .*\(last renewed at 20\d\d-"):
        take(store, me())
    monkeypatch.undo()
    backend.expire()
    assert store.is_expired()
    assert take(store, me()).token > first


def test_renewing_moves_the_expiry(backend: Backend, store: Store) -> None:
    token = take(store, elsewhere()).token
    backend.expire()
    before = store.read_last_renewal()
    store.renew(token)
    assert store.read_last_renewal() > before
    assert not store.is_expired()
    with pytest.raises(StoreUnreachable, match=f"with token {token + 1}, and the store has that of token {token}:"):
        store.renew(token + 1)  # as after a failover that lost the last commits: nobody else has come
    give_back(store, token)
    with pytest.raises(LeaseLost):
        store.renew(token)


def test_a_window_is_opened_once_in_a_run(store: Store) -> None:
    take(store, me())
    with pytest.raises(Refusal, match=f"window {NAME}: it is already open in this run. Open a window once"):
        take(store, me(), "other@1")


@pytest.mark.parametrize(
    ("owner", "released", "words"),
    [
        (me, True, None),
        (elsewhere, True, None),
        (dead, False, None),
        (elsewhere, False, "last renewed at"),
        (me, False, "already open"),
    ],
)
def test_find_obstacle(store: Store, owner: Callable[[], Owner], released: bool, words: str | None) -> None:
    take(store, owner())
    held = store.read_lease()
    assert held is not None
    obstacle = find_obstacle(store, replace(held, released=released), me())
    assert obstacle is None if words is None else words in str(obstacle)
    assert find_obstacle(store, None, me()) is None


def test_the_token_fences_a_late_writer(connect: Callable[[], Store]) -> None:
    late = connect()
    first = take(late, dead()).token
    late.check(first)
    second = take(connect(), me()).token
    for write in (late.check, late.release):
        words = rf"held it with token {first}, and now .* does \(token {second}\)\. Leave the site"
        with pytest.raises(LeaseLost, match=words):
            write(first)
    connect().check(second)
    give_back(connect(), second)
    with pytest.raises(LeaseLost):
        late.check(second)


def contend(backend: Backend, barrier: Any, results: Any) -> None:
    """Start together with others and try once to become the owner."""
    store = backend.connect_apart()
    for trial in range(40):
        barrier.wait()
        try:
            results.put((trial, take(store, me(), f"w@{trial}").token))
        except Refusal:
            results.put((trial, None))
        barrier.wait()
        held = store.read_lease()
        if held is not None and held.owner.pid == os.getpid():
            give_back(store, held.token)


def test_of_controllers_that_start_together_one_wins(backend: Backend) -> None:
    context = multiprocessing.get_context("fork")
    barrier, results = context.Barrier(3), context.Queue()
    processes = [context.Process(target=contend, args=(backend, barrier, results)) for _ in range(3)]
    for process in processes:
        process.start()
    outcomes = [results.get(timeout=300) for _ in range(3 * 40)]
    for process in processes:
        process.join()
    winners = []
    for trial in range(40):
        tokens = [token for number, token in outcomes if number == trial]
        assert tokens.count(None) == 2
        winners += [token for token in tokens if token is not None]
    assert winners == sorted(set(winners))


# -- journals -------------------------------------------------------------------------------------------------------


def test_there_is_no_journal(store: Store) -> None:
    assert store.list_occurrences() == []
    assert store.load(NAME) == []
    assert store.read_last_event(NAME) is None


def test_events_come_back_in_order_with_their_times(connect: Callable[[], Store]) -> None:
    # What an answer of an API server says is to the second, and late where this process has stood still meanwhile.
    before = connect().read_clock() - 10
    written = [append(connect(), event) for event in (make_opened(), make_planned("db1"), make_closed())]
    assert connect().load(NAME) == written
    assert [type(event).__name__ for event in written] == ["WindowOpened", "StepPlanned", "WindowClosed"]
    assert before <= written[0].at <= written[1].at <= written[2].at <= connect().read_clock() + 10
    assert connect().read_last_event(NAME) == written[-1]


def test_writers_take_turns(connect: Callable[[], Store]) -> None:
    first, second = connect(), connect()
    for number in range(3):
        append(first, make_planned(f"a{number}"))
        append(second, make_planned(f"b{number}"))
    assert [event.host for event in connect().load(NAME)] == ["a0", "b0", "a1", "b1", "a2", "b2"]  # type: ignore[attr-defined]


def test_each_occurrence_has_a_journal_and_names_are_told_apart(store: Store) -> None:
    ids = ["weekly@1", "weekly@2", "wöchentlich@1", "wochentlich@1", "a/b@1", "a-b@1", "../x@1", "w" * 200, "w" * 201]
    for window_id in ids:
        append(store, make_opened(window_id), store.make_name(window_id))
    names = store.list_occurrences()
    assert len(set(names)) == len(ids)
    opened = [store.load(name)[0] for name in names]
    assert sorted(event.window_id for event in opened) == sorted(ids)  # type: ignore[attr-defined]


def test_a_reading_asks_for_much_at_once(connect: Callable[[], Store]) -> None:
    store, reader = connect(), connect()
    names = [NAME, "weekly@tuesday"]
    last = {name: append(store, event, name) for name in names for event in (make_opened(name), make_planned("db1"))}
    with reader.reading(), reader.reading():
        assert reader.list_occurrences() == names
        assert {name: reader.read_last_event(name) for name in names} == last
        assert [len(reader.load(name)) for name in names] == [2, 2]
    with reader.lock(), reader.reading():
        assert reader.list_occurrences() == names
    closed = append(store, make_closed())
    assert reader.read_last_event(NAME) == closed


def test_reports_and_removal(connect: Callable[[], Store]) -> None:
    store = connect()
    for name in (NAME, "weekly@monday.2", "weekly@tuesday"):
        append(store, make_closed(), name)
        store.write_report(name, 1, {".html": "<p>", ".json": "{}"})
    store.write_report(NAME, 12, {".html": "12"})
    with store.lock():
        store.remove([NAME, "weekly@never"])
    assert store.list_occurrences() == ["weekly@monday.2", "weekly@tuesday"]
    assert connect().load(NAME) == []
