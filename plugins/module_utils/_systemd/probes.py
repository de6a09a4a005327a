# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a unit itself says: whether it is ready, and how many requests are in flight.

Private to lowtide.ops: do not import from other collections. No proxy is used: the questions stay on the host.
"""

from __future__ import annotations

import http.client
import json
import socket
import ssl
import typing as t
from urllib.parse import urlsplit

from .._common.redaction import Redactor
from .units import Drain, Ready
from .urls import hide_query

SECONDS = 5.0
"""How long one answer may take."""
LONGEST = 65536
REDACTOR = Redactor()
"""Which values are secret is not known here: they are found by their names and forms."""


class Answer(t.NamedTuple):
    """Status and body of an answer."""

    status: int
    body: str


def request(url: str, *, method: str = "GET", ca_path: str = "") -> Answer:
    """Return the answer of one request; OSError where there is none."""
    parts = urlsplit(url)
    if not parts.hostname:
        raise OSError(f"{redact_url(url)}: it has no host")
    connection: http.client.HTTPConnection
    if parts.scheme == "https":
        context = ssl.create_default_context(cafile=ca_path or None)
        connection = http.client.HTTPSConnection(parts.hostname, parts.port, timeout=SECONDS, context=context)
    else:
        connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=SECONDS)
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    try:
        connection.request(method, path, headers={"User-Agent": "lowtide.ops"})
        answer = connection.getresponse()
        return Answer(status=answer.status, body=answer.read(LONGEST).decode(errors="replace"))
    except http.client.HTTPException as error:
        raise OSError(f"{type(error).__name__}: {error}") from error
    finally:
        connection.close()


def find_unready(ready: Ready) -> str:
    """Return why it is not ready, empty when it is."""
    if not ready.url:
        try:
            with socket.create_connection((ready.address, ready.port), timeout=SECONDS):
                return ""
        except OSError as error:
            return f"port {ready.port} of {ready.address}: {_explain(error)}"
    try:
        answer = request(ready.url, ca_path=ready.ca_path)
    except OSError as error:
        return f"{redact_url(ready.url)}: {_explain(error)}"
    if answer.status == ready.status:
        return ""
    return f"{redact_url(ready.url)}: status {answer.status}, not {ready.status}: {_shorten(answer.body)}"


class Unanswered(Exception):
    """There is no number of requests in flight, and why."""


def count_in_flight(drain: Drain) -> int:
    """Return how many requests are in flight. What is not plainly a number from 0 is Unanswered, never 0."""
    url = redact_url(drain.url)
    try:
        answer = request(drain.url, ca_path=drain.ca_path)
    except OSError as error:
        raise Unanswered(f"{url}: {_explain(error)}") from error
    if answer.status != http.HTTPStatus.OK:
        raise Unanswered(f"{url}: status {answer.status}: {_shorten(answer.body)}")
    try:
        value = json.loads(answer.body)
    except ValueError as error:
        raise Unanswered(f"{url}: the answer is no number: {_shorten(answer.body)}") from error
    if drain.field:
        value = value.get(drain.field) if isinstance(value, dict) else None
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        where = f"field {drain.field}" if drain.field else "the answer"
        raise Unanswered(f"{url}: {where} is no number from 0: {_shorten(answer.body)}")
    return value


def tell(url: str, ca_path: str) -> None:
    """POST to a URL that begins or ends a drain; OSError where it is not done."""
    answer = request(url, method="POST", ca_path=ca_path)
    if answer.status >= http.HTTPStatus.BAD_REQUEST:
        raise OSError(f"{redact_url(url)}: status {answer.status}: {_shorten(answer.body)}")


def _explain(error: OSError) -> str:
    return REDACTOR.redact(error.strerror or str(error) or type(error).__name__).lower()


def _shorten(text: str) -> str:
    """Return the beginning of an answer, in which there is no secret: first redacted, so that none is cut in two."""
    return " ".join(REDACTOR.redact(text).split())[:200]


def redact_url(url: str) -> str:
    """Return a URL for a message, without a password or a token in it."""
    return REDACTOR.redact(hide_query(url))
