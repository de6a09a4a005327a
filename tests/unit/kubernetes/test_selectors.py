# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Label selectors, judged here and written for the server."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.selectors import format_selector, matches
from support.memory_objects import matches_labels

EXPRESSIONS = [
    {"key": "a", "operator": "In", "values": ["1", "2"]},
    {"key": "a", "operator": "NotIn", "values": ["1"]},
    {"key": "a", "operator": "Exists"},
    {"key": "a", "operator": "DoesNotExist"},
]


@pytest.mark.parametrize(
    ("expression", "labels", "expected"),
    [
        (EXPRESSIONS[0], {"a": "2"}, True),
        (EXPRESSIONS[0], {"a": "3"}, False),
        (EXPRESSIONS[0], {}, False),
        (EXPRESSIONS[1], {"a": "1"}, False),
        (EXPRESSIONS[1], {"a": "2"}, True),
        (EXPRESSIONS[1], {}, True),
        (EXPRESSIONS[2], {"a": ""}, True),
        (EXPRESSIONS[2], {"b": "1"}, False),
        (EXPRESSIONS[3], {"a": "1"}, False),
        (EXPRESSIONS[3], {"b": "1"}, True),
    ],
)
def test_expressions(expression: dict[str, Any], labels: dict[str, str], expected: bool) -> None:
    """As https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/ defines them."""
    assert matches({"matchExpressions": [expression]}, labels) is expected


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ({"app": "w", "tier": "t"}, True),
        ({"app": "w"}, False),
        ({"tier": "t"}, False),
        ({"app": "x", "tier": "t"}, False),
    ],
)
def test_all_of_a_selector_must_match(labels: dict[str, str], expected: bool) -> None:
    """Labels and expressions."""
    selector = {"matchLabels": {"app": "w"}, "matchExpressions": [{"key": "tier", "operator": "Exists"}]}
    assert matches(selector, labels) is expected
    assert matches({"matchLabels": {"app": "w", "tier": "t"}}, labels) is expected


@pytest.mark.parametrize("selector", [{}, {"matchLabels": None}, {"matchLabels": {}, "matchExpressions": []}])
def test_an_empty_selector_selects_nothing(selector: dict[str, Any]) -> None:
    """To the server it means everything; nobody's pods may be taken for another's here."""
    assert matches(selector, {"app": "w"}) is False
    assert format_selector(selector) == ""


def test_the_text_is_what_the_server_reads() -> None:
    """Labels sorted, then expressions."""
    selector = {"matchLabels": {"b": "2", "a": "1"}, "matchExpressions": EXPRESSIONS}
    assert format_selector(selector) == "a=1,b=2,a in (1,2),a notin (1),a,!a"


@given(
    st.dictionaries(st.sampled_from("ab"), st.sampled_from("123")),
    st.dictionaries(st.sampled_from("ab"), st.sampled_from("12"), max_size=1),
    st.lists(st.sampled_from(EXPRESSIONS), max_size=2),
)
def test_here_and_as_text_select_the_same(
    labels: dict[str, str], pairs: dict[str, str], expressions: list[dict[str, Any]]
) -> None:
    """A watch with the text brings the pods that are judged here."""
    selector = {"matchLabels": pairs, "matchExpressions": expressions}
    if pairs or expressions:
        assert matches(selector, labels) is matches_labels(format_selector(selector), labels)


def test_an_unknown_operator_is_an_error() -> None:
    """Guessing would select the wrong pods."""
    selector = {"matchExpressions": [{"key": "a", "operator": "Near", "values": ["1"]}]}
    for function in (lambda: matches(selector, {}), lambda: format_selector(selector)):
        with pytest.raises(ValueError, match="unknown selector operator 'Near'"):
            function()
