# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the modules mysql_backup and mysql_restore call.

Private to lowtide.ops: do not import from other collections.
"""

from __future__ import annotations

import typing as t

from .._backup import keys
from .._backup.plan import MAX_PARTS, Retention
from .._common.amounts import parse_age
from .._common.errors import Refusal
from .._s3.bucket import WORKERS, Bucket, Encryption
from .._s3.connection import make_client
from .backup import MySqlBackup, Options
from .connection import Session, settings_from, warn_unverified
from .restore import Restore, RestoreOptions
from .restore_state import BESIDE_SUFFIX, ORIGINAL_SUFFIX

if t.TYPE_CHECKING:
    from ansible.module_utils.basic import AnsibleModule

    from .._common.outcome import Outcome

PLACE_SPEC: dict[str, dict[str, t.Any]] = {
    "database": {"type": "str", "required": True},
    "bucket": {"type": "str", "required": True},
    "prefix": {"type": "str", "default": ""},
    "server": {"type": "str"},
    "timeout": {"type": "int", "default": 86400},
    "bin_dir": {"type": "path"},
}
BACKUP_SPEC: dict[str, dict[str, t.Any]] = {
    **PLACE_SPEC,
    "max_age": {"type": "str", "default": "24h"},
    "interval": {"type": "str"},
    "keep": {"type": "int"},
    "keep_for": {"type": "str"},
    "source": {"type": "str", "choices": ["primary", "replica"], "default": "primary"},
    "encryption": {"type": "str", "choices": ["AES256", "aws:kms"]},
    "kms_key_id": {"type": "str", "no_log": False},
    "max_parts": {"type": "int", "default": MAX_PARTS},
}
OWN = ("information_schema", "performance_schema", "mysql", "sys")
MAX_NAME = 64


def check_positive(params: t.Mapping[str, t.Any], *names: str) -> None:
    """Refuse numbers below 1."""
    for name in names:
        if params[name] is not None and params[name] <= 0:
            raise Refusal(
                obj=f"option {name}", problem=f"{params[name]} is not a positive number", next_step="Give at least 1"
            )


def check_database(name: str, *, option: str = "database") -> None:
    """Refuse a name that no database of an application has."""
    if name.lower() in OWN:
        raise Refusal(
            obj=f"option {option}",
            problem=f"{name} is the server's own",
            next_step="Name the application's database",
        )
    if not name.strip() or len(name) > MAX_NAME or any(ord(char) < 0x20 for char in name):
        raise Refusal(
            obj=f"option {option}",
            problem=f"{name!r} is no name of a database: empty, longer than {MAX_NAME} characters, or with a control"
            " character",
            next_step="Name the application's database",
        )


def read_options(params: t.Mapping[str, t.Any]) -> Options:
    """Return the options of mysql_backup; refuse what cannot be meant."""
    check_positive(params, "timeout", "keep", "max_parts")
    check_database(params["database"])
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
        timeout=params["timeout"],
        database=params["database"],
        source=params["source"],
        max_parts=params["max_parts"],
        encryption=params["encryption"],
        bin_dir=params["bin_dir"],
        is_server_declared=bool(params["server"]),
    )


def backup(module: AnsibleModule, outcome: Outcome) -> None:
    """Do the work of mysql_backup."""
    params = module.params
    options = read_options(params)
    prefix = keys.clean_prefix(params["prefix"])
    settings = settings_from(params)
    warn_unverified(module, settings)
    encryption = None if params["encryption"] is None else Encryption(params["encryption"], params["kms_key_id"])
    bucket = Bucket(make_client(module, connections=WORKERS), params["bucket"], encryption=encryption)
    with Session(settings) as session:
        place = keys.Place(
            bucket=params["bucket"],
            prefix=prefix,
            database=options.database,
            system_identifier=params["server"] or settings.server_name,
        )
        work = MySqlBackup(
            session=session, bucket=bucket, place=place, options=options, outcome=outcome, warn=module.warn
        )
        work.ensure(check=module.check_mode)


RESTORE_SPEC: dict[str, dict[str, t.Any]] = {
    **PLACE_SPEC,
    "state": {"type": "str", "choices": ["beside", "in_place", "absent"], "default": "beside"},
    "backup": {"type": "str"},
    "compare_live": {"type": "bool", "default": True},
}


def read_restore_options(params: t.Mapping[str, t.Any]) -> RestoreOptions:
    """Return the options of mysql_restore; refuse what cannot be meant."""
    check_positive(params, "timeout")
    check_database(params["database"])
    longest = max(BESIDE_SUFFIX, ORIGINAL_SUFFIX, key=len)
    check_database(params["database"] + longest)
    if params["backup"] is not None and not keys.is_run_id(params["backup"]):
        raise Refusal(
            obj="option backup",
            problem=f"{params['backup']!r} is not the name of a run",
            next_step="Give one such as 20261121T020000Z-5f1c2a77, or leave it out for the newest verified one",
        )
    return RestoreOptions(
        database=params["database"],
        state=params["state"],
        backup=params["backup"],
        compare_live=params["compare_live"],
        timeout=params["timeout"],
        bin_dir=params["bin_dir"],
        is_server_declared=bool(params["server"]),
    )


def restore(module: AnsibleModule, outcome: Outcome) -> None:
    """Do the work of mysql_restore."""
    params = module.params
    options = read_restore_options(params)
    prefix = keys.clean_prefix(params["prefix"])
    settings = settings_from(params)
    warn_unverified(module, settings)
    bucket = Bucket(make_client(module), params["bucket"])
    with Session(settings) as session:
        place = keys.Place(
            bucket=params["bucket"],
            prefix=prefix,
            database=options.database,
            system_identifier=params["server"] or settings.server_name,
        )
        work = Restore(session=session, bucket=bucket, place=place, options=options, outcome=outcome, warn=module.warn)
        work.ensure(check=module.check_mode)
