# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Stand-ins for the REST interfaces of two Patroni clusters of one member each, of which one follows the other."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

Json = dict[str, Any]
CLAIM = "lowtide_site_run_"


def merge(config: Json, patch: Json) -> Json:
    """A configuration after a change: dictionaries are merged, None takes a key out."""
    both = {
        name: merge(config[name], value) if isinstance(value, dict) and isinstance(config.get(name), dict) else value
        for name, value in patch.items()
    }
    return {name: value for name, value in {**config, **both}.items() if value is not None}


class SiteStandIn:
    """A cluster whose member listens at ``port``, and whose PostgreSQL has this address as well.

    ``code`` is the status of each answer to a reading and ``patch_code`` of each to a write, where they are no 200.
    The next ``conflicts`` changes of standby_cluster are answered 409, as where another client's change came before.
    ``next_codes`` answer the next writes of any kind: 0 is no answer, and a negative one answers what was done.
    ``on_refusal`` is called before a write is answered by another code than 200.
    ``on_patch`` is called after a write of ``patches`` has been done; ``claims`` are what runs note of themselves.
    """

    def __init__(self, scope: str) -> None:
        self.scope, self.name = scope, f"{scope}1"
        self.config: Json = {"maximum_lag_on_failover": 1000, "loop_wait": 1, "retry_timeout": 1, "ttl": 20}
        self.position, self.timeline = 5000, 3
        self.code = self.patch_code = 200
        self.conflicts = 0
        self.next_codes: list[int] = []
        self.on_refusal: Callable[[], None] = lambda: None
        self.patches: list[Json] = []
        self.claims: list[Json] = []
        self.status: Json = {}
        self.members: list[Json] = []
        self.streaming: list[str] = []
        self.on_patch: Callable[[], None] = lambda: None
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), self._make_handler())
        self.port = self.server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"

    def follow(self, other: SiteStandIn) -> None:
        """Make it a standby cluster of another one, from which it streams."""
        self.config["standby_cluster"] = {"host": "127.0.0.1", "port": other.port}
        other.streaming.append(self.name)

    @property
    def is_standby(self) -> bool:
        """Whether it follows another cluster."""
        return bool(self.config.get("standby_cluster"))

    def _answer_patroni(self) -> Json:
        received = {"received_location": self.position, "replayed_location": self.position}
        return {
            "state": "running",
            "role": "standby_leader" if self.is_standby else "primary",
            "timeline": self.timeline,
            "xlog": received if self.is_standby else {"location": self.position},
            "replication": [{"application_name": name, "state": "streaming"} for name in self.streaming],
            "database_system_identifier": "7",
            "dcs_last_seen": int(time.time()),
            "patroni": {"version": "4.0.4", "scope": self.scope},
            **self.status,
        }

    def _answer_cluster(self) -> Json:
        own = {
            "name": self.name,
            "role": "standby_leader" if self.is_standby else "leader",
            "state": "running",
            "host": "127.0.0.1",
            "port": self.port,
            "api_url": f"{self.url}/patroni",
        }
        return {"members": [own, *self.members]}

    def read(self, path: str) -> Json:
        """What it says to a reading."""
        if path == "/config":
            return self.config
        return self._answer_cluster() if path == "/cluster" else self._answer_patroni()

    def patch(self, body: Json) -> None:
        """Do as Patroni does with a change of the configuration."""
        was_standby = self.is_standby
        self.config = merge(self.config, body)
        if all(name.startswith(CLAIM) for name in body):
            self.claims.append(body)
            return
        self.patches.append(body)
        self.timeline += was_standby and not self.is_standby
        self.on_patch()

    def _make_handler(self) -> type[BaseHTTPRequestHandler]:
        site = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.answer(site.code, site.read(self.path))

            def do_PATCH(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                code = site.patch_code
                if "standby_cluster" in body and site.conflicts:
                    site.conflicts, code = site.conflicts - 1, 409
                if site.next_codes:
                    code = site.next_codes.pop(0)
                if code == 200 or code < 0:
                    site.patch(body)
                else:
                    site.on_refusal()
                if code:
                    self.answer(abs(code), site.config)

            def answer(self, code: int, document: Json) -> None:
                self.send_response(code)
                self.end_headers()
                self.wfile.write(json.dumps(document).encode() if code == 200 else b"no")

            def log_message(self, *_arguments: object) -> None:
                """Say nothing."""

        return Handler

    def __enter__(self) -> Self:
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.server.shutdown()
        self.server.server_close()
