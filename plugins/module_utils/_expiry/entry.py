# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the module s3_expiry calls. Private to lowtide.ops: do not import from other collections."""

from __future__ import annotations

import typing as t
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

from .._common.caps import Amount, read_caps, refuse_excess
from .._common.errors import OpsError, Refusal
from .._common.outcome import Blocker, PlanItem
from .._common.retry import Deadline
from .._common.series import explain_alike
from .._common.text import format_count, format_size, join_some
from .._common.timestamps import format_utc
from .._s3.connection import make_client
from .._s3.versions import Answer, Version, VersionedBucket
from .removal import WORKERS, Remover, refuse_old_library
from .rules import (
    Due,
    Kept,
    Labels,
    Rules,
    Selection,
    Unreadable,
    choose_kept,
    drop_null_versions,
    judge,
    list_candidates,
    order_removal,
    read_rules,
    refuse_backups,
    select_complete,
    select_current,
    select_versions,
)

if t.TYPE_CHECKING:
    from ansible.module_utils.basic import AnsibleModule

    from .._common.outcome import Outcome

EXPIRY_SPEC: dict[str, dict[str, t.Any]] = {
    "bucket": {"type": "str", "required": True},
    "prefix": {"type": "str", "required": True},
    "older_than": {"type": "str"},
    "tags": {"type": "dict", "default": {}},
    "metadata": {"type": "dict", "default": {}},
    "expiry_tag": {"type": "str"},
    "expiry_metadata": {"type": "str"},
    "keep": {"type": "int", "default": 0},
    "series": {"type": "str"},
    "versions": {"type": "str", "choices": ["current", "all"], "default": "current"},
    "condition": {"type": "str", "choices": ["etag", "none"], "default": "etag"},
    "max_objects": {"type": "int", "default": 1000},
    "max_bytes": {"type": "str"},
    "max_share": {"type": "int", "default": 50},
    "timeout": {"type": "int", "default": 3600},
}


def expire_objects(module: AnsibleModule, outcome: Outcome) -> None:
    """Do the work of module s3_expiry: list, judge, compare with the caps, and remove."""
    params = module.params
    rules, caps = read_rules(params), read_caps(params, "max_objects")
    if params["timeout"] < 1:
        raise Refusal(obj="option timeout", problem=f"it is {params['timeout']}", next_step="Give at least 1 second")
    deadline = Deadline(params["timeout"])
    bucket = VersionedBucket(make_client(module, connections=WORKERS), params["bucket"])
    location = bucket.url(params["prefix"])
    versioning = bucket.read_versioning()
    with_versions = params["versions"] == "all" and bool(versioning)
    if not with_versions and versioning != "Enabled":
        refuse_old_library(bucket, params["condition"])
    listed = bucket.list_versions(params["prefix"]) if with_versions else bucket.list_current(params["prefix"])
    refuse_backups(listed, location)
    if with_versions and versioning != "Enabled":
        listed = drop_null_versions(listed)
    now = bucket.server_time or datetime.now(UTC)
    kept = choose_kept(listed, rules, now)
    due, unreadable = find_due(bucket, list_candidates(listed, kept, rules, now), rules, now, deadline)
    if with_versions:
        select = select_complete if versioning == "Enabled" else select_versions
        selection = select(due, listed, rules, now)
    elif due and versioning not in ("", "Enabled"):  # Suspended, or nobody tells
        selection = select_current(due, bucket.list_versions(params["prefix"]))
    else:
        selection = Selection(due, [], [])
    complete = selection.going
    due_total = Amount.from_sizes(entry.version.size for entry in complete)
    total = Amount.from_sizes(version.size for version in listed)
    tell_plan(outcome, location, complete, total)
    if kept.keys:
        outcome.evidence.insert(
            0, f"{format_count(len(kept.keys), 'object')} of {len(kept.series)} series stay as the newest of theirs"
        )
    outcome.facts |= {
        "location": location,
        "versioning": versioning or "None",
        "listed": {"objects": total.number, "bytes": total.size},
        "expired": [report_due(entry) for entry in complete],
        "kept": sorted(kept.keys),
        "series": dict(kept.series),
        "removed": [],
        "replaced": [],
        "not_removed": [],
    }
    outcome.blockers += explain_kept(location, kept, rules.keep)
    outcome.blockers += [explain_unreadable(bucket, entry) for entry in unreadable]
    outcome.blockers += explain_staying(bucket, selection, versioning)
    refuse_excess(caps, location=location, due=due_total, total=total, noun="object")
    if module.check_mode or not complete:
        outcome.changed = bool(complete)
        return
    remover = Remover(
        bucket,
        versioning=versioning,
        condition=params["condition"],
        deadline=deadline,
        before_write=lambda: setattr(outcome, "write_attempted", True),
    )
    try:
        remover.remove(
            [[entry.version for entry in phase] for phase in order_removal(complete)], prefix=params["prefix"]
        )
    except OpsError:
        outcome.changed = outcome.write_attempted  # the last request may have removed objects without an answer
        raise
    finally:
        tell_removal(outcome, bucket, remover, location, due_total)
    refuse_failures(bucket, remover.removal.failed, due_total.number)


def find_due(
    bucket: VersionedBucket, candidates: t.Sequence[Version], rules: Rules, now: datetime, deadline: Deadline
) -> tuple[list[Due], list[Unreadable]]:
    """Return what of ``candidates`` is due, and what does not say when it is."""

    def examine(version: Version) -> Due | Unreadable | None:
        if deadline.passed:
            raise OpsError(
                obj=f"bucket {bucket.name}",
                problem=f"the time of {deadline.seconds:.0f} s is over while tags or metadata are read",
                next_step="Raise timeout, or narrow the candidates by prefix and older_than",
            )
        tags = bucket.read_tags(version) if rules.needs_tags else {}
        metadata = bucket.read_metadata(version) if rules.needs_metadata else {}
        if tags is None or metadata is None:
            return None  # gone or replaced since the listing: the next run judges what is there then
        return judge(version, Labels(tags, metadata), rules, now)

    if rules.needs_tags or rules.needs_metadata:
        with ThreadPoolExecutor(WORKERS) as pool:
            verdicts = list(pool.map(examine, candidates))
    else:
        verdicts = [judge(version, Labels(), rules, now) for version in candidates]
    return (
        [verdict for verdict in verdicts if isinstance(verdict, Due)],
        [verdict for verdict in verdicts if isinstance(verdict, Unreadable)],
    )


def report_due(entry: Due) -> dict[str, t.Any]:
    """Return an object that goes as the result shows it."""
    version = entry.version
    return {
        "key": version.key,
        "version_id": version.version_id,
        "size": version.size,
        "modified": format_utc(version.modified.timestamp()),
        "etag": version.etag,
        "delete_marker": version.is_marker,
        "why": entry.why,
    }


def describe_object(bucket: VersionedBucket, version: Version) -> str:
    """Return how a message names a version."""
    return bucket.url(version.key) + ("" if version.version_id is None else f" version {version.version_id}")


def tell_plan(outcome: Outcome, location: str, due: t.Sequence[Due], total: Amount) -> None:
    """Word the plan and the prediction: one item for the location, whose objects are listed beside it."""
    amount = Amount.from_sizes(entry.version.size for entry in due)
    words = f"{amount.number} of {format_count(total.number, 'object')} ({format_size(amount.size)})"
    if due:
        outcome.plan = [PlanItem(location, f"remove {words}", due[0].why, reversible=False)]
        outcome.summary = f"would remove {words} below {location}"
        outcome.before = {"objects": [name_version(entry.version) for entry in due]}
        outcome.after = {"objects": []}
    else:
        outcome.summary = f"none of {format_count(total.number, 'object')} below {location} is due"
    outcome.evidence = [f"{describe_due(entry)}: {entry.why}" for entry in due[:20]]
    if len(due) > len(outcome.evidence):
        outcome.evidence.append(f"and {len(due) - len(outcome.evidence)} more, all in expired")


def name_version(version: Version) -> str:
    """Return a version's key, with its id where it has one."""
    return version.key if version.version_id is None else f"{version.key} {version.version_id}"


def describe_due(entry: Due) -> str:
    """Return key and size, the key so that white space in it can be seen."""
    version = entry.version
    what = "delete marker" if version.is_marker else format_size(version.size)
    return f"{version.key!r}{'' if version.version_id is None else f' version {version.version_id}'} ({what})"


def tell_removal(outcome: Outcome, bucket: VersionedBucket, remover: Remover, location: str, due: Amount) -> None:
    """Word what was done, whether it came to its end or not."""
    removal = remover.removal
    outcome.changed = outcome.changed or bool(removal.removed)
    size = format_size(sum(version.size for version in removal.removed))
    outcome.summary = (
        f"removed {len(removal.removed)} of {format_count(due.number, 'expired object')} ({size}) below {location}"
    )
    for count, words in (
        (len(removal.gone), "gone already"),
        (len(removal.replaced), "replaced meanwhile and kept"),
        (len(removal.failed), "not removed"),
    ):
        if count:
            outcome.summary += f", {count} {words}"
    removed = {name_version(version) for version in removal.removed} | {
        name_version(version) for version in removal.gone
    }
    outcome.after = {"objects": [name for name in outcome.before["objects"] if name not in removed]}
    outcome.facts["removed"] = [name_version(version) for version in removal.removed]
    outcome.facts["replaced"] = [name_version(answer.version) for answer in removal.replaced]
    outcome.facts["not_removed"] = [
        {
            "key": answer.version.key,
            "version_id": answer.version.version_id,
            "code": answer.code,
            "message": answer.message,
        }
        for answer in removal.failed
    ]
    outcome.blockers += [
        Blocker(
            describe_object(bucket, answer.version),
            "it was replaced after it had been listed, and is kept",
            "another client",
            "Nothing: the next run judges the new object",
        )
        for answer in removal.replaced
    ]


def explain_kept(location: str, kept: Kept, keep: int) -> list[Blocker]:
    """Return what to say of series of which nothing goes: too few to go, and those that may be one with another."""
    alike = [explain_alike(kept.alike, location)] if kept.alike else []
    return [explain_short(location, kept, keep), *alike] if kept.short else alike


def explain_short(location: str, kept: Kept, keep: int) -> Blocker:
    """Return what to say of series that have fewer objects than have to stay."""
    return Blocker(
        location,
        f"{len(kept.short)} of {len(kept.series)} series have fewer objects than have to stay ({keep}), so none of them"
        f" is removed: {join_some(kept.short)}",
        "options keep and series",
        "Nothing, if they are series; where keys of one series differ in more than the dates in their names, say by"
        " series what tells one from another",
    )


def explain_unreadable(bucket: VersionedBucket, entry: Unreadable) -> Blocker:
    """Return what to say of an object whose expiry cannot be read."""
    return Blocker(
        describe_object(bucket, entry.version),
        entry.problem,
        "whoever writes the object",
        "Write seconds (10 digits) or milliseconds (13) since the epoch, or ISO 8601 with an offset such as"
        " 2026-11-27T00:00:00Z, and no moment before 2000; it stays until then",
    )


def explain_staying(bucket: VersionedBucket, selection: Selection, versioning: str) -> list[Blocker]:
    """Return what to say of all that is due and stays."""
    return [
        *(explain_incomplete(bucket, entry) for entry in selection.incomplete),
        *(explain_exposed(bucket, entry, versioning) for entry in selection.exposed),
        *(explain_covering(bucket, entry) for entry in selection.covering),
    ]


def explain_incomplete(bucket: VersionedBucket, entry: Due) -> Blocker:
    """Return what to say of a current version that has to stay because of an older one."""
    return Blocker(
        describe_object(bucket, entry.version),
        "it is due, and an older version of it is not: that one would be the current one again",
        "the rules",
        "Give rules that also let its older versions go",
    )


def explain_exposed(bucket: VersionedBucket, entry: Due, versioning: str) -> Blocker:
    """Return what to say of a version that the next write may replace under the same id."""
    return Blocker(
        describe_object(bucket, entry.version),
        f"it is due, and while versioning is {versioning or 'None'} the next write takes its id null, and would be"
        " removed instead",
        "the versioning of the bucket",
        "Turn on versions for the bucket, and run again; or remove it by hand while nobody writes",
    )


def explain_covering(bucket: VersionedBucket, entry: Due) -> Blocker:
    """Return what to say of an object whose delete marker would replace an older version."""
    return Blocker(
        describe_object(bucket, entry.version),
        "it is due, and while versioning is Suspended its delete marker would have the id null, and replace for good"
        " the older version that has it",
        "the versioning of the bucket",
        "Turn on versions for the bucket, and run again; or set versions to all with rules for that version as well",
    )


def refuse_failures(bucket: VersionedBucket, failed: t.Sequence[Answer], due: int) -> None:
    """Raise if any object that was due is still there; each is named in ``not_removed``."""
    if not failed:
        return
    words = [f"{answer.version.key!r} ({answer.code}: {answer.message.strip() or 'no message'})" for answer in failed]
    denied = any(answer.code == "AccessDenied" for answer in failed)
    raise OpsError(
        obj=f"{len(failed)} of {format_count(due, 'object')} in bucket {bucket.name}",
        problem=f"the server did not remove {join_some(words, limit=3)}",
        next_step="Grant s3:DeleteObject (s3:DeleteObjectVersion for versions) on them, or wait for the end of their"
        " Object Lock; then run again"
        if denied
        else "Read the server's message for each in not_removed, and run again",
    )
