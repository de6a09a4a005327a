# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Following another run at a site: whether its lease is over, who is waited for, and for how long.

Private to lowtide.ops: do not import from other collections.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from ansible_collections.lowtide.ops.plugins.module_utils._common.errors import OpsError, Refusal
from ansible_collections.lowtide.ops.plugins.module_utils._common.retry import Deadline
from ansible_collections.lowtide.ops.plugins.module_utils._common.timestamps import format_utc

from .events import WindowOpened
from .lease import LeaseRecord, find_interval, make_run_marker
from .processes import Orphan, Owner, find_orphans, read_boot_id, read_pid_namespace, wait_for_end
from .renewal import Sign
from .report import describe_job
from .request import Request
from .rules import RESTORE
from .store import Store, find_obstacle
from .watch import Watch

POLL_INTERVAL = 1.0
"""Seconds between two looks at a lease whose owner cannot be looked at."""
GRACE = 60.0
"""Seconds for which a restore waits for an owner that renews: the pod of a cancelled job lives for its grace period,
and nobody else would start anything again."""


class Succession:
    """The way of one run to the lease of a site.

    An owner that cannot be looked at is succeeded where two clocks agree: its time is over by the server's, and nothing
    was renewed for more than a renewal while it was looked at, since the times may be those of two servers. What was
    not renewed for its whole time by this machine's clock is over as well, whatever its time stamp says.
    """

    def __init__(
        self,
        request: Request,
        store: Store,
        owner: Owner,
        sign: Sign,
        *,
        sleep: Callable[[float], None],
        clock: Callable[[], float],
        tell: Callable[[str], None],
    ) -> None:
        self._request = request
        self._store = store
        self._owner = owner
        self._sign = sign
        self._sleep = sleep
        self._tell = tell
        self._watch = Watch(clock)
        self._deadline = Deadline(request.orphan_timeout, sleep=sleep)
        self._grace = Deadline(GRACE, clock=clock, sleep=sleep)
        self._orphan: Orphan | None = None
        self._is_told = False
        self._has_begun = False

    @contextmanager
    def give_back(self) -> Iterator[None]:
        """Give the lease back, with the process that renews it ended, where this fails once it may have been taken,
        which an error does not tell. Enter it outside of the store's lock."""
        try:
            yield
        except (OpsError, OSError):
            if self._has_begun:
                with suppress(OpsError, OSError):  # the first error is the cause, and the lease ends by its time
                    self._release_own()
            raise

    def _release_own(self) -> None:
        self._sign.end_process()  # it would take the next owner for one that has taken the site from this run
        self._store.shorten_patience()  # the first error has been waited for
        with self._store.lock():
            held = self._store.read_lease()
            if held is not None and not held.released and held.owner.is_same_process(self._owner):
                self._store.release(held.token)

    def acquire(self, window_id: str, *, pipe: str | None) -> LeaseRecord:
        """Take the lease, once :meth:`may_begin` has said so, inside the same lock."""
        self._has_begun = True  # from now on a lease of this process is one that was taken here
        return self._store.acquire(self._owner, window_id, pipe=pipe)

    def may_begin(self, held: LeaseRecord | None) -> bool:
        """Return whether the lease may be taken now; call it inside the store's lock, and :meth:`wait` outside of it
        before it is asked again. Raise Refusal where waiting comes to nothing."""
        self._orphan = self._find_orphan(held)
        if self._orphan is not None:
            return False
        obstacle = find_obstacle(self._store, held, self._owner)
        if held is None or held.released or held.owner.check_liveness() != "unknown":
            if obstacle is not None:
                raise self._name_job(obstacle, held)
            return True
        renewed, ttl = self._store.read_last_renewal(), self._store.ttl
        is_renewed = self._watch.look(held.token, renewed)
        if self._watch.seconds >= ttl:
            self._store.watched = (held.token, renewed)
            return True
        needed = find_interval(ttl) * 4 / 3
        if obstacle is None and self._watch.seconds >= needed:
            return True
        if is_renewed and (self._request.mode != RESTORE or self._grace.passed):
            raise self._name_job(self._explain(held, renewed), held)
        self._announce(held, renewed, ttl if obstacle is not None else needed)
        return False

    def wait(self) -> None:
        """Wait before the next look. Raise Refusal for a process of the run before that does not end."""
        if self._orphan is None:
            self._sleep(POLL_INTERVAL)
            return
        seconds = self._deadline.remaining
        if seconds <= 0 or not wait_for_end(self._orphan.pid, seconds):
            raise Refusal(
                obj="a step of the run before",
                problem=f"{self._orphan.describe()} still runs after {self._request.orphan_timeout:.0f} s, "
                "though its controller ended",
                next_step="Let it end and run the window again, or raise window_orphan_timeout",
            )

    def _find_orphan(self, held: LeaseRecord | None) -> Orphan | None:
        """Return a process that the last owner, which ended without giving the lease back, left running here."""
        if held is None or held.released or held.owner.is_same_process(self._owner):
            return None
        if held.owner.check_liveness() != "dead":
            return None
        if (held.owner.boot, held.owner.namespace) != (read_boot_id(), read_pid_namespace()):
            return None
        left = find_orphans(
            mark=make_run_marker(self._store.location, held.token),
            pipe=held.pipe,
            ignore=frozenset({os.getpid(), self._owner.pid}),
        )
        return left[0] if left else None

    def _explain(self, held: LeaseRecord, renewed: float) -> Refusal:
        """Return the refusal of a run beside one that renews, also where its time seems to be over."""
        return Refusal(
            obj=f"site {self._store.location}",
            problem=f"{held.owner.describe()}, holds it with window {held.window_id} "
            f"(last renewed at {format_utc(renewed)})",
            next_step="Wait for its end, or stop that process and run this again",
        )

    def _announce(self, held: LeaseRecord, renewed: float, seconds: float) -> None:
        """Say once who is waited for, and for how long."""
        if self._is_told:
            return
        self._is_told = True
        obstacle = self._name_job(self._explain(held, renewed), held)
        words = f"{obstacle.obj}: {obstacle.problem}. Waiting: it is succeeded if it is not renewed for {seconds:.0f} s"
        if self._request.mode == RESTORE:
            words += f"; if it is renewed, this ends after {GRACE:.0f} s"
        self._tell(words)

    def _name_job(self, obstacle: Refusal, held: LeaseRecord | None) -> Refusal:
        """Return the refusal with the holder's job, which is what can be stopped in AWX."""
        job = {} if held is None or held.owner.is_same_process(self._owner) else self._find_job(held)
        if not job:
            return obstacle
        return Refusal(
            obj=obstacle.obj,
            problem=f"{obstacle.problem}; that run is {describe_job(job)}",
            next_step=f"Wait for its end, or cancel job {job['id']} in AWX, and run this again",
        )

    def _find_job(self, held: LeaseRecord) -> dict[str, str]:
        """Return what AWX said of the run that holds the lease, as its journal has it; empty where it says nothing."""
        try:
            events = self._store.load(self._store.make_name(held.window_id))
        except (OpsError, OSError):  # the refusal is true without it
            return {}
        opened = [event for event in events if isinstance(event, WindowOpened) and event.token == held.token]
        return opened[-1].job if opened else {}
