# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the modules pg_backup and pg_backup_info call. Private to lowtide.ops: do not import from other collections."""

from __future__ import annotations

import typing as t
from datetime import UTC, datetime

from .._common.errors import OpsError, Refusal
from .._common.retry import Deadline
from .._postgresql.connection import Session, new_run_id, settings_from
from .._s3.api import Reader
from .._s3.connection import connection_from
from . import catalogue, database, keys, verify
from .ensure import Backup, Encryption, Options, run_backup
from .plan import bad_summary, describe_backup, parse_age, summarize_backups, summary

if t.TYPE_CHECKING:
    from ansible.module_utils.basic import AnsibleModule

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
    "role_passwords": {"type": "bool", "default": False, "no_log": False},
    "encryption": {"type": "str", "choices": ["AES256", "aws:kms"]},
    "kms_key_id": {"type": "str", "no_log": False},
    "lock_timeout": {"type": "int", "default": 60},
}
INFO_SPEC: dict[str, dict[str, t.Any]] = {
    **PLACE_SPEC,
    "database": {"type": "str"},
    "system_identifier": {"type": "str"},
    "verify": {"type": "str", "choices": ["published", "full"], "default": "published"},
}


def _positive(params: t.Mapping[str, t.Any], *names: str) -> None:
    for name in names:
        if params[name] <= 0:
            raise Refusal(
                obj=f"option {name}",
                problem=f"{params[name]} is not a positive number of seconds",
                next_step="Give at least 1",
            )


def backup(module: AnsibleModule, outcome: Outcome) -> None:
    """The work of pg_backup."""
    params = module.params
    _positive(params, "lock_timeout", "timeout")
    if params["kms_key_id"] and params["encryption"] != "aws:kms":
        raise Refusal(
            obj="option kms_key_id",
            problem=f"it goes with encryption aws:kms, which is {params['encryption']!r}",
            next_step="Set encryption to aws:kms",
        )
    options = Options(
        max_age=parse_age(params["max_age"]),
        lock_timeout=params["lock_timeout"],
        timeout=params["timeout"],
        role_passwords=params["role_passwords"],
        encryption=None if params["encryption"] is None else Encryption(params["encryption"], params["kms_key_id"]),
        bin_dir=params["bin_dir"],
    )
    prefix = keys.clean_prefix(params["prefix"])
    settings = settings_from(params)
    connection = connection_from(module)
    with Session(settings, module="pg_backup", run_id=new_run_id()) as session:
        place = keys.Place(
            bucket=params["bucket"],
            prefix=prefix,
            database=session.server.database,
            system_identifier=session.server.system_identifier,
        )
        reader = Reader(connection, params["bucket"])
        run_backup(
            Backup(
                session=session, reader=reader, connection=connection, place=place, options=options, outcome=outcome
            ),
            check=module.check_mode,
        )


def backup_info(module: AnsibleModule, outcome: Outcome) -> None:
    """The work of pg_backup_info. Ages are judged by the S3 server's clock: no database is asked."""
    params = module.params
    _positive(params, "timeout")
    prefix = keys.clean_prefix(params["prefix"])
    reader = Reader(connection_from(module), params["bucket"])
    database, system = params["database"], params["system_identifier"]
    below = (f"{prefix}/" if prefix else "") + (f"{keys.encode_name(database)}/" if database else "")
    runs = [run for run in catalogue.group(reader.objects(below), prefix) if system in (None, run.system_identifier)]
    now = reader.server_time or datetime.now(UTC)
    examined = [catalogue.examine(reader, run) for run in runs if run.published]
    good = [summary(one.manifest, now) for one in examined if one.verified and one.manifest is not None]
    newest: dict[str, dict[str, t.Any]] = {}
    for one in good:
        newest.setdefault(f"{one['database']}@{one['system_identifier']}", one)
    active = [run for run in runs if run.incoming]
    outcome.facts |= {
        "backups": good,
        "newest": list(newest.values()),
        "bad": [bad_summary(one) for one in examined if not one.verified],
        "unpublished": [
            {"run_id": run.run_id, "database": run.database, "system_identifier": run.system_identifier}
            for run in active
        ],
    }
    _summarize_info(outcome, params["bucket"], prefix, decoded=None)
    if params["verify"] == "full":
        wanted = {one["run_id"] for one in newest.values()}
        outcome.facts["decoded"] = _decode(
            module, reader, [one for one in examined if one.run.run_id in wanted], outcome
        )
        _summarize_info(outcome, params["bucket"], prefix, decoded=outcome.facts["decoded"])


def _summarize_info(outcome: Outcome, bucket: str, prefix: str, *, decoded: list[str] | None) -> None:
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


def _decode(module: AnsibleModule, reader: Reader, newest: list[catalogue.Examined], outcome: Outcome) -> list[str]:
    """Decode the newest verified backup of each database; the names of those that passed, an error for the first that does not."""
    if not newest:
        raise OpsError(
            obj=f"s3://{reader.bucket}/{module.params['prefix']}",
            problem="there is no verified backup to decode",
            next_step="Make one with lowtide.ops.pg_backup, or correct bucket, prefix, database and system_identifier",
        )
    decoders = database.find_decoders(module.params["bin_dir"])
    deadline = Deadline(module.params["timeout"])
    passed: list[str] = []
    outcome.facts["decoded"] = passed
    for one in newest:
        if one.manifest is None:
            continue
        for name in (keys.GLOBALS, keys.TABLES):
            verify.compare(reader, reader.bucket, one.run.published[name].key, one.manifest.parts[name])
        dump = one.run.published[keys.DUMP]
        verify.decode(
            reader, reader.bucket, dump.key, one.manifest.parts[keys.DUMP], programs=decoders, deadline=deadline
        )
        passed.append(one.run.run_id)
    return passed
