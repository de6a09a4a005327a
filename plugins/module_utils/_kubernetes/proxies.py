# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which proxy a connection goes through, and what never is printed of a URL.

Private to lowtide.ops: do not import from other collections.

The rules of NO_PROXY are those of kubectl (Go's ``golang.org/x/net/http/httpproxy``).
"""

from __future__ import annotations

import ipaddress
import re
import typing as t
from urllib.parse import SplitResult, unquote, urlsplit

from .._common.errors import Refusal

DEFAULT_PORTS = {"http": 80, "https": 443, "socks5": 1080, "socks5h": 1080}


class ProxyUrl(t.NamedTuple):
    """A proxy: ``scheme`` is http, https, socks5 (we resolve names) or socks5h (the proxy does)."""

    scheme: str
    host: str
    port: int
    username: str = ""
    password: str = ""

    def __repr__(self) -> str:
        return f"ProxyUrl({self.title})"

    @property
    def title(self) -> str:
        """Its URL for messages, without credentials."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"


def hide_userinfo(url: str) -> str:
    """Return a URL, or what somebody took for one, without the user name and password that may be in it."""
    return re.sub(r"^([a-z][a-z0-9+.-]*://)?.*@", r"\1***@", url, flags=re.IGNORECASE | re.DOTALL)


def split_url(url: str, *, obj: str, example: str) -> SplitResult:
    """Return the parts of a URL that has a host and, if any, a port that is one.

    Raises Refusal, without showing credentials.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
        problem = "" if parts.hostname else "it is not a URL with a host"
        problem = "its port is 0" if port == 0 else problem
    except ValueError as error:
        problem = f"it is not a URL ({error})"
    if not problem and re.search(r"[^\x21-\x7e]", url):
        problem = "it holds blanks, control characters or letters outside ASCII"
    if problem:
        raise Refusal(obj=f"{obj} {hide_userinfo(url)!r}", problem=problem, next_step=f"Give a URL such as {example}")
    return parts


def parse_proxy(url: str, *, source: str) -> ProxyUrl:
    """Return the proxy of a URL; without a scheme it is an http proxy, as with curl and kubectl.

    ``source`` says where it came from. Raises Refusal for other schemes and for what is no URL.
    """
    text = url if "://" in url else f"http://{url}"
    parts = split_url(text, obj=f"proxy from {source}", example="http://10.0.0.1:3128")
    scheme = parts.scheme.lower()
    if scheme not in DEFAULT_PORTS:
        raise Refusal(
            obj=f"proxy from {source}",
            problem=f"its scheme is {scheme!r}",
            next_step=f"Name a proxy with one of the schemes {', '.join(DEFAULT_PORTS)}",
        )
    return ProxyUrl(
        scheme,
        parts.hostname or "",
        parts.port or DEFAULT_PORTS[scheme],
        unquote(parts.username or ""),
        unquote(parts.password or ""),
    )


def find_proxy(
    scheme: str, host: str, port: int, environ: t.Mapping[str, str], *, no_proxy: str | None = None
) -> ProxyUrl | None:
    """Return the proxy that the environment names for a server: HTTPS_PROXY or HTTP_PROXY by ``scheme``, and not NO_PROXY.

    Of two spellings the lower case one counts. ``no_proxy`` takes the place of the variable. Loopback never goes through
    a proxy. Raises Refusal when the variable holds no usable URL.
    """
    name, url = _read_variable(environ, f"{scheme}_proxy")
    if not url or is_loopback(host):
        return None
    exceptions = _read_variable(environ, "no_proxy")[1] if no_proxy is None else no_proxy
    if is_exempt(host, port, exceptions):
        return None
    return parse_proxy(url, source=f"the environment variable {name}")


def is_loopback(host: str) -> bool:
    """Return whether a host is this machine by name or address."""
    if host.lower().rstrip(".") == "localhost":
        return True
    address = _parse_address(host)
    return address is not None and address.is_loopback


def is_address(host: str) -> bool:
    """Return whether a host is an IP address rather than a name."""
    return _parse_address(host) is not None


def is_exempt(host: str, port: int, exceptions: str) -> bool:
    """Return whether NO_PROXY exempts a server.

    Entries are separated by commas (or blanks): ``*`` is everything, ``10.0.0.0/8`` a network, ``10.0.0.1`` an address,
    ``example.org`` this name and everything below it, ``.example.org`` and ``*.example.org`` only what is below it; each
    but the network may end in ``:port``.
    """
    address = _parse_address(host)
    name = host.lower().rstrip(".")
    return any(_matches(entry, name, port, address) for entry in re.split(r"[,\s]+", exceptions.strip()) if entry)


def _matches(entry: str, name: str, port: int, address: ipaddress.IPv4Address | ipaddress.IPv6Address | None) -> bool:
    entry = entry.lower()
    if "/" in entry:
        try:
            return address is not None and address in ipaddress.ip_network(entry, strict=False)
        except ValueError:
            return False  # no network; kubectl ignores it as well
    entry, own_port = _split_port(entry)
    own_address = _parse_address(entry)
    if own_port is not None and own_port != port:
        return False
    if entry == "*" or own_address is not None or address is not None:
        return entry == "*" or (own_address is not None and own_address == address)
    entry = entry.rstrip(".").removeprefix("*")
    if entry.startswith("."):
        return len(entry) > 1 and name.endswith(entry)
    return bool(entry) and (name == entry or name.endswith(f".{entry}"))


def _split_port(entry: str) -> tuple[str, int | None]:
    match = re.fullmatch(r"\[(.+)\](?::(\d+))?|([^:]+):(\d+)", entry)
    if match is None:
        return entry, None
    port = match[2] or match[4]
    return match[1] or match[3], int(port) if port else None


def _parse_address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        address = ipaddress.ip_address(text.strip("[]"))
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


def _read_variable(environ: t.Mapping[str, str], name: str) -> tuple[str, str]:
    """Return name and value of an environment variable in lower or upper case, in this order; empty when not set."""
    for spelling in (name, name.upper()):
        if environ.get(spelling):
            return spelling, environ[spelling].strip()
    return name, ""
