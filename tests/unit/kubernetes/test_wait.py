# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The wait loop, on a cache whose changes and clock are written out."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.lowtide.ops.plugins.module_utils._common.errors import OpsError, WaitFailed, WaitTimeout
from ansible_collections.lowtide.ops.plugins.module_utils._common.outcome import Outcome
from ansible_collections.lowtide.ops.plugins.module_utils._common.retry import Deadline
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.conditions import (
    Condition,
    Gone,
    Serving,
)
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.diagnosis import GracePeriod
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.job_conditions import JobDone
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.objects import Workload
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.snapshot import Snapshot
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.wait import wait_until
from unit.kubernetes.timeline_cache import TimelineCache
from unit.kubernetes.yaml_objects import describe_event, find, load, replace, scale_between, swap, without

Json = dict[str, Any]
DB, WEB, PURGE, AGENT = load("statefulset"), load("deployment"), load("cronjob"), load("daemonset")
READY = find(DB, "StatefulSet")
LATE = replace(READY, status__readyReplicas=2, status__availableReplicas=2)
LATE_TEXT = "2 of 3 replicas ready (3 pods)"


def run(
    cache: TimelineCache,
    *conditions: Condition,
    seconds: float = 60,
    grace: GracePeriod | None = None,
    outcome: Outcome | None = None,
) -> Snapshot:
    """Wait on that cache's clock."""
    return wait_until(
        conditions or (Serving(Workload.from_object(READY), 3),),
        cache,
        deadline=Deadline(seconds, clock=cache.clock),
        grace=grace or GracePeriod(),
        outcome=outcome or Outcome(),
        diagnose_after=1.0,
    )


def break_pod(obj: Json, reason: str = "InvalidImageName", **container: Any) -> Json:
    """A pod whose container waits for this reason."""
    status = {"name": "main", "state": {"waiting": {"reason": reason}}, **container}
    return replace(obj, status={"phase": "Pending", "containerStatuses": [status]})


POD = find(DB, "Pod", "db-1")
BROKEN = [LATE, break_pod(POD)]


def test_what_holds_already_is_not_waited_for() -> None:
    """One look, nothing followed, nothing read again."""
    cache, outcome = TimelineCache({0: [READY]}), Outcome()
    assert run(cache, outcome=outcome).find("StatefulSet", "shop", "db") == READY
    assert (cache.looks, cache.followed, cache.refreshed, cache.now) == (1, [], [], 0)
    assert (outcome.waited, outcome.blockers) == (0, [])


def test_the_wait_ends_with_the_change() -> None:
    """At that moment, with as many looks as there were changes."""
    outcome = Outcome()
    cache = TimelineCache({0: [LATE], 0.25: [LATE], 0.5: [READY]})
    run(cache, outcome=outcome)
    assert (cache.now, cache.looks, cache.followed) == (0.5, 3, [])
    assert outcome.waited == 0.5


def test_all_conditions_must_hold_at_once() -> None:
    """In the same snapshot."""
    other = replace(READY, metadata__name="other", metadata__uid="s-other")
    unready = replace(other, status__readyReplicas=0)
    conditions = [Serving(Workload.from_object(obj), 3) for obj in (READY, other)]
    cache = TimelineCache({0: [LATE, unready], 2: [READY, unready], 3: [LATE, other], 5: [READY, other]})
    run(cache, *conditions)
    assert cache.now == 5


def test_nothing_is_followed_for_an_explanation_in_the_first_second() -> None:
    """After it pods and events are, if they may be read; one workload's pods by its selector."""
    cache = TimelineCache({0: [LATE], 9: [READY]})
    run(cache)
    assert [entry[0] for entry in cache.followed] == ["Pod", "Event"]
    assert cache.followed_at == [1.0, 1.0]
    pods, events = cache.followed
    assert pods == ("Pod", "shop", "app=db", None, True)
    assert (events[1], events[2], events[4]) == ("shop", None, True)
    usual = "Pulling Pulled Created Started Scheduled Killing SuccessfulDelete ScalingReplicaSet Unhealthy BackOff"
    assert events[3] == ",".join(f"reason!={reason}" for reason in usual.split())
    cache = TimelineCache({0: [LATE], 0.25: [LATE], 9: [READY]})
    run(cache)
    assert cache.followed_at == [1.0, 1.0]


@pytest.mark.parametrize(
    ("objects", "kind", "followed"),
    [
        (WEB, "Deployment", ["ReplicaSet", "Pod", "Event"]),
        (AGENT, "DaemonSet", ["ControllerRevision", "Pod", "Event"]),
    ],
)
def test_what_stands_between_a_workload_and_its_pods_is_followed_too(
    objects: list[Json], kind: str, followed: list[str]
) -> None:
    """To know whose they are, and of which revision."""
    late = find(objects, kind)
    goal = 9 if kind == "Deployment" else 2
    serving = Serving(Workload.from_object(replace(late, spec__replicas=goal)), goal)
    cache = TimelineCache({0: [late]})
    with pytest.raises(WaitTimeout):
        run(cache, serving, seconds=5)
    assert [entry[0] for entry in cache.followed] == followed
    assert {entry[4] for entry in cache.followed} == {True}


def test_several_workloads_of_a_namespace_share_their_sources() -> None:
    """And those of another namespace have their own, by its selector."""
    other = replace(LATE, metadata__name="other", metadata__uid="s-other")
    far = replace(
        LATE, metadata__namespace="far", metadata__uid="s-far", spec__selector={"matchLabels": {"app": "far"}}
    )
    conditions = [Serving(Workload.from_object(obj), 3) for obj in (LATE, other, far)]
    cache = TimelineCache({0: [LATE, other, far]})
    with pytest.raises(WaitTimeout):
        run(cache, *conditions, seconds=5)
    assert [entry[:3] for entry in cache.followed] == [
        ("Pod", "shop", None),
        ("Event", "shop", None),
        ("Pod", "far", "app=far"),
        ("Event", "far", None),
    ]


def test_what_a_condition_needs_is_followed_from_the_beginning() -> None:
    """And is required; a CronJob's pods have no selector."""
    cache = TimelineCache({0: PURGE})
    with pytest.raises(WaitTimeout):
        run(cache, Gone(Workload.from_object(find(PURGE, "CronJob"))), seconds=5)
    assert cache.followed[0] == ("Pod", "shop", None, None, False)
    assert [entry[0] for entry in cache.followed] == ["Pod", "Event"]
    assert cache.followed_at == [0.0, 1.0]


# --- no spin --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "timeline",
    [
        {0.0: [LATE]},
        {0.0: BROKEN, 5.0: [LATE, POD]},
        # Crashed once, runs again, and is slow to become ready: its start time is in the past.
        {0.0: [LATE, break_pod(POD, "CrashLoopBackOff")], 2.0: [LATE, replace(POD, status__conditions=[])]},
        {0.0: [LATE, break_pod(POD, "ImagePullBackOff")], 100.0: [LATE]},
    ],
)
def test_an_idle_wait_of_a_minute_looks_a_few_times(timeline: dict[float, list[Json]]) -> None:
    """At most 100 times is asked for; nothing that happens here is a reason for more than ten."""
    cache = TimelineCache(timeline)
    with pytest.raises(WaitTimeout):
        run(cache, seconds=60)
    assert cache.looks <= 10
    assert 60 <= cache.now <= 60.1


def test_a_clock_that_rounds_does_not_make_the_loop_spin() -> None:
    """Two looks are at least 50 ms apart if nothing has changed."""
    cache = TimelineCache({0: BROKEN})
    with pytest.raises(WaitFailed):
        run(cache, grace=GracePeriod(1e-7))
    assert cache.shortest == 0.05


@pytest.mark.parametrize(("cost", "most"), [(0.0, 205), (0.05, 45)])
def test_looks_do_not_take_most_of_the_time(cost: float, most: int) -> None:
    """1,000 changes within 10 s are not 1,000 looks; the dearer a look is, the fewer there are."""
    cache = TimelineCache({number / 100: [LATE] for number in range(1000)} | {10.0: [READY]})
    cache.cost = cost
    run(cache)
    assert cache.looks <= most
    assert 10 <= cache.now <= 10.5
    assert cache.settled[-1] == pytest.approx(max(0.05, 4 * cost))


# --- the end --------------------------------------------------------------------------------------------------------


def test_a_lasting_finding_fails_the_wait() -> None:
    """As soon as its grace period is over, which counts from when it was seen; its message has numbers and cause."""
    cache, outcome = TimelineCache({0: BROKEN}), Outcome()
    with pytest.raises(WaitFailed) as caught:
        run(cache, outcome=outcome)
    assert cache.now == 16.0
    assert caught.value.obj == "StatefulSet shop/db"
    assert caught.value.problem == (
        f"{LATE_TEXT}; InvalidImageName: Pod shop/db-1: container main: InvalidImageName"
        " (for 15 s, failure_grace_factor 1)"
    )
    assert caught.value.next_step == "Correct the name of the image, or raise failure_grace_factor if it passes"
    assert outcome.waited == 16.0
    (blocker,) = outcome.blockers
    assert blocker == (
        "Pod shop/db-1",
        "InvalidImageName: container main: InvalidImageName",
        "Pod shop/db-1",
        "Correct the name of the image",
        None,
    )


def test_what_ended_the_wait_is_the_first_blocker() -> None:
    """However many other findings there are, and in whatever order they were found."""
    pods = [replace(POD, metadata__name=f"db-{n}", metadata__uid=f"u{n}") for n in range(4)]
    unready = {"phase": "Running", "conditions": [{"type": "Ready", "status": "False"}]}
    broken = [replace(pod, status=unready) for pod in pods[:3]] + [break_pod(pods[3])]
    outcome = Outcome()
    with pytest.raises(WaitFailed, match="InvalidImageName: Pod shop/db-3"):
        run(TimelineCache({0: [LATE, *broken]}), outcome=outcome)
    assert outcome.blockers[0].object == "Pod shop/db-3"
    assert outcome.blockers[0].what.startswith("InvalidImageName: ")
    assert len({blocker.object for blocker in outcome.blockers}) == len(outcome.blockers)


def test_a_finding_that_a_refresh_does_not_show_fails_nothing() -> None:
    """The watch fell silent: it was mended long ago."""
    cache = TimelineCache({0: BROKEN}, truth=[LATE, POD])
    with pytest.raises(WaitTimeout) as caught:
        run(cache, seconds=60)
    assert cache.refreshed == [16.0, 60.0]
    assert "InvalidImageName" not in str(caught.value)
    cache = TimelineCache({0: BROKEN}, truth=[READY])
    assert run(cache).find("StatefulSet", "shop", "db") == READY
    assert cache.now == 16.0


def test_a_refresh_may_show_that_waiting_is_in_vain() -> None:
    """Another failure than the one that was looked for."""
    cache = TimelineCache({0: BROKEN}, truth=[find(WEB, "Deployment")])
    with pytest.raises(WaitFailed, match="it was deleted while it was waited for"):
        run(cache)
    assert cache.now == 16.0


def test_an_expiry_that_cannot_be_confirmed() -> None:
    """Is an error of its own, unless the deadline has passed: then the wait ends as it would have."""
    lost = OpsError(obj="API server s", problem="it cannot be reached", next_step="-")
    with pytest.raises(OpsError, match="it cannot be reached") as caught:
        run(TimelineCache({0: BROKEN}, truth=lost))
    assert not isinstance(caught.value, WaitTimeout)
    with pytest.raises(WaitTimeout, match="reading it once more failed: API server s: it cannot be reached"):
        run(TimelineCache({0: BROKEN}, truth=lost), seconds=16)


def test_the_grace_period_is_scaled() -> None:
    """By the object that the caller gives."""
    cache = TimelineCache({0: BROKEN})
    with pytest.raises(WaitFailed):
        run(cache, grace=GracePeriod(2.0))
    assert cache.now == 31.0


def test_a_recovering_pod_keeps_its_time() -> None:
    """It crashes, runs unready, and crashes: that is one failure; without the pod it is forgotten."""
    unready = replace(POD, status={"phase": "Running", "conditions": [{"type": "Ready", "status": "False"}]})
    crashing = [LATE, break_pod(POD, "RunContainerError")]
    cache = TimelineCache({0: crashing, 3: [LATE, unready], 12: crashing})
    with pytest.raises(WaitFailed):
        run(cache, grace=GracePeriod(1 / 3))
    assert cache.now == 12
    cache = TimelineCache({0: crashing, 3: [LATE], 12: crashing})
    with pytest.raises(WaitFailed):
        run(cache, grace=GracePeriod(1 / 3))
    assert cache.now == 22


def test_a_crash_loop_fails_by_restarts_since_the_wait_began() -> None:
    """40 of the time before do not count."""
    timeline = {
        float(second): [LATE, break_pod(POD, "CrashLoopBackOff", restartCount=40 + second // 10)]
        for second in range(0, 60, 10)
    }
    old = [[obj[0], replace(obj[1], metadata__creationTimestamp="2026-05-01T09:00:00Z")] for obj in timeline.values()]
    cache = TimelineCache(dict(zip(timeline, old, strict=True)))
    with pytest.raises(WaitFailed, match="44 restarts"):
        run(cache)
    assert cache.now == 40
    cache = TimelineCache(timeline)
    with pytest.raises(WaitFailed, match="40 restarts"):
        run(cache)


def test_a_deadline_has_a_message_with_everything_that_is_known() -> None:
    """Object, seconds, numbers, findings, next step; findings become blockers."""
    pods = [break_pod(replace(POD, metadata__name=f"db-{n}", metadata__uid=f"u{n}"), "ErrImagePull") for n in range(4)]
    cache, outcome = TimelineCache({0: [LATE, *pods]}), Outcome()
    with pytest.raises(WaitTimeout) as caught:
        run(cache, seconds=30, outcome=outcome)
    assert caught.value.obj == "StatefulSet shop/db"
    causes = "".join(f"; ImagePullBackOff: Pod shop/db-{n}: container main: ErrImagePull (image )" for n in range(3))
    assert caught.value.problem == f"after 30 s: {LATE_TEXT}{causes}"
    assert caught.value.next_step.startswith("Correct the image")
    assert caught.value.next_step.endswith("or raise timeout if it only needs longer: running again goes on waiting")
    assert [blocker.object for blocker in outcome.blockers] == [f"Pod shop/db-{n}" for n in range(4)]
    assert outcome.waited == 30


def test_a_deadline_without_findings() -> None:
    """It only needs longer."""
    outcome = Outcome()
    with pytest.raises(WaitTimeout) as caught:
        run(TimelineCache({0: [LATE]}), outcome=outcome)
    assert caught.value.problem == f"after 60 s: {LATE_TEXT}"
    assert caught.value.next_step == "Raise timeout if it only needs longer: running again goes on waiting"
    assert outcome.blockers == []


def test_a_silent_watch_is_no_reason_to_fail() -> None:
    """Everything is read once more at the deadline."""
    cache = TimelineCache({0: [LATE]}, truth=[READY])
    assert run(cache).find("StatefulSet", "shop", "db") == READY
    assert cache.refreshed == [60.0]
    cache = TimelineCache({0: [LATE]}, truth=[replace(READY, metadata__uid="x")])
    with pytest.raises(WaitFailed, match="created again"):
        run(cache)


def test_a_condition_that_cannot_hold_any_more_fails_at_once() -> None:
    """With the condition's own words, and with what is known of the pods."""
    outcome = Outcome()
    fields = [{"manager": "kubectl-scale", "fieldsV1": {"f:spec": {"f:replicas": {}}}}]
    rival = replace(
        LATE, spec__replicas=5, metadata__generation=5, status__observedGeneration=5, metadata__managedFields=fields
    )
    cache = TimelineCache({0: BROKEN, 4: [rival, break_pod(POD)]})
    with pytest.raises(WaitFailed) as caught:
        run(cache, outcome=outcome)
    assert (cache.now, cache.refreshed) == (4, [])
    assert caught.value.problem == "replicas were set to 3, and kubectl-scale has set them to 5 since"
    assert "Pause or adjust" in caught.value.next_step
    assert [blocker.object for blocker in outcome.blockers] == ["Pod shop/db-1"]
    with pytest.raises(WaitFailed, match="not known how it ended"):
        run(TimelineCache({0: []}), JobDone("shop", "import", "u"))


def test_an_autoscaler_that_undoes_a_stop_is_named_at_the_deadline() -> None:
    """Not before: it may come to rest; the next step is about it first."""
    fields = [{"manager": "keda", "fieldsV1": {"f:spec": {"f:replicas": {}}}}]
    undone = replace(READY, metadata__generation=5, status__observedGeneration=5, metadata__managedFields=fields)
    stopped = Workload.from_object(replace(READY, spec__replicas=0))
    cache = TimelineCache({0: [undone]})
    with pytest.raises(WaitTimeout, match="it was stopped, and keda has set its replicas to 3 since") as caught:
        run(cache, Gone(stopped))
    assert cache.now == 60
    assert caught.value.next_step.startswith("Pause or adjust whoever owns the number of replicas")


def test_the_goal_of_an_autoscaler_is_followed_until_it_serves() -> None:
    """F8: it is no rival within its bounds."""
    six = {f"status__{name}Replicas": 6 for name in ("ready", "available", "updated")}
    scaled = replace(LATE, spec__replicas=6, metadata__generation=5, status__observedGeneration=5)
    cache = TimelineCache({0: [LATE], 2: [scaled], 9: [replace(scaled, status__replicas=6, **six)]})
    run(cache, Serving(Workload.from_object(LATE), 3, autoscalers=scale_between(2, 10)))
    assert cache.now == 9


def test_a_scale_up_that_an_autoscaler_of_nodes_works_on_is_waited_for() -> None:
    """Five minutes, then it counts."""
    pod = replace(POD, status={"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "False"}]})
    pod["status"]["conditions"][0].update(reason="Unschedulable", message="0/3 nodes are available")
    event = describe_event(POD["metadata"]["uid"], "TriggeredScaleUp", "3->4", at="2026-05-01T10:00:30Z")
    cache = TimelineCache({0: [LATE, pod]})
    with pytest.raises(WaitFailed):
        run(cache, seconds=900)
    assert cache.now == 181
    cache = TimelineCache({0: [LATE, pod], 30: [LATE, pod, event]})
    with pytest.raises(WaitFailed, match="TriggeredScaleUp: 3->4"):
        run(cache, seconds=900)
    assert cache.now == 330


def test_old_events_are_not_of_this_wait() -> None:
    """The clock is read when the wait begins, and goes on with the deadline's."""
    short = replace(LATE, status__replicas=1)
    event = describe_event("s-db", "FailedCreate", "exceeded quota: q", at="2026-05-01T09:59:59Z")
    with pytest.raises(WaitTimeout) as caught:
        run(TimelineCache({0: [short, event]}), seconds=120)
    assert "quota" not in str(caught.value)
    fresh = {**event, "lastTimestamp": "2026-05-01T10:00:00Z"}
    cache = TimelineCache({0: [short, fresh]})
    with pytest.raises(WaitFailed, match="QuotaExceeded: StatefulSet shop/db: exceeded quota: q"):
        run(cache, seconds=120)
    assert cache.now == 61


def test_what_is_found_is_about_the_goal_of_the_condition() -> None:
    """Not about the number that the object has: a read from before the write still asks for none."""
    fields: Json = {f"status__{name}": 0 for name in ("replicas", "readyReplicas", "availableReplicas")}
    before = replace(READY, spec__replicas=0, status__updatedReplicas=0, **fields)
    event = describe_event("s-db", "FailedCreate", "exceeded quota: q")
    with pytest.raises(WaitFailed, match="QuotaExceeded: StatefulSet shop/db: exceeded quota: q"):
        run(TimelineCache({0: [before, event]}), Serving(Workload.from_object(before), 3), seconds=120)
    with pytest.raises(WaitTimeout) as caught:
        run(TimelineCache({0: [replace(READY, status__replicas=1), event]}), Gone(Workload.from_object(before)))
    assert "quota" not in str(caught.value)


def test_a_wait_that_begins_late_on_its_deadline() -> None:
    """The operation before it has used some of the time: only the rest is waited, and said to have been."""
    event = describe_event("s-db", "FailedCreate", "of this wait", at="2026-05-01T10:00:50Z")
    cache, outcome = TimelineCache({0: [replace(LATE, status__replicas=1), event]}), Outcome()
    deadline = Deadline(60, clock=cache.clock)
    cache.now = 50.0
    condition = Serving(Workload.from_object(READY), 3)
    with pytest.raises(WaitTimeout, match=r"after 60 s: .*FailedCreate: StatefulSet shop/db: of this wait"):
        wait_until([condition], cache, deadline=deadline, grace=GracePeriod(), outcome=outcome, diagnose_after=1.0)
    assert (cache.now, outcome.waited, cache.followed_at) == (60, 10, [51, 51])


def test_seconds_waited_add_up() -> None:
    """Of several waits of one run."""
    outcome = Outcome()
    run(TimelineCache({0: [LATE], 3: [READY]}), outcome=outcome)
    run(TimelineCache({0: [LATE], 4: [READY]}), outcome=outcome)
    assert outcome.waited == 7


def test_only_what_is_late_is_named() -> None:
    """With its title where there are several; not more than five."""
    late = [replace(LATE, metadata__name=f"w{n}", metadata__uid=f"w{n}") for n in range(7)]
    conditions = [Serving(Workload.from_object(obj), 3) for obj in (READY, *late[:2])]
    with pytest.raises(WaitTimeout) as caught:
        run(TimelineCache({0: [READY, *late]}), *conditions)
    assert caught.value.obj == "StatefulSet shop/w0, StatefulSet shop/w1"
    assert caught.value.problem == f"after 60 s: StatefulSet shop/w0: {LATE_TEXT}; StatefulSet shop/w1: {LATE_TEXT}"
    with pytest.raises(WaitTimeout) as caught:
        run(TimelineCache({0: late}), *[Serving(Workload.from_object(obj), 3) for obj in late])
    assert caught.value.obj.endswith("StatefulSet shop/w4 and 2 more")
    assert caught.value.problem.endswith(f"StatefulSet shop/w4: {LATE_TEXT}; 2 more")
    for count, end in ((5, f"StatefulSet shop/w4: {LATE_TEXT}"), (6, f"StatefulSet shop/w4: {LATE_TEXT}; 1 more")):
        with pytest.raises(WaitTimeout) as caught:
            run(TimelineCache({0: late}), *[Serving(Workload.from_object(obj), 3) for obj in late[:count]])
        assert caught.value.problem.endswith(end)


def test_a_crowd_of_findings_is_counted() -> None:
    """Twenty are blockers of their own; nothing is said of the pods of what holds."""
    pods = [break_pod(replace(POD, metadata__name=f"db-{n}", metadata__uid=f"u{n}")) for n in range(25)]
    outcome = Outcome()
    with pytest.raises(WaitFailed):
        run(TimelineCache({0: [LATE, *pods]}), outcome=outcome)
    assert len(outcome.blockers) == 21
    assert outcome.blockers[19].object == "Pod shop/db-19"
    last = outcome.blockers[20]
    assert last.object == "Pod shop/db-20, Pod shop/db-21, Pod shop/db-22 and 2 more"
    assert last.what == "5 more findings: InvalidImageName"
    serving = TimelineCache({0: [READY, *pods, *WEB]})
    late = Serving(Workload.from_object(find(WEB, "Deployment")), 2)
    outcome = Outcome()
    with pytest.raises(WaitTimeout):
        run(serving, Serving(Workload.from_object(READY), 3), late, outcome=outcome)
    assert outcome.blockers == []


def test_a_blocker_names_who_holds_it_and_since_when() -> None:
    """A finalizer of a pod that terminates."""
    stopped: Json = {f"status__{name}": 0 for name in ("readyReplicas", "availableReplicas", "updatedReplicas")}
    objects = without(swap(WEB, "Deployment", spec__replicas=0, status__replicas=0, **stopped), "Job")
    objects = [obj for obj in objects if obj["metadata"]["name"] not in ("web-5d4-old", "web-7c9-ready")]
    cache, outcome = TimelineCache({0: objects}), Outcome()
    with pytest.raises(
        WaitTimeout, match=r"after 60 s: 1 pod left \(web-7c9-leaving\); Terminating: Pod shop/web-7c9-leaving"
    ):
        run(cache, Gone(Workload.from_object(find(objects, "Deployment"))), outcome=outcome)
    (blocker,) = outcome.blockers
    assert (blocker.holder, blocker.since) == ("example.com/drain", "2026-05-01T10:00:30Z")
    assert [entry[0] for entry in cache.followed] == ["ReplicaSet", "Pod", "Event"]
    assert [entry[4] for entry in cache.followed] == [False, False, True]
