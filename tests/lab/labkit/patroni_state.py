# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the members of a Patroni cluster with TLS say."""

from __future__ import annotations

import json
import ssl
import urllib.request
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from labkit.patroni_site import PatroniSite


def ask(site: PatroniSite, path: str) -> dict[str, Any]:
    """Return what the first member that answers says; empty while none does."""
    context = ssl.create_default_context(cafile=site.pki.certificate("ca"))
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context))
    for node in site.nodes:
        try:
            with opener.open(f"https://{site.address}:{node.rest_port}{path}", timeout=5) as answer:
                document: dict[str, Any] = json.load(answer)
                return document
        except (OSError, ValueError):
            continue
    return {}
