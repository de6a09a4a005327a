# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reading S3 with the standard library. Private to lowtide.ops: do not import from other collections.

Lists, small and large reads: one kept-alive connection, requests signed by :mod:`.signing`. Reads are retried with
growing pauses; a long read that breaks off is resumed at the byte reached, bound to the same ETag.
Writing is boto3's (:func:`.connection.write_client`).
"""

from __future__ import annotations

import http.client
import random
import time
import typing as t
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit

from .errors import S3Error, answer_error, connection_error
from .parse import Listed, Upload, error_of, objects_page, uploads_page
from .signing import encode, query_string, sign

if t.TYPE_CHECKING:
    from .connection import Connection

ATTEMPTS = 4
RETRIED_STATUS = frozenset({429, 500, 502, 503, 504})
CHUNK = 1 << 20


@dataclass
class Reader:
    """Read access to one bucket. ``requests`` counts what was sent; ``server_time`` is the last answer's Date header."""

    connection: Connection
    bucket: str
    timeout: float = 60.0
    sleep: t.Callable[[float], None] = time.sleep
    requests: int = 0
    server_time: datetime | None = None
    _http: http.client.HTTPConnection | None = field(default=None, repr=False)

    def objects(self, prefix: str) -> list[Listed]:
        """Every object below ``prefix``, in key order; 1,000 a request."""
        found: list[Listed] = []
        query = {"list-type": "2", "encoding-type": "url", "prefix": prefix}
        while True:
            page, following = objects_page(self._read_all("", query, f"list objects below {prefix!r}"))
            found += page
            if following is None:
                return found
            query["continuation-token"] = following

    def uploads(self, prefix: str) -> list[Upload]:
        """Every multipart upload below ``prefix`` that is neither completed nor aborted."""
        found: list[Upload] = []
        query = {"uploads": "", "encoding-type": "url", "prefix": prefix}
        while True:
            page, following = uploads_page(self._read_all("", query, f"list multipart uploads below {prefix!r}"))
            found += page
            if following is None:
                return found
            query |= following

    def get(self, key: str) -> bytes:
        """A small object, whole."""
        return self._read_all(key, {}, "read")

    def stream(self, key: str, *, etag: str | None = None) -> t.Iterator[bytes]:
        """An object of any size in chunks of at most 1 MiB; with ``etag``, another object under that key is an error."""
        done, size, failures = 0, -1, 0
        while size < 0 or done < size:
            headers = {"range": f"bytes={done}-"} if done else {}
            if etag is not None:
                headers["if-match"] = f'"{etag}"'
            response = self._open(key, {}, "read", headers)
            size = done + int(response.headers["content-length"])
            etag = etag or response.headers.get("etag", "").strip('"') or None
            try:
                while chunk := response.read(CHUNK):
                    done += len(chunk)
                    failures = 0
                    yield chunk
            except (OSError, http.client.HTTPException) as error:
                self.close()
                failures = self._pause(failures, error)
            else:
                if done < size:  # the peer closed early, which http.client reports as an end of data
                    self.close()
                    failures = self._pause(failures, http.client.IncompleteRead(b"", size - done))

    def close(self) -> None:
        """Drop the connection; the next request opens another."""
        if self._http is not None:
            self._http.close()
            self._http = None

    def _pause(self, failures: int, error: BaseException) -> int:
        failures += 1
        if failures >= ATTEMPTS:
            raise connection_error(endpoint=self.connection.endpoint, error=error) from error
        # Growing pause with jitter, so that many readers do not return in step.
        self.sleep(0.2 * 2 ** (failures - 1) * random.uniform(0.5, 1.0))  # noqa: S311  # spreads load, keeps no secret
        return failures

    def _read_all(self, key: str, query: dict[str, str], operation: str) -> bytes:
        failures = 0
        while True:
            response = self._open(key, query, operation, {})
            try:
                return response.read()
            except (OSError, http.client.HTTPException) as error:
                self.close()
                failures = self._pause(failures, error)

    def _open(
        self, key: str, query: dict[str, str], operation: str, headers: dict[str, str]
    ) -> http.client.HTTPResponse:
        """Send one GET, again if the server is busy or gone; an answer other than 200 or 206 is an :class:`S3Error`."""
        failures = 0
        while True:
            try:
                response = self._send(key, query, headers)
                if response.status in (200, 206):
                    return response
                body = response.read()
            except (OSError, http.client.HTTPException) as error:
                self.close()
                problem = connection_error(endpoint=self.connection.endpoint, error=error)
                if problem.code == "TLS":
                    raise problem from error
                failures = self._pause(failures, error)
                continue
            code, message, region = error_of(body)
            if response.status not in RETRIED_STATUS or failures + 1 >= ATTEMPTS:
                raise self._answer_error(key, operation, response, (code, message, region))
            failures = self._pause(failures, S3Error(obj=code, problem=message, next_step=""))

    def _answer_error(
        self, key: str, operation: str, response: http.client.HTTPResponse, said: tuple[str, str, str]
    ) -> S3Error:
        code, message, region = said
        region = region or response.headers.get("x-amz-bucket-region", "")
        obj = f"s3://{self.bucket}/{key}" if key else f"bucket {self.bucket} at {self.connection.endpoint}"
        return answer_error(
            obj=obj,
            operation=operation,
            status=response.status,
            code=code,
            message=message,
            detail=f"its region is {region}" if region else "",
        )

    def _send(self, key: str, query: dict[str, str], headers: dict[str, str]) -> http.client.HTTPResponse:
        scheme, host, path = self._address(key)
        if self._http is None:
            self._http = self._connect(scheme, host)
        signed = sign(
            method="GET",
            host=host,
            path=path,
            query=query,
            headers=headers,
            credentials=self.connection.credentials,
            region=self.connection.region,
            moment=datetime.now(UTC),
        )
        target = f"{path}?{query_string(query)}" if query else path
        self.requests += 1
        self._http.request("GET", target, headers=signed)
        response = self._http.getresponse()
        if date := response.headers.get("date"):
            self.server_time = parsedate_to_datetime(date)
        return response

    def _address(self, key: str) -> tuple[str, str, str]:
        """Scheme, host (with a port that is not the default) and encoded path of ``key``, or of the bucket for ""."""
        encoded = encode(key, safe="/")
        if self.connection.endpoint_url is None and "." not in self.bucket:
            return "https", f"{self.bucket}.s3.{self.connection.region}.amazonaws.com", f"/{encoded}"
        parts = urlsplit(self.connection.endpoint)
        host = parts.hostname or ""
        host = f"[{host}]" if ":" in host else host
        if parts.port not in (None, 443 if parts.scheme == "https" else 80):
            host = f"{host}:{parts.port}"
        return parts.scheme, host, f"/{encode(self.bucket)}/{encoded}" if key else f"/{encode(self.bucket)}"

    def _connect(self, scheme: str, host: str) -> http.client.HTTPConnection:
        if scheme == "http":
            return http.client.HTTPConnection(host, timeout=self.timeout)
        import ssl

        context = ssl.create_default_context(cafile=self.connection.ca_bundle)
        if not self.connection.validate_certs:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return http.client.HTTPSConnection(host, timeout=self.timeout, context=context)
