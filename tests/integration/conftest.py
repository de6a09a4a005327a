# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The order of the tests on real servers, and PostgreSQL of each supported version for whatever speaks to it."""

from __future__ import annotations

from typing import Any

import pytest
from labkit.postgresql_programs import VERSIONS

from support.postgresql_servers import Server, find_server
from support.turns import take_turns

LONG_FILES = frozenset(
    {
        "test_rollout_failures.py",
        "test_rolling_upgrade.py",
        "test_scaling_role.py",
        "test_service.py",
        "test_small_site.py",
        "test_bus.py",
        "test_credentials_role.py",
    }
)
"""Few tests that take minutes each. Files are shared out in their order: begun last, each would be alone at the end."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Begin with the longest files; one version of PostgreSQL for each test, by turns, or all (LOWTIDE_EXHAUSTIVE=1).

    The order holds with --no-loadscope-reorder (``make integration``).
    """
    for fixture in ("server", "own_server", "postgresql"):
        take_turns(config, items, fixture, VERSIONS)
    items.sort(key=lambda item: item.path.name not in LONG_FILES)


@pytest.fixture(params=VERSIONS)
def server(request: pytest.FixtureRequest, lab: dict[str, Any]) -> Server:
    """The lab's server of a version, by the least privileged account (``@pytest.mark.lab("postgresql_versions")``).

    Tests side by side share it: what concerns more than a database of one's own (slots, settings, crashes) belongs on
    a server of one's own, see ``support.postgresql_servers.start_server``.
    """
    return find_server(lab, request.param)
