# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the assessment of a database may cost: pure."""

from __future__ import annotations

import pytest

from ansible_collections.lowtide.ops.plugins.module_utils._postgresql.assess import share_time
from ansible_collections.lowtide.ops.plugins.module_utils._postgresql.catalog import _INDEXES, _TABLES


@pytest.mark.parametrize(
    ("budget", "timeout", "share"), [(None, None, None), (1800, None, 450), (1800, 60, 15), (None, 60, 15)]
)
def test_measuring_has_a_share_of_the_time(budget: float | None, timeout: float | None, share: float | None) -> None:
    """What it leaves is for the work."""
    assert share_time(budget, timeout) == share


@pytest.mark.parametrize("statement", [_TABLES, _INDEXES])
def test_no_size_is_asked_that_takes_a_lock(statement: str) -> None:
    """One table under a TRUNCATE would keep the whole assessment waiting."""
    assert "_size(" not in statement
