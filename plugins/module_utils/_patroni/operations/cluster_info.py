# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The work of patroni_cluster_info. Private to lowtide.ops: do not import from other collections."""

from __future__ import annotations

import typing as t

from ..._common.outcome import Blocker, Outcome
from ..arguments import make_client, read_cluster
from ..plan import describe_cluster, find_obstacle
from ..summary import list_evidence, summarize_cluster
from ..unheard import CLOSED, find_unheard, report_unheard

if t.TYPE_CHECKING:
    from ansible.module_utils.basic import AnsibleModule


def run_info(module: AnsibleModule, outcome: Outcome) -> None:
    """Read the cluster and report it, with what keeps each standby from taking over."""
    params = module.params
    client = make_client(module, params)
    cluster = read_cluster(client, params)
    unheard = find_unheard(client, cluster)
    max_lag = cluster.max_lag if params["max_lag"] is None else params["max_lag"]
    outcome.summary = summarize_cluster(cluster)
    outcome.evidence += list_evidence(cluster)
    outcome.facts["cluster"] = describe_cluster(cluster)
    standbys = [member for member in cluster.members if not member.is_leader]
    obstacles = {member.name: find_obstacle(cluster, member, max_lag) for member in standbys}
    outcome.facts["candidates"] = [name for name, obstacle in obstacles.items() if not obstacle]
    outcome.blockers += [
        Blocker(f"member {name}", obstacle, cluster.title, "Correct it, so that the member may take over")
        for name, obstacle in obstacles.items()
        if obstacle
    ]
    outcome.blockers += report_unheard(cluster, unheard)
    outcome.evidence += [f"{one.label}: {one.describe()}" for one in unheard if one.verdict == CLOSED]
    for one in unheard:
        if one.verdict != CLOSED:
            module.warn(f"{cluster.title}, {one.label}: {one.describe()}.")
