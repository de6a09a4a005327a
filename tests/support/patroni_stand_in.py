# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A stand-in for the REST interfaces of a Patroni cluster, of two if not told more, whose answers a test decides."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

Json = dict[str, Any]


class PatroniStandIn:
    """A context manager. ``pg1`` leads, ``pg2`` follows. ``on_post`` answers a write; it may raise for no answer.

    ``pending`` has the members that wait for a restart, with Patroni's reason; those in ``stubborn`` do so after it.
    """

    def __init__(
        self,
        on_post: Callable[[PatroniStandIn, str, Json], tuple[int, str]] | None = None,
        *,
        names: tuple[str, ...] = ("pg1", "pg2"),
    ) -> None:
        self.leader, self.timeline = "pg1", 3
        self.names = names
        self.on_post = on_post or PatroniStandIn.obey
        self.posts: list[tuple[str, Json]] = []
        self.moves: list[str] = []
        self.pending: dict[str, Json | None] = {}
        self.stubborn: set[str] = set()
        self.starts = dict.fromkeys(names, 0)
        self.asked = ""
        self.config: Json = {"maximum_lag_on_failover": 1000, "loop_wait": 1, "retry_timeout": 1}
        self.lag = 0
        self.extra: Json = {}
        self.dcs_is_away = False
        self.has_started = threading.Event()
        self._servers = {name: ThreadingHTTPServer(("127.0.0.1", 0), self._make_handler(name)) for name in names}
        self._addresses = {
            name: f"http://127.0.0.1:{server.server_address[1]}" for name, server in self._servers.items()
        }

    @property
    def urls(self) -> list[str]:
        """The addresses of all."""
        return list(self._addresses.values())

    def obey(self, path: str, body: Json) -> tuple[int, str]:
        """Do what is asked."""
        return self.restart(self.asked) if path == "/restart" else self.switch(body["candidate"])

    def restart(self, name: str) -> tuple[int, str]:
        """Restart a member."""
        self.moves.append(f"restart {name}")
        self._start(name)
        return 200, "restarted successfully"

    def _start(self, name: str) -> None:
        self.starts[name] += 1
        if name not in self.stubborn:
            self.pending.pop(name, None)

    def switch(self, candidate: str) -> tuple[int, str]:
        """Let another member lead, on a new timeline; the old leader starts anew."""
        self.moves.append(f"switch to {candidate}")
        self._start(self.leader)
        self.leader, self.timeline = candidate, self.timeline + 1
        return 200, f'Successfully switched over to "{candidate}"'

    def status(self, name: str) -> Json:
        """What a member says of itself."""
        is_leader = name == self.leader
        xlog = {"location": 5000} if is_leader else {"received_location": 5000, "replayed_location": 5000 - self.lag}
        others = [{"application_name": other, "state": "streaming"} for other in self.names if other != name]
        reason = self.pending.get(name)
        waits = {"pending_restart": True} if name in self.pending else {}
        return {
            **waits,
            **({"pending_restart_reason": reason} if reason else {}),
            "postmaster_start_time": f"2026-11-27 02:00:{self.starts[name]:02}+00:00",
            "state": "running",
            "role": "master" if is_leader else "replica",
            "timeline": self.timeline,
            "xlog": xlog,
            "replication": others if is_leader else [],
            "database_system_identifier": "7",
            "dcs_last_seen": int(time.time()),
            "patroni": {"version": "3.0.2", "scope": "shop"},
        }

    def cluster(self) -> Json:
        """What the DCS has."""
        members = [
            {"name": name, "role": "leader" if name == self.leader else "replica", "state": "running"}
            for name in self.names
        ]
        return {"members": [{**m, "api_url": f"{self._addresses[m['name']]}/patroni"} for m in members], **self.extra}

    def _make_handler(self, name: str) -> type[BaseHTTPRequestHandler]:
        stand_in = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if stand_in.dcs_is_away and self.path == "/cluster":
                    self.answer(503, "the DCS is away")
                elif self.path == "/cluster":
                    self.answer(200, json.dumps(stand_in.cluster()))
                elif self.path == "/config":
                    self.answer(200, json.dumps(stand_in.config))
                else:
                    status = stand_in.status(name)
                    if status["state"] == "starting" and self.path == "/patroni":
                        stand_in.has_started.wait(30)  # Patroni asks a PostgreSQL that does not answer again and again
                    self.answer(200, json.dumps(status))

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                stand_in.posts.append((self.path, body))
                stand_in.asked = name
                try:
                    code, text = stand_in.on_post(stand_in, self.path, body)
                except ConnectionError:
                    return
                self.answer(code, text)

            def answer(self, code: int, text: str) -> None:
                self.send_response(code)
                self.end_headers()
                self.wfile.write(text.encode())

            def log_message(self, *_arguments: object) -> None:
                """Say nothing."""

        return Handler

    def __enter__(self) -> Self:
        for server in self._servers.values():
            threading.Thread(target=server.serve_forever, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        for server in self._servers.values():
            server.shutdown()
            server.server_close()
