# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The open window of this controller run, and its journal under the site's lock.

Private to lowtide.ops: do not import from other collections. A file in Ansible's own temporary directory of this run
says that a window is open, and where its journal is. That directory is made for each controller process and removed at
its end, so another run never sees it.
"""

from __future__ import annotations

import heapq
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from ansible_collections.lowtide.ops.plugins.module_utils._common.errors import OpsError

from .events import Event
from .processes import ENVIRONMENT_MARK
from .rules import WindowRules
from .state import WindowState, compute_state
from .store import Store
from .store_file import FileStore, write_atomically

CONTEXT_FILE = "lowtide_window.json"


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
    """The window that is open in this controller run. ``journal`` is its name in the store below ``directory``."""

    window: str
    window_id: str
    token: int
    journal: str
    directory: str
    control: str
    check_mode: bool
    version: str
    folder: str
    keep_days: int

    @property
    def store(self) -> FileStore:
        """Where lease, journal and reports are; in check mode a private copy of it."""
        return FileStore(Path(self.directory))

    @property
    def environment(self) -> dict[str, str]:
        """What the module processes of a step carry, so that one that outlives its controller is known by it."""
        return {ENVIRONMENT_MARK: make_run_marker(self.store, self.token)}

    def save(self) -> None:
        """Make the window known to every worker of this run."""
        write_atomically(Path(self.folder, CONTEXT_FILE), json.dumps(asdict(self)))

    @classmethod
    def load(cls, folder: str) -> OpenWindow | None:
        """Return the open window of this run; None when none was opened."""
        try:
            return cls(**json.loads(Path(folder, CONTEXT_FILE).read_text(encoding="utf-8")))
        except FileNotFoundError:
            return None

    @contextmanager
    def open_session(self) -> Iterator[Session]:
        """Hold the lock with the journal read. Raise LeaseLost when another run has taken over the site."""
        store = self.store
        with store.lock():
            if not self.check_mode:
                store.check(self.token)
            yield Session(self, store)


class Session:
    """The state of the open window as read under the lock, and the way to add to it."""

    def __init__(self, window: OpenWindow, store: Store) -> None:
        self.window = window
        self.store = store
        self._fallback = FileStore(Path(window.folder, "lowtide_window_fallback"))
        self.lost = self._fallback.load(window.journal)
        """Events that the journal could not take (disk full), so that this run still reverts what it started."""
        events = heapq.merge(
            store.load(window.journal), self.lost, key=lambda event: event.at
        )  # keeps each one's order
        self.state: WindowState = compute_state(events)

    @cached_property
    def rules(self) -> WindowRules:
        """The rules over the state, which they see as it changes."""
        return WindowRules(self.state)

    def append(self, event: Event, *, durable: bool = False) -> None:
        """Add an event of this run. ``durable``: nothing may be done that is not on record, so a journal that cannot be
        written raises OpsError; other events are then kept for this run only."""
        event = replace(event, token=self.window.token)
        try:
            written = self.store.append(self.window.journal, event)
        except OSError as error:
            if durable:
                raise OpsError(
                    obj=f"journal of {self.window.window_id} in {self.store.location}",
                    problem=f"it cannot be written ({error})",
                    next_step="Make room or set window_dir, then run the window again; "
                    "reverting steps run all the same",
                ) from error
            self._fallback.create()
            written = self._fallback.append(self.window.journal, event)
            self.lost.append(written)
        self.state.apply(written)


def make_run_marker(store: Store, token: int) -> str:
    """Return the value of the environment marker of a run."""
    return f"{store.location}#{token}"
