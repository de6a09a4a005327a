# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the module pg_restore calls. Private to lowtide.ops: do not import from other collections."""

from __future__ import annotations

import typing as t
from dataclasses import replace

from .._backup import keys
from .._common.errors import Refusal
from .._common.retry import Deadline
from .._pg_backup.database import read_clock
from .._pg_backup.entry import PLACE_SPEC, check_positive
from .._postgresql.connection import Session, driver_error, new_run_id, settings_from
from .._postgresql.errors import sql_error
from .._postgresql.names import parse_name
from .._s3.bucket import Bucket
from .._s3.connection import make_client
from . import side
from .restore import MODULE, Restore
from .source import LATEST, Source, find_backup, find_foreign, is_foreign
from .work import Options

if t.TYPE_CHECKING:
    from ansible.module_utils.basic import AnsibleModule

    from .._common.outcome import Outcome

ABSENT, RELEASED = "absent", "released"
RESTORE_SPEC: dict[str, dict[str, t.Any]] = {
    **PLACE_SPEC,
    "state": {"type": "str", "choices": ["beside", side.LIVE, ABSENT, RELEASED], "default": "beside"},
    "backup": {"type": "str", "default": LATEST},
    "foreign_dump": {"type": "str"},
    "source_database": {"type": "str"},
    "source_system_identifier": {"type": "str"},
    "maintenance_db": {"type": "str", "default": "postgres"},
    "tables": {"type": "list", "elements": "str", "default": []},
    "compare_with": {"type": "str", "choices": ["backup", "original"], "default": "backup"},
    "roles": {"type": "str", "choices": ["required", "created"], "default": "required"},
    "sessions": {"type": "str", "choices": ["refuse", "end"], "default": "refuse"},
}


def check_options(params: t.Mapping[str, t.Any]) -> None:
    """Refuse what cannot be meant."""
    check_positive(params, "timeout")
    state, run, foreign = params["state"], params["backup"], params["foreign_dump"]
    is_name = keys.is_run_id(run) or (is_foreign(run) and state in (ABSENT, RELEASED))
    if run != LATEST and not is_name:
        raise Refusal(
            obj="option backup",
            problem=f"{run!r} is not the name of a run, such as 20261121T020000Z-5f1c2a77",
            next_step="Take run_id from the result of lowtide.ops.pg_backup_info, or leave it at latest",
        )
    if state != "beside" and run == LATEST and not foreign:
        raise Refusal(
            obj="option backup",
            problem=f"state {state} does not go with latest, which is another backup after the next one was made",
            next_step="Name the run: run_id in the result of lowtide.ops.pg_backup_info, or of a run with state: beside",
        )
    if foreign and run != LATEST:
        raise Refusal(obj="option foreign_dump", problem="it does not go with backup", next_step="Give one of the two")
    if params["tables"] and (state == side.LIVE or foreign):
        what = f"state {state}" if state == side.LIVE else "foreign_dump"
        raise Refusal(
            obj="option tables",
            problem=f"it does not go with {what}",
            next_step="Restore the tables of a backup beside, and copy from there what is needed",
        )
    if params["maintenance_db"] == params["login_db"]:
        raise Refusal(
            obj="option maintenance_db",
            problem=f"{params['login_db']} is the database that is to be restored, and cannot be renamed by a session in it",
            next_step="Name another database of the server, such as postgres",
        )


def restore(module: AnsibleModule, outcome: Outcome) -> None:
    """Do the work of pg_restore."""
    params = module.params
    check_options(params)
    prefix = keys.clean_prefix(params["prefix"])
    live = params["login_db"]
    settings = replace(settings_from(params), dbname=params["maintenance_db"])
    options = Options(
        state=params["state"],
        live=live,
        tables=tuple(parse_name(name, option="tables") for name in params["tables"]),
        compare_with=params["compare_with"],
        roles=params["roles"],
        sessions=params["sessions"],
        bin_dir=params["bin_dir"],
    )
    run_id = new_run_id()
    bucket = Bucket(make_client(module), params["bucket"])
    with Session(settings, module=MODULE, run_id=run_id) as session:
        work = Restore(
            session=session,
            options=options,
            outcome=outcome,
            deadline=Deadline(params["timeout"]),
            run_id=run_id,
            settings=settings,
        )
        try:
            if options.state == ABSENT:
                work.remove(find_run(params, bucket), check=module.check_mode)
            elif options.state == RELEASED:
                work.release(find_run(params, bucket), check=module.check_mode)
            else:
                source = find_source(params, bucket, prefix, session)
                if source.manifest is None:
                    module.warn(
                        f"{source.url} has no manifest of pg_backup: nothing proves that it is whole, or of what it is"
                    )
                work.ensure(source, check=module.check_mode)
        except driver_error() as error:
            raise sql_error(settings.target, error) from error
        finally:
            for warning in work.warnings:
                module.warn(warning)


def find_run(params: t.Mapping[str, t.Any], bucket: Bucket) -> str:
    """Return the run that names of databases belong to; only for the key of a foreign dump the bucket is asked."""
    foreign = params["foreign_dump"]
    return find_foreign(bucket, foreign, database=params["login_db"]).run if foreign else str(params["backup"])


def find_source(params: t.Mapping[str, t.Any], bucket: Bucket, prefix: str, session: Session) -> Source:
    """Return what is to be restored."""
    database = params["source_database"] or params["login_db"]
    if params["foreign_dump"]:
        return find_foreign(bucket, params["foreign_dump"], database=database)
    place = keys.Place(
        bucket=params["bucket"],
        prefix=prefix,
        database=database,
        system_identifier=params["source_system_identifier"] or session.server.system_identifier,
    )
    return find_backup(bucket, place, run=params["backup"], now=read_clock(session))
