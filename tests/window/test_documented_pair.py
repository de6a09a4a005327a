# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The reversible pair of docs/writing-a-step.md, as its readers paste it: predicted, performed, killed, reverted."""

from __future__ import annotations

import re
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from labkit.ansible_versions import VERSIONS

from support.fast_window import CHECKOUT, FAST, FastWindow

PAGE = (CHECKOUT / "docs/writing-a-step.md").read_text(encoding="utf-8")
FILE = re.compile(r"```yaml\n# (maintenance_page\S*/main.yml)\n(.*?)```", re.DOTALL)
KILL_IN_MAINTENANCE = f"before:db1:dead rows above the limit:{int(signal.SIGKILL)}"


def read_steps() -> list[dict[str, Any]]:
    """Return the documented steps, on hosts and with the maintenance of the fast window."""
    (example,) = re.findall(r"```yaml\n(window_steps:\n  - \{name: page_on.*?)```", PAGE, re.DOTALL)
    steps: list[dict[str, Any]] = yaml.safe_load(example)["window_steps"]
    steps[0]["hosts"] = ["web1"]
    steps[1]["role"] = "maintain"
    return steps


@pytest.fixture
def window(tmp_path: Path) -> Iterator[FastWindow]:
    """A fast window with the documented roles in its folder, on one version: the page says nothing about others."""
    fast = FastWindow(tmp_path / "fast", VERSIONS[0])
    for name, content in FILE.findall(PAGE):
        path = fast.folder / "roles" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
    yield fast
    fast.end()


def test_the_documented_pair(window: FastWindow) -> None:
    page = window.folder / "page.html"
    env = {"ANSIBLE_ROLES_PATH": f"{window.folder / 'roles'}:{FAST / 'roles'}"}
    declared: dict[str, Any] = {"window_steps": read_steps(), "maintenance_page_file": str(page)}
    checked = window.play("--check", "--diff", env=env, **declared)
    assert checked.rc == 0, checked.out
    assert re.search(r"page_off +web1 +would change", checked.out), "the revert of what is predicted is not predicted"
    assert not page.exists()

    killed = window.play(env={**env, "WORLD_KILL": KILL_IN_MAINTENANCE}, **declared)
    assert killed.rc != 0, "it was not killed"
    assert page.exists()

    shutil.rmtree(window.folder / "state")
    again = window.play(env=env, **declared)
    assert again.rc == 0, again.out
    assert not page.exists(), "without the journal, the file itself did not tell that the step is in force"
    assert window.world()["db2"]["vacuums"] == 1
