# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""k8s_job against the API server in memory: once for a key, waited for, its log, what is refused."""

from __future__ import annotations

import base64
import json
import stat
import threading
from pathlib import Path
from typing import Any

import pytest

from support.memory_jobs import JobController
from support.memory_kubernetes import MemoryServer
from support.operation_runs import is_write

from .job_steps import describe_template, list_jobs, run

Json = dict[str, Any]

CRON_JOB: Json = {
    "kind": "CronJob",
    "metadata": {"name": "purge", "namespace": "n", "uid": "cron-uid"},
    "spec": {
        "suspend": True,
        "jobTemplate": {
            "metadata": {"labels": {"team": "a"}, "annotations": {"note": "b"}},
            "spec": describe_template(backoffLimit=2, activeDeadlineSeconds=90),
        },
    },
}


def test_a_job_is_run_once_for_its_key(memory: MemoryServer) -> None:
    """It is created, waited for, and its log is the evidence; again, nothing changes and the log is there."""
    JobController(memory, lines=["migrating", "done in 3 s"])
    predicted = run(memory, check=True)
    assert (predicted.changed, [r.verb for r in memory.log if is_write(r)]) == (True, [])
    first = run(memory)
    assert not first.failed, first.msg
    assert (first.changed, first["plan"], first["diff"]) == (True, predicted["plan"], predicted["diff"])
    (job,) = list_jobs(memory)
    name = job["metadata"]["name"]
    assert name.startswith("job-")
    assert (first["job"], first["succeeded"], first["failed_pods"], first["exit_code"]) == (name, 1, 0, 0)
    assert first["log"] == "migrating\ndone in 3 s"
    assert first["summary"] == f"Job n/{name} is complete after 0 s"
    assert f"log of container main of Pod n/{name}-x: done in 3 s" in first["evidence"]
    for check in (True, False):
        again = run(memory, check=check)
        assert (again.changed, again.failed, again["plan"], again["log"]) == (False, False, [], first["log"])
        assert again["summary"] == f"Job n/{name} was complete already (key k), it took 0 s"
    assert len(list_jobs(memory)) == 1


def test_the_job_ends_by_itself_and_is_removed_by_the_cluster(memory: MemoryServer) -> None:
    """Deadline and time to live are set, its pods are kept on a failure, and it says who made it for what."""
    JobController(memory)
    run(memory, labels={"team": "a"}, ttl_seconds=60)
    (job,) = list_jobs(memory)
    spec = job["spec"]
    assert (spec["activeDeadlineSeconds"], spec["ttlSecondsAfterFinished"]) == (3600, 60)
    assert spec["template"]["spec"]["restartPolicy"] == "Never"
    assert "suspend" not in spec
    assert job["metadata"]["labels"]["team"] == "a"
    note = json.loads(job["metadata"]["annotations"]["lowtide.ops/job"])
    assert (note["key"], note["run"], note["attempt"]) == ("k", "r", 1)
    (created,) = [request for request in memory.log if request.verb == "create" and request.path.endswith("/jobs")]
    assert created.query["fieldValidation"] == "Strict"


def test_a_cron_job_is_run_now(memory: MemoryServer) -> None:
    """With its labels and annotations, owned by it, also while it is suspended; its own deadline counts."""
    JobController(memory)
    memory.put(CRON_JOB)
    result = run(memory, from_cronjob="purge", name_prefix=None)
    assert not result.failed, result.msg
    (job,) = list_jobs(memory)
    metadata = job["metadata"]
    assert metadata["name"].startswith("purge-")
    assert metadata["labels"]["team"] == "a"
    assert metadata["annotations"]["note"] == "b"
    assert metadata["annotations"]["cronjob.kubernetes.io/instantiate"] == "manual"
    owner = {"apiVersion": "batch/v1", "kind": "CronJob", "name": "purge", "uid": "cron-uid"}
    assert metadata["ownerReferences"] == [owner]
    assert (job["spec"]["activeDeadlineSeconds"], job["spec"]["backoffLimit"]) == (90, 2)
    assert result["plan"][0]["what"] == "create from CronJob n/purge and run"


def test_a_command_is_run_like_a_workload_s_container(memory: MemoryServer) -> None:
    """The plan says like which; without a command the workload itself would run."""
    JobController(memory)
    pod = {"serviceAccountName": "builder", "containers": [{"name": "main", "image": "i", "command": ["serve"]}]}
    template = {"metadata": {"labels": {"app": "d"}}, "spec": pod}
    memory.put({"kind": "Deployment", "metadata": {"name": "d", "namespace": "n"}, "spec": {"template": template}})
    like = {"kind": "Deployment", "name": "d", "container": None, "image": None, "command": ["probe"], "args": None}
    result = run(memory, from_workload=like)
    assert not result.failed, result.msg
    assert result["plan"][0]["what"] == "create like a pod of Deployment n/d and run"
    made = list_jobs(memory)[0]["spec"]["template"]
    assert "metadata" not in made
    assert (made["spec"]["serviceAccountName"], made["spec"]["containers"][0]["command"]) == ("builder", ["probe"])
    assert "option from_workload.command: it is empty" in run(memory, from_workload={**like, "command": []}).msg


def test_a_failed_job_names_its_exit_and_its_last_line(memory: MemoryServer) -> None:
    """The same key fails again without a new Job; ``again`` starts another attempt, also from a corrected template."""
    JobController(memory, lines=["connecting", "password=hunter2hunter2", "relation x exists"]).exit_codes = [3]
    failed = run(memory)
    name = failed["job"]
    assert (failed.failed, failed.changed, failed["exit_code"], failed["failed_pods"]) == (True, True, 3, 1)
    assert "it has failed after 1 failed pod: Job has reached the specified backoff limit" in failed.msg
    assert f"container main of Pod n/{name}-x ended with exit code 3; its last line: relation x exists" in failed.msg
    assert failed["log"] == "connecting\npassword=[redacted]\nrelation x exists"
    assert "hunter2" not in json.dumps(failed.result)
    assert failed["error"]["refused"] is False
    for check in (True, False):
        again = run(memory, check=check)
        assert (again.failed, again.changed, again["log"]) == (True, False, failed["log"])
        assert "it has failed before, with the same key k" in again.msg
        assert "on_failed=again" in again.msg
        assert again["error"]["refused"] is True
    mended = run(memory, on_failed="again", template=describe_template("j"))
    assert (mended.failed, mended.changed) == (False, True)
    assert mended["job"] != name
    assert f"attempt 1 with key k, Job n/{name}, has failed" in mended["plan"][0]["why"]
    assert run(memory, template=describe_template("j")).changed is False
    assert len(list_jobs(memory)) == 2


def test_another_template_with_the_same_key_is_refused(memory: MemoryServer) -> None:
    """Otherwise what is asked for would be reported as done without having run."""
    JobController(memory)
    run(memory)
    for check in (True, False):
        refused = run(memory, check=check, template=describe_template("j"))
        assert (refused.failed, refused["error"]["refused"]) == (True, True)
        assert "is complete, but was made from another template" in refused.msg
    assert run(memory, ttl_seconds=5).changed is False, "how long it is kept makes no other Job of it"
    assert run(memory, deadline=9).changed is False, "nor how long it may run"
    assert run(memory, template=describe_template("j"), key="l").changed is True


def test_without_a_key_each_run_starts_a_job(memory: MemoryServer) -> None:
    """The run's name is the key where there is one."""
    JobController(memory)
    jobs = [run(memory, key=None, run_id=None)["job"] for _number in range(2)]
    assert len(set(jobs)) == 2
    jobs = [run(memory, key=None, run_id="night@1")["job"] for _number in range(2)]
    assert len(set(jobs)) == 1


def test_a_running_job_is_gone_on_with(memory: MemoryServer) -> None:
    """A run that was cut off has left it; a timeout leaves it too, and says that running again goes on."""
    controller = JobController(memory, holds=True)
    late = run(memory, timeout=0.5)
    assert (late.failed, late.changed, late["error"]["refused"]) == (True, True, False)
    assert "0 of 1 succeeded, 1 active" in late.msg
    assert "running again goes on waiting" in late.msg
    assert late["summary"].endswith("has not completed")
    memory.add_rival(lambda: controller.end(late["job"]), verb="watch", path="/jobs")
    again = run(memory)
    assert (again.failed, again.changed, again["job"], again["plan"]) == (False, False, late["job"], [])
    assert again["summary"] == f"Job n/{late['job']}, which an earlier run began, is complete after 0 s"


def test_a_job_without_a_key_can_be_gone_on_with_by_the_key_that_was_made_up(memory: MemoryServer) -> None:
    """Running again without it would start another one, and the message says so."""
    controller = JobController(memory, holds=True)
    late = run(memory, key=None, run_id=None, timeout=0.5)
    assert f"Run again with key={late['key']} and a longer timeout" in late.msg
    assert "running again goes on" not in late.msg
    controller.end(late["job"])
    again = run(memory, key=late["key"], run_id=None)
    assert (again.failed, again["job"]) == (False, late["job"])


def test_labels_are_texts(memory: MemoryServer) -> None:
    """Whatever YAML makes of them."""
    JobController(memory)
    run(memory, labels={"release": 42}, annotations={"urgent": True})
    metadata = list_jobs(memory)[0]["metadata"]
    assert (metadata["labels"]["release"], metadata["annotations"]["urgent"]) == ("42", "true")


def test_a_write_without_an_answer_starts_no_second_job(memory: MemoryServer) -> None:
    """The name was chosen before, so that it is looked for."""
    JobController(memory)
    memory.lose_next("after", verb="create", path="/jobs")
    result = run(memory, key=None, run_id=None)
    assert (result.failed, result.changed, len(list_jobs(memory))) == (False, True, 1)
    memory.lose_next("before", verb="create", path="/jobs")
    result = run(memory, key=None, run_id=None)
    assert (result.failed, result.changed, len(list_jobs(memory))) == (False, True, 2)


def test_two_runs_with_the_same_key_have_one_job(memory: MemoryServer) -> None:
    """The other one creates it between looking and creating."""
    JobController(memory)
    memory.add_rival(lambda: run(memory, run_id="rival"), verb="create", path="/jobs")
    result = run(memory)
    assert (result.failed, len(list_jobs(memory))) == (False, 1)
    assert json.loads(list_jobs(memory)[0]["metadata"]["annotations"]["lowtide.ops/job"])["run"] == "rival"


def test_a_job_that_somebody_deletes_is_named(memory: MemoryServer) -> None:
    """How it ended is not known, and what it did neither."""
    JobController(memory, holds=True)

    def delete() -> None:
        memory.remove("Job", "n", list_jobs(memory)[0]["metadata"]["name"])

    memory.add_rival(delete, verb="watch", path="/jobs")
    result = run(memory)
    assert result.failed
    assert "it does not exist any more, so it is not known how it ended" in result.msg


def test_a_foreign_job_of_the_name_is_not_touched(memory: MemoryServer) -> None:
    """Its name is taken, whatever it is."""
    controller = JobController(memory)
    name = run(memory)["job"]
    memory.remove("Job", "n", name)
    memory.put({"kind": "Job", "metadata": {"name": name, "namespace": "n"}, "spec": describe_template(suspend=True)})
    controller.act()
    refused = run(memory)
    assert refused.failed
    assert f"Job n/{name}: a Job of this name exists, and was not made by this module" in refused.msg


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"template": {"kind": "Job", "spec": {}}}, "option template: it is a whole object"),
        ({"template": {"backoffLimit": 1}}, "option template: it has no key template, but backoffLimit"),
        ({"template": describe_template(suspend=True)}, "option template: it sets suspend"),
        ({"name_prefix": None}, "option name_prefix: it is not set"),
        ({"name_prefix": "Big"}, "name_prefix 'Big': this is not a Kubernetes name"),
        ({"name_prefix": "a" * 53}, "it has 53 characters, and the name of a Job's pods has room for 52"),
        ({"lock": "a b"}, "lock 'a b': this is not a Kubernetes name"),
        ({"lock": "a" * 64}, "it has 64 characters, and a label has at most 63"),
        ({"lock": "l", "template": describe_template(parallelism=2)}, "option lock 'l': the Job's parallelism is 2"),
        ({"ttl_seconds": 59}, "option ttl_seconds: it is 59, and the least is 60"),
        ({"deadline": 0}, "option deadline: it is 0, and the least is 1"),
        ({"lock_timeout": -1.0}, "option lock_timeout: it is -1, and the least is 0"),
        ({"log_file": "/nowhere/at/all"}, "option log_file /nowhere/at/all: its folder does not exist"),
        ({"from_cronjob": "none"}, "it does not exist in cluster"),
    ],
)
@pytest.mark.parametrize("check", [True, False])
def test_what_cannot_be_meant_is_refused(memory: MemoryServer, params: Json, words: str, check: bool) -> None:
    """Before anything is created."""
    refused = run(memory, check=check, **params)
    assert (refused.failed, refused["error"]["refused"]) == (True, True)
    assert words in refused.msg
    assert list_jobs(memory) == []


@pytest.mark.parametrize("is_allowed", [True, False])
def test_values_of_the_pods_secrets_are_redacted(memory: MemoryServer, is_allowed: bool) -> None:
    """However the program prints them; where they may not be read, what looks like a secret is."""
    JobController(memory, lines=["connecting with kangaroo77", "password=kangaroo77"])
    data = {"pw": base64.b64encode(b"kangaroo77").decode()}
    memory.put({"kind": "Secret", "metadata": {"name": "database", "namespace": "n"}, "data": data})
    template = describe_template()
    container = template["template"]["spec"]["containers"][0]
    container["env"] = [{"name": "PGPASSWORD", "valueFrom": {"secretKeyRef": {"name": "database", "key": "pw"}}}]
    if not is_allowed:
        memory.deny("get", "secrets")
    log = run(memory, template=template)["log"]
    assert log == f"connecting with {'[redacted]' if is_allowed else 'kangaroo77'}\npassword=[redacted]"


@pytest.mark.parametrize("check", [True, False])
@pytest.mark.parametrize("denied", [("create", "jobs"), ("list", "pods"), ("get", "pods/log")])
def test_a_lacking_right_is_found_before_the_job_is_created(
    memory: MemoryServer, denied: tuple[str, str], check: bool
) -> None:
    """The log is evidence that is needed: it is not found out at the end that it may not be read."""
    memory.deny(*denied)
    refused = run(memory, check=check)
    assert (refused.failed, refused["error"]["refused"]) == (True, True)
    assert f"it may not {' '.join(denied)}" in refused.msg
    assert list_jobs(memory) == []


def test_the_log_is_kept_in_a_private_file(memory: MemoryServer, tmp_path: Path) -> None:
    """Also of a Job that has failed; what was there before is replaced."""
    JobController(memory, lines=["a", "b"]).exit_codes = [1]
    path = tmp_path / "job.log"
    path.write_text("old")
    path.chmod(0o644)
    result = run(memory, log_file=str(path), log_lines=1)
    assert result.failed
    assert path.read_text() == f"==> log of container main of Pod n/{result['job']}-x (its end) <==\nb\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_a_log_that_was_kept_is_not_replaced_by_less(memory: MemoryServer, tmp_path: Path) -> None:
    """The pod may be gone, or its log shorter, when the Job is asked for again; the log of another Job is replaced."""
    JobController(memory, lines=["a", "b"])
    path = tmp_path / "job.log"
    name = run(memory, log_file=str(path))["job"]
    kept = path.read_text()
    assert kept.endswith("a\nb\n")
    memory.log_lines["n", f"{name}-x"] = ["b"]
    again = run(memory, log_file=str(path))
    assert (again.changed, path.read_text()) == (False, kept)
    memory.remove("Pod", "n", f"{name}-x")
    again = run(memory, log_file=str(path))
    assert (again.failed, again.changed, path.read_text()) == (False, False, kept)
    (warning,) = again["warnings"]
    assert warning == (
        f"file {path}: it is left as it was, since it has more than could be read of Job n/{name} now: no pod with a log"
        " was left"
    )
    other = run(memory, log_file=str(path), key="l")
    assert path.read_text() == kept.replace(name, other["job"])


def test_a_job_that_runs_keeps_its_deadline(memory: MemoryServer) -> None:
    """Another one is given in a later run, which waits for the same Job and says so."""
    controller = JobController(memory, holds=True)
    assert run(memory, deadline=50, timeout=0.5).failed
    assert len(controller.started) == 1
    again = run(memory, deadline=60, timeout=0.5)
    assert "another template" not in again.msg
    assert any("it was made with a deadline of 50 s" in warning for warning in again["warnings"])


def test_the_log_of_a_pod_that_is_about_to_be_deleted_is_kept(memory: MemoryServer) -> None:
    """A Job says that it is about to fail before Kubernetes deletes its pods, as at the deadline."""
    controller = JobController(memory, holds=True, lines=["row 17"])
    controller.exit_codes = [1]

    def announce() -> None:
        conditions = [{"type": "FailureTarget", "status": "True", "reason": "DeadlineExceeded"}]
        memory.change("Job", "n", controller.started[0], lambda job: job["status"].update(conditions=conditions))

    def end() -> None:
        controller.end(controller.started[0])
        memory.remove("Pod", "n", f"{controller.started[0]}-x")

    memory.add_rival(announce, verb="watch", path="/jobs")
    threading.Timer(2.0, end).start()
    failed = run(memory)
    assert failed.failed
    assert "its last line: row 17" in failed.msg
    assert (failed["log"], memory.read_all("Pod")) == ("row 17", [])


def test_what_never_mends_ends_the_wait_early(memory: MemoryServer) -> None:
    """An image name that is wrong; a pod that crashes is the Job's own business."""
    controller = JobController(memory, holds=True)

    def stick(pod: Json, reason: str, restarts: int) -> None:
        container = {"name": "main", "restartCount": restarts, "state": {"waiting": {"reason": reason, "message": "m"}}}
        pod["status"] = {"phase": "Pending", "containerStatuses": [container]}

    def stick_pods(reason: str, restarts: int = 0) -> None:
        for pod in memory.read_all("Pod"):
            memory.change("Pod", "n", pod["metadata"]["name"], lambda obj: stick(obj, reason, restarts))

    memory.add_rival(lambda: stick_pods("InvalidImageName"), verb="watch", path="/jobs")
    result = run(memory, failure_grace_factor=0.01, timeout=20.0)
    assert result.failed
    assert result["waited"] < 10
    assert "InvalidImageName" in result.msg
    assert result["logs"] == []
    assert result["blockers"][0]["object"] == f"Pod n/{result['job']}-x"
    memory.add_rival(lambda: stick_pods("CrashLoopBackOff", 9), verb="watch", path="/pods")
    memory.add_rival(lambda: controller.end(controller.started[-1]), verb="watch", path="/events")
    assert not run(memory, key="l", failure_grace_factor=0.01, timeout=10.0).failed


def test_a_done_job_whose_pod_is_kept_ends_the_wait_early(memory: MemoryServer) -> None:
    """A proxy that was injected never ends: what is told is that the work is done, not how the proxy is killed later."""
    JobController(memory, holds=True)

    def finish(pod: Json) -> None:
        main = {"name": "main", "state": {"terminated": {"exitCode": 0, "reason": "Completed"}}}
        proxy = {"name": "istio-proxy", "state": {"running": {}}}
        pod["status"] = {"phase": "Running", "containerStatuses": [main, proxy]}

    def finish_pods() -> None:
        for pod in memory.read_all("Pod"):
            memory.change("Pod", "n", pod["metadata"]["name"], finish)

    memory.add_rival(finish_pods, verb="watch", path="/jobs")
    result = run(memory, failure_grace_factor=0.01, timeout=20.0)
    assert result.failed
    assert "main ended with 0; istio-proxy keeps the pod" in result.msg
    assert "must not be repeated" in result.msg
    assert (result["exit_code"], result["waited"] < 10) == (0, True)
