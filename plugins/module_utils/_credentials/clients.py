# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Wait until nobody is left who has an old credential: pods that may have got it, sessions of its role.

Private to lowtide.ops: do not import from other collections.
"""

from __future__ import annotations

import typing as t
from collections.abc import Callable

from .._common.errors import Refusal, WaitTimeout
from .._common.retry import Backoff, Deadline
from .._common.text import format_duration, join_some
from .._kubernetes.fields import as_dict, as_list, as_time, get_path
from .._kubernetes.references import list_references
from .._kubernetes.resources import collection_path, format_collection
from .._postgresql.roles import read_sessions
from .notes import REVERTING

if t.TYPE_CHECKING:
    from .._kubernetes.client import Client
    from .._kubernetes.fields import Json
    from .._kubernetes.secrets import Secret
    from .._postgresql.connection import Session
    from .notes import Note

SESSION_GRACE = 5.0
"""Seconds in which a session of the idle role may end by itself, such as one of a run that was killed."""


def wait_for_pods(client: Client, secret: Secret, note: Note, *, deadline: Deadline) -> float:
    """Wait until no pod is left that may have got the credential that is ended, and return how many seconds that took.

    That is a pod of before ``rotated_at``. Where a rotation is taken back, it has come after the rotation began too.
    """
    is_back = note.phase == REVERTING
    moment, since = as_time(note.rotated_at) or 0.0, (as_time(note.at) or 0.0) if is_back else None
    path = collection_path("Pod", secret.namespace)

    def find() -> list[str]:
        listing = client.list(path, obj=format_collection("Pod", secret.namespace))
        return [f"Pod {secret.namespace}/{name}" for name in find_old_pods(listing.items, secret.name, moment, since)]

    problem = f"pods of before {note.rotated_at} may have its old credential: {{}}"
    if is_back:
        problem = f"pods between {note.at} and {note.rotated_at} may have its new credential: {{}}"
    return _wait_until_none(
        find,
        deadline,
        obj=secret.title,
        problem=problem,
        next_step="Restart the workloads that they belong to (credentials_workloads), and run again; both work by then",
    )


def find_old_pods(pods: t.Iterable[Json], secret: str, moment: float, since: float | None = None) -> list[str]:
    """Return the names of pods that run, use the Secret, and got it before a moment; pure.

    With ``since`` only those that got it from then on: pods and containers that were started after it, and pods with
    the Secret as a volume, whose files follow it.
    """
    return [
        str(get_path(pod, "metadata", "name"))
        for pod in pods
        if get_path(pod, "status", "phase") not in ("Succeeded", "Failed") and _has_got(pod, secret, moment, since)
    ]


def _has_got(pod: Json, secret: str, moment: float, since: float | None) -> bool:
    uses = [
        reference.use
        for reference in list_references(as_dict(pod.get("spec")))
        if (reference.kind, reference.name) == ("Secret", secret)
    ]
    created = as_time(get_path(pod, "metadata", "creationTimestamp")) or 0.0
    if not uses or created >= moment:
        return False
    if since is None or created >= since or any(use.startswith("volume ") for use in uses):
        return True
    running = [as_time(get_path(entry, "state", "running", "startedAt")) for entry in _list_statuses(pod)]
    return any(since <= started < moment for started in running if started is not None)


def _list_statuses(pod: Json) -> list[t.Any]:
    fields = ("initContainerStatuses", "containerStatuses")
    return [entry for field in fields for entry in as_list(get_path(pod, "status", field))]


def wait_for_sessions(session: Session, name: str, *, deadline: Deadline, why: str) -> float:
    """Wait until no session of a role is open, and return how many seconds that took."""
    return _wait_until_none(
        lambda: [
            f"pid {entry.pid} ({entry.application or 'no application_name'}, database {entry.database})"
            for entry in read_sessions(session, name)
        ],
        deadline,
        obj=f"role {name}",
        problem=f"{why}, and sessions of it are open: {{}}",
        next_step="Restart what they belong to, and run again; a pooler keeps its own (RECONNECT, or wait for"
        " server_lifetime)",
    )


def _wait_until_none(
    find: Callable[[], list[str]], deadline: Deadline, *, obj: str, problem: str, next_step: str
) -> float:
    backoff = Backoff(first=0.1, limit=2.0)
    before = deadline.elapsed
    while left := find():
        if deadline.passed and deadline.seconds <= SESSION_GRACE:
            raise Refusal(obj=obj, problem=problem.format(join_some(left)), next_step=next_step)
        if deadline.passed:
            waited = f", after {format_duration(deadline.elapsed)}"
            raise WaitTimeout(obj=obj, problem=problem.format(join_some(left)) + waited, next_step=next_step)
        deadline.pause(backoff.take_pause())
    return deadline.elapsed - before
