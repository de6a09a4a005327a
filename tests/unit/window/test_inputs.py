# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The digest of a role's inputs: which system it is belongs to it; how one gets there and as whom does not."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.lowtide.ops.plugins.plugin_utils._window.inputs import (
    IDENTITY_KEYS,
    as_plain,
    compute_digest,
    is_connection,
    keep_identity,
)

CONNECTION = {"login_db": "shop", "system_identifier": "7", "login_host": "pg1", "passfile": "/tmp/awx_1/pass"}
INPUTS: dict[str, Any] = {
    "backup_connection": CONNECTION,
    "backup_bucket": "b",
    "backup_max_age": 3600,
    "other_bucket": "x",
    "backupper": 1,
    "backup_result": {"changed": True},
}


def digest(template: Any = lambda value: value, **changes: Any) -> str:
    """Return the digest of the inputs with changes."""
    return compute_digest("backup", {**INPUTS, **changes}, template)


@pytest.mark.parametrize(
    "changes",
    [
        {"other_bucket": "y"},
        {"backupper": 2},
        {"backup_result": None},
        {"backup_check_result": {"at": 2}},
        {"backup_password": "other"},
        {"backup_connection": {**CONNECTION, "passfile": "/tmp/awx_2/pass"}},
        {"backup_connection": {**CONNECTION, "login_user": "eve", "connect_timeout": 9}},
        {"backup_connection": dict(reversed(CONNECTION.items()))},
    ],
)
def test_what_does_not_change_it(changes: dict[str, Any]) -> None:
    assert digest(**changes) == digest()


@pytest.mark.parametrize(
    "changes",
    [
        {"backup_bucket": "c"},
        {"backup_max_age": "3600"},
        {"backup_max_age": True},
        {"backup_new": None},
        {"backup_connection": {**CONNECTION, "login_db": "crm"}},
        {"backup_connection": {**CONNECTION, "system_identifier": "8"}},
        {"backup_connection": {}},
        {"backup_connection": "{{ nothing }}"},
    ],
)
def test_what_changes_it(changes: dict[str, Any]) -> None:
    assert digest(**changes) != digest()


def test_each_key_of_an_identity_counts() -> None:
    for key in IDENTITY_KEYS:
        assert digest(backup_kafka_connection={key: "a"}) != digest(backup_kafka_connection={key: "b"}), key


def test_values_are_resolved_first() -> None:
    resolved = {"{{ bucket }}": "b"}
    assert digest(lambda value: resolved.get(value, value) if isinstance(value, str) else value,
                  backup_bucket="{{ bucket }}") == digest()  # fmt: skip


def test_it_is_short_and_stays_the_same_across_releases() -> None:
    assert digest() == compute_digest("backup", INPUTS, lambda value: value)
    assert compute_digest("a", {"a_b": [1, {"c": None}], "a_connection": {"brokers": ["k:9092"], "sasl_password": "s"}},
                          lambda value: value) == "ec96ef617ad0daf7"  # fmt: skip


def test_connections_are_known_by_name() -> None:
    assert is_connection("backup_s3_connection")
    assert not is_connection("backup_connections")
    assert keep_identity({"login_db": "a", "login_password": "secret"}) == {"login_db": "a"}
    assert keep_identity("text") == "text"


class Tagged(str):
    """A text with something more, as Ansible's values are."""


class Number(int):
    """A number with something more."""


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=6,
    )
)
def test_plain_values_stay_as_they_are(value: Any) -> None:
    assert as_plain(value) == value


def test_values_with_something_more_become_plain() -> None:
    plain = as_plain({Tagged("k"): (Tagged("v"), Number(3), {1: Tagged("x")}), "o": object})
    assert type(plain["k"][0]) is str
    assert type(plain["k"][1]) is int
    assert plain["k"] == ["v", 3, {"1": "x"}]
    assert isinstance(plain["o"], str)
