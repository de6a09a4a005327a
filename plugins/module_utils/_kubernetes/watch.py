# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Watching objects: the newest state of some collections, kept up by WATCH. Private to lowtide.ops: do not import from other collections."""

from __future__ import annotations

import http.client
import queue
import random
import threading
import typing as t
from dataclasses import dataclass, field

from .api import Api, Json, Stream
from .errors import ApiError, Gone

_BACKOFF_LIMIT = 5.0  # seconds between two attempts to open a watch


@dataclass
class Source:
    """One watched collection.

    ``listed`` sources are LISTed when their history is lost (410) or unknown; the others are watched from "now", which the
    server begins with an ADDED event for each existing object. An ``optional`` one may be forbidden: that is a warning.
    """

    key: str
    path: str
    obj: str
    params: dict[str, str] = field(default_factory=dict)
    version: str | None = None
    listed: bool = True
    optional: bool = False
    failures: int = 0
    turn: int = 0


class _Message(t.NamedTuple):
    key: str
    turn: int
    event: Json | None = None
    error: Exception | None = None


class Watches:
    """The newest objects of each source, by name; use as a context manager so that every connection is closed."""

    def __init__(self, api: Api) -> None:
        self.objects: dict[str, dict[str, Json]] = {}
        self.warnings: list[str] = []
        self._api = api
        self._sources: dict[str, Source] = {}
        self._streams: dict[str, Stream] = {}
        self._queue: queue.Queue[_Message] = queue.Queue()
        self._stop = threading.Event()

    def __enter__(self) -> Watches:
        return self

    def __exit__(self, *_exception: object) -> None:
        self._stop.set()
        for stream in list(self._streams.values()):
            stream.close()

    def open(self, source: Source, known: t.Iterable[Json] = ()) -> None:
        """Begin with the objects in ``known`` and go on from ``source.version``; without a version a listed source is LISTed first."""
        self._sources[source.key] = source
        self.objects[source.key] = {str(obj["metadata"]["name"]): obj for obj in known}
        if source.listed and source.version is None:
            self.relist(source.key)
        else:
            self._start(source, 0.0)

    def relist(self, key: str) -> None:
        """LIST a source and watch it from there."""
        source = self._sources[key]
        self.refresh(key)
        self._start(source, 0.0)

    def refresh(self, key: str) -> None:
        """LIST a source without watching it anew."""
        source = self._sources[key]
        answer = self._api.get(source.path, obj=source.obj, params=source.params)
        self.objects[key] = {str(obj["metadata"]["name"]): obj for obj in answer.get("items") or []}
        source.version = str(answer["metadata"]["resourceVersion"])

    def next(self, timeout: float) -> None:
        """Take in one change; returns after it, or after ``timeout`` seconds without one."""
        try:
            message = self._queue.get(timeout=max(0.0, timeout))
        except queue.Empty:
            return
        source = self._sources[message.key]
        if message.turn != source.turn:
            return  # of a connection that has been replaced
        if message.event is None:
            self._ended(source, message.error)
            return
        kind, obj = message.event.get("type"), message.event.get("object") or {}
        if kind == "ERROR":
            self._ended(
                source, Gone(obj=source.obj, problem=str(obj.get("message")), next_step="List again", status=410)
            )
            return
        source.failures = 0
        source.version = str(obj["metadata"]["resourceVersion"])
        if kind == "DELETED":
            self.objects[source.key].pop(str(obj["metadata"]["name"]), None)
        elif kind != "BOOKMARK":
            self.objects[source.key][str(obj["metadata"]["name"])] = obj

    def _ended(self, source: Source, error: Exception | None) -> None:
        """A watch ended: go on from the last version seen, LIST again when that is too old, give up when it is not allowed."""
        if isinstance(error, ApiError) and error.status in (401, 403, 404):
            if not source.optional:
                raise error
            self.warnings.append(str(error))
            return
        if error is not None:
            source.failures += 1
        delay = 0.0 if not source.failures else min(_BACKOFF_LIMIT, 0.1 * 2**source.failures * (0.5 + random.random()))  # noqa: S311
        if isinstance(error, Gone):
            source.version = None
            if source.listed:
                self.relist(source.key)
                return
        if not source.listed:
            source.version = None
            self.objects[source.key] = {}
        self._start(source, delay)

    def _start(self, source: Source, delay: float) -> None:
        source.turn += 1
        arguments = (source, source.turn, source.version, delay)
        threading.Thread(target=self._read, args=arguments, name=f"watch {source.key}", daemon=True).start()

    def _read(self, source: Source, turn: int, version: str | None, delay: float) -> None:
        """In a thread of its own: pass on every event, at the end one message without one."""
        if self._stop.wait(delay):
            return
        params = {**source.params, "watch": "true", "allowWatchBookmarks": "true"}
        params["timeoutSeconds"] = str(max(1, int(self._api.deadline.remaining) + 1))
        if version is not None:
            params["resourceVersion"] = version
        try:
            stream = self._streams[source.key] = self._api.stream(source.path, obj=source.obj, params=params)
            if self._stop.is_set():
                stream.close()
            for event in stream:
                self._queue.put(_Message(source.key, turn, event=event))
            self._queue.put(_Message(source.key, turn))
        except (ApiError, OSError, http.client.HTTPException, ValueError) as error:
            self._queue.put(_Message(source.key, turn, error=error))
