# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What k8s_rollout does when a rollout fails on a real cluster: the cause by name, in time, and the way back."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from support.held_pods import HeldPods
from support.kubernetes_account import AuditLog, expand, name_user, request_token
from support.kubernetes_server import ApiServer, build_path
from support.modules import finish_module, start_module
from support.rival_proxy import Rival, RivalProxy

from .conftest import Namespace
from .rollout_steps import (
    BAD_IMAGE,
    KINDS,
    NOTE,
    QUICK,
    ROLLOUT,
    RULES,
    SOUND,
    Onlooker,
    change_template,
    check_done,
    describe,
    list_running_images,
    put,
    read_image,
    read_note,
    roll_out,
    serves,
)
from .steps import apply_ready, read_annotations

pytestmark = pytest.mark.lab("kubernetes")
Json = dict[str, Any]

REVISION = "deployment.kubernetes.io/revision"
EITHER_KIND = ("Deployment", pytest.param("Parallel", marks=pytest.mark.sweep), "OrderedReady")
TIME_TO_NAME = 100.0
"""Seconds from when the API shows a failure until it is known by name, which is when the undo is written: not the timeout."""
QUOTA: Json = {
    "apiVersion": "v1",
    "kind": "ResourceQuota",
    "metadata": {"name": "q"},
    "spec": {"hard": {"requests.memory": "40Mi"}},
}


def main(**values: Any) -> Json:
    """The option for the only container."""
    return {"containers": [{"name": "main", **values}]}


def pod_waits(*reasons: str) -> Callable[[list[Json], Json], bool]:
    """Return whether a container waits for one of these reasons."""

    def look(pods: list[Json], _workload: Json) -> bool:
        states = [state for pod in pods for state in pod.get("status", {}).get("containerStatuses") or []]
        return any(state["state"].get("waiting", {}).get("reason") in reasons for state in states)

    return look


def pod_is_unschedulable(pods: list[Json], _workload: Json) -> bool:
    """Return whether the scheduler finds no node."""
    conditions = [entry for pod in pods for entry in pod.get("status", {}).get("conditions") or []]
    return any(entry.get("reason") == "Unschedulable" for entry in conditions)


def is_short_of_pods(pods: list[Json], workload: Json) -> bool:
    """Return whether a quota keeps pods away: by the Deployment's condition, or a StatefulSet without a pod."""
    conditions = workload.get("status", {}).get("conditions") or []
    return any(entry["type"] == "ReplicaFailure" for entry in conditions) or len(pods) < 2


FAILURES: dict[str, tuple[Json, str, str, Callable[[list[Json], Json], bool]]] = {
    "image": (main(image=BAD_IMAGE), "ImagePullBackOff", BAD_IMAGE, pod_waits("ErrImagePull", "ImagePullBackOff")),
    "crash": (main(env={"CRASH": "1"}), "CrashLoopBackOff", "exit code 3", pod_waits("CrashLoopBackOff")),
    "request": (main(resources={"requests": {"cpu": "1000"}}), "Unschedulable", "nodes are", pod_is_unschedulable),
    "quota": (main(resources={"requests": {"memory": "32Mi"}}), "QuotaExceeded", "exceeded quota: q", is_short_of_pods),
}
SAMPLE = {
    ("Deployment", "image"),
    ("Deployment", "quota"),
    ("Parallel", "crash"),
    ("OrderedReady", "request"),
    ("OrderedReady", "crash"),
}
"""Each failure, each kind, and a set that is stuck on a pod that fails."""


def list_failures() -> list[Any]:
    """Each kind with each failure; what is not in the sample is for the sweep."""
    pairs = [(kind, failure) for kind in KINDS for failure in FAILURES]
    return [pytest.param(*pair, marks=[] if pair in SAMPLE else pytest.mark.sweep) for pair in pairs]


@pytest.mark.procedure("A20", "B19", "C17")
@pytest.mark.parametrize(("kind", "failure"), list_failures())
def test_a_failure_is_named_in_time_and_undone(
    namespace: Namespace, connect: Callable[..., Json], kind: str, failure: str
) -> None:
    """F10: by an account with the documented rights; the recorded revision serves again, and the module fails."""
    change, reason, said, question = FAILURES[failure]
    account = connect(RULES)
    if failure == "quota":
        namespace.apply(QUOTA)
    kind = put(namespace, kind, **(SOUND if failure == "crash" else {}))
    template = namespace.get(kind, "w")["spec"]["template"]

    def ask(server: ApiServer) -> Json:
        return server.request("GET", build_path(kind, namespace.name, "w"))

    def is_visible(server: ApiServer) -> bool:
        return question(server.list("Pod", namespace.name), ask(server))

    def is_undoing(server: ApiServer) -> bool:
        note = ask(server)["metadata"].get("annotations", {}).get(NOTE, "")
        return '"undoing"' in note or '"done"' in note  # it may have been done between two looks

    with Onlooker(namespace.facts, visible=is_visible, undoing=is_undoing) as onlooker:
        run = roll_out(namespace, kind, **change, **QUICK, **account, guards=["gitops"])
    assert run.failed
    assert (run["rolled_back"], run["cause"]["reason"]) == (True, reason), run.msg
    assert said in run["cause"]["message"]
    undoing = onlooker.moments["undoing"]
    assert undoing - onlooker.moments.get("visible", undoing) < TIME_TO_NAME  # it may be over between two looks
    assert namespace.get(kind, "w")["spec"]["template"] == template
    pods = [pod for pod in namespace.list("Pod") if "deletionTimestamp" not in pod["metadata"]]
    assert [pod["status"]["containerStatuses"][0]["ready"] for pod in pods] == [True, True]
    if failure == "crash":
        assert run["cause"]["log"][-1] == "cannot go on"
    again = check_done(roll_out(namespace, kind, **main(image=read_image(namespace, kind)), **account))
    assert again.changed is False


@pytest.mark.procedure("B6")
def test_one_that_takes_more_memory_than_its_limit_is_called_so(namespace: Namespace) -> None:
    """By the container's last state, with its limit."""
    kind = put(namespace, "Deployment", 1, resources={"limits": {"memory": "32Mi"}}, **SOUND)
    run = roll_out(namespace, kind, **main(env={"EAT": "1"}), **QUICK)
    assert (run["rolled_back"], run["cause"]["reason"]) == (True, "OOMKilled"), run.msg
    assert "container main took more memory than its limit (32Mi)" in run["cause"]["message"]


def test_a_probe_that_fails_is_named_and_not_the_deadline(namespace: Namespace) -> None:
    """The cause before the symptom: the progress deadline passes because of it."""
    probe = {"exec": {"command": ["sh", "-c", '[ -z "$SETTING" ] || { echo "no answer"; false; }']}, "periodSeconds": 1}
    workload = describe(namespace, "Deployment", 1, readinessProbe=probe)
    workload["spec"]["progressDeadlineSeconds"] = 8
    apply_ready(namespace, workload)
    run = roll_out(namespace, "Deployment", **main(env={"SETTING": "1"}), timeout=300)
    assert (run["rolled_back"], run["cause"]["reason"]) == (True, "ContainersNotReady"), run.msg
    assert "Readiness probe failed: no answer" in run["cause"]["message"]
    assert run["waited"] < 150


# --- the undo fails as well, is not wanted, or is another's business ---------------------------------------------------


def test_an_undo_that_fails_as_well_stops_with_the_step_for_a_person(namespace: Namespace) -> None:
    """F11: what the old pods need is gone too. Nothing further is changed, the note stays, and the next run says so again."""
    namespace.apply({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "stringData": {"K": "v"}})
    kind = put(namespace, "OrderedReady", envFrom=[{"secretRef": {"name": "s"}}])
    namespace.delete("Secret", "s")  # those that run go on
    run = roll_out(namespace, kind, **main(image=BAD_IMAGE), **QUICK)
    assert (run.failed, run["rolled_back"]) == (True, False)
    assert "and the undo to revision 1 failed as well" in run.msg
    assert "CreateContainerConfigError" in run.msg
    assert f"kubectl describe pods --namespace {namespace.name} --selector 'app=w'" in run.msg
    assert read_note(namespace, kind)["phase"] == "undoing"
    generation = namespace.get(kind, "w")["metadata"]["generation"]
    again = roll_out(namespace, kind, **main(image=BAD_IMAGE), **QUICK)
    assert again.failed
    assert namespace.get(kind, "w")["metadata"]["generation"] == generation
    namespace.apply({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "stringData": {"K": "v"}})
    finished = roll_out(namespace, kind, **main(image=BAD_IMAGE), failure_grace_factor=4)
    assert (finished.failed, finished["rolled_back"]) == (True, True), finished.msg
    assert finished["cause"]["reason"] == "ImagePullBackOff"


def test_a_release_that_turns_unready_after_it_was_complete_is_taken_back(namespace: Namespace) -> None:
    """A gate is breached. OrderedReady waits for those pods; where the old ones do not start, it is said what to do."""
    facts = namespace.facts
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "stringData": {"K": "v"}}
    namespace.apply(secret)
    probe = '[ -z "$SETTING" ] || [ ! -e /tmp/broken ]'
    kind = put(
        namespace,
        "OrderedReady",
        command=["sleep", "100000"],
        readinessProbe={"exec": {"command": ["sh", "-c", probe]}, "periodSeconds": 1},
        envFrom=[{"secretRef": {"name": "s"}}],
    )
    check_done(roll_out(namespace, kind, **main(env={"SETTING": "1"}), run_id="release"))
    for pod in ("w-0", "w-1"):
        command = [facts["kubectl"], "--kubeconfig", facts["kubeconfig"], "-n", namespace.name, "exec", pod]
        subprocess.run([*command, "--", "touch", "/tmp/broken"], check=True, timeout=300)
    namespace.wait("all are unready", lambda: not namespace.get(kind, "w")["status"].get("readyReplicas"))
    namespace.delete("Secret", "s")
    failed = roll_out(namespace, kind, state="undone", run_id="release", **QUICK)
    assert failed.failed
    assert "what run release has rolled out is taken back; and the undo to revision 3 failed as well" in failed.msg
    assert f"kubectl describe pods --namespace {namespace.name} --selector 'app=w'" in failed.msg
    assert "rollout undo" not in failed.msg
    namespace.apply(secret)
    done = check_done(roll_out(namespace, kind, state="undone", run_id="release", failure_grace_factor=4))
    assert (done["revision"]["after"], serves(namespace, kind, 2)) == (3, True)
    assert read_note(namespace, kind)["completed"] is True


@pytest.mark.procedure("C17")
def test_a_set_that_is_stuck_on_a_failed_revision_takes_the_next_one(namespace: Namespace) -> None:
    """kubernetes#67250: its controller would wait for the failed pod for ever."""
    old, new = namespace.facts["images"]
    kind = put(namespace, "OrderedReady")
    stopped = roll_out(namespace, kind, **main(image=BAD_IMAGE), **QUICK, on_failure="stop")
    assert (stopped.failed, stopped["rolled_back"], read_image(namespace, kind)) == (True, False, BAD_IMAGE)
    assert f"kubectl rollout undo statefulset/w --namespace {namespace.name} --to-revision=1" in stopped.msg
    fixed = check_done(roll_out(namespace, kind, **main(image=new)))
    assert list_running_images(namespace) == {new}
    assert any("and not ready" in line for line in fixed["evidence"])
    failed = roll_out(namespace, kind, **main(image=BAD_IMAGE), **QUICK)
    assert (failed["rolled_back"], list_running_images(namespace)) == (True, {new})
    assert old not in failed["images"].values()


def test_a_person_who_changes_the_template_is_not_undone(namespace: Namespace) -> None:
    """The run ends, and names them."""
    kind = put(namespace, "Deployment")
    process = start_module(ROLLOUT, namespace.params(kind=kind, name="w", **main(image=BAD_IMAGE), timeout=300))
    namespace.wait("rolled out", lambda: read_image(namespace, kind) == BAD_IMAGE)
    change_template(namespace, kind, "was here")
    run = finish_module(process)
    assert (run.failed, run["rolled_back"]) == (True, False)
    assert "its pod template was changed by kubectl-edit while it was rolled out" in run.msg
    assert read_image(namespace, kind) == BAD_IMAGE


@pytest.mark.parametrize("kind", EITHER_KIND)
def test_the_rollout_of_another_run_is_not_undone(namespace: Namespace, kind: str) -> None:
    """The run that failed names the other one, whose declaration serves in the end."""
    old = namespace.facts["images"][0]
    kind = put(namespace, kind)
    # Not to be judged early: it is still at work when the other one writes, however long that one takes to begin.
    first = {**main(image=BAD_IMAGE), "timeout": 300, "run_id": "a"}
    process = start_module(ROLLOUT, namespace.params(kind=kind, name="w", **first))
    namespace.wait("rolled out", lambda: read_image(namespace, kind) == BAD_IMAGE)
    check_done(roll_out(namespace, kind, **main(image=old, env={"SETTING": "b"}), run_id="b"))
    run = finish_module(process)
    assert (run.failed, run["rolled_back"]) == (True, False)
    assert "changed by run b while it was rolled out" in run.msg
    assert list_running_images(namespace) == {old}
    variables = namespace.get(kind, "w")["spec"]["template"]["spec"]["containers"][0]["env"]
    assert {"name": "SETTING", "value": "b"} in variables


@pytest.mark.parametrize("kind", EITHER_KIND)
def test_what_a_person_has_broken_is_mended_and_never_gone_back_to(namespace: Namespace, kind: str) -> None:
    """A failure goes back to what served before the person, and the good image gets a set going that is stuck."""
    old = namespace.facts["images"][0]
    kind = put(namespace, kind, **SOUND)
    break_image(namespace, kind)
    failed = roll_out(namespace, kind, **main(env={"CRASH": "1"}), **QUICK)
    assert (failed["rolled_back"], read_image(namespace, kind), list_running_images(namespace)) == (True, old, {old})
    break_image(namespace, kind)
    check_done(roll_out(namespace, kind, **main(image=old), **QUICK))
    assert list_running_images(namespace) == {old}


def break_image(namespace: Namespace, kind: str) -> None:
    """Change the image as ``kubectl set image`` does, and wait until a pod of it has failed."""
    template = {"spec": {"containers": [{"name": "main", "image": BAD_IMAGE}]}}
    patch = {"spec": {"template": template}}
    namespace.request("PATCH", kind, "w", patch, type_="strategic-merge-patch+json", manager="kubectl-set")
    namespace.wait("it fails", lambda: pod_waits("ErrImagePull", "ImagePullBackOff")(namespace.list("Pod"), {}))


def test_what_a_person_goes_back_to_by_kubectl_is_not_undone_by_an_old_note(namespace: Namespace) -> None:
    """``kubectl rollout undo`` gives a Deployment the annotations of the ReplicaSet, with the note of then."""
    kind = put(namespace, "Deployment", 1, **SOUND)
    failing = main(env={"CRASH": "1"})
    assert roll_out(namespace, kind, **failing, **QUICK, run_id="release")["rolled_back"] is True
    sets = {item["metadata"]["annotations"][REVISION]: item for item in namespace.list("ReplicaSet")}
    failed = sets["2"]
    copied = {
        key: value for key, value in failed["metadata"]["annotations"].items() if not key.startswith("deployment.")
    }
    assert '"phase": "rolling"' in copied[NOTE]
    template = failed["spec"]["template"]
    del template["metadata"]["labels"]["pod-template-hash"]
    body = {"metadata": {"annotations": copied}, "spec": {"template": template}}
    namespace.request("PATCH", kind, "w", body, type_="merge-patch+json", manager="kubectl-rollout")
    namespace.wait("it is its revision 4", lambda: read_annotations(namespace, kind, "w")[REVISION] == "4")
    undone = check_done(roll_out(namespace, kind, state="undone", run_id="release"))
    assert (undone.changed, undone["plan"]) == (False, [])
    again = roll_out(namespace, kind, **failing, **QUICK, run_id="release")
    assert (again.failed, again["rolled_back"]) == (True, False)
    assert namespace.get(kind, "w")["spec"]["template"]["spec"]["containers"][0]["env"] == [
        {"name": "CRASH", "value": "1"}
    ]


@pytest.mark.procedure("E10")
def test_a_schema_that_is_newer_than_the_code_to_go_back_to_stops_the_undo(namespace: Namespace) -> None:
    """It is said before that it could not be undone, and afterwards what a person may do."""
    kind = put(namespace, "Deployment", 1, **SOUND)
    versions = "lowtide.ops/schema-versions"
    check_done(roll_out(namespace, kind, pod_annotations={versions: "41"}, schema_version=41))
    refused = roll_out(namespace, kind, **main(env={"SETTING": "x"}), schema_version=42)
    assert (refused.failed, refused["error"]["refused"]) == (True, True)
    assert "it works with schema versions 41, and the schema is of version 42" in refused.msg
    change = {**main(env={"CRASH": "1"}), "pod_annotations": {versions: "42"}, "schema_version": 42}
    run = roll_out(namespace, kind, **change, **QUICK)
    assert (run["rolled_back"], run["plan"][0]["reversible"]) == (False, False)
    assert "it was not undone, since it works with schema versions 41" in run.msg
    assert "--to-revision=2" in run.msg
    again = roll_out(namespace, kind, revision="2", schema_version=42)
    assert again["error"]["refused"] is True


# --- killed -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "bad"),
    [
        ("Deployment", True),
        ("OrderedReady", False),
        pytest.param("Deployment", False, marks=pytest.mark.sweep),
        pytest.param("OrderedReady", True, marks=pytest.mark.sweep),
    ],
)
def test_killed_and_run_again(namespace: Namespace, kind: str, bad: bool, held_pods: HeldPods) -> None:
    """After SIGKILL in the middle of the rollout the next run goes on: to its end, or back to what was complete."""
    old, new = namespace.facts["images"]
    kind = put(namespace, kind, **held_pods.fields)
    held_pods.hold()
    change = main(image=BAD_IMAGE if bad else new)
    process = start_module(ROLLOUT, namespace.params(kind=kind, name="w", **change))
    namespace.wait("rolled out", lambda: read_image(namespace, kind) != old)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    held_pods.let_ready()
    run = roll_out(namespace, kind, **change, **QUICK)
    assert (run.failed, run["rolled_back"], list_running_images(namespace)) == (bad, bad, {old if bad else new})
    assert run["plan"][0]["what"] == "go on with the rollout"
    assert (run["revision"]["before"], run["revision"]["after"]) == (2, 3 if bad else 2)
    assert read_note(namespace, kind)["completed"] is True


@pytest.mark.parametrize("kind", [pytest.param("Deployment", marks=pytest.mark.sweep), "OrderedReady"])
def test_killed_in_the_undo_and_run_again(namespace: Namespace, kind: str) -> None:
    """The next run finishes it, and fails as the first one would have."""
    old = namespace.facts["images"][0]
    kind = put(namespace, kind)
    process = start_module(ROLLOUT, namespace.params(kind=kind, name="w", **main(image=BAD_IMAGE), **QUICK))
    namespace.wait("undoing", lambda: is_undone(namespace, kind))
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    run = roll_out(namespace, kind, **main(image=BAD_IMAGE), **QUICK)
    if run["plan"][0]["what"] == "finish the undo":  # unless it was finished when it was killed
        assert run["revision"]["after"] == 3
    assert (run.failed, run["rolled_back"], list_running_images(namespace)) == (True, True, {old})
    assert run["cause"]["reason"] == "ImagePullBackOff"


def is_undone(namespace: Namespace, kind: str) -> bool:
    """Return whether the undo has been written."""
    annotations = namespace.get(kind, "w")["metadata"].get("annotations", {})
    return '"undoing"' in annotations.get(NOTE, "")


# --- rights -----------------------------------------------------------------------------------------------------------


def test_the_documented_rights_are_those_that_are_used(
    namespace: Namespace, server: ApiServer, connect: Callable[..., Json]
) -> None:
    """With none of them left over: the API server's log has exactly these verbs on these resources."""
    audit = AuditLog(namespace.facts)
    account = connect(RULES)
    namespace.apply(QUOTA)
    for kind, change in (
        ("Deployment", main(env={"CRASH": "1"})),
        ("OrderedReady", main(image=BAD_IMAGE)),
        ("DaemonSet", main(image="Not An Image")),
    ):
        kind = put(namespace, kind, 1, **SOUND)  # noqa: PLW2901
        limits = main(resources={"limits": {"memory": "64Mi"}})
        check_done(roll_out(namespace, kind, **limits, **account))
        if kind == "Deployment":
            conflict = Rival("PATCH", "/deployments/w", partial(change_template, namespace, kind, "x"))
            with RivalProxy(namespace.facts, conflict, token=request_token(server, namespace.name)) as proxy:
                check_done(roll_out(namespace, kind, **main(env={"SETTING": "2"}), host=proxy.url))
        run = roll_out(namespace, kind, **change, **QUICK, **account)
        assert run["rolled_back"] is True, run.msg
        namespace.delete(kind, "w")
        namespace.wait("gone", lambda: namespace.list("Pod") == [])
    documented = expand(RULES)
    used = audit.wait_for_rights(name_user(namespace.name), documented)
    assert used - documented == set(), "used, and not documented"
    assert documented - used == set(), "documented, and not used"
