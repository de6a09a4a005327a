# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Queries by Prometheus' HTTP API. Private to lowtide.ops: do not import from other collections."""

from __future__ import annotations

import json
import ssl
import typing as t
from http import HTTPStatus
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.parse import urlencode, urlsplit
from urllib.request import HTTPRedirectHandler, HTTPSHandler, OpenerDirector, Request, build_opener

from .._common.errors import Refusal
from .._common.retry import Backoff, Deadline
from .limits import Answer, Query, read_answer

MAX_BYTES = 16 * 1024 * 1024
"""No answer that could be judged is longer."""
PASSING = (HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS)
"""Beside 5xx, what another attempt may mend."""


class Prometheus:
    """A server that speaks the HTTP API of Prometheus."""

    def __init__(
        self,
        url: str,
        *,
        headers: t.Mapping[str, str] | None = None,
        token_file: str | None = None,
        ca_path: str | None = None,
        validate_certs: bool = True,
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
            raise Refusal(
                obj="option url",
                problem=f"{url!r} is not an address of the shape https://host[:port][/path]",
                next_step="Give where the API begins, without /api/v1",
            )
        if parts.password:
            raise Refusal(
                obj="option url",
                problem="it has a password, which would be in messages",
                next_step="Give it by headers or token_file",
            )
        self.url = url.rstrip("/")
        self._headers = dict(headers or {})
        self._token_file = token_file
        self._opener = _make_opener(ca_path, validate_certs=validate_certs)

    def ask(self, query: Query, deadline: Deadline) -> Answer:
        """Return the answer to a query; what another attempt may mend is tried again until the deadline.

        Raises Refusal for what another attempt cannot mend, such as an expression that is not understood. A server that
        does not answer until then is an answer with its error.
        """
        backoff = Backoff(first=0.2)
        while True:
            error = ""
            try:
                return read_answer(query, self._get(query, max(deadline.remaining, 0.5)))
            except _NotNow as passing:
                error = str(passing)
            if deadline.passed:
                return Answer(query, error=error)
            deadline.pause(backoff.take_pause())

    def _get(self, query: Query, seconds: float) -> t.Any:
        # Thanos and VictoriaMetrics answer with what they have where a store is away, unless they are told not to.
        whole = {"partial_response": "false", "deny_partial_response": "1"}
        parameters = urlencode({"query": query.text, "timeout": f"{seconds * 1000:.0f}ms", **whole})
        try:
            address = f"{self.url}/api/v1/query?{parameters}"
            request = Request(address, headers=self._make_headers())  # noqa: S310 (http or https: __init__ has checked it)
            with self._opener.open(request, timeout=seconds) as response:
                body = response.read(MAX_BYTES)
        except HTTPError as error:
            raise self._judge_status(query, error) from error
        except URLError as error:
            raise self._judge_reason(error.reason) from error
        except (OSError, HTTPException) as error:
            raise _NotNow(f"{self.url} does not answer: {str(error) or type(error).__name__}") from error
        document = _parse(body)
        if document is None or document.get("status") != "success":
            raise Refusal(
                obj=self.url,
                problem="what answers there is not the HTTP API of Prometheus",
                next_step="Correct url; it ends where /api/v1 begins",
            )
        # A sum over a part of the series may well be within limits, which proves nothing.
        lacks = [str(text) for text in document.get("warnings") or []]
        if document.get("isPartial") is True:
            lacks.append("isPartial")
        if lacks:
            raise _NotNow(f"{self.url} says that its answer may not be whole: {'; '.join(lacks)}")
        return document.get("data")

    def _make_headers(self) -> dict[str, str]:
        if not self._token_file:
            return {"User-Agent": "lowtide.ops", **self._headers}
        try:
            token = Path(self._token_file).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise Refusal(
                obj=f"token_file {self._token_file}",
                problem=f"it cannot be read: {getattr(error, 'strerror', None) or 'it is not text'}",
                next_step="Correct the path, or its permissions",
            ) from error
        return {"User-Agent": "lowtide.ops", **self._headers, "Authorization": f"Bearer {token}"}

    def _judge_status(self, query: Query, error: HTTPError) -> Exception:
        body = _parse(error.read(65536)) or {}
        said = str(body.get("error") or error.reason)
        if body.get("errorType") in ("bad_data", "execution") and error.code < HTTPStatus.INTERNAL_SERVER_ERROR:
            return Refusal(
                obj=f"query {query.name}",
                problem=f"{self.url} refuses {query.text!r}: {said}",
                next_step="Correct the expression; promtool and the page /graph show what it gives",
            )
        if error.code >= HTTPStatus.INTERNAL_SERVER_ERROR or error.code in PASSING:
            return _NotNow(f"{self.url} answers {error.code} {said}")
        if error.code in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
            next_step = "Give a token or a header that may read it (token_file, headers)"
        else:
            next_step = "Correct url; it ends where /api/v1 begins"
        return Refusal(obj=self.url, problem=f"it answers {error.code} {said}", next_step=next_step)

    def _judge_reason(self, reason: t.Any) -> Exception:
        if "CERTIFICATE_VERIFY_FAILED" in str(reason):
            return Refusal(
                obj=self.url,
                problem=f"its certificate is not accepted: {reason}",
                next_step="Give the certificate of its authority by ca_path",
            )
        return _NotNow(f"{self.url} does not answer: {reason}")


class _NoRedirects(HTTPRedirectHandler):
    """A header with a token is for the server that was named, not for another one."""

    def redirect_request(self, *_arguments: t.Any) -> None:
        """Return no request, so that the answer is an error."""


def _make_opener(ca_path: str | None, *, validate_certs: bool) -> OpenerDirector:
    try:
        context = ssl.create_default_context(cafile=ca_path)
    except (OSError, ssl.SSLError) as error:
        raise Refusal(
            obj=f"ca_path {ca_path}",
            problem=f"it cannot be read as certificates: {error}",
            next_step="Give a file of certificates in PEM",
        ) from error
    if not validate_certs:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return build_opener(HTTPSHandler(context=context), _NoRedirects())


class _NotNow(Exception):
    """What another attempt may mend."""


def _parse(body: bytes) -> dict[str, t.Any] | None:
    try:
        document = json.loads(body)
    except ValueError:
        return None
    return document if isinstance(document, dict) else None
