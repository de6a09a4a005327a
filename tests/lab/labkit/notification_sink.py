# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A stand-in for a chat or paging service: keeps what is posted to it, one JSON line a request.

``GET /`` gives the lines, ``POST`` to any path adds one (time, path, body), ``DELETE /`` forgets them.
"""

from __future__ import annotations

import json
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar


class Sink(BaseHTTPRequestHandler):
    """Writes each request to ``record``."""

    record: ClassVar[Path]

    def do_GET(self) -> None:
        """All notifications since the last DELETE."""
        self._answer(self.record.read_bytes())

    def do_POST(self) -> None:
        """Keep one notification."""
        text = self.rfile.read(int(self.headers.get("Content-Length", "0"))).decode(errors="replace")
        try:
            body = json.loads(text)
        except ValueError:
            body = text  # a service may be sent anything: keep it as it came
        line = json.dumps({"time": time.time(), "path": self.path, "body": body}) + "\n"
        with self.record.open("a", encoding="utf-8") as handle:
            handle.write(line)
        self._answer(b"ok\n")

    def do_DELETE(self) -> None:
        """Forget all notifications."""
        self.record.write_bytes(b"")
        self._answer(b"")

    def _answer(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/jsonl")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def main(address: str, record: str) -> None:
    """Serve on ``address`` (host:port), keeping notifications in the file ``record``."""
    Sink.record = Path(record)
    Sink.record.touch()
    host, _colon, port = address.rpartition(":")
    ThreadingHTTPServer((host, int(port)), Sink).serve_forever()


if __name__ == "__main__":
    main(*sys.argv[1:])
