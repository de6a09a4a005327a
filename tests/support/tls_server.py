# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Be a server whose certificate was signed by an intermediate authority, as servers of companies are."""

from __future__ import annotations

import json
import ssl
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

AUTHORITY = "basicConstraints=critical,CA:TRUE"


def make_chain(folder: Path) -> Path:
    """Make a root, an intermediate authority, a server's certificate for 127.0.0.1, and an authority of nobody's."""
    configuration = folder / "openssl.cnf"
    configuration.write_text("[req]\ndistinguished_name = name\n[name]\n", encoding="utf-8")

    def make(name: str, signer: str, *extensions: str) -> None:
        command = ["openssl", "req", "-x509", "-config", str(configuration), "-subj", f"/CN={name}", "-noenc"]
        command += ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-days", "2"]
        command += ["-keyout", str(folder / f"{name}.key"), "-out", str(folder / f"{name}.crt")]
        if signer:
            command += ["-CA", str(folder / f"{signer}.crt"), "-CAkey", str(folder / f"{signer}.key")]
        for extension in extensions:
            command += ["-addext", extension]
        subprocess.run(command, check=True, capture_output=True)

    make("root", "", AUTHORITY)
    make("stranger", "", AUTHORITY)
    make("intermediate", "root", AUTHORITY)
    make("server", "intermediate", "basicConstraints=critical,CA:FALSE", "subjectAltName=IP:127.0.0.1")
    return folder


class TlsServer:
    """Answers 404 over TLS, with the certificate ``server`` of a folder; entered, it is its URL."""

    def __init__(self, folder: Path) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(folder / "server.crt", folder / "server.key")
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)

    def __enter__(self) -> str:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return f"https://127.0.0.1:{self._server.server_address[1]}"

    def __exit__(self, *_error: object) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        """Know nothing."""
        body = json.dumps({"kind": "Status", "message": "nothing is here"}).encode()
        self.send_response(404)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
