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
from .._common.timestamps import format_utc
from .._kubernetes.fields import as_dict, as_list, as_time, get_path
from .._kubernetes.references import list_references
from .._kubernetes.resources import collection_path, format_collection
from .._kubernetes.secrets import find_last_change
from .notes import REVERTING

if t.TYPE_CHECKING:
    from .._kubernetes.client import Client
    from .._kubernetes.fields import Json
    from .._kubernetes.secrets import Secret
    from .notes import Note
    from .places import Places

SESSION_GRACE = 5.0
"""Seconds in which a session of the idle role may end by itself, such as one of a run that was killed."""


def wait_for_pods(client: Client, secret: Secret, note: Note, *, deadline: Deadline) -> float:
    """Wait until no pod is left that may have got the credential that is ended, and return how many seconds that took.

    That is a pod of before ``rotated_at``. Where a rotation is taken back, it has come after the rotation began too.
    """
    is_back = note.phase == REVERTING
    moment, since = as_time(note.rotated_at) or 0.0, (as_time(note.at) or 0.0) if is_back else None
    problem = f"pods of before {note.rotated_at} may have its old credential: {{}}"
    if is_back:
        problem = f"pods between {note.when} and {note.rotated_at} may have its new credential: {{}}"
    return _wait_until_none(
        lambda: _list_pods(client, secret, moment, since),
        deadline,
        obj=secret.title,
        problem=problem,
        next_step="Restart the workloads that they belong to (credentials_workloads), and run again; both work by then",
    )


def refuse_earlier_pods(client: Client, secret: Secret, keys: t.Sequence[str], *, is_accepted: bool) -> None:
    """Refuse to begin with a Secret of which nothing is known, while a pod has it from before its last change.

    Such a pod may have whatever credential the Secret had by then, also that of the role that is to get a password.
    """
    moment = find_last_change(secret, keys)
    left = _list_pods(client, secret, moment)
    if not left:
        return
    when, pods = format_utc(moment), join_some(left)
    if is_accepted:
        raise Refusal(
            obj=secret.title,
            problem=f"no rotation is noted on it, and pods of before {when}, when it was changed, may have another"
            f" credential: {pods}",
            next_step="Restart the workloads that they belong to, and run again",
        )
    raise Refusal(
        obj=secret.title,
        problem=f"no rotation is noted on it, the server refuses its credential, and pods of before {when}, when it was"
        f" changed, may have the one that works: {pods}",
        next_step="Put the credential that they have (kubectl exec POD -- env) into the Secret, restart them, and run"
        " again",
    )


def _list_pods(client: Client, secret: Secret, moment: float, since: float | None = None) -> list[str]:
    path = collection_path("Pod", secret.namespace)
    listing = client.list(path, obj=format_collection("Pod", secret.namespace))
    return [f"Pod {secret.namespace}/{name}" for name in find_old_pods(listing.items, secret.name, moment, since)]


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


def wait_for_sessions(places: Places, name: str, *, deadline: Deadline, why: str) -> float:
    """Wait until no session of a role is open on any server that is asked, and return how many seconds that took."""
    return _wait_until_none(
        lambda: places.list_sessions(name),
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
