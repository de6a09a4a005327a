# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Locks of runs on real servers: of one database, and of what all databases share."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from contextlib import ExitStack

import pytest

from ansible_collections.lowtide.ops.plugins.module_utils._postgresql.connection import Session, Settings
from ansible_collections.lowtide.ops.plugins.module_utils._postgresql.locks import (
    AdvisoryLock,
    ClusterLock,
    read_holders,
)
from support.postgresql_servers import Database, Server, make_database

pytestmark = [pytest.mark.lab("postgresql_versions"), pytest.mark.every_version]


def open_session(database: Database) -> Session:
    """A module's session, by an account without rights of its own."""
    server = database.server
    account = server.accounts[server.default]
    settings = Settings(
        host=server.host,
        port=server.port,
        user=account.user,
        dbname=database.name,
        password=account.password or None,
        passfile=account.passfile or None,
    )
    return Session(settings, module="test", run_id="1")


def test_a_lock_of_the_cluster_is_seen_from_every_database(
    server: Server, owned_database: Database, unique_name: Callable[..., str]
) -> None:
    """Held through one database, it is refused through another; a lock of a database goes on being of that one."""
    key = zlib.crc32(owned_database.name.encode()) & 0x3FFFFFFF
    with make_database(server, unique_name) as other, ExitStack() as stack:
        first, second = (stack.enter_context(open_session(database)) for database in (owned_database, other))
        assert ClusterLock(first, key).try_acquire()
        assert not ClusterLock(second, key).try_acquire()
        (holder,) = read_holders(second, key, anywhere=True)
        assert holder.pid == first.server.pid
        assert f"in database {owned_database.name}" in holder.description
        assert read_holders(second, key) == []
        assert read_holders(first, key, anywhere=True) == []  # what was refused has been given back
        assert AdvisoryLock(second, key).try_acquire()
        # Another one that is about to be refused has it in its own database for a moment.
        assert ClusterLock(first, key).try_acquire()
        ClusterLock(first, key).release()
        AdvisoryLock(second, key).release()
        ClusterLock(first, key).release()
        assert ClusterLock(second, key).try_acquire()
        assert not ClusterLock(first, key).try_acquire()
