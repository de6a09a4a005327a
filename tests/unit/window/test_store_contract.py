# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The contract of a store, fulfilled by a directory."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from ansible_collections.lowtide.ops.plugins.plugin_utils._window.store_file import FileStore
from support.store_contract import *  # noqa: F403 - the tests
from support.window_stores import make_file_store


class FileBackend:
    """A directory."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def connect(self) -> FileStore:
        """Return one more client."""
        return make_file_store(self._directory)

    connect_apart = connect

    def expire(self) -> None:
        """Give the lease a time stamp of the past."""
        store = self.connect()
        stamp = time.time() - store.ttl - 1
        os.utime(store.directory / "lease", (stamp, stamp))


@pytest.fixture
def backend(tmp_path: Path) -> FileBackend:
    """The directory of a test."""
    return FileBackend(tmp_path)
