# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The end of a wait for a server that keeps silent."""

from __future__ import annotations

import socket
import threading
from types import SimpleNamespace

import pytest

from ansible_collections.lowtide.ops.plugins.module_utils._postgresql import connection
from ansible_collections.lowtide.ops.plugins.module_utils._postgresql.time_limit import TimeLimit, find_address


def test_a_wait_ends_and_its_answer_does_not_count() -> None:
    ours, theirs = socket.socketpair()
    called = threading.Event()
    limit = TimeLimit(ours, 0.05, then=called.set)
    assert ours.recv(1) == b"", "what waits for the server waits no more"
    assert called.wait(30)
    assert limit.stop() is True
    assert theirs.recv(1) == b""


def test_an_answer_in_time_stops_the_clock() -> None:
    ours, theirs = socket.socketpair()
    called = threading.Event()
    limit = TimeLimit(ours, 0.05, then=called.set)
    limit._lock.acquire()  # the time passes in the very moment of the answer
    stopper = threading.Thread(target=limit.stop)
    limit._is_over = True
    limit._lock.release()
    stopper.start()
    stopper.join(30)
    assert limit.stop() is False
    assert not called.wait(0.2)
    theirs.sendall(b"x")
    assert ours.recv(1) == b"x", "the connection goes on"


def test_a_connection_that_is_closed_meanwhile_is_not_taken_for_another_file() -> None:
    ours, theirs = socket.socketpair()
    limit = TimeLimit(ours, 0.05, then=lambda: None)
    number = ours.fileno()
    ours.close()
    other, end = socket.socketpair()
    assert other.fileno() == number
    assert theirs.recv(1) == b"", "the copy of the connection was shut down"
    assert limit.stop()
    end.sendall(b"x")
    assert other.recv(1) == b"x"


def test_the_address_of_a_connection() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as ours:
        reached = SimpleNamespace(fileno=ours.fileno, info=SimpleNamespace(host="localhost"))
        assert find_address(reached) == {"host": "localhost", "hostaddr": "127.0.0.1"}
    ours, _theirs = socket.socketpair()
    reached = SimpleNamespace(fileno=ours.fileno, info=SimpleNamespace(host="/run/postgresql"))
    assert find_address(reached) == {"host": "/run/postgresql"}


@pytest.mark.parametrize(
    ("hosts", "option", "seconds", "share"),
    [
        ("a", 10, 30, 10),
        ("a", 10, 4.9, 4),
        ("a,b", 10, 30, 7),
        ("a,b,c", 60, 30, 5),
        ("a,b", 0, 30, 7),
        ("a", 10, 0, 1),
    ],
)
def test_hosts_share_the_time(hosts: str, option: int, seconds: float, share: int) -> None:
    settings = connection.Settings(host=hosts, port=5432, user="u", dbname="d", connect_timeout=option)
    assert connection._share_time(settings, seconds) == share
