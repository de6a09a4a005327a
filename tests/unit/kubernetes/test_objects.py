# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Typed forms of objects: every field that is looked at, from objects in Kubernetes' own YAML."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes import objects
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.objects import (
    ContainerState,
    Event,
    Job,
    Pod,
    ReplicaSet,
    Revision,
    Workload,
)
from unit.kubernetes.yaml_objects import find, load, replace, workload

DEPLOYMENT = find(load("deployment"), "Deployment")
STATEFUL_SET = find(load("statefulset"), "StatefulSet")
CRON_JOB = find(load("cronjob"), "CronJob")
DAEMON_SET = find(load("daemonset"), "DaemonSet")
KINDS = ["StatefulSet", "Deployment", "DaemonSet", "ReplicaSet", "CronJob", "Job"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "obj",
    [
        {},
        {"metadata": None, "spec": None, "status": None},
        {"metadata": {"ownerReferences": [None], "managedFields": [None]}, "status": {"conditions": [None]}},
    ],
)
def test_missing_and_null_fields_are_borne(kind: str, obj: dict[str, Any]) -> None:
    """One replica is Kubernetes' default, and nothing is ready."""
    read = Workload.from_object(obj, kind)
    assert (read.kind, read.replicas, read.ready) == (kind, 0 if kind == "DaemonSet" else 1, 0)
    assert (read.owner, read.writer, read.revision, read.volume_claims) == (None, None, "", ())
    for form in (Pod, ReplicaSet, Revision, Job, Event):
        assert form.from_object(obj) is not None


def test_deployment() -> None:
    """All fields."""
    read = Workload.from_object(DEPLOYMENT)
    assert (read.kind, read.namespace, read.name, read.uid) == ("Deployment", "shop", "web", "d-web")
    assert (read.title, read.key) == ("Deployment shop/web", "Deployment/web")
    assert (read.resource_version, read.generation, read.observed_generation) == ("900", 7, 7)
    assert (read.replicas, read.pods, read.ready, read.available, read.updated) == (2, 3, 1, 1, 2)
    assert (read.updated_wanted, read.paused, read.min_ready_seconds, read.revision) == (2, False, 0, "2")
    assert read.selector == {"matchLabels": {"app": "web"}}
    assert read.labels == {"app.kubernetes.io/name": "web"}
    assert read.annotations == {"deployment.kubernetes.io/revision": "2"}
    assert read.template["spec"]["containers"][0]["image"] == "registry.example/web:2"
    assert read.conditions["Progressing"]["reason"] == "ReplicaSetUpdated"
    assert read.raw is DEPLOYMENT
    assert (read.owner, read.volume_claims, tuple(read.volume_policy)) == (None, (), ("Retain", "Retain"))


def test_statefulset() -> None:
    """Its controller is the reference that says so, not the first one."""
    read = Workload.from_object(STATEFUL_SET)
    assert (read.replicas, read.pods, read.ready, read.available, read.updated) == (3, 3, 3, 3, 3)
    assert (read.revision, read.owner, read.writer) == ("db-66f", ("Database", "main"), "kubectl-scale")
    assert (read.volume_policy.when_scaled, read.volume_policy.when_deleted) == ("Delete", "Retain")
    assert read.volume_claims == ("data", "log")
    assert workload(
        STATEFUL_SET, spec__persistentVolumeClaimRetentionPolicy={"whenDeleted": "Delete"}
    ).volume_policy == (
        "Retain",
        "Delete",
    )


def test_the_newest_owner_of_replicas_is_the_writer() -> None:
    """Neither the one of another field of the spec, nor the controller that counts them in the status."""
    assert Workload.from_object(DEPLOYMENT).writer == "kube-controller-manager"
    fields = DEPLOYMENT["metadata"]["managedFields"]
    assert workload(DEPLOYMENT, metadata__managedFields=[fields[0], fields[2], fields[3]]).writer == "helm"
    assert workload(DEPLOYMENT, metadata__managedFields=fields[::-1]).writer == "kube-controller-manager"
    assert workload(DEPLOYMENT, metadata__managedFields=fields[2:]).writer is None


def test_the_writer_of_a_cronjob_is_who_suspended_it() -> None:
    """It has no replicas."""
    fields = [{"manager": "me", "fieldsV1": {"f:spec": {"f:suspend": {}}}}]
    assert workload(CRON_JOB, metadata__managedFields=fields).writer == "me"
    assert workload(DEPLOYMENT, metadata__managedFields=fields).writer is None


@pytest.mark.parametrize(
    ("status", "spec", "available"),
    [
        ({"availableReplicas": 0}, {"minReadySeconds": 60}, 0),
        ({"availableReplicas": 2}, {"minReadySeconds": 60}, 2),
        ({"availableReplicas": 0}, {}, 0),
        ({"availableReplicas": None}, {"minReadySeconds": 60}, 0),
        ({"availableReplicas": None}, {}, 3),
    ],
)
def test_a_statefulset_serves_when_its_pods_are_available(
    status: dict[str, Any], spec: dict[str, Any], available: int
) -> None:
    """Ready for a second is not ready for minReadySeconds; servers that do not know the field say ready only."""
    fields = {f"status__{key}": value for key, value in status.items()}
    read = workload(STATEFUL_SET, **fields, **{f"spec__{key}": value for key, value in spec.items()})
    assert (read.available, read.serving) == (available, available)
    assert read.min_ready_seconds == spec.get("minReadySeconds", 0)


def test_a_deployment_serves_when_its_pods_are_ready_and_available() -> None:
    """Its server leaves the number out where it is 0."""
    assert workload(DEPLOYMENT, status__readyReplicas=2, status__availableReplicas=None).serving == 0
    assert workload(DEPLOYMENT, status__readyReplicas=2, status__availableReplicas=1).serving == 1
    assert workload(DEPLOYMENT, status__readyReplicas=1, status__availableReplicas=2).serving == 1


@pytest.mark.parametrize(
    ("strategy", "wanted"),
    [
        ({"type": "OnDelete"}, 0),
        ({"rollingUpdate": {"partition": 2}}, 1),
        ({"rollingUpdate": {"partition": 5}}, 0),
        ({}, 3),
        (None, 3),
    ],
)
def test_pods_that_stay_old_on_purpose_are_not_waited_for(strategy: Any, wanted: int) -> None:
    """A partition or OnDelete keeps them."""
    assert workload(STATEFUL_SET, spec__updateStrategy=strategy).updated_wanted == wanted


def test_a_deployment_knows_no_partition() -> None:
    """A field of that name is not its own."""
    assert workload(DEPLOYMENT, spec__updateStrategy={"type": "OnDelete"}).updated_wanted == 2


def test_daemonset() -> None:
    """Its numbers have other names."""
    read = Workload.from_object(DAEMON_SET)
    assert (read.replicas, read.pods, read.ready, read.available, read.updated) == (2, 2, 2, 1, 1)
    assert workload(DAEMON_SET, status__currentNumberScheduled=1).pods == 1
    assert workload(DAEMON_SET, spec__updateStrategy={"type": "OnDelete"}).updated_wanted == 0


def test_cronjob() -> None:
    """Suspended is 0; its template is that of its Jobs; it does not say which generation it has seen."""
    read = Workload.from_object(CRON_JOB)
    assert (read.replicas, read.is_stopped, read.pods, read.observed_generation) == (0, True, 1, 3)
    assert read.template["metadata"]["labels"] == {"app": "purge"}
    resumed = workload(CRON_JOB, spec__suspend=False)
    assert (resumed.replicas, resumed.is_stopped) == (1, False)


def test_a_job_as_a_workload() -> None:
    """Its parallelism is what it asks for."""
    job = find(load("cronjob"), "Job", "purge-3")
    read = Workload.from_object(job)
    assert (read.replicas, read.pods, read.ready, read.available, read.updated) == (2, 2, 1, 1, 2)
    assert read.owner == ("CronJob", "purge")
    assert workload(job, spec__suspend=True).replicas == 0


@pytest.mark.parametrize(("observed", "expected"), [(6, False), (7, True), (8, True), (None, False)])
def test_observed(observed: int | None, expected: bool) -> None:
    """The controller has seen the newest spec."""
    assert workload(DEPLOYMENT, status__observedGeneration=observed).is_observed is expected


def test_paused_stopped_and_deleted() -> None:
    """Each by its own field."""
    read = Workload.from_object(DEPLOYMENT)
    assert (read.paused, read.is_stopped, read.is_being_deleted) == (False, False, False)
    assert workload(DEPLOYMENT, spec__paused=True).paused is True
    assert workload(DEPLOYMENT, spec__replicas=0).is_stopped is True
    assert workload(DEPLOYMENT, metadata__deletionTimestamp="2026-05-01T10:00:00Z").is_being_deleted is True


def test_pod() -> None:
    """All fields of one that is on its way out."""
    read = Pod.from_object(find(load("deployment"), "Pod", "web-7c9-leaving"))
    assert (read.title, read.uid) == ("Pod shop/web-7c9-leaving", "p-leaving")
    assert (read.owner_uid, read.owner_kind, read.template_hash) == ("rs-new", "ReplicaSet", "7c9")
    assert (read.phase, read.is_ready, read.is_terminating, read.is_finished) == ("Running", False, True, False)
    assert (read.node, read.finalizers) == ("node-2", ("example.com/drain", "example.com/audit"))
    assert (read.deletion_timestamp, read.grace_period) == (1777629660.0, 30)
    assert (read.created_at, read.started_at, read.unschedulable_message) == (1777629601.0, None, None)
    assert read.labels["app"] == "web"


@pytest.mark.parametrize(
    ("phase", "finished"), [("Failed", True), ("Succeeded", True), ("Running", False), ("", False)]
)
def test_a_pod_that_has_ended(phase: str, finished: bool) -> None:
    """Evicted ones are Failed."""
    assert Pod.from_object({"status": {"phase": phase}}).is_finished is finished


def test_a_pod_is_owned_by_its_controller_only() -> None:
    """A reference that controls nothing does not make an owner."""
    assert Pod.from_object(find(load("deployment"), "Pod", "web-debug")).owner_uid == ""


def test_a_ready_pod() -> None:
    """By the condition Ready, not by another one."""
    pod = find(load("deployment"), "Pod", "web-7c9-ready")
    assert Pod.from_object(pod).is_ready is True
    assert Pod.from_object(pod).started_at == 1777629602.0
    assert (
        Pod.from_object(replace(pod, status__conditions=[{"type": "PodScheduled", "status": "True"}])).is_ready is False
    )


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        ({"status": "False", "reason": "Unschedulable", "message": "0/3 nodes fit"}, "0/3 nodes fit"),
        ({"status": "False", "reason": "Unschedulable"}, "no node fits"),
        ({"status": "False", "reason": "SchedulingGated", "message": "gated"}, None),
        ({"status": "True", "reason": "Unschedulable", "message": "once"}, None),
    ],
)
def test_unschedulable(condition: dict[str, str], message: str | None) -> None:
    """As long as the condition says so."""
    pod = {"status": {"conditions": [{"type": "PodScheduled", **condition}]}}
    assert Pod.from_object(pod).unschedulable_message == message


def test_containers() -> None:
    """Those that initialize come first, since nothing else begins before them."""
    waiting = {"reason": "CrashLoopBackOff", "message": "back-off"}
    status = {
        "containerStatuses": [
            {
                "name": "main",
                "image": "i:1",
                "restartCount": 2,
                "state": {"terminated": {"exitCode": 0, "reason": "Done"}},
            }
        ],
        "initContainerStatuses": [
            {
                "name": "init",
                "image": "i:2",
                "restartCount": 5,
                "state": {"waiting": waiting},
                "lastState": {"terminated": {"exitCode": 137, "reason": "OOMKilled"}},
            }
        ],
    }
    init = ContainerState("init", "i:2", True, "CrashLoopBackOff", "back-off", 5, 137, "OOMKilled")
    main = ContainerState("main", "i:1", False, "", "", 2, 0, "Done")
    assert Pod.from_object({"status": status}).containers == (init, main)
    assert ContainerState.from_status({}, is_init=False).last_exit_code is None


def test_replica_set_and_revisions() -> None:
    """A StatefulSet's pods carry the name of their revision, a DaemonSet's its hash."""
    read = ReplicaSet.from_object(find(load("deployment"), "ReplicaSet", "web-7c9"))
    assert (read.name, read.uid, read.owner_uid, read.template_hash) == ("web-7c9", "rs-new", "d-web", "7c9")
    assert (read.revision, read.replicas, read.created_at) == (2, 2, 1772323200.0)
    revision = find(load("daemonset"), "ControllerRevision", "agent-bbb")
    assert Revision.from_object(revision)[1:6] == ("agent-bbb", "cr-2", "ds-agent", "bbb", 10)
    owner = {**revision["metadata"]["ownerReferences"][0], "kind": "StatefulSet"}
    assert Revision.from_object(replace(revision, metadata__ownerReferences=[owner])).template_hash == "agent-bbb"


@pytest.mark.parametrize(
    ("name", "complete", "failed", "message", "may_run"),
    [
        ("purge-1", True, False, "", False),
        ("purge-2", False, True, "Job has reached the specified backoff limit", False),
        ("purge-3", False, False, "", True),
        ("purge-4", False, False, "", False),
        ("purge-5", False, False, "", False),
        ("import", False, False, "", True),
    ],
)
def test_jobs(name: str, complete: bool, failed: bool, message: str, may_run: bool) -> None:
    """Ended, running, suspended before a pod was made, deleted, and one that has just been made."""
    read = Job.from_object(find(load("cronjob"), "Job", name))
    assert (read.is_complete, read.is_failed, read.failure_message, read.may_run) == (
        complete,
        failed,
        message,
        may_run,
    )


def test_numbers_of_a_job() -> None:
    """A suspended Job whose pods still run, runs."""
    job = find(load("cronjob"), "Job", "purge-3")
    read = Job.from_object(job)
    assert (read.title, read.uid, read.owner_uid) == ("Job shop/purge-3", "j-3", "c-purge")
    assert (read.active, read.succeeded, read.failed, read.completions, read.created_at) == (2, 1, 0, 4, 1777629600.0)
    assert Job.from_object(replace(job, spec__suspend=True)).may_run is True
    assert Job.from_object(replace(job, status__failed=3)).failed == 3
    assert Job.from_object({"metadata": {"name": "new"}}).may_run is True


def test_a_condition_that_is_not_true_is_not_met() -> None:
    """A Job that was resumed after a failure carries the condition with False."""
    status = {
        "conditions": [{"type": "Failed", "status": "False", "message": "m"}, {"type": "Complete", "status": "False"}]
    }
    read = Job.from_object({"status": status})
    assert (read.is_complete, read.is_failed, read.failure_message) == (False, False, "")


@pytest.mark.parametrize(
    ("fields", "at"),
    [
        ({"lastTimestamp": "2026-05-01T10:00:05Z"}, 1777629605.0),
        ({"lastTimestamp": None, "eventTime": "2026-05-01T10:00:06.500000Z"}, 1777629606.5),
        (
            {
                "lastTimestamp": "2026-05-01T10:00:05Z",
                "series": {"count": 3, "lastObservedTime": "2026-05-01T10:00:07Z"},
            },
            1777629607.0,
        ),
        ({}, 1777629600.0),
    ],
)
def test_when_an_event_was_last_seen(fields: dict[str, Any], at: float) -> None:
    """Each API writes another field; the time of creation is what is left."""
    event = Event.from_object({"metadata": {"creationTimestamp": "2026-05-01T10:00:00Z"}, **fields})
    assert (event.at, event.created_at) == (at, 1777629600.0)


def test_event() -> None:
    """Of the core and of the events API."""
    about = {"kind": "Pod", "name": "p", "uid": "u"}
    core = {"involvedObject": about, "reason": "R", "message": "M", "type": "Warning", "count": 4}
    new = {"regarding": about, "reason": "R", "note": "M", "type": "Warning", "series": {"count": 4}}
    for obj in (core, new):
        event = Event.from_object(obj)
        assert (event.about_uid, event.about_kind, event.about_name) == ("u", "Pod", "p")
        assert (event.reason, event.message, event.type, event.times) == ("R", "M", "Warning", 4)


def test_what_a_condition_says() -> None:
    """Its message, or its reason where it has none."""
    assert objects.format_condition({"reason": "R", "message": "M"}) == "M"
    assert objects.format_condition({"reason": "R"}) == "R"
