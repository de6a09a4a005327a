# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a declared template means for a workload: the step, the write, what a failure goes back to."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from ansible_collections.lowtide.ops.plugins.module_utils._common.errors import Refusal
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.objects import Workload
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.patches import build_json_patch
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.plans.rollout import (
    FINISH_UNDO,
    ROLL,
    WAIT,
    Declared,
    Plan,
    count_unavailable,
    plan_rollout,
    read_values,
)
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.plans.rollout_undo import (
    describe_by_hand,
    plan_completion,
    plan_undo,
)
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.pod_templates import (
    ANNOTATION,
    ENV,
    IMAGE,
    LIMITS,
    REQUESTS,
    Place,
    fingerprint,
)
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.revisions import (
    Known,
    find_by_number,
    parse_revision,
    read_revisions,
)
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.rollout_notes import (
    Note,
    read_note,
    read_temporaries,
)
from support.memory_controllers import describe_workload
from support.memory_objects import apply_operations

Json = dict[str, Any]

IMAGE_OF_MAIN = Place("main", IMAGE)
MEMORY = Place("main", LIMITS, "memory")
NOON = 1_777_636_800.0  # 2026-05-01T12:00:00Z


def make_workload(kind: str = "Deployment", image: str = "i", **spec: Any) -> Workload:
    """Return a workload that serves."""
    obj = describe_workload(kind, "w", 4, **spec)
    obj["metadata"] |= {"uid": "u", "generation": 5}
    obj["spec"]["template"]["spec"]["containers"][0]["image"] = image
    if kind == "DaemonSet":
        obj["status"] = {"desiredNumberScheduled": 4}
    return Workload.from_object(obj)


def know(workload: Workload, number: int, image: str) -> Known:
    """Return a revision of a workload with another image."""
    template = copy.deepcopy(workload.template)
    template["spec"]["containers"][0]["image"] = image
    return Known(number, f"w-{number}", f"h{number}", template)


def plan(workload: Workload, revisions: list[Known], declared: Declared, *, at: float = NOON) -> Plan:
    """Plan as run ``r``."""
    return plan_rollout(workload, revisions, declared, run_id="r", now="2026-05-01T12:00:00Z", at=at)


def carry_out(workload: Workload, planned: Plan) -> Workload:
    """Return the workload after the write."""
    assert planned.write is not None
    return write(workload, planned.write)


def write(workload: Workload, change: Any) -> Workload:
    """Return the workload after a write, with a new generation where its spec has changed."""
    obj = apply_operations(workload.raw, build_json_patch(workload.raw, change))
    obj["metadata"]["generation"] += obj["spec"] != workload.raw["spec"]
    return Workload.from_object(obj)


def complete(workload: Workload) -> Workload:
    """Return the workload after its rollout was found to be complete."""
    note = read_note(workload)
    assert note is not None
    return write(workload, plan_completion(workload, note))


def declare(image: str, **more: Any) -> Declared:
    """Declare an image."""
    return Declared(values={IMAGE_OF_MAIN: image}, **more)


def read(workload: Workload) -> Note:
    """Return the note."""
    note = read_note(workload)
    assert note is not None
    return note


# --- one rollout ----------------------------------------------------------------------------------------------------


def test_one_write_has_the_change_and_what_to_go_back_to() -> None:
    """It is conditional on the template, the note, and the object."""
    workload = make_workload()
    planned = plan(workload, [know(workload, 7, "i")], declare("j"))
    assert (planned.step, planned.what, planned.stuck) == (ROLL, "main: image i -> j", "")
    assert planned.write is not None
    tests = [entry["path"] for entry in build_json_patch(workload.raw, planned.write) if entry["op"] == "test"]
    assert tests == ["/metadata/uid", "/spec/template", "/metadata/annotations"]
    after = carry_out(workload, planned)
    assert after.template["spec"]["containers"] == [{"name": "main", "image": "j"}]
    note = read(after)
    assert (note.phase, note.back, note.run_id, note.generation) == ("rolling", (7, "w-7"), "r", 6)
    assert note.mark == fingerprint(after.template)
    done = complete(after)
    assert read(done).as_state().spec["completed"] is True
    assert done.generation == after.generation
    again = plan(done, [know(workload, 8, "j"), know(workload, 7, "i")], declare("j"))
    assert (again.step, again.write, again.what, again.note) == (WAIT, None, "", None)


def test_what_was_cut_off_is_gone_on_with() -> None:
    """Nothing is written; a failure goes back to what the first run recorded."""
    workload = make_workload()
    revisions = [know(workload, 8, "j"), know(workload, 7, "i")]
    after = carry_out(workload, plan(workload, revisions[1:], declare("j")))
    again = plan(after, revisions, declare("j"))
    assert (again.step, again.write, again.what) == (WAIT, None, "go on with the rollout")
    assert again.note is not None
    assert again.back == revisions[1]


def test_another_declaration_goes_back_to_what_was_complete() -> None:
    """Not to the revision that is rolled out; its pods may hold up a StatefulSet."""
    workload = make_workload()
    revisions = [know(workload, 8, "j"), know(workload, 7, "i")]
    after = carry_out(workload, plan(workload, revisions[1:], declare("j")))
    other = plan(after, revisions, declare("k"))
    assert (other.step, other.back, other.stuck) == (ROLL, revisions[1], "h8")
    cut_off = carry_out(after, other)
    assert read(cut_off).back == (7, "w-7")
    assert plan(cut_off, revisions, declare("k")).stuck == "h8"
    done = complete(after)
    assert plan(done, revisions, declare("k")).back == revisions[0]
    by_hand = plan(after, revisions, declare("i"))
    assert (by_hand.step, by_hand.back) == (ROLL, None)


def test_a_template_that_a_person_changed_is_theirs() -> None:
    """The note counts no longer: neither to go on with, nor to go back to."""
    workload = make_workload()
    revisions = [know(workload, 9, "p"), know(workload, 8, "j"), know(workload, 7, "i")]
    after = carry_out(workload, plan(workload, revisions[2:], declare("j")))
    theirs = Workload.from_object(
        {
            **after.raw,
            "metadata": {**after.raw["metadata"], "generation": 7},
            "spec": make_workload(image="p").raw["spec"],
        }
    )
    assert plan(theirs, revisions, declare("p")).note is None
    assert plan(theirs, revisions, declare("k")).back == revisions[0]
    assert plan_undo(theirs, read(theirs), revisions[2], failed="", cause="") is None


def test_an_autoscaler_changes_no_template() -> None:
    """A later generation with the template that was written is still this rollout."""
    workload = make_workload()
    after = carry_out(workload, plan(workload, [know(workload, 7, "i")], declare("j")))
    scaled = copy.deepcopy(after.raw)
    scaled["spec"]["replicas"] = 9
    scaled["metadata"]["generation"] = 9
    assert plan(Workload.from_object(scaled), [know(workload, 7, "i")], declare("j")).note is not None


# --- undo -----------------------------------------------------------------------------------------------------------


def undo(workload: Workload, back: Known) -> Workload:
    """Return the workload after the write of an undo."""
    planned = plan_undo(workload, read(workload), back, failed="h8", cause="Why: it: failed")
    assert planned is not None
    return write(workload, planned[0])


def test_an_undo_brings_the_very_template_back() -> None:
    """With keys removed that were not there, and the cause in the note."""
    workload = make_workload()
    back = know(workload, 7, "i")
    values = {
        IMAGE_OF_MAIN: "j",
        Place("", ANNOTATION, "a"): "b",
        MEMORY: "1Gi",
        Place("main", ENV, "E"): {"value": "1"},
    }
    after = carry_out(workload, plan(workload, [back], Declared(values=values)))
    undone = undo(after, back)
    assert undone.template == workload.template
    note = read(undone)
    assert (note.phase, note.failed, note.cause) == ("undoing", "h8", "Why: it: failed")
    assert read(complete(undone)).phase == "done"


def test_an_undo_that_was_cut_off_is_finished_by_the_same_declaration() -> None:
    """Another one begins anew, from what was complete."""
    workload = make_workload()
    revisions = [know(workload, 9, "i"), know(workload, 8, "j")]
    revisions[0] = revisions[0]._replace(name="w-7")
    after = carry_out(workload, plan(workload, [know(workload, 7, "i")], declare("j")))
    undone = undo(after, revisions[0])
    again = plan(undone, revisions, declare("j"))
    assert (again.step, again.write, again.stuck) == (FINISH_UNDO, None, "h8")
    other = plan(undone, revisions, declare("k"))
    assert (other.step, other.back) == (ROLL, revisions[0])
    same = plan(undone, revisions, declare("i"))
    assert (same.step, same.what, same.stuck) == (WAIT, "go on with the rollout", "h8")
    assert plan(complete(undone), revisions, declare("j")).step == ROLL


# --- canary ---------------------------------------------------------------------------------------------------------


def test_a_canary_goes_back_to_the_first_revision_also_when_it_is_promoted() -> None:
    """And its partition too."""
    workload = make_workload("StatefulSet")
    revisions = [know(workload, 8, "j"), know(workload, 7, "i")]
    canary = carry_out(workload, plan(workload, revisions[1:], declare("j", partition=3)))
    assert canary.raw["spec"]["updateStrategy"] == {"rollingUpdate": {"partition": 3}}
    done = complete(canary)
    assert read(done).canary == 3
    assert plan(done, revisions, declare("j", partition=3)).step == WAIT
    promotion = plan(done, revisions, declare("j", partition=0))
    assert (promotion.step, promotion.what, promotion.back) == (ROLL, "partition 3 -> 0", revisions[1])
    assert promotion.changes_template is False
    promoted = carry_out(done, promotion)
    undone = undo(promoted, revisions[1])
    assert undone.raw["spec"]["updateStrategy"] == {"rollingUpdate": {"partition": 0}}
    assert undone.template == workload.template
    assert read(complete(promoted)).canary == 0


@pytest.mark.parametrize(
    ("kind", "partition", "spec", "said"),
    [
        ("Deployment", 1, {}, "only a StatefulSet has"),
        ("StatefulSet", 4, {}, "it is 4, and StatefulSet n/w has 4 replicas, so that none is new"),
        ("StatefulSet", None, {"updateStrategy": {"type": "OnDelete"}}, "its updateStrategy is OnDelete"),
        ("Deployment", None, {"paused": True}, "kubectl rollout resume deployment/w --namespace n"),
    ],
)
def test_what_would_never_be_done_is_refused(kind: str, partition: int | None, spec: Json, said: str) -> None:
    """By its name."""
    workload = make_workload(kind, **spec)
    with pytest.raises(Refusal) as caught:
        plan(workload, [know(workload, 7, "i")], declare("j", partition=partition))
    assert said in str(caught.value)


# --- temporary changes ------------------------------------------------------------------------------------------------


def set_memory(workload: Workload, amount: str, until: str = "") -> Workload:
    """Return the workload after its memory was set, and that was complete."""
    planned = plan(workload, [know(workload, 7, "i")], Declared(values={MEMORY: amount}, until=until))
    return complete(carry_out(workload, planned))


def take_back(workload: Workload, at: float) -> Plan:
    """Plan to take back what has ended."""
    return plan(workload, [know(workload, 7, "i")], Declared(takes_back=True), at=at)


def read_memory(workload: Workload) -> Any:
    """Return the limit."""
    return workload.template["spec"]["containers"][0].get("resources", {}).get("limits", {}).get("memory")


def test_a_temporary_change_is_taken_back_at_its_end() -> None:
    """Not before, and only once."""
    raised = set_memory(set_memory(make_workload(), "1Gi"), "2Gi", "2026-05-01T18:00:00Z")
    (temporary,) = read_temporaries(raised)
    assert (temporary.until, temporary.edits[0].before) == ("2026-05-01T18:00:00Z", "1Gi")
    early = take_back(raised, NOON)
    assert (early.step, early.write, early.why) == (
        WAIT,
        None,
        "the next temporary change ends at 2026-05-01T18:00:00Z",
    )
    late = take_back(raised, NOON + 6 * 3600)
    assert (late.step, late.what) == (ROLL, "main: limits memory 2Gi -> 1Gi")
    back = complete(carry_out(raised, late))
    assert (read_memory(back), read_temporaries(back)) == ("1Gi", ())
    assert take_back(back, NOON + 9e9).write is None


def test_an_end_can_be_moved_without_another_rollout() -> None:
    """It is written alone."""
    raised = set_memory(make_workload(), "2Gi", "2026-05-01T18:00:00Z")
    later = plan(raised, [], Declared(values={MEMORY: "2048Mi"}, until="2026-05-02T18:00:00Z"))
    assert (later.step, later.what, later.changes_template) == (WAIT, "end at 2026-05-02T18:00:00Z", False)
    assert read_temporaries(carry_out(raised, later))[0].until == "2026-05-02T18:00:00Z"


def test_a_second_temporary_change_of_a_value_gives_back_the_first_one() -> None:
    """And a lasting one ends it."""
    twice = set_memory(
        set_memory(set_memory(make_workload(), "1Gi"), "2Gi", "2026-05-01T18:00:00Z"), "3Gi", "2026-05-01T20:00:00Z"
    )
    assert [entry.until for entry in read_temporaries(twice)] == ["2026-05-01T20:00:00Z"]
    assert read_memory(complete(carry_out(twice, take_back(twice, NOON + 9 * 3600)))) == "1Gi"
    lasting = set_memory(twice, "4Gi")
    assert read_temporaries(lasting) == ()


def test_what_somebody_has_set_since_stays() -> None:
    """Only the note of it goes."""
    raised = set_memory(make_workload(), "2Gi", "2026-05-01T18:00:00Z")
    theirs = copy.deepcopy(raised.raw)
    theirs["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"]["memory"] = "5Gi"
    workload = Workload.from_object(theirs)
    planned = take_back(workload, NOON + 9 * 3600)
    assert (planned.step, planned.what) == (WAIT, "forget what has been given back already")
    after = carry_out(workload, planned)
    assert (read_memory(after), read_temporaries(after)) == ("5Gi", ())


def test_an_undo_gives_temporary_changes_their_notes_back() -> None:
    """A rollout that takes one back, and fails, leaves it in force."""
    raised = set_memory(make_workload(), "2Gi", "2026-05-01T18:00:00Z")
    back = Known(8, "w-8", "h8", raised.template)
    planned = plan(raised, [back], Declared(takes_back=True), at=NOON + 9 * 3600)
    undone = undo(carry_out(raised, planned), back)
    assert read_temporaries(undone) == read_temporaries(raised) != ()


# --- options --------------------------------------------------------------------------------------------------------


def test_options_become_values() -> None:
    """Numbers and booleans of YAML are the text that a container gets."""
    containers = [
        {
            "name": "main",
            "image": "j",
            "env": {"N": 8, "YES": True, "GONE": None},
            "resources": {"requests": {"cpu": 2}, "limits": None},
        }
    ]
    values = read_values({"containers": containers, "pod_annotations": {"a": 1, "b": None}}, make_workload())
    assert values == {
        IMAGE_OF_MAIN: "j",
        Place("main", ENV, "N"): {"value": "8"},
        Place("main", ENV, "YES"): {"value": "true"},
        Place("main", ENV, "GONE"): None,
        Place("main", REQUESTS, "cpu"): 2,
        Place("", ANNOTATION, "a"): "1",
        Place("", ANNOTATION, "b"): None,
    }


def test_an_image_alone_is_that_of_the_only_container() -> None:
    """Init containers do not count; of two the name has to be said."""
    workload = make_workload()
    workload.template["spec"]["initContainers"] = [{"name": "prepare", "image": "p"}]
    assert read_values({"image": "j"}, workload) == {IMAGE_OF_MAIN: "j"}
    workload.template["spec"]["containers"].append({"name": "sidecar", "image": "s"})
    with pytest.raises(Refusal, match=r"its pods have 2 containers: main, sidecar\. Name the container in containers"):
        read_values({"image": "j"}, workload)


# --- revisions --------------------------------------------------------------------------------------------------------


def make_replica_set(number: int, image: str, *, owner: str = "u", history: str = "") -> Json:
    """Return a ReplicaSet of the Deployment."""
    annotations = {
        "deployment.kubernetes.io/revision": str(number),
        "deployment.kubernetes.io/revision-history": history,
    }
    template = copy.deepcopy(make_workload(image=image).template)
    template["metadata"]["labels"]["pod-template-hash"] = f"h{number}"
    return {
        "metadata": {
            "name": f"w-{number}",
            "labels": {"pod-template-hash": f"h{number}"},
            "annotations": annotations,
            "ownerReferences": [{"uid": owner, "controller": True}],
        },
        "spec": {"template": template},
    }


def test_revisions_of_a_deployment_are_its_replica_sets() -> None:
    """Newest first, none of another owner, and each also by the numbers that it had."""
    workload = make_workload()
    objects = [make_replica_set(2, "j"), make_replica_set(3, "i", history="1"), make_replica_set(9, "x", owner="other")]
    revisions = read_revisions(workload, objects)
    assert [(entry.number, entry.hash, entry.former) for entry in revisions] == [(3, "h3", (1,)), (2, "h2", ())]
    assert revisions[0].template == workload.template
    for number in (1, 3):
        assert find_by_number(revisions, number, title="T", declared=None) == revisions[0]
    with pytest.raises(Refusal) as caught:
        find_by_number(revisions, 4, title="T", declared=None)
    assert "it has no such revision; it has 3 (i), 2 (j)" in str(caught.value)


def test_a_revision_that_was_rolled_out_again_is_known_by_the_number_that_was_asked_for() -> None:
    """A StatefulSet gives it a new one, so that a second run would not find it."""
    workload = make_workload("StatefulSet", image="j")
    first = [know(workload, 2, "j"), know(workload, 1, "i")]
    after = complete(carry_out(workload, plan(workload, first, Declared(revision=1))))
    assert after.template["spec"]["containers"][0]["image"] == "i"
    later = [first[1]._replace(number=3), first[0]]
    again = plan(after, later, Declared(revision=1))
    assert (again.step, again.write) == (WAIT, None)


@pytest.mark.parametrize("word", ["previous", "-1", "0", "1.5", ""])
def test_a_revision_is_a_number(word: str) -> None:
    """What means another one at each run is refused, with the number to write."""
    workload = make_workload(image="k")
    revisions = [know(workload, 9, "k"), know(workload, 7, "j")]
    assert parse_revision(" 7 ", revisions, revisions[0], "T") == 7
    assert parse_revision(None, revisions, revisions[0], "T") is None
    with pytest.raises(Refusal) as caught:
        parse_revision(word, revisions, revisions[0], "T")
    assert "the one before the present one is 7" in str(caught.value)


# --- numbers --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "spec", "count"),
    [
        ("Deployment", {}, 1),
        ("Deployment", {"strategy": {"rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}}}, 0),
        ("Deployment", {"strategy": {"rollingUpdate": {"maxUnavailable": "10%", "maxSurge": "0%"}}}, 1),
        ("Deployment", {"strategy": {"rollingUpdate": {"maxUnavailable": "50%", "maxSurge": 0}}}, 2),
        ("Deployment", {"strategy": {"type": "Recreate"}}, 4),
        ("StatefulSet", {}, 1),
        ("DaemonSet", {}, 1),
        ("DaemonSet", {"updateStrategy": {"rollingUpdate": {"maxUnavailable": "30%"}}}, 2),
    ],
)
def test_how_many_pods_go_first(kind: str, spec: Json, count: int) -> None:
    """By the strategy, as its controller rounds it."""
    assert count_unavailable(make_workload(kind, **spec)) == count


def test_the_way_back_by_hand_is_a_command() -> None:
    """With the kind, the namespace and the number."""
    parallel = make_workload("StatefulSet", podManagementPolicy="Parallel")
    assert describe_by_hand(parallel, 7, "w-bad") == (
        "kubectl rollout undo statefulset/w --namespace n --to-revision=7 && kubectl rollout status statefulset/w"
        " --namespace n"
    )


def test_the_way_back_by_hand_deletes_what_holds_up_a_statefulset() -> None:
    """With OrderedReady it replaces no pod of the failed revision that is not ready (kubernetes#67250)."""
    ordered = make_workload("StatefulSet")
    assert " && kubectl delete pod --namespace n POD (the one that is not ready) && " in describe_by_hand(
        ordered, 7, ""
    )
    command = "kubectl delete pod --namespace n --selector app=w,controller-revision-hash=w-bad"
    assert describe_by_hand(ordered, 7, "w-bad").split(" && ")[1] == command
