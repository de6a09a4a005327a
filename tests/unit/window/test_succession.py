# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Who is waited for at a site and succeeded, and what a refused opening leaves of its lease."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.lowtide.ops.plugins.plugin_utils._window.lease import LeaseRecord
from ansible_collections.lowtide.ops.plugins.plugin_utils._window.opening import Opening
from ansible_collections.lowtide.ops.plugins.plugin_utils._window.processes import ENVIRONMENT_MARK, Owner
from ansible_collections.lowtide.ops.plugins.plugin_utils._window.renewal import Sign
from ansible_collections.lowtide.ops.plugins.plugin_utils._window.session import Controller
from ansible_collections.lowtide.ops.plugins.plugin_utils._window.store import StoreUnreachable
from ansible_collections.lowtide.ops.plugins.plugin_utils._window.store_file import FileStore
from support.window_stores import start_process

from .builders import make_inventory
from .simulation import Simulation, load_nothing

# -- who is waited for ----------------------------------------------------------------------------------------------


def test_a_site_is_held_by_one_window_whatever_its_name(simulation: Simulation) -> None:
    simulation.open(start="monday")
    other = Simulation(simulation.place / "other", directory=simulation.place / "windows")
    cause = other.run(name="other")
    assert simulation.controller is not None
    assert f"process {simulation.controller.pid}, since " in cause
    assert "holds it with window weekly@monday (that process lives)" in cause
    assert other.restore().startswith("refused: site ")
    assert simulation.store.list_occurrences() == ["weekly@monday"]


def test_an_orphan_is_waited_for_and_then_named(simulation: Simulation) -> None:
    assert simulation.kill(45)
    orphan = start_process(env={ENVIRONMENT_MARK: f"{simulation.store.location}#1"})
    try:
        cause = simulation.run(orphan_timeout=0.05)
        assert f"a step of the run before: process {orphan.pid} (" in cause
        assert "still runs after 0 s, though its controller ended. Let it end and run the window again" in cause
        subprocess.Popen(["sh", "-c", f"sleep 0.3; kill -9 {orphan.pid}"])
        assert simulation.run(orphan_timeout=20.0) == "succeeded"
    finally:
        orphan.kill()
        orphan.wait()


def test_a_process_that_another_token_left_is_no_orphan_of_the_last_run(simulation: Simulation) -> None:
    assert simulation.kill(45)
    orphan = start_process(env={ENVIRONMENT_MARK: f"{simulation.store.location}#7"})
    try:
        assert simulation.run() == "succeeded"
    finally:
        orphan.kill()
        orphan.wait()


def hold_from_elsewhere(simulation: Simulation) -> Path:
    """Make a controller of another machine the holder; return the lease."""
    store = simulation.store
    store.create()
    owner = replace(Owner.from_pid(os.getpid()), host="elsewhere", boot="another")
    with store.lock():
        store.acquire(owner, "weekly@sunday")
    return store.directory / "lease"


class Time:
    """A clock that nobody sets; ``on_sleep`` is called with its seconds after each pause."""

    def __init__(self, on_sleep: Callable[[float], None] = lambda _seconds: None) -> None:
        self.now = 0.0
        self.on_sleep = on_sleep
        self.told: list[str] = []

    def sleep(self, seconds: float) -> None:
        """Let so much time go by."""
        self.now += seconds
        self.on_sleep(self.now)

    def open(self, simulation: Simulation, **changes: Any) -> dict[str, Any]:
        """Open a window in this time."""
        opening = Opening(
            simulation.start_controller(), sleep=self.sleep, ticks=lambda: self.now, tell=self.told.append
        )
        return opening.open(simulation.make_request(**changes), make_inventory(), preload=load_nothing)


def stamp_lease(lease: Path, *, age: float) -> None:
    """Make the lease one that was renewed so many seconds ago, by the clock of the file system."""
    os.utime(lease, (time.time() - age,) * 2)


def test_a_holder_that_cannot_be_looked_at_and_does_not_renew_is_waited_for(simulation: Simulation) -> None:
    lease = hold_from_elsewhere(simulation)
    begun = time.time()
    one = Time(lambda seconds: os.utime(lease, (begun, begun)) if seconds == 1 else None)
    os.utime(lease, (begun, begun))
    opened = one.open(simulation)
    assert not opened["refused"]
    assert opened["token"] == 2
    assert one.now == 60.0, "its whole time"
    (told,) = one.told
    assert "elsewhere, process" in told
    assert told.endswith("Waiting: it is succeeded if it is not renewed for 60 s")


def test_a_lease_that_is_over_is_looked_at_for_longer_than_a_renewal_takes(simulation: Simulation) -> None:
    lease = hold_from_elsewhere(simulation)
    stamp_lease(lease, age=3600)
    one = Time()
    assert not one.open(simulation)["refused"]
    assert one.now == 20.0
    assert one.told[0].endswith("Waiting: it is succeeded if it is not renewed for 20 s")


def test_a_lease_that_seems_to_be_over_and_is_renewed_is_not_taken(simulation: Simulation) -> None:
    """Its holder asks a server whose clock is two minutes behind that of the one which answers here."""
    lease = hold_from_elsewhere(simulation)
    stamp_lease(lease, age=120)
    one = Time(lambda seconds: stamp_lease(lease, age=119) if seconds == 15 else None)
    opened = one.open(simulation)
    assert opened["refused"]
    assert "holds it with window weekly@sunday (last renewed at " in opened["msg"]
    assert one.now == 15.0


def test_a_lease_of_the_future_is_over_when_nothing_was_renewed_for_its_whole_time(simulation: Simulation) -> None:
    lease = hold_from_elsewhere(simulation)
    stamp_lease(lease, age=-3600)
    one = Time()
    opened = one.open(simulation)
    assert (opened["refused"], opened["token"]) == (False, 2)
    assert one.now == 60.0


def test_a_holder_that_cannot_be_looked_at_and_renews_is_not_waited_for(simulation: Simulation) -> None:
    lease = hold_from_elsewhere(simulation)
    one = Time(lambda seconds: stamp_lease(lease, age=-seconds))
    opened = one.open(simulation)
    assert opened["refused"]
    assert "elsewhere, process" in opened["msg"]
    assert "holds it with window weekly@sunday (last renewed at " in opened["msg"]
    assert one.now == 1.0, "it was seen to live"


@pytest.mark.parametrize(("until", "refused", "end"), [(30.0, False, 90.0), (1000.0, True, 60.0)])
def test_a_restore_waits_for_a_pod_that_is_ending_and_not_for_one_that_lives(
    simulation: Simulation, until: float, refused: bool, end: float
) -> None:
    """The pod of a job that was cancelled renews for its grace period, and what it stopped has to be started."""
    lease = hold_from_elsewhere(simulation)
    one = Time(lambda seconds: stamp_lease(lease, age=-seconds) if seconds <= until else None)
    opened = one.open(simulation, name="restore_service", mode="restore", orphan_timeout=300.0)
    assert (opened["refused"], one.now) == (refused, end)
    (told,) = one.told
    assert "holds it with window weekly@sunday (last renewed at" in told
    assert told.endswith("if it is not renewed for 60 s; if it is renewed, this ends after 60 s")


@pytest.mark.usefixtures("on_volume")
def test_the_job_that_holds_the_site_is_named(simulation: Simulation) -> None:
    simulation.open(start="monday", job={"id": "12", "user": "alice", "template": "shop window"})
    other = Simulation(simulation.place / "other", directory=simulation.place / "windows")
    cause = other.run(name="other")
    assert "(that process lives); that run is AWX job 12 of template shop window, by alice. Wait for its end" in cause
    assert "or cancel job 12 in AWX, and run this again" in cause


def test_a_holder_that_renews_after_the_last_look_is_not_succeeded(
    simulation: Simulation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine that wakes while this run reads journals and loads roles."""
    lease = hold_from_elsewhere(simulation)
    stamp_lease(lease, age=-3600)
    acquire = FileStore.acquire

    def acquire_late(store: FileStore, *arguments: Any, **options: Any) -> LeaseRecord:
        store.renew(1)
        return acquire(store, *arguments, **options)

    monkeypatch.setattr(FileStore, "acquire", acquire_late)
    one = Time()
    opened = one.open(simulation)
    assert one.now == 60.0, "it was watched for its whole time"
    assert opened["refused"]
    assert "holds it with window weekly@sunday (last renewed at " in opened["msg"]
    held = simulation.store.read_lease()
    assert held is not None
    assert (held.token, held.released) == (1, False)


# -- what a refused opening leaves ----------------------------------------------------------------------------------


def lose_answer(_store: FileStore, *_arguments: Any, **_options: Any) -> Any:
    """Be a server that does not answer."""
    raise StoreUnreachable("the answer was lost")


def acquire_and_lose_answer(store: FileStore, owner: Owner, window_id: str, **_options: Any) -> LeaseRecord:
    """Be a server whose answer to a write that was carried out is lost."""
    store._write_lease(LeaseRecord(7, owner, window_id))
    raise StoreUnreachable("the answer was lost")


@pytest.mark.parametrize(
    ("method", "function", "token"),
    [("acquire", acquire_and_lose_answer, 7), ("append", lose_answer, 1), ("start_renewer", lose_answer, 1)],
)
def test_a_refused_opening_gives_the_lease_back(
    simulation: Simulation, monkeypatch: pytest.MonkeyPatch, method: str, function: Any, token: int
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(FileStore, method, function)
        assert "the answer was lost" in simulation.open()["msg"]
        assert simulation.opened["refused"]
    held = simulation.store.read_lease()
    assert held is not None
    assert (held.token, held.released) == (token, True)


def test_a_refused_opening_ends_its_renewer_before_it_gives_the_lease_back(
    simulation: Simulation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where acquiring took long, there is one already; it would end this run for the next owner."""
    ended: list[bool] = []
    end_process, release = Sign.end_process, FileStore.release

    def end(sign: Sign) -> None:
        ended.append(True)
        end_process(sign)

    def give_back(store: FileStore, token: int) -> None:
        assert ended
        release(store, token)
        ended.append(False)

    monkeypatch.setattr(FileStore, "append", lose_answer)
    monkeypatch.setattr(FileStore, "release", give_back)
    monkeypatch.setattr(Sign, "end_process", end)
    assert simulation.open()["refused"]
    assert ended[-1] is False


def test_an_opening_that_fails_before_it_took_the_lease_waits_for_nothing_more(
    simulation: Simulation, monkeypatch: pytest.MonkeyPatch
) -> None:
    locked: list[bool] = []
    lock = FileStore.lock

    def count(store: FileStore) -> Any:
        locked.append(True)
        return lock(store)

    monkeypatch.setattr(FileStore, "lock", count)
    monkeypatch.setattr(FileStore, "list_occurrences", lose_answer)
    assert "it cannot be written (the answer was lost)" in simulation.open()["msg"]
    assert len(locked) == 1


def test_a_lease_that_was_not_taken_is_not_given_back(simulation: Simulation, monkeypatch: pytest.MonkeyPatch) -> None:
    simulation.open(start="monday")
    assert simulation.controller is not None
    again = Controller(simulation.controller.pid, simulation.folder, None, False, ["ctl"], "ctl", {})
    opened = Opening(again).open(simulation.make_request(), make_inventory(), preload=load_nothing)
    assert "it is already open in this run" in opened["msg"]
    held = simulation.store.read_lease()
    assert held is not None
    assert (held.token, held.released) == (1, False)
    simulation.end_controller()
    hold_from_elsewhere(simulation)
    stamp_lease(simulation.store.directory / "lease", age=3600)
    monkeypatch.setattr(FileStore, "acquire", lose_answer)
    assert Time().open(simulation)["refused"]
    held = simulation.store.read_lease()
    assert held is not None
    assert (held.owner.host, held.released) == ("elsewhere", False)


def test_what_gives_no_lease_back_says_what_went_wrong_first(
    simulation: Simulation, monkeypatch: pytest.MonkeyPatch
) -> None:
    def say_no(_store: FileStore, _token: int) -> None:
        raise OSError("not now")

    monkeypatch.setattr(FileStore, "append", lose_answer)
    monkeypatch.setattr(FileStore, "release", say_no)
    assert "it cannot be written (the answer was lost)" in simulation.open()["msg"]
