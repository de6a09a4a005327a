# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Diagnosis: what keeps a workload from its goal, whose fault it is not, and for how long each reason is borne."""

from __future__ import annotations

import math
from typing import Any

import pytest

from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes import diagnosis
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.diagnosis import (
    GRACE_SECONDS,
    NEXT_STEPS,
    Finding,
    GracePeriod,
    diagnose,
    find_pod_failure,
    list_pods_to_start,
)
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.objects import Event, Pod, Workload
from unit.kubernetes.yaml_objects import (
    NOW,
    SINCE,
    describe_event,
    find,
    load,
    read_documents,
    replace,
    swap,
    take,
    without,
)

Json = dict[str, Any]
WEB, DB, PURGE, AGENT = load("deployment"), load("statefulset"), load("cronjob"), load("daemonset")
CASES = {case["case"]: case for case in read_documents("pod-failures")}


def run(objects: list[Json], kind: str, goal: int, *, since: float = SINCE, at: float = NOW) -> list[Finding]:
    """What is found about the workload of this kind."""
    return diagnose(take(objects, at=at), Workload.from_object(find(objects, kind)), since=since, goal=goal)


def reasons(findings: list[Finding]) -> list[tuple[str, str]]:
    """Reason and object of each."""
    return [(finding.reason, finding.object) for finding in findings]


@pytest.mark.parametrize("case", CASES)
def test_what_is_said_of_a_pod(case: str) -> None:
    """Under Kubernetes' own reason; what passes by itself is nothing."""
    data = CASES[case]
    meta = {
        "name": "web-1",
        "namespace": "shop",
        "uid": "u",
        "labels": {"pod-template-hash": "7c9"},
        "creationTimestamp": data.get("created", "2026-05-01T10:00:00Z"),
    }
    spec = {"nodeName": "node-1", **data.get("spec", {})}
    pod = Pod.from_object({"metadata": meta, "spec": spec, "status": data["status"]})
    events = [Event.from_object(obj) for obj in data.get("events", [])]
    finding = find_pod_failure(pod, events, since=SINCE)
    if data["expected"] is None:
        assert finding is None
        return
    assert finding is not None
    assert (finding.object, finding.revision) == ("Pod shop/web-1", "7c9")
    defaults = {"restarts": 0, "restarts_before": None, "held_until": 0.0}
    expected = {**defaults, **data["expected"]}
    assert {key: getattr(finding, key) for key in expected} == expected
    of_nodes = {"FailedMount", "FailedAttachVolume", "FailedCreatePodSandBox"}
    assert finding.holder == ("node-1" if finding.reason in of_nodes else expected.get("holder", ""))
    assert str(finding) == f"{finding.reason}: Pod shop/web-1: {finding.message}"


def test_the_cases_hold_every_reason_of_a_pod() -> None:
    """None is left without an example; each case has a name of its own."""
    assert len(CASES) == len(read_documents("pod-failures"))
    told = {case["expected"]["reason"] for case in CASES.values() if case["expected"]}
    of_workloads = {"QuotaExceeded", "FailedCreate", "Paused", "ProgressDeadlineExceeded", "Terminating", "ActiveJob"}
    of_workloads |= {"OrderedReady", "KeptByContainer"}
    assert told == GRACE_SECONDS.keys() - of_workloads


def test_every_reason_has_a_grace_period_and_a_next_step() -> None:
    """And no other has."""
    assert GRACE_SECONDS.keys() == NEXT_STEPS.keys()
    # What a person has to correct is told soon; what an autoscaler of nodes or a registry mends by itself has minutes.
    assert {
        **dict.fromkeys(("InvalidImageName", "ErrImageNeverPull", "CreateContainerConfigError"), 15.0),
        **dict.fromkeys(("CreateContainerError", "RunContainerError"), 30.0),
        **dict.fromkeys(("QuotaExceeded", "FailedCreate"), 60.0),
        **dict.fromkeys(("FailedMount", "FailedAttachVolume", "FailedCreatePodSandBox"), None),
        **dict.fromkeys(("CrashLoopBackOff", "ContainersNotReady", "Terminating", "ActiveJob"), None),
        **dict.fromkeys(("OrderedReady", "SchedulingGated"), None),
        "Paused": 10.0,
        "KeptByContainer": 60.0,
        "ProgressDeadlineExceeded": 0.0,
        "ImagePullBackOff": 120.0,
        "Unschedulable": 180.0,
    } == GRACE_SECONDS
    assert Finding("Paused", "x", "y").next_step == NEXT_STEPS["Paused"]


# --- whose pods -----------------------------------------------------------------------------------------------------


def pending(pod: Json, reason: str = "InvalidImageName") -> Json:
    """A pod that cannot start."""
    status = {"phase": "Pending", "containerStatuses": [{"name": "main", "state": {"waiting": {"reason": reason}}}]}
    return replace(pod, status=status)


def test_old_evicted_terminating_and_foreign_pods_are_no_trouble() -> None:
    """All of them are in the data: one in a crash loop of the old revision, and pods of others with the same labels."""
    assert run(WEB, "Deployment", 2) == []


def test_a_pod_of_the_new_revision_is() -> None:
    """The same state of a pod that is to stay."""
    objects = [pending(obj) if obj["metadata"]["name"] == "web-7c9-ready" else obj for obj in WEB]
    assert reasons(run(objects, "Deployment", 2)) == [("InvalidImageName", "Pod shop/web-7c9-ready")]


def test_a_ready_pod_is_no_trouble() -> None:
    """Whatever else its status says."""
    broken = {"name": "side", "state": {"waiting": {"reason": "CrashLoopBackOff"}}}
    objects = swap(WEB, "Pod", "web-7c9-ready", status__containerStatuses=[broken])
    assert run(objects, "Deployment", 2) == []
    unready = swap(objects, "Pod", "web-7c9-ready", status__conditions=[])
    assert reasons(run(unready, "Deployment", 2)) == [("CrashLoopBackOff", "Pod shop/web-7c9-ready")]


def test_nothing_is_said_of_pods_before_the_controller_has_seen_the_spec() -> None:
    """Its newest revision is not known yet: those of the old one would be taken for it."""
    objects = [pending(obj) if obj["metadata"]["name"] == "web-7c9-ready" else obj for obj in WEB]
    assert run(swap(objects, "Deployment", status__observedGeneration=6), "Deployment", 2) == []


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, {"db-1"}),
        ({"spec__updateStrategy": {"type": "OnDelete"}}, {"db-0", "db-1"}),
        ({"spec__updateStrategy": {"rollingUpdate": {"partition": 1}}}, {"db-0", "db-1"}),
        ({"spec__updateStrategy": {"rollingUpdate": {"partition": 0}}}, {"db-1"}),
        (
            {"spec__updateStrategy": {"rollingUpdate": {"partition": 6}}, "spec__ordinals": {"start": 5}},
            {"db-0", "db-1"},
        ),
        ({"spec__updateStrategy": None}, {"db-1"}),
        ({"status__updateRevision": None}, {"db-0", "db-1"}),
    ],
)
def test_pods_that_are_about_to_be_replaced_are_no_trouble(fields: Json, expected: set[str]) -> None:
    """Those that stay old on purpose are, since nobody will replace them."""
    objects = [pending(obj) if obj["kind"] == "Pod" else obj for obj in DB]
    objects = swap(objects, "Pod", "db-0", metadata__labels={"controller-revision-hash": "db-old"})
    snapshot = take(swap(objects, "StatefulSet", **fields))
    workload = snapshot.workload("StatefulSet", "shop", "db")
    assert workload is not None
    assert {pod.name for pod in list_pods_to_start(snapshot, workload)} == expected


@pytest.mark.parametrize(
    ("start", "partition", "expected"), [(5, 6, True), (5, 5, True), (6, 1, False), (5, 1, True), (0, 5, False)]
)
def test_a_partition_counts_from_the_first_ordinal(start: int, partition: int, expected: bool) -> None:
    """Pod db-5 of a StatefulSet whose ordinals begin at 5 is its first."""
    fields = {"spec__ordinals": {"start": start}, "spec__updateStrategy": {"rollingUpdate": {"partition": partition}}}
    pod = pending(
        replace(find(DB, "Pod", "db-0"), metadata__name="db-5", metadata__labels={"controller-revision-hash": "o"})
    )
    if start == 6:
        pod = replace(pod, metadata__name="db-7")
    snapshot = take([replace(find(DB, "StatefulSet"), **fields), pod])
    workload = snapshot.workload("StatefulSet", "shop", "db")
    assert workload is not None
    assert bool(list_pods_to_start(snapshot, workload)) is expected


def test_a_pod_without_an_ordinal_is_not_held_by_a_partition() -> None:
    """As when a StatefulSet has adopted it."""
    stateful_set = replace(find(DB, "StatefulSet"), spec__updateStrategy={"rollingUpdate": {"partition": 9}})
    labels = {"controller-revision-hash": "db-old"}
    pod = pending(replace(find(DB, "Pod", "db-0"), metadata__name="db-x", metadata__labels=labels))
    assert run([stateful_set, pod], "StatefulSet", 3) == []


def test_a_pod_without_a_hash_is_judged() -> None:
    """A Job's, or one of a kind whose revisions are not known."""
    objects = [pending(obj) if obj["metadata"]["name"] == "purge-3-a" else obj for obj in PURGE]
    job = Workload.from_object(find(objects, "Job", "purge-3"))
    assert reasons(diagnose(take(objects), job, since=SINCE, goal=2)) == [("InvalidImageName", "Pod shop/purge-3-a")]
    unlabelled = [replace(pending(obj), metadata__labels={}) if obj["kind"] == "Pod" else obj for obj in DB]
    assert len(run(unlabelled, "StatefulSet", 3)) == 2


def test_events_of_a_pod_are_its_own() -> None:
    """By uid."""
    pod = pending(find(DB, "Pod", "db-0"), "ContainerCreating")
    objects = [find(DB, "StatefulSet"), pod, describe_event("p-db-0", "FailedMount", "m")]
    assert reasons(run(objects, "StatefulSet", 3)) == [("FailedMount", "Pod shop/db-0")]
    assert run(swap(objects, "Event", involvedObject={"kind": "Pod", "uid": "x"}), "StatefulSet", 3) == []


# --- the workload itself --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "found"),
    [
        ({"spec__paused": True, "status__updatedReplicas": 0}, True),
        ({"spec__paused": True, "status__updatedReplicas": 1}, True),
        ({"spec__paused": True, "status__updatedReplicas": 2}, False),
        ({"spec__paused": False, "status__updatedReplicas": 0}, False),
        # Pods that are lacking are another matter: a quota, for example.
        ({"spec__paused": True, "status__updatedReplicas": 0, "status__replicas": 0}, False),
    ],
)
def test_a_paused_deployment_whose_template_has_changed(fields: Json, found: bool) -> None:
    """Its pods are not going to be replaced, which is no reason to wait for a deadline."""
    findings = run(without(swap(WEB, "Deployment", **fields), "Pod"), "Deployment", 2)
    assert reasons(findings) == ([("Paused", "Deployment shop/web")] if found else [])
    if found:
        left = 3 - fields["status__updatedReplicas"]
        assert f"spec.paused is true, and {left} pods of an older template" in findings[0].message
    assert reasons(run(without(swap(WEB, "Deployment", **fields), "Pod"), "Deployment", 0)) == []
    assert bool(run(without(swap(WEB, "Deployment", **fields), "Pod"), "Deployment", 1)) is found


@pytest.mark.parametrize(
    ("condition", "fields", "found"),
    [
        ({}, {}, True),
        ({"lastUpdateTime": "2026-05-01T09:59:59Z"}, {}, False),
        ({"status": "True"}, {}, False),
        ({"reason": "ReplicaSetUpdated"}, {}, False),
        ({"lastUpdateTime": None, "lastTransitionTime": "2026-05-01T10:00:30Z"}, {}, True),
        ({"lastUpdateTime": None}, {}, False),
        ({}, {"status__observedGeneration": 6}, False),
    ],
)
def test_a_progress_deadline_that_has_passed(condition: Json, fields: Json, found: bool) -> None:
    """Since the wait began, and of the newest spec."""
    full = {
        "type": "Progressing",
        "status": "False",
        "reason": "ProgressDeadlineExceeded",
        "message": 'ReplicaSet "web-7c9" has timed out progressing.',
        "lastUpdateTime": "2026-05-01T10:00:30Z",
        **condition,
    }
    findings = run(without(swap(WEB, "Deployment", status__conditions=[full], **fields), "Pod"), "Deployment", 2)
    assert reasons(findings) == ([("ProgressDeadlineExceeded", "Deployment shop/web")] if found else [])
    if found:
        assert (findings[0].message, findings[0].since) == (full["message"], SINCE + 30)


@pytest.mark.parametrize(
    ("fields", "goal", "found"),
    [
        ({"status__replicas": 1}, 2, True),
        ({"status__updatedReplicas": 1}, 2, True),
        ({}, 2, False),
        ({"status__replicas": 1, "status__observedGeneration": 6}, 2, False),
        ({"status__replicas": 0}, 0, False),
    ],
)
def test_a_deployment_says_why_no_pod_is_created(fields: Json, goal: int, found: bool) -> None:
    """As long as pods are lacking, of whatever revision."""
    failure = {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": "denied by webhook"}
    objects = without(swap(WEB, "Deployment", status__conditions=[failure], **fields), "Pod")
    findings = run(objects, "Deployment", goal)
    assert reasons(findings) == ([("FailedCreate", "Deployment shop/web")] if found else [])
    over = swap(objects, "Deployment", status__conditions=[{**failure, "status": "False"}])
    assert run(over, "Deployment", goal) == []


def test_a_quota_has_its_own_reason() -> None:
    """More can be done about it."""
    failure = {
        "type": "ReplicaFailure",
        "status": "True",
        "message": "pods is forbidden: exceeded quota: q, used: pods=2",
    }
    objects = without(swap(WEB, "Deployment", status__conditions=[failure], status__replicas=1), "Pod")
    findings = run(objects, "Deployment", 2)
    assert reasons(findings) == [("QuotaExceeded", "Deployment shop/web")]
    assert "exceeded quota: q" in findings[0].message


def creation(reason: str, second: int, *, minute: int = 0, uid: str = "s-db") -> Json:
    """An event about the creation of the StatefulSet's pods."""
    return describe_event(uid, reason, f"{reason} said", at=f"2026-05-01T10:{minute:02}:{second:02}Z")


LONG_AGO = {**creation("FailedCreate", 0), "lastTimestamp": "2026-05-01T09:59:59Z"}


@pytest.mark.parametrize(
    ("events", "found"),
    [
        ([], False),
        ([creation("FailedCreate", 2)], True),
        ([creation("FailedCreate", 0)], True),
        ([LONG_AGO], False),
        ([creation("FailedCreate", 1), creation("SuccessfulCreate", 2)], False),
        ([creation("SuccessfulCreate", 1), creation("FailedCreate", 2)], True),
        ([creation("SuccessfulCreate", 1), creation("FailedCreate", 1)], True),
        ([creation("FailedCreate", 1), creation("SuccessfulCreate", 1)], True),
        ([creation("FailedCreate", 1, minute=1), creation("SuccessfulCreate", 9)], True),
        ([creation("FailedCreate", 2), creation("Other", 3)], True),
        ([creation("FailedCreate", 2, uid="s-before")], False),
    ],
)
def test_the_newest_event_since_the_wait_began_says_why_a_statefulset_creates_no_pod(
    events: list[Json], found: bool
) -> None:
    """An old failure has been overcome, or is of another time; its event is kept for an hour."""
    stateful_set = replace(find(DB, "StatefulSet"), status__replicas=1)
    expected = [("FailedCreate", "StatefulSet shop/db")] if found else []
    assert reasons(run([stateful_set, *events], "StatefulSet", 3, since=SINCE + 0.7)) == expected
    assert run([replace(stateful_set, status__replicas=3), *events], "StatefulSet", 3) == []


def test_events_say_nothing_of_a_deployment() -> None:
    """Its condition does; events are about its ReplicaSets."""
    event = creation("FailedCreate", 2, uid="d-web")
    assert run(without([*swap(WEB, "Deployment", status__replicas=0), event], "Pod"), "Deployment", 2) == []


# --- what keeps a stop ----------------------------------------------------------------------------------------------


def test_a_terminating_pod_says_what_it_waits_for() -> None:
    """Finalizers, node, grace period; the running pods beside it are not asked for anything yet."""
    findings = run(WEB, "Deployment", 0, at=NOW - 10)
    assert reasons(findings) == [("Terminating", "Pod shop/web-7c9-leaving")]
    assert findings[0].message == (
        "on node node-2, 10 s of its grace period of 30 s left, finalizers example.com/drain, example.com/audit"
    )
    assert (findings[0].holder, findings[0].since, findings[0].revision) == ("example.com/drain", SINCE + 30, "7c9")
    late = run(swap(WEB, "Pod", "web-7c9-leaving", metadata__finalizers=None), "Deployment", 0, at=NOW + 75)[0]
    assert late.message == "on node node-2, its grace period of 30 s ended 1 min 15 s ago"
    assert run(swap(WEB, "Pod", "web-7c9-leaving", metadata__finalizers=None), "Deployment", 0)[0].holder == "node-2"


def test_a_terminating_pod_without_node_and_times() -> None:
    """One that was never scheduled, with a time that cannot be read; without a grace period it began when it ended."""
    bare = swap(WEB, "Pod", "web-7c9-leaving", metadata__deletionGracePeriodSeconds=None, metadata__finalizers=None)
    began = run(bare, "Deployment", 0, at=NOW)[0]
    assert (began.message, began.since) == ("on node node-2, its grace period of 0 s ended 0 s ago", NOW)
    ending = run(bare, "Deployment", 0, at=NOW - 5)[0]
    assert ending.message == "on node node-2, 5 s of its grace period of 0 s left"
    fields = {"spec__nodeName": None, "metadata__deletionTimestamp": "?", "metadata__deletionGracePeriodSeconds": None}
    objects = swap(WEB, "Pod", "web-7c9-leaving", **fields, metadata__finalizers=None)
    finding = run(objects, "Deployment", 0)[0]
    assert (finding.message, finding.since, finding.holder) == ("on no node", None, "")


def test_a_terminating_pod_keeps_its_successor_of_a_statefulset() -> None:
    """Also when that is meant to run; a Deployment's does not."""
    objects = swap(DB, "Pod", "db-1", metadata__deletionTimestamp="2026-05-01T10:01:00Z")
    assert reasons(run(objects, "StatefulSet", 3)) == [("Terminating", "Pod shop/db-1")]
    assert run(WEB, "Deployment", 2) == []


def test_a_pod_that_has_ended_and_is_kept_by_a_finalizer_is_named() -> None:
    """Its controller counts it as long as it exists, so that a stop waits for it."""
    objects = swap(DB, "Pod", "db-1", metadata__deletionTimestamp="2026-05-01T10:01:00Z", status__phase="Succeeded")
    assert reasons(run(objects, "StatefulSet", 0)) == [("Terminating", "Pod shop/db-1")]


def test_active_jobs_are_named() -> None:
    """Those that may have pods; nothing is said of them when the CronJob is meant to run."""
    findings = run(PURGE, "CronJob", 0)
    assert reasons(findings) == [("ActiveJob", "Job shop/purge-3")]
    assert (findings[0].message, findings[0].since) == ("2 pods active, 1 of 4 succeeded", SINCE)
    assert run(PURGE, "CronJob", 1) == []


def test_a_stop_is_not_kept_by_pods_that_cannot_start() -> None:
    """They go all the same where no order is kept."""
    objects = [pending(obj) if obj["kind"] == "Pod" else obj for obj in DB]
    objects = swap(objects, "StatefulSet", spec__podManagementPolicy="Parallel")
    assert run(objects, "StatefulSet", 0) == []


# --- grace periods --------------------------------------------------------------------------------------------------

BAD_NAME = Finding("InvalidImageName", "Pod n/p", "m")


def crash(restarts: int, before: int | None = None, pod: str = "Pod n/p") -> Finding:
    """A crash loop."""
    return Finding("CrashLoopBackOff", pod, "m", restarts=restarts, restarts_before=before)


def test_a_finding_expires_when_it_has_lasted() -> None:
    """Counted from when it was first seen; the next time to look is when it expires."""
    grace = GracePeriod()
    assert grace.next_expiry(100) == math.inf
    assert grace.find_expired([BAD_NAME], [], 100) is None
    assert grace.next_expiry(100) == 15
    assert grace.next_expiry(104) == 11
    assert grace.find_expired([BAD_NAME], [], 114.9) is None
    assert grace.find_expired([BAD_NAME], [], 115) == BAD_NAME


def test_only_times_to_come_are_waited_for() -> None:
    """A time that has passed, or a finding that has gone, would make a wait spin."""
    grace = GracePeriod()
    grace.find_expired([BAD_NAME], [], 0)
    assert grace.next_expiry(15) == math.inf
    assert grace.next_expiry(20) == math.inf
    grace.find_expired([], ["Pod n/p"], 5)
    assert grace.next_expiry(5) == math.inf
    grace.find_expired([BAD_NAME, Finding("Unschedulable", "Pod n/q", "m")], [], 6)
    assert grace.next_expiry(6) == 9
    assert grace.next_expiry(16) == 170


def test_what_went_away_counts_anew_unless_it_is_recovering() -> None:
    """A pod that is not ready yet has not recovered."""
    grace = GracePeriod()
    grace.find_expired([BAD_NAME], [], 0)
    grace.find_expired([], ["Pod n/p"], 5)
    assert grace.find_expired([BAD_NAME], [], 15) == BAD_NAME
    grace.find_expired([], ["Pod n/other"], 16)
    assert grace.find_expired([BAD_NAME], [], 17) is None
    assert grace.find_expired([BAD_NAME], [], 31.9) is None
    assert grace.find_expired([BAD_NAME], [], 32) == BAD_NAME


def test_each_object_and_each_reason_has_its_own_time() -> None:
    """The first that expires in the order of the findings is the cause."""
    grace = GracePeriod()
    other = Finding("InvalidImageName", "Pod n/q", "m")
    unfit = Finding("Unschedulable", "Pod n/p", "m")
    grace.find_expired([BAD_NAME], [], 0)
    grace.find_expired([unfit, other, BAD_NAME], [], 10)
    assert grace.find_expired([unfit, other, BAD_NAME], [], 15) == BAD_NAME
    assert grace.find_expired([unfit, other, BAD_NAME], [], 25) == other
    assert grace.find_expired([unfit, other, BAD_NAME], [], 190) == unfit


@pytest.mark.parametrize("reason", [reason for reason, seconds in GRACE_SECONDS.items() if seconds is None])
def test_some_reasons_never_fail_a_wait(reason: str) -> None:
    """They are told at the deadline. (A crash loop is judged by its restarts, of which there is none here.)"""
    grace = GracePeriod()
    finding = Finding(reason, "x", "m")
    assert grace.find_expired([finding], [], 0) is None
    assert grace.find_expired([finding], [], 1e6) is None
    assert grace.next_expiry(0) == math.inf


def test_what_kubernetes_has_waited_for_is_not_waited_for_again() -> None:
    """The progress deadline is the Deployment's own patience."""
    finding = Finding("ProgressDeadlineExceeded", "x", "m")
    assert GracePeriod().find_expired([finding], [], 0) == finding


def test_a_factor_stretches_all_periods() -> None:
    """One input for a whole site."""
    grace = GracePeriod(2.0)
    grace.find_expired([BAD_NAME], [], 0)
    assert grace.next_expiry(0) == 30
    assert grace.find_expired([BAD_NAME], [], 29) is None
    assert grace.find_expired([BAD_NAME], [], 30) == BAD_NAME


def test_periods_can_be_overridden() -> None:
    """Also to never, and for crash loops to a time."""
    grace = GracePeriod(overrides={"InvalidImageName": None, "CrashLoopBackOff": 5.0})
    assert grace.find_expired([BAD_NAME, crash(0)], [], 0) is None
    assert grace.find_expired([BAD_NAME, crash(0)], [], 5) == crash(0)
    assert GRACE_SECONDS["InvalidImageName"] == 15.0


@pytest.mark.parametrize(
    ("restarts", "before", "factor", "expired"),
    [
        (3, 0, 1.0, False),
        (4, 0, 1.0, True),
        (7, 0, 2.0, False),
        (8, 0, 2.0, True),
        (1, 0, 0.1, True),
        (0, 0, 0.1, False),
    ],
)
def test_a_crash_loop_is_judged_by_restarts(restarts: int, before: int, factor: float, expired: bool) -> None:
    """Whatever the time: a consumer crashes until its database answers."""
    grace = GracePeriod(factor)
    assert (grace.find_expired([crash(restarts, before)], [], 0) is not None) is expired
    assert grace.next_expiry(0) == math.inf
    assert diagnosis.CRASH_LOOP_RESTARTS == 4


def test_restarts_from_before_the_wait_do_not_count() -> None:
    """Of a pod that was there already, those that were seen first are the old ones, also while it runs in between."""
    grace = GracePeriod()
    assert grace.find_expired([crash(40)], [], 0) is None
    assert grace.find_expired([], ["Pod n/p"], 10) is None
    assert grace.find_expired([crash(43)], [], 20) is None
    assert grace.find_expired([crash(44)], [], 30) == crash(44)
    assert grace.find_expired([], [], 40) is None
    assert grace.find_expired([crash(47)], [], 50) is None
    assert grace.find_expired([crash(47), crash(90, pod="Pod n/q")], [], 60) is None


def test_a_pod_that_waits_for_a_node_that_is_coming_is_borne() -> None:
    """Until five minutes after the autoscaler of nodes has said so; then it has had its time."""
    grace = GracePeriod()
    coming = Finding("Unschedulable", "Pod n/p", "m", held_until=500.0)
    assert grace.find_expired([coming], [], 0) is None
    assert grace.next_expiry(0) == 500
    assert grace.find_expired([coming], [], 499) is None
    assert grace.find_expired([coming], [], 500) == coming
    assert diagnosis.SCALE_UP_SECONDS == 300.0
