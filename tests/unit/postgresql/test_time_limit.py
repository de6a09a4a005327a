# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The end of a wait for a server that keeps silent."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import psycopg2
import pytest

from ansible_collections.lowtide.ops.plugins.module_utils._common.errors import Refusal
from ansible_collections.lowtide.ops.plugins.module_utils._common.retry import Deadline
from ansible_collections.lowtide.ops.plugins.module_utils._postgresql import connection, time_limit
from ansible_collections.lowtide.ops.plugins.module_utils._postgresql.time_limit import (
    TimeLimit,
    find_address,
    find_places,
)

ADDRESSES = {"db": ["127.0.0.2", "127.0.0.3", "127.0.0.2"], "old": ["::1"], "slow": ["127.0.0.4"]}
"""What names resolve to; ``slow`` and ``silent`` are some whose servers of names do not answer by themselves."""


class Names(list[str]):
    """Those that were asked for; ``answer`` is when ``slow`` gets its answer."""

    def __init__(self) -> None:
        super().__init__()
        self.answer = threading.Event()


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


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Iterator[Names]:
    """Names that this process resolves, and libpq does not."""
    asked = Names()
    is_over = threading.Event()

    def resolve(host: bytes, _port: None, **_options: int) -> list[Any]:
        name = host.decode()
        asked.append(name)
        if name == "silent":
            is_over.wait()
        if name == "slow":
            asked.answer.wait()
        if name not in ADDRESSES:
            raise socket.gaierror(-2, "Name or service not known")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 0)) for address in ADDRESSES[name]]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    yield asked
    is_over.set()
    asked.answer.set()


def test_each_address_of_a_name_is_a_place(names: Names, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the order of the hosts, where all are known soon."""
    monkeypatch.setattr(time_limit, "SOON", 60)
    (found,) = find_places(["db", "/run/postgresql", "@abstract", "old"], Deadline(60))
    assert found.places == [
        {"host": "db", "hostaddr": "127.0.0.2"},
        {"host": "db", "hostaddr": "127.0.0.3"},
        {"host": "/run/postgresql"},
        {"host": "@abstract"},
        {"host": "old", "hostaddr": "::1"},
    ]
    assert (found.unresolved, found.waiting) == ([], 0)
    assert sorted(names) == ["db", "old"]


@pytest.mark.usefixtures("names")
def test_a_name_that_does_not_resolve_keeps_none_waiting() -> None:
    first, last = find_places(["silent", "gone", "old"], Deadline(0.1))
    assert first.places == [{"host": "old", "hostaddr": "::1"}]
    assert first.unresolved == ['could not translate host name "gone" to address: Name or service not known']
    assert (first.waiting, last.places, last.waiting) == (1, [], 0)
    (said,) = last.unresolved
    assert re.fullmatch(r'could not translate host name "silent" to address: no answer within \d+ s', said)


def open_session(hosts: str, *, seconds: float | None = 30, port: int = 5432) -> connection.Session:
    """Open a session as a store does."""
    settings = connection.Settings(host=hosts, port=port, user="u", dbname="d", sslmode="disable", connect_timeout=60)
    return connection.Session(settings, module="window", run_id="r", seconds=seconds)


STANDBY = 'connection to server at "old" (::1), port 5432 failed: session is read-only'
"""What libpq says itself, of a server that has let it in: without a severity."""


class Refusing:
    """A libpq that reaches nobody."""

    def __init__(self, *errors: str) -> None:
        self.errors = errors
        self.calls: list[dict[str, Any]] = []

    def connect(self, **keywords: Any) -> None:
        """Fail with the next error."""
        self.calls.append(keywords)
        raise psycopg2.OperationalError(self.errors[len(self.calls) - 1])


@pytest.mark.usefixtures("names")
def test_addresses_share_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is asked once, by its address and with its name, and as what it has to be; none takes the time of the others."""
    libpq = Refusing("timeout expired", STANDBY, "timeout expired")
    monkeypatch.setattr(psycopg2, "connect", libpq.connect)
    with pytest.raises(Refusal, match="no answer within connect_timeout"):
        open_session("db,old")
    assert [(call["host"], call["hostaddr"]) for call in libpq.calls] == [
        ("db", "127.0.0.2"),
        ("db", "127.0.0.3"),
        ("old", "::1"),
    ]
    assert {call["target_session_attrs"] for call in libpq.calls} == {"read-write"}
    for call, most in zip(libpq.calls, (10, 15, 30), strict=True):
        assert 1 <= call["connect_timeout"] <= most


@pytest.mark.usefixtures("names")
def test_a_refusal_of_a_name_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """As libpq has it: the addresses of one name are one server."""
    libpq = Refusing('FATAL: role "u" does not exist')
    monkeypatch.setattr(psycopg2, "connect", libpq.connect)
    with pytest.raises(Refusal, match="there is no role u on this server"):
        open_session("db")


@pytest.mark.usefixtures("names")
def test_a_refusal_of_a_name_stands_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """That nothing listens on its other address, as on ::1 of localhost, is not what has to be corrected."""
    libpq = Refusing("Connection refused", 'FATAL: password authentication failed for user "u"')
    monkeypatch.setattr(psycopg2, "connect", libpq.connect)
    with pytest.raises(Refusal, match="the server refused the password") as raised:
        open_session("db")
    assert "Connection refused" not in str(raised.value)
    assert len(libpq.calls) == 2


@pytest.mark.usefixtures("names")
@pytest.mark.parametrize("seconds", [None, 30])
@pytest.mark.parametrize("is_first", [True, False])
@pytest.mark.parametrize(
    ("primary", "words"),
    [
        ("Connection refused", "nothing listens there"),
        ("FATAL: the database system is starting up", "the server is starting, stopping or recovering"),
        ("FATAL: sorry, too many clients already", "too many"),
    ],
)
def test_the_cause_is_the_error_that_counts(
    monkeypatch: pytest.MonkeyPatch, seconds: float | None, is_first: bool, primary: str, words: str
) -> None:
    """By it a store judges whether asking again is in vain: the primary restarts, and its standby lags behind."""
    lagging = 'FATAL: database "d" does not exist'
    errors = [primary, lagging] if is_first else [lagging, primary]
    # Without a limit of time libpq goes through all hosts first, up to a refusal.
    monkeypatch.setattr(psycopg2, "connect", Refusing(*errors if seconds else [lagging, *errors]).connect)
    with pytest.raises(Refusal, match=words) as raised:
        open_session("old,/run/postgresql", seconds=seconds)
    assert str(raised.value.__cause__) == primary


@pytest.mark.usefixtures("names")
@pytest.mark.parametrize("seconds", [None, 30])
@pytest.mark.parametrize("is_first", [True, False])
@pytest.mark.parametrize("standby", [STANDBY, STANDBY.replace("session is read-only", "server is in hot standby mode")])
@pytest.mark.parametrize(
    "primary",
    [
        "FATAL: the database system is starting up",
        "FATAL: sorry, too many clients already",
        'FATAL: password authentication failed for user "u"',
    ],
)
def test_a_standby_hides_no_primary(
    monkeypatch: pytest.MonkeyPatch, seconds: float | None, is_first: bool, standby: str, primary: str
) -> None:
    errors = [primary, standby] if is_first else [standby, primary]
    monkeypatch.setattr(psycopg2, "connect", Refusing(*errors if seconds else ["\n".join(errors), *errors]).connect)
    with pytest.raises(Refusal) as raised:
        open_session("old,/run/postgresql", seconds=seconds)
    assert str(raised.value.__cause__) == primary
    assert "no host of login_host is a primary" not in str(raised.value)


@pytest.mark.usefixtures("names")
@pytest.mark.parametrize("is_first", [True, False])
def test_a_standby_hides_no_primary_that_has_ended(monkeypatch: pytest.MonkeyPatch, is_first: bool) -> None:
    errors = ["Connection refused", STANDBY] if is_first else [STANDBY, "Connection refused"]
    monkeypatch.setattr(psycopg2, "connect", Refusing(*errors).connect)
    with pytest.raises(Refusal, match="nothing listens there"):
        open_session("old,/run/postgresql")


def test_names_that_are_known_are_asked_before_others(monkeypatch: pytest.MonkeyPatch, names: Names) -> None:
    """A name without an answer keeps nobody from its neighbour, and is asked once it is known."""
    calls: list[dict[str, Any]] = []

    def refuse(**keywords: Any) -> None:
        calls.append(keywords)
        names.answer.set()
        raise psycopg2.OperationalError("Connection refused")

    monkeypatch.setattr(psycopg2, "connect", refuse)
    with pytest.raises(Refusal, match="nothing listens there"):
        open_session("slow,old")
    assert [(call["host"], call["hostaddr"]) for call in calls] == [("old", "::1"), ("slow", "127.0.0.4")]
    assert calls[0]["connect_timeout"] <= 15, "half of the time is left for the other"


@pytest.mark.usefixtures("names")
def test_a_name_that_does_not_resolve_is_said_behind_what_was_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(psycopg2, "connect", Refusing("Connection refused").connect)
    with pytest.raises(Refusal, match=r"nothing listens there .*refused; could not translate host name \"gone\""):
        open_session("gone,old")


@pytest.mark.usefixtures("names")
def test_a_standby_does_not_hide_a_name_that_does_not_resolve(monkeypatch: pytest.MonkeyPatch) -> None:
    """It may be the primary's."""
    monkeypatch.setattr(psycopg2, "connect", Refusing(STANDBY).connect)
    with pytest.raises(Refusal, match="the host name gone does not resolve"):
        open_session("gone,old")


@pytest.mark.usefixtures("names")
def test_a_name_that_does_not_resolve_is_said() -> None:
    with pytest.raises(Refusal, match="the host name gone does not resolve") as raised:
        open_session("gone")
    assert isinstance(raised.value.__cause__, psycopg2.OperationalError), "a store asks again"


@pytest.mark.usefixtures("names")
def test_libpq_resolves_no_name_of_its_own() -> None:
    with socket.create_server(("127.0.0.2", 0)) as server:
        port = server.getsockname()[1]
    said = (
        rf"d at db:{port} .*127\.0\.0\.2\", port {port} failed: Connection refused.*127\.0\.0\.3\", port {port} failed"
    )
    with pytest.raises(Refusal, match=said):
        open_session("db", port=port)


def test_a_module_leaves_names_to_libpq(monkeypatch: pytest.MonkeyPatch, names: Names) -> None:
    libpq = Refusing("timeout expired")
    monkeypatch.setattr(psycopg2, "connect", libpq.connect)
    with pytest.raises(Refusal):
        open_session("db,old", seconds=None)
    (call,) = libpq.calls
    assert (call["host"], call["connect_timeout"], call.get("hostaddr"), names) == ("db,old", 60, None, [])


def test_a_pooler_is_asked_where_it_was_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    """By name, an address that does not answer would take the time; it has all of that for itself."""
    asked: list[Any] = []
    monkeypatch.setattr(connection, "is_pooled", lambda *_given: True)
    monkeypatch.setattr(
        connection, "refuse_shared_sessions", lambda _read, keywords, **given: asked.append((keywords, given))
    )
    monkeypatch.setattr(connection.Session, "_read_process", lambda _self: 1)
    monkeypatch.setattr(connection.Session, "_identify", lambda _self, _psycopg2: None)
    monkeypatch.setattr(connection.Session, "_check", lambda _self, **_given: None)
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as ours:
        reached = SimpleNamespace(fileno=ours.fileno, info=SimpleNamespace(host="localhost"))
        monkeypatch.setattr(psycopg2, "connect", lambda **_keywords: reached)
        open_session("localhost")
    ((keywords, given),) = asked
    assert (keywords["host"], keywords["hostaddr"]) == ("localhost", "127.0.0.1")
    assert 15 < given["seconds"] <= 30


@pytest.mark.parametrize(
    ("option", "seconds", "places", "share"),
    [(10, 30, 1, 10), (10, 4.9, 1, 4), (10, 30, 4, 7), (60, 30, 6, 5), (0, 30, 4, 7), (10, 0, 1, 1)],
)
def test_places_share_the_time(option: int, seconds: float, places: int, share: int) -> None:
    assert connection._fit_connect_timeout(option, seconds / places) == share
