# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Stand in for the API of AWX 24.6.1, as far as objects are kept with the modules of awx.awx. It is not AWX.

It is made of what a real one answered (``awx_data``): fields, types, defaults and limits of each kind are those of its
OPTIONS, an object has the keys of a recorded one, and what it refused is refused with the same status and words, which
``tests/unit/awx/test_stand_in.py`` compares request by request. No job runs here: a launch is answered and kept.

As a program it serves in the background until it is told to end, for the molecule scenario:

    python tests/support/awx_stand_in.py FILE    # FILE gets {"url": ..., "token": ...} once it listens

How many requests to write it has got it tells at ``/api/v2/stand_in/``, where AWX has nothing; DELETE there ends it.
"""

from __future__ import annotations

import base64
import http.client
import json
import os
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from support.awx_objects import AwxObjects, load
from support.awx_updates import TOKEN

USERNAME, PASSWORD = "admin", "of-the-stand-in"
REPOSITORY = "https://git.example.org/platform/operations.git"
MANUAL = "lowtide-ops"


class AwxStandIn(AwxObjects):
    """A context manager; ``url`` is its address, ``connection`` the role's ``awx_connection``."""

    def __init__(self, folders: dict[str, list[str]] | None = None) -> None:
        super().__init__(folders)
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _make_handler(self))
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self.connection = {"controller_host": self.url, "controller_oauthtoken": TOKEN}

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def serve(self) -> None:
        """Answer until it is told to end."""
        self._server.serve_forever(0.1)

    def end(self) -> None:
        """Have ``serve`` return, once what is asked now is answered."""
        threading.Thread(target=self._server.shutdown).start()


def _make_handler(awx: AwxStandIn) -> type[BaseHTTPRequestHandler]:
    basic = base64.b64encode(f"{USERNAME}:{PASSWORD}".encode()).decode()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def _serve(self) -> None:
            sent = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            body = json.loads(sent) if sent else None
            given = self.headers.get("Authorization") or ""
            is_known = given == f"Basic {basic}" or awx.is_token(given.removeprefix("Bearer "))
            if is_known or self.path == "/api/v2/ping/":
                status, answer = awx.ask(self.command, self.path, body)
            else:
                status, answer = http.client.UNAUTHORIZED, {"detail": "Authentication credentials were not provided."}
            content = b"" if answer is None else json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("X-API-Product-Name", "AWX")
            self.send_header("X-API-Product-Version", "24.6.1")
            self.send_header("Content-Type", "application/json")
            if status != http.client.NO_CONTENT:
                self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)
            if (self.command, self.path) == ("DELETE", "/api/v2/stand_in/"):
                awx.end()

        do_GET = do_POST = do_PATCH = do_PUT = do_DELETE = _serve  # noqa: N815  # names are http.server's

        def log_message(self, format: str, *args: Any) -> None:
            """Say nothing; what was sent is kept."""

    return Handler


def load_recorded_world(awx: AwxObjects) -> None:
    """Keep the objects that were there when requests were recorded, by their ids."""
    for entry in load("objects"):
        obj = {key: value for key, value in entry["object"].items() if key != "related"}
        kind = obj["url"].split("/")[3]
        awx.keep(kind, obj)
        if "survey_spec" in entry:
            awx.surveys[kind, obj["id"]] = entry["survey_spec"]
        for part in ("credentials", "instance_groups"):
            if part in entry:
                awx.associated[kind, obj["id"], part] = entry[part]
        if kind == "projects" and not obj["scm_type"]:
            awx.folders[obj["local_path"]] = entry["playbooks"]
        for node in entry.get("workflow_nodes", []):
            approval = node.pop("approval")
            if approval:
                awx.keep("workflow_approval_templates", approval)
            awx.keep("workflow_job_template_nodes", node)
    # Objects of which only the kind is known, since requests name them.
    kinds = {item["namespace"]: item["id"] for item in awx.kinds["credential_types"].values()}
    named = {2: kinds["galaxy_api_token"], 10: kinds["scm"], 11: kinds["registry"], 12: 31, 13: kinds["ssh"]}
    for number, kind in named.items():
        name = "Ansible Galaxy" if number == 2 else f"credential {number}"
        awx.keep("credentials", {"id": number, "name": name, "organization": 2, "credential_type": kind, "inputs": {}})
    awx.keep("inventories", {"id": 1, "name": "Demo Inventory", "organization": 1, "kind": ""})
    awx.associated["job_templates", 14, "credentials"] = [3, 9]


def make_collection_folders(names: list[str]) -> dict[str, list[str]]:
    """Return a repository and a manual folder with these playbooks, where the role expects them."""
    playbooks = [f"playbooks/{name}.yml" for name in names]
    return {REPOSITORY: playbooks, MANUAL: playbooks}


def main() -> None:
    """Serve in a process of its own, and say where."""
    root = Path(__file__).resolve().parents[2]
    awx = AwxStandIn(make_collection_folders([path.stem for path in sorted(root.glob("playbooks/*.yml"))]))
    if os.fork() == 0:
        os.setsid()
        nowhere = os.open(os.devnull, os.O_RDWR)
        for stream in range(3):
            os.dup2(nowhere, stream)
        Path(sys.argv[1]).write_text(json.dumps({"url": awx.url, "token": TOKEN}), encoding="utf-8")
        awx.serve()


if __name__ == "__main__":
    main()
