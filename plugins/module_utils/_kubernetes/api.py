# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Raw JSON over fixed paths of a Kubernetes API server: no discovery, no client library.

Private to lowtide.ops: do not import from other collections.
"""

from __future__ import annotations

import base64
import http.client
import json
import random
import re
import socket
import ssl
import threading
import time
import typing as t
from urllib.parse import quote, unquote, urlencode, urlsplit

from .._common.errors import OpsError, Refusal
from .._common.retry import Deadline
from .config import Access
from .errors import ApiError, Conflict, Gone, NotFound, Uncertain

Json = dict[str, t.Any]

RESOURCES = {
    "StatefulSet": ("apis/apps/v1", "statefulsets"),
    "Deployment": ("apis/apps/v1", "deployments"),
    "CronJob": ("apis/batch/v1", "cronjobs"),
    "Pod": ("api/v1", "pods"),
    "Event": ("api/v1", "events"),
    "ResourceQuota": ("api/v1", "resourcequotas"),
    "HorizontalPodAutoscaler": ("apis/autoscaling/v2", "horizontalpodautoscalers"),
    "ScaledObject": ("apis/keda.sh/v1alpha1", "scaledobjects"),
    "PodDisruptionBudget": ("apis/policy/v1", "poddisruptionbudgets"),
}
CONNECT_TIMEOUT = 10.0
READ_TIMEOUT = 30.0
STREAM_SILENCE = 90.0  # seconds; a bookmark comes about once a minute, so a longer silence is a dead connection
READ_ATTEMPTS = 5
WRITE_ATTEMPTS = 5
RETRIED = frozenset({429, 500, 502, 503, 504})
_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?")
_LOST = (OSError, http.client.HTTPException)


def check_name(option: str, value: str) -> str:
    """``value`` when it can be the name of an object or namespace; a Refusal otherwise (it becomes part of a path)."""
    if not _NAME.fullmatch(value) or len(value) > 253 or ".." in value:
        raise Refusal(
            obj=f"{option} {value!r}",
            problem="this is not a Kubernetes name",
            next_step="Use lower case letters, digits, '-' and '.', beginning and ending with a letter or digit",
        )
    return value


def collection_path(kind: str, namespace: str) -> str:
    """The path of all objects of a kind in a namespace."""
    prefix, plural = RESOURCES[kind]
    return f"/{prefix}/namespaces/{quote(namespace, safe='')}/{plural}"


def object_path(kind: str, namespace: str, name: str) -> str:
    """The path of one object."""
    return f"{collection_path(kind, namespace)}/{quote(name, safe='')}"


class Stream:
    """A running watch: iterate to get its events; ``close`` from any thread ends the iteration."""

    def __init__(self, sock: socket.socket, response: http.client.HTTPResponse) -> None:
        self._sock = sock
        self._response = response

    def __iter__(self) -> t.Iterator[Json]:
        while line := self._response.readline():
            yield json.loads(line)

    def close(self) -> None:
        """Cut the connection, which wakes up a reader."""
        try:
            self._sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            return  # the peer was faster; the reader has been woken already


class Api:
    """One kept-alive connection for requests, one more for each running watch.

    Reads are repeated (bounded, with jitter) on lost connections, 429 and 5xx; Retry-After is obeyed. A write is sent
    again only after 429, which says that it was not carried out; any other doubt is :class:`Uncertain`, and the caller reads
    before it decides. ``requests`` counts everything sent; ``touched`` says whether a write may have taken effect.
    """

    def __init__(
        self,
        access: Access,
        *,
        run_id: str,
        deadline: Deadline,
        sleep: t.Callable[[float], None] = time.sleep,
        jitter: t.Callable[[], float] = random.random,
    ) -> None:
        self.access = access
        self.run_id = run_id
        self.deadline = deadline
        self.requests = 0
        self.touched = False
        self._sleep = sleep
        self._jitter = jitter
        self._tls = access.tls() if access.secure else None
        self._connection: http.client.HTTPConnection | None = None
        self._lock = threading.Lock()

    def get(self, path: str, *, obj: str, params: t.Mapping[str, str] | None = None) -> Json:
        """Read an object or a list. Raises NotFound and ApiError, naming ``obj``."""
        return self._read("GET", _with(path, params), obj)

    def patch(self, path: str, body: Json, *, obj: str) -> Json:
        """One JSON merge patch; ``metadata.resourceVersion`` in the body makes it conditional. Returns the new object.

        Raises Conflict when the object is another one by now, Uncertain when no answer came.
        """
        target = _with(path, {"fieldManager": f"lowtide.ops/{self.run_id}"[:128]})
        payload = json.dumps(body).encode()
        for attempt in range(READ_ATTEMPTS):
            try:
                connection = self._kept()
            except _LOST as error:
                raise self._unreachable(error) from error
            try:
                status, headers, answer = self._exchange(connection, "PATCH", target, payload)
            except _LOST as error:
                self._drop()
                self.touched = True
                raise self._error(
                    Uncertain, obj, f"the connection was lost after the write was sent ({_text(error)})"
                ) from error
            if status == 429 and attempt + 1 < READ_ATTEMPTS:
                self._pause(attempt, headers, obj)
                continue
            self.touched = self.touched or status < 300 or status >= 500
            if status >= 500:
                raise self._error(Uncertain, obj, f"the server answered a write with {_status(status, answer)}", status)
            return self._decode(status, answer, obj)
        raise AssertionError("unreachable: the last attempt returns or raises")

    def stream(self, path: str, *, obj: str, params: t.Mapping[str, str]) -> Stream:
        """Open a watch on a connection of its own. Raises Gone on 410."""
        connection = self._connect()
        sock = t.cast("socket.socket", connection.sock)
        sock.settimeout(STREAM_SILENCE)
        try:
            connection.request("GET", self.access.base_path + _with(path, params), headers=self._headers())
            self._count()
            response = connection.getresponse()
            if response.status != 200:
                body = response.read()
                connection.close()
                self._decode(response.status, body, obj)
        except _LOST as error:
            connection.close()
            raise self._error(ApiError, obj, f"watching it failed: {_text(error)}") from error
        return Stream(sock, response)

    def converge(
        self, path: str, decide: t.Callable[[Json], Json | None], *, obj: str, first: Json | None = None
    ) -> tuple[Json, bool]:
        """Read, decide, write; after a conflict or a doubtful write read again and decide anew.

        ``decide`` gets the object and returns a merge patch, None when nothing is to be done. Returns the object as it is then
        and whether a write was sent that may have taken effect.
        """
        wrote = False
        for attempt in range(WRITE_ATTEMPTS):
            current = first if first is not None else self.get(path, obj=obj)
            first = None
            body = decide(current)
            if body is None:
                return current, wrote
            body.setdefault("metadata", {})["resourceVersion"] = current["metadata"]["resourceVersion"]
            try:
                return self.patch(path, body, obj=obj), True
            except Conflict:
                if attempt + 1 == WRITE_ATTEMPTS:
                    raise
            except Uncertain:
                wrote = True
                if attempt + 1 == WRITE_ATTEMPTS:
                    raise
            self._pause(attempt, None, obj)
        raise AssertionError("unreachable: the last attempt returns or raises")

    def close(self) -> None:
        """Close the kept-alive connection."""
        self._drop()

    def _read(self, method: str, target: str, obj: str) -> Json:
        for attempt in range(READ_ATTEMPTS):
            last = attempt + 1 == READ_ATTEMPTS
            try:
                status, headers, answer = self._exchange(self._kept(), method, target, None)
            except ssl.SSLCertVerificationError as error:
                raise self._untrusted(error) from error
            except _LOST as error:
                self._drop()
                if last or self.deadline.passed:
                    raise self._unreachable(error) from error
                self._pause(attempt, None, obj)
                continue
            if status in RETRIED and not last and not self.deadline.passed:
                self._pause(attempt, headers, obj)
                continue
            return self._decode(status, answer, obj)
        raise AssertionError("unreachable: the last attempt returns or raises")

    def _kept(self) -> http.client.HTTPConnection:
        """The kept-alive connection, opened when there is none."""
        if self._connection is None:
            self._connection = self._connect()
        return self._connection

    def _exchange(
        self, connection: http.client.HTTPConnection, method: str, target: str, payload: bytes | None
    ) -> tuple[int, http.client.HTTPMessage, bytes]:
        headers = self._headers()
        if payload is not None:
            headers["Content-Type"] = "application/merge-patch+json"
        t.cast("socket.socket", connection.sock).settimeout(max(1.0, min(READ_TIMEOUT, self.deadline.remaining)))
        self._count()
        connection.request(method, self.access.base_path + target, body=payload, headers=headers)
        response = connection.getresponse()
        answer = response.read()
        if response.will_close:
            self._drop()
        return response.status, response.headers, answer

    def _connect(self) -> http.client.HTTPConnection:
        host, port = self.access.address
        limit = max(1.0, min(CONNECT_TIMEOUT, self.deadline.remaining))
        sock = self._proxied(host, port, limit) if self.access.proxy else socket.create_connection((host, port), limit)
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._tls is not None:
                sock = self._tls.wrap_socket(sock, server_hostname=self.access.server_name or host)
        except OSError:
            sock.close()
            raise
        connection = http.client.HTTPConnection(host, port)
        connection.sock = sock
        return connection

    def _proxied(self, host: str, port: int, limit: float) -> socket.socket:
        """A tunnel through the HTTP proxy that the kubeconfig names (proxy-url)."""
        proxy = urlsplit(self.access.proxy or "")
        if proxy.scheme != "http" or not proxy.hostname:
            raise Refusal(
                obj=self.access.source,
                problem=f"its proxy-url has the scheme {proxy.scheme!r}; only http proxies are supported",
                next_step="Name an http:// proxy, or reach the API server without one",
            )
        tunnel = http.client.HTTPConnection(proxy.hostname, proxy.port or 80, timeout=limit)
        headers = {}
        if proxy.username:
            pair = f"{unquote(proxy.username)}:{unquote(proxy.password or '')}"
            headers["Proxy-Authorization"] = "Basic " + base64.b64encode(pair.encode()).decode()
        tunnel.set_tunnel(host, port, headers)
        tunnel.connect()
        return t.cast("socket.socket", tunnel.sock)

    def _headers(self) -> dict[str, str]:
        headers = {"Accept": "application/json", "User-Agent": f"lowtide.ops/{self.run_id}"}
        if self.access.token:
            headers["Authorization"] = f"Bearer {self.access.token}"
        return headers

    def _pause(self, attempt: int, headers: http.client.HTTPMessage | None, obj: str) -> None:
        """Wait before the next attempt: what Retry-After says, else 0.1 s doubling, with jitter; never past the deadline."""
        asked = (headers.get("Retry-After") or "") if headers is not None else ""
        if not asked.isdigit():
            self._sleep(min(0.1 * 2**attempt * (0.5 + self._jitter()), self.deadline.remaining))
            return
        if int(asked) > self.deadline.remaining:
            raise self._error(
                ApiError,
                obj,
                f"the server asks to wait {asked} s, and only {self.deadline.remaining:.1f} s are left",
                429,
            )
        self._sleep(float(asked))

    def _decode(self, status: int, answer: bytes, obj: str) -> Json:
        if 200 <= status < 300:
            try:
                document = json.loads(answer)
            except ValueError as error:
                raise self._error(ApiError, obj, f"the server's answer is not JSON ({error})", status) from error
            if not isinstance(document, dict):
                raise self._error(
                    ApiError, obj, f"the server answered a {type(document).__name__}, not an object", status
                )
            return document
        kind = {404: NotFound, 409: Conflict, 410: Gone}.get(status, ApiError)
        raise self._error(kind, obj, f"the server answered {_status(status, answer)}", status)

    def _error(self, kind: type[ApiError], obj: str, problem: str, status: int = 0) -> ApiError:
        return kind(obj=obj, problem=problem, next_step=_advice(status), status=status)

    def _unreachable(self, error: BaseException) -> OpsError:
        return ApiError(
            obj=f"API server {self.access.server}",
            problem=f"it cannot be reached: {_text(error)}",
            next_step=f"Check the address from {self.access.source}, and that the server runs",
        )

    def _untrusted(self, error: ssl.SSLCertVerificationError) -> OpsError:
        return ApiError(
            obj=f"API server {self.access.server}",
            problem=f"its certificate is not trusted: {error.verify_message}",
            next_step="Set ca_cert to the authority that signed it",
        )

    def _count(self) -> None:
        with self._lock:
            self.requests += 1

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _with(path: str, params: t.Mapping[str, str] | None) -> str:
    return f"{path}?{urlencode(params)}" if params else path


def _text(error: BaseException) -> str:
    return str(error) or type(error).__name__


def _status(status: int, answer: bytes) -> str:
    """The status and the server's own message, shortened."""
    try:
        message = str(json.loads(answer)["message"])
    except (ValueError, KeyError, TypeError):
        message = answer.decode("utf-8", "replace")
    return f"{status}: {message.strip()[:400]}" if message.strip() else str(status)


def _advice(status: int) -> str:
    return {
        401: "Give valid credentials: api_key, client_cert and client_key, or another context",
        403: "Grant the permission that the message names, or use another account",
        404: "Correct name, kind or namespace",
        409: "Somebody else changes this object at the same time; run again when that has ended",
        422: "The server considers the change invalid; its message says why",
        429: "The server is overloaded; run again later",
    }.get(status, "Check the API server; what has been done can be seen in this result, and running again is safe")
