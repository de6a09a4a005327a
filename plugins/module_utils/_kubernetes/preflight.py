# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Asks the server for everything that a run needs before its first write, so that nothing is refused half way.

Private to lowtide.ops: do not import from other collections.
"""

from __future__ import annotations

import typing as t

from .._common.errors import OpsError, Refusal
from .._common.retry import Deadline
from .._common.text import join_some
from .client import Client
from .errors import ApiError
from .fields import get_path
from .patches import Write
from .resources import Kind, find_resource
from .reviews import Right, require_rights

if t.TYPE_CHECKING:
    from .fields import Json


TRY_SECONDS = 30.0
"""How long a start tries its writes at most, so that a server that gives no verdict does not cost its time."""


class Planned(t.NamedTuple):
    """A write that is planned: of which object (``raw`` as it was read), at which path, and what."""

    kind: Kind
    title: str
    path: str
    raw: Json
    write: Write

    def decide(self, _obj: Json) -> Write:
        """Return the planned write, whatever the object is by then."""
        return self.write


def check_rights(
    client: Client,
    planned: t.Sequence[Planned],
    *,
    namespace: str,
    reads: t.Collection[str],
    check_mode: bool,
    is_way_back: bool = False,
    others: t.Sequence[Right] = (),
) -> None:
    """Refuse a run that the server would refuse half way. Nothing is asked where nothing is planned.

    ``reads`` are the kinds that the wait has to list, ``others`` what else the run needs to be allowed. Each planned
    write is sent as a dry run, which also finds what admission webhooks and quotas say; in check mode, which sends no
    write at all, the right to patch is asked for instead (SelfSubjectAccessReview): for the kind, and where that is
    denied for each object, since a role may name them (``resourceNames``). What is missing is named altogether.

    Where a dry run cannot be made, because a webhook takes none, the right to patch is asked for in its place. On the
    way back (a start) one without any verdict does not stop the run either.
    """
    if not planned:
        return
    rights = [Right("list", find_resource(kind), namespace) for kind in sorted(reads)]
    rights += others
    if check_mode:
        rights += _list_patch_rights(planned, namespace)
    _refuse_missing(client, rights, planned)
    if check_mode:
        return
    untried = _try_writes(client, planned, is_way_back=is_way_back)
    if untried:
        _refuse_missing(client, _list_patch_rights(untried, namespace), untried)


def _list_patch_rights(planned: t.Sequence[Planned], namespace: str) -> list[Right]:
    resources = sorted({find_resource(entry.kind) for entry in planned}, key=lambda resource: resource.kind)
    return [Right("patch", resource, namespace) for resource in resources]


def _refuse_missing(client: Client, rights: t.Sequence[Right], planned: t.Sequence[Planned]) -> None:
    refuse_missing(client, _find_missing(client, rights, planned))


def refuse_missing(client: Client, missing: t.Sequence[Right]) -> None:
    """Refuse a run whose account lacks rights, which are named altogether."""
    if missing:
        rules = join_some([right.rule for right in missing], limit=10)
        raise Refusal(
            obj=f"account at {client.access.server} ({client.access.source})",
            problem=f"it may not {rules}, which this run needs; nothing has been changed",
            next_step="Grant it by a Role in that namespace (docs/kubernetes-rights.yml has one)",
        )


def _find_missing(client: Client, rights: t.Sequence[Right], planned: t.Sequence[Planned]) -> list[Right]:
    missing: list[Right] = []
    for right in require_rights(client, rights):
        named = [
            right._replace(name=str(entry.raw["metadata"]["name"]))
            for entry in planned
            if right.verb == "patch" and find_resource(entry.kind) == right.resource
        ]
        denied = require_rights(client, named)
        missing += denied if len(denied) < len(named) else [right]
    return missing


def _try_writes(client: Client, planned: t.Sequence[Planned], *, is_way_back: bool) -> list[Planned]:
    """Send every write as a dry run; return those that could not be tried, a Refusal for those that are refused."""
    refused: list[OpsError] = []
    untried: list[Planned] = []
    deadline = client.deadline
    if is_way_back:  # time is left for the writes themselves, and for the rights
        client.deadline = Deadline(min(TRY_SECONDS, deadline.remaining / 2))
    try:
        for entry in planned:
            try:
                answer, _sent = client.patch_with_retry(
                    entry.path, entry.decide, obj=entry.title, first=entry.raw, dry_run=True
                )
            except ApiError as error:
                if not _is_without_verdict(error):
                    refused.append(error)
                    continue
                if not is_way_back and not _takes_no_dry_run(error):
                    raise
                untried.append(entry)
                client.warnings.append(f"{entry.title}: the change could not be tried beforehand: {error.problem}")
            else:
                difference = describe_difference(answer, entry.write)
                refused += [_make_difference(entry.title, difference)] if difference else []
    finally:
        client.deadline = deadline
    if refused:
        raise Refusal(
            obj=join_some([error.obj for error in refused]),
            problem=f"the server would refuse the change: {join_some([error.problem for error in refused], limit=3)};"
            " nothing has been changed",
            next_step=refused[0].next_step,
        )
    return untried


def _takes_no_dry_run(error: ApiError) -> bool:
    """Return whether an admission webhook with side effects keeps the server from making a dry run."""
    return error.status == 400 and "does not support dry run" in error.problem


def _is_without_verdict(error: ApiError) -> bool:
    return error.status in (0, 429) or error.status >= 500 or _takes_no_dry_run(error)


def describe_difference(answer: Json, write: Write) -> str:
    """Return in which fields the server's answer is not what was asked for; empty where it is.

    What was to be removed is left out: the server may put a default in its place.
    """
    differences = [
        f"{'.'.join(path)} was asked to be {asked!r} and became {get_path(answer, *path)!r}"
        for path, asked in _list_leaves(write.body)
        if get_path(answer, *path) != asked
    ]
    return join_some(differences)


def check_answer(answer: Json, write: Write, title: str) -> None:
    """Raise OpsError when the server took a write and made something else of it."""
    difference = describe_difference(answer, write)
    if difference:
        raise _make_difference(title, difference)


def _make_difference(title: str, difference: str) -> OpsError:
    return OpsError(
        obj=title,
        problem=f"the server makes something else of the change: {difference}",
        next_step="Find the admission webhook or policy that changes it, and make an exception or ask for what it allows",
    )


def _list_leaves(body: Json, place: tuple[str, ...] = ()) -> t.Iterator[tuple[tuple[str, ...], t.Any]]:
    for key, value in body.items():
        if isinstance(value, dict):
            yield from _list_leaves(value, (*place, key))
        elif value is not None:
            yield (*place, key), value
