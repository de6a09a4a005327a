# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""When a rollout is done, why it is not, and the words for both."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from ansible_collections.lowtide.ops.plugins.module_utils._common.errors import WaitFailed, WaitTimeout
from ansible_collections.lowtide.ops.plugins.module_utils._common.outcome import Outcome
from ansible_collections.lowtide.ops.plugins.module_utils._common.retry import Deadline
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.cache import Cache
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.diagnosis import Finding, GracePeriod
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.objects import Pod, Workload
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.pod_templates import ENV, LIMITS, Edit, Place
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.revisions import Known
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.rollout_cause import (
    find_cause,
    find_digest_problem,
    find_mixed_tags,
    find_other_digests,
    find_start,
)
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.rollout_conditions import RolledOut
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.rollout_summary import (
    AS_DECLARED,
    DONE,
    FAILED,
    NOT_UNDONE,
    PLANNED,
    UNDONE,
    describe_edits,
    list_rollout_evidence,
    summarize_rollout,
)
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.snapshot import Snapshot
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.wait import FindingLasted, wait_until
from support.memory_controllers import NAMESPACE, describe_workload
from support.memory_kubernetes import MemoryServer

Json = dict[str, Any]


def make(kind: str = "Deployment", *, image: str = "i", generation: int = 2, **status: int) -> Workload:
    """Return a workload of 3 replicas with this status; without one all pods are new and serve."""
    obj = describe_workload(kind, "w", 3)
    obj["metadata"] |= {"uid": "u", "generation": generation}
    obj["spec"]["template"]["spec"]["containers"][0]["image"] = image
    counts = dict.fromkeys(("replicas", "readyReplicas", "availableReplicas", "updatedReplicas"), 3)
    obj["status"] = {"observedGeneration": generation, **counts, **status}
    return Workload.from_object(obj)


def evaluate(written: Workload, now: Workload) -> Any:
    """Evaluate that the template that was written is rolled out."""
    return RolledOut(written, None).evaluate(Snapshot.from_objects([now.raw]))


def test_what_is_true_of_the_old_pods_does_not_count() -> None:
    """All pods are ready, updated and available, of the generation before."""
    before = make(generation=1)
    written = Workload.from_object({**make(image="j").raw, "status": before.raw["status"]})
    assert evaluate(written, written).state == "InProgress"
    assert evaluate(written, make(image="j", updatedReplicas=1)).state == "InProgress"
    assert evaluate(written, make(image="j", replicas=4)).state == "InProgress"
    assert evaluate(written, make(image="j")).is_current


def test_an_undo_makes_it_no_worse_than_it_was() -> None:
    """A pod that did not serve before is not asked for; another one is."""
    written = make(image="j")
    condition = RolledOut(written, None, lacking=1)

    def look(**status: Any) -> bool:
        return bool(condition.evaluate(Snapshot.from_objects([make(image="j", **status).raw])).is_current)

    assert look(readyReplicas=2, availableReplicas=2)
    assert not look(readyReplicas=1, availableReplicas=1)
    assert not look(readyReplicas=2, availableReplicas=2, updatedReplicas=1)
    assert not evaluate(written, make(image="j", readyReplicas=2, availableReplicas=2)).is_current


def test_pods_have_to_serve_for_a_while_without_a_break() -> None:
    """One that crashes after its start is ready for a moment."""
    written = make(image="j")
    condition = RolledOut(written, None, serve_seconds=5.0)

    def look(workload: Workload, at: float) -> tuple[bool, float | None]:
        status = condition.evaluate(Snapshot.from_objects([workload.raw], at=at))
        return status.is_current, status.look_again

    unready = make(image="j", readyReplicas=2)
    looks = [look(written, 10.0), look(written, 14.0), look(unready, 14.5), look(written, 15.5), look(written, 20.5)]
    assert looks == [(False, 5.0), (False, 1.0), (False, None), (False, 5.0), (True, None)]
    stopped = describe_stopped(written)
    assert RolledOut(stopped, None, serve_seconds=5.0).evaluate(Snapshot.from_objects([stopped.raw])).is_current


def describe_stopped(workload: Workload) -> Workload:
    """Return the workload at 0 replicas, of which nothing can serve."""
    raw = copy.deepcopy(workload.raw)
    raw["spec"]["replicas"] = 0
    raw["status"] |= dict.fromkeys(("replicas", "readyReplicas", "availableReplicas", "updatedReplicas"), 0)
    return Workload.from_object(raw)


def test_a_wait_looks_again_when_a_condition_may_hold_without_a_change(memory: MemoryServer) -> None:
    """Nothing announces that time has passed."""
    memory.put(make().raw)
    client = memory.client(deadline=Deadline(60))
    with Cache(client) as cache:
        cache.follow("Deployment", NAMESPACE, name="w")
        outcome = Outcome()
        condition = RolledOut(make(), None, serve_seconds=0.3)
        wait_until([condition], cache, deadline=client.deadline, grace=GracePeriod(), outcome=outcome)
    assert 0.3 <= outcome.waited < 20


def test_another_template_is_somebody_elses() -> None:
    """Another number of replicas is not."""
    written = make(image="j")
    theirs = make(image="k", generation=3)
    theirs.raw["metadata"]["managedFields"] = [
        {"manager": "lowtide.ops", "fieldsV1": {"f:spec": {"f:template": {}}}},
        {"manager": "kubectl-edit", "fieldsV1": {"f:spec": {"f:template": {}}}},
    ]
    status = evaluate(written, theirs)
    assert (status.is_failed, status.message) == (
        True,
        "its pod template was changed by kubectl-edit while it was rolled out",
    )
    assert evaluate(written, make(image="j", generation=3)).is_current


def test_a_partition_leaves_pods_alone() -> None:
    """It is done when all others are new, and all serve."""
    written = make("StatefulSet", image="j", updatedReplicas=1)
    written.raw["spec"]["updateStrategy"] = {"rollingUpdate": {"partition": 2}}
    written = Workload.from_object(written.raw)
    assert evaluate(written, written).is_current
    unready = copy.deepcopy(written.raw)
    unready["status"]["readyReplicas"] = 2
    assert not evaluate(written, Workload.from_object(unready)).is_current


def test_a_wait_that_goes_on_counts_from_its_beginning(memory: MemoryServer) -> None:
    """What another run began to wait for has failed since, and is named; the error has the finding."""
    deadline = {"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded", "message": "timed out"}
    obj = copy.deepcopy(make(updatedReplicas=1).raw)
    obj["status"]["conditions"] = [{**deadline, "lastUpdateTime": "2026-05-01T12:00:00Z"}]
    memory.put(obj)
    client = memory.client(deadline=Deadline(0.4))
    for since, kind in ((1_777_636_000.0, FindingLasted), (1_777_640_000.0, WaitTimeout)):
        with Cache(client) as cache:
            cache.follow("Deployment", NAMESPACE, name="w")
            with pytest.raises(kind) as caught:
                wait_until(
                    [RolledOut(make(), None)],
                    cache,
                    deadline=client.deadline,
                    grace=GracePeriod(),
                    outcome=Outcome(),
                    since=since,
                )
        if isinstance(caught.value, FindingLasted):
            assert caught.value.finding.reason == "ProgressDeadlineExceeded"
        client.deadline = Deadline(0.4)


def make_pod(name: str, owner: str, *, reason: str = "", image_id: str = "id") -> Json:
    """Return a pod of the workload."""
    state = {"waiting": {"reason": reason, "message": "m"}} if reason else {"running": {}}
    ready = {"type": "Ready", "status": "False" if reason else "True"}
    container = {"name": "main", "image": "i", "imageID": image_id, "state": state}
    return {
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": NAMESPACE,
            "uid": name,
            "labels": {"controller-revision-hash": "new"},
            "ownerReferences": [{"uid": owner, "kind": "StatefulSet", "name": "w", "controller": True}],
        },
        "status": {"phase": "Pending", "conditions": [ready], "containerStatuses": [container]},
    }


def test_the_cause_comes_before_the_symptom() -> None:
    """That a deadline has passed says nothing where a pod says why."""
    workload = make("StatefulSet", updatedReplicas=1)
    workload.raw["status"]["updateRevision"] = "new"
    workload = Workload.from_object(workload.raw)
    symptom = Finding("ProgressDeadlineExceeded", workload.title, "timed out")
    error = FindingLasted(symptom, obj=workload.title, problem="p", next_step="n")
    pod = make_pod("w-2", "u", reason="InvalidImageName")
    cause, shown = find_cause(error, Snapshot.from_objects([workload.raw, pod]), workload, since=0.0)
    assert (cause.reason, cause.object, shown.name if shown else None) == ("InvalidImageName", "Pod n/w-2", "w-2")
    cause, shown = find_cause(error, Snapshot.from_objects([workload.raw]), workload, since=0.0)
    assert (cause.reason, shown) == ("ProgressDeadlineExceeded", None)
    plain = WaitFailed(obj="o", problem="p", next_step="n")
    cause, shown = find_cause(plain, Snapshot.from_objects([workload.raw]), workload, since=0.0)
    assert (cause.reason, cause.message) == ("Timeout", "p")


def test_a_pod_that_is_not_ready_comes_before_a_deadline_that_has_passed() -> None:
    """Which follows from it."""
    workload = make("StatefulSet", updatedReplicas=1)
    workload.raw["status"]["updateRevision"] = "new"
    workload = Workload.from_object(workload.raw)
    pod = make_pod("w-2", "u")
    pod["status"] |= {"phase": "Running", "conditions": [{"type": "Ready", "status": "False", "message": "unready"}]}
    error = FindingLasted(
        Finding("ProgressDeadlineExceeded", workload.title, "timed out"), obj="o", problem="p", next_step="n"
    )
    cause, _pod = find_cause(error, Snapshot.from_objects([workload.raw, pod]), workload, since=0.0)
    assert (cause.reason, cause.message) == ("ContainersNotReady", "unready")


def test_what_was_said_of_the_template_before_does_not_count() -> None:
    """The condition may stand there for a while, by a clock that is ahead."""
    said = {"type": "Progressing", "status": "False", "lastUpdateTime": "2026-05-01T12:00:00Z"}
    raw = copy.deepcopy(make().raw)
    raw["status"]["conditions"] = [said]
    noon = 1_777_636_800.0
    workload = Workload.from_object(raw)
    assert find_start(workload, noon - 5) == find_start(workload, noon) == noon + 1
    assert find_start(workload, noon + 60) == noon + 60
    assert find_start(make(), noon) == noon


DIGEST = f"sha256:{'a' * 64}"


def show(*image_ids: str) -> list[Json]:
    """Return what pods run."""
    return [
        {"pod": f"w-{number}", "container": "main", "image": "i", "image_id": image_id}
        for number, image_id in enumerate(image_ids)
    ]


@pytest.mark.parametrize(
    ("image", "asked", "said"),
    [
        (f"r/i@{DIGEST}", [f"r/i@{DIGEST}", f"mirror/i@{DIGEST}"], None),
        (f"r/i@{DIGEST}", [f"r/i@{DIGEST}", "r/i:1"], "Pod w-1: container main asks for r/i:1, not r/i@sha256"),
        ("r/i:1", ["anything"], None),
    ],
)
def test_a_pod_has_to_ask_for_the_digest_that_is_declared(image: str, asked: list[str], said: str | None) -> None:
    """A tag promises nothing; the runtime verifies a digest."""
    objects = [
        {"metadata": {"name": f"w-{number}"}, "spec": {"containers": [{"name": "main", "image": entry}]}}
        for number, entry in enumerate(asked)
    ]
    problem = find_digest_problem(make(image=image).template, [Pod.from_object(obj) for obj in objects])
    assert (problem is None) is (said is None)
    assert said is None or said in str(problem)


def test_an_image_that_a_node_shows_under_another_digest_is_a_warning() -> None:
    """As the digest of its configuration; it proves nothing."""
    template = make(image=f"r/i@{DIGEST}").template
    assert find_other_digests(template, show(f"r/i@{DIGEST}", DIGEST, "")) == []
    (warning,) = find_other_digests(template, show(f"r/i@{DIGEST}", "sha256:b"))
    assert f"asked for r/i@{DIGEST}, and nodes show it as sha256:b;" in warning
    assert find_other_digests(make(image="r/i:1").template, show("anything")) == []


def test_one_tag_with_several_images_is_a_warning() -> None:
    """The nodes have pulled it at different times."""
    template = make(image="r/i:1").template
    assert find_mixed_tags(template, show("a", "a", "")) == []
    assert find_mixed_tags(template, show("a", "b")) == [
        "container main: r/i:1 is 2 different images on the nodes (a, b); name the image by its digest"
    ]


@pytest.mark.parametrize(
    ("state", "partition", "sentence"),
    [
        (PLANNED, 0, "would roll out Deployment n/w: image"),
        (DONE, 0, "rolled out Deployment n/w: image; revision 7 serves with 3 replicas"),
        (DONE, 2, "rolled out Deployment n/w: image; 1 of 3 replicas are of revision 7 and serve (partition 2)"),
        (AS_DECLARED, 0, "Deployment n/w is as declared: revision 7, 3 of 3 replicas ready (3 pods)"),
        (UNDONE, 0, "the rollout of Deployment n/w failed (Why) and was undone: revision 7 serves again"),
        (
            NOT_UNDONE,
            0,
            "the rollout of Deployment n/w failed (Why), and its undo did not succeed: a person has to act",
        ),
        (FAILED, 0, "the rollout of Deployment n/w failed (Why) and is left as it is"),
    ],
)
def test_the_summary_says_in_one_line_what_became_of_it(state: str, partition: int, sentence: str) -> None:
    """Each end has its own."""
    revision = Known(7, "w-7", "h7", make().template)
    said = summarize_rollout(make(), state, what="image", revision=revision, cause="Why", partition=partition)
    assert said == sentence


def test_evidence_is_what_pods_really_run() -> None:
    """Beside the numbers and the revision."""
    revision = Known(7, "w-7", "h7", make().template)
    assert list_rollout_evidence(make(), show("a", "a", "b"), revision) == [
        "Deployment n/w: 3 of 3 replicas ready (3 pods)",
        "revision 7 (w-7): i",
        "container main of w-0, w-1 runs a",
        "container main of w-2 runs b",
    ]


def test_a_diff_does_not_show_values_of_variables() -> None:
    """They may be secrets. That they change can be seen all the same."""
    edits = [
        Edit(Place("main", ENV, "PASSWORD"), {"value": "old"}, {"value": "new"}),
        Edit(Place("main", ENV, "GONE"), {"value": "old"}, None),
        Edit(Place("main", LIMITS, "memory"), None, "1Gi"),
    ]
    before, after = describe_edits(edits)
    assert before == {
        "main: env PASSWORD": "(another value)",
        "main: env GONE": "(another value)",
        "main: limits memory": None,
    }
    assert after == {"main: env PASSWORD": "(the declared value)", "main: env GONE": None, "main: limits memory": "1Gi"}


def test_a_deadline_that_progress_renews_cuts_no_request_off(memory: MemoryServer) -> None:
    """The client's own deadline is the one that a wait renews; a second time as long has passed since it began."""
    memory.put(make().raw)
    now = 0.0
    deadline = Deadline(5, clock=lambda: now)
    client = memory.client(deadline=deadline)
    now = 8.0
    deadline.renew()
    now = 12.0
    assert client.list("/apis/apps/v1/namespaces/n/deployments", obj="Deployments").items
    assert (deadline.elapsed, deadline.remaining, deadline.passed) == (12.0, 1.0, False)
    now = 14.0
    assert (deadline.left, deadline.remaining, deadline.passed) == (-1.0, 0.0, True)


def test_progress_is_counted_of_new_pods_that_are_ready() -> None:
    """Nothing is said before its controller has seen the template."""
    written = make(image="j")
    steps: list[Json] = [
        {"updatedReplicas": 0},
        {"replicas": 4, "updatedReplicas": 1},
        {"replicas": 4, "updatedReplicas": 1, "readyReplicas": 4},
        {"replicas": 4, "updatedReplicas": 1, "readyReplicas": 4, "availableReplicas": 4},
        {"replicas": 2, "updatedReplicas": 1, "readyReplicas": 2, "availableReplicas": 2},
    ]
    told = [evaluate(written, make(image="j", **step)).progress for step in steps]
    assert told == [0, 0, 1, 2, 2]
    assert evaluate(written, make(generation=1)).progress is None
