# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Set a group's offsets: read, plan, record the undo, commit once, read back. Private to lowtide.ops: do not import from other collections."""

from __future__ import annotations

import os
import typing as t

from .._common.errors import OpsError, OutcomeUnknown, Refusal
from .._common.outcome import Blocker, PlanItem
from .._common.retry import Deadline
from . import plan, undo
from .api import DEAD, EMPTY, MISSING, UNKNOWN, Group, TopicPartition
from .commit import Change, commit_offsets
from .connection import open_client
from .errors import topics_missing
from .groups import explain_static_members
from .summary import list_offset_evidence, summarize_offsets

if t.TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ansible.module_utils.basic import AnsibleModule

    from .._common.outcome import Outcome
    from .api import BusClient

SHOWN = 10
"""Members or partitions named in one message; all of them are in the result."""


class Request(t.NamedTuple):
    """What the caller wants, checked as far as that needs no broker."""

    group: str
    declarations: tuple[plan.OffsetRule, ...]
    restore: undo.Record | None
    declared: t.Any
    undo_file: str
    create: bool
    max_skipped: int


def set_offsets(module: AnsibleModule, outcome: Outcome) -> None:
    """The work of ``rpk_group``."""
    request = read_request(module.params)
    client = open_client(module.params)
    is_known = False
    try:
        run(client, request, outcome, check_mode=module.check_mode, seconds=module.params["request_timeout"])
        is_known = True
    except OutcomeUnknown:
        raise
    except OpsError:
        is_known = True
        raise
    finally:
        client.close()
        _update_result(outcome, is_known=is_known, check_mode=module.check_mode)


def _update_result(outcome: Outcome, *, is_known: bool, check_mode: bool) -> None:
    """Set summary and evidence as far as the run got; nothing where no plan could be made.

    ``is_known``: what a commit did was read back, or none was sent.
    """
    if "partitions" not in outcome.facts:
        return
    outcome.summary = summarize_offsets(
        outcome.facts["group"],
        outcome.facts["partitions"],
        changed=outcome.changed,
        check_mode=check_mode,
        is_known=is_known or not outcome.write_attempted,
    )
    outcome.evidence = list_offset_evidence(outcome.facts, changed=outcome.changed and not check_mode)


def read_request(params: Mapping[str, t.Any]) -> Request:
    """The request in a module's parameters."""
    if not params["name"].strip():
        raise Refusal(obj="option name", problem="it is empty", next_step="Name the consumer group")
    if params["max_skipped"] < 0:
        raise Refusal(
            obj="option max_skipped",
            problem=f"it is {params['max_skipped']}",
            next_step="Give the records that may be skipped, 0 or more",
        )
    undo.check_place(params["undo_file"])
    restore = None
    declared: t.Any
    if params.get("restore_file"):
        restore = undo.load(params["restore_file"])
        if restore is None:
            raise Refusal(
                obj=f"restore_file {params['restore_file']}",
                problem="there is no such file",
                next_step="Name an undo file",
            )
        if os.path.realpath(params["restore_file"]) == os.path.realpath(params["undo_file"]):
            raise Refusal(
                obj=f"undo_file {params['undo_file']}",
                problem="it is the restore_file too, and would be overwritten",
                next_step="Name another undo_file; the restoring can be undone by it",
            )
        declared = {"restore": restore.written, "group": restore.group}
    elif not params.get("offsets"):
        raise Refusal(obj="option offsets", problem="it is empty", next_step="Declare where the group should stand")
    else:
        declared = [{key: value for key, value in row.items() if value is not None} for row in params["offsets"]]
    return Request(
        group=params["name"],
        declarations=tuple(plan.declaration(row) for row in params.get("offsets") or ()),
        restore=restore,
        declared=declared,
        undo_file=params["undo_file"],
        create=params["create"],
        max_skipped=params["max_skipped"],
    )


def run(client: BusClient, request: Request, outcome: Outcome, *, check_mode: bool, seconds: float) -> None:
    """Fill the outcome; raises :class:`OpsError` for what stands in the way.

    ``seconds``: how long a commit without an answer is read back, and repeated where it was not done.
    """
    cluster_id = client.cluster_id()
    others = plan.groups_named(request.declarations)
    groups = client.groups([request.group, *sorted(others)])
    group = groups[request.group]
    outcome.facts.update(cluster_id=cluster_id, group=request.group, state=group.state, undo_file=None)
    refuse_state(group, create=request.create, label=client.label)
    for other in sorted(others):
        refuse_state(groups[other], create=False, label=client.label)
    committed = {} if group.state == MISSING else client.committed(request.group)
    earlier = undo.load(request.undo_file)
    targets = _resolve_targets(client, request, cluster_id, committed, earlier)
    changes = _compute_changes(client, targets, committed)
    needed = [change for change in changes if change.needed]
    report(outcome, request.group, changes)
    if not needed:
        return
    refuse_members(group, outcome, client.label)
    refuse_cap(request, changes)
    why = earlier and undo.explain_mismatch(
        earlier, group=request.group, cluster_id=cluster_id, declared=request.declared, committed=committed
    )
    if why:
        raise undo.in_use(request.undo_file, why)
    outcome.facts["undo_file"] = request.undo_file
    if check_mode:
        outcome.changed = True
        return
    undo.save(request.undo_file, undo.merged(earlier, undo.record(request.group, cluster_id, request.declared, needed)))
    change = Change(
        group=request.group,
        committed=committed,
        targets={change.partition: change.after for change in needed},
        undo_file=request.undo_file,
    )
    commit_offsets(client, change, outcome, Deadline(seconds))


def refuse_state(group: Group, *, create: bool, label: str) -> None:
    """Refuse a group of which this client cannot tell what it is, one that is going away, and one that is not there."""
    if group.state == UNKNOWN:
        raise Refusal(
            obj=f"group {group.name} on event bus {label}",
            problem=group.unknown.problem,
            next_step=group.unknown.next_step,
        )
    if group.state == DEAD:
        raise Refusal(
            obj=f"group {group.name} on event bus {label}",
            problem="it is dead: the coordinator is removing it",
            next_step="Run again in a minute; then it is missing, and create makes a new one",
        )
    if group.state == MISSING and not create:
        raise Refusal(
            obj=f"group {group.name} on event bus {label}",
            problem="there is no such group",
            next_step="Correct the name, or set create: true if a new group is meant to begin there",
        )


def refuse_members(group: Group, outcome: Outcome, label: str) -> None:
    """Refuse a group with members: brokers would, and rpk would not say so."""
    if group.state in (EMPTY, MISSING) and not group.member_count:
        return
    outcome.blockers = [
        Blocker(
            object=f"group {group.name}",
            what=f"it has a member with {len(member.assignments)} partitions",
            holder=str(member),
            next_step=explain_static_members([member])
            or "Stop that consumer (scale its workload to 0), and run again when the group is empty",
        )
        for member in group.members
    ]
    shown = "; ".join(str(member) for member in group.members[:SHOWN])
    rest = group.member_count - min(len(group.members), SHOWN)
    names = shown + (f"; and {rest} more" if shown and rest > 0 else "")
    static = explain_static_members(group.members)
    raise Refusal(
        obj=f"group {group.name} on event bus {label}",
        problem=f"it is {group.state} with {group.member_count} members: {names or 'their names are not shown while they join'}",
        next_step="Stop these consumers, and run again when the group is empty" + (f". {static}" if static else ""),
    )


def refuse_cap(request: Request, changes: Sequence[plan.OffsetChange]) -> None:
    """Refuse to skip more than is allowed."""
    skipped = sum(change.skipped for change in changes if change.needed)
    if skipped > request.max_skipped:
        worst = max(changes, key=lambda change: change.skipped)
        raise Refusal(
            obj=f"group {request.group}",
            problem=(
                f"this skips {skipped} records, and max_skipped allows {request.max_skipped} "
                f"(most in {worst.partition}: from {worst.before} to {worst.after})"
            ),
            next_step=f"Set max_skipped to {skipped} or more if these records need not be processed",
        )


def _resolve_targets(
    client: BusClient,
    request: Request,
    cluster_id: str,
    committed: Mapping[TopicPartition, int],
    earlier: undo.Record | None,
) -> dict[TopicPartition, plan.OffsetTarget]:
    """Wishes of the declarations, or of the record that is to be restored."""
    if request.restore is not None:
        targets = restore_targets(request.restore, request.group, cluster_id, committed)
        refuse_absent(client, targets)
        return targets
    base = dict(committed)
    if earlier is not None and any(rule.kind == plan.SHIFT for rule in request.declarations):
        why = undo.explain_mismatch(
            earlier, group=request.group, cluster_id=cluster_id, declared=request.declared, committed=committed
        )
        if why:
            raise undo.in_use(request.undo_file, why)
        base.update({partition: before for partition, before in earlier.before.items() if before is not None})
    others = {other: client.committed(other) for other in sorted(plan.groups_named(request.declarations))}
    topics = plan.topics_named(request.declarations)
    if len(topics) < len(request.declarations):
        topics.update(partition.topic for source in (base, *others.values()) for partition in source)
    return plan.resolve_targets(
        request.declarations, name=request.group, base=base, counts=client.partition_counts(topics), others=others
    )


def restore_targets(
    restore: undo.Record, group: str, cluster_id: str, committed: Mapping[TopicPartition, int]
) -> dict[TopicPartition, plan.OffsetTarget]:
    """The offsets before a change, as targets. Pure."""
    if (restore.group, restore.cluster_id) != (group, cluster_id):
        raise Refusal(
            obj=f"restore_file of {restore.written}",
            problem=f"it is of group {restore.group} in cluster {restore.cluster_id}, not of group {group} in cluster {cluster_id}",
            next_step="Name the undo file of this group",
        )
    unset = [
        str(partition) for partition, before in restore.before.items() if before is None and partition in committed
    ]
    if unset:
        raise Refusal(
            obj=f"group {group}",
            problem=f"it had no commit before in {', '.join(unset[:SHOWN])} ({len(unset)} partitions), and a commit cannot be taken back here",
            next_step="Delete those offsets (rpk group offset-delete), then restore the others",
        )
    return {
        partition: plan.OffsetTarget(plan.OFFSET, before)
        for partition, before in restore.before.items()
        if before is not None
    }


def refuse_absent(client: BusClient, targets: Mapping[TopicPartition, plan.OffsetTarget]) -> None:
    """Refuse partitions which are not there any more."""
    counts = client.partition_counts({partition.topic for partition in targets})
    absent = [str(partition) for partition in targets if partition.partition >= (counts[partition.topic] or 0)]
    if absent:
        raise topics_missing(client.label, absent)


def _compute_changes(
    client: BusClient, targets: Mapping[TopicPartition, plan.OffsetTarget], committed: Mapping[TopicPartition, int]
) -> list[plan.OffsetChange]:
    at_time: dict[TopicPartition, int | None] = {}
    for milliseconds, partitions in plan.times_named(targets).items():
        at_time.update(client.offsets_at(milliseconds, partitions))
    return plan.compute_changes(
        targets,
        committed=committed,
        logs=client.offset_ranges(targets),
        at_time=at_time,
    )


def report(outcome: Outcome, group: str, changes: Sequence[plan.OffsetChange]) -> None:
    """Plan, diff and facts of these changes."""
    needed = [change for change in changes if change.needed]
    outcome.facts["partitions"] = [change.as_dict() for change in changes]
    outcome.facts["skipped"] = sum(change.skipped for change in needed)
    outcome.facts["repeated"] = sum(change.repeated for change in needed)
    for topic in sorted({change.partition.topic for change in needed}):
        own = [change for change in needed if change.partition.topic == topic]
        notes = sorted({change.note for change in own if change.note})
        outcome.plan.append(
            PlanItem(
                object=f"group {group}, topic {topic}",
                what=(
                    f"commit other offsets in {len(own)} partitions: skips {sum(change.skipped for change in own)} records, "
                    f"repeats {sum(change.repeated for change in own)}"
                ),
                why="they differ from the declared ones" + (f" ({'; '.join(notes[:3])})" if notes else ""),
            )
        )
    outcome.before = {str(change.partition): change.before for change in needed}
    outcome.after = {str(change.partition): change.after for change in needed}
