# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Runs one module of the collection as Ansible would: arguments from standard input, JSON on standard output."""

from __future__ import annotations

import importlib
import json
import sys
from typing import Any


def call(request: dict[str, Any]) -> None:
    """Call the ``main()`` of the module in ``{"module": name, "args": {...}}``.

    With ``"report_imports": true`` a second line lists the Python modules that it imported.
    """
    from ansible.module_utils import basic  # brings what Ansible itself looks for, whatever the module

    # As ansible.module_utils.testing does it, which takes a fifth of a module's start to import unittest and asyncio.
    vars(basic).update(
        _ANSIBLE_ARGS=json.dumps({"ANSIBLE_MODULE_ARGS": request["args"]}).encode(), _ANSIBLE_PROFILE="legacy"
    )
    before = set(sys.modules)
    try:
        importlib.import_module(f"ansible_collections.lowtide.ops.plugins.modules.{request['module']}").main()
    finally:
        if request.get("report_imports"):
            print(json.dumps(sorted(set(sys.modules) - before)))


if __name__ == "__main__":
    call(json.load(sys.stdin))
