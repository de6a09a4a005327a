# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One plain HTTP request, for conditions that components wait for."""

from __future__ import annotations

import http.client
from dataclasses import dataclass


@dataclass(frozen=True)
class Answer:
    """Status code and body."""

    status: int
    body: bytes


def request(address: str, path: str, *, method: str = "GET", seconds: float = 5.0) -> Answer:
    """``GET path`` (or another method without a body) from ``address`` (host:port), following nothing.

    OSError where no server answers.
    """
    connection = http.client.HTTPConnection(address, timeout=seconds)
    try:
        connection.request(method, path)
        answer = connection.getresponse()
        return Answer(status=answer.status, body=answer.read())
    except http.client.HTTPException as error:
        raise OSError(f"{address}{path}: {type(error).__name__}: {error}") from error
    finally:
        connection.close()
