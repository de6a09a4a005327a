# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Users whose tokens an OIDC provider issues: the library refreshes them, and only from a provider that is verified."""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import kubernetes
import pytest

from ansible_collections.lowtide.ops.plugins.module_utils._common.errors import Refusal
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.access import ClusterAccess

from .access_cases import make_certificate, read_authorization, resolve, write_kubeconfig
from .test_transport import Authority

CANARY = "canary-3fe9"


def make_token(seconds: float) -> str:
    """A token that ends in so many seconds, unsigned: only the API server looks at the signature."""
    parts = ({"alg": "none"}, {"exp": int(time.time() + seconds)}, {"signature": "x"})
    return ".".join(base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts)


class Provider(BaseHTTPRequestHandler):
    """An identity provider: its configuration, and tokens for a refresh token."""

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        """The configuration."""
        self._answer({"token_endpoint": f"https://{self.headers['Host']}/token"})

    def do_POST(self) -> None:
        """A new token."""
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        self.server.bodies.append(body)  # type: ignore[attr-defined]
        self._answer(
            {"access_token": "a", "token_type": "bearer", "id_token": make_token(900), "refresh_token": "next"}
        )

    def _answer(self, document: dict[str, Any]) -> None:
        body = json.dumps(document).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def provider(tmp_path: Path) -> Iterator[tuple[ThreadingHTTPServer, Authority]]:
    """A provider with TLS, and the authority of its certificate."""
    authority = Authority(tmp_path)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Provider)
    server.bodies = []  # type: ignore[attr-defined]
    server.socket = authority.make_server_context().wrap_socket(
        server.socket, server_side=True, do_handshake_on_connect=False
    )
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield server, authority
    server.shutdown()
    server.server_close()


def resolve_oidc(folder: Path, **config: str) -> ClusterAccess:
    """The access of a user with an OIDC provider."""
    values = {"client-id": "id", "client-secret": CANARY, "refresh-token": "first", **config}
    user = {"auth-provider": {"name": "oidc", "config": values}}
    return resolve(folder, {"kubeconfig": write_kubeconfig(folder, user=user)})


def test_a_token_that_has_not_ended_is_used(tmp_path: Path) -> None:
    """Without asking the provider."""
    token = make_token(900)
    access = resolve_oidc(tmp_path, **{"id-token": token, "idp-issuer-url": "https://no.such.host.invalid"})
    assert (read_authorization(access), access.can_renew, access.warnings) == (f"Bearer {token}", True, [])
    assert access.secrets() == [token]


def test_a_token_that_has_ended_is_refreshed(
    tmp_path: Path, provider: tuple[ThreadingHTTPServer, Authority], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The provider is verified by the system's authorities; that the kubeconfig's refresh token is used up is said."""
    server, authority = provider
    monkeypatch.setenv("SSL_CERT_FILE", authority.root)
    old = make_token(-900)
    url = f"https://127.0.0.1:{server.server_address[1]}"
    access = resolve_oidc(tmp_path, **{"id-token": old, "idp-issuer-url": url})
    header = read_authorization(access)
    assert header.startswith("Bearer ey")
    assert header != f"Bearer {old}"
    assert "refresh_token=first" in server.bodies[0]  # type: ignore[attr-defined]
    assert len(access.warnings) == 1
    assert "has issued another refresh token for user 'u' of kubeconfig" in access.warnings[0]


def test_a_library_that_verifies_no_provider_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kubernetes 24.2 sent refresh token and secret to whoever answered, so it is not asked."""
    monkeypatch.setattr(kubernetes, "__version__", "24.2.0")
    access = resolve_oidc(tmp_path, **{"id-token": make_token(-900), "idp-issuer-url": "https://127.0.0.1:9"})
    with pytest.raises(Refusal, match=r"its version is 24\.2\.0, and 25\.3 is the oldest that verifies"):
        access.credentials()
    monkeypatch.setattr(kubernetes, "__version__", "25.3.0")
    with pytest.raises(Refusal, match="gave no credentials"):
        access.credentials()


def test_a_provider_that_is_not_trusted_gets_nothing(
    tmp_path: Path, provider: tuple[ThreadingHTTPServer, Authority], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither the refresh token nor the secret; the library alone would send both without looking."""
    server, authority = provider
    other, _key = make_certificate(tmp_path, "other")
    url = f"https://127.0.0.1:{server.server_address[1]}"
    monkeypatch.setenv("SSL_CERT_FILE", other)
    config = {"id-token": make_token(-900), "idp-issuer-url": url}
    access = resolve_oidc(tmp_path, **config)
    with pytest.raises(
        Refusal, match=r"its credential plugin gave no credentials: .*certificate verify failed"
    ) as caught:
        access.credentials()
    assert CANARY not in str(caught.value)
    assert server.bodies == []  # type: ignore[attr-defined]
    access = resolve_oidc(tmp_path, **config, **{"idp-certificate-authority": authority.root})
    assert read_authorization(access).startswith("Bearer ey")


@pytest.mark.parametrize("token", ["no-jwt", "a=b.c.d"])
def test_a_token_that_is_none(tmp_path: Path, token: str) -> None:
    """The library says nothing of it."""
    access = resolve_oidc(tmp_path, **{"id-token": token, "idp-issuer-url": "https://x"})
    with pytest.raises(Refusal, match="gave no credentials: it ended without any"):
        access.credentials()


def test_a_provider_without_settings(tmp_path: Path) -> None:
    """What the library misses is named."""
    user = {"auth-provider": {"name": "oidc"}}
    access = resolve(tmp_path, {"kubeconfig": write_kubeconfig(tmp_path, user=user)})
    with pytest.raises(Refusal, match="Expected key id-token"):
        access.credentials()
