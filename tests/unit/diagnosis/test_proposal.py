# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The fix for a cause: one, bounded, not twice, and never where it mends nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from ansible_collections.lowtide.ops.plugins.module_utils._common.errors import Refusal
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.reasons import REASONS
from ansible_collections.lowtide.ops.plugins.plugin_utils._diagnosis import propose_fix, read_tree

Json = dict[str, Any]
NOW = 1777629600.0
AN_HOUR_AGO, A_MINUTE_AGO = "2026-05-01T09:00:00Z", "2026-05-01T09:59:00Z"
TREES = yaml.safe_load(Path("roles/diagnose/vars/main.yml").read_text(encoding="utf-8"))["__diagnose_trees"]
SCALE = {"name": "scale", "parameters": {"step": 2}, "bound": {"maximum": 4}}


def describe(reason: str, *, current: bool = True, changes: Json | None = None, **workload: Any) -> Json:
    """Return what a diagnosis says of a workload."""
    verdict: Json = {"reason": reason, "object": "Pod n/w-0", "container": "app", "message": "it is so", "since": None}
    verdict |= {"current": current, "next_step": "Look", "evidence": []}
    return {
        "verdict": verdict,
        "others": [],
        "evidence": ["line"],
        "summary": f"{reason}: Pod n/w-0: it is so",
        "check_mode": False,
        "workload": {"kind": "Deployment", "namespace": "n", "name": "w", "replicas": 3, **workload},
        "containers": [
            {"name": "app", "limits": {"memory": "64Mi"}, "requests": {}},
            {"name": "other", "limits": {}, "requests": {}},
        ],
        "last_changes": {
            "restarted_at": None,
            "fixed": None,
            "replicas_by": None,
            "replicas_at": None,
            **(changes or {}),
        },
    }


def propose(diagnosis: Json, *trees: Json, apply: bool = True, cooldown: float = 3600) -> Json:
    """Return the proposal, by the role's own trees where none are given."""
    return propose_fix(diagnosis, list(trees) or TREES, apply=apply, cooldown=cooldown, now=NOW, run_id="night")


def plan_limit(maximum: str, **parameters: Any) -> Json:
    """Return a tree that raises a limit."""
    return {
        "when": "oom_killed",
        "fix": {"name": "raise_limit", "parameters": parameters, "bound": {"maximum": maximum}},
    }


def test_every_reason_that_is_a_fault_has_a_tree() -> None:
    """And none is for a reason that there is not."""
    assert {tree["when"] for tree in TREES} == REASONS.keys() - {"healthy", "not_ready"}
    assert all(read_tree(tree, 0).verdict for tree in TREES)


@pytest.mark.parametrize(
    "reason", [reason for reason in REASONS if reason not in ("oom_killed", "group_not_consuming")]
)
def test_what_no_fix_mends_is_left_to_people(reason: str) -> None:
    """A restart adds no key, no node and no image; the next step is told."""
    proposal = propose(describe(reason))
    assert (proposal["apply"], proposal["plan"], proposal["proposal"]["fix"]) == (False, [], "none")
    assert [blocker["next_step"] for blocker in proposal["blockers"]] == ([] if reason == "healthy" else ["Look"])


@pytest.mark.parametrize(
    ("maximum", "parameters", "memory", "refused"),
    [
        ("1Gi", {}, "96Mi", ""),
        ("80Mi", {}, "80Mi", ""),
        ("64Mi", {}, "", "its limit is 64Mi, and its bound is 64Mi"),
        ("10Mi", {}, "", "its limit is 64Mi, and its bound is 10Mi"),
        ("1Gi", {"factor": 100}, "1024Mi", ""),
        ("1Gi", {"container": "other"}, "", "container other has no memory limit that could be raised"),
        ("1Gi", {"container": "none"}, "", "the verdict names no container of it (app, other)"),
    ],
)
def test_a_limit_is_raised_up_to_its_bound(maximum: str, parameters: Json, memory: str, refused: str) -> None:
    """Of the container that was killed, and of no other."""
    result = propose(describe("oom_killed", current=False), plan_limit(maximum, **parameters))
    proposal = result["proposal"]
    assert (proposal["refused"] or "", result["apply"]) == (refused, not refused)
    if memory:
        assert proposal["options"] == {
            "containers": [{"name": "app", "resources": {"limits": {"memory": memory}}}],
            "pod_annotations": {"lowtide.ops/fixed": "raise_limit for oom_killed at 2026-05-01T10:00:00Z by night"},
        }
        assert result["plan"][0]["what"] == f"memory limit of container app 64Mi -> {memory}"
        assert result["blockers"] == []


@pytest.mark.parametrize(
    ("replicas", "per_instance", "what", "refused"),
    [
        (1, True, "replicas 1 -> 3", ""),
        (3, True, "replicas 3 -> 4", ""),
        (4, True, "", "it has 4 replicas, and its bound is 4"),
        (5, True, "", "it has 5 replicas, and its bound is 4"),
        (1, False, "", "more replicas raise the load on a limit that they share"),
    ],
)
def test_more_replicas_up_to_a_bound_and_never_against_a_shared_limit(
    replicas: int, per_instance: bool, what: str, refused: str
) -> None:
    """429 is answered sooner with more clients, unless each has its own limit."""
    fix = {**SCALE, "parameters": {"step": 2, "limit_is_per_instance": per_instance}}
    result = propose(
        describe("observation_above_limit", replicas=replicas), {"when": "observation_above_limit", "fix": fix}
    )
    assert result["proposal"]["what"] == what
    assert refused in (result["proposal"]["refused"] or "")
    assert result["apply"] is bool(what)
    assert "pod_annotations" not in result["proposal"]["options"]


@pytest.mark.parametrize(
    ("changes", "refused"),
    [
        ({}, ""),
        ({"restarted_at": AN_HOUR_AGO}, ""),
        ({"restarted_at": A_MINUTE_AGO}, "its pods were restarted 1 min ago"),
        ({"restarted_at": "2026-05-01T11:59:00+02:00"}, "its pods were restarted 1 min ago"),
        ({"restarted_at": "yesterday"}, ""),
        (
            {"fixed": {"reason": "group_not_consuming", "fix": "restart", "at": A_MINUTE_AGO}},
            "was done for the same cause",
        ),
        ({"fixed": {"reason": "oom_killed", "fix": "raise_limit", "at": A_MINUTE_AGO}}, ""),
        ({"replicas_by": "lowtide.ops", "replicas_at": A_MINUTE_AGO}, ""),
    ],
)
def test_nothing_is_done_twice_within_the_cooldown(changes: Json, refused: str) -> None:
    """What did not help a minute ago does not help now; another cause has its own fix."""
    result = propose(describe("group_not_consuming", changes=changes))
    assert refused in (result["proposal"]["refused"] or "")
    assert result["apply"] is not bool(refused)
    assert bool(result["blockers"]) is bool(refused)


@pytest.mark.parametrize(("writer", "apply"), [("lowtide.ops", False), ("kubectl-scale", True)])
def test_it_is_not_scaled_twice_within_the_cooldown(writer: str, apply: bool) -> None:
    """By who wrote the replicas, since a scaling leaves no note."""
    changes = {"replicas_by": writer, "replicas_at": A_MINUTE_AGO}
    tree = {"when": "not_ready", "fix": SCALE}
    assert propose(describe("not_ready", changes=changes), tree)["apply"] is apply


def test_a_daemon_set_is_not_scaled() -> None:
    """It has no number of replicas."""
    result = propose(describe("not_ready", kind="DaemonSet"), {"when": "not_ready", "fix": SCALE})
    assert (result["apply"], "has a pod on each of its nodes" in result["proposal"]["refused"]) == (False, True)


def test_what_is_over_is_not_restarted() -> None:
    """A limit that was too low still is."""
    result = propose(describe("group_not_consuming", current=False))
    assert (result["apply"], result["proposal"]["refused"][:22]) == (False, "what was found is over")


def test_without_apply_it_is_only_proposed() -> None:
    """With what it would change and how to have it done."""
    result = propose(describe("oom_killed"), plan_limit("1Gi"), apply=False)
    assert (result["apply"], len(result["plan"])) == (False, 1)
    assert result["summary"].endswith(
        "; proposed: memory limit of container app 64Mi -> 96Mi (diagnose_apply is false)"
    )
    assert "run again with diagnose_apply: true to raise_limit" in result["blockers"][0]["next_step"]


def test_the_first_tree_counts_and_one_of_an_observation_is_for_that_one_only() -> None:
    """The list is in the order of its author."""
    trees = (
        {"when": "observation_above_limit", "observation": "lag", "fix": {"name": "restart"}},
        {"when": "observation_above_limit", "verdict": "general"},
    )
    diagnosis = describe("observation_above_limit")
    assert propose(diagnosis, *trees)["proposal"] == {
        "fix": "none",
        "what": "",
        "why": "general",
        "refused": None,
        "options": {},
    }
    diagnosis["verdict"]["object"] = "lag"
    assert propose(diagnosis, *trees)["proposal"]["fix"] == "restart"


@pytest.mark.parametrize(
    ("entry", "problem"),
    [
        ("oom_killed", "has no when"),
        ({"fix": {"name": "restart"}}, "has no when"),
        ({"when": "x", "fix": {"name": "reboot"}}, "its fix 'reboot' is not known"),
        ({"when": "x", "fix": {"name": "scale"}}, "its fix scale has no bound"),
        ({"when": "x", "fix": {"name": "raise_limit", "bound": {"limit": 1}}}, "raise_limit does not take limit"),
        ({"when": "x", "fix": {"name": "restart", "parameters": {"times": 3}}}, "restart does not take times"),
    ],
)
def test_a_tree_that_is_not_understood_is_refused(entry: Any, problem: str) -> None:
    """Whatever the cause is, before anything is changed."""
    with pytest.raises(Refusal) as caught:
        propose(describe("healthy"), entry)
    assert problem in str(caught.value)
    assert "diagnose_trees, entry 0" in str(caught.value)
