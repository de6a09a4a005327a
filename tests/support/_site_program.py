# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A web site that runs in a pod: it says who it is, takes as long as it is asked to, and counts what is in flight.

``/metrics`` is Prometheus' text format. ``/healthz`` and ``/metrics`` are not counted.
"""

from __future__ import annotations

import os
import signal
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

COUNT = threading.Lock()
WHO = os.environ.get("WHO", "")


class Site(BaseHTTPRequestHandler):
    """One request."""

    in_flight = 0

    def do_GET(self) -> None:
        """Answer ``/healthz``, ``/metrics``, ``/slow?seconds=N`` and anything else."""
        parts = urlsplit(self.path)
        if parts.path == "/healthz":
            self._send("ok")
        elif parts.path == "/metrics":
            self._send(f"# TYPE http_requests_in_flight gauge\nhttp_requests_in_flight {Site.in_flight}\n")
        else:
            self._count(1)
            if parts.path == "/slow":
                threading.Event().wait(float(parse_qs(parts.query)["seconds"][0]))
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
