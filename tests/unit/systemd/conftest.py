# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Runs over a systemd in memory, with real HTTP servers and real links."""

from __future__ import annotations

import contextlib
import http.server
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.lowtide.ops.plugins.module_utils._common.outcome import Outcome
from ansible_collections.lowtide.ops.plugins.module_utils._common.retry import Deadline
from ansible_collections.lowtide.ops.plugins.module_utils._systemd.apply import Limits, Run
from ansible_collections.lowtide.ops.plugins.module_utils._systemd.ensure import perform
from ansible_collections.lowtide.ops.plugins.module_utils._systemd.manager import Manager
from ansible_collections.lowtide.ops.plugins.module_utils._systemd.units import parse_tiers
from unit.systemd.memory_systemd import MemorySystemd


@pytest.fixture
def systemd() -> MemorySystemd:
    """A host without units."""
    return MemorySystemd()


@pytest.fixture
def ensure(systemd: MemorySystemd) -> Callable[..., Outcome]:
    """Bring units to a state; what the run reports, also when it fails: then ``pytest.raises`` is around it."""

    def run(tiers: list[Any], state: str = "started", *, check: bool = False, **options: Any) -> Outcome:
        after = options.pop("restarted_after", None)
        outcome = options.pop("outcome", None) or Outcome(check_mode=check)
        clock = iter(range(100000))
        made = Run(
            parse_tiers(tiers),
            Manager(systemd.run),
            outcome,
            Limits(**options),
            deadline=lambda seconds: Deadline(seconds, clock=lambda: float(next(clock)), sleep=lambda _seconds: None),
        )
        perform(made, state=state, restarted_after=after)
        return outcome

    return run


@pytest.fixture
def serve() -> Iterator[Callable[..., str]]:
    """``serve(answers)`` gives the URL of a server: these (status, text) one after the other, then the last."""
    servers: list[http.server.ThreadingHTTPServer] = []

    def start(answers: Sequence[tuple[int, str]], asked: list[str] | None = None) -> str:
        left = list(answers)

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if asked is not None:
                    asked.append(f"{self.command} {self.path}")
                status, text = left.pop(0) if len(left) > 1 else left[0]
                self.send_response(status)
                self.end_headers()
                with contextlib.suppress(BrokenPipeError):
                    self.wfile.write(text.encode())

            def do_POST(self) -> None:
                self.do_GET()

            def log_message(self, format: str, *args: object) -> None:
                """Nothing."""

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture
def releases(tmp_path: Path) -> Path:
    """A folder with the releases 1 and 2, and the link current to 1."""
    for name in ("1", "2"):
        (tmp_path / name).mkdir()
    (tmp_path / "current").symlink_to(tmp_path / "1")
    return tmp_path
