# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the window's action says and writes for others to read. Private to lowtide.ops: do not import from other collections."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from . import report

Result = dict[str, Any]


def write_report(told: dict[str, Any], base: Path) -> None:
    """The report as ``BASE.RUN.html`` and ``BASE.RUN.json``."""
    for suffix, content in ((".html", report.html(told)), (".json", json.dumps(told, indent=2) + "\n")):
        path = Path(f"{base}.{told['run']}{suffix}")
        temporary = path.with_suffix(f"{suffix}.new")
        temporary.write_text(content, encoding="utf-8")
        os.replace(temporary, path)


def stats(verdict: dict[str, Any]) -> Result:
    """The result as ``set_stats`` gives it, which AWX keeps as a job's artifacts."""
    return {"ansible_stats": {"data": {"lowtide_window": verdict}, "per_host": False, "aggregate": False}}


def dicts(value: Any) -> list[dict[str, Any]]:
    """The dictionaries in a list that somebody else filled."""
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def public(result: Any) -> Result:
    """A task's result without Ansible's own keys."""
    return (
        {key: value for key, value in result.items() if not key.startswith("_ansible_")}
        if isinstance(result, dict)
        else {}
    )


def describe_error(result: Any, task: Any) -> tuple[str, bool]:
    """The failed task and its message in words, and whether it said that nothing had been changed. A ``no_log`` task stays silent."""
    result = result if isinstance(result, dict) else {}
    task = task if isinstance(task, dict) else {}
    own = str(task.get("action", "")).endswith("ops.window")  # the window's own refusal names its object itself
    name = "" if own else f"{task.get('name') or task.get('action') or 'task'}: "
    if result.get("_ansible_no_log") or task.get("no_log"):
        return f"{name}failed (its output is hidden by no_log)", False
    items = result.get("results")
    if isinstance(items, list):  # of a loop: the first item that failed says why
        result = next((item for item in items if isinstance(item, dict) and item.get("failed")), result)
    error = result.get("error")
    refused = isinstance(error, dict) and bool(error.get("refused"))
    return f"{name}{str(result.get('msg') or 'failed')[:2000]}", refused


def collection_version() -> str:
    """This collection's version: from MANIFEST.json where it was installed, from galaxy.yml in a checkout."""
    root = Path(__file__).resolve().parents[3]
    manifest = root / "MANIFEST.json"
    if manifest.exists():
        return str(json.loads(manifest.read_text(encoding="utf-8"))["collection_info"]["version"])
    for line in (root / "galaxy.yml").read_text(encoding="utf-8").splitlines():
        key, _colon, value = line.partition(":")
        if key == "version":
            return value.strip().strip("'\"")
    return "unknown"
