# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The contract of a store, fulfilled by PostgreSQL."""

from __future__ import annotations

import pytest

from support.store_contract import *  # noqa: F403 - the tests
from support.store_contract import Backend

pytestmark = pytest.mark.lab("postgresql_versions")


@pytest.fixture
def backend(postgresql_place: Backend) -> Backend:
    """A place of the test's own."""
    return postgresql_place
