# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The cache: LIST and WATCH that go on whatever happens to them, and cost nothing while nothing happens.

Most tests use a double of the API server; where the order of single events matters, a client with written watches.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from ansible_collections.lowtide.ops.plugins.module_utils._common.errors import OpsError
from ansible_collections.lowtide.ops.plugins.module_utils._common.retry import Backoff, Deadline
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.cache import Cache, _Message
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.errors import (
    ApiError,
    Forbidden,
    Gone,
    NotFound,
    Unauthorized,
)
from support.memory_kubernetes import MemoryServer
from unit.kubernetes.scripted_client import LIMIT, ScriptedClient, ScriptedStream

Json = dict[str, Any]


def pod(name: str, namespace: str = "n", version: str = "", **labels: str) -> Json:
    """A pod; its uid is its name."""
    meta: Json = {"name": name, "namespace": namespace, "uid": name, "labels": labels}
    return {"kind": "Pod", "metadata": {**meta, **({"resourceVersion": version} if version else {})}, "spec": {}}


def wait_for(cache: Cache, holds: Callable[[], bool]) -> None:
    """Take changes in until something holds."""
    end = time.monotonic() + LIMIT
    while not holds():
        assert time.monotonic() < end, "it does not come true"
        cache.wait_for_change(0.2)


def names(cache: Cache, kind: str = "Pod") -> list[str]:
    """The names of all objects of a kind, sorted."""
    return [obj["metadata"]["name"] for obj in cache.snapshot().as_document()["items"] if obj["kind"] == kind]


def list_readers() -> list[threading.Thread]:
    """The threads that read watches of the pods of namespace n."""
    return [thread for thread in threading.enumerate() if thread.name == "watch Pods of namespace n"]


@pytest.fixture
def server() -> Iterator[MemoryServer]:
    """A server with two pods in namespace n and one in another."""
    with MemoryServer() as memory:
        for obj in (pod("a", app="x"), pod("b", app="y"), pod("c", "other")):
            memory.put(obj)
        yield memory


@pytest.fixture
def cache(server: MemoryServer) -> Iterator[Cache]:
    """A cache of that server that polls quickly where it has to."""
    with contextlib.closing(server.client()) as client, Cache(client, poll_seconds=0.05, refusal_seconds=0.1) as opened:
        yield opened


def test_changes_are_taken_in(server: MemoryServer, cache: Cache) -> None:
    """Added, modified and deleted objects; with one LIST and one WATCH."""
    cache.follow("Pod", "n")
    assert names(cache) == ["a", "b"]
    server.put(pod("d"))
    wait_for(cache, lambda: names(cache) == ["a", "b", "d"])
    server.change("Pod", "n", "a", lambda obj: obj.update(status={"phase": "Failed"}))
    wait_for(cache, lambda: (cache.snapshot().find("Pod", "n", "a") or {}).get("status") == {"phase": "Failed"})
    server.remove("Pod", "n", "b")
    wait_for(cache, lambda: names(cache) == ["a", "d"])
    assert (server.count("list"), server.count("watch")) == (1, 1)
    assert cache.warnings == []


def test_an_object_that_is_created_again_is_another_one(server: MemoryServer, cache: Cache) -> None:
    """Objects are kept by uid."""
    cache.follow("Pod", "n")
    server.remove("Pod", "n", "a")
    server.put({**pod("a"), "metadata": {**pod("a")["metadata"], "uid": "other"}})
    wait_for(
        cache, lambda: (cache.snapshot().find("Pod", "n", "a") or {"metadata": {}})["metadata"].get("uid") == "other"
    )
    assert names(cache) == ["a", "b"]


def test_a_snapshot_does_not_change(server: MemoryServer, cache: Cache) -> None:
    """It is of its moment."""
    cache.follow("Pod", "n")
    before = cache.snapshot()
    server.remove("Pod", "n", "b")
    wait_for(cache, lambda: names(cache) == ["a"])
    assert before.find("Pod", "n", "b") is not None
    assert abs(before.at - time.time()) < LIMIT


def test_what_was_listed_already_is_watched_from_there(server: MemoryServer, cache: Cache) -> None:
    """No second LIST, and nothing is missed in between."""
    listed = cache._client.list("/api/v1/namespaces/n/pods", obj="pods")
    server.put(pod("d"))
    cache.follow("Pod", "n", listed=listed)
    assert names(cache) == ["a", "b"]
    wait_for(cache, lambda: names(cache) == ["a", "b", "d"])
    assert server.count("list") == 1


def test_selectors_are_the_servers(server: MemoryServer, cache: Cache) -> None:
    """By name, labels and fields; sources of one kind add up."""
    cache.follow("Pod", "n", name="a", field_selector="status.phase!=Failed")
    assert names(cache) == ["a"]
    cache.follow("Pod", "n", label_selector="app=y")
    cache.follow("Pod", "other")
    assert names(cache) == ["a", "b", "c"]
    queries = [request.query for request in server.log if request.verb == "list"]
    assert queries[0]["fieldSelector"] == "metadata.name=a,status.phase!=Failed"
    assert queries[1]["labelSelector"] == "app=y"
    wait_for(cache, lambda: server.count("watch") == 3)
    watches = [request.query for request in server.log if request.verb == "watch"]
    assert {query.get("fieldSelector") for query in watches} == {"metadata.name=a,status.phase!=Failed", None}
    assert (cache.is_following("Pod", "other"), cache.is_following("Pod", "x")) == (True, False)
    assert cache.is_following("Job", "n") is False
    # One object, or some by a selector, are not the collection.
    assert cache.is_following("Pod", "n") is False
    assert cache.is_following("Pod", "n", label_selector="app=y") is True
    assert cache.is_following("Pod", "n", label_selector="app=x") is False
    snapshot = cache.snapshot()
    assert (snapshot.covers("Pod", "n"), snapshot.covers("Pod", "other")) == (False, True)
    assert snapshot.covers("Pod", "n", "app=y")


def test_a_collection_takes_the_place_of_what_it_holds(server: MemoryServer, cache: Cache) -> None:
    """One object of it that was followed is not watched twice; where the collection may not be read, it stays."""
    cache.follow("Pod", "n", name="a")
    cache.follow("Pod", "other", name="c")
    cache.follow("Pod", "n", optional=True)
    assert len(cache._sources) == 3
    cache.follow("Pod", "n")
    assert [(source.namespace, source.name) for source in cache._sources] == [("other", "c"), ("n", None)]
    assert names(cache) == ["a", "b", "c"]
    assert cache.is_following("Pod", "n", label_selector="app=y")
    server.remove("Pod", "n", "a")
    wait_for(cache, lambda: names(cache) == ["b", "c"])


def test_a_kind_that_is_followed_and_absent_is_known(cache: Cache) -> None:
    """There is none of it, which is not the same as not knowing."""
    cache.follow("Job", "n")
    snapshot = cache.snapshot()
    assert ("Job" in snapshot.known, "Pod" in snapshot.known) == (True, False)


@pytest.mark.parametrize("status", [403, 404])
def test_what_is_optional_and_cannot_be_read_is_a_warning(server: MemoryServer, cache: Cache, status: int) -> None:
    """Its kind stays unknown; what is required is an error."""
    server.fail_next(status, times=2, verb="list")
    cache.follow("Pod", "n", optional=True)
    assert "Pod" not in cache.snapshot().known
    assert (cache.is_following("Pod", "n"), len(cache.warnings)) == (False, 1)
    assert "Pods of namespace n" in cache.warnings[0]
    with pytest.raises(Forbidden if status == 403 else NotFound):
        cache.follow("Pod", "n")


def test_what_may_be_listed_but_not_watched_is_polled(server: MemoryServer, cache: Cache) -> None:
    """With one warning; a LIST that brings nothing new is no change."""
    server.deny("watch", "pods")
    cache.follow("Pod", "n")
    wait_for(cache, lambda: bool(cache.warnings))
    server.put(pod("d"))
    wait_for(cache, lambda: names(cache) == ["a", "b", "d"])
    lists, looks = server.count("list"), cache.looks
    begun = time.monotonic()
    cache.wait_for_change(0.3)
    assert time.monotonic() - begun >= 0.3
    assert server.count("list") - lists in range(1, 8)
    assert (cache.looks, server.count("watch")) == (looks, 1)
    assert len(cache.warnings) == 1
    assert "Pods of namespace n: watching it is not allowed" in cache.warnings[0]
    assert "read every 0.05 s" in cache.warnings[0]


def test_an_object_that_may_only_be_read_is_polled(server: MemoryServer, cache: Cache) -> None:
    """As for an account whose Role names its objects."""
    server.deny("list", "pods")
    server.deny("watch", "pods")
    cache.follow("Pod", "n", name="a")
    assert names(cache) == ["a"]
    server.change("Pod", "n", "a", lambda obj: obj.update(status={"phase": "Failed"}))
    wait_for(cache, lambda: (cache.snapshot().find("Pod", "n", "a") or {}).get("status") == {"phase": "Failed"})
    server.remove("Pod", "n", "a")
    wait_for(cache, lambda: names(cache) == [])
    assert "Pod" in cache.snapshot().known
    assert [request.verb for request in server.log[:2]] == ["list", "get"]
    assert (server.count("list"), server.count("watch"), len(cache.warnings)) == (1, 0, 1)
    with pytest.raises(Forbidden):
        cache.follow("Pod", "n")


@pytest.mark.parametrize("cut", [False, True])
def test_a_watch_that_ends_goes_on_where_it_was(server: MemoryServer, cache: Cache, cut: bool) -> None:
    """Without another LIST, and without missing what happened meanwhile."""
    cache.follow("Pod", "n")
    wait_for(cache, lambda: server.count("watch") == 1)
    server.put(pod("d"))
    wait_for(cache, lambda: names(cache) == ["a", "b", "d"])
    server.end_watches(cut=cut)
    for reader in list_readers():
        reader.join(LIMIT)
    server.put(pod("e"))
    wait_for(cache, lambda: names(cache) == ["a", "b", "d", "e"])
    assert (server.count("list"), server.count("watch")) == (1, 2)


def test_history_that_is_lost_is_listed_again(server: MemoryServer, cache: Cache) -> None:
    """What was deleted meanwhile goes too, and the watch goes on from there."""
    cache.follow("Pod", "n")
    wait_for(cache, lambda: server.count("watch") == 1)
    server.end_watches()
    server.remove("Pod", "n", "b")
    server.put(pod("d"))
    server.compact()
    wait_for(cache, lambda: names(cache) == ["a", "d"])
    server.put(pod("e"))
    wait_for(cache, lambda: names(cache) == ["a", "d", "e"])
    assert server.count("list") == 2


def test_bookmarks_are_no_change(server: MemoryServer, cache: Cache) -> None:
    """Their version is where the next watch goes on."""
    cache.follow("Pod", "n")
    wait_for(cache, lambda: server.count("watch") == 1)
    server.put(pod("x", "other"))
    server.send_bookmarks()
    begun = time.monotonic()
    cache.wait_for_change(0.3)
    assert time.monotonic() - begun >= 0.3
    server.end_watches()
    wait_for(cache, lambda: server.count("watch") == 2)
    versions = [int(request.query["resourceVersion"]) for request in server.log if request.verb == "watch"]
    assert versions[1] > versions[0]


def test_a_refresh_reads_everything_and_the_watches_go_on(server: MemoryServer, cache: Cache) -> None:
    """Once each; optional sources that are unknown are left alone."""
    cache.follow("Pod", "n")
    cache.follow("Job", "n")
    server.deny("list", "events")
    cache.follow("Event", "n", optional=True)
    server.put(pod("d"))
    lists = server.count("list")
    cache.refresh()
    assert names(cache) == ["a", "b", "d"]
    assert server.count("list") == lists + 2
    server.put(pod("e"))
    wait_for(cache, lambda: names(cache) == ["a", "b", "d", "e"])


def test_a_refresh_that_fails_is_an_error_unless_it_is_optional(server: MemoryServer, cache: Cache) -> None:
    """An optional source keeps what it had."""
    cache.follow("Pod", "n", optional=True)
    server.deny("list", "pods")
    cache.refresh()
    assert (names(cache), len(cache.warnings)) == (["a", "b"], 1)
    cache.follow("Job", "n")
    server.deny("list", "jobs.batch")
    with pytest.raises(Forbidden):
        cache.refresh()


def test_no_connection_is_left(server: MemoryServer) -> None:
    """Readers end when the cache does."""
    with contextlib.closing(server.client()) as client, Cache(client) as opened:
        opened.follow("Pod", "n")
        wait_for(opened, lambda: server.count("watch") == 1)
        readers = list_readers()
        assert len(readers) == 1
    readers[0].join(LIMIT)
    assert not readers[0].is_alive()


def test_an_idle_wait_blocks() -> None:
    """It asks for the time a few times, not all the time, also when something is due later."""
    times: list[float] = []

    def clock() -> float:
        times.append(time.monotonic())
        return times[-1]

    for watch in ([None], fail(Forbidden, 403)):
        client = ScriptedClient([EMPTY], [watch])
        with Cache(client, clock=clock, poll_seconds=60) as cache:
            cache.follow("Pod", "n")
            cache.wait_for_change(0.1)
            cache.wait_for_change(0.1)
            times.clear()
            begun = time.monotonic()
            cache.wait_for_change(0.2)
            assert 0.2 <= time.monotonic() - begun < LIMIT
            assert len(times) <= 8


@pytest.mark.timeout(20)
def test_a_watch_that_is_not_allowed_is_polled_at_once() -> None:
    """Not after a pause: by a clock that stands still nothing would ever be due then."""
    client = ScriptedClient([EMPTY, ([pod("a")], "5")], [fail(Forbidden, 403)])
    with Cache(client, clock=lambda: 100.0, poll_seconds=60) as cache:
        cache.follow("Pod", "n")
        cache.wait_for_change(30)
        assert names(cache) == ["a"]


def test_what_is_due_before_the_timeout_is_done_before_it() -> None:
    """A watch that ended is opened again after its pause, within one wait."""
    client = ScriptedClient([EMPTY], [[], [event("ADDED", "a", "2"), None]])
    with follow(client) as cache:
        begun = time.monotonic()
        cache.wait_for_change(60)
        assert time.monotonic() - begun < 30
        assert names(cache) == ["a"]


def test_an_idle_wait_ends_at_its_timeout(cache: Cache) -> None:
    """And looks at nothing."""
    cache.follow("Pod", "n")
    begun = time.monotonic()
    cache.wait_for_change(0.2)
    assert 0.2 <= time.monotonic() - begun < LIMIT
    assert cache.looks == 0
    cache.wait_for_change(-1)


# --- single events, in an order that the test decides ---------------------------------------------------------------


def event(kind: str, name: str, version: str, **fields: Any) -> Json:
    """An event of a watch."""
    return {"type": kind, "object": {**pod(name, version=version), **fields}}


def error_event(code: int) -> Json:
    """An ERROR event."""
    return {"type": "ERROR", "object": {"kind": "Status", "code": code, "message": "too old resource version"}}


def fail(kind: type[ApiError] = ApiError, status: int = 500) -> ApiError:
    """An error of the client."""
    return kind(obj="pods", problem="broken", next_step="-", status=status)


def follow(client: ScriptedClient, **options: Any) -> Cache:
    """A cache that follows the pods of namespace n."""
    cache = Cache(client, backoff=lambda: Backoff(first=0.05), refusal_seconds=0.2)
    cache.follow("Pod", "n", **options)
    return cache


def wait_until_silent(client: ScriptedClient) -> None:
    """Until a watch has said everything."""
    assert client.silent.wait(LIMIT)


EMPTY: tuple[list[Json], str] = ([], "1")


def test_everything_that_is_queued_is_taken_in_at_once() -> None:
    """In the order in which it came: a namespace that changes much is looked at once, not once for each event."""
    events = [event("ADDED", f"p{number}", str(number + 2)) for number in range(50)]
    events += [
        event("MODIFIED", "p7", "98", status={"phase": "A"}),
        event("MODIFIED", "p7", "99", status={"phase": "B"}),
    ]
    client = ScriptedClient([EMPTY], [[*events, event("DELETED", "p3", "100"), None]])
    with follow(client) as cache:
        cache.wait_for_change(0.0)
        wait_until_silent(client)
        cache.wait_for_change(LIMIT)
        assert len(names(cache)) == 49
        assert (cache.snapshot().find("Pod", "n", "p7") or {})["status"] == {"phase": "B"}


def test_the_event_that_ends_a_wait_is_not_overtaken() -> None:
    """The first one wakes the wait up, and the others come after it."""
    gate = threading.Event()
    phases = [event("MODIFIED", "p", str(number + 2), status={"phase": number}) for number in range(200)]
    client = ScriptedClient([EMPTY], [[gate, *phases, None]])
    with follow(client) as cache:
        threading.Timer(0.05, gate.set).start()
        last = -1
        while last < 199:
            cache.wait_for_change(LIMIT)
            phase = (cache.snapshot().find("Pod", "n", "p") or {})["status"]["phase"]
            assert phase > last
            last = phase


@pytest.mark.parametrize(
    "watch", [[], [event("BOOKMARK", "", "5")], [event("MODIFIED", "p", "5")], [fail()], [OSError()]]
)
def test_a_watch_that_ends_is_not_opened_in_a_loop(watch: list[Any]) -> None:
    """A proxy that answers and closes costs a pause each time, with events or without."""
    client = ScriptedClient([EMPTY], [watch])
    with follow(client) as cache:
        end = time.monotonic() + 0.5
        while time.monotonic() < end:
            cache.wait_for_change(end - time.monotonic())
        assert 1 <= len(client.asked) <= 21
        assert client.lists == 1


class RecordedBackoff(Backoff):
    """Pauses without jitter, that are noted."""

    def __init__(self) -> None:
        super().__init__(first=0.01, jitter=lambda: 0.0)
        self.pauses: list[float] = []

    def take_pause(self) -> float:
        """Note it."""
        self.pauses.append(super().take_pause())
        return self.pauses[-1]


def watch_six_times(watch: list[Any]) -> list[float]:
    """The pauses between six watches that all end like this."""
    backoff = RecordedBackoff()
    client = ScriptedClient([EMPTY], [watch] * 5 + [[*watch, None]])
    with Cache(client, backoff=lambda: backoff) as cache:
        cache.follow("Pod", "n")
        wait_for(cache, lambda: len(client.asked) == 6)
    return backoff.pauses


def test_pauses_grow_while_nothing_comes_and_begin_again_after_an_event() -> None:
    """A bookmark is no event."""
    assert watch_six_times([]) == [0.01, 0.02, 0.04, 0.08, 0.16]
    assert watch_six_times([event("BOOKMARK", "", "5")]) == [0.01, 0.02, 0.04, 0.08, 0.16]
    assert watch_six_times([event("MODIFIED", "p", "5")]) == [0.01] * 5


@pytest.mark.parametrize("first", [[error_event(410)], [fail(Gone, 410)], [error_event(500)]])
def test_lost_history_and_a_relist_that_fails(first: list[Any]) -> None:
    """Another attempt follows, whatever the server says; only then does the watch go on, from the new version."""
    client = ScriptedClient(
        [([pod("a", version="1")], "1"), fail(), fail(), OSError("down"), ([pod("b", version="7")], "8")],
        [first, [event("ADDED", "c", "9"), None]],
    )
    with follow(client) as cache:
        wait_for(cache, lambda: names(cache) == ["b", "c"])
        assert client.asked == ["1", "8"]
        assert client.lists == 5


@pytest.mark.parametrize("error", [fail(Unauthorized, 401), fail(NotFound, 404)])
def test_what_can_never_be_watched_ends_the_wait(error: ApiError) -> None:
    """Unless it is optional: then it is a warning, and what was known of it is forgotten."""
    client = ScriptedClient([([pod("a", version="1")], "1")], [error])
    begun = time.monotonic()
    with follow(client) as cache, pytest.raises(type(error)):
        cache.wait_for_change(LIMIT)
    assert (len(client.asked) > 1) is isinstance(error, Unauthorized)
    assert isinstance(error, NotFound) or time.monotonic() - begun >= 0.2
    with follow(client, optional=True) as cache:
        cache.wait_for_change(LIMIT)
        assert (names(cache), "Pod" in cache.snapshot().known) == ([], False)
        assert cache.warnings == [str(error)]


def test_a_relist_that_is_forbidden_ends_the_wait() -> None:
    """A right that was taken away meanwhile does not come back by waiting longer."""
    client = ScriptedClient([EMPTY, fail(Forbidden, 403)], [[error_event(410)]])
    with follow(client) as cache, pytest.raises(Forbidden):
        wait_for(cache, lambda: client.lists > 20)


@pytest.mark.parametrize("error", [fail(Unauthorized, 401), fail(Forbidden, 403)])
def test_a_short_refusal_of_what_was_read_before_is_borne(error: ApiError) -> None:
    """A server that has just begun does not know all roles yet: neither is the wait over, nor is there polling."""
    client = ScriptedClient(
        [EMPTY, error, error, ([], "5")],
        [[event("ADDED", "a", "2"), error_event(410)], error, error, [event("ADDED", "b", "9"), None]],
    )
    with Cache(client, backoff=lambda: Backoff(first=0.01)) as cache:
        cache.follow("Pod", "n")
        wait_for(cache, lambda: names(cache) == ["b"])
        assert cache.warnings == []
        assert client.lists == 4
        cache._sources[0].refused_at = -1000.0
        client.watches = [[None]]
        cache._end(cache._sources[0], None)
        wait_for(cache, lambda: len(client.asked) == 5)
        wait_for(cache, lambda: cache._sources[0].stream is not None)
        cache._end(cache._sources[0], error)  # long after the other refusal, and a watch was opened in between
        assert cache.warnings == []


def test_a_watch_that_is_forbidden_for_good_is_polled_in_the_end() -> None:
    """After it had worked."""
    client = ScriptedClient([EMPTY], [[event("ADDED", "a", "2")], fail(Forbidden, 403)])
    begun = time.monotonic()
    with follow(client) as cache:
        wait_for(cache, lambda: bool(cache.warnings))
        assert 0.2 <= time.monotonic() - begun < LIMIT
        assert "watching it is not allowed" in cache.warnings[0]


def test_a_refresh_bears_a_short_refusal() -> None:
    """One that lasts is an error."""
    client = ScriptedClient([EMPTY, fail(Forbidden, 403), fail(Unauthorized, 401), ([pod("a")], "5")], [[None]])
    client.deadline = Deadline(60)
    with follow(client) as cache:
        cache.refresh()
        assert names(cache) == ["a"]
        client.listings = [fail(Forbidden, 403)]
        with pytest.raises(Forbidden):
            cache.refresh()
        client.deadline = Deadline(0)
        lists = client.lists
        with pytest.raises(Forbidden):
            cache.refresh()
        assert client.lists == lists + 1


# --- many events ----------------------------------------------------------------------------------------------------


def test_events_that_pour_in_are_taken_in_together() -> None:
    """Many at a look, for as long as the caller says; one that comes after that time is told at once."""
    client = ScriptedClient([EMPTY], [[]])

    class Slow(ScriptedStream):
        def __iter__(self) -> Iterator[Json]:
            for number in range(100):
                time.sleep(0.002)
                yield event("ADDED", f"p{number}", str(number + 2))
            yield from super().__iter__()

    client.stream = lambda *_args, **_options: Slow(client, [None])  # type: ignore[method-assign]
    ahead = 0.0

    with follow(client) as cache:

        def come_late() -> None:
            """Send an event when the time for which events are collected is over."""
            nonlocal ahead
            ahead = 200.0
            cache._queue.put(next_message(cache))

        cache._clock = lambda: time.monotonic() + ahead
        waits, begun = 0, time.monotonic()
        while len(names(cache)) < 100:
            cache.wait_for_change(LIMIT, settle=0.1)
            waits += 1
        assert waits <= (time.monotonic() - begun) / 0.1 + 1
        threading.Timer(0.1, come_late).start()
        begun = time.monotonic()
        cache.wait_for_change(300, settle=100)
        assert time.monotonic() - begun < LIMIT
        begun = time.monotonic()
        cache._queue.put(next_message(cache))
        cache.wait_for_change(0.05, settle=100)
        assert time.monotonic() - begun < LIMIT


def next_message(cache: Cache) -> Any:
    """One more event of the first source."""
    source = cache._sources[0]
    return _Message(source, source.turn, event=event("ADDED", "late", "999"))


def test_an_unforeseen_error_of_a_reader_is_raised() -> None:
    """It is not lost in its thread."""
    with follow(ScriptedClient([EMPTY], [[KeyError("x")]])) as cache, pytest.raises(KeyError):
        cache.wait_for_change(LIMIT)
    refusal = OpsError(obj="plugin", problem="gave no credentials", next_step="-")
    with follow(ScriptedClient([EMPTY], [refusal])) as cache, pytest.raises(OpsError, match="gave no credentials"):
        cache.wait_for_change(LIMIT)
