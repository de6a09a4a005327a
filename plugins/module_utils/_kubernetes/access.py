# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where the API server is and who we are there. Private to lowtide.ops: do not import from other collections."""

from __future__ import annotations

import ssl
import typing as t
from urllib.parse import urlsplit

from .proxies import ProxyUrl


class ClusterAccess:
    """Everything needed to open a connection. ``source`` says where it came from, for messages."""

    def __init__(self, *, server: str, source: str, proxy: ProxyUrl | None = None, token: str | None = None) -> None:
        parts = urlsplit(server)
        self.server = server
        self.source = source
        self.proxy = proxy
        self.address = (parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80))
        self.base_path = parts.path.rstrip("/")
        self.secure = parts.scheme == "https"
        self.server_name: str | None = None
        self.impersonation: t.Mapping[str, str] = {}
        self.can_renew = False
        self._token = token

    def credentials(self, renew: bool = False) -> t.Mapping[str, str]:
        """Return the headers that say who we are."""
        return {"Authorization": f"Bearer {self._token}"} if self._token else {}

    def tls(self) -> ssl.SSLContext:
        """Return a client context."""
        return ssl.create_default_context()
