# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The store in a PostgreSQL server that accepts a question and gives no answer: each one ends within its patience."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from labkit.postgresql_programs import VERSIONS

from ansible_collections.lowtide.ops.plugins.plugin_utils._window import store_postgresql
from ansible_collections.lowtide.ops.plugins.plugin_utils._window.store import Store, StoreUnreachable
from ansible_collections.lowtide.ops.plugins.plugin_utils._window.store_postgresql import PostgresqlStore
from support.postgresql_proxy import Statement, StatementProxy
from support.postgresql_servers import PASSWORD, Server, make_database, start_server
from support.store_contract import make_planned
from support.turns import is_sweep
from support.window_stores import NAME, append, me, take

from .conftest import PostgresqlPlace

pytestmark = pytest.mark.lab("postgresql_versions")
PATIENCE = 1.0
PATIENT = 30.0
"""The same for a question that is answered."""
BOUND = 25.0
"""Seconds in which a question with that patience ends on a slow machine; without a limit it never does."""


@pytest.fixture(autouse=True)
def _no_slack(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_postgresql, "SLACK", 0.5)


@pytest.fixture(scope="module")
def own_server(lab_facts: dict[str, Any]) -> Iterator[Server]:
    """A server that a test may stop."""
    facts, version = lab_facts["postgresql_versions"], VERSIONS[-1]
    programs = Path(facts["servers"][version]["programs"])
    with start_server(version, programs, Path(facts["passfile"]).parent) as server:
        yield server


@pytest.fixture
def own_place(own_server: Server, unique_name: Callable[..., str]) -> Iterator[PostgresqlPlace]:
    """A database of it."""
    with make_database(own_server, unique_name) as database:
        yield PostgresqlPlace(database, {"login_password": PASSWORD})


@contextmanager
def freeze(*pids: int) -> Iterator[None]:
    """Stop processes, as a storage that hangs does."""
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


def find_processes(server: Server) -> list[int]:
    """Return the processes of a server, its parent first."""
    parent = (server.folder / "data" / "postmaster.pid").read_text(encoding="utf-8").split()[0]
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text(encoding="utf-8")
    return [int(pid) for pid in (parent, *children.split())]


def require_end(call: Callable[[], object]) -> None:
    """A question is over in time, as one whose answer is not known."""
    begin = time.monotonic()
    with pytest.raises(StoreUnreachable, match="PostgreSQL database"):
        call()
    assert time.monotonic() - begin < BOUND


def lock(store: Store) -> None:
    """Take the lock and give it back."""
    with store.lock():
        pass


def test_a_commit_that_waits_for_its_standby_ends_in_time(own_place: PostgresqlPlace) -> None:
    store, server = own_place.connect(), own_place.database.server
    token = take(store, me()).token
    append(store, make_planned("db1"))
    store.patience = PATIENCE
    server.administer("ALTER SYSTEM SET synchronous_standby_names = 'nobody'", "SELECT pg_reload_conf()")
    try:
        own_place.database.wait_until("SELECT current_setting('synchronous_standby_names') = 'nobody'")
        event = replace(make_planned("db2"), token=token)
        require_end(lambda: store.append(NAME, event))
        require_end(lambda: append(store, event))
        require_end(lambda: store.renew(token))
        require_end(lambda: store.write_report(NAME, token, {".json": "{}"}))
        require_end(lambda: store.release(token))
        own_place.database.wait_until("SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE wait_event = 'SyncRep')")
        store.patience = PATIENT
        lock(store)
        assert store.read_lease()
    finally:
        server.administer("ALTER SYSTEM RESET synchronous_standby_names", "SELECT pg_reload_conf()")
    own_place.database.wait_until("SELECT current_setting('synchronous_standby_names') = ''")
    append(store, make_planned("db3"))


def test_a_process_of_the_server_that_is_frozen_ends_in_time(own_place: PostgresqlPlace) -> None:
    store = own_place.connect()
    token = take(store, me()).token
    store.patience = PATIENCE
    event = replace(make_planned("db1"), token=token)
    with own_place.connect().lock():
        require_end(lambda: lock(store))
    store.patience = PATIENT
    with store.lock():
        assert store._session is not None
        store.patience = PATIENCE
        with freeze(store._session.server.pid):
            require_end(lambda: store.append(NAME, event))
        store.patience = PATIENT
        assert store.append(NAME, event).token == token
    assert own_place.connect().load(NAME)[-1].token == token


def test_a_server_that_is_frozen_ends_in_time(own_place: PostgresqlPlace) -> None:
    store = own_place.connect()
    token = take(store, me()).token
    with store.lock():
        store.patience = PATIENCE
        with freeze(*find_processes(own_place.database.server)):
            require_end(lambda: store.renew(token))
            require_end(lambda: store.check(token))
    store.patience = PATIENT
    store.renew(token)
    lock(store)


class SwallowingProxy(StatementProxy):
    """Passes no answer on once a statement with ``text`` has come; every connection keeps open."""

    def __init__(self, host: str, target_port: int) -> None:
        self.text: str | None = None
        self.is_silent = False
        super().__init__(host, target_port, self.hear)

    def hear(self, statement: Statement) -> bool:
        """Become silent."""
        self.is_silent = self.is_silent or (self.text is not None and self.text in statement.text)
        return True

    def from_server(self, client: socket.socket, server: socket.socket) -> None:
        """Pass on what is to be heard."""
        while chunk := server.recv(65536):
            if not self.is_silent:
                client.sendall(chunk)


def test_a_network_that_swallows_answers_ends_in_time(
    postgresql_place: PostgresqlPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_postgresql, "IDLE_SECONDS", 2)
    server = postgresql_place.database.server
    with SwallowingProxy(server.host, server.port) as proxy:
        place = replace(postgresql_place, changes={"login_port": proxy.port, "ssl_mode": "disable"})
        store = place.connect()
        token = take(store, me()).token
        store.patience = PATIENCE
        event = replace(make_planned("db1"), token=token)
        cases: list[tuple[str, Callable[[], object]]] = [
            ("advisory", lambda: lock(store)),
            ("INSERT INTO lowtide_window.event", lambda: store.append(NAME, event)),
            ("set_config", lambda: store.check(token)),
        ]
        if is_sweep():
            cases += [
                ("UPDATE lowtide_window.lease", lambda: store.renew(token)),
                ("SELECT record", lambda: store.check(token)),
                ("INSERT INTO lowtide_window.lease", lambda: store.release(token)),
            ]
        for text, call in cases:
            proxy.text, proxy.is_silent = text, False
            for store.patience in (PATIENCE, 4 * PATIENCE, 16 * PATIENCE):
                require_end(call)
                if proxy.is_silent:  # else it was over, on a slow machine, before the statement was sent
                    break
            assert proxy.is_silent
            store.patience = PATIENCE
            lock(postgresql_place.connect())
        require_end(store.list_occurrences)  # nothing answers from the beginning on
        require_end(lambda: lock(store))
        proxy.text, proxy.is_silent = None, False
        store.patience = PATIENT
        lock(store)


def test_the_time_for_a_connection_is_shared_by_the_hosts(postgresql_place: PostgresqlPlace) -> None:
    """The ``login_host`` of a cluster whose members accept a connection and say nothing."""
    with socket.create_server(("127.0.0.1", 0), backlog=50) as deaf:
        changes = {"login_host": "127.0.0.1,127.0.0.1", "login_port": deaf.getsockname()[1], "connect_timeout": 60}
        connection = replace(postgresql_place, changes=changes).connection
        store = PostgresqlStore(connection, site="shop/prod", ttl=60, patience=PATIENCE)
        require_end(store.read_lease)
