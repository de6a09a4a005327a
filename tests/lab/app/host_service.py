# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A small service for hosts with systemd: slow to start, ready when what it needs is, finishes its requests on SIGTERM.

host_service.py PORT [NEEDED_PORT]. A file `mode` beside it says how this release behaves: good (or no file),
never_ready, crash, or breaks (ready at first, not a second after it has said so). GET /ready, /inflight, /release,
/work?SECONDS; POST /drain, /resume.
"""

from __future__ import annotations

import http.server
import json
import pathlib
import signal
import socket
import sys
import threading
import time

PLACE = pathlib.Path(__file__).parent
START_SECONDS = 0.5


class Service(http.server.ThreadingHTTPServer):
    """The server and what it counts."""

    daemon_threads = False
    allow_reuse_address = True

    def __init__(self, port: int, needed: int) -> None:
        mode = PLACE / "mode"
        self.mode = mode.read_text().strip() if mode.exists() else "good"
        self.needed = needed
        self.began = time.monotonic()
        self.said_ready: float | None = None
        self.draining = False
        self.in_flight = 0
        self.guard = threading.Lock()
        super().__init__(("127.0.0.1", port), Handler)

    def find_unready(self) -> str:
        """Why it does not serve, empty when it does."""
        now = time.monotonic()
        if self.draining:
            return "draining"
        if now - self.began < START_SECONDS:
            return "starting"
        has_broken = self.mode == "breaks" and self.said_ready is not None and now > self.said_ready + 1
        if self.mode == "never_ready" or has_broken:
            return "the release does not work"
        if self.needed:
            try:
                socket.create_connection(("127.0.0.1", self.needed), timeout=1).close()
            except OSError as error:
                return f"what it needs on port {self.needed}: {error}"
        self.said_ready = self.said_ready or now
        return ""


class Handler(http.server.BaseHTTPRequestHandler):
    """The requests."""

    server: Service

    def do_GET(self) -> None:
        path, _mark, query = self.path.partition("?")
        if path == "/ready":
            why = self.server.find_unready()
            self._answer(503 if why else 200, why or "ready")
        elif path == "/inflight":
            self._answer(200, json.dumps({"in_flight": self.server.in_flight}))
        elif path == "/release":
            self._answer(200, str(PLACE.resolve().name))
        else:
            with self.server.guard:
                self.server.in_flight += 1
            time.sleep(float(query or 0))
            with self.server.guard:
                self.server.in_flight -= 1
            self._answer(200, "done")

    def do_POST(self) -> None:
        self.server.draining = self.path == "/drain"
        self._answer(200, "draining" if self.server.draining else "taking requests")

    def _answer(self, status: int, text: str) -> None:
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """The journal shall hold what matters."""


def main() -> None:
    """Serve until SIGTERM, then until the last request is answered."""
    port, needed = int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0
    service = Service(port, needed)
    print(f"release {PLACE.resolve().name} on port {port}", flush=True)
    if service.mode == "crash":
        raise SystemExit("cannot go on: the setting feature_table is missing, password=planted-5e1d")
    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=service.shutdown).start())
    service.serve_forever(poll_interval=0.05)
    service.server_close()
    print("every request is answered", flush=True)


if __name__ == "__main__":
    main()
