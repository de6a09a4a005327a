# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The work of k8s_traffic: requests away to a maintenance page until none is in flight, and back once checks pass.

Private to lowtide.ops: do not import from other collections.
"""

from __future__ import annotations

import time
import typing as t

from ..._common.errors import OpsError, Refusal, WaitTimeout
from ..._common.outcome import Blocker, Outcome
from ..._common.retry import Backoff, Deadline
from ..._common.text import join_some
from .. import traffic_summary as summary
from ..cache import Cache
from ..client import Client
from ..cluster import check_identity, connect, disconnect, read_object
from ..conditions import Condition
from ..constraints.owners import find_owner_blockers, remember_owner
from ..diagnosis import GracePeriod
from ..endpoints import SERVICE_NAME, PodsReady, Routed, list_missing_ports, list_ready
from ..errors import Forbidden
from ..fields import as_dict, as_list, as_text, get_path
from ..objects import Pod, Workload
from ..patches import Write
from ..plans.traffic import Change, Served, list_fresh, plan_away, plan_back, read_note
from ..pod_proxy import (
    Check,
    Gauge,
    Place,
    Reading,
    list_workload_pods,
    parse_place,
    read_gauge,
    require_proxy,
    run_check,
)
from ..preflight import Planned, check_answer, check_rights
from ..resources import check_name, collection_path, format_title, object_path
from ..routes import NO_PODS, SELECTOR, Target, format_labels, list_backends, list_page_services, parse_target
from ..saved_state import UnreadableSavedState, is_window
from ..selectors import format_selector
from ..serving import count_wanted, describe_uncovered, list_left_pods, list_slices, make_uncovered_refusal, read_served
from ..wait import wait_until

if t.TYPE_CHECKING:
    from ansible.module_utils.basic import AnsibleModule

    from ..fields import Json

FIRST_PAUSE, LONGEST_PAUSE = 0.1, 1.0
"""Seconds between two rounds of asking pods."""


class Switch:
    """One run over all targets. What is known of them is kept by their titles, in the order in which they are written."""

    def __init__(self, module: AnsibleModule, outcome: Outcome, client: Client) -> None:
        self.module = module
        self.params = module.params
        self.outcome = outcome
        self.client = client
        self.namespace = str(self.params["namespace"])
        self.is_away = self.params["state"] == "maintenance"
        self.now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        self.gauges, self.checks = parse_gauges(self.params["in_flight"]), parse_checks(self.params["smoke"])
        names_page = self.is_away or self.params["assume"] == "maintenance"
        targets = [parse_target(entry, is_away=names_page) for entry in self.params["targets"]]
        ordered = targets if self.is_away else list(reversed(targets))
        self.targets = {format_title(target.kind, self.namespace, target.name): target for target in ordered}
        if len(self.targets) < len(targets):
            raise Refusal(obj="option targets", problem="it names an object twice", next_step="Name each object once")
        self.objects: dict[str, Json] = {}
        self.workloads: dict[str, Workload] = {}
        self.changes: dict[str, Change] = {}
        self.served: dict[str, tuple[t.Any, Served]] = {}
        self.written: set[str] = set()
        self.readings: list[Reading] = []
        self.highest: dict[str, float] = {}
        self.quiet = self.smoke = ""
        self.is_planned = False

    def run(self) -> None:
        """Fill the outcome; raise OpsError."""
        self._read()
        try:
            self._prepare()
            if self.module.check_mode:
                self.outcome.changed = any(change.is_due for change in self.changes.values())
                self._predict_back()
            elif self.is_away:
                self._send_away()
            else:
                self._give_back()
            self._raise_problems()
        finally:
            self._report()

    def _read(self) -> None:
        for title, target in self.targets.items():
            self.objects[title] = read_object(self.client, target.kind, self.namespace, target.name)

    def _read_workloads(self) -> None:
        """Read the workloads whose pods are asked. On the way back none is, where nothing is to be given back."""
        if not self.is_away and not any(change.is_due for change in self.changes.values()):
            return
        for place in self._list_places():
            if place.key not in self.workloads:
                obj = read_object(self.client, place.kind, self.namespace, place.workload)
                self.workloads[place.key] = Workload.from_object(obj, place.kind)

    def _list_places(self) -> list[Place]:
        """Return where pods are asked: for requests in flight on the way to the page, for smoke checks on the way back."""
        return [gauge.place for gauge in self.gauges] if self.is_away else [check.place for check in self.checks]

    def _prepare(self) -> None:
        """Plan everything; a Refusal when something stands against it, or the server would not allow it."""
        for title in self.targets:
            self.changes[title] = self._plan(title, self.objects[title])
        self._read_workloads()
        self._describe()
        self.is_planned = True
        if self.is_away:
            self._raise_problems()
            self._refuse_owned()
            self._refuse_missing_page()
            self._refuse_uncovered()
        check_rights(
            self.client,
            self._list_planned(),
            namespace=self.namespace,
            reads={"EndpointSlice", "Pod"},
            others=[require_proxy(self.namespace)] if self._list_places() else [],
            check_mode=self.module.check_mode,
            is_way_back=not self.is_away,
        )
        if self.is_away:
            self._refuse_unreadable()

    def _read_served(self, title: str, obj: Json) -> Served:
        """Return the pods that serve what is to be switched, which is saved with it; read anew when the routes change."""
        try:
            routes = list_fresh(obj, self.targets[title])
        except UnreadableSavedState:  # which the plan reports
            return Served()
        if title not in self.served or self.served[title][0] != routes:
            backends = list_backends(self.targets[title], routes, self.namespace)
            self.served[title] = routes, read_served(self.client, self.namespace, backends)
        return self.served[title][1]

    def _plan(self, title: str, obj: Json) -> Change:
        target = self.targets[title]
        if not self.is_away:
            return plan_back(
                obj,
                target,
                only_windows=self.params["saved_by"] == "window",
                assume_away=self.params["assume"] == "maintenance",
            )
        run_id = self.client.run_id
        change = plan_away(obj, target, served=self._read_served(title, obj), run_id=run_id, now=self.now)
        workload = Workload.from_object(obj, target.kind)
        write = remember_owner(change.write, workload, run_id=run_id, now=self.now, field=target.field)
        return change._replace(write=write)

    def _describe(self) -> None:
        """Set plan, diff and what stays as it is."""
        outcome = self.outcome
        outcome.before, outcome.after = {}, {}
        for title, change in self.changes.items():
            outcome.plan += summary.list_plan(title, change)
            self._set_diff(title, change)
            if not self.is_away:
                outcome.blockers += summary.list_left(title, change)

    def _set_diff(self, title: str, change: Change) -> None:
        self.outcome.before[title] = summary.describe_routes(change.before)
        self.outcome.after[title] = summary.describe_routes(change.after if change.is_due else change.before)

    def _raise_problems(self) -> None:
        """Fail for objects whose annotation cannot be read: nobody knows where their requests went."""
        problems = {title: change.problem for title, change in self.changes.items() if change.problem}
        for title, problem in problems.items():
            raise OpsError(
                obj=title,
                problem=f"{problem}, so where its requests went before is not known",
                next_step="Set its routes by hand and remove that annotation (kubectl edit), then run again",
            )

    def _refuse_owned(self) -> None:
        """Refuse to change what a GitOps tool or an operator would set back."""
        if "gitops" not in self.params["guards"]:
            return
        for title, target in self.targets.items():
            if self.changes[title].is_due:
                workload = Workload.from_object(self.objects[title], target.kind)
                self.outcome.blockers += find_owner_blockers(workload, field=target.field)
        if self.outcome.blockers:
            first = self.outcome.blockers[0]
            raise Refusal(obj=first.object, problem=first.what, next_step=first.next_step)

    def _refuse_missing_page(self) -> None:
        """Refuse to send requests to where nobody answers them. Where nothing is sent, nothing is asked."""
        for title, target in self.targets.items():
            if not self.changes[title].is_due:
                continue
            if target.kind == "Service" and target.selector != NO_PODS:
                self._refuse_unready_pods(title, target)
            for service in list_page_services(self.objects[title], target):
                self._refuse_unready_service(service, target)

    def _refuse_unready_pods(self, title: str, target: Target) -> None:
        params = {"labelSelector": format_selector({"matchLabels": target.selector})}
        path = collection_path("Pod", self.namespace)
        listing = self.client.list(path, obj=f"pods of namespace {self.namespace}", params=params)
        pods = [Pod.from_object(obj) for obj in listing.items]
        ready = [pod for pod in pods if pod.is_ready and not pod.is_terminating]
        missing = [list_missing_ports(self.objects[title], pod) for pod in ready]
        if ready and all(missing):
            raise Refusal(
                obj=title,
                problem=f"its targetPort is {join_some(missing[0])}, and none of the {len(ready)} ready pods with"
                f" {format_labels(target.selector)} has a container port of that name, so its requests would fail instead"
                " of getting the maintenance page",
                next_step=f"Name the port of the maintenance page {join_some(missing[0])} in its pod template",
            )
        if not ready:
            raise Refusal(
                obj=title,
                problem=f"none of the {len(pods)} pods with {format_labels(target.selector)} is ready, so its requests"
                " would fail instead of getting the maintenance page",
                next_step="Start the maintenance page, or correct selector",
            )

    def _refuse_unready_service(self, name: str, target: Target) -> None:
        service = read_object(self.client, "Service", self.namespace, check_name("to_service", name))
        title = format_title("Service", self.namespace, name)
        ports = as_list(get_path(service, "spec", "ports"))
        numbers = [port.get("port") for port in ports]
        if target.to_port and target.to_port not in numbers:
            raise Refusal(
                obj=title,
                problem=f"it has no port {target.to_port}; its ports are {', '.join(map(str, numbers)) or 'none'}",
                next_step="Correct to_port",
            )
        used = [port for port in ports if not target.to_port or port.get("port") == target.to_port]
        names = {as_text(port.get("name")) for port in used}
        slices = list_slices(self.client, self.namespace, name)
        if list_ready(slices, name) and not list_ready(slices, name, ports=names):
            raise Refusal(
                obj=title,
                problem="its ready endpoints do not have the container port that its targetPort names, so requests would"
                " fail instead of getting the maintenance page",
                next_step="Give the port of the maintenance page that name in its pod template, or correct targetPort",
            )
        if not list_ready(slices, name):
            raise Refusal(
                obj=title,
                problem="it has no ready endpoint, so requests would fail instead of getting the maintenance page",
                next_step="Start the maintenance page, or correct to_service",
            )

    def _refuse_uncovered(self) -> None:
        """Refuse where a pod that gets the requests would not be asked: nothing would be proven of it."""
        if not self.gauges:
            return
        for pod in self._list_uncovered({pod.name for pods in self._list_asked().values() for pod in pods}):
            title = next(title for title, change in self.changes.items() if pod.name in change.served.pods)
            raise make_uncovered_refusal(self.client, pod, title)

    def _refuse_unreadable(self) -> None:
        """Ask each pod once, also in check mode: what it cannot tell now, it could not tell with the page up either."""
        if not self.gauges or not any(change.is_due for change in self.changes.values()):
            return
        self.readings = self._read_gauges()
        self._keep_highest()
        lasting = [reading for reading in self.readings if reading.is_lasting]
        if lasting:
            raise Refusal(
                obj=lasting[0].pod,
                problem=f"{summary.describe_lasting(lasting)}, so whether requests are in flight would not be known;"
                " this run has changed nothing",
                next_step=lasting[0].next_step,
            )

    def _list_uncovered(self, asked: t.Collection[str]) -> list[Pod]:
        """Return the pods that requests went to before the switch, that are still there, and that are not asked."""
        served = {name for change in self.changes.values() for name in change.served.pods}
        return list_left_pods(self.client, self.namespace, served.difference(asked))

    def _list_asked(self) -> dict[str, list[Pod]]:
        return {key: list_workload_pods(self.client, workload) for key, workload in self.workloads.items()}

    def _list_planned(self) -> list[Planned]:
        planned: list[Planned] = []
        for title, target in self.targets.items():
            write = self.changes[title].write
            if write is not None:
                path = object_path(target.kind, self.namespace, target.name)
                planned.append(Planned(target.kind, title, path, self.objects[title], write))
        return planned

    def _send_away(self) -> None:
        self._write_all()
        self._wait_routed()
        self._wait_quiet()

    def _give_back(self) -> None:
        if any(change.is_due for change in self.changes.values()):
            self._wait(self._list_ready_conditions())
            self._require_smoke()
        self._write_all()
        self._wait_routed()

    def _write_all(self) -> None:
        for title in self.targets:
            if self.changes[title].write is not None:
                self._write(title)

    def _write(self, title: str) -> None:
        target = self.targets[title]
        decided: list[Change] = []

        def decide(obj: Json) -> Write | None:
            decided.append(self._plan(title, obj))
            return decided[-1].write

        path = object_path(target.kind, self.namespace, target.name)
        obj, sent = self.client.patch_with_retry(path, decide, obj=title, first=self.objects[title])
        self.objects[title] = obj
        change = next((change for change in reversed(decided) if change.write is not None), decided[-1])
        endpoints = max(change.endpoints, self.changes[title].endpoints)
        self.changes[title] = change._replace(endpoints=endpoints)
        self._set_diff(title, change)
        if sent:
            self.written.add(title)
        last = decided[-1].write
        if last is not None:
            check_answer(obj, last, title)

    def _list_ready_conditions(self) -> list[PodsReady]:
        """Return for each Service the condition that the pods are ready to which its requests go back."""
        conditions: list[PodsReady] = []
        for title, target in self.targets.items():
            served, selector = self.changes[title].endpoints, self.changes[title].after.get(SELECTOR)
            if served and selector:
                wanted = self._count_wanted(selector, served)
                conditions.append(PodsReady(self.namespace, target.name, selector, served=served, wanted=wanted))
        return conditions

    def _count_wanted(self, selector: dict[str, str], served: int) -> int:
        """Return how many pods with these labels are wanted; as many as served where that may not be read."""
        try:
            return count_wanted(self.client, self.namespace, selector)
        except Forbidden as error:
            self.client.warnings.append(f"{error.obj}: not allowed to read them, so {served} ready pods are waited for")
            return served

    def _wait_routed(self) -> None:
        """Wait until each Service's endpoints are the pods that it selects, also where nothing had to be changed."""
        conditions = []
        for title, target in self.targets.items():
            selector = as_dict(get_path(self.objects[title], "spec", "selector"))
            if target.kind == "Service" and selector:
                is_serving = target.selector != NO_PODS if self.is_away else self.changes[title].endpoints > 0
                has_ports = bool(get_path(self.objects[title], "spec", "ports"))
                condition = Routed(self.namespace, target.name, selector, is_serving=is_serving, has_ports=has_ports)
                conditions.append(condition)
        self._wait(conditions)

    def _wait(self, conditions: t.Sequence[PodsReady | Routed]) -> None:
        if not conditions:
            return
        waited: list[Condition] = list(conditions)
        with Cache(self.client) as cache:
            for condition in conditions:
                if condition.kind == "EndpointSlice":
                    cache.follow("EndpointSlice", self.namespace, label_selector=f"{SERVICE_NAME}={condition.name}")
                labels = format_selector({"matchLabels": condition.selector})
                if not cache.is_following("Pod", self.namespace, label_selector=labels):
                    cache.follow("Pod", self.namespace, label_selector=labels)
            try:
                wait_until(
                    waited,
                    cache,
                    deadline=self.client.deadline,
                    grace=GracePeriod(self.params["failure_grace_factor"]),
                    outcome=self.outcome,
                )
            finally:
                for warning in cache.warnings:
                    self.module.warn(warning)

    def _wait_quiet(self) -> None:
        """Ask every pod what is in flight until all have said nothing for ``quiet_seconds``."""
        if not self.gauges:
            self.quiet = "requests in flight are not looked at"
            return
        hold = float(self.params["quiet_seconds"])
        seconds = min(float(self.params["in_flight_timeout"]), self.client.deadline.remaining)
        self.quiet = "requests may be in flight"
        if self._poll(self._read_gauges, seconds=seconds, hold=hold):
            unknown = [title for title, change in self.changes.items() if not change.served.is_complete]
            self.quiet = summary.describe_quiet(self.readings, hold, unknown=unknown)
            return
        unmet = [reading for reading in self.readings if not reading.is_met]
        problem = summary.describe_unmet(self.readings) or f"nothing was in flight for less than {hold:g} s"
        advice = next((reading.next_step for reading in unmet if reading.next_step), "") or (
            "Look at what holds them, or raise in_flight_timeout (and in_flight[].limit if a pod counts the request that asks)"
        )
        raise WaitTimeout(
            obj=unmet[0].pod if unmet else next(iter(self.targets)),
            problem=f"after {seconds:.1f} s requests may still be in flight: {problem}",
            next_step=f"{advice}; running again goes on waiting, state=normal gives traffic back",
        )

    def _require_smoke(self) -> None:
        """Refuse to give traffic back to pods that do not pass every smoke check within ``smoke_timeout``."""
        if not self.checks:
            return
        seconds = min(float(self.params["smoke_timeout"]), self.client.deadline.remaining)
        if not self._poll(self._run_checks, seconds=seconds, hold=0.0):
            raise Refusal(
                obj=next(reading.pod for reading in self.readings if not reading.is_met),
                problem=f"after {seconds:.1f} s smoke checks fail, so traffic stays at the maintenance page:"
                f" {summary.describe_unmet(self.readings)}",
                next_step="Mend what fails and run again; or take that check out of smoke to give traffic back all the same",
            )
        self.smoke = summary.describe_smoke(self.readings)

    def _predict_back(self) -> None:
        """In a rehearsal of the way back, report which smoke checks would fail now: by then they may pass."""
        if self.is_away or not self.checks or not self.outcome.changed:
            return
        self.readings = self._run_checks()
        for reading in self.readings:
            if not reading.is_met:
                step = "It has to pass before traffic is given back; mend it, or take it out of smoke"
                self.outcome.blockers.append(Blocker(reading.pod, reading.message, reading.pod, step))

    def _poll(self, read: t.Callable[[], list[Reading]], *, seconds: float, hold: float) -> bool:
        """Ask again and again until all readings have been as they must be for ``hold`` seconds; False at the deadline.

        Nothing announces what a pod says of itself, so there is nothing to watch.
        """
        whole = self.client.deadline
        deadline = self.client.deadline = Deadline(seconds)
        backoff = Backoff(first=FIRST_PAUSE, limit=LONGEST_PAUSE)
        since: float | None = None
        has_looked = False
        try:
            while True:
                began = deadline.elapsed
                readings = read()
                is_met = all(reading.is_met for reading in readings)
                if is_met or not (has_looked and deadline.passed):  # a look that is cut short says less than the last
                    self.readings = readings
                has_looked = True
                self._keep_highest()
                since = (began if since is None else since) if is_met else None
                if since is not None and deadline.elapsed - since >= hold:
                    return True
                if deadline.passed:
                    return False
                deadline.pause(backoff.take_pause())
        finally:
            self.outcome.waited += deadline.elapsed
            self.client.deadline = whole

    def _keep_highest(self) -> None:
        for reading in self.readings:
            if reading.value is not None:
                self.highest[reading.pod] = max(reading.value, self.highest.get(reading.pod, 0.0))

    def _read_gauges(self) -> list[Reading]:
        pods = self._list_asked()
        readings = [read_gauge(self.client, pod, gauge) for gauge in self.gauges for pod in pods[gauge.place.key]]
        uncovered = self._list_uncovered({pod.name for owned in pods.values() for pod in owned})
        return readings + [describe_uncovered(pod) for pod in uncovered]

    def _run_checks(self) -> list[Reading]:
        readings: list[Reading] = []
        pods = self._list_asked()
        for check in self.checks:
            ready = [pod for pod in pods[check.place.key] if pod.is_ready and not pod.is_terminating]
            readings += [run_check(self.client, pod, check) for pod in ready]
            if not ready:
                title = self.workloads[check.place.key].title
                message = f"{check.place.path}: no pod of it is ready"
                readings.append(Reading(title, check.place.path, is_met=False, value=None, message=message))
        return readings

    def _report(self) -> None:
        """Set what is known of the targets; once all is planned the summary and the evidence too, also on a failure."""
        facts = self.outcome.facts
        facts["targets"] = [self._describe_target(title) for title in self.targets]
        facts["readings"] = [reading.as_dict() for reading in self.readings]
        if not self.is_planned:
            return
        written = None if self.module.check_mode else self.written
        if self.is_away:
            self.outcome.summary = summary.summarize_away(
                self.targets, self.changes, written=written, quiet="" if written is None else self.quiet
            )
            if self.written and not is_window(self.client.run_id):
                self.outcome.summary += summary.GIVE_BACK
        else:
            self.outcome.summary = summary.summarize_back(self.changes, written=written, smoke=self.smoke)
        self.outcome.evidence = summary.list_evidence(self.changes, self.readings, highest=self.highest)

    def _describe_target(self, title: str) -> dict[str, t.Any]:
        target = self.targets[title]
        entry: dict[str, t.Any] = {"kind": target.kind, "name": target.name, "state": "normal"}
        obj = self.objects.get(title)
        if obj is None:
            return entry
        try:
            note = read_note(obj)
        except UnreadableSavedState as error:
            return {**entry, "state": "unknown", "problem": str(error)}
        if note is None:
            return entry
        state = note.state
        return {**entry, "state": "maintenance", "run": state.run_id, "since": state.at, "before": note.before}


def parse_gauges(entries: t.Sequence[t.Mapping[str, t.Any]] | None) -> list[Gauge]:
    """Return the entries of the option in_flight. Raises Refusal."""
    gauges = []
    for entry in entries or ():
        metric, field = str(entry.get("metric") or ""), str(entry.get("field") or "")
        if metric and field:
            raise Refusal(
                obj="option in_flight",
                problem=f"metric {metric} and field {field} are both given for {entry['kind']} {entry['name']}",
                next_step="Give metric for Prometheus' text format, field for JSON",
            )
        labels = {str(key): str(value) for key, value in (entry.get("labels") or {}).items()}
        gauges.append(Gauge(parse_place("in_flight", entry), metric, labels, field, float(entry["limit"])))
    return gauges


def parse_checks(entries: t.Sequence[t.Mapping[str, t.Any]] | None) -> list[Check]:
    """Return the entries of the option smoke. Raises Refusal."""
    return [
        Check(parse_place("smoke", entry), int(entry["status"]), str(entry.get("contains") or ""))
        for entry in entries or ()
    ]


def run_traffic(module: AnsibleModule, outcome: Outcome) -> None:
    """Read, plan, apply unless check mode, wait, report."""
    client = connect(module, seconds=module.params["timeout"])
    outcome.facts["run_id"] = client.run_id
    try:
        check_identity(client, module.params["cluster_uid"])
        Switch(module, outcome, client).run()
    finally:
        disconnect(module, outcome, client)
