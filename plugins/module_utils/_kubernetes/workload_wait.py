# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How an operation waits for workloads that it has read: it follows them from there, and passes warnings on.

Private to lowtide.ops: do not import from other collections.
"""

from __future__ import annotations

import typing as t

from .._common.outcome import Outcome
from .._common.retry import Deadline
from .cache import Cache
from .client import Client, Listing
from .conditions import Condition
from .diagnosis import GracePeriod
from .objects import Workload
from .resources import Resource
from .snapshot import Snapshot
from .wait import wait_until

if t.TYPE_CHECKING:
    from ansible.module_utils.basic import AnsibleModule


class Followed(t.NamedTuple):
    """What has been read already and is followed from there: a kind, or one object of it by its ``name``."""

    resource: Resource
    namespace: str
    listed: Listing
    name: str | None = None


def follow_each(workloads: t.Iterable[Workload]) -> list[Followed]:
    """Return each workload as it was read or written last, to be followed by its name."""
    return [
        Followed(
            workload.resource, workload.namespace, Listing([workload.raw], workload.resource_version), workload.name
        )
        for workload in workloads
    ]


def wait_for_workloads(
    module: AnsibleModule,
    client: Client,
    outcome: Outcome,
    conditions: t.Sequence[Condition],
    followed: t.Iterable[Followed],
    *,
    deadline: Deadline | None = None,
    since: float | None = None,
    take: t.Callable[[Snapshot], None] = lambda _snapshot: None,
) -> None:
    """Wait until all conditions hold; ``take`` gets what was seen last, also on a failure.

    Without ``deadline`` until the client's; ``since`` as for ``wait_until``. Raises what ``wait_until`` raises.
    """
    with Cache(client) as cache:
        for source in followed:
            cache.follow(source.resource, source.namespace, name=source.name, listed=source.listed)
        try:
            wait_until(
                conditions,
                cache,
                deadline=deadline or client.deadline,
                grace=GracePeriod(module.params["failure_grace_factor"]),
                outcome=outcome,
                since=since,
            )
        finally:
            take(cache.snapshot())
            for warning in cache.warnings:
                module.warn(warning)
