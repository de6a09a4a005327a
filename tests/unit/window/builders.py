# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Declarations, events, states and processes for the tests of the window's engine."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ansible_collections.lowtide.ops.plugins.plugin_utils._window.declaration import Declaration, Inventory
from ansible_collections.lowtide.ops.plugins.plugin_utils._window.events import (
    Event,
    StepEvent,
    StepFailed,
    StepPlanned,
    StepReached,
    StepSkipped,
    StepStarted,
    StepSucceeded,
    WindowClosed,
    WindowOpened,
)
from ansible_collections.lowtide.ops.plugins.plugin_utils._window.renewal import Moment
from ansible_collections.lowtide.ops.plugins.plugin_utils._window.rules import HostContext, WindowRules
from ansible_collections.lowtide.ops.plugins.plugin_utils._window.state import WindowState, compute_state

Entry = dict[str, Any]
GROUPS: dict[str, list[str]] = {
    "control": ["ctl"],
    "web": ["web1", "web2"],
    "db": ["db1", "db2"],
    "empty": [],
}
STEPS: list[Entry] = [
    {"name": "save", "role": "demo.save", "hosts": "db", "plan": True},
    {"name": "quiesce", "role": "demo.quiesce", "hosts": "web"},
    {
        "name": "maintain",
        "role": "demo.maintain",
        "batches": ["db1", "db2"],
        "needs": ["quiesce"],
        "plan": True,
        "irreversible": True,
    },
    {"name": "resume", "role": "demo.resume", "reverts": "quiesce"},
    {"name": "verify", "role": "demo.verify", "hosts": "web", "only_after": ["resume", "save"], "reads_only": True},
]
"""A window with every kind of step. Its plays: save, quiesce, maintain (1 of 2, 2 of 2), resume, verify."""


def make_inventory(groups: Mapping[str, Sequence[str]] = GROUPS, *, files: Sequence[str] = ()) -> Inventory:
    """Return an inventory whose task files are ``files``."""
    return Inventory(groups, "ctl", lambda path: f"/site/{path}" if path in files else None)


def declare(*entries: Entry, files: Sequence[str] = ()) -> Declaration:
    """Return the declaration of these entries; of :data:`STEPS` when there are none."""
    return Declaration.from_entries(list(entries or STEPS), make_inventory(files=files))


def make_step(name: str, hosts: Any = "web", **keys: Any) -> Entry:
    """Return an entry of window_steps. ``hosts=None`` leaves them out."""
    entry: Entry = {"name": name, "role": f"demo.{name}", **keys}
    return entry if hosts is None else {"hosts": hosts, **entry}


def open_window(declaration: Declaration, **changes: Any) -> WindowOpened:
    """Return the event that opens ``weekly@monday`` at 1000 with an end at 2000."""
    values: dict[str, Any] = {
        "at": 1000.0,
        "token": 1,
        "window": "weekly",
        "window_id": "weekly@monday",
        "start": "monday",
        "mode": "window",
        "steps": json.loads(json.dumps(declaration.as_dicts())),
        "selected": [step.name for step in declaration],
        "control": "ctl",
        "ends": 2000.0,
        "version": "1.0.0",
        **changes,
    }
    return WindowOpened(**values)


def plan(step: str, host: str, due: bool = True, **changes: Any) -> StepPlanned:
    """Return the event of a step that was planned."""
    return StepPlanned(step=step, host=host, due=due, summary=f"{step} is {'due' if due else 'not due'}", **changes)


def reach(step: str, batch: int = 0) -> StepReached:
    """Return the event of a play that was reached."""
    return StepReached(step=step, batch=batch)


def start(step: str, host: str, *, reverted_by: str | None = None, batch: int = 0, **changes: Any) -> StepStarted:
    """Return the event of a step that was started."""
    return StepStarted(step=step, host=host, batch=batch, why="due", digest="d", reverted_by=reverted_by, **changes)


def succeed(step: str, host: str, changed: bool = True, **changes: Any) -> StepSucceeded:
    """Return the event of a step that ended well."""
    values: dict[str, Any] = {"digest": "d", "version": "1.0.0", "summary": f"{step} is done", **changes}
    return StepSucceeded(step=step, host=host, changed=changed, **values)


def fail(step: str, host: str, **changes: Any) -> StepFailed:
    """Return the event of a step that failed."""
    return StepFailed(step=step, host=host, error=changes.pop("error", "broken"), **changes)


def skip(step: str, host: str, *, not_due: bool = False) -> StepSkipped:
    """Return the event of a step that was left out."""
    return StepSkipped(step=step, host=host, why="nothing to do", not_due=not_due)


def close(state: str = "succeeded", cause: str = "") -> WindowClosed:
    """Return the event of a run that came to its end."""
    return WindowClosed(state=state, cause=cause)


def stop_and_start(host: str = "web1") -> list[StepEvent]:
    """Return the events of a step ``quiesce`` that is in force on a host."""
    return [start("quiesce", host, reverted_by="resume"), succeed("quiesce", host)]


def stamp(events: Sequence[Event]) -> list[Event]:
    """Return the events as journals have them: each with the token of its run, and a second after the one before."""
    stamped: list[Event] = []
    token = 0
    for number, event in enumerate(events):
        token = token + 1 if isinstance(event, WindowOpened) else token
        stamped.append(replace(event, at=event.at or 1000.0 + number, token=event.token if token == 0 else token))
    return stamped


def compute(*events: Event) -> WindowState:
    """Return the state after these events."""
    return compute_state(stamp(events))


def make_rules(*events: Event, declaration: Declaration | None = None, **opening: Any) -> WindowRules:
    """Return the rules of an occurrence of :data:`STEPS` that was opened, after these events."""
    return WindowRules(compute(open_window(declaration or declare(), **opening), *events))


def ask(host: str, *, digest: str = "d", version: str = "1.0.0") -> HostContext:
    """Return the host that asks what to do."""
    return HostContext(host, lambda: digest, version)


def find_number(rules: WindowRules, step: str, batch: int = 0) -> int:
    """Return the number of a step's play."""
    return rules.declaration.find_play(step, batch)


def reach_until(step: str, batch: int = 0, declaration: Declaration | None = None) -> list[Event]:
    """Return the events of all plays up to, and with, that of a step."""
    reached: list[Event] = []
    for play in (declaration or declare()).plays:
        reached.append(reach(play.step, play.batch))
        if (play.step, play.batch) == (step, batch):
            break
    return reached


def list_files(directory: Path) -> dict[str, bytes]:
    """Return the files below a directory with their contents, hidden ones too."""
    return {
        str(path.relative_to(directory)): path.read_bytes() for path in sorted(directory.rglob("*")) if path.is_file()
    }


def ago(seconds: float) -> Moment:
    """Return a time before this one."""
    return Moment(*(value - seconds for value in Moment.now()))


def wait_until(condition: Callable[[], bool], *, seconds: float = 60.0) -> bool:
    """Wait until a condition holds, at most so many seconds, and return whether it does."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.005)
    return True


def fill(disk: Path) -> Path:
    """Fill a small disk to the last byte and return the file that does."""
    filler = disk / "filler"
    left = os.statvfs(disk).f_bavail
    filler.write_bytes(b"\0" * left * os.statvfs(disk).f_frsize)
    assert os.statvfs(disk).f_bavail == 0
    return filler
