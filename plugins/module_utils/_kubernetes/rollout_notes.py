# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a rollout leaves on its workload: where it stands and what to go back to, and changes that have an end.

Both are operations of one annotation (see ``saved_state``), written with the change itself.

Private to lowtide.ops: do not import from other collections.
"""

from __future__ import annotations

import json
import typing as t

from .fields import Json, as_dict, as_int, as_list, as_text, get_path
from .objects import Workload
from .pod_templates import Edit, Place, fingerprint, get_value, is_same, list_images
from .saved_state import (
    ROLL_OUT,
    ROLLED_OUT,
    TEMPORARY,
    SavedState,
    UnreadableSavedState,
    drop_state,
    find_state,
    save_state,
)
from .temporary_ends import is_due

ROLLING, UNDOING, DONE = "rolling", "undoing", "done"
PARTITION = ("spec", "updateStrategy", "rollingUpdate", "partition")
KEPT_BYTES = 65536
"""An object's annotations may have 256 KiB together."""


class Temporary(t.NamedTuple):
    """A change with an end: what it replaced, by which run and when."""

    until: str
    edits: tuple[Edit, ...]
    run_id: str = ""
    at: str = ""

    def as_dict(self) -> Json:
        """Return it as it is saved."""
        edits = [edit.as_dict() for edit in self.edits]
        return {"until": self.until, "run": self.run_id, "at": self.at, "edits": edits}

    @classmethod
    def from_dict(cls, entry: Json) -> Temporary:
        """Read what was saved."""
        edits = tuple(Edit.from_dict(as_dict(edit)) for edit in as_list(entry.get("edits")))
        return cls(as_text(entry.get("until")), edits, as_text(entry.get("run")), as_text(entry.get("at")))


class Note(t.NamedTuple):
    """Where a rollout stands.

    ``mark`` is the fingerprint of the template that it wrote. ``back`` are number and name of the revision that was
    complete before it, and ``partition_before`` the StatefulSet's partition then (None where it was left alone).
    ``canary`` is the partition with which it was written and completed, 0 when all pods are of its revision. ``number`` is
    the highest that its own revision can have: one that was left and came back is numbered anew, and higher. ``declared`` are number
    and name of the revision that was asked for. ``failed`` is a revision that failed before it, whose pods may hold up a
    StatefulSet. While it is undone that is its own, ``failed_mark`` the template that failed, and ``cause`` why.
    ``replaced`` is the template that was replaced, kept where no revision of it is known. ``unproven`` is what was
    completed without a pod: it is no revision to go back to. ``lacking`` is how many pods did not serve before the change.
    """

    phase: str
    mark: str
    generation: int = 0
    back: tuple[int, str] = (0, "")
    partition_before: int | None = None
    canary: int = 0
    declared: tuple[int, str] | None = None
    temporary_before: tuple[Temporary, ...] = ()
    failed_mark: str = ""
    failed: str = ""
    cause: str = ""
    run_id: str = ""
    at: str = ""
    replaced: Json | None = None
    unproven: bool = False
    lacking: int = 0
    number: int = 0

    def as_state(self) -> SavedState:
        """Return what is saved."""
        spec: Json = {
            "phase": self.phase,
            "completed": self.phase == DONE and not self.unproven,
            "template": self.mark,
            "back": {"number": self.back[0], "name": self.back[1]},
        }
        optional: Json = {
            "canary": self.canary or None,
            "partition_before": self.partition_before,
            "declared": self.declared and {"number": self.declared[0], "name": self.declared[1]},
            "temporary_before": [entry.as_dict() for entry in self.temporary_before] or None,
            "failed_template": self.failed_mark or None,
            "failed": self.failed or None,
            "cause": self.cause or None,
            "replaced": self.replaced,
            "unproven": self.unproven or None,
            "lacking": self.lacking or None,
            "number": self.number or None,
        }
        spec.update({key: value for key, value in optional.items() if value is not None})
        return SavedState(spec, self.run_id, self.at, self.generation, ROLL_OUT)

    @classmethod
    def from_state(cls, state: SavedState) -> Note:
        """Read what was saved."""
        spec, declared = state.spec, state.spec.get("declared")
        partition = spec.get("partition_before")
        return cls(
            phase=as_text(spec.get("phase")),
            mark=as_text(spec.get("template")),
            generation=state.generation,
            back=_read_revision(spec.get("back")),
            partition_before=None if partition is None else as_int(partition),
            canary=as_int(spec.get("canary")),
            declared=None if declared is None else _read_revision(declared),
            temporary_before=tuple(Temporary.from_dict(as_dict(e)) for e in as_list(spec.get("temporary_before"))),
            failed_mark=as_text(spec.get("failed_template")),
            failed=as_text(spec.get("failed")),
            cause=as_text(spec.get("cause")),
            run_id=state.run_id,
            at=state.at,
            replaced=as_dict(spec.get("replaced")) or None,
            unproven=spec.get("unproven") is True,
            lacking=as_int(spec.get("lacking")),
            number=as_int(spec.get("number")),
        )

    def is_settled(self, workload: Workload) -> bool:
        """Return whether there is nothing to wait for: it is complete, and proven unless there still is no pod to do so."""
        return self.phase == DONE and not (self.unproven and workload.replicas)

    def is_of(self, workload: Workload, number: int = 0) -> bool:
        """Return whether the workload's template is still the one that was written, whoever wrote other fields since.

        The same template alone proves nothing: a person may have gone back to it, and ``kubectl rollout undo`` brings a
        Deployment's old annotations back with it. So the ``number`` of its revision counts too, which a Deployment says itself.
        """
        if self.generation == workload.generation:
            return True
        present = as_int(workload.revision) if workload.kind == "Deployment" else number
        return self.mark == fingerprint(workload.template) and present <= self.number


def _read_revision(value: t.Any) -> tuple[int, str]:
    return as_int(get_path(value, "number")), as_text(get_path(value, "name"))


def keep_template(template: Json) -> Json | None:
    """Return a template to be kept in a note; None where it is too large for an annotation."""
    return template if len(json.dumps(template)) <= KEPT_BYTES else None


def read_note(workload: Workload) -> Note | None:
    """Return where the last rollout of this collection stands; None where there was none, or it cannot be read."""
    try:
        state = find_state(workload.annotations, ROLLED_OUT, ROLL_OUT)
    except UnreadableSavedState:
        return None
    return None if state is None else Note.from_state(state)


def read_temporaries(workload: Workload) -> tuple[Temporary, ...]:
    """Return the temporary changes that are in force, oldest first."""
    try:
        state = find_state(workload.annotations, ROLLED_OUT, TEMPORARY)
    except UnreadableSavedState:
        return ()
    return tuple(Temporary.from_dict(as_dict(entry)) for entry in as_list(state.spec.get("changes"))) if state else ()


def is_same_rollout(note: Note | None, begun: Note | None) -> bool:
    """Return whether two notes are of one rollout: of the same run and template, which may be undone meanwhile."""
    if note is None or begun is None or note.run_id != begun.run_id:
        return False
    return bool({note.mark, note.failed_mark} & {begun.mark, begun.failed_mark} - {""})


def write_notes(workload: Workload, note: Note | None, temporaries: t.Sequence[Temporary]) -> dict[str, str | None]:
    """Return the annotation with this note (None: as it is) and these temporary changes."""
    written: dict[str, str | None] = {}
    if note is not None:
        written = save_state(workload.annotations, ROLLED_OUT, note.as_state())
    annotations = {**workload.annotations, **written}
    if not temporaries:
        return drop_state(annotations, ROLLED_OUT, TEMPORARY) or written
    newest = temporaries[-1]
    spec = {"changes": [entry.as_dict() for entry in temporaries]}
    return save_state(annotations, ROLLED_OUT, SavedState(spec, newest.run_id, newest.at, operation=TEMPORARY))


def add_temporary(
    known: t.Sequence[Temporary],
    edits: t.Sequence[Edit],
    until: str,
    *,
    run_id: str,
    at: str,
    places: t.Collection[Place] = (),
) -> tuple[Temporary, ...]:
    """Return the temporary changes after a declaration of values at ``places``, of which ``edits`` are changes.

    A value that was temporary already is given back what was there before the first of them; a lasting declaration of it
    ends that, also one of the same value.
    """
    held = {edit.place: edit.before for entry in known for edit in entry.edits}
    same = [(edit, entry.until) for entry in known for edit in entry.edits if edit.place in places]
    same = [(edit, end) for edit, end in same if edit.place not in {changed.place for changed in edits}]
    if until and not edits and all(end == until for _edit, end in same):
        return tuple(known)
    edits = [*edits, *(edit for edit, _end in same)]
    places = {edit.place for edit in edits}
    rest = [entry._replace(edits=tuple(e for e in entry.edits if e.place not in places)) for entry in known]
    kept = [entry for entry in rest if entry.edits]
    if until and edits:
        own = tuple(edit._replace(before=held.get(edit.place, edit.before)) for edit in edits)
        kept.append(Temporary(until, own, run_id, at))
    return tuple(kept)


def split_due(known: t.Sequence[Temporary], now: float) -> tuple[list[Temporary], list[Temporary]]:
    """Return the temporary changes whose end has come, and the others."""
    due = [entry for entry in known if is_due(entry.until, now)]
    return due, [entry for entry in known if entry not in due]


def take_back(template: Json, due: t.Sequence[Temporary], title: str) -> list[Edit]:
    """Return the changes that give back what temporary ones replaced; what somebody has set since stays."""
    edits: list[Edit] = []
    containers = list_images(template)
    for entry in reversed(due):
        for edit in entry.edits:
            if edit.place.container and edit.place.container not in containers:
                continue
            present = get_value(template, edit.place, title)
            if is_same(edit.place, present, edit.after) and not is_same(edit.place, present, edit.before):
                edits.append(Edit(edit.place, present, edit.before))
    return edits
