# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Errors of the event bus in words that name it. Private to lowtide.ops: do not import from other collections."""

from __future__ import annotations

from .._common.errors import OpsError, Refusal


class BusUnreachableError(OpsError):
    """No broker answered, or none that this client may talk to."""


def unreachable(label: str, detail: str) -> BusUnreachableError:
    """No broker answers; ``detail`` is what the client saw."""
    return BusUnreachableError(
        obj=f"event bus {label}",
        problem=f"no broker answers ({detail})",
        next_step="Check brokers and security_protocol, and that a broker listens there and can be reached from this host",
    )


def not_allowed(label: str, detail: str) -> BusUnreachableError:
    """A broker was reached and refused this client."""
    return BusUnreachableError(
        obj=f"event bus {label}",
        problem=f"the broker refuses this client ({detail})",
        next_step="Check security_protocol, sasl_mechanism, sasl_username, sasl_password and the ssl_* options",
    )


def other_cluster(label: str, *, expected: str, seen: str) -> Refusal:
    """The brokers belong to another cluster than the inventory says."""
    return Refusal(
        obj=f"event bus {label}",
        problem=f"its cluster id is {seen}, and cluster_id says {expected}; nothing was changed",
        next_step=f"Correct brokers, or set cluster_id to {seen} if this is the bus that is meant",
    )


def unreadable(label: str, command: str, *, expected: str, seen: str) -> OpsError:
    """A program answered with something that is not the answer; ``seen`` is its output, shortened here."""
    shown = " ".join(seen.split())
    if len(shown) > 300:
        shown = shown[:300] + " ..."
    return OpsError(
        obj=f"event bus {label}",
        problem=f"`{command}` did not print {expected}, but: {shown or 'nothing'}",
        next_step="Run that command by hand; check that rpk reaches the brokers, and that its version is 23.3 to 24.3",
    )


def topics_missing(label: str, topics: list[str]) -> Refusal:
    """Topics which do not exist."""
    return Refusal(
        obj=f"event bus {label}",
        problem=f"it has no topic named {', '.join(topics)}",
        next_step="Correct the name, or create the topic first",
    )
