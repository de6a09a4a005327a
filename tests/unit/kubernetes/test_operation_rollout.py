# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""k8s_rollout against the API server in memory: what is rolled out, what is written, and what a second run does."""

from __future__ import annotations

from typing import Any

import pytest

from support.memory_controllers import NAMESPACE, describe_hpa
from support.memory_kubernetes import MemoryServer
from support.memory_objects import format_now
from support.memory_rollouts import PULL, RolloutControllers
from support.operation_runs import list_writes

from .rollout_steps import (
    KEY,
    KINDS,
    QUICK,
    check_done,
    read_image,
    read_pod_images,
    read_saved,
    read_template,
    roll_out,
)

Json = dict[str, Any]


@pytest.fixture
def controllers(memory: MemoryServer) -> RolloutControllers:
    """Who replaces pods at once."""
    return RolloutControllers(memory)


@pytest.mark.parametrize("kind", KINDS)
def test_a_declared_image_is_rolled_out_once(memory: MemoryServer, controllers: RolloutControllers, kind: str) -> None:
    """Check mode predicts it and writes nothing; one write changes it, one says that it is done; then nothing more."""
    controllers.add(kind)
    predicted = check_done(roll_out(memory, kind, image="j", check=True))
    assert (list_writes(memory), read_image(memory, kind)) == ([], "i")
    done = check_done(roll_out(memory, kind, image="j"))
    for key in ("plan", "diff", "changed"):
        assert predicted[key] == done[key], key
    assert done["plan"][0]["what"] == "main: image i -> j"
    assert done["plan"][0]["reversible"] is True
    assert [fields for _name, fields in list_writes(memory)] == [["rollout", "containers"], ["rollout"]]
    assert (read_pod_images(memory), done["revision"]) == ({"j"}, {"before": 1, "after": 2})
    saved = read_saved(memory, kind)
    assert saved is not None
    assert (saved["completed"], saved["back"]["number"]) == (True, 1)
    memory.log.clear()
    again = check_done(roll_out(memory, kind, image="j"))
    assert (again.changed, again["plan"], memory.count("patch")) == (False, [], 0)


def test_an_earlier_revision_is_declared_by_its_number(memory: MemoryServer, controllers: RolloutControllers) -> None:
    """With its whole template; a second run finds it, although it has another number then."""
    controllers.add("StatefulSet")
    first = read_template(memory, "StatefulSet")
    check_done(roll_out(memory, "StatefulSet", image="j", pod_annotations={"a": "b"}))
    back = check_done(roll_out(memory, "StatefulSet", revision="1"))
    assert back["plan"][0]["what"] == "revision 2 -> 1 (i)"
    assert read_template(memory, "StatefulSet") == first
    assert (back["revision"], [entry["number"] for entry in back["revisions"]]) == ({"before": 2, "after": 3}, [3, 2])
    again = check_done(roll_out(memory, "StatefulSet", revision="1"))
    assert again.changed is False
    unknown = roll_out(memory, "StatefulSet", revision="9")
    assert "it has no such revision; it has 3 (i), 2 (j)" in unknown.msg
    word = roll_out(memory, "StatefulSet", revision="previous")
    assert "Write the number of the revision that is meant; the one before the present one is 2" in word.msg
    assert unknown["error"]["refused"] is word["error"]["refused"] is True


def test_pods_that_are_older_are_replaced_once(memory: MemoryServer, controllers: RolloutControllers) -> None:
    """By the annotation of kubectl; what was replaced since stays."""
    controllers.add("Deployment")
    old = "2026-01-01T00:00:00Z"
    for pod in memory.read_all("Pod"):
        memory.remove("Pod", NAMESPACE, pod["metadata"]["name"])
        pod["metadata"]["creationTimestamp"] = old
        memory.put(pod)
    before = check_done(roll_out(memory, restarted_after="2025-12-31T23:59:59Z"))
    assert before.changed is False
    done = check_done(roll_out(memory, restarted_after="2026-01-01T00:00:01Z"))
    assert done["plan"][0]["what"] == "replace pods that are older than 2026-01-01T00:00:01Z"
    assert read_template(memory)["metadata"]["annotations"] == {
        "kubectl.kubernetes.io/restartedAt": "2026-01-01T00:00:01Z"
    }
    assert all(pod["metadata"]["creationTimestamp"] > old for pod in memory.read_all("Pod"))
    assert check_done(roll_out(memory, restarted_after="2026-01-01T00:00:01Z")).changed is False
    future = roll_out(memory, restarted_after="2099-01-01T00:00:00Z")
    assert "is in the future" in future.msg
    assert "is no moment" in roll_out(memory, restarted_after="yesterday").msg


def test_a_canary_is_some_pods_and_a_promotion_the_rest(memory: MemoryServer, controllers: RolloutControllers) -> None:
    """Each is done when its pods serve."""
    controllers.add("StatefulSet", replicas=3)
    canary = check_done(roll_out(memory, "StatefulSet", image="j", partition=2))
    assert canary["summary"].endswith("1 of 3 replicas are of revision 2 and serve (partition 2)")
    assert read_pod_images(memory) == {"i", "j"}
    assert check_done(roll_out(memory, "StatefulSet", image="j", partition=2)).changed is False
    controllers.failures["j"] = PULL
    memory.remove("Pod", NAMESPACE, "w-2")
    promoted = roll_out(memory, "StatefulSet", image="j", partition=0, **QUICK)
    assert (promoted["rolled_back"], read_pod_images(memory)) == (True, {"i"})
    strategy = memory.read("StatefulSet", NAMESPACE, "w")["spec"]["updateStrategy"]
    assert strategy == {"rollingUpdate": {"partition": 0}}


def test_a_temporary_change_is_taken_back_when_its_end_has_come(
    memory: MemoryServer, controllers: RolloutControllers
) -> None:
    """By a run that declares nothing else."""
    controllers.add("Deployment")
    assert check_done(roll_out(memory, state="expired")).changed is False
    amounts = [{"name": "main", "resources": {"limits": {"memory": "2Gi"}}}]
    done = check_done(roll_out(memory, containers=amounts, until="2099-01-01T00:00:00Z"))
    assert done["temporary"] == [{"until": "2099-01-01T00:00:00Z", "what": ["main: limits memory none -> 2Gi"]}]
    early = check_done(roll_out(memory, state="expired"))
    assert (early.changed, early["plan"]) == (False, [])

    def end(obj: Json) -> None:
        annotations = obj["metadata"]["annotations"]
        annotations[KEY] = annotations[KEY].replace("2099-01", "2026-01")

    memory.change("Deployment", NAMESPACE, "w", end)
    late = check_done(roll_out(memory, state="expired"))
    assert late["plan"][0]["what"] == "main: limits memory 2Gi -> none"
    assert (late["temporary"], read_saved(memory, operation="temporary")) == ([], None)
    assert "limits" not in read_template(memory)["spec"]["containers"][0].get("resources", {})
    assert check_done(roll_out(memory, state="expired")).changed is False
    assert "has passed" in roll_out(memory, image="j", until="2026-01-01T00:00:00Z").msg
    assert "declares nothing else" in roll_out(memory, state="expired", image="j").msg
    assert "no value that could be taken back" in roll_out(memory, until="2099-01-01T00:00:00Z", revision="1").msg


@pytest.mark.parametrize("ahead", [-3600.0, 3600.0])
def test_an_end_is_judged_by_the_clock_of_the_server(
    memory: MemoryServer, controllers: RolloutControllers, ahead: float
) -> None:
    """Whatever the clock of this machine says: an end in half an hour of theirs has not come, one before half an hour has."""
    controllers.add("Deployment")
    memory.clock_ahead = ahead
    past, coming = format_now(ahead - 1800), format_now(ahead + 1800)
    refused = roll_out(memory, pod_annotations={"a": "b"}, until=past)
    assert (refused["error"]["object"], refused["error"]["problem"]) == ("option until", f"{past} has passed")
    made = check_done(roll_out(memory, pod_annotations={"a": "b"}, until=coming, serve_seconds=0.0))
    assert made["temporary"][0]["until"] == coming
    saved = read_saved(memory, operation="temporary")
    assert saved is not None
    assert format_now(ahead - 60) <= saved["changes"][0]["at"] <= format_now(ahead + 60)
    assert not check_done(roll_out(memory, state="expired")).changed
    memory.clock_ahead = ahead + 3600.0
    assert check_done(roll_out(memory, state="expired", serve_seconds=0.0)).changed


def test_a_digest_that_a_pod_does_not_ask_for_is_a_failure(
    memory: MemoryServer, controllers: RolloutControllers
) -> None:
    """Although everything serves; it is undone. What its node shows as the image is a warning at most."""
    controllers.add("StatefulSet")
    image = f"r/i@sha256:{'a' * 64}"
    controllers.rewritten["w-1"] = "mirror/i:1"
    run = roll_out(memory, "StatefulSet", image=image)
    assert (run.failed, run["rolled_back"], run["cause"]["reason"]) == (True, True, "WrongImage")
    assert (read_image(memory, "StatefulSet"), "Pod w-1: container main asks for mirror/i:1" in run.msg) == ("i", True)
    controllers.rewritten["w-1"] = f"mirror/i@sha256:{'a' * 64}"
    controllers.image_ids.update({"w-0": image, "w-1": f"sha256:{'c' * 64}"})
    shown = check_done(roll_out(memory, "StatefulSet", image=image))
    assert any(f"asked for {image}, and nodes show it as sha256:ccc" in warning for warning in shown["warnings"])
    controllers.rewritten.clear()
    mixed = {"w-0": "one", "w-1": "two"}
    controllers.image_ids.update(mixed)
    warned = check_done(roll_out(memory, "StatefulSet", image="r/i:1"))
    assert any("is 2 different images on the nodes (one, two)" in warning for warning in warned["warnings"])


@pytest.mark.parametrize(("ago", "is_crashing"), [(0.0, True), (0.0, False), (3600.0, False)])
def test_what_runs_between_two_crashes_does_not_serve_yet(
    memory: MemoryServer, controllers: RolloutControllers, ago: float, is_crashing: bool
) -> None:
    """A container without a probe is ready at once, so one that was restarted just now has to stay; an old restart is none."""
    controllers.add("Deployment")

    def change(pod: Json, state: Json, *, restarts: int, is_ready: bool) -> None:
        container = pod["status"]["containerStatuses"][0]
        container.update(
            restartCount=restarts, state=state, lastState={"terminated": {"exitCode": 3, "reason": "Error"}}
        )
        container["ready"] = is_ready
        pod["status"]["conditions"] = [{"type": "Ready", "status": str(is_ready)}]

    def crash() -> None:
        waiting = {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off"}}
        memory.change("Pod", NAMESPACE, "w-0", lambda pod: change(pod, waiting, restarts=9, is_ready=False))
        controllers.held.add("w")
        memory.change(
            "Deployment", NAMESPACE, "w", lambda obj: obj["status"].update(readyReplicas=1, availableReplicas=1)
        )

    running = {"running": {"startedAt": format_now(-ago)}}
    memory.change("Pod", NAMESPACE, "w-0", lambda pod: change(pod, running, restarts=5, is_ready=True))
    if is_crashing:
        memory.add_rival(crash, when="after", verb="list", path="/pods")
    run = roll_out(memory, image="i", **{**QUICK, "serve_seconds": 1.5})
    assert run.failed is is_crashing
    if is_crashing:
        assert (run.changed, "CrashLoopBackOff: Pod n/w-0: container main" in run.msg) == (False, True)


# --- what is refused --------------------------------------------------------------------------------------------------


def test_a_schema_that_the_code_does_not_know_is_refused(memory: MemoryServer, controllers: RolloutControllers) -> None:
    """On the way there, and on the way back: what cannot be undone stops with the step for a person."""
    controllers.add("Deployment")
    versions = "lowtide.ops/schema-versions"
    assert check_done(roll_out(memory, pod_annotations={versions: "40-41"}, schema_version=41)).changed
    wrong = roll_out(memory, image="j", schema_version=42)
    assert "it works with schema versions 40-41, and the schema is of version 42" in wrong.msg
    assert "schema_version does not say which one there is" in roll_out(memory, image="j").msg
    assert "has no annotation" in roll_out(memory, revision="1", schema_version=41).msg
    controllers.failures["bad"] = PULL
    run = roll_out(memory, image="bad", pod_annotations={versions: "42"}, schema_version=42, **QUICK)
    assert (run["rolled_back"], read_image(memory)) == (False, "bad")
    assert run["plan"][0]["reversible"] is False
    assert "it was not undone, since it works with schema versions 40-41, and the schema is of version 42" in run.msg
    assert "kubectl rollout undo deployment/w --namespace n --to-revision=2" in run.msg


def test_guards_refuse_before_the_first_write(memory: MemoryServer, controllers: RolloutControllers) -> None:
    """A quota, a LimitRange and a node without room; left out, nothing is asked."""
    controllers.add("Deployment")
    amounts: Json = {"requests": {"memory": "2Gi"}, "limits": {"memory": "3Gi"}}
    memory.put(
        {
            "kind": "LimitRange",
            "metadata": {"name": "l", "namespace": NAMESPACE},
            "spec": {"limits": [{"type": "Container", "max": {"memory": "1Gi"}}]},
        }
    )
    change: Json = {"containers": [{"name": "main", "resources": amounts}]}
    assert "LimitRange l allows at most 1Gi" in roll_out(memory, **change).msg
    quota = {"hard": {"requests.memory": "1Gi"}, "used": {"requests.memory": "0"}}
    memory.put({"kind": "ResourceQuota", "metadata": {"name": "q", "namespace": NAMESPACE}, "status": quota})
    refused = roll_out(memory, **change)
    assert "ResourceQuota n/q has 1073741824 of 1Gi left for that" in refused.msg
    assert refused["error"]["refused"] is True
    assert "0 fit" in roll_out(memory, guards=["capacity"], **change).msg
    amounts["limits"] = {"memory": "1Gi"}
    assert "requests 2147483648 of memory and is limited to 1073741824" in roll_out(memory, guards=[], **change).msg
    assert list_writes(memory) == []
    memory.log.clear()
    amounts["limits"] = {"memory": "2Gi"}
    check_done(roll_out(memory, guards=[], **change))
    assert memory.count("list", "/resourcequotas") + memory.count("list", "/limitranges") == 0


def test_an_autoscaler_at_its_maximum_and_one_of_shares_are_warned_of(
    memory: MemoryServer, controllers: RolloutControllers
) -> None:
    """Neither is in the way."""
    controllers.add("Deployment")
    hpa = describe_hpa("Deployment/w", 1, 2)
    target = {"type": "Utilization", "averageUtilization": 80}
    hpa["spec"]["metrics"] = [{"type": "Resource", "resource": {"name": "cpu", "target": target}}]
    memory.put(hpa)
    run = check_done(roll_out(memory, containers=[{"name": "main", "resources": {"requests": {"cpu": "1"}}}]))
    assert any("at its maximum of 2" in warning for warning in run["warnings"])
    assert any("with other requests it will ask for another number" in warning for warning in run["warnings"])
    other = check_done(roll_out(memory, image="j"))
    assert not any("with other requests" in warning for warning in other["warnings"])


def test_a_heap_above_the_limit_stops_only_what_is_about_it(
    memory: MemoryServer, controllers: RolloutControllers
) -> None:
    """It stood so before another image; another limit or heap has to fit."""
    controllers.add("Deployment")
    container = {"name": "main", "resources": {"limits": {"memory": "2Gi"}}, "env": {"JAVA_OPTS": "-Xmx3g"}}
    refused = roll_out(memory, containers=[container])
    assert "is told -Xmx3g" in refused.msg

    def tell(obj: Json) -> None:
        (own,) = obj["spec"]["template"]["spec"]["containers"]
        own |= {"resources": {"limits": {"memory": "2Gi"}}, "env": [{"name": "JAVA_OPTS", "value": "-Xmx3g"}]}

    memory.change("Deployment", NAMESPACE, "w", tell)
    run = check_done(roll_out(memory, check=True, image="i:2"))
    assert any("is told -Xmx3g" in warning and "as before this change" in warning for warning in run["warnings"])
    run = check_done(roll_out(memory, check=True, containers=[{"name": "main", "env": {"OTHER": "1"}}]))
    assert any("is told -Xmx3g" in warning for warning in run["warnings"])
    limits = {"limits": {"memory": "1Gi"}}
    assert "is told -Xmx3g" in roll_out(memory, check=True, containers=[{"name": "main", "resources": limits}]).msg


@pytest.mark.parametrize("check", [False, True])
def test_what_the_account_may_not_do_is_found_before(
    memory: MemoryServer, controllers: RolloutControllers, check: bool
) -> None:
    """Nothing is changed."""
    controllers.add("Deployment")
    memory.deny("patch", "deployments.apps")
    run = roll_out(memory, image="j", check=check)
    assert (run.failed, run["error"]["refused"], list_writes(memory)) == (True, True, [])


def test_an_undo_that_could_not_delete_pods_is_found_before(
    memory: MemoryServer, controllers: RolloutControllers
) -> None:
    """A StatefulSet might be stuck for ever. Where no undo is asked for, the right is not needed."""
    controllers.add("StatefulSet")
    memory.deny("delete", "pods")
    run = roll_out(memory, "StatefulSet", image="j")
    assert "it may not delete pods" in run.msg
    assert run["error"]["refused"] is True
    check_done(roll_out(memory, "StatefulSet", image="j", on_failure="stop"))


@pytest.mark.parametrize("check", [True, False])
def test_with_parallel_no_right_to_delete_pods_is_needed(
    memory: MemoryServer, controllers: RolloutControllers, check: bool
) -> None:
    """Its controller replaces pods that are not ready, so that nothing is ever deleted; an undo does without as well."""
    controllers.add("StatefulSet", podManagementPolicy="Parallel")
    memory.deny("delete", "pods")
    check_done(roll_out(memory, "StatefulSet", image="j", check=check))
    waiting = {"reason": "InvalidImageName", "message": "no"}
    controllers.failures["bad"] = {"restartCount": 0, "state": {"waiting": waiting}}
    undone = roll_out(memory, "StatefulSet", image="bad", check=check, **QUICK)
    assert undone.failed is not check
    assert check or undone["rolled_back"] is True
    assert [request for request in memory.log if request.verb == "delete"] == []


def test_a_write_without_an_answer_is_read_again(memory: MemoryServer, controllers: RolloutControllers) -> None:
    """It was carried out: it is not sent a second time, and the rollout is waited for and completed."""
    controllers.add("Deployment")
    memory.add_rival(lambda: memory.lose_next("after", verb="patch"), when="after", path="/deployments/w")
    done = check_done(roll_out(memory, image="j"))
    assert (read_image(memory), done.changed, done["revision"]) == ("j", True, {"before": 1, "after": 2})
    saved = read_saved(memory)
    assert saved is not None
    assert (saved["completed"], memory.count("patch")) == (True, 3)
    assert check_done(roll_out(memory, image="j")).changed is False


def test_what_another_client_changes_before_the_write_is_decided_about_again(
    memory: MemoryServer, controllers: RolloutControllers
) -> None:
    """Its change of another container stays, and a failure goes back to its revision."""
    controllers.add("Deployment")

    def add_container(obj: Json) -> None:
        obj["spec"]["template"]["spec"]["containers"].append({"name": "sidecar", "image": "s"})

    def act() -> None:
        memory.change("Deployment", NAMESPACE, "w", add_container)
        controllers.act()

    memory.add_rival(act, when="after", path="/deployments/w")
    done = check_done(roll_out(memory, containers=[{"name": "main", "image": "j"}]))
    assert done["images"] == {"main": "j", "sidecar": "s"}
    saved = read_saved(memory)
    assert saved is not None
    assert saved["back"]["number"] == 2


def test_what_nothing_is_to_be_done_for_takes_five_requests(
    memory: MemoryServer, controllers: RolloutControllers
) -> None:
    """The workload, its revisions twice, its pods with their ReplicaSets."""
    controllers.add("Deployment")
    check_done(roll_out(memory, image="j"))
    again = check_done(roll_out(memory, image="j"))
    assert again["requests"] <= 6
