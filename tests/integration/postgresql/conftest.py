# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A database for each test: on the lab's server of each version, or on a server of the tests' own.

``server`` and ``owned_database``: versions 14 to 18 by turns, as the least privileged account.
``own_server`` and ``database``: also by turns, as superuser, for what the lab's servers must not suffer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from labkit.postgresql_programs import VERSIONS

from support.postgresql_servers import (
    PASSWORD,
    Database,
    Server,
    make_database,
    mount_small_volume,
    start_server,
)

__all__ = ["PASSWORD", "Database", "Server", "until"]


def until(database: Database, question: str) -> None:
    """Wait until a query answers with more than nothing."""
    database.wait_until(question)


@pytest.fixture
def owned_database(server: Server, unique_name: Callable[..., str]) -> Iterator[Database]:
    """An empty database on the lab's server of a version; modules and statements run as its owner."""
    with make_database(server, unique_name) as database:
        yield database


@pytest.fixture(scope="session", params=VERSIONS)
def own_server(request: pytest.FixtureRequest, lab_facts: dict[str, Any]) -> Iterator[Server]:
    """A server of the tests' own."""
    facts = lab_facts["postgresql_versions"]
    programs = Path(facts["servers"][request.param]["programs"])
    with start_server(request.param, programs, Path(facts["passfile"]).parent) as server:
        yield server


@pytest.fixture
def database(own_server: Server, unique_name: Callable[..., str]) -> Iterator[Database]:
    """An empty database on the server of the tests' own; modules and statements run as superuser."""
    with make_database(own_server, unique_name) as database:
        yield database


@pytest.fixture
def small_volume(own_server: Server) -> Iterator[Path]:
    """A file system of 24 MiB, owned by the server's user, for a tablespace that gets full."""
    with mount_small_volume(own_server) as mount:
        yield mount
