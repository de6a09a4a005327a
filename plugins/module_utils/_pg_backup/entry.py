# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the modules pg_backup and pg_backup_info call. Private to lowtide.ops: do not import from other collections."""

from __future__ import annotations

import platform
import typing as t
from datetime import UTC, datetime

from .._backup import catalogue, keys, verify
from .._backup.manifest import is_taken_from
from .._backup.plan import MAX_PARTS, SKEW, Retention
from .._backup.streams import Streams
from .._backup.summary import describe_backup, report_backup, report_bad, summarize_backups
from .._common.amounts import parse_age
from .._common.errors import OpsError, Refusal
from .._common.retry import Deadline
from .._common.text import join_some
from .._postgresql.connection import Session, driver_error, new_run_id, settings_from
from .._postgresql.errors import sql_error
from .._s3.bucket import WORKERS, Bucket, Encryption
from .._s3.connection import make_client
from . import dump_rows, programs
from .backup import Backup, Options
from .making import name_rows, read_tables

if t.TYPE_CHECKING:
    from ansible.module_utils.basic import AnsibleModule

    from .._backup.manifest import Published
    from .._common.outcome import Outcome

PLACE_SPEC: dict[str, dict[str, t.Any]] = {
    "bucket": {"type": "str", "required": True},
    "prefix": {"type": "str", "default": ""},
    "bin_dir": {"type": "path"},
    "timeout": {"type": "int", "default": 86400},
}
BACKUP_SPEC: dict[str, dict[str, t.Any]] = {
    **PLACE_SPEC,
    "max_age": {"type": "str", "default": "24h"},
    "interval": {"type": "str"},
    "keep": {"type": "int"},
    "keep_for": {"type": "str"},
    "source": {"type": "str", "choices": ["primary", "standby"], "default": "primary"},
    "role_passwords": {"type": "bool", "default": False, "no_log": False},
    "encryption": {"type": "str", "choices": ["AES256", "aws:kms"]},
    "kms_key_id": {"type": "str", "no_log": False},
    "lock_timeout": {"type": "int", "default": 60},
    "max_parts": {"type": "int", "default": MAX_PARTS},
    "jobs": {"type": "int", "default": 1},
}
INFO_SPEC: dict[str, dict[str, t.Any]] = {
    **PLACE_SPEC,
    "database": {"type": "str"},
    "system_identifier": {"type": "str"},
    "hosts": {"type": "list", "elements": "str"},
    "max_age": {"type": "str"},
    "verify": {"type": "str", "choices": ["published", "full"], "default": "published"},
}


def check_positive(params: t.Mapping[str, t.Any], *names: str, unit: str = "number of seconds") -> None:
    """Refuse numbers below 1."""
    for name in names:
        if params[name] is not None and params[name] <= 0:
            raise Refusal(
                obj=f"option {name}",
                problem=f"{params[name]} is not a positive {unit}",
                next_step="Give at least 1",
            )


def read_options(params: t.Mapping[str, t.Any]) -> Options:
    """Return the options of pg_backup; refuse what cannot be meant."""
    check_positive(params, "lock_timeout", "timeout")
    check_positive(params, "keep", unit="number of backups")
    check_positive(params, "max_parts", unit="number of parts")
    check_positive(params, "jobs", unit="number of streams")
    if params["jobs"] > keys.MAX_JOBS:
        raise Refusal(
            obj="option jobs",
            problem=f"{params['jobs']} streams would take that many connections and a multiple of the memory",
            next_step=f"Give at most {keys.MAX_JOBS}",
        )
    if params["kms_key_id"] and params["encryption"] != "aws:kms":
        raise Refusal(
            obj="option kms_key_id",
            problem=f"it goes with encryption aws:kms, which is {params['encryption']!r}",
            next_step="Set encryption to aws:kms",
        )
    max_age = parse_age(params["max_age"])
    keep_for = params["keep_for"]
    return Options(
        max_age=max_age,
        interval=max_age if params["interval"] is None else parse_age(params["interval"], option="interval"),
        retention=Retention(params["keep"], None if keep_for is None else parse_age(keep_for, option="keep_for")),
        lock_timeout=params["lock_timeout"],
        timeout=params["timeout"],
        max_parts=params["max_parts"],
        role_passwords=params["role_passwords"],
        encryption=params["encryption"],
        jobs=params["jobs"],
        bin_dir=params["bin_dir"],
    )


def backup(module: AnsibleModule, outcome: Outcome) -> None:
    """Do the work of pg_backup."""
    params = module.params
    options = read_options(params)
    prefix = keys.clean_prefix(params["prefix"])
    settings = settings_from(params)
    encryption = None if params["encryption"] is None else Encryption(params["encryption"], params["kms_key_id"])
    client = make_client(module, connections=WORKERS * options.jobs)
    bucket = Bucket(client, params["bucket"], encryption=encryption)
    is_primary = params["source"] == "primary"
    with Session(settings, module="pg_backup", run_id=new_run_id(), primary=is_primary, writes=False) as session:
        if not is_primary and not session.server.in_recovery:
            raise Refusal(
                obj=settings.target,
                problem="this server is a primary, and option source is standby",
                next_step="Name the standby in login_host, or set source to primary",
            )
        place = keys.Place(
            bucket=params["bucket"],
            prefix=prefix,
            database=session.server.database,
            system_identifier=session.server.system_identifier,
        )
        work = Backup(session=session, bucket=bucket, place=place, options=options, outcome=outcome, warn=module.warn)
        try:
            work.ensure(check=module.check_mode)
        except driver_error() as error:
            raise sql_error(settings.target, error) from error


def backup_info(module: AnsibleModule, outcome: Outcome) -> None:
    """Do the work of pg_backup_info. Ages are judged by the S3 server's clock: no database is asked."""
    params = module.params
    check_positive(params, "timeout")
    max_age = None if params["max_age"] is None else parse_age(params["max_age"])
    prefix = keys.clean_prefix(params["prefix"])
    bucket = Bucket(make_client(module), params["bucket"])
    database, system, hosts = params["database"], params["system_identifier"], params["hosts"]
    below = (f"{prefix}/" if prefix else "") + (f"{keys.encode_name(database)}/" if database else "")
    runs = [
        run for run in catalogue.group(bucket.list_objects(below), prefix) if system in (None, run.system_identifier)
    ]
    now = bucket.server_time or datetime.now(UTC)
    manifests = catalogue.Manifests(bucket)
    examined = [
        judged
        for judged in (catalogue.examine(manifests, run) for run in runs if not run.is_unfinished)
        if not hosts or judged.manifest is None or is_taken_from(judged.manifest.hosts, hosts, node=platform.node())
    ]
    newest = choose_newest(examined, latest=now + SKEW, with_moved=params["verify"] == "full")
    usable = [
        entry.manifest
        for entry in examined
        if entry.manifest is not None
        and (entry in newest or (entry.verified and entry.manifest.taken_at <= now + SKEW))
    ]
    bad = [entry for entry in examined if not entry.verified and entry not in newest]

    def place_of(manifest: Published) -> keys.Place:
        return keys.Place(params["bucket"], prefix, manifest.database, manifest.system_identifier)

    outcome.facts |= {
        "backups": [report_backup(manifest, now, place_of(manifest)) for manifest in usable],
        "newest": [
            report_backup(entry.manifest, now, place_of(entry.manifest))
            for entry in newest
            if entry.manifest is not None
        ],
        "bad": [report_bad(entry) for entry in bad],
        "node": platform.node(),
        "unpublished": [
            {"run_id": run.run_id, "database": run.database, "system_identifier": run.system_identifier}
            for run in runs
            if run.is_unfinished
        ],
    }
    summarize_info(outcome, params["bucket"], prefix, decoded=None)
    location = f"s3://{params['bucket']}/{below}"
    if max_age is not None:
        listed = [entry.run for entry in examined] + ([] if hosts else [run for run in runs if run.is_unfinished])
        check_ages(outcome.facts["newest"], listed, max_age.total_seconds(), location)
    if params["verify"] == "full":
        deadline = Deadline(params["timeout"])
        outcome.facts["decoded"] = []
        decode_newest(
            bucket,
            newest,
            outcome=outcome,
            deadline=deadline,
            bin_dir=params["bin_dir"],
            location=location,
        )
        summarize_info(outcome, params["bucket"], prefix, decoded=outcome.facts["decoded"])
        outcome.evidence += [
            f"{entry.run.run_id} of {entry.run.database}: {entry.problem}. Its SHA-256 is that of its manifest"
            for entry in newest
            if entry.is_moved
        ]
        refuse_damage(bad, outcome.facts["newest"], location)


def choose_newest(
    examined: t.Iterable[catalogue.Examined], *, latest: datetime, with_moved: bool
) -> list[catalogue.Examined]:
    """Return the newest backup of each database that counts and is not dated after ``latest``; ``examined`` is in that order.

    ``with_moved`` takes one too that only its ETags keep from counting: it is about to be decoded.
    """
    newest: dict[tuple[str, str], catalogue.Examined] = {}
    for entry in examined:
        counts = entry.verified or (with_moved and entry.is_moved)
        if counts and entry.manifest is not None and entry.manifest.taken_at <= latest:
            newest.setdefault((entry.manifest.database, entry.manifest.system_identifier), entry)
    return list(newest.values())


def check_ages(
    newest: t.Sequence[t.Mapping[str, t.Any]], listed: t.Iterable[catalogue.Run], max_age: float, location: str
) -> None:
    """Raise where a database of which any run is ``listed`` has no verified backup, or its newest one is too old."""
    step = "Make one with lowtide.ops.pg_backup, and find out why the last run did not"
    if not newest:
        raise OpsError(obj=location, problem="there is no verified backup", next_step=step)
    verified = {(entry["database"], entry["system_identifier"]) for entry in newest}
    missing = sorted({(run.database, run.system_identifier) for run in listed} - verified)
    if missing:
        names = join_some([f"{database} (cluster {system})" for database, system in missing])
        raise OpsError(
            obj=location,
            problem=f"there are runs, and no verified backup, of {names}",
            next_step=f"{step}; or remove the runs of a database that is no more",
        )
    for entry in newest:
        if entry["age_seconds"] > max_age:
            raise OpsError(
                obj=f"newest verified backup of {entry['database']} in {location}",
                problem=f"{entry['run_id']} is {entry['age_seconds']} s old, allowed are {max_age:.0f} s",
                next_step=step,
            )


def refuse_damage(
    bad: t.Sequence[catalogue.Examined], newest: t.Sequence[t.Mapping[str, t.Any]], location: str
) -> None:
    """Raise where the last backup of a database does not count, though an older one does."""
    good = {(entry["database"], entry["system_identifier"]): entry["run_id"] for entry in newest}
    for entry in bad:
        run = entry.run
        older = good.get((run.database, run.system_identifier))
        if older is None or run.run_id > older:
            raise OpsError(
                obj=f"backup {run.run_id} of {run.database} in {location}",
                problem=f"it is the newest one and does not count: {entry.problem}"
                + (f"; the one before it, {older}, does" if older else ""),
                next_step="Make a new one with lowtide.ops.pg_backup; find out what altered this one",
            )


def summarize_info(outcome: Outcome, bucket: str, prefix: str, *, decoded: list[str] | None) -> None:
    """Word the summary and the evidence of pg_backup_info from its facts."""
    newest = outcome.facts["newest"]
    location = f"s3://{bucket}/{prefix}".rstrip("/")
    outcome.summary = summarize_backups(newest, location=location, bad=len(outcome.facts["bad"]), decoded=decoded)
    outcome.evidence = [
        describe_backup(
            entry, f"{keys.Place(bucket, prefix, entry['database'], entry['system_identifier']).url()}{entry['run_id']}"
        )
        for entry in newest
    ]


def decode_newest(
    bucket: Bucket,
    newest: t.Sequence[catalogue.Examined],
    *,
    outcome: Outcome,
    deadline: Deadline,
    bin_dir: str | None,
    location: str,
) -> None:
    """Decode the newest verified backup of each database, and compare its rows with what was counted when it was made."""
    if not newest:
        raise OpsError(
            obj=location,
            problem="there is no verified backup to decode",
            next_step="Make one with lowtide.ops.pg_backup, or correct bucket, prefix, database and system_identifier",
        )
    decoders = programs.find_decoders(bin_dir)
    for entry in newest:
        if entry.manifest is None:
            continue
        programs.refuse_older_decoder(decoders[0], entry.manifest.client_version, deadline=deadline)
        parts, listed = entry.manifest.parts, entry.run.parts
        verify.verify_small(bucket, listed[keys.GLOBALS].key, parts[keys.GLOBALS])
        tables = verify.verify_small(bucket, listed[keys.TABLES].key, parts[keys.TABLES])
        counts = {
            bucket.url(listed[name].key): dump_rows.verify_dump(
                bucket,
                listed[name].key,
                parts[name],
                programs=decoders,
                deadline=deadline,
                etag=None,
                streams=Streams(),
            )
            for name in entry.manifest.dumps
        }
        dump = bucket.url(listed[entry.manifest.main].key)
        dump_rows.compare_rows(dump, name_rows(dump_rows.join_counts(counts)), read_tables(tables))
        outcome.facts["decoded"].append(entry.run.run_id)
