# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A web site that runs in a pod: it says who it is, and counts what is in flight.

``/held`` is answered after ``/release``. ``/metrics`` is Prometheus' text format, and counts who asked for it ``?by``
whom. ``/healthz``, ``/metrics`` and ``/release`` are not in flight.
"""

from __future__ import annotations

import os
import signal
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

COUNT = threading.Lock()
WHO = os.environ.get("WHO", "")


class Site(BaseHTTPRequestHandler):
    """One request."""

    in_flight = 0
    asked = 0
    released = threading.Event()

    def do_GET(self) -> None:
        """Answer ``/healthz``, ``/metrics``, ``/release``, ``/held`` and anything else."""
        parts = urlsplit(self.path)
        if parts.path == "/healthz":
            self._send("ok")
        elif parts.path == "/metrics":
            Site.asked += parts.query == "by=module"
            self._send(f"http_requests_in_flight {Site.in_flight}\nasked_by_module_total {Site.asked}\n")
        elif parts.path == "/release":
            Site.released.set()
            self._send("released")
        else:
            self._count(1)
            if parts.path == "/held":
                Site.released.wait(600)
            self._send(WHO)
            self._count(-1)

    def _count(self, more: int) -> None:
        with COUNT:
            Site.in_flight += more

    def _send(self, text: str) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: there is a probe every second."""


def main() -> None:
    """Serve until SIGTERM."""
    server = ThreadingHTTPServer(("", 8080), Site)
    server.daemon_threads = True
    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
    server.serve_forever()


if __name__ == "__main__":
    main()
