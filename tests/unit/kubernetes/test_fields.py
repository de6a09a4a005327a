# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Fields that may be missing, null, or of another type than expected."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.fields import (
    as_dict,
    as_int,
    as_list,
    as_text,
    as_time,
    get_path,
    parse_http_date,
)

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)


@given(json_values)
def test_every_function_bears_every_value(value: Any) -> None:
    """The type is always the one that the name promises."""
    assert isinstance(as_int(value), int)
    assert isinstance(as_dict(value), dict)
    assert isinstance(as_list(value), list)
    assert isinstance(as_text(value), str)
    assert as_time(value) is None or isinstance(as_time(value), float)
    assert get_path(value, "a", "b") is None or isinstance(value, dict)


@pytest.mark.parametrize(
    ("keys", "value"),
    [
        ((), {"a": {"b": [1]}, "n": None, "t": "text"}),
        (("a",), {"b": [1]}),
        (("a", "b"), [1]),
        (("a", "x"), None),
        (("n", "b"), None),
        (("t", "b"), None),
        (("a", "b", "c"), None),
    ],
)
def test_get_path(keys: tuple[str, ...], value: Any) -> None:
    """None wherever the path ends too early."""
    assert get_path({"a": {"b": [1]}, "n": None, "t": "text"}, *keys) == value


@pytest.mark.parametrize(
    ("value", "expected"), [(None, 7), (0, 0), (3, 3), ("12", 12), ("x", 7), ([], 7), ({}, 7), (2.9, 2)]
)
def test_as_int(value: Any, expected: int) -> None:
    """Zero is a number, null is none."""
    assert as_int(value, 7) == expected


def test_the_default_of_as_int_is_zero() -> None:
    """As of most numbers of a status."""
    assert as_int(None) == 0


def test_nothing_is_copied() -> None:
    """Thousands of pods are read this way."""
    mapping, sequence = {"a": 1}, [1]
    assert as_dict(mapping) is mapping
    assert as_list(sequence) is sequence
    assert (as_dict([1]), as_list({"a": 1}), as_text(None), as_text(5)) == ({}, [], "", "5")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("2026-05-01T10:00:00Z", 1777629600.0),
        ("2026-05-01T10:00:00.250000Z", 1777629600.25),
        ("2026-05-01T12:00:00+02:00", 1777629600.0),
        ("2026-05-01T10:00:00", 1777629600.0),
        ("yesterday", None),
        ("", None),
        (None, None),
        (5, None),
    ],
)
def test_as_time(text: Any, seconds: float | None) -> None:
    """A time without a zone is UTC, as all of Kubernetes' are."""
    assert as_time(text) == seconds


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("Fri, 01 May 2026 10:00:00 GMT", 1777629600.0),
        ("Fri, 99 May 2026 10:00:00 GMT", None),
        ("Fri, 01 May 2026 10:00:00 +99999999999999999", None),
        ("2026-05-01T10:00:00Z", None),
        ("", None),
        (None, None),
    ],
)
def test_parse_http_date(text: str | None, seconds: float | None) -> None:
    """As the header Date has it, and nothing else."""
    assert parse_http_date(text) == seconds


@given(st.text())
def test_parse_http_date_bears_every_text(text: str) -> None:
    """A header may say anything."""
    assert parse_http_date(text) is None or isinstance(parse_http_date(text), float)
