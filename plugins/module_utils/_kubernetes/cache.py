# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Collections of a server, kept up to date by LIST and WATCH.

Private to lowtide.ops: do not import from other collections.
"""

from __future__ import annotations

import http.client
import queue
import threading
import time
import typing as t

from .._common.errors import OpsError
from .._common.retry import Backoff
from .client import Client, Listing
from .errors import ApiError, Forbidden, Gone, NotFound, Unauthorized
from .fields import Json, as_dict, as_text, get_path
from .resources import Kind, collection_path, find_resource, format_collection, format_title, object_path
from .snapshot import Kept, Snapshot, identify
from .streams import Stream

POLL_SECONDS = 2.0
"""Between two LISTs of what may not be watched."""

REFUSAL_SECONDS = 30.0
"""For so long a 401 or 403 is borne for what was read before: a server that has just begun may not know all yet."""
SILENT_SECONDS = 10.0
"""A watch that has said nothing for so long is doubted, then again after twice that and four times that."""
TOGETHER = 1.0
"""Seconds. Watches whose turn to be doubted comes within them are doubted together."""
LATE_SECONDS = 1.0
"""For so long an event may be on its way that a LIST shows already."""

_LOST = (OSError, http.client.HTTPException, ValueError)
"""How a connection ends that nobody wanted to end, also in the middle of a line."""
_NEVER = (Forbidden, Unauthorized, NotFound)
"""Answers that another attempt does not change."""
_REFUSED = (Forbidden, Unauthorized)
"""Those that may pass, where it was allowed a moment ago."""


def _get_version(obj: Json) -> str:
    return as_text(get_path(obj, "metadata", "resourceVersion"))


class _Source:
    """One followed collection, or one object of it.

    ``due`` is when its watch is opened or its LIST is repeated, ``doubt_at`` when a LIST shows whether a watch that says
    nothing is to be believed, after ``silence`` seconds. ``heard`` counts what watches have said. ``refused_at`` is when
    the first of the refusals came that have lasted since; ``opened`` is the newest turn whose watch was opened.
    """

    def __init__(
        self, kind: Kind, namespace: str, name: str | None, params: dict[str, str], *, optional: bool, backoff: Backoff
    ) -> None:
        self.resource = find_resource(kind)
        self.kind = self.resource.kind
        self.namespace = namespace
        self.name = name
        self.params = params
        self.optional = optional
        self.title = format_title(kind, namespace, name) if name else format_collection(kind, namespace)
        self.path = collection_path(kind, namespace)
        self.objects: dict[str, Json] = {}
        self.version: str | None = None
        self.is_known = False
        self.is_polled = False
        self.is_single = False
        self.turn = 0
        self.opened = 0
        self.due: float | None = None
        self.doubt_at: float | None = None
        self.silence = 0.0
        self.heard = 0
        self.refused_at: float | None = None
        self.backoff = backoff
        self.stream: Stream | None = None

    @property
    def is_whole(self) -> bool:
        """Whether it is all of a kind that a namespace has."""
        return not self.params

    def covers(self, kind: str, namespace: str, label_selector: str | None) -> bool:
        """Return whether it holds all of a kind that the selector selects."""
        if not self.is_known or self.name is not None or (self.kind, self.namespace) != (kind, namespace):
            return False
        return self.params.get("labelSelector") in (None, label_selector)


class _Message(t.NamedTuple):
    """From the reader of a watch: an event, or (without one) its end. ``turn`` numbers the connections of a source."""

    source: _Source
    turn: int
    event: Json | None = None
    error: Exception | None = None


class Cache:
    """The newest objects of everything followed, by uid. A context manager: at its end every connection is closed.

    Each watch is read by a thread of its own, which only passes events on; everything else happens in the thread that
    calls. ``looks`` counts snapshots. ``warnings`` says what could not be read, and what is polled because it may not
    be watched, or because its watch does not deliver.
    """

    def __init__(
        self,
        client: Client,
        *,
        clock: t.Callable[[], float] = time.monotonic,
        backoff: t.Callable[[], Backoff] = Backoff,
        poll_seconds: float = POLL_SECONDS,
        refusal_seconds: float = REFUSAL_SECONDS,
        silent_seconds: float = SILENT_SECONDS,
        late_seconds: float = LATE_SECONDS,
    ) -> None:
        self.warnings: list[str] = []
        self.looks = 0
        self._client = client
        self._clock = clock
        self._backoff = backoff
        self._poll_seconds = poll_seconds
        self._refusal_seconds = refusal_seconds
        self._silent_seconds = silent_seconds
        self._late_seconds = late_seconds
        self._sources: list[_Source] = []
        self._queue: queue.SimpleQueue[_Message] = queue.SimpleQueue()
        self._taken: list[_Message] = []
        self._stop = threading.Event()
        self._kept: Kept = {}

    def __enter__(self) -> Cache:
        return self

    def __exit__(self, *_exception: object) -> None:
        self._stop.set()
        for source in self._sources:
            self._disconnect(source)

    def follow(
        self,
        kind: Kind,
        namespace: str,
        *,
        name: str | None = None,
        label_selector: str | None = None,
        field_selector: str | None = None,
        optional: bool = False,
        listed: Listing | None = None,
    ) -> None:
        """Read a collection (or one object of it, by ``name``) and keep it up to date from now on.

        ``listed`` has been read already: the watch goes on from its version. An ``optional`` collection that cannot be
        read is a warning, and its kind stays unknown. What may be listed but not watched is listed every 2 s. Raises
        ApiError.
        """
        selectors = [f"metadata.name={name}"] if name else []
        selectors += [field_selector] if field_selector else []
        params = {"fieldSelector": ",".join(selectors)} if selectors else {}
        if label_selector:
            params["labelSelector"] = label_selector
        source = _Source(kind, namespace, name, params, optional=optional, backoff=self._backoff())
        try:
            if listed is None:
                listed = self._list(source)
        except OpsError as error:
            if not optional:
                raise
            self.warnings.append(str(error))
            return
        if source.is_whole and not optional:
            self._drop_covered(source)
        self._sources.append(source)
        self._take_list(source, listed)
        # The watch is opened with the first wait: where the first look is enough, there is none.
        self._schedule(source, self._poll_seconds if source.is_polled else 0.0)

    def is_following(self, kind: str, namespace: str, *, label_selector: str | None = None) -> bool:
        """Return whether all of this kind is followed in the namespace, or all that the selector selects.

        One object that is followed by its name, and what other selectors select, is not.
        """
        return any(source.covers(kind, namespace, label_selector) for source in self._sources)

    def _drop_covered(self, collection: _Source) -> None:
        """Follow no longer by itself what a collection holds too."""
        kept = []
        for source in self._sources:
            if (source.kind, source.namespace) == (collection.kind, collection.namespace):
                source.turn += 1
                self._disconnect(source)
            else:
                kept.append(source)
        self._sources = kept

    def snapshot(self) -> Snapshot:
        """Return everything as it is known now; later changes do not alter it."""
        self.looks += 1
        objects: dict[str, dict[str, Json]] = {}
        for source in sorted(self._sources, key=lambda source: source.name is not None):
            objects.setdefault(source.kind, {}).update(source.objects)
        read = [source for source in self._sources if source.is_known]
        collections = {
            (source.kind, source.namespace, source.params.get("labelSelector", ""))
            for source in read
            if source.name is None
        }
        if len(self._kept) > 2 * sum(map(len, objects.values())) + 1000:
            self._kept.clear()  # of objects that are gone
        return Snapshot(
            objects, {source.kind for source in read}, self.read_clock(), kept=self._kept, collections=collections
        )

    def read_clock(self) -> float:
        """Return the server's time in seconds since 1970: what its objects say of times is judged by it."""
        return self._client.read_server_clock()

    def wait_for_change(self, timeout: float, *, settle: float = 0.0) -> None:
        """Wait until an object has changed, at most ``timeout`` seconds, and take in everything that has come then.

        It takes at least ``settle`` seconds if that is less: changes that pour in are one change.
        """
        begun = self._clock()
        end = begun + timeout
        while not (self._drain() | self._act_on_due()):
            now = self._clock()
            if now >= end:
                return
            due = self._find_due(end)
            if due > now:
                self._take_message(due - now)
        settled = min(end, begun + settle)
        while (now := self._clock()) < settled:
            self._take_message(settled - now)
        self._drain()

    def _find_due(self, end: float) -> float:
        """Return when there is something to do, at the latest ``end``."""
        times = [at for source in self._sources for at in (source.due, source.doubt_at) if at is not None]
        return min([end, *times])

    def refresh(self) -> None:
        """Read everything again, whatever the watches said: the last look before a wait is given up.

        Raises ApiError.
        """
        for source in self._sources:
            if not source.is_known:
                continue
            try:
                listing = self._list(source) if source.optional else self._list_patiently(source)
            except OpsError as error:
                if not source.optional:
                    raise
                self.warnings.append(str(error))
                continue
            source.turn += 1  # what an older connection has still to say is older than this
            self._disconnect(source)
            self._take_list(source, listing)
            self._schedule(source, self._poll_seconds if source.is_polled else source.backoff.take_pause())

    def _list_patiently(self, source: _Source) -> Listing:
        """LIST a source, again after a refusal that may pass."""
        while True:
            try:
                return self._list(source)
            except _REFUSED:
                if not self._may_pass(source) or self._client.deadline.passed:
                    raise
                self._client.deadline.pause(source.backoff.take_pause())

    def _may_pass(self, source: _Source) -> bool:
        """Return whether a refusal that has just come is borne: it was allowed before, and not refused for long."""
        now = self._clock()
        if source.refused_at is None:
            source.refused_at = now
        return now - source.refused_at < self._refusal_seconds

    def _list(self, source: _Source) -> Listing:
        """LIST a source; one object that may be read but not listed is read by itself, and polled from then on."""
        if not source.is_single:
            try:
                return self._client.list(source.path, obj=source.title, params=source.params)
            except Forbidden:
                if source.name is None:
                    raise
        try:
            path = object_path(source.resource, source.namespace, t.cast("str", source.name))
            items = [self._client.get(path, obj=source.title)]
        except NotFound:
            items = []
        if not source.is_single:
            source.is_single = True
            self._poll(source, "it may be read, not listed")
        return Listing(items, "")

    def _take_list(self, source: _Source, listing: Listing) -> bool:
        """Replace a source's objects by those listed; return whether anything differs."""
        is_changed = not source.is_known or self._differs(source, listing)
        if is_changed:
            source.objects = {identify(obj): obj for obj in listing.items}
        source.version = listing.version
        source.is_known = True
        source.refused_at = None
        return is_changed

    @staticmethod
    def _differs(source: _Source, listing: Listing) -> bool:
        """Return whether a LIST shows others than the objects that are known, or other versions of them."""
        before = {uid: _get_version(obj) for uid, obj in source.objects.items()}
        return before != {identify(obj): _get_version(obj) for obj in listing.items}

    def _poll(self, source: _Source, why: str) -> None:
        source.is_polled = True
        self.warnings.append(
            f"{source.title}: {why}, so it is read every {self._poll_seconds:g} s instead of being watched"
        )

    def _check_silent(self) -> bool:
        """LIST what watches have said nothing of for long; return whether an object has changed.

        Where a LIST shows what its watch does not deliver in a moment either, that watch is not believed any more.
        """
        now = self._clock()
        doubted = [source for source in self._sources if source.doubt_at is not None]
        if not any(source.doubt_at <= now for source in doubted if source.doubt_at is not None):
            return False
        doubted = [source for source in doubted if source.doubt_at is not None and source.doubt_at <= now + TOGETHER]
        listed: list[tuple[_Source, int, Listing]] = []
        for source in doubted:
            self._doubt_later(source)
            heard = source.heard
            try:
                listing = self._list(source)
            except (OpsError, *_LOST):
                continue  # the watch may be as good as before
            if self._differs(source, listing):
                listed.append((source, heard, listing))
        is_changed = False
        late_at = self._clock() + self._late_seconds
        while any(source.heard == heard for source, heard, _listing in listed) and (now := self._clock()) < late_at:
            self._take_message(late_at - now)
            is_changed |= self._drain()
        for source, heard, listing in listed:
            if source.heard == heard and not source.is_polled:
                is_changed |= self._distrust(source, listing)
        return is_changed

    def _distrust(self, source: _Source, listing: Listing) -> bool:
        """Poll from now on what its watch does not deliver; return whether an object has changed."""
        source.turn += 1
        self._disconnect(source)
        self._poll(
            source,
            "a LIST shows changes that its watch did not deliver (usually because of a proxy that buffers answers)",
        )
        self._schedule(source, self._poll_seconds)
        return self._take_list(source, listing)

    def _doubt_later(self, source: _Source, *, silence: float = 0.0) -> None:
        """Plan the next look at whether a watch delivers; each pause is twice the last one, unless it is given."""
        source.silence = silence or min(2 * source.silence, 4 * self._silent_seconds)
        source.doubt_at = self._clock() + source.silence

    def _schedule(self, source: _Source, pause: float) -> None:
        source.due = self._clock() + pause

    def _act_on_due(self) -> bool:
        """Open the watches and repeat the LISTs whose time has come; return whether an object has changed."""
        is_changed = self._check_silent()
        now = self._clock()
        for source in self._sources:
            if source.due is None or source.due > now:
                continue
            source.due = None
            if source.version is not None and not source.is_polled:
                self._connect(source)
                continue
            try:
                is_changed |= self._take_list(source, self._list(source))
            except (OpsError, *_LOST) as error:
                is_changed |= self._end(source, error)
                continue
            # The watch goes on at once after a LIST that was read; it is the LIST that had to wait for its turn.
            self._schedule(source, self._poll_seconds if source.is_polled else 0.0)
        return is_changed

    def _take_message(self, timeout: float | None) -> bool:
        """Take the next message off the queue, for ``_drain``; return whether there was one in ``timeout`` seconds."""
        try:
            self._taken.append(self._queue.get(block=timeout is not None, timeout=timeout))
        except queue.Empty:
            return False
        return True

    def _drain(self) -> bool:
        """Take in everything that is queued; return whether an object has changed."""
        while self._take_message(None):
            pass
        messages, self._taken = self._taken, []
        is_changed = False
        for message in messages:
            if message.turn != message.source.turn:
                continue  # of a connection that has been replaced
            if message.event is None:
                is_changed |= self._end(message.source, message.error)
            else:
                is_changed |= self._take_event(message.source, message.event)
        return is_changed

    def _take_event(self, source: _Source, event: Json) -> bool:
        kind, obj = event.get("type"), as_dict(event.get("object"))
        if kind == "ERROR":
            source.turn += 1  # nothing that follows on this connection counts
            status = f"the watch ended with {obj.get('code')}: {as_text(obj.get('message'))}"
            return self._end(source, Gone(obj=source.title, problem=status, next_step="List it again", status=410))
        source.version = _get_version(obj) or source.version
        self._hear(source)
        if kind == "BOOKMARK":
            return False
        source.backoff.reset()
        if kind == "DELETED":
            return source.objects.pop(identify(obj), None) is not None
        source.objects[identify(obj)] = obj
        return True

    def _hear(self, source: _Source) -> None:
        """Note that a watch delivers."""
        source.heard += 1
        if source.doubt_at is not None:
            self._doubt_later(source, silence=self._silent_seconds)

    def _end(self, source: _Source, error: Exception | None) -> bool:
        """Plan the next attempt after a watch has ended, or a LIST has failed; return whether its kind is unknown now.

        There is a pause before it, however the watch ended. It goes on from the last version seen, unless that is too
        old (410): then there is a LIST first.
        """
        was_opened = source.opened > 0
        if source.opened == source.turn:
            source.refused_at = None
        source.turn += 1
        self._disconnect(source)
        is_watch_forbidden = isinstance(error, Forbidden) and not source.is_polled and source.version is not None
        if is_watch_forbidden and not (was_opened and self._may_pass(source)):
            self._poll(source, f"watching it is not allowed ({t.cast('Forbidden', error).problem})")
            source.refused_at = None
            self._schedule(source, 0.0)
            return False
        if isinstance(error, _NEVER) and not (isinstance(error, _REFUSED) and self._may_pass(source)):
            return self._give_up(source, error)
        if error is not None and not isinstance(error, (ApiError, *_LOST)):
            raise error
        if isinstance(error, Gone):
            source.version = None
        self._schedule(source, source.backoff.take_pause())
        return False

    def _give_up(self, source: _Source, error: OpsError) -> bool:
        """Follow a source no longer, which is a warning if it is an optional one and an error otherwise."""
        if not source.optional:
            raise error
        self.warnings.append(str(error))
        source.is_known, source.objects = False, {}
        return True

    def _connect(self, source: _Source) -> None:
        source.turn += 1
        params = {**source.params, "watch": "true", "allowWatchBookmarks": "true"}
        params["timeoutSeconds"] = str(max(1, int(self._client.deadline.remaining) + 1))
        params["resourceVersion"] = source.version or ""
        arguments = (source, source.turn, params)
        if not source.optional:
            source.doubt_at = self._clock() + self._silent_seconds
            source.silence = source.silence or self._silent_seconds
        threading.Thread(target=self._read, args=arguments, name=f"watch {source.title}", daemon=True).start()

    def _disconnect(self, source: _Source) -> None:
        source.doubt_at = None
        if source.stream is not None:
            source.stream.close()
            source.stream = None

    def _read(self, source: _Source, turn: int, params: dict[str, str]) -> None:
        """In a thread of its own: pass every event on, at the end one message without an event."""
        try:
            stream = self._client.stream(source.path, obj=source.title, params=params)
            if source.turn == turn:
                source.stream = stream
                source.opened = turn
            if self._stop.is_set() or source.turn != turn:
                stream.close()
                return
            for event in stream:
                self._queue.put(_Message(source, turn, event=event))
        except Exception as error:
            self._queue.put(_Message(source, turn, error=error))
        else:
            self._queue.put(_Message(source, turn))
