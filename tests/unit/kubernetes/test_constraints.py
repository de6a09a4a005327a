# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What stands against another number of pods: budgets, quotas, room on the nodes."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.lowtide.ops.plugins.module_utils._common.outcome import Blocker
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes import quantities
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.constraints import (
    capacity,
    disruption,
    quota,
)
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.objects import Workload
from support.kept_object import load_objects

Json = dict[str, Any]


# --- quantities -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1", 1),
        ("500m", "0.5"),
        ("1Gi", 2**30),
        ("1.5k", 1500),
        ("2e3", 2000),
        ("2E-1", "0.2"),
        ("100Mi", 100 * 2**20),
        (4, 4),
        ("1E", 10**18),
        ("1P", 10**15),
        ("1n", "1e-9"),
        ("3u", "3e-6"),
        (".5", "0.5"),
        ("5.", 5),
        ("-2Ki", -2048),
        (" 1Ti ", 2**40),
        ("1Pi", 2**50),
        ("1Ei", 2**60),
        ("2G", 2 * 10**9),
        ("2T", 2 * 10**12),
        ("7M", 7 * 10**6),
    ],
)
def test_quantity(text: Any, value: Any) -> None:
    """As https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/ writes them."""
    assert quantities.parse_quantity(text) == Decimal(value)


@pytest.mark.parametrize(
    "text", ["", "x", "1x", "1KI", "1 Gi", "NaN", "Infinity", "1_0", "\u0661", "1e", "--1", ".", None]
)
def test_what_is_no_quantity_is_an_error(text: Any) -> None:
    """Also what Python would take for a number."""
    with pytest.raises(ValueError, match="not a quantity"):
        quantities.parse_quantity(text)


@given(st.decimals(allow_nan=False, allow_infinity=False, places=3, min_value=0, max_value=10**12))
def test_a_quantity_is_printed_as_it_is_read(amount: Decimal) -> None:
    """Without an exponent and without zeros at its end."""
    text = quantities.format_quantity(amount)
    assert quantities.parse_quantity(text) == amount
    assert "E" not in text
    assert "." not in text or not text.endswith("0")


@pytest.mark.parametrize("pod", load_objects("pods"), ids=lambda pod: pod["metadata"]["name"])
def test_what_one_pod_needs(pod: Json) -> None:
    """Each resource, and no others."""
    meta = pod["metadata"]
    requests = {name: Decimal(amount) for name, amount in meta["requests"].items()}
    limits = {name: Decimal(amount) for name, amount in meta["limits"].items()}
    assert quantities.compute_requests(pod["spec"]) == requests
    assert quantities.compute_limits(pod["spec"]) == limits


RANGES: list[Json] = [
    {"spec": {"limits": [{"type": "Pod", "default": {"cpu": "9"}, "defaultRequest": {"cpu": "9"}}]}},
    {"spec": {"limits": [{"type": "Container", "default": {"cpu": "2", "memory": "20"}}]}},
    {"spec": {"limits": [{"type": "Container", "default": {"cpu": "8"}, "defaultRequest": {"cpu": "500m"}}]}},
    {"spec": None},
]


def test_defaults_of_a_limit_range() -> None:
    """For what a container does not say, the first one's; a container's own limit is its request before that."""
    bare, stated = {"name": "a"}, {"name": "b", "resources": {"limits": {"cpu": "3"}}}
    spec = {"containers": [bare, stated], "initContainers": [bare]}
    assert quantities.compute_requests(spec, RANGES) == {"cpu": Decimal("3.5")}
    assert quantities.compute_limits(spec, RANGES) == {"cpu": Decimal(5), "memory": Decimal(40)}
    assert quantities.compute_requests({"containers": [bare]}) == {}
    assert quantities.read_requests(stated, RANGES) == {"cpu": Decimal(3)}


# --- what a workload asks for ---------------------------------------------------------------------------------------


def make_workload(
    pods: int = 3, spec: Json | None = None, *, replicas: int | None = None, claims: Json | None = None
) -> Workload:
    """A StatefulSet whose pods request half a core each, unless told otherwise."""
    pod = {"containers": [{"name": "main", "resources": {"requests": {"cpu": "500m"}}}]} if spec is None else spec
    template = {"metadata": {"labels": {"app": "w"}}, "spec": pod}
    return Workload.from_object(
        {
            "kind": "StatefulSet",
            "metadata": {"name": "w", "namespace": "n"},
            "spec": {"replicas": pods if replicas is None else replicas, "template": template, **(claims or {})},
            "status": {"replicas": pods},
        }
    )


# --- disruption budgets ---------------------------------------------------------------------------------------------


def budget(selector: Json | None, least: Any) -> Json:
    """A PodDisruptionBudget."""
    return {"metadata": {"name": "b"}, "spec": {"selector": selector, "minAvailable": least}}


@pytest.mark.parametrize(
    ("selector", "least", "replicas", "blocks"),
    [
        ({"matchLabels": {"app": "w"}}, 2, 1, True),
        ({"matchLabels": {"app": "w"}}, 2, 2, False),
        ({"matchLabels": {"app": "w"}}, 4, 3, False),
        ({"matchLabels": {"app": "w"}}, 9, 5, False),
        ({"matchLabels": {"app": "x"}}, 2, 1, False),
        ({"matchLabels": {"app": "w"}}, "50%", 0, False),
        ({"matchLabels": {"app": "w"}}, None, 0, False),
        ({"matchLabels": {"app": "w"}}, 1, 0, True),
        ({}, 2, 1, True),
        ({"matchLabels": {}}, 2, 1, True),
        (None, 2, 1, False),
    ],
)
def test_budgets(selector: Json | None, least: Any, replicas: int, blocks: bool) -> None:
    """Only a number of pods above the new replicas; an empty selector means every pod, none means none."""
    others = [{}, budget({"matchLabels": {"app": "x"}}, 2)]
    blockers = disruption.find_budget_blockers(make_workload(), replicas, [*others, budget(selector, least)])
    assert bool(blockers) is blocks
    for enough in (3, 4):
        assert disruption.find_budget_blockers(make_workload(), enough, [budget({}, 9)]) == []


def test_words_about_a_budget() -> None:
    """Its name, both numbers, and what to do."""
    assert disruption.find_budget_blockers(make_workload(), 1, [budget({}, 2)]) == [
        Blocker(
            object="StatefulSet n/w",
            what="PodDisruptionBudget n/b wants at least 2 pods available; 1 replica can never give that",
            holder="PodDisruptionBudget n/b",
            next_step="Lower its minAvailable, keep at least 2 replicas, or leave disruption_budget out of guards",
        )
    ]


# --- quotas ---------------------------------------------------------------------------------------------------------


def make_quota(hard: Json, used: Json | None = None, **spec: Any) -> Json:
    """A ResourceQuota."""
    return {"metadata": {"name": "q"}, "spec": {"hard": hard, **spec}, "status": {"hard": hard, "used": used or {}}}


@pytest.mark.parametrize(
    ("hard", "used", "blocked"),
    [
        ({"pods": "5"}, {"pods": "3"}, False),
        ({"pods": "4"}, {"pods": "3"}, True),
        ({"pods": "2"}, {"pods": "3"}, True),
        ({"count/pods": "4"}, {"count/pods": "3"}, True),
        ({"requests.cpu": "2"}, {"requests.cpu": "1500m"}, True),
        ({"requests.cpu": "2500m"}, {"requests.cpu": "1500m"}, False),
        ({"cpu": "2500m"}, {"cpu": "1500m"}, False),
        ({"cpu": "2499m"}, {"cpu": "1500m"}, True),
        ({"cpu": "999m"}, {}, True),
        ({"requests.ephemeral-storage": "1Mi"}, {"requests.ephemeral-storage": "1Mi"}, False),
        ({"count/services": "1"}, {"count/services": "2"}, False),
    ],
)
def test_quota(hard: Json, used: Json, blocked: bool) -> None:
    """Two more pods of half a core each; what the server enforces is in the status."""
    assert bool(quota.find_quota_blockers(make_workload(), 5, [make_quota(hard, used)])) is blocked
    for fewer in (3, 2):
        assert quota.find_quota_blockers(make_workload(), fewer, [make_quota(hard, used)]) == []
    stricter = {**make_quota({"pods": "0", "cpu": "0"}), "status": {"hard": hard, "used": used}}
    assert bool(quota.find_quota_blockers(make_workload(), 5, [stricter])) is blocked
    unsynced = {"metadata": {"name": "q"}, "spec": {"hard": hard}}
    assert quota.find_quota_blockers(make_workload(), 5, [unsynced]) == quota.find_quota_blockers(
        make_workload(), 5, [make_quota(hard)]
    )


def test_words_about_a_quota() -> None:
    """What is needed and left, of which resource; what is used beyond the limit leaves nothing, and not less."""
    quotas = [make_quota({"pods": "4", "cpu": "2"}, {"pods": "9", "cpu": "1750m"})]
    assert quota.find_quota_blockers(make_workload(), 4, quotas) == [
        Blocker(
            object="StatefulSet n/w",
            what=f"1 more pod needs {amount} of {resource}; ResourceQuota n/q has {left} left",
            holder="ResourceQuota n/q",
            next_step="Raise that quota or lower max_replicas",
        )
        for amount, resource, left in [("1", "pods", "0 of 4"), ("0.5", "cpu", "0.25 of 2")]
    ]
    assert quota.find_quota_blockers(make_workload(), 5, quotas)[1].what.startswith("2 more pods need 1 of cpu;")


STATED: Json = {"requests": {"cpu": "1", "memory": "4", "hugepages-2Mi": "1", "x/gpu": "1", "ephemeral-storage": "1"}}


@pytest.mark.parametrize(
    ("resource", "counted"),
    [
        ("cpu", True),
        ("requests.cpu", True),
        ("memory", True),
        ("requests.memory", True),
        ("limits.memory", True),
        ("hugepages-2Mi", True),
        ("requests.hugepages-2Mi", True),
        ("x/gpu", False),
        ("requests.x/gpu", True),
        ("ephemeral-storage", True),
        ("requests.ephemeral-storage", True),
        ("limits.ephemeral-storage", False),
    ],
)
def test_names_in_a_quota(resource: str, counted: bool) -> None:
    """What a quota may call them."""
    container = {"name": "main", "resources": {**STATED, "limits": {"memory": "8"}}}
    blockers = quota.find_quota_blockers(
        make_workload(0, {"containers": [container]}), 1, [make_quota({resource: "0"})]
    )
    assert bool(blockers) is counted


BEST_EFFORT: Json = {"containers": [{"name": "main"}]}
BURSTABLE: Json = {"containers": [{"name": "main", "resources": {"limits": {"memory": "1"}}}]}
IN_GOLD = {"scopeName": "PriorityClass", "operator": "In", "values": ["gold", "silver"]}
FOREIGN_TERM: Json = {"namespaceSelector": {}, "topologyKey": "h"}
REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
PREFERRED = "preferredDuringSchedulingIgnoredDuringExecution"


@pytest.mark.parametrize(
    ("scope", "pod", "counts"),
    [
        ("Terminating", {"activeDeadlineSeconds": 0}, True),
        ("Terminating", {}, False),
        ("NotTerminating", {"activeDeadlineSeconds": 60}, False),
        ("NotTerminating", {}, True),
        ("BestEffort", BEST_EFFORT, True),
        ("BestEffort", {"containers": [{"name": "a", "resources": {"requests": {"cpu": "0"}}}]}, True),
        ("BestEffort", {"containers": [{"name": "a", "resources": {"requests": {"x/gpu": "1"}}}]}, True),
        ("BestEffort", BURSTABLE, False),
        ("BestEffort", {"initContainers": BURSTABLE["containers"]}, False),
        ("BestEffort", {"resources": {"requests": {"cpu": "1"}}}, False),
        ("BestEffort", {"resources": {"limits": {"memory": "1"}}}, False),
        ("BestEffort", {"resources": {"limits": {"x/gpu": "1"}}}, True),
        ("NotBestEffort", BURSTABLE, True),
        ("NotBestEffort", BEST_EFFORT, False),
        ("PriorityClass", {"priorityClassName": "gold"}, True),
        ("PriorityClass", {}, False),
        (IN_GOLD, {"priorityClassName": "silver"}, True),
        (IN_GOLD, {"priorityClassName": "tin"}, False),
        ({**IN_GOLD, "operator": "NotIn"}, {"priorityClassName": "gold"}, False),
        ({**IN_GOLD, "operator": "NotIn"}, {}, True),
        ({**IN_GOLD, "operator": "NotIn"}, {"priorityClassName": "tin"}, True),
        ({**IN_GOLD, "operator": "Exists"}, {"priorityClassName": "tin"}, True),
        ({**IN_GOLD, "operator": "DoesNotExist"}, {"priorityClassName": "tin"}, False),
        ({**IN_GOLD, "operator": "DoesNotExist"}, {}, True),
        ("CrossNamespacePodAffinity", {}, False),
        ("CrossNamespacePodAffinity", {"affinity": {"podAffinity": {REQUIRED: [{"topologyKey": "h"}]}}}, False),
        ("CrossNamespacePodAffinity", {"affinity": {"podAffinity": {REQUIRED: [{"namespaces": ["m"]}]}}}, True),
        ("CrossNamespacePodAffinity", {"affinity": {"podAntiAffinity": {REQUIRED: [FOREIGN_TERM]}}}, True),
        (
            "CrossNamespacePodAffinity",
            {"affinity": {"podAntiAffinity": {PREFERRED: [{"weight": 1, "podAffinityTerm": FOREIGN_TERM}]}}},
            True,
        ),
        ("VolumeAttributesClass", {}, False),
    ],
)
def test_scopes_of_a_quota(scope: str | Json, pod: Json, counts: bool) -> None:
    """A quota is about the pods for which all its scopes hold."""
    workload = make_workload(0, pod)
    spec: Json = {"scopes": [scope]} if isinstance(scope, str) else {"scopeSelector": {"matchExpressions": [scope]}}
    assert bool(quota.find_quota_blockers(workload, 1, [make_quota({"pods": "0"}, **spec)])) is counts
    other = "Terminating" if pod.get("activeDeadlineSeconds") is None else "NotTerminating"
    both = {**spec, "scopes": [*spec.get("scopes", []), other]}
    assert quota.find_quota_blockers(workload, 1, [make_quota({"pods": "0"}, **both)]) == []


def test_a_default_of_a_limit_range_counts_for_quotas() -> None:
    """Also for whether a pod is of best effort."""
    workload, best_effort = make_workload(0, BEST_EFFORT), make_quota({"pods": "0"}, scopes=["BestEffort"])
    assert quota.find_quota_blockers(workload, 1, [best_effort]) != []
    assert quota.find_quota_blockers(workload, 1, [best_effort], limit_ranges=RANGES) == []
    limits = make_quota({"limits.cpu": "3", "requests.cpu": "1"})
    assert quota.find_quota_blockers(workload, 1, [limits], limit_ranges=RANGES) == []
    blockers = quota.find_quota_blockers(workload, 2, [limits], limit_ranges=RANGES)
    assert [blocker.what.split(";")[0] for blocker in blockers] == ["2 more pods need 4 of limits.cpu"]


def test_what_a_quota_demands_of_each_container() -> None:
    """The server refuses pods that do not state it, whatever is left."""
    pod: Json = {"containers": [{"name": "a"}, {"name": "b", "resources": {"requests": {"cpu": "1"}}}]}
    pod["initContainers"] = [{"name": "i", "resources": {"limits": {"memory": "1"}}}]
    hard = {"cpu": "99", "limits.memory": "99", "requests.memory": "99", "pods": "99", "count/pods": "99"}
    assert quota.find_quota_blockers(make_workload(0, pod), 1, [make_quota(hard)]) == [
        Blocker(
            object="StatefulSet n/w",
            what=(
                f"ResourceQuota n/q limits {resource}, and {containers} of its pods state none, so that the server"
                " refuses them"
            ),
            holder="ResourceQuota n/q",
            next_step=f"Set {resource} for each container, or a default in a LimitRange",
        )
        for resource, containers in [
            ("cpu", "2 containers (a, i)"),
            ("requests.memory", "2 containers (a, b)"),
            ("limits.memory", "2 containers (a, b)"),
        ]
    ]
    bare = make_workload(0, BEST_EFFORT)
    for resource in ("cpu", "memory", "requests.cpu", "requests.memory", "limits.cpu", "limits.memory"):
        [blocker] = quota.find_quota_blockers(bare, 1, [make_quota({resource: "99"})])
        assert blocker.what.startswith(f"ResourceQuota n/q limits {resource}, and 1 container (main)")
    for resource in ("requests.ephemeral-storage", "requests.x/gpu"):
        assert quota.find_quota_blockers(bare, 1, [make_quota({resource: "99"})]) == []
    of_pod = {**pod, "resources": {"limits": {"memory": "1"}, "requests": {"cpu": "1"}}}
    assert quota.find_quota_blockers(make_workload(0, of_pod), 1, [make_quota(hard)]) == []
    assert quota.find_quota_blockers(make_workload(2, pod), 2, [make_quota(hard)]) == []
    not_counted = make_quota(hard, scopes=["Terminating"])
    assert quota.find_quota_blockers(make_workload(0, pod), 1, [not_counted]) == []


CLAIMS: Json = {
    "ordinals": {"start": 1},
    "volumeClaimTemplates": [
        {
            "metadata": {"name": "data"},
            "spec": {"storageClassName": "fast", "resources": {"requests": {"storage": "2Gi"}}},
        },
        {"metadata": {"name": "log"}, "spec": {"resources": {"requests": {"storage": "1Gi"}}}},
    ],
}
FAST = "fast.storageclass.storage.k8s.io"


@pytest.mark.parametrize(
    ("resource", "needed"),
    [
        ("persistentvolumeclaims", "3"),
        ("count/persistentvolumeclaims", "3"),
        ("requests.storage", str(4 * 2**30)),
        (f"{FAST}/persistentvolumeclaims", "1"),
        (f"{FAST}/requests.storage", str(2 * 2**30)),
    ],
)
def test_claims_of_new_pods_count_for_quotas(resource: str, needed: str) -> None:
    """Only those that are not there yet: pods 1 and 2 are wanted, and log-w-2 is missing and both of pod 3."""
    workload = make_workload(1, claims=CLAIMS)
    existing = ["data-w-1", "log-w-1", "data-w-2", "data-w-0"]
    enough = make_quota({resource: needed})
    assert quota.find_quota_blockers(workload, 3, [enough], claims=existing) == []
    short = make_quota({resource: needed}, {resource: "1"})
    [blocker] = quota.find_quota_blockers(workload, 3, [short], claims=existing)
    assert blocker.what.startswith(f"2 more pods need {needed} of {resource};")
    assert quota.is_about_claims(workload, 3, [make_quota({"pods": "1"}), short])
    assert not quota.is_about_claims(workload, 1, [short])
    assert not quota.is_about_claims(make_workload(1), 3, [short])
    assert not quota.is_about_claims(
        workload, 3, [make_quota({"pods": "1", "slow.storageclass.storage.k8s.io/x": "1"})]
    )
    scoped: list[Json] = [{"scopes": ["NotTerminating"]}, {"scopeSelector": {"matchExpressions": [IN_GOLD]}}]
    for spec in scoped:
        assert quota.find_quota_blockers(workload, 3, [{**short, "spec": spec}], claims=[]) == []
        assert not quota.is_about_claims(workload, 3, [{**short, "spec": spec}])


# --- room on the nodes ----------------------------------------------------------------------------------------------


def node(name: str = "n1", *, cpu: str = "2", pods: str = "10", **spec: Any) -> Json:
    """A ready node."""
    status = {"allocatable": {"cpu": cpu, "pods": pods}, "conditions": [{"type": "Ready", "status": "True"}]}
    return {"metadata": {"name": name, "labels": {"disk": "ssd"}}, "spec": spec, "status": status}


NOT_READY: Json = {**node(), "status": {**node()["status"], "conditions": [{"type": "Ready", "status": "Unknown"}]}}
PRESSED: Json = {**node(), "status": {**node()["status"], "conditions": [{"type": "DiskPressure", "status": "True"}]}}


@pytest.mark.parametrize(
    ("nodes", "fits"),
    [
        ([node()], True),
        ([node(cpu="1")], True),
        ([node(cpu="999m")], False),
        ([node(cpu="500m"), node("n2", cpu="500m")], True),
        ([node(cpu="700m"), node("n2", cpu="499m")], False),
        ([node(pods="2")], True),
        ([node(pods="1")], False),
        ([node(unschedulable=True)], False),
        ([node(taints=[{"key": "k", "effect": "NoSchedule"}])], False),
        ([node(taints=[{"key": "k", "effect": "NoExecute"}])], False),
        ([node(taints=[{"key": "k", "effect": "PreferNoSchedule"}])], True),
        ([NOT_READY], False),
        ([PRESSED], False),
        ([], False),
    ],
)
def test_headroom_for_two_more_pods(nodes: list[Json], fits: bool) -> None:
    """Half a core each; a node counts whole pods only."""
    assert (capacity.find_headroom_blockers(make_workload(), 5, nodes, []) == []) is fits


TAINT = {"key": "k", "value": "v", "effect": "NoSchedule"}


@pytest.mark.parametrize(
    ("toleration", "fits"),
    [
        ({"operator": "Exists"}, True),
        ({"key": "k", "operator": "Exists"}, True),
        ({"key": "x", "operator": "Exists"}, False),
        ({"key": "k", "operator": "Exists", "effect": "NoSchedule"}, True),
        ({"key": "k", "operator": "Exists", "effect": "NoExecute"}, False),
        ({"key": "k", "value": "v"}, True),
        ({"key": "k", "operator": "Equal", "value": "v"}, True),
        ({"key": "k", "value": "w"}, False),
        ({"key": "k"}, False),
        ({"key": "x", "value": "v"}, False),
    ],
)
def test_tolerations(toleration: Json, fits: bool) -> None:
    """Each taint of a node has to be tolerated by one of them."""
    pod = {"tolerations": [{"key": "other", "operator": "Exists"}, toleration]}
    usable = node(taints=[TAINT, {"key": "other", "effect": "NoExecute"}])
    assert (capacity.find_headroom_blockers(make_workload(0, pod), 1, [usable], []) == []) is fits
    bare = node(taints=[{"key": "k", "effect": "NoSchedule"}])
    tolerated = make_workload(0, {"tolerations": [{"key": "k", "value": ""}]})
    assert capacity.find_headroom_blockers(tolerated, 1, [bare], []) == []


@pytest.mark.parametrize(("selector", "fits"), [({"disk": "ssd"}, True), ({"disk": "hdd"}, False), ({"x": "y"}, False)])
def test_node_selector(selector: Json, fits: bool) -> None:
    """Every label has to be there."""
    workload = make_workload(0, {"nodeSelector": selector})
    assert (capacity.find_headroom_blockers(workload, 1, [node()], []) == []) is fits


def pod_on(name: str, cpu: str, phase: str = "Running") -> Json:
    """A pod of any namespace."""
    spec = {"nodeName": name, "containers": [{"resources": {"limits": {"cpu": cpu}}}]}
    return {"spec": spec, "status": {"phase": phase}}


def test_headroom_counts_what_runs() -> None:
    """Pods of any namespace occupy their node; those that have finished do not, nor those on other nodes."""
    assert capacity.find_headroom_blockers(make_workload(), 5, [node()], [pod_on("n1", "1")]) == []
    assert capacity.find_headroom_blockers(make_workload(), 5, [node()], [pod_on("n1", "1001m")]) != []
    for harmless in (pod_on("n1", "2", "Succeeded"), pod_on("n1", "2", "Failed"), pod_on("n2", "2"), {}):
        assert capacity.find_headroom_blockers(make_workload(), 5, [node()], [harmless]) == []
    full = [node(pods="2")]
    assert capacity.find_headroom_blockers(make_workload(), 4, full, [pod_on("n1", "0")]) == []
    assert capacity.find_headroom_blockers(make_workload(), 5, full, [pod_on("n1", "0")]) != []
    gpu: Json = {"containers": [{"resources": {"requests": {"x/gpu": "1"}}}]}
    assert capacity.find_headroom_blockers(make_workload(0, gpu), 1, [node()], []) != []
    assert capacity.find_headroom_blockers(make_workload(), 3, [], []) == []
    assert capacity.find_headroom_blockers(make_workload(), 2, [], []) == []


def test_an_overfull_node_takes_nothing_from_another() -> None:
    """Its room is 0 and not less."""
    overfull = [pod_on("n1", "5")]
    assert capacity.find_headroom_blockers(make_workload(), 5, [node(), node("n2", cpu="1")], overfull) == []


def test_words_about_headroom() -> None:
    """How many fit where, and what one of them requests."""
    nodes = [node("n2", cpu="500m"), node(), node("n3", unschedulable=True)]
    assert capacity.find_headroom_blockers(make_workload(), 9, nodes, []) == [
        Blocker(
            object="StatefulSet n/w",
            what="6 more pods are wanted and 5 fit on the 2 usable of 3 nodes (each pod requests 0.5 cpu)",
            holder="nodes: n1, n2",
            next_step=(
                "Add or uncordon nodes, lower the requests or max_replicas, or leave headroom out of guards"
                " (cluster autoscaler)"
            ),
        )
    ]
    [single] = capacity.find_headroom_blockers(make_workload(0, {}), 1, [NOT_READY], [])
    assert single.what == "1 more pod is wanted and 0 fit on the 0 usable of 1 node (each pod requests nothing)"
    assert single.holder == "nodes: none usable"
    [two] = capacity.find_headroom_blockers(make_workload(0, {}), 2, [node(pods="1")], [], limit_ranges=RANGES)
    assert two.what.startswith("2 more pods are wanted and 1 fits on")
    ranged = capacity.find_headroom_blockers(make_workload(0, BEST_EFFORT), 5, [node()], [], limit_ranges=RANGES)
    assert ranged[0].what.endswith("(each pod requests 0.5 cpu)")
