# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Sockets to an API server: through proxies, and with a limit for the whole of an answer rather than for each packet.

Private to lowtide.ops: do not import from other collections.

The handshakes with proxies are written out here: the standard library has the one for http proxies only, and a package
for the two messages of a socks5 proxy (RFC 1928, RFC 1929) would be one more thing to install on every host.
"""

from __future__ import annotations

import base64
import functools
import http.client
import io
import ipaddress
import select
import socket
import ssl
import struct
import threading
import time
import typing as t

from .proxies import ProxyUrl, is_address

LOST = (OSError, http.client.HTTPException)
"""What a connection fails with."""

BUFFER = 65536  # bytes; lists of thousands of objects are read in fewer calls than with the usual 8192

_SOCKS_ERRORS = {
    1: "general failure",
    2: "connection not allowed",
    3: "network unreachable",
    4: "host unreachable",
    5: "connection refused",
    6: "time to live expired",
    7: "command not supported",
    8: "address type not supported",
}


class ProxyError(ConnectionError):
    """The proxy did not connect us."""


class ProxyDenied(ProxyError):
    """The proxy does not accept us, now or later."""


class _Connected(t.Protocol):
    """What is needed of a socket, plain or TLS."""

    def recv_into(self, buffer: t.Any) -> int: ...
    def sendall(self, data: bytes) -> None: ...
    def settimeout(self, seconds: float) -> None: ...
    def shutdown(self, how: int) -> None: ...
    def fileno(self) -> int: ...
    def close(self) -> None: ...


class DeadlineSocket:
    """A connected socket for ``http.client`` whose every operation ends when ``limit`` says so.

    ``limit`` returns the seconds that the next packet may take, and is asked before each: a server that sends a byte
    now and then cannot hold us longer than the deadline. At 0 or below, TimeoutError is raised.
    """

    def __init__(self, sock: _Connected, limit: t.Callable[[], float]) -> None:
        self.limit = limit
        self._sock = sock
        self._readers = 0
        self._closed = False

    def sendall(self, data: bytes) -> None:
        """Send everything."""
        self._arm()
        self._sock.sendall(data)

    def receive_into(self, buffer: t.Any) -> int:
        """Receive what is there; 0 at the end."""
        self._arm()
        return self._sock.recv_into(buffer)

    def makefile(self, _mode: str) -> io.BufferedReader:
        """Return a reader, for the response; it holds the socket open."""
        self._readers += 1
        return io.BufferedReader(_Reader(self), BUFFER)

    def release_reader(self) -> None:
        """Close the socket if that is due and this was its last reader."""
        self._readers -= 1
        if self._closed and self._readers <= 0:
            self._sock.close()

    def is_dropped(self) -> bool:
        """Return whether the server has closed an idle connection, or sent what nobody has asked for."""
        poll = select.poll()
        poll.register(self._sock.fileno(), select.POLLIN)
        return bool(poll.poll(0))

    def interrupt(self) -> None:
        """Wake up whoever reads; from any thread."""
        try:
            self._sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            return  # the peer was faster; the reader has been woken already

    def close(self) -> None:
        """Close it, once its readers are closed too."""
        self._closed = True
        if self._readers <= 0:
            self._sock.close()

    def _arm(self) -> None:
        seconds = self.limit()
        if seconds <= 0:
            raise TimeoutError("the deadline has passed")
        self._sock.settimeout(seconds)


class _Reader(io.RawIOBase):
    def __init__(self, sock: DeadlineSocket) -> None:
        super().__init__()
        self._sock = sock

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: t.Any) -> int:
        return self._sock.receive_into(buffer)

    def close(self) -> None:
        if not self.closed:
            self._sock.release_reader()
        super().close()


class TlsInTls:
    """TLS to the server inside TLS to a proxy; ``ssl`` itself can wrap a plain socket only."""

    def __init__(self, outer: ssl.SSLSocket, context: ssl.SSLContext, server_name: str) -> None:
        self._outer = outer
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=server_name)
        self._run(self._tls.do_handshake)

    def recv_into(self, buffer: t.Any) -> int:
        """Receive what is there; 0 at the end."""
        try:
            return t.cast("int", self._run(lambda: self._tls.read(len(buffer), buffer)))
        except ssl.SSLZeroReturnError:
            return 0

    def sendall(self, data: bytes) -> None:
        """Send everything."""
        sent = 0
        while sent < len(data):
            rest = memoryview(data)[sent:]
            sent += self._run(functools.partial(self._tls.write, rest))

    def settimeout(self, seconds: float) -> None:
        """Limit each packet."""
        self._outer.settimeout(seconds)

    def shutdown(self, how: int) -> None:
        """Wake up whoever reads."""
        self._outer.shutdown(how)

    def fileno(self) -> int:
        """Return the descriptor below it all."""
        return self._outer.fileno()

    def close(self) -> None:
        """Close it."""
        self._outer.close()

    def _run(self, action: t.Callable[[], t.Any]) -> t.Any:
        while True:
            try:
                result = action()
            except ssl.SSLWantReadError:
                self._flush()
                data = self._outer.recv(65536)
                if data:
                    self._incoming.write(data)
                else:
                    self._incoming.write_eof()
                continue
            self._flush()
            return result

    def _flush(self) -> None:
        data = self._outgoing.read()
        if data:
            self._outer.sendall(data)


def is_final(error: BaseException) -> bool:
    """Return whether trying again cannot help: a certificate, TLS itself, a name that does not exist, a proxy's no."""
    if isinstance(error, ssl.SSLError):
        return not isinstance(error, ssl.SSLEOFError | ssl.SSLZeroReturnError | ssl.SSLSyscallError)
    if isinstance(error, socket.gaierror):
        return error.errno in (socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME))
    return isinstance(error, ProxyDenied | http.client.InvalidURL)


def describe_error(error: BaseException) -> str:
    """Return what an exception says, its name when it says nothing."""
    if isinstance(error, TimeoutError):
        return "there was no answer in time"
    return str(error) or type(error).__name__


def connect(
    address: tuple[str, int],
    *,
    proxy: ProxyUrl | None,
    tls: ssl.SSLContext | None,
    server_name: str,
    seconds: float,
    limit: t.Callable[[], float],
) -> DeadlineSocket:
    """Connect to a server within ``seconds``, through a proxy if there is one, with TLS if there is a context.

    Raises OSError, of which ProxyError and ssl.SSLError are some.
    """
    end = time.monotonic() + seconds
    sock = open_socket(address, proxy, end)
    try:
        sock.settimeout(_left(end))
        if tls is None:
            return DeadlineSocket(sock, limit)
        if isinstance(sock, ssl.SSLSocket):
            return DeadlineSocket(TlsInTls(sock, tls, server_name), limit)
        return DeadlineSocket(tls.wrap_socket(sock, server_hostname=server_name), limit)
    except BaseException:
        sock.close()
        raise


def open_socket(address: tuple[str, int], proxy: ProxyUrl | None, end: float) -> socket.socket:
    """Connect to a server, through a proxy if there is one, until the moment ``end``. Raises OSError and ProxyError."""
    sock = _connect_any((proxy.host, proxy.port) if proxy else address, end)
    try:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        if proxy is None:
            return sock
        sock.settimeout(_left(end))
        if proxy.scheme == "https":
            sock = _make_proxy_tls().wrap_socket(sock, server_hostname=proxy.host)
        if proxy.scheme.startswith("socks5"):
            _pass_socks(sock, proxy, address)
        else:
            _pass_http(sock, proxy, address)
    except BaseException:
        sock.close()
        raise
    return sock


def _connect_any(address: tuple[str, int], end: float) -> socket.socket:
    """Connect to the first address of a host that answers; each gets its share of the time that is left."""
    places = _resolve(address, end)
    last: OSError | None = None
    for number, (family, kind, protocol, _name, place) in enumerate(places):
        sock = socket.socket(family, kind, protocol)
        try:
            sock.settimeout(_left(end) / (len(places) - number))
            sock.connect(place)
        except OSError as error:
            sock.close()
            last = error
            continue
        return sock
    raise last or OSError(f"{address[0]} has no address")


def _resolve(address: tuple[str, int], end: float) -> list[t.Any]:
    """Look up a host's addresses; in a thread, because the resolver of the system knows no deadline."""
    host, port = address
    answers: list[t.Any] = []

    def look_up() -> None:
        try:
            answers.append(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        except (OSError, UnicodeError) as error:
            answers.append(error)

    if is_address(host):
        look_up()
    else:
        thread = threading.Thread(target=look_up, name="resolver", daemon=True)
        thread.start()
        thread.join(_left(end))
    if not answers:
        raise TimeoutError(f"the name {host} was not resolved in time")
    if isinstance(answers[0], UnicodeError):
        raise socket.gaierror(socket.EAI_NONAME, f"{host} is no host name") from answers[0]
    if isinstance(answers[0], OSError):
        raise answers[0]
    return t.cast("list[t.Any]", answers[0])


def _left(end: float) -> float:
    return max(0.01, end - time.monotonic())


def _make_proxy_tls() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_default_certs()
    return context


def _pass_http(sock: socket.socket, proxy: ProxyUrl, address: tuple[str, int]) -> None:
    """Ask an http proxy for a tunnel (RFC 9110, CONNECT)."""
    host, port = address
    target = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    lines = [f"CONNECT {target} HTTP/1.1", f"Host: {target}"]
    if proxy.username:
        pair = base64.b64encode(f"{proxy.username}:{proxy.password}".encode()).decode()
        lines.append(f"Proxy-Authorization: Basic {pair}")
    sock.sendall("\r\n".join([*lines, "", ""]).encode())
    answer = b""
    while not answer.endswith(b"\r\n\r\n"):
        letter = sock.recv(1)  # not a byte more than the answer: the rest belongs to the server
        answer += letter
        if not letter or len(answer) > 16384:
            raise ProxyError(f"the proxy {proxy.title} gave no HTTP answer")
    status = answer.split(b"\r\n", 1)[0].decode("latin-1")
    code = status.split()[1] if len(status.split()) > 1 else ""
    if not code.startswith("2"):
        kind = ProxyDenied if code in ("401", "403", "405", "407") else ProxyError
        raise kind(f"the proxy {proxy.title} answered {status!r} to CONNECT {target}")


def _pass_socks(sock: socket.socket, proxy: ProxyUrl, address: tuple[str, int]) -> None:
    """Ask a socks5 proxy for a connection; names are resolved there, as kubectl does it (RFC 1928, RFC 1929)."""
    sock.sendall(b"\x05\x02\x00\x02" if proxy.username else b"\x05\x01\x00")
    version, method = _receive(sock, 2, proxy)
    if version != 5:
        raise ProxyDenied(f"{proxy.title} is no socks5 proxy")
    if method == 2 and proxy.username:
        name, password = proxy.username.encode(), proxy.password.encode()
        sock.sendall(struct.pack("!BB", 1, len(name)) + name + struct.pack("!B", len(password)) + password)
        if _receive(sock, 2, proxy)[1] != 0:
            raise ProxyDenied(f"the proxy {proxy.title} does not accept its user name and password")
    elif method != 0:
        raise ProxyDenied(f"the proxy {proxy.title} wants another kind of authentication")
    host, port = address
    sock.sendall(b"\x05\x01\x00" + _pack_host(host) + struct.pack("!H", port))
    _version, answer, _reserved, kind = _receive(sock, 4, proxy)
    if answer:
        reason = _SOCKS_ERRORS.get(answer, f"error {answer}")
        denied = ProxyDenied if answer in (2, 7, 8) else ProxyError
        raise denied(f"the proxy {proxy.title} did not connect to {host}:{port}: {reason}")
    _receive(sock, {1: 4, 4: 16}.get(kind) or _receive(sock, 1, proxy)[0], proxy)
    _receive(sock, 2, proxy)


def _pack_host(host: str) -> bytes:
    try:
        packed = ipaddress.ip_address(host).packed
    except ValueError:
        name = host.encode("idna")
        return struct.pack("!BB", 3, len(name)) + name
    return struct.pack("!B", 1 if len(packed) == 4 else 4) + packed


def _receive(sock: socket.socket, count: int, proxy: ProxyUrl) -> bytes:
    data = b""
    while len(data) < count:
        part = sock.recv(count - len(data))
        if not part:
            raise ProxyError(f"the proxy {proxy.title} closed the connection")
        data += part
    return data
