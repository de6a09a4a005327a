# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Runs one module of the collection as Ansible would: arguments from standard input, one JSON document on standard output."""

from __future__ import annotations

import importlib
import json
import sys


def main() -> None:
    """Read ``{"module": name, "args": {...}}`` and call that module's ``main()``."""
    from ansible.module_utils.testing import patch_module_args

    request = json.load(sys.stdin)
    with patch_module_args(request["args"]):
        importlib.import_module(f"ansible_collections.lowtide.ops.plugins.modules.{request['module']}").main()


if __name__ == "__main__":
    main()
