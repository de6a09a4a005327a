# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Connection poolers: those that share sessions are refused with nothing set, the others get theirs back as it was."""

from __future__ import annotations

import contextlib
import select
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from labkit.postgresql_programs import NEWEST

from support.modules import run_module
from support.postgresql_servers import find_server, make_database

from .conftest import Database

DEAD: dict[str, Any] = {"dead_tuple_ratio": 0.1, "minimum_tuples": 100}
MODULES = ["pg_maintenance", "pg_maintenance_info", "pg_query_info"]
SETTINGS = "SELECT current_setting('search_path'), current_setting('jit'), current_setting('statement_timeout')"


@pytest.fixture
def pooled(request: pytest.FixtureRequest, lab: dict[str, Any], unique_name: Callable[..., str]) -> Iterator[Database]:
    """A database on the server behind PgBouncer, and the way to it through the pooler of the mode that is asked for."""
    with make_database(find_server(lab, NEWEST), unique_name) as database:
        place = lab["pgbouncer"][request.param]
        yield Database(replace(database.server, host=place["host"], port=place["port"]), database.name)


def _run(database: Database, module: str, **options: Any) -> Any:
    given = {"query": "SELECT 1 AS a"} if module == "pg_query_info" else DEAD
    return run_module(module, {**database.server.params(database.name), **given, **options})


def _read_settings(database: Database, clients: int) -> set[tuple[str, ...]]:
    """What as many clients of the pooler as that find in the sessions that they are given, all at once."""
    with contextlib.ExitStack() as stack:
        found = set()
        for _ in range(clients):
            connection = stack.enter_context(contextlib.closing(database.connect(autocommit=False)))
            with connection.cursor() as cursor:
                cursor.execute(SETTINGS)
                found.add(tuple(cursor.fetchone()))
    return found


def _make_busy(database: Database) -> None:
    """Make a table with dead rows."""
    with contextlib.closing(database.connect()) as connection, connection.cursor() as cursor:
        cursor.execute(
            "CREATE TABLE busy WITH (autovacuum_enabled = off) AS SELECT g AS id FROM generate_series(1, 2000) g"
        )
        cursor.execute("VACUUM ANALYZE busy")
        cursor.execute("UPDATE busy SET id = id + 1")
        cursor.execute("SELECT pg_stat_force_next_flush()")


@pytest.mark.lab("postgresql_versions", "pgbouncer")
@pytest.mark.parametrize("pooled", ["transaction"], indirect=True)
@pytest.mark.parametrize("module", MODULES)
def test_a_pooler_by_transaction_is_refused_with_nothing_set(pooled: Database, module: str) -> None:
    """Case 2: search_path and the rest would be handed to whichever client comes next."""
    before = _read_settings(pooled, 1)
    run = _run(pooled, module)
    assert run["error"]["refused"]
    assert "pools by transaction" in run.msg
    assert "login_host" in run.msg
    assert _read_settings(pooled, 8) == before


@pytest.mark.lab("postgresql_versions", "pgbouncer")
@pytest.mark.parametrize("pooled", ["transaction"], indirect=True)
def test_a_pooler_by_transaction_is_refused_while_others_work(pooled: Database) -> None:
    """The session that was free at the first look is another client's at the second."""
    with contextlib.closing(pooled.connect(autocommit=False)) as other:
        with contextlib.closing(pooled.connect()) as first, first.cursor() as cursor:
            cursor.execute("SELECT 1")
        other.cursor().execute("SELECT 1")
        run = _run(pooled, "pg_maintenance")
    assert run["error"]["refused"]
    assert "pools by transaction" in run.msg


@pytest.mark.lab("postgresql_versions", "pgbouncer")
@pytest.mark.parametrize("pooled", ["session"], indirect=True)
@pytest.mark.parametrize("module", MODULES)
def test_a_pooler_by_session_is_as_good_as_the_server(pooled: Database, module: str) -> None:
    _make_busy(pooled)
    before = _read_settings(pooled, 1)
    run = _run(pooled, module)
    assert not run.failed, run.msg
    assert run.changed is (module == "pg_maintenance")
    assert _read_settings(pooled, 8) == before


@pytest.mark.lab("postgresql_versions", "pgbouncer")
@pytest.mark.parametrize("pooled", ["session"], indirect=True)
def test_jobs_through_a_pooler_by_session(pooled: Database) -> None:
    """Each working session is one of the pooler's; a lock of the run is held by the first until all have ended."""
    _make_busy(pooled)
    run = _run(pooled, "pg_maintenance", jobs=4)
    assert not run.failed, run.msg
    assert not _run(pooled, "pg_maintenance", jobs=4).changed


class FakePooler:
    """A relay that greets with another process id than the one that answers, as PgBouncer does, and notes what it is sent."""

    def __init__(self, port: int, *, sessions: int = 100) -> None:
        """Serve as many clients as that; all others wait."""
        self.received = b""
        self._sessions = sessions
        self._waiting: list[socket.socket] = []
        self._target = port
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        """Take no more connections."""
        self._socket.close()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _address = self._socket.accept()
                self._sessions -= 1
                if self._sessions < 0:
                    self._waiting.append(client)
                    continue
                threading.Thread(target=self._relay, args=(client,), daemon=True).start()

    def _relay(self, client: socket.socket) -> None:
        with client, socket.create_connection(("127.0.0.1", self._target)) as server:
            while True:
                for source in select.select([client, server], [], [])[0]:
                    data = source.recv(65536)
                    if not data:
                        return
                    if source is client:
                        self.received += data
                        server.sendall(data)
                    else:
                        client.sendall(self._greet_otherwise(data))

    def _greet_otherwise(self, data: bytes) -> bytes:
        """BackendKeyData is K, its length of 12, the process id, a secret."""
        place = data.find(b"K\x00\x00\x00\x0c")
        if place < 0 or b"server_version" not in data:
            return data
        return data[: place + 5] + b"\x00\x01\x86\x9f" + data[place + 9 :]


@pytest.mark.parametrize("module", MODULES)
def test_a_session_goes_back_to_its_pooler_as_it_was(database: Database, module: str) -> None:
    """Also where the pooler itself resets nothing (server_reset_query is empty)."""
    database.table("busy")
    pooler = FakePooler(database.server.port)
    with contextlib.closing(pooler):
        run = _run(database, module, login_port=pooler.port, ssl_mode="disable")
    assert not run.failed, run.msg
    sent = pooler.received
    assert sent.index(b"pg_backend_pid") < sent.index(b"set_config")
    assert sent.rindex(b"DISCARD ALL") > sent.rindex(b"set_config")


def test_a_pooler_without_a_session_to_spare_is_refused(database: Database) -> None:
    """Whether sessions are shared is not known then; nobody is kept waiting longer than connect_timeout."""
    pooler = FakePooler(database.server.port, sessions=1)
    with contextlib.closing(pooler):
        run = _run(database, "pg_maintenance_info", login_port=pooler.port, ssl_mode="disable", connect_timeout=5)
    assert run["error"]["refused"]
    assert "could not be found out" in run.msg
    assert "connections to spare" in run.msg
    assert b"set_config" not in pooler.received
