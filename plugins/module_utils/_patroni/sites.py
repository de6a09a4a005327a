# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which of two clusters with the same data is the primary one, and what is to be done so that it is the declared one.

Private to lowtide.ops: do not import from other collections.
"""

from __future__ import annotations

import json
import re
import typing as t

from .._common.errors import Refusal
from .plan import check_single_primary
from .state import Cluster, Json, Member, format_lsn, parse_version
from .unheard import resolve

KEPT_SECTION = "lowtide_standby_cluster"
"""Key of a cluster's configuration: the standby_cluster that it had before it became the primary one."""

SLOT_VERSION = (3, 3)
"""From this version of Patroni on a standby leader with a slot and one host follows whatever server is there."""


class Sites(t.NamedTuple):
    """The cluster that is to be the primary one, and the other; None where it is lost and declared so."""

    new: Cluster
    old: Cluster | None

    @property
    def is_fenced(self) -> bool:
        """Whether the old cluster is a standby cluster of which every member says that it accepts no writes."""
        return self.old is not None and self.old.is_standby_cluster and not list_unfenced(self.old)

    @property
    def is_promoted(self) -> bool:
        """Whether the new cluster follows nobody and its leader accepts writes."""
        leader = self.new.leader
        return not self.new.is_standby_cluster and leader is not None and leader.status.accepts_writes

    @property
    def missing(self) -> int | None:
        """Return the bytes of WAL of the old cluster that the new one has not received; None where it is not known."""
        leader = self.new.leader
        if self.old is None or leader is None or leader.status.position is None:
            return None
        ends = [member.status.position for member in self.old.members]
        known = [end for end in ends if end is not None]
        # A member that does not say how far it is may have more than all others.
        return max(0, max(known) - leader.status.position) if ends and len(known) == len(ends) else None


def list_unfenced(cluster: Cluster) -> list[str]:
    """Return why each member is not known to accept no writes."""
    problems = []
    for member in cluster.members:
        if member.status.error:
            problems.append(f"{member.name}: {member.status.error}")
        elif member.status.accepts_writes or not member.is_running:
            problems.append(f"{member.name}: {member.status.role}, {member.status.state}")
    return problems


def list_unproven(sites: Sites, names: t.Collection[str]) -> list[str]:
    """Return why it is not proven, by one reading, that the new cluster has all and the old one accepts no writes.

    ``names`` are the members that the old cluster is known to have: one that has left it may be a primary still.
    """
    old, new = t.cast(Cluster, sites.old), sites.new
    if not old.is_standby_cluster:
        return [f"the configuration of {old.scope} has no standby_cluster"]
    problems = list_unfenced(old)
    if not follows(old, new):
        problems.append(f"{old.scope} follows {old.config.get('standby_cluster')}, which is no member of {new.scope}")
    problems += [f"{name} is not in the cluster any more" for name in sorted(names) if old.get(name) is None]
    problems += [
        f"the position of {member.name} is not known"
        for member in old.members
        if member.status.position is None and not member.status.error
    ]
    problems += _list_differing(old, new)
    if not problems and sites.missing != 0:
        missing = "an unknown number of" if sites.missing is None else sites.missing
        problems.append(f"{new.scope} has not received {missing} bytes of WAL of {old.scope}")
    return problems


def _list_differing(old: Cluster, new: Cluster) -> list[str]:
    """Return why positions say nothing: a number of bytes on another timeline is of another history.

    The old cluster may have elected another member since the first reading, which had less WAL than the new cluster and
    has acknowledged rows in its place.
    """
    leader = new.leader
    if leader is None or leader.status.position is None or leader.status.timeline is None:
        return [f"timeline and position of the leader of {new.scope} are not known"]
    timeline, position = leader.status.timeline, leader.status.position
    running = [member for member in old.members if not member.status.error]
    problems = [
        f"{member.name} is on timeline {'unknown' if member.status.timeline is None else member.status.timeline},"
        f" and {leader.name} of {new.scope} on {timeline}"
        for member in running
        if member.status.timeline != timeline
    ]
    ends = [member.status.position for member in running if member.status.position is not None]
    if ends and len(ends) == len(old.members) and position > max(ends):
        problems.append(
            f"{new.scope} has WAL up to {format_lsn(position)}, and {old.scope} only up to {format_lsn(max(ends))}"
        )
    return problems


def plan_sites(sites: Sites, max_lag: int) -> list[str]:
    """Return what is left of ``fence``, ``promote`` and ``configure``. Raises Refusal for what must not be done.

    What an interrupted run has done is not done again: it is read from the two clusters.
    """
    steps = _plan_moves(sites, max_lag)
    is_lacking = sites.old is not None and lacks_section(sites.old, sites.new)
    return [*steps, *(["configure"] if is_lacking else [])]


def _plan_moves(sites: Sites, max_lag: int) -> list[str]:
    _check_new(sites.new)
    check_pair(sites)
    if sites.old is None:
        check_unfed(sites.new)
        return [] if sites.is_promoted else ["promote"]
    check_single_primary(sites.old)
    if not sites.new.is_standby_cluster:
        if not sites.old.is_standby_cluster:
            raise Refusal(
                obj=f"Patroni clusters {sites.new.scope} and {sites.old.scope}",
                problem="neither is a standby cluster, so that both accept writes",
                next_step="Cut one of them off from its clients, save the rows that only it has, and make it anew as a"
                " standby cluster of the other one",
            )
        _check_followed(sites.old, sites.new)
        return [] if sites.is_fenced and sites.is_promoted else ["promote"]
    _check_followed(sites.new, sites.old)
    if sites.old.is_standby_cluster:
        # Each follows the other one only where the old one was fenced; else both may follow a third one.
        _check_followed(sites.old, sites.new)
        return ["promote"] if sites.is_fenced else ["fence", "promote"]
    _check_before_fence(sites, max_lag)
    return ["fence", "promote"]


def _check_new(new: Cluster) -> None:
    leader = new.leader
    if new.paused:
        raise Refusal(
            obj=new.title,
            problem="it is paused (maintenance mode), so that Patroni would not promote it",
            next_step="End the pause (PATCH /config with pause: null, or patronictl resume)",
        )
    if leader is None or not leader.is_running:
        problem = (
            "nobody leads it"
            if leader is None
            else f"its leader {leader.name} is {leader.status.error or leader.status.state}"
        )
        raise Refusal(obj=new.title, problem=problem, next_step="Repair it first: it could not be promoted")


def check_unfed(new: Cluster) -> None:
    """Raise Refusal where a cluster gets WAL from another one, which is not lost then, or nobody says so."""
    leader = new.leader
    if not new.is_standby_cluster:
        return
    if leader is None or not leader.is_running:
        silence = "nobody leads it" if leader is None else leader.status.error or f"its leader is {leader.status.state}"
        raise Refusal(
            obj=new.title,
            problem=f"old_site_lost is set, and whether it still receives WAL is not known: {silence}",
            next_step="Repair it first",
        )
    if leader.status.is_receiving:
        raise Refusal(
            obj=new.title,
            problem=f"old_site_lost is set, and its leader {leader.name} streams WAL from another server",
            next_step=_SEEK_SENDER,
        )


_SEEK_SENDER = (
    "Look whom it follows: where that is the old site, fence it; where that has just been cut off, wait for the end of"
    " the connection (wal_receiver_timeout)"
)


def is_receiving_known(cluster: Cluster) -> bool:
    """Return whether Patroni says of the leader of a standby cluster if another server sends it WAL."""
    return cluster.leader is not None and cluster.leader.status.is_receiving is not None


def has_archive(cluster: Cluster) -> bool:
    """Return whether a cluster that follows is configured to get WAL from an archive as well."""
    postgresql = cluster.config.get("postgresql") or {}
    sections = (cluster.config.get("standby_cluster"), postgresql.get("recovery_conf"), postgresql.get("parameters"))
    return any(isinstance(section, dict) and bool(section.get("restore_command")) for section in sections)


def check_still(first: Cluster, now: Cluster) -> None:
    """Raise Refusal where a member has received WAL since the first reading."""
    for member in now.members:
        earlier = first.get(member.name)
        begin, end = (earlier.status.position if earlier else None), member.status.position
        if begin is not None and end is not None and end > begin:
            raise Refusal(
                obj=now.title,
                problem=f"old_site_lost is set, and {member.name} has received {end - begin} bytes of WAL during this"
                " run, so that another server still sends them",
                next_step=_SEEK_SENDER,
            )


def read_receiver_timeout(cluster: Cluster) -> float:
    """Return wal_receiver_timeout of a cluster's configuration in seconds: after it no connection is waited on."""
    parameters = (cluster.config.get("postgresql") or {}).get("parameters") or {}
    match = re.fullmatch(r"\s*(\d+)\s*(ms|s|min|h|d)?\s*", str(parameters.get("wal_receiver_timeout") or ""))
    seconds = int(match[1]) * _UNITS[match[2] or "ms"] if match else 0.0
    return seconds or RECEIVER_TIMEOUT


RECEIVER_TIMEOUT = 60.0
"""Seconds: what PostgreSQL has where nothing is configured."""
_UNITS = {"ms": 0.001, "s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}


def plan_section(follower: Cluster, primary: Cluster) -> tuple[Json, list[str]]:
    """Return what of the kept section of a standby cluster can be written back as it follows again, and what cannot.

    Its hosts where they are several, all members of the primary cluster; its slot where that cluster keeps one of this
    name. One host is not written back: who led then may be a standby by now, and what follows has the leader's already.
    """
    section = follower.config.get(KEPT_SECTION) or {}
    kept = {key: value for key, value in section.items() if key not in ("host", "port")}
    left = []
    slot = kept.get("primary_slot_name")
    if slot and slot not in (primary.config.get("slots") or {}):
        del kept["primary_slot_name"]
        left.append(f"primary_slot_name {slot} (slots in the configuration of {primary.scope} has none of this name)")
    if _has_several(section):
        if follows(follower._replace(config={"standby_cluster": section}), primary):
            kept.update({key: section[key] for key in ("host", "port") if key in section})
        elif not _has_several(follower.config.get("standby_cluster") or {}):
            left.append(f"hosts {section['host']} (not all of them are members of {primary.scope})")
    return kept, left


def make_note(config: Json) -> Json:
    """Return the change of the note that keeps what the section of a standby cluster has; empty for one host alone.

    Patroni merges a change. So what has been taken out of the section since is taken out of the note, but for what had
    to be taken out before the fence (``_check_receivable``): several hosts, and the slot.
    """
    section, note = config.get("standby_cluster") or {}, config.get(KEPT_SECTION) or {}
    if not describe_extras(section):
        return {}
    own = {key: section.get(key) for key in (*note, *section)}
    if _has_several(note) and not _has_several(section):
        own |= {"host": note["host"], "port": note.get("port")}
    if not own.get("primary_slot_name") and note.get("primary_slot_name"):
        own["primary_slot_name"] = note["primary_slot_name"]
    return {KEPT_SECTION: {key: value for key, value in own.items() if value is not None or key in note}}


def _has_several(section: Json) -> bool:
    return "," in str(section.get("host") or "")


def lacks_section(follower: Cluster, primary: Cluster) -> bool:
    """Return whether a cluster that follows, or is going to, lacks what its section had before."""
    current = follower.config.get("standby_cluster") or {}
    return any(current.get(key) != value for key, value in plan_section(follower, primary)[0].items())


def describe_extras(section: Json) -> list[str]:
    """Return what a section of a standby cluster has beside one host and its port."""
    several = ["several hosts"] if _has_several(section) else []
    return [*sorted(key for key, value in section.items() if key not in ("host", "port") and value), *several]


def explain_missing(sites: Sites) -> str:
    """Return what the section of the cluster that follows now lacks of what was there before; empty for nothing."""
    old, new = sites.old, sites.new
    if old is None or not old.is_standby_cluster:
        return ""
    left = plan_section(old, new)[1]
    extras = [] if old.config.get(KEPT_SECTION) else describe_extras(new.config.get(KEPT_SECTION) or {})
    current = old.config["standby_cluster"]
    # What was put in by hand since is not missing.
    missing = left or [extra for extra in extras if extra not in describe_extras(current)]
    if not missing:
        return ""
    place = old if left else new
    return (
        f"standby_cluster of {old.scope} is {current}, without {', '.join(missing)}, which {KEPT_SECTION} in the"
        f" configuration of {place.scope} has kept. Write what {old.scope} needs into its standby_cluster (PATCH"
        " /config)"
    )


def check_pair(sites: Sites) -> None:
    """Raise Refusal where the connections do not lead to two clusters with the same data."""
    if sites.old is None:
        return
    new, old = sites.new, sites.old
    if new.system_identifier != old.system_identifier:
        raise Refusal(
            obj=f"Patroni clusters {new.scope} and {old.scope}",
            problem=f"they have different data: system identifiers {new.system_identifier} and {old.system_identifier}",
            next_step="Correct the connections",
        )
    names = {member.api_url for member in new.members} & {member.api_url for member in old.members}
    if names:
        raise Refusal(
            obj=f"Patroni cluster {new.scope}",
            problem=f"both connections lead to it ({', '.join(sorted(names))})",
            next_step="Correct the connections",
        )


def explain_shared_names(sites: Sites) -> str:
    """Return what equal names in both clusters mean for commits that a standby confirms; empty where they mean nothing.

    PostgreSQL counts a server that streams by its name only, and so does Patroni where it notes who is synchronous.
    """
    old, new = sites.old, sites.new
    if old is None or not (old.has_synchronous_mode or new.has_synchronous_mode):
        return ""
    shared = sorted({member.name for member in old.members} & {member.name for member in new.members})
    if not shared:
        return ""
    return (
        f"{old.scope} and {new.scope} have members of the same name ({', '.join(shared)}), and synchronous_mode counts"
        " by names: a commit may be confirmed by the other site's alone, and Patroni may find no candidate. Give the"
        " members of each site names of their own"
    )


def follows(cluster: Cluster, other: Cluster) -> bool:
    """Return whether a standby cluster is configured to follow a member of another cluster."""
    followed = cluster.config.get("standby_cluster") or {}
    hosts = [host.strip() for host in str(followed.get("host") or "").split(",")]
    ports = [port.strip() for port in str(followed.get("port") or 5432).split(",")]
    ports = ports if len(ports) == len(hosts) else ports[:1] * len(hosts)
    addresses = {(member.host, str(member.port or 5432)) for member in other.members}
    return all(hosts) and set(zip(hosts, ports, strict=True)) <= addresses


def streams(member: Member, source: Cluster) -> bool:
    """Return whether a member of one cluster streams from the other one.

    Its name tells, and where a member there has this name as well, name and address.
    """
    if source.get(member.name) is None:
        return any(member.name in other.status.streaming for other in source.members)
    return bool(source.find_sources(member.name) & {member.host, *resolve(member.host)})


def list_not_following(old: Cluster, new: Cluster) -> list[str]:
    """Return why a cluster is not known to follow the primary one: by its configuration alone it may get nothing."""
    unfenced = list_unfenced(old)
    if unfenced:
        return unfenced
    if old.leader is None:
        return ["nobody leads it"]
    if old.leader.status.timeline != new.timeline or not streams(old.leader, new):
        return [f"{old.leader.name} is on timeline {old.leader.status.timeline}, and does not stream from it yet"]
    return []


def _check_followed(cluster: Cluster, other: Cluster) -> None:
    """Raise Refusal unless a standby cluster follows a member of the other one.

    An address that leads only to a primary (a load balancer) leads nowhere once the other one is fenced.
    """
    if not follows(cluster, other):
        addresses = ", ".join(f"{member.host}:{member.port or 5432}" for member in other.members)
        raise Refusal(
            obj=f"Patroni clusters {cluster.scope} and {other.scope}",
            problem=f"{cluster.scope} follows {cluster.config.get('standby_cluster')}, and no member of {other.scope}"
            f" has this address ({addresses}), so that a third cluster may be the primary one",
            next_step=f"Correct the connections, or set standby_cluster of {cluster.scope} to the host and port of a"
            f" member of {other.scope} (PATCH /config)",
        )


def _check_before_fence(sites: Sites, max_lag: int) -> None:
    old, new = t.cast(Cluster, sites.old), sites.new
    if old.paused:
        raise Refusal(
            obj=old.title,
            problem="it is paused (maintenance mode), so that it would go on accepting writes",
            next_step="End the pause (PATCH /config with pause: null, or patronictl resume)",
        )
    _check_receivable(new, old)
    silent = [f"{m.name}: {m.status.error or m.status.state}" for m in old.members if not m.is_running]
    if silent:
        raise Refusal(
            obj=old.title,
            problem=f"not every member runs, so that it could not be proven fenced ({'; '.join(silent)})",
            next_step="Bring them back, or remove them from the cluster",
        )
    if old.leader is None or not old.leader.status.accepts_writes:
        raise Refusal(
            obj=old.title,
            problem="it has no primary that hands over what it has",
            next_step="Wait until Patroni has elected a leader there",
        )
    if new.timeline != old.timeline:
        raise Refusal(
            obj=new.title,
            problem=f"it is on timeline {new.timeline}, and {old.scope} on {old.timeline}",
            next_step=f"Look whom it follows; it has to stream from {old.scope}",
        )
    _check_history(new, old)
    if sites.missing is None or sites.missing > max_lag:
        raise Refusal(
            obj=new.title,
            problem=f"it lacks {'an unknown number of' if sites.missing is None else sites.missing} bytes of WAL of"
            f" {old.scope}, more than max_lag {max_lag}, and writes would stop until it has them",
            next_step="Wait until it has caught up, or raise max_lag",
        )


def _check_receivable(new: Cluster, old: Cluster) -> None:
    """Raise Refusal where the new cluster would not take the rest of the WAL from the old one once that is fenced.

    Patroni then has its receiver ask for a server that accepts writes (target_session_attrs), and the old one is none
    after the fence: with several hosts always, with a slot up to Patroni 3.2.
    """
    section = new.config.get("standby_cluster") or {}
    versions = [m.status.version for m in new.members if not m.status.error]
    is_old = any(parse_version(version) < SLOT_VERSION for version in versions) or not versions
    causes = []
    if _has_several(section):
        causes.append(f"host {section['host']}")
    if section.get("primary_slot_name") and is_old:
        causes.append(
            f"primary_slot_name {section['primary_slot_name']} (with Patroni {', '.join(sorted({*versions}))})"
        )
    if causes:
        leader = old.leader
        host, port = (leader.host, leader.port or 5432) if leader else ("HOST", 5432)
        # The note is what the next run writes back when this cluster follows again.
        plain = {"host": host, "port": port, "primary_slot_name": None}
        patch = json.dumps({"standby_cluster": plain, KEPT_SECTION: section})
        raise Refusal(
            obj=new.title,
            problem=f"its standby_cluster has {' and '.join(causes)}, by which it asks for a server that accepts"
            f" writes, so that it could not get the rest of the WAL once {old.scope} is fenced",
            next_step=f"Send PATCH {patch} to /config of {new.scope}, wait until it streams again, and run again; it is"
            f" written back when {new.scope} follows again",
        )


def _check_history(new: Cluster, old: Cluster) -> None:
    """Raise Refusal unless the new cluster streams from the old one: two of one timeline may have different rows."""
    leader = t.cast(Member, new.leader)
    if not streams(leader, old):
        shared = f" from {leader.host} (a member there has the same name)" if old.get(leader.name) else ""
        raise Refusal(
            obj=new.title,
            problem=f"its leader {leader.name} does not stream from {old.scope}{shared}, so that it may have another"
            " history",
            next_step=f"Look whom it follows (standby_cluster: {new.config.get('standby_cluster')}), and at its log",
        )
    if new.position is not None and old.position is not None and new.position > old.position:
        raise Refusal(
            obj=new.title,
            problem=f"it has WAL up to {format_lsn(new.position)}, and {old.scope}, which it follows, only up to"
            f" {format_lsn(old.position)}: their histories differ",
            next_step=f"Make it anew as a standby cluster of {old.scope}",
        )


def describe_sites(sites: Sites) -> dict[str, t.Any]:
    """Return the two as a diff shows them."""
    old = "lost" if sites.old is None else _describe_role(sites.old)
    return {"primary_site": {"scope": sites.new.scope, "role": _describe_role(sites.new)}, "old_site": old}


def _describe_role(cluster: Cluster) -> str:
    return "standby" if cluster.is_standby_cluster else "primary"


def describe_missing(sites: Sites) -> str:
    """Return a line about how far the new cluster has come."""
    position = sites.new.position
    end = "an unknown position" if position is None else format_lsn(position)
    missing = "unknown" if sites.missing is None else str(sites.missing)
    return f"{sites.new.scope} has WAL up to {end}, and lacks {missing} bytes"


def explain_way_back(sites: Sites, url: str) -> str:
    """Return how to go on, and how to go back, between the fence of the old cluster and the promotion."""
    new, old = sites.new.scope, t.cast(Cluster, sites.old).scope
    return (
        f"Until {new} is promoted, neither cluster may accept writes. Run again to go on. To go back to {old}, run with"
        f" primary and old_primary exchanged; where that cannot be proven either, and {new} has a standby_cluster"
        f' still, send PATCH {{"standby_cluster": null}} to {url}/config'
    )


def summarize_sites(sites: Sites, done: t.Sequence[str], *, check_mode: bool) -> str:
    """Return one line that says which cluster is the primary one, and what was done for it."""
    old = "the lost site" if sites.old is None else sites.old.scope
    if not done:
        return f"{sites.new.scope} is the primary cluster already, and {old} is not"
    words = {"fence": f"fence {old}", "promote": f"promote {sites.new.scope}", "configure": f"configure {old}"}
    if check_mode:
        return f"would {' and '.join(words[step] for step in done)}"
    fenced = (
        f"{old} accepts no writes" if sites.old is not None else "whether the lost site accepts writes is not known"
    )
    return f"{sites.new.scope} is the primary cluster on timeline {sites.new.timeline}; {fenced}"
