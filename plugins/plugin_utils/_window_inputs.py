# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a step's role is given, as one short digest. Private to lowtide.ops: do not import from other collections."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from ansible.errors import AnsibleError


def plain(value: Any) -> Any:
    """``value`` (templated, maybe lazily and with Ansible's tags) as JSON knows it."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if value is None or isinstance(value, (bool, int, float)):
        return value
    return str(value)


def digest(role: str, variables: Mapping[str, Any], templar: Any) -> str:
    """SHA-256 (16 hex digits) over the inputs ``<role>_*`` of this host, without its connection (secrets) and its result.

    An input whose template cannot be resolved yet counts as its own text.
    """
    inputs = {}
    for name in sorted(variables):
        if name.startswith(f"{role}_") and name not in {f"{role}_result", f"{role}_connection"}:
            try:
                inputs[str(name)] = plain(templar.template(variables[name]))
            except AnsibleError:
                inputs[str(name)] = str(variables[name])
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()[:16]
