# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The events of a window's journal, one dataclass each, and their JSON form.

Private to lowtide.ops: do not import from other collections. A journal is the list of events of one occurrence of a
window. State is never stored: :mod:`.state` computes it from the events.
"""

from __future__ import annotations

from dataclasses import MISSING, asdict, dataclass, field, fields
from typing import Any

from ansible_collections.lowtide.ops.plugins.module_utils._common.errors import Refusal

FORMAT = 1
"""Version of the events' schema. A reader refuses events of a later version; unknown keys of its own version are
ignored."""

MAX_ITEMS = 50
"""At most this many plan items, blockers and evidence lines of one step are kept in the journal."""


@dataclass(frozen=True, kw_only=True)
class Event:
    """What all events have: ``at`` (seconds since the epoch, set when written) and the ``token`` of the run."""

    at: float = 0.0
    token: int = 0


@dataclass(frozen=True, kw_only=True)
class WindowOpened(Event):
    """A run opened the occurrence, for the first time or again. ``ends`` (seconds since the epoch) is absolute:
    resuming keeps it.

    ``steps`` are the declared steps with their hosts as the inventory had them; ``inherited`` names what older
    occurrences of the site left to revert and this one reverts: ``{"window_id", "step", "host", "reverted_by"}``.
    ``job`` is what AWX says of the job that the run is: ``id``, ``user``, ``template``, ``launch``, ``schedule``
    and ``workflow``.
    """

    window: str
    window_id: str
    start: str
    mode: str
    steps: list[dict[str, Any]]
    selected: list[str]
    control: str
    ends: float
    version: str
    inherited: list[dict[str, str]] = field(default_factory=list)
    job: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class StepEvent(Event):
    """An event of one step on one host."""

    step: str
    host: str

    @property
    def key(self) -> tuple[str, str]:
        """The step and the host."""
        return (self.step, self.host)


@dataclass(frozen=True, kw_only=True)
class PlanStarted(StepEvent):
    """The role is run in check mode to find out whether the step is due."""


@dataclass(frozen=True, kw_only=True)
class StepPlanned(StepEvent):
    """Whether the step is due, as its role says. ``reverts``: the reversible step that a due reverting step found in
    force."""

    due: bool
    summary: str
    plan: list[dict[str, Any]] = field(default_factory=list)
    blockers: list[dict[str, Any]] = field(default_factory=list)
    reverts: str | None = None


@dataclass(frozen=True, kw_only=True)
class StepReached(Event):
    """The run came to the play of a step's batch (counted from 0)."""

    step: str
    batch: int


@dataclass(frozen=True, kw_only=True)
class StepStarted(StepEvent):
    """The role is about to be run. ``reverted_by`` names the step that will revert it; ``digest`` is that of the
    role's inputs."""

    batch: int
    why: str
    digest: str
    reverted_by: str | None = None


@dataclass(frozen=True, kw_only=True)
class StepSucceeded(StepEvent):
    """The role ended well. ``reverts``: the step that is reverted by it, here or (``reverts_all``) on all its hosts."""

    changed: bool
    summary: str
    plan: list[dict[str, Any]] = field(default_factory=list)
    blockers: list[dict[str, Any]] = field(default_factory=list)
    evidence: list[str] = field(default_factory=list)
    digest: str = ""
    version: str = ""
    reverts: str | None = None
    reverts_all: bool = False


JOURNAL = "journal"
"""Stands for a step in a failure to tell a journal what was done."""
DAMAGED = "damaged journal"
"""Stands for a step in a failure to know what a journal tells."""


@dataclass(frozen=True, kw_only=True)
class StepFailed(StepEvent):
    """The step, or (``planning``) finding out whether it is due, failed."""

    error: str
    planning: bool = False
    plan: list[dict[str, Any]] = field(default_factory=list)
    blockers: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class StepSkipped(StepEvent):
    """The step was left out here. ``not_due``: there was nothing to do, so what needs it may go on."""

    why: str
    not_due: bool = False


@dataclass(frozen=True, kw_only=True)
class StepReverted(StepEvent):
    """A reversible step of this occurrence was reverted by another occurrence, ``by``."""

    by: str


@dataclass(frozen=True, kw_only=True)
class WindowClosed(Event):
    """The run ended the occurrence in ``state`` (:data:`.state.FINAL_STATES`)."""

    state: str
    cause: str = ""


KINDS: dict[str, type[Event]] = {
    kind.__name__: kind
    for kind in (
        WindowOpened,
        PlanStarted,
        StepPlanned,
        StepReached,
        StepStarted,
        StepSucceeded,
        StepFailed,
        StepSkipped,
        StepReverted,
        WindowClosed,
    )
}


def encode(event: Event) -> dict[str, Any]:
    """Return the event as plain values for JSON, with its kind and the schema's version."""
    return {"v": FORMAT, "event": type(event).__name__, **asdict(event)}


def decode(values: dict[str, Any], *, source: str) -> Event:
    """Return the event that :func:`encode` wrote. ``source`` names the journal in messages.

    Raises Refusal for a later version or an unknown kind of event, ValueError for a key that is missing.
    """
    version = values.get("v")
    if not isinstance(version, int):
        raise ValueError("no version")
    if version > FORMAT:
        raise Refusal(
            obj=f"journal {source}",
            problem=f"it has format {version}, and this version of lowtide.ops knows {FORMAT}",
            next_step="Run the window with the newer version of lowtide.ops",
        )
    kind = KINDS.get(str(values.get("event")))
    if kind is None:
        raise ValueError(f"unknown event {values.get('event')!r}")
    known = {item.name: item for item in fields(kind)}
    missing = [
        name
        for name, item in known.items()
        if name not in values and item.default is MISSING and item.default_factory is MISSING
    ]
    if missing:
        raise ValueError(f"{kind.__name__} without {', '.join(missing)}")
    return kind(**{name: value for name, value in values.items() if name in known})
