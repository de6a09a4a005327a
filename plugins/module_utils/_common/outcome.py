# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What every module reports, also when it fails. Private to lowtide.ops: do not import from other collections."""

from __future__ import annotations

from typing import Any, NamedTuple

# Named tuples and plain classes where a dataclass would do: each task compiles what it imports, and a dataclass
# writes and compiles its methods anew each time (four times the cost of a named tuple).


class PlanItem(NamedTuple):
    """One intended change: which object, what, and why; ``estimate`` in seconds, None when unknown."""

    object: str
    what: str
    why: str
    reversible: bool = True
    estimate: float | None = None


class Blocker(NamedTuple):
    """What stands in the way, who holds it (and since when), and what to do about it."""

    object: str
    what: str
    holder: str
    next_step: str
    since: str | None = None


class Outcome:
    """The result of a module run, filled while it happens, so that a failure still reports how far it got.

    ``summary`` is one line for the journal and the report, empty on a failure before anything was known; ``evidence``
    are short lines that prove it. ``write_attempted``: something was sent that could have changed the world.
    ``before`` and ``after`` are the plain values whose difference is the diff; ``waited`` is in seconds;
    ``check_mode`` says that all of it is a prediction (a variable of the play cannot: check mode is a property of a task);
    ``facts`` holds the module's own return values, merged into the top level of the result.
    """

    def __init__(self, *, check_mode: bool = False) -> None:
        self.changed = False
        self.write_attempted = False
        self.summary = ""
        self.evidence: list[str] = []
        self.before: Any = None
        self.after: Any = None
        self.plan: list[PlanItem] = []
        self.blockers: list[Blocker] = []
        self.waited = 0.0
        self.check_mode = check_mode
        self.facts: dict[str, Any] = {}

    def as_result(self) -> dict[str, Any]:
        """The dictionary for ``exit_json`` and ``fail_json``."""
        result: dict[str, Any] = dict(self.facts)
        result["changed"] = self.changed
        result["summary"] = self.summary
        result["evidence"] = list(self.evidence)
        result["plan"] = [item._asdict() for item in self.plan]
        result["blockers"] = [blocker._asdict() for blocker in self.blockers]
        result["check_mode"] = self.check_mode
        result["waited"] = round(self.waited, 3)
        if self.before is not None or self.after is not None:
            result["diff"] = {"before": self.before or {}, "after": self.after or {}}
        return result
