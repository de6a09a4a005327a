# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Keep runs that move the primary cluster in different directions from each other.

Private to lowtide.ops: do not import from other collections.

A run notes in the configuration of both clusters what it makes of them, each run under a key of its own. Patroni
writes a change of the configuration on the condition that nobody else has changed it since it was read, and answers
with all of it. So of two runs that begin at once, exactly one sees no other in the answer to its own first note. Who
has held its claim since then does not look for others, which have seen it and end: their notes, until they are taken
out, must not end a run between fence and promotion. What a killed run has noted counts for nothing once it has not been
renewed for some time.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import time
import typing as t

from .._common.errors import OpsError, OutcomeUnknown, Refusal
from .._common.retry import Backoff, Deadline
from .client import Client
from .state import Cluster, Json

PREFIX = "lowtide_site_run_"
LEASE = 60.0
"""Seconds after which what a run has noted counts for nothing where it has not renewed it."""
RENEWAL = 15.0
SAFE = LEASE - RENEWAL
"""Seconds within which what a run has noted counts for every other one, whose clock is not quite the same."""
PATIENCE = 1.0
"""For so many seconds a note is sent again that another client's change came before."""
CONFLICT = 409
"""So Patroni answers, too, where its DCS refuses a write for another reason."""
PRIMARY, STANDBY = "primary", "standby"

Reached: t.TypeAlias = "tuple[Client, Cluster]"
"""How a cluster is reached, and what it is."""


class Claim(t.NamedTuple):
    """What a run makes of a cluster, and with which other one (addresses of its members).

    ``seen`` is when it was written last, by the clock of who has answered then.
    """

    run: str
    owner: str
    becomes: str
    peers: tuple[str, ...]
    seen: float

    @classmethod
    def from_entry(cls, key: str, entry: t.Any) -> Claim:
        """Read what is noted under a key; what is not understood is a claim of somebody unknown to something else."""
        entry = entry if isinstance(entry, dict) else {}
        seen = entry.get("seen")
        return cls(
            key.removeprefix(PREFIX),
            str(entry.get("owner") or "an unknown owner"),
            str(entry.get("becomes") or "another one"),
            tuple(str(peer) for peer in entry.get("peers") or []),
            float(seen) if isinstance(seen, int | float) else 0.0,
        )

    def is_opposed_to(self, other: Claim) -> bool:
        """Return whether both cannot be: a cluster cannot become a primary and a standby, nor follow two others."""
        if self.becomes != other.becomes:
            return True
        # A run for a site that is lost names no other cluster.
        return bool(self.peers and other.peers) and not set(self.peers) & set(other.peers)

    def describe(self, now: float) -> str:
        """Return whose it is, and when it was seen last."""
        return f"run {self.run} of {self.owner}, seen {max(0.0, now - self.seen):.0f} s ago"


def read_clock() -> float:
    """Return seconds that also pass while this host is suspended, where the system has such a clock."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


def list_claims(config: t.Mapping[str, t.Any]) -> list[Claim]:
    """Return what runs have noted in a configuration."""
    return [Claim.from_entry(key, entry) for key, entry in config.items() if key.startswith(PREFIX)]


class Unwritten(Refusal):
    """A cluster takes no change for the moment: its DCS, or a proxy before it, may do so soon."""


class Place:
    """A cluster with what this run notes in it."""

    def __init__(self, client: Client, cluster: Cluster, claim: Claim) -> None:
        self.client, self.title, self.claim = client, cluster.title, claim
        self.order = min((member.api_url for member in cluster.members), default="")
        self.is_noted = False
        self.renewed = 0.0

    @property
    def age(self) -> float:
        """Return the seconds since the claim was noted last."""
        return read_clock() - self.renewed

    def refuse_rivals(self, config: t.Mapping[str, t.Any]) -> list[Claim]:
        """Raise Refusal for a live claim that is opposed to this one. Return those that count for nothing any more."""
        now = self.client.now
        others = [claim for claim in list_claims(config) if claim.run != self.claim.run]
        for other in others:
            if now - other.seen < LEASE and other.is_opposed_to(self.claim):
                raise Refusal(
                    obj=self.title,
                    problem=f"another run is at work, which makes it a {other.becomes}: {other.describe(now)}",
                    next_step="Run again when it has ended; where it was killed, it counts for nothing once it has not"
                    f" been seen for {LEASE:.0f} s",
                )
        return [other for other in others if now - other.seen >= LEASE]

    def note(self, dead: t.Sequence[Claim] = ()) -> Json:
        """Write the claim with the present time, and take out those of runs that are dead. Return the configuration."""
        begin = read_clock()
        entry = {**self.claim._asdict(), "peers": list(self.claim.peers), "seen": round(self.client.now)}
        self.is_noted = True
        document = self._patch({self._key: entry, **{f"{PREFIX}{claim.run}": None for claim in dead}})
        self.renewed = begin
        return document

    def is_known(self) -> bool:
        """Return whether the claim is still noted, or nobody can say.

        A change of nothing is answered from the DCS; ``/config`` is as old as the last round of that member.
        """
        try:
            return self._key in self._patch({f"{PREFIX}nothing": None})
        except (OutcomeUnknown, Refusal):
            return True

    def remove(self) -> None:
        """Take it out again."""
        self._patch({self._key: None})
        self.is_noted = False

    @property
    def _key(self) -> str:
        return f"{PREFIX}{self.claim.run}"

    def _patch(self, patch: Json) -> Json:
        end, backoff = Deadline(PATIENCE), Backoff(first=0.02, limit=0.2)
        while True:
            answer = self.client.write("/config", patch, method="PATCH", timeout=self.client.request_timeout)
            document = answer.parse()
            if answer.code == 200 and isinstance(document, dict):
                return document
            if answer.code != CONFLICT or end.passed:
                break
            end.pause(backoff.take_pause())
        raise Unwritten(
            obj=self.title,
            problem=f"it takes no change of its configuration: {answer.code} {answer.text[:200].strip()}",
            next_step="Look at its log, and run again",
        )


class Claims:
    """What one run notes in the clusters that it moves the primary between."""

    def __init__(self, new: Reached, old: Reached | None, warn: t.Callable[[str], None]) -> None:
        run, owner = secrets.token_hex(4), f"{socket.gethostname()} (process {os.getpid()})"
        self.warn = warn

        def make(place: Reached, becomes: str, peer: Reached | None) -> Place:
            peers = tuple(sorted(member.api_url for member in peer[1].members)) if peer else ()
            return Place(*place, Claim(run, owner, becomes, peers, 0.0))

        places = [make(new, PRIMARY, old), *([make(old, STANDBY, new)] if old else [])]
        self.places = sorted(places, key=lambda place: place.order)

    @contextlib.contextmanager
    def hold(self) -> t.Iterator[None]:
        """Note them for the time of the block. Raises Refusal, with nothing noted, where another run is at work."""
        try:
            for place in self.places:
                self._note(place)
            yield
        finally:
            self._remove()

    def renew(self) -> None:
        """Say that this run is alive, where that was long ago. A cluster that takes no change is tried again later."""
        for place in self.places:
            if place.age > RENEWAL:
                self._check_kept(place)
                was_held = place.age < SAFE
                try:
                    document = place.note()
                except (OutcomeUnknown, Refusal):
                    continue
                if not was_held:
                    place.refuse_rivals(document)

    def require(self, client: Client) -> None:
        """Raise an error where another run may have taken over, before a cluster is written to."""
        for place in self.places:
            if place.client is client and place.age > RENEWAL:
                try:
                    self._renew(place)
                except OutcomeUnknown as error:
                    raise Unwritten(obj=place.title, problem=error.problem, next_step=error.next_step) from error

    def confirm(self, client: Client) -> Json:
        """Say again that this run is alive, and return the configuration of that cluster as the DCS has it.

        What ``/config`` answers is what that member has read at its last round.
        """
        return self._renew(next(place for place in self.places if place.client is client))

    def _renew(self, place: Place) -> Json:
        """Note a claim again. Who has held it all the time does not look for others: they have seen it, and end."""
        self._check_kept(place)
        was_held = place.age < SAFE
        document = place.note()
        if not was_held:
            self._take_over(place, place.refuse_rivals(document))
        return document

    def _check_kept(self, place: Place) -> None:
        """Raise OpsError where another run has taken this one's claim away, which counted for nothing to it."""
        if not place.is_known():
            raise OpsError(
                obj=place.title,
                problem=f"this run could not say for {LEASE:.0f} s that it is alive, or clocks differ by as much, and"
                " another one has taken over",
                next_step="Look at both clusters (patroni_cluster_info); run again when the other one has ended",
            )

    def _note(self, place: Place) -> None:
        self._take_over(place, place.refuse_rivals(place.note()))

    def _take_over(self, place: Place, dead: t.Sequence[Claim]) -> None:
        if dead:
            place.note(dead)
            for claim in dead:
                self.warn(f"{place.title}: {claim.describe(place.client.now)}, has not ended; this run takes over")

    def _remove(self) -> None:
        for place in self.places:
            if not place.is_noted:
                continue
            try:
                place.remove()
            except OpsError as error:
                self.warn(
                    f"{place.title}: that this run has ended could not be noted ({error.problem}); runs in the other"
                    f" direction are refused for {LEASE:.0f} s"
                )
