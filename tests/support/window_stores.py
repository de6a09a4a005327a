# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Stores, owners and processes for the tests of the window's stores."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ansible_collections.lowtide.ops.plugins.plugin_utils._window.events import Event
from ansible_collections.lowtide.ops.plugins.plugin_utils._window.lease import LeaseRecord
from ansible_collections.lowtide.ops.plugins.plugin_utils._window.processes import Owner
from ansible_collections.lowtide.ops.plugins.plugin_utils._window.store import Store
from ansible_collections.lowtide.ops.plugins.plugin_utils._window.store_file import FileStore

NAME = "weekly@monday"
"""The journal that tests write to."""


def make_file_store(directory: Path) -> FileStore:
    """Return the store of a site, with its directories."""
    store = FileStore(directory / "site")
    store.create()
    return store


def take(store: Store, owner: Owner, window_id: str = NAME) -> LeaseRecord:
    """Acquire the lease as a run does."""
    with store.lock():
        return store.acquire(owner, window_id)


def me() -> Owner:
    """This process."""
    return Owner.from_pid(os.getpid())


def dead() -> Owner:
    """A process that ended."""
    return replace(me(), started=me().started - 1)


def append(store: Store, event: Event, name: str = NAME) -> Event:
    """Append under the lock, as the holder of the lease: this process where nobody has it."""
    with store.lock():
        held = store.read_lease()
        if held is None or held.released:
            held = store.acquire(me(), name)
        return store.append(name, replace(event, token=held.token))


def start_process(*arguments: str, env: Mapping[str, str] | None = None, **options: Any) -> subprocess.Popen[bytes]:
    """Return a process that lives until it is killed, once it is up."""
    code = "import signal; print('up', flush=True); signal.pause()"
    process = subprocess.Popen(
        [sys.executable, "-S", "-c", code, *arguments], stdout=subprocess.PIPE, env=env, **options
    )
    assert process.stdout is not None
    process.stdout.readline()
    return process
