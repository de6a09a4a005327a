# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""k8s_job with a lock, against the API server in memory: one Job at a time, whoever is cut off or interferes."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.fields import as_time
from support.memory_jobs import JobController
from support.memory_kubernetes import MemoryServer
from support.memory_objects import format_now

from .job_steps import describe_template, list_jobs, run

Json = dict[str, Any]

CLAIM = "lowtide.ops/job-claim"


def read_claim(job: Json) -> Json:
    """Return where a Job stands in the queue."""
    return dict(json.loads(job["metadata"]["annotations"][CLAIM]))


def leave_unstarted(memory: MemoryServer, key: str = "k", patches: int = 0) -> Json:
    """Let a run end after it has created its Job: without a number, or with it (1), before it is started."""
    for _number in range(patches):
        memory.add_rival(lambda: memory.fail_next(403, verb="patch", path="/jobs/"), when="after", path="/jobs/")
    if not patches:
        memory.fail_next(403, verb="patch", path="/jobs/")
    left = run(memory, key=key, lock="schema", run_id=f"run-{key}")
    assert left.failed
    (job,) = [job for job in list_jobs(memory) if job["spec"]["suspend"]]
    return job


def abandon(memory: MemoryServer, job: Json, until: str = "2020-01-01T00:00:00Z") -> None:
    """Let the time pass in which its run could have come back."""
    past = {**read_claim(job), "until": until}

    def change(obj: Json) -> None:
        obj["metadata"]["annotations"][CLAIM] = json.dumps(past)

    memory.change("Job", "n", job["metadata"]["name"], change)


def test_a_free_lock_is_taken(memory: MemoryServer) -> None:
    """The Job is created suspended, gets a number, and is started; its pods have the lock's label."""
    controller = JobController(memory)
    predicted = run(memory, check=True, lock="schema")
    result = run(memory, lock="schema")
    assert not result.failed, result.msg
    assert result["plan"] == predicted["plan"]
    assert result["plan"][0]["what"] == "create from the template and run, when it has the lock schema"
    (created,) = [request for request in memory.log if request.verb == "create" and request.path.endswith("/jobs")]
    assert created.body["spec"]["suspend"] is True
    (job,) = list_jobs(memory)
    assert job["spec"]["suspend"] is False
    assert (read_claim(job)["number"], read_claim(job)["started"]) == (1, True)
    assert memory.read_all("Pod")[0]["metadata"]["labels"]["lowtide.ops/job-lock"] == "schema"
    assert controller.running == [1]
    assert not run(memory, lock="schema").changed


def test_a_held_lock_is_refused_with_who_holds_it(memory: MemoryServer) -> None:
    """What was created for the queue is deleted again, and never ran; when the holder has ended, it is free."""
    controller = JobController(memory, holds=True)
    holder = run(memory, key="a", lock="schema", timeout=0.5, run_id="first")["job"]
    refused = run(memory, key="b", lock="schema", lock_timeout=0)
    assert refused.failed
    assert f"the lock schema is held after 0 s by Job n/{holder} (it runs since " in refused.msg
    assert ", of run first); it was deleted again, and never ran" in refused.msg
    assert f"kubectl delete job --namespace n {holder}" in refused.msg
    assert refused["summary"].endswith("did not run: another one has the lock schema")
    predicted = run(memory, check=True, key="b", lock="schema", lock_timeout=0)
    assert (predicted.failed, predicted["blockers"]) == (False, refused["blockers"])
    (blocker,) = refused["blockers"]
    assert (blocker["object"], blocker["holder"]) == (f"Job n/{holder}", "run first")
    assert [job["metadata"]["name"] for job in list_jobs(memory)] == [holder]
    assert run(memory, key="c", lock="other", timeout=0.5).msg.count("lock") == 0, "another lock is free"
    controller.end(holder)
    controller.holds = False
    assert not run(memory, key="b", lock="schema", lock_timeout=0).failed


def test_a_held_lock_is_waited_for(memory: MemoryServer) -> None:
    """Until the holder has ended; the result has both times."""
    controller = JobController(memory, holds=True)
    holder = run(memory, key="a", lock="schema", timeout=0.5)["job"]

    def end_holder() -> None:
        controller.holds = False
        controller.end(holder)

    memory.add_rival(end_holder, verb="watch", path="/jobs")
    result = run(memory, key="b", lock="schema")
    assert not result.failed, result.msg
    assert controller.running == [1, 1]


@pytest.mark.parametrize("controllers", [2, 6])
def test_many_controllers_at_once_run_one_job_at_a_time(memory: MemoryServer, controllers: int) -> None:
    """All of them come to their turn."""
    controller = JobController(memory, seconds=0.05)
    with ThreadPoolExecutor(controllers) as pool:
        runs = [
            pool.submit(run, memory, key=f"k{number}", lock="schema", timeout=60.0) for number in range(controllers)
        ]
        results = [future.result() for future in runs]
    assert [result.msg for result in results if result.failed] == []
    assert controller.running == [1] * controllers
    assert len(set(controller.started)) == controllers


def test_many_controllers_with_the_same_key_and_lock_have_one_job(memory: MemoryServer) -> None:
    """Whoever starts it, all of them report its end."""
    controller = JobController(memory, seconds=0.05)
    with ThreadPoolExecutor(4) as pool:
        runs = [pool.submit(run, memory, lock="schema", timeout=60.0) for _number in range(4)]
        results = [future.result() for future in runs]
    assert [result.msg for result in results if result.failed] == []
    assert (controller.running, {result["job"] for result in results}) == ([1], set(controller.started))


@pytest.mark.parametrize("verb", ["list", "patch"])
def test_one_that_comes_in_the_middle_waits(memory: MemoryServer, verb: str) -> None:
    """Whatever of the other's queueing it meets: a Job without a number, or with one that is not started."""
    controller = JobController(memory, holds=True)
    rivals: list[Any] = []

    def come() -> None:
        rivals.append(run(memory, key="b", lock="schema", lock_timeout=0))

    path = "/jobs" if verb == "list" else "/jobs/"
    memory.add_rival(lambda: memory.add_rival(come, verb=verb, path=path), verb="create", path="/jobs", when="after")
    result = run(memory, key="a", lock="schema", timeout=3.0)
    assert result.failed, "it runs until its time is up"
    assert rivals[0].failed
    assert "it waits for its turn, before this one" in rivals[0].msg
    assert (controller.started, controller.running) == ([result["job"]], [1])


@pytest.mark.parametrize("patches", [0, 1])
def test_a_run_cut_off_before_the_start_is_gone_on_with(memory: MemoryServer, patches: int) -> None:
    """By the next run with the same key; it keeps its number."""
    controller = JobController(memory)
    left = leave_unstarted(memory, patches=patches)
    assert read_claim(left)["number"] == (1 if patches else None)
    predicted = run(memory, check=True, lock="schema")
    again = run(memory, lock="schema")
    assert not again.failed, again.msg
    assert (again.changed, again["plan"], again["diff"]) == (True, predicted["plan"], predicted["diff"])
    assert again["plan"][0]["what"] == "start"
    assert controller.started == [left["metadata"]["name"]]


@pytest.mark.parametrize("patches", [0, 1])
def test_a_job_that_nobody_comes_back_for_is_removed(memory: MemoryServer, patches: int) -> None:
    """Only after its time, and only because it never ran; until then it is named."""
    controller = JobController(memory)
    left = leave_unstarted(memory, patches=patches)
    refused = run(memory, key="b", lock="schema", lock_timeout=0)
    assert f"Job n/{left['metadata']['name']} (it waits for its turn, before this one" in refused.msg
    assert "of run run-k" in refused.msg
    abandon(memory, left)
    result = run(memory, key="b", lock="schema", lock_timeout=0)
    assert not result.failed, result.msg
    removed = {entry["object"]: entry["what"] for entry in result["plan"]}
    assert removed[f"Job n/{left['metadata']['name']}"] == "delete"
    assert controller.started == [result["job"]]


@pytest.mark.parametrize("ahead", [-3600.0, 3600.0])
@pytest.mark.parametrize("left_seconds", [-600.0, 600.0])
def test_whose_time_is_over_is_judged_by_the_clock_of_the_server(
    memory: MemoryServer, ahead: float, left_seconds: float
) -> None:
    """Two controllers may have different clocks: a Job of a run that still waits would be deleted, or never removed."""
    memory.clock_ahead = ahead
    JobController(memory)
    left = leave_unstarted(memory, patches=1)
    noted = as_time(read_claim(left)["until"])
    server = as_time(format_now(ahead))
    assert noted is not None
    assert server is not None
    assert 0 < noted - server < 600, "what a run notes is the server's time too"
    at = as_time(json.loads(left["metadata"]["annotations"]["lowtide.ops/job"])["at"])
    assert at is not None
    assert abs(at - server) < 60
    abandon(memory, left, format_now(ahead + left_seconds))
    result = run(memory, key="b", lock="schema", lock_timeout=0)
    assert result.failed == (left_seconds > 0), result.msg
    names = [job["metadata"]["name"] for job in list_jobs(memory)]
    assert (left["metadata"]["name"] in names) == (left_seconds > 0)


def test_a_run_that_comes_back_in_time_is_not_removed(memory: MemoryServer) -> None:
    """It comes back between looking and deleting: the deletion is of what was looked at."""
    JobController(memory)
    left = leave_unstarted(memory, patches=1)
    abandon(memory, left)
    memory.add_rival(lambda: run(memory, lock="schema", run_id="back"), verb="delete", path="/jobs/")
    result = run(memory, key="b", lock="schema")
    assert not result.failed, result.msg
    names = {job["metadata"]["name"]: job["status"]["succeeded"] for job in list_jobs(memory)}
    assert names == {left["metadata"]["name"]: 1, result["job"]: 1}


def test_one_that_cannot_be_removed_is_waited_for_without_haste(memory: MemoryServer) -> None:
    """Its time is over, but it has a pod: somebody has started it without saying so."""
    JobController(memory, holds=True)
    left = leave_unstarted(memory)
    abandon(memory, left)
    memory.change("Job", "n", left["metadata"]["name"], lambda job: job.update(status={"active": 1}))
    refused = run(memory, key="b", lock="schema", lock_timeout=1.0)
    assert "the lock schema is held after 1 s" in refused.msg
    assert refused["requests"] < 40


def test_another_run_with_the_same_key_that_waits_longer_keeps_the_job(memory: MemoryServer) -> None:
    """The first one gives up, and does not take the Job away from it."""
    controller = JobController(memory, holds=True)
    holder = run(memory, key="a", lock="schema", timeout=0.5)["job"]
    with ThreadPoolExecutor(1) as pool:
        patient = pool.submit(run, memory, key="b", lock="schema", timeout=60.0)
        while not any(job["spec"]["suspend"] and read_claim(job)["number"] for job in list_jobs(memory)):
            threading.Event().wait(0.01)
        hasty = run(memory, key="b", lock="schema", lock_timeout=0)
        assert "another run with the same key goes on with it" in hasty.msg
        controller.holds = False
        controller.end(holder)
        done = patient.result()
    assert not done.failed, done.msg


def test_a_job_that_was_suspended_in_the_middle_keeps_the_lock(memory: MemoryServer) -> None:
    """Its work is half done, whatever time has passed."""
    JobController(memory, holds=True)
    holder = run(memory, key="a", lock="schema", timeout=0.5)["job"]
    memory.remove("Pod", "n", f"{holder}-x")

    def suspend(job: Json) -> None:
        job["spec"]["suspend"] = True
        job["status"] = {}

    abandon(memory, memory.change("Job", "n", holder, suspend, manager="kubectl"))
    refused = run(memory, key="b", lock="schema", lock_timeout=0)
    assert "it was started, and somebody has suspended it since" in refused.msg
    late = run(memory, key="a", lock="schema", timeout=0.5)
    assert f"Job n/{holder}: after 0.5 s: suspended by kubectl, 0 of 1 succeeded" in late.msg
    assert "Find out why kubectl suspended it" in late.msg


def test_pods_that_are_left_of_a_deleted_job_hold_the_lock(memory: MemoryServer) -> None:
    """They may still write, though nothing says any more that they should."""
    controller = JobController(memory, holds=True)
    holder = run(memory, key="a", lock="schema", timeout=0.5)["job"]
    pod = memory.read("Pod", "n", f"{holder}-x")
    memory.remove("Job", "n", holder)
    pod["metadata"].pop("ownerReferences")
    memory.put(pod)
    refused = run(memory, key="b", lock="schema", lock_timeout=0)
    assert f"Pod n/{holder}-x (it still runs, though its Job has ended" in refused.msg
    memory.remove("Pod", "n", f"{holder}-x")
    controller.holds = False
    assert not run(memory, key="b", lock="schema", lock_timeout=0).failed


@pytest.mark.parametrize("verb", ["watch", "patch"])
def test_a_waiting_job_that_somebody_deletes_is_named(memory: MemoryServer, verb: str) -> None:
    """While it waits for its turn, and before it is given its number."""
    controller = JobController(memory, holds=True)
    holder = run(memory, key="a", lock="schema", timeout=0.5)["job"]

    def delete() -> None:
        for job in list_jobs(memory):
            if job["metadata"]["name"] != holder:
                memory.remove("Job", "n", job["metadata"]["name"])

    memory.add_rival(delete, verb=verb, path="/jobs")
    result = run(memory, key="b", lock="schema", timeout=5.0)
    assert result.failed
    assert "it was deleted" in result.msg
    assert controller.started == [holder]


def describe_cron_job(policy: str) -> Json:
    """Return a CronJob that allows its runs to be beside each other, or not."""
    spec = {"concurrencyPolicy": policy, "jobTemplate": {"spec": describe_template()}}
    return {"kind": "CronJob", "metadata": {"name": "purge", "namespace": "n", "uid": "u"}, "spec": spec}


@pytest.mark.parametrize(("policy", "is_refused"), [("Forbid", True), ("Allow", False)])
def test_the_cron_job_s_own_job_is_waited_for_where_it_forbids_others(
    memory: MemoryServer, policy: str, is_refused: bool
) -> None:
    """It has no label of ours; its owner tells."""
    controller = JobController(memory)
    memory.put(describe_cron_job(policy))
    owner = {"apiVersion": "batch/v1", "kind": "CronJob", "name": "purge", "uid": "u", "controller": True}
    metadata = {"name": "purge-29000000", "namespace": "n", "ownerReferences": [owner]}
    memory.put({"kind": "Job", "metadata": metadata, "spec": describe_template(), "status": {"startTime": "x"}})
    result = run(memory, from_cronjob="purge", lock_timeout=0)
    assert result.failed == is_refused
    if is_refused:
        assert "the lock cronjob.purge is held" in result.msg
        assert "Job n/purge-29000000 (it runs, started by its CronJob" in result.msg
    else:
        assert controller.started == [result["job"]]


@pytest.mark.parametrize("denied", [("patch", "jobs"), ("delete", "jobs")])
def test_the_rights_that_a_lock_needs_are_asked_for(memory: MemoryServer, denied: tuple[str, str]) -> None:
    """Without a lock nothing is deleted; what is seen of the work is noted on any Job."""
    JobController(memory)
    memory.deny(*denied)
    refused = run(memory, lock="schema")
    assert f"it may not {' '.join(denied)}" in refused.msg
    assert run(memory).failed == (denied[0] == "patch")
