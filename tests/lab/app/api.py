# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The API of the feature service: /healthz says whether the database answers, /version which release this is,
/features/ID what is known of one feature. The database's settings come from libpq's own variables (PGHOST, ...)."""

from __future__ import annotations

import json
import os
import signal
import threading
import uuid
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import psycopg2

RELEASE = Path(__file__).with_name("RELEASE").read_text().strip()
FEATURE = """
SELECT json_build_object('id', id, 'state', name, 'completed_at', completed_at, 'error', error,
                         'events', events_applied)
FROM feature_executions JOIN feature_states USING (state) WHERE id = %s
"""


class Database:
    """One connection, used by one request at a time, made anew when it has broken."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._connection: Any = None

    def value(self, statement: str, parameters: tuple[Any, ...] = ()) -> Any:
        """The first column of the first row, None when there is no row."""
        with self._lock:
            if self._connection is None or self._connection.closed:
                self._connection = psycopg2.connect()
                self._connection.autocommit = True
            with self._connection.cursor() as cursor:
                cursor.execute(statement, parameters)
                row = cursor.fetchone()
                return row[0] if row else None


class Api(BaseHTTPRequestHandler):
    """One request."""

    database = Database()

    def do_GET(self) -> None:
        """Answer /healthz, /version and /features/ID."""
        try:
            status, answer = self._answer()
        except psycopg2.Error as error:
            status, answer = HTTPStatus.SERVICE_UNAVAILABLE, {"error": str(error).strip()}
        body = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _answer(self) -> tuple[HTTPStatus, Any]:
        if self.path == "/version":
            return HTTPStatus.OK, {"release": RELEASE, "pod": os.environ.get("PGAPPNAME")}
        if self.path == "/healthz":
            return HTTPStatus.OK, {"database": self.database.value("SELECT pg_is_in_recovery()") is False}
        folder, _slash, name = self.path.removeprefix("/").partition("/")
        if folder == "features":
            try:
                feature = str(uuid.UUID(name))
            except ValueError:
                return HTTPStatus.BAD_REQUEST, {"error": f"{name!r} is no feature id"}
            found = self.database.value(FEATURE, (feature,))
            return (HTTPStatus.OK, found) if found else (HTTPStatus.NOT_FOUND, {"error": f"no feature {feature}"})
        return HTTPStatus.NOT_FOUND, {"error": f"no such path {self.path}"}

    def log_message(self, *_arguments: object) -> None:
        """Say nothing: there is a probe every second."""


def main() -> None:
    """Serve until SIGTERM."""
    server = ThreadingHTTPServer(("", int(os.environ.get("FEATURE_PORT", "8080"))), Api)
    server.daemon_threads = True
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: threading.Thread(target=server.shutdown).start())
    print(f"release {RELEASE} serves on {server.server_address}", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
