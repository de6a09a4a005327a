# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Typed views of pods and of events about them, as a wait looks at them. Every function bears missing and null fields.

Private to lowtide.ops: do not import from other collections.
"""

from __future__ import annotations

import typing as t

from .parse import Json, dig, mapping, sequence


class Pod(t.NamedTuple):
    """A pod: whether it is ready, and what keeps it from becoming so (class and message), if that is visible."""

    name: str
    uid: str
    labels: dict[str, t.Any]
    ready: bool
    terminating: bool
    trouble: tuple[str, str] | None


_IMAGE = ("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "ImageInspectError")
_CONFIG = ("CreateContainerConfigError", "CreateContainerError", "RunContainerError")


def pod(obj: Json) -> Pod:
    """The typed view of a pod."""
    status = mapping(obj.get("status"))
    conditions = {str(c.get("type")): c for c in sequence(status.get("conditions"))}
    return Pod(
        name=str(dig(obj, "metadata", "name") or ""),
        uid=str(dig(obj, "metadata", "uid") or ""),
        labels=mapping(dig(obj, "metadata", "labels")),
        ready=dig(conditions, "Ready", "status") == "True",
        terminating=dig(obj, "metadata", "deletionTimestamp") is not None,
        trouble=_trouble(status, conditions),
    )


def _trouble(status: Json, conditions: Json) -> tuple[str, str] | None:
    scheduled = mapping(conditions.get("PodScheduled"))
    if scheduled.get("status") == "False" and scheduled.get("reason") == "Unschedulable":
        return "unschedulable", str(scheduled.get("message") or "no node fits")
    for container in sequence(status.get("initContainerStatuses")) + sequence(status.get("containerStatuses")):
        waiting = mapping(dig(container, "state", "waiting"))
        reason = str(waiting.get("reason") or "")
        detail = f"container {container.get('name')}: {reason}: {waiting.get('message') or ''}".rstrip(": ")
        if reason in _IMAGE:
            return "image pull", f"{detail} (image {container.get('image')})"
        if reason in _CONFIG:
            return "container configuration", detail
        if reason == "CrashLoopBackOff":
            ended = mapping(dig(container, "lastState", "terminated"))
            return (
                "crash loop",
                f"{detail}; it last ended with exit code {ended.get('exitCode')} ({ended.get('reason')})",
            )
    return None


class Event(t.NamedTuple):
    """An event about the creation of a workload's pods. ``at`` is RFC 3339 and sorts as text."""

    about: str
    reason: str
    message: str
    at: str


def event(obj: Json) -> Event:
    """The typed view of a core/v1 event."""
    involved = mapping(obj.get("involvedObject"))
    at = dig(obj, "series", "lastObservedTime") or obj.get("lastTimestamp") or obj.get("eventTime")
    return Event(
        about=f"{involved.get('kind')}/{involved.get('name')}",
        reason=str(obj.get("reason") or ""),
        message=str(obj.get("message") or ""),
        at=str(at or dig(obj, "metadata", "creationTimestamp") or ""),
    )


def matches(selector: Json, labels: Json) -> bool:
    """Whether a label selector (matchLabels and matchExpressions) selects ``labels``; an empty one selects nothing here."""
    wanted, expressions = mapping(selector.get("matchLabels")), sequence(selector.get("matchExpressions"))
    if not wanted and not expressions:
        return False
    if any(labels.get(key) != value for key, value in wanted.items()):
        return False
    return all(_expression(expression, labels) for expression in expressions)


def _expression(expression: Json, labels: Json) -> bool:
    key, values = str(expression.get("key")), sequence(expression.get("values"))
    match expression.get("operator"):
        case "In":
            return labels.get(key) in values
        case "NotIn":
            return labels.get(key) not in values
        case "Exists":
            return key in labels
        case "DoesNotExist":
            return key not in labels
        case operator:
            raise ValueError(f"unknown selector operator {operator!r}")
