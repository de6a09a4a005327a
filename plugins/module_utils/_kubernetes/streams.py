# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Streams of lines from an API server: watches and logs. Private to lowtide.ops: do not import from other collections."""

from __future__ import annotations

import http.client
import json
import typing as t

from .errors import ApiError
from .fields import Json
from .transport import LOST, DeadlineSocket, describe_error


class Stream:
    """A running watch: iterate to get its events, once. ``close`` from any thread ends the iteration.

    The iteration ends when the server ends the watch. Raises ApiError (status 0) when the connection is lost, silent for
    too long, or sends something else than JSON.
    """

    def __init__(self, sock: DeadlineSocket, response: http.client.HTTPResponse, obj: str) -> None:
        self._sock = sock
        self._response = response
        self._obj = obj
        self._closing = False
        self._reading = False

    def __iter__(self) -> t.Iterator[Json]:
        for line in self.read_raw_lines():
            try:
                event = json.loads(line)
            except ValueError as error:
                raise self._lose("it sent a line that is not JSON") from error
            if not isinstance(event, dict):
                raise self._lose("it sent a line that is no event")
            yield event

    def read_raw_lines(self) -> t.Iterator[bytes]:
        """Iterate over lines as they come, without decoding them."""
        self._reading = True
        try:
            while not self._closing:
                try:
                    line = self._response.readline()
                except (*LOST, ValueError, AttributeError) as error:  # the latter two: closed under the reader
                    if self._closing:
                        return
                    raise self._lose(describe_error(error)) from error
                if not line or self._closing:
                    return
                yield line
        finally:
            self._release()

    def close(self) -> None:
        """Cut the connection, which wakes up a reader."""
        self._closing = True
        self._sock.interrupt()
        if not self._reading:
            self._release()

    def _release(self) -> None:
        self._response.close()
        self._sock.close()

    def _lose(self, why: str) -> ApiError:
        return ApiError(
            obj=self._obj, problem=f"the stream of its changes broke off: {why}", next_step="Read it again and go on"
        )
