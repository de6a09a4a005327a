# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Watches that say nothing: doubted, asked about by LISTs, and polled where events do not come."""

from __future__ import annotations

import threading
import time
from typing import Any

from ansible_collections.lowtide.ops.plugins.module_utils._common.retry import Backoff
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.cache import Cache
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.client import Listing
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.errors import (
    Forbidden,
)
from unit.kubernetes.scripted_client import LIMIT, ScriptedClient

from .test_cache import EMPTY, event, fail, names, pod, wait_for

Json = dict[str, Any]


# --- watches that nothing comes of ----------------------------------------------------------------------------------


def follow_silent(client: ScriptedClient, *, late: float = 0.1, **options: Any) -> Cache:
    """A cache that soon doubts a watch that says nothing."""
    cache = Cache(client, backoff=lambda: Backoff(first=0.05), poll_seconds=0.05, silent_seconds=0.1, late_seconds=late)
    cache.follow("Pod", "n", **options)
    return cache


def test_a_watch_whose_events_do_not_come_is_polled() -> None:
    """A proxy buffers them: a LIST shows what was missed, and from then on it is asked again and again."""
    client = ScriptedClient([EMPTY, EMPTY, ([pod("a", version="7")], "7"), ([pod("b", version="8")], "8")], [[None]])
    with follow_silent(client) as cache:
        begun = time.monotonic()
        wait_for(cache, lambda: names(cache) == ["a"])
        assert 0.3 <= time.monotonic() - begun < LIMIT  # after 0.1 s nothing was amiss, after 0.2 s more something was
        assert len(cache.warnings) == 1
        assert cache.warnings[0].startswith("Pods of namespace n: a LIST shows changes that its watch did not deliver")
        assert "a proxy that buffers" in cache.warnings[0]
        wait_for(cache, lambda: names(cache) == ["b"])
        assert len(client.asked) == 1


def test_several_watches_are_doubted_together() -> None:
    """What may be on its way of one may be of the others at the same time."""
    later = ([pod("a", version="7")], "7")
    client = ScriptedClient([EMPTY, EMPTY, EMPTY, later], [[None]])
    options: Json = {"poll_seconds": 60, "silent_seconds": 0.1, "late_seconds": 0.4}
    with Cache(client, **options) as cache:
        for namespace in ("n", "m", "o"):
            cache.follow("Pod", namespace)
        begun = time.monotonic()
        wait_for(cache, lambda: len(cache.warnings) == 3)
        assert 0.5 <= time.monotonic() - begun < LIMIT


def test_a_silent_watch_of_which_nothing_is_missing_is_asked_about_less_and_less() -> None:
    """It goes on, however long nothing happens; what only explains a delay is not asked about."""
    client = ScriptedClient([EMPTY], [[None]])
    begun = time.monotonic()
    with follow_silent(client) as cache:
        wait_for(cache, lambda: client.lists >= 5)
        assert time.monotonic() - begun >= 1.1  # after 0.1, 0.3, 0.7 and 1.1 s
        assert (cache.warnings, len(client.asked)) == ([], 1)
    client = ScriptedClient([EMPTY], [[None]])
    with follow_silent(client, optional=True) as cache:
        cache.wait_for_change(0.3)
        assert client.lists == 1


def test_a_watch_that_delivers_while_it_is_doubted_goes_on() -> None:
    """What the LIST shows may be on its way: it has a moment to arrive."""
    gate = threading.Event()

    class Late(ScriptedClient):
        """Delivers what the second LIST shows right after it."""

        def list(self, *arguments: Any, **options: Any) -> Listing:
            listing = super().list(*arguments, **options)
            if self.lists == 2:
                gate.set()
            return listing

    listed = ([pod("a", version="7")], "7")
    client = Late([EMPTY, listed], [[gate, event("ADDED", "a", "7"), None]])
    with follow_silent(client, late=LIMIT) as cache:
        wait_for(cache, lambda: names(cache) == ["a"])
        assert (client.lists, cache.warnings) == (2, [])


def test_a_watch_that_has_ended_is_not_doubted() -> None:
    """What happens until it is opened again it delivers then."""
    listed = ([pod("a", version="7")], "7")
    client = ScriptedClient([EMPTY, listed], [[], [event("ADDED", "a", "7"), None]])
    ahead = 0.0
    options: Json = {"clock": lambda: time.monotonic() + ahead, "silent_seconds": 0.1, "late_seconds": LIMIT}
    with Cache(client, backoff=lambda: Backoff(first=3600, limit=3600), **options) as cache:
        cache.follow("Pod", "n")
        cache.wait_for_change(0.3)
        assert (client.lists, cache.warnings, names(cache)) == (1, [], [])
        ahead = 3600.0  # the time for which it is left alone is over
        wait_for(cache, lambda: names(cache) == ["a"])
        assert cache.warnings == []


def test_a_list_in_doubt_that_fails_ends_nothing() -> None:
    """The watch may be as good as ever."""
    client = ScriptedClient([EMPTY, fail(), fail(Forbidden, 403), OSError("x")], [[None]])
    with follow_silent(client) as cache:
        wait_for(cache, lambda: client.lists >= 4)
        assert (cache.warnings, len(client.asked)) == ([], 1)
