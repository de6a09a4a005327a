# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The work of rpk_group_info. Private to lowtide.ops: do not import from other collections."""

from __future__ import annotations

import typing as t

from .._common.errors import OpsError, Refusal
from .._common.retry import Deadline
from .api import OffsetRange, TopicPartition
from .connection import check_identity, make_client
from .groups import COMPACT, GroupReading, find_compacted, read_groups, read_topics
from .summary import list_reading_evidence, summarize_reading
from .wait import Condition, Tails, read_condition, refuse_lasting, wait_for_groups

if t.TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ansible.module_utils.basic import AnsibleModule

    from .._common.outcome import Outcome
    from .api import BusClient


def report(module: AnsibleModule, outcome: Outcome) -> None:
    """The work of ``rpk_group_info``."""
    params = module.params
    condition, timeout = read_condition(params.get("wait_for"))
    if params["wait_for"] and not params["names"]:
        raise Refusal(
            obj="option names", problem="it is empty, and wait_for waits for groups", next_step="Name a group"
        )
    ranges = read_ranges(params["count_records"])
    client = make_client(params)
    try:
        run(client, params, outcome, condition, Deadline(timeout))
        if ranges:
            outcome.facts["records"] = count_ranges(client, params, ranges)
    finally:
        client.close()


def run(
    client: BusClient, params: Mapping[str, t.Any], outcome: Outcome, condition: Condition, deadline: Deadline
) -> None:
    """Read groups, wait where that is asked for, and read topics; fill the outcome."""
    names, topics = params["names"], params["topics"]

    def read() -> list[GroupReading]:
        """Read the groups; the first answer of all says which cluster it is."""
        if not outcome.facts.get("cluster_id"):
            outcome.facts["cluster_id"] = check_identity(client, params)
        return read_groups(client, names) if names else []

    def tell(readings: Sequence[GroupReading]) -> None:
        _update_result(outcome, readings, condition)

    if params["wait_for"] and not outcome.check_mode:
        try:
            readings = wait_for_groups(read, condition, deadline, tails=Tails(client), tell=tell)
        finally:
            outcome.waited = deadline.elapsed
    else:
        readings = read()
        tell(readings)
        refuse_lasting(readings, condition)
    if params["cleanup_policy"]:
        compacted = find_compacted(client, outcome.facts["groups"])
        for group in outcome.facts["groups"]:
            group["compacted_topics"] = compacted[group["name"]]
    outcome.facts["topics"] = read_topics(client, topics)
    if params["cleanup_policy"]:
        policies = client.cleanup_policies(topic["name"] for topic in outcome.facts["topics"] if topic["exists"])
        for topic in outcome.facts["topics"]:
            topic["is_compacted"] = COMPACT in policies[topic["name"]] if topic["exists"] else None
    if topics:
        _summarize(outcome, list_unmet(readings, condition))


def read_ranges(rows: Sequence[Mapping[str, t.Any]]) -> dict[TopicPartition, OffsetRange]:
    """Return the ranges of the option ``count_records``."""
    ranges = {}
    for row in rows:
        partition = TopicPartition(row["topic"], row["partition"])
        if not 0 <= row["start"] <= row["end"] or partition in ranges:
            raise Refusal(
                obj=f"option count_records, {partition}",
                problem=f"{row['start']} to {row['end']} is no range of offsets, or the second one of this partition",
                next_step="Give start and end, of 0 or more, once for each partition",
            )
        ranges[partition] = OffsetRange(row["start"], row["end"])
    return ranges


def count_ranges(
    client: BusClient, params: Mapping[str, t.Any], ranges: Mapping[TopicPartition, OffsetRange]
) -> list[dict[str, t.Any]]:
    """Count the records of the ranges; one in which a transaction is open has no count yet."""
    group = params["names"][0] if params["names"] else "lowtide.ops"
    counts = client.count_records(group, ranges, seconds=params["count_timeout"])
    for partition, count in counts.items():
        if count.reached < ranges[partition].end:
            raise OpsError(
                obj=f"{partition} on event bus {client.label}",
                problem=(
                    f"a transaction is open from offset {count.reached} on, so its records up to "
                    f"{ranges[partition].end} cannot be counted yet"
                ),
                next_step="Run again when it has ended; kafka-transactions.sh find-hanging names its producer",
            )
    return [
        {**own._asdict(), "start": ranges[own].start, "end": ranges[own].end, "records": count.records}
        for own, count in sorted(counts.items())
    ]


def list_unmet(readings: Sequence[GroupReading], condition: Condition) -> list[str]:
    """Name the groups that are not as declared."""
    return [reading.group.name for reading in readings if condition.explain_unmet(reading)]


def _update_result(outcome: Outcome, readings: Sequence[GroupReading], condition: Condition) -> None:
    """Set what was read last, and what of it is not as declared."""
    outcome.facts["groups"] = [reading.as_dict() for reading in readings]
    unmet = list_unmet(readings, condition)
    outcome.facts["condition_met"] = not unmet
    _summarize(outcome, unmet)


def _summarize(outcome: Outcome, unmet: Sequence[str]) -> None:
    """Set summary and evidence from what was read so far; ``unmet`` names groups that are not as declared."""
    groups, topics = outcome.facts["groups"], outcome.facts.get("topics", [])
    summary = summarize_reading(groups, topics, would_wait_for=unmet if outcome.check_mode else ())
    outcome.summary = summary or f"cluster {outcome.facts['cluster_id']}"
    outcome.evidence = list_reading_evidence(outcome.facts["cluster_id"], groups, topics)
