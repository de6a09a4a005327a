# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""k8s_workload that is killed, loses answers, or meets other clients, against the API server in memory."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest

from ansible_collections.lowtide.ops.plugins.module_utils._consumers.operations.scale_to_partitions import (
    run_scale_to_partitions,
)
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.operations.workload import run_workload
from support.memory_controllers import (
    ALWAYS,
    NAMESPACE,
    PAUSED_REPLICAS,
    Controllers,
    act_while_waiting,
    describe_scaled_object,
    describe_workload,
    play_keda,
    scale,
)
from support.memory_handler import Request, is_dry
from support.memory_kubernetes import MemoryServer
from support.memory_objects import Key, Rejected, Target
from support.modules import ModuleRun
from support.operation_runs import is_write, run_operation

from .workload_steps import (
    WORKER,
    Json,
    act_between,
    check_done,
    count_replicas,
    describe_claims,
    read_saved,
    run_tiers,
    start,
    stop,
    take_picture,
)


class Cut:
    """Refuse every request once so many writes were carried out: for the server, the client is dead by then."""

    def __init__(self, memory: MemoryServer, writes: int) -> None:
        self._memory = memory
        self._writes = writes
        self.done = 0
        memory.add_rival(self._act, when="after", times=ALWAYS)

    def _act(self) -> None:
        self.done += is_write(next(request for request in reversed(self._memory.log) if request.verb == "patch"))
        if self.done >= self._writes:
            self._memory.tokens = set()

    def end(self, run: ModuleRun) -> None:
        """Check that the run was cut off after so many writes, and answer again."""
        assert (run.failed, run.changed, run["error"]["refused"]) == (True, True, False)
        assert self.done == self._writes
        self._memory.tokens = None
        self._memory.rivals.pop()


# --- kills ----------------------------------------------------------------------------------------------------------


def put_scaled_shop(memory: MemoryServer) -> Json:
    """Put two tiers that KEDA scales, and return the picture of them."""
    controllers = Controllers(memory)
    for name in ("a", "w"):
        controllers.add("StatefulSet", name)
        memory.put(describe_scaled_object(f"StatefulSet/{name}", 1, 9, name=f"k-{name}"))
    return take_picture(memory)


TIERS = [["StatefulSet/a"], [WORKER]]


@pytest.mark.parametrize("again", [True, False], ids=["run again", "started at once"])
@pytest.mark.parametrize(("keda", "writes"), [*((True, n) for n in range(1, 4)), *((False, n) for n in range(1, 6))])
def test_a_stop_that_is_killed_between_two_writes(memory: MemoryServer, keda: bool, writes: int, again: bool) -> None:
    """Whatever was written by then: another run ends it, and a start gives back what there was."""
    if keda:
        play_keda(memory)
    before = put_scaled_shop(memory)
    cut = Cut(memory, writes)
    killed = run_tiers(memory, "stopped", *TIERS, autoscaler="pause")
    cut.end(killed)
    if again:
        check_done(run_tiers(memory, "stopped", *TIERS, autoscaler="pause", run_id="second"))
        assert [count_replicas(memory, name) for name in ("a", "w")] == [0, 0]
    check_done(run_tiers(memory, "running", *TIERS))
    assert take_picture(memory) == before


@pytest.mark.parametrize("guards", [["hpa", "keda", "gitops"], []], ids=["guards", "no guards"])
@pytest.mark.parametrize("writes", range(1, 4))
def test_a_start_that_is_killed_between_two_writes(memory: MemoryServer, writes: int, guards: list[str]) -> None:
    """The next start goes on: KEDA is resumed also where the workload runs already."""
    before = put_scaled_shop(memory)
    check_done(run_tiers(memory, "stopped", *TIERS, autoscaler="pause"))
    memory.log.clear()
    cut = Cut(memory, writes)
    killed = run_tiers(memory, "running", *TIERS, guards=guards)
    cut.end(killed)
    check_done(run_tiers(memory, "running", *TIERS, guards=guards))
    assert take_picture(memory) == before


# --- rivals, lost answers -------------------------------------------------------------------------------------------


def test_a_rival_before_the_stop_is_decided_about_anew(memory: MemoryServer, controllers: Controllers) -> None:
    """What the workload had in the end is saved and reported."""
    controllers.add("StatefulSet", "w")
    act_between(memory, lambda: scale(memory, "StatefulSet", "w", 5))
    run = check_done(stop(memory))
    assert (count_replicas(memory), read_saved(memory)) == (0, {"replicas": 5})
    assert run["diff"] == {"before": {WORKER: 5}, "after": {WORKER: 0}}
    assert "StatefulSet n/w (5 replicas)" in run["summary"]


def test_a_rival_before_the_start_is_decided_about_anew(memory: MemoryServer, controllers: Controllers) -> None:
    """What another client has started meanwhile is left as it is, and waited for as it is."""
    controllers.add("StatefulSet", "w")
    check_done(stop(memory))
    act_between(memory, lambda: scale(memory, "StatefulSet", "w", 2))
    run = check_done(start(memory))
    assert (count_replicas(memory), read_saved(memory)) == (2, None)
    assert [run["workloads"][0][key] for key in ("replicas", "ready")] == [2, 2]
    assert run["diff"]["after"] == {WORKER: 2}
    assert "3" not in run["summary"]


def test_a_rival_who_is_faster_with_the_same_stop(memory: MemoryServer, controllers: Controllers) -> None:
    """An autoscaler costs no replicas; a person has stopped it, and it stays so."""
    for manager, count in (("keda-operator", 3), ("kubectl", 0)):
        controllers.add("StatefulSet", "w")
        act_between(memory, partial(scale, memory, "StatefulSet", "w", 0, manager=manager))
        check_done(stop(memory))
        assert read_saved(memory) == {"replicas": count}
        memory.remove("StatefulSet", NAMESPACE, "w")


@pytest.mark.parametrize("act", [stop, start])
def test_a_rival_after_the_write_is_named(
    memory: MemoryServer, controllers: Controllers, act: Callable[..., ModuleRun]
) -> None:
    """It works against this run, and waiting would be in vain."""
    controllers.add("StatefulSet", "w")
    if act is start:
        check_done(stop(memory))
    controllers.held = {"w"}
    memory.log.clear()
    act_while_waiting(memory, lambda: scale(memory, "StatefulSet", "w", 7, manager="someone"))
    run = act(memory, timeout=60)
    assert (run.failed, run.changed, run["error"]["refused"]) == (True, True, False)
    assert "someone" in run.msg
    assert "7" in run.msg
    assert run["waited"] < 30


def lose_writes(memory: MemoryServer, when: str) -> None:
    """Lose the answer of the first write, and what is not a dry run."""
    act_between(memory, lambda: memory.lose_next(when, verb="patch"))


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("act", [stop, start])
def test_a_lost_answer_is_no_failure(
    memory: MemoryServer, controllers: Controllers, act: Callable[..., ModuleRun], when: str
) -> None:
    """It is looked whether the write was carried out, and reported as it is."""
    controllers.add("StatefulSet", "w")
    if act is start:
        check_done(stop(memory))
    lose_writes(memory, when)
    run = check_done(act(memory))
    assert run.changed
    assert count_replicas(memory) == (3 if act is start else 0)
    assert run["diff"]["after"] == {WORKER: 3 if act is start else 0}
    assert run["summary"].startswith("started" if act is start else "stopped")


def test_a_server_that_is_lost_after_the_write(memory: MemoryServer, controllers: Controllers) -> None:
    """It is not known whether it was carried out: changed, and no refusal."""
    controllers.add("StatefulSet", "w")

    def lose() -> None:
        memory.lose_next("after", verb="patch")
        memory.lose_next("before", times=ALWAYS)

    act_between(memory, lose)
    run = stop(memory, timeout=1)
    assert (run.failed, run.changed, run["error"]["refused"]) == (True, True, False)
    assert (run["run_id"], count_replicas(memory)) == ("r", 0)


def test_a_wait_that_ends_without_a_write_is_no_refusal(memory: MemoryServer, controllers: Controllers) -> None:
    """Nothing is changed by it either."""
    controllers.add("StatefulSet", "w")
    controllers.held = {"w"}
    assert stop(memory, timeout=1).changed
    run = stop(memory, timeout=1)
    assert (run.failed, run.changed, run["error"]["refused"]) == (True, False, False)
    assert "3 pods left" in run.msg


def test_a_server_that_cannot_be_reached_is_a_refusal(memory: MemoryServer, controllers: Controllers) -> None:
    """As long as nothing was written."""
    controllers.add("StatefulSet", "w")
    memory.lose_next("before", times=ALWAYS)
    run = stop(memory, timeout=0.3)
    assert (run.failed, run.changed, run["error"]["refused"]) == (True, False, True)
    assert run["run_id"] == "r"
    assert run["requests"] > 0


# --- what other clients change of volumes and numbers ---------------------------------------------------------------


@pytest.mark.parametrize(
    "lower",
    [stop, partial(run_operation, work=run_scale_to_partitions, partitions=1, allow_scale_down=True)],
    ids=["stop", "scale"],
)
def test_claims_that_would_be_deleted_by_now_refuse_fewer_replicas(
    memory: MemoryServer, controllers: Controllers, lower: Callable[[MemoryServer], ModuleRun]
) -> None:
    """The policy is judged again for the object as it is written."""
    controllers.add("StatefulSet", "w", 3, volumeClaimTemplates=[{"metadata": {"name": "data"}}])
    act_between(
        memory,
        lambda: memory.change("StatefulSet", NAMESPACE, "w", lambda obj: obj["spec"].update(describe_claims())),
        path="/statefulsets/w",
    )
    run = lower(memory)
    assert (run.failed, count_replicas(memory)) == (True, 3)
    assert "deletes the claims data-w-2, data-w-1" in run.msg


@pytest.mark.parametrize(("given", "count"), [(1, 3), (3, 3), (5, 5)])
def test_a_start_lowers_nothing(memory: MemoryServer, controllers: Controllers, given: int, count: int) -> None:
    """Replicas that are given are for what is stopped, or has fewer."""
    controllers.add("StatefulSet", "w", 3, **describe_claims())
    workload = {"kind": "StatefulSet", "name": "w", "replicas": given}
    run = check_done(run_operation(memory, run_workload, state="running", workloads=[workload]))
    assert (count_replicas(memory), run.changed) == (count, count != 3)
    assert ("a start does not lower them to 1" in run["reasons"][WORKER]) is (given == 1)


@pytest.mark.parametrize("condition", ["Complete", "Failed"])
def test_a_job_that_has_ended_is_not_waited_for(memory: MemoryServer, controllers: Controllers, condition: str) -> None:
    """Neither by a stop nor by a start: it starts no pod any more."""
    controllers.add("StatefulSet", "w", 1)
    job = describe_workload("Job", "j", 1)
    memory.put({**job, "status": {"conditions": [{"type": condition, "status": "True"}]}})
    check_done(stop(memory, "Job/j", WORKER, timeout=30))
    check_done(start(memory, "Job/j", WORKER, timeout=30))
    assert memory.read("Job", NAMESPACE, "j")["spec"]["suspend"] is False


def limit_replicas(memory: MemoryServer, limit: int, *, dry_runs: bool = True) -> None:
    """Let an admission webhook lower what clients ask for; without ``dry_runs`` only what they really write."""
    carry_out = memory.patch_object

    def patch(target: Target, key: Key, current: Json, request: Request) -> Json:
        for operation in request.body if dry_runs or not is_dry(request) else []:
            if operation["op"] == "add" and operation["path"] == "/spec/replicas":
                operation["value"] = min(operation["value"], limit)
        return carry_out(target, key, current, request)

    memory.patch_object = patch  # type: ignore[method-assign]


def test_a_server_that_gives_fewer_replicas_is_refused(memory: MemoryServer, controllers: Controllers) -> None:
    """The dry run says so; what was saved stays."""
    controllers.add("StatefulSet", "w")
    check_done(stop(memory))
    limit_replicas(memory, 1)
    run = start(memory, timeout=3)
    assert (run.failed, run["error"]["refused"], count_replicas(memory)) == (True, True, 0)
    assert "spec.replicas was asked to be 3 and became 1" in run.msg
    assert read_saved(memory) == {"replicas": 3}


def test_a_server_that_gives_fewer_replicas_fails_the_start(memory: MemoryServer, controllers: Controllers) -> None:
    """A webhook that sees no dry run: what was saved is saved again, and the next start restores it."""
    controllers.add("StatefulSet", "w")
    check_done(stop(memory))
    ordinary = memory.patch_object
    limit_replicas(memory, 1, dry_runs=False)
    run = start(memory, timeout=3)
    assert (run.failed, run["error"]["refused"], count_replicas(memory)) == (True, False, 1)
    assert "spec.replicas was asked to be 3 and became 1" in run.msg
    assert read_saved(memory) == {"replicas": 3}
    memory.patch_object = ordinary  # type: ignore[method-assign]
    check_done(start(memory))
    assert (count_replicas(memory), read_saved(memory)) == (3, None)


@pytest.mark.parametrize("dry_runs", [True, False])
def test_a_server_that_gives_fewer_replicas_fails_the_scale(
    memory: MemoryServer, controllers: Controllers, dry_runs: bool
) -> None:
    """It is not taken for what was asked."""
    controllers.add("StatefulSet", "w", 1)
    limit_replicas(memory, 2, dry_runs=dry_runs)
    run = run_operation(memory, run_scale_to_partitions, partitions=12, timeout=3)
    assert (run.failed, run["error"]["refused"], count_replicas(memory)) == (True, dry_runs, 1 if dry_runs else 2)
    assert "spec.replicas was asked to be 12 and became 2" in run.msg


def answer_dry_runs(memory: MemoryServer, status: int, message: str) -> None:
    """Answer every dry run so."""
    carry_out = memory.patch_object

    def patch(target: Target, key: Key, current: Json, request: Request) -> Json:
        if is_dry(request):
            raise Rejected(status, "Failure", message)
        return carry_out(target, key, current, request)

    memory.patch_object = patch  # type: ignore[method-assign]


NO_DRY_RUN = "admission webhook has side effects: the webhook does not support dry run"


def test_a_webhook_that_takes_no_dry_run(memory: MemoryServer, controllers: Controllers) -> None:
    """Is a warning, and the right is asked for in its place."""
    controllers.add("StatefulSet", "w")
    answer_dry_runs(memory, 400, NO_DRY_RUN)
    run = check_done(stop(memory))
    assert any("does not support dry run" in warning for warning in run["warnings"])
    memory.review_status = {"allowed": False}
    run = start(memory)
    assert (run.failed, run["error"]["refused"], count_replicas(memory)) == (True, True, 0)
    assert "may not patch statefulsets.apps" in run.msg


@pytest.mark.parametrize(("status", "message"), [(400, NO_DRY_RUN), (500, "webhook failed"), (504, "timeout")])
def test_a_dry_run_without_a_verdict_stops_no_start(
    memory: MemoryServer, controllers: Controllers, status: int, message: str
) -> None:
    """The way back is tried; a stop is not."""
    controllers.add("StatefulSet", "w")
    check_done(stop(memory))
    answer_dry_runs(memory, status, message)
    run = check_done(start(memory, timeout=4))
    assert count_replicas(memory) == 3
    assert any("could not be tried beforehand" in warning for warning in run["warnings"])
    assert stop(memory, timeout=1).failed is (status != 400)


def test_a_person_who_stops_a_workload_meanwhile_has_stopped_it(memory: MemoryServer, controllers: Controllers) -> None:
    """It stays at 0 at the next start, unlike one that an autoscaler has scaled."""
    for name in ("first", "by-hand", "by-keda"):
        controllers.add("StatefulSet", name)
    managers = {"by-hand": "kubectl", "by-keda": "keda-operator"}

    def act() -> None:
        for name, manager in managers.items():
            scale(memory, "StatefulSet", name, 0, manager=manager)

    act_while_waiting(memory, act)
    tiers = [["StatefulSet/by-hand", "StatefulSet/by-keda"], ["StatefulSet/first"]]
    check_done(run_tiers(memory, "stopped", *tiers))
    assert [read_saved(memory, name) for name in managers] == [{"replicas": 0}, {"replicas": 3}]


def test_what_keda_scales_after_somebody_resumed_it_is_no_stop_of_ours(
    memory: MemoryServer, controllers: Controllers
) -> None:
    """A person took over in between: the number from before is out of date, and nobody goes back to it."""
    controllers.add("StatefulSet", "w", 2)
    memory.put(describe_scaled_object(WORKER, 0, 20))
    check_done(stop(memory, run_id="march", autoscaler="pause"))
    memory.change(
        "ScaledObject",
        NAMESPACE,
        "k",
        lambda obj: obj["metadata"]["annotations"].pop(PAUSED_REPLICAS),
        manager="kubectl-edit",
    )
    scale(memory, "StatefulSet", "w", 9, manager="kubectl")
    scale(memory, "StatefulSet", "w", 0, manager="keda-operator")
    controllers.act()
    check_done(stop(memory, run_id="june", autoscaler="pause"))
    assert read_saved(memory) == {"replicas": 0}
    check_done(start(memory))
    assert count_replicas(memory) == 0
