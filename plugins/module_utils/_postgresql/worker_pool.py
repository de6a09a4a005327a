# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Steps done on several connections at once. Private to lowtide.ops: do not import from other collections."""

from __future__ import annotations

import threading
import time
import typing as t
from collections import deque

from .._common.errors import OpsError
from .._common.outcome import Blocker
from .._common.retry import Deadline
from . import blockers
from .connection import Session, Settings, driver_error
from .errors import is_deadline, sqlstate
from .holders import is_cure, make_lock_blocker
from .locks import mark_worker
from .plan import make_budget_blocker
from .steps import Skip, Step, skip_step

# Its commits need not reach the disk one by one: what a crash within the next half second undoes was consistent before,
# too, and the next run finds it due. (The server waits where files are removed all the same.)
_WORKER_SETTINGS = "SET synchronous_commit = off"

# lock_not_available, deadlock_detected: another session was in the way, so another attempt may succeed.
LOCK_CONFLICTS = {"55P03", "40P01"}

PING_EVERY = 60.0
"""Seconds after which a session that waits for others says something, lest a proxy ends it for its silence."""

Task = t.TypeVar("Task")


class Limits(t.NamedTuple):
    """Times in seconds. ``lock_timeout``: for every lock. ``index_wait_timeout``: for each wait of a concurrent build for
    transactions, which hinders nobody. ``budget``: nothing is begun that would end later. ``timeout``: what runs then is
    cancelled. ``retries``: how many times more what was locked is tried.
    """

    jobs: int
    lock_timeout: float
    index_wait_timeout: float
    retries: int
    budget: float | None
    timeout: float | None


class Record:
    """What became of the steps, filled by all workers under one lock."""

    def __init__(self) -> None:
        self.done: list[tuple[Step, float]] = []
        self.skips: list[Skip] = []
        self.errors: list[tuple[Step | None, OpsError]] = []
        self.no_longer_needed: list[Step] = []
        self._lock = threading.Lock()

    def add_done(self, steps: t.Iterable[Step], seconds: float) -> None:
        """These steps were done by one statement of ``seconds``."""
        with self._lock:
            self.done.extend((step, seconds) for step in steps)

    def add_skip(self, step: Step, reason: str, blocker: Blocker | None = None, *, cured: bool = False) -> None:
        """This step was not done, and why. ``cured``: another session averts what it was there against."""
        skip = skip_step(step, reason, blocker)
        with self._lock:
            self.skips.append(skip._replace(is_danger=skip.is_danger and not cured))

    def add_error(self, step: Step | None, error: OpsError) -> None:
        """A statement failed for another reason than a lock."""
        with self._lock:
            self.errors.append((step, error))

    def add_no_longer_needed(self, step: Step) -> None:
        """There was nothing left to do: another session did it meanwhile, or dropped the object."""
        with self._lock:
            self.no_longer_needed.append(step)


class WorkerPool:
    """``limits.jobs`` working sessions, opened together before the first statement, closed at the end of the ``with`` block.

    Sessions that work side by side use one core each: the server's parallel workers are left to a task that alone is more than
    a session's share of all the work. ``deadline`` counts from the start of the run. ``deciding`` is the session that
    holds the run's lock and has nothing to do meanwhile.
    """

    def __init__(
        self,
        settings: Settings,
        limits: Limits,
        *,
        module: str,
        run_id: str,
        deadline: Deadline,
        deciding: Session,
    ) -> None:
        self._settings = settings
        self._deciding = deciding
        self._next_ping = time.monotonic() + PING_EVERY
        self._module = module
        self._run_id = run_id
        self._deadline = deadline
        self.limits = limits
        self._sessions: list[Session] = []
        self._parallel: dict[Session, bool] = {}
        self.record = Record()

    def __enter__(self) -> WorkerPool:
        return self

    def __exit__(self, *_exc: object) -> None:
        for session in self._sessions:
            session.close()

    @property
    def elapsed(self) -> float:
        """Seconds since the run began."""
        return self._deadline.elapsed

    @property
    def is_over(self) -> bool:
        """Whether the run's timeout has passed."""
        return self.limits.timeout is not None and self.elapsed >= self.limits.timeout

    def open_sessions(self, count: int) -> None:
        """Open as many sessions as ``count`` tasks can use; a refusal of the server comes before anything is done."""
        for _number in range(min(self.limits.jobs, count) - len(self._sessions)):
            session = Session(self._settings, module=self._module, run_id=self._run_id)
            self._sessions.append(session)
            mark_worker(session)
            session.execute(_WORKER_SETTINGS)

    def is_too_late(self, step: Step, estimate: float) -> bool:
        """Return whether what takes about ``estimate`` seconds would end after the budget, or begin after the timeout.

        What is there against wraparound ignores the budget; what is longer than all of it has to begin within it.
        """
        if self.is_over:
            return True
        budget = self.limits.budget
        if budget is None or step.is_danger:
            return False
        return self.elapsed + (estimate if estimate <= budget else 0.0) > budget

    def skip_late(self, step: Step) -> None:
        """Record that the time ran out before this step."""
        limit = self.limits.budget if self.limits.budget is not None else self.limits.timeout
        limit = 0.0 if limit is None else limit
        reason = f"{step.why}; about {step.estimate:.0f} s, and less is left of the time budget of {limit:g} s"
        if self.is_over:
            reason = f"{step.why}; the timeout of {self.limits.timeout:g} s had passed"
        self.record.add_skip(step, reason, make_budget_blocker(step, limit))

    def execute(self, session: Session, statement: t.Any, *, lock_timeout: float, may_be_late: bool = False) -> float:
        """Run one statement that the server cancels at the run's timeout; return its seconds.

        ``may_be_late`` is for what cleans up: it is bounded by its lock_timeout alone.
        """
        left = 0.0
        if self.limits.timeout is not None and not may_be_late:
            left = max(self.limits.timeout - self.elapsed, 0.001)
        session.query(
            "SELECT set_config('lock_timeout', %(lock)s, false), set_config('statement_timeout', %(statement)s, false)",
            {"lock": to_milliseconds(lock_timeout), "statement": to_milliseconds(left) if left else "0"},
        )
        started = time.monotonic()
        session.execute(statement)
        return time.monotonic() - started

    def is_cancelled_by_timeout(self, error: Exception) -> bool:
        """Return whether a statement failed because the run's timeout had passed."""
        timeout = self.limits.timeout
        return timeout is not None and is_deadline(error) and self.elapsed >= timeout - 0.01

    def skip_cancelled(self, step: Step) -> None:
        """Record that the run's timeout ended a step."""
        timeout = self.limits.timeout or 0.0
        blocker = Blocker(
            object=step.display_name,
            what=f"{step.action} was cancelled",
            holder=f"timeout of {timeout:g} s",
            next_step="Raise timeout, or run again: what was done is not done twice",
        )
        self.record.add_skip(step, f"{step.why}; cancelled at the timeout of {timeout:g} s", blocker)

    def _set_parallel_workers(self, session: Session, *, allowed: bool) -> None:
        """Let this session use parallel workers as the server is set up, or none."""
        if allowed != self._parallel.get(session, True):
            name = "max_parallel_maintenance_workers"
            session.execute(f"RESET {name}" if allowed else f"SET {name} = 0")
            self._parallel[session] = allowed

    def run(
        self,
        tasks: t.Sequence[Task],
        perform: t.Callable[[Session, Task], list[Task]],
        *,
        size: t.Callable[[Task], float],
        jobs: int | None = None,
    ) -> None:
        """Work through ``tasks``; what ``perform`` returns comes last in the queue. The first lost connection ends all.

        ``size`` is the work of a task, in any unit; ``jobs`` are fewer sessions than there are.
        """
        self.open_sessions(len(tasks))
        sessions = self._sessions[: min(jobs or self.limits.jobs, len(tasks))]
        queue: deque[Task] = deque(tasks)
        share = sum(size(task) for task in tasks) / len(sessions) if len(sessions) > 1 else -1.0
        failures: list[BaseException] = []

        def work(session: Session) -> None:
            while not failures:
                try:
                    task = queue.popleft()
                except IndexError:
                    return
                try:
                    self._set_parallel_workers(session, allowed=size(task) > share)
                    queue.extend(perform(session, task))
                except BaseException as error:  # handed to the caller's thread below
                    failures.append(error)

        threads = [
            threading.Thread(target=work, args=(session,), name=f"maintenance-{number}")
            for number, session in enumerate(sessions)
        ]
        for thread in threads:
            thread.start()
        self._wait(dict(zip(sessions, threads, strict=True)), failures)
        if failures:
            raise failures[0]

    def _wait(self, threads: t.Mapping[Session, threading.Thread], failures: list[BaseException]) -> None:
        """Wait for all threads, and meanwhile keep the sessions alive that have nothing to do; the first lost one ends all."""
        for thread in threads.values():
            while thread.is_alive():
                thread.join(max(self._next_ping - time.monotonic(), 0.0))
                if time.monotonic() < self._next_ping:
                    continue
                self._next_ping = time.monotonic() + PING_EVERY
                busy = {session for session, worker in threads.items() if worker.is_alive()}
                try:
                    for session in {self._deciding, *self._sessions} - busy:
                        session.execute("SELECT 1")
                except driver_error() as error:
                    failures.append(error)
                    thread.join()

    def skip_locked(self, session: Session, step: Step, modes: list[str], *, waited: float) -> None:
        """Record that another session's lock was in the way for ``waited`` seconds, and whose.

        What an autovacuum against wraparound freezes at this moment is no danger any more.
        """
        holders = blockers.read_lock_holders(session, [step.table, step.oid], modes, toast=step.vacuum)
        if holders:
            blocker = make_lock_blocker(step.display_name, holders[0])
        else:
            blocker = Blocker(
                object=step.display_name,
                what="a lock was not granted",
                holder="a session that has ended since",
                next_step="Run again",
            )
        tries = f" in {self.limits.retries + 1} attempts" if self.limits.retries else ""
        cured = any(is_cure(holder) for holder in holders)
        self.record.add_skip(step, f"no lock within {waited:g} s{tries}: {blocker.holder}", blocker, cured=cured)


def to_milliseconds(seconds: float) -> str:
    """Return a time as the server's settings have it; at least one millisecond, since 0 means without end."""
    return f"{min(max(1, round(seconds * 1000)), 2**31 - 1)}ms"


def is_lock_conflict(error: Exception) -> bool:
    """Return whether another session was in the way, so that a later attempt may succeed."""
    return sqlstate(error) in LOCK_CONFLICTS
