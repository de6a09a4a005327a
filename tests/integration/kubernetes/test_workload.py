# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""k8s_workload and k8s_workload_info against a real cluster: stop, restore, refuse, wait, survive a kill."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable
from typing import Any

import pytest

from support.kubernetes_proxy import Fault, KubernetesProxy
from support.modules import finish_module, start_module
from support.playbooks import PlaybookRun

from .conftest import Namespace
from .test_scale import hpa, scaled_object

pytestmark = pytest.mark.lab("kubernetes")
NOTE = "lowtide.ops/stopped"


def note_of(namespace: Namespace, kind: str, name: str) -> dict[str, Any] | None:
    """What a stop saved on an object."""
    text = namespace.get(kind, name)["metadata"].get("annotations", {}).get(NOTE)
    if not text:
        return None
    (operation,) = json.loads(text)["operations"]
    return dict(operation)


def told(run: PlaybookRun) -> str:
    """What was printed, without line breaks."""
    return " ".join(run.stdout.split())


def cron_job(namespace: Namespace, name: str) -> dict[str, Any]:
    """One that is due once a year."""
    template = namespace.workload(name)["spec"]["template"]
    template["spec"]["restartPolicy"] = "Never"
    job = {"spec": {"template": {"spec": template["spec"]}}}
    return {
        "apiVersion": "batch/v1",
        "kind": "CronJob",
        "metadata": {"name": name},
        "spec": {"schedule": "0 0 1 1 *", "jobTemplate": job},
    }


def test_stop_and_start_a_tier(namespace: Namespace, proxy: KubernetesProxy) -> None:
    """Three kinds in one task: one patch each; what was there comes back; twice is unchanged; check mode predicts."""
    namespace.apply(
        namespace.workload("w", replicas=2), namespace.workload("d", kind="Deployment"), cron_job(namespace, "c")
    )
    namespace.ready("StatefulSet", "w", 2)
    namespace.ready("Deployment", "d", 1)  # while its status still changes, a patch may have to be repeated
    workloads = [
        {"kind": "StatefulSet", "name": "w"},
        {"kind": "Deployment", "name": "d"},
        {"kind": "CronJob", "name": "c"},
    ]
    base: dict[str, Any] = {"host": proxy.url, "workloads": workloads, "run_id": "night"}

    predicted = namespace.module("k8s_workload", check=True, state="stopped", **base)
    assert predicted.changed
    assert set(proxy.verbs) == {"LIST", "REVIEW"}
    assert predicted["summary"] == (
        f"would stop StatefulSet {namespace.name}/w (2 replicas), Deployment {namespace.name}/d (1 replica),"
        f" CronJob {namespace.name}/c"
    )
    stopped = namespace.module("k8s_workload", state="stopped", **base)
    assert (stopped.changed, stopped["diff"], stopped["plan"]) == (True, predicted["diff"], predicted["plan"])
    assert stopped["diff"]["before"] == {"StatefulSet/w": 2, "Deployment/d": 1, "CronJob/c": 1}
    assert proxy.verbs["PATCH"] == 3
    assert namespace.list("Pod") == []
    assert namespace.get("CronJob", "c")["spec"]["suspend"] is True
    noted = note_of(namespace, "StatefulSet", "w")
    assert noted is not None
    assert (noted["operation"], noted["spec"], noted["run"]) == ("stop", {"replicas": 2}, "night")
    for check in (True, False):
        again = namespace.module("k8s_workload", check=check, state="stopped", **{**base, "run_id": "later"})
        assert (again.changed, again["plan"]) == (False, [])
        assert again["summary"] == "all workloads were already stopped"
    assert note_of(namespace, "StatefulSet", "w") == noted

    seen = namespace.module("k8s_workload_info")
    assert [one["name"] for one in seen["stopped_by_lowtide"]] == ["w", "d", "c"]
    assert seen["stopped_by_lowtide"][0]["stopped_by_lowtide"]["since"] == noted["at"]

    predicted = namespace.module("k8s_workload", check=True, state="running", **base)
    # What the info module returned can be passed on as it is: its replicas of 0 are not what is to run.
    started = namespace.module("k8s_workload", state="running", **{**base, "workloads": seen["stopped_by_lowtide"]})
    assert (started.changed, started["diff"], started["plan"]) == (True, predicted["diff"], predicted["plan"])
    assert [one["status"] for one in started["workloads"]] == ["Current"] * 3
    assert namespace.get("StatefulSet", "w")["status"]["readyReplicas"] == 2
    assert namespace.get("CronJob", "c")["spec"]["suspend"] is False
    assert [note_of(namespace, one["kind"], one["name"]) for one in workloads] == [None, None, None]
    again = namespace.module("k8s_workload", state="running", **base)
    assert (again.changed, again["summary"]) == (False, "all workloads run")
    assert namespace.module("k8s_workload_info")["stopped_by_lowtide"] == []


def test_rehearsal_of_stop_and_start(namespace: Namespace) -> None:
    """Told that it would be stopped, it predicts the start; outside check mode that is refused."""
    namespace.apply(namespace.workload("w", replicas=2))
    namespace.ready("StatefulSet", "w", 2)
    params: dict[str, Any] = {
        "state": "running",
        "workloads": [{"kind": "StatefulSet", "name": "w"}],
        "assume": "stopped",
    }
    predicted = namespace.module("k8s_workload", check=True, **params)
    assert (predicted.changed, predicted["diff"]) == (
        True,
        {"before": {"StatefulSet/w": 0}, "after": {"StatefulSet/w": 2}},
    )
    assert namespace.module("k8s_workload", **params)["error"]["refused"] is True
    scaled = namespace.module(
        "k8s_scale_to_partitions",
        check=True,
        kind="StatefulSet",
        name="w",
        partitions=3,
        assume="stopped",
        start_stopped=True,
    )
    assert scaled["diff"] == {"before": {"replicas": 0}, "after": {"replicas": 3}}


def test_start_without_a_saved_state_needs_replicas(namespace: Namespace) -> None:
    """Another client scaled it to zero: nothing says how many there were."""
    namespace.apply(namespace.workload("w", replicas=0), namespace.workload("v", replicas=1))
    one = {"kind": "StatefulSet", "name": "w"}
    refused = namespace.module("k8s_workload", state="running", workloads=[one, {"kind": "StatefulSet", "name": "v"}])
    assert refused.failed
    assert f"StatefulSet {namespace.name}/w" in refused.msg
    assert "nothing was saved on it" in refused.msg
    assert refused["error"]["refused"] is True
    given = namespace.module("k8s_workload", state="running", workloads=[{**one, "replicas": 1}])
    assert given["workloads"][0]["ready"] == 1


def test_what_was_at_zero_before_a_stop_is_at_zero_after_the_start(namespace: Namespace) -> None:
    """That is saved too, so that one such workload does not keep its tier from being started."""
    suspended = cron_job(namespace, "c")
    suspended["spec"]["suspend"] = True
    namespace.apply(namespace.workload("w", replicas=0), namespace.workload("v", replicas=1), suspended)
    tier = [
        {"kind": "StatefulSet", "name": "w"},
        {"kind": "StatefulSet", "name": "v"},
        {"kind": "CronJob", "name": "c"},
    ]
    stopped = namespace.module("k8s_workload", state="stopped", workloads=tier)
    assert not stopped.failed, stopped.msg
    assert "a start leaves it so" in stopped["reasons"]["StatefulSet/w"]
    assert not namespace.module("k8s_workload", state="stopped", workloads=tier).changed
    started = namespace.module("k8s_workload", state="running", workloads=tier)
    assert not started.failed, started.msg
    assert [one["replicas"] for one in started["workloads"]] == [0, 1, 0]
    assert [note_of(namespace, one["kind"], one["name"]) for one in tier] == [None, None, None]


def test_note_that_cannot_be_read_is_refused(namespace: Namespace) -> None:
    """Of a later format, or edited by hand: named, with the way out."""
    one = namespace.workload("w", replicas=0)
    one["metadata"]["annotations"] = {NOTE: '{"format": 2, "replicas": 3}'}
    namespace.apply(one)
    wanted = [{"kind": "StatefulSet", "name": "w"}]
    refused = namespace.module("k8s_workload", state="running", workloads=wanted)
    assert "is not of format 1" in refused.msg
    assert "Give replicas" in refused.msg
    assert "not of format 1" in namespace.module("k8s_workload_info")["workloads"][0]["problem"]
    namespace.module("k8s_workload", state="running", workloads=[{**wanted[0], "replicas": 1}])
    assert note_of(namespace, "StatefulSet", "w") is None


def test_stopped_workload_is_scaled_only_on_request(namespace: Namespace) -> None:
    """It was stopped on purpose; with start_stopped it comes up at the right number at once."""
    namespace.apply(namespace.workload("w", replicas=1))
    namespace.module("k8s_workload", state="stopped", workloads=[{"kind": "StatefulSet", "name": "w"}], run_id="night")
    params: dict[str, Any] = {"kind": "StatefulSet", "name": "w", "partitions": 2}
    refused = namespace.module("k8s_scale_to_partitions", **params)
    assert "stopped on purpose by run night" in refused.msg
    assert refused["error"]["refused"] is True
    done = namespace.module("k8s_scale_to_partitions", start_stopped=True, **params)
    assert (done.changed, done["ready"]) == (True, 2)
    assert note_of(namespace, "StatefulSet", "w") is None
    assert not namespace.module("k8s_scale_to_partitions", start_stopped=True, **params).changed


@pytest.mark.usefixtures("keda")
def test_keda_is_refused_or_paused(namespace: Namespace) -> None:
    """KEDA would start pods again: named, or paused with a note and released at the start."""
    namespace.apply(namespace.workload("w"), scaled_object(namespace, "w", 1, 5))
    base: dict[str, Any] = {"workloads": [{"kind": "StatefulSet", "name": "w"}]}
    refused = namespace.module("k8s_workload", state="stopped", **base)
    assert f"ScaledObject {namespace.name}/w-keda owns its replicas (1 to 5)" in refused.msg
    assert namespace.get("StatefulSet", "w")["spec"]["replicas"] == 1
    stopped = namespace.module("k8s_workload", state="stopped", autoscaler="pause", **base)
    assert stopped.changed
    frozen = namespace.get("ScaledObject", "w-keda")["metadata"]["annotations"]
    assert frozen["autoscaling.keda.sh/paused-replicas"] == "0"
    assert not namespace.module("k8s_workload", state="stopped", autoscaler="pause", **base).changed
    started = namespace.module("k8s_workload", state="running", **base)
    assert started.changed
    released = namespace.get("ScaledObject", "w-keda")["metadata"].get("annotations", {})
    assert "autoscaling.keda.sh/paused-replicas" not in released
    assert NOTE not in released
    assert not namespace.module("k8s_workload", state="running", **base).changed


def test_hpa_rests_while_its_workload_is_stopped(namespace: Namespace) -> None:
    """The controller says so itself (ScalingDisabled), so it is no obstacle."""
    namespace.apply(namespace.workload("w"), hpa(namespace, "w", 2, 5))
    stopped = namespace.module("k8s_workload", state="stopped", workloads=[{"kind": "StatefulSet", "name": "w"}])
    assert stopped.changed, stopped.msg

    def resting() -> bool:
        conditions = namespace.get("HorizontalPodAutoscaler", "w-hpa").get("status", {}).get("conditions") or []
        return any(one["type"] == "ScalingActive" and one["reason"] == "ScalingDisabled" for one in conditions)

    namespace.wait("HPA rests", resting)
    assert namespace.get("StatefulSet", "w")["spec"]["replicas"] == 0


def test_pods_that_stay_are_named(namespace: Namespace) -> None:
    """A finalizer keeps a terminating pod: not gone, whatever the StatefulSet counts."""
    one = namespace.workload("w")
    one["spec"]["template"]["metadata"]["finalizers"] = ["example.org/hold"]
    namespace.apply(one)
    namespace.ready("StatefulSet", "w", 1)
    run = namespace.module("k8s_workload", state="stopped", workloads=[{"kind": "StatefulSet", "name": "w"}], timeout=6)
    assert run.failed
    assert run.changed
    assert f"Pod {namespace.name}/w-0" in run.msg
    namespace.request("PATCH", "Pod", "w-0", {"metadata": {"finalizers": None}}, type_="merge-patch+json")
    again = namespace.module(
        "k8s_workload", state="stopped", workloads=[{"kind": "StatefulSet", "name": "w"}], timeout=120
    )
    assert (again.failed, again.changed) == (False, False)


def test_killed_while_stopping_and_run_again(namespace: Namespace) -> None:
    """The note is in the write itself: after SIGKILL the start restores what was there."""
    namespace.apply(namespace.workload("w", replicas=2, spec={"terminationGracePeriodSeconds": 2}))
    namespace.ready("StatefulSet", "w", 2)
    workloads = [{"kind": "StatefulSet", "name": "w"}]
    process = start_module("k8s_workload", namespace.params(state="stopped", workloads=workloads))
    namespace.wait("scaled", lambda: namespace.get("StatefulSet", "w")["spec"]["replicas"] == 0)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    run = namespace.module("k8s_workload", state="running", workloads=workloads)
    assert (run.failed, run["workloads"][0]["ready"]) == (False, 2)
    assert note_of(namespace, "StatefulSet", "w") is None


@pytest.mark.parametrize(
    "fault",
    [Fault("PATCH", reset="after"), Fault("PATCH", status=409), Fault("LIST", "/pods", status=500)],
    ids=["reset", "409", "500"],
)
def test_note_survives_doubtful_writes(namespace: Namespace, proxy: KubernetesProxy, fault: Fault) -> None:
    """A lost answer is not a second stop: the note still says what there was at first."""
    namespace.apply(namespace.workload("w", replicas=2))
    proxy.faults = [fault]
    run = namespace.module(
        "k8s_workload", host=proxy.url, state="stopped", workloads=[{"kind": "StatefulSet", "name": "w"}]
    )
    assert (run.failed, run.changed) == (False, True)
    assert fault.times == 0
    noted = note_of(namespace, "StatefulSet", "w")
    assert noted is not None
    assert noted["spec"] == {"replicas": 2}


def test_one_who_starts_it_again_is_named(namespace: Namespace) -> None:
    """While its pods are waited to be gone."""
    namespace.apply(namespace.workload("w", spec={"terminationGracePeriodSeconds": 10}))
    namespace.ready("StatefulSet", "w", 1)
    process = start_module(
        "k8s_workload", namespace.params(state="stopped", workloads=[{"kind": "StatefulSet", "name": "w"}], timeout=60)
    )
    namespace.wait("scaled", lambda: namespace.get("StatefulSet", "w")["spec"]["replicas"] == 0)
    namespace.set_replicas("StatefulSet", "w", 1, manager="rival")
    run = finish_module(process)
    assert "rival has set its replicas to 1 since" in run.msg


BAD_INPUT: list[tuple[dict[str, Any], str]] = [
    ({"namespace": "no-such-space"}, "namespace no-such-space: it does not exist"),
    (
        {"workloads": [{"kind": "StatefulSet", "name": "x"}, {"kind": "StatefulSet", "name": "y"}]},
        "StatefulSets there: w",
    ),
    ({"workloads": []}, "it names nothing"),
    ({"cluster_uid": "other"}, "not the expected other"),
    ({"context": "other"}, "it has no context 'other'"),
    ({"timeout": 0}, "option timeout"),
]


def test_bad_input_is_refused(namespace: Namespace) -> None:
    """Object, value, next step; nothing is stopped."""
    namespace.apply(namespace.workload("w"))
    for params, said in BAD_INPUT:
        for state in ("stopped", "running"):
            run = namespace.module(
                "k8s_workload", **{"state": state, "workloads": [{"kind": "StatefulSet", "name": "w"}], **params}
            )
            assert run.failed
            assert said in run.msg
            assert run["error"]["refused"] is True
    assert namespace.get("StatefulSet", "w")["metadata"]["generation"] == 1


def test_info_of_what_is_missing(namespace: Namespace) -> None:
    """A namespace that does not exist is not an empty one."""
    assert namespace.module("k8s_workload_info")["workloads"] == []
    assert "404" in namespace.module("k8s_workload_info", namespace="no-such-space").msg
    named = namespace.module("k8s_workload_info", workloads=[{"kind": "Deployment", "name": "x"}])
    assert "Deployments there: none" in named.msg


def test_the_identity_can_be_asked_for_alone(namespace: Namespace) -> None:
    """Without a namespace only the cluster's identity is read, and compared where it is declared."""
    run = namespace.module("k8s_workload_info", namespace=None)
    assert (run["cluster_uid"], run["workloads"], run["requests"]) == (namespace.facts["cluster_uid"], [], 1)
    other = namespace.module("k8s_workload_info", namespace=None, cluster_uid="another")
    assert "not the expected another" in other.msg
    named = namespace.module("k8s_workload_info", namespace=None, workloads=[{"kind": "Deployment", "name": "x"}])
    assert "option namespace: it is not set" in named.msg


def test_an_account_that_may_not_read_the_identity_is_told_what_it_lacks(namespace: Namespace) -> None:
    """As refusal where the identity is asked for or declared; elsewhere the identity is just not known."""
    kubectl = [namespace.facts["kubectl"], "--kubeconfig", namespace.facts["kubeconfig"], "-n", namespace.name]
    subprocess.run([*kubectl, "create", "serviceaccount", "restricted"], check=True, capture_output=True)
    token = subprocess.run(
        [*kubectl, "create", "token", "restricted"], check=True, capture_output=True, text=True
    ).stdout.strip()
    account = {"host": namespace.facts["server"], "api_key": token, "validate_certs": False}
    for options in ({"namespace": None}, {"cluster_uid": namespace.facts["cluster_uid"]}):
        run = namespace.module("k8s_workload_info", **account, **options)
        assert run.failed
        assert "answered 403" in run["error"]["problem"]
        assert "get on the namespace kube-system" in run["error"]["next_step"]
        assert token not in run.msg


TIERS = [
    [{"kind": "StatefulSet", "name": "w"}],
    [{"kind": "Deployment", "name": "d"}, {"kind": "Deployment", "name": "e"}],
]


def written_objects(proxy: KubernetesProxy) -> list[str]:
    """The names of the objects that were patched, in their order."""
    return [path.partition("?")[0].rpartition("/")[2] for verb, path in proxy.requests if verb == "PATCH"]


def test_tiers_follow_each_other(namespace: Namespace, proxy: KubernetesProxy) -> None:
    """Start order to start, the reverse to stop; each tier is waited for; one reading, one plan, one result over all."""
    probe = {"exec": {"command": ["true"]}, "initialDelaySeconds": 1, "periodSeconds": 1}
    namespace.apply(
        namespace.workload("w", replicas=2, readinessProbe=probe),
        namespace.workload("d", kind="Deployment"),
        namespace.workload("e", kind="Deployment"),
    )
    namespace.ready("StatefulSet", "w", 2)
    for name in ("d", "e"):
        namespace.ready("Deployment", name, 1)
    base: dict[str, Any] = {"host": proxy.url, "tiers": TIERS, "run_id": "night"}

    predicted = namespace.module("k8s_workload", check=True, state="stopped", **base)
    assert proxy.verbs["LIST"] == 4  # two kinds of workload, HPAs, ScaledObjects
    assert proxy.verbs["REVIEW"] == 4  # patch of both kinds, list of pods and ReplicaSets
    proxy.requests.clear()
    stopped = namespace.module("k8s_workload", state="stopped", **base)
    assert not stopped.failed, stopped.msg
    assert (stopped["plan"], stopped["diff"]) == (predicted["plan"], predicted["diff"])
    assert [item["object"].rpartition("/")[2] for item in stopped["plan"]] == ["d", "e", "w"]
    assert written_objects(proxy) == ["d", "e", "w"]
    first_patch, last_patch = (
        [number for number, (verb, _path) in enumerate(proxy.requests) if verb == "PATCH"][index] for index in (0, -1)
    )
    before = [verb for verb, _path in proxy.requests[:first_patch]]
    assert before == ["LIST"] * 4 + ["REVIEW"] * 2 + ["DRY_RUN"] * 3
    assert any(
        "/pods" in path for _verb, path in proxy.requests[first_patch:last_patch]
    )  # tier 2 was waited for before tier 1
    assert [one["name"] for one in stopped["workloads"]] == ["d", "e", "w"]
    assert stopped["summary"] == (
        f"stopped Deployment {namespace.name}/d (1 replica), Deployment {namespace.name}/e (1 replica),"
        f" StatefulSet {namespace.name}/w (2 replicas); lowtide.ops.startup starts them again"
    )
    assert f"Deployment {namespace.name}/d: stopped, 0 pods left; asked to be stopped" in stopped["evidence"]

    proxy.requests.clear()
    started = namespace.module("k8s_workload", state="running", **base)
    assert not started.failed, started.msg
    assert written_objects(proxy) == ["w", "d", "e"]
    ready = [one["ready"] for one in started["workloads"]]
    assert ready == [2, 1, 1]
    patched = [path for verb, path in proxy.requests if verb in ("PATCH", "WATCH")]
    assert "/statefulsets/w" in patched[0]
    assert "statefulsets" in patched[1]  # the watch of tier 1 comes before the first patch of tier 2
    assert not namespace.module("k8s_workload", state="running", **base).changed


def test_a_flat_list_is_one_tier(namespace: Namespace, proxy: KubernetesProxy) -> None:
    """As the option workloads."""
    namespace.apply(namespace.workload("w"), namespace.workload("v"))
    for name in ("w", "v"):
        namespace.ready("StatefulSet", name, 1)
    flat = [{"kind": "StatefulSet", "name": "w"}, {"kind": "StatefulSet", "name": "v"}]
    stopped = namespace.module("k8s_workload", host=proxy.url, state="stopped", tiers=flat)
    assert not stopped.failed, stopped.msg
    assert written_objects(proxy) == ["w", "v"]


def test_all_tiers_are_refused_before_the_first_write(namespace: Namespace, proxy: KubernetesProxy) -> None:
    """What stands against the last tier to be stopped keeps the first from being touched."""
    owned = namespace.workload("w")
    owned["metadata"]["annotations"] = {"argocd.argoproj.io/tracking-id": "shop:apps/StatefulSet:w"}
    namespace.apply(owned, namespace.workload("d", kind="Deployment"))
    namespace.set_replicas("StatefulSet", "w", 2, manager="argocd-controller")
    tiers = [[{"kind": "StatefulSet", "name": "w"}], [{"kind": "Deployment", "name": "d"}]]
    for check in (True, False):
        refused = namespace.module("k8s_workload", check=check, host=proxy.url, state="stopped", tiers=tiers)
        assert "Argo CD application shop (manager argocd-controller set spec.replicas)" in refused.msg
        assert (refused["error"]["refused"], refused.changed) == (True, False)
    absent = [[{"kind": "StatefulSet", "name": "x"}], [{"kind": "Deployment", "name": "d"}]]
    refused = namespace.module("k8s_workload", host=proxy.url, state="stopped", tiers=absent)
    assert f"StatefulSet {namespace.name}/x" in refused.msg
    assert proxy.verbs["PATCH"] == 0
    assert namespace.get("Deployment", "d")["spec"]["replicas"] == 1


def test_a_start_is_not_refused_for_its_owner(namespace: Namespace) -> None:
    """A GitOps tool, or an HPA that moves the replicas at once, does not stand in the way back."""
    owned = namespace.workload("w")
    owned["metadata"]["annotations"] = {"argocd.argoproj.io/tracking-id": "shop:apps/StatefulSet:w"}
    namespace.apply(owned, hpa(namespace, "w", 2, 5))
    one: dict[str, Any] = {"tiers": [{"kind": "StatefulSet", "name": "w"}]}
    stopped = namespace.module("k8s_workload", state="stopped", guards=["hpa", "keda"], **one)
    assert not stopped.failed, stopped.msg
    started = namespace.module("k8s_workload", state="running", **one)
    assert not started.failed, started.msg
    assert started["blockers"] == []
    assert started["workloads"][0]["ready"] >= 1


def test_failure_in_the_second_tier_says_what_was_done(namespace: Namespace) -> None:
    """The first tier is stopped and reported; running again goes on; a start puts everything back."""
    held = namespace.workload("w")
    held["spec"]["template"]["metadata"]["finalizers"] = ["example.org/hold"]
    namespace.apply(held, namespace.workload("d", kind="Deployment"), namespace.workload("v"))
    namespace.ready("StatefulSet", "w", 1)
    namespace.ready("Deployment", "d", 1)
    tiers = [
        [{"kind": "StatefulSet", "name": "v"}],
        [{"kind": "StatefulSet", "name": "w"}],
        [{"kind": "Deployment", "name": "d"}],
    ]
    run = namespace.module("k8s_workload", state="stopped", tiers=tiers, timeout=12)
    assert run.failed
    assert f"Pod {namespace.name}/w-0" in run.msg
    assert (run.changed, run["error"]["refused"]) == (True, False)
    assert [one["name"] for one in run["workloads"]] == ["d", "w", "v"]
    assert run["summary"].startswith(
        f"stopped Deployment {namespace.name}/d (1 replica), StatefulSet {namespace.name}/w (1 replica);"
        f" not stopped: StatefulSet {namespace.name}/v; not gone yet: StatefulSet {namespace.name}/w ("
    )
    assert run["summary"].endswith("); lowtide.ops.startup starts them again")
    assert namespace.get("StatefulSet", "v")["spec"]["replicas"] == 1
    namespace.request("PATCH", "Pod", "w-0", {"metadata": {"finalizers": None}}, type_="merge-patch+json")
    again = namespace.module("k8s_workload", state="stopped", tiers=tiers, timeout=120)
    assert not again.failed, again.msg
    assert [item["object"].rpartition("/")[2] for item in again["plan"]] == ["v"]
    started = namespace.module("k8s_workload", state="running", tiers=tiers, timeout=120)
    assert [one["replicas"] for one in started["workloads"]] == [1, 1, 1]


def test_what_another_client_stopped_is_left_where_asked(namespace: Namespace) -> None:
    """The others are started, and it is reported; a CronJob that was suspended before stays so."""
    suspended = cron_job(namespace, "c")
    suspended["spec"]["suspend"] = True
    namespace.apply(namespace.workload("w"), namespace.workload("v", replicas=0), suspended)
    tiers = [
        [{"kind": "StatefulSet", "name": "w"}, {"kind": "StatefulSet", "name": "v"}],
        [{"kind": "CronJob", "name": "c"}],
    ]
    assert not namespace.module("k8s_workload", state="stopped", workloads=tiers[0][:1]).failed
    for check in (True, False):
        run = namespace.module("k8s_workload", check=check, state="running", on_missing_state="report", tiers=tiers)
        assert not run.failed, run.msg
        assert run.changed
        assert [blocker["object"].rpartition("/")[2] for blocker in run["blockers"]] == ["v", "c"]
    assert [namespace.get("StatefulSet", name)["spec"]["replicas"] for name in ("w", "v")] == [1, 0]
    assert namespace.get("CronJob", "c")["spec"]["suspend"] is True
    again = namespace.module("k8s_workload", state="running", on_missing_state="report", tiers=tiers)
    assert (again.changed, "nothing to start; left stopped" in again["summary"]) == (False, True)


def test_a_window_leaves_what_an_operator_stopped(
    namespace: Namespace, ansible_playbook: Callable[..., PlaybookRun]
) -> None:
    """Not started and named by a window; what the window stopped is started; the role alone and the restoring start all."""
    namespace.apply(namespace.workload("w", replicas=2), namespace.workload("d", kind="Deployment"))
    tiers = [[{"kind": "StatefulSet", "name": "w"}], [{"kind": "Deployment", "name": "d", "replicas": 1}]]
    window = "weekly@2026-11-21T02:00:00Z"

    def play(role: str, **variables: Any) -> PlaybookRun:
        connection = {"kubeconfig": namespace.facts["kubeconfig"]}
        site = {"kubernetes_connection": connection, "kubernetes_namespace": namespace.name, "tiers": tiers}
        include = {"ansible.builtin.include_role": {"name": f"lowtide.ops.{role}"}}
        result = (
            f"TOLD {{{{ {role}_result.changed }}}} {{{{ {role}_result.summary }}}} {{{{ {role}_result.blockers }}}}"
        )
        tasks = [include, {"ansible.builtin.debug": {"msg": result}}]
        run = ansible_playbook(
            [{"hosts": "localhost", "gather_facts": False, "vars": site | variables, "tasks": tasks}]
        )
        assert run.rc == 0, run.stdout
        return run

    def count() -> list[int]:
        return [namespace.get(*key)["spec"]["replicas"] for key in (("StatefulSet", "w"), ("Deployment", "d"))]

    by_operator = play("shutdown", shutdown_tiers=tiers[1])
    assert "lowtide.ops.startup starts them again" in told(by_operator)
    note = note_of(namespace, "Deployment", "d")
    assert note is not None
    assert "starts them again" not in told(play("shutdown", window_id=window))
    assert count() == [0, 0]

    reverted = play("startup", window_id=window)
    assert count() == [2, 0]
    assert "TOLD True started StatefulSet" in told(reverted)
    assert f"stopped by run {note['run']} since" in told(reverted)
    assert "Start it with lowtide.ops.startup or lowtide.ops.restore_service" in told(reverted)
    assert "TOLD False nothing to start; left stopped, as no window stopped it" in told(
        play("startup", window_id=window)
    )
    play("startup", window_id="restore_service@2026-11-21T04:00:00Z", window_restoring=True)
    assert count() == [2, 1]
    play("shutdown", shutdown_tiers=tiers[0])
    play("startup")
    assert count() == [2, 1]


@pytest.mark.usefixtures("keda")
def test_a_window_leaves_a_scaled_object_that_an_operator_paused(namespace: Namespace) -> None:
    """Else KEDA would start what was stopped on purpose."""
    namespace.apply(namespace.workload("w"), scaled_object(namespace, "w", 1, 5))
    base: dict[str, Any] = {"workloads": [{"kind": "StatefulSet", "name": "w"}]}
    assert namespace.module("k8s_workload", state="stopped", autoscaler="pause", **base).changed
    left = namespace.module("k8s_workload", state="running", saved_by="window", **base)
    assert (left.failed, left.changed, len(left["blockers"])) == (False, False, 1)
    annotations = namespace.get("ScaledObject", "w-keda")["metadata"]["annotations"]
    assert annotations["autoscaling.keda.sh/paused-replicas"] == "0"
    assert namespace.module("k8s_workload", state="running", **base).changed


def test_a_lost_answer_to_the_last_write_is_no_refusal(namespace: Namespace, proxy: KubernetesProxy) -> None:
    """The write was sent, and reading back fails too: changed, whatever the error."""
    namespace.apply(namespace.workload("w"))
    namespace.ready("StatefulSet", "w", 1)
    proxy.faults = [Fault("PATCH", reset="after"), Fault("GET", status=500, times=50)]
    run = namespace.module(
        "k8s_workload", host=proxy.url, state="stopped", workloads=[{"kind": "StatefulSet", "name": "w"}], timeout=6
    )
    assert run.failed
    assert (run.changed, run["error"]["refused"]) == (True, False)


def test_what_one_workload_costs_up_to_its_patch(namespace: Namespace, proxy: KubernetesProxy) -> None:
    """Identity, the workload, two guards, the right to see whether its pods are gone, the patch tried and sent."""
    namespace.apply(namespace.workload("w"))
    namespace.ready("StatefulSet", "w", 1)
    run = namespace.module(
        "k8s_workload",
        host=proxy.url,
        cluster_uid=namespace.facts["cluster_uid"],
        state="stopped",
        tiers=[[{"kind": "StatefulSet", "name": "w"}]],
    )
    assert not run.failed, run.msg
    verbs = [verb for verb, _path in proxy.requests]
    assert verbs[: verbs.index("PATCH") + 1] == ["GET", "LIST", "LIST", "LIST", "REVIEW", "DRY_RUN", "PATCH"]
