# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lease of a window in a local file. Private to lowtide.ops: do not import from other collections.

The contract, for every backend: at most one owner; ``acquire`` either holds or refuses and says who and since when; each
owner gets a fencing token higher than any before; expiry is judged by the server's time, here that of the file system (a
file's time stamp set by the kernel or file server against another one set now), never by a holder's clock. An owner on this
host that is provably dead is succeeded at once, one that provably lives is never succeeded; any other after the lease's time.
"""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .._common.errors import OpsError, Refusal
from .processes import Owner, utc

FORMAT = 1
TTL = 60.0
"""Seconds for which a lease that nobody renews is held against other hosts."""


@dataclass(frozen=True)
class Held:
    """A lease as it is on disk. ``pipe`` names the owner's result queue, by which its orphans are known."""

    token: int
    owner: Owner
    window_id: str
    released: bool
    pipe: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "v": FORMAT,
            "token": self.token,
            "owner": self.owner.as_dict(),
            "window_id": self.window_id,
            "released": self.released,
            "pipe": self.pipe,
        }


class Lost(OpsError):
    """The lease passed to another owner: nothing more may be written under this token."""


class FileLease:
    """The lease kept in the file ``path``; its lock is ``path`` + ``.lock``."""

    def __init__(self, path: Path, *, ttl: float = TTL) -> None:
        self.path = path
        self.ttl = ttl

    @contextmanager
    def locked(self) -> Iterator[None]:
        """The short lock under which the lease and the journal are read and written (flock: it dies with the process)."""
        with open(f"{self.path}.lock", "a", encoding="utf-8") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield

    def read(self) -> Held | None:
        """Who holds or last held the lease; None when nobody ever did."""
        try:
            text = self.path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return None
        try:
            values = json.loads(text)
            version = values["v"]
            if version <= FORMAT:
                return Held(
                    values["token"],
                    Owner.from_dict(values["owner"]),
                    values["window_id"],
                    values["released"],
                    values.get("pipe"),
                )
        except (ValueError, KeyError, TypeError) as error:
            raise Refusal(
                obj=f"lease {self.path}",
                problem=f"it cannot be read ({error!r}), so who holds the window is unknown",
                next_step="Make sure that no window runs, then remove the file",
            ) from error
        raise Refusal(
            obj=f"lease {self.path}",
            problem=f"it has format {version}, and this version of lowtide.ops knows {FORMAT}",
            next_step="Run the window with the newer version of lowtide.ops",
        )

    def acquire(self, owner: Owner, window_id: str, *, pipe: str | None = None) -> Held:
        """Take the lease, or refuse naming its owner. Call it inside :meth:`locked`."""
        held = self.read()
        if held is not None:
            self._refuse_if_held(held, owner)
        mine = Held((held.token if held else 0) + 1, owner, window_id, False, pipe)
        self._write(mine)
        return mine

    def blocked_by(self, held: Held) -> str | None:
        """Why nobody may succeed ``held`` now; None when somebody may."""
        if held.released:
            return None
        life = held.owner.life()
        if life == "alive":
            return "that process lives"
        if life == "dead":
            return None
        expires = self.path.stat().st_mtime + self.ttl
        return f"the lease holds until {utc(expires)}" if self._server_time() < expires else None

    def _refuse_if_held(self, held: Held, owner: Owner) -> None:
        if held.owner.same_process(owner) and not held.released:
            raise Refusal(
                obj=f"window {held.window_id}",
                problem="it is already open in this run",
                next_step="Open a window once for each ansible-playbook run, and close it in its last play",
            )
        why = self.blocked_by(held)
        if why is not None:
            raise Refusal(
                obj=f"window {held.window_id}",
                problem=f"{held.owner.describe()}, is running it ({why})",
                next_step="Wait for its end, or stop that process and run this window again: it resumes",
            )

    def check(self, token: int) -> None:
        """Raise :class:`Lost` unless ``token`` still holds the lease. Call it inside :meth:`locked`."""
        held = self.read()
        if held is None or held.token != token or held.released:
            who = held.owner.describe() if held else "nobody"
            raise Lost(
                obj=f"lease {self.path}",
                problem=f"this run held it under token {token}, and now {who} does (token {held.token if held else 'none'})",
                next_step="Leave the window to that run; this one writes no more",
            )

    def release(self, token: int) -> None:
        """Give the lease back; the token stays on record so that the next one is higher. Call it inside :meth:`locked`."""
        self.check(token)
        held = self.read()
        if held is not None:
            self._write(Held(held.token, held.owner, held.window_id, True, held.pipe))

    def start_renewer(self, held: Held, *, seconds: float) -> int:
        """Start the detached renewer for at most ``seconds``; its pid."""
        process = subprocess.Popen(
            [
                sys.executable,
                "-I",
                str(Path(__file__).with_name("renewer.py")),
                str(self.path),
                str(held.token),
                str(held.owner.pid),
                str(held.owner.started),
                str(self.ttl / 4),
                str(seconds),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        return process.pid

    def _server_time(self) -> float:
        """Now, as the file's server stamps it."""
        with tempfile.TemporaryFile(dir=self.path.parent) as probe:
            os.utime(probe.fileno())
            return os.fstat(probe.fileno()).st_mtime

    def _write(self, held: Held) -> None:
        descriptor, temporary = tempfile.mkstemp(dir=self.path.parent, prefix=f".{self.path.name}.")
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as handle:
                json.dump(held.as_dict(), handle)
                handle.flush()
                os.fsync(handle.fileno())
            os.replace(temporary, self.path)
        except OSError:
            os.unlink(temporary)
            raise
        sync_folder(self.path.parent)


def sync_folder(folder: Path) -> None:
    """Make a name created in ``folder`` survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
