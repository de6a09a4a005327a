# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The process that renews a lease: as long as its controller lives and holds it, and no longer."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.lowtide.ops.plugins.plugin_utils._window import renewer
from ansible_collections.lowtide.ops.plugins.plugin_utils._window.lease import LeaseLost, LeaseRecord, make_run_marker
from ansible_collections.lowtide.ops.plugins.plugin_utils._window.processes import (
    ENVIRONMENT_MARK,
    Owner,
    start_ticks,
    wait_for_end,
)
from ansible_collections.lowtide.ops.plugins.plugin_utils._window.renewal import SIGN, Moment, Sign
from ansible_collections.lowtide.ops.plugins.plugin_utils._window.store_file import FileStore
from support.window_stores import start_process

from .builders import ago, wait_until
from .simulation import Simulation

Start = Callable[[], subprocess.Popen[bytes]]
WITHOUT_PIDFD = """
import os, runpy, sys
{barred}
sys.argv[:] = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
MISSING = "del os.pidfd_open"
BARRED = """
def pidfd_open(pid, flags=0):
    raise PermissionError(1, "Operation not permitted")
os.pidfd_open = pidfd_open
"""


@pytest.fixture
def store(tmp_path: Path) -> FileStore:
    """A store whose leases are renewed forty times a second."""
    store = FileStore(tmp_path / "site", ttl=0.1)
    store.create()
    return store


def make_old(store: FileStore) -> None:
    """Give the lease a time stamp of the past."""
    os.utime(store.directory / "lease", (1, 1))


def is_renewed(store: FileStore) -> bool:
    """Whether the lease has a time stamp of today."""
    return store.read_last_renewal() > 1


def test_it_renews_while_the_controller_lives_and_ends_with_it(store: FileStore, start_controller: Start) -> None:
    controller = start_controller()
    pid = store.start_renewer(store.acquire(Owner.from_pid(controller.pid), "w@1"))
    for _ in range(3):
        make_old(store)
        assert wait_until(lambda: is_renewed(store))
    assert os.getpgid(pid) == pid, "a signal to the controller's process group does not reach it"
    controller.kill()
    assert wait_for_end(pid, 60)
    make_old(store)
    assert not is_renewed(store)


def test_it_ends_when_the_lease_is_given_back(store: FileStore, start_controller: Start) -> None:
    controller = start_controller()
    record = store.acquire(Owner.from_pid(controller.pid), "w@1")
    pid = store.start_renewer(record)
    make_old(store)
    assert wait_until(lambda: is_renewed(store))
    store.release(record.token)
    assert wait_for_end(pid, 60)
    assert controller.poll() is None


@pytest.mark.parametrize("is_older_there", [False, True])
def test_a_lease_that_is_on_record_no_more_is_looked_at_until_somebody_takes_it(
    store: FileStore, start_controller: Start, is_older_there: bool
) -> None:
    """A database that lost its last commits with its primary, and has what an earlier run left, or nothing."""
    controller = start_controller()
    earlier = store.acquire(Owner.from_pid(controller.pid), "w@0")
    store.release(earlier.token)
    record = store.acquire(Owner.from_pid(controller.pid), "w@1")
    pid = store.start_renewer(record)
    make_old(store)
    assert wait_until(lambda: is_renewed(store))
    if is_older_there:
        store._write_lease(replace(earlier, released=True))
    else:
        (store.directory / "lease").unlink()
    assert not wait_for_end(pid, 0.5)
    assert controller.poll() is None
    store._write_lease(replace(record, token=record.token + 1))
    assert wait_for_end(pid, 60)
    assert controller.wait(60) == -signal.SIGTERM


def test_an_earlier_lease_that_is_renewed_is_another_runs(store: FileStore, start_controller: Start) -> None:
    """Acquired after this run's, from a server whose clock is behind, which knew nothing of this run's."""
    controller = start_controller()
    first = store.acquire(Owner.from_pid(controller.pid), "w@0")
    elsewhere = replace(first, owner=replace(first.owner, boot="elsewhere"))
    store.release(first.token)
    record = store.acquire(Owner.from_pid(controller.pid), "w@1")
    pid = store.start_renewer(record)
    make_old(store)
    assert wait_until(lambda: is_renewed(store))
    store._write_lease(elsewhere)
    assert not wait_for_end(pid, 0.5), "it may be what a copy has brought back"
    assert controller.poll() is None
    make_old(store)
    assert wait_for_end(pid, 60)
    assert controller.wait(60) == -signal.SIGTERM


@pytest.mark.parametrize(("tick", "wall", "age"), [(1, 3600, 3600), (3600, 1, 3600), (20, -3600, 20)])
def test_an_age_is_the_larger_one_of_two_clocks(tick: float, wall: float, age: float) -> None:
    """A machine that was held by its hypervisor, and one whose wall clock was set back."""
    now = Moment.now()
    measured = Moment(now.tick - tick, now.wall - wall).measure_age()
    assert measured == pytest.approx(age, abs=60)
    assert Moment(now.tick + 3600, now.wall).measure_age() is None, "of another start of the machine"


@pytest.mark.parametrize("is_stopped", [False, pytest.param(True, marks=pytest.mark.sweep)])
def test_a_lease_that_passed_on_ends_the_run_and_says_why(store: FileStore, tmp_path: Path, is_stopped: bool) -> None:
    with (tmp_path / "stderr").open("w") as errors:
        controller = start_process(stderr=errors)
    record = store.acquire(Owner.from_pid(controller.pid), "w@1")
    marks = [make_run_marker(store.location, token) for token in (record.token, record.token + 1)]
    own, other = (start_process(env={ENVIRONMENT_MARK: mark}) for mark in marks)
    sign = Sign(tmp_path / "sign")
    sign.write(Moment.now())
    try:
        pid = store.start_renewer(record, sign=sign.path)
        if is_stopped:
            controller.send_signal(signal.SIGSTOP)
        assert sign.read_loss() == ""
        store._write_lease(replace(record, token=record.token + 1))
        assert wait_for_end(pid, 60)
        assert controller.wait(60) == -(signal.SIGKILL if is_stopped else signal.SIGTERM)
        assert own.wait(60) == -signal.SIGTERM
        assert other.poll() is None
        words = "this run held it with token 1, and now .* does \\(token 2\\). Leave the site"
        assert re.search(words, sign.read_loss())
        told = (tmp_path / "stderr").read_text()
        assert re.search(f"^lowtide window: this run is ended, since its site is another's now: .*{words}", told, re.M)
    finally:
        for process in (controller, own, other):
            process.kill()
            process.wait()


def test_it_says_why_it_ended(store: FileStore, start_controller: Start) -> None:
    controller = start_controller()
    record = store.acquire(Owner.from_pid(controller.pid), "w@1")
    started = record.owner.started
    assert start_ticks(controller.pid) == started
    assert renewer.renew(store, 1, controller.pid, started - 1, interval=9) == "controller ended", "its pid was reused"
    with store.lock():
        store.release(1)
        token = store.acquire(record.owner, "w@2").token
    with pytest.raises(LeaseLost, match="held it with token 1, and now"):
        renewer.renew(store, 1, controller.pid, started, interval=9)
    controller.kill()
    assert renewer.renew(store, token, controller.pid, started, interval=9) == "controller ended"
    controller.wait()
    assert renewer.renew(store, token, controller.pid, started, interval=9) == "controller ended"


@pytest.mark.parametrize("barred", [MISSING, BARRED], ids=["missing", "barred"])
@pytest.mark.parametrize("ending", ["killed", "zombie", "lease passed on"])
def test_it_renews_without_pidfd(store: FileStore, start_controller: Start, barred: str, ending: str) -> None:
    """As on a controller whose Python or seccomp filter has no pidfd_open."""
    controller = start_controller()
    record = store.acquire(Owner.from_pid(controller.pid), "w@1")
    work = {"place": store.describe_place(), "token": 1, "pid": controller.pid, "started": record.owner.started}
    work |= {"interval": 0.025, "sign": None, "path": sys.path, "mark": "nobody's", "pipe": None}
    process = subprocess.Popen(
        [sys.executable, "-I", "-c", WITHOUT_PIDFD.format(barred=barred), renewer.__file__], stdin=subprocess.PIPE
    )
    assert process.stdin is not None
    with process.stdin:
        process.stdin.write(json.dumps(work).encode())
    for _ in range(3):
        make_old(store)
        assert wait_until(lambda: is_renewed(store))
    assert process.poll() is None
    if ending == "lease passed on":
        store._write_lease(replace(record, token=2))
    else:
        controller.kill()
    if ending == "killed":
        controller.wait()
    assert process.wait(60) == 0
    make_old(store)
    assert not is_renewed(store)


def test_a_lease_that_cannot_be_read_for_a_moment_does_not_end_it(store: FileStore, start_controller: Start) -> None:
    """A file server that does not answer is no other owner."""
    controller = start_controller()
    pid = store.start_renewer(store.acquire(Owner.from_pid(controller.pid), "w@1"))
    lease, copy, loop = (store.directory / name for name in ("lease", "copy", "loop"))
    copy.write_bytes(lease.read_bytes())
    loop.symlink_to("lease")
    loop.replace(lease)  # ELOOP: an error of the file system that is not its absence
    assert not wait_for_end(pid, 0.3)
    copy.replace(lease)
    make_old(store)
    assert wait_until(lambda: is_renewed(store))


def find_renewers(folder: str) -> list[int]:
    """Return the processes that renew for a run, by what they were told (their standard input)."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if not entry.name.isdigit() or b"renewer.py" not in (entry / "cmdline").read_bytes():
                continue
            if (entry / "fd/0").is_file() and folder in (entry / "fd/0").read_text():  # a pipe is somebody's to read
                found.append(int(entry.name))
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
    return found


def test_a_lease_whose_renewer_does_not_renew_is_renewed_by_the_steps(simulation: Simulation) -> None:
    ages: list[float] = []

    def look(_step: str, _host: str) -> None:
        assert len(find_renewers(simulation.folder)) == 1, "one was started in place of the other"
        ages.append(time.time() - simulation.store.read_last_renewal())
        Sign(Path(simulation.folder, SIGN)).write(ago(50))
        os.utime(simulation.store.directory / "lease", (time.time() - 50,) * 2)  # of the 60 s that it lasts

    simulation.before = look
    assert simulation.run() == "succeeded"
    assert len(ages) > 5
    assert max(ages) < 40, "a step began with a lease that was not renewed"
    assert find_renewers(simulation.folder) == []


def test_a_step_that_renews_says_so(simulation: Simulation) -> None:
    simulation.open()
    sign = simulation.engine.window.sign
    sign.end_process()
    sign.write(ago(45))
    sign.write_error("401, the token is over")
    before = simulation.store.read_last_renewal()
    (warning,) = simulation.engine.list_in_force()["warnings"]
    assert re.search(
        r"had not done so for \d\d s \(401, the token is over\); another one was started with the connection", warning
    )
    assert simulation.store.read_last_renewal() > before
    assert len(find_renewers(simulation.folder)) == 1
    assert simulation.engine.list_in_force()["warnings"] == []
    assert sign.read_error() == ""


def test_a_second_renewer_of_a_run_replaces_the_first(
    store: FileStore, tmp_path: Path, start_controller: Start
) -> None:
    record = store.acquire(Owner.from_pid(start_controller().pid), "w@1")
    sign = tmp_path / SIGN
    first = store.start_renewer(record, sign=sign)
    second = store.start_renewer(record, sign=sign)
    assert find_renewers(str(sign)) == [second]
    assert wait_for_end(first, 60)
    Sign(sign).end_process()
    assert find_renewers(str(sign)) == []


def test_a_lease_that_took_long_to_get_has_one_renewer(simulation: Simulation, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 30 s of patience, and a fence: the first session finds the lease old, and has it renewed."""
    acquire, read_clock, seconds = FileStore.acquire, time.clock_gettime, [0.0]

    def acquire_slowly(store: FileStore, *arguments: Any, **options: Any) -> LeaseRecord:
        seconds[0] = 31.0
        return acquire(store, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(FileStore, "acquire", acquire_slowly)
        patch.setattr(time, "clock_gettime", lambda clock: read_clock(clock) + seconds[0])
        assert not simulation.open()["refused"]
    assert len(find_renewers(simulation.folder)) == 1
    simulation.close()
    assert find_renewers(simulation.folder) == []
