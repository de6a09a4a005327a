# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The one line and the evidence of k8s_rollout, without I/O.

Private to lowtide.ops: do not import from other collections.
"""

from __future__ import annotations

import typing as t

from .._common.text import format_count, join_some
from .conditions import describe_progress
from .fields import Json
from .objects import Workload
from .pod_templates import ENV, Edit, list_images
from .revisions import Known

PLANNED, BEGUN, NOT_SERVING, DONE, AS_DECLARED, FAILED, UNDONE, NOT_UNDONE = (
    "planned",
    "begun",
    "not serving",
    "done",
    "as declared",
    "failed",
    "undone",
    "not undone",
)


def summarize_rollout(
    workload: Workload,
    state: str,
    *,
    what: str = "",
    revision: Known | None = None,
    cause: str = "",
    partition: int = 0,
    aside: str = "",
) -> str:
    """Return one line: what was rolled out, or would be, or became of it.

    ``cause`` is the reason of a failure, ``aside`` what became of pods whose nodes do not report.
    """
    title, replicas = workload.title, format_count(workload.replicas, "replica")
    number = f"revision {revision.number}" if revision is not None else "its newest revision"
    failed = f"the rollout of {title} failed ({cause})"
    new = max(workload.replicas - partition, 0)
    sentences = {
        PLANNED: f"would roll out {title}: {what}",
        BEGUN: f"began to roll out {title}: {what}; it did not come to an end",
        NOT_SERVING: f"{title} is written as declared and does not serve: {describe_progress(workload, workload.replicas)}",
        DONE: f"rolled out {title}: {what}; {number} serves with {replicas}",
        AS_DECLARED: f"{title} is as declared: {number}, {describe_progress(workload, workload.replicas)}",
        UNDONE: f"{failed} and was undone: {number} {describe_return(workload)}",
        NOT_UNDONE: f"{failed}, and its undo did not succeed: a person has to act",
        FAILED: f"{failed} and is left as it is",
    }
    if state == DONE and workload.replicas == 0:
        return f"wrote {title}: {what}; nothing is proven, it has 0 replicas"
    if state == DONE and partition:
        return f"rolled out {title}: {what}; {new} of {replicas} are of {number} and serve (partition {partition})"
    if state == DONE and aside:
        return (
            f"rolled out {title}: {what}; {number} serves on {workload.serving} of {workload.replicas} nodes; {aside}"
        )
    return f"{sentences[state]}; {aside}" if aside and state in (AS_DECLARED, UNDONE) else sentences[state]


def name_revision(revision: Known) -> str:
    """Return how messages name a revision to go back to, also one that has no number yet."""
    return f"revision {revision.number}" if revision.number else "its earlier pod template"


def describe_return(workload: Workload) -> str:
    """Return whether what an undo put back serves, or as little as it did before."""
    if workload.serving >= workload.replicas:
        return "serves again"
    return f"is back, and {workload.serving} of {format_count(workload.replicas, 'replica')} serve, no less than before"


def describe_lacking(count: int, workload: Workload) -> str:
    """Return how many pods did not serve before a change, which so may not be why they do not now."""
    return f"{count} of {format_count(workload.replicas, 'replica')} did not serve before the change either"


def list_rollout_evidence(workload: Workload, images: t.Sequence[Json], revision: Known | None) -> list[str]:
    """Return what proves the summary: the numbers of the workload, its revision, and what its pods really run."""
    lines = [f"{workload.title}: {describe_progress(workload, workload.replicas)}"]
    if workload.replicas == 0:
        lines.append("nothing is proven of its pod template, since no pod runs it")
    if revision is not None:
        names = ", ".join(list_images(revision.template).values())
        lines.append(f"revision {revision.number} ({revision.name}): {names}")
    by_id: dict[tuple[str, str], list[str]] = {}
    for entry in images:
        by_id.setdefault((entry["container"], entry["image_id"]), []).append(entry["pod"])
    for (container, image_id), pods in sorted(by_id.items()):
        lines.append(f"container {container} of {join_some(sorted(pods))} runs {image_id or 'nothing yet'}")
    return lines


def describe_edits(edits: t.Sequence[Edit]) -> tuple[Json, Json]:
    """Return the values before and after as a diff shows them. Those of variables may be secrets and are not shown."""
    before: Json = {}
    after: Json = {}
    for edit in edits:
        left, right = edit.before, edit.after
        if edit.place.field == ENV:
            left = None if left is None else "(another value)"
            right = None if right is None else "(the declared value)"
        before[str(edit.place)], after[str(edit.place)] = left, right
    return before, after
