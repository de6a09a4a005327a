# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Which server, and who we are there."""

from __future__ import annotations

import base64
import socketserver
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import yaml

from ansible_collections.lowtide.ops.plugins.module_utils._common.errors import Refusal
from ansible_collections.lowtide.ops.plugins.module_utils._common.retry import Deadline
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.api import Api
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.config import Access, resolve


def kubeconfig(
    folder: Path, cluster: dict[str, Any] | None = None, *, name: str = "config", user: dict[str, Any] | None = None
) -> str:
    """A file with one context, ``demo``."""
    document = {
        "current-context": "demo",
        "contexts": [{"name": "demo", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [{"name": "c", "cluster": {"server": "https://10.0.0.1:6443", **(cluster or {})}}],
        "users": [{"name": "u", "user": {"token": "t0ken"} if user is None else user}],
    }
    path = folder / name
    path.write_text(yaml.safe_dump(document), encoding="utf-8")
    return str(path)


def test_options_override_the_kubeconfig(tmp_path: Path) -> None:
    """What is given explicitly counts."""
    path = kubeconfig(tmp_path, {"insecure-skip-tls-verify": True, "tls-server-name": "api"})
    access = resolve({"kubeconfig": path}, {})
    assert (access.token, access.verify, access.server_name, access.address) == (
        "t0ken",
        False,
        "api",
        ("10.0.0.1", 6443),
    )
    assert resolve({"kubeconfig": path, "api_key": "mine"}, {}).token in {"mine"}
    assert resolve({"kubeconfig": path, "validate_certs": True}, {}).verify is True
    assert resolve({"kubeconfig": path, "host": "https://h"}, {}).address == ("h", 443)
    assert resolve({"host": "https://h/k8s/cluster"}, {}).base_path == "/k8s/cluster"
    assert resolve({"host": "https://h"}, {}).verify is True


def test_environment_and_relative_paths(tmp_path: Path) -> None:
    """KUBECONFIG may hold several files; a certificate's path is relative to the file that names it."""
    second = kubeconfig(tmp_path, {"certificate-authority": "ca.crt"}, name="second")
    first = tmp_path / "first"
    first.write_text("current-context: demo\n", encoding="utf-8")
    access = resolve({}, {"KUBECONFIG": f"{first}:{second}:/nowhere"})
    assert access.ca.path == str(tmp_path / "ca.crt")
    assert "demo" in access.source


def test_inline_data_and_token_file(tmp_path: Path) -> None:
    """Inline data is decoded; a token file is read."""
    (tmp_path / "token").write_text("from-file\n", encoding="utf-8")
    data = base64.b64encode(b"-----BEGIN CERTIFICATE-----").decode()
    access = resolve(
        {"kubeconfig": kubeconfig(tmp_path, {"certificate-authority-data": data}, user={"tokenFile": "token"})}, {}
    )
    assert (access.token, access.ca.text) == ("from-file", "-----BEGIN CERTIFICATE-----")
    with pytest.raises(Refusal, match="ca_cert from context 'demo'"):
        access.tls()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "is not YAML"),
        ("[]", "holds a list"),
        ("", "holds a NoneType"),
        ("current-context: a", "no context 'a'; it has none"),
        ("a: 1", "no context ''"),
    ],
)
def test_broken_files_are_refused(tmp_path: Path, text: str, said: str) -> None:
    """With the path."""
    path = tmp_path / "config"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(Refusal, match=said) as caught:
        resolve({"kubeconfig": str(path)}, {})
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("server", ["", "ftp://h", "h:6443", "https://"])
def test_addresses_that_are_none_are_refused(tmp_path: Path, server: str) -> None:
    """Before anything is sent."""
    path = kubeconfig(tmp_path)
    text = Path(path).read_text(encoding="utf-8").replace("https://10.0.0.1:6443", server or "''")
    Path(path).write_text(text, encoding="utf-8")
    with pytest.raises(Refusal, match=r"not an http\(s\) URL"):
        resolve({"kubeconfig": path}, {})


def test_nothing_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The refusal names the options."""
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(Refusal, match="Set kubeconfig"):
        resolve({}, {})


def test_exec_plugin_credentials_come_through_the_library(tmp_path: Path) -> None:
    """A real plugin: a program that prints an ExecCredential."""
    plugin = tmp_path / "plugin"
    status = (
        '{"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": {"token": "issued"}}'
    )
    plugin.write_text(f"#!{sys.executable}\nprint('{status}')\n", encoding="utf-8")
    plugin.chmod(0o755)
    user = {
        "exec": {"apiVersion": "client.authentication.k8s.io/v1", "command": str(plugin), "interactiveMode": "Never"}
    }
    assert resolve({"kubeconfig": kubeconfig(tmp_path, user=user)}, {}).token in {"issued"}
    plugin.write_text(f"#!{sys.executable}\nraise SystemExit(1)\n", encoding="utf-8")
    with pytest.raises(Refusal, match="gave no credentials"):
        resolve({"kubeconfig": kubeconfig(tmp_path, user=user)}, {})


class Tunnel(socketserver.StreamRequestHandler):
    """Fault-free stand-in for an HTTP proxy: notes a CONNECT, then answers the request inside the tunnel itself."""

    def handle(self) -> None:
        """One tunnel, one request."""
        seen: list[str] = self.server.seen  # type: ignore[attr-defined]
        for answer in (
            b"HTTP/1.1 200 Connection established\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: 13\r\n\r\n" + b'{"items": []}',
        ):
            seen.append(self.rfile.readline().decode().strip())
            while (line := self.rfile.readline()) not in (b"\r\n", b""):
                seen.append(line.decode().strip())
            self.wfile.write(answer)


def test_proxy_url_is_a_tunnel() -> None:
    """Requests go through CONNECT; the proxy's password goes to the proxy only; other schemes are refused."""
    with socketserver.TCPServer(("127.0.0.1", 0), Tunnel) as server:
        server.seen = []  # type: ignore[attr-defined]
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        proxy = f"http://me:s3cret@127.0.0.1:{server.server_address[1]}"
        api = Api(Access(server="http://10.0.0.1:8001", source="test", proxy=proxy), run_id="r", deadline=Deadline(10))
        assert api.get("/api/v1/nodes", obj="nodes") == {"items": []}
        api.close()
        thread.join()
        seen: list[str] = server.seen  # type: ignore[attr-defined]
    assert seen[0].startswith("CONNECT 10.0.0.1:8001 HTTP/1.")
    assert "Proxy-Authorization: Basic " + base64.b64encode(b"me:s3cret").decode() in seen
    inside = seen[seen.index("GET /api/v1/nodes HTTP/1.1") :]
    assert not any(line.startswith("Proxy-Authorization") for line in inside)
    with pytest.raises(Refusal, match="only http proxies"):
        Api(
            Access(server="http://10.0.0.1", source="test", proxy="socks5://h:1"), run_id="r", deadline=Deadline(10)
        ).get("/", obj="x")
