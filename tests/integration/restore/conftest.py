# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A database with something of everything, its backup, and an account that may restore it, on a server of each version by turns."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from support.postgresql_servers import Server
from support.restores import Shop, make_shop


@pytest.fixture
def shop(server: Server, lab: dict[str, Any], unique_name: Callable[..., str]) -> Iterator[Shop]:
    """Backed up once."""
    with make_shop(server, lab, unique_name) as made:
        yield made
