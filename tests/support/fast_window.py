# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Runs of the fast window: a world of one JSON file a host, real ansible-playbook processes, and what they leave
behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from labkit.ansible_versions import find_ansible_playbook

from ansible_collections.lowtide.ops.plugins.plugin_utils._window.events import (
    Event,
    StepFailed,
    StepSkipped,
    StepStarted,
    WindowClosed,
    WindowOpened,
)
from ansible_collections.lowtide.ops.plugins.plugin_utils._window.store import Store
from ansible_collections.lowtide.ops.plugins.plugin_utils._window.store_file import FileStore

CHECKOUT = Path(__file__).resolve().parents[2]
FAST = CHECKOUT / "tests/window/fast"
WINDOW = CHECKOUT / "maintenance-window.yml"
RESTORE = CHECKOUT / "playbooks/restore_service.yml"
STATUS = CHECKOUT / "playbooks/window_status.yml"
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
TASKS = 104
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
    version: str
    started: list[subprocess.Popen[str]] = field(default_factory=list)
    shared: Store | None = None
    """Where lease and journals are, when ``variables`` say that they are on a server."""
    variables: dict[str, Any] = field(default_factory=dict)
    within: tuple[str, ...] = ()
    """The program that starts each run, such as one that gives it a pid namespace of its own."""

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
        playbook = variables.pop("playbook", WINDOW)
        inventory = variables.pop("inventory", FAST / "inventory.yml")
        variables = {"window_dir": str(self.folder / "state"), "window_site": "test", **self.variables, **variables}
        own = self.folder / f"tmp{len(self.started)}"
        command = [
            *self.within,
            str(find_ansible_playbook(self.version)),
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
            "ANSIBLE_LOCAL_TEMP": str(own),
            "ANSIBLE_REMOTE_TEMP": str(own),
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
        out, _err = process.communicate(timeout=300)
        return Played(process.returncode, out)

    def play(self, *options: str, env: dict[str, str] | None = None, **variables: Any) -> Played:
        """Run the window to its end."""
        return self.finish(self.start(*options, env=env, **variables))

    @property
    def store(self) -> Store:
        """The store of the site that all runs share."""
        return self.shared or FileStore(self.folder / "state/test")

    def events(self) -> list[Event]:
        """The events of all journals, oldest first."""
        found = [event for name in self.store.list_occurrences() for event in self.store.load(name)]
        return sorted(found, key=lambda event: event.at)

    def states(self) -> list[str]:
        """How each closed run ended."""
        return [event.state for event in self.events() if isinstance(event, WindowClosed)]

    def window_ids(self) -> list[str]:
        """The occurrence of each opening."""
        return [event.window_id for event in self.events() if isinstance(event, WindowOpened)]

    def started_steps(self, token: int) -> list[tuple[str, str]]:
        """Steps and hosts that a run started, in order."""
        return [event.key for event in self.events() if isinstance(event, StepStarted) and event.token == token]

    def skips(self, token: int) -> dict[tuple[str, str], str]:
        """Steps and hosts that a run left out, with the reason."""
        return {
            event.key: event.why for event in self.events() if isinstance(event, StepSkipped) and event.token == token
        }

    def failures(self, token: int) -> list[str]:
        """What failed in a run."""
        return [
            f"{event.step} on {event.host}: {event.error}"
            for event in self.events()
            if isinstance(event, StepFailed) and event.token == token
        ]

    def report(self, run: int = 1) -> dict[str, Any]:
        """The JSON report of the run with this token."""
        (path,) = (self.folder / "state/test/reports").glob(f"*.{run}.json")
        report: dict[str, Any] = json.loads(path.read_text())
        return report

    def page(self, run: int = 1) -> str:
        """The HTML report of the run with this token."""
        (path,) = (self.folder / "state/test/reports").glob(f"*.{run}.html")
        return path.read_text()

    def write_playbook(self, *plays: dict[str, Any] | str) -> Path:
        """A playbook of one's own: names of steps, and plays as data, between opening and closing."""
        entries: list[dict[str, Any]] = [{"name": "Open", "import_playbook": "lowtide.ops.window_open"}]
        for play in plays:
            if isinstance(play, str):
                entries.append({"name": play, "import_playbook": "lowtide.ops.step", "vars": {"window_step": play}})
            else:
                entries.append(play)
        entries.append({"name": "Close", "import_playbook": "lowtide.ops.window_close"})
        path = self.folder / "own.yml"
        path.write_text(json.dumps(entries))
        return path

    def end(self) -> None:
        """End what a test left running."""
        for process in self.started:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
