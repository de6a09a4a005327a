# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Connections of watches that were replaced, come too late, or are not needed."""

from __future__ import annotations

import threading
from typing import Any

from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.objects import Workload
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.streams import Stream
from unit.kubernetes.scripted_client import LIMIT, ScriptedClient, ScriptedStream
from unit.kubernetes.yaml_objects import NOW

from .test_cache import EMPTY, error_event, event, follow, names, pod, wait_for, wait_until_silent

Json = dict[str, Any]


def test_events_of_a_connection_that_was_replaced_are_dropped() -> None:
    """They are older than the LIST that replaced it."""
    client = ScriptedClient(
        [([pod("a", version="1")], "1"), ([pod("a", version="9")], "9")],
        [[event("MODIFIED", "a", "2", status={"phase": "old"}), event("DELETED", "a", "3"), None], [None]],
    )
    with follow(client) as cache:
        cache.wait_for_change(0.0)
        wait_until_silent(client)
        cache.refresh()
        wait_for(cache, lambda: len(client.asked) > 1)
        assert names(cache) == ["a"]
        assert (cache.snapshot().find("Pod", "n", "a") or {})["metadata"]["resourceVersion"] == "9"
        assert client.asked == ["1", "9"]


def test_what_follows_an_error_event_is_dropped() -> None:
    """The connection is done for, whatever else it says."""
    client = ScriptedClient([EMPTY, ([], "5")], [[error_event(410), event("ADDED", "x", "2"), None], [None]])
    with follow(client) as cache:
        cache.wait_for_change(0.0)
        wait_until_silent(client)
        wait_for(cache, lambda: len(client.asked) > 1)
        assert names(cache) == []
        assert client.asked == ["1", "5"]


def test_a_watch_that_opens_too_late_is_closed() -> None:
    """When the cache has ended, or when another connection has replaced it."""
    client = ScriptedClient([EMPTY], [[None]])
    gate, opened = threading.Event(), ScriptedStream(client, [event("ADDED", "x", "2"), None])

    def stream_late(*_args: Any, **_options: Any) -> Stream:
        gate.wait(LIMIT)
        return opened

    client.stream = stream_late  # type: ignore[method-assign]
    with follow(client) as cache:
        cache.wait_for_change(0.0)
    gate.set()
    assert opened._closed.wait(LIMIT)


def test_no_watch_is_opened_before_the_first_wait() -> None:
    """Where the first look is enough, a LIST is all that is sent."""
    client = ScriptedClient([EMPTY], [[None]])
    with follow(client) as cache:
        assert names(cache) == []
    assert client.asked == []


def test_what_is_kept_of_objects_that_are_gone_is_dropped() -> None:
    """A long wait in a namespace of short-lived pods does not fill the memory."""
    owner = {"kind": "StatefulSet", "name": "w", "uid": "s", "controller": True}
    pods = [pod(f"p{number}", version="1") for number in range(1500)]
    for obj in pods:
        obj["metadata"]["ownerReferences"] = [owner]
    workload = Workload.from_object({"metadata": {"uid": "s"}}, "StatefulSet")
    with follow(ScriptedClient([(pods, "1"), ([], "2")], [[None]])) as cache:
        assert len(cache.snapshot().list_pods(workload)) == 1500
        assert len(cache._kept) == 1500
        assert cache.snapshot().list_pods(workload)[7] is cache.snapshot().list_pods(workload)[7]
        cache.refresh()
        cache.snapshot()
        assert len(cache._kept) == 0


def test_looks_are_counted_and_the_time_is_the_snapshots() -> None:
    """For the measure of an idle wait."""
    with follow(ScriptedClient([EMPTY], [[None]])) as cache:
        assert cache.snapshot().at > NOW - 86400 * 365
        cache.snapshot()
        assert cache.looks == 2
