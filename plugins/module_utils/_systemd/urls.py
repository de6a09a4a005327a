# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""URLs as they are declared and as they are told. Private to lowtide.ops: do not import from other collections."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

_OTHER = re.compile(r"[^\x21-\x7e]")


def find_fault(url: str) -> str:
    """Return why nothing can be asked at a URL, without the URL itself; empty when it can be."""
    if _OTHER.search(url):
        return "it has a space or another character that a URL has to write in percents"
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        return "its host or its port cannot be read"
    if parts.scheme not in {"http", "https"}:
        return "it is no http or https URL"
    if not host or port == 0:
        return "it has no host" if not host else "its port is 0"
    if "@" in parts.netloc:
        return "it has a user or a password, which would not be sent"
    return ""


def hide_query(url: str) -> str:
    """Return a URL as it may be told: without its query and its user, which may hold a token."""
    place, sign, _query = url.partition("?")
    scheme, slashes, rest = place.partition("://")
    host, slash, path = rest.partition("/")
    return f"{scheme}{slashes}{host.rpartition('@')[2]}{slash}{path}{'?[redacted]' if sign else ''}"
