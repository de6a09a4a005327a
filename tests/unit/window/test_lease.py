# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The lease: exactly one owner, a token that rises, the dead succeeded and the living not, whatever a clock says."""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.lowtide.ops.plugins.module_utils._common.errors import Refusal
from ansible_collections.lowtide.ops.plugins.module_utils._window import renewer
from ansible_collections.lowtide.ops.plugins.module_utils._window.lease import FileLease, Held, Lost
from ansible_collections.lowtide.ops.plugins.module_utils._window.processes import (
    Owner,
    orphans,
    start_ticks,
    wait_for_end,
)

TRIALS = 200


def acquire(lease: FileLease, owner: Owner) -> Held:
    """Acquire as the action does, inside the lock."""
    with lease.locked():
        return lease.acquire(owner, "weekly@1")


@pytest.fixture
def lease(tmp_path: Path) -> FileLease:
    """A lease nobody ever held."""
    return FileLease(tmp_path / "weekly.lease")


@pytest.fixture
def sleeper() -> Any:
    """A process that lives until the test ends it."""
    process = subprocess.Popen(
        [sys.executable, "-c", "import signal; print('up', flush=True); signal.pause()"], stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    process.stdout.readline()
    yield process
    process.kill()
    process.wait()


def elsewhere(owner: Owner) -> Owner:
    """The same process id on another host."""
    return dataclasses.replace(owner, host="other", boot="another boot")


def test_the_first_owner_gets_token_1_and_the_next_a_higher_one(lease: FileLease) -> None:
    owner = Owner.of(os.getpid())
    assert lease.read() is None
    assert acquire(lease, owner).token == 1
    with lease.locked():
        lease.release(1)
    assert acquire(lease, owner).token == 2


def test_a_living_owner_is_named_and_never_succeeded_even_past_its_time(lease: FileLease, sleeper: Any) -> None:
    acquire(lease, Owner.of(sleeper.pid))
    os.utime(lease.path, (0, 0))
    with pytest.raises(Refusal, match=rf"process {sleeper.pid}, since 20\d\d-.*that process lives"):
        acquire(lease, Owner.of(os.getpid()))


def test_a_dead_owner_is_succeeded_at_once(lease: FileLease, sleeper: Any) -> None:
    acquire(lease, Owner.of(sleeper.pid))
    sleeper.kill()
    sleeper.wait()
    assert acquire(lease, Owner.of(os.getpid())).token == 2


def test_a_reused_pid_is_not_the_owner(lease: FileLease) -> None:
    me = Owner.of(os.getpid())
    acquire(lease, dataclasses.replace(me, started=me.started - 1))
    assert acquire(lease, me).token == 2


def test_an_owner_on_another_host_holds_until_its_time_by_the_file_servers_clock(
    lease: FileLease, monkeypatch: pytest.MonkeyPatch
) -> None:
    me = Owner.of(os.getpid())
    acquire(lease, elsewhere(me))
    monkeypatch.setattr(time, "time", lambda: 4e9)  # this controller's own clock is decades ahead, and nobody asks it
    with pytest.raises(Refusal, match="the lease holds until"):
        acquire(lease, me)
    stamp = lease.path.stat().st_mtime - lease.ttl
    os.utime(lease.path, (stamp, stamp))
    assert acquire(lease, me).token == 2


def test_a_window_is_opened_once_in_a_run(lease: FileLease) -> None:
    me = Owner.of(os.getpid())
    acquire(lease, me)
    with pytest.raises(Refusal, match="already open in this run"):
        acquire(lease, me)


def test_the_token_fences_a_late_writer(lease: FileLease) -> None:
    me = Owner.of(os.getpid())
    acquire(lease, dataclasses.replace(me, started=1))
    lease.check(1)
    acquire(lease, me)
    with pytest.raises(Lost, match=r"under token 1, and now .* does \(token 2\)"):
        lease.check(1)
    with pytest.raises(Lost):
        lease.release(1)
    lease.path.unlink()
    with pytest.raises(Lost, match="now nobody does"):
        lease.check(2)


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"v": 1, "token": 1}', '{"v": "x"}'])
def test_a_damaged_lease_is_refused(lease: FileLease, text: str) -> None:
    lease.path.write_text(text)
    with pytest.raises(Refusal, match="it cannot be read"):
        lease.read()


def test_a_lease_from_the_future_is_refused(lease: FileLease) -> None:
    lease.path.write_text(json.dumps({"v": 99}))
    with pytest.raises(Refusal, match=r"it has format 99, and this version of lowtide\.ops knows 1"):
        lease.read()


def contend(path: Path, barrier: Any, results: Any) -> None:
    """One of two controllers that start together, ``TRIALS`` times; the processes live until the trial is over."""
    for trial in range(TRIALS):
        barrier.wait()
        try:
            results.put((trial, "runs", acquire(FileLease(path / str(trial)), Owner.of(os.getpid())).token))
        except Refusal as refusal:
            results.put((trial, "refused", str(refusal)))


def test_of_two_controllers_exactly_one_runs_and_the_other_says_who(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    barrier, results = context.Barrier(2), context.Queue()
    processes = [context.Process(target=contend, args=(tmp_path, barrier, results)) for _ in range(2)]
    for process in processes:
        process.start()
    answers = [results.get(timeout=60) for _ in range(2 * TRIALS)]
    for process in processes:
        process.join()
    for trial in range(TRIALS):
        (_, first, _), (_, second, words) = sorted(
            (answer for answer in answers if answer[0] == trial), key=lambda answer: answer[1] == "refused"
        )
        assert (first, second) == ("runs", "refused")
        assert "is running it (that process lives)" in words


def test_the_renewer_moves_the_stamp_and_ends_with_the_controller(lease: FileLease, sleeper: Any) -> None:
    held = acquire(lease, Owner.of(sleeper.pid))
    os.utime(lease.path, (0, 0))
    pid = lease.start_renewer(held, seconds=60)
    descriptor = os.pidfd_open(pid)
    while lease.path.stat().st_mtime == 0:
        assert start_ticks(pid) is not None, "the renewer ended early"
    sleeper.kill()
    sleeper.wait()
    assert wait_for_end(pid, 10)
    os.close(descriptor)
    os.waitpid(pid, 0)


@pytest.mark.parametrize(
    ("token", "started", "seconds", "why"),
    [(2, 0, 9, "lease passed on"), (1, 1, 9, "controller ended"), (1, 0, 0, "window ended")],
)
def test_the_renewer_ends(lease: FileLease, token: int, started: int, seconds: float, why: str) -> None:
    me = Owner.of(os.getpid())
    acquire(lease, me)
    assert renewer.renew(str(lease.path), token, me.pid, me.started + started, interval=0.01, seconds=seconds) == why


def test_the_renewer_ends_when_there_is_nothing_to_renew(lease: FileLease, sleeper: Any) -> None:
    me = Owner.of(os.getpid())
    assert renewer.renew(str(lease.path), 1, me.pid, me.started, interval=0.01, seconds=9) == "lease passed on"
    sleeper.kill()
    sleeper.wait()
    assert renewer.renew(str(lease.path), 1, sleeper.pid, 1, interval=0.01, seconds=9) == "controller ended"


def test_life_is_only_told_where_it_can_be_proved(sleeper: Any) -> None:
    owner = Owner.of(sleeper.pid)
    assert owner.life() == "alive"
    assert elsewhere(owner).life() == "unknown"
    assert Owner.from_dict({**owner.as_dict(), "later": 1}) == owner
    sleeper.kill()
    assert wait_for_end(sleeper.pid, 10)
    assert owner.life() == "dead", "a zombie does nothing any more"
    sleeper.wait()
    assert owner.life() == "dead"
    with pytest.raises(ProcessLookupError):
        Owner.of(sleeper.pid)


def test_orphans_are_known_by_their_mark_or_their_pipe() -> None:
    read, write = os.pipe()
    os.set_inheritable(write, True)
    code = "import signal; print('up', flush=True); signal.pause()"
    pipe = os.readlink(f"/proc/self/fd/{write}")
    marked = subprocess.Popen(
        [sys.executable, "-c", code], env={**os.environ, "LOWTIDE_WINDOW_RUN": "/x#1"}, stdout=subprocess.PIPE
    )
    holding = subprocess.Popen([sys.executable, "-c", code], pass_fds=[write], stdout=subprocess.PIPE)
    try:
        for process in (marked, holding):
            assert process.stdout is not None
            process.stdout.readline()
        me = frozenset({os.getpid()})
        assert [orphan.pid for orphan in orphans(mark="/x#1", pipe=None, ignore=me)] == [marked.pid]
        assert [orphan.pid for orphan in orphans(mark="/x#2", pipe=pipe, ignore=me)] == [holding.pid]
        assert orphans(mark="/x#2", pipe=None, ignore=me) == []
        assert "signal.pause" in orphans(mark="/x#1", pipe=None)[0].describe()
        assert not wait_for_end(marked.pid, 0.01)
    finally:
        for process in (marked, holding):
            process.kill()
            process.wait()
        os.close(read)
        os.close(write)
    assert wait_for_end(marked.pid, 0)
