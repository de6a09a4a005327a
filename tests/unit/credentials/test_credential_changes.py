# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What follows where somebody else has changed the Secret of a rotation, or its note is gone."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from ansible_collections.lowtide.ops.plugins.module_utils._credentials.notes import (
    ANNOTATION,
    FINISHED,
    ONE_ROLE,
    PHASES,
    PREPARING,
    PROVEN,
    REVERTED,
    SWITCHED,
    TWO_ROLES,
    Note,
)
from ansible_collections.lowtide.ops.plugins.module_utils._credentials.plan import (
    PROVE,
    Decision,
    decide,
    explain_other_user,
    explain_refused,
    take_up,
)
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.secrets import (
    PREVIOUS_PASSWORD,
    PREVIOUS_USER,
    Secret,
    find_credential_blocker,
    find_last_change,
)

Json = dict[str, Any]
ROTATED = "2026-05-04T02:00:00Z"
THEN = 1777860000.0
OWN = {"keys": "username,password"}


def note(phase: str) -> Note:
    """A note of a run."""
    return Note(phase, TWO_ROLES, "shop_b", "shop_a", "run-1", "2026-05-04T01:59:00Z", ROTATED)


def read_secret(**metadata: Any) -> Secret:
    """A Secret as the server sends it."""
    return Secret.from_object({"metadata": {"namespace": "shop", "name": "db", **metadata}})


@pytest.mark.parametrize(
    ("method", "user", "previous", "ended"),
    [
        (TWO_ROLES, "shop_b", "shop_a", "shop_a"),
        (TWO_ROLES, "shop_a", "shop_a", "shop_b"),  # somebody has put the old one back
        (ONE_ROLE, "shop_a", "shop_a", "shop_a"),
    ],
)
def test_a_rotation_without_a_note_is_taken_up(method: str, user: str, previous: str, ended: str) -> None:
    """The credential of the Secret is proven, and the other role is ended; how old it is does not count."""
    given: Json = {"method": method, "roles": ["shop_a", "shop_b"], "run_id": "run-2"}
    made = take_up({PREVIOUS_USER: previous.encode(), PREVIOUS_PASSWORD: b"x"}, user=user, **given)
    assert made == Note(SWITCHED, method, user, ended, "run-2", "")
    why = "it has lowtide.previous-username, and the note of that rotation is gone"
    assert decide(made, now=THEN, max_age=timedelta(0)) == Decision(PROVE, why)
    assert take_up({"password": b"x"}, user=user, **given) is None
    assert take_up({PREVIOUS_USER: b"shop_a"}, user=None, **given) is None


@pytest.mark.parametrize("phase", PHASES)
def test_each_phase_says_what_to_do_about_another_credential(phase: str) -> None:
    """Under way it is taken back; before and after that, the role that clients use is put there again."""
    given = note(phase)
    is_under_way, is_over = phase in (SWITCHED, PROVEN), phase in (FINISHED, REVERTED)
    assert given.holder == ("shop_a" if phase == PREPARING else "shop_b")
    user, refused = explain_other_user(given, "c"), explain_refused(given, has_previous=True, key="pw")
    assert ("Run with state reverted: that puts the credential of shop_a back" in user) is is_under_way
    assert ("Run with state reverted" in refused) is is_under_way
    assert (f"Put {given.holder} there again" in user) is (is_over or phase == PREPARING)
    assert ("with max_age 0s a new one is made" in refused) is is_over
    assert ("into key pw" in explain_refused(given, has_previous=False, key="pw")) is not is_over


@pytest.mark.parametrize(
    ("text", "keys", "held"),
    [
        (None, ["password"], ""),
        (note(FINISHED)._replace(**OWN).encode(), ["other"], ""),
        (note(FINISHED)._replace(**OWN).encode(), ["password", "other"], "key password is"),
        (note(FINISHED)._replace(**OWN).encode(), [PREVIOUS_PASSWORD], f"key {PREVIOUS_PASSWORD} is"),
        (note(FINISHED).encode(), ["other"], "key other is"),
        ("no json", ["other"], "key other is"),
        ("[]", ["other"], "key other is"),
    ],
)
def test_keys_of_a_rotation_are_held(text: str | None, keys: list[str], held: str) -> None:
    """All of them where the note does not say which."""
    blocker = find_credential_blocker(read_secret(annotations={} if text is None else {ANNOTATION: text}), keys)
    assert (blocker is not None) is bool(held)
    assert (blocker.what if blocker else "").startswith(held)


def test_when_a_credential_was_changed_is_told_by_its_managers() -> None:
    """By the last one of these keys; without managers by the age of the Secret."""
    entries = [("a", "f:password", "03"), ("b", "f:username", "04"), ("c", "f:other", "05")]
    managed = [
        {"manager": name, "time": f"2026-05-04T02:00:{second}Z", "fieldsV1": {"f:data": {key: {}}}}
        for name, key, second in entries
    ]
    secret = read_secret(creationTimestamp=ROTATED, managedFields=managed)
    assert find_last_change(secret, ["username", "password"]) == THEN + 4
    assert find_last_change(read_secret(creationTimestamp=ROTATED), ["username", "password"]) == THEN
