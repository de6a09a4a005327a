# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files that are whole or not there, and shared with a group where their directory is.

Private to lowtide.ops: do not import from other collections.
"""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path


def write_atomically(path: Path, text: str, *, is_durable: bool = True) -> None:
    """Replace the file as a whole, with the group permissions of its directory.

    ``is_durable``: it survives a power cut, which what a run keeps for itself need not.
    """
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as handle:
            handle.write(text)
            if is_durable:
                handle.flush()
                os.fsync(handle.fileno())
        apply_group_access(Path(temporary))
        os.replace(temporary, path)
    except OSError:
        os.unlink(temporary)
        raise
    if is_durable:
        sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """Make a name created in the directory survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def find_shared_bits(parent: Path, *, is_directory: bool = False) -> int:
    """Return the group bits that something new in the directory ``parent`` gets: none unless its group may write
    there."""
    mode = parent.stat().st_mode
    if not mode & stat.S_IWGRP or mode & stat.S_IWOTH:
        return 0
    return 0o2070 if is_directory else 0o060


def apply_group_access(path: Path) -> None:
    """Give a file the group permissions of its directory."""
    os.chmod(path, 0o600 | find_shared_bits(path.parent))
