# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Requests to a Kubernetes API server: raw JSON over fixed paths, no discovery, no client library.

Private to lowtide.ops: do not import from other collections.
"""

from __future__ import annotations

import http.client
import json
import threading
import time
import typing as t
from urllib.parse import quote, urlencode

from .._common.errors import OpsError, Refusal
from .._common.retry import Backoff, Deadline
from .access import ClusterAccess
from .errors import (
    BY_STATUS,
    ApiError,
    Conflict,
    Gone,
    NotFound,
    TooManyRequests,
    Unauthorized,
    WriteUnknown,
    advise,
    describe_answer,
    read_status,
)
from .fields import Json, parse_http_date
from .patches import Operations, Write, build_json_patch, changes_something, encode_json
from .streams import Stream
from .transport import LOST, DeadlineSocket, connect, describe_error, is_final

FIELD_MANAGER = "lowtide.ops"
MERGE_PATCH = "application/merge-patch+json"
JSON_PATCH = "application/json-patch+json"
JSON = "application/json"
METADATA = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json"
APPLY_PATCH = "application/apply-patch+yaml"
CONNECT_TIMEOUT = 10.0  # seconds for each attempt
READ_TIMEOUT = 30.0  # seconds without a byte
STREAM_SILENCE = 90.0  # seconds; a bookmark comes about once a minute, so a longer silence is a dead connection
GRACE = 0.9  # seconds after the deadline in which a request under way, or one final look, may still be answered
PAGE = 500
RETRIED = frozenset({500, 502, 503, 504})
_PRINTABLE = "!\"#$&'()*+,-./:;<=>?@[\\]^_`{|}~"  # beside letters, digits and "%"
# What the server says of a JSON patch that could not be applied; an invalid object has a message about its fields.
_PATCH_NOT_APPLIED = "the server rejected our request due to an error in our request"


Headers = list[tuple[str, str]]


class Listing(t.NamedTuple):
    """The objects of a collection, and the resourceVersion from which a watch misses nothing."""

    items: list[Json]
    version: str


class Answer(t.NamedTuple):
    """What somebody behind the API server answered, such as a pod through its proxy: any status and any content."""

    status: int
    content: bytes


class Client:
    """One kept-alive connection for requests, one more for each stream; a request may come from any thread.

    What is repeated is decided by what a request may have done, and the deadline, never by a count. Reads and dry runs
    are repeated on lost connections, 429, 500 and 502 to 504. A write is sent again only when nothing was carried out:
    it was not sent, or the answer was 429; any other doubt is :class:`WriteUnknown`, and the caller reads before it decides.
    Retry-After is obeyed. After 401 the credentials are obtained anew, once. The last answer is waited for until
    ``GRACE`` seconds after the deadline.

    ``requests`` counts everything sent; ``write_attempted`` says whether a write may have taken effect; ``rights`` keeps the
    answers of access reviews; ``warnings`` is what the user should know. ``clock_offset`` says how many seconds the
    server's clock is ahead of ours, by the newest answer that told its time.
    """

    def __init__(
        self,
        access: ClusterAccess,
        *,
        run_id: str,
        deadline: Deadline,
        backoff: t.Callable[[], Backoff] = Backoff,
        silence: float = STREAM_SILENCE,
    ) -> None:
        self.access = access
        self.run_id = run_id
        self.deadline = deadline
        self.requests = 0
        self.clock_offset = 0.0
        self.write_attempted = False
        self.rights: dict[t.Any, bool] = {}
        self.warnings: list[str] = []
        self._backoff = backoff
        self._silence = silence
        self._connection: http.client.HTTPConnection | None = None
        self._used = False  # whether the kept-alive connection has had an answer
        self._lock = threading.RLock()
        self._closed = False

    def get(self, path: str, *, obj: str, params: t.Mapping[str, str] | None = None) -> Json:
        """Read one object. Raises NotFound and ApiError, naming ``obj``."""
        return self._request("GET", _with(path, params), obj, safe=True)

    def list(self, path: str, *, obj: str, params: t.Mapping[str, str] | None = None, page: int = PAGE) -> Listing:
        """Read a collection in pages of ``page`` objects.

        A page whose continuation has expired (410) makes it begin anew, the second time in one piece.
        """
        for size in (page, page, 0):
            try:
                return self._list_pages(path, obj, dict(params or {}), size)
            except _Expired:
                continue
        raise AssertionError("unreachable: a list in one piece has no page that expires")

    def list_metadata(self, path: str, *, obj: str, params: t.Mapping[str, str] | None = None) -> t.Sequence[Json]:
        """Read the metadata of a collection's objects and nothing else of them, in one piece."""
        return self._request("GET", _with(path, params), obj, safe=True, accept=METADATA).get("items") or []

    def create(
        self,
        path: str,
        body: Json,
        *,
        obj: str,
        dry_run: bool = False,
        reads_only: bool = False,
        strict: bool = False,
    ) -> Json:
        """Create an object, or a subresource such as ``eviction``. Raises Conflict (``AlreadyExists``), WriteUnknown.

        ``reads_only`` is for what the server answers without keeping anything, such as an access review. ``strict``: the
        server refuses fields that it does not know, which it otherwise drops.
        """
        params = {"fieldManager": FIELD_MANAGER, **_ask_dry_run(dry_run)}
        params |= {"fieldValidation": "Strict"} if strict else {}
        safe = dry_run or reads_only
        return self._request("POST", _with(path, params), obj, body=body, safe=safe, writes=not safe)

    def patch(
        self,
        path: str,
        body: Json | Operations,
        *,
        obj: str,
        content_type: str = MERGE_PATCH,
        dry_run: bool = False,
        force: bool = False,
    ) -> Json:
        """Change an object and return it as it is then.

        ``force`` takes over fields of other managers; it belongs to ``APPLY_PATCH``. Raises Conflict when the object is no
        longer the one that was read (a test of a JSON patch, a resourceVersion in the body), WriteUnknown when no answer came.
        """
        params = {"fieldManager": FIELD_MANAGER, **_ask_dry_run(dry_run), **({"force": "true"} if force else {})}
        return self._request(
            "PATCH",
            _with(path, params),
            obj,
            body=body,
            content_type=content_type,
            safe=dry_run,
            writes=not dry_run,
        )

    def delete(
        self,
        path: str,
        *,
        obj: str,
        uid: str | None = None,
        version: str | None = None,
        propagation: str | None = None,
        grace_seconds: int | None = None,
        dry_run: bool = False,
    ) -> Json:
        """Delete an object: only the one with this ``uid``, only in this ``version``. Returns what the server says of it.

        With ``uid`` alone it is repeated after a lost answer, and that the object is gone by then is success. Raises
        NotFound, Conflict (another object), WriteUnknown.
        """
        options: Json = {"apiVersion": "v1", "kind": "DeleteOptions"}
        preconditions = {key: value for key, value in (("uid", uid), ("resourceVersion", version)) if value is not None}
        if preconditions:
            options["preconditions"] = preconditions
        if propagation is not None:
            options["propagationPolicy"] = propagation
        if grace_seconds is not None:
            options["gracePeriodSeconds"] = grace_seconds
        if dry_run:
            options["dryRun"] = ["All"]
        repeatable = uid is not None and version is None
        return self._request(
            "DELETE", path, obj, body=options, safe=dry_run or repeatable, writes=not dry_run, vanishes=repeatable
        )

    def stream(self, path: str, *, obj: str, params: t.Mapping[str, str]) -> Stream:
        """Open a watch on a connection of its own, repeated like a read. Raises Gone on 410, and ApiError."""
        return self._open_stream(_with(path, params), obj, lambda: self._silence)

    def read_lines(self, path: str, *, obj: str, params: t.Mapping[str, str] | None = None) -> t.Iterator[str]:
        """Iterate over the lines of a log as they come, until it ends or the deadline passes (ApiError)."""
        stream = self._open_stream(_with(path, params), obj, self._limit_to_deadline)
        try:
            for line in stream.read_raw_lines():
                yield line.decode("utf-8", "replace").rstrip("\r\n")
        finally:
            stream.close()

    def patch_with_retry(
        self,
        path: str,
        decide: t.Callable[[Json], Write | None],
        *,
        obj: str,
        first: Json | None = None,
        dry_run: bool = False,
    ) -> tuple[Json, bool]:
        """Read, decide, write; after a conflict or a write without an answer read again and decide anew, until the deadline.

        ``decide`` gets the object and returns the change, None when there is nothing to do. ``first`` is the object when
        it has been read already. Returns the object as it is then, and whether a write was sent that may have taken
        effect (in a dry run: would have been). Raises what ``decide`` raises, NotFound, and the last Conflict or WriteUnknown.
        """
        sent = False
        backoff = self._backoff()
        current = first
        while True:
            if current is None:
                current = self.get(path, obj=obj)
            write = decide(current)
            operations = build_json_patch(current, write) if write is not None else []
            if not changes_something(operations):
                return current, sent
            try:
                return self.patch(path, operations, obj=obj, content_type=JSON_PATCH, dry_run=dry_run), True
            except (Conflict, WriteUnknown) as error:
                sent = sent or isinstance(error, WriteUnknown)
                if self.deadline.passed:
                    raise
            self._pause(backoff.take_pause())
            current = None

    def ask(self, path: str, *, obj: str) -> Answer:
        """Send a GET to who is behind the API server, once, and return the answer whatever it is. Raises OpsError without one.

        Its time is not the server's.
        """
        offset = self.clock_offset
        for can_renew in (True, False):
            try:
                with self._lock:
                    connection, headers = self._open_kept()
                    status, _headers, content = self._exchange(connection, "GET", path, None, headers)
                    self.clock_offset = offset
            except LOST as error:
                with self._lock:
                    self._drop()
                raise self._fail(ApiError, obj, f"no answer came ({describe_error(error)})") from error
            if status != 401 or not can_renew or not self._renew(headers):
                break
        return Answer(status, content)

    def read_server_clock(self) -> float:
        """Return the server's time in seconds since 1970, which is at most a second late; ours until it has told its own."""
        return time.time() + self.clock_offset

    def create_named(self, collection: str, path: str, body: Json, *, obj: str) -> tuple[Json, bool]:
        """Create an object whose name was chosen before; read the one of this name when there is one by then.

        So a write without an answer is no second object: it is looked for, and created again only where it is not there,
        until the deadline. Returns the object, and whether it may be of this call. Raises the last WriteUnknown, ApiError.
        """
        sent = False
        backoff = self._backoff()
        while True:
            try:
                return self.create(collection, body, obj=obj, strict=True), True
            except (Conflict, WriteUnknown) as error:
                sent = sent or isinstance(error, WriteUnknown)
                if self.deadline.passed:
                    raise
            try:
                return self.get(path, obj=obj), sent
            except NotFound:
                self._pause(backoff.take_pause())

    def close(self) -> None:
        """Close the kept-alive connection; what is being repeated ends with an error."""
        self._closed = True
        with self._lock:
            self._drop()

    def _list_pages(self, path: str, obj: str, params: dict[str, str], size: int) -> Listing:
        if size:
            params["limit"] = str(size)
        items: list[Json] = []
        version = ""
        while True:
            try:
                answer = self.get(path, obj=obj, params=params)
            except Gone as error:
                if "continue" not in params:
                    raise
                raise _Expired from error
            items += answer.get("items") or []
            metadata = answer.get("metadata") or {}
            version = version or str(metadata.get("resourceVersion") or "")
            if not metadata.get("continue"):
                return Listing(items, version)
            params["continue"] = str(metadata["continue"])

    def _request(
        self,
        method: str,
        target: str,
        obj: str,
        *,
        body: Json | Operations | None = None,
        content_type: str = JSON,
        safe: bool,
        writes: bool = False,
        vanishes: bool = False,
        accept: str = JSON,
    ) -> Json:
        """Send until there is an answer to give. ``safe``: it may be sent again when it may have been carried out."""
        payload = None if body is None else encode_json(body)
        backoff = self._backoff()
        doubtful = renewed = False  # doubtful: an earlier sending may have been carried out
        while True:
            sent = False
            try:
                with self._lock:
                    connection, headers = self._open_kept()
                    sent = True
                    all_headers = [("Accept", accept), *headers, *_type_header(payload, content_type)]
                    status, answer_headers, answer = self._exchange(connection, method, target, payload, all_headers)
            except LOST as error:
                doubtful = doubtful or sent
                self._note_loss(error, obj, doubtful=writes and doubtful, ends=sent and not safe)
                self._pause(backoff.take_pause())
                continue
            if status == 401 and not renewed and self._renew(headers):
                renewed = True
                continue
            renewed = False
            if writes and (status < 300 or status >= 500):
                self.write_attempted = True
            doubtful = doubtful or status >= 500
            if (status == 429 or (safe and status in RETRIED)) and not self.deadline.passed:
                self._pause(self._read_retry_after(answer_headers, status, obj) or backoff.take_pause())
                continue
            if vanishes and doubtful and status == 404:
                return {"apiVersion": "v1", "kind": "Status", "status": "Success"}
            if writes and doubtful and (status == 429 or status >= 500):
                raise self._fail(
                    WriteUnknown, obj, f"the server answered a write with {describe_answer(status, answer)}", status
                )
            return self._decode(status, answer, obj, content_type)

    def _note_loss(self, error: BaseException, obj: str, *, doubtful: bool, ends: bool) -> None:
        """After a lost connection: raise unless the request may be sent again.

        ``doubtful``: it is a write that may have been carried out. ``ends``: it must not be sent a second time.
        """
        with self._lock:
            self._drop()
        self.write_attempted = self.write_attempted or doubtful
        if ends or is_final(error) or self.deadline.passed or self._closed:
            if doubtful:
                problem = f"the connection was lost after the write was sent ({describe_error(error)})"
                raise self._fail(WriteUnknown, obj, problem) from error
            raise self._explain_loss(error) from error

    def _open_stream(self, target: str, obj: str, limit: t.Callable[[], float]) -> Stream:
        backoff = self._backoff()
        renewed = False
        while True:
            sock: DeadlineSocket | None = None
            try:
                headers = self._make_headers()
                sock = self._connect()
                connection = self._wrap(sock)
                self._count()
                _send(connection, "GET", self.access.base_path + target, None, [("Accept", JSON), *headers])
                response = self._receive(connection)
                status = response.status
                if status == 200:
                    sock.limit = limit
                    return Stream(sock, response, obj)
                answer, answer_headers = response.read(), response.headers
                sock.close()
            except LOST as error:
                if sock is not None:
                    sock.close()
                if is_final(error) or self.deadline.passed or self._closed:
                    raise self._explain_loss(error) from error
                self._pause(backoff.take_pause())
                continue
            if status == 401 and not renewed and self._renew(headers):
                renewed = True
                continue
            renewed = False
            if (status == 429 or status in RETRIED) and not self.deadline.passed:
                self._pause(self._read_retry_after(answer_headers, status, obj) or backoff.take_pause())
                continue
            self._decode(status, answer, obj, "")
            raise self._fail(ApiError, obj, f"the server answered a watch with {status}", status)

    def _open_kept(self) -> tuple[http.client.HTTPConnection, Headers]:
        """Return the kept-alive connection, opened when there is none or the server has closed it, and the headers to send."""
        headers = self._make_headers()
        if self._connection is not None and self._used and t.cast("DeadlineSocket", self._connection.sock).is_dropped():
            self._drop()
        if self._connection is None:
            self._connection = self._wrap(self._connect())
            self._used = False
        return self._connection, headers

    def _exchange(
        self,
        connection: http.client.HTTPConnection,
        method: str,
        target: str,
        payload: bytes | None,
        headers: Headers,
    ) -> tuple[int, http.client.HTTPMessage, bytes]:
        self._count()
        _send(connection, method, self.access.base_path + target, payload, headers)
        response = self._receive(connection)
        answer = response.read()
        self._used = True
        if response.will_close:
            self._drop()
        return response.status, response.headers, answer

    def _receive(self, connection: http.client.HTTPConnection) -> http.client.HTTPResponse:
        """Wait for the head of an answer, and remember what it says of the server's clock."""
        response = connection.getresponse()
        told = parse_http_date(response.headers.get("Date"))
        if told is not None:
            self.clock_offset = told - time.time()
        return response

    def _connect(self) -> DeadlineSocket:
        seconds = min(CONNECT_TIMEOUT, self._left())
        if seconds <= 0:
            raise TimeoutError("the deadline has passed")
        access = self.access
        return connect(
            access.address,
            proxy=access.proxy,
            tls=access.tls() if access.secure else None,
            server_name=access.server_name or access.address[0],
            seconds=seconds,
            limit=self._limit_packet,
        )

    def _wrap(self, sock: DeadlineSocket) -> http.client.HTTPConnection:
        connection = http.client.HTTPConnection(*self.access.address)
        connection.sock = sock
        connection.auto_open = 0  # a connection is opened here, with TLS, or not at all
        return connection

    def _make_headers(self) -> Headers:
        return [
            ("User-Agent", f"{FIELD_MANAGER}/{quote(self.run_id, safe=_PRINTABLE)}"),
            *self.access.impersonation,
            *self.access.credentials(seconds=self._left()).items(),
        ]

    def _renew(self, used: Headers) -> bool:
        """Obtain credentials anew after a 401, unless another thread has done so since. Returns whether trying again can help."""
        with self._lock:
            self._drop()
            if self._make_headers() != used:
                return True
            if not self.access.can_renew:
                return False
            try:
                self.access.credentials(renew=True, seconds=self._left())
            except Refusal as error:
                raise Unauthorized(
                    obj=error.obj,
                    problem=f"the server no longer accepts its credentials, and {error.problem}",
                    next_step=error.next_step,
                    status=401,
                ) from error
            return True

    def _left(self) -> float:
        """Seconds until nothing is waited for any more."""
        return self.deadline.left + GRACE

    def _limit_packet(self) -> float:
        return min(READ_TIMEOUT, self._left())

    def _limit_to_deadline(self) -> float:
        return self._left()

    def _pause(self, seconds: float) -> None:
        self.deadline.pause(seconds)
        if self._closed:
            raise self._fail(ApiError, f"API server {self.access.server}", "the client was closed")

    def _read_retry_after(self, headers: http.client.HTTPMessage, status: int, obj: str) -> float:
        """Return the seconds that the server asks to wait, 0 when it does not say. Raises when that is past the deadline."""
        text = (headers.get("Retry-After") or "").strip()
        if not text.isascii() or not text.isdigit():
            return 0.0
        left = self.deadline.remaining
        if int(text) > left:
            problem = f"the server answered {status} and asks to wait {text} s, and only {left:.1f} s are left"
            raise self._fail(TooManyRequests if status == 429 else ApiError, obj, problem, status)
        return float(text)

    def _decode(self, status: int, answer: bytes, obj: str, content_type: str) -> Json:
        if 200 <= status < 300:
            try:
                document = json.loads(answer)
            except ValueError as error:
                raise self._fail(ApiError, obj, f"the server's answer is not JSON ({error})", status) from error
            if not isinstance(document, dict):
                problem = f"the server answered a {type(document).__name__}, not an object"
                raise self._fail(ApiError, obj, problem, status)
            return document
        document = read_status(answer)
        kind = BY_STATUS.get(status, ApiError)
        if status == 422 and content_type == JSON_PATCH and document.get("message") == _PATCH_NOT_APPLIED:
            raise self._fail(Conflict, obj, "it is no longer as it was read: the patch's tests failed (422)", status)
        reason = str(document.get("reason") or "")
        raise self._fail(kind, obj, f"the server answered {describe_answer(status, answer)}", status, reason)

    def _fail(self, kind: type[ApiError], obj: str, problem: str, status: int = 0, reason: str = "") -> ApiError:
        return kind(obj=obj, problem=problem, next_step=advise(status, kind), status=status, reason=reason)

    def _explain_loss(self, error: BaseException) -> OpsError:
        obj = f"API server {self.access.server}"
        verification = str(getattr(error, "verify_message", "") or "")
        if verification:
            return ApiError(
                obj=obj,
                problem=f"its certificate is not trusted: {verification}",
                next_step="Set ca_cert to the authority that signed it, or tls_server_name to the name in it",
            )
        through = f" through the proxy {self.access.proxy.title}" if self.access.proxy else ""
        return ApiError(
            obj=obj,
            problem=f"it cannot be reached{through}: {describe_error(error)}",
            next_step=f"Check the address from {self.access.source}, and that the server runs",
        )

    def _count(self) -> None:
        with self._lock:
            self.requests += 1

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


class _Expired(Exception):
    """The continuation of a list has expired."""


def _with(path: str, params: t.Mapping[str, str] | None) -> str:
    return f"{path}?{urlencode(params)}" if params else path


def _ask_dry_run(dry_run: bool) -> dict[str, str]:
    return {"dryRun": "All"} if dry_run else {}


def _type_header(payload: bytes | None, content_type: str) -> Headers:
    return [] if payload is None else [("Content-Type", content_type), ("Content-Length", str(len(payload)))]


def _send(
    connection: http.client.HTTPConnection, method: str, target: str, payload: bytes | None, headers: Headers
) -> None:
    """Send a request whose headers may stand more than once, as those of impersonated groups do."""
    connection.putrequest(method, target, skip_accept_encoding=True)
    for name, value in headers:
        connection.putheader(name, value)
    connection.endheaders(payload)
