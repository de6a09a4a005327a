# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether what a window does is what its check mode has shown: the workflow check mode, approval, window of AWX.

Private to lowtide.ops: do not import from other collections. AWX hands what a job leaves by ``set_stats`` to the jobs
after it in a workflow, as extra variables. Each job takes the project and the inventory as they are at its start.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from hashlib import sha256

from ansible_collections.lowtide.ops.plugins.module_utils._common.errors import Refusal

from .declaration import Declaration
from .request import Request
from .rules import describe_pending
from .state import WindowState

Shown = dict[str, str]
AGAIN = "Launch the workflow again from its check mode; a relaunch of this job does not help"
DIFFERENCES = {
    "revision": "revision {} of the project",
    "version": "version {} of lowtide.ops",
    "steps": "window_steps",
    "hosts": "the hosts of its steps",
    "selected": "the steps that window_only and window_skip choose",
}
"""What is compared, in words; a value that is a digest is not told."""
OF_THE_PUSH = {"revision", "version"}
"""What changes with a push, also one that has nothing to do with this window."""


def name_artifact(site: str, window: str) -> str:
    """Return the name of the artifact in which a check mode leaves what it has shown.

    It is one for each window of a site: AWX lets the artifacts of an outer workflow beat those of the nodes of a
    workflow inside it, and gives all artifacts before a node together.
    """
    return f"lowtide_shown_{_digest([site, window])}"


def describe_shown(request: Request, declaration: Declaration, selected: Iterable[str]) -> Shown:
    """Return what a check mode shows: the revision of AWX's project, the collection's version, and digests of the
    steps, their hosts (which AWX gives in no promised order) and those that are chosen."""
    entries = [
        {key: value for key, value in entry.items() if key not in {"hosts", "batches"}}
        if isinstance(entry, Mapping)
        else entry
        for entry in request.steps
    ]
    return {
        "revision": request.job.get("revision", ""),
        "version": request.version,
        "steps": _digest(entries),
        "hosts": _digest([[step.name, [sorted(batch) for batch in step.batches]] for step in declaration]),
        "selected": _digest(sorted(selected)),
    }


def _digest(value: object) -> str:
    return sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:16]


def refuse_other(request: Request, own: Shown, resumed: WindowState | None) -> None:
    """Raise Refusal where the check mode of this window, earlier in the workflow, has shown something else.

    A job that is relaunched has the variables of then. Where it goes on with what was begun and came to no good end, it
    may do so from a later push, but with the same steps on the same hosts.
    """
    goes_on = resumed is not None and resumed.is_begun and request.job and request.job.get("launch") != "workflow"
    compared = {key: words for key, words in DIFFERENCES.items() if not goes_on or key not in OF_THE_PUSH}
    shown = request.approved
    left = describe_pending(resumed) if resumed is not None else []
    again = f"In force are {', '.join(left)}: launch restore_service, which reverts that. {AGAIN}" if left else AGAIN
    if not isinstance(shown, Mapping) or not shown:
        if request.approved_only:  # AWX now and then hands on no artifact: awx#11821, #12750
            raise Refusal(
                obj=f"window {request.name}",
                problem="nothing is known of what its check mode has shown, though this run follows an approval",
                next_step=again,
            )
        return
    differing = [
        words.format(f"{own[key] or 'unknown'} (shown was {shown.get(key) or 'unknown'})")
        for key, words in compared.items()
        if str(shown.get(key) or "") != own[key]
    ]
    if differing:
        raise Refusal(
            obj=f"window {request.name}",
            problem=f"what its check mode has shown was approved, and in this run other is: {', '.join(differing)}",
            next_step=again,
        )
