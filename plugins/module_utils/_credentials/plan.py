# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Decide whether a password is due, whose it will be, and what is done about it; pure.

Private to lowtide.ops: do not import from other collections.
"""

from __future__ import annotations

import base64
import datetime
import secrets
import typing as t
from urllib.parse import quote

from .._common.errors import Refusal
from .._common.outcome import PlanItem
from .._common.text import format_count, format_duration
from .._kubernetes.secrets import PREVIOUS_PASSWORD, PREVIOUS_USER
from .notes import (
    ANNOTATION,
    FINISHED,
    ONE_ROLE,
    PREPARING,
    PROVEN,
    REVERTED,
    REVERTING,
    SWITCHED,
    TWO_ROLES,
    Note,
)

PASSWORD_BYTES = 32
BEGIN, PROVE, HAND_OVER, GO_BACK, NOTHING = "begin", "prove", "hand over", "go back", "nothing"


class Decision(t.NamedTuple):
    """What is to be done next, and why."""

    action: str
    why: str


def decide(note: Note | None, *, now: float, max_age: datetime.timedelta) -> Decision:
    """Return what a run has to do that wants a password no older than ``max_age``; ``now`` is the API server's."""
    if note is None:
        return Decision(BEGIN, "no rotation is noted on it")
    if note.phase == SWITCHED and not note.at:
        return Decision(PROVE, f"it has {PREVIOUS_USER}, and the note of that rotation is gone")
    under_way = {
        PREPARING: Decision(BEGIN, f"run {note.run_id} began at {note.at} and did not come to the switch"),
        SWITCHED: Decision(PROVE, f"run {note.run_id} switched it at {note.at} and did not come to the proof"),
        PROVEN: Decision(HAND_OVER, f"clients are being handed over since {note.rotated_at}"),
        REVERTING: Decision(GO_BACK, f"the rotation that run {note.run_id} began at {note.when} is taken back"),
        REVERTED: Decision(BEGIN, f"the rotation before it was taken back at {note.at}"),
    }
    if note.phase in under_way:
        return under_way[note.phase]
    age = compute_age(note, now=now)
    allowed = format_duration(max_age.total_seconds())
    if age >= max_age.total_seconds():
        return Decision(BEGIN, f"the password is {format_duration(age)} old, allowed are {allowed}")
    return Decision(NOTHING, f"the password is {format_duration(age)} old, younger than {allowed}")


def compute_age(note: Note, *, now: float) -> float:
    """Return how many seconds ago the password of a finished rotation was new. A Refusal for a time that is none."""
    try:
        rotated = datetime.datetime.fromisoformat(note.rotated_at).timestamp()
    except ValueError:
        raise Refusal(
            obj="the note on the Secret",
            problem=f"rotated_at is {note.rotated_at!r}, which is no time",
            next_step=f"Remove the annotation {ANNOTATION}; the next run makes a new password then",
        ) from None
    return max(0.0, now - rotated)


def check_method(method: str, roles: t.Sequence[str], owner: str | None) -> None:
    """Refuse options that do not fit the method."""
    expected = 2 if method == TWO_ROLES else 1
    if len(set(roles)) != expected or len(roles) != expected:
        raise Refusal(
            obj="option roles",
            problem=f"it has {format_count(len(roles), 'name')} ({', '.join(roles)}), and method {method} needs"
            f" {expected} that {'differ' if expected == 2 else 'is the one that logs in'}",
            next_step="Name both roles between which it changes" if expected == 2 else "Name the one role",
        )
    if method == TWO_ROLES and not owner:
        raise Refusal(
            obj="option owner",
            problem=f"it is missing, and method {TWO_ROLES} needs it",
            next_step="Name the role that owns what the application uses, of which both roles are members",
        )
    if owner in roles:
        raise Refusal(
            obj=f"option owner: {owner}",
            problem="it is one of roles",
            next_step="Name a role that nobody logs in as (NOLOGIN)",
        )


def choose_user(method: str, roles: t.Sequence[str], current: str, *, title: str, key: str) -> str:
    """Return the role that gets the new password: the idle one of two, or the only one."""
    if current not in roles:
        raise Refusal(
            obj=f"key {key} of {title}",
            problem=f"it names the role {current!r}, which is not one of roles ({', '.join(roles)})",
            next_step="Correct roles, or the Secret; nothing has been changed",
        )
    if method == ONE_ROLE:
        return current
    return next(role for role in roles if role != current)


def make_password() -> str:
    """Return a new password: 256 bits, of letters, digits, - and _, so that it needs no quoting in a URL or a DSN."""
    return secrets.token_urlsafe(PASSWORD_BYTES)


def render_templates(templates: t.Mapping[str, str], user: str, password: str) -> dict[str, str]:
    """Return the values of keys that contain the credential, such as a connection URI."""
    return {
        key: template.replace("{username}", user).replace("{password}", password) for key, template in templates.items()
    }


def find_copies(values: t.Mapping[str, bytes], password: str, known: t.Collection[str]) -> list[str]:
    """Return the keys beside the ``known`` ones whose value has the password in it, which would not follow."""
    texts = {password.encode(), quote(password, safe="").encode(), base64.b64encode(password.encode())}
    own = {*known, PREVIOUS_PASSWORD, PREVIOUS_USER}
    return sorted(key for key, value in values.items() if key not in own and any(text in value for text in texts))


def refuse_copies(keys: t.Sequence[str], *, title: str) -> None:
    """Refuse a Secret with further keys that have the password: who uses them would be locked out."""
    if keys:
        raise Refusal(
            obj=f"key {', '.join(keys)} of {title}",
            problem="it has the password that clients have now, and would go on having it after the rotation",
            next_step="Give it in templates, as in {username}:{password}, or take it out of the Secret if nobody uses"
            " it",
        )


def refuse_interruption(user: str, *, sessions: int, title: str) -> None:
    """Refuse to change the password of a role that clients use at the moment, saying what that means for them."""
    raise Refusal(
        obj=f"role {user}",
        problem=f"with method {ONE_ROLE} every new login with the password that clients have now is refused from the"
        f" change on until they have been restarted with {title}; {format_count(sessions, 'session')} of it that are"
        " open now go on, and cannot come back",
        next_step=f"Use method {TWO_ROLES}, which has no such time, or set accept_interruption to true",
    )


def plan_rotation(
    method: str, *, user: str, previous: str, title: str, keys: t.Sequence[str], decision: Decision
) -> list[PlanItem]:
    """Return everything that a rotation does from here on, in its order."""
    set_password = PlanItem(f"role {user}", "a new password, as a SCRAM verifier", decision.why)
    switch = PlanItem(title, f"{', '.join(keys)}: the new credential of {user}", decision.why)
    hand_over = PlanItem("pods that use the Secret", "have to be replaced", "they have the old credential")
    what = "no password any more" if method == TWO_ROLES else "the old password is refused"
    retire = PlanItem(f"role {previous}", what, "nobody needs the old credential then", reversible=False)
    steps = {BEGIN: [set_password, switch, hand_over, retire], PROVE: [hand_over, retire]}
    return steps.get(decision.action, [])


def take_up(
    values: t.Mapping[str, bytes], *, method: str, user: str | None, roles: t.Sequence[str], run_id: str
) -> Note | None:
    """Return what is to be noted of a rotation whose note is gone; None where none is under way.

    As long as one is, the Secret has the keys of the other credential. That of the Secret is proven then, every pod of
    before that is taken for one that has the other, and the other is ended as an old one: whichever way it went.
    """
    if PREVIOUS_USER not in values or not user:
        return None
    previous = values[PREVIOUS_USER].decode("utf-8", "replace")
    if method == TWO_ROLES and previous == user:
        previous = next((role for role in roles if role != user), previous)
    return Note(SWITCHED, method, user, previous, run_id, "")


_GO_BACK = "Run with state reverted: that puts the credential of {} back, and clients that have either go on"


def explain_other_user(note: Note, current: str) -> str:
    """Return what to do about a Secret that names another role than its note says."""
    if note.phase in (SWITCHED, PROVEN):
        return _GO_BACK.format(note.previous_user)
    if note.phase == REVERTING:
        return f"Find out who changed it; to go on with what there is, remove annotation {ANNOTATION}"
    return (
        f"Put {note.holder} there again, which clients log in as, and run with max_age 0s where its password is lost;"
        f" if all of them were restarted with {current}, remove annotation {ANNOTATION}"
    )


def explain_refused(note: Note | None, *, has_previous: bool, key: str) -> str:
    """Return what to do about a Secret whose password no address takes."""
    if note is not None and note.phase in (SWITCHED, PROVEN) and has_previous:
        return _GO_BACK.format(note.previous_user)
    if note is None or note.phase in (FINISHED, REVERTED):
        return "Find out who changed the password or the Secret; with max_age 0s a new one is made now"
    return f"Put the password that running pods have (kubectl exec POD -- env) into key {key}, and run again"


def list_previous(user: str, password: str | None) -> dict[str, str | None]:
    """Return the keys that keep the other credential until it is proven to be dead; None where it is not known."""
    return {PREVIOUS_USER: user, PREVIOUS_PASSWORD: password}


def summarize_rotation(
    action: str, *, title: str, user: str, previous: str, why: str, check_mode: bool, is_done: bool = True
) -> str:
    """Return the one line about a run that wants a young password."""
    if action == NOTHING:
        return f"nothing to do for {title}: {why}; {user} can log in with it"
    if action == HAND_OVER:
        return f"{title} has the new credential of {user}: {why}"
    if action == GO_BACK:
        return f"{title} has the old credential of {user} again: {why}"
    who = f"from {previous} to {user}" if previous != user else f"to a new password of {user}"
    if check_mode:
        return f"would switch {title} {who}: {why}"
    if not is_done:
        return f"did not switch {title} {who}"
    return f"switched {title} {who}, and {user} can log in with it: {why}"


def summarize_finish(note: Note | None, *, title: str, proofs: t.Sequence[str], check_mode: bool, is_done: bool) -> str:
    """Return the one line about a run that ends a rotation."""
    if note is None or note.phase in (FINISHED, REVERTED):
        return f"no rotation of {title} is under way"
    ended = f"the {note.ending} credential of {note.previous_user}"
    if check_mode:
        return f"would end {ended}, once no pod of before {note.rotated_at} is left"
    if not is_done:
        return f"{ended} was not ended"
    places = format_count(len(proofs), "server")
    has = "the old credential of {} again" if note.phase == REVERTING else "the credential of {}"
    return f"{title} has {has.format(note.user)}; the {note.ending} one of {note.previous_user} is refused by {places}"


def plan_reversion(note: Note, *, title: str, keys: t.Sequence[str]) -> list[PlanItem]:
    """Return what going back does, in its order."""
    why = f"the rotation that run {note.run_id} began at {note.when} is taken back"
    back = PlanItem(title, f"{', '.join(keys)}: the old credential of {note.previous_user}", why)
    if note.method == TWO_ROLES:
        return [back]
    return [PlanItem(f"role {note.previous_user}", "its old password, as a SCRAM verifier", why), back]


def summarize_reversion(note: Note | None, *, title: str, check_mode: bool, is_done: bool) -> str:
    """Return the one line about a run that goes back to the old credential."""
    if note is None or note.phase in (FINISHED, REVERTED, PREPARING):
        return f"nothing to take back for {title}: it has the credential that it had before"
    if note.phase == REVERTING:
        return f"{title} has the old credential of {note.user} again, and {note.user} can log in with it"
    who = f"back to the old credential of {note.previous_user}"
    if check_mode:
        return f"would switch {title} {who}"
    return f"switched {title} {who}" if is_done else f"did not switch {title} {who}"
