# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which bounded fix a decision tree has for a cause, and why it is not made: pure, for the role diagnose.

Private to lowtide.ops: do not import from other collections.
"""

from __future__ import annotations

import datetime
import typing as t

from ansible_collections.lowtide.ops.plugins.module_utils._common.errors import Refusal
from ansible_collections.lowtide.ops.plugins.module_utils._common.text import format_duration
from ansible_collections.lowtide.ops.plugins.module_utils._common.timestamps import format_utc
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.quantities import parse_quantity

Json = dict[str, t.Any]
Diagnosis = t.Mapping[str, t.Any]

FIXES = ("none", "restart", "scale", "raise_limit")
FIXED = "lowtide.ops/fixed"
MANAGER = "lowtide.ops"
_MEBI = 1024 * 1024
_PARAMETERS = {
    "none": (set(), set()),
    "restart": (set(), set()),
    "scale": ({"step", "limit_is_per_instance"}, {"maximum"}),
    "raise_limit": ({"factor", "container"}, {"maximum"}),
}
"""What each fix takes as its parameters and as its bound."""


class Tree(t.NamedTuple):
    """One cause: its reason (of an observation with its name), what it means, and the fix for it."""

    when: str
    observation: str
    verdict: str
    fix: str
    parameters: Json
    bound: Json


class Proposal(t.NamedTuple):
    """What is to be done: ``what`` in words, and the options of the module that does it. ``refused`` says why not."""

    fix: str
    what: str = ""
    options: t.Mapping[str, t.Any] = {}
    refused: str = ""


def propose_fix(
    diagnosis: Diagnosis, trees: t.Any, *, apply: bool, cooldown: float, now: float, run_id: str = ""
) -> Json:
    """Return the result of a diagnosis with the fix for its cause: what it would change, or why nothing is changed.

    The fix is for the verdict alone, never for the other findings. ``apply`` of the result: it is to be made now.
    """
    tree = find_tree([read_tree(entry, number) for number, entry in enumerate(trees)], diagnosis["verdict"])
    proposal = _refuse_within_cooldown(_plan_fix(diagnosis, tree, now), diagnosis, cooldown, now)
    verdict = diagnosis["verdict"]
    is_due = proposal.fix != "none" and not proposal.refused
    options = dict(proposal.options)
    if is_due and proposal.fix != "scale":
        by = f" by {run_id}" if run_id else ""
        note = f"{proposal.fix} for {verdict['reason']} at {format_utc(now)}{by}"
        options["pod_annotations"] = {FIXED: note}
    return {
        "changed": False,
        "check_mode": bool(diagnosis.get("check_mode")),
        "summary": _summarize(diagnosis, tree, proposal, apply=apply),
        "evidence": list(diagnosis["evidence"]),
        "plan": _list_plan(diagnosis, proposal) if is_due else [],
        "blockers": _list_blockers(diagnosis, tree, proposal, apply=apply),
        "apply": apply and is_due,
        "proposal": {
            "fix": proposal.fix,
            "what": proposal.what,
            "why": tree.verdict,
            "refused": proposal.refused or None,
            "options": options,
        },
    }


def read_tree(entry: t.Any, number: int) -> Tree:
    """Read an entry of the option diagnose_trees. Raises Refusal for one that is not understood."""
    obj = f"diagnose_trees, entry {number}"
    if not isinstance(entry, dict) or not entry.get("when"):
        raise Refusal(obj=obj, problem=f"it is {entry!r} and has no when", next_step="Give when, verdict and fix")
    obj += f" (when {entry['when']})"
    fix = entry.get("fix") or {"name": "none"}
    name = fix.get("name") if isinstance(fix, dict) else fix
    if name not in FIXES:
        raise Refusal(obj=obj, problem=f"its fix {name!r} is not known", next_step=f"Give one of {', '.join(FIXES)}")
    parameters, bound = dict(fix.get("parameters") or {}), dict(fix.get("bound") or {})
    known_parameters, known_bounds = _PARAMETERS[name]
    unknown = sorted((parameters.keys() - known_parameters) | (bound.keys() - known_bounds))
    if unknown:
        known = ", ".join(sorted(known_parameters | known_bounds)) or "nothing"
        raise Refusal(
            obj=obj,
            problem=f"{name} does not take {', '.join(unknown)}",
            next_step=f"It takes {known}; correct the entry",
        )
    missing = sorted(known_bounds - bound.keys())
    if missing:
        raise Refusal(
            obj=obj,
            problem=f"its fix {name} has no bound",
            next_step="Set fix.bound.maximum; what has no bound is not changed by itself",
        )
    words = str(entry.get("verdict") or "")
    return Tree(str(entry["when"]), str(entry.get("observation") or ""), words, name, parameters, bound)


def find_tree(trees: t.Iterable[Tree], verdict: t.Mapping[str, t.Any]) -> Tree:
    """Return the first tree for a cause; one that names an observation is for that one only. Without any: no fix."""
    for tree in trees:
        if tree.when == verdict["reason"] and tree.observation in ("", verdict["object"]):
            return tree
    return Tree(verdict["reason"], "", "", "none", {}, {})


def _plan_fix(diagnosis: Diagnosis, tree: Tree, now: float) -> Proposal:
    verdict = diagnosis["verdict"]
    if tree.fix == "restart":
        if not verdict["current"]:
            return Proposal("restart", refused="what was found is over, and a restart mends nothing that is over")
        return Proposal("restart", "replace its pods one after the other", {"restarted_after": format_utc(now)})
    if tree.fix == "scale":
        return _plan_scale(diagnosis, tree)
    if tree.fix == "raise_limit":
        return _plan_limit(diagnosis, tree)
    return Proposal("none")


def _plan_scale(diagnosis: Diagnosis, tree: Tree) -> Proposal:
    """Return one step more, up to the bound; never against a limit that all replicas share and would reach sooner."""
    if diagnosis["workload"]["kind"] == "DaemonSet":
        return Proposal("scale", refused="a DaemonSet has a pod on each of its nodes and no number of replicas")
    if tree.when == "observation_above_limit" and tree.parameters.get("limit_is_per_instance") is not True:
        words = "more replicas raise the load on a limit that they share"
        return Proposal("scale", refused=f"{words}; set limit_is_per_instance if each has its own")
    replicas, maximum = int(diagnosis["workload"]["replicas"]), int(tree.bound["maximum"])
    goal = min(maximum, replicas + int(tree.parameters.get("step", 1)))
    if goal <= replicas:
        return Proposal("scale", refused=f"it has {replicas} replicas, and its bound is {maximum}")
    return Proposal("scale", f"replicas {replicas} -> {goal}", {"replicas": goal})


def _plan_limit(diagnosis: Diagnosis, tree: Tree) -> Proposal:
    """Return a higher memory limit of one container, up to the bound."""
    name = tree.parameters.get("container") or diagnosis["verdict"].get("container")
    containers = {entry["name"]: entry for entry in diagnosis["containers"]}
    if name not in containers:
        return Proposal("raise_limit", refused=f"the verdict names no container of it ({', '.join(containers)})")
    limit = containers[name]["limits"].get("memory")
    if not limit:
        return Proposal("raise_limit", refused=f"container {name} has no memory limit that could be raised")
    now_bytes, maximum = parse_quantity(limit), parse_quantity(tree.bound["maximum"])
    raised = min(maximum, now_bytes * parse_quantity(tree.parameters.get("factor", 1.5)))
    mebibytes = int(raised // _MEBI)
    if mebibytes * _MEBI <= now_bytes:
        return Proposal("raise_limit", refused=f"its limit is {limit}, and its bound is {tree.bound['maximum']}")
    limits = {"limits": {"memory": f"{mebibytes}Mi"}}
    what = f"memory limit of container {name} {limit} -> {mebibytes}Mi"
    return Proposal("raise_limit", what, {"containers": [{"name": name, "resources": limits}]})


def _refuse_within_cooldown(proposal: Proposal, diagnosis: Diagnosis, cooldown: float, now: float) -> Proposal:
    """Refuse what was done for the same cause a short time ago, and did not help."""
    if proposal.fix == "none" or proposal.refused:
        return proposal
    changes = diagnosis["last_changes"]
    fixed = changes.get("fixed") or {}
    done: list[tuple[str, t.Any]] = []
    if fixed.get("reason") == diagnosis["verdict"]["reason"]:
        done.append((f"{fixed.get('fix')} was done for the same cause", fixed.get("at")))
    if proposal.fix == "restart":
        done.append(("its pods were restarted", changes.get("restarted_at")))
    if proposal.fix == "scale" and changes.get("replicas_by") == MANAGER:
        done.append(("it was scaled", changes.get("replicas_at")))
    for words, at in done:
        moment = _parse_time(at)
        if moment is not None and now - moment < cooldown:
            ago = format_duration(now - moment)
            limit = f"diagnose_cooldown {cooldown:g} s"
            refused = f"{words} {ago} ago ({at}) and it is not mended; a person has to look ({limit})"
            return proposal._replace(refused=refused)
    return proposal


def _parse_time(text: t.Any) -> float | None:
    try:
        return datetime.datetime.fromisoformat(str(text)).timestamp()
    except ValueError:
        return None


def _list_plan(diagnosis: Diagnosis, proposal: Proposal) -> list[Json]:
    workload = diagnosis["workload"]
    title = f"{workload['kind']} {workload['namespace']}/{workload['name']}"
    why = f"{diagnosis['verdict']['reason']}: {diagnosis['verdict']['message']}"
    return [{"object": title, "what": proposal.what, "why": why, "reversible": True, "estimate": None}]


def _list_blockers(diagnosis: Diagnosis, tree: Tree, proposal: Proposal, *, apply: bool) -> list[Json]:
    """Return what a person has to do: nothing where all is well, or where the fix is made now."""
    verdict = diagnosis["verdict"]
    if verdict["reason"] == "healthy" or (apply and proposal.fix != "none" and not proposal.refused):
        return []
    next_step = verdict["next_step"]
    if proposal.fix != "none" and not proposal.refused:
        next_step = f"Look at the evidence, and run again with diagnose_apply: true to {proposal.fix} ({proposal.what})"
    words = "; ".join(part for part in (tree.verdict, proposal.refused) if part)
    return [
        {
            "object": verdict["object"],
            "what": f"{verdict['reason']}: {verdict['message']}" + (f" ({words})" if words else ""),
            "holder": verdict["object"],
            "since": verdict["since"],
            "next_step": next_step,
        }
    ]


def _summarize(diagnosis: Diagnosis, tree: Tree, proposal: Proposal, *, apply: bool) -> str:
    """Return one line: the cause, and what is done about it or why nothing is."""
    if diagnosis["verdict"]["reason"] == "healthy":
        return str(diagnosis["summary"])
    if proposal.refused:
        told = f"no {proposal.fix}: {proposal.refused}"
    elif proposal.fix == "none":
        told = f"no fix by itself{f': {tree.verdict}' if tree.verdict else ''}"
    elif apply:
        told = f"fix: {proposal.what}"
    else:
        told = f"proposed: {proposal.what} (diagnose_apply is false)"
    return f"{diagnosis['summary']}; {told}"
