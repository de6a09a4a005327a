# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What k8s_rollout goes back to, and what it leaves: after a breach, a killed run, or what a person did meanwhile."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.operations.rollout import Rollout
from support.memory_controllers import NAMESPACE
from support.memory_kubernetes import MemoryServer
from support.memory_rollouts import PULL, REVISION, UNREADY, RolloutControllers

from .rollout_steps import KEY, QUICK, check_done, read_image, read_pod_images, read_saved, read_template, roll_out

Json = dict[str, Any]
END = "2099-01-01T00:00:00Z"
SETTING: Json = {"containers": [{"name": "main", "env": {"A": "1"}}]}


class Killed(BaseException):
    """The end of a process that is killed."""


@pytest.fixture
def controllers(memory: MemoryServer) -> RolloutControllers:
    """Who replaces pods at once; those of the image ``bad`` do not start."""
    played = RolloutControllers(memory)
    played.failures["bad"] = PULL
    return played


def undo(memory: MemoryServer, kind: str = "Deployment", **params: Any) -> Any:
    """Take back what the run ``release`` has rolled out."""
    return roll_out(memory, kind, **{"state": "undone", "run_id": "release", **params})


def kill_at(monkeypatch: pytest.MonkeyPatch, step: str, run: Callable[[], Any]) -> None:
    """Let a run come to a step of its own, and no further."""

    def end(*_arguments: Any, **_named: Any) -> None:
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(Rollout, step, end)
        with pytest.raises(Killed):
            run()


def set_image(memory: MemoryServer, controllers: RolloutControllers, image: str, kind: str = "Deployment") -> None:
    """Roll out an image as a person does."""

    def change(obj: Json) -> None:
        obj["spec"]["template"]["spec"]["containers"][0]["image"] = image

    memory.change(kind, NAMESPACE, "w", change, manager="kubectl-set")
    controllers.act()
    controllers.act()


def set_partition(memory: MemoryServer, partition: int) -> None:
    """Hold a StatefulSet as a person does."""

    def change(obj: Json) -> None:
        obj["spec"]["updateStrategy"] = {"type": "RollingUpdate", "rollingUpdate": {"partition": partition}}

    memory.change("StatefulSet", NAMESPACE, "w", change, manager="kubectl-edit")


def read_partition(memory: MemoryServer) -> int:
    """The partition that there is."""
    return int(memory.read("StatefulSet", NAMESPACE, "w")["spec"]["updateStrategy"]["rollingUpdate"]["partition"])


# --- after a breach ----------------------------------------------------------------------------------------------------


def test_a_complete_release_that_turns_unready_is_taken_back(
    memory: MemoryServer, controllers: RolloutControllers
) -> None:
    """With OrderedReady its controller would wait for those pods for ever."""
    controllers.add("StatefulSet", replicas=3)
    check_done(roll_out(memory, "StatefulSet", image="j", run_id="release"))
    controllers.failures["j"] = UNREADY
    memory.remove("Pod", NAMESPACE, "w-1")
    controllers.act()
    done = check_done(undo(memory, "StatefulSet", timeout=30.0))
    assert read_pod_images(memory) == {"i"}
    assert [line for line in done["evidence"] if line.startswith("deleted Pod n/w-1, which was of revision")]


def test_a_pod_that_turns_unready_during_the_undo_is_deleted_too(
    memory: MemoryServer, controllers: RolloutControllers
) -> None:
    """Not only those that were unready when it began."""
    controllers.add("StatefulSet", replicas=3)
    check_done(roll_out(memory, "StatefulSet", image="j", run_id="release"))
    controllers.failures["j"] = UNREADY
    memory.remove("Pod", NAMESPACE, "w-1")
    controllers.act()

    def turn_unready() -> None:
        ready = {"type": "Ready", "status": "False", "message": "containers with unready status: [main]"}
        memory.change("Pod", NAMESPACE, "w-2", lambda pod: pod["status"].update(conditions=[ready]), manager="kubelet")

    memory.rivals.insert(0, memory.rivals.pop())  # the delete is seen by the kubelet before the controller acts
    memory.add_rival(turn_unready, when="before", verb="delete")
    done = check_done(undo(memory, "StatefulSet", timeout=30.0))
    assert read_pod_images(memory) == {"i"}
    deleted = [line.split(",")[0] for line in done["evidence"] if line.startswith("deleted")]
    assert sorted(deleted) == ["deleted Pod n/w-1", "deleted Pod n/w-2"]


def test_an_undo_that_fails_names_its_revision_and_never_the_way_to_the_bad_one(
    memory: MemoryServer, controllers: RolloutControllers
) -> None:
    controllers.add("StatefulSet")
    check_done(roll_out(memory, "StatefulSet", image="j", run_id="release"))
    controllers.failures["i"] = UNREADY
    failed = undo(memory, "StatefulSet", **QUICK)
    assert "what run release has rolled out is taken back; and the undo to revision 3 failed as well" in failed.msg
    assert "its pod template is the earlier one again: see kubectl describe pods --namespace n" in failed.msg
    assert "rollout undo" not in failed.msg
    assert failed["summary"].endswith("its undo did not succeed: a person has to act")


def test_a_quota_that_was_used_up_since_holds_no_undo_up(memory: MemoryServer, controllers: RolloutControllers) -> None:
    controllers.add("Deployment")
    check_done(roll_out(memory, image="j", run_id="release"))
    full = {"hard": {"pods": "2"}, "used": {"pods": "2"}}
    memory.put({"kind": "ResourceQuota", "metadata": {"name": "q", "namespace": NAMESPACE}, "spec": {}, "status": full})
    done = check_done(undo(memory, guards=["gitops", "hpa", "quota"]))
    assert read_image(memory) == "i"
    assert any("ResourceQuota n/q" in warning for warning in done["warnings"])


def test_a_paused_deployment_is_not_touched_by_an_undo(memory: MemoryServer, controllers: RolloutControllers) -> None:
    controllers.add("Deployment")
    check_done(roll_out(memory, image="j", run_id="release"))
    memory.change("Deployment", NAMESPACE, "w", lambda obj: obj["spec"].update(paused=True), manager="kubectl-pause")
    refused = undo(memory, **QUICK)
    assert "spec.paused is true" in refused.msg
    assert read_image(memory) == "j"


# --- notes that do not count any more ------------------------------------------------------------------------------


def test_an_old_note_that_kubectl_brings_back_is_not_in_force(
    memory: MemoryServer, controllers: RolloutControllers
) -> None:
    """``kubectl rollout undo`` copies the annotations that the ReplicaSet got when its template was rolled out."""
    controllers.add("Deployment")
    old: list[Json] = []

    def remember() -> None:
        obj = memory.read("Deployment", NAMESPACE, "w")
        if read_image(memory) == "bad":
            old.append(copy.deepcopy(obj))

    memory.add_rival(remember, when="after", verb="patch", times=9)
    assert roll_out(memory, image="bad", run_id="release", **QUICK)["rolled_back"] is True
    controllers.failures.clear()
    kept = {key: value for key, value in old[0]["metadata"]["annotations"].items() if key != REVISION}
    assert read_saved_phase(kept) == "rolling"

    def bring_back(obj: Json) -> None:
        obj["spec"]["template"] = copy.deepcopy(old[0]["spec"]["template"])
        obj["metadata"]["annotations"] = {**kept, REVISION: obj["metadata"]["annotations"][REVISION]}

    memory.change("Deployment", NAMESPACE, "w", bring_back, manager="kubectl-rollout")
    controllers.act()
    controllers.act()
    assert check_done(undo(memory)).changed is False
    again = check_done(roll_out(memory, image="bad", run_id="release"))
    assert (again.changed, again["plan"], read_image(memory)) == (False, [], "bad")


def read_saved_phase(annotations: Json) -> str:
    """The phase of the note in annotations."""
    return "rolling" if '"phase": "rolling"' in annotations["lowtide.ops/rollout"] else "another"


@pytest.mark.parametrize("kind", ["Deployment", "StatefulSet", "DaemonSet"])
def test_what_a_person_rolled_out_again_is_not_taken_back(
    memory: MemoryServer, controllers: RolloutControllers, kind: str
) -> None:
    """It is their choice since, of the same template."""
    controllers.add(kind)
    check_done(roll_out(memory, kind, image="j", run_id="release"))
    for image in ("k", "j"):
        set_image(memory, controllers, image, kind)
    left = check_done(undo(memory, kind))
    assert (left.changed, left["workload"]["run_id"]) == (False, "")


@pytest.mark.parametrize("change", ["run", "template"])
def test_what_another_has_written_at_the_last_moment_is_not_called_complete(
    memory: MemoryServer, controllers: RolloutControllers, change: str
) -> None:
    """Another run with the same template, or another template: between the wait and the note that it serves."""
    controllers.add("Deployment")

    def take_over(obj: Json) -> None:
        if change == "run":
            annotations = obj["metadata"]["annotations"]
            annotations[KEY] = annotations[KEY].replace('"run": "release"', '"run": "other"')
        else:
            obj["spec"]["template"]["spec"]["containers"][0]["image"] = "k"

    def look() -> None:
        if read_pod_images(memory) == {"j"} and read_image(memory) == "j":
            memory.change("Deployment", NAMESPACE, "w", take_over, manager="other")

    memory.add_rival(look, verb="list", path="/replicasets", times=9)
    roll_out(memory, image="j", run_id="release", serve_seconds=0.0)
    saved = read_saved(memory)
    assert saved is not None
    assert saved["phase"] == "rolling"


# --- the revision to go back to --------------------------------------------------------------------------------------


def test_a_release_goes_back_to_what_serves_though_nobody_noted_it(
    memory: MemoryServer, controllers: RolloutControllers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run of the one before was killed when it had only to say that it serves."""
    controllers.add("Deployment")
    kill_at(monkeypatch, "_complete", lambda: roll_out(memory, image="j", run_id="first"))
    run = roll_out(memory, image="bad", run_id="release", **QUICK)
    assert (run["rolled_back"], read_image(memory)) == (True, "j")


def test_an_undo_that_ended_without_its_run_is_not_told_again(
    memory: MemoryServer, controllers: RolloutControllers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cause is mended, and the same image is declared."""
    controllers.add("Deployment")
    kill_at(monkeypatch, "_verify_undo", lambda: roll_out(memory, image="bad", run_id="first", **QUICK))
    assert read_pod_images(memory) == {"i"}
    controllers.failures.clear()
    check_done(roll_out(memory, image="bad", run_id="release"))
    assert read_pod_images(memory) == {"bad"}


# --- changes with an end ---------------------------------------------------------------------------------------------


def test_an_undo_gives_earlier_temporary_changes_their_end_back(
    memory: MemoryServer, controllers: RolloutControllers
) -> None:
    controllers.add("Deployment")
    check_done(roll_out(memory, **SETTING, until=END, run_id="first"))
    check_done(roll_out(memory, image="j", run_id="release"))
    check_done(undo(memory))
    assert read_template(memory)["spec"]["containers"][0]["env"] == [{"name": "A", "value": "1"}]
    saved = read_saved(memory, operation="temporary")
    assert saved is not None
    assert [entry["until"] for entry in saved["changes"]] == [END]


def test_a_second_batch_that_fails_leaves_no_end_of_a_value_that_is_gone(
    memory: MemoryServer, controllers: RolloutControllers
) -> None:
    controllers.add("StatefulSet", replicas=3)
    check_done(roll_out(memory, "StatefulSet", **SETTING, until=END, partition=2, run_id="release"))
    controllers.failures["i"] = UNREADY
    assert roll_out(memory, "StatefulSet", **SETTING, until=END, partition=0, run_id="release", **QUICK).failed
    assert "env" not in read_template(memory, "StatefulSet")["spec"]["containers"][0]
    assert read_saved(memory, "StatefulSet", operation="temporary") is None


def test_a_lasting_declaration_ends_the_temporary_one_of_the_same_value(
    memory: MemoryServer, controllers: RolloutControllers
) -> None:
    controllers.add("Deployment")
    check_done(roll_out(memory, **SETTING, until=END, run_id="first"))
    lasting = check_done(roll_out(memory, **SETTING, run_id="release"))
    assert lasting["plan"][0]["what"] == "stay as it is, without an end"
    assert (lasting["temporary"], read_saved(memory, operation="temporary")) == ([], None)
    assert check_done(roll_out(memory, **SETTING, run_id="release")).changed is False


# --- a partition that a person holds ---------------------------------------------------------------------------------


def test_a_partition_that_a_person_sets_meanwhile_is_told_and_kept(
    memory: MemoryServer, controllers: RolloutControllers
) -> None:
    """No success: fewer pods are new than were declared."""
    controllers.add("StatefulSet", replicas=3)
    memory.rivals.clear()

    def hold() -> None:
        if read_image(memory, "StatefulSet") == "j" and not held:
            held.append(True)
            set_partition(memory, 2)

    held: list[bool] = []
    memory.add_rival(hold, when="after", verb="patch", times=99)
    memory.add_rival(controllers.act, when="after", verb="patch", times=99)
    run = roll_out(memory, "StatefulSet", image="j", partition=0, run_id="release", timeout=5.0)
    assert run.failed
    assert "kubectl-edit has changed its partition from 0 to 2 while it was rolled out" in run.msg
    assert (read_partition(memory), read_image(memory, "StatefulSet")) == (2, "j")


def test_a_hold_of_a_person_is_not_overwritten_by_an_undo(
    memory: MemoryServer, controllers: RolloutControllers
) -> None:
    strategy = {"type": "RollingUpdate", "rollingUpdate": {"partition": 1}}
    controllers.add("StatefulSet", replicas=3, updateStrategy=strategy)
    check_done(roll_out(memory, "StatefulSet", image="j", partition=0, run_id="release"))
    set_partition(memory, 2)
    controllers.act()
    check_done(undo(memory, "StatefulSet"))
    assert (read_partition(memory), read_image(memory, "StatefulSet")) == (2, "i")


@pytest.mark.parametrize(("kind", "words"), [("Deployment", "was paused by"), ("StatefulSet", "changed its partition")])
def test_who_stops_it_in_the_moment_of_the_undo_is_not_overwritten(
    memory: MemoryServer, controllers: RolloutControllers, kind: str, words: str
) -> None:
    """Between the decision and the write."""
    controllers.add(kind, replicas=3)
    held: list[bool] = []

    def hold() -> None:
        if read_image(memory, kind) != "bad" or not memory.read_all("Pod") or held:
            return
        held.append(True)
        if kind == "StatefulSet":
            set_partition(memory, 2)
        else:
            memory.change(kind, NAMESPACE, "w", lambda obj: obj["spec"].update(paused=True), manager="kubectl-pause")

    memory.add_rival(hold, when="before", verb="patch", times=9)
    failed = roll_out(memory, kind, image="bad", run_id="release", **QUICK)
    assert held
    assert words in failed.msg
    assert "nothing is undone" in failed.msg
    assert (read_image(memory, kind), failed["rolled_back"]) == ("bad", False)


def test_pods_that_did_not_serve_before_are_told_at_the_undo_of_a_second_attempt(
    memory: MemoryServer, controllers: RolloutControllers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As many as before the first of both, whatever the first has made of them."""
    controllers.failures["worse"] = PULL
    controllers.add("Deployment", replicas=3)
    condition = {"type": "Ready", "status": "False"}
    memory.change("Pod", NAMESPACE, "w-2", lambda pod: pod["status"].update(conditions=[condition]), manager="kubelet")
    controllers.held.add("w")
    memory.change(
        "Deployment",
        NAMESPACE,
        "w",
        lambda obj: obj["status"].update(readyReplicas=2, availableReplicas=2),
        manager="controller",
    )
    kill_at(monkeypatch, "_settle", lambda: roll_out(memory, image="bad", run_id="first"))
    saved = read_saved(memory)
    assert saved is not None
    assert saved["lacking"] == 1
    memory.change(
        "Deployment",
        NAMESPACE,
        "w",
        lambda obj: obj["status"].update(readyReplicas=0, availableReplicas=0),
        manager="controller",
    )
    kill_at(monkeypatch, "_settle", lambda: roll_out(memory, image="worse", run_id="release"))
    saved = read_saved(memory)
    assert saved is not None
    assert (saved["lacking"], saved["back"]["number"]) == (1, 1)
