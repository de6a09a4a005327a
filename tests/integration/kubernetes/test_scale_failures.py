# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a wait says when it cannot succeed, what bad input says, and what a disturbed run does."""

from __future__ import annotations

import os
import signal
import subprocess
from typing import Any

import pytest

from support.held_pods import HeldPods
from support.kubernetes_proxy import Fault, KubernetesProxy
from support.modules import finish_module, start_module

from .conftest import Namespace

pytestmark = pytest.mark.lab("kubernetes")
SCALE = "k8s_scale_to_partitions"
NEVER_READY: dict[str, Any] = {"readinessProbe": {"exec": {"command": ["false"]}}}


def quota(pods: int) -> dict[str, Any]:
    """A quota on the number of pods."""
    return {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": "q"},
        "spec": {"hard": {"pods": str(pods)}},
    }


@pytest.mark.parametrize(
    ("kind", "pod", "reason", "said"),
    [
        (
            "StatefulSet",
            {"image": "localhost/none:1", "imagePullPolicy": "Never"},
            "ErrImageNeverPull",
            "localhost/none:1",
        ),
        ("Deployment", {"image": "10.77.0.1:1/none:1"}, "ImagePullBackOff", "10.77.0.1:1/none:1"),
        ("StatefulSet", {"spec": {"nodeSelector": {"disk": "fast"}}}, "Unschedulable", "nodes are available"),
        # Without a probe it would be ready for the moment in which it runs.
        ("StatefulSet", {"command": ["sh", "-c", "exit 3"], **NEVER_READY}, "CrashLoopBackOff", "exit code 3"),
        (
            "StatefulSet",
            {"envFrom": [{"secretRef": {"name": "absent"}}]},
            "CreateContainerConfigError",
            '"absent" not found',
        ),
        ("StatefulSet", {"quota": 1}, "QuotaExceeded", "exceeded quota: q"),
        ("Deployment", {"quota": 1}, "QuotaExceeded", "exceeded quota: q"),
    ],
)
def test_hopeless_state_is_named(namespace: Namespace, kind: str, pod: dict[str, Any], reason: str, said: str) -> None:
    """The wait ends long before its deadline and names the cause; the result still says how far it got."""
    objects = [quota(pod.pop("quota"))] if "quota" in pod else []
    namespace.apply(*objects, namespace.workload("w", kind=kind, **pod))
    if objects:
        namespace.ready(kind, "w", 1)
    run = namespace.module(SCALE, kind=kind, name="w", partitions=2, timeout=300, failure_grace_factor=0.05, guards=[])
    assert run.failed
    assert run["waited"] < 150
    assert f"{reason}:" in run.msg
    assert said in run.msg
    assert (run.changed, run["replicas"], run["target"]) == (True, 2, 2)
    assert run["blockers"][0]["what"].startswith(reason)
    assert run["error"]["refused"] is False


def test_deadline_names_what_is_missing_and_a_rerun_waits_again(namespace: Namespace) -> None:
    """A timeout is not success, and neither is running again."""
    namespace.apply(namespace.workload("w", **NEVER_READY))
    params: dict[str, Any] = {"kind": "StatefulSet", "name": "w", "partitions": 2, "timeout": 5, "guards": []}
    for changed in (True, False):
        run = namespace.module(SCALE, **params)
        assert run.failed
        assert run.changed is changed
        assert "0 of 2 replicas ready" in run.msg
        assert 1.0 < run["waited"] < 60


BAD_INPUT: list[tuple[dict[str, Any], str]] = [
    ({"context": "production"}, "it has no context 'production'; it has lowtide-"),
    ({"namespace": "feature-systen"}, "namespace feature-systen: it does not exist in cluster https://"),
    ({"name": "worker"}, "StatefulSets there: w."),
    ({"cluster_uid": "00000000-0000-0000-0000-000000000000"}, "not the expected 00000000"),
    ({"host": "https://127.0.0.1:1", "timeout": 1}, "it cannot be reached"),
    ({"kubeconfig": "/nowhere/config"}, "there is no such file"),
    ({"name": "../../nodes"}, "this is not a Kubernetes name"),
    ({"name": "W"}, "this is not a Kubernetes name"),
    ({"min_replicas": 4, "max_replicas": 3}, "min_replicas is 4 and max_replicas is 3"),
]


def test_bad_input_is_refused_with_object_value_and_next_step(namespace: Namespace) -> None:
    """As a newcomer would mistype it."""
    namespace.apply(namespace.workload("w", replicas=0))
    for params, said in BAD_INPUT:
        run = namespace.module(SCALE, **{"kind": "StatefulSet", "name": "w", "partitions": 3, **params})
        assert run.failed
        assert run.rc != 0
        assert said in run.msg
        assert run["error"]["refused"] is True
        assert all(run["error"][part] for part in ("object", "problem", "next_step"))
    assert namespace.get("StatefulSet", "w")["metadata"]["generation"] == 1


def test_untrusted_and_unauthorized(namespace: Namespace) -> None:
    """TLS is verified; an unverified connection warns; a bad token is named."""
    server = namespace.facts["server"]
    params: dict[str, Any] = {
        "host": server,
        "api_key": "wrong-token-value",
        "kind": "StatefulSet",
        "name": "w",
        "partitions": 3,
    }
    untrusted = namespace.module(SCALE, **params)
    assert "its certificate is not trusted" in untrusted.msg
    rejected = namespace.module(SCALE, validate_certs=False, **params)
    assert "401" in rejected.msg
    assert any("not verified" in str(warning) for warning in rejected["warnings"])
    assert "wrong-token-value" not in str(rejected.result) + str(untrusted.result)


def scale_until_written(namespace: Namespace, **pod: Any) -> subprocess.Popen[str]:
    """Scale a new workload to 2, and return the process once that is written and its pods are waited for."""
    namespace.apply(namespace.workload("w", **pod))
    process = start_module(SCALE, namespace.params(kind="StatefulSet", name="w", partitions=2, timeout=300))
    namespace.wait("scaled", lambda: namespace.get("StatefulSet", "w")["spec"]["replicas"] == 2)
    return process


def test_object_that_vanishes_is_named(namespace: Namespace) -> None:
    """Deleted while its pods are waited for."""
    process = scale_until_written(namespace, **NEVER_READY)
    namespace.delete("StatefulSet", "w")
    run = finish_module(process)
    assert run.failed
    assert "it was deleted while it was waited for" in run.msg
    assert run["waited"] < 150


def test_one_who_sets_the_replicas_back_is_named(namespace: Namespace) -> None:
    """Within one observation."""
    process = scale_until_written(namespace, **NEVER_READY)
    namespace.set_replicas("StatefulSet", "w", 1, manager="rival")
    run = finish_module(process)
    assert run.failed
    assert "rival has set them to 1 since" in run.msg
    assert run["waited"] < 150


def test_killed_and_run_again(namespace: Namespace) -> None:
    """After SIGKILL in the middle of the wait the next run changes nothing and waits to the end."""
    probe = {"exec": {"command": ["true"]}, "initialDelaySeconds": 2, "periodSeconds": 1}
    process = scale_until_written(namespace, readinessProbe=probe)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    run = namespace.module(SCALE, kind="StatefulSet", name="w", partitions=2)
    assert (run.failed, run.changed, run["ready"]) == (False, False, 2)


@pytest.mark.parametrize(
    ("faults", "patches"),
    [
        ([Fault("GET", status=500)], 1),
        ([Fault("GET", reset="before")], 1),
        ([Fault("GET", reset="after", times=2)], 1),
        ([Fault("GET", status=429, headers={"Retry-After": "1"})], 1),
        ([Fault("PATCH", status=409)], 2),
        ([Fault("PATCH", status=429, headers={"Retry-After": "1"})], 2),
        ([Fault("PATCH", status=503)], 2),
        ([Fault("PATCH", reset="before")], 2),
        ([Fault("PATCH", reset="after")], 1),
        ([Fault("WATCH", "/statefulsets", reset="before")], 1),
        ([Fault("WATCH", "/statefulsets", status=500)], 1),
        ([Fault("WATCH", "/statefulsets", end_after=1)], 1),
        ([Fault("WATCH", "/statefulsets", end_after=0, gone=True)], 1),
        ([Fault("WATCH", "/statefulsets", status=410)], 1),
        ([Fault("WATCH", "/pods", status=403), Fault("WATCH", "/events", status=403)], 1),
    ],
    ids=lambda value: (
        "+".join(f"{f.verb}-{f.status or f.reset or ('gone' if f.gone else 'ended')}" for f in value)
        if isinstance(value, list)
        else None
    ),
)
def test_faults_are_ridden_out(
    namespace: Namespace, proxy: KubernetesProxy, faults: list[Fault], patches: int, held_pods: HeldPods
) -> None:
    """Lost connections, conflicts, overload, ended and expired watches: the same end, truthfully reported, without a busy loop."""
    namespace.apply(namespace.workload("w", replicas=0, **held_pods.fields))
    namespace.wait("seen", lambda: namespace.get("StatefulSet", "w")["status"].get("observedGeneration") == 1)
    held_pods.hold()
    proxy.faults = faults
    params = {"host": proxy.url, "kind": "StatefulSet", "name": "w", "partitions": 1, "guards": [], "timeout": 200}
    process = start_module(SCALE, namespace.params(**params))
    # What explains a delay, and may not be watched here, is looked for after five seconds.
    namespace.wait("all faults are met", lambda: process.poll() is not None or not any(f.times for f in faults))
    held_pods.let_ready()
    run = finish_module(process)
    assert not run.failed, run.msg
    assert (run.changed, run["ready"], run["replicas"]) == (True, 1, 1)
    assert all(fault.times == 0 for fault in faults)
    assert proxy.verbs["PATCH"] == patches
    # What may not be watched is listed now and then, for as long as the wait takes; what explains a delay is looked for
    # after five seconds.
    late = run["waited"] if faults[0].status == 403 else 4 * (run["waited"] >= 5)
    assert sum(proxy.verbs.values()) <= 6 + 6 + late
    assert bool(run.result.get("warnings")) is (faults[0].status == 403)


def test_repetition_is_bounded(namespace: Namespace, proxy: KubernetesProxy) -> None:
    """A server that only fails is given up, within the deadline and after a few requests."""
    namespace.apply(namespace.workload("w"))
    proxy.faults = [Fault("GET", status=503, times=1000)]
    run = namespace.module(SCALE, host=proxy.url, kind="StatefulSet", name="w", partitions=2, timeout=5)
    assert run.failed
    assert "503" in run.msg
    assert run["error"]["refused"] is True
    assert 3 <= sum(proxy.verbs.values()) <= 12
    proxy.faults = [Fault("GET", status=429, headers={"Retry-After": "3600"})]
    run = namespace.module(SCALE, host=proxy.url, kind="StatefulSet", name="w", partitions=2)
    assert "asks to wait 3600 s" in run.msg
