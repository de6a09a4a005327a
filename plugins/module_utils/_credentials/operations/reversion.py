# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The way back of a rotation whose clients do not run with the new credential.

Private to lowtide.ops: do not import from other collections.

1. One patch puts the old credential into the Secret, the new one under the keys of the previous one, and ``reverting``
   on it. With two roles the old one was not ended, and a login proves that first. With one role the server gets a
   verifier of the old password in the transaction inside of which the patch is sent, as on the way there.
2. Real logins prove it, and it is noted from when on pods have it. Then clients are put back, which is not done here.
3. ``finish`` ends the new one as it ends an old one, and notes ``reverted``.
"""

from __future__ import annotations

import typing as t

from ..._common.errors import Refusal
from ..._common.text import join_some
from ..._kubernetes.secrets import PREVIOUS_PASSWORD
from ..._postgresql.logins import try_login
from ..._postgresql.roles import changed_password, make_verifier
from ..notes import PROVEN, REVERTING, SWITCHED, TWO_ROLES, Note
from ..plan import list_previous, plan_reversion, render_templates, summarize_reversion
from .rotation import Rotation

if t.TYPE_CHECKING:
    from ..._postgresql.roles import Role


class Reversion(Rotation):
    """One run that goes back."""

    def revert(self) -> None:
        """Have the old credential in the Secret, and a server that takes it. Nothing is done where there is none."""
        note = self.note
        self._report_reversion(note, is_done=False)
        if note is None or note.phase not in (SWITCHED, PROVEN, REVERTING):
            return
        is_begun = note.phase == REVERTING
        if is_begun:
            self._refuse_other_user(self._require_text(self.params["username_key"]))
        self._refuse_missing_templates(note)
        if is_begun and note.rotated_at:
            self._check_login()
            return
        if not is_begun:
            self.outcome.plan += plan_reversion(note, title=self.secret.title, keys=self._keys)
        self.outcome.before = {"username": note.user, "phase": note.phase}
        self.outcome.after = {"username": note.user if is_begun else note.previous_user, "phase": REVERTING}
        if self.module.check_mode:
            self.outcome.changed = True
            return
        if not is_begun:
            self._put_back(note)
        current = t.cast(Note, self.note)
        password = self._require_text(self.params["password_key"])
        self._prove_credential(current.user, password, self._find_role(current.user))
        self._note_since(current)
        self._report_reversion(note, is_done=True)

    def _put_back(self, note: Note) -> None:
        """Change both credentials of the Secret with each other, whatever somebody has put in their place."""
        user, old, new = note.previous_user, self._find_old(note), self._find_new(note)
        values: dict[str, str | None] = {
            self.params["username_key"]: user,
            self.params["password_key"]: old,
            **render_templates(self.params["templates"], user, old),
            **list_previous(note.user, new),
        }
        back = note._replace(phase=REVERTING, user=user, previous_user=note.user, rotated_at="")
        role = self._find_role(user)
        if self._is_accepted(user, old):
            self._write(back, values)
            return
        # With one role always; with two where a run was killed that had ended the old one already.
        with changed_password(self.session, role, make_verifier(self.session, user, old)):
            self.outcome.changed = self.outcome.write_attempted = True
            self._write(back, values)

    def _find_old(self, note: Note) -> str:
        """Return the password to go back to: the one that was kept, or what somebody has put there for that role."""
        current, password = (self.secret.get_text(self.params[key]) for key in ("username_key", "password_key"))
        is_put_back = note.method == TWO_ROLES and current == note.previous_user
        is_kept = PREVIOUS_PASSWORD in self.secret.values
        if password and is_put_back and not is_kept and self._is_accepted(note.previous_user, password):
            return password
        return self._require_text(PREVIOUS_PASSWORD)

    def _find_new(self, note: Note) -> str | None:
        """Return the password that is to be ended; None where somebody has changed it in the Secret."""
        current, password = (self.secret.get_text(self.params[key]) for key in ("username_key", "password_key"))
        if current != note.user or not password:
            return None
        return password if self._is_accepted(note.user, password) else None

    def _is_accepted(self, user: str, password: str) -> bool:
        return try_login(self.addresses[0], user, password).is_accepted

    def _refuse_missing_templates(self, note: Note) -> None:
        """Refuse to leave the new password in keys that the rotation has put it into."""
        missing = [key for key in note.keys.split(",") if key and key not in self._keys]
        if missing:
            raise Refusal(
                obj=f"key {join_some(missing)} of {self.secret.title}",
                problem="the rotation has put the new credential into it, and templates does not say what it is",
                next_step="Give the templates that the rotation had",
            )

    def _find_role(self, name: str) -> Role:
        role = self.roles.get(name)
        if role is None:
            raise Refusal(
                obj=self.secret.title,
                problem=f"its rotation is to be taken back, and its user {name!r} is not one of roles",
                next_step="Correct roles: a rotation of this Secret is under way",
            )
        return role

    def _report_reversion(self, note: Note | None, *, is_done: bool) -> None:
        now = self.note
        self.outcome.facts |= {
            "secret": self.secret.title,
            "user": now.user if now else None,
            "phase": now.phase if now else None,
            "rotating": now is not None and now.phase == PROVEN,
            "rotated_at": now.rotated_at or None if now else None,
            "begun_by": now.run_id if now else None,
        }
        self.outcome.summary = summarize_reversion(
            note, title=self.secret.title, check_mode=self.module.check_mode, is_done=is_done
        )
