# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The store in PostgreSQL, as far as no server is needed."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psycopg2
import pytest

from ansible_collections.lowtide.ops.plugins.plugin_utils._window import store_postgresql
from ansible_collections.lowtide.ops.plugins.plugin_utils._window.lease import LeaseLost
from ansible_collections.lowtide.ops.plugins.plugin_utils._window.processes import Owner
from ansible_collections.lowtide.ops.plugins.plugin_utils._window.store_postgresql import SCHEMA, PostgresqlStore
from support.checkout import text
from support.store_contract import make_opened

OPENED = replace(make_opened("weekly-1"), token=2)


def list_statements(script: str) -> list[str]:
    """Return the statements of a script, without comments and line ends."""
    plain = re.sub(r"--[^\n]*", "", script)
    return [" ".join(statement.split()) for statement in plain.split(";") if statement.strip()]


def test_the_documented_tables_are_those_that_a_window_makes() -> None:
    documented = list_statements(text(Path("docs/window-store.sql")))
    assert [statement for statement in documented if statement.startswith("CREATE ")] == list_statements(SCHEMA)


class Server:
    """Keeps one lease and the lines of one journal, and disturbs the answer to the first write: it ends its session."""

    def __init__(self) -> None:
        self.lease: dict[str, Any] | None = None
        self.lines: list[str] = []
        self.renewals = 0
        self.is_ended = False
        self.forgets = False
        """Whether the write is gone when the next session looks whether it is durable."""
        self.warning = ""
        """What the first write is answered with as well, where that does not end its session."""

    def query(self, connection: SimpleNamespace, sql: str, values: Mapping[str, Any]) -> list[tuple[Any, ...]]:
        """Answer a statement of the store."""
        if sql == store_postgresql._READ:
            return [(self.lease["record"],)] if self.lease else []
        if sql == store_postgresql._NEWEST:
            return [(1,)]
        if sql == store_postgresql._END:
            return [(1.0, len(self.lines), self.lines[-1] if self.lines else None)]
        if sql == store_postgresql._RENEW:
            self.renewals += 1
            is_held = self.lease is not None and self.lease["token"] == values["token"] and not self.forgets
            return [(1,)] if is_held else []
        if sql == store_postgresql._WRITE:
            if (self.lease["token"] if self.lease else 0) != values["last"]:
                return []
            self.lease = dict(values)
        else:
            assert sql == store_postgresql._APPEND
            self.lines.append(values["line"])
        if not self.is_ended:
            self.is_ended = True
            self._disturb(connection)
        return [(1,)]

    def _disturb(self, connection: SimpleNamespace) -> None:
        if self.warning:
            connection.notices.append(self.warning)
        else:
            connection.closed = 1
            raise psycopg2.errors.AdminShutdown("terminating connection due to administrator command")


class OneSession:
    """A session of that server."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.connection = SimpleNamespace(closed=0, notices=["NOTICE: of a statement before"])

    def query(self, sql: str, values: Mapping[str, Any]) -> list[tuple[Any, ...]]:
        """Ask the server."""
        return self.server.query(self.connection, sql, values)

    @contextmanager
    def limit(self, _seconds: float) -> Iterator[None]:
        """Let it take any time."""
        yield

    def __enter__(self) -> OneSession:
        return self

    def __exit__(self, *_error: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Server:
    """It, behind every store."""
    server = Server()
    monkeypatch.setattr(PostgresqlStore, "_open", lambda *_given, **_options: OneSession(server))
    return server


@pytest.fixture
def store() -> PostgresqlStore:
    """A store of that server."""
    return PostgresqlStore({"login_db": "windows"}, site="shop", ttl=60)


def hold_lease(server: Server) -> None:
    """Have the server keep the lease of OPENED."""
    record = {"token": 2, "owner": Owner.from_pid(os.getpid()).as_dict(), "window_id": "weekly-1", "released": False}
    server.lease = {"token": 2, "record": json.dumps({"v": 1, **record})}


def acquire(store: PostgresqlStore, *, forgets: bool) -> None:
    """Take the lease, which is not held where the server has forgotten it."""
    if forgets:
        with pytest.raises(LeaseLost):
            store.acquire(Owner.from_pid(os.getpid()), "weekly-1")
    else:
        assert store.acquire(Owner.from_pid(os.getpid()), "weekly-1").token == 2


def append(store: PostgresqlStore, *, forgets: bool) -> None:
    """Write an event, which does not count where the server has forgotten it."""
    if forgets:
        with pytest.raises(LeaseLost):
            store.append("weekly-1", OPENED)
    else:
        assert store.append("weekly-1", OPENED).at == 1.0


@pytest.mark.parametrize("forgets", [False, True])
def test_a_lease_whose_answer_was_lost_is_confirmed(server: Server, store: PostgresqlStore, *, forgets: bool) -> None:
    """Who reads a commit waits for no standby; the answer to a later write of the same server is the standby's."""
    server.forgets = forgets
    acquire(store, forgets=forgets)
    assert (server.is_ended, server.renewals) == (True, 1)


@pytest.mark.parametrize("forgets", [False, True])
def test_an_event_whose_answer_was_lost_is_confirmed(server: Server, store: PostgresqlStore, *, forgets: bool) -> None:
    hold_lease(server)
    server.forgets = forgets
    append(store, forgets=forgets)
    assert (len(server.lines), server.renewals) == (1, 1)


CANCELLED = "WARNING:  Warten auf synchrone Replikation wird storniert wegen Benutzeraufforderung\n"
"""What pg_cancel_backend makes of a commit that waits for its standby; it has succeeded."""


@pytest.mark.parametrize("forgets", [False, True])
def test_a_lease_whose_wait_was_cancelled_is_confirmed(
    server: Server, store: PostgresqlStore, *, forgets: bool
) -> None:
    server.warning, server.forgets = CANCELLED, forgets
    acquire(store, forgets=forgets)
    assert forgets or server.renewals == 1


@pytest.mark.parametrize("forgets", [False, True])
def test_an_event_whose_wait_was_cancelled_is_confirmed(
    server: Server, store: PostgresqlStore, *, forgets: bool
) -> None:
    hold_lease(server)
    server.warning, server.forgets = CANCELLED, forgets
    append(store, forgets=forgets)
    assert (len(server.lines), server.renewals) == (1, 1)


def test_a_release_whose_wait_was_cancelled_is_none_to_confirm(server: Server, store: PostgresqlStore) -> None:
    """There is no lease any more that could be renewed; where a failover loses it, the lease ends with its time."""
    hold_lease(server)
    server.warning = CANCELLED
    store.release(2)
    assert server.lease is not None
    assert (server.lease["released"], server.renewals) == (True, 0)


def test_what_was_answered_needs_no_confirmation(server: Server, store: PostgresqlStore) -> None:
    server.is_ended = True
    assert store.acquire(Owner.from_pid(os.getpid()), "weekly-1").token == 2
    store.append("weekly-1", OPENED)
    assert server.renewals == 0
