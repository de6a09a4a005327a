# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Read what rpk prints. Pure. Private to lowtide.ops: do not import from other collections.

rpk 23.3 and 24.3 have no JSON for groups, and none for topics in 23.3, so tables are read: columns are cut at the
positions of the header's words, because cells may be empty or hold blanks. Text that is not the expected table raises
:class:`ParseError`; a shortened table is never taken for a short one where the output itself allows to tell.
"""

from __future__ import annotations

import re
import typing as t
from dataclasses import dataclass

from .api import DEAD, EMPTY, REBALANCING, STABLE, UNKNOWN, Group, Member, OffsetRange, TopicPartition, UnknownState

if t.TYPE_CHECKING:
    from collections.abc import Sequence

NO_COMMIT = "-"

STATE_OF_NAME = {
    "dead": DEAD,
    "empty": EMPTY,
    "stable": STABLE,
    "preparingrebalance": REBALANCING,
    "completingrebalance": REBALANCING,
    "assigning": REBALANCING,
    "reconciling": REBALANCING,
}
"""Kafka's names of states (``ClassicGroupState``, ``ConsumerGroupState``) as rpk prints them, in lower case."""


class ParseError(ValueError):
    """The text is not what this command prints."""


@dataclass(frozen=True)
class DescribedPartition:
    """A row of ``rpk group describe``; None where rpk prints no value. ``committed`` 0 may mean none in a live group of 23.3."""

    partition: TopicPartition
    committed: int | None
    log_start: int | None
    log_end: int | None
    error: str


@dataclass(frozen=True)
class DescribedGroup:
    """One block of ``rpk group describe``; with an ``error``, state and partitions are not what the group has."""

    group: Group
    partitions: tuple[DescribedPartition, ...]
    error: str = ""


@dataclass(frozen=True)
class ListedGroup:
    """A row of ``rpk group list``; ``state`` is None in 23.3, which does not print it."""

    name: str
    state: str | None


def table(lines: Sequence[str], *, required: Sequence[str]) -> list[dict[str, str]]:
    """Cut a table by the positions of its header's words; ``required`` are columns it must have.

    A column reaches from the first letter of its header to the first letter of the next; the last one to the line's end.
    """
    if not lines:
        raise ParseError("no table")
    names = [(match.group(), match.start()) for match in re.finditer(r"\S+", lines[0])]
    missing = [name for name in required if name not in [own for own, _start in names]]
    if missing:
        raise ParseError(f"no column {', '.join(missing)} in: {lines[0]}")
    ends: list[int | None] = [start for _name, start in names[1:]]
    ends.append(None)
    rows = []
    for line in lines[1:]:
        row = {name: line[start:end].strip() for (name, start), end in zip(names, ends, strict=True)}
        if not row[names[0][0]]:
            raise ParseError(f"a row without {names[0][0]}: {line}")
        rows.append(row)
    return rows


def number(text: str, what: str) -> int:
    """A whole number, or :class:`ParseError`."""
    if not re.fullmatch(r"-?\d+", text):
        raise ParseError(f"{what} is no number: {text!r}")
    return int(text)


def _optional(row: dict[str, str], column: str) -> int | None:
    text = row.get(column, NO_COMMIT)
    return None if text in (NO_COMMIT, "") else number(text, column)


def blocks(text: str) -> list[list[str]]:
    """Lines between empty lines; blanks at the end of a line are kept."""
    parts: list[list[str]] = [[]]
    for line in text.split("\n"):
        if line == "":
            if parts[-1]:
                parts.append([])
        else:
            parts[-1].append(line)
    return [block for block in parts if block]


def group_describe(text: str) -> dict[str, DescribedGroup]:
    """``rpk group describe G...``: groups by name, in rpk's order."""
    described: dict[str, DescribedGroup] = {}
    pending = blocks(text)
    while pending:
        block = pending.pop(0)
        if not block[0].startswith("GROUP "):
            raise ParseError(f"a group's block begins with GROUP, not: {block[0]}")
        rows: list[dict[str, str]] = []
        if pending and pending[0][0].startswith("TOPIC "):
            columns = ["TOPIC", "PARTITION", "CURRENT-OFFSET", "LOG-END-OFFSET", "MEMBER-ID", "CLIENT-ID", "HOST"]
            rows = table(pending.pop(0), required=columns)
        entry = _group(_keys(block), rows)
        described[entry.group.name] = entry
    if not described:
        raise ParseError("no group")
    return described


def _keys(block: Sequence[str]) -> dict[str, str]:
    """``KEY   VALUE`` lines; the values begin in one column, which the first line shows."""
    match = re.match(r"GROUP +", block[0])
    if match is None:
        raise ParseError(f"not a key: {block[0]}")
    width = match.end()
    keys = {line[:width].strip(): line[width:].rstrip() for line in block}
    missing = [key for key in ("GROUP", "STATE", "MEMBERS", "TOTAL-LAG") if key not in keys]
    if missing:
        raise ParseError(f"group {keys.get('GROUP', '?')} without {', '.join(missing)}")
    return keys


def _group(keys: dict[str, str], rows: list[dict[str, str]]) -> DescribedGroup:
    assigned: dict[str, list[TopicPartition]] = {}
    names: dict[str, tuple[str, str, str]] = {}
    partitions = []
    for row in rows:
        partition = TopicPartition(row["TOPIC"], number(row["PARTITION"], "PARTITION"))
        partitions.append(
            DescribedPartition(
                partition=partition,
                committed=_optional(row, "CURRENT-OFFSET"),
                log_start=_optional(row, "LOG-START-OFFSET"),
                log_end=_optional(row, "LOG-END-OFFSET"),
                error=row.get("ERROR", ""),
            )
        )
        if row["MEMBER-ID"]:
            assigned.setdefault(row["MEMBER-ID"], []).append(partition)
            names[row["MEMBER-ID"]] = (row["CLIENT-ID"], row["HOST"], row.get("INSTANCE-ID", ""))
    members = tuple(
        Member(
            member_id=member_id,
            client_id=names[member_id][0],
            host=names[member_id][1].lstrip("/"),
            instance_id=names[member_id][2] or None,
            assignments=tuple(own),
        )
        for member_id, own in assigned.items()
    )
    total = number(keys["TOTAL-LAG"], "TOTAL-LAG")
    shown = sum(max(0, _optional(row, "LAG") or 0) for row in rows)
    if rows and shown != total:
        raise ParseError(f"group {keys['GROUP']}: the rows' lag is {shown} and TOTAL-LAG {total}: rows are missing")
    if not rows and total:
        raise ParseError(f"group {keys['GROUP']}: TOTAL-LAG {total} without a row: the table is missing")
    group = Group(
        name=keys["GROUP"],
        state=read_state(keys["STATE"], number(keys["MEMBERS"], "MEMBERS")),
        assignor=keys.get("BALANCER", ""),
        coordinator=keys.get("COORDINATOR") or keys.get("COORDINATOR-NODE", ""),
        members=members,
        member_count=number(keys["MEMBERS"], "MEMBERS"),
        unknown=UnknownState(
            f"rpk prints {keys['STATE'] or 'nothing'} as its state",
            "Use client: kafka, or an rpk of a version that is tested",
            is_lasting=False,
        ),
    )
    return DescribedGroup(group=group, partitions=tuple(partitions), error=keys.get("ERROR", ""))


def read_state(name: str, member_count: int) -> str:
    """Return the state for Kafka's name of it; a newer one of a group with members is a rebalance."""
    return STATE_OF_NAME.get(name.lower(), REBALANCING if member_count and name else UNKNOWN)


def group_list(text: str) -> list[ListedGroup]:
    """``rpk group list``."""
    rows = table([line for line in text.split("\n") if line], required=["BROKER", "GROUP"])
    return [ListedGroup(name=row["GROUP"], state=row.get("STATE")) for row in rows]


def group_seek(text: str) -> dict[TopicPartition, str]:
    """``rpk group seek``: each partition that was asked for, and rpk's error ("" for none). What it did must be read back."""
    rows = table([line for line in text.split("\n") if line], required=["TOPIC", "PARTITION", "CURRENT-OFFSET"])
    return {TopicPartition(row["TOPIC"], number(row["PARTITION"], "PARTITION")): row.get("ERROR", "") for row in rows}


def topic_list(text: str) -> dict[str, int | None]:
    """``rpk topic list NAME...``: partitions by topic; None where rpk prints 0: it does not exist, or is not shown."""
    rows = table([line for line in text.split("\n") if line], required=["NAME", "PARTITIONS", "REPLICAS"])
    return {row["NAME"]: number(row["PARTITIONS"], "PARTITIONS") or None for row in rows}


def topic_partitions(topic: str, text: str) -> dict[TopicPartition, OffsetRange]:
    """``rpk topic describe TOPIC -p``: log start and end by partition; a row without them raises."""
    rows = table(
        [line for line in text.split("\n") if line],
        required=["PARTITION", "LEADER", "LOG-START-OFFSET", "HIGH-WATERMARK"],
    )
    return {
        TopicPartition(topic, number(row["PARTITION"], "PARTITION")): OffsetRange(
            number(row["LOG-START-OFFSET"], f"LOG-START-OFFSET of {topic}[{row['PARTITION']}]"),
            number(row["HIGH-WATERMARK"], f"HIGH-WATERMARK of {topic}[{row['PARTITION']}]"),
        )
        for row in rows
    }


def topic_configs(text: str) -> dict[str, str]:
    """``rpk topic describe TOPIC --print-configs``: the topic's configuration."""
    rows = table([line for line in text.split("\n") if line], required=["KEY", "VALUE", "SOURCE"])
    return {row["KEY"]: row["VALUE"] for row in rows}


def cluster_id(text: str) -> str:
    """``rpk cluster info -c``: one word."""
    words = text.split()
    if len(words) != 1:
        raise ParseError("a cluster id is one word")
    return words[0]


def consumed_offset(text: str) -> int | None:
    """``rpk topic consume -n 1 -f '%p %o\\n'``: the record's offset; None when rpk printed nothing."""
    if not text.strip():
        return None
    match = re.fullmatch(r"\d+ (\d+)\n?", text)
    if match is None:
        raise ParseError("not `PARTITION OFFSET`")
    return int(match.group(1))
