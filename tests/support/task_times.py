# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What tasks cost in a real ansible-playbook, beside a module that does nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .playbooks import playbook_command, playbook_environment, write_yaml

NOOP = """#!/usr/bin/python
from ansible.module_utils.basic import AnsibleModule
AnsibleModule(argument_spec={}, supports_check_mode=True).exit_json(changed=False)
"""
CALLBACK = """
import json, multiprocessing, os, time
from ansible.plugins.callback import CallbackBase

class CallbackModule(CallbackBase):
    CALLBACK_VERSION, CALLBACK_TYPE, CALLBACK_NAME = 2.0, "aggregate", "times"
    begun = None

    def tell(self, name):
        for worker in multiprocessing.active_children():
            worker.join()  # a worker's CPU is known when it has ended
        now, used = time.monotonic(), sum(os.times()[:4])
        if self.begun is not None:
            before, wall, cpu = self.begun
            print("TIME", json.dumps([before, now - wall, used - cpu]), flush=True)
        self.begun = (name, now, used)

    def v2_playbook_on_task_start(self, task, is_conditional):
        self.tell(task.name)

    def v2_playbook_on_stats(self, stats):
        self.tell(None)
"""


@dataclass(frozen=True)
class Cost:
    """One task of a module and the no-op next to it: seconds from its start to the next one's, and seconds of CPU."""

    seconds: float
    cpu: float
    noop_seconds: float
    noop_cpu: float


def task_costs(tasks: dict[str, dict[str, Any]], pairs: int, folder: Path) -> dict[str, list[Cost]]:
    """Run each task ``pairs`` times, each beside a no-op and all in turn, in one play on a local connection.

    The first round is not counted: it builds the payloads. A task that fails or changes something ends the bench.
    """
    library = folder / "library"
    library.mkdir(exist_ok=True)
    (library / "noop.py").write_text(NOOP, encoding="utf-8")
    (library / "times.py").write_text(CALLBACK, encoding="utf-8")
    listed: list[dict[str, Any]] = []
    for _round in range(pairs + 1):
        for name, task in tasks.items():
            listed += [{"name": f"no-op beside {name}", "noop": {}}, {"name": name, **task}]
    python = {"ansible_python_interpreter": sys.executable}
    play = {"hosts": "localhost", "connection": "local", "gather_facts": False, "vars": python, "tasks": listed}
    callbacks = {"ANSIBLE_CALLBACK_PLUGINS": str(library), "ANSIBLE_CALLBACKS_ENABLED": "times"}
    environment = playbook_environment({"ANSIBLE_LIBRARY": str(library), **callbacks})
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # as a user has it
    command = playbook_command(write_yaml(folder / "tasks.yml", [play]))
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode or "changed=0" not in done.stdout:
        raise SystemExit(done.stdout[-4000:] + done.stderr)
    times: dict[str, list[tuple[float, float]]] = {}
    for line in done.stdout.splitlines():
        if line.startswith("TIME "):
            name, seconds, cpu = json.loads(line.removeprefix("TIME "))
            times.setdefault(name, []).append((seconds, cpu))
    return {
        name: [
            Cost(*ours, *noop) for ours, noop in zip(times[name][1:], times[f"no-op beside {name}"][1:], strict=True)
        ]
        for name in tasks
    }
