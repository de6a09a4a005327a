# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The order in which the tests on real servers are begun."""

from __future__ import annotations

import pytest

LONG_FILES = frozenset(
    {
        "test_rollout_failures.py",
        "test_rolling_upgrade.py",
        "test_scaling_role.py",
        "test_service.py",
        "test_small_site.py",
        "test_bus.py",
    }
)
"""Few tests that take minutes each. Files are shared out in their order: begun last, each would be alone at the end."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the longest files (``make integration``, with --no-loadscope-reorder)."""
    items.sort(key=lambda item: item.path.name not in LONG_FILES)
