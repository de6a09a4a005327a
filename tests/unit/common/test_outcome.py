# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What every result holds, whether a failure was a refusal, and the words for sizes, durations and lists."""

from __future__ import annotations

import pytest

from ansible_collections.lowtide.ops.plugins.module_utils._common.errors import (
    OpsError,
    Refusal,
    WaitFailed,
    WaitTimeout,
)
from ansible_collections.lowtide.ops.plugins.module_utils._common.module import is_refused
from ansible_collections.lowtide.ops.plugins.module_utils._common.outcome import Outcome
from ansible_collections.lowtide.ops.plugins.module_utils._common.text import (
    format_count,
    format_duration,
    format_size,
    join_some,
)

PARTS = {"obj": "x", "problem": "is wrong", "next_step": "Correct it"}


@pytest.mark.parametrize("kind", [OpsError, Refusal, WaitTimeout, WaitFailed])
@pytest.mark.parametrize("changed", [False, True])
@pytest.mark.parametrize("check_mode", [False, True])
def test_refused_is_a_property_of_the_run(kind: type[OpsError], changed: bool, check_mode: bool) -> None:
    """Nothing was changed, and it was no wait that failed; the class says nothing about it, and neither does a
    prediction."""
    outcome = Outcome(check_mode=check_mode)
    outcome.changed = changed
    expected = (check_mode or not changed) and kind in (OpsError, Refusal)
    assert is_refused(kind(**PARTS), outcome) is expected
    assert "refused" not in kind(**PARTS).as_dict()


def test_an_attempt_is_no_refusal() -> None:
    """A commit was sent, never answered, and read back as not done."""
    outcome = Outcome()
    outcome.write_attempted = True
    assert not is_refused(Refusal(**PARTS), outcome)


def test_summary_and_evidence_are_always_there() -> None:
    """Empty before anything is known."""
    outcome = Outcome()
    assert (outcome.as_result()["summary"], outcome.as_result()["evidence"]) == ("", [])
    outcome.summary, outcome.evidence = "did it", ["a", "b"]
    assert (outcome.as_result()["summary"], outcome.as_result()["evidence"]) == ("did it", ["a", "b"])


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (12_897_485, "12.3 MiB"),
        (5 << 40, "5.0 TiB"),
        (9 << 50, "9216.0 TiB"),
    ],
)
def test_sizes(size: int, expected: str) -> None:
    """The largest unit that is filled."""
    assert format_size(size) == expected


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(-3, "0 s"), (0.9, "0 s"), (59, "59 s"), (3600, "1 h"), (12_000, "3 h 20 min"), (93_784, "1 d 2 h")],
)
def test_durations(seconds: float, expected: str) -> None:
    """The two largest units."""
    assert format_duration(seconds) == expected


def test_counts_and_lists() -> None:
    """Singular, plural, and what is too much to name."""
    assert [format_count(1, "replica"), format_count(0, "replica"), format_count(2, "index")] == [
        "1 replica",
        "0 replicas",
        "2 indexes",
    ]
    assert join_some(["a", "b"], limit=2) == "a, b"
    assert join_some(["a", "b", "c", "d"], limit=2) == "a, b and 2 more"
    assert join_some([]) == ""
