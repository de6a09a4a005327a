# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Members that Patroni says nothing of, and whether their PostgreSQL may accept writes.

Private to lowtide.ops: do not import from other collections.

A member whose Patroni is gone leaves ``/cluster`` once its key has ended, and another one is elected. Its PostgreSQL
may go on and accept writes. So who is silent is judged by its PostgreSQL: a standby streams from a member that answers,
and one that is off takes no connection, where those of members that run take one from here: a firewall that rejects
looks the same. What can be neither seen nor excluded is reported as not known.
"""

from __future__ import annotations

import contextlib
import functools
import socket
import typing as t
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

from .._common.errors import Refusal
from .._common.outcome import Blocker, Outcome
from .client import Client, strip_api_url
from .state import Cluster, Member, Status

PRIMARY, OPEN, CLOSED, UNKNOWN = "primary", "open", "closed", "unknown"
PROBE_SECONDS = 3.5
"""Enough for a second and a third attempt of TCP to connect."""
DEFAULT_PORT = 5432

Address = tuple[str, int]


class Unheard(t.NamedTuple):
    """Who is not heard of: a member of /cluster, of an earlier reading, or only an address in urls."""

    label: str
    verdict: str
    why: str
    place: str
    """Where its PostgreSQL is, as far as that is known."""
    has_namesake: bool = False
    """Whether a server of its name streams, which may be this one by an address that it has not published."""

    @property
    def may_write(self) -> bool:
        """Whether it is there, and nothing shows that it accepts no writes."""
        return self.verdict in (PRIMARY, OPEN)

    def describe(self) -> str:
        """Return what is known of it, to follow its name."""
        if self.verdict == PRIMARY:
            return f"it is not in /cluster, and accepts writes ({self.why})"
        if self.verdict == OPEN:
            return (
                f"its PostgreSQL takes connections at {self.place}, streams from no member that answers, and Patroni"
                f" says nothing of it ({self.why}), so that it may accept writes"
            )
        if self.verdict == CLOSED:
            return f"its PostgreSQL takes no connection at {self.place} ({self.why})"
        return f"whether it accepts writes is not known: {self.why}; {self.place}"


def find_unheard(client: Client, cluster: Cluster, before: Cluster | None = None) -> list[Unheard]:
    """Return who is not heard of: in the cluster, in an earlier reading of it, and among the addresses in urls."""
    found: list[tuple[str, str, Member | str]] = [
        (f"member {member.name}", member.status.error, member)
        for member in cluster.members
        if member.status.error and not is_streaming(cluster, member)
    ]
    gone = [member for member in before.members if cluster.get(member.name) is None] if before else []
    strangers: list[Unheard] = []
    asked = _list_other_urls(client, cluster, gone)
    for url, status in zip(asked, client.read_statuses(list(asked)), strict=True):
        member = asked[url]
        label = f"member {member.name}" if member else f"address {url}"
        if status.error and not (member and is_streaming(cluster, member)):
            found.append((label, f"{url}: {status.error}", member or url))
        elif status.accepts_writes and status.scope == cluster.scope and not _is_known(cluster, status):
            strangers.append(Unheard(label, PRIMARY, f"{url} says so, on timeline {status.timeline}", ""))
    if not found:
        return strangers
    with ThreadPoolExecutor(max_workers=min(16, len(found))) as pool:
        seconds = min(client.request_timeout, PROBE_SECONDS)
        judged = list(pool.map(lambda one: _judge(cluster, *one, seconds=seconds), found))
    if any(one.verdict == CLOSED for one in judged) and not _reaches_members(cluster, seconds):
        judged = [_doubt(one) if one.verdict == CLOSED else one for one in judged]
    return [*strangers, *judged]


def _reaches_members(cluster: Cluster, seconds: float) -> bool:
    """Return whether the PostgreSQL of each member that runs takes connections from here."""
    addresses = [(member.host, member.port or DEFAULT_PORT) for member in cluster.members if member.is_running]
    if not addresses or not all(host for host, _port in addresses):
        return False
    with ThreadPoolExecutor(max_workers=min(16, len(addresses))) as pool:
        return all(verdict == OPEN for verdict in pool.map(lambda address: probe(address, seconds), addresses))


def _doubt(one: Unheard) -> Unheard:
    """Return what a refused connection says where members that run are not reached from here either."""
    return one._replace(
        verdict=UNKNOWN,
        place=f"its PostgreSQL at {one.place} refuses connections, which may be a firewall, since the PostgreSQL of"
        " members that run cannot be reached from here either",
    )


def refuse_writers(cluster: Cluster, unheard: t.Iterable[Unheard]) -> None:
    """Raise Refusal where somebody who is not heard of may be a second primary."""
    writers = [one for one in unheard if one.may_write]
    if writers:
        described = "; ".join(f"{one.label}: {one.describe()}" for one in writers)
        steps = "Start Patroni there, or stop its PostgreSQL, and look for rows that only it has, before anything else"
        if all(one.has_namesake for one in writers):  # to stop it would take a standby away, if it is the one
            steps = (
                "Start Patroni there, and run again; before its PostgreSQL is stopped, look whether it is the server of"
                " its name that streams (SELECT pg_is_in_recovery()), and otherwise for rows that only it has"
            )
        raise Refusal(
            obj=cluster.title,
            problem=f"there may be a second primary: {described}",
            next_step=steps,
        )


def report_unheard(cluster: Cluster, unheard: t.Iterable[Unheard]) -> list[Blocker]:
    """Return what is not known of them, or stands against them, as blockers."""
    return [
        Blocker(
            one.label,
            one.describe(),
            cluster.title,
            "Start Patroni there, or make sure that its PostgreSQL is off; then take its address out of urls",
        )
        for one in unheard
        if one.verdict != CLOSED
    ]


def finish_report(outcome: Outcome, unheard: t.Iterable[Unheard], warn: t.Callable[[str], None]) -> None:
    """Add to the result who is shown to be off, and say of whom nothing is known: it must not look like a success."""
    for one in unheard:
        if one.verdict == CLOSED:
            outcome.evidence.append(f"{one.label}: {one.describe()}")
        else:
            outcome.summary += f"; whether {one.label} accepts writes is not known"
            warn(f"{one.label}: {one.describe()}.")


def is_streaming(cluster: Cluster, member: Member) -> bool:
    """Return whether a member that answers sends WAL to this one, so that it is a standby.

    Name and address tell: a server of another site may have the same name.
    """
    return bool(cluster.find_sources(member.name) & resolve(member.host))


def explain_namesakes(cluster: Cluster, member: Member) -> str:
    """Return which servers of a member's name stream from elsewhere, where it does not itself; empty for none."""
    sources, own = cluster.find_sources(member.name), resolve(member.host)
    if not sources - own:
        return ""
    words = "which is not its address" if own else "and its address is not known here"
    return f"a server of its name streams from {' and '.join(sorted(sources - own))}, {words}"


def may_be_elsewhere(cluster: Cluster, member: Member) -> bool:
    """Return whether the one server of a member's name that streams may be this member by another address.

    So it is where the members' addresses are not known here, and where none of them streams from its own: behind NAT, a
    service mesh or a second network the leader sees other addresses than they have published.
    """
    if len(cluster.find_sources(member.name)) != 1 or cluster.get(member.name) is None:
        return False
    return not resolve(member.host) or not any(is_streaming(cluster, one) for one in cluster.members)


def _list_other_urls(client: Client, cluster: Cluster, gone: t.Sequence[Member]) -> dict[str, Member | None]:
    """Return the addresses that no member of the cluster has published, with the member that had done so before."""
    published = {strip_api_url(member.api_url) for member in [*cluster.members, *gone]}
    addresses = {address for url in published for address in _resolve_url(url)}
    others: dict[str, Member | None] = {
        url: None
        for url in client.urls
        # One that is written by its name there is the same.
        if url not in published and not (_resolve_url(url) and _resolve_url(url) <= addresses)
    }
    return {**others, **{_name_url(member): member for member in gone}}


def _name_url(member: Member) -> str:
    """Return the address of a member's REST interface, or its name where it has published none."""
    return strip_api_url(member.api_url) if member.api_url else member.name


def _is_known(cluster: Cluster, status: Status) -> bool:
    """Return whether this is a member of the cluster under another address: the same server by name or start time."""
    return any(
        (status.name and status.name == member.name)
        or (status.started_at and status.started_at == member.status.started_at)
        for member in cluster.members
        if not member.status.error
    )


def _judge(cluster: Cluster, label: str, why: str, who: Member | str, *, seconds: float) -> Unheard:
    if not isinstance(who, Member):
        return _judge_server(cluster, label, why, who, seconds=seconds)
    namesakes = explain_namesakes(cluster, who)
    why = f"{why}; {namesakes}" if namesakes else why
    judged = _judge_server(cluster, label, why, who, seconds=seconds)
    if judged.verdict == OPEN and may_be_elsewhere(cluster, who):
        return judged._replace(verdict=UNKNOWN, place=f"its PostgreSQL takes connections at {judged.place}")
    return judged._replace(has_namesake=bool(namesakes))


def _judge_server(cluster: Cluster, label: str, why: str, who: Member | str, *, seconds: float) -> Unheard:
    """Judge by the port of its PostgreSQL, or where that may be."""
    if isinstance(who, Member) and who.host:
        address = (who.host, who.port or DEFAULT_PORT)
        verdict, place = probe(address, seconds), f"{who.host}:{address[1]}"
        if verdict == UNKNOWN:
            place = f"its PostgreSQL at {place} answers nothing"
        return Unheard(label, verdict, why, place)
    url = who if isinstance(who, str) else strip_api_url(who.api_url)
    guesses = _guess_addresses(cluster, url)
    for host, port in guesses:
        if probe((host, port), seconds) == OPEN:
            return Unheard(label, OPEN, why, f"{host}:{port}")
    tried = f" (tried {', '.join(f'{host}:{port}' for host, port in guesses)})" if guesses else ""
    return Unheard(label, UNKNOWN, why, f"where its PostgreSQL listens is not known{tried}")


def _guess_addresses(cluster: Cluster, url: str) -> list[Address]:
    """Return where the PostgreSQL behind an address may listen: on the port of the others, unless that is theirs."""
    host = str(urlsplit(url).hostname or "")
    known = {(address, member.port or DEFAULT_PORT) for member in cluster.members for address in resolve(member.host)}
    ports = sorted({member.port or DEFAULT_PORT for member in cluster.members})
    own = resolve(host)
    return [(host, port) for port in ports if own and not any((address, port) in known for address in own)]


@functools.cache
def resolve(host: str) -> frozenset[str]:
    """Return the addresses of a host as this one knows them, none where it does not; asked once in a run."""
    if host:
        with contextlib.suppress(OSError, UnicodeError):
            return frozenset(str(entry[4][0]) for entry in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM))
    return frozenset()


def _resolve_url(url: str) -> frozenset[Address]:
    """Return the addresses and the port of an address of a REST interface, none for one that is malformed."""
    with contextlib.suppress(ValueError):
        parts = urlsplit(url)
        port = parts.port or (443 if parts.scheme == "https" else 80)
        return frozenset((address, port) for address in resolve(str(parts.hostname or "")))
    return frozenset()


def probe(address: Address, seconds: float) -> str:
    """Return whether somebody takes connections at an address, nobody does, or that is not known."""
    try:
        socket.create_connection(address, seconds).close()
    except ConnectionRefusedError:
        return CLOSED
    except OSError:
        return UNKNOWN
    return OPEN
