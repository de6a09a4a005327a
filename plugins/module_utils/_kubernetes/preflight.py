# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Asks the server for everything that a run needs before its first write, so that nothing is refused half way.

Private to lowtide.ops: do not import from other collections.
"""

from __future__ import annotations

import typing as t

from .._common.errors import OpsError, Refusal
from .._common.text import join_some
from .client import Client
from .errors import ApiError
from .patches import Write
from .resources import find_resource
from .reviews import Right, require_rights

if t.TYPE_CHECKING:
    from .fields import Json


class Planned(t.NamedTuple):
    """A write that is planned: of which object (``raw`` as it was read), at which path, and what."""

    kind: str
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
) -> None:
    """Refuse a run that the server would refuse half way. Nothing is asked where nothing is planned.

    ``reads`` are the kinds that the wait has to list. Each planned write is sent as a dry run, which also finds what
    admission webhooks and quotas say; in check mode, which sends no write at all, the right to patch is asked for
    instead (SelfSubjectAccessReview): for the kind, and where that is denied for each object, since a role may name
    them (``resourceNames``). What is missing is named altogether.
    """
    if not planned:
        return
    rights = [Right("list", find_resource(kind), namespace) for kind in sorted(reads)]
    if check_mode:
        kinds = sorted({entry.kind for entry in planned})
        rights += [Right("patch", find_resource(kind), namespace) for kind in kinds]
    missing = _find_missing(client, rights, planned)
    if missing:
        rules = join_some([right.rule for right in missing], limit=10)
        raise Refusal(
            obj=f"account at {client.access.server} ({client.access.source})",
            problem=f"it may not {rules}, which this run needs; nothing has been changed",
            next_step="Grant it by a Role in that namespace (docs/kubernetes-rights.yml has one)",
        )
    if not check_mode:
        _try_writes(client, planned)


def _find_missing(client: Client, rights: t.Sequence[Right], planned: t.Sequence[Planned]) -> list[Right]:
    missing: list[Right] = []
    for right in require_rights(client, rights):
        kind = right.resource.kind if right.verb == "patch" else None
        named = [right._replace(name=str(entry.raw["metadata"]["name"])) for entry in planned if entry.kind == kind]
        denied = require_rights(client, named)
        missing += denied if len(denied) < len(named) else [right]
    return missing


def _try_writes(client: Client, planned: t.Sequence[Planned]) -> None:
    refused: list[OpsError] = []
    for entry in planned:
        try:
            client.patch_with_retry(entry.path, entry.decide, obj=entry.title, first=entry.raw, dry_run=True)
        except ApiError as error:
            if error.status in (0, 429) or error.status >= 500:
                raise
            refused.append(error)
    if refused:
        raise Refusal(
            obj=join_some([error.obj for error in refused]),
            problem=f"the server would refuse the change: {join_some([error.problem for error in refused], limit=3)};"
            " nothing has been changed",
            next_step=refused[0].next_step,
        )
