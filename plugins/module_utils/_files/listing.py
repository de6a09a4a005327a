# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files of a host below folders: what is there, who has it open, and whether it is proven whole.

Private to lowtide.ops: do not import from other collections.
"""

from __future__ import annotations

import contextlib
import fnmatch
import hashlib
import os
import stat
import typing as t

from .._common.errors import OpsError, Refusal

CHUNK = 1 << 20
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_CONTENT = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class File(t.NamedTuple):
    """A regular file. ``size`` is what it takes on the disk; ``device`` and ``inode`` tell it from another one.

    ``is_empty``: it has no content, however much it takes.
    """

    path: str
    size: int
    modified: float
    device: int
    inode: int
    links: int
    is_empty: bool = False

    @classmethod
    def from_status(cls, path: str, status: os.stat_result) -> File:
        """Return a file by what the system says of it."""
        size = status.st_blocks * 512
        return cls(path, size, status.st_mtime, status.st_dev, status.st_ino, status.st_nlink, status.st_size == 0)


def check_folder(path: str) -> None:
    """Refuse what is no folder, and the folders of the system itself."""
    if not os.path.isabs(path) or os.path.normpath(path) != path.rstrip("/"):
        raise Refusal(
            obj="option path",
            problem=f"{path!r} is not an absolute path without '.' and '..'",
            next_step="Give the folder as it is, for example /var/backups/shop",
        )
    if path.count("/") < 2 or path.startswith("//"):
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
    if os.path.realpath(path) != path:
        raise Refusal(
            obj=path,
            problem=f"a symbolic link leads to it: it is {os.path.realpath(path)}",
            next_step="Name the folder itself in path, so that nobody can turn it elsewhere while this runs",
        )


@contextlib.contextmanager
def open_folder(path: str) -> t.Iterator[int]:
    """Yield a descriptor of a folder. A symbolic link in any part of its path, now or by a swap, is an OSError."""
    descriptor = os.open("/", _FOLDER)
    try:
        for name in path.strip("/").split("/"):
            below = os.open(name, _FOLDER, dir_fd=descriptor)
            os.close(descriptor)
            descriptor = below
        yield descriptor
    finally:
        os.close(descriptor)


def list_files(path: str, patterns: t.Sequence[str], *, recurse: bool) -> list[File]:
    """Return the regular files in a folder whose name is like one of ``patterns``, newest first; links are none."""
    device = os.lstat(path).st_dev
    files: list[File] = []
    pending = [path]
    while pending:
        folder = pending.pop()
        try:
            with open_folder(folder) as descriptor:
                if os.fstat(descriptor).st_dev != device:
                    continue
                names = os.listdir(descriptor)
                statuses = [(name, status) for name in names if (status := _read_status(name, descriptor)) is not None]
        except OSError as error:
            raise OpsError(
                obj=folder,
                problem=f"it cannot be listed: {error.strerror}",
                next_step="Run as an account that may read it, and see who replaces it meanwhile; nothing was removed",
            ) from None
        for name, status in statuses:
            if status.st_dev != device:
                continue
            if stat.S_ISDIR(status.st_mode):
                pending += [os.path.join(folder, name)] if recurse else []
            elif stat.S_ISREG(status.st_mode) and any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns):
                files.append(File.from_status(os.path.join(folder, name), status))
    return sorted(files, key=lambda file: (-file.modified, file.path))


def _read_status(name: str, folder: int) -> os.stat_result | None:
    """Return what the system says of a name in a folder; None where another process has removed it since."""
    try:
        return os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return None


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
        with _open_regular(beside) as stream:
            words = stream.readline(CHUNK).decode("utf-8", "replace").split()
    except FileNotFoundError:
        return f"{beside} is not there"
    except OSError as error:
        return f"{beside} cannot be read: {error.strerror}"
    expected = words[0].lstrip("\\").lower() if words else ""
    digest = hashlib.sha256()
    try:
        with _open_regular(file.path) as content:
            for chunk in iter(lambda: content.read(CHUNK), b""):
                digest.update(chunk)
    except OSError as error:
        return f"it cannot be read: {error.strerror}"
    if digest.hexdigest() == expected:
        return ""
    return "its SHA-256 is {}, and {} says {}".format(digest.hexdigest()[:16], beside, expected[:16] or "nothing")


@contextlib.contextmanager
def _open_regular(path: str) -> t.Iterator[t.BinaryIO]:
    """Yield the content of a regular file that no symbolic link leads to."""
    folder, name = os.path.split(path)
    with open_folder(folder) as descriptor:
        content = os.open(name, _CONTENT, dir_fd=descriptor)
    with open(content, "rb") as stream:
        if not stat.S_ISREG(os.fstat(content).st_mode):
            raise OSError(0, "it is no regular file")
        yield stream


def remove_file(file: File, suffix: str = "") -> str:
    """Remove a file if it is the one that was listed, and then what is beside it. Return "", or why something stays.

    Killed in between, a checksum is left without its file: it is an orphan, which goes by its own age.
    """
    folder, name = os.path.split(file.path)
    try:
        with open_folder(folder) as descriptor:
            status = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
            if File.from_status(file.path, status) != file:
                return "it was changed after it had been listed"
            os.unlink(name, dir_fd=descriptor)
            if suffix:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(name + suffix, dir_fd=descriptor)
    except FileNotFoundError:
        return ""
    except OSError as error:
        return error.strerror or type(error).__name__
    return ""
