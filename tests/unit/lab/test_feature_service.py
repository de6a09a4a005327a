# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The feature service's audit sees every kind of difference, and its producer keeps each feature's events in order."""

from __future__ import annotations

import itertools
from collections import defaultdict
from typing import Any

import pytest
from app.audit import audit
from app.producer import events

LOG = {0: {"low": 0, "high": 10, "committed": 10}, 1: {"low": 5, "high": 8, "committed": 8}}


def test_a_complete_ledger_misses_nothing() -> None:
    found = audit(LOG, {0: (10, 0, 9), 1: (3, 5, 7)})
    assert (found["produced"], found["recorded"], found["missing"], found["beyond_log"]) == (18, 13, 0, 0)


def test_rows_that_retention_has_removed_from_the_log_are_no_fault() -> None:
    assert audit(LOG, {0: (10, 0, 9), 1: (8, 0, 7)})["missing"] == 0


@pytest.mark.parametrize(
    ("ledger", "missing", "beyond"),
    [
        pytest.param({0: (9, 0, 9), 1: (3, 5, 7)}, 1, 0, id="a gap in the middle"),
        pytest.param({0: (8, 2, 9), 1: (3, 5, 7)}, 2, 0, id="the beginning"),
        pytest.param({0: (7, 0, 6), 1: (3, 5, 7)}, 3, 0, id="the end"),
        pytest.param({0: (10, 0, 9)}, 3, 0, id="a whole partition"),
        pytest.param({}, 13, 0, id="everything"),
        pytest.param({0: (12, 0, 11), 1: (3, 5, 7)}, 0, 2, id="rows of events that the topic never had"),
    ],
)
def test_differences_are_counted(ledger: dict[int, tuple[int, int, int]], missing: int, beyond: int) -> None:
    found = audit(LOG, ledger)
    assert (found["missing"], found["beyond_log"]) == (missing, beyond)


def _shape(seed: int) -> list[tuple[Any, Any]]:
    return [(event["sequence"], event["state"]) for event in itertools.islice(events(seed, 20), 500)]


def test_a_seed_decides_the_shape_and_never_the_ids() -> None:
    assert _shape(1) == _shape(1)
    assert _shape(1) != _shape(2)
    first, second = ({event["event_id"] for event in itertools.islice(events(1, 20), 500)} for _ in range(2))
    assert len(first) == 500
    assert not first & second


def test_each_feature_counts_its_events_and_ends_once() -> None:
    features: dict[object, list[dict[str, object]]] = defaultdict(list)
    for event in itertools.islice(events(3, 10), 2000):
        features[event["feature_execution_id"]].append(event)
    for history in features.values():
        assert [event["sequence"] for event in history] == list(range(1, len(history) + 1))
        assert all(event["state"] in {6, 7, 8} for event in history[5:])
        assert all(event["state"] in {1, 2, 3, 4, 5} for event in history[:5])
        assert len(history) <= 6
