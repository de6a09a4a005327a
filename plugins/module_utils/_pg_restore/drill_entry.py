# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the module pg_restore_drill calls. Private to lowtide.ops: do not import from other collections."""

from __future__ import annotations

import typing as t
from dataclasses import replace

from .._backup import keys
from .._common.amounts import parse_age
from .._common.retry import Deadline
from .._pg_backup.database import read_clock
from .._pg_backup.entry import PLACE_SPEC, check_positive
from .._postgresql.connection import Session, driver_error, new_run_id, settings_from
from .._postgresql.errors import sql_error
from .._s3.bucket import Bucket
from .._s3.connection import make_client
from . import judging
from .drill import DrillOptions, RestoreDrill
from .evidence import Signer, Verifier
from .source import LATEST, find_backup

if t.TYPE_CHECKING:
    from ansible.module_utils.basic import AnsibleModule

    from .._common.outcome import Outcome

DRILL_SPEC: dict[str, dict[str, t.Any]] = {
    **PLACE_SPEC,
    "max_age": {"type": "str", "default": "7d"},
    "interval": {"type": "str"},
    "on_due": {"type": "str", "choices": ["run", "fail"], "default": "run"},
    "max_rpo": {"type": "str", "default": "2d"},
    "query": {"type": "str"},
    "query_timeout": {"type": "float", "default": 60.0},
    "signing_key": {"type": "path", "no_log": False},
    "public_keys": {"type": "list", "elements": "str", "default": [], "no_log": False},
    "evidence_dir": {"type": "path"},
    "source_database": {"type": "str"},
    "source_system_identifier": {"type": "str"},
    "maintenance_db": {"type": "str", "default": "postgres"},
    "roles": {"type": "str", "choices": ["required", "created"], "default": "required"},
}


def drill(module: AnsibleModule, outcome: Outcome) -> None:
    """Do the work of pg_restore_drill."""
    params = module.params
    check_positive(params, "timeout", "query_timeout")
    runs = params["on_due"] == "run"
    if runs:
        judging.check_query(params["query"])
    max_age = parse_age(params["max_age"])
    options = DrillOptions(
        live=params["login_db"],
        max_age=max_age,
        interval=judging.read_interval(params, max_age),
        max_rpo=parse_age(params["max_rpo"], option="max_rpo"),
        query=params["query"] or "",
        query_timeout=params["query_timeout"],
        roles=params["roles"],
        bin_dir=params["bin_dir"],
        evidence_dir=params["evidence_dir"],
    )
    prefix = keys.clean_prefix(params["prefix"])
    signer = Signer(params["signing_key"], params["public_keys"]) if params["signing_key"] else None
    judging.refuse_no_key(params)
    bucket = Bucket(make_client(module), params["bucket"])
    settings = replace(settings_from(params), dbname=params["maintenance_db"])
    with Session(settings, module="pg_restore", run_id=new_run_id()) as session:
        place = keys.Place(
            bucket=params["bucket"],
            prefix=prefix,
            database=params["source_database"] or params["login_db"],
            system_identifier=params["source_system_identifier"] or session.server.system_identifier,
        )
        work = RestoreDrill(
            session=session,
            settings=settings,
            bucket=bucket,
            place=place,
            options=options,
            verifier=signer or Verifier(params["public_keys"]),
            signer=signer if runs else None,
            outcome=outcome,
            deadline=Deadline(params["timeout"]),
        )
        now = read_clock(session)
        try:
            work.ensure(lambda: find_backup(bucket, place, run=LATEST, now=now), check=module.check_mode)
        except driver_error() as error:
            raise sql_error(settings.target, error) from error
        finally:
            for warning in work.warnings:
                module.warn(warning)
