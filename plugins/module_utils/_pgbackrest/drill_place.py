# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The directory of a restore drill: whose it is, whether there is room, and what a killed drill has left in it.

Private to lowtide.ops: do not import from other collections.

Two locks, which the kernel gives back however a process ends: on the directory, for the drill itself; and on the mark
in it, which what the drill starts (pgBackRest, the server) inherits, so that nothing is removed under a running one.
"""

from __future__ import annotations

import fcntl
import os
import re
import secrets
import shutil
import signal
import typing as t
from pathlib import Path

from .._common.errors import OpsError, Refusal
from .._common.text import format_size

if t.TYPE_CHECKING:
    from .._common.retry import Deadline

MARK = ".lowtide-drill"
"""Names the folders below the directory that drills have made, by random names: nobody else's is taken for one."""
PARTS = ("data", "tablespaces", "run", "socket")
"""What a drill puts in its folder: PGDATA, tablespaces, settings and locks, and the server's socket."""
LONGEST_SOCKET = 107 - len("/drill-01234567/socket/.s.PGSQL.5432")
SPARE = 128 << 20
"""Bytes for WAL that is replayed, besides the files themselves and a tenth of them; a busy server's takes more."""
RESERVE = 10
"""What part of the file system a drill leaves free, but no more than its own size (or ``SPARE``): others may grow."""
_FOLDER = re.compile("drill-[0-9a-f]{8}")
END_SECONDS = 60.0


class DrillPlace:
    """The directory of drills. It is made where it is missing, and stays, empty."""

    def __init__(self, path: str) -> None:
        self.path = Path(path)
        self.folder = self.path / f"drill-{secrets.token_hex(4)}"
        self.data, self.tablespaces, self.run, self.socket = (self.folder / part for part in PARTS)
        self._title = f"option directory: {self.path}"
        self._reserve = 0
        self._own = -1
        self.mark = -1

    def list_left(self) -> list[Path]:
        """Return what drills have left: the folders that the mark names and that are there."""
        try:
            names = (self.path / MARK).read_text(encoding="utf-8").split()
            return [self.path / name for name in names if _FOLDER.fullmatch(name) and (self.path / name).is_dir()]
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            raise self._refuse_closed(error) from error

    def check(self) -> None:
        """Refuse a directory that is not for drills; nothing is changed."""
        try:
            self._check()
        except OSError as error:
            raise self._refuse_closed(error) from error

    def _check(self) -> None:
        title = self._title
        if len(os.fsencode(self.path)) > LONGEST_SOCKET:
            raise Refusal(
                obj=title,
                problem=f"its path has more than {LONGEST_SOCKET} bytes, and the server's socket is to be below it",
                next_step="Name one with a shorter path",
            )
        for folder in (self.path.resolve(), *self.path.resolve().parents):
            if (folder / "PG_VERSION").exists():
                raise Refusal(
                    obj=title,
                    problem=f"{folder} is the data directory of a PostgreSQL server",
                    next_step="Name a directory that is for drills only, outside of it",
                )
        if not self.path.exists():
            return
        if not self.path.is_dir() or self.path.is_symlink():
            raise Refusal(obj=title, problem="it is no directory", next_step="Name one that is for drills only")
        own = {MARK, *(folder.name for folder in self.list_left() if not folder.is_symlink())}
        foreign = sorted(entry.name for entry in self.path.iterdir() if entry.name not in own)
        if foreign:
            raise Refusal(
                obj=title,
                problem=f"it is not empty: it has {foreign[0]}, which no drill has put there",
                next_step="Name one that is for drills only. Nothing in this one was touched",
            )

    def check_room(self, size: int) -> None:
        """Refuse where the files of the backup would not fit; what a killed drill has left counts as free."""
        folder = next(folder for folder in (self.path, *self.path.parents) if folder.exists())
        usage = shutil.disk_usage(folder)
        self._reserve = min(max(size, SPARE), usage.total // RESERVE)
        needed = size + size // 10 + SPARE + self._reserve
        free = usage.free + _measure(self.path)
        if free < needed:
            raise Refusal(
                obj=self._title,
                problem=f"{format_size(free)} are free there, and the drill takes {format_size(needed)} with what is to"
                " stay free",
                next_step="Name a directory on a larger file system, or free space",
            )

    def is_in_use(self) -> bool:
        """Return whether a drill is running in it."""
        try:
            own = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        except OSError as error:
            raise self._refuse_closed(error) from error
        try:
            return not _try_lock(own)
        finally:
            os.close(own)

    def refuse_full(self) -> None:
        """Raise where what is to stay free for others is not any more.

        WAL that was replayed goes at a restartpoint, and one can be made only at a checkpoint of the original. So it is
        the original's max_wal_size that bounds it, which is not known before.
        """
        free = shutil.disk_usage(self.folder).free
        if free < self._reserve:
            raise OpsError(
                obj=f"directory {self.path}",
                problem=f"{format_size(free)} are free there, {format_size(self._reserve)} are to stay free, and WAL"
                f" that is replayed takes {format_size(_measure(self.data / 'pg_wal'))}",
                next_step="Name a directory on a larger file system, with room for max_wal_size of the original"
                " besides its files",
            )

    def open(self, deadline: Deadline) -> list[str]:
        """Take the directory, remove what drills have left, and make and mark a new folder; return what was left."""
        left = self.clear_left(deadline)
        try:
            # Noted before it is made: a drill that is killed in between leaves a name of nothing.
            os.ftruncate(self.mark, 0)
            os.pwrite(self.mark, f"{self.folder.name}\n".encode(), 0)
            os.fsync(self.mark)
            for folder in (self.folder, self.data, self.tablespaces, self.run, self.socket):
                folder.mkdir(mode=0o700)
        except OSError as error:
            raise self._refuse_closed(error) from error
        return left

    def clear_left(self, deadline: Deadline) -> list[str]:
        """Take the directory, end and remove what drills have left in it; return that.

        What cannot be removed stays in the mark, so that the next run knows it for a drill's.
        """
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._own = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        except OSError as error:
            raise self._refuse_closed(error) from error
        if not _try_lock(self._own):
            raise self._refuse_running("another drill is running in it", "Wait for its end")
        self.check()  # it may have changed since it was first looked at
        try:
            self.mark = os.open(self.path / MARK, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise self._refuse_closed(error) from error
        left = self.list_left()
        for folder in left:
            self._end_server(folder / PARTS[0], deadline)
        if not _try_lock(self.mark):
            raise self._refuse_running(
                "what a killed drill has started in it (pgbackrest restore) is still running",
                "Wait for its end, or end it",
            )
        self._clear(left)
        return [str(folder) for folder in left]

    def close(self) -> None:
        """Remove all that is the drill's, the mark last, and only where nothing is left that it names."""
        if self.mark >= 0:
            self._clear([self.folder] if self.folder.exists() else [])
            try:
                if not self.list_left():
                    (self.path / MARK).unlink(missing_ok=True)
            except OSError as error:
                raise self._explain_left(error) from error
            os.close(self.mark)
            self.mark = -1
        if self._own >= 0:
            os.close(self._own)
            self._own = -1

    def _clear(self, folders: t.Iterable[Path]) -> None:
        try:
            for folder in folders:
                shutil.rmtree(folder)
        except OSError as error:
            raise self._explain_left(error) from error

    def _explain_left(self, error: OSError) -> OpsError:
        return OpsError(
            obj=f"directory {self.path}",
            problem=f"what a drill has put there cannot be removed: {error.strerror} ({error.filename})",
            next_step="Remove it as the user who runs this task, or see why it cannot; the next run tries again",
        )

    def _refuse_closed(self, error: OSError) -> Refusal:
        return Refusal(
            obj=self._title,
            problem=f"this user cannot use it: {error.strerror}",
            next_step="Make it for the user who runs this task, who is the one of the server",
        )

    def _refuse_running(self, problem: str, step: str) -> Refusal:
        os.close(self._own)
        self._own = -1
        if self.mark >= 0:
            os.close(self.mark)
            self.mark = -1
        return Refusal(obj=f"directory {self.path}", problem=problem, next_step=f"{step}, and run again")

    def _end_server(self, data: Path, deadline: Deadline) -> None:
        """End the server that a killed drill has left, and wait until all of it is gone."""
        process = find_server(data)
        if process is None:
            return
        try:
            os.kill(process, signal.SIGQUIT)
        except ProcessLookupError:
            return
        except OSError as error:
            raise OpsError(
                obj=f"directory {self.path}",
                problem=f"the server that a killed drill has left on {data} cannot be ended: {error.strerror}",
                next_step="End it, and remove its folder, as the user who drilled then; the next run tries again",
            ) from error
        end = deadline.elapsed + END_SECONDS
        while not _try_lock(self.mark) and deadline.elapsed < end and not deadline.passed:
            deadline.pause(0.05)
        fcntl.flock(self.mark, fcntl.LOCK_UN)


def find_server(data: Path) -> int | None:
    """Return the process of the server on a data directory; None where there is none, whatever postmaster.pid says."""
    try:
        process = int((data / "postmaster.pid").read_text(encoding="utf-8").split("\n", 1)[0])
        is_ours = Path(f"/proc/{process}/cwd").resolve() == data.resolve()
    except (OSError, ValueError):
        return None
    return process if is_ours else None


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _measure(path: Path) -> int:
    """Return the bytes that the files below a directory take."""
    total = 0
    for folder, _folders, files in os.walk(path):
        for name in files:
            total += os.lstat(os.path.join(folder, name)).st_blocks * 512
    return total
