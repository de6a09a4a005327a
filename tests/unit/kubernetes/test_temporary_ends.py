# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The one reading of ends of temporary changes."""

from __future__ import annotations

import pytest

from ansible_collections.lowtide.ops.plugins.module_utils._common.errors import Refusal
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.temporary_ends import check_end, is_due

NOW = 1767225600.0
"""2026-01-01T00:00:00Z."""


@pytest.mark.parametrize(
    ("until", "problem"),
    [
        (None, ""),
        ("", ""),
        ("2026-01-01T00:00:01Z", ""),
        ("2026-01-01T01:00:01+01:00", ""),
        ("2026-01-01T00:00:00Z", "2026-01-01T00:00:00Z has passed"),
        ("2026-01-02", "'2026-01-02' is no moment"),
        ("tomorrow", "'tomorrow' is no moment"),
    ],
)
def test_an_end_is_a_moment_to_come(until: str | None, problem: str) -> None:
    """None at all is as good."""
    if not problem:
        check_end(until, NOW)
        return
    with pytest.raises(Refusal) as caught:
        check_end(until, NOW)
    assert (caught.value.obj, caught.value.problem) == ("option until", problem)


@pytest.mark.parametrize(
    ("until", "expected"),
    [("2026-01-01T00:00:00Z", True), ("2026-01-01T00:00:01Z", False), ("", False), ("tomorrow", False)],
)
def test_what_is_due_has_an_end_that_has_come(until: str, expected: bool) -> None:
    """To the second; what has no end stays."""
    assert is_due(until, NOW) is expected
