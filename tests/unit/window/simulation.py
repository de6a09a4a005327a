# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The fast window without Ansible: the same phases in the same order, on a world in memory, killed at any point."""

from __future__ import annotations

import subprocess
import sys
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ansible_collections.lowtide.ops.plugins.module_utils._common.errors import OpsError
from ansible_collections.lowtide.ops.plugins.module_utils._window.journal import Journal, Record
from ansible_collections.lowtide.ops.plugins.module_utils._window.phases import Controller, Phases, StepCall

STEPS: list[dict[str, Any]] = [
    {"name": "save"},
    {"name": "quiesce"},
    {"name": "maintain", "needs": ["quiesce"], "irreversible": True},
    {"name": "resume", "closes": "quiesce"},
    {"name": "verify", "follows": ["resume", "save"]},
]
MEMBERS = {"control": frozenset({"ctl"}), "web": frozenset({"web1", "web2"}), "db": frozenset({"db1", "db2"})}
World = dict[str, dict[str, int]]
BEGINNING: World = {
    "web1": {"replicas": 3},
    "web2": {"replicas": 3},
    "db1": {"dead": 9, "age": 9},
    "db2": {"dead": 9, "age": 9},
}
END = {
    "web1": {"replicas": 3},
    "web2": {"replicas": 3},
    "db1": {"dead": 0, "age": 0, "maintained": 1, "saved": 1},
    "db2": {"dead": 0, "age": 0, "maintained": 1, "saved": 1},
}


class KilledError(Exception):
    """The controller was killed here."""


def dead_pid() -> int:
    """The pid of a process of the past."""
    process = subprocess.Popen([sys.executable, "-S", "-c", ""])
    process.wait()
    return process.pid


@dataclass
class Simulation:
    """One place with its world. ``fail``: (step, host) pairs that fail; ``lost``: hosts that vanish when they begin a step."""

    place: Path
    pids: list[int]
    fail: set[tuple[str, str]] = field(default_factory=set)
    lost: set[tuple[str, str]] = field(default_factory=set)
    kill_at: int = 0
    rehearsal: bool = False
    points: int = 0
    runs: int = 0
    digest: str = "inputs"
    ends_early: bool = True
    """Whether a run ends where the window says that nothing is left to do."""
    own_facts: bool = False
    """Whether a role sets facts of its own name while it runs."""
    world: World = field(default_factory=lambda: deepcopy(BEGINNING))

    def begin_anew(self, place: Path) -> None:
        """As if nothing had been run yet, in ``place``."""
        self.place, self.runs, self.world = place, 0, deepcopy(BEGINNING)

    def phases(self, host: str, **changes: Any) -> Phases:
        """The phases as a worker of this controller run finds them."""
        values: dict[str, Any] = {
            "pid": self.pids[self.runs - 1],
            "folder": str(self.place / f"run{self.runs}"),
            "pipe": None,
            "rehearsal": self.rehearsal,
            "control": ["ctl"],
            "host": host,
            "strategy": "linear",
            "limits": {},
            **changes,
        }
        return Phases(Controller(**values))

    def given(self, **changes: Any) -> dict[str, Any]:
        """Arguments of the opening."""
        return {
            "name": "weekly",
            "start": "",
            "steps": STEPS,
            "only": [],
            "skip": [],
            "dir": str(self.place / "state"),
            "site": "site",
            "duration": 600,
            "orphan_timeout": 0,
            **changes,
        }

    def call(self, step: str, host: str, hosts: list[str], *, planning: bool = False, result: Any = None) -> StepCall:
        """One step on one host."""
        digest = f"{self.digest} and facts" if self.own_facts and result else self.digest
        return StepCall(step, step, "main", planning, host, MEMBERS, hosts, hosts, lambda: digest, result)

    def point(self) -> None:
        """A point at which the controller may be killed."""
        self.points += 1
        if self.points == self.kill_at:
            raise KilledError

    def act(self, step: str, host: str, *, check: bool) -> dict[str, Any]:
        """What the step's role does, in one write, idempotently; between two points."""
        world = self.world[host]
        target = {
            "save": {"age": 0},
            "maintain": {"dead": 0},
            "quiesce": {"replicas": 0, "before": 3},
            "resume": {"replicas": 3},
            "verify": {},
        }[step]
        changed = any(world.get(key) != value for key, value in target.items())
        if changed and not check:
            self.point()
            world.update(target)
            if step == "resume":
                world.pop("before", None)
            counter = {"save": "saved", "maintain": "maintained"}.get(step)
            if counter:
                world[counter] = world.get(counter, 0) + 1
            self.point()
        return {
            "changed": changed,
            "summary": f"{step} {'due' if changed else 'as it should be'}",
            "plan": [{"object": host}],
        }

    def step(self, step: str, hosts: list[str], *, planning: bool = False) -> None:
        """The play of one step, host after host, phase by phase."""
        running = []
        for host in [*hosts, "ctl"]:
            self.point()
            call = self.call(step, host, hosts, planning=planning)
            try:
                if self.phases(host).begin(call, required=True, preload=lambda *_: None)["run"]:
                    running.append(host)
            except OpsError as error:
                self.phases(host).end(
                    call,
                    error={"msg": str(error), "error": error.as_dict()},
                    failed_task={"action": "lowtide.ops.window"},
                )
        for host in running:
            if (f"plan of {step}" if planning else step, host) in self.lost:
                continue
            if (step, host) in self.fail and not planning:
                call = self.call(step, host, hosts)
                self.phases(host).end(call, error={"msg": "told to fail"}, failed_task={"name": "work"})
                continue
            result = self.act(step, host, check=planning or self.rehearsal)
            call = self.call(step, host, hosts, planning=planning, result=result)
            self.point()
            self.phases(host).end(call, error=None, failed_task=None)
            self.point()

    def run(self, **changes: Any) -> str:
        """One controller run of the whole window; its state, ``refused`` when it was not opened."""
        self.runs += 1
        self.points = 0
        (self.place / f"run{self.runs}").mkdir(parents=True)
        self.point()
        opened = self.phases("ctl").open(self.given(**changes), preload=lambda *_: None)
        if opened["refused"]:
            return f"refused: {opened['error']['object']}: {opened['error']['problem']}"
        webs, databases = ["web1", "web2"], ["db1", "db2"]
        self.step("save", databases, planning=True)
        self.step("maintain", databases, planning=True)
        for step, hosts in (
            ("save", databases),
            ("quiesce", webs),
            ("maintain", ["db1"]),
            ("maintain", ["db2"]),
            ("resume", webs),
            ("verify", webs),
        ):
            self.point()
            if not self.phases("ctl").proceed()["proceed"] and self.ends_early:
                break
            self.step(step, hosts)
        self.point()
        self.phases("ctl").close(["a line"])
        self.point()
        verdict = self.phases("ctl").verdict()
        assert verdict["failed"] == (verdict["state"] not in {"done", "nothing_to_do"})
        return str(verdict["state"])

    @property
    def journal(self) -> Journal:
        """The journal of the window."""
        return Journal(self.place / "state/site/weekly.journal")

    def records(self, kind: str) -> list[Record]:
        """Its records of one kind."""
        return [record for record in self.journal.read().records if record["kind"] == kind]
