# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a restore notes on its databases, and what is to be done by these notes; pure.

The note is the comment of the database beside, so that any later run, from anywhere, knows how far the last one came.
Private to lowtide.ops: do not import from other collections.
"""

from __future__ import annotations

import json
import typing as t
from dataclasses import asdict, dataclass

from .._common.errors import Refusal

LOADING = "loading"
RESTORED = "restored"
MOVING = "moving"
MOVED = "moved"
KEPT = "kept"
BESIDE_SUFFIX = "__restored"
ORIGINAL_SUFFIX = "__original"
BOOK = "_lowtide_restore"
"""The table beside that holds how triggers, views, routines and events are made, of the backup and of the original."""
MANIFEST, CONTENTS = "manifest.json", "tables.json"
"""What the book has of the backup itself, by which a move is completed where the backup is gone."""
ADD_SCRIPT = (
    "INSERT INTO {book} (owner, kind, name, script) VALUES (%s, %s, %s, %s)"
    " ON DUPLICATE KEY UPDATE script = VALUES(script)"
)
REMOVE_SCRIPTS = "DELETE FROM {book} WHERE owner = %s"
READ_SCRIPTS = "SELECT kind, name, script FROM {book} WHERE owner = %s ORDER BY place"
"""As they were noted, which is the order of the dump: triggers of one moment are executed as they were made."""


@dataclass(frozen=True)
class Note:
    """Which backup a database is of, and how far the restore is."""

    backup: str
    of: str
    phase: str

    def to_comment(self) -> str:
        """Return it as a comment of a database."""
        return json.dumps({"by": "lowtide.ops", "format": 1, **asdict(self)}, sort_keys=True)


def read_note(comment: str | None) -> Note | None:
    """Return the note in a comment; None where it is another's."""
    try:
        document = json.loads(comment or "")
        if document["by"] != "lowtide.ops" or document["format"] != 1:
            return None
        return Note(str(document["backup"]), str(document["of"]), str(document["phase"]))
    except (ValueError, KeyError, TypeError):
        return None


class Database(t.NamedTuple):
    """A database that is there: its name, and the note on it, if it is one of ours."""

    name: str
    note: Note | None


class Todo(t.NamedTuple):
    """What a run has to do: discard what is beside, load, move. ``undo`` an interrupted move comes before all of it."""

    discard: bool = False
    load: bool = False
    move: bool = False
    is_resumed: bool = False
    is_in_place: bool = False
    undo: bool = False


def decide(
    *, state: str, database: str, backup: str, beside: Database | None, kept: Database | None, has_tables: bool
) -> Todo:
    """Decide what is to be done for ``state`` with ``backup``; refuse what would touch a database that is not ours.

    ``has_tables`` is whether there is something in the database in use that would go to ``kept``. Then it takes a whole
    copy beside. A move uses up its copy, and only state beside makes one, so a request that comes once more, long after
    it was fulfilled and its original was dropped, finds none.
    """
    if beside is not None and (beside.note is None or beside.note.of != database):
        raise Refusal(
            obj=f"database {beside.name}",
            problem="it is there, and no restore of this database has made it",
            next_step="Rename or drop it if nobody needs it; lowtide.ops drops only what it has made",
        )
    phase = beside.note.phase if beside is not None and beside.note is not None else None
    if phase in (MOVING, MOVED):
        return _decide_interrupted(state, beside, backup)
    if state == "absent":
        return Todo(discard=beside is not None)
    if state == "in_place" and kept is not None:
        if beside is None and is_kept_of(kept, database, backup):
            return Todo(is_in_place=True)
        if beside is None and kept.note is not None and is_kept_of(kept, database, kept.note.backup):
            raise Refusal(
                obj=f"database {kept.name}",
                problem=f"it is there: the original in whose place backup {kept.note.backup} was brought, and this"
                f" request means backup {backup}",
                next_step=f"If it is {kept.note.backup} that is meant, it is in place: name it in backup. To bring"
                f" {backup} into place, let the original go once nobody needs it (DROP DATABASE `{kept.name}`), and"
                " run again",
            )
        raise Refusal(
            obj=f"database {kept.name}",
            problem="it is there: the original of an earlier restore, or another's"
            + (f". Its note is of backup {kept.note.backup}, and this is {backup}" if kept.note is not None else ""),
            next_step=f"When nobody needs it any more, let it go (DROP DATABASE `{kept.name}`), and run again",
        )
    is_loaded = phase == RESTORED and beside is not None and beside.note is not None and beside.note.backup == backup
    if phase == RESTORED and not is_loaded and beside is not None and beside.note is not None:
        raise Refusal(
            obj=f"database {beside.name}",
            problem=f"it is restored from backup {beside.note.backup}, not {backup}",
            next_step=f"Set backup to {beside.note.backup}, or remove it by state absent, and run again",
        )
    if state == "in_place" and has_tables and not is_loaded:
        raise Refusal(
            obj=f"database {database}",
            problem=f"there is no whole copy of backup {backup} beside it, so nothing says that this backup has not"
            " taken its place before, and that what was written since may go",
            next_step=f"Restore it first (state: beside, backup: {backup}), look at the copy, and run again",
        )
    return Todo(discard=phase == LOADING, load=not is_loaded, move=state == "in_place")


def is_kept_of(kept: Database | None, database: str, backup: str | None) -> bool:
    """Return whether ``kept`` is the original of ``database``, whose place this backup has taken."""
    return kept is not None and kept.note == Note(str(backup), database, KEPT)


def _decide_interrupted(state: str, beside: Database | None, backup: str) -> Todo:
    """An interrupted move is completed; given up only where its tables have not been renamed, which Move looks at."""
    note = beside.note if beside is not None else None
    if note is None or beside is None:
        raise TypeError("an interrupted move has its note")
    if state == "absent" and note.phase == MOVING:
        return Todo(discard=True, undo=True)
    if state != "in_place" or note.backup != backup:
        raise refuse_interrupted(note.of, note.backup, may_be_given_up=note.phase == MOVING)
    return Todo(move=True, is_resumed=True)


def refuse_interrupted(database: str, backup: str, *, may_be_given_up: bool = False) -> Refusal:
    """Return the refusal of anything else than to complete a move, or to give it up."""
    return Refusal(
        obj=f"database {database}",
        problem=f"a restore of backup {backup} was interrupted while it was brought into place",
        next_step=f"Complete it: run with state in_place and backup {backup}"
        + ("; or, unless its tables have been moved already, give it up (state absent)" if may_be_given_up else ""),
    )
