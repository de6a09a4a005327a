# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the window takes from the results of tasks and roles; pure.

Private to lowtide.ops: do not import from other collections.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ansible.module_utils.parsing.convert_bool import BOOLEANS_FALSE

from .events import MAX_ITEMS

Result = dict[str, Any]
MAX_TEXT = 2000
"""At most so many characters of one message are kept."""
NO_RESULT = "it gave no result"
"""The summary of a role that left none."""


@dataclass(frozen=True)
class RoleResult:
    """What is kept of a role's result; ``given`` is false when it left none."""

    given: bool
    changed: bool
    summary: str
    plan: list[Result] = field(default_factory=list)
    blockers: list[Result] = field(default_factory=list)
    evidence: list[str] = field(default_factory=list)

    @classmethod
    def from_value(cls, value: Any, *, otherwise_changed: bool) -> RoleResult:
        """Read a role's public result. A role that left none is taken to have changed something if
        ``otherwise_changed``."""
        if not isinstance(value, dict) or "changed" not in value:
            return cls(False, otherwise_changed, NO_RESULT)
        evidence = value.get("evidence")
        return cls(
            True,
            bool(value["changed"]),
            str(value.get("summary") or "")[:MAX_TEXT],
            list_dicts(value.get("plan")),
            list_dicts(value.get("blockers")),
            [str(line)[:MAX_TEXT] for line in evidence[:MAX_ITEMS]] if isinstance(evidence, list) else [],
        )


@dataclass(frozen=True)
class Failure:
    """A failed task in words."""

    error: str
    plan: list[Result] = field(default_factory=list)
    blockers: list[Result] = field(default_factory=list)


def list_dicts(value: Any) -> list[Result]:
    """Return the first dictionaries in a list that somebody else filled."""
    return [item for item in value[:MAX_ITEMS] if isinstance(item, dict)] if isinstance(value, list) else []


def _is_set(value: Any) -> bool:
    """Return whether a keyword of a task is on. A failed task may come with its keywords as text; what is neither true
    nor false (a template) counts as on, so that nothing hidden is told."""
    return (value.strip().lower() not in BOOLEANS_FALSE) if isinstance(value, str) else bool(value)


def describe_error(result: Any, task: Any) -> Failure:
    """Return the failed task and its message in words. A ``no_log`` task stays silent."""
    result = result if isinstance(result, dict) else {}
    task = task if isinstance(task, dict) else {}
    is_own = str(task.get("action", "")).endswith("ops.window")  # the window's own refusal names its object itself
    name = "" if is_own else f"{task.get('name') or task.get('action') or 'task'}: "
    if result.get("_ansible_no_log") or _is_set(task.get("no_log")):
        return Failure(f"{name}failed (its output is hidden by no_log)")
    items = result.get("results")
    if isinstance(items, list):  # of a loop: the first item that failed says why
        result = next((item for item in items if isinstance(item, dict) and item.get("failed")), result)
    return Failure(
        f"{name}{str(result.get('msg') or 'failed')[:MAX_TEXT]}",
        list_dicts(result.get("plan")),
        list_dicts(result.get("blockers")),
    )


def make_stats(result: Result, **more: Result) -> Result:
    """Return the result, and others by their names, as ``set_stats`` gives them, which AWX keeps as a job's
    artifacts."""
    return {"ansible_stats": {"data": {"lowtide_window": result, **more}, "per_host": False, "aggregate": False}}
