# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The work of patroni_site: verify both clusters, fence the old one, promote the new one, in this order.

Private to lowtide.ops: do not import from other collections.
"""

from __future__ import annotations

import typing as t
from concurrent.futures import ThreadPoolExecutor

from ..._common.errors import OpsError, OutcomeUnknown, Refusal, WaitTimeout
from ..._common.outcome import Blocker, Outcome, PlanItem
from ..._common.retry import Deadline
from ..arguments import check_dcs, make_client, read_cluster
from ..claims import CONFLICT, Claims, Unwritten
from ..client import Answer, Client, Unreadable
from ..moving import INTERVAL, list_lacking
from ..plan import describe_cluster
from ..sites import (
    KEPT_SECTION,
    Sites,
    check_pair,
    check_still,
    check_unfed,
    describe_missing,
    describe_sites,
    explain_missing,
    explain_shared_names,
    explain_way_back,
    has_archive,
    is_receiving_known,
    lacks_section,
    list_not_following,
    list_unproven,
    make_note,
    plan_section,
    plan_sites,
    read_receiver_timeout,
    summarize_sites,
)
from ..state import Cluster, Json
from ..summary import list_evidence
from ..unheard import Unheard, find_unheard, finish_report, refuse_writers, report_unheard

if t.TYPE_CHECKING:
    from ansible.module_utils.basic import AnsibleModule

WATCH_INTERVAL = 0.5
"""Seconds between two looks at whether WAL comes, and before a change is tried again that another one came before."""
UNAVAILABLE = range(500, 600)
"""So a proxy answers, or a Patroni that has not read its configuration: it may pass."""
NO_CHANGE: Json = {"lowtide_rights": None}
"""Removes a key that is not there, by which Patroni verifies the login and writes nothing."""


class Run:
    """One run over two clusters. ``sites.old`` is None where the other site is lost, and declared so."""

    def __init__(
        self, clients: tuple[Client, Client], sites: Sites, claims: Claims, outcome: Outcome, seconds: float
    ) -> None:
        self.new, self.old = clients
        self.claims = claims
        self.sites = sites
        self.outcome = outcome
        self.deadline = Deadline(seconds)
        self._old_names = frozenset(member.name for member in sites.old.members) if sites.old else frozenset()

    def check_rights(self) -> None:
        """Try a change of nothing on each cluster that is to be changed. Raises Refusal where one would not take it."""
        if self.sites.old is not None and not self.sites.old.is_standby_cluster and self.sites.new.is_standby_cluster:
            try_write(self.old, self.sites.old)
        if self.sites.new.is_standby_cluster:
            try_write(self.new, self.sites.new)

    def perform(self, max_lag: int) -> None:
        """Do what is to be done by what the clusters are now that this run has its claim.

        The new one is read first: it has no more WAL than the old one has later on.
        """
        perform = {"promote": self.promote, "configure": self.configure}
        for step in self._plan_anew(max_lag):
            if step == "fence":
                self.fence(max_lag)
            else:
                perform[step]()

    def _plan_anew(self, max_lag: int) -> list[str]:
        new = self.new.read_cluster()
        self.sites = Sites(new, None if self.sites.old is None else self.old.read_cluster())
        return plan_sites(self.sites, max_lag)

    def fence(self, max_lag: int) -> None:
        """Make the old cluster a standby cluster of the new one; ``promote`` proves that this holds."""
        while True:
            old, leader = t.cast(Cluster, self.sites.old), self.sites.new.leader
            if old.is_standby_cluster or leader is None:
                return
            if self._configure(self.old, {"standby_cluster": {"host": leader.host, "port": leader.port}}):
                return
            # Another client has changed its configuration: that may stand against the fence.
            self._plan_anew(max_lag)

    def _prove_fenced(self, old: Cluster) -> None:
        """Wait until one reading shows that the old cluster accepts no writes and the new one has all of it."""
        new = self.sites.new
        self._wait(
            self._find_unproven,
            f"{old.scope} is not known to accept no writes, or {new.scope} has not received all of it",
        )
        for line in (
            f"{old.scope} is fenced: every member is a standby, and Patroni keeps it so",
            describe_missing(self.sites),
        ):
            if self.sites.new.is_standby_cluster and line not in self.outcome.evidence:
                self.outcome.evidence.append(line)

    def _find_unproven(self) -> list[str]:
        if not self.sites.new.is_standby_cluster:
            return []  # the promotion that was sent after the proof, and answered by an error, has come about
        return list_unproven(self.sites, self._old_names) or self.old.list_silent() or self._list_unkept()

    def _list_unkept(self) -> list[str]:
        """Return why the DCS does not have it that the old cluster is a standby cluster of the new one.

        A member answers with the configuration of its last round; somebody may have taken the fence away since.
        """
        try:
            config = self.claims.confirm(self.old)
            kept = t.cast(Cluster, self.sites.old)._replace(config=config)
            unkept = list_unproven(self.sites._replace(old=kept), self._old_names)
        except (OutcomeUnknown, Unwritten) as error:
            # Neither cluster may accept writes now: what passes is waited for, up to the deadline.
            unkept = [f"{error.obj}: {error.problem}"]
        if unkept:  # each look at the DCS is a write to it
            self.deadline.pause(WATCH_INTERVAL)
        return unkept

    def _end_following(self) -> None:
        """Ask for the promotion, right after the reading that proves that it is safe."""
        old = self.sites.old
        if old is None:
            self._watch_receiver()
            while True:
                check_lost(self.old, "it has come back during this run")
                check_unfed(self.new.read_cluster())
                if self._configure(self.new, self._make_promotion()):
                    return
        try:
            while True:
                self._prove_fenced(old)
                if not self.sites.new.is_standby_cluster or self._configure(self.new, self._make_promotion()):
                    break
        except OpsError as error:
            kinds = (WaitTimeout, Refusal)
            raise next((kind for kind in kinds if isinstance(error, kind)), OpsError)(
                obj=error.obj,
                problem=error.problem,
                next_step=f"{error.next_step}. {explain_way_back(self.sites, self.old.urls[0])}",
            ) from error

    def _watch_receiver(self) -> None:
        """See that no WAL comes where Patroni does not say whether some does. Raises Refusal where it does."""
        first = self.sites.new
        if is_receiving_known(first):
            return
        watch = Deadline(read_receiver_timeout(first) + first.loop_wait)
        while not watch.passed:
            self.claims.renew()
            now = self.new.read_cluster()
            check_unfed(now)
            check_still(first, now)
            if self.deadline.passed:
                raise WaitTimeout(
                    obj=first.title,
                    problem=f"Patroni does not say whether it still receives WAL, and {self.deadline.seconds:.0f} s"
                    f" were too short to see that none comes, which takes {watch.seconds:.0f} s",
                    next_step="Raise timeout, and run again",
                )
            watch.pause(WATCH_INTERVAL)
        self.outcome.evidence.append(
            f"{first.scope} has received no WAL for {watch.seconds:.0f} s (wal_receiver_timeout and loop_wait); Patroni"
            " there does not say whether it streams, and an old site without any writes would look the same"
        )
        if has_archive(first):
            slow = (
                "restore_command brings WAL in whole segments, of which none may have ended in this time, so that an"
                " old site that still accepts writes and reaches only the archive would look the same as well"
            )
            self.outcome.evidence.append(f"{first.scope}: {slow}")
            self.claims.warn(f"{first.title} has received no WAL for {watch.seconds:.0f} s; {slow}.")

    def _make_promotion(self) -> Json:
        """Return the change that ends following, and keeps what the section had, for when it follows again."""
        return {"standby_cluster": None, **make_note(self.sites.new.config)}

    def promote(self) -> None:
        """Make the new cluster follow nobody, wait until it accepts writes, and until the old one follows it."""
        timeline = self.sites.new.timeline
        if self.sites.new.is_standby_cluster:
            self._end_following()
        self._wait(self._find_unpromoted, f"{self.sites.new.scope} does not accept writes")
        self.outcome.evidence.append(
            f"{self.sites.new.scope} accepts writes: timeline {timeline} -> {self.sites.new.timeline}"
        )
        if self.sites.old is not None:
            self._wait(self._find_not_following, f"{self.sites.old.scope} does not follow {self.sites.new.scope}")
            self.outcome.evidence.append(f"{self.sites.old.scope} follows it as a standby cluster")

    def configure(self) -> None:
        """Give the old cluster what its standby_cluster had when it followed before, as far as that can be."""
        kept: Json = {}
        while True:
            old, new = t.cast(Cluster, self.sites.old), self.sites.new
            if kept and not lacks_section(old, new):
                break  # it has come about, whatever the answer was
            kept, left = plan_section(old, new)
            if self._configure(self.old, {"standby_cluster": kept, **({} if left else {KEPT_SECTION: None})}):
                break
            self.sites = self._read()
        self._wait(self._find_not_following, f"{old.scope} does not follow {new.scope} with what it had before")
        self.outcome.evidence.append(f"{old.scope} has of its earlier standby_cluster: {', '.join(sorted(kept))}")

    def _configure(self, client: Client, patch: Json) -> bool:
        """Send a change. Return whether it may have been made: not where another client's change came before it.

        The caller then reads and judges anew, until the deadline.
        """
        attempted_before = self.outcome.write_attempted
        try:
            self.claims.require(client)
            self.outcome.write_attempted = True
            answer = self._send(client, patch)
        except Refusal as error:
            self.outcome.write_attempted = attempted_before
            if not isinstance(error, Unreadable | Unwritten) or self.deadline.passed:
                raise
            self.deadline.pause(WATCH_INTERVAL)
            return False
        is_conflict = answer is not None and answer.code == CONFLICT
        if is_conflict:
            self.outcome.write_attempted = attempted_before
        elif answer is None or answer.code in UNAVAILABLE:
            self.outcome.changed = True  # it may have arrived
        if (is_conflict or answer is None or answer.code in UNAVAILABLE) and not self.deadline.passed:
            self.deadline.pause(WATCH_INTERVAL)
            return False
        if answer is not None and answer.code != 200:
            raise OpsError(
                obj=f"{answer.url}/config",
                problem=f"Patroni answers {answer.code} {answer.text[:200].strip()}",
                next_step="Look at its log, and run again",
            )
        self.outcome.changed = True
        return True

    def _send(self, client: Client, patch: Json) -> Answer | None:
        """Send a change once. Return the answer, None where none came, so that it may have been made."""
        try:
            return client.write("/config", patch, method="PATCH", timeout=client.request_timeout)
        except OutcomeUnknown:
            return None

    def _wait(self, find_lacking: t.Callable[[], list[str]], problem: str) -> None:
        while True:
            self.claims.renew()
            try:
                self.sites = self._read()
                lacking = find_lacking()
            except Unreadable as error:
                lacking = [error.problem]
            if not lacking:
                return
            if self.deadline.passed:
                scope = self.sites.old.scope if self.sites.old else "(lost)"
                raise WaitTimeout(
                    obj=f"Patroni clusters {self.sites.new.scope} and {scope}",
                    problem=f"after {self.deadline.seconds:.0f} s {problem}: {'; '.join(lacking)}",
                    next_step="Look at the members' logs; run again to go on from here",
                )
            self.deadline.pause(INTERVAL)

    def _read(self) -> Sites:
        """Read both at once: each waits for its own slowest member only."""
        if self.sites.old is None:
            return Sites(self.new.read_cluster(), None)
        with ThreadPoolExecutor(max_workers=2) as pool:
            new, old = (pool.submit(client.read_cluster) for client in (self.new, self.old))
            return Sites(new.result(), old.result())

    def _find_unpromoted(self) -> list[str]:
        if not self.sites.is_promoted:
            return ["no leader accepts writes"]
        names = [member.name for member in self.sites.new.members if member.is_running]
        return list_lacking(self.sites.new, names)

    def _find_not_following(self) -> list[str]:
        return list_not_following(t.cast(Cluster, self.sites.old), self.sites.new)


def run_site(module: AnsibleModule, outcome: Outcome) -> None:
    """Read both clusters, plan, act, report."""
    params = module.params
    new_client = make_client(module, params["primary"])
    new = read_cluster(new_client, params["primary"])
    check_dcs(new)
    old_client = make_client(module, params["old_primary"])
    old = _read_old(module, old_client, params)
    sites = Sites(new, old)
    max_lag = new.max_lag if params["max_lag"] is None else params["max_lag"]
    outcome.before = outcome.after = describe_sites(sites)
    _report(outcome, sites)
    check_pair(sites)
    shared = explain_shared_names(sites)
    if shared:
        module.warn(f"{shared}.")
    claims = Claims((new_client, new), None if old is None else (old_client, old), module.warn)
    for place in claims.places:
        place.refuse_rivals(new.config if place.client is new_client else t.cast(Cluster, old).config)
    steps = plan_sites(sites, max_lag)
    unheard = _find_unheard((new_client, old_client), sites, sites, outcome)
    if "fence" in steps:
        check_known(old_client, sites)
    _plan(outcome, sites, steps)
    run = Run((new_client, old_client), sites, claims, outcome, params["timeout"])
    if module.check_mode:
        outcome.changed = bool(steps)
        outcome.after = {
            "primary_site": {"scope": new.scope, "role": "primary"},
            "old_site": "lost" if old is None else "standby",
        }
    else:
        try:
            if steps:
                run.check_rights()
                with claims.hold():
                    run.perform(max_lag)
        finally:
            outcome.waited = run.deadline.elapsed if steps else 0.0
            outcome.after = describe_sites(run.sites)
            _report(outcome, run.sites)
        if steps:
            unheard = _find_unheard((new_client, old_client), run.sites, sites, outcome)
        missing = explain_missing(run.sites)
        if missing:
            module.warn(missing)
    outcome.summary = summarize_sites(run.sites, steps, check_mode=module.check_mode)
    outcome.evidence += list_evidence(run.sites.new)
    finish_report(outcome, unheard, module.warn)
    _report_following(outcome, run.sites, module.warn)


def _report_following(outcome: Outcome, sites: Sites, warn: t.Callable[[str], None]) -> None:
    """Say where the old cluster does not follow the promoted one: its configuration alone brings it nothing."""
    old, new = sites.old, sites.new
    if old is None or not old.is_standby_cluster or not sites.is_promoted:
        return
    lacking = list_not_following(old, new)
    if lacking:
        what = f"it does not follow {new.scope}, so that it is no standby site: {'; '.join(lacking)}"
        next_step = "Look at the log of its leader (password, pg_hba, slot, pg_rewind), and at its standby_cluster"
        outcome.blockers.append(Blocker(old.title, what, new.title, next_step))
        outcome.summary += f"; {old.scope} does not follow it"
        warn(f"{old.title}: {what}. {next_step}.")


def _find_unheard(clients: tuple[Client, Client], sites: Sites, before: Sites, outcome: Outcome) -> list[Unheard]:
    """Return who is not heard of in each cluster and may accept no writes. Raises Refusal where one may."""
    found: list[Unheard] = []
    outcome.blockers = []
    for client, cluster, earlier in zip(clients, sites, before, strict=True):
        if cluster is not None:
            unheard = find_unheard(client, cluster, earlier)
            outcome.blockers += report_unheard(cluster, unheard)
            refuse_writers(cluster, unheard)
            found += unheard
    return found


def _read_old(module: AnsibleModule, client: Client, params: t.Mapping[str, t.Any]) -> Cluster | None:
    """Return the other cluster; None where nobody is there any more, and that is declared."""
    try:
        cluster = read_cluster(client, params["old_primary"])
        check_dcs(cluster)
    except Refusal as error:
        if not params["old_site_lost"]:
            raise Refusal(
                obj=error.obj,
                problem=f"{error.problem}; whether it still accepts writes is not known",
                next_step="Bring it back; where the site is lost, make sure that it is off or cut from all clients, and"
                " set old_site_lost: true. What it had not sent is lost then",
            ) from error
        check_lost(client, error.problem)
        module.warn(f"The old site is declared lost, so it is not proven that it accepts no writes: {error.problem}")
        return None
    return cluster


def check_known(client: Client, sites: Sites) -> None:
    """Raise Refusal where an address of the old cluster is silent: it may be a primary that has left /cluster."""
    silent = client.list_silent()
    if silent:
        raise Refusal(
            obj=t.cast(Cluster, sites.old).title,
            problem=f"not every address of old_primary.urls answers, so that it could not be proven fenced"
            f" ({'; '.join(silent)})",
            next_step="Bring the member back; where its PostgreSQL is certainly off, take its address out of urls",
        )


def try_write(client: Client, cluster: Cluster) -> None:
    """Raise Refusal where a cluster does not take a change of its configuration; what is sent changes nothing."""
    try:
        answer = client.write("/config", NO_CHANGE, method="PATCH", timeout=client.request_timeout)
    except OutcomeUnknown as error:
        raise Refusal(obj=cluster.title, problem=error.problem, next_step="Look at its log, and run again") from error
    if answer.code != 200:
        raise Refusal(
            obj=cluster.title,
            problem=f"it takes no change of its configuration: {answer.code} {answer.text[:200].strip()}",
            next_step="Look at its log, and run again",
        )


def check_lost(client: Client, problem: str) -> None:
    """Raise Refusal where a member of a site that is declared lost is there: whatever it answers, it may be primary."""
    answers = client.list_answers()
    if answers:
        raise Refusal(
            obj="option old_site_lost",
            problem=f"it is set, and the old site is there: {'; '.join(answers)} ({problem})",
            next_step="Correct old_primary until the site can be read, and it is fenced; where it cannot be repaired,"
            " turn its members off or cut them off, until no address of old_primary.urls takes a connection",
        )


def _plan(outcome: Outcome, sites: Sites, steps: t.Sequence[str]) -> None:
    why = f"{sites.new.scope} is declared the primary cluster"
    for step in steps:
        if step == "fence" and sites.old is not None:
            what = f"become a standby cluster of {sites.new.scope}, so that it accepts no writes"
            outcome.plan.append(PlanItem(sites.old.title, what, why))
        elif step == "configure" and sites.old is not None:
            what = "have what its standby_cluster had when it followed before"
            outcome.plan.append(PlanItem(sites.old.title, what, f"{KEPT_SECTION} has it"))
        else:
            what = "end following, accept writes on a new timeline"
            outcome.plan.append(PlanItem(sites.new.title, what, why, reversible=sites.old is not None))


def _report(outcome: Outcome, sites: Sites) -> None:
    outcome.facts["primary"] = describe_cluster(sites.new)
    outcome.facts["old_primary"] = None if sites.old is None else describe_cluster(sites.old)
