# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a window has to do next, from its journal alone; pure. Private to lowtide.ops: do not import from other collections.

Record kinds: ``open`` (id, name, run, steps, selected, version, resumed), ``plan`` (step, host, expected, due, summary, plan, blockers),
``planning`` (step, host, expected), ``begin`` (step, host, expected, digest, closer), ``end`` (step, host, ok, changed, summary, error, digest, version,
closes, closes_all), ``skip`` (step, host, why), ``failure`` (step, host, error, refused, planning), ``settle`` and ``close`` (state, cause).
All carry ``id`` (the occurrence) and ``run`` (the fencing token of the controller run).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from .._common.errors import Refusal
from .journal import Record
from .processes import utc
from .steps import Step, Steps

State = Literal["nothing_to_do", "done", "refused", "failed_closed", "failed_open"]
FINISHED = frozenset({"nothing_to_do", "done"})
RESUME_WITHIN = 86400.0
"""Seconds after its opening for which an unfinished occurrence is resumed when no ``window_start`` is given."""

DIED = "it was begun and never ended (host unreachable, or its process died)"
Key = tuple[str, str]
"""A step on a host."""


def window_id(name: str, start: str) -> str:
    """``name@start``."""
    return f"{name}@{start}"


def choose_start(records: Iterable[Record], *, name: str, start: str, today: str, now: float) -> str:
    """The start of the occurrence that this run belongs to: the given one, else that of an unfinished one not older than
    :data:`RESUME_WITHIN`, else ``today``."""
    if start:
        return start
    unfinished: dict[str, float] = {}
    for record in records:
        if record["kind"] == "open" and record["name"] == name:
            unfinished.setdefault(record["id"], record["at"])
        elif record["kind"] == "close" and record["state"] in FINISHED:
            unfinished.pop(record["id"], None)
    recent = [identity for identity, opened in unfinished.items() if now - opened <= RESUME_WITHIN]
    return recent[-1].partition("@")[2] if recent else today


@dataclass(frozen=True)
class Decision:
    """Whether this host performs this step now, and why (not)."""

    run: bool
    why: str
    skip: bool = False
    """Whether it is worth a line in the journal that the step was left out here."""


@dataclass
class Occurrence:
    """One occurrence of a window as its journal tells it, folded by :func:`read`."""

    id: str
    run: int
    opened: float = 0.0
    first_opened: float = 0.0
    done: dict[Key, Record] = field(default_factory=dict)
    begun: dict[Key, Record] = field(default_factory=dict)
    ends: dict[Key, Record] = field(default_factory=dict)
    skips: dict[Key, Record] = field(default_factory=dict)
    planning: set[Key] = field(default_factory=set)
    """Plannings that were begun and have not ended."""
    plans: dict[Key, Record] = field(default_factory=dict)
    failures: list[Record] = field(default_factory=list)
    owed: dict[Key, Record] = field(default_factory=dict)
    """Brackets that were opened and not closed, of this and of earlier occurrences, by (opening step, host)."""
    acted: set[str] = field(default_factory=set)
    """Steps begun on any host in this occurrence."""
    expected: dict[str, set[str]] = field(default_factory=dict)
    """Hosts whose play came to a step (or to its planning) and who perform it."""
    resumed: bool = False

    @property
    def failed(self) -> bool:
        """Whether anything failed in this run."""
        return bool(self.failures)

    def owed_hosts(self, opener: str) -> list[str]:
        """Hosts on which ``opener`` was begun and not closed."""
        return [host for step, host in self.owed if step == opener]

    def _finish(self) -> None:
        """The occurrence came to its end: what follows is planned anew."""
        for part in (self.done, self.begun, self.ends, self.skips, self.plans):
            part.clear()
        self.failures.clear()
        self.planning.clear()
        self.acted.clear()
        self.expected.clear()
        self.first_opened = 0.0

    def _fold_brackets(self, record: Record) -> None:
        kind = record["kind"]
        if kind == "begin" and record.get("closer"):
            self.owed[(record["step"], record["host"])] = record
        elif kind == "end" and record["ok"] and record.get("closes"):
            for key in list(self.owed):
                if key[0] == record["closes"] and (record["closes_all"] or key[1] == record["host"]):
                    del self.owed[key]
        elif kind == "settle":
            self.owed.clear()

    def _fold_open(self, record: Record) -> None:
        self.opened = record["at"]
        self.resumed = bool(self.first_opened)
        self.first_opened = self.first_opened or record["at"]
        self.failures.clear()  # a resumed run starts with a clean slate; what was done stays done
        self.planning.clear()
        self.plans.clear()
        self.begun.clear()
        self.ends.clear()
        self.skips.clear()

    def _fold_own(self, record: Record) -> None:
        kind = record["kind"]
        key = (record.get("step", ""), record.get("host", ""))
        if "expected" in record:
            self.expected.setdefault(key[0], set()).update(record["expected"])
        if kind == "open":
            self._fold_open(record)
        elif kind == "close" and record["state"] in FINISHED:
            self._finish()
        elif kind == "planning":
            self.planning.add(key)
        elif kind == "plan":
            self.plans[key] = record
            self.planning.discard(key)
        elif kind == "begin":
            self.begun[key] = record
            self.done.pop(key, None)
            self.acted.add(key[0])
        elif kind == "end":
            self.ends[key] = record
            if record["ok"]:
                self.done[key] = record
            else:
                self.failures.append(record)
        elif kind == "failure":
            self.failures.append(record)
            self.planning.discard(key)
        elif kind == "skip":
            self.skips[key] = record

    def fold(self, record: Record) -> None:
        """Take one record in."""
        self._fold_brackets(record)
        if record["id"] == self.id:
            self._fold_own(record)


def read(records: Iterable[Record], *, identity: str, run: int) -> Occurrence:
    """The occurrence ``identity`` as run ``run`` finds it."""
    occurrence = Occurrence(identity, run)
    for record in records:
        occurrence.fold(record)
    return occurrence


def obsolete(records: Sequence[Record], *, identity: str) -> int:
    """How many records, from the first on, tell nothing more of the occurrence ``identity``: it was not open then (or was
    finished later), and no bracket of then is still open."""
    occurrence = Occurrence(identity, 0)
    first = len(records)
    for number, record in enumerate(records):
        if record["id"] == identity and record["kind"] == "open" and not occurrence.first_opened:
            first = number
        occurrence.fold(record)
        if not occurrence.first_opened:
            first = len(records)
    owed = [number for number, record in enumerate(records) if record in occurrence.owed.values()]
    return min([first, *owed])


@dataclass(frozen=True)
class Here:
    """The host that asks, what computes the digest of its inputs for the step, and the collection's version."""

    host: str
    groups: Sequence[str]
    digest: Callable[[], str]
    version: str


class Window:
    """The rules: which step is due where."""

    def __init__(
        self, steps: Steps, occurrence: Occurrence, *, selected: frozenset[str], control: str, ends: float
    ) -> None:
        """``ends``: when the window's time is over, in seconds since the epoch."""
        self.steps = steps
        self.now = occurrence
        self.selected = selected
        self.control = control
        self.ends = ends

    # -- whether a step is due anywhere ---------------------------------------------------------------------------

    def due(self, name: str) -> bool:
        """Whether the step ``name`` has work on any host in this run."""
        step = self.steps[name]
        if step.closes:
            return bool(self.now.owed_hosts(step.closes)) or (name in self.selected and self.due(step.closes))
        if name not in self.selected:
            return False
        if step.follows and not any(other in self.now.acted or self.due(other) for other in step.follows):
            return False
        if self.steps.closer_of(name):
            return self._needed(name)
        plans = [plan["due"] for (planned, _host), plan in self.now.plans.items() if planned == name]
        if plans:
            return any(plans)
        expected = self.now.expected.get(name)
        return expected is None or any((name, host) not in self.now.done for host in expected)

    def _needed(self, name: str) -> bool:
        needing = self.steps.needed_by(name)
        return any(self.due(step.name) for step in needing) if needing else True

    # -- what one host does ---------------------------------------------------------------------------------------

    def decide(self, name: str, here: Here, *, now: float) -> Decision:
        """What ``here`` does about step ``name`` at ``now`` (seconds since the epoch); a refusal is a failure of the step."""
        step = self.steps[name]
        if not self.steps.performs(step, here.host, here.groups, control=self.control):
            return Decision(False, "stands by")
        if step.closes:
            return self._decide_closing(step, here)
        if name not in self.selected:
            return Decision(False, "left out by window_only or window_skip", skip=True)
        if self.now.failed:
            return Decision(False, self._after(), skip=True)
        done = self._done(step, here)
        if done is not None:
            return done
        if now > self.ends:
            raise Refusal(
                obj=f"step {name}",
                problem=f"the window's time was over at {utc(self.ends)}",
                next_step="Raise window_duration, or run the window again: it resumes with this step",
            )
        return self._decide_need(step, here)

    def _after(self) -> str:
        first = self.now.failures[0]
        return f"left out after the failure of {first['step']} on {first['host']}"

    def _decide_closing(self, step: Step, here: Here) -> Decision:
        opener = step.closes or ""
        hosts = self.now.owed_hosts(opener)
        if here.host in hosts or (hosts and self.closes_all(step)):
            return Decision(True, f"closes {opener}")
        return Decision(False, f"{opener} is not open here", skip=True)

    def closes_all(self, step: Step) -> bool:
        """Whether closing on one host closes for all: opener and closer are performed by different hosts."""
        return bool(step.closes) and self.steps[step.closes or ""].hosts != step.hosts

    def _done(self, step: Step, here: Here) -> Decision | None:
        record = self.now.done.get((step.name, here.host))
        if record is None:
            return None
        if self.steps.closer_of(step.name) and record["run"] != self.now.run:
            return None  # a bracket left open is looked after again: somebody may have closed it meanwhile
        if record["version"] != here.version:
            raise self._changed(
                step, here, f"lowtide.ops {record['version']} did it at {utc(record['at'])}, and this is {here.version}"
            )
        if record["digest"] != here.digest():
            raise self._changed(step, here, f"it was done at {utc(record['at'])} with other inputs")
        return Decision(False, f"done at {utc(record['at'])}", skip=True)

    def _changed(self, step: Step, here: Here, problem: str) -> Refusal:
        return Refusal(
            obj=f"step {step.name} on {here.host}",
            problem=problem,
            next_step=f"Resume {self.now.id} with what it was begun with, or start another occurrence with window_start",
        )

    def _decide_need(self, step: Step, here: Here) -> Decision:
        planned = self.now.plans.get((step.name, here.host))
        if self.steps.closer_of(step.name):
            if not self._needed(step.name):
                return Decision(False, "no due step needs it", skip=True)
            needing = [other.name for other in self.steps.needed_by(step.name) if self.due(other.name)]
            why = f"{', '.join(needing)} needs it" if needing else "opens the window's bracket"
        elif planned is not None and not planned["due"]:
            return Decision(False, planned["summary"] or "nothing to do", skip=True)
        elif step.follows and not self.now.acted.intersection(step.follows):
            return Decision(False, f"none of {', '.join(step.follows)} was performed", skip=True)
        else:
            why = planned["summary"] if planned is not None else "not planned: always due"
        self._require_needs(step)
        return Decision(True, why or "due")

    def _require_needs(self, step: Step) -> None:
        for name in step.needs:
            if self.steps.closer_of(name) and not self.now.owed_hosts(name):
                raise Refusal(
                    obj=f"step {step.name}",
                    problem=f"it needs {name}, which is not in force",
                    next_step=f"Put the play of {name} before that of {step.name}, and that of its closing step after it",
                )

    def decide_plan(self, name: str, here: Here) -> Decision:
        """Whether ``here`` has to find out if step ``name`` is due."""
        step = self.steps[name]
        if not self.steps.performs(step, here.host, here.groups, control=self.control):
            return Decision(False, "stands by")
        if step.closes:
            return Decision(False, "a closing step is due when what it closes is open")
        if name not in self.selected:
            return Decision(False, "left out by window_only or window_skip")
        if self.now.failed:
            return Decision(False, self._after())
        if not self.steps.closer_of(name) and self._done(step, here) is not None:
            return Decision(False, "done")
        return Decision(True, "find out whether it is due")

    # -- the end --------------------------------------------------------------------------------------------------

    @property
    def over(self) -> bool:
        """Whether no step can begin any more: one has failed, and there is nothing to close."""
        return self.now.failed and not self.now.owed

    def unfinished(self) -> list[tuple[Key, str]]:
        """Steps that never came to hosts on which they were due, with the reason."""
        found: dict[Key, str] = {}
        if not self.now.failed:
            for name, hosts in self.now.expected.items():
                for key in ((name, host) for host in sorted(hosts)):
                    if not any(key in part for part in (self.now.plans, self.now.ends, self.now.skips, self.now.done)):
                        found.setdefault(key, "this host never came to it (unreachable?)")
            for key, plan in self.now.plans.items():
                if (
                    plan["due"]
                    and not any(key in part for part in (self.now.begun, self.now.skips, self.now.done))
                    and not self.steps.closer_of(key[0])
                ):
                    found.setdefault(key, "it was due and its play never came")
        for key, record in self.now.owed.items():
            if key[0] in self.steps and (record["closer"], key[1]) not in self.now.ends:
                found.setdefault((record["closer"], key[1]), f"it was to close {key[0]} and its play never came")
        return list(found.items())

    def died(self, name: str, batch: Iterable[str]) -> list[tuple[Key, bool]]:
        """Steps that nobody performs any more and that never ended (and whether that was their planning), as seen from step
        ``name`` with ``batch`` at work on it: plays follow each other, so what another step or batch began has ended or died."""
        here = set(batch)
        known = {(failure["step"], failure["host"]) for failure in self.now.failures}
        begun = [(key, False) for key in self.now.begun if key not in self.now.ends and key not in known]
        planning = [(key, True) for key in sorted(self.now.planning)]
        return [(key, plan) for key, plan in planning + begun if not (key[0] == name and key[1] in here)]

    def cause(self) -> str:
        """The first failure, in words; empty when there is none."""
        return describe_failure(self.now.failures[0]) if self.now.failures else ""

    def state(self) -> State:
        """How the window ends, from what is on record."""
        if self.now.failed:
            if self.now.owed:
                return "failed_open"
            return "failed_closed" if self._touched() else "refused"
        return "done" if self._changed_anything() else "nothing_to_do"

    def _changed_anything(self) -> bool:
        return any(record["ok"] and record["changed"] for record in (*self.now.ends.values(), *self.now.done.values()))

    def _reads_only(self, name: str) -> bool:
        return name in self.steps and self.steps[name].reads_only

    def _touched(self) -> bool:
        """Whether anything may have changed: a step changed something, or one failed without saying that it had not begun."""
        failed = [
            record
            for record in self.now.failures
            if record["kind"] == "end" and not record.get("refused") and not self._reads_only(record["step"])
        ]
        unended = [key for key in self.now.begun if key not in self.now.ends and not self._reads_only(key[0])]
        return self._changed_anything() or bool(failed) or bool(unended)


def describe_failure(record: Record) -> str:
    """``step on host: error``."""
    return f"{'plan of ' if record.get('planning') else ''}{record['step']} on {record['host']}: {record['error']}"


def summarise(changed: bool, result: Any) -> tuple[bool, str]:
    """``changed`` and ``summary`` of a role's public result; a role that set none is taken to have changed something."""
    if not isinstance(result, dict) or "changed" not in result:
        return changed, "the role gave no result"
    return bool(result["changed"]), str(result.get("summary", ""))
