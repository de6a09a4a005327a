# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A password that clients get from a Kubernetes Secret: its replacement, and the end of the old one.

Private to lowtide.ops: do not import from other collections.

Every step is noted on the Secret before the next one, so that whoever runs it next goes on from there:

1. ``preparing`` is noted, which also shows that the Secret may be changed.
2. The role gets the new password; with two roles the one that nobody uses, and real logins prove it.
3. One patch puts the new credential into the Secret and ``switched`` on it. With one role it is sent inside of the
   transaction that changes the password, so that the server and the Secret change together, or within a moment.
4. Real logins prove the credential of the Secret (``proven``). The password is set again where a killed run did not.
5. Once no pod and no session has the old credential, it is ended, and a login with it must be refused (``finished``).

Where clients cannot be restarted with the new one, ``reversion`` goes back to the old one instead of step 5.
"""

from __future__ import annotations

import math
import typing as t

from ..._common.amounts import parse_age
from ..._common.errors import OpsError, Refusal
from ..._common.outcome import Outcome, PlanItem
from ..._common.retry import Deadline
from ..._common.text import join_some
from ..._common.timestamps import format_utc
from ..._kubernetes.client import Client
from ..._kubernetes.resources import find_resource
from ..._kubernetes.reviews import Right, require_rights
from ..._kubernetes.secrets import (
    PREVIOUS_PASSWORD,
    PREVIOUS_USER,
    Secret,
    SecretChange,
    encode_value,
    find_secret_owners,
    is_applied_by_kubectl,
    read_secret,
    refuse_immutable,
    write_secret,
)
from ..._postgresql.connection import Session, Settings
from ..._postgresql.logins import (
    APPLICATION,
    refuse_open_door,
    require_login,
    require_refusal,
    settings_for_login,
    try_login,
    wait_for_login,
)
from ..._postgresql.roles import (
    Role,
    changed_password,
    make_verifier,
    read_roles,
    read_sessions,
    refuse_ending,
    refuse_unlike,
    refuse_unusable,
)
from ..clients import SESSION_GRACE, refuse_earlier_pods, wait_for_pods, wait_for_sessions
from ..notes import (
    ANNOTATION,
    FINISHED,
    PREPARING,
    PROVEN,
    REVERTED,
    REVERTING,
    SWITCHED,
    TWO_ROLES,
    Note,
    read_note,
)
from ..places import open_places
from ..plan import (
    BEGIN,
    GO_BACK,
    PROVE,
    Decision,
    choose_user,
    compute_age,
    decide,
    explain_other_user,
    explain_refused,
    find_copies,
    list_previous,
    make_password,
    plan_rotation,
    refuse_copies,
    refuse_interruption,
    render_templates,
    summarize_finish,
    summarize_rotation,
    take_up,
)

if t.TYPE_CHECKING:
    from ansible.module_utils.basic import AnsibleModule

PROPAGATION = 30.0
"""Seconds after which a standby or a pooler that does not take a new password never will."""


class Rotation:
    """One run of the module on one Secret."""

    def __init__(self, module: AnsibleModule, outcome: Outcome, client: Client, session: Session) -> None:
        self.module = module
        self.params = module.params
        self.outcome = outcome
        self.client = client
        self.session = session
        self.deadline: Deadline = client.deadline
        self.is_paired = self.params["method"] == TWO_ROLES
        self.addresses = self._list_addresses()
        self.secret = self._read()
        self.note = read_note(self.secret.annotations, title=self.secret.title) or take_up(
            self.secret.values,
            method=self.params["method"],
            user=self.secret.get_text(self.params["username_key"]),
            roles=self.params["roles"],
            run_id=client.run_id,
        )
        self.roles = self._read_roles()

    # What there is.

    def _read(self) -> Secret:
        secret = read_secret(self.client, self.params["namespace"], self.params["secret"])
        for key in (self.params["password_key"], PREVIOUS_PASSWORD):
            self._mask(secret.get_text(key))
        return secret

    def _mask(self, password: str | None) -> None:
        if password:
            self.module.no_log_values.update({password, encode_value(password)})

    def _list_addresses(self) -> list[Settings]:
        """Return where clients log in: as declared, and otherwise at the primary that this session has found."""
        info, base = self.session.connection.info, self.session.settings
        here = {"host": info.host, "port": info.port, "database": base.dbname, "ssl_mode": None, "ca_cert": None}
        return [
            settings_for_login(
                base,
                host=login["host"],
                port=login["port"],
                dbname=login["database"] or base.dbname,
                sslmode=login["ssl_mode"],
                sslrootcert=login["ca_cert"],
            )
            for login in self.params["logins"] or [here]
        ]

    def _read_roles(self) -> dict[str, Role]:
        names = self.params["roles"]
        roles = read_roles(self.session, names)
        for role in roles.values():
            refuse_unusable(role, account=self.session.settings.user)
        if self.is_paired:
            refuse_unlike(*(roles[name] for name in names), owner=self.params["owner"])
        return roles

    def _require_text(self, key: str) -> str:
        text = self.secret.get_text(key)
        if not text:
            raise Refusal(
                obj=f"key {key} of {self.secret.title}",
                problem="it is missing, empty or no text",
                next_step="Put the credential that clients have now into it, or correct username_key and password_key",
            )
        return text

    @property
    def _keys(self) -> list[str]:
        return [self.params["username_key"], self.params["password_key"], *self.params["templates"]]

    # state: rotated

    def rotate(self) -> None:
        """Have a password in the Secret that is young enough, and that the server takes."""
        now, max_age = self._read_clock(), parse_age(self.params["max_age"])
        decision = decide(self.note, now=now, max_age=max_age)
        current = self._require_text(self.params["username_key"])
        self._require_text(self.params["password_key"])
        user, previous = current, current
        self._refuse_other_user(current)
        if decision.action == BEGIN:
            user = choose_user(
                self.params["method"], self.params["roles"], current, title=self.secret.title, key=self._keys[0]
            )
        elif self.note is not None:
            previous = self.note.previous_user
        self._describe(decision, user, previous)
        self._report(decision, user, previous, is_done=False)
        if decision.action == BEGIN:
            self._check_begin(user, current)
        if decision.action not in (BEGIN, PROVE, GO_BACK):
            self._check_login()
        if self.module.check_mode:
            self._predict(decision)
            return
        if decision.action == BEGIN:
            self._begin(user, current)
        if decision.action in (BEGIN, PROVE):
            self._prove()
        self._report(decision, user, previous, is_done=True)

    def _read_clock(self) -> float:
        return self.client.read_server_clock()

    def _refuse_other_user(self, current: str) -> None:
        """Refuse a Secret whose credential somebody else has put there since."""
        if self.note is not None and self.note.holder != current:
            raise Refusal(
                obj=f"key {self.params['username_key']} of {self.secret.title}",
                problem=f"it names {current!r}, and by the note of run {self.note.run_id} it should name"
                f" {self.note.holder!r}",
                next_step=explain_other_user(self.note, current),
            )

    def _describe(self, decision: Decision, user: str, previous: str) -> None:
        self.outcome.plan += plan_rotation(
            self.params["method"],
            user=user,
            previous=previous,
            title=self.secret.title,
            keys=self._keys,
            decision=decision,
        )
        phase = self.note.phase if self.note else None
        self.outcome.before = {"username": self.secret.get_text(self._keys[0]), "phase": phase}
        will_act = decision.action in (BEGIN, PROVE)
        self.outcome.after = {"username": user, "phase": PROVEN if will_act else phase}

    def _predict(self, decision: Decision) -> None:
        """Say what a run would do: from now on pods would be too old."""
        self.outcome.changed = decision.action in (BEGIN, PROVE)
        if self.outcome.changed:
            self.outcome.facts |= {"rotating": True, "rotated_at": format_utc(math.floor(self._read_clock()))}

    def _report(self, decision: Decision, user: str, previous: str, *, is_done: bool) -> None:
        note = self.note
        is_known = note is not None and note.rotated_at and note.phase != REVERTING
        self.outcome.facts |= {
            "secret": self.secret.title,
            "user": user,
            "phase": note.phase if note else None,
            "rotating": note is not None and note.phase == PROVEN,
            "rotated_at": note.rotated_at or None if note else None,
            "begun_by": note.run_id if note else None,
            "age": compute_age(note, now=self._read_clock()) if note and is_known else None,
        }
        self.outcome.summary = summarize_rotation(
            decision.action,
            title=self.secret.title,
            user=user,
            previous=previous,
            why=decision.why,
            check_mode=self.module.check_mode,
            is_done=is_done,
        )

    def _check_begin(self, user: str, current: str) -> None:
        """Refuse everything that would stand in the way later, before anything is changed."""
        refuse_immutable(self.secret)
        if "gitops" in self.params["guards"]:
            self.outcome.blockers += find_secret_owners(self.secret, self._keys)
        if self.outcome.blockers:
            blocker = self.outcome.blockers[0]
            raise Refusal(obj=self.secret.title, problem=blocker.what, next_step=blocker.next_step)
        if is_applied_by_kubectl(self.secret, self.params["password_key"]):
            self.module.warn(
                f"{self.secret.title} was made by kubectl apply; to apply that file again would put its password back,"
                " which the server refuses by then. Take the password out of the file"
            )
        password = self._require_text(self.params["password_key"])
        refuse_copies(find_copies(self.secret.values, password, self._keys), title=self.secret.title)
        refuse_ending(self.roles[user], seconds=parse_age(self.params["max_age"]).total_seconds())
        self._refuse_missing_rights()
        logins = []
        for address in self.addresses:
            # Of two roles the idle one: where failed logins lock an account, clients must not be locked out.
            refuse_open_door(address, user, make_password())
            logins.append(try_login(address, current, password).is_accepted)
            if not logins[-1]:
                self.module.warn(
                    f"{address.host}:{address.port} refuses the password that {self.secret.title} has for {current};"
                    " the new one mends that"
                )
        if self.is_paired:
            if self.note is None:
                refuse_earlier_pods(self.client, self.secret, self._keys[:2], is_accepted=any(logins))
            grace = Deadline(0.0 if self.module.check_mode else SESSION_GRACE)
            with open_places(self.session, self.addresses) as places:
                wait_for_sessions(places, user, deadline=grace, why="it is to be the idle one of the two")
        elif not self.params["accept_interruption"]:
            sessions = [one for one in read_sessions(self.session, user) if one.application != APPLICATION]
            refuse_interruption(user, sessions=len(sessions), title=self.secret.title)

    def _refuse_missing_rights(self) -> None:
        namespace, name = self.params["namespace"], self.params["secret"]
        rights = [
            Right("patch", find_resource("Secret"), namespace, name),
            Right("list", find_resource("Pod"), namespace),
        ]
        missing = require_rights(self.client, rights)
        if missing:
            raise Refusal(
                obj=self.secret.title,
                problem=f"this account may not {join_some([right.rule for right in missing])}",
                next_step="Grant it the Role lowtide-credentials of docs/kubernetes-rights.yml",
            )

    def _begin(self, user: str, current: str) -> None:
        """Give the role a new password, and put it into the Secret."""
        method, old = self.params["method"], self._require_text(self.params["password_key"])
        run_id, at = self.client.run_id, format_utc(self._read_clock())
        note = Note(PREPARING, method, user, current, run_id, at, keys=",".join(self._keys))
        # Nothing of an earlier rotation is lost: its old credential has been ended, or it never came to the switch.
        self._write(note, {})
        password = make_password()
        self._mask(password)
        values: dict[str, str | None] = {
            self.params["username_key"]: user,
            self.params["password_key"]: password,
            **render_templates(self.params["templates"], user, password),
            **list_previous(current, old),
        }
        switched = note._replace(phase=SWITCHED)
        verifier = make_verifier(self.session, user, password)
        if self.is_paired:
            with changed_password(self.session, self.roles[user], verifier):
                pass
            self._require_logins(user, password)
            self._write(switched, values)
            return
        with changed_password(self.session, self.roles[user], verifier):
            self._write(switched, values)

    def _write(self, note: Note, values: dict[str, str | None]) -> None:
        change = SecretChange(values, {ANNOTATION: note.encode()})
        self.secret = write_secret(self.client, self.secret, change)
        self.note = note

    def _require_logins(self, user: str, password: str) -> None:
        owner = self.params["owner"] if self.is_paired else None
        for address in self.addresses:
            require_login(address, user, password, current_user=owner, deadline=self._limit_wait())
            self.outcome.evidence.append(f"{address.host}:{address.port} lets {user} in with the new password")

    def _limit_wait(self) -> Deadline:
        """Return how long an address may take to know of a change."""
        return Deadline(min(PROPAGATION, self.deadline.remaining))

    def _prove(self) -> None:
        """Prove that the credential of the Secret works, and note from when on pods have it."""
        user, password = (self._require_text(self.params[key]) for key in ("username_key", "password_key"))
        role = self.roles.get(user)
        note = self.note
        if role is None or note is None:
            raise Refusal(
                obj=self.secret.title,
                problem=f"its user {user!r} is not one of roles",
                next_step="Correct roles: a rotation of this Secret is under way",
            )
        if self.is_paired:
            # The server had it before the Secret did. Where it is refused now, somebody has changed one of them, and to
            # set the server to what the Secret has would lock out who got it from there in between.
            self._check_login(is_new=True)
        self._prove_credential(user, password, role)
        self._note_since(note._replace(phase=PROVEN, keys=note.keys or ",".join(self._keys)))

    def _prove_credential(self, user: str, password: str, role: Role) -> None:
        """Have the server take a credential, and prove that by logins."""
        self.outcome.evidence.clear()
        if not try_login(self.addresses[0], user, password).is_accepted:
            # A run was killed between its patch of the Secret and the end of its transaction.
            with changed_password(self.session, role, make_verifier(self.session, user, password)):
                self.outcome.changed = self.outcome.write_attempted = True
        self._require_logins(user, password)

    def _note_since(self, note: Note) -> None:
        """Note from when on every pod that is made has the credential of the Secret, and wait until that has come."""
        rotated_at = math.floor(self._read_clock()) + 1
        self._write(note._replace(rotated_at=format_utc(rotated_at)), {})
        while self._read_clock() < rotated_at and not self.deadline.passed:
            self.deadline.pause(rotated_at - self._read_clock())

    def _check_login(self, *, is_new: bool = False) -> None:
        """Fail where the Secret has a password that the server does not take.

        One that ``is_new`` gets time: behind an address there may be several servers, and one of them a moment behind.
        """
        user, password = (self._require_text(self.params[key]) for key in ("username_key", "password_key"))
        refusals = []
        for address in self.addresses:
            place, wait = f"{address.host}:{address.port}", self._limit_wait() if is_new else Deadline(0.0)
            login = wait_for_login(address, user, password, deadline=wait)
            if login.is_accepted:
                self.outcome.evidence.append(f"{place} lets {user} in with the password of the Secret")
            else:
                refusals.append(f"{place} refuses its password of {user}: {login.error}")
        if not refusals:
            return
        step = "Let the role in there as elsewhere (pg_hba.conf; auth_query, or the role in the pooler's userlist)"
        if len(refusals) == len(self.addresses):
            has_previous, key = PREVIOUS_PASSWORD in self.secret.values, self.params["password_key"]
            step = explain_refused(self.note, has_previous=has_previous, key=key)
        raise OpsError(obj=self.secret.title, problem=refusals[0], next_step=step)

    # state: finished

    def finish(self) -> None:
        """End the credential that is not the Secret's, once nobody has it, and prove that it opens nothing."""
        note = self.note
        self._report_finish(note, [], is_done=False)
        if note is None or note.phase in (FINISHED, REVERTED):
            return
        if note.phase not in (PROVEN, REVERTING) or not note.rotated_at:
            is_back = note.phase == REVERTING
            raise Refusal(
                obj=self.secret.title,
                problem=f"its rotation is in phase {note.phase}: that the {'old' if is_back else 'new'} credential"
                " works was not proven yet",
                next_step=f"Run with state {'reverted' if is_back else 'rotated'} first, then replace the pods that use"
                " the Secret",
            )
        is_back = note.phase == REVERTING
        self._refuse_other_user(self._require_text(self.params["username_key"]))
        self.outcome.plan.append(
            PlanItem(
                f"role {note.previous_user}",
                f"its {note.ending} credential is ended",
                "a rotation is taken back" if is_back else "a rotation is under way",
                reversible=False,
            )
        )
        end = REVERTED if is_back else FINISHED
        self.outcome.before, self.outcome.after = {"phase": note.phase}, {"phase": end}
        # Long after the switch no server is a moment behind: whoever is refused then has put another password there.
        self._check_login(is_new=compute_age(note, now=self._read_clock()) < PROPAGATION)
        if self.module.check_mode:
            self.outcome.changed = True
            return
        self.outcome.waited += wait_for_pods(self.client, self.secret, note, deadline=self.deadline)
        proofs = self._end_old(note)
        values: dict[str, str | None] = {PREVIOUS_USER: None, PREVIOUS_PASSWORD: None}
        ended = note._replace(phase=end, at=format_utc(self._read_clock()), run_id=self.client.run_id)
        # How old the password is to which it has gone back is not known.
        self._write(ended._replace(rotated_at="") if is_back else ended, values)
        self._report_finish(note, proofs, is_done=True)

    def _report_finish(self, note: Note | None, proofs: list[str], *, is_done: bool) -> None:
        self.outcome.evidence += proofs
        now = self.note
        self.outcome.facts |= {
            "secret": self.secret.title,
            "user": now.user if now else None,
            "phase": now.phase if now else None,
            "rotating": now is not None and now.phase == PROVEN,
            "rotated_at": now.rotated_at or None if now else None,
        }
        self.outcome.summary = summarize_finish(
            note, title=self.secret.title, proofs=proofs, check_mode=self.module.check_mode, is_done=is_done
        )

    def _end_old(self, note: Note) -> list[str]:
        """Take the password from the role that nobody uses any more, and return the words of those who refuse it."""
        old = self.secret.get_text(PREVIOUS_PASSWORD)
        user, password = (self._require_text(self.params[key]) for key in ("username_key", "password_key"))
        self.outcome.evidence.clear()
        self._require_logins(user, password)
        proofs: list[str] = []
        if note.method == TWO_ROLES:
            role = self.roles.get(note.previous_user)
            if role is None:
                raise Refusal(
                    obj=f"role {note.previous_user}",
                    problem=f"it has the {note.ending} credential and is not one of roles",
                    next_step="Correct roles: a rotation of this Secret is under way",
                )
            self._wait_for_sessions(role.name)
            self.outcome.changed = self.outcome.write_attempted = True
            with changed_password(self.session, role, None):
                pass
        if old is None:
            # Somebody has changed the Secret, so that nobody knows any more what there was to be refused.
            self.outcome.evidence.append(
                f"the {note.ending} password of {note.previous_user} was ended; no login with it was tried, since it is"
                f" in no key of {self.secret.title}"
            )
            return proofs
        for address in self.addresses:
            require_refusal(address, note.previous_user, old, deadline=self._limit_wait())
            proofs.append(f"{address.host}:{address.port} refuses the {note.ending} password of {note.previous_user}")
        return proofs

    def _wait_for_sessions(self, name: str) -> None:
        """Wait until no session of a role is left on the primary and the standbys, and say where was looked."""
        with open_places(self.session, self.addresses) as places:
            why = "its password is to be ended"
            self.outcome.waited += wait_for_sessions(places, name, deadline=self.deadline, why=why)
        self.outcome.evidence.append(f"no session of {name} at {', '.join(places.asked)}")
        for place, reason in places.unasked.items():
            self.outcome.evidence.append(f"sessions at {place} were not asked for: {reason}")
            self.module.warn(f"sessions of {name} at {place} were not asked for: {reason}")
