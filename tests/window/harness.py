# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Runs of the fast window: a world of one JSON file a host, real ansible-playbook processes, and what they leave behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ansible_collections.lowtide.ops.plugins.module_utils._window.journal import Journal, Record

CHECKOUT = Path(__file__).resolve().parents[2]
FAST = Path(__file__).with_name("fast")
BEGINNING = {
    "web1": {"replicas": 3},
    "web2": {"replicas": 3},
    "db1": {"dead": 100, "backup_age": 10},
    "db2": {"dead": 100, "backup_age": 10},
}
END = {
    "web1": {"replicas": 3},
    "web2": {"replicas": 3},
    "db1": {"dead": 0, "backup_age": 0, "backups": 1, "vacuums": 1},
    "db2": {"dead": 0, "backup_age": 0, "backups": 1, "vacuums": 1},
}
TASKS = 66
"""Task starts of a whole fast window (asserted of one), so that points of its run can be chosen before it ran."""
World = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Played:
    """One finished ansible-playbook run."""

    rc: int
    out: str

    @property
    def verdict(self) -> str:
        """The window's last line, without its head; empty when none was printed."""
        flat = " ".join(self.out.split())
        return flat.rpartition("lowtide window ")[2] if "lowtide window " in flat else ""

    @property
    def ran(self) -> int:
        """How many tasks were started."""
        return self.out.count("\nTASK [") + self.out.count("\nRUNNING HANDLER [")


@dataclass
class FastWindow:
    """The fast window in a folder of its own."""

    folder: Path
    started: list[subprocess.Popen[str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        (self.folder / "world").mkdir(parents=True)
        self.write(BEGINNING)

    def write(self, world: World) -> None:
        """Make the world so."""
        for host, values in world.items():
            (self.folder / "world" / f"{host}.json").write_text(json.dumps(values))

    def world(self) -> World:
        """The world as it is."""
        return {path.stem: json.loads(path.read_text()) for path in sorted((self.folder / "world").glob("*.json"))}

    def start(self, *options: str, env: dict[str, str] | None = None, **variables: Any) -> subprocess.Popen[str]:
        """Start the window with extra variables; ``playbook`` and ``inventory`` may be given as well."""
        playbook = variables.pop("playbook", FAST / "window.yml")
        inventory = variables.pop("inventory", FAST / "inventory.yml")
        variables = {"window_dir": str(self.folder / "state"), "window_site": "test", **variables}
        command = [
            str(Path(sys.executable).with_name("ansible-playbook")),
            "-i",
            str(inventory),
            str(playbook),
            "-e",
            json.dumps(variables),
        ]
        environment = {
            **os.environ,
            "WORLD": str(self.folder / "world"),
            "ANSIBLE_CONFIG": str(CHECKOUT / "ansible.cfg"),
            "ANSIBLE_COLLECTIONS_PATH": str(CHECKOUT / "collections"),
            "ANSIBLE_ROLES_PATH": str(FAST / "roles"),
            "ANSIBLE_LIBRARY": str(FAST / "library"),
            "ANSIBLE_ACTION_PLUGINS": str(FAST / "action_plugins"),
            "ANSIBLE_CALLBACK_PLUGINS": str(FAST / "callback_plugins"),
            "ANSIBLE_CALLBACKS_ENABLED": "kill_at",
            "ANSIBLE_LOCAL_TEMP": str(self.folder / "tmp"),
            "ANSIBLE_REMOTE_TEMP": str(self.folder / "tmp"),
            "ANSIBLE_FORKS": "3",
            "ANSIBLE_SSH_RETRIES": "0",
            **(env or {}),
        }
        process = subprocess.Popen(
            [*command, *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=environment,
            cwd=self.folder,
            start_new_session=True,
        )
        self.started.append(process)
        return process

    @staticmethod
    def finish(process: subprocess.Popen[str]) -> Played:
        """Wait for the end of a started run. Its output is read to the controller's end, not to that of its orphans."""
        out, _err = process.communicate(timeout=120)
        return Played(process.returncode, out)

    def play(self, *options: str, env: dict[str, str] | None = None, **variables: Any) -> Played:
        """Run the window to its end."""
        return self.finish(self.start(*options, env=env, **variables))

    def records(self) -> list[Record]:
        """The whole journal."""
        return Journal(self.folder / "state/test/fast.journal").read().records

    def states(self) -> list[str]:
        """How each closed run ended."""
        return [record["state"] for record in self.records() if record["kind"] == "close"]

    def report(self, run: int = 1) -> dict[str, Any]:
        """The JSON report of a run."""
        report: dict[str, Any] = json.loads((self.folder / f"state/test/fast.{run}.json").read_text())
        return report

    def end(self) -> None:
        """End what a test left running."""
        for process in self.started:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
