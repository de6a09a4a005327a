# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lease of a site: who may act on it now, and the fencing token of that run.

Private to lowtide.ops: do not import from other collections.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from ansible_collections.lowtide.ops.plugins.module_utils._common.errors import OpsError, Refusal

from .processes import Owner

FORMAT = 1
TTL = 60.0
"""Seconds for which a lease that nobody renews is still held against controllers that cannot look at its owner."""
SHARED_TTL = 120.0
"""The same on a server, which may not answer for a while: so long a run that holds the lease can still revert."""
RENEWAL = 15.0
"""Seconds between two renewals, at most."""


def find_interval(ttl: float) -> float:
    """Return the seconds between two renewals of a lease that lasts ``ttl``."""
    return min(ttl / 4, RENEWAL)


def make_run_marker(location: str, token: int) -> str:
    """Return the value of the environment marker of a run."""
    return f"{location}#{token}"


@dataclass(frozen=True)
class LeaseRecord:
    """A lease as it is stored. ``pipe`` names the owner's result queue, by which the processes it left behind are
    known."""

    token: int
    owner: Owner
    window_id: str
    released: bool = False
    pipe: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {
            "v": FORMAT,
            "token": self.token,
            "owner": self.owner.as_dict(),
            "window_id": self.window_id,
            "released": self.released,
            "pipe": self.pipe,
        }

    @classmethod
    def from_json(cls, text: str | bytes, *, source: str) -> LeaseRecord:
        """Return the record in a JSON text. Raise Refusal where it cannot be read, or has a later format."""
        try:
            return cls.from_dict(json.loads(text), source=source)
        except (ValueError, KeyError, TypeError) as error:
            raise Refusal(
                obj=f"lease {source}",
                problem=f"it cannot be read ({error!r}), so who holds the site is unknown",
                next_step="Make sure that no window runs, then remove it as docs/journal.md says for its store",
            ) from error

    @classmethod
    def from_dict(cls, values: dict[str, Any], *, source: str) -> LeaseRecord:
        """Return the record that :meth:`as_dict` wrote. Raise Refusal for a later format, KeyError or TypeError for
        damage."""
        if values["v"] > FORMAT:
            raise Refusal(
                obj=f"lease {source}",
                problem=f"it has format {values['v']}, and this version of lowtide.ops knows {FORMAT}",
                next_step="Run the window with the newer version of lowtide.ops",
            )
        return cls(
            int(values["token"]),
            Owner.from_dict(values["owner"]),
            values["window_id"],
            values["released"],
            values.get("pipe"),
        )


class LeaseLost(OpsError):
    """The lease passed to another owner: nothing more may be written under this token."""
