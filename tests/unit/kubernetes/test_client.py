# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Requests: what is repeated and until when, how pages and streams go on, when credentials are obtained anew."""

from __future__ import annotations

import itertools
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.lowtide.ops.plugins.module_utils._common.retry import Backoff, Deadline
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.access import ClusterAccess
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.client import Client
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.credentials import Credentials, make_bearer
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.errors import (
    ApiError,
    Conflict,
    Forbidden,
    Gone,
    Invalid,
    NotFound,
    TooManyRequests,
    Unauthorized,
)
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.resources import collection_path, object_path
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.streams import Stream
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.transport import DeadlineSocket
from support.memory_kubernetes import MemoryServer

from .access_cases import resolve, write_kubeconfig, write_text

SETS, WORKER = collection_path("StatefulSet", "n"), object_path("StatefulSet", "n", "w")
OBJ = "StatefulSet n/w"


class Clock:
    """A clock that only sleeping moves."""

    def __init__(self) -> None:
        self.now = 0.0
        self.pauses: list[float] = []

    def read(self) -> float:
        """Seconds."""
        return self.now

    def sleep(self, seconds: float) -> None:
        """Take no time in reality."""
        self.pauses.append(seconds)
        self.now += seconds

    def deadline(self, seconds: float) -> Deadline:
        """By this clock."""
        return Deadline(seconds, self.read, self.sleep)


def make_client(url: str, deadline: Deadline, **more: Any) -> Client:
    """With pauses of 1, 2, 4 seconds and so on, without jitter."""
    backoff = lambda: Backoff(first=1.0, limit=8.0, jitter=lambda: 0.0)  # noqa: E731
    access = more.pop("access", None) or ClusterAccess(server=url, source="the test")
    return Client(access, run_id="r", deadline=deadline, backoff=backoff, **more)


def put_worker(memory: MemoryServer, name: str = "w", **metadata: Any) -> None:
    """A workload."""
    memory.put(
        {"kind": "StatefulSet", "metadata": {"name": name, "namespace": "n", **metadata}, "spec": {"replicas": 3}}
    )


# --- requests -------------------------------------------------------------------------------------------------------


def test_what_is_sent(memory: MemoryServer) -> None:
    """Who asks, in which run; over one connection."""
    put_worker(memory)
    client = memory.client(run_id="nightly@2026-11-26 é維")
    assert client.get(WORKER, obj=OBJ, params={"a": "b c"})["spec"] == {"replicas": 3}
    client.get(WORKER, obj=OBJ)
    request = memory.log[0]
    assert (request.method, request.path, request.query) == ("GET", WORKER, {"a": "b c"})
    assert request.headers["user-agent"] == "lowtide.ops/nightly@2026-11-26%20%C3%A9%E7%B6%AD"
    assert (request.headers["accept"], "content-type" in request.headers) == ("application/json", False)
    assert (client.requests, memory.connections, client.write_attempted) == (2, 1, False)


def test_a_token_and_impersonation_are_sent(memory: MemoryServer) -> None:
    """Each group in a header of its own, with every request and stream."""
    memory.tokens = {"t"}
    access = ClusterAccess(
        server=memory.url,
        source="x",
        token="t",  # noqa: S106
        impersonation=[("Impersonate-User", "jane"), ("Impersonate-Group", "a"), ("Impersonate-Group", "b")],
    )
    client = Client(access, run_id="r", deadline=Deadline(10))
    client.list(SETS, obj="StatefulSets")
    client.stream(SETS, obj="StatefulSets", params={"watch": "true"}).close()
    for request in memory.log:
        assert [value for name, value in request.header_list if name == "impersonate-group"] == ["a", "b"]
        assert request.headers["impersonate-user"] == "jane"


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, ApiError),
        (401, Unauthorized),
        (403, Forbidden),
        (404, NotFound),
        (405, ApiError),
        (409, Conflict),
        (410, Gone),
        (422, Invalid),
        (302, ApiError),
        (501, ApiError),
    ],
)
def test_answers_that_are_not_repeated(memory: MemoryServer, status: int, kind: type[ApiError]) -> None:
    """Each with its class, the object, and the server's words."""
    memory.fail_next(status)
    with pytest.raises(ApiError, match=f"StatefulSet n/w: the server answered {status}: injected {status}") as caught:
        memory.client().get(WORKER, obj=OBJ)
    assert type(caught.value) is kind
    assert (caught.value.status, caught.value.reason, len(memory.log)) == (status, "Injected", 1)


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
@pytest.mark.parametrize("name", ["get", "list", "stream", "read_lines", "patch", "create", "delete"])
def test_what_changes_nothing_is_repeated_until_the_deadline(memory: MemoryServer, name: str, status: int) -> None:
    """Reads and dry runs; with pauses that grow, and never more often than they allow."""
    clock = Clock()
    memory.fail_next(status, times=1000)
    client = make_client(memory.url, clock.deadline(20))
    with pytest.raises(ApiError, match=f"answered {status}") as caught:
        call(client, name, dry_run=True)
    assert caught.value.status == status
    assert isinstance(caught.value, TooManyRequests) == (status == 429)
    assert clock.pauses == [1, 2, 4, 8, 5]
    assert (len(memory.log), client.write_attempted) == (6, False)


@pytest.mark.parametrize("when", ["before", "middle", "after"])
@pytest.mark.parametrize("name", ["get", "list", "patch", "create", "delete"])
def test_lost_connections_are_repeated_until_the_deadline(memory: MemoryServer, name: str, when: str) -> None:
    """Wherever they were lost."""
    put_worker(memory)
    clock = Clock()
    memory.lose_next(when, times=1000)
    client = make_client(memory.url, clock.deadline(20))
    with pytest.raises(
        ApiError, match=f"API server {memory.url}: it cannot be reached: .*Check the address from the test"
    ):
        call(client, name, dry_run=True)
    assert clock.pauses == [1, 2, 4, 8, 5]
    assert (len(memory.log), client.write_attempted) == (6, False)


def test_a_server_that_is_down_is_tried_until_the_deadline() -> None:
    """Writes too: nothing was sent."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    for name in ("get", "stream", "patch", "create", "delete"):
        clock = Clock()
        client = make_client(url, clock.deadline(4))
        with pytest.raises(ApiError, match="Connection refused") as caught:
            call(client, name)
        assert clock.pauses == [1, 2, 1]
        assert (type(caught.value), client.requests, client.write_attempted) == (ApiError, 0, False)


def test_the_server_comes_back(memory: MemoryServer) -> None:
    """And the answer is given."""
    put_worker(memory)
    memory.fail_next(503, times=2)
    memory.lose_next("middle")
    memory.fail_next(429, retry_after=0)
    assert memory.client().get(WORKER, obj=OBJ)["metadata"]["name"] == "w"
    assert len(memory.log) == 5


def test_a_connection_that_was_closed_while_idle_is_not_used(memory: MemoryServer) -> None:
    """A write would be in doubt for nothing."""
    put_worker(memory)
    client = memory.client()
    client.get(WORKER, obj=OBJ)
    memory.cut_idle_connections()
    client.patch(WORKER, {"spec": {"replicas": 1}}, obj=OBJ)
    assert memory.connections == 2


def test_answers_that_are_no_objects(memory: MemoryServer) -> None:
    """A login page, a list."""
    for body, problem in (("<html>", "is not JSON"), ("[1]", "answered a list, not an object"), ("", "is not JSON")):
        memory.answer_next(200, body)
        with pytest.raises(ApiError, match=problem):
            memory.client().get(WORKER, obj=OBJ)
    memory.answer_next(404, "<html>not here</html>")
    with pytest.raises(NotFound, match="the server answered 404: <html>not here</html>"):
        memory.client().get(WORKER, obj=OBJ)
    memory.answer_next(403, "")
    with pytest.raises(Forbidden, match=r"the server answered 403\. Grant the permission"):
        memory.client().get(WORKER, obj=OBJ)
    memory.answer_next(500, "x" * 1000)
    with pytest.raises(ApiError) as caught:
        memory.client(0).get(WORKER, obj=OBJ)
    assert "x" * 400 in str(caught.value)
    assert "x" * 401 not in str(caught.value)


# --- deadline and Retry-After ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("name", ["get", "list", "stream"])
def test_retry_after_is_obeyed(memory: MemoryServer, name: str, status: int) -> None:
    """Instead of our own pause; to the second."""
    put_worker(memory)
    clock = Clock()
    memory.fail_next(status, retry_after=7)
    client = make_client(memory.url, clock.deadline(30))
    call(client, name)
    assert clock.pauses == [7.0]


@pytest.mark.parametrize("name", ["get", "stream", "patch", "create"])
def test_retry_after_beyond_the_deadline_is_an_error_at_once(memory: MemoryServer, name: str) -> None:
    """Waiting would be for nothing."""
    put_worker(memory)
    clock = Clock()
    memory.fail_next(429, retry_after=31)
    client = make_client(memory.url, clock.deadline(30))
    with pytest.raises(
        TooManyRequests, match=r"answered 429 and asks to wait 31 s, and only 30\.0 s are left"
    ) as caught:
        call(client, name)
    assert (clock.pauses, client.write_attempted, caught.value.status) == ([], False, 429)
    memory.fail_next(429, retry_after=30)
    call(client, name)
    assert clock.pauses == [30.0]


@pytest.mark.parametrize("value", ["soon", "-1", "1.5", "Thu, 26 Nov 2026 18:00:00 GMT", "²"])
def test_retry_after_that_is_no_number_is_our_own_pause(memory: MemoryServer, value: str) -> None:
    """As if it were not there."""
    put_worker(memory)
    clock = Clock()
    memory.answer_next(429, "{}", {"Retry-After": value})
    make_client(memory.url, clock.deadline(30)).get(WORKER, obj=OBJ)
    assert clock.pauses == [1.0]


@pytest.mark.parametrize("name", ["get", "list", "stream", "read_lines"])
def test_a_server_that_hangs_holds_nobody_beyond_the_deadline(memory: MemoryServer, name: str) -> None:
    """It does not wait for it."""
    memory.hang_next(20, times=10)
    begun = time.monotonic()
    with pytest.raises(ApiError, match="there was no answer in time"):
        call(memory.client(0.2), name)
    assert time.monotonic() - begun < 15


def test_a_server_that_drips_holds_nobody_beyond_the_deadline(memory: MemoryServer) -> None:
    """A byte now and then is no answer."""
    memory.answer_next(200, '{"a": "' + "x" * 100 + '"}', drip=0.1)
    begun = time.monotonic()
    with pytest.raises(ApiError, match="there was no answer in time"):
        memory.client(0.3).get(WORKER, obj=OBJ)
    assert 0.3 < time.monotonic() - begun < 9


def test_one_final_look_is_possible_at_the_deadline(memory: MemoryServer) -> None:
    """And none long after it."""
    put_worker(memory)
    clock = Clock()
    client = make_client(memory.url, clock.deadline(10))
    clock.now = 10.5
    assert client.get(WORKER, obj=OBJ)["metadata"]["name"] == "w"
    clock.now = 11
    for name in ("get", "stream", "patch"):
        with pytest.raises(ApiError, match="no answer in time"):
            call(client, name)
    assert (len(memory.log), clock.pauses) == (1, [])


def test_a_closed_client_gives_up(memory: MemoryServer) -> None:
    """What another thread repeats ends."""
    memory.fail_next(503, times=10_000)
    client = memory.client(30)
    threading.Timer(0.2, client.close).start()
    with pytest.raises(ApiError, match="the client was closed"):
        client.get(WORKER, obj=OBJ)


# --- 401 ------------------------------------------------------------------------------------------------------------


def make_renewable(memory: MemoryServer, folder: Path, *, seconds: float = 5) -> tuple[Client, Path]:
    """A client whose token is in a file."""
    path = Path(write_text(folder / "token", "first"))
    config = write_kubeconfig(folder, cluster={"server": memory.url}, user={"tokenFile": "token"})
    access = resolve(folder, {"kubeconfig": config})
    return Client(access, run_id="r", deadline=Deadline(seconds)), path


@pytest.mark.parametrize("name", ["get", "list", "stream", "patch", "create", "delete"])
def test_an_expired_token_is_read_again(memory: MemoryServer, tmp_path: Path, name: str) -> None:
    """For writes too: a 401 has done nothing. The next one is renewed again."""
    put_worker(memory)
    client, path = make_renewable(memory, tmp_path)
    client.access.credentials()
    for token in ("second", "third"):
        path.write_text(token, encoding="utf-8")
        memory.tokens = {token}
        if name == "delete":
            put_worker(memory)
        call(client, name)
    assert client.access.secrets() == ["first", "second", "third"]
    sent = [request.headers["authorization"].split()[1] for request in memory.log]
    assert sent == ["first", "second", "second", "third"]
    assert client.write_attempted == (name in ("patch", "create", "delete"))


@pytest.mark.parametrize("name", ["get", "stream", "patch"])
def test_a_token_that_stays_refused_is_read_again_once(memory: MemoryServer, tmp_path: Path, name: str) -> None:
    """Then the error says so."""
    memory.tokens = set()
    client, _path = make_renewable(memory, tmp_path)
    with pytest.raises(Unauthorized, match=r"the server answered 401: Unauthorized\. Give valid credentials"):
        call(client, name)
    assert (len(memory.log), client.write_attempted) == (2, False)


def test_a_fixed_token_is_not_sent_again(memory: MemoryServer) -> None:
    """It would be the same."""
    memory.tokens = {"other"}
    with pytest.raises(Unauthorized):
        memory.client(token="mine").get(WORKER, obj=OBJ)  # noqa: S106
    assert len(memory.log) == 1


def test_a_token_that_cannot_be_read_again(memory: MemoryServer, tmp_path: Path) -> None:
    """Both causes are told."""
    client, path = make_renewable(memory, tmp_path)
    client.list(SETS, obj="x")
    memory.tokens = {"second"}
    path.unlink()
    with pytest.raises(
        Unauthorized, match=f"file {path}: the server no longer accepts its credentials, and it cannot be read"
    ):
        client.get(WORKER, obj=OBJ)


class CountingSource:
    """An identity that is another one each time it is asked."""

    can_renew = True

    def __init__(self) -> None:
        self.asked = 0

    def obtain(self, _seconds: float) -> Credentials:
        """The next token."""
        self.asked += 1
        return make_bearer(f"token-{self.asked}")


@pytest.mark.parametrize("name", ["get", "stream"])
def test_a_token_that_another_thread_has_renewed_is_used(memory: MemoryServer, name: str) -> None:
    """Without asking the source once more."""
    put_worker(memory)
    source = CountingSource()
    access = ClusterAccess(server=memory.url, source="x", identity=source)  # type: ignore[arg-type]
    client = Client(access, run_id="r", deadline=Deadline(5))
    memory.tokens = {"token-2"}
    memory.add_rival(lambda: access.credentials(True), verb="watch" if name == "stream" else "get")
    call(client, name)
    assert source.asked == 2
    assert [request.headers["authorization"] for request in memory.log] == ["Bearer token-1", "Bearer token-2"]


@pytest.mark.parametrize("name", ["get", "stream"])
def test_credentials_are_renewed_once_for_each_answer(memory: MemoryServer, name: str) -> None:
    """Those that were accepted in between may have ended again."""
    put_worker(memory)
    source = CountingSource()
    access = ClusterAccess(server=memory.url, source="x", identity=source)  # type: ignore[arg-type]
    for status in (401, 503, 401):
        memory.fail_next(status)
    call(make_client(memory.url, Clock().deadline(9), access=access), name)
    assert (source.asked, len(memory.log)) == (3, 4)


# --- lists ----------------------------------------------------------------------------------------------------------


def test_lists_follow_their_pages(memory: MemoryServer) -> None:
    """The version is the first page's: a watch from there misses nothing."""
    for number in range(5):
        put_worker(memory, f"w{number}")
    client = memory.client()
    memory.add_rival(lambda: put_worker(memory, "late"), when="after", verb="list")
    listing = client.list(SETS, obj="StatefulSets", params={"labelSelector": "!x"}, page=2)
    assert [item["metadata"]["name"] for item in listing.items] == ["w0", "w1", "w2", "w3", "w4"]
    assert listing.version == "1005"
    assert [request.query.get("limit") for request in memory.log] == ["2", "2", "2"]
    assert all(request.query["labelSelector"] == "!x" for request in memory.log)
    assert "continue" not in memory.log[0].query
    assert client.list(SETS, obj="x").version == "1006"
    assert memory.log[-1].query == {"limit": "500"}
    assert client.list(collection_path("Pod", "n"), obj="x").items == []


def test_a_list_whose_continuation_expires_begins_anew(memory: MemoryServer) -> None:
    """The second time in one piece, which always works; nothing is counted twice."""
    for number in range(5):
        put_worker(memory, f"w{number}")
    memory.add_rival(memory.compact, when="after", verb="list", times=2)
    listing = memory.client().list(SETS, obj="StatefulSets", page=2)
    assert [item["metadata"]["name"] for item in listing.items] == ["w0", "w1", "w2", "w3", "w4"]
    assert [(request.query.get("limit"), "continue" in request.query) for request in memory.log] == [
        ("2", False),
        ("2", True),
        ("2", False),
        ("2", True),
        (None, False),
    ]


def test_the_version_of_a_list_is_its_first_pages(memory: MemoryServer) -> None:
    """A watch from a later one could miss what changed between two pages."""
    memory.answer_next(200, '{"items": [{}], "metadata": {"resourceVersion": "5", "continue": "c"}}')
    memory.answer_next(200, '{"items": null, "metadata": {"resourceVersion": "9"}}')
    listing = memory.client().list(SETS, obj="x")
    assert (listing.version, listing.items, memory.log[1].query["continue"]) == ("5", [{}], "c")


def test_a_list_that_is_gone_at_its_first_page_is_an_error(memory: MemoryServer) -> None:
    """Beginning anew would be the same."""
    memory.fail_next(410, times=9)
    with pytest.raises(Gone):
        memory.client().list(SETS, obj="StatefulSets")
    assert len(memory.log) == 1


# --- streams --------------------------------------------------------------------------------------------------------


def test_a_watch_gives_events_until_it_ends(memory: MemoryServer) -> None:
    """On a connection of its own."""
    put_worker(memory)
    client = memory.client()
    version = client.list(SETS, obj="x").version
    stream = client.stream(
        SETS, obj="StatefulSets", params={"watch": "true", "resourceVersion": version, "allowWatchBookmarks": "true"}
    )
    events = iter(stream)
    memory.change("StatefulSet", "n", "w", lambda obj: obj["spec"].update(replicas=5))
    assert next(events)["object"]["spec"] == {"replicas": 5}
    memory.send_bookmarks()
    assert next(events)["type"] == "BOOKMARK"
    memory.remove("StatefulSet", "n", "w")
    memory.end_watches()
    assert [event["type"] for event in events] == ["DELETED"]
    assert (memory.connections, client.requests) == (2, 2)


def test_a_watch_can_be_closed_from_another_thread(memory: MemoryServer) -> None:
    """Its reader ends in order."""
    stream = memory.client().stream(SETS, obj="x", params={"watch": "true"})
    threading.Timer(0.2, stream.close).start()
    assert list(stream) == []
    stream.close()
    assert list(stream) == []


def test_a_watch_that_is_closed_while_it_reads_ends_in_order() -> None:
    """Whatever the read then fails with."""
    ours, theirs = socket.socketpair()

    class Response:
        def readline(self) -> bytes:
            stream.close()
            raise OSError("closed under the reader")

        def close(self) -> None:
            theirs.close()

    stream = Stream(DeadlineSocket(ours, lambda: 1.0), Response(), "x")  # type: ignore[arg-type]
    assert list(stream) == []
    assert (ours.fileno(), theirs.fileno()) == (-1, -1)


def test_a_watch_that_breaks_off_is_an_error(memory: MemoryServer) -> None:
    """Cut, silent, or no JSON."""
    client = memory.client(silence=0.2)
    with pytest.raises(
        ApiError, match="StatefulSets: the stream of its changes broke off: there was no answer in time"
    ):
        list(client.stream(SETS, obj="StatefulSets", params={"watch": "true"}))
    client = memory.client()
    stream = client.stream(SETS, obj="StatefulSets", params={"watch": "true"})
    threading.Timer(0.2, lambda: memory.end_watches(cut=True)).start()
    with pytest.raises(ApiError, match="broke off") as caught:
        list(stream)
    assert caught.value.status == 0
    for body, problem in (("{}\n{\n", "a line that is not JSON"), ("[1]\n", "a line that is no event")):
        memory.answer_next(200, body)
        with pytest.raises(ApiError, match=problem):
            list(client.stream(SETS, obj="StatefulSets", params={"watch": "true"}))


def test_a_watch_that_cannot_be_opened(memory: MemoryServer) -> None:
    """Each with its class."""
    client = memory.client()
    for status, kind in ((410, Gone), (403, Forbidden), (404, NotFound)):
        memory.fail_next(status)
        with pytest.raises(kind):
            client.stream(SETS, obj="x", params={"watch": "true"})
    memory.answer_next(201, "{}")
    with pytest.raises(ApiError, match="answered a watch with 201"):
        client.stream(SETS, obj="x", params={"watch": "true"})


def test_a_watch_outlives_the_deadline_of_requests(memory: MemoryServer) -> None:
    """Who reads it closes it."""
    stream = memory.client(0.1).stream(SETS, obj="x", params={"watch": "true"})
    threading.Timer(1.5, stream.close).start()
    assert list(stream) == []


def test_logs_are_lines_of_text(memory: MemoryServer) -> None:
    """Whatever bytes are in them."""
    memory.put({"kind": "Pod", "metadata": {"name": "p", "namespace": "n"}, "spec": {}})
    memory.log_lines["n", "p"] = ["one\r", "é", ""]
    path = object_path("Pod", "n", "p", "log")
    assert list(memory.client().read_lines(path, obj="Pod n/p", params={"tailLines": "3"})) == ["one", "é", ""]
    assert memory.log[0].query == {"tailLines": "3"}
    memory.answer_next(200, b"\xff\n")
    assert list(memory.client().read_lines(path, obj="Pod n/p")) == ["\ufffd"]
    with pytest.raises(NotFound):
        list(memory.client().read_lines(object_path("Pod", "n", "x", "log"), obj="Pod n/x"))


def test_two_threads_share_a_client(memory: MemoryServer) -> None:
    """One request after the other; none gets the other's answer."""
    for number in range(8):
        put_worker(memory, f"w{number}")
    client = memory.client()
    failures: list[str] = []

    def read(name: str) -> None:
        for _time in range(20):
            if client.get(object_path("StatefulSet", "n", name), obj=name)["metadata"]["name"] != name:
                failures.append(name)

    threads = [threading.Thread(target=read, args=(f"w{number}",)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (failures, client.requests, memory.connections) == ([], 160, 1)


_numbers = itertools.count()


def call(client: Client, name: str, *, dry_run: bool = False) -> Any:
    """One request of each kind."""
    calls: dict[str, Callable[[], Any]] = {
        "get": lambda: client.get(WORKER, obj=OBJ),
        "list": lambda: client.list(SETS, obj=OBJ),
        "stream": lambda: client.stream(SETS, obj=OBJ, params={"watch": "true"}).close(),
        "read_lines": lambda: list(client.read_lines(object_path("Pod", "n", "p", "log"), obj=OBJ)),
        "patch": lambda: client.patch(WORKER, {"spec": {"replicas": 1}}, obj=OBJ, dry_run=dry_run),
        "create": lambda: client.create(
            SETS, {"metadata": {"name": f"made-{next(_numbers)}"}}, obj=OBJ, dry_run=dry_run
        ),
        "delete": lambda: client.delete(WORKER, obj=OBJ, dry_run=dry_run),
    }
    return calls[name]()
