# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What k8s_job decides: which Job counts, what a Job is made of, whose turn it is, how it ended, and in which words."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest

from ansible_collections.lowtide.ops.plugins.module_utils._common.errors import Refusal
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes import summary
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.conditions import Status
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.job_conditions import Turn
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.logs import Log
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.objects import Job, Pod, Workload
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.plans.job import (
    CLAIM,
    KEY_LABEL,
    LOCK_LABEL,
    NOTE,
    Claim,
    Decision,
    Exit,
    Holder,
    JobRequest,
    build_job,
    build_spec_like,
    complete_spec,
    decide,
    find_exit,
    find_holders,
    format_claim,
    is_unstarted,
    list_own_containers,
    measure_seconds,
    name_job,
    plan_number,
    plan_start,
    read_claim,
)
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.snapshot import Snapshot

Json = dict[str, Any]

REQUEST = JobRequest("n", "migrate", "42", "", {"template": {"spec": {}}}, {}, {})
COMPLETE: Json = {"conditions": [{"type": "Complete", "status": "True"}], "succeeded": 1}
FAILED: Json = {"conditions": [{"type": "Failed", "status": "True", "message": "m"}], "failed": 1}


def describe_job(name: str = "a", claim: Claim | None = None, *, suspend: bool = True, **status: Any) -> Json:
    """Return a Job of the lock ``schema``."""
    metadata = {"name": name, "namespace": "n", "uid": name, "labels": {LOCK_LABEL: "schema"}, "annotations": {}}
    if claim is not None:
        metadata["annotations"] = {CLAIM: format_claim(claim)}
    return {"kind": "Job", "metadata": metadata, "spec": {"suspend": suspend}, "status": status}


def queue(name: str = "a", number: int | None = None, *, is_started: bool = False, **job: Any) -> Job:
    """Return a Job that waits for its turn."""
    return Job.from_object(describe_job(name, Claim("r", number, 100.0, is_started), **job))


def attempt(number: int, status: Json, *, template: str | None = None, **metadata: Any) -> Job:
    """Return the Job of an attempt with the request's key."""
    note = {"format": 1, "attempt": number, "template": template or REQUEST.template_digest, "key": "42", "run": "r"}
    meta = {"name": f"j{number}", "namespace": "n", "uid": str(number), "annotations": {NOTE: json.dumps(note)}}
    return Job.from_object({"metadata": {**meta, **metadata}, "spec": {}, "status": status})


@pytest.mark.parametrize(
    ("jobs", "on_failed", "action", "number"),
    [
        ([], "fail", "create", 1),
        ([attempt(1, {})], "fail", "wait", 1),
        ([attempt(1, COMPLETE)], "again", "done", 1),
        ([attempt(1, FAILED)], "fail", "failed", 1),
        ([attempt(1, FAILED)], "again", "create", 2),
        ([attempt(1, FAILED), attempt(2, {})], "again", "wait", 2),
        ([attempt(2, COMPLETE), attempt(1, FAILED)], "fail", "done", 2),
        ([attempt(1, COMPLETE, template="other")], "fail", "changed", 1),
        ([attempt(1, {}, template="other")], "fail", "changed", 1),
        ([attempt(1, FAILED, template="other")], "again", "create", 2),
        ([attempt(1, COMPLETE, annotations={})], "fail", "changed", 0),
        ([attempt(1, COMPLETE, annotations={NOTE: "{"})], "fail", "changed", 0),
        ([attempt(1, COMPLETE, annotations={NOTE: '{"format": 9}'})], "fail", "changed", 0),
        ([attempt(1, {}, deletionTimestamp="2026-01-01T00:00:00Z")], "fail", "create", 2),
    ],
)
def test_the_last_attempt_counts(jobs: list[Job], on_failed: str, action: str, number: int) -> None:
    """One that is being deleted is nobody's any more, but its name is taken."""
    decision = decide(REQUEST, jobs, on_failed=on_failed)
    assert (decision.action, decision.attempt) == (action, number)
    if action == "create":
        assert decision.name == name_job("migrate", "42", number)


def test_names_are_of_prefix_key_and_attempt() -> None:
    """Each makes another one, and none is too long for the label of the pods."""
    names = {name_job(*parts) for parts in itertools.product(("a", "b" * 52), ("1", "2"), (1, 2))}
    assert len(names) == 8
    assert max(map(len, names)) == 63


def test_what_a_job_does_makes_its_digest() -> None:
    """How long it may run, how long it is kept, and whether it waits, does not."""
    limits = {"ttlSecondsAfterFinished": 5, "suspend": True, "activeDeadlineSeconds": 7}
    same = REQUEST._replace(spec={**REQUEST.spec, **limits})
    other = REQUEST._replace(spec={**REQUEST.spec, "backoffLimit": 0})
    assert same.template_digest == REQUEST.template_digest != other.template_digest
    assert REQUEST.key_label == same.key_label != REQUEST._replace(key="43").key_label


@pytest.mark.parametrize(("lock", "policy"), [("migrate", "Failed"), ("", "TerminatingOrFailed")])
def test_under_a_lock_no_pod_is_replaced_before_it_has_ended(lock: str, policy: str) -> None:
    """A pod of a drained node may take long to end, and two migrations would run at once."""
    spec = {"podReplacementPolicy": "TerminatingOrFailed", "template": {"spec": {}}}
    completed = complete_spec(spec, deadline=None, default_deadline=60, ttl=60, lock=lock)
    assert completed["podReplacementPolicy"] == policy


def test_a_spec_is_completed_and_what_it_says_stays() -> None:
    """The given one is not altered."""
    spec: Json = {"template": {"metadata": {"labels": {"a": "b"}}, "spec": {"restartPolicy": "OnFailure"}}}
    own = complete_spec(spec, deadline=None, default_deadline=60, ttl=5, lock="schema")
    assert own["template"]["spec"]["restartPolicy"] == "OnFailure"
    assert own["template"]["metadata"]["labels"] == {"a": "b", LOCK_LABEL: "schema"}
    assert (own["activeDeadlineSeconds"], own["ttlSecondsAfterFinished"]) == (60, 5)
    assert "activeDeadlineSeconds" not in spec
    assert LOCK_LABEL not in spec["template"]["metadata"]["labels"]
    given = {"template": {}, "activeDeadlineSeconds": 7}
    bare = complete_spec(given, deadline=None, default_deadline=60, ttl=5, lock="")
    assert bare["activeDeadlineSeconds"] == 7
    assert bare["template"] == {"spec": {"restartPolicy": "Never"}}
    assert complete_spec(given, deadline=9, default_deadline=60, ttl=5, lock="")["activeDeadlineSeconds"] == 9


POD: Json = {
    "serviceAccountName": "builder",
    "affinity": {"podAntiAffinity": {}},
    "terminationGracePeriodSeconds": 90,
    "restartPolicy": "Always",
    "securityContext": {"runAsUser": 5},
    "initContainers": [{"name": "wait"}],
    "containers": [
        {
            "name": "main",
            "image": "shop:1",
            "command": ["serve"],
            "args": ["--port", "1"],
            "env": [{"name": "PW", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}],
            "readinessProbe": {},
            "lifecycle": {},
            "ports": [{"containerPort": 1}],
            "volumeMounts": [{"name": "token", "mountPath": "/t"}, {"name": "data", "mountPath": "/d"}, {"name": "c"}],
        },
        {"name": "side", "image": "proxy:1", "volumeMounts": [{"name": "other", "mountPath": "/o"}]},
    ],
    "volumes": [
        {"name": "token", "secret": {"secretName": "s"}},
        {"name": "data", "persistentVolumeClaim": {"claimName": "d"}},
        {"name": "other", "emptyDir": {}},
    ],
}


def like(container: str | None, pod: Json = POD, **options: Any) -> Json:
    """Return the spec of a Job that runs a command as a container of a Deployment would."""
    template = {"metadata": {"labels": {"app": "shop"}}, "spec": pod}
    obj = {"kind": "Deployment", "metadata": {"name": "d", "namespace": "n"}, "spec": {"template": template}}
    given: Json = {"image": None, "command": ["probe"], "args": None, **options}
    return build_spec_like(Workload.from_object(obj), container=container, **given)


def test_a_command_runs_as_a_container_of_a_workload() -> None:
    """With its account, secrets and environment; with no label, probe, data or other container of it."""
    assert like("main") == {
        "backoffLimit": 0,
        "template": {
            "spec": {
                "serviceAccountName": "builder",
                "securityContext": {"runAsUser": 5},
                "containers": [
                    {
                        "name": "main",
                        "image": "shop:1",
                        "env": POD["containers"][0]["env"],
                        "command": ["probe"],
                        "volumeMounts": [{"name": "token", "mountPath": "/t"}],
                    }
                ],
                "volumes": [{"name": "token", "secret": {"secretName": "s"}}],
            }
        },
    }
    (other,) = like("main", image="shop:2", args=["-v"])["template"]["spec"]["containers"]
    assert (other["image"], other["args"]) == ("shop:2", ["-v"])
    alone = {"containers": POD["containers"][:1]}
    assert like(None, alone)["template"]["spec"]["containers"][0]["name"] == "main"


@pytest.mark.parametrize(
    ("container", "words"),
    [
        ("web", "Deployment n/d: it has no container 'web'"),
        (None, "it has several containers, and none is named"),
    ],
)
def test_a_container_that_there_is_not_is_refused(container: str | None, words: str) -> None:
    """Those that there are are named; init containers are none."""
    with pytest.raises(Refusal, match=words) as refused:
        like(container)
    assert refused.value.next_step == "Set from_workload.container to one of main, side"


@pytest.mark.parametrize("lock", ["", "schema"])
def test_a_job_with_a_lock_is_made_suspended(lock: str) -> None:
    """With its claim, which has no number yet."""
    decision = Decision("create", "migrate-1", 1)
    job = build_job(REQUEST._replace(lock=lock), decision, run_id="r", now=0.0, until=60.0)
    assert job["metadata"]["labels"][KEY_LABEL] == REQUEST.key_label
    assert job["spec"].get("suspend", False) == bool(lock)
    claim = read_claim(Job.from_object(job))
    assert claim == (Claim("r", None, 60.0) if lock else None)


def test_a_number_is_higher_than_all_that_there_are() -> None:
    """It stays when it is given again; the time is moved; what has been started gets none."""
    write = plan_number(queue("a"), [queue("a"), queue("b", 4), queue("c"), queue("d", 2)], run_id="r", until=50.0)
    assert write is not None
    assert json.loads(write.body["metadata"]["annotations"][CLAIM])["number"] == 5
    assert write.depends_on == (("metadata", "annotations", CLAIM), ("spec", "suspend"))
    kept = plan_number(queue("a", 3), [queue("b", 4)], run_id="s", until=500.0)
    assert kept is not None
    told = json.loads(kept.body["metadata"]["annotations"][CLAIM])
    assert (told["number"], told["until"]) == (3, "1970-01-01T00:08:20Z")
    assert plan_number(queue("a", 3, is_started=True), [], run_id="r", until=0.0) is None
    assert plan_number(queue("a", 3, suspend=False), [], run_id="r", until=0.0) is None


def test_a_job_is_started_once() -> None:
    """Whoever suspends it later has a reason."""
    write = plan_start(queue("a", 3))
    assert write is not None
    assert write.body["spec"] == {"suspend": False}
    assert json.loads(write.body["metadata"]["annotations"][CLAIM])["started"] is True
    assert plan_start(queue("a", 3, is_started=True)) is None
    assert plan_start(queue("a", 3, suspend=False)) is None
    assert [is_unstarted(job) for job in (queue(), queue(is_started=True), queue(suspend=False), queue(active=1))] == [
        True,
        False,
        False,
        False,
    ]
    assert not is_unstarted(Job.from_object(describe_job())), "it says nothing of a claim"


OWN = queue("m", 5)


@pytest.mark.parametrize(
    ("other", "what"),
    [
        (queue("b", 4), "it waits for its turn, before this one"),
        (queue("b", 6), None),
        (queue("b", None), "it waits for its turn, before this one"),
        (queue("b", 5), "it waits for its turn, before this one"),
        (queue("z", 5), None),
        (queue("b", 9, suspend=False), "it runs"),
        (queue("b", 9, is_started=True), "it was started, and somebody has suspended it since"),
        (queue("b", 4, **COMPLETE), None),
        (queue("b", 4, **FAILED), None),
        (queue("b", 9, suspend=False, **COMPLETE), None),
        (Job.from_object(describe_job("b")), "it is suspended"),
        (Job.from_object(describe_job("b", suspend=False)), "it runs"),
    ],
)
def test_who_comes_before(other: Job, what: str | None) -> None:
    """Lower numbers, those without one yet, and whatever runs or has begun."""
    holders = find_holders(OWN, [OWN, other], [], lock="schema", cron_job_uid="")
    assert [holder.what for holder in holders] == ([what] if what else [])
    assert find_holders(OWN, [OWN, other], [], lock="another", cron_job_uid="") == []


def test_of_two_jobs_only_one_comes_first() -> None:
    """Whatever their numbers and names: never both, and never neither."""
    for numbers in itertools.product((1, 2), repeat=2):
        pair = [queue("a", numbers[0]), queue("b", numbers[1])]
        first = [job for job in pair if not find_holders(job, pair, [], lock="schema", cron_job_uid="")]
        assert len(first) == 1


def test_one_that_waits_and_is_being_deleted_is_not_waited_for() -> None:
    """It cannot start any more; one with pods is."""
    obj = describe_job("b", Claim("r", 1))
    obj["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    assert find_holders(OWN, [Job.from_object(obj)], [], lock="schema", cron_job_uid="") == []
    obj["status"] = {"active": 1}
    assert len(find_holders(OWN, [Job.from_object(obj)], [], lock="schema", cron_job_uid="")) == 1


def describe_pod(owner: str, *, phase: str = "Running", **metadata: Any) -> Pod:
    """Return a pod of the lock."""
    reference = {"kind": "Job", "uid": owner, "controller": True}
    meta = {"name": "p", "namespace": "n", "labels": {LOCK_LABEL: "schema"}, "ownerReferences": [reference]}
    return Pod.from_object({"metadata": {**meta, **metadata}, "spec": {"nodeName": "n1"}, "status": {"phase": phase}})


@pytest.mark.parametrize(
    ("pod", "words"),
    [
        (describe_pod("gone"), "it still runs on node n1, though its Job has ended"),
        (
            describe_pod("ended", deletionTimestamp="2026-01-01T00:00:00Z"),
            "it still terminates on node n1, though its Job has ended",
        ),
        (describe_pod("gone", phase="Succeeded"), None),
        (describe_pod("m"), None),
        (describe_pod("later"), None),
        (describe_pod("gone", labels={}), None),
    ],
)
def test_pods_that_are_left_hold_the_lock(pod: Pod, words: str | None) -> None:
    """Those of Jobs that are there are theirs."""
    jobs = [OWN, queue("ended", 1, **COMPLETE), queue("later", 9)]
    holders = find_holders(OWN, jobs, [pod], lock="schema", cron_job_uid="")
    assert [holder.what for holder in holders] == ([words] if words else [])


def test_the_turn_is_told_with_who_comes_before() -> None:
    """What is not known yet is nobody's turn; a Job that another run has started needs none."""
    turn = Turn(OWN, lock="schema", cron_job_uid="")
    own, other = describe_job("m", Claim("r", 5)), describe_job("b", Claim("r", 4))
    pods = ("Pod",)
    assert turn.evaluate(Snapshot.from_objects([own], known=pods)) == Status(
        "Current", "Job n/m", "it has the lock schema"
    )
    assert turn.evaluate(Snapshot.from_objects([own])).state == "InProgress"
    waiting = turn.evaluate(Snapshot.from_objects([own, other], known=pods))
    assert (waiting.state, waiting.message) == (
        "InProgress",
        "it waits for the lock schema: Job n/b (it waits for its turn, before this one)",
    )
    started = describe_job("m", Claim("r", 5, is_started=True), suspend=False)
    assert turn.evaluate(Snapshot.from_objects([started, other], known=pods)).is_current
    anew = describe_job("m", Claim("r", 5))
    anew["metadata"]["uid"] = "another"
    for objects in ([other], [anew]):
        lost = turn.evaluate(Snapshot.from_objects(objects, known=pods))
        assert (lost.state, lost.message) == ("NotFound", "it was deleted while it waited for the lock schema")


def describe_ended(name: str, code: int, at: str, reason: str = "Error", **container: Any) -> Pod:
    """Return a pod whose container has ended."""
    ended = {"exitCode": code, "reason": reason, "finishedAt": at}
    status = {"containerStatuses": [{"name": "main", "state": {"terminated": ended}, **container}]}
    return Pod.from_object({"metadata": {"name": name, "namespace": "n"}, "status": status})


def test_the_exit_that_decided_is_the_last_of_its_kind() -> None:
    """Of a failed Job a failure, of a complete one a success; before the state what a restarted container had."""
    old = describe_ended("a", 1, "2026-01-01T00:00:00Z")
    new = describe_ended("b", 137, "2026-01-01T00:01:00Z", "OOMKilled")
    good = describe_ended("c", 0, "2026-01-01T00:02:00Z", "Completed")
    failed = find_exit([new, old, good], is_failed=True)
    assert failed == Exit("n/b", "main", 137, "OOMKilled")
    assert str(failed) == "container main of Pod n/b ended with exit code 137 (OOMKilled)"
    done = find_exit([new, old, good], is_failed=False)
    assert str(done) == "container main of Pod n/c ended with exit code 0"
    assert find_exit([good], is_failed=True) is None
    restarted = describe_ended("d", 2, "", state={"waiting": {}}, lastState={"terminated": {"exitCode": 2}})
    assert find_exit([restarted], is_failed=True) == Exit("n/d", "main", 2, "")


def describe_mixed(phase: str, *containers: tuple[str, int | None, int], **spec: Any) -> Pod:
    """Return a pod of containers by name, exit code (None: it runs) and second of their end."""
    statuses: list[Json] = [
        {
            "name": name,
            "state": {"running": {}}
            if code is None
            else {"terminated": {"exitCode": code, "finishedAt": f"2026-01-01T00:00:{second:02}Z"}},
        }
        for name, code, second in containers
    ]
    status = {"phase": phase, "containerStatuses": statuses}
    return Pod.from_object({"metadata": {"name": "p", "namespace": "n"}, "spec": spec, "status": status})


OWN_CONTAINERS = ("migrate", "check")


@pytest.mark.parametrize(
    ("pod", "container", "code"),
    [
        (describe_mixed("Failed", ("migrate", 1, 5), ("istio-proxy", 137, 9)), "migrate", 1),
        (describe_mixed("Failed", ("migrate", 3, 5), ("check", 143, 9)), "migrate", 3),
        (describe_mixed("Failed", ("migrate", 0, 5), ("istio-proxy", 137, 9)), "migrate", 0),
        (describe_mixed("Running", ("migrate", 0, 5), ("istio-proxy", None, 0)), "migrate", 0),
        (describe_mixed("Failed", ("istio-proxy", 1, 9)), "istio-proxy", 1),
        (
            describe_mixed(
                "Failed",
                ("migrate", 1, 5),
                ("log", 137, 1),
                initContainers=[{"name": "log", "restartPolicy": "Always"}],
            ),
            "migrate",
            1,
        ),
    ],
)
def test_the_exit_is_that_of_the_jobs_own_container(pod: Pod, container: str, code: int) -> None:
    """A sidecar that is killed with the pod says nothing of the work."""
    end = find_exit([pod], is_failed=True, own=OWN_CONTAINERS)
    assert end is not None
    assert (end.container, end.exit_code) == (container, code)
    assert ("istio-proxy kept the pod" in str(end)) is (code == 0)


def test_a_native_sidecar_is_not_a_job_s_own() -> None:
    """Kubernetes ends it itself."""
    containers = [{"name": "migrate"}]
    spec = {"containers": containers, "initContainers": [{"name": "log", "restartPolicy": "Always"}, {"name": "init"}]}
    job = Job.from_object({"kind": "Job", "metadata": {}, "spec": {"template": {"spec": spec}}})
    assert list_own_containers(job) == {"migrate", "init"}


@pytest.mark.parametrize(
    ("status", "seconds"),
    [
        ({}, None),
        ({"startTime": "2026-01-01T00:00:00Z"}, None),
        ({"startTime": "2026-01-01T00:00:00Z", "completionTime": "2026-01-01T00:00:12Z"}, 12.0),
        (
            {
                "startTime": "2026-01-01T00:00:00Z",
                "conditions": [{"type": "Failed", "lastTransitionTime": "2026-01-01T00:00:03Z"}],
            },
            3.0,
        ),
    ],
)
def test_how_long_it_took(status: Json, seconds: float | None) -> None:
    """Not known before its end."""
    assert measure_seconds(Job.from_object({"status": status})) == seconds


def test_words_of_a_job() -> None:
    """What was done, would be done, or was found."""

    def tell(action: str, status: Json | None, *, created: bool = True, seconds: float | None = 3.2) -> str:
        job = None if status is None else Job.from_object({"status": status})
        return summary.summarize_job("Job n/j", action, job=job, created=created, seconds=seconds, key="k")

    assert tell("create", None) == "would run Job n/j"
    assert tell("wait", None) == "would wait for Job n/j, which an earlier run began"
    assert tell("done", COMPLETE) == "Job n/j was complete already (key k), it took 3 s"
    assert tell("failed", FAILED) == "Job n/j has failed before (key k)"
    assert tell("create", COMPLETE) == "Job n/j is complete after 3 s"
    assert tell("create", FAILED) == "Job n/j failed after 3 s"
    assert tell("create", {}, seconds=None) == "Job n/j has not completed"
    assert tell("wait", COMPLETE, created=False) == "Job n/j, which an earlier run began, is complete after 3 s"


def test_evidence_of_a_job() -> None:
    """Its end, its exit, the last lines of each log, or why there is none."""
    job = Job.from_object({"metadata": {"name": "j", "namespace": "n"}, "status": COMPLETE})
    logs = [Log("n/p", "main", False, "a\nb", False), Log("n/p", "side", False, "", False, "it is empty")]
    assert summary.list_job_evidence(job, Exit("n/p", "main", 0, "Completed"), logs, seconds=4.0) == [
        "Job n/j: complete after 4 s (1 succeeded, 0 failed)",
        "container main of Pod n/p ended with exit code 0",
        "log of container main of Pod n/p: a",
        "log of container main of Pod n/p: b",
        "log of container side of Pod n/p: it is empty",
    ]
    assert summary.list_job_evidence(job, None, [], seconds=None)[1:] == [
        "no pod of it is left, so that there is no log"
    ]
    assert summary.describe_end(None, "") == ""
    assert summary.describe_end(None, "a\n" + "b" * 400 + "\n \n") == "; its last line: " + "b" * 300
    assert summary.format_logs([]) == "(no pod was left, so that there was no log)\n"
    assert summary.format_logs(logs) == (
        "==> log of container main of Pod n/p <==\na\nb\n\n==> log of container side of Pod n/p <==\n(it is empty)\n"
    )


def test_a_cron_job_that_forbids_runs_beside_each_other_is_waited_for() -> None:
    """Others are not."""
    cron_job = {"kind": "CronJob", "metadata": {"name": "c", "uid": "u"}, "spec": {"concurrencyPolicy": "Forbid"}}
    assert REQUEST._replace(cron_job=Workload.from_object(cron_job)).cron_job_uid == "u"
    cron_job["spec"] = {"concurrencyPolicy": "Replace"}
    assert REQUEST._replace(cron_job=Workload.from_object(cron_job)).cron_job_uid == ""
    assert REQUEST.cron_job_uid == ""


def test_a_holder_is_named_with_its_run() -> None:
    """As a blocker, with since when."""
    blocker = summary.name_holder(Holder("Job n/a", "it runs", 0.0, "night@1"), "schema")
    assert (blocker.object, blocker.holder, blocker.since) == ("Job n/a", "run night@1", "1970-01-01T00:00:00Z")
    assert blocker.what == "it holds the lock schema: it runs"
    assert summary.name_holder(Holder("Pod n/p", "it runs", None), "schema").holder == "Pod n/p"
