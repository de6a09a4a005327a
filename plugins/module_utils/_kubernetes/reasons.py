# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The reasons of verdicts, and what is judged of consumer groups and of values measured elsewhere: pure.

Private to lowtide.ops: do not import from other collections.
"""

from __future__ import annotations

import typing as t

from .._common.text import format_count
from .._common.timestamps import format_utc
from .diagnosis import NEXT_STEPS
from .fields import Json, as_dict, as_int, as_list, as_text

REASONS: dict[str, str] = {
    "scaled_to_zero": "Start it, if it is meant to run: with lowtide.ops.startup if a run stopped it, else by its replicas",
    "missing_configuration": "Create or correct what the message names; a restart adds nothing that is not there",
    "node_not_ready": "Look at the node (kubectl describe node); its pods move once it is gone or drained",
    "claim_pending": "Create a volume that fits the claim, or correct its storage class",
    "quota": "Raise the quota, or lower the requests or the number of replicas",
    "image_pull": NEXT_STEPS["ImagePullBackOff"],
    "oom_killed": "Raise the container's memory limit as far as its nodes and quota bear it, or find what takes the memory",
    "probe_failing": "Compare the probe (path, port, times) with what the program serves and how long it takes to start",
    "crash_loop": "Look at the last lines of its previous log, and correct what it names",
    "unschedulable": NEXT_STEPS["Unschedulable"],
    "terminating": NEXT_STEPS["Terminating"],
    "group_not_consuming": "Find out why its members do not hold their partitions, before anything is restarted",
    "observation_above_limit": "Find out what raised it; more replicas do not help against a limit that all of them share",
    "observation_below_minimum": "Find out what lowered it; what is not reached may be a sign that requests do not arrive",
    "rollout_stuck": "Look at the objects that the message names",
    "evicted": "Find out what its node ran out of, and let requests say what the pods really use",
    "no_endpoints": "Make its pods ready, or correct the selector of the Service",
    "not_ready": "Wait for it; run again if it stays so",
    "reading_missing": "Find out why the pod does not say it (port, path, metric); what is not measured proves nothing",
    "unknown": "Grant the rights that lack (docs/kubernetes-rights.yml), and run again",
    "healthy": "Nothing is to be done here",
}
"""Every reason with what to do about it. Their order is that of causes: what stands before may be why of what follows."""


class Verdict(t.NamedTuple):
    """One answer to why: a key of ``REASONS``, the object, what is so, since when, and what proves it.

    ``is_current``: it holds now; a container that runs well again after it was killed is history. ``is_newest``: it is
    not of a pod that the newest revision replaces. ``subject`` is what pods have in common that fail alike.
    """

    reason: str
    object: str
    message: str
    since: float | None
    next_step: str
    evidence: tuple[str, ...] = ()
    is_current: bool = True
    is_newest: bool = True
    subject: str = ""
    container: str = ""

    def as_result(self, redact: t.Callable[[str], str]) -> dict[str, t.Any]:
        """Return it as plain data without secrets."""
        return {
            "reason": self.reason,
            "object": self.object,
            "container": self.container or None,
            "message": redact(self.message),
            "since": None if self.since is None else format_utc(self.since),
            "next_step": self.next_step,
            "evidence": [redact(line) for line in self.evidence],
            "current": self.is_current,
        }


def make_verdict(reason: str, obj: str, message: str, **fields: t.Any) -> Verdict:
    """Return a verdict with the next step of its reason, unless another is given."""
    fields.setdefault("next_step", REASONS[reason])
    return Verdict(reason, obj, message, fields.pop("since", None), fields.pop("next_step"), **fields)


def judge_group(group: Json) -> Verdict | None:
    """Return why a consumer group does not consume, None when each of its partitions has a member."""
    title = f"consumer group {as_text(group.get('name'))}"
    state = as_text(group.get("state"))
    partitions = [as_dict(entry) for entry in as_list(group.get("partitions"))]
    unassigned = [entry for entry in partitions if not entry.get("member_id")]
    lag = group.get("total_lag")
    counts = f"{len(partitions) - len(unassigned)} of {format_count(len(partitions), 'partition')} assigned"
    known = f"{counts}, {format_count(as_int(group.get('member_count')), 'member')}, lag {'unknown' if lag is None else lag}"
    if state == "stable" and not unassigned:
        return None
    words = {
        "missing": "it does not exist: nobody has ever committed to it",
        "dead": "the coordinator is removing it",
        "empty": "it has no members, so that nobody consumes",
        "rebalancing": "it rebalances, and consumes nothing meanwhile",
        "stable": "partitions have no member",
    }
    message = f"{words.get(state, as_text(group.get('reason')) or 'its state is unknown')} ({known})"
    lines = [
        f"{entry.get('topic')}/{entry.get('partition')}: {'unassigned'}, lag {entry.get('lag')}"
        for entry in unassigned[:5]
    ]
    steps = {"empty": "Look at the pods that should be its members", "rebalancing": "Look for members that come and go"}
    return make_verdict(
        "group_not_consuming",
        title,
        message,
        evidence=tuple(lines),
        next_step=steps.get(state, REASONS["group_not_consuming"]),
    )


def judge_observation(observation: Json) -> Verdict | None:
    """Return the verdict on a value above its limit; one that is not there is above any."""
    name, value, limit = as_text(observation.get("name")), observation.get("value"), observation["limit"]
    if value is None:
        step = "Find out why it is not measured; a value that is missing proves nothing"
        return make_verdict("observation_above_limit", name, f"it has no value (limit {limit:g})", next_step=step)
    if value <= limit:
        return None
    return make_verdict("observation_above_limit", name, f"it is {value:g}, above its limit of {limit:g}")
