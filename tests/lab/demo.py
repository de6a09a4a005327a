#!/usr/bin/python3
# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One maintenance window through the running lab, while events are being produced. Arguments go to ansible-playbook."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
LAB = str(CHECKOUT / "tests/lab/lab")
INSIDE = [LAB, "run", "--"]
WINDOW = ["ansible-playbook", "-i", "inventories/demo", "maintenance-window.yml"]
EVENTS, RATE = 30_000, 50
"""At most so many events, so many in a second: ten minutes, unless the window is over before."""

sys.path.insert(0, str(CHECKOUT / "collections"))


def summary(state: Path) -> list[str]:
    """The newest report below the lab's state, in words; the window itself printed the same above the recap."""
    from ansible_collections.lowtide.ops.plugins.plugin_utils._window.report_text import render

    newest = max(state.glob("windows/*/reports/*.json"), key=lambda path: path.stat().st_mtime)
    return render({**json.loads(newest.read_text()), "path": str(newest.with_suffix(".html"))})


def main() -> int:
    """Entry point; the exit code is the window's, or the producer's where only that failed."""
    facts = json.loads(subprocess.run([LAB, "facts"], stdout=subprocess.PIPE, check=True).stdout)
    producer = subprocess.Popen(
        [*INSIDE, *facts["feature_service"]["producer"], "--count", str(EVENTS), "--rate", str(RATE)],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        window = subprocess.run([*INSIDE, *WINDOW, *sys.argv[1:]], cwd=CHECKOUT, check=False)
    finally:
        producer.terminate()
        said, _none = producer.communicate()
    produced = json.loads(said)
    print("\n".join(summary(Path(facts["lab"]["state"]))))
    print(f"While the window ran, the broker acknowledged {produced['acknowledged']} new events ({RATE} a second).")
    return window.returncode or producer.returncode


if __name__ == "__main__":
    sys.exit(main())
