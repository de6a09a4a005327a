# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""k8s_rollout against the API server in memory: failures by name, the undo, and where it ends."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from support.memory_controllers import NAMESPACE
from support.memory_kubernetes import MemoryServer
from support.memory_rollouts import CRASH, KILLED, PULL, UNREADY, UNSCHEDULABLE, RolloutControllers
from support.operation_runs import is_write

from .rollout_steps import KINDS, QUICK, check_done, read_image, read_pod_images, read_saved, read_template, roll_out

Json = dict[str, Any]

TITLE = "Deployment n/w"


@pytest.fixture
def controllers(memory: MemoryServer) -> RolloutControllers:
    """Who replaces pods at once. Pods of the image ``bad`` never start."""
    played = RolloutControllers(memory)
    played.failures["bad"] = PULL
    return played


@pytest.mark.parametrize("kind", KINDS)
def test_a_failed_rollout_is_undone_and_verified(
    memory: MemoryServer, controllers: RolloutControllers, kind: str
) -> None:
    """The module fails with the first cause, and the pods are of the recorded revision again."""
    controllers.add(kind)
    before = read_template(memory, kind)
    run = roll_out(memory, kind, image="bad", **QUICK)
    assert run.failed
    assert (run["rolled_back"], run["cause"]["reason"], run["error"]["refused"]) == (True, "InvalidImageName", False)
    assert (read_template(memory, kind), read_pod_images(memory)) == (before, {"i"})
    assert f"{kind} n/w: its rollout failed: InvalidImageName: Pod n/w-" in run.msg
    assert "it was undone, and revision 3 (i) serves again" in run.msg
    assert run["summary"].endswith("failed (InvalidImageName) and was undone: revision 3 serves again")
    saved = read_saved(memory, kind)
    assert saved is not None
    assert (saved["phase"], saved["cause"][:16]) == ("done", "InvalidImageName")


@pytest.mark.parametrize(
    ("failure", "reason", "said"),
    [
        (PULL, "InvalidImageName", "couldn't parse the name"),
        (CRASH, "CrashLoopBackOff", "exit code 3"),
        (KILLED, "OOMKilled", "took more memory than its limit"),
        (UNSCHEDULABLE, "Unschedulable", "Insufficient cpu"),
        (UNREADY, "ContainersNotReady", "containers with unready status: [main]"),
    ],
)
def test_each_failure_has_its_name(
    memory: MemoryServer, controllers: RolloutControllers, failure: Json, reason: str, said: str
) -> None:
    """Its own reason, and not that a deadline has passed."""
    controllers.failures["bad"] = failure
    controllers.add("Deployment")
    run = roll_out(memory, image="bad", **QUICK)
    assert (run["cause"]["reason"], run["rolled_back"]) == (reason, True)
    assert said in run["cause"]["message"]
    assert run["cause"]["next_step"]


def test_a_crash_is_told_with_the_last_lines_of_its_log(memory: MemoryServer, controllers: RolloutControllers) -> None:
    """Those of the container before its last restart."""
    controllers.failures["bad"] = CRASH
    controllers.add("Deployment")
    memory.previous_lines[NAMESPACE, "w-new", "main"] = ["begins", "cannot go on"]
    run = roll_out(memory, image="bad", **QUICK)
    assert (run["cause"]["container"], run["cause"]["log"]) == ("main", ["begins", "cannot go on"])
    assert "its last line: cannot go on" in run.msg
    (request,) = [request for request in memory.log if request.path.endswith("/log")]
    assert (request.query["previous"], request.query["container"]) == ("true", "main")


def test_a_container_that_was_not_started_again_has_its_present_log(
    memory: MemoryServer, controllers: RolloutControllers
) -> None:
    """There is none of before."""
    ended = {"exitCode": 3, "reason": "Error"}
    controllers.failures["bad"] = {"restartCount": 0, "state": {"terminated": ended}}
    controllers.add("Deployment")
    memory.log_lines[NAMESPACE, "w-new"] = ["ends at once"]
    run = roll_out(memory, image="bad", timeout=0.5)
    assert (run["rolled_back"], run["cause"]["log"]) == (True, ["ends at once"])


def test_no_secret_of_a_log_is_told(memory: MemoryServer, controllers: RolloutControllers) -> None:
    """Neither one that is known from the pod's Secret, nor what looks like one; in no part of the result."""
    controllers.failures["bad"] = CRASH
    controllers.add("Deployment")
    value = base64.b64encode(b"planted-in-a-secret").decode()
    memory.put({"kind": "Secret", "metadata": {"name": "s", "namespace": NAMESPACE}, "data": {"K": value}})
    memory.previous_lines[NAMESPACE, "w-new", "main"] = ["it is planted-in-a-secret", "PASSWORD=planted-by-name"]

    def use(obj: Json) -> None:
        obj["spec"] = {"containers": [{"name": "main", "envFrom": [{"secretRef": {"name": "s"}}]}]}

    memory.add_rival(lambda: memory.change("Pod", NAMESPACE, "w-new", use), when="before", verb="list", path="/events")
    run = roll_out(memory, image="bad", **QUICK)
    assert run["cause"]["log"] == ["it is [redacted]", "PASSWORD=[redacted]"]
    assert "planted" not in json.dumps(run.result)


def test_no_secret_of_a_probe_is_told_or_saved(memory: MemoryServer, controllers: RolloutControllers) -> None:
    """In no part of the result, and not in the annotation: neither a password of a URL nor a known value."""
    controllers.add("Deployment")
    value = base64.b64encode(b"planted-in-a-secret").decode()
    memory.put({"kind": "Secret", "metadata": {"name": "s", "namespace": NAMESPACE}, "data": {"K": value}})
    said = "Readiness probe failed: postgres://app:hunter2secret@db refused planted-in-a-secret"
    controllers.failures["bad"] = {"phase": "Running", "unready": f"main says {said}"}

    def tell() -> None:
        pod = memory.read("Pod", NAMESPACE, "w-new")
        event = {"metadata": {"name": "e", "namespace": NAMESPACE}, "kind": "Event", "reason": "Unhealthy"}
        about = {"kind": "Pod", "name": "w-new", "namespace": NAMESPACE, "uid": pod["metadata"]["uid"]}
        memory.put({**event, "message": said, "involvedObject": about})

        def use(obj: Json) -> None:
            obj["spec"] = {"containers": [{"name": "main", "envFrom": [{"secretRef": {"name": "s"}}]}]}

        memory.change("Pod", NAMESPACE, "w-new", use)

    memory.add_rival(tell, when="before", verb="list", path="/events")
    run = roll_out(memory, image="bad", **QUICK)
    assert (run["rolled_back"], run["cause"]["reason"]) == (True, "ContainersNotReady")
    assert "Readiness probe failed: postgres://" in run["cause"]["message"]
    assert "[redacted]" in run["cause"]["message"]
    told = json.dumps(run.result) + json.dumps(memory.read("Deployment", NAMESPACE, "w"))
    assert "hunter2secret" not in told
    assert "planted" not in told


def test_an_account_that_may_not_read_logs_is_told_so(memory: MemoryServer, controllers: RolloutControllers) -> None:
    """And the rollout is undone all the same."""
    controllers.failures["bad"] = CRASH
    controllers.add("Deployment")
    memory.deny("get", "pods/log")
    run = roll_out(memory, image="bad", **QUICK)
    assert run["rolled_back"] is True
    assert "not allowed to read it" in run["cause"]["log"][0]


def test_nothing_is_undone_where_that_is_not_asked_for(memory: MemoryServer, controllers: RolloutControllers) -> None:
    """The message has the command by which a person does it."""
    controllers.add("Deployment")
    run = roll_out(memory, image="bad", on_failure="stop", **QUICK)
    assert (run.failed, run["rolled_back"], read_image(memory)) == (True, False, "bad")
    assert "it was not undone, since on_failure is stop" in run.msg
    assert "kubectl rollout undo deployment/w --namespace n --to-revision=1" in run.msg
    assert run["summary"] == f"the rollout of {TITLE} failed (InvalidImageName) and is left as it is"


def test_an_undo_that_fails_as_well_stops_with_the_step_for_a_person(
    memory: MemoryServer, controllers: RolloutControllers
) -> None:
    """Nothing further is changed, and the note stays."""
    controllers.add("StatefulSet")

    def break_old() -> None:
        controllers.failures["i"] = UNSCHEDULABLE

    memory.add_rival(break_old, when="before", verb="delete")
    run = roll_out(memory, "StatefulSet", image="bad", **QUICK)
    assert (run.failed, run["rolled_back"], run["cause"]["reason"]) == (True, False, "InvalidImageName")
    assert "and the undo to revision 1 failed as well" in run.msg
    assert "Unschedulable" in run.msg
    assert "kubectl describe pods --namespace n --selector 'app=w'" in run.msg
    saved = read_saved(memory, "StatefulSet")
    assert saved is not None
    assert (saved["phase"], read_image(memory, "StatefulSet")) == ("undoing", "i")
    writes = [request for request in memory.log if is_write(request)]
    again = roll_out(memory, "StatefulSet", image="bad", **QUICK)
    assert again.failed
    assert "and the undo to revision" in again.msg
    assert [request for request in memory.log if is_write(request)] == writes


def test_an_undo_that_is_refused_names_the_command(memory: MemoryServer, controllers: RolloutControllers) -> None:
    """As when an admission webhook lets nothing through any more."""
    controllers.add("Deployment")

    def refuse() -> None:
        memory.deny("patch", "deployments.apps")

    memory.add_rival(refuse, when="after", verb="watch", path="/deployments")
    memory.add_rival(refuse, when="before", verb="list", path="/events")
    run = roll_out(memory, image="bad", **QUICK)
    assert (run.failed, run["rolled_back"], read_image(memory)) == (True, False, "bad")
    assert "Put it back by hand: kubectl rollout undo deployment/w --namespace n --to-revision=1" in run.msg


def test_a_person_who_changes_the_template_meanwhile_is_never_undone(
    memory: MemoryServer, controllers: RolloutControllers
) -> None:
    """The run ends and names them."""
    controllers.add("Deployment")

    def edit(obj: Json) -> None:
        obj["spec"]["template"]["spec"]["containers"][0]["image"] = "theirs"

    controllers.failures["theirs"] = PULL
    memory.add_rival(
        lambda: memory.change("Deployment", NAMESPACE, "w", edit, manager="kubectl-edit"),
        verb="list",
        path="/events",
    )
    run = roll_out(memory, image="bad", **QUICK)
    assert (run.failed, run["rolled_back"], read_image(memory)) == (True, False, "theirs")
    assert "its pod template was changed by kubectl-edit while it was rolled out" in run.msg


def test_a_rollout_that_a_person_pauses_stays_as_it_is(memory: MemoryServer, controllers: RolloutControllers) -> None:
    """It is not undone, since a pause means stop and stay; who paused it is named, and how it goes on."""
    controllers.add("Deployment")
    controllers.held.add("w")

    def pause(obj: Json) -> None:
        obj["spec"]["paused"] = True

    def act() -> None:
        memory.change("Deployment", NAMESPACE, "w", pause, manager="kubectl-rollout")
        seen = memory.read("Deployment", NAMESPACE, "w")["metadata"]["generation"]
        status = {"observedGeneration": seen, "replicas": 2, "readyReplicas": 2, "updatedReplicas": 1}
        memory.change("Deployment", NAMESPACE, "w", lambda kept: kept.update(status=status), manager="controller")

    memory.add_rival(act, when="after", verb="patch")
    run = roll_out(memory, image="j", **QUICK)
    assert (run.failed, run["rolled_back"], run["cause"]["reason"], read_image(memory)) == (True, False, "Paused", "j")
    assert "its rollout was paused by kubectl-rollout (Paused: Deployment n/w: spec.paused is true" in run.msg
    assert "Resume it (kubectl rollout resume deployment/w --namespace n), then run again" in run.msg
    saved = read_saved(memory)
    assert saved is not None
    assert saved["phase"] == "rolling"
    memory.change("Deployment", NAMESPACE, "w", lambda obj: obj["spec"].update(paused=False))
    controllers.held.clear()
    controllers.act()
    again = roll_out(memory, image="j")
    assert (again.failed, again["plan"][0]["what"]) == (False, "go on with the rollout")


def test_an_autoscaler_that_acts_meanwhile_is_no_obstacle(
    memory: MemoryServer, controllers: RolloutControllers
) -> None:
    """The generation moves, and the template is still ours."""
    controllers.add("Deployment")
    memory.add_rival(
        lambda: memory.change("Deployment", NAMESPACE, "w", lambda obj: obj["spec"].update(replicas=3)),
        verb="list",
        path="/events",
    )
    run = roll_out(memory, image="bad", **QUICK)
    assert (run["rolled_back"], read_image(memory)) == (True, "i")
    assert memory.read("Deployment", NAMESPACE, "w")["spec"]["replicas"] == 3


# --- killed, and run again -------------------------------------------------------------------------------------------


def test_a_run_that_was_cut_off_is_gone_on_with(memory: MemoryServer, controllers: RolloutControllers) -> None:
    """Without another change of the template; what failed meanwhile is undone to the revision before it."""
    controllers.add("Deployment")
    controllers.held.add("w")
    cut = roll_out(memory, image="j", timeout=0.3, on_failure="stop")
    assert (cut.failed, read_image(memory)) == (True, "j")
    controllers.held.clear()
    controllers.act()
    again = roll_out(memory, image="j")
    assert (again.failed, again.changed, again["plan"][0]["what"]) == (False, True, "go on with the rollout")
    saved = read_saved(memory)
    assert saved is not None
    assert (saved["completed"], saved["back"]["number"]) == (True, 1)
    third = roll_out(memory, image="j")
    assert (third.failed, third.changed) == (False, False)


def test_a_failed_run_that_was_cut_off_is_undone_by_the_next(
    memory: MemoryServer, controllers: RolloutControllers
) -> None:
    """To the revision that the first run recorded."""
    controllers.add("StatefulSet", podManagementPolicy="OrderedReady")
    roll_out(memory, "StatefulSet", image="bad", on_failure="stop", **QUICK)
    assert read_image(memory, "StatefulSet") == "bad"
    run = roll_out(memory, "StatefulSet", image="bad", **QUICK)
    assert (run.failed, run["rolled_back"], read_pod_images(memory)) == (True, True, {"i"})


def test_another_declaration_after_a_failed_one_goes_back_to_what_was_complete(
    memory: MemoryServer, controllers: RolloutControllers
) -> None:
    """Not to the revision that failed; and a pod of that one does not hold up the set."""
    controllers.add("StatefulSet")
    controllers.failures["worse"] = PULL
    roll_out(memory, "StatefulSet", image="bad", on_failure="stop", **QUICK)
    run = roll_out(memory, "StatefulSet", image="worse", **QUICK)
    assert (run.failed, run["rolled_back"], read_pod_images(memory)) == (True, True, {"i"})
    roll_out(memory, "StatefulSet", image="bad", on_failure="stop", **QUICK)
    fixed = roll_out(memory, "StatefulSet", image="j")
    assert (fixed.failed, read_pod_images(memory)) == (False, {"j"})


def test_an_undo_that_was_cut_off_is_finished(memory: MemoryServer, controllers: RolloutControllers) -> None:
    """By the next run, which fails as the first one would have."""
    controllers.add("StatefulSet")
    memory.add_rival(lambda: memory.deny("delete", "pods"), when="before", verb="delete")
    cut = roll_out(memory, "StatefulSet", image="bad", **QUICK)
    assert "and the undo to revision 1 failed as well" in cut.msg
    assert (read_image(memory, "StatefulSet"), read_pod_images(memory)) == ("i", {"i", "bad"})
    memory.allow("delete", "pods")
    predicted = roll_out(memory, "StatefulSet", image="bad", check=True)
    assert (predicted.failed, predicted["plan"][0]["what"]) == (False, "finish the undo")
    run = roll_out(memory, "StatefulSet", image="bad", **QUICK)
    assert (run.failed, run["rolled_back"], read_pod_images(memory)) == (True, True, {"i"})
    assert run["cause"]["reason"] == "InvalidImageName"


# --- revisions whose text differs from the template's ----------------------------------------------------------------


@pytest.mark.parametrize("kind", ["StatefulSet", "DaemonSet"])
def test_a_revision_without_a_default_of_today_is_still_the_present_one(
    memory: MemoryServer, controllers: RolloutControllers, kind: str
) -> None:
    """Its controller takes both for the same, and so a failure goes back to it; also when the first run was cut off."""
    controllers.add(kind)
    image = "bad"

    def give_default(obj: Json) -> None:
        obj["spec"]["template"]["spec"]["containers"][0]["terminationMessagePolicy"] = "File"

    controllers.held.add("w")
    memory.change(kind, NAMESPACE, "w", give_default)
    memory.change(
        kind,
        NAMESPACE,
        "w",
        lambda obj: obj["status"].update(observedGeneration=obj["metadata"]["generation"]),
        manager="controller",
    )
    as_declared = roll_out(memory, kind, image="i")
    assert (as_declared.changed, as_declared["revision"]) == (False, {"before": 1, "after": 1})
    predicted = roll_out(memory, kind, image=image, check=True)
    assert predicted["plan"][0]["reversible"] is True
    controllers.held.clear()
    run = roll_out(memory, kind, image=image, **QUICK)
    assert (run.failed, run["rolled_back"], read_pod_images(memory)) == (True, True, {"i"})
    assert "it was not undone" not in run.msg


@pytest.mark.parametrize("kind", KINDS)
def test_a_template_of_no_known_revision_is_kept_and_put_back(
    memory: MemoryServer, controllers: RolloutControllers, kind: str
) -> None:
    """By the next run too: it stands in the note."""
    controllers.add(kind)
    own = "ReplicaSet" if kind == "Deployment" else "ControllerRevision"
    for revision in memory.read_all(own):
        memory.remove(own, NAMESPACE, revision["metadata"]["name"])
    before = read_template(memory, kind)
    cut = roll_out(memory, kind, image="bad", on_failure="stop", **QUICK)
    saved = read_saved(memory, kind)
    assert saved is not None
    assert (cut.failed, saved["replaced"]["spec"]) == (True, before["spec"])
    run = roll_out(memory, kind, image="bad", **QUICK)
    assert (run.failed, run["rolled_back"], read_pod_images(memory)) == (True, True, {"i"})
    assert read_template(memory, kind) == before
    done = read_saved(memory, kind)
    assert done is not None
    assert "replaced" not in done


def test_what_is_written_at_no_replicas_is_not_proven(memory: MemoryServer, controllers: RolloutControllers) -> None:
    """It is said so, a second run is unchanged, and a failure after it goes back to what has served."""
    controllers.add("Deployment")
    check_done(roll_out(memory, image="i"))
    memory.change("Deployment", NAMESPACE, "w", lambda obj: obj["spec"].update(replicas=0))
    for pod in memory.read_all("Pod"):
        memory.remove("Pod", NAMESPACE, pod["metadata"]["name"])
    controllers.act()
    written = check_done(roll_out(memory, image="bad"))
    assert written["summary"].endswith("; nothing is proven, it has 0 replicas")
    assert "serves" not in written["summary"]
    assert "nothing is proven of its pod template, since no pod runs it" in written["evidence"]
    saved = read_saved(memory)
    assert saved is not None
    assert (saved["completed"], saved["unproven"], saved["back"]["number"]) == (False, True, 1)
    again = check_done(roll_out(memory, image="bad"))
    assert (again.changed, read_image(memory)) == (False, "bad")
    memory.change("Deployment", NAMESPACE, "w", lambda obj: obj["spec"].update(replicas=2))
    controllers.act()
    run = roll_out(memory, image="bad", **QUICK)
    assert (run.failed, run["rolled_back"], read_image(memory)) == (True, True, "i")
    assert "nothing was proven" in run["plan"][0]["why"]


def test_the_next_template_after_an_unproven_one_goes_back_to_what_has_served(
    memory: MemoryServer, controllers: RolloutControllers
) -> None:
    """Not to the one that no pod has run."""
    controllers.add("Deployment")
    controllers.failures["worse"] = PULL
    memory.change("Deployment", NAMESPACE, "w", lambda obj: obj["spec"].update(replicas=0))
    for pod in memory.read_all("Pod"):
        memory.remove("Pod", NAMESPACE, pod["metadata"]["name"])
    controllers.act()
    check_done(roll_out(memory, image="bad"))
    memory.change("Deployment", NAMESPACE, "w", lambda obj: obj["spec"].update(replicas=2))
    controllers.act()
    run = roll_out(memory, image="worse", **QUICK)
    assert (run.failed, run["rolled_back"], read_image(memory)) == (True, True, "i")


def test_a_workload_that_did_not_serve_before_is_put_back_all_the_same(
    memory: MemoryServer, controllers: RolloutControllers
) -> None:
    """The message says that it did not serve before the change either, and not that it serves again."""
    controllers.failures["i"] = UNREADY
    controllers.add("StatefulSet", podManagementPolicy="Parallel")
    run = roll_out(memory, "StatefulSet", image="bad", serve_seconds=0.0, **QUICK)
    assert (run.failed, run["rolled_back"], read_image(memory, "StatefulSet")) == (True, True, "i")
    assert "2 of 2 replicas did not serve before the change either" in run.msg
    assert "is back, and 0 of 2 replicas serve, no less than before" in run.msg
    assert "serves again" not in run.msg + run["summary"]
