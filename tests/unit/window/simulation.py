# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A window without Ansible: it follows the plays that the opening returns, on a world in memory, and can be killed.

Files, leases and controllers (processes that do nothing) are real. How Ansible loses hosts is not here: that is tested
by real runs.
"""

from __future__ import annotations

import errno
import subprocess
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.lowtide.ops.plugins.filter.window_play import NO_HOST, window_play
from ansible_collections.lowtide.ops.plugins.module_utils._common.errors import OpsError
from ansible_collections.lowtide.ops.plugins.plugin_utils._window.closing import close_window
from ansible_collections.lowtide.ops.plugins.plugin_utils._window.declaration import Step
from ansible_collections.lowtide.ops.plugins.plugin_utils._window.engine import Engine, StepCall
from ansible_collections.lowtide.ops.plugins.plugin_utils._window.events import Event
from ansible_collections.lowtide.ops.plugins.plugin_utils._window.occurrences import read_occurrences
from ansible_collections.lowtide.ops.plugins.plugin_utils._window.opening import Opening
from ansible_collections.lowtide.ops.plugins.plugin_utils._window.places import Place
from ansible_collections.lowtide.ops.plugins.plugin_utils._window.request import Request
from ansible_collections.lowtide.ops.plugins.plugin_utils._window.session import Controller, OpenWindow
from ansible_collections.lowtide.ops.plugins.plugin_utils._window.state import SUCCESSFUL, WindowState, compute_state
from ansible_collections.lowtide.ops.plugins.plugin_utils._window.store_file import FileStore
from ansible_collections.lowtide.ops.plugins.plugin_utils._window.verdict import read_verdict

from .builders import GROUPS, STEPS, Entry, make_inventory

World = dict[str, dict[str, int]]
BEGINNING: World = {
    "web1": {"replicas": 3},
    "web2": {"replicas": 3},
    "db1": {"dead": 9, "age": 9},
    "db2": {"dead": 9, "age": 9},
}
END: World = {
    "web1": {"replicas": 3},
    "web2": {"replicas": 3},
    "db1": {"dead": 0, "age": 0, "maintained": 1, "saved": 1},
    "db2": {"dead": 0, "age": 0, "maintained": 1, "saved": 1},
}


class KilledError(Exception):
    """The controller was killed here."""


def load_nothing(_step: Step) -> None:
    """Load no role: there is none."""


@dataclass
class Simulation:
    """One site with its world, one controller run after the other.

    ``failing``: pairs of step and host that fail, of ``plan of STEP`` and host for plannings; ``kill_at``: the number
    of the point at which the run's controller is killed; ``before``: called with the step and the host before a role.
    """

    place: Path
    failing: set[tuple[str, str]] = field(default_factory=set)
    before: Callable[[str, str], None] = lambda _step, _host: None
    preload: Callable[[Step], None] = load_nothing
    kill_at: int = 0
    check_mode: bool = False
    digest: str = "inputs"
    strategy: str = "linear"
    serial: bool = False
    points: int = 0
    runs: int = 0
    world: World = field(default_factory=lambda: deepcopy(BEGINNING))
    performed: list[tuple[str, str]] = field(default_factory=list)
    """What the roles of the last run were performed for, check mode left out."""
    opened: dict[str, Any] = field(default_factory=dict)
    closed: dict[str, Any] = field(default_factory=dict)
    controller: subprocess.Popen[bytes] | None = None
    clock: Callable[[], float] | None = None
    directory: Path | None = None

    @property
    def store(self) -> FileStore:
        """The store of the site."""
        return FileStore.from_site(str(self.directory or self.place / "windows"), "site")

    @property
    def folder(self) -> str:
        """Ansible's temporary directory of this run."""
        return str(self.place / f"run{self.runs}")

    @property
    def _clock(self) -> dict[str, Any]:
        return {"clock": self.clock} if self.clock else {}

    def make_request(self, **changes: Any) -> Request:
        """Return what a run asks for."""
        values: dict[str, Any] = {
            "name": "weekly",
            "steps": STEPS,
            "place": Place("site", str(self.directory or self.place / "windows")),
            "version": "1.0.0",
            "duration": 600.0,
            "orphan_timeout": 0.0,
            "places": 24,
            **changes,
        }
        return Request(**values)

    def start_controller(self) -> Controller:
        """Start the process of one more run, with a temporary directory of its own."""
        self.runs += 1
        self.points = 0
        self.performed = []
        Path(self.folder).mkdir(parents=True)
        self.controller = subprocess.Popen(["sleep", "1000"])
        return Controller(
            pid=self.controller.pid,
            folder=self.folder,
            pipe=None,
            check_mode=self.check_mode,
            control=["ctl"],
            host="ctl",
            limits={},
        )

    def end_controller(self) -> None:
        """End the process of the run."""
        if self.controller is not None:
            self.controller.kill()
            self.controller.wait()
            self.controller = None

    @property
    def engine(self) -> Engine:
        """The engine as a worker of this run finds it."""
        return Engine(OpenWindow.load(self.folder), **self._clock)

    def point(self) -> None:
        """Be killed, if it is here."""
        self.points += 1
        if self.points == self.kill_at:
            raise KilledError

    def act(self, step: str, host: str, *, check: bool) -> dict[str, Any]:
        """Do what the step's role does: one write, idempotent, between two points."""
        if (f"plan of {step}" if check else step, host) in self.failing:
            raise OpsError(obj=f"{step} of {host}", problem="told to fail", next_step="Go on")
        world = self.world[host]
        target = {
            "save": {"age": 0},
            "maintain": {"dead": 0},
            "quiesce": {"replicas": 0, "before": 3},
            "resume": {"replicas": world.get("before", world.get("replicas", 0))},
        }.get(step, {})
        changed = "before" in world if step == "resume" else any(world.get(key) != target[key] for key in target)
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
            "summary": f"{step} {'was due' if changed else 'is as it should be'}",
            "plan": [{"object": host, "what": step, "why": "due"}] if changed else [],
            "evidence": [f"{step} of {host} read back"],
        }

    def call_step(
        self,
        step: str,
        host: str,
        *,
        hosts: Sequence[str],
        planning: bool = False,
        play: int | None = None,
        batch: int = 0,
        reverting: bool = False,
    ) -> StepCall:
        """Return the step on the host as a task asks for it."""
        return StepCall(
            host=host,
            step=step,
            play=play,
            batch=batch,
            planning=planning,
            reverting=reverting,
            play_hosts=tuple(hosts),
            serial=self.serial,
            strategy=self.strategy,
            digest=lambda _step: self.digest,
        )

    def run_tasks(self, calls: Sequence[StepCall]) -> list[dict[str, Any]]:
        """Run the tasks around a step on some hosts, task after task as the linear strategy does; return what each
        host's first one said."""
        answers: list[dict[str, Any]] = []
        for call in calls:
            self.point()
            try:
                answers.append(self.engine.begin_step(call, preload=self.preload))
            except OpsError as error:
                answers.append({"perform": False, "over": False})
                self._fail(call, error, "lowtide.ops.window")
        for call, answer in zip(calls, answers, strict=True):
            if not answer["perform"]:
                continue
            try:
                check = call.planning or self.check_mode
                if not check:
                    self.performed.append((str(answer["role"]).removeprefix("demo."), call.host))
                self.before(answer["role"].removeprefix("demo."), call.host)
                result = self.act(answer["role"].removeprefix("demo."), call.host, check=check)
            except OpsError as error:
                self._fail(call, error, "demo")
                continue
            self.point()
            self.engine.finish_step(call, result)
            self.point()
        return answers

    def _fail(self, call: StepCall, error: OpsError, action: str) -> None:
        self.engine.fail_step(call, error={"msg": str(error), "error": error.as_dict()}, task={"action": action})

    def open(self, **changes: Any) -> dict[str, Any]:
        """Open in a new controller; ``inventory`` replaces the inventory."""
        controller = self.start_controller()
        self.point()
        inventory = changes.pop("inventory", None) or make_inventory()
        opening = Opening(controller, **self._clock)
        self.opened = opening.open(self.make_request(**changes), inventory, preload=self.preload)
        return self.opened

    def plan(self) -> None:
        """Run the plays that find out what is in force, revert what runs before left, and find out what is due."""
        self._plan("planning_reverts")
        self.revert()
        self._plan("planning")

    def _plan(self, which: str) -> None:
        hosts = self.find_play(f":{which}")["hosts"]
        for host in hosts if hosts != NO_HOST else []:
            for step in self.opened[which].get(host, []):
                self.run_tasks([self.call_step(step, host, hosts=hosts, planning=True)])

    def revert(self) -> None:
        """Run the plays that revert out of turn what has no place of its own."""
        self.point()
        in_force = self.engine.list_in_force()
        hosts = self.find_play(":reverting", __window_in_force=in_force)["hosts"]
        assert (hosts == NO_HOST) == (not in_force["items"])
        for item in in_force["items"]:
            calls = [
                self.call_step(item["step"], host, hosts=hosts, batch=item["batch"], reverting=True) for host in hosts
            ]
            self.run_tasks(calls)

    def find_play(self, place: int | str, **control: Any) -> dict[str, Any]:
        """Return the play at a place as the playbook finds it."""
        return window_play({"ctl": {"window_opened": self.opened, **control}}, {"control": ["ctl"]}, place)

    def perform(self) -> None:
        """Run the plays of the steps, as many as the playbook has places."""
        begun: dict[str, Any] = {}
        for place in range(24):
            hosts = self.find_play(place, **begun)["hosts"]
            if hosts == NO_HOST:
                continue
            self.point()
            calls = [self.call_step("", host, hosts=hosts, play=place) for host in hosts]
            answers = self.run_tasks(calls)
            begun = {"__window_begin": answers[hosts.index("ctl")]}

    def close(self) -> dict[str, Any]:
        """Run the last plays."""
        self.revert()
        self.point()
        self.closed = close_window(self.engine.window, **self._clock)
        self.point()
        verdict = read_verdict(self.folder)
        assert verdict["failed"] == (verdict["state"] not in SUCCESSFUL)
        return verdict

    def run(self, **changes: Any) -> str:
        """Run a whole window; return its state, with its cause when it was refused before anything was recorded."""
        try:
            if self.open(**changes)["refused"]:
                verdict = read_verdict(self.folder)
                assert verdict["failed"]
                return f"refused: {verdict['cause']}"
            self.plan()
            self.perform()
            return str(self.close()["state"])
        finally:
            self.end_controller()

    def kill(self, point: int, **changes: Any) -> bool:
        """Run and kill at ``point``; return whether the run came so far."""
        self.kill_at = point
        try:
            self.run(**changes)
        except KilledError:
            return True
        finally:
            self.kill_at = 0
        return False

    def restore(self, **changes: Any) -> str:
        """Run the playbook restore_service."""
        return self.run(**{"name": "restore_service", "mode": "restore", "places": 0, **changes})

    # -- what is on record ----------------------------------------------------------------------------------------

    def read_events(self, window_id: str | None = None) -> list[Event]:
        """Return the events of an occurrence, of the last opened one by default."""
        return self.store.load(self.store.make_name(window_id or self.opened["window_id"]))

    def read_state(self, window_id: str | None = None) -> WindowState:
        """Return the state of an occurrence."""
        return compute_state(self.read_events(window_id))

    def read_skips(self) -> dict[tuple[str, str], str]:
        """Return why steps were left out by the last run."""
        return {key: event.why for key, event in self.read_state().skipped.items()}

    def list_left(self) -> dict[str, list[tuple[str, str]]]:
        """Return what journals say is in force, by occurrence."""
        states = read_occurrences(self.store).states
        return {window_id: sorted(state.pending) for window_id, state in states.items() if state.pending}


def make_entries(*, without: str = "", **changes: Any) -> list[Entry]:
    """Return the steps, without one, or with other keys for some of them."""
    return [{**step, **changes.get(step["name"], {})} for step in STEPS if step["name"] != without]


def make_groups(**changes: Any) -> dict[str, list[str]]:
    """Return the groups of the inventory with changes."""
    return {**GROUPS, **changes}


def end(simulation: Simulation, step: str, host: str) -> None:
    """End a step on a host well."""
    simulation.engine.finish_step(StepCall(host=host, step=step), {"changed": True, "summary": f"{step} is done"})


def give_earlier_lease(simulation: Simulation, *, is_released: bool = False, **owner: Any) -> None:
    """Have the store hold a lease of the token before, as after a failover, with other facts of its owner."""
    lease = simulation.store.read_lease()
    assert lease is not None
    with simulation.store.lock():
        earlier = replace(lease, token=lease.token - 1, released=is_released, owner=replace(lease.owner, **owner))
        simulation.store._write_lease(earlier)


def leave_in_force(simulation: Simulation, *hosts: str, **options: Any) -> None:
    """Run a window whose reverting step fails on some hosts."""
    simulation.failing = {("resume", host) for host in hosts}
    assert simulation.run(**{"start": "monday", **options}) == "failed_not_reverted"
    simulation.failing = set()


def leave_no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let Ansible's temporary directory be full: no journal is copied into it."""

    def fail(store: FileStore, _name: str, _events: Any) -> None:
        raise OSError(errno.ENOSPC, f"No space left on device: {store.location}")

    monkeypatch.setattr(FileStore, "copy", fail)


def damage(simulation: Simulation, window_id: str) -> None:
    """Change a byte in the first line of a journal."""
    store = simulation.store
    path = store.directory / "journals" / f"{store.make_name(window_id)}.jsonl"
    path.write_bytes(path.read_bytes().replace(b"quiesce", b"quiezce", 1))
