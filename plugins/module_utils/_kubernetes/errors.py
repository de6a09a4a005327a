# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What can go wrong between us and an API server. Private to lowtide.ops: do not import from other collections."""

from __future__ import annotations

import json
import typing as t

from .._common.errors import OpsError, OutcomeUnknown


class ApiError(OpsError):
    """The API server could not be asked, or answered with an error.

    ``status`` is the HTTP status, 0 when no answer came; ``reason`` the server's own word for it (``AlreadyExists``).
    """

    def __init__(self, *, obj: str, problem: str, next_step: str, status: int = 0, reason: str = "") -> None:
        super().__init__(obj=obj, problem=problem, next_step=next_step)
        self.status = status
        self.reason = reason


class Unauthorized(ApiError):
    """401: the server does not accept the credentials, also after they were obtained anew."""


class Forbidden(ApiError):
    """403: this account may not do that."""


class NotFound(ApiError):
    """404: the object, its namespace or its API does not exist."""


class Conflict(ApiError):
    """409, or a JSON patch whose test failed: the object is no longer the one that was read, or it exists already."""


class Gone(ApiError):
    """410: the resource version is too old to watch from, or the page to go on from; list again."""


class Invalid(ApiError):
    """422: the server considers the object invalid."""


class TooManyRequests(ApiError):
    """429 until the deadline, or with a Retry-After beyond it: nothing was carried out."""


class WriteUnknown(ApiError, OutcomeUnknown):
    """A write was sent and no answer came, or one that does not tell: read the object before deciding anything."""


BY_STATUS: dict[int, type[ApiError]] = {
    401: Unauthorized,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    410: Gone,
    422: Invalid,
    429: TooManyRequests,
}
"""The class for each status that callers tell apart; any other one is a plain ApiError."""


def read_status(answer: bytes) -> dict[str, t.Any]:
    """Return the Status object of an error; empty when the answer is something else."""
    try:
        document = json.loads(answer)
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}


def describe_answer(status: int, answer: bytes) -> str:
    """Return the status and the server's own message, shortened."""
    message = str(read_status(answer).get("message") or answer.decode("utf-8", "replace")).strip()
    return f"{status}: {message[:400]}" if message else str(status)


def advise(status: int, kind: type[ApiError]) -> str:
    """Return what to do about an error."""
    if issubclass(kind, Conflict):
        return "Another client changes this object at the same time; run again when that has ended"
    return {
        401: "Give valid credentials: api_key, client_cert and client_key, or another context",
        403: "Grant the permission that the message names, or use another account",
        404: "Correct name, kind or namespace",
        410: "Run again",
        422: "The server considers the change invalid; its message says why",
        429: "The server is overloaded; run again later",
    }.get(status, "Check the API server; what has been done can be seen in this result, and running again is safe")
