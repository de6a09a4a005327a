# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A stand-in for Prometheus' HTTP API that answers what a test gives it, one answer after the other."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

Json = dict[str, Any]


def make_vector(*samples: tuple[dict[str, str], str]) -> Json:
    """The data of an instant vector: labels with their value."""
    return {
        "resultType": "vector",
        "result": [{"metric": labels, "value": [1.0, value]} for labels, value in samples],
    }


class PrometheusStandIn:
    """A context manager. ``answers`` are (status, document) pairs, the last of which is repeated."""

    def __init__(self, *answers: tuple[int, Any]) -> None:
        self.answers = list(answers)
        self.requests: list[tuple[str, dict[str, list[str]], dict[str, str]]] = []
        stand_in = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                parts = urlsplit(self.path)
                stand_in.requests.append((parts.path, parse_qs(parts.query), dict(self.headers.items())))
                status, document = stand_in.answers.pop(0) if len(stand_in.answers) > 1 else stand_in.answers[0]
                body = document if isinstance(document, bytes) else json.dumps(document).encode()
                self.send_response(status)
                if 300 <= status < 400:
                    self.send_header("Location", "http://127.0.0.1:1/elsewhere")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_arguments: object) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    @classmethod
    def of_vectors(cls, *vectors: Json) -> Self:
        """Answers that are good."""
        return cls(*((200, {"status": "success", "data": vector}) for vector in vectors))

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
