# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a step's role is given, as one short digest. Private to lowtide.ops: do not import from other collections."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from typing import Any

IDENTITY_KEYS = frozenset(
    {
        "brokers",
        "cluster_id",
        "cluster_uid",
        "context",
        "endpoint_url",
        "host",
        "login_db",
        "login_host",
        "login_port",
        "system_identifier",
    }
)
"""Keys of a connection that say which system it is. All others (credentials, their paths, timeouts) may differ on a
resume."""


SECRET = re.compile(r"passw|secret|token|private_key", re.IGNORECASE)
"""Names of variables that hold secrets."""


def as_plain(value: Any) -> Any:
    """Return ``value`` (templated, maybe lazily and with Ansible's tags) as JSON knows it."""
    if isinstance(value, Mapping):
        return {str(key): as_plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [as_plain(item) for item in value]
    if isinstance(value, bool) or value is None:
        return value
    if isinstance(value, int):
        return int(value)
    return float(value) if isinstance(value, float) else str(value)


def is_connection(name: str) -> bool:
    """Return whether a variable of this name holds a connection."""
    return name.endswith("_connection")


def keep_identity(connection: Any) -> Any:
    """Return of a connection what says which system it is."""
    if not isinstance(connection, Mapping):
        return connection
    return {key: value for key, value in connection.items() if key in IDENTITY_KEYS}


def is_input(name: str, prefix: str) -> bool:
    """Return whether a variable is an input of the role ``prefix``: not a result of it or of a role whose name begins
    alike, and no secret, which may change and must not be guessable from a digest."""
    return name.startswith(f"{prefix}_") and not name.endswith("_result") and not SECRET.search(name)


def compute_digest(prefix: str, variables: Mapping[str, Any], template: Callable[[Any], Any]) -> str:
    """Return the SHA-256 (16 hex digits) over the variables ``<prefix>_*``, of connections only the identity, without
    the result.

    ``template`` resolves a value; one that cannot be resolved yet is returned by it as its own text.
    """
    inputs = {}
    for name in sorted(map(str, variables)):
        if is_input(name, prefix):
            value = as_plain(template(variables[name]))
            inputs[name] = keep_identity(value) if is_connection(name) else value
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()[:16]
