# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files of a host below folders: what is there, who has it open, and whether it is proven whole.

Private to lowtide.ops: do not import from other collections.
"""

from __future__ import annotations

import fnmatch
import hashlib
import os
import stat
import typing as t

from .._common.errors import OpsError, Refusal

CHUNK = 1 << 20


class File(t.NamedTuple):
    """A regular file. ``size`` is what it takes on the disk; ``device`` and ``inode`` tell it from another one."""

    path: str
    size: int
    modified: float
    device: int
    inode: int
    links: int

    @classmethod
    def from_status(cls, path: str, status: os.stat_result) -> File:
        """Return a file by what the system says of it."""
        size = status.st_blocks * 512
        return cls(path, size, status.st_mtime, status.st_dev, status.st_ino, status.st_nlink)


def check_folder(path: str) -> None:
    """Refuse what is no folder, and the folders of the system itself."""
    if not os.path.isabs(path) or os.path.normpath(path) != path.rstrip("/"):
        raise Refusal(
            obj="option path",
            problem=f"{path!r} is not an absolute path without '.' and '..'",
            next_step="Give the folder as it is, for example /var/backups/shop",
        )
    if path.count("/") < 2:
        raise Refusal(
            obj="option path",
            problem=f"{path!r} is a folder of the system",
            next_step="Name the folder of the service in it",
        )
    try:
        status = os.lstat(path)
    except OSError as error:
        raise Refusal(
            obj=path,
            problem=f"it cannot be looked at: {error.strerror}",
            next_step="Correct path, or run as an account that may read it",
        ) from None
    if not stat.S_ISDIR(status.st_mode):
        kind = "a symbolic link" if stat.S_ISLNK(status.st_mode) else "no folder"
        raise Refusal(obj=path, problem=f"it is {kind}", next_step="Name the folder itself in path")


def list_files(path: str, patterns: t.Sequence[str], *, recurse: bool) -> list[File]:
    """Return the regular files in a folder whose name is like one of ``patterns``, newest first; links are none."""
    device = os.lstat(path).st_dev
    files: list[File] = []
    pending = [path]
    while pending:
        folder = pending.pop()
        try:
            entries = list(os.scandir(folder))
        except OSError as error:
            raise OpsError(
                obj=folder,
                problem=f"it cannot be listed: {error.strerror}",
                next_step="Run as an account that may read it; nothing was removed",
            ) from None
        for entry in entries:
            try:
                status = entry.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue  # another process has removed it since
            if status.st_dev != device:
                continue
            if stat.S_ISDIR(status.st_mode):
                pending += [entry.path] if recurse else []
            elif stat.S_ISREG(status.st_mode) and any(fnmatch.fnmatchcase(entry.name, name) for name in patterns):
                files.append(File.from_status(entry.path, status))
    return sorted(files, key=lambda file: (-file.modified, file.path))


def find_open_files(root: str = "/proc") -> set[tuple[int, int]]:
    """Return device and inode of every file that a process has open, as far as this account may see that."""
    found: set[tuple[int, int]] = set()
    for pid in os.listdir(root):
        if not pid.isdigit():
            continue
        folder = os.path.join(root, pid, "fd")
        try:
            for name in os.listdir(folder):
                found.update(_identify(os.path.join(folder, name)))
        except OSError:
            continue  # it has ended, or it is another account's
    return found


def _identify(path: str) -> list[tuple[int, int]]:
    try:
        status = os.stat(path)
    except OSError:
        return []
    return [(status.st_dev, status.st_ino)] if stat.S_ISREG(status.st_mode) else []


def explain_unproven(file: File, suffix: str) -> str:
    """Return why a file is not proven whole by the SHA-256 that lies beside it, as sha256sum writes it; "" if it is."""
    beside = file.path + suffix
    try:
        with open(beside, encoding="utf-8", errors="replace") as stream:
            words = stream.readline().split()
    except FileNotFoundError:
        return f"{beside} is not there"
    except OSError as error:
        return f"{beside} cannot be read: {error.strerror}"
    expected = words[0].lstrip("\\").lower() if words else ""
    digest = hashlib.sha256()
    try:
        with open(file.path, "rb") as content:
            for chunk in iter(lambda: content.read(CHUNK), b""):
                digest.update(chunk)
    except OSError as error:
        return f"it cannot be read: {error.strerror}"
    if digest.hexdigest() == expected:
        return ""
    return "its SHA-256 is {}, and {} says {}".format(digest.hexdigest()[:16], beside, expected[:16] or "nothing")


def remove_file(file: File) -> str:
    """Remove a file if it is the one that was listed. Return "", or why it stays."""
    try:
        status = os.lstat(file.path)
        if File.from_status(file.path, status) != file:
            return "it was changed after it had been listed"
        os.unlink(file.path)
    except FileNotFoundError:
        return ""
    except OSError as error:
        return error.strerror or type(error).__name__
    return ""


def remove_beside(path: str) -> None:
    """Remove what lies beside a file that is gone, and is of no use without it."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        return
