# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The open window of this controller run, and its journal under the site's lock.

Private to lowtide.ops: do not import from other collections. A file in Ansible's own temporary directory of this run
says that a window is open, and where its journal is. That directory is made for each controller process and removed at
its end, so another run never sees it. Credentials of a shared store are not in that file: each task brings them.

A server that keeps the store may not answer when a step begins or ends. What this run knows of the journal is in its
directory, too: a step that would change something is not begun then, and a reverting step goes on by that, as long as
the lease cannot have passed to somebody else.
"""

from __future__ import annotations

import heapq
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from ansible_collections.lowtide.ops.plugins.module_utils._common.errors import OpsError

from .events import Event
from .places import Place
from .processes import ENVIRONMENT_MARK
from .rules import WindowRules
from .state import WindowState, compute_state
from .store import Store
from .store_file import FileStore, make_slug, write_atomically

CONTEXT_FILE = "lowtide_window.json"
SHORT_PATIENCE = 2.0
"""Seconds for which a store is asked again that did not answer the last time."""
SIGN = "lowtide_window_renewed"
MARGIN = 5.0
"""Seconds before the end of a lease from which it counts as over for a run that cannot reach the store."""


@dataclass(frozen=True)
class Controller:
    """The ansible-playbook process: its ``pid``, its temporary ``folder`` and result queue (``pipe:[inode]``, None
    when unknown), whether it runs in check mode, the hosts of the group ``control``, the ``host`` of this task, and
    the options that leave parts of a playbook out."""

    pid: int
    folder: str
    pipe: str | None
    check_mode: bool
    control: list[str]
    host: str
    limits: dict[str, Any]


@dataclass(frozen=True)
class OpenWindow:
    """The window that is open in this controller run. ``journal`` is its name in the store at ``place``."""

    window: str
    window_id: str
    token: int
    journal: str
    control: str
    check_mode: bool
    version: str
    folder: str
    keep_days: int
    place: Place = field(repr=False)

    @property
    def store(self) -> Store:
        """Where lease, journal and reports are; in check mode a private copy of it."""
        return make_copy(self.folder) if self.check_mode else self.place.connect(self.folder)

    @property
    def sign(self) -> Path:
        """The file whose time is that of the last renewal of the lease, by this machine's clock."""
        return Path(self.folder, SIGN)

    @property
    def environment(self) -> dict[str, str]:
        """What the module processes of a step carry, so that one that outlives its controller is known by it."""
        return {ENVIRONMENT_MARK: make_run_marker(self.store, self.token)}

    def save(self) -> None:
        """Make the window known to every worker of this run."""
        kept = asdict(replace(self, place=replace(self.place, shared={})))
        write_atomically(Path(self.folder, CONTEXT_FILE), json.dumps(kept))

    @classmethod
    def load(cls, folder: str, *, shared: Mapping[str, Any] | None = None) -> OpenWindow | None:
        """Return the open window of this run; None when none was opened. ``shared`` is the option window_store."""
        try:
            values = json.loads(Path(folder, CONTEXT_FILE).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        place = Place(values["place"]["site"], values["place"]["directory"], shared or {})
        return cls(**{**values, "place": place})

    @contextmanager
    def open_session(self) -> Iterator[Session]:
        """Hold the lock with the journal read. Raise LeaseLost when another run has taken over the site.

        Where the store does not answer, the session is of what this run knows, and keeps what is appended. Raise
        OpsError when the lease may have passed to another run meanwhile.
        """
        store, silent = self.store, Path(self.folder, "lowtide_window_silent")
        if silent.exists():  # waited for already; what is to be reverted has only the time of the lease
            store.patience = min(store.patience, SHORT_PATIENCE)
        with ExitStack() as stack:
            try:
                stack.enter_context(store.lock())
                events = store.load(self.journal)
                if not self.check_mode:
                    # After the journal was read: what another owner has written since is not what was read.
                    store.check(self.token)
                session = Session(self, store, events)
                silent.unlink(missing_ok=True)
            except OSError as error:
                silent.touch()
                self._require_lease(store, error)
                session = Session(self, store, self.known.load(self.local_name), error=error)
            else:
                self._keep_lease(session)
                session.keep()
            yield session

    @property
    def local_name(self) -> str:
        """The journal's name in this run's own directory."""
        return make_slug(self.window_id)

    @property
    def known(self) -> FileStore:
        """What this run has read of its journal."""
        return FileStore(Path(self.folder, "lowtide_window_known"))

    def _measure_age(self, store: Store) -> float:
        """Return the seconds since the lease was renewed; its whole time where that is not known."""
        try:
            return time.time() - self.sign.stat().st_mtime
        except FileNotFoundError:
            return store.ttl

    def _keep_lease(self, session: Session) -> None:
        """Renew the lease where its process has not for long: it was killed, or cannot connect as this one can.

        That it cannot be renewed (a disk that became read-only) is a warning: it was just read that it is held.
        """
        age = self._measure_age(session.store)
        if self.check_mode or age <= session.store.ttl / 2:
            return
        try:
            session.store.renew(self.token)
        except OSError as error:
            session.warnings.append(f"the lease of the site was not renewed for {age:.0f} s ({error})")
        else:
            self.sign.touch()

    def _require_lease(self, store: Store, error: OSError) -> None:
        """Raise OpsError when the lease was not renewed for so long that it may be another run's."""
        age = self._measure_age(store)
        if age >= store.ttl - MARGIN:
            raise OpsError(
                obj=f"site {store.location}",
                problem=f"it cannot be reached ({error}), and its lease was not renewed for {age:.0f} s, so that "
                "another run may hold it",
                next_step="Bring it back, then run the window again, or restore_service",
            ) from error


def make_copy(folder: str) -> FileStore:
    """Return the private store of a run in check mode."""
    return FileStore(Path(folder, "lowtide_window_check"))


class Session:
    """The state of the open window as read under the lock, and the way to add to it. ``error`` says why the store could
    not be reached, if it could not."""

    def __init__(
        self, window: OpenWindow, store: Store, journal: Sequence[Event], *, error: OSError | None = None
    ) -> None:
        self.window = window
        self.store = store
        self._error = error
        self._journal = journal
        self.warnings: list[str] = []
        self._fallback = FileStore(Path(window.folder, "lowtide_window_fallback"))
        self.lost = self._fallback.load(window.local_name)
        """Events that the journal could not take, so that this run still reverts what it started."""
        events = heapq.merge(journal, self.lost, key=lambda event: event.at)  # keeps each one's order
        self.state: WindowState = compute_state(events)

    def keep(self) -> None:
        """Keep what was read for a time when the store does not answer."""
        self.window.known.create()
        self.window.known.copy(self.window.local_name, self._journal)

    @cached_property
    def rules(self) -> WindowRules:
        """The rules over the state, which they see as it changes."""
        return WindowRules(self.state)

    def read_clock(self) -> float:
        """Return the store's time; this machine's where it cannot be reached."""
        return time.time() if self._error is not None else self.store.read_clock()

    def append(self, event: Event, *, durable: bool = False) -> None:
        """Add an event of this run. ``durable``: nothing may be done that is not on record, so a journal that cannot be
        written raises OpsError; other events are then kept for this run only."""
        event = replace(event, token=self.window.token)
        try:
            if self._error is not None:
                raise self._error
            written = self.store.append(self.window.journal, event)
        except OSError as error:
            if durable:
                raise OpsError(
                    obj=f"journal of {self.window.window_id} in {self.store.location}",
                    problem=f"it cannot be written ({error})",
                    next_step="Make room there, or bring its server back, then run the window again; "
                    "reverting steps run all the same",
                ) from error
            self._fallback.create()
            written = self._fallback.append(self.window.local_name, event)
            self.lost.append(written)
        self.state.apply(written)


def make_run_marker(store: Store, token: int) -> str:
    """Return the value of the environment marker of a run."""
    return f"{store.location}#{token}"
