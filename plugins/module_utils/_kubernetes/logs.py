# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads the last lines of containers' logs, bounded and redacted; a log that cannot be read says why.

Private to lowtide.ops: do not import from other collections.
"""

from __future__ import annotations

import contextlib
import typing as t
from collections import deque

from .._common.retry import Deadline
from .._common.timestamps import format_utc
from .client import Client
from .errors import ApiError, Forbidden, NotFound
from .objects import ContainerState, Pod
from .resources import object_path

LOG_SECONDS = 10.0
"""For reading logs, all of one call together. A node that does not answer costs no more, also after a deadline."""
TRANSFER_LIMIT = 16 * 1024 * 1024
"""Bytes that the server sends of one log at most, however long its lines are."""
MARGIN_LINES = 100
"""Lines read before those that are kept, so that a private key which begins in them is redacted as a whole."""
OVERLAP_BYTES = 64 * 1024
"""Read and redacted before what is kept, for secrets that begin in it. Redacting more costs time for nothing."""
HEAD = 4096
"""Characters left out where a single line is cut before it is redacted: a secret may begin before the cut."""
LOGS_LIMIT = 50
"""Logs that are read in one call at most; the others say that they were not."""

_REMOVED = "unable to retrieve container logs for "
"""What a kubelet answers, with the status of a success, when the container of the log is gone."""

Redact = t.Callable[[str], str]


class Log(t.NamedTuple):
    """The end of a container's log, redacted; ``previous`` is that of the container before its last restart.

    ``truncated``: there is more before it. ``reason`` says why there is nothing, or why it breaks off; else it is "".
    """

    pod: str
    container: str
    previous: bool
    text: str
    truncated: bool
    reason: str = ""

    @property
    def title(self) -> str:
        """Which log it is, for messages."""
        return f"{'previous ' if self.previous else ''}log of container {self.container} of Pod {self.pod}"


@contextlib.contextmanager
def allow_seconds(client: Client, deadline: Deadline) -> t.Iterator[None]:
    """Give requests a deadline of their own, whatever is left of the client's: to say what stood at its end."""
    own_deadline, client.deadline = client.deadline, deadline
    try:
        yield
    finally:
        client.deadline = own_deadline


def read_log(
    client: Client,
    pod: Pod,
    container: str,
    *,
    redact: Redact,
    previous: bool = False,
    tail_lines: int,
    limit_bytes: int,
    since: float | None = None,
    deadline: Deadline | None = None,
) -> Log:
    """Return the last lines of one container's log, whole lines of at most ``limit_bytes`` together.

    A container that has not started, a log that is gone, and one that may not be read are an empty Log with the reason,
    since a log explains something else that must not get lost. ``since`` is in seconds since 1970. It takes at most
    ``LOG_SECONDS`` (or until ``deadline``), whatever is left of the client's own deadline.
    """
    params = {
        "container": container,
        "tailLines": str(tail_lines + MARGIN_LINES + 1),
        "limitBytes": str(TRANSFER_LIMIT),
        **({"previous": "true"} if previous else {}),
        **({"sinceTime": format_utc(since)} if since is not None else {}),
    }
    path = object_path("Pod", pod.namespace, pod.name, "log")
    lines: deque[str] = deque(maxlen=tail_lines + MARGIN_LINES + 1)
    reason = ""
    try:
        with allow_seconds(client, deadline or Deadline(LOG_SECONDS)):
            lines.extend(client.read_lines(path, obj=f"log of {pod.title}", params=params))
    except ApiError as error:
        reason = _explain(error, pod, container, previous=previous)
    if len(lines) == 1 and lines[0].startswith(_REMOVED):
        reason = f"its node has removed it: {lines.pop()}"
    text, truncated = redact_tail("\n".join(lines), redact, tail_lines=tail_lines, limit_bytes=limit_bytes)
    if not lines and not reason:
        reason = "it is empty"
    return Log(f"{pod.namespace}/{pod.name}", container, previous, text, truncated, redact(reason))


def list_logs(
    client: Client,
    pods: t.Iterable[Pod],
    *,
    redact: Redact,
    tail_lines: int,
    limit_bytes: int,
    since: float | None = None,
    select: t.Callable[[Pod, ContainerState], bool] = lambda _pod, _container: True,
    limit: int = LOGS_LIMIT,
) -> list[Log]:
    """Return the logs of all pods, each container's on its own: of a restarted one the previous log before the current.

    ``select`` leaves containers out. A pod that has no container's state yet has no log. What is beyond ``limit`` logs
    is listed as not read.
    """
    asked = [
        (pod, container.name, previous)
        for pod in pods
        for container in pod.containers
        if select(pod, container)
        for previous in ((True, False) if container.restarts else (False,))
    ]
    deadline = Deadline(LOG_SECONDS)
    logs = [
        read_log(
            client,
            pod,
            container,
            redact=redact,
            previous=previous,
            tail_lines=tail_lines,
            limit_bytes=limit_bytes,
            since=since,
            deadline=deadline,
        )
        for pod, container, previous in asked[:limit]
    ]
    unread = f"it was not read, as {limit} others were"
    logs += [
        Log(f"{pod.namespace}/{pod.name}", container, previous, "", truncated=False, reason=unread)
        for pod, container, previous in asked[limit:]
    ]
    return logs


def redact_tail(text: str, redact: Redact, *, tail_lines: int, limit_bytes: int) -> tuple[str, bool]:
    """Return the last lines of a text without secrets, and whether that is not all of it.

    Only what is kept is redacted, and ``OVERLAP_BYTES`` before it. A line that this cuts is left out.
    """
    data = text.encode("utf-8", "replace")
    size = limit_bytes + OVERLAP_BYTES
    if len(data) <= size:
        return cut_tail(redact(text), tail_lines=tail_lines, limit_bytes=limit_bytes)
    end = data[-size:].decode("utf-8", "ignore")
    _cut, newline, whole = end.partition("\n")
    redacted = redact(whole) if newline and whole else redact(end)[HEAD:]
    return cut_tail(redacted, tail_lines=tail_lines, limit_bytes=limit_bytes)[0], True


def cut_tail(text: str, *, tail_lines: int, limit_bytes: int) -> tuple[str, bool]:
    """Return the last lines of a text, and whether that is not all of it.

    Of a last line that alone is longer than ``limit_bytes`` the end is kept: it has already been redacted.
    """
    lines = text.split("\n")
    kept: deque[str] = deque()
    size = 0
    for line in reversed(lines[-tail_lines:] if tail_lines else []):
        size += len(line.encode()) + (1 if kept else 0)
        if size > limit_bytes:
            break
        kept.appendleft(line)
    if not kept and text and tail_lines and limit_bytes:
        return lines[-1].encode()[-limit_bytes:].decode("utf-8", "ignore"), True
    return "\n".join(kept), len(kept) < len(lines) and text != ""


def _explain(error: ApiError, pod: Pod, container: str, *, previous: bool) -> str:
    """Return why a log could not be read, in words for a person."""
    if isinstance(error, Forbidden):
        return f"not allowed to read it: grant get on pods/log in namespace {pod.namespace} ({error.problem})"
    if isinstance(error, NotFound):
        return f"{pod.title} does not exist any more"
    if error.status == 400:
        kind = "container before the last restart" if previous else "container"
        return f"there is none of the {kind} {container}: {error.problem}"
    return f"it could not be read: {error.problem}"
