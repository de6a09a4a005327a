# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""k8s_job does not repeat a Job whose work is done, or may be, though Kubernetes has failed it for another container."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.job_work import (
    DONE,
    OPEN,
    UNKNOWN,
    forbids_again,
    judge_work,
)
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.objects import Job, Pod
from support.memory_jobs import JobController
from support.memory_kubernetes import MemoryServer
from support.modules import ModuleRun

from .job_steps import describe_template, list_jobs, run

Json = dict[str, Any]

PROXY = "istio-proxy"
DEADLINE = "DeadlineExceeded"


def describe_ends(**codes: int | None) -> list[Json]:
    """Return the states of containers that have ended with a code, or run (None)."""
    return [
        {
            "name": name.replace("_", "-"),
            "state": {"running": {}} if code is None else {"terminated": {"exitCode": code}},
        }
        for name, code in codes.items()
    ]


def set_containers(memory: MemoryServer, phase: str = "Running", **codes: int | None) -> None:
    """Let the pods' containers have ended with these codes."""
    status = {"phase": phase, "containerStatuses": describe_ends(**codes)}
    for pod in memory.read_all("Pod"):
        memory.change("Pod", "n", pod["metadata"]["name"], lambda obj: obj.update(status=status))


def fail_job(memory: MemoryServer, reason: str = DEADLINE, *, keeps_pods: bool = False) -> None:
    """Let Kubernetes fail the Job, as it does when its deadline passes: its pods that run are deleted."""
    (job,) = list_jobs(memory)
    name = job["metadata"]["name"]
    condition = {"type": "Failed", "status": "True", "reason": reason, "message": "Job was active longer"}
    memory.change("Job", "n", name, lambda obj: obj.update(status={"failed": 1, "conditions": [condition]}))
    if not keeps_pods:
        memory.remove("Pod", "n", f"{name}-x")


def announce(memory: MemoryServer) -> None:
    """Let the Job say that it is about to fail, while its pod terminates."""
    (job,) = list_jobs(memory)
    conditions = [{"type": "FailureTarget", "status": "True", "reason": DEADLINE}]
    memory.change("Job", "n", job["metadata"]["name"], lambda obj: obj["status"].update(conditions=conditions))


def run_short(memory: MemoryServer, **params: Any) -> ModuleRun:
    """Wait for a Job that does not end, or ends by an announcement."""
    return run(memory, timeout=0.5, failure_grace_factor=0.01, **params)


def check_refused(controller: JobController, *words: str, **params: Any) -> None:
    """A Job that has failed is not repeated, in a rehearsal neither, and the message says why and what to do."""
    memory = controller.server
    before = list_jobs(memory)
    name = before[0]["metadata"]["name"]
    for on_failed in ("fail", "again"):
        for check in (True, False):
            refused = run(memory, check=check, on_failed=on_failed, **params)
            assert refused.failed
            assert (refused["error"]["refused"], refused["plan"]) == (True, [])
            for word in (*words, f"kubectl delete job --namespace n {name}"):
                assert word in refused.msg
            assert "on_failed=again" not in refused.msg
    assert list_jobs(memory) == before
    memory.remove("Job", "n", name)
    controller.holds = False
    assert not run(memory, on_failed="again", **params).failed, "deleting the Job is a person's consent"


def test_a_job_that_was_kept_by_a_container_is_not_repeated(memory: MemoryServer) -> None:
    """A run has seen that the work is done; the pod, which shows it, is deleted at the Job's deadline."""
    controller = JobController(memory, holds=True)
    memory.add_rival(lambda: set_containers(memory, main=0, istio_proxy=None), verb="watch", path="/jobs")
    assert "must not be repeated" in run(memory, failure_grace_factor=0.01, timeout=20.0).msg
    (job,) = list_jobs(memory)
    note = json.loads(job["metadata"]["annotations"]["lowtide.ops/job-work"])
    assert (note["state"], note["ended"], note["others"]) == ("done", ["main"], [PROXY])
    fail_job(memory)
    check_refused(
        controller, "its work is done: main of Pod n/", f"ended with 0, and {PROXY} kept the pod", "Go on without it"
    )


def test_what_is_seen_at_the_deadline_is_kept(memory: MemoryServer) -> None:
    """The Job announces its failure while its pod terminates; this run does not propose to repeat it either."""
    controller = JobController(memory, holds=True)

    def end() -> None:
        set_containers(memory, main=0, istio_proxy=None)
        announce(memory)
        memory.add_rival(lambda: fail_job(memory), verb="patch", when="after", path="/jobs/")

    memory.add_rival(end, verb="watch", path="/jobs")
    failed = run(memory)
    assert failed.failed
    assert f"its work is done: main of Pod n/{failed['job']}-x ended with 0" in failed.msg
    assert "on_failed=again" not in failed.msg
    check_refused(controller, "its work is done")


def test_a_pod_that_is_left_shows_that_the_work_is_done(memory: MemoryServer) -> None:
    """Its proxy has failed after the work, so that the Job has failed; no run was there to see it."""
    controller = JobController(memory, holds=True)
    run_short(memory)
    set_containers(memory, "Failed", main=0, istio_proxy=1)
    fail_job(memory, "BackoffLimitExceeded", keeps_pods=True)
    check_refused(controller, "its work is done", f"and {PROXY} kept the pod")


def test_a_job_of_one_container_is_repeated_after_its_deadline(memory: MemoryServer) -> None:
    """Had its container ended, the pod would have succeeded."""
    controller = JobController(memory, holds=True)
    run_short(memory)
    fail_job(memory)
    controller.holds = False
    again = run(memory, on_failed="again")
    assert (again.failed, len(list_jobs(memory))) == (False, 2)
    assert all("lowtide.ops/job-work" not in job["metadata"]["annotations"] for job in list_jobs(memory))


def describe_two() -> Json:
    template = describe_template()
    template["template"]["spec"]["containers"].append({"name": "shipper", "image": "i"})
    return template


def test_where_nothing_is_known_a_person_decides(memory: MemoryServer) -> None:
    """Of several containers of the template one may have done the work; no run was there at the end."""
    controller = JobController(memory, holds=True)
    run_short(memory, template=describe_two())
    fail_job(memory)
    words = "its pod has several containers (main, shipper) and was deleted with it, so that it is not known whether"
    check_refused(controller, words, "Find out by its effects whether its work is done", template=describe_two())


def test_a_container_that_was_put_into_the_pod_is_remembered(memory: MemoryServer) -> None:
    """A run has ended before the work was; later the pod, and that it had a proxy, is not to be seen any more."""
    controller = JobController(memory, holds=True)
    memory.add_rival(lambda: set_containers(memory, main=None, istio_proxy=None), verb="watch", path="/jobs")
    run_short(memory)
    fail_job(memory)
    check_refused(controller, f"its pod has several containers ({PROXY}, main)")


@pytest.mark.parametrize(("code", "is_repeated"), [(None, True), (1, True), (0, False)])
def test_work_that_was_open_at_the_deadline_is_repeated(
    memory: MemoryServer, code: int | None, is_repeated: bool
) -> None:
    """A run was there, and has seen that nothing had ended with 0; where one of them had, it may be the work."""
    controller = JobController(memory, holds=True)

    def end() -> None:
        set_containers(memory, main=code, shipper=None)
        announce(memory)
        memory.add_rival(lambda: fail_job(memory), verb="patch", when="after", path="/jobs/")

    memory.add_rival(end, verb="watch", path="/jobs")
    failed = run(memory, template=describe_two())
    assert ("on_failed=again" in failed.msg) == is_repeated
    if not is_repeated:
        check_refused(
            controller, "its work may be done: main of Pod n/", "shipper did not end", template=describe_two()
        )
        return
    controller.holds = False
    assert not run(memory, template=describe_two(), on_failed="again").failed


def test_what_cannot_be_noted_is_told(memory: MemoryServer) -> None:
    """The right was asked for before, so that it is another client, or a webhook, that forbids it."""
    JobController(memory, holds=True)

    def finish() -> None:
        set_containers(memory, main=0, istio_proxy=None)
        memory.fail_next(403, verb="patch", path="/jobs/")

    memory.add_rival(finish, verb="watch", path="/jobs")
    result = run(memory, failure_grace_factor=0.01, timeout=20.0)
    assert "main ended with 0" in result.msg
    assert any("it could not be noted on it that its work is done" in warning for warning in result["warnings"])


def describe_job(reason: str = DEADLINE, policy: str = "Never", completions: int = 1, containers: int = 2) -> Job:
    names = ["main", "shipper"][:containers]
    pod = {"restartPolicy": policy, "containers": [{"name": name} for name in names]}
    conditions = [{"type": "Failed", "status": "True", "reason": reason}]
    spec = {"completions": completions, "template": {"spec": pod}}
    return Job.from_object(
        {"metadata": {"name": "j", "namespace": "n", "uid": "u"}, "spec": spec, "status": {"conditions": conditions}}
    )


def describe_pod(phase: str, name: str = "p", at: int = 1, *, terminating: bool = False, **codes: int | None) -> Pod:
    metadata = {"name": name, "namespace": "n", "creationTimestamp": f"2026-01-01T00:00:0{at}Z"}
    if terminating:
        metadata["deletionTimestamp"] = "2026-01-01T00:01:00Z"
    return Pod.from_object(
        {"metadata": metadata, "status": {"phase": phase, "containerStatuses": describe_ends(**codes)}}
    )


@pytest.mark.parametrize(
    ("job", "pods", "state"),
    [
        # At the deadline all containers ended when they were told to, but the Job had been judged before.
        (describe_job(), [describe_pod("Succeeded", terminating=True, main=0, shipper=0)], DONE),
        # One of several completions is no proof for the others.
        (describe_job(completions=3, containers=1), [describe_pod("Succeeded", main=0)], None),
        (describe_job(containers=1), [describe_pod("Running", main=0, proxy=None)], DONE),
        (describe_job(), [describe_pod("Running", terminating=True, main=None, shipper=None)], OPEN),
        (describe_job(), [describe_pod("Failed", terminating=True, main=137, shipper=137)], OPEN),
        # A pod that failed before says nothing of the one that was deleted.
        (describe_job(), [describe_pod("Failed", main=1, shipper=1)], UNKNOWN),
        (describe_job(), [], UNKNOWN),
        (describe_job(containers=1), [], None),
        (describe_job(containers=1), [describe_pod("Running", main=None)], None),
        (
            describe_job(),
            [
                describe_pod("Running", "a", 1, terminating=True, main=0, shipper=None),
                describe_pod("Running", "b", 2, terminating=True, main=None, shipper=None),
            ],
            UNKNOWN,
        ),
    ],
)
def test_pods_prove_what_became_of_the_work(job: Job, pods: list[Pod], state: str | None) -> None:
    """Only what is still there, or was there at the end, proves something."""
    work = judge_work(job, pods)
    assert (work and work.state) == state


@pytest.mark.parametrize(
    ("reason", "policy", "is_forbidden"),
    [
        (DEADLINE, "Never", True),
        (DEADLINE, "OnFailure", True),
        ("BackoffLimitExceeded", "OnFailure", True),
        ("BackoffLimitExceeded", "Never", False),
    ],
)
def test_what_is_unknown_counts_where_pods_are_deleted(reason: str, policy: str, is_forbidden: bool) -> None:
    """Otherwise the pods that failed are still there."""
    job = describe_job(reason, policy)
    assert forbids_again(job, judge_work(job, [])) is is_forbidden
