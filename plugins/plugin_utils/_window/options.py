# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The options of a connection as a module takes them, for the controller's own connections.

Private to lowtide.ops: do not import from other collections.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible.module_utils.common.arg_spec import ArgumentSpecValidator

from ansible_collections.lowtide.ops.plugins.module_utils._common.errors import Refusal


def read_options(spec: Mapping[str, Any], values: Mapping[str, Any], *, obj: str) -> dict[str, Any]:
    """Return the options with their types and defaults. Raise Refusal for what a module would refuse."""
    result = ArgumentSpecValidator(dict(spec)).validate(dict(values))
    if result.error_messages:
        raise Refusal(
            obj=obj, problem="; ".join(result.error_messages), next_step="Correct it, as for a module of this system"
        )
    validated: dict[str, Any] = result.validated_parameters
    return validated
