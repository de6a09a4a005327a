# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Waiting for workloads by watch: until their pods serve, or until they are gone. Private to lowtide.ops: do not import from other collections."""

from __future__ import annotations

import time
import typing as t

from .._common.errors import WaitFailed, WaitTimeout
from .._common.outcome import Blocker, Outcome
from .._common.retry import Deadline
from .api import Api, Json, collection_path
from .parse import Workload, workload
from .pods import Event, Pod, event, matches, pod
from .watch import Source, Watches

DIAGNOSE_AFTER = 1.0  # seconds; most scalings are done by then and never need the two watches that explain a delay

ADVICE = {
    "image pull": "Correct the image or the registry's credentials; nothing more happens by waiting",
    "unschedulable": "Add capacity, or lower the requests or the number of replicas",
    "quota": "Raise the quota, or lower the number of replicas",
    "pod creation": "Remove what the message names",
    "crash loop": "Look at the container's previous log (kubectl logs --previous)",
    "container configuration": "Create or correct the secret, config map or command that the message names",
}


class Trouble(t.NamedTuple):
    """A state that waiting does not mend: its class (a key of ADVICE), the object that shows it, and what it says."""

    reason: str
    holder: str
    message: str


class Patience:
    """Tells a passing trouble from a lasting one: it must have been there for ``seconds``. Times in seconds of any clock."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._since: dict[tuple[str, str], float] = {}

    def lasting(self, troubles: t.Sequence[Trouble], recovering: t.Collection[str], now: float) -> list[Trouble]:
        """The troubles that have lasted long enough.

        A holder in ``recovering`` (a crashed container that runs again, not ready yet) keeps its start time.
        """
        seen = {(trouble.holder, trouble.reason) for trouble in troubles}
        self._since = {key: at for key, at in self._since.items() if key in seen or key[0] in recovering}
        for key in seen:
            self._since.setdefault(key, now)
        return [trouble for trouble in troubles if now - self._since[(trouble.holder, trouble.reason)] >= self.seconds]

    def next_check(self, now: float) -> float:
        """Seconds until a trouble known now becomes a lasting one."""
        return min((at + self.seconds - now for at in self._since.values()), default=float("inf"))


def find_troubles(
    views: t.Sequence[Workload], goals: t.Mapping[str, int], pods: t.Sequence[Pod], events: t.Sequence[Event]
) -> list[Trouble]:
    """What keeps these workloads from their goals, as far as it can be seen."""
    troubles: list[Trouble] = []
    for view in views:
        goal = goals[view.key]
        if view.settled(goal):
            continue
        failure = _create_failure(view, goal, events)
        if failure:
            troubles.append(Trouble("quota" if "exceeded quota" in failure else "pod creation", view.title, failure))
        for one in pods:
            if one.trouble and not one.ready and not one.terminating and matches(view.selector, one.labels):
                troubles.append(Trouble(one.trouble[0], f"Pod {view.namespace}/{one.name}", one.trouble[1]))
    return troubles


def _create_failure(view: Workload, goal: int, events: t.Sequence[Event]) -> str | None:
    """Why no pod is created: a Deployment says so in its status; for a StatefulSet its newest event about creation does."""
    if view.pods >= goal:
        return None
    if view.kind != "StatefulSet":
        return view.create_failure
    about = [one for one in events if one.about == view.key and one.reason in ("FailedCreate", "SuccessfulCreate")]
    newest = max(about, key=lambda one: (one.at, one.reason == "FailedCreate"), default=None)
    return newest.message if newest is not None and newest.reason == "FailedCreate" else None


class Waiter:
    """Waits for the workloads ``views`` of one namespace, as they were last read or written.

    ``versions`` holds for each kind the resource version to watch from: any that is not newer than its views.
    ``scaled_by_others`` are the keys of those whose replicas an autoscaler may change: its number is the goal then.
    """

    def __init__(
        self,
        api: Api,
        outcome: Outcome,
        views: t.Sequence[Workload],
        versions: t.Mapping[str, str],
        *,
        deadline: Deadline,
        patience: float,
        scaled_by_others: t.Collection[str] = (),
        clock: t.Callable[[], float] = time.monotonic,
    ) -> None:
        self._scaled_by_others = scaled_by_others
        self._api = api
        self._outcome = outcome
        self._first = {view.key: view for view in views}
        self._versions = versions
        self._deadline = deadline
        self._patience = Patience(patience)
        self._clock = clock
        self._namespace = views[0].namespace
        self.views = list(views)
        self.warnings: list[str] = []

    def settle(self, goals: t.Mapping[str, int]) -> None:
        """Until each workload has exactly the replicas of ``goals`` (by key), up to date and serving.

        Raises WaitFailed (named cause; deleted; somebody else set the replicas back) and WaitTimeout.
        """
        if all(view.settled(goals[view.key]) for view in self.views):
            return
        goals = dict(goals)
        begun = self._clock()
        with Watches(self._api) as watches:
            self._watch_workloads(watches)
            try:
                self._until_settled(watches, goals, begun)
            finally:
                self._outcome.waited += self._clock() - begun
                self.warnings = watches.warnings

    def vanish(self) -> None:
        """Until none of the workloads has a pod left, terminating ones included. Raises WaitFailed and WaitTimeout."""
        begun = self._clock()
        goals = dict.fromkeys(self._first, 0)
        source = self._pod_source(listed=True)
        answer = self._api.get(source.path, obj=source.obj, params=source.params)
        pods = list(answer.get("items") or [])
        if self._idle(pods):
            return
        with Watches(self._api) as watches:
            self._watch_workloads(watches)
            source.version = str(answer["metadata"]["resourceVersion"])
            watches.open(source, pods)
            try:
                while True:
                    self._look(watches, goals)
                    pods = list(watches.objects["pods"].values())
                    if self._idle(pods):
                        return
                    if self._deadline.passed:
                        raise self._late(
                            goals, [Trouble("terminating", one, "is still there") for one in self._left(pods)]
                        )
                    watches.next(self._deadline.remaining)
            finally:
                self._outcome.waited += self._clock() - begun
                self.warnings = watches.warnings

    def _until_settled(self, watches: Watches, goals: dict[str, int], begun: float) -> None:
        diagnosing = False
        while True:
            self._look(watches, goals)
            if all(view.settled(goals[view.key]) for view in self.views):
                return
            now = self._clock()
            if not diagnosing and now - begun >= DIAGNOSE_AFTER:
                diagnosing = True
                watches.open(self._pod_source(listed=False))
                if any(view.kind == "StatefulSet" for view in self.views):
                    watches.open(self._event_source())
            troubles = self._troubles(watches, goals, now)
            if self._deadline.passed:
                self._final_look(watches, goals, troubles)
                return
            pause = self._patience.next_check(now) if diagnosing else DIAGNOSE_AFTER - (now - begun)
            watches.next(min(self._deadline.remaining, max(pause, 0.001)))

    def _final_look(self, watches: Watches, goals: dict[str, int], troubles: t.Sequence[Trouble]) -> None:
        """At the deadline: what the server says itself, so that a watch that fell silent is not the reason to fail."""
        for kind in self._versions:
            watches.refresh(kind)
        self._look(watches, goals)
        if not all(view.settled(goals[view.key]) for view in self.views):
            raise self._late(goals, troubles)

    def _troubles(self, watches: Watches, goals: t.Mapping[str, int], now: float) -> list[Trouble]:
        pods = [pod(obj) for obj in watches.objects.get("pods", {}).values()]
        events = [event(obj) for obj in watches.objects.get("events", {}).values()]
        troubles = find_troubles(self.views, goals, pods, events)
        recovering = {f"Pod {self._namespace}/{one.name}" for one in pods if not one.ready}
        lasting = self._patience.lasting(troubles, recovering, now)
        if lasting:
            self._report(troubles)
            raise WaitFailed(
                obj=self._title(goals),
                problem=f"{self._progress(goals)}; {lasting[0].reason}: {lasting[0].holder}: {lasting[0].message}",
                next_step=ADVICE[lasting[0].reason],
            )
        return troubles

    def _look(self, watches: Watches, goals: dict[str, int]) -> None:
        """Take the newest objects; a deleted one, or one whose replicas somebody else has changed, is hopeless.

        An autoscaler's number becomes the goal of its workload.
        """
        views: list[Workload] = []
        for key, first in self._first.items():
            obj = watches.objects[first.kind].get(first.name)
            view = workload(obj, first.kind) if obj is not None else None
            if view is None or view.uid != first.uid:
                raise WaitFailed(
                    obj=first.title,
                    problem="it was deleted while its pods were waited for",
                    next_step="Find out who deleted it; create it again, then run again",
                )
            if view.replicas and key in self._scaled_by_others:
                goals[key] = view.replicas
            if view.generation > first.generation and view.replicas != goals[key]:
                raise WaitFailed(
                    obj=view.title,
                    problem=f"its replicas were set to {goals[key]}, and {view.writer or 'somebody'} has set them to {view.replicas} since",
                    next_step="Pause or adjust whoever owns the number of replicas (autoscaler, GitOps tool), then run again",
                )
            views.append(view)
        self.views = views

    def _late(self, goals: t.Mapping[str, int], troubles: t.Sequence[Trouble]) -> WaitTimeout:
        self._report(troubles)
        reasons = "; ".join(f"{one.reason}: {one.holder}: {one.message}" for one in troubles[:3])
        return WaitTimeout(
            obj=self._title(goals),
            problem=f"after {self._deadline.seconds:g} s {self._progress(goals)}{'; ' + reasons if reasons else ''}",
            next_step="Raise timeout if it only needs longer; running again goes on waiting",
        )

    def _report(self, troubles: t.Sequence[Trouble]) -> None:
        self._outcome.blockers += [
            Blocker(
                object=one.holder,
                what=f"{one.reason}: {one.message}",
                holder=one.holder,
                next_step=ADVICE.get(one.reason, "Find out what keeps it (node lost, finalizer, long grace period)"),
            )
            for one in troubles
        ]

    def _progress(self, goals: t.Mapping[str, int]) -> str:
        late = [view for view in self.views if not view.settled(goals[view.key])] or self.views
        return ", ".join(
            f"{view.key} has {view.ready} of {goals[view.key]} replicas ready ({view.pods} pods)" for view in late[:5]
        )

    def _title(self, goals: t.Mapping[str, int]) -> str:
        late = [view.title for view in self.views if not view.settled(goals[view.key])] or [
            view.title for view in self.views
        ]
        return ", ".join(late[:5])

    def _left(self, pods: t.Sequence[Json]) -> list[str]:
        """Those of the pods that belong to one of the workloads."""
        named = [pod(obj) for obj in pods]
        return [
            f"Pod {self._namespace}/{one.name}"
            for one in named
            if any(matches(view.selector, one.labels) for view in self.views)
        ]

    def _idle(self, pods: t.Sequence[Json]) -> bool:
        """Whether nothing is left, as the pods and the controllers of the newest specs say."""
        return not self._left(pods) and all(view.settled(0) for view in self.views)

    def _watch_workloads(self, watches: Watches) -> None:
        for kind, version in self._versions.items():
            mine = [view for view in self.views if view.kind == kind]
            source = Source(
                kind, collection_path(kind, self._namespace), f"{kind}s of namespace {self._namespace}", version=version
            )
            if len(mine) == 1:
                source.params["fieldSelector"] = f"metadata.name={mine[0].name}"
            watches.open(source, [t.cast("Json", view.raw) for view in mine])

    def _pod_source(self, *, listed: bool) -> Source:
        source = Source(
            "pods", collection_path("Pod", self._namespace), f"pods of namespace {self._namespace}", listed=listed
        )
        if len(self.views) == 1:
            source.params["labelSelector"] = selector_text(self.views[0].selector)
        source.optional = not listed
        return source

    def _event_source(self) -> Source:
        selector = "involvedObject.kind=StatefulSet"
        if len(self.views) == 1:
            selector += f",involvedObject.name={self.views[0].name}"
        path = collection_path("Event", self._namespace)
        return Source(
            "events",
            path,
            f"events of namespace {self._namespace}",
            {"fieldSelector": selector},
            listed=False,
            optional=True,
        )


def selector_text(selector: t.Mapping[str, t.Any]) -> str:
    """A label selector as the query parameter labelSelector writes it."""
    parts = [f"{key}={value}" for key, value in sorted((selector.get("matchLabels") or {}).items())]
    for expression in selector.get("matchExpressions") or []:
        key, values = expression["key"], ",".join(expression.get("values") or [])
        parts.append(
            {
                "In": f"{key} in ({values})",
                "NotIn": f"{key} notin ({values})",
                "Exists": key,
                "DoesNotExist": f"!{key}",
            }[expression["operator"]]
        )
    return ",".join(parts)
