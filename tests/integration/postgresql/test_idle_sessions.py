# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Sessions that wait for others, through a proxy that ends connections on which nothing is said."""

from __future__ import annotations

import contextlib
import select
import socket
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import pytest

from ansible_collections.lowtide.ops.plugins.module_utils._common.retry import Deadline
from ansible_collections.lowtide.ops.plugins.module_utils._postgresql import worker_pool
from ansible_collections.lowtide.ops.plugins.module_utils._postgresql.connection import (
    Session,
    Settings,
    driver_error,
)
from ansible_collections.lowtide.ops.plugins.module_utils._postgresql.worker_pool import Limits, WorkerPool
from support.postgresql_servers import PASSWORD

from .conftest import Database

SILENCE = 2.0
SLICES = 20
"""In which the silence is counted: of a moment in which this process stands still, one at most passes."""
LIMITS = Limits(jobs=2, lock_timeout=1.0, index_wait_timeout=1.0, retries=0, budget=None, timeout=None)


class SilenceProxy:
    """A relay that ends each connection on which no byte passes for SILENCE seconds, as HAProxy's timeouts do."""

    def __init__(self, port: int) -> None:
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
                threading.Thread(target=self._relay, args=(client,), daemon=True).start()

    def _relay(self, client: socket.socket) -> None:
        with contextlib.suppress(OSError), client, socket.create_connection(("127.0.0.1", self._target)) as server:
            silent = 0
            while silent < SLICES:
                ready = select.select([client, server], [], [], SILENCE / SLICES)[0]
                silent = 0 if ready else silent + 1
                for source in ready:
                    data = source.recv(65536)
                    if not data:
                        return
                    (server if source is client else client).sendall(data)


@pytest.fixture
def settings(database: Database) -> Iterator[Settings]:
    """The way to the database through the proxy."""
    proxy = SilenceProxy(database.server.port)
    direct = Settings("127.0.0.1", proxy.port, "postgres", database.name, PASSWORD, sslmode="disable")
    with contextlib.closing(proxy):
        yield direct


class WatchedPool(WorkerPool):
    """Shows what it has found out while others work."""

    losses: Sequence[BaseException] = ()

    def _wait(self, threads: Mapping[Session, threading.Thread], failures: list[BaseException]) -> None:
        self.losses = failures
        super()._wait(threads, failures)


def _talk(session: Session, task: int) -> list[int]:
    """Be at work for that many times 0.3 s, never silent for as long as the proxy allows."""
    for _number in range(task):
        session.query("SELECT pg_sleep(0.3)")
    return []


def test_who_waits_for_a_worker_is_not_taken_for_dead(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """The deciding session, which holds the run's lock, and a worker that has nothing left to do."""
    monkeypatch.setattr(worker_pool, "PING_EVERY", SILENCE / 8)
    with Session(settings, module="test", run_id="1") as deciding:
        pool = WorkerPool(settings, LIMITS, module="test", run_id="1", deadline=Deadline(60.0), deciding=deciding)
        with pool:
            pool.run([9, 0], _talk, size=float)
            assert deciding.is_alive()
            pool.run([1, 1], _talk, size=float)


def test_a_run_that_has_lost_its_lock_begins_nothing_more(
    settings: Settings, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another run may be at work by then."""
    monkeypatch.setattr(worker_pool, "PING_EVERY", 2 * SILENCE)
    begun: list[int] = []

    def begin(session: Session, task: int) -> list[int]:
        """The first one is at work until the loss is known."""
        begun.append(task)
        end = Deadline(60.0)
        while not pool.losses and not end.passed:
            _talk(session, 1)
        return []

    direct = replace(settings, port=database.server.port)
    with Session(settings, module="test", run_id="1") as deciding:
        pool = WatchedPool(
            direct, LIMITS._replace(jobs=1), module="test", run_id="1", deadline=Deadline(60.0), deciding=deciding
        )
        with pool, pytest.raises(driver_error()):
            pool.run([3, 2, 1], begin, size=float)
    assert begun == [3]
