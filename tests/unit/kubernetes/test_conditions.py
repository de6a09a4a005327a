# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Conditions: when a workload serves or is gone, a rollout or Job is done, and what is somebody else's doing."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.autoscalers import Autoscaler
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.conditions import (
    Condition,
    Gone,
    Serving,
    Status,
    describe_foreign_pods,
)
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.job_conditions import JobDone
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.objects import Workload
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.rollout_conditions import RolledOut
from unit.kubernetes.yaml_objects import find, load, replace, scale_between, swap, take, without

Json = dict[str, Any]
WEB, DB, PURGE, AGENT = load("deployment"), load("statefulset"), load("cronjob"), load("daemonset")
STATEFUL_SET, DEPLOYMENT = find(DB, "StatefulSet"), find(WEB, "Deployment")
CRON_JOB, DAEMON_SET = find(PURGE, "CronJob"), find(AGENT, "DaemonSet")
HPA = {"manager": "kube-controller-manager", "subresource": "scale", "fieldsV1": {"f:spec": {"f:replicas": {}}}}
PERSON = {"manager": "kubectl-scale", "subresource": "scale", "fieldsV1": {"f:spec": {"f:replicas": {}}}}
SERVING: Json = {
    "spec__replicas": 2,
    "status__replicas": 2,
    "status__readyReplicas": 2,
    "status__availableReplicas": 2,
    "status__updatedReplicas": 2,
}
STOPPED: Json = {
    "spec__replicas": 0,
    "status__replicas": 0,
    "status__readyReplicas": 0,
    "status__availableReplicas": 0,
    "status__updatedReplicas": 0,
}


def written(obj: Json, **fields: Any) -> Workload:
    """The workload as it was read or written last."""
    return Workload.from_object(replace(obj, **fields))


def evaluate(condition: Condition, *objects: Json) -> Status:
    """What a condition says of these objects, with all kinds read."""
    return condition.evaluate(
        take(list(objects), "StatefulSet", "Deployment", "CronJob", "DaemonSet", "Pod", "Job", "ReplicaSet")
    )


# --- Serving --------------------------------------------------------------------------------------------------------


def test_a_workload_that_serves() -> None:
    """The message has the numbers."""
    status = evaluate(Serving(written(STATEFUL_SET), 3), STATEFUL_SET)
    assert status == Status("Current", "StatefulSet shop/db", "3 of 3 replicas ready (3 pods)", 3)
    assert (status.is_current, status.is_failed) == (True, False)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"status__readyReplicas": 2}, "2 of 3 replicas ready (3 pods)"),
        ({"status__readyReplicas": None, "status__availableReplicas": None}, "0 of 3 replicas ready (3 pods)"),
        ({"status__replicas": 4}, "3 of 3 replicas ready (4 pods)"),
        ({"status__replicas": 2}, "3 of 3 replicas ready (2 pods)"),
        ({"status__readyReplicas": 4}, "4 of 3 replicas ready (3 pods), 3 of them for minReadySeconds (0 s)"),
        ({"status__updatedReplicas": 2}, "3 of 3 replicas ready (3 pods), 2 of 3 updated"),
        ({"status__availableReplicas": 1, "spec__minReadySeconds": 60}, "1 of them for minReadySeconds (60 s)"),
        ({"status__observedGeneration": 3}, "its controller has not seen generation 4 yet"),
    ],
)
def test_a_workload_that_does_not_serve_yet(fields: Json, words: str) -> None:
    """All of it counts: observed, as many pods, ready, available, of the newest revision."""
    status = evaluate(Serving(written(STATEFUL_SET), 3), replace(STATEFUL_SET, **fields))
    if fields == {"status__readyReplicas": 4}:
        assert status.state == "Current"  # more ready than there are is a status on its way, and three serve
    else:
        assert status.state == "InProgress"
    assert words in status.message
    assert status.goal == 3


@pytest.mark.parametrize("obj", [STATEFUL_SET, DEPLOYMENT])
def test_min_ready_seconds_counts_for_every_kind(obj: Json) -> None:
    """Ready for a second is not available."""
    serving = replace(obj, **SERVING)
    condition = Serving(written(serving), 2)
    assert evaluate(condition, serving).is_current
    assert not evaluate(condition, replace(serving, spec__minReadySeconds=60, status__availableReplicas=1)).is_current
    assert not evaluate(condition, replace(serving, status__readyReplicas=1)).is_current


@pytest.mark.parametrize(
    "strategy", [{"type": "OnDelete"}, {"type": "RollingUpdate", "rollingUpdate": {"partition": 2}}]
)
def test_pods_that_stay_old_on_purpose_serve(strategy: Json) -> None:
    """Two of three are held back by the partition, all three by OnDelete."""
    held = replace(STATEFUL_SET, spec__updateStrategy=strategy, status__updatedReplicas=1)
    status = evaluate(Serving(written(held), 3), held)
    assert (status.state, status.message) == ("Current", "3 of 3 replicas ready (3 pods)")
    fewer = replace(held, status__updatedReplicas=0)
    assert evaluate(Serving(written(held), 3), fewer).is_current is (strategy["type"] == "OnDelete")


def test_an_object_older_than_the_write_is_not_judged() -> None:
    """A LIST from before the patch: its status belongs to the old number, which is nobody's doing."""
    condition = Serving(written(STATEFUL_SET, metadata__generation=5, spec__replicas=5), 5)
    status = evaluate(condition, STATEFUL_SET)
    assert (status.state, status.goal) == ("InProgress", 5)
    condition = Serving(written(STATEFUL_SET, metadata__generation=5), 3)
    assert evaluate(condition, STATEFUL_SET).state == "InProgress"


@pytest.mark.parametrize(
    ("objects", "problem"),
    [
        ([], "it was deleted while it was waited for"),
        ([replace(STATEFUL_SET, metadata__uid="another")], "it was deleted and created again"),
        ([replace(STATEFUL_SET, metadata__deletionTimestamp="2026-05-01T10:00:00Z")], "it is being deleted"),
    ],
)
@pytest.mark.parametrize(
    "condition",
    [
        Serving(written(STATEFUL_SET), 3),
        Gone(written(STATEFUL_SET)),
        RolledOut(written(STATEFUL_SET), "db-66f"),
    ],
)
def test_a_workload_that_is_deleted_fails(condition: Condition, objects: list[Json], problem: str) -> None:
    """One of the same name that serves is another one."""
    status = evaluate(condition, *objects)
    assert (status.state, status.title, status.is_failed) == ("Failed", "StatefulSet shop/db", True)
    assert problem in status.message
    assert "who deleted it" in status.next_step


def test_a_kind_that_has_not_been_read_is_not_deleted() -> None:
    """Nothing can be said of it."""
    status = Serving(written(STATEFUL_SET), 3).evaluate(take([]))
    assert (status.state, status.message) == ("InProgress", "it has not been read yet")


def changed(replicas: int, manager: Json = HPA) -> Json:
    """The StatefulSet, of which two pods serve, after somebody has set another number."""
    fields = {**SERVING, "spec__replicas": replicas, "metadata__generation": 5, "metadata__managedFields": [manager]}
    return replace(STATEFUL_SET, **fields)


BEFORE = written(STATEFUL_SET, **SERVING)


def read_scaled_object(**spec: Any) -> Autoscaler:
    """KEDA's object of the StatefulSet."""
    target = {"kind": "StatefulSet", "name": "db"}
    return Autoscaler.from_object({"kind": "ScaledObject", "metadata": {}, "spec": {"scaleTargetRef": target, **spec}})


KEDA = {"manager": "keda-operator", "subresource": "scale", "fieldsV1": {"f:spec": {"f:replicas": {}}}}
TO_ZERO = read_scaled_object(maxReplicaCount=10)
IDLE = read_scaled_object(minReplicaCount=2, maxReplicaCount=10, idleReplicaCount=0)
FROM_TWO = read_scaled_object(minReplicaCount=2, maxReplicaCount=10)


@pytest.mark.parametrize(
    ("scalers", "replicas", "state", "goal"),
    [
        ([TO_ZERO], 1, "InProgress", 1),
        ([TO_ZERO], 10, "InProgress", 10),
        ([TO_ZERO], 11, "Failed", 2),
        ([IDLE], 1, "Failed", 2),
        ([IDLE], 6, "InProgress", 6),
        ([FROM_TWO], 0, "Failed", 2),
        ([FROM_TWO], 11, "Failed", 2),
        ([FROM_TWO, TO_ZERO], 1, "InProgress", 1),
    ],
)
def test_what_an_autoscaler_may_set_is_the_goal(
    scalers: list[Autoscaler], replicas: int, state: str, goal: int
) -> None:
    """And another number is somebody else's."""
    status = evaluate(Serving(BEFORE, 2, autoscalers=scalers), changed(replicas, KEDA))
    assert (status.state, status.goal) == (state, goal)


NOBODY = {"manager": "nobody", "fieldsV1": {"f:metadata": {}}}


@pytest.mark.parametrize(
    ("replicas", "scalers", "state"),
    [(0, [FROM_TWO], "InProgress"), (0, scale_between(2, 10), "Failed"), (1, [FROM_TWO], "Failed")],
)
def test_a_late_zero_of_kedas_is_waited_for(replicas: int, scalers: list[Autoscaler], state: str) -> None:
    """It leaves no manager of the field behind, and KEDA's next look corrects it; an HPA writes no 0."""
    assert evaluate(Serving(BEFORE, 2, autoscalers=scalers), changed(replicas, NOBODY)).state == state


@pytest.mark.parametrize("scaler", [TO_ZERO, IDLE])
def test_0_by_its_autoscaler_serves(scaler: Autoscaler) -> None:
    """As soon as its controller has done it; a read from before the write, at 0 as well, is not it."""
    condition = Serving(BEFORE, 2, autoscalers=[scaler])
    resting = replace(changed(0, KEDA), **STOPPED, status__observedGeneration=5)
    status = evaluate(condition, resting)
    assert (status.state, status.message, status.goal) == ("Current", "0 replicas, as its autoscaler asks", 0)
    for fields in ({"status__replicas": 1}, {"status__observedGeneration": 4}):
        assert evaluate(condition, replace(resting, **fields)).state == "InProgress"
    status = evaluate(condition, replace(resting, metadata__generation=3))
    assert (status.state, status.goal) == ("InProgress", 2)
    assert status.message.startswith("0 of 2 replicas ready")


@pytest.mark.parametrize(("manager", "state"), [(KEDA, "InProgress"), (HPA, "InProgress"), (PERSON, "Failed")])
def test_an_autoscaler_that_could_not_be_read_is_no_rival(manager: Json, state: str) -> None:
    """By the name under which it writes."""
    assert evaluate(Serving(BEFORE, 2, autoscalers=[]), changed(6, manager)).state == state
    assert evaluate(Serving(BEFORE, 2), changed(6, manager)).state == "Failed"
    resting = replace(changed(0, manager), **STOPPED, status__observedGeneration=5)
    assert evaluate(Serving(BEFORE, 2, autoscalers=[]), resting).is_current is (state == "InProgress")


def test_it_serves_when_the_autoscalers_number_serves() -> None:
    """Also when that is not the number that was noted."""
    status = evaluate(
        Serving(written(STATEFUL_SET, **SERVING), 2, autoscalers=scale_between(2, 10)),
        replace(STATEFUL_SET, metadata__generation=5, status__observedGeneration=5),
    )
    assert (status.state, status.goal) == ("Current", 3)


def test_a_persons_number_is_a_failure_that_names_the_manager() -> None:
    """There is no autoscaler, or the number is none that it could set."""
    status = evaluate(Serving(BEFORE, 2), changed(5, PERSON))
    assert (status.state, status.goal) == ("Failed", 2)
    assert status.message == "replicas were set to 2, and kubectl-scale has set them to 5 since"
    assert "Pause or adjust" in status.next_step
    assert "an unknown writer has set them to 5" in evaluate(Serving(BEFORE, 2), changed(5, {})).message
    assert evaluate(Serving(BEFORE, 2, autoscalers=scale_between(2, 4)), changed(5, PERSON)).state == "Failed"


def test_another_change_of_the_spec_is_no_rival() -> None:
    """The number is the goal still."""
    new_image = replace(STATEFUL_SET, metadata__generation=5, status__observedGeneration=5)
    assert evaluate(Serving(written(STATEFUL_SET), 3), new_image).is_current
    assert (
        evaluate(Serving(written(STATEFUL_SET), 3), replace(new_image, status__observedGeneration=4)).state
        == "InProgress"
    )


def test_a_daemonsets_goal_is_the_number_of_nodes() -> None:
    """Which may change at any time; a node more is no rival."""
    condition = Serving(written(DAEMON_SET), 0)
    assert (evaluate(condition, DAEMON_SET).state, evaluate(condition, DAEMON_SET).goal) == ("InProgress", 2)
    fields = {"status__numberAvailable": 2, "status__updatedNumberScheduled": 2}
    assert evaluate(condition, replace(DAEMON_SET, **fields)).is_current
    more = replace(DAEMON_SET, **fields, metadata__generation=3, status__desiredNumberScheduled=3)
    assert (evaluate(condition, more).state, evaluate(condition, more).goal) == ("InProgress", 3)


def test_a_cronjob_serves_when_it_is_not_suspended() -> None:
    """Its Jobs are none of its replicas; whoever suspends it again is a rival."""
    resumed = replace(CRON_JOB, spec__suspend=False)
    condition = Serving(written(resumed), 1)
    assert evaluate(condition, resumed) == Status("Current", "CronJob shop/purge", "not suspended", 1)
    fields = [{"manager": "argocd-controller", "fieldsV1": {"f:spec": {"f:suspend": {}}}}]
    status = evaluate(condition, replace(CRON_JOB, metadata__generation=4, metadata__managedFields=fields))
    assert status.state == "Failed"
    assert status.message == "suspend was set to false, and argocd-controller has set it to true since"
    stale = evaluate(Serving(written(resumed, metadata__generation=4), 1), CRON_JOB)
    assert (stale.state, stale.message) == ("InProgress", "suspended")


# --- Gone -----------------------------------------------------------------------------------------------------------


def stop(objects: list[Json], kind: str) -> list[Json]:
    """The objects after their workload was scaled to 0 and its controller has taken its pods away."""
    return swap(objects, kind, **STOPPED)


def test_gone() -> None:
    """Nothing is left."""
    stopped = replace(STATEFUL_SET, **STOPPED)
    assert evaluate(Gone(written(stopped)), stopped) == Status("Current", "StatefulSet shop/db", "no pod left", 0)


@pytest.mark.parametrize(
    ("pod", "state", "message"),
    [
        ("web-7c9-evicted", "Current", "no pod left"),
        ("web-migrate-done", "Current", "no pod left"),
        ("web-seed-stuck", "Current", "no pod left; 1 pod with the same labels belongs to Job web-seed and stays"),
        (
            "web-test-alone",
            "Current",
            "no pod left; 1 pod with the same labels belongs to ReplicaSet web-test and stays",
        ),
        ("web-debug", "Current", "no pod left; 1 pod with the same labels belongs to no controller and stays"),
        ("web-5d4-old", "InProgress", "1 pod left (web-5d4-old)"),
        ("web-7c9-ready", "InProgress", "1 pod left (web-7c9-ready)"),
        ("web-7c9-leaving", "InProgress", "1 pod left (web-7c9-leaving)"),
    ],
)
def test_pods_that_have_ended_and_foreign_pods_do_not_keep_a_stop(pod: str, state: str, message: str) -> None:
    """Evicted, of a Job, of another ReplicaSet, without controller: none is the Deployment's running pod."""
    objects = [obj for obj in stop(WEB, "Deployment") if obj["kind"] != "Pod" or obj["metadata"]["name"] == pod]
    status = evaluate(Gone(written(find(objects, "Deployment"))), *objects)
    assert (status.state, status.goal) == (state, 0)
    assert status.message == message


def test_foreign_pods_are_counted_by_their_controller() -> None:
    """Such as the ReplicaSets of an Argo Rollout; those of other labels, or another namespace, are not looked at."""
    other = find(WEB, "Pod", "web-test-alone")
    pods = [
        replace(other, metadata__name="web-test-2", metadata__uid="p2"),
        replace(other, metadata__name="web-test-3", metadata__uid="p3", metadata__labels={"app": "x"}),
        replace(other, metadata__name="web-test-4", metadata__uid="p4", metadata__namespace="elsewhere"),
    ]
    objects = [*stop(without(WEB, "Pod"), "Deployment"), other, *pods, find(WEB, "Pod", "web-seed-stuck")]
    workload = Workload.from_object(find(objects, "Deployment"))
    assert describe_foreign_pods(take(objects), workload) == (
        "2 pods with the same labels belong to ReplicaSet web-test and stay, "
        "1 pod with the same labels belongs to Job web-seed and stays"
    )
    assert describe_foreign_pods(take(without(objects, "Pod")), workload) == ""
    assert describe_foreign_pods(take(PURGE), Workload.from_object(CRON_JOB)) == ""


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"status__replicas": 1}, "its controller still counts 1 pod"),
        ({"status__observedGeneration": 3}, "its controller has not seen generation 4 yet"),
        ({"spec__replicas": 1}, "no pod left"),
    ],
)
def test_gone_waits_for_the_controller(fields: Json, words: str) -> None:
    """It has seen the newest spec, which asks for none, and counts none."""
    stopped = replace(STATEFUL_SET, **STOPPED)
    status = evaluate(Gone(written(stopped)), replace(stopped, **fields))
    assert (status.state, status.message) == ("InProgress", words)


def test_gone_does_not_judge_an_object_older_than_the_write() -> None:
    """A LIST from before the patch shows the old number; that is no rival."""
    condition = Gone(written(STATEFUL_SET, metadata__generation=5, **STOPPED))
    assert evaluate(condition, STATEFUL_SET).state == "InProgress"
    assert evaluate(condition, replace(STATEFUL_SET, **STOPPED)).state == "InProgress"


def test_gone_names_who_scales_it_up_again() -> None:
    """At once, not at the deadline."""
    stopped = written(STATEFUL_SET, **STOPPED)
    status = evaluate(Gone(stopped), changed(2, PERSON))
    assert (status.state, status.goal) == ("Failed", 0)
    assert status.message == "it was stopped, and kubectl-scale has set its replicas to 2 since"
    assert "Pause or adjust" in status.next_step
    unknown = evaluate(Gone(stopped), changed(2, {})).message
    assert unknown == "it was stopped, and an unknown writer has set its replicas to 2 since"


@pytest.mark.parametrize("manager", [KEDA, HPA])
def test_an_autoscaler_that_interferes_with_a_stop_is_waited_for(manager: Json) -> None:
    """It may have begun before it was paused; it is named, and what to do about it."""
    status = evaluate(Gone(written(STATEFUL_SET, **STOPPED)), changed(2, manager))
    assert (status.state, status.goal) == ("InProgress", 0)
    assert status.message == f"it was stopped, and {manager['manager']} has set its replicas to 2 since"
    assert "Pause or adjust" in status.next_step


@pytest.mark.parametrize(("ended", "suspend"), [("Complete", False), ("Failed", False), ("Complete", True)])
def test_a_job_that_has_ended_is_gone_without_running_pods(ended: str, suspend: bool) -> None:
    """Whether it is suspended or not, and whoever has changed that."""
    job = replace(find(PURGE, "Job", "purge-1"), spec__suspend=suspend, metadata__generation=3)
    job["status"] = {"conditions": [{"type": ended, "status": "True"}]}
    condition = Gone(written(job, spec__suspend=True, metadata__generation=2))
    assert evaluate(condition, job) == Status("Current", "Job shop/purge-1", "no pod left", 0)
    owner = {"kind": "Job", "name": "purge-1", "uid": job["metadata"]["uid"], "controller": True}
    pod = replace(find(DB, "Pod", "db-0"), metadata__ownerReferences=[owner])
    status = evaluate(condition, job, pod)
    assert (status.state, status.message) == ("InProgress", "1 pod left (db-0)")
    running = replace(job, status={"active": 1})
    assert evaluate(condition, running).is_current is False


def test_gone_needs_to_know_pods() -> None:
    """Not to have read them is not to have none."""
    stopped = replace(STATEFUL_SET, **STOPPED)
    assert Gone(written(stopped)).evaluate(take([stopped])).state == "InProgress"
    assert Gone(written(stopped)).evaluate(take([stopped], "Pod")).state == "Current"


@pytest.mark.parametrize(
    ("kind", "objects", "needs"),
    [
        ("StatefulSet", DB, ("StatefulSet", "Pod")),
        ("Deployment", WEB, ("Deployment", "ReplicaSet", "Pod")),
        ("CronJob", PURGE, ("CronJob", "Job", "Pod")),
    ],
)
def test_what_conditions_need(kind: str, objects: list[Json], needs: tuple[str, ...]) -> None:
    """A start needs no more than the workload itself."""
    workload = Workload.from_object(find(objects, kind))
    assert Gone(workload).needs() == needs
    assert Serving(workload, 1).needs() == (kind,)
    assert RolledOut(workload, "1").needs() == (kind,)


def test_a_daemonsets_revision_is_in_its_revisions() -> None:
    """Its status does not say it. A Job needs itself."""
    assert RolledOut(written(DAEMON_SET), "bbb").needs() == ("DaemonSet", "ControllerRevision", "Pod")
    assert JobDone("shop", "import", "u").needs() == ("Job",)


def test_a_cronjob_is_gone_when_its_jobs_are() -> None:
    """A Job that its controller has not recorded yet runs on; foreign Jobs and ended ones do not count."""
    running = written(CRON_JOB)
    status = evaluate(Gone(running), *PURGE)
    assert (status.state, status.message) == ("InProgress", "1 active Job (purge-3), 1 pod left (purge-3-a)")
    unrecorded = swap(PURGE, "CronJob", status__active=None)
    assert evaluate(Gone(running), *unrecorded).state == "InProgress"
    done = [obj for obj in unrecorded if obj["metadata"]["name"] not in ("purge-3", "purge-3-a")]
    assert evaluate(Gone(running), *done).is_current
    fresh = replace(find(PURGE, "Job", "purge-4"), spec__suspend=False)
    assert (
        evaluate(Gone(running), *[*done, {**fresh, "metadata": {**fresh["metadata"], "uid": "j-6"}}]).state
        == "InProgress"
    )
    counted = [obj for obj in PURGE if obj["metadata"]["name"] not in ("purge-3", "purge-3-a")]
    assert evaluate(Gone(running), *counted).message == "its controller still counts 1 Job"


def test_pods_of_a_job_that_is_done_or_deleted_keep_a_cronjob() -> None:
    """They run on, or terminate."""
    objects = swap(
        swap(PURGE, "CronJob", status__active=None),
        "Job",
        "purge-3",
        metadata__deletionTimestamp="2026-05-01T10:00:00Z",
    )
    status = evaluate(Gone(written(CRON_JOB)), *objects)
    assert (status.state, status.message) == ("InProgress", "1 pod left (purge-3-a)")


def test_a_cronjob_that_is_resumed_meanwhile_fails() -> None:
    """Naming who did it."""
    fields = [{"manager": "flux", "fieldsV1": {"f:spec": {"f:suspend": {}}}}]
    resumed = replace(CRON_JOB, spec__suspend=False, metadata__generation=4, metadata__managedFields=fields)
    status = evaluate(Gone(written(CRON_JOB)), resumed)
    assert (status.state, status.message) == ("Failed", "it was stopped, and flux has set suspend to false since")


def test_gone_of_many_pods_names_some() -> None:
    """And counts all."""
    pod = find(DB, "Pod", "db-0")
    pods = [{**pod, "metadata": {**pod["metadata"], "name": f"db-{n}", "uid": f"u{n}"}} for n in range(5)]
    stopped = replace(STATEFUL_SET, **STOPPED)
    assert evaluate(Gone(written(stopped)), stopped, *pods).message == "5 pods left (db-0, db-1, db-2 and 2 more)"


# --- RolledOut, JobDone ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("revision", ["2", "7c9"])
def test_a_deployment_is_rolled_out_when_only_the_new_revision_serves(revision: str) -> None:
    """By its number or by the hash of its pods."""
    condition = RolledOut(written(DEPLOYMENT), revision)
    status = evaluate(condition, *WEB)
    assert (status.state, status.goal) == ("InProgress", 2)
    assert status.message == f"revision {revision}: 1 of 2 replicas ready (3 pods)"
    assert evaluate(condition, *swap(WEB, "Deployment", **SERVING)).is_current
    assert not evaluate(condition, *swap(WEB, "Deployment", **{**SERVING, "status__updatedReplicas": 1})).is_current


def test_another_revision_is_somebody_elses() -> None:
    """As soon as the controller has seen the spec that the condition is about."""
    condition = RolledOut(written(DEPLOYMENT), "3")
    status = evaluate(condition, *swap(WEB, "Deployment", **SERVING))
    assert (status.state, status.is_failed) == ("Failed", True)
    assert status.message == "revision 3 was rolled out, and its newest revision is 2 now"
    assert "who changed the pod template" in status.next_step
    unobserved = swap(WEB, "Deployment", **SERVING, status__observedGeneration=6)
    assert evaluate(condition, *unobserved).state == "InProgress"
    assert evaluate(RolledOut(written(DEPLOYMENT, metadata__generation=8), "3"), *WEB).state == "InProgress"


def test_rolled_out_of_other_kinds() -> None:
    """A partition leaves old pods on purpose; a DaemonSet's revision is the newest of its revisions."""
    assert evaluate(RolledOut(written(STATEFUL_SET), "db-66f"), *DB).is_current
    unknown = swap(DB, "StatefulSet", status__updateRevision=None)
    assert evaluate(RolledOut(written(STATEFUL_SET), "db-66f"), *unknown).state == "InProgress"
    done = swap(AGENT, "DaemonSet", status__numberAvailable=2, status__updatedNumberScheduled=2)
    assert evaluate(RolledOut(written(DAEMON_SET), "bbb"), *AGENT).state == "InProgress"
    assert evaluate(RolledOut(written(DAEMON_SET), "bbb"), *done).is_current
    assert evaluate(RolledOut(written(DAEMON_SET), "aaa"), *done).is_failed


@pytest.mark.parametrize(
    ("name", "uid", "state", "words"),
    [
        ("purge-1", "j-1", "Current", "complete (1 succeeded)"),
        ("purge-2", "j-2", "Failed", "failed after 7 failed pods: Job has reached the specified backoff limit"),
        ("purge-3", "j-3", "InProgress", "1 of 4 succeeded, 2 active, 0 failed"),
        ("purge-4", "j-4", "InProgress", "suspended by an unknown writer, 0 of 1 succeeded"),
        ("purge-1", "j-other", "Failed", "created again"),
        ("purge-9", "j-9", "NotFound", "does not exist any more"),
    ],
)
def test_job_done(name: str, uid: str, state: str, words: str) -> None:
    """A Job that is gone has an end that nobody knows."""
    condition = JobDone("shop", name, uid)
    status = evaluate(condition, *PURGE)
    assert (status.state, status.title) == (state, f"Job shop/{name}")
    assert words in status.message
    assert status.is_failed is (state in ("Failed", "NotFound"))
    assert bool(status.next_step) == (status.is_failed or name == "purge-4"), "somebody has to let go what is suspended"
    assert (condition.kind, condition.namespace, condition.name) == ("Job", "shop", name)
    found = condition.find_workload(take(PURGE))
    assert (found.uid if found is not None else None) == (uid if state != "NotFound" and uid != "j-other" else None)


def test_the_workload_of_a_condition_is_the_one_it_began_with() -> None:
    """As it is now."""
    condition = Serving(written(STATEFUL_SET), 3)
    now = condition.find_workload(take(swap(DB, "StatefulSet", spec__replicas=9)))
    assert now is not None
    assert now.replicas == 9
    assert condition.find_workload(take(swap(DB, "StatefulSet", metadata__uid="another"))) is None
    assert condition.find_workload(take(without(DB, "StatefulSet"))) is None
    assert (condition.kind, condition.namespace, condition.name) == ("StatefulSet", "shop", "db")
