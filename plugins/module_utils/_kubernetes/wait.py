# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The one loop that waits for conditions of workloads. Private to lowtide.ops: do not import from other collections."""

from __future__ import annotations

import datetime
import math
import typing as t

from .._common.errors import OpsError, WaitFailed, WaitTimeout
from .._common.outcome import Blocker, Outcome
from .._common.retry import Deadline
from .._common.text import format_count, join_some
from .conditions import Condition, Status
from .diagnosis import Finding, GracePeriod, diagnose, list_pods_to_start
from .objects import Workload
from .resources import list_kinds_between
from .selectors import format_selector
from .snapshot import Snapshot

DIAGNOSE_AFTER = 5.0
"""Seconds, or a fifth of the time that there is. Most scalings are done by then and never need what explains a delay."""
SHORTEST_PAUSE = 0.05
"""Seconds between two looks, whatever the times in between add up to, and however many changes pour in."""
LOOK_SHARE = 4
"""The pause after a look is at least so many times what the look took: looking never takes most of the time."""
REPORTED = 20
"""Findings that become blockers of the result; the others are counted."""

REPORTED_STATUSES = 5
"""Objects whose state is in the message."""

_USUAL_EVENTS = "Pulling Pulled Created Started Scheduled Killing SuccessfulDelete ScalingReplicaSet Unhealthy BackOff"
_EVENT_SELECTOR = ",".join(f"reason!={reason}" for reason in _USUAL_EVENTS.split())
"""Leaves out what every pod causes and no diagnosis looks at."""


class FindingLasted(WaitFailed):
    """A wait ended early because of ``finding``, which has lasted longer than it is borne."""

    def __init__(self, finding: Finding, *, obj: str, problem: str, next_step: str) -> None:
        super().__init__(obj=obj, problem=problem, next_step=next_step)
        self.finding = finding


class SnapshotSource(t.Protocol):
    """What the loop needs of a ``Cache``."""

    def follow(
        self,
        kind: str,
        namespace: str,
        *,
        label_selector: str | None = None,
        field_selector: str | None = None,
        optional: bool = False,
    ) -> None:
        """Keep a collection up to date from now on."""

    def is_following(self, kind: str, namespace: str, *, label_selector: str | None = None) -> bool:
        """Return whether all of this kind is followed, or all that the selector selects."""

    def snapshot(self) -> Snapshot:
        """Return everything as it is known now."""

    def read_clock(self) -> float:
        """Return the server's time in seconds since 1970."""

    def wait_for_change(self, timeout: float, *, settle: float = 0.0) -> None:
        """Wait until an object has changed, at most ``timeout`` seconds, and at least ``settle`` if that is less."""

    def refresh(self) -> None:
        """Read everything again."""


def wait_until(
    conditions: t.Sequence[Condition],
    cache: SnapshotSource,
    *,
    deadline: Deadline,
    grace: GracePeriod,
    outcome: Outcome,
    diagnose_after: float = DIAGNOSE_AFTER,
    since: float | None = None,
) -> Snapshot:
    """Return the first snapshot in which all conditions hold.

    The kinds that they need are followed from the beginning (those of the workloads themselves by the caller, who has
    read them), what only explains a delay after ``diagnose_after`` seconds (at most a fifth of the deadline; infinite:
    never) and if it may be read. Raises WaitFailed as soon as a condition cannot hold any more, or a finding has lasted longer than
    ``grace`` bears it; WaitTimeout at the deadline; the latter two after reading everything once more, so that no watch that fell silent is the reason.
    Conditions that say their progress renew the deadline with each step that none before has reached for the same goal.
    ``outcome`` gets the findings as blockers, and the seconds waited. The server's clock is read once. ``since`` is when
    what is waited for was begun, by a run that was cut off: now, where it is not given.
    """
    began = deadline.elapsed
    try:
        return _Wait(
            conditions=conditions,
            cache=cache,
            deadline=deadline,
            grace=grace,
            outcome=outcome,
            epoch=cache.read_clock() - began,
            diagnose_after=diagnose_after if math.isinf(diagnose_after) else min(diagnose_after, deadline.seconds / 5),
            since=since,
        ).run()
    finally:
        outcome.waited += deadline.elapsed - began


class _Look(t.NamedTuple):
    """What one snapshot says."""

    snapshot: Snapshot
    statuses: list[Status]
    findings: list[Finding]
    recovering: set[str]

    @property
    def late(self) -> list[Status]:
        """Those for which there is still something to wait."""
        return [status for status in self.statuses if not status.is_current]


class _Wait:
    """One wait. ``epoch`` turns the deadline's clock, which never jumps, into the server's, in seconds since 1970."""

    def __init__(
        self,
        *,
        conditions: t.Sequence[Condition],
        cache: SnapshotSource,
        deadline: Deadline,
        grace: GracePeriod,
        outcome: Outcome,
        epoch: float,
        diagnose_after: float,
        since: float | None,
    ) -> None:
        self._conditions = conditions
        self._cache = cache
        self._deadline = deadline
        self._grace = grace
        self._outcome = outcome
        self._epoch = epoch
        self._began = deadline.elapsed
        self._is_diagnosing = False
        self._diagnose_after = diagnose_after
        self._since = epoch + self._began if since is None else since
        self._farthest: dict[tuple[int, int | None], int] = {}

    @property
    def _now(self) -> float:
        return self._epoch + self._deadline.elapsed

    @property
    def _waited(self) -> float:
        return self._deadline.elapsed - self._began

    def run(self) -> Snapshot:
        """Look, decide, wait for a change, again and again."""
        self._follow_needed()
        while True:
            began = self._deadline.elapsed
            look = self._look()
            cost = self._deadline.elapsed - began
            if not look.late:
                return look.snapshot
            self._raise_failed(look)
            if not self._is_diagnosing and self._waited >= self._diagnose_after:
                self._is_diagnosing = True
                self._follow_explaining()
                continue
            if self._grace.find_expired(look.findings, look.recovering, self._now) is not None:
                confirmed = self._confirm_expired()
                if confirmed is not None:
                    return confirmed
            if self._deadline.passed:
                final = self._look_finally(look)
                if final is not None:
                    return final
                continue
            self._cache.wait_for_change(self._choose_pause(look), settle=max(SHORTEST_PAUSE, LOOK_SHARE * cost))

    def _look(self) -> _Look:
        snapshot = self._cache.snapshot()
        statuses: list[Status] = []
        findings: list[Finding] = []
        recovering: set[str] = set()
        for condition in self._conditions:
            status = condition.evaluate(snapshot)
            statuses.append(status)
            workload = None if status.is_current else condition.find_workload(snapshot)
            if workload is None:
                continue
            goal = workload.replicas if status.goal is None else status.goal
            findings += diagnose(snapshot, workload, since=self._since, goal=goal)
            recovering.update(pod.title for pod in list_pods_to_start(snapshot, workload))
        self._renew_deadline(statuses)
        return _Look(snapshot, statuses, findings, recovering)

    def _renew_deadline(self, statuses: t.Sequence[Status]) -> None:
        """Give the whole time again where a condition has come farther than ever: what only flaps never does."""
        for index, status in enumerate(statuses):
            key = (index, status.goal)
            if status.progress is not None and status.progress > self._farthest.get(key, status.progress - 1):
                self._farthest[key] = status.progress
                self._deadline.renew()

    def _choose_pause(self, look: _Look) -> float:
        again = [status.look_again for status in look.statuses if status.look_again is not None]
        pause = min(self._deadline.remaining, self._grace.next_expiry(self._now), *again)
        if not self._is_diagnosing:
            pause = min(pause, self._diagnose_after - self._waited)
        return max(pause, SHORTEST_PAUSE)

    def _raise_failed(self, look: _Look) -> None:
        failed = [status for status in look.statuses if status.is_failed]
        if failed:
            self._report(look.findings)
            raise WaitFailed(obj=failed[0].title, problem=failed[0].message, next_step=failed[0].next_step)

    def _confirm_expired(self) -> Snapshot | None:
        """Read everything once more; raise if the finding is still there, return the snapshot if all holds by now."""
        try:
            self._cache.refresh()
        except OpsError:
            if not self._deadline.passed:
                raise
            return None
        look = self._look()
        if not look.late:
            return look.snapshot
        self._raise_failed(look)
        expired = self._grace.find_expired(look.findings, look.recovering, self._now)
        if expired is None:
            return None
        self._report([expired, *(finding for finding in look.findings if finding is not expired)])
        raise FindingLasted(
            expired,
            obj=_join_titles(look.late),
            problem=f"{_join_messages(look.late)}; {expired}{self._grace.describe_limit(expired)}",
            next_step=f"{expired.next_step}, or raise failure_grace_factor if it passes",
        )

    def _look_finally(self, look: _Look) -> Snapshot | None:
        """At the deadline: what the server says itself. None where that is progress which no watch has told of."""
        unread = ""
        try:
            self._cache.refresh()
        except OpsError as error:
            unread = f"; reading it once more failed: {error.obj}: {error.problem}"
        else:
            look = self._look()
            if not look.late:
                return look.snapshot
            self._raise_failed(look)
            if not self._deadline.passed:
                return None
        self._report(look.findings)
        reasons = "".join(f"; {finding}" for finding in look.findings[:3])
        steps = [status.next_step for status in look.late if status.next_step]
        steps += [finding.next_step for finding in look.findings]
        advice = f"{steps[0]}; or raise" if steps else "Raise"
        raise WaitTimeout(
            obj=_join_titles(look.late),
            problem=f"after {self._describe_time(look)}: {_join_messages(look.late)}{reasons}{unread}",
            next_step=f"{advice} timeout if it only needs longer: running again goes on waiting",
        )

    def _describe_time(self, look: _Look) -> str:
        seconds = f"{self._deadline.seconds:g} s"
        return f"{seconds} without progress" if any(s.progress is not None for s in look.late) else seconds

    def _report(self, findings: t.Sequence[Finding]) -> None:
        """Add the findings to the blockers of the result."""
        for finding in findings[:REPORTED]:
            self._outcome.blockers.append(
                Blocker(
                    object=finding.object,
                    what=f"{finding.reason}: {finding.message}",
                    holder=finding.holder or finding.object,
                    next_step=finding.next_step,
                    since=_format_time(finding.since),
                )
            )
        rest = findings[REPORTED:]
        if rest:
            titles = join_some([finding.object for finding in rest], limit=3)
            what = f"{format_count(len(rest), 'more finding')}: {join_some(sorted({f.reason for f in rest}))}"
            self._outcome.blockers.append(Blocker(titles, what, titles, rest[0].next_step))

    def _follow_needed(self) -> None:
        for namespace, conditions in self._group_by_namespace():
            # The workloads themselves are followed by the caller.
            needs = [kind for condition in conditions for kind in condition.needs() if kind != condition.kind]
            for kind in dict.fromkeys(needs):
                self._follow(kind, namespace, conditions, optional=False)

    def _follow_explaining(self) -> None:
        """Follow what explains a delay, as far as it may be read: only pods and what makes them are explained."""
        snapshot = self._cache.snapshot()
        for namespace, of_namespace in self._group_by_namespace():
            conditions = [entry for entry in of_namespace if entry.find_workload(snapshot) is not None]
            if not conditions:
                continue
            kinds = ["ControllerRevision"] if any(condition.kind == "DaemonSet" for condition in conditions) else []
            kinds += [kind for condition in conditions for kind in list_kinds_between(condition.resource)]
            for kind in dict.fromkeys([*kinds, "Pod", "Event"]):
                self._follow(kind, namespace, conditions, optional=True)

    def _group_by_namespace(self) -> list[tuple[str, list[Condition]]]:
        groups: dict[str, list[Condition]] = {}
        for condition in self._conditions:
            groups.setdefault(condition.namespace, []).append(condition)
        return list(groups.items())

    def _follow(self, kind: str, namespace: str, conditions: list[Condition], *, optional: bool) -> None:
        labels = None
        if kind == "Pod" and len(conditions) == 1:
            labels = _format_labels(conditions[0].find_workload(self._cache.snapshot()))
        if self._cache.is_following(kind, namespace, label_selector=labels):
            return
        fields = _EVENT_SELECTOR if kind == "Event" else None
        self._cache.follow(kind, namespace, label_selector=labels, field_selector=fields, optional=optional)


def _format_labels(workload: Workload | None) -> str | None:
    """Return the label selector of a workload's pods; None when it has none (a CronJob's), or is not known."""
    return (format_selector(workload.selector) or None) if workload is not None else None


def _join_titles(statuses: t.Sequence[Status]) -> str:
    return join_some([status.title for status in statuses])


def _join_messages(statuses: t.Sequence[Status]) -> str:
    """Return what each object says, with its name where there are several."""
    if len(statuses) == 1:
        return statuses[0].message
    words = [f"{status.title}: {status.message}" for status in statuses[:REPORTED_STATUSES]]
    rest = len(statuses) - len(words)
    return "; ".join([*words, f"{rest} more"] if rest > 0 else words)


def _format_time(at: float | None) -> str | None:
    return datetime.datetime.fromtimestamp(at, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if at is not None else None
