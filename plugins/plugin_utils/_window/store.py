# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where a site's lease, journals and reports are kept: the contract that every backend fulfils.

Private to lowtide.ops: do not import from other collections. ``tests/support/store_contract.py`` is the contract as
tests; it runs over every backend.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from ansible_collections.lowtide.ops.plugins.module_utils._common.errors import Refusal
from ansible_collections.lowtide.ops.plugins.module_utils._common.timestamps import format_utc

from .events import Event
from .lease import LeaseLost, LeaseRecord, find_interval, make_run_marker
from .processes import Owner
from .renewal import Sign

PATIENCE = 30.0
"""Seconds for which a server that does not answer is asked again before a method raises OSError; the usual value."""
SHORT_PATIENCE = 2.0
"""The same for a server that did not answer the last time."""


class StoreUnreachable(OSError):
    """The server that keeps a store does not answer in time, or refuses: no right, no room, read only.

    Either way nothing can be recorded now, which a run that is under way has to go on with.
    """


class LeaseForgotten(StoreUnreachable):
    """The store answers that nobody holds the lease of this run any more, and that no later run had it: it has lost
    what was written last (a failover, a copy that was restored), or somebody has removed it. A lease that is on record
    then was given back, or its process has ended, or its time is over."""


class LeaseOutdated(StoreUnreachable):
    """The store has a lease of an earlier token, which is held. It may be one that was over before that of this run,
    and came back with a copy, or that of a run that began on a server whose clock is behind: see :class:`.renewer`."""


class JournalLost(StoreUnreachable):
    """The store answers with a journal that has lost events which this run had read or written, so that they cannot be
    added to it any more. The lease is this run's."""


class Store(ABC):
    """The lease, the journals (one for each occurrence) and the reports of one site.

    Every method may raise OSError when the place cannot be reached or written, at the latest some seconds after its
    ``patience``. Whether something was written is not known then: an event of which the answer was lost may come back
    from :meth:`load`. ``ttl`` is for how many seconds a lease that nobody renews is held.
    """

    ttl: float
    patience: float = PATIENCE
    """For how many seconds a server that does not answer is asked again."""
    watched: tuple[int, float] | None = None
    """Token and last renewal of a lease that this process has seen unrenewed for its whole time, whatever that time
    stamp says."""

    def shorten_patience(self, seconds: float = SHORT_PATIENCE) -> None:
        """Ask for so many seconds at most from now on."""
        self.patience = min(self.patience, seconds)

    @property
    @abstractmethod
    def location(self) -> str:
        """Where it is, for people; holds no secret."""

    @abstractmethod
    def describe_place(self) -> dict[str, Any]:
        """Return what another process needs to find it: the arguments of :func:`.places.connect`, secrets included."""

    @abstractmethod
    def create(self) -> None:
        """Make what is missing of the place itself. Raise Refusal where that is somebody else's to do."""

    def is_new(self) -> bool:
        """Return whether :meth:`create` has still to make the place, so that there is nothing to be read."""
        return False

    @abstractmethod
    def read_clock(self) -> float:
        """Return the time by which the site's windows begin and end, in seconds since the epoch: the backend's where
        it has a clock of its own."""

    @abstractmethod
    def lock(self) -> AbstractContextManager[None]:
        """Return a context in which what is read is still true when it is written: no other process is inside
        :meth:`lock` of this site, or the backend refuses what one of them writes (:class:`.lease.LeaseLost`).

        It ends with the process that holds it, however that ends. Held for milliseconds.
        """

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Ask many questions inside, for which a backend may keep one connection. What is read may change meanwhile."""
        yield

    # -- the lease ------------------------------------------------------------------------------------------------

    @abstractmethod
    def read_lease(self) -> LeaseRecord | None:
        """Return who holds or last held the lease; None when nobody ever did. Raise Refusal when it cannot be read."""

    @abstractmethod
    def is_expired(self) -> bool:
        """Return whether the lease was not renewed for its whole time, judged by the backend's clock, never by a
        holder's."""

    @abstractmethod
    def read_last_renewal(self) -> float:
        """Return when the lease was last written or renewed, by the backend's clock (seconds since the epoch)."""

    @abstractmethod
    def acquire(self, owner: Owner, window_id: str, *, pipe: str | None = None) -> LeaseRecord:
        """Make ``owner`` the holder and return the record, whose token is higher than any before, also than those of
        journals whose lease was removed.

        Atomic (call it inside :meth:`lock`): it writes only if :func:`find_obstacle` finds none, and raises Refusal
        otherwise.
        """

    @abstractmethod
    def check(self, token: int) -> None:
        """Raise unless ``token`` holds the lease (:func:`explain_holder`). Call it inside :meth:`lock`, before each
        write."""

    @abstractmethod
    def release(self, token: int) -> None:
        """Give the lease back. The token stays on record. Raise where it is not held (:func:`explain_holder`). Call it
        inside :meth:`lock`."""

    @abstractmethod
    def renew(self, token: int) -> None:
        """Say that ``token`` still holds the lease, so that its time begins anew. Raise where it does not
        (:func:`explain_holder`)."""

    def start_renewer(self, record: LeaseRecord, *, sign: Path | None = None) -> int:
        """Start the process that renews the lease for as long as the owner's process lives and holds it, and ends that
        one where the lease is another's; return its pid. ``sign`` is the file of a :class:`.renewal.Sign`, whose
        process this one replaces."""
        if sign is not None:
            Sign(sign).end_process()  # nobody would end the first of two
        owner = record.owner
        work = {
            "place": self.describe_place(),
            "token": record.token,
            "pid": owner.pid,
            "started": owner.started,
            "interval": find_interval(self.ttl),
            "sign": None if sign is None else str(sign),
            "mark": make_run_marker(self.location, record.token),
            "pipe": record.pipe,
        }
        # Isolated, so that no file beside it is taken for a library; what this process imports, that one finds as well.
        own = Path(__file__)
        root = str(own.parents[len(__name__.split(".")) - 1])
        with tempfile.TemporaryFile() as order:  # nobody else can open it
            order.write(json.dumps({**work, "path": [root, *sys.path]}).encode())
            order.seek(0)
            process = subprocess.Popen(
                [sys.executable, "-I", str(own.with_name("renewer.py"))],
                stdin=order,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        if sign is not None:
            Sign(sign).record_process(process.pid)
        return process.pid

    # -- journals and reports -------------------------------------------------------------------------------------

    @abstractmethod
    def list_occurrences(self) -> list[str]:
        """Return the names of all journals of the site, in no particular order. A name is what :meth:`load` takes."""

    @abstractmethod
    def make_name(self, window_id: str) -> str:
        """Return the journal's name for an occurrence."""

    @abstractmethod
    def load(self, name: str) -> list[Event]:
        """Return the events of a journal in order, [] when there is none. Raise JournalDamaged when it cannot be
        trusted."""

    @abstractmethod
    def read_last_event(self, name: str) -> Event | None:
        """Return the last event of a journal without reading the rest; None when there is none or it is damaged."""

    @abstractmethod
    def append(self, name: str, event: Event) -> Event:
        """Add one event of the lease's holder, whose token it has, and return it as written, with its time.

        Durable when it returns; an event that was cut off by a crash is as if it had never been written. Where the
        backend can tell, LeaseLost for an event of a token that does not hold the lease. Call it inside :meth:`lock`.
        """

    @abstractmethod
    def write_report(self, name: str, token: int, contents: dict[str, str]) -> str:
        """Write the report of a run, one text for each suffix, each whole or not at all; return where the first one
        is."""

    @abstractmethod
    def remove(self, names: Sequence[str]) -> None:
        """Remove journals with their reports. Call it inside :meth:`lock`."""


def explain_holder(source: str, token: int, held: LeaseRecord | None) -> LeaseLost | StoreUnreachable:
    """Return the error of a run that holds the lease with ``token``, where ``held`` is what is on record now.

    Tokens rise, so that no lease, or one of a token before that was given back or whose process has ended, is no other
    owner's.
    """
    liveness = "dead" if held is None or held.released else held.owner.check_liveness()
    if held is None or (held.token < token and liveness == "dead"):
        known = "no lease" if held is None else f"that of token {held.token}, which is over"
        return LeaseForgotten(
            f"lease {source}: this run holds it with token {token}, and the store has {known}: it has lost what was "
            "written last, or somebody has removed it"
        )
    if held.token < token and liveness == "unknown":
        return LeaseOutdated(
            f"lease {source}: this run holds it with token {token}, and the store has that of token {held.token}: it "
            "has lost what was written last"
        )
    return make_loss(source, token, held)


def make_loss(source: str, token: int, held: LeaseRecord) -> LeaseLost:
    """Return the error of a run that held the lease with ``token``, which is another's now."""
    return LeaseLost(
        obj=f"lease {source}",
        problem=f"this run held it with token {token}, and now {held.owner.describe()} does (token {held.token})",
        next_step="Leave the site to that run; this one writes no more",
    )


def find_obstacle(store: Store, held: LeaseRecord | None, owner: Owner) -> Refusal | None:
    """Return why ``owner`` may not succeed the holder now; None when it may.

    A holder that provably ended is succeeded at once, one that provably lives never; any other one when the lease
    expired.
    """
    if held is None or held.released:
        return None
    if held.owner.is_same_process(owner):
        return Refusal(
            obj=f"window {held.window_id}",
            problem="it is already open in this run",
            next_step="Open a window once for each ansible-playbook run, and close it in its last play",
        )
    liveness = held.owner.check_liveness()
    if liveness == "dead" or (liveness == "unknown" and (_is_as_watched(store, held) or store.is_expired())):
        return None
    why = "that process lives" if liveness == "alive" else f"last renewed at {format_utc(store.read_last_renewal())}"
    return Refusal(
        obj=f"site {store.location}",
        problem=f"{held.owner.describe()}, holds it with window {held.window_id} ({why})",
        next_step="Wait for its end, or stop that process and run this again",
    )


def _is_as_watched(store: Store, held: LeaseRecord) -> bool:
    """Return whether the lease is still as it was watched: its holder may have come back since the last look."""
    return store.watched is not None and store.watched == (held.token, store.read_last_renewal())
