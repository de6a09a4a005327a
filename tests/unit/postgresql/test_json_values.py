# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Values of PostgreSQL become values of JSON and lose nothing; places in a statement are counted as an editor counts them."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.lowtide.ops.plugins.module_utils._common.errors import OpsError, Refusal
from ansible_collections.lowtide.ops.plugins.module_utils._postgresql.json_values import format_time, to_json_value
from ansible_collections.lowtide.ops.plugins.module_utils._postgresql.operations.query_info import (
    check_options,
    locate,
    refuse_ambiguous_columns,
    summarize_rows,
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-11-26 03:00:00+00", "2026-11-26T03:00:00Z"),
        ("2026-11-26 03:00:00.123456+01", "2026-11-26T03:00:00.123456+01:00"),
        ("2026-11-26 03:00:00-03:30", "2026-11-26T03:00:00-03:30"),
        ("2026-11-26 03:00:00", "2026-11-26T03:00:00"),
        ("2026-11-26", "2026-11-26"),
        ("03:00:00", "03:00:00"),
        ("infinity", "infinity"),
        ("0044-03-15 00:00:00+00 BC", "0044-03-15 00:00:00+00 BC"),
        ("1 mon 2 days 03:04:05", "1 mon 2 days 03:04:05"),
    ],
)
def test_times_are_rfc_3339_where_it_can_say_them(text: str, expected: str) -> None:
    """With and without an offset, dates, infinity, before Christ, intervals."""
    assert format_time(text) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        (True, True),
        (2**63 - 1, 2**63 - 1),
        (1.5, 1.5),
        (float("nan"), "NaN"),
        (float("-inf"), "-Infinity"),
        (Decimal("12345678901234567890"), 12345678901234567890),
        (Decimal("1.50"), "1.50"),
        (Decimal("0.1000000000000000055511151231257827"), "0.1000000000000000055511151231257827"),
        (Decimal("1E-7"), "0.0000001"),
        (Decimal("NaN"), "NaN"),
        (Decimal("Infinity"), "Infinity"),
        (memoryview(b"\x00\xff"), "\\x00ff"),
        ([Decimal("1.5"), None, [memoryview(b"a")]], ["1.5", None, ["\\x61"]]),
        ({"a": [1, {"b": None}]}, {"a": [1, {"b": None}]}),
    ],
)
def test_values_are_kept(value: Any, expected: Any) -> None:
    """Each kind that the driver gives, and nested ones; the type as well, so that 1 is not True."""
    converted = to_json_value(value)
    assert (converted, type(converted)) == (expected, type(expected))
    assert json.loads(json.dumps(converted, allow_nan=False)) == expected


@given(st.decimals(allow_nan=False, allow_infinity=False))
def test_no_digit_of_a_numeric_is_lost(value: Decimal) -> None:
    """Back from what was returned comes the same number."""
    assert Decimal(to_json_value(value)) == value


@pytest.mark.parametrize(
    ("statement", "position", "expected"),
    [
        ("SELECT nosuch", 8, "at line 1, column 8, near 'nosuch'"),
        ("SELECT 1\nFROM nosuch", 15, "at line 2, column 6, near 'nosuch'"),
        ("\n\nSELECT ,", 10, "at line 3, column 8, near ','"),
        ("SELECT", 7, "at line 1, column 7"),
    ],
)
def test_places_are_counted_from_one(statement: str, position: int, expected: str) -> None:
    """Also at a line's start, at a sign, and at the end of the text."""
    assert locate(statement, position) == expected


@pytest.mark.parametrize(
    ("option", "value", "problem"),
    [("query", " \n", "it is empty"), ("max_rows", 0, "it is 0"), ("timeout", -1.5, "it is -1.5")],
)
def test_options_that_cannot_be_meant_are_refused(option: str, value: Any, problem: str) -> None:
    """Before anything is connected; the least that can be meant is not."""
    options = {"query": "SELECT 1", "max_rows": 1, "timeout": 0.001}
    check_options(options)
    with pytest.raises(Refusal, match=problem) as caught:
        check_options({**options, option: value})
    assert option in caught.value.obj


def test_columns_of_one_name_are_refused() -> None:
    """By name, each once."""
    refuse_ambiguous_columns("db", ["a", "b"])
    with pytest.raises(OpsError, match="more than one column named a, b"):
        refuse_ambiguous_columns("db", ["b", "a", "b", "a", "c"])


def test_the_summary_counts() -> None:
    """One row, several rows."""
    assert summarize_rows(1, "d") == "1 row from database d"
    assert summarize_rows(0, "d") == "0 rows from database d"
