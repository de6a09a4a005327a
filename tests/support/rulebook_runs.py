# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""ansible-rulebook in a process of its own, and an Alertmanager that posts to it."""

from __future__ import annotations

import contextlib
import http.client
import json
import signal
import ssl
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any

from .local_servers import find_free_port, wait_until
from .playbooks import kill_playbook, playbook_environment, write_yaml
from .tls_server import make_chain

Json = dict[str, Any]
START_SECONDS = 300.0
"""A JVM, and a search for the collection, on a slow machine."""


@dataclass
class Listener:
    """A rulebook that listens with TLS, and what it has printed so far."""

    port: int
    token_file: Path
    authority: Path
    log: Path
    process: subprocess.Popen[str]

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"https://127.0.0.1:{self.port}/alerts"

    @property
    def output(self) -> str:
        """Everything that it printed."""
        return self.log.read_text(encoding="utf-8", errors="replace")

    def post(self, body: bytes, *, token: str | None = None) -> int:
        """Post as Alertmanager does, with its token or another one (``""`` is none); the status."""
        given = self.token_file.read_text(encoding="utf-8") if token is None else token
        headers = {"Content-Type": "application/json", **({"Authorization": f"Bearer {given}"} if given else {})}
        context = ssl.create_default_context(cafile=self.authority)
        connection = http.client.HTTPSConnection("127.0.0.1", self.port, context=context, timeout=30)
        try:
            connection.request("POST", "/alerts", body=body, headers=headers)
            return connection.getresponse().status
        finally:
            connection.close()

    def is_listening(self) -> bool:
        """Whether it refuses who has no token; it has to be alive."""
        assert self.process.poll() is None, self.output
        try:
            return self.post(b"{}", token="") == HTTPStatus.UNAUTHORIZED
        except OSError:
            return False

    def wait(self, what: str, condition: Callable[[], bool], seconds: float = START_SECONDS) -> None:
        """Until it is so."""
        wait_until(what, condition, seconds, lambda: self.output)


@contextlib.contextmanager
def run_rulebook(rulebook: str, inventory: Path, folder: Path, token: str) -> Iterator[Listener]:
    """Run a rulebook with documented variables from a file; ends it with all that it has started."""
    chain = make_chain(folder)
    certificate = folder / "listener.crt"
    certificate.write_text((chain / "server.crt").read_text() + (chain / "intermediate.crt").read_text())
    token_file = folder / "token"
    token_file.write_text(token, encoding="utf-8")
    port = find_free_port()
    variables = {"alert_address": "127.0.0.1", "alert_port": port, "alert_token": token}
    variables |= {"alert_certfile": str(certificate), "alert_keyfile": str(chain / "server.key")}
    given = write_yaml(folder / "variables.yml", variables)
    command = [str(Path(sys.executable).with_name("ansible-rulebook")), "--rulebook", rulebook]
    command += ["--inventory", str(inventory), "--vars", str(given), "--print-events"]
    log = folder / "rulebook.log"
    with log.open("wb") as stream:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
            text=True,
            env=playbook_environment(),
            cwd=folder,
            start_new_session=True,
        )
    try:
        listener = Listener(port, token_file, chain / "root.crt", log, process)
        listener.wait("the rulebook listens", listener.is_listening)
        yield listener
        process.send_signal(signal.SIGTERM)
    finally:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=10)
        if process.poll() is None:
            kill_playbook(process)


class Alertmanager:
    """The lab's Alertmanager, which posts the alerts of some names to a listener as well."""

    def __init__(self, facts: Json, listener: Listener, names: str) -> None:
        self._url = facts["alertmanager_url"]
        self._file = Path(facts["rules_dir"]).parent / "alertmanager.yml"
        configuration = json.loads(self._file.read_text(encoding="utf-8"))
        # A run that was killed has left its own there.
        configuration["route"].pop("routes", None)
        configuration["receivers"] = [one for one in configuration["receivers"] if one["name"] != "rulebook"]
        self._before = json.dumps(configuration, indent=2)
        # Often, so that the same alert is posted again and again.
        times = {"group_wait": "0s", "group_interval": "1s", "repeat_interval": "1s"}
        route = {"receiver": "rulebook", "matchers": [f'alertname=~"{names}"'], "continue": False, **times}
        configuration["route"]["routes"] = [route]
        http_config = {
            "authorization": {"credentials_file": str(listener.token_file)},
            "tls_config": {"ca_file": str(listener.authority)},
        }
        hook = {"url": listener.url, "send_resolved": True, "http_config": http_config}
        configuration["receivers"].append({"name": "rulebook", "webhook_configs": [hook]})
        self._configuration = json.dumps(configuration, indent=2)

    def __enter__(self) -> Alertmanager:
        self._configure(self._configuration)
        return self

    def __exit__(self, *_error: object) -> None:
        self._configure(self._before)

    def _configure(self, text: str) -> None:
        self._file.write_text(text, encoding="utf-8")
        self._post("/-/reload", b"")

    def _post(self, path: str, body: bytes) -> None:
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(self._url + path, data=body, headers=headers, method="POST")  # noqa: S310
        with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
            assert answer.status == HTTPStatus.OK

    def fire(self, labels: dict[str, str], summary: str = "it fires", *, over: bool = False) -> None:
        """Have an alert as Prometheus would give it: that goes on for an hour, or is over."""
        now = time.time()
        starts, ends = (now - 60, now) if over else (now, now + 3600)
        times = {"startsAt": _format_time(starts), "endsAt": _format_time(ends)}
        alert = {"labels": labels, "annotations": {"summary": summary}, **times}
        self._post("/api/v2/alerts", json.dumps([alert]).encode())


def _format_time(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
