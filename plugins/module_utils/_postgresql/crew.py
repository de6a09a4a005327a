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
from . import blockers, guard
from .catalog import uncompiled
from .connection import Session, Settings
from .errors import sqlstate
from .plan import Step

# Settings of a working session. Its commits need not reach the disk one by one: what a crash within the next half second
# undoes was consistent before, too, and the next run finds it due. (The server waits where files are removed all the same.)
_SETTINGS = """
SELECT set_config('lock_timeout', %(lock)s, false), set_config('statement_timeout', '0', false),
  set_config('synchronous_commit', 'off', false)
"""

# lock_not_available, deadlock_detected: somebody else was in the way, so another attempt may succeed.
IN_THE_WAY = {"55P03", "40P01"}

Task = t.TypeVar("Task")


class Record:
    """What became of the steps, filled by all workers under one lock."""

    def __init__(self) -> None:
        self.done: list[tuple[Step, float]] = []
        self.not_done: list[dict[str, str]] = []
        self.blockers: list[Blocker] = []
        self.errors: list[OpsError] = []
        self.settled: list[Step] = []
        self._lock = threading.Lock()

    def add_done(self, steps: t.Iterable[Step], seconds: float) -> None:
        """These steps were done by one statement of ``seconds``."""
        with self._lock:
            self.done.extend((step, seconds) for step in steps)

    def add_not_done(self, step: Step, why: str, blocker: Blocker | None = None) -> None:
        """This step was left, and why."""
        with self._lock:
            self.not_done.append({"object": step.shown, "what": step.what, "why": why})
            if blocker is not None:
                self.blockers.append(blocker)

    def add_error(self, error: OpsError) -> None:
        """A statement failed for another reason than somebody in the way."""
        with self._lock:
            self.errors.append(error)

    def add_settled(self, step: Step) -> None:
        """There was nothing left to do: somebody else did it meanwhile."""
        with self._lock:
            self.settled.append(step)


class Crew:
    """``jobs`` working sessions, opened when first needed, closed at the end of the ``with`` block.

    ``lock_timeout`` in seconds for every wait for a lock; ``budget`` in seconds from the start of the run, None for no end.
    Sessions that work side by side use one core each: the server's parallel workers are left to a task that alone is more than
    a session's share of all the work.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        module: str,
        run_id: str,
        jobs: int,
        lock_timeout: float,
        retries: int,
        budget: float | None,
        started: float,
    ) -> None:
        self._settings = settings
        self._module = module
        self._run_id = run_id
        self.jobs = jobs
        self.lock_timeout = lock_timeout
        self.retries = retries
        self._budget = budget
        self._started = started
        self._sessions: list[Session] = []
        self._wide: dict[Session, bool] = {}
        self.record = Record()

    def __enter__(self) -> Crew:
        return self

    def __exit__(self, *_exc: object) -> None:
        for session in self._sessions:
            session.close()

    def _session(self, number: int) -> Session:
        while len(self._sessions) <= number:
            session = Session(self._settings, module=self._module, run_id=self._run_id)
            self._sessions.append(session)
            guard.join(session)
            uncompiled(session)
            session.query(_SETTINGS, {"lock": f"{max(1, round(self.lock_timeout * 1000))}ms"})
        return self._sessions[number]

    def too_late(self, estimate: float) -> bool:
        """Whether what takes about ``estimate`` seconds would end after the budget."""
        return self._budget is not None and time.monotonic() - self._started + estimate > self._budget

    def skip_late(self, step: Step) -> None:
        """Record that the time ran out before this step."""
        self.record.add_not_done(
            step, f"{step.why}; about {step.estimate:.0f} s, and less is left of the time budget of {self._budget:g} s"
        )

    def _widen(self, session: Session, *, wide: bool) -> None:
        """Let this session use parallel workers as the server is set up, or none."""
        if wide != self._wide.get(session, True):
            name = "max_parallel_maintenance_workers"
            session.execute(f"RESET {name}" if wide else f"SET {name} = 0")
            self._wide[session] = wide

    def run(
        self,
        tasks: t.Sequence[Task],
        perform: t.Callable[[Session, Task], list[Task]],
        *,
        size: t.Callable[[Task], float],
    ) -> None:
        """Work through ``tasks``; what ``perform`` returns comes last in the queue. The first lost connection ends all.

        ``size`` is the work of a task, in any unit.
        """
        queue: deque[Task] = deque(tasks)
        share = sum(size(task) for task in tasks) / self.jobs if self.jobs > 1 else -1.0
        failures: list[BaseException] = []

        def work(session: Session) -> None:
            while not failures:
                try:
                    task = queue.popleft()
                except IndexError:
                    return
                try:
                    self._widen(session, wide=size(task) > share)
                    queue.extend(perform(session, task))
                except BaseException as error:  # handed to the caller's thread below
                    failures.append(error)

        sessions = [self._session(number) for number in range(min(self.jobs, len(queue)))]
        threads = [
            threading.Thread(target=work, args=(session,), name=f"maintenance-{n}")
            for n, session in enumerate(sessions)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if failures:
            raise failures[0]

    def skip_locked(self, session: Session, step: Step, modes: list[str]) -> None:
        """Record that somebody else's lock was in the way, and whose."""
        holders = blockers.read_lock_holders(session, [step.table, step.oid], modes)
        if holders:
            blocker = blockers.lock_blocker(step.shown, holders[0])
        else:
            blocker = Blocker(
                object=step.shown,
                what="a lock was not granted",
                holder="a session that has ended since",
                next_step="Run again",
            )
        tries = f" in {self.retries + 1} attempts" if self.retries else ""
        self.record.add_not_done(step, f"no lock within {self.lock_timeout:g} s{tries}: {blocker.holder}", blocker)


def somebody_in_the_way(error: Exception) -> bool:
    """Whether a later attempt may succeed."""
    return sqlstate(error) in IN_THE_WAY
