# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Connections: TLS that verifies, through every kind of proxy, with an end."""

from __future__ import annotations

import base64
import http.client
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.lowtide.ops.plugins.module_utils._common.retry import Deadline
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.access import ClusterAccess
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.certificates import Trust
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.client import Client
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.credentials import Credentials, StaticSource
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.errors import ApiError
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.files import PemSource
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.proxies import parse_proxy
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.resources import collection_path
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.transport import (
    DeadlineSocket,
    ProxyDenied,
    ProxyError,
    connect,
    describe_error,
    is_final,
)
from support.connect_proxy import ConnectProxy
from support.memory_kubernetes import MemoryServer

from .access_cases import make_certificate

PODS = collection_path("Pod", "n")
LOGIN = ("me", "canary-3fe9")
AT_ONCE = 15.0
"""Seconds: far below each deadline here, far above what a crowded machine needs for one answer."""


class Authority:
    """An authority, an intermediate one, and a certificate for 127.0.0.1 and api.test from each, made by openssl."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.root, self._root_key = make_certificate(folder, "root", "-noenc")
        self.intermediate, _key = self._issue("intermediate", "root", "basicConstraints=critical,CA:TRUE")
        self.server = self._issue("server", "intermediate", "subjectAltName=IP:127.0.0.1,DNS:api.test")
        self.expired = self._issue("expired", "root", "subjectAltName=IP:127.0.0.1", days=-1)
        self.client = self._issue("client", "root", "extendedKeyUsage=clientAuth")

    def _issue(self, name: str, issuer: str, extension: str, *, days: int = 1) -> tuple[str, str]:
        request, key, certificate = (str(self.folder / f"{name}{suffix}") for suffix in (".csr", ".key", ".crt"))
        extensions = self.folder / f"{name}.ext"
        extensions.write_text(extension, encoding="utf-8")
        new = ["openssl", "req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-noenc"]
        sign = ["openssl", "x509", "-req", "-days", str(days), "-in", request, "-out", certificate, "-CAcreateserial"]
        sign += ["-CA", str(self.folder / f"{issuer}.crt"), "-CAkey", str(self.folder / f"{issuer}.key")]
        for command in (
            [*new, "-subj", f"/CN={name}", "-keyout", key, "-out", request],
            [*sign, "-extfile", str(extensions)],
        ):
            subprocess.run(command, check=True, capture_output=True)
        return certificate, key

    def make_server_context(self, *, wants_client: bool = False) -> ssl.SSLContext:
        """For a server, with the intermediate certificate."""
        chain = self.folder / "chain.crt"
        chain.write_text(PemSource(self.server[0]).read() + PemSource(self.intermediate).read(), encoding="utf-8")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(chain, self.server[1])
        if wants_client:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(self.root)
        return context


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Certificates for all tests of this file."""
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def secure(authority: Authority) -> Iterator[MemoryServer]:
    """An API server with TLS."""
    with MemoryServer(tls=authority.make_server_context()) as server:
        yield server


def make_client(
    server: str, ca: str, *, proxy: str | None = None, seconds: float = 30, name: str | None = None, **more: Any
) -> Client:
    """A client that trusts ``ca``."""
    access = ClusterAccess(
        server=server,
        source="the test",
        trust=Trust(PemSource(ca)),
        proxy=parse_proxy(proxy, source="the test") if proxy else None,
        server_name=name,
        **more,
    )
    return Client(access, run_id="r", deadline=Deadline(seconds))


def read(client: Client) -> list[Any]:
    """One request, and one stream."""
    items = client.list(PODS, obj="pods").items
    stream = client.stream(PODS, obj="pods", params={"watch": "true"})
    threading.Timer(0.1, stream.close).start()
    assert list(stream) == []
    return items


# --- TLS ------------------------------------------------------------------------------------------------------------


def test_an_intermediate_authority_is_enough(secure: MemoryServer, authority: Authority) -> None:
    """As for kubectl; the root is enough too."""
    for ca in (authority.root, authority.intermediate):
        assert read(make_client(secure.url, ca)) == []


def test_a_certificate_that_is_not_trusted_is_an_error_at_once(
    secure: MemoryServer, authority: Authority, tmp_path: Path
) -> None:
    """Nothing is sent, and trying again would not help."""
    other, _key = make_certificate(tmp_path, "other")
    named = secure.url.replace("127.0.0.1", "localhost")
    for url, ca, problem in (
        (secure.url, other, "its certificate is not trusted: unable to get local issuer certificate"),
        (named, authority.root, "its certificate is not trusted: Hostname mismatch"),
    ):
        for name in ("get", "stream"):
            begun = time.monotonic()
            client = make_client(url, ca)
            with pytest.raises(ApiError, match=f"API server {url}: {problem}.*Set ca_cert"):
                client.get(PODS, obj="x") if name == "get" else client.stream(PODS, obj="x", params={})
            assert (time.monotonic() - begun < AT_ONCE, client.requests, secure.log) == (True, 0, [])


def test_the_name_in_the_certificate_may_be_another(secure: MemoryServer, authority: Authority) -> None:
    """tls-server-name."""
    url = secure.url.replace("127.0.0.1", "localhost")
    assert read(make_client(url, authority.root, name="api.test")) == []


def test_a_client_certificate_is_shown(authority: Authority) -> None:
    """Without it the server says no, at once."""
    with MemoryServer(tls=authority.make_server_context(wants_client=True)) as server:
        pair = Credentials(certificate=PemSource(authority.client[0]), key=PemSource(authority.client[1]))
        assert read(make_client(server.url, authority.root, identity=StaticSource(pair))) == []
        begun = time.monotonic()
        with pytest.raises(ApiError, match=r"it cannot be reached: .*certificate required"):
            make_client(server.url, authority.root).get(PODS, obj="x")
        assert time.monotonic() - begun < AT_ONCE


def test_a_server_without_tls_is_an_error_at_once(memory: MemoryServer, authority: Authority) -> None:
    """Its answer is no TLS."""
    client = make_client(memory.url.replace("http:", "https:"), authority.root)
    with pytest.raises(ApiError, match=r"it cannot be reached: .*SSL"):
        client.get(PODS, obj="x")
    assert client.requests == 0


def test_a_certificate_that_has_expired_is_refused(authority: Authority) -> None:
    """At once."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*authority.expired)
    with MemoryServer(tls=context) as server:
        client = make_client(server.url, authority.root)
        with pytest.raises(ApiError, match="its certificate is not trusted: certificate has expired"):
            client.get(PODS, obj="x")
        assert (client.requests, server.log) == (0, [])


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_an_old_version_of_tls_is_refused(authority: Authority, version: ssl.TLSVersion) -> None:
    """At once."""
    context = authority.make_server_context()
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = context.maximum_version = version
    with MemoryServer(tls=context) as server:
        client = make_client(server.url, authority.root)
        with pytest.raises(ApiError, match=r"it cannot be reached: .*SSL"):
            client.get(PODS, obj="x")
        assert client.requests == 0


# --- proxies --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("login", [None, LOGIN])
@pytest.mark.parametrize("kind", ["http", "https", "socks5", "socks5h"])
def test_through_a_proxy(
    secure: MemoryServer,
    authority: Authority,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    login: tuple[str, str] | None,
) -> None:
    """TLS with the server inside, also inside the proxy's own TLS; the proxy's password is for the proxy only."""
    monkeypatch.setenv("SSL_CERT_FILE", authority.root)
    tls = authority.make_server_context() if kind == "https" else None
    with ConnectProxy("socks5" if "socks" in kind else "http", tls=tls, login=login, chunk=7) as proxy:
        url = proxy.url.replace("socks5", kind)
        client = make_client(secure.url, authority.root, proxy=url)
        assert read(client) == []
        port = client.access.address[1]
        assert proxy.targets == [f"{'1:' if 'socks' in kind else ''}127.0.0.1:{port}"] * 2
        assert not any("proxy-authorization" in request.headers for request in secure.log)
        assert client.access.secrets() == ([LOGIN[1]] if login else [])


@pytest.mark.parametrize("kind", ["http", "https", "socks5"])
def test_large_bodies_through_a_proxy(
    secure: MemoryServer, authority: Authority, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """In both directions."""
    monkeypatch.setenv("SSL_CERT_FILE", authority.root)
    tls = authority.make_server_context() if kind == "https" else None
    with ConnectProxy("socks5" if kind == "socks5" else "http", tls=tls) as proxy:
        client = make_client(secure.url, authority.root, proxy=proxy.url)
        body = {"metadata": {"name": "p", "annotations": {"a": "x" * 300_000}}}
        made = client.create(PODS, body, obj="Pod n/p")
        assert made["metadata"]["annotations"] == body["metadata"]["annotations"]


def test_names_are_resolved_by_the_proxy(secure: MemoryServer, authority: Authority) -> None:
    """As kubectl does it: here they may not be known."""
    port = secure.url.rpartition(":")[2]
    with ConnectProxy("socks5") as proxy:
        assert read(make_client(f"https://api.test:{port}", authority.root, proxy=proxy.url)) == []
        assert proxy.targets[0] == f"3:api.test:{port}"


def test_a_name_is_asked_of_an_http_proxy(memory: MemoryServer) -> None:
    """And an IPv6 address in brackets."""
    for server, target in (("http://api.test:8001", "api.test:8001"), ("http://[fd00::1]", "[fd00::1]:80")):
        with ConnectProxy(answer=b"HTTP/1.1 403 Forbidden\r\n\r\n") as proxy:
            access = ClusterAccess(server=server, source="x", proxy=parse_proxy(proxy.url, source="x"))
            with pytest.raises(ApiError, match=r"403 Forbidden"):
                Client(access, run_id="r", deadline=Deadline(5)).get(PODS, obj="x")
            assert proxy.heads[0].split(b"\r\n")[:2] == [
                f"CONNECT {target} HTTP/1.1".encode(),
                f"Host: {target}".encode(),
            ]
    assert memory.log == []


@pytest.mark.parametrize(
    ("proxy", "problem"),
    [
        ({"answer": b"HTTP/1.1 403 Forbidden\r\n\r\n"}, "answered 'HTTP/1.1 403 Forbidden' to CONNECT 127.0.0.1:"),
        ({"answer": b"HTTP/1.1 405 No\r\n\r\n"}, "answered 'HTTP/1.1 405 No'"),
        ({"login": ("me", "other")}, "answered 'HTTP/1.1 407 Proxy Authentication Required'"),
        ({"kind": "socks5", "login": ("me", "other")}, "does not accept its user name and password"),
        ({"kind": "socks5", "code": 2}, "did not connect to 127.0.0.1:.*: connection not allowed"),
    ],
)
def test_a_proxy_that_says_no_is_an_error_at_once(memory: MemoryServer, proxy: dict[str, Any], problem: str) -> None:
    """With its words, and without the password."""
    with ConnectProxy(**proxy) as server:
        url = server.url.replace("other", LOGIN[1])
        access = ClusterAccess(server=memory.url, source="x", proxy=parse_proxy(url, source="x"))
        client = Client(access, run_id="r", deadline=Deadline(30))
        begun = time.monotonic()
        with pytest.raises(
            ApiError, match=f"cannot be reached through the proxy {server.kind}://127.0.0.1:.*{problem}"
        ) as caught:
            client.get(PODS, obj="x")
        assert time.monotonic() - begun < AT_ONCE
        assert LOGIN[1] not in str(caught.value)
        assert (client.requests, memory.log) == (0, [])


@pytest.mark.parametrize(
    "proxy",
    [
        {"answer": b"HTTP/1.1 502 Bad Gateway\r\n\r\n"},
        {"answer": b"HTTP/1.1 504 x\r\n\r\n"},
        {"answer": b"nonsense\r\n\r\n"},
        {"answer": b"no end"},
        {"answer": b"x" * 20000},
        {"kind": "socks5", "code": 5},
        {"kind": "socks5", "code": 99},
    ],
)
def test_a_proxy_that_cannot_now_is_tried_again(memory: MemoryServer, proxy: dict[str, Any]) -> None:
    """Until the deadline."""
    with ConnectProxy(**proxy) as server:
        access = ClusterAccess(server=memory.url, source="x", proxy=parse_proxy(server.url, source="x"))
        with pytest.raises(ApiError, match="through the proxy"):
            Client(access, run_id="r", deadline=Deadline(0.6)).get(PODS, obj="x")
        assert len(server.targets) > 1


def test_the_certificate_of_a_proxy_is_verified(memory: MemoryServer, authority: Authority) -> None:
    """By the system's authorities; its password is not sent otherwise."""
    with ConnectProxy(tls=authority.make_server_context(), login=LOGIN) as proxy:
        access = ClusterAccess(server=memory.url, source="x", proxy=parse_proxy(proxy.url, source="x"))
        begun = time.monotonic()
        with pytest.raises(ApiError, match="certificate is not trusted"):
            Client(access, run_id="r", deadline=Deadline(30)).get(PODS, obj="x")
        assert (time.monotonic() - begun < AT_ONCE, proxy.heads, memory.log) == (True, [], [])


def test_a_proxy_that_never_stops_talking_is_left() -> None:
    """Its answer has no end."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        connections = []

        def talk() -> None:
            connections.append(listener.accept()[0])
            connections[0].sendall(b"x" * 20000)

        threading.Thread(target=talk, daemon=True).start()
        begun = time.monotonic()
        with pytest.raises(ProxyError, match="gave no HTTP answer"):
            open_through(parse_proxy(f"http://127.0.0.1:{listener.getsockname()[1]}", source="x"))
        assert time.monotonic() - begun < AT_ONCE
        connections[0].close()


def test_a_socks_proxy_that_asks_for_a_password_we_do_not_have(memory: MemoryServer) -> None:
    """Or one that is none."""
    with ConnectProxy("socks5", login=LOGIN) as server:
        proxy = parse_proxy(server.url.replace(":".join(LOGIN) + "@", ""), source="x")
        client = Client(ClusterAccess(server=memory.url, source="x", proxy=proxy), run_id="r", deadline=Deadline(5))
        with pytest.raises(ApiError, match="wants another kind of authentication"):
            client.get(PODS, obj="x")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=lambda: listener.accept()[0].sendall(b"HTTP/1.1 400 Bad Request"), daemon=True).start()
        proxy = parse_proxy(f"socks5://127.0.0.1:{listener.getsockname()[1]}", source="x")
        client = Client(ClusterAccess(server=memory.url, source="x", proxy=proxy), run_id="r", deadline=Deadline(5))
        with pytest.raises(ApiError, match=r"is no socks5 proxy"):
            client.get(PODS, obj="x")


def test_credentials_of_the_proxy_are_encoded() -> None:
    """As UTF-8."""
    with ConnectProxy(answer=b"HTTP/1.1 403 x\r\n\r\n") as server:
        address = f"127.0.0.1:{server.server_address[1]}"
        proxy = parse_proxy(f"http://m%C3%A9:p%3A%40@{address}", source="x")
        with pytest.raises(ProxyDenied):
            open_through(proxy)
        assert b"Proxy-Authorization: Basic " + base64.b64encode("mé:p:@".encode()) in server.heads[0]


def open_through(proxy: Any) -> DeadlineSocket:
    """A connection to nowhere in particular."""
    return connect(("10.0.0.1", 1), proxy=proxy, tls=None, server_name="x", seconds=30, limit=lambda: 30.0)


# --- ends -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "final"),
    [
        (ssl.SSLCertVerificationError("x"), True),
        (ssl.SSLError(1, "WRONG_VERSION_NUMBER"), True),
        (ssl.SSLEOFError(8, "EOF"), False),
        (ssl.SSLZeroReturnError(6, "closed"), False),
        (ssl.SSLSyscallError(5, "x"), False),
        (socket.gaierror(socket.EAI_NONAME, "Name or service not known"), True),
        (socket.gaierror(socket.EAI_AGAIN, "Temporary failure"), False),
        (ConnectionRefusedError(), False),
        (ConnectionResetError(), False),
        (TimeoutError(), False),
        (http.client.RemoteDisconnected("x"), False),
        (http.client.IncompleteRead(b""), False),
        (http.client.InvalidURL("x"), True),
        (ProxyDenied(), True),
        (ProxyError(), False),
    ],
)
def test_what_cannot_be_mended_by_trying_again(error: BaseException, final: bool) -> None:
    """Everything else is tried until the deadline."""
    assert is_final(error) is final


def test_errors_have_words() -> None:
    """Also those without."""
    assert describe_error(ConnectionError("x")) == "x"
    assert describe_error(ConnectionError()) == "ConnectionError"
    assert describe_error(TimeoutError("timed out")) == "there was no answer in time"


def test_connecting_has_an_end() -> None:
    """To a server that takes no connections, and to a proxy that never answers."""
    with socket.create_server(("127.0.0.1", 0), backlog=1) as silent:
        port = silent.getsockname()[1]
        begun = time.monotonic()
        with pytest.raises(TimeoutError):
            connect(
                ("127.0.0.1", port),
                proxy=None,
                tls=ssl.create_default_context(),
                server_name="x",
                seconds=0.3,
                limit=lambda: 0.3,
            )
        for scheme in ("http", "socks5", "https"):
            with pytest.raises(TimeoutError):
                connect(
                    ("10.0.0.1", 1),
                    proxy=parse_proxy(f"{scheme}://127.0.0.1:{port}", source="x"),
                    tls=None,
                    server_name="x",
                    seconds=0.3,
                    limit=lambda: 0.3,
                )
        assert time.monotonic() - begun < AT_ONCE


def test_every_address_of_a_host_is_tried(memory: MemoryServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A host whose first address does not answer is reached by its second one, within the time."""
    port = int(memory.url.rpartition(":")[2])

    def resolve(*_arguments: Any, **_options: Any) -> list[Any]:
        good = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 1)), good]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    connect(("api.test", port), proxy=None, tls=None, server_name="x", seconds=3, limit=lambda: 1.0).close()


def test_an_address_that_does_not_answer_leaves_time_for_the_next(
    memory: MemoryServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each has its share."""
    port = int(memory.url.rpartition(":")[2])
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
        waiting = []
        for _number in range(3):  # what is in the backlog, and one that is not let in any more
            sock = socket.socket()
            sock.setblocking(False)
            sock.connect_ex(full.getsockname())
            waiting.append(sock)
        addresses = (full.getsockname(), ("127.0.0.1", port))
        places = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", address) for address in addresses]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_arguments, **_options: places)
        begun = time.monotonic()
        connect(("api.test", port), proxy=None, tls=None, server_name="x", seconds=3.0, limit=lambda: 3.0).close()
        assert time.monotonic() - begun > 1.2
        for sock in waiting:
            sock.close()


def test_a_resolver_that_hangs_holds_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """The system's knows no deadline."""
    release = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_arguments, **_options: release.wait(60) and [])
    begun = time.monotonic()
    with pytest.raises(TimeoutError, match=r"the name api\.test was not resolved in time"):
        connect(("api.test", 1), proxy=None, tls=None, server_name="x", seconds=0.2, limit=lambda: 1.0)
    assert time.monotonic() - begun < AT_ONCE
    release.set()


def test_a_name_that_is_none() -> None:
    """Not even for the resolver."""
    with pytest.raises(socket.gaierror):
        connect(("a" * 70 + ".test", 1), proxy=None, tls=None, server_name="x", seconds=2, limit=lambda: 1.0)


def test_a_socket_ends_when_its_readers_do() -> None:
    """As http.client closes the connection before the last answer is read."""
    ours, theirs = socket.socketpair()
    sock = DeadlineSocket(ours, lambda: 1.0)
    reader = sock.makefile("rb")
    theirs.sendall(b"late")
    sock.close()
    assert reader.read(4) == b"late"
    assert ours.fileno() != -1
    reader.close()
    assert ours.fileno() == -1
    theirs.close()


def test_a_socket_obeys_its_limit() -> None:
    """Before each packet."""
    ours, theirs = socket.socketpair()
    limits = [0.05, 0.0]
    sock = DeadlineSocket(ours, lambda: limits.pop(0))
    with pytest.raises(TimeoutError):
        sock.receive_into(bytearray(1))
    with pytest.raises(TimeoutError, match="the deadline has passed"):
        sock.sendall(b"x")
    assert not sock.is_dropped()
    theirs.close()
    assert sock.is_dropped()
    sock.close()
