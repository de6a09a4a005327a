# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A cache for the wait loop whose changes and clock are written out."""

from __future__ import annotations

from typing import Any

from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.snapshot import Snapshot
from unit.kubernetes.yaml_objects import SINCE, take

Json = dict[str, Any]
KINDS = ("StatefulSet", "Deployment", "CronJob", "Job", "DaemonSet")


class TimelineCache:
    """A cache whose changes come at written times: ``timeline`` has the objects that are there from a second on.

    Waiting moves the clock. ``truth`` is what a refresh shows (None: what the watches show); an Exception is raised.
    """

    def __init__(self, timeline: dict[float, list[Json]], *, truth: list[Json] | Exception | None = None) -> None:
        self.now = 0.0
        self.timeline = timeline
        self.truth = truth
        self.refreshed: list[float] = []
        self.followed: list[tuple[str, str, str | None, str | None, bool]] = []
        self.followed_at: list[float] = []
        self.known = set(KINDS)
        self.looks = 0
        self.shortest = 60.0
        self.settled: list[float] = []
        self.cost = 0.0
        self._override: list[Json] | None = None

    def follow(
        self,
        kind: str,
        namespace: str,
        *,
        label_selector: str | None = None,
        field_selector: str | None = None,
        optional: bool = False,
    ) -> None:
        """Note it."""
        self.followed.append((kind, namespace, label_selector, field_selector, optional))
        self.followed_at.append(self.now)
        self.known.add(kind)

    def is_following(self, kind: str, namespace: str, *, label_selector: str | None = None) -> bool:  # noqa: ARG002
        """Whether it is known."""
        return kind in KINDS or any(entry[:2] == (kind, namespace) for entry in self.followed)

    def snapshot(self) -> Snapshot:
        """What there is now, of the kinds that are followed."""
        self.looks += 1
        self.now += self.cost
        objects = self._override or self.timeline[max(at for at in self.timeline if at <= self.now)]
        return take([obj for obj in objects if obj["kind"] in self.known], *self.known, at=SINCE + self.now)

    def wait_for_change(self, timeout: float, *, settle: float = 0.0) -> None:
        """Move the clock to the next change, or to the timeout; at least to what comes while it settles."""
        self.shortest = min(self.shortest, timeout)
        self.settled.append(settle)
        begun = self.now
        changed = min([at for at in self.timeline if at > begun] + [begun + timeout])
        self.now = max(changed, begun + min(settle, timeout))

    def refresh(self) -> None:
        """Show the truth."""
        self.refreshed.append(self.now)
        if isinstance(self.truth, Exception):
            raise self.truth
        if self.truth is not None:
            self._override = self.truth

    def read_clock(self) -> float:
        """The server's time."""
        return SINCE + self.now

    def clock(self) -> float:
        """Its seconds."""
        return self.now
