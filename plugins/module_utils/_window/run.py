# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The open window of this controller run, shared by its forked workers. Private to lowtide.ops: do not import from other collections.

A file in Ansible's own temporary folder of this run says that a window is open, and where. That folder is made for each
controller process and removed at its end, so another run never sees it; a rehearsal keeps its whole journal there.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from .._common.errors import OpsError
from .journal import Journal, Place, Record
from .lease import FileLease
from .model import Window, obsolete, read
from .processes import ENVIRONMENT_MARK
from .steps import Steps

FILE = "lowtide_window.json"


@dataclass(frozen=True)
class Run:
    """The window that is open in this controller run; ``ends`` in seconds since the epoch."""

    name: str
    id: str
    token: int
    steps: list[dict[str, Any]]
    selected: list[str]
    control: str
    ends: float
    rehearsal: bool
    stem: str
    version: str
    folder: str
    since: tuple[int, int] = (0, 0)
    """From where on the journal tells of this occurrence (:class:`.journal.Place`): history costs nothing."""

    @property
    def fallback(self) -> Journal:
        """Where records go that the journal cannot take (disk full), so that this run still closes what it opened."""
        return Journal(Path(self.folder, "lowtide_window.fallback"))

    @property
    def journal(self) -> Journal:
        """Where this run writes: the window's journal, or the rehearsal's own."""
        return Journal(Path(f"{self.stem}.journal"), after=Place(*self.since))

    @property
    def lease(self) -> FileLease:
        """The window's lease (in a rehearsal nobody holds it, and only its lock is used)."""
        return FileLease(Path(f"{self.stem}.lease"))

    @property
    def environment(self) -> dict[str, str]:
        """What the module processes of a step carry, so that an orphan is known by it."""
        return {ENVIRONMENT_MARK: mark(self.stem, self.token)}

    def save(self) -> None:
        """Make the window known to every worker of this run."""
        temporary = Path(self.folder, f"{FILE}.new")
        temporary.write_text(json.dumps(asdict(self)), encoding="utf-8")
        os.replace(temporary, Path(self.folder, FILE))

    @classmethod
    def load(cls, folder: str) -> Run | None:
        """The open window of this run; None when none was opened."""
        try:
            return cls(**json.loads(Path(folder, FILE).read_text(encoding="utf-8")))
        except FileNotFoundError:
            return None

    @contextmanager
    def writing(self) -> Iterator[Session]:
        """The journal under the lease's lock, fenced: raises :class:`.lease.Lost` when another run has taken over."""
        with self.lease.locked():
            if not self.rehearsal:
                self.lease.check(self.token)
            yield Session(self)


class Session:
    """The journal as read under the lock, and the way to write to it."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self._journal = run.journal
        self.lost_records = run.fallback.read().records
        self._reading = self._journal.read()
        self._records: list[Record] = self._reading.records + self.lost_records

    def window(self) -> Window:
        """The rules over what is on record now."""
        run = self.run
        occurrence = read(self._records, identity=run.id, run=run.token)
        return Window(
            Steps(run.steps), occurrence, selected=frozenset(run.selected), control=run.control, ends=run.ends
        )

    def since(self) -> Place:
        """Where the records begin that this occurrence rests on."""
        return self._reading.places[obsolete(self._reading.records, identity=self.run.id)]

    def write(self, kind: str, *, durable: bool = False, **fields: Any) -> None:
        """Append one record of this occurrence and run. ``durable``: nothing may be done that is not on record."""
        values = {**fields, "id": self.run.id, "run": self.run.token}
        try:
            record = self._journal.append(kind, **values)
        except OSError as error:
            if durable:
                raise OpsError(
                    obj=f"journal {self._journal.path}",
                    problem=f"it cannot be written ({error})",
                    next_step="Make room or set window_dir, then run the window again; closing steps run all the same",
                ) from error
            record = self.run.fallback.append(kind, **values)
        self._records.append(record)


def mark(stem: str, token: int) -> str:
    """Value of the environment mark of run ``token`` of the window at ``stem``."""
    return f"{stem}#{token}"


def slug(name: str) -> str:
    """A file name for any text: readable, and unlike for unlike texts."""
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.")[:60]
    return plain if plain == name else f"{plain}-{sha256(name.encode()).hexdigest()[:8]}"


def stem(folder: str, site: str, name: str) -> str:
    """Path without suffix of a window's files: one folder a site, one journal and one lease a window."""
    return str(Path(os.path.expanduser(folder)).absolute() / slug(site or "default") / slug(name))
