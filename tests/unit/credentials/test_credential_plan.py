# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""When a password is due, whose it will be, what is noted, and which pods may still have the old one."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

import pytest

from ansible_collections.lowtide.ops.plugins.module_utils._common.errors import Refusal
from ansible_collections.lowtide.ops.plugins.module_utils._credentials.clients import find_old_pods
from ansible_collections.lowtide.ops.plugins.module_utils._credentials.notes import (
    ANNOTATION,
    FINISHED,
    ONE_ROLE,
    PHASES,
    PREPARING,
    PROVEN,
    REVERTED,
    REVERTING,
    SWITCHED,
    TWO_ROLES,
    Note,
    read_note,
)
from ansible_collections.lowtide.ops.plugins.module_utils._credentials.plan import (
    BEGIN,
    GO_BACK,
    HAND_OVER,
    NOTHING,
    PROVE,
    Decision,
    check_method,
    choose_user,
    decide,
    find_copies,
    make_password,
    plan_rotation,
    refuse_copies,
    refuse_interruption,
    render_templates,
    summarize_finish,
    summarize_rotation,
)
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.secrets import (
    PREVIOUS_PASSWORD,
    Secret,
    find_secret_owners,
)
from ansible_collections.lowtide.ops.plugins.module_utils._postgresql.roles import Role, refuse_ending

Json = dict[str, Any]
ROTATED = "2026-05-04T02:00:00Z"
THEN = 1777860000.0
DAY = 86400.0
MAX_AGE = timedelta(days=90)


def note(phase: str, rotated_at: str = ROTATED) -> Note:
    """A note of a run."""
    return Note(phase, TWO_ROLES, "shop_b", "shop_a", "run-1", "2026-05-04T01:59:00Z", rotated_at)


@pytest.mark.parametrize(
    ("given", "days", "action", "why"),
    [
        (None, 0, BEGIN, "no rotation is noted on it"),
        (note(PREPARING), 0, BEGIN, "run run-1 began at 2026-05-04T01:59:00Z and did not come to the switch"),
        (note(SWITCHED), 200, PROVE, "run run-1 switched it at 2026-05-04T01:59:00Z and did not come to the proof"),
        (note(PROVEN), 200, HAND_OVER, "clients are being handed over since 2026-05-04T02:00:00Z"),
        (note(REVERTING), 200, GO_BACK, "the rotation that run run-1 began at 2026-05-04T01:59:00Z is taken back"),
        (note(REVERTED, ""), 0, BEGIN, "the rotation before it was taken back at 2026-05-04T01:59:00Z"),
        (note(FINISHED), 89, NOTHING, "the password is 89 d old, younger than 90 d"),
        (note(FINISHED), 90, BEGIN, "the password is 90 d old, allowed are 90 d"),
        (note(FINISHED), -1, NOTHING, "the password is 0 s old, younger than 90 d"),
    ],
)
def test_what_is_due_follows_from_the_note(given: Note | None, days: int, action: str, why: str) -> None:
    """A rotation that is under way is ended, however old it is; a new one never begins before that."""
    assert decide(given, now=THEN + days * DAY, max_age=MAX_AGE) == Decision(action, why)


def test_a_time_that_is_none_is_refused() -> None:
    with pytest.raises(Refusal, match="rotated_at is 'yesterday'"):
        decide(note(FINISHED, "yesterday"), now=THEN, max_age=MAX_AGE)


@pytest.mark.parametrize("phase", PHASES)
def test_what_is_noted_is_read_again(phase: str) -> None:
    given = note(phase)
    assert read_note({ANNOTATION: given.encode()}, title="Secret shop/db") == given
    assert read_note({"other": "x"}, title="Secret shop/db") is None


@pytest.mark.parametrize(
    "text",
    [
        "no json",
        "[]",
        "null",
        "{}",
        '{"format": 2}',
        note("asleep").encode(),
        note(PROVEN).encode().replace(TWO_ROLES, "three_roles"),
        note(PROVEN).encode().replace('"user"', '"who"'),
    ],
)
def test_a_note_that_is_not_understood_is_refused(text: str) -> None:
    with pytest.raises(Refusal, match=r"annotation lowtide\.ops/credential of Secret shop/db: it is not understood"):
        read_note({ANNOTATION: text}, title="Secret shop/db")


@pytest.mark.parametrize(
    ("method", "roles", "owner", "words"),
    [
        (TWO_ROLES, ["a"], "o", "needs 2 that differ"),
        (TWO_ROLES, ["a", "a"], "o", "needs 2 that differ"),
        (TWO_ROLES, ["a", "b", "c"], "o", "needs 2 that differ"),
        (TWO_ROLES, ["a", "b"], None, "option owner: it is missing"),
        (TWO_ROLES, ["a", "b"], "b", "it is one of roles"),
        (ONE_ROLE, ["a", "b"], None, "needs 1"),
    ],
)
def test_options_that_do_not_fit_are_refused(method: str, roles: list[str], owner: str | None, words: str) -> None:
    with pytest.raises(Refusal, match=words):
        check_method(method, roles, owner)


def test_other_keys_with_the_password_are_refused() -> None:
    """As it is, in a URI, or encoded; the previous credential and templates are known."""
    values = {
        "password": b"p@ss word",
        "uri": b"postgresql://a:p%40ss%20word@db/shop",
        "pgpass": b"db:5432:shop:a:p@ss word",
        "encoded": b"cEBzcyB3b3Jk",
        "given": b"a:p@ss word",
        "other": b"pass",
        PREVIOUS_PASSWORD: b"p@ss word",
    }
    keys = find_copies(values, "p@ss word", ["password", "given"])
    assert keys == ["encoded", "pgpass", "uri"]
    with pytest.raises(Refusal, match=r"key encoded, pgpass, uri of Secret shop/db: it has the password") as caught:
        refuse_copies(keys, title="Secret shop/db")
    assert "word" not in str(caught.value).replace("password", "")
    refuse_copies([], title="Secret shop/db")


def test_a_role_that_ends_before_the_next_rotation_is_refused() -> None:
    """VALID UNTIL is of the role, and a new password does not move it."""
    role = Role("b", 1, True, False, False, "", [], [], [], 0, True, True)
    refuse_ending(role, seconds=90 * DAY)
    refuse_ending(role._replace(valid_seconds=91 * DAY), seconds=90 * DAY)
    for seconds in (DAY, 90 * DAY, -1.0):
        with pytest.raises(Refusal, match=r"VALID UNTIL is in .* ALTER ROLE b VALID UNTIL 'infinity'"):
            refuse_ending(role._replace(valid_seconds=seconds), seconds=90 * DAY)


def write_secret(*, labels: Json, annotations: Json, manager: str) -> Secret:
    """A Secret that a manager has written."""
    fields: Json = {"f:data": {"f:password": {}}}
    return Secret.from_object(
        {
            "metadata": {
                "namespace": "shop",
                "name": "db",
                "labels": labels,
                "annotations": annotations,
                "managedFields": [{"manager": manager, "operation": "Update", "fieldsV1": fields}],
            },
            "data": {"password": "eA=="},
        }
    )


@pytest.mark.parametrize(
    ("labels", "annotations", "manager", "words"),
    [
        ({"reconcile.external-secrets.io/managed": "true"}, {}, "x", "External Secrets Operator"),
        ({}, {}, "external-secrets", "External Secrets Operator"),
        ({"app.kubernetes.io/managed-by": "hashicorp-vso"}, {}, "x", "Vault Secrets Operator"),
        ({"app.kubernetes.io/managed-by": "Helm"}, {}, "x", "Helm"),
        ({}, {"meta.helm.sh/release-name": "shop"}, "x", "Helm"),
        ({}, {}, "helm", "Helm (manager helm)"),
        ({}, {}, "HashiCorp", "Terraform"),
    ],
)
def test_who_writes_a_secret_from_elsewhere_is_named(labels: Json, annotations: Json, manager: str, words: str) -> None:
    """It would put the old password back, which the server refuses by then."""
    secret = write_secret(labels=labels, annotations=annotations, manager=manager)
    (blocker,) = find_secret_owners(secret, ["password"])
    assert f"it is kept by {words}" in blocker.what
    assert "gitops" in blocker.next_step


def test_a_person_does_not_keep_a_secret() -> None:
    """Nor does another label."""
    labels = {"app.kubernetes.io/managed-by": "shop-team"}
    for manager in ("kubectl-create", "kubectl-edit", "lowtide.ops"):
        assert find_secret_owners(write_secret(labels=labels, annotations={}, manager=manager), ["password"]) == []


def test_the_idle_one_of_two_gets_the_password() -> None:
    place = {"title": "Secret shop/db", "key": "username"}
    assert choose_user(TWO_ROLES, ["a", "b"], "a", **place) == "b"
    assert choose_user(TWO_ROLES, ["a", "b"], "b", **place) == "a"
    assert choose_user(ONE_ROLE, ["a"], "a", **place) == "a"
    with pytest.raises(Refusal, match=r"names the role 'c', which is not one of roles \(a, b\)"):
        choose_user(TWO_ROLES, ["a", "b"], "c", **place)


def test_a_password_needs_no_quotes_anywhere() -> None:
    passwords = {make_password() for _number in range(200)}
    assert len(passwords) == 200
    assert all(re.fullmatch(r"[-\w]{43}", password, re.ASCII) for password in passwords)


def test_templates_are_not_formats() -> None:
    """Other braces stay."""
    templates = {"uri": "postgresql://{username}:{password}@db/{x}", "again": "{password}{password}"}
    assert render_templates(templates, "a", "p") == {"uri": "postgresql://a:p@db/{x}", "again": "pp"}


def test_the_plan_ends_with_the_end_of_the_old_one() -> None:
    given: Json = {"user": "b", "previous": "a", "title": "Secret shop/db", "keys": ["username", "password"]}
    whole = plan_rotation(TWO_ROLES, **given, decision=Decision(BEGIN, "why"))
    assert [item.object for item in whole] == ["role b", "Secret shop/db", "pods that use the Secret", "role a"]
    assert [item.reversible for item in whole] == [True, True, True, False]
    rest = plan_rotation(TWO_ROLES, **given, decision=Decision(PROVE, "why"))
    assert [item.object for item in rest] == ["pods that use the Secret", "role a"]
    assert plan_rotation(TWO_ROLES, **given, decision=Decision(NOTHING, "why")) == []


def test_an_interruption_is_stated() -> None:
    with pytest.raises(Refusal) as raised:
        refuse_interruption("a", sessions=3, title="Secret shop/db")
    assert "every new login with the password that clients have now is refused from the change on" in str(raised.value)
    assert "3 sessions of it that are open now go on" in str(raised.value)
    assert "set accept_interruption to true" in str(raised.value)


@pytest.mark.parametrize(
    ("action", "check_mode", "is_done", "summary"),
    [
        (BEGIN, True, False, "would switch S from a to b: old"),
        (BEGIN, False, True, "switched S from a to b, and b can log in with it: old"),
        (BEGIN, False, False, "did not switch S from a to b"),
        (HAND_OVER, False, True, "S has the new credential of b: old"),
        (NOTHING, False, True, "nothing to do for S: old; b can log in with it"),
    ],
)
def test_one_line_says_what_was_done(action: str, check_mode: bool, is_done: bool, summary: str) -> None:
    given = {"title": "S", "user": "b", "previous": "a", "why": "old"}
    assert summarize_rotation(action, **given, check_mode=check_mode, is_done=is_done) == summary


def test_one_line_says_how_it_ended() -> None:
    given: Json = {"title": "S", "check_mode": False}
    assert summarize_finish(None, **given, proofs=[], is_done=False) == "no rotation of S is under way"
    ended = summarize_finish(note(PROVEN), **given, proofs=["x", "y"], is_done=True)
    assert ended == "S has the credential of shop_b; the old one of shop_a is refused by 2 servers"


def pod(name: str, created: str, phase: str = "Running", **spec: Any) -> Json:
    """A pod as the server sends it."""
    return {"metadata": {"name": name, "creationTimestamp": created}, "status": {"phase": phase}, "spec": spec}


def test_pods_that_may_have_the_old_credential() -> None:
    """By variable, by all variables, and by a volume; not those that have ended, are younger, or use another Secret."""
    before, after = "2026-05-04T01:00:00Z", ROTATED
    variable = {"name": "P", "valueFrom": {"secretKeyRef": {"name": "db", "key": "password"}}}
    by_variable: Json = {"containers": [{"name": "main", "env": [variable]}]}
    by_all: Json = {"containers": [{"name": "main", "envFrom": [{"secretRef": {"name": "db"}}]}]}
    by_volume: Json = {"containers": [], "volumes": [{"name": "v", "secret": {"secretName": "db"}}]}
    other: Json = {"containers": [], "volumes": [{"name": "v", "secret": {"secretName": "other"}}]}
    pods = [
        pod("variable", before, **by_variable),
        pod("pending", before, "Pending", **by_variable),
        pod("all", before, **by_all),
        pod("volume", before, **by_volume),
        pod("ended", before, "Succeeded", **by_all),
        pod("young", after, **by_all),
        pod("other", before, **other),
    ]
    assert find_old_pods(pods, "db", THEN) == ["variable", "pending", "all", "volume"]


def test_pods_that_may_have_what_a_rotation_is_taken_back_from() -> None:
    """Those that got it in between: made or started then, or with a volume, whose files follow the Secret."""
    by_variable: Json = {"containers": [{"name": "a", "envFrom": [{"secretRef": {"name": "db"}}]}]}
    by_volume: Json = {"containers": [{"name": "a"}], "volumes": [{"name": "v", "secret": {"secretName": "db"}}]}

    def pod(name: str, second: int, spec: Json, started: int | None = None) -> Json:
        state: Json = (
            {"waiting": {}} if started is None else {"running": {"startedAt": f"2026-05-04T02:00:{started:02}Z"}}
        )
        made = {"name": name, "creationTimestamp": f"2026-05-04T02:00:{second:02}Z"}
        status = {"phase": "Running", "containerStatuses": [{"name": "a", "state": state}]}
        return {"metadata": made, "spec": spec, "status": status}

    pods = [
        pod("before", 1, by_variable, 2),
        pod("crashing", 1, by_variable),
        pod("made in between", 10, by_variable, 11),
        pod("started in between", 1, by_variable, 15),
        pod("started after", 1, by_variable, 20),
        pod("volume", 1, by_volume, 2),
        pod("after", 20, by_variable, 21),
    ]
    assert find_old_pods(pods, "db", THEN + 20, THEN + 10) == ["made in between", "started in between", "volume"]
