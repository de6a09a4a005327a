# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A double of the client whose listings and watches are written out: for the order of single events."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from types import TracebackType
from typing import Any

from ansible_collections.lowtide.ops.plugins.module_utils._common.retry import Deadline
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.client import Client, Listing
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.streams import Stream

Json = dict[str, Any]
LIMIT = 30.0
"""Seconds that a test waits for what must come."""


class ScriptedStream(Stream):
    """A watch whose events are written out.

    An Exception in it is raised, a gate (threading.Event) is waited for, None waits until it is closed.
    """

    def __init__(self, client: ScriptedClient, events: list[Any]) -> None:
        self._client = client
        self._events = events
        self._closed = threading.Event()

    def __iter__(self) -> Iterator[Json]:
        for entry in self._events:
            if entry is None:
                self._client.silent.set()
                self._closed.wait(LIMIT)
            elif isinstance(entry, threading.Event):
                entry.wait(LIMIT)
            elif isinstance(entry, Exception):
                raise entry
            else:
                yield entry

    def close(self) -> None:
        """Wake up the reader."""
        self._closed.set()


class ScriptedClient(Client):
    """A client that gives the listings and watches written out, the last ones again and again.

    ``silent`` is set when a watch has said everything; ``asked`` holds the versions from which watches were opened.
    """

    def __init__(self, listings: list[Any], watches: list[Any]) -> None:
        self.deadline = Deadline(60, clock=lambda: 0.0)
        self.clock_offset = 0.0
        self.listings, self.watches = listings, watches
        self.silent = threading.Event()
        self.asked: list[str] = []
        self.lists = 0

    def list(self, *_arguments: Any, **_options: Any) -> Listing:
        """The next listing."""
        self.lists += 1
        return Listing(*take_next(self.listings))

    def stream(self, *_arguments: Any, params: Any, **_options: Any) -> Stream:
        """The next watch."""
        assert params["watch"] == params["allowWatchBookmarks"] == "true"
        assert params["timeoutSeconds"] == "61"
        self.asked.append(params["resourceVersion"])
        return ScriptedStream(self, take_next(self.watches))

    def __enter__(self) -> ScriptedClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.silent.set()


def take_next(entries: list[Any]) -> Any:
    """The first entry, which the last one stays."""
    entry = entries.pop(0) if len(entries) > 1 else entries[0]
    if isinstance(entry, Exception):
        raise entry
    return entry
