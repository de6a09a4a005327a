# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Which proxy, which exceptions, and what is never printed."""

from __future__ import annotations

import pytest

from ansible_collections.lowtide.ops.plugins.module_utils._common.errors import Refusal
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.proxies import (
    ProxyUrl,
    find_proxy,
    hide_userinfo,
    is_address,
    is_exempt,
    is_loopback,
    parse_proxy,
    split_url,
)

PROXY = {"HTTPS_PROXY": "http://10.0.0.9:3128"}


@pytest.mark.parametrize(
    ("host", "port", "exceptions"),
    [
        ("10.1.2.3", 6443, "*"),
        ("10.1.2.3", 6443, "*:6443"),
        ("api.example.org", 443, "x, *"),
        ("10.1.2.3", 6443, "10.0.0.0/8"),
        ("10.1.2.3", 6443, "10.1.2.99/24"),
        ("10.1.2.3", 6443, "other,10.1.2.3"),
        ("10.1.2.3", 6443, "10.1.2.3:6443"),
        ("fd00::1", 6443, "fd00::/8"),
        ("fd00::1", 6443, "fd00::1"),
        ("fd00::1", 6443, "[fd00::1]"),
        ("fd00::1", 6443, "[fd00::1]:6443"),
        ("::ffff:10.1.2.3", 6443, "10.0.0.0/8"),
        ("api.example.org", 443, "example.org"),
        ("api.example.org", 443, "api.example.org"),
        ("api.example.org", 443, ".example.org"),
        ("api.example.org", 443, "*.example.org"),
        ("API.Example.ORG", 443, "Example.org"),
        ("api.example.org.", 443, "example.org"),
        ("api.example.org", 443, "example.org."),
        ("api.example.org", 443, "example.org:443"),
        ("api.example.org", 443, " a  example.org\tb"),
    ],
)
def test_exempt(host: str, port: int, exceptions: str) -> None:
    """By everything, network, address, name, and everything below a name."""
    assert is_exempt(host, port, exceptions)


@pytest.mark.parametrize(
    ("host", "port", "exceptions"),
    [
        ("10.1.2.3", 6443, ""),
        ("10.1.2.3", 6443, " , "),
        ("10.1.2.3", 6443, "*:443"),
        ("10.1.2.3", 6443, "11.0.0.0/8"),
        ("10.1.2.3", 6443, "10.0.0.0/99"),
        ("10.1.2.3", 6443, "10.1.2.4"),
        ("10.1.2.3", 6443, "10.1.2.3:443"),
        ("10.1.2.3", 6443, "2.3"),
        ("10.1.2.3", 6443, ".3"),
        ("fd00::1", 6443, "[fd00::1]:443"),
        ("fd00::1", 6443, "fd00::2"),
        ("api.example.org", 443, "10.0.0.0/8"),
        ("api.example.org", 443, "10.1.2.3"),
        ("api.example.org", 443, "ample.org"),
        ("api.example.org", 443, "example.org:6443"),
        ("api.example.org", 443, "www.api.example.org"),
        ("api.example.org", 443, "."),
        ("example.org", 443, ".example.org"),
        ("example.org", 443, "*.example.org"),
    ],
)
def test_not_exempt(host: str, port: int, exceptions: str) -> None:
    """Another port, address or name; a dot in front means only what is below."""
    assert not is_exempt(host, port, exceptions)


@pytest.mark.parametrize(
    ("url", "proxy"),
    [
        ("http://h:3128", ProxyUrl("http", "h", 3128)),
        ("h:3128", ProxyUrl("http", "h", 3128)),
        ("HTTP://h", ProxyUrl("http", "h", 80)),
        ("https://h", ProxyUrl("https", "h", 443)),
        ("socks5://h", ProxyUrl("socks5", "h", 1080)),
        ("socks5h://h:9", ProxyUrl("socks5h", "h", 9)),
        ("http://u%40x:p%3Aw@[fd00::1]:8", ProxyUrl("http", "fd00::1", 8, "u@x", "p:w")),
    ],
)
def test_proxy_url(url: str, proxy: ProxyUrl) -> None:
    """With the default port of its scheme and decoded credentials."""
    assert parse_proxy(url, source="here") == proxy


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("ftp://u:canary@h", "scheme is 'ftp'"),
        ("http://u:canary@", "not a URL with a host"),
        ("http://u:canary@h:x", "not a URL"),
        ("http://u:canary@h:0", "port is 0"),
        ("http://u:canary@[fd00::1", "not a URL"),
        ("http://u:can\nary@h", "control characters"),
    ],
)
def test_proxy_url_that_is_none(url: str, problem: str) -> None:
    """The message says where it came from, and no password."""
    with pytest.raises(Refusal, match=problem) as caught:
        parse_proxy(url, source="the option proxy")
    assert "the option proxy" in str(caught.value)
    assert "canary" not in str(caught.value)
    assert "ary" not in str(caught.value)


def test_title_has_no_credentials() -> None:
    """It is for messages."""
    assert parse_proxy("http://u:p@[fd00::1]:8", source="x").title == "http://[fd00::1]:8"
    assert parse_proxy("socks5://u:p@h", source="x").title == "socks5://h:1080"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://u:p@h:1/x", "https://***@h:1/x"),
        ("https://u:p@q@h", "https://***@h"),
        ("u:p@h", "***@h"),
        ("https://h/x", "https://h/x"),
        ("https://u:p\n@h", "https://***@h"),
    ],
)
def test_userinfo_is_hidden(url: str, shown: str) -> None:
    """Also in what is no proper URL."""
    assert hide_userinfo(url) == shown


@pytest.mark.parametrize(
    ("environ", "source"),
    [
        ({"https_proxy": "http://lower", "HTTPS_PROXY": "http://upper"}, "lower"),
        ({"HTTPS_PROXY": "http://upper"}, "upper"),
        ({"https_proxy": "", "HTTPS_PROXY": "http://upper"}, "upper"),
        ({"HTTPS_PROXY": "http://upper", "NO_PROXY": "api.example.org", "no_proxy": "other"}, "upper"),
        ({"HTTPS_PROXY": "http://upper", "NO_PROXY": "other"}, "upper"),
    ],
)
def test_proxy_of_the_environment(environ: dict[str, str], source: str) -> None:
    """The lower case spelling counts, of proxies and of exceptions."""
    proxy = find_proxy("https", "api.example.org", 443, environ)
    assert proxy is not None
    assert proxy.host == source


@pytest.mark.parametrize(
    ("scheme", "host", "environ"),
    [
        ("https", "10.0.0.1", {}),
        ("http", "10.0.0.1", PROXY),
        ("https", "10.0.0.1", {"HTTP_PROXY": "http://h"}),
        ("https", "10.0.0.1", {"ALL_PROXY": "http://h"}),
        ("https", "10.0.0.1", {**PROXY, "NO_PROXY": "10.0.0.0/8"}),
        ("https", "10.0.0.1", {**PROXY, "no_proxy": "10.0.0.0/8", "NO_PROXY": "x"}),
        ("https", "localhost", PROXY),
        ("https", "127.0.0.1", PROXY),
    ],
)
def test_no_proxy_of_the_environment(scheme: str, host: str, environ: dict[str, str]) -> None:
    """That of another scheme, an exempt server, this machine itself."""
    assert find_proxy(scheme, host, 443, environ) is None


def test_the_option_takes_the_place_of_the_variable() -> None:
    """Also an empty one, which exempts nothing."""
    environ = {**PROXY, "NO_PROXY": "10.0.0.1"}
    assert find_proxy("https", "10.0.0.1", 443, environ, no_proxy="") is not None
    assert find_proxy("https", "10.0.0.2", 443, environ, no_proxy="10.0.0.2") is None


def test_a_variable_that_is_no_url_is_named() -> None:
    """Without its password."""
    with pytest.raises(Refusal, match="environment variable https_proxy") as caught:
        find_proxy("https", "10.0.0.1", 443, {"https_proxy": "http://u:canary@h:x"})
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST.", "127.0.0.1", "127.9.9.9", "::1", "[::1]", "::ffff:127.0.0.1"]
)
def test_loopback(host: str) -> None:
    """By name and address."""
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["localhost.example.org", "128.0.0.1", "fd00::1", "", "127.0.0.1.example.org"])
def test_not_loopback(host: str) -> None:
    """However alike it looks."""
    assert not is_loopback(host)


def test_addresses_are_told_from_names() -> None:
    """Names must be looked up."""
    assert (is_address("10.0.0.1"), is_address("fd00::1"), is_address("api")) == (True, True, False)


@pytest.mark.parametrize(
    "url", ["https://h:64x3", "https://[fd00::1:6443", "https://", "https://h/\x7f", "https://hé/", ""]
)
def test_addresses_that_are_none(url: str) -> None:
    """An error with a name, never a traceback."""
    with pytest.raises(Refusal, match="Give a URL such as example"):
        split_url(url, obj="API server", example="example")
