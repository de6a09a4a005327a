# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""PostgreSQL of each supported version, for tests of whatever speaks to it."""

from __future__ import annotations

from typing import Any

import pytest
from labkit.postgresql_programs import VERSIONS

from support.postgresql_servers import Server, find_server
from support.turns import take_turns


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """One version of PostgreSQL for each test, by turns; all of them with LOWTIDE_EXHAUSTIVE=1."""
    for fixture in ("server", "own_server"):
        take_turns(config, items, fixture, VERSIONS)


@pytest.fixture(params=VERSIONS)
def server(request: pytest.FixtureRequest, lab: dict[str, Any]) -> Server:
    """The lab's server of a version, by the least privileged account (``@pytest.mark.lab("postgresql_versions")``).

    Tests side by side share it: what concerns more than a database of one's own (slots, settings, crashes) belongs on
    a server of one's own, see ``support.postgresql_servers.start_server``.
    """
    return find_server(lab, request.param)
