# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The work of pgbackrest_backup: read, decide, back up, read again, verify, note it on the backup.

Private to lowtide.ops: do not import from other collections.
"""

from __future__ import annotations

import time
import typing as t

from ..._common.amounts import parse_age
from ..._common.errors import OpsError, Refusal
from ..._common.outcome import Blocker, Outcome, PlanItem
from ..._common.retry import Deadline
from ..._common.text import format_count, format_duration, format_size, join_some
from ..._common.timestamps import format_utc
from ..plan import Decision, decide, is_sound
from ..program import PgBackRest
from ..repository import DAMAGED, VERIFIED, Backup, Stanza, Verification, describe, list_needed_segments

if t.TYPE_CHECKING:
    from ansible.module_utils.basic import AnsibleModule

ARGUMENT_SPEC: dict[str, t.Any] = {
    "stanza": {"type": "str", "required": True},
    "repository": {"type": "int", "default": 1},
    "config": {"type": "path"},
    "max_age": {"type": "str", "default": "24h"},
    "interval": {"type": "str"},
    "full_max_age": {"type": "str", "default": "7d"},
    "between": {"type": "str", "choices": ["diff", "incr"], "default": "diff"},
    "timeout": {"type": "int", "default": 86400},
    "bin_dir": {"type": "path"},
}


def run_backup(module: AnsibleModule, outcome: Outcome) -> None:
    """Fill the outcome; raise OpsError."""
    params = module.params
    program = PgBackRest(
        stanza=params["stanza"],
        repository=params["repository"],
        config=params["config"],
        bin_dir=params["bin_dir"],
        deadline=Deadline(params["timeout"]),
    )
    ages = {name: parse_age(params[name], option=name) for name in ("max_age", "full_max_age")}
    interval = ages["max_age"] if params["interval"] is None else parse_age(params["interval"], option="interval")
    version = program.check_version()
    stanza = program.read_usable()
    outcome.facts.update(version=version, stanza=stanza.name, repository=params["repository"])
    decision = decide(stanza.backups, now=time.time(), between=params["between"], interval=interval, **ages)
    _report(outcome, stanza, decision)
    if decision.corrupt is not None:
        refuse_corrupt(program, decision.corrupt)
    if not decision.is_due:
        return
    if stanza.is_locked:
        refuse_locked(outcome, stanza)
    outcome.changed = True
    if module.check_mode:
        return
    outcome.write_attempted = True
    label = _back_up(program, stanza, decision.type) if decision.type else t.cast("Backup", decision.unverified).label
    for line in _verify(program, outcome, label):
        module.warn(f"stanza {stanza.name}: {line}")
    program.expire()
    stanza = program.read_usable()
    _report_made(outcome, stanza, label, is_new=decision.type is not None)


def refuse_locked(outcome: Outcome, stanza: Stanza) -> t.NoReturn:
    """Refuse to work beside another backup or expire of the stanza."""
    blocker = Blocker(
        object=f"stanza {stanza.name}",
        what="a backup or an expire is running",
        holder="another pgbackrest process",
        next_step="Wait for its end, and run again",
    )
    outcome.blockers = [blocker]
    raise Refusal(obj=blocker.object, problem=f"{blocker.what} ({blocker.holder})", next_step=blocker.next_step)


def _back_up(program: PgBackRest, before: Stanza, kind: str) -> str:
    """Make a backup and return its label, as the repository lists it."""
    program.back_up(kind)
    known = {backup.label for backup in before.backups}
    made = [backup for backup in program.read_usable().backups if backup.label not in known]
    if not made:
        raise OpsError(
            obj=f"stanza {before.name} in repository {program.repository}",
            problem="pgbackrest backup ended without an error, and the repository lists no new backup",
            next_step="Look at `pgbackrest info` and at the log of pgBackRest",
        )
    newest = max(made, key=lambda backup: backup.ended)
    if newest.has_errors:
        refuse_corrupt(program, newest)
    return newest.label


def refuse_corrupt(program: PgBackRest, backup: Backup) -> t.NoReturn:
    """Raise for a backup that found damage in the database. Nothing was expired, and nothing is while it is so."""
    files = program.list_bad_files(backup.label)
    raise OpsError(
        obj=f"backup {backup.label} of stanza {program.stanza}",
        problem=f"the database has pages with an invalid checksum: {join_some(files) or 'see its list'}",
        next_step="The database itself is damaged, and earlier backups may still have these pages whole: keep them"
        " (`pgbackrest expire` must not run), and find out since when. No other is made until this one is max_age old",
    )


def _verify(program: PgBackRest, outcome: Outcome, label: str) -> tuple[str, ...]:
    """Prove that a backup, what it builds on and the WAL that it needs are there and whole; note it on them.

    Return what is wrong with other WAL in the archive.
    """
    verification = program.verify()
    backups = {backup.label: backup for backup in program.read_usable().backups}
    if label not in backups:
        raise OpsError(
            obj=f"backup {label} of stanza {program.stanza}",
            problem="it was there, and somebody has expired it while the repository was read",
            next_step="See who runs `pgbackrest expire` beside this, and run again; nothing was proven",
        )
    chain = [backups[name] for name in (*backups[label].references, label) if name in backups]
    now = format_utc(time.time())
    for damaged in (name for name, status in verification.backups.items() if status != "valid"):
        if damaged in backups and not backups[damaged].damaged_at:
            program.annotate(damaged, DAMAGED, now)
    problems = find_problems(verification, chain, program.list_segments)
    outcome.facts["archive_problems"] = list(verification.wal_damage)
    outcome.facts["damaged"] = sorted(name for name, status in verification.backups.items() if status != "valid")
    if problems:
        program.annotate(label, DAMAGED, now)
        raise OpsError(
            obj=f"backup {label} of stanza {program.stanza}",
            problem=f"it cannot be restored as it is: {join_some(problems)}",
            next_step="It does not count, and the next run makes a full one; find out what damages the repository",
        )
    for each in chain:
        if not each.verified_at:
            program.annotate(each.label, VERIFIED, now)
    return tuple(
        f"{line}. {label} can be restored; a recovery to a point in time beyond that WAL cannot pass it"
        for line in verification.wal_damage
    )


def find_problems(
    verification: Verification,
    chain: t.Sequence[Backup],
    list_segments: t.Callable[[str, t.Iterable[str]], set[str]],
) -> list[str]:
    """Return what stands against restoring the last backup of ``chain``, which are those that it builds on and itself.

    Damage of WAL that it does not need is left out. pgBackRest's verify knows of no segment that is missing at the end
    of a run of segments, and calls a repository good that lacks the one which a backup needs (seen with 2.45), so they
    are looked for.
    """
    problems = [
        f"backup {backup.label} is {verification.backups.get(backup.label, 'not mentioned by verify')}"
        for backup in chain
        if verification.backups.get(backup.label) != "valid"
    ]
    problems += verification.problems
    archive_id = chain[-1].archive_id
    needed = list_needed_segments(chain[-1])
    archived = list_segments(archive_id, (name[:16] for name in needed)) if needed else set()
    problems += [f"WAL segment {name} is not in the archive" for name in needed if name not in archived]
    problems += [f"WAL segment {name} is damaged" for name in needed if (archive_id, name) in verification.bad_segments]
    named = sum(name == archive_id for name, _segment in verification.bad_segments)
    if verification.invalid.get(archive_id, 0) > named:
        problems += [f"{line}, and verify does not say which" for line in verification.wal_damage if archive_id in line]
    if (
        verification.status != "ok"
        and not problems
        and not verification.wal_damage
        and set(verification.backups.values()) <= {"valid"}
    ):
        problems.append(f"verify ends with status {verification.status}")
    return problems


def _report(outcome: Outcome, stanza: Stanza, decision: Decision) -> None:
    """Say what there is and what is due."""
    outcome.facts["backups"] = [describe(backup) for backup in stanza.backups]
    outcome.facts["backup"] = None
    title = f"stanza {stanza.name}"
    if decision.type:
        outcome.plan = [PlanItem(title, f"{decision.type} backup, and verify the repository", decision.why)]
        outcome.summary = f"would make a {decision.type} backup of {stanza.name} ({decision.why})"
    elif decision.unverified is not None:
        outcome.plan = [PlanItem(title, f"verify backup {decision.unverified.label}", decision.why)]
        outcome.summary = f"would verify backup {decision.unverified.label} of {stanza.name} ({decision.why})"
    elif decision.corrupt is None:
        outcome.summary = decision.why
        own = (backup for backup in stanza.backups if backup.verified_at and backup.is_current and is_sound(backup))
        newest = max(own, key=lambda backup: backup.ended)
        outcome.facts["backup"] = describe(newest)
        outcome.evidence = [describe_line(newest)]


def _report_made(outcome: Outcome, stanza: Stanza, label: str, *, is_new: bool) -> None:
    """Say what was made and proven."""
    backup = next(backup for backup in stanza.backups if backup.label == label)
    outcome.facts["backups"] = [describe(entry) for entry in stanza.backups]
    outcome.facts["backup"] = describe(backup)
    did = f"{backup.type} backup {label}" if is_new else f"backup {label}"
    outcome.summary = f"{stanza.name}: {did}, {format_size(backup.size)} of data, verified"
    outcome.evidence = [describe_line(backup)]
    outcome.evidence += outcome.facts["archive_problems"]
    damaged = outcome.facts["damaged"]
    if damaged:
        outcome.evidence.append(
            f"{format_count(len(damaged), 'other backup')} of the stanza damaged: {join_some(damaged)}"
        )


def describe_line(backup: Backup) -> str:
    """Return one line of evidence about a verified backup."""
    builds_on = f" on {', '.join(backup.references)}" if backup.references else ""
    return (
        f"{backup.label}: {backup.type}{builds_on}, {format_size(backup.size)} of data,"
        f" {format_size(backup.stored)} stored, {format_duration(backup.ended - backup.started)}, WAL"
        f" {backup.first_segment} to {backup.last_segment}, verified {backup.verified_at}"
    )
