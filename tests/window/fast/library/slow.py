# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A module that says that it runs, waits for a word, and only then changes the world: the orphan of a killed
controller."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule


def main() -> None:
    """The fifo WORLD/HOST.go is the word."""
    make: Any = AnsibleModule
    module = make(argument_spec={"host": {"type": "str", "required": True}}, supports_check_mode=True)
    world = Path(os.environ["WORLD"])
    path = world / f"{module.params['host']}.json"
    before = json.loads(path.read_text())
    changed = before["dead"] > 0
    result = {"changed": changed, "summary": "dead rows" if changed else "as it should be"}
    if changed and not module.check_mode:
        (world / "started").write_text(str(os.getpid()))
        if (world / "go").exists():
            (world / "go").read_text()
        after = json.loads(path.read_text())
        after.update(dead=0, vacuums=after.get("vacuums", 0) + 1)
        path.with_suffix(".slow").write_text(json.dumps(after))
        os.replace(path.with_suffix(".slow"), path)
    module.exit_json(changed=changed, result=result)


if __name__ == "__main__":
    main()
