# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The one line and the evidence of rpk_group and rpk_group_info, without I/O.

Private to lowtide.ops: do not import from other collections.
"""

from __future__ import annotations

import typing as t

from .._common.text import format_count, join_some

Facts = t.Mapping[str, t.Any]


def summarize_group(group: Facts) -> str:
    """Return a group's state and lag: ``order-consumer empty, lag 0``."""
    state = str(group["state"])
    if state == "missing":
        removed = f" any more ({group['reason']})" if group.get("reason") else ""
        return f"{group['name']} does not exist{removed}"
    if group["member_count"]:
        state = f"{state} with {format_count(group['member_count'], 'member')}"
    if not group["partitions"]:
        return f"{group['name']} {state}, nothing committed"
    lost, beyond = (sum(row.get(key) or 0 for row in group["partitions"]) for key in ("lost", "beyond_end"))
    lag = "unknown" if group["total_lag"] is None else group["total_lag"]
    words = [f"{group['name']} {state}", f"lag {lag}"]
    words += [f"{format_count(lost, 'offset')} no longer in the log"] if lost else []
    words += [f"{format_count(beyond, 'offset')} beyond its end"] if beyond else []
    return ", ".join(words)


def summarize_topic(topic: Facts) -> str:
    """Return a topic's size: ``orders has 12 partitions, 340 records``."""
    if not topic["exists"]:
        return f"{topic['name']} does not exist"
    partitions, records = format_count(topic["partition_count"], "partition"), format_count(topic["held"], "record")
    return f"{topic['name']} has {partitions}, {records}"


def _describe_wait(group: Facts) -> str:
    name = str(group["name"])
    return f"would wait for {name}, now {summarize_group(group).removeprefix(name).strip()}"


def summarize_reading(
    groups: t.Sequence[Facts], topics: t.Sequence[Facts], *, would_wait_for: t.Collection[str] = ()
) -> str:
    """Return one line about all groups and topics that were read.

    ``would_wait_for`` names the groups that a run outside check mode would wait for.
    """
    words = [_describe_wait(group) if group["name"] in would_wait_for else summarize_group(group) for group in groups]
    return join_some([*words, *map(summarize_topic, topics)], limit=10)


def list_reading_evidence(cluster_id: str, groups: t.Sequence[Facts], topics: t.Sequence[Facts]) -> list[str]:
    """Return one line for each group and topic, with the cluster that was asked."""
    lines = []
    for group in groups:
        partitions = format_count(len(group["partitions"]), "partition")
        lines.append(f"consumer group {summarize_group(group)}, {partitions} (cluster {cluster_id})")
    return lines + [f"topic {summarize_topic(topic)} (cluster {cluster_id})" for topic in topics]


def summarize_offsets(
    group: str, partitions: t.Sequence[Facts], *, changed: bool, check_mode: bool, is_known: bool = True
) -> str:
    """Return one line: which offsets were set, or would be, and how many records that skips and repeats.

    ``partitions`` are the module's own rows: before, after, skipped, repeated, and actual where not all was done.
    ``is_known``: what a commit did was read back, or none was sent.
    """
    moved = [row for row in partitions if row["before"] != row["after"]]
    if not moved:
        return f"{group} stands where it is declared, {format_count(len(partitions), 'partition')}"
    skipped, repeated = sum(row["skipped"] for row in moved), sum(row["repeated"] for row in moved)
    effect = f"skips {format_count(skipped, 'record')}, repeats {repeated}"
    if check_mode:
        return f"would set {format_count(len(moved), 'offset')} of {group}: {effect}"
    if not is_known:
        return f"a commit of {format_count(len(moved), 'offset')} of {group} was sent, and what it did is not known"
    done = [row for row in moved if row.get("actual", row["after"]) == row["after"]]
    if not changed:
        return f"no offset of {group} was set, {len(moved)} differ from the declared ones"
    if len(done) < len(moved):
        return f"set {len(done)} of {format_count(len(moved), 'offset')} of {group}"
    return f"set {format_count(len(moved), 'offset')} of {group}: {effect}"


def list_offset_evidence(facts: Facts, *, changed: bool) -> list[str]:
    """Return the group as it was found, and where the offsets before the change are kept."""
    lines = [f"consumer group {facts['group']} was {facts['state']} (cluster {facts['cluster_id']})"]
    if changed and facts["undo_file"]:
        lines.append(f"the offsets before are in {facts['undo_file']}")
    return lines
