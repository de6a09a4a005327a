# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Views of objects, what guards judge, and what a wait takes for hopeless: pure functions over plain data."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes import capacity, guards, parse, pods, wait

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=5,
)


def statefulset(replicas: int = 3, /, **status: Any) -> parse.Workload:
    """A StatefulSet whose status says so; ready unless told otherwise."""
    full = {
        "observedGeneration": 2,
        "replicas": replicas,
        "readyReplicas": replicas,
        "updatedReplicas": replicas,
        **status,
    }
    template = {
        "metadata": {"labels": {"app": "w"}},
        "spec": {"containers": [{"resources": {"requests": {"cpu": "500m"}}}]},
    }
    spec = {"replicas": replicas, "selector": {"matchLabels": {"app": "w"}}, "template": template}
    return parse.workload(
        {"metadata": {"name": "w", "namespace": "n", "generation": 2}, "spec": spec, "status": full}, "StatefulSet"
    )


@pytest.mark.parametrize("kind", ["StatefulSet", "Deployment", "CronJob"])
@pytest.mark.parametrize(
    "obj",
    [{}, {"metadata": None, "spec": None, "status": None}, {"metadata": {}, "spec": {"replicas": None}, "status": {}}],
)
def test_missing_and_null_fields_are_borne(kind: str, obj: dict[str, Any]) -> None:
    """One replica is Kubernetes' default; nothing is ready."""
    view = parse.workload(obj, kind)
    assert (view.replicas, view.ready) == (1, 0)
    assert pods.pod(obj).trouble is None
    assert pods.event(obj).reason == ""
    assert parse.hpa(obj).bounds == {"min": 1, "max": 1}
    assert parse.scaled_object(obj).bounds == {"min": 0, "max": 100}


@pytest.mark.parametrize(
    ("status", "settled"),
    [
        ({}, True),
        ({"observedGeneration": 1}, False),
        ({"readyReplicas": 2}, False),
        ({"readyReplicas": None}, False),
        ({"replicas": 4}, False),
        ({"updatedReplicas": 2}, False),
    ],
)
def test_settled(status: dict[str, Any], settled: bool) -> None:
    """All of it: seen by the controller, as many pods, all ready, all of the newest revision."""
    assert statefulset(**status).settled(3) is settled
    assert statefulset(**status).settled(4) is False


@pytest.mark.parametrize(
    ("strategy", "needed"), [({"type": "OnDelete"}, 0), ({"rollingUpdate": {"partition": 2}}, 1), ({}, 3), (None, 3)]
)
def test_pods_left_old_on_purpose_are_no_obstacle(strategy: Any, needed: int) -> None:
    """A partition or OnDelete keeps old pods."""
    assert parse.workload({"spec": {"replicas": 3, "updateStrategy": strategy}}, "StatefulSet").must_update == needed


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1", 1),
        ("500m", "0.5"),
        ("1Gi", 2**30),
        ("1.5k", 1500),
        ("2e3", 2000),
        ("100Mi", 100 * 2**20),
        (4, 4),
        ("1E", 10**18),
        ("1n", "1e-9"),
    ],
)
def test_quantity(text: Any, value: Any) -> None:
    """As https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/ writes them."""
    assert capacity.quantity(text) == Decimal(value)


@given(json_values)
def test_quantity_is_a_number_or_an_error(value: Any) -> None:
    """Nothing else."""
    try:
        assert isinstance(capacity.quantity(value), Decimal)
    except ValueError as error:
        assert "not a quantity" in str(error)  # noqa: PT017 - either outcome is right


@given(
    st.dictionaries(st.sampled_from(["a", "b"]), st.sampled_from(["1", "2"])),
    st.sampled_from(["In", "NotIn", "Exists", "DoesNotExist"]),
)
def test_selectors_here_and_as_text_agree(labels: dict[str, str], operator: str) -> None:
    """What is matched here is what the text asks the server for."""
    expression = {"key": "a", "operator": operator, "values": ["1"] if operator.endswith("In") else []}
    selector = {"matchExpressions": [expression]}
    expected = {
        "In": labels.get("a") == "1",
        "NotIn": labels.get("a") != "1",
        "Exists": "a" in labels,
        "DoesNotExist": "a" not in labels,
    }
    assert pods.matches(selector, labels) is expected[operator]
    assert (
        wait.selector_text(selector)
        == {"In": "a in (1)", "NotIn": "a notin (1)", "Exists": "a", "DoesNotExist": "!a"}[operator]
    )


def test_empty_selector_selects_nothing() -> None:
    """An empty selector means everything to the server; nobody's pods may be taken for another's here."""
    assert pods.matches({}, {"app": "w"}) is False


def waiting(reason: str, message: str = "") -> dict[str, Any]:
    """A pod whose container waits."""
    state = {"waiting": {"reason": reason, "message": message}}
    last = {"terminated": {"exitCode": 3, "reason": "Error"}}
    container = {"name": "c", "image": "i:1", "state": state, "lastState": last}
    return {"metadata": {"name": "p", "labels": {"app": "w"}}, "status": {"containerStatuses": [container]}}


@pytest.mark.parametrize(
    ("reason", "kind"),
    [
        ("ImagePullBackOff", "image pull"),
        ("ErrImagePull", "image pull"),
        ("InvalidImageName", "image pull"),
        ("CreateContainerConfigError", "container configuration"),
        ("CrashLoopBackOff", "crash loop"),
        ("ContainerCreating", None),
        ("PodInitializing", None),
    ],
)
def test_what_a_waiting_container_means(reason: str, kind: str | None) -> None:
    """Making a container is no trouble."""
    trouble = pods.pod(waiting(reason, "because")).trouble
    assert (trouble[0] if trouble else None) == kind
    assert trouble is None or "because" in trouble[1]


def test_patience_tells_passing_from_lasting() -> None:
    """A trouble counts from when it was first seen; gone and back it starts anew, unless its pod has not recovered yet."""
    patience = wait.Patience(10)
    crash = wait.Trouble("crash loop", "Pod n/p", "m")
    assert patience.lasting([crash], [], 0) == []
    assert patience.next_check(4) == 6
    assert patience.lasting([], ["Pod n/p"], 5) == []
    assert patience.lasting([crash], [], 9.9) == []
    assert patience.lasting([crash], [], 10) == [crash]
    assert patience.lasting([], [], 11) == []
    assert patience.next_check(11) == float("inf")
    assert patience.lasting([crash], [], 12) == []


def event(reason: str, at: str) -> pods.Event:
    """About the creation of pods."""
    return pods.Event("StatefulSet/w", reason, f"{reason} said", at)


@pytest.mark.parametrize(
    ("events", "found"),
    [
        ([], 0),
        ([event("FailedCreate", "2026-01-01T00:00:02Z")], 1),
        ([event("FailedCreate", "2026-01-01T00:00:01Z"), event("SuccessfulCreate", "2026-01-01T00:00:02Z")], 0),
        ([event("SuccessfulCreate", "2026-01-01T00:00:01Z"), event("FailedCreate", "2026-01-01T00:00:02Z")], 1),
        ([event("FailedCreate", "2026-01-01T00:00:01Z"), event("SuccessfulCreate", "2026-01-01T00:00:01Z")], 1),
    ],
)
def test_newest_event_about_creation_counts(events: list[pods.Event], found: int) -> None:
    """An old failure that has been overcome is none."""
    obj = {"metadata": {"name": "w", "namespace": "n"}, "spec": {"replicas": 3}, "status": {"replicas": 1}}
    view = parse.workload(obj, "StatefulSet")
    assert len(wait.find_troubles([view], {"StatefulSet/w": 3}, [], events)) == found
    assert wait.find_troubles([statefulset()], {"StatefulSet/w": 3}, [], events) == []


def node(name: str = "n1", *, cpu: str = "2", pods: str = "10", **spec: Any) -> dict[str, Any]:
    """A ready node."""
    status = {"allocatable": {"cpu": cpu, "pods": pods}, "conditions": [{"type": "Ready", "status": "True"}]}
    return {"metadata": {"name": name, "labels": {}}, "spec": spec, "status": status}


@pytest.mark.parametrize(
    ("nodes", "fits"),
    [
        ([node()], True),
        ([node(cpu="1")], True),
        ([node(cpu="999m")], False),
        ([node(cpu="500m"), node("n2", cpu="500m")], True),
        ([node(cpu="700m"), node("n2", cpu="499m")], False),
        ([node(pods="1")], False),
        ([node(unschedulable=True)], False),
        ([node(taints=[{"key": "k", "effect": "NoSchedule"}])], False),
        ([node(taints=[{"key": "k", "effect": "PreferNoSchedule"}])], True),
        ([], False),
    ],
)
def test_headroom_for_two_more_pods(nodes: list[dict[str, Any]], fits: bool) -> None:
    """Half a core each; a node counts whole pods only."""
    blockers = capacity.headroom_blockers(statefulset(3), 5, nodes, [])
    assert (blockers == []) is fits


def test_headroom_counts_what_runs() -> None:
    """Pods of any namespace occupy their node."""
    running = {"spec": {"nodeName": "n1", "containers": [{"resources": {"limits": {"cpu": "1500m"}}}]}}
    assert capacity.headroom_blockers(statefulset(3), 5, [node()], [running])[0].holder == "nodes: n1"
    assert capacity.headroom_blockers(statefulset(3), 4, [node()], [running]) == []
    assert capacity.headroom_blockers(statefulset(3), 2, [], []) == []


@pytest.mark.parametrize(
    ("hard", "used", "blocked"),
    [
        ({"pods": "5"}, {"pods": "3"}, False),
        ({"pods": "4"}, {"pods": "3"}, True),
        ({"requests.cpu": "2"}, {"requests.cpu": "1500m"}, True),
        ({"cpu": "2500m"}, {"cpu": "1500m"}, False),
        ({"requests.memory": "1Mi"}, {"requests.memory": "1Mi"}, False),
        ({"count/services": "1"}, {"count/services": "1"}, False),
    ],
)
def test_quota(hard: dict[str, str], used: dict[str, str], blocked: bool) -> None:
    """Two more pods of half a core, without memory."""
    quota = {"metadata": {"name": "q"}, "status": {"hard": hard, "used": used}}
    assert bool(capacity.quota_blockers(statefulset(3), 5, [quota])) is blocked
    assert capacity.quota_blockers(statefulset(3), 5, [{**quota, "spec": {"scopes": ["BestEffort"]}}]) == []


def test_hpa_made_by_keda_is_represented_by_its_scaled_object() -> None:
    """One owner, named once."""
    target = {"kind": "StatefulSet", "name": "w"}
    made = {
        "metadata": {"name": "keda-hpa-s", "ownerReferences": [{"kind": "ScaledObject", "name": "s"}]},
        "spec": {"scaleTargetRef": target},
    }
    scaled = {"metadata": {"name": "s"}, "spec": {"scaleTargetRef": target}}
    around, alone = guards.Surroundings(), guards.Surroundings()
    around.scalers, alone.scalers = [parse.hpa(made), parse.scaled_object(scaled)], [parse.hpa(made)]
    assert [one.kind for one in around.scalers_of(statefulset())] == ["ScaledObject"]
    assert [one.kind for one in alone.scalers_of(statefulset())] == ["HorizontalPodAutoscaler"]
