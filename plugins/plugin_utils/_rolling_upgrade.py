# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""In which batches a release is rolled out, and what is told of it: pure, for the role rolling_upgrade.

Private to lowtide.ops: do not import from other collections.
"""

from __future__ import annotations

import hashlib
import json
import math
import typing as t

from ansible_collections.lowtide.ops.plugins.module_utils._common.errors import Refusal
from ansible_collections.lowtide.ops.plugins.module_utils._common.text import format_count, join_some
from ansible_collections.lowtide.ops.plugins.plugin_utils._results import merge_results

Json = dict[str, t.Any]
Result = t.Mapping[str, t.Any]

DECLARES = ("containers", "image", "pod_annotations", "restarted_after", "revision", "until")
"""Keys of a workload that say what it is to become."""


class Batch(t.NamedTuple):
    """One call of k8s_rollout: a workload with its declaration, and the partition for a StatefulSet.

    ``resumes``: a run that was cut off may have finished it without judging the gate.
    """

    workload: Result
    number: int
    total: int
    new: int
    replicas: int
    partition: int | None
    resumes: bool = False

    def as_dict(self) -> Json:
        """Return it for the tasks."""
        title = f"{self.workload['kind']}/{self.workload['name']}"
        if self.total > 1:
            title += f", batch {self.number} of {self.total} ({self.new} of {self.replicas} pods)"
        return {**self.workload, "partition": self.partition, "title": title, "resumes": self.resumes}


def make_begin(workloads: t.Any, *, run_id: str, now: str, has_migration: bool) -> Json:
    """Return what is known before anything was read: the name of the run, and the key of its migration.

    The key is the run's and a digest of what is declared. Without a given name of the run it is the digest alone, so
    that a run that was cut off is gone on with. Raises Refusal for a declaration that says nothing.
    """
    for number, workload in enumerate(_check_list(workloads)):
        title = f"rolling_upgrade_workloads, entry {number} ({workload.get('kind')}/{workload.get('name')})"
        if not any(workload.get(key) is not None for key in DECLARES):
            next_step = f"Give one of {', '.join(DECLARES)}"
            raise Refusal(obj=title, problem="it does not say what it is to become", next_step=next_step)
        if any((w["kind"], w["name"]) == (workload["kind"], workload["name"]) for w in workloads[:number]):
            raise Refusal(obj=title, problem="it is there twice", next_step="Join both entries into one")
    digest = hashlib.sha256(json.dumps(workloads, sort_keys=True, default=str).encode()).hexdigest()[:12]
    key = f"{run_id} {digest}".strip()
    names = [{"kind": workload["kind"], "name": workload["name"]} for workload in workloads]
    return {"run_id": run_id or f"rolling_upgrade@{now}", "key": key if has_migration else "", "names": names}


def _check_list(workloads: t.Any) -> list[Result]:
    if not isinstance(workloads, list) or not workloads:
        raise Refusal(
            obj="rolling_upgrade_workloads", problem="it is empty", next_step="Name the workloads that are upgraded"
        )
    return workloads


def plan_upgrade(
    predicted: t.Sequence[Result],
    workloads: t.Sequence[Result],
    batches: t.Sequence[t.Any],
    begin: Result,
    *,
    resumed: bool,
) -> Json:
    """Return the batches, and whether there is anything to do.

    ``predicted`` are the results of k8s_rollout in check mode. A release that this very run has rolled out before it
    was cut off (``resumed``: it has a name that a later run shares) is due as well, since nothing tells whether the
    gate was open after its last batch.
    """
    is_changing = [bool(result["plan"]) for result in predicted]
    is_own = [result.get("workload", {}).get("run_id") == begin["run_id"] for result in predicted]
    judges_again = resumed and not any(is_changing) and any(is_own)
    steps = [
        batch.as_dict()
        for result, workload, changing in zip(predicted, workloads, is_changing, strict=True)
        for batch in list_batches(result, workload, batches, changing=changing)
    ]
    return {
        "steps": steps,
        "changes": any(is_changing),
        "judges_again": judges_again,
        "due": any(is_changing) or judges_again,
    }


def list_batches(result: Result, workload: Result, batches: t.Sequence[t.Any], *, changing: bool) -> list[Batch]:
    """Return the batches of a workload: those of a StatefulSet by its partition, highest ordinals first.

    A batch that was done before a run was cut off is left out: its partition is above the one that there is.
    """
    state = result.get("workload") or {}
    replicas, live = int(state.get("replicas") or 0), int(state.get("partition") or 0)
    if workload["kind"] != "StatefulSet":
        return [Batch(workload, 1, 1, replicas, replicas, None)]
    last = int(workload.get("partition") or 0)
    sizes = [read_size(size, replicas) for size in batches] if changing else []
    is_new = bool(set((result.get("diff") or {}).get("after") or {}) - {"partition"})
    partitions = [replicas - size for size in sizes if replicas - size > last]
    partitions = sorted({p for p in partitions if is_new or p <= live}, reverse=True)
    partitions.append(last)
    return [
        Batch(
            workload,
            number,
            len(partitions),
            replicas - partition,
            replicas,
            partition,
            not is_new and partition == live > last,
        )
        for number, partition in enumerate(partitions, 1)
    ]


def read_size(size: t.Any, replicas: int) -> int:
    """Return how many pods are new after a batch: a number, or a share such as ``50%``, rounded up. At least 1."""
    text = str(size).strip()
    try:
        value = math.ceil(replicas * float(text[:-1]) / 100) if text.endswith("%") else int(text)
    except ValueError:
        value = 0
    if value < 1 and not (text.endswith("%") and replicas == 0):
        raise Refusal(
            obj="rolling_upgrade_batches",
            problem=f"{size!r} is no number of pods",
            next_step="Write how many pods are new after each batch, as numbers or shares, such as [1, 50%, 100%]",
        )
    return min(value, replicas)


def report_success(begin: Result, plan: Result, results: t.Sequence[Result], before: Result) -> Json:
    """Return the role's result where nothing failed: the migration, the batches and the gates, as one."""
    performed = [result for result in results if not result.get("skipped")]
    merged = merge_results(performed)
    merged["summary"] = summarize_release(performed, check_mode=bool(before.get("check_mode")))
    merged["evidence"] = [f"before: {line}" for line in before.get("evidence") or []] + merged["evidence"]
    merged["evidence"] = list(dict.fromkeys(merged["evidence"]))
    if before.get("check_mode"):
        merged["changed"] = plan["changes"]
    if plan["judges_again"]:
        what = f"judge the gate again: run {begin['run_id']} rolled it out and did not end"
        merged["summary"] = f"{what}; {merged['summary']}" if results else what
        merged["changed"] = merged["changed"] or merged["check_mode"]
        if merged["check_mode"]:
            merged["plan"].append({"object": "gate", "what": what, "why": "the run was cut off", "reversible": True})
    merged["run_id"], merged["rolled_back"] = begin["run_id"], False
    return merged


def summarize_release(results: t.Sequence[Result], *, check_mode: bool) -> str:
    """Return one line: what the migration did, and which revision each workload serves, after how many batches."""
    rollouts: dict[str, list[Result]] = {}
    others = []
    for result in results:
        if "revision" in result:
            rollouts.setdefault(find_title(result), []).append(result)
        elif result.get("job"):
            others.append(str(result.get("summary")))
    words = [_describe_rollouts(title, items, check_mode=check_mode) for title, items in rollouts.items()]
    return "; ".join([*others, *words]) or "nothing to do"


def _describe_rollouts(title: str, results: t.Sequence[Result], *, check_mode: bool) -> str:
    changed = [result for result in results if result["changed"]]
    if check_mode or not changed:
        return str(results[-1].get("summary"))
    last = results[-1]
    numbers = f"revision {changed[0]['revision']['before']} -> {last['revision']['after']}"
    images = ", ".join((last.get("images") or {}).values())
    replicas = format_count((last.get("workload") or {}).get("replicas") or 0, "replica")
    batches = f" after {len(changed)} batches" if len(changed) > 1 else ""
    return f"rolled out {title}: {numbers} ({images}) serves with {replicas}{batches}"


def report_failure(begin: Result, failure: Result, results: t.Sequence[Result]) -> Json:
    """Return the role's result where something failed, with a summary that says what became of each workload.

    ``failure`` has the name of the failed ``task`` and its ``result``, and what was registered of putting back
    (``undone``) and of saving the evidence (``diagnosed``).
    """
    undone = failure.get("undone")
    performed = [*results, *list_items(undone)]
    merged = merge_results([result for result in performed if "changed" in result and not result.get("skipped")])
    cause = find_cause(failure["result"])
    merged["rolled_back"] = bool(list_items(undone)) and not any(item.get("failed") for item in list_items(undone))
    merged["summary"] = " ".join([f"{failure['task']}: {cause}", *describe_undo(undone)])
    merged["changed"] = merged["changed"] or bool(failure["result"].get("changed"))
    merged["blockers"] = [*(find_failed(failure["result"]).get("blockers") or []), *merged["blockers"]]
    merged["evidence"] += [
        f"evidence of before it was put back: {item['evidence_path']}"
        for item in list_items(failure.get("diagnosed"))
        if item.get("evidence_path")
    ]
    merged["run_id"], merged["failed"] = begin["run_id"], True
    return merged


def list_items(registered: t.Any) -> list[Json]:
    if not isinstance(registered, dict):
        return []
    items = registered.get("results")
    return [item for item in items if isinstance(item, dict)] if isinstance(items, list) else []


def find_failed(result: Result) -> Result:
    """Return the result that failed: of a loop, the first of its items that did."""
    return next((item for item in list_items(dict(result)) if item.get("failed")), result)


def find_cause(result: Result) -> str:
    return str(find_failed(result).get("msg") or "it failed").strip()


def describe_undo(undone: t.Any) -> list[str]:
    """Return sentences that say which workloads were put back, which were not, and what a person has to do."""
    if not isinstance(undone, dict):
        return ["Nothing had been rolled out."]
    items = list_items(undone)
    if undone.get("skipped"):
        return ["What had been rolled out stays as it is."]
    if not items:
        return [f"What it had rolled out could not be put back: {undone.get('msg') or 'the task failed'}"]
    back = [_describe_back(item) for item in items if item.get("changed") and not item.get("failed")]
    stuck = [str(item.get("msg")) for item in items if item.get("failed")]
    if not back and not stuck:
        serving = join_some([_describe_back(item) for item in items if item.get("images")], limit=10)
        return [f"Nothing else had to be put back: {serving}." if serving else "Nothing had to be put back."]
    sentences = [f"Put back: {join_some(back, limit=10)}."] if back else []
    return [*sentences, *(f"Not put back: {message}" for message in stuck)]


def _describe_back(item: Result) -> str:
    workload = find_title(item)
    number = (item.get("revision") or {}).get("after")
    images = ", ".join((item.get("images") or {}).values())
    return f"{workload} serves revision {number} ({images})"


def find_title(result: Result) -> str:
    """Return the name of the workload that a result of k8s_rollout is about."""
    return str((result.get("workload") or {}).get("title") or "the workload")
