# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How far a rotation has come, as it is noted on the Secret itself; pure.

Private to lowtide.ops: do not import from other collections.

The note has names, times and a phase, and nothing that opens anything. The old password is in the Secret for as long as
it has to be proven that it is refused, under keys that the last phase removes.
"""

from __future__ import annotations

import json
import typing as t

from .._common.errors import Refusal
from .._kubernetes.secrets import CREDENTIAL

ANNOTATION = CREDENTIAL
FORMAT = 1

PREPARING = "preparing"
"""A role is about to get a password. The Secret has the old one, which works."""
SWITCHED = "switched"
"""The Secret has the new password. Whether the server has it was not proven yet."""
PROVEN = "proven"
"""A login with the new password worked. Pods that are older than ``rotated_at`` may have the old one."""
FINISHED = "finished"
"""The old password is refused."""
REVERTING = "reverting"
"""The Secret has the old password again, and the keys of the previous one have the new one. With a ``rotated_at`` a
login with the old one worked; pods that were made before that, and after ``at``, may have the new one."""
REVERTED = "reverted"
"""The Secret has the old password, and the new one is refused."""
PHASES = (PREPARING, SWITCHED, PROVEN, FINISHED, REVERTING, REVERTED)

TWO_ROLES = "two_roles"
ONE_ROLE = "one_role"
METHODS = (TWO_ROLES, ONE_ROLE)


class Note(t.NamedTuple):
    """A phase of a rotation, the run that came so far, and when. ``user`` is whom the new password is for.

    ``rotated_at`` is from when on a pod that is made has the password of the Secret; empty before ``PROVEN``.
    While it is ``REVERTING``, ``user`` is whom the old password is of, and ``previous_user`` the one of the new one.
    ``at`` is empty where the note of a rotation that is under way was lost. ``keys`` are what it writes, by commas.
    """

    phase: str
    method: str
    user: str
    previous_user: str
    run_id: str
    at: str
    rotated_at: str = ""
    keys: str = ""

    @property
    def holder(self) -> str:
        """Return the role that the Secret has to name in this phase."""
        return self.previous_user if self.phase == PREPARING else self.user

    @property
    def when(self) -> str:
        """Return ``at`` for messages."""
        return self.at or "a time that is not known"

    @property
    def ending(self) -> str:
        """Return which of the two credentials is to be ended: the new one where the rotation is taken back."""
        return "new" if self.phase in (REVERTING, REVERTED) else "old"

    def encode(self) -> str:
        """Return the text of the annotation."""
        return json.dumps({"format": FORMAT, **self._asdict()}, sort_keys=True)


def read_note(annotations: t.Mapping[str, t.Any], *, title: str) -> Note | None:
    """Return what is noted on a Secret; None where nothing is. A Refusal for a note that is not understood."""
    text = annotations.get(ANNOTATION)
    if text is None:
        return None
    try:
        document = json.loads(text)
        if document.pop("format") != FORMAT:
            raise ValueError
        note = Note(**{key: str(value) for key, value in document.items()})
    except (AttributeError, KeyError, TypeError, ValueError):
        note = None
    if note is None or note.phase not in PHASES or note.method not in METHODS:
        raise Refusal(
            obj=f"annotation {ANNOTATION} of {title}",
            problem=f"it is not understood: {text!r}",
            next_step="Use the release of this collection that wrote it, or remove the annotation: the next run goes by"
            " what the Secret has, and locks nobody out",
        ) from None
    return note
