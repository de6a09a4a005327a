# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The store in a directory of the controller, or of a file system that controllers share.

Private to lowtide.ops: do not import from other collections. Below the directory: ``lease``, ``lease.lock``,
``journals/WINDOW@START.jsonl`` and ``reports/WINDOW@START.TOKEN.html`` (and .json). New files and directories take the
group permissions of the directory, so that several users can share one: ``install -d -m 2770 -g operators DIRECTORY``.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from .events import Event
from .files import apply_group_access, find_shared_bits, sync_directory, write_atomically
from .journal import Lines, decode_last_line, decode_lines, encode_line
from .lease import TTL, LeaseRecord
from .processes import Owner
from .store import Store, explain_holder, find_obstacle

JOURNAL = ".jsonl"
TAIL = 65536
"""Bytes at the end of a journal in which its last line is looked for."""


def make_readable(name: str) -> str:
    """Return the part of a file name that people read: what begins alike, begins alike here."""
    return re.sub(r"[^A-Za-z0-9._:@-]+", "-", name).strip("-.")[:80]


def make_slug(name: str) -> str:
    """Return a file name for any text: readable, and different for different texts."""
    plain = make_readable(name)
    return plain if plain == name else f"{plain}-{sha256(name.encode()).hexdigest()[:8]}"


class FileStore(Store):
    """The store in ``directory``. ``clock`` gives the times of events; expiry is judged by the file system's clock."""

    def __init__(self, directory: Path, *, ttl: float = TTL, clock: Callable[[], float] = time.time) -> None:
        self.directory = directory
        self.ttl = ttl
        self._clock = clock
        self._ends: dict[str, tuple[int, int]] = {}
        """Bytes and events of journals as this process read or wrote them last."""

    @classmethod
    def from_site(cls, directory: str, site: str) -> FileStore:
        """Return the store of ``site`` below ``directory`` (window_dir and window_site)."""
        return cls(Path(os.path.expanduser(directory)).absolute() / make_slug(site or "default"))

    @property
    def location(self) -> str:
        """The directory."""
        return str(self.directory)

    def describe_place(self) -> dict[str, Any]:
        """Return the directory."""
        return {"kind": "file", "directory": str(self.directory), "ttl": self.ttl}

    def read_clock(self) -> float:
        """Return the controller's time, which the events have as well."""
        return self._clock()

    @property
    def _lease(self) -> Path:
        return self.directory / "lease"

    def _find_journal(self, name: str) -> Path:
        return self.directory / "journals" / f"{name}{JOURNAL}"

    def create(self) -> None:
        """Create the directories that are missing, with the permissions of the one above; private when that is not
        shared."""
        missing = [path for path in (self.directory, *self.directory.parents) if not path.exists()]
        for path in (*reversed(missing), self.directory / "journals", self.directory / "reports"):
            if not path.exists():
                path.mkdir(mode=0o700, exist_ok=True)
                os.chmod(path, 0o700 | find_shared_bits(path.parent, is_directory=True))

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold an flock, which the kernel releases with the process."""
        descriptor = _open_lock(self.directory / "lease.lock")
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    # -- the lease ------------------------------------------------------------------------------------------------

    def read_lease(self) -> LeaseRecord | None:
        """Read the file ``lease``."""
        try:
            data = self._lease.read_bytes()
        except FileNotFoundError:
            return None
        return LeaseRecord.from_json(data, source=str(self._lease))

    def read_last_renewal(self) -> float:
        """Return the file's time stamp, which its server sets."""
        return self._lease.stat().st_mtime

    def is_expired(self) -> bool:
        """Compare the time stamp of the lease with one that the same file system sets now."""
        with tempfile.TemporaryFile(dir=self.directory) as probe:
            os.utime(probe.fileno())
            now = os.fstat(probe.fileno()).st_mtime
        return now >= self.read_last_renewal() + self.ttl

    def acquire(self, owner: Owner, window_id: str, *, pipe: str | None = None) -> LeaseRecord:
        """Replace the file ``lease``."""
        held = self.read_lease()
        obstacle = find_obstacle(self, held, owner)
        if obstacle is not None:
            raise obstacle
        last = max([held.token if held else 0, *(self._find_last_token(name) for name in self._list_unleased(held))])
        record = LeaseRecord(last + 1, owner, window_id, pipe=pipe)
        self._write_lease(record)
        return record

    def _list_unleased(self, held: LeaseRecord | None) -> list[str]:
        """Journals to be looked at for the last token: only where the lease is gone."""
        return [] if held else self.list_occurrences()

    def _find_last_token(self, name: str) -> int:
        """Look at every line that can be read: a damaged journal must not keep others from the site."""
        lines = self._find_journal(name).read_bytes().split(b"\n")
        return max((event.token for line in lines if (event := decode_last_line(line))), default=0)

    def check(self, token: int) -> None:
        """Read the file ``lease``."""
        held = self.read_lease()
        if held is None or held.token != token or held.released:
            raise explain_holder(str(self._lease), token, held)

    def release(self, token: int) -> None:
        """Mark the file ``lease``."""
        self.check(token)
        held = self.read_lease()
        if held is not None:
            self._write_lease(replace(held, released=True))

    def renew(self, token: int) -> None:
        """Move the time stamp of the file ``lease``, which its server sets."""
        self.check(token)
        os.utime(self._lease)

    def _write_lease(self, record: LeaseRecord) -> None:
        write_atomically(self._lease, json.dumps(record.as_dict()))

    # -- journals and reports -------------------------------------------------------------------------------------

    def list_occurrences(self) -> list[str]:
        """List the directory ``journals``."""
        try:
            names = os.listdir(self.directory / "journals")
        except FileNotFoundError:
            return []
        return [name.removesuffix(JOURNAL) for name in sorted(names) if name.endswith(JOURNAL)]

    def make_name(self, window_id: str) -> str:
        """Return the file's name without its suffix."""
        return make_slug(window_id)

    def load(self, name: str) -> list[Event]:
        """Read the whole file."""
        return self._read(name).events

    def _read(self, name: str) -> Lines:
        path = self._find_journal(name)
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            data = b""
        lines = decode_lines(data, source=str(path))
        self._ends[name] = (lines.size, len(lines.events))
        return lines

    def read_last_event(self, name: str) -> Event | None:
        """Read the end of the file."""
        try:
            with self._find_journal(name).open("rb") as file:
                size = file.seek(0, os.SEEK_END)
                file.seek(max(0, size - TAIL))
                data = file.read()
                if size > TAIL and data.count(b"\n") == 1:  # the last line is longer than that
                    file.seek(0)
                    data = file.read()
                lines = data.split(b"\n")[:-1]
        except FileNotFoundError:
            return None
        return decode_last_line(lines[-1]) if lines else None

    def count_lines(self, name: str) -> int:
        """Return how many lines a journal has, whatever is in them."""
        try:
            return self._find_journal(name).read_bytes().count(b"\n")
        except FileNotFoundError:
            return 0

    def copy(self, name: str, events: Sequence[Event]) -> None:
        """Write a journal whole, as another store has it (for check mode)."""
        lines = [encode_line(event, number) for number, event in enumerate(events, start=1)]
        path = self._find_journal(name)
        path.with_name(f".{path.name}").write_bytes(b"".join(lines))
        path.with_name(f".{path.name}").replace(path)

    def _find_end(self, name: str, path: Path) -> tuple[int, int]:
        """Where the next event belongs. Lines are only ever added: a file as long as it was holds what it held."""
        known = self._ends.get(name)
        if known is None or not path.exists() or path.stat().st_size != known[0]:
            self._read(name)
        return self._ends[name]

    def append(self, name: str, event: Event) -> Event:
        """Write one line and sync it; a cut-off line before it is removed."""
        path = self._find_journal(name)
        size, count = self._find_end(name, path)
        event = replace(event, at=round(self._clock(), 3))
        line = encode_line(event, count + 1)
        created = not path.exists()
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.ftruncate(descriptor, size)
            os.lseek(descriptor, 0, os.SEEK_END)
            left = line
            while left:  # what a full disk cuts off has no newline, and so never happened
                left = left[os.write(descriptor, left) :]
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        if created:
            apply_group_access(path)
            sync_directory(path.parent)
        self._ends[name] = (size + len(line), count + 1)
        return event

    def write_report(self, name: str, token: int, contents: dict[str, str]) -> str:
        """Write one file for each suffix."""
        paths = {suffix: self.directory / "reports" / f"{name}.{token}{suffix}" for suffix in contents}
        for suffix, text in contents.items():
            write_atomically(paths[suffix], text)
        return str(next(iter(paths.values())))

    def remove(self, names: Sequence[str]) -> None:
        """Remove the reports first: a journal without reports is removed by the next run."""
        for name in names:
            pattern = re.compile(re.escape(name) + r"\.\d+\.(html|json)")
            for path in (self.directory / "reports").iterdir():
                if pattern.fullmatch(path.name):
                    path.unlink()
            self._find_journal(name).unlink(missing_ok=True)


def _open_lock(path: Path) -> int:
    """Open the file, which anybody who may write there can create. On a file system that became read-only it can still
    be locked: what is in force must be reverted there too."""
    created = not path.exists()
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        if error.errno != errno.EROFS:
            raise
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    if created:
        apply_group_access(path)
    return descriptor
