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

Shown = dict[str, str]


def describe_shown(request: Request, declaration: Declaration, selected: Iterable[str]) -> Shown:
    """Return what a check mode shows: the site, the revision of AWX's project, and a digest of the steps, their hosts
    (which AWX gives in no promised order), those that are chosen, and the collection's version."""
    parts = {
        "entries": request.steps,
        "hosts": [[step.name, [sorted(batch) for batch in step.batches]] for step in declaration],
        "selected": sorted(selected),
        "version": request.version,
    }
    digest = sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:16]
    return {"site": request.place.site, "revision": request.job.get("revision", ""), "digest": digest}


def refuse_other(request: Request, own: Shown) -> None:
    """Raise Refusal where the check mode of this window, earlier in the workflow, has shown something else.

    A job that is relaunched has the variables of then, and goes on with what was begun.
    """
    if request.job and request.job.get("launch") != "workflow":
        return
    approved = request.approved if isinstance(request.approved, Mapping) else {}
    shown = approved.get("shown")
    if not isinstance(shown, Mapping) or (approved.get("window"), shown.get("site")) != (request.name, own["site"]):
        if request.approved_only:  # AWX now and then hands on no artifact: awx#11821, #12750
            raise Refusal(
                obj=f"window {request.name}",
                problem="nothing is known of what its check mode has shown, though this run follows an approval",
                next_step="Launch the workflow again from its check mode",
            )
        return
    words = {"revision": "revision {} of the project", "digest": "declaration {}"}
    differing = [key for key in words if str(shown.get(key) or "") != own[key]]
    if differing:
        was, now = (
            " and ".join(words[key].format(values.get(key) or "unknown") for key in differing)
            for values in (shown, own)
        )
        raise Refusal(
            obj=f"window {request.name}",
            problem=f"its check mode has shown {was}, and this run has {now}, which is not what was approved",
            next_step="Launch the workflow again from its check mode",
        )
