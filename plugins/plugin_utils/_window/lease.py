# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lease of a site: who may act on it now, and the fencing token of that run.

Private to lowtide.ops: do not import from other collections.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ansible_collections.lowtide.ops.plugins.module_utils._common.errors import OpsError, Refusal

from .processes import Owner

FORMAT = 1
TTL = 60.0
"""Seconds for which a lease that nobody renews is still held against controllers that cannot look at its owner."""


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
