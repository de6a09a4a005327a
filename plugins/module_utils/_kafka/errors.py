# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Errors of the event bus in words that name it. Private to lowtide.ops: do not import from other collections.

What a bus may answer instead of an answer is of three classes. It is *not ready* (a coordinator moves, a transaction is
about to commit) or *not reachable*: both pass, and every wait goes on through them. Or it *denies* what is asked.
"""

from __future__ import annotations

import re

from .._common.errors import OpsError, Refusal

RETRIABLE = (
    "NOT_COORDINATOR",
    "NOT_COORDINATOR_FOR_GROUP",
    "COORDINATOR_NOT_AVAILABLE",
    "COORDINATOR_LOAD_IN_PROGRESS",
    "GROUP_COORDINATOR_NOT_AVAILABLE",
    "GROUP_LOAD_IN_PROGRESS",
    "LEADER_NOT_AVAILABLE",
    "NOT_LEADER_FOR_PARTITION",
    "NOT_LEADER_OR_FOLLOWER",
    "REPLICA_NOT_AVAILABLE",
    "FENCED_LEADER_EPOCH",
    "UNKNOWN_LEADER_EPOCH",
    "OFFSET_NOT_AVAILABLE",
    "KAFKA_STORAGE_ERROR",
    "REBALANCE_IN_PROGRESS",
    "UNSTABLE_OFFSET_COMMIT",
)
"""Conditions which brokers leave by themselves, those that the protocol guide calls retriable: a coordinator or a leader is
moving, or loading its log, or a broker has not heard of it yet, or a transaction has not ended yet."""

UNSTABLE = "UNSTABLE_OFFSET_COMMIT"


class BusUnreachableError(OpsError):
    """No broker answered."""


class BusNotReadyError(OpsError):
    """A broker answered that it cannot tell yet."""


class BusDeniedError(OpsError):
    """A broker refused this client, or what it asks for."""


class BusUnsupportedError(OpsError):
    """This client has no way to ask for that."""


class BusChangedError(OpsError):
    """Something that an earlier answer told of is gone; asked from the beginning, the bus tells of what there is."""


PASSING_ERRORS = (BusUnreachableError, BusNotReadyError, BusChangedError)
"""What a wait goes on through, until its deadline."""


def find_error_name(text: str) -> str:
    """Return Kafka's name of an error at the beginning of a text, empty when it begins with none."""
    match = re.match(r"[A-Z][A-Z0-9_]+\b", text.strip())
    return match.group() if match else ""


def is_denial(name: str) -> bool:
    """Return whether an error of this name says that the user lacks a right."""
    return name.endswith("AUTHORIZATION_FAILED")


def unreachable(label: str, detail: str) -> BusUnreachableError:
    """No broker answers; ``detail`` is what the client saw."""
    return BusUnreachableError(
        obj=f"event bus {label}",
        problem=f"no broker answers ({detail})",
        next_step="Check brokers and security_protocol, and that a broker listens there and can be reached from this host",
    )


def not_ready(label: str, what: str, detail: str) -> BusNotReadyError:
    """A broker cannot answer ``what`` was asked yet; ``detail`` begins with Kafka's name of the reason."""
    if find_error_name(detail) == UNSTABLE:
        next_step = (
            "Run again when the transaction that commits offsets of this group has ended; one that was left open"
            " ends by itself after its transaction.timeout.ms"
        )
    else:
        next_step = "Run again when the brokers are ready; see their logs for this request"
    return BusNotReadyError(obj=f"event bus {label}", problem=f"{what} failed: {detail}", next_step=next_step)


def topic_gone(label: str, topic: str, seconds: float) -> BusChangedError:
    """A topic that there was when its partitions were counted is known to no broker any more."""
    return BusChangedError(
        obj=f"topic {topic} on event bus {label}",
        problem=f"it is gone: it was there when its partitions were counted, and no broker has known it for {seconds:g} s",
        next_step="Run again: what is left is read then. Create the topic again if it was deleted by mistake",
    )


def not_allowed(label: str, detail: str) -> BusDeniedError:
    """A broker was reached and refused this client."""
    return BusDeniedError(
        obj=f"event bus {label}",
        problem=f"the broker refuses this client ({detail})",
        next_step="Check security_protocol, sasl_mechanism, sasl_username, sasl_password and the ssl_* options",
    )


def not_authorized(label: str, what: str, detail: str) -> BusDeniedError:
    """The user may not do ``what`` it asked for."""
    return BusDeniedError(
        obj=f"event bus {label}",
        problem=f"{what} is not allowed: {detail}",
        next_step=(
            "Give this user DESCRIBE on the cluster and topics, and READ on the group (for what is read of the topics"
            " themselves also READ or DESCRIBE_CONFIGS on them)"
        ),
    )


def classify_error(label: str, what: str, detail: str) -> OpsError:
    """Return the error of the class that Kafka's name at the beginning of ``detail`` belongs to."""
    name = find_error_name(detail)
    if name in RETRIABLE:
        return not_ready(label, what, detail)
    if is_denial(name):
        return not_authorized(label, what, detail)
    return OpsError(
        obj=f"event bus {label}",
        problem=f"{what} failed: {detail}",
        next_step="See the broker's log for this request, then run again",
    )


def other_cluster(label: str, *, expected: str, actual: str) -> Refusal:
    """The brokers belong to another cluster than the inventory says."""
    return Refusal(
        obj=f"event bus {label}",
        problem=f"its cluster id is {actual}, and cluster_id says {expected}; nothing was changed",
        next_step=f"Correct brokers, or set cluster_id to {actual} if this is the bus that is meant",
    )


def unreadable(label: str, command: str, *, expected: str, output: str) -> OpsError:
    """A program answered with something that is not the answer; ``output`` is shortened here."""
    shown = " ".join(output.split())
    if len(shown) > 300:
        shown = shown[:300] + " ..."
    return OpsError(
        obj=f"event bus {label}",
        problem=f"`{command}` did not print {expected}, but: {shown or 'nothing'}",
        next_step="Run that command by hand; check that rpk reaches the brokers, and that its version is 23.3 to 24.3",
    )


def topics_missing(label: str, topics: list[str]) -> Refusal:
    """Topics which do not exist, or are not shown: brokers and rpk do not tell these apart."""
    return Refusal(
        obj=f"event bus {label}",
        problem=f"it has no topic named {', '.join(topics)}, or this user may not describe it",
        next_step="Correct the name, create the topic first, or give this user DESCRIBE on it",
    )
