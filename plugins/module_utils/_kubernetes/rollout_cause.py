# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Why a rollout failed, by name: the cause before the symptom, with what the crashed container wrote last.

Private to lowtide.ops: do not import from other collections.
"""

from __future__ import annotations

import typing as t

from .._common.errors import OpsError, WaitError
from .._common.outcome import Blocker
from .._common.redaction import Redactor
from .._common.text import join_some
from .client import Client
from .diagnosis import Finding, diagnose
from .errors import ApiError
from .evidence import read_known_secrets
from .fields import Json, as_dict, as_list, as_text, as_time, get_path
from .logs import read_log
from .objects import ContainerState, Event, Pod, Workload
from .pod_templates import find_container, find_digest, list_images
from .resources import collection_path
from .silent_nodes import find_hold, list_silent_pods
from .snapshot import Snapshot
from .wait import FindingLasted

LOG_LINES = 20
"""Lines of a crashed container's log in the result."""
LOG_BYTES = 16384

LogReader = t.Callable[[Client, Pod, str, t.Callable[[str], str]], list[str]]
"""Returns the last lines that a crashed container wrote: of a pod, by the name of the container, without secrets."""

NODE_NOT_READY = "NodeNotReady"
"""The reason of a rollout that a node holds up, which would hold up its undo as well."""

_SYMPTOMS = ("ContainersNotReady", "OrderedReady", "Terminating", "ProgressDeadlineExceeded")
"""Reasons that follow from others where there are any, and the later ones from the earlier ones."""


class Cause(t.NamedTuple):
    """Why a rollout failed: ``log`` are the last lines of the container that crashed."""

    reason: str
    object: str
    message: str
    next_step: str
    container: str = ""
    log: tuple[str, ...] = ()

    def as_dict(self) -> Json:
        """Return it as plain data, for the result."""
        return {**self._asdict(), "log": list(self.log)}

    def redact(self, redactor: Redactor) -> Cause:
        """Return it without secrets: a probe may print the URL of a database, and a log does what it likes."""
        log = tuple(redactor.redact(line) for line in self.log)
        return self._replace(message=redactor.redact(self.message), next_step=redactor.redact(self.next_step), log=log)

    def __str__(self) -> str:
        last = f"; its last line: {self.log[-1]}" if self.log else ""
        return f"{self.reason}: {self.object}: {self.message}{last}"


def make_redactor(client: Client, workload: Workload, pods: t.Sequence[Pod]) -> Redactor:
    """Return what knows the secrets that a workload's pods use, as far as they may be read."""
    known = read_known_secrets(client, workload.namespace, [workload.template, *(pod.raw for pod in pods)])
    return Redactor([*known, *client.access.secrets()])


def redact_error(error: WaitError, redactor: Redactor) -> WaitError:
    """Return an error of a wait without secrets, of the same kind."""
    words = {"problem": redactor.redact(error.problem), "next_step": redactor.redact(error.next_step)}
    if isinstance(error, FindingLasted):
        return FindingLasted(error.finding, obj=error.obj, **words)
    return type(error)(obj=error.obj, **words)


def redact_blockers(blockers: t.Iterable[Blocker], redactor: Redactor) -> list[Blocker]:
    """Return blockers without secrets in their words."""
    return [blocker._replace(what=redactor.redact(blocker.what)) for blocker in blockers]


def find_cause(error: WaitError, snapshot: Snapshot, workload: Workload, *, since: float) -> tuple[Cause, Pod | None]:
    """Return why a wait for a rollout ended without success, and the pod that shows it."""
    silent = list_silent_pods(snapshot, workload)
    titles = {pod.title for pod in silent}
    findings = diagnose(snapshot, workload, since=since, goal=workload.replicas)
    findings = [finding for finding in findings if finding.object not in titles]
    expired = error.finding if isinstance(error, FindingLasted) else None
    if expired is None or expired.reason in _SYMPTOMS:
        known = findings if expired is None else [*findings, expired]
        expired = min(known, key=_rank, default=None)
    hold = find_hold(silent, workload)
    if expired is None and hold is not None:
        return Cause(NODE_NOT_READY, hold.object, hold.what, hold.next_step), None
    if expired is None:
        return Cause("Timeout", error.obj, error.problem, error.next_step), None
    pod = next((pod for pod in snapshot.list_pods(workload) if pod.title == expired.object), None)
    return _name_killed(_make_cause(expired), workload, pod), pod


def _rank(finding: Finding) -> int:
    return _SYMPTOMS.index(finding.reason) if finding.reason in _SYMPTOMS else -1


def find_start(workload: Workload, at: float) -> float:
    """Return from when on what a workload says of its progress counts, for a template that it has got at ``at``.

    What it has said of the one before may stand there for a while, and its clock need not be ours.
    """
    progressing = as_dict(workload.conditions.get("Progressing"))
    said = as_time(progressing.get("lastUpdateTime") or progressing.get("lastTransitionTime"))
    return at if said is None else max(at, said + 1)


def _make_cause(finding: Finding) -> Cause:
    return Cause(finding.reason, finding.object, finding.message, finding.next_step)


def find_crashed(pod: Pod) -> ContainerState | None:
    """Return the container of a pod that has ended and should not have."""
    ended = [state for state in pod.containers if state.last_exit_code]
    waiting = [state for state in ended if state.waiting_reason]
    return next(iter([*waiting, *ended]), None)


def _name_killed(cause: Cause, workload: Workload, pod: Pod | None) -> Cause:
    """Return the cause with the container in it; one that took more memory than it may is called OOMKilled."""
    crashed = find_crashed(pod) if pod is not None else None
    if crashed is None:
        return cause
    if crashed.last_reason != "OOMKilled":
        return cause._replace(container=crashed.name)
    limit = get_path(find_container(workload.template, crashed.name, workload.title), "resources", "limits", "memory")
    return cause._replace(
        reason="OOMKilled",
        container=crashed.name,
        message=f"container {crashed.name} took more memory than its limit ({limit or 'of the node'}); {cause.message}",
        next_step="Raise limits.memory of that container, or lower what it takes",
    )


def complete_cause(client: Client, cause: Cause, pod: Pod | None, read_lines: LogReader, redactor: Redactor) -> Cause:
    """Return the cause with the log of the container that crashed, or what its probe said, all without secrets."""
    return _add_words(client, cause, pod, read_lines, redactor).redact(redactor)


def _add_words(client: Client, cause: Cause, pod: Pod | None, read_lines: LogReader, redactor: Redactor) -> Cause:
    if pod is None:
        return cause
    if cause.container:
        return cause._replace(log=tuple(read_lines(client, pod, cause.container, redactor.redact)))
    if cause.reason != "ContainersNotReady":
        return cause
    try:
        said = _read_probe(client, pod)
    except ApiError as error:
        said = f"its events could not be read: {error.problem}"
    return cause._replace(message=f"{cause.message}; {said}" if said else cause.message)


def _read_probe(client: Client, pod: Pod) -> str:
    """Return what the newest event of a failed probe says, empty where there is none."""
    params = {"fieldSelector": f"involvedObject.uid={pod.uid},reason=Unhealthy"}
    listing = client.list(collection_path("Event", pod.namespace), obj=f"events of {pod.title}", params=params)
    events = sorted((Event.from_object(obj) for obj in listing.items), key=lambda event: event.at)
    return events[-1].message if events else ""


def read_last_lines(client: Client, pod: Pod, container: str, redact: t.Callable[[str], str]) -> list[str]:
    """Return the last lines that a container wrote before it ended, without secrets; or why there are none."""
    log = read_log(
        client,
        pod,
        container,
        redact=redact,
        previous=not _has_just_ended(pod, container),
        tail_lines=LOG_LINES,
        limit_bytes=LOG_BYTES,
    )
    return log.text.splitlines() or [f"({log.reason})"]


def _has_just_ended(pod: Pod, container: str) -> bool:
    """Return whether a container has ended and was not started again, so that its log is the present one."""
    statuses = [
        status
        for part in ("initContainerStatuses", "containerStatuses")
        for status in as_list(get_path(pod.raw, "status", part))
    ]
    return any(
        get_path(status, "name") == container and get_path(status, "state", "terminated") is not None
        for status in statuses
    )


def list_image_ids(pods: t.Sequence[Pod]) -> list[Json]:
    """Return which image each container of the pods really runs."""
    return [
        {
            "pod": pod.name,
            "container": as_text(status.get("name")),
            "image": as_text(status.get("image")),
            "image_id": as_text(status.get("imageID")),
        }
        for pod in pods
        for part in ("initContainerStatuses", "containerStatuses")
        for status in get_path(pod.raw, "status", part) or []
    ]


def find_digest_problem(template: Json, pods: t.Sequence[Pod]) -> OpsError | None:
    """Return the error of a pod that does not ask for the digest that its template names, since something rewrote it.

    That the bytes are those of the digest is verified by the container runtime when it pulls them.
    """
    for name, image in list_images(template).items():
        digest = find_digest(image)
        for pod in pods if digest is not None else ():
            asked = list_images(pod.raw).get(name)
            if asked is not None and find_digest(asked) != digest:
                return OpsError(
                    obj=f"Pod {pod.name}",
                    problem=f"container {name} asks for {asked}, not {image}",
                    next_step="Find out what rewrites images of pods (an admission webhook)",
                )
    return None


def find_other_digests(template: Json, images: t.Sequence[Json]) -> list[str]:
    """Return a warning for each image whose digest its node shows under another one.

    That is no proof of another image: runtimes also show the digest of its configuration, or that of another name.
    """
    warnings = []
    for name, image in list_images(template).items():
        digest = find_digest(image)
        shown = {entry["image_id"] for entry in images if entry["container"] == name and entry["image_id"]}
        others = sorted(image_id for image_id in shown if digest is not None and digest not in image_id)
        if others:
            warnings.append(
                f"container {name}: asked for {image}, and nodes show it as {join_some(others)}; a runtime may show"
                " another digest of the same image"
            )
    return warnings


def find_mixed_tags(template: Json, images: t.Sequence[Json]) -> list[str]:
    """Return a warning for each image whose one tag stands for several images on the nodes."""
    warnings = []
    for name, image in list_images(template).items():
        ids = sorted({entry["image_id"] for entry in images if entry["container"] == name and entry["image_id"]})
        if len(ids) > 1:
            warnings.append(
                f"container {name}: {image} is {len(ids)} different images on the nodes ({join_some(ids)});"
                " name the image by its digest"
            )
    return warnings
