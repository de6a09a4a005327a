# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How the window of this controller run ended, for its last task.

Private to lowtide.ops: do not import from other collections.
"""

from __future__ import annotations

import json
from pathlib import Path

from ansible_collections.lowtide.ops.plugins.module_utils._common.errors import Refusal

from .files import write_atomically
from .results import Result
from .state import SUCCESSFUL

VERDICT_FILE = "lowtide_window_verdict.json"


def leave_verdict(folder: str, verdict: Result, line: str) -> None:
    """Keep how the window ended in Ansible's temporary directory of this run."""
    write_atomically(Path(folder, VERDICT_FILE), json.dumps({"verdict": verdict, "line": line}))


def read_verdict(folder: str) -> Result:
    """Return the result of the last task: it fails when the window did. Raise Refusal when there was no window."""
    path = Path(folder, VERDICT_FILE)
    if not path.exists():
        raise Refusal(
            obj="window",
            problem="it was neither opened nor refused in this run",
            next_step="Open it in the first play, with the playbook window_open",
        )
    left = json.loads(path.read_text(encoding="utf-8"))
    return {
        "changed": False,
        "failed": left["verdict"]["state"] not in SUCCESSFUL,
        "msg": left["line"],
        "_ansible_verbose_always": True,
        **left["verdict"],
    }
