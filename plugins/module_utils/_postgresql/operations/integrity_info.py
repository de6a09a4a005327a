# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tell whether a database's blocks are whole, for the module pg_integrity_info.

Private to lowtide.ops: do not import from other collections.
"""

from __future__ import annotations

import typing as t
from datetime import datetime
from functools import partial

from ..._common.errors import Refusal
from ..._common.outcome import Blocker
from ..._common.retry import Deadline
from ..._common.text import format_count
from ..connection import CONNECTION_SPEC, Session, new_run_id, settings_from, translate_errors
from ..integrity import (
    DUMP,
    LOCK,
    NO_EXTENSION,
    RIGHT,
    TIME,
    UNLOGGED,
    Checksums,
    Damage,
    Examination,
    Examiner,
    Unchecked,
    find_amcheck,
    find_unknown,
    list_relations,
    read_checksums,
)
from ..names import parse_name

if t.TYPE_CHECKING:
    from ansible.module_utils.basic import AnsibleModule

    from ..._common.outcome import Outcome

INTEGRITY_SPEC: dict[str, dict[str, t.Any]] = {
    **CONNECTION_SPEC,
    "schemas": {"type": "list", "elements": "str"},
    "tables": {"type": "list", "elements": "str"},
    "system_catalogs": {"type": "bool", "default": False},
    "heapallindexed": {"type": "bool", "default": True},
    "checksum_failures_after": {"type": "str"},
    "timeout": {"type": "int", "default": 3600},
}
_DATABASE = """
SELECT oid::bigint, pg_catalog.shobj_description(oid, 'pg_database') FROM pg_catalog.pg_database
 WHERE datname = pg_catalog.current_database()
"""
REPLACE = (
    "Drop nothing and repair nothing in place. Restore the newest verified backup beside this database (role restore), and"
    " have pg_integrity_info find that one whole; keep this one until then"
)
_STEPS = {
    NO_EXTENSION: "Have a superuser run CREATE EXTENSION amcheck in it, on the primary",
    RIGHT: "Grant login_user EXECUTE on the functions of amcheck, see docs/postgresql-rights.sql (integrity)",
    TIME: "Raise timeout, or name tables",
    LOCK: "Ask again when that session has ended its transaction",
    UNLOGGED: "Ask the primary for it",
}
"""What to do so that a relation can be checked, where the reason does not say more."""
ACCEPT = (
    "Once the cause is mended and every relation, those of system_catalogs too, is read whole, give that time as"
    " checksum_failures_after (pg_stat_reset() takes with it what autovacuum goes by, and does not reach the shared catalogs)"
)
REBUILD = "Once its table is found whole: REINDEX INDEX CONCURRENTLY, then ask again"


def inform_integrity(module: AnsibleModule, outcome: Outcome) -> None:
    """Do the work of module pg_integrity_info."""
    params = module.params
    settings = settings_from(params)
    tables = [parse_name(name, option="tables") for name in params["tables"] or []]
    if params["timeout"] < 1:
        raise Refusal(obj="option timeout", problem=f"it is {params['timeout']}", next_step="Give at least 1 second")
    after = _read_time(params["checksum_failures_after"])
    deadline = Deadline(params["timeout"])
    with (
        translate_errors(settings.target),
        Session(settings, module="pg_integrity_info", run_id=new_run_id(), primary=False, writes=False) as session,
    ):
        session.execute("SET default_transaction_read_only = on")
        server = session.server
        oid, comment = session.query(_DATABASE)[0]
        checksums = read_checksums(session, after)
        amcheck = find_amcheck(session)
        list_all = partial(
            list_relations,
            session,
            schemas=params["schemas"] or None,
            tables=tables,
            catalogs=params["system_catalogs"],
        )
        relations = list_all()
        unknown = find_unknown(session, relations, schemas=params["schemas"] or None, tables=tables)
        refuse_unknown(settings.target, "schemas", unknown[0])
        refuse_unknown(settings.target, "tables", unknown[1])
        examination = Examination([], [], [], [])
        if amcheck is None:
            reason = "the extension amcheck is not installed in this database"
            examination.unchecked.extend(Unchecked(relation.title, NO_EXTENSION, reason) for relation in relations)
        else:
            examiner = Examiner(session, amcheck, heapallindexed=params["heapallindexed"], deadline=deadline)
            examination = examiner.examine(list_all)
    outcome.facts |= {
        "database": server.database,
        "database_oid": oid,
        "database_comment": comment,
        "server": server.address,
        "server_version": "{}.{}".format(*divmod(server.version, 10000)),
        "system_identifier": server.system_identifier,
        "in_recovery": server.in_recovery,
        "data_checksums": checksums[0].enabled == "on" if checksums else False,
        "checksum_failures": [
            {
                "database": row.database,
                "failures": row.failures,
                "last_failure": row.last_failure,
                "counts": row.counts,
            }
            for row in checksums
            if row.failures
        ],
        "amcheck": None if amcheck is None else amcheck.version,
        "checked": [relation.title for relation in examination.checked],
        "damaged": [report_damage(damage) for damage in examination.damage],
        "unchecked": [
            {"object": entry.title, "cause": entry.cause, "reason": entry.reason} for entry in examination.unchecked
        ],
        "gone": [relation.title for relation in examination.gone],
    }
    is_selection = bool(tables or params["schemas"])
    tell(outcome, server.database, checksums, examination, is_selection=is_selection)


def _read_time(text: str | None) -> str | None:
    """Return a time for the server, or refuse what is none: without its zone it would be another one for each session."""
    if not text:
        return None
    try:
        moment = datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise Refusal(
            obj="option checksum_failures_after",
            problem=f"{text!r} is no time with its zone",
            next_step="Write it as 2026-11-27T02:00:00Z",
        )
    return moment.isoformat()


def refuse_unknown(target: str, option: str, unknown: t.Sequence[str]) -> None:
    """Refuse names of which there is nothing: that the others are whole would be taken for theirs."""
    if unknown:
        raise Refusal(
            obj=f"option {option} on {target}",
            problem=f"there is no table of {', '.join(unknown)}",
            next_step=f"Correct {option}, or login_db",
        )


def report_damage(damage: Damage) -> dict[str, t.Any]:
    """Return a finding as the result shows it."""
    relation = damage.relation
    return {
        "object": relation.title,
        "kind": "index" if relation.kind == "i" else "table",
        "schema": relation.schema,
        "name": relation.name,
        "table": relation.table_name,
        "block": damage.block,
        "line_pointer": damage.offset,
        "check": damage.check,
        "message": damage.message,
    }


def tell(
    outcome: Outcome,
    database: str,
    checksums: t.Sequence[Checksums],
    examination: Examination,
    *,
    is_selection: bool,
) -> None:
    """Word verdict, evidence and next steps. With ``is_selection`` most of the database may not have been looked at."""
    damaged = list(dict.fromkeys(damage.relation for damage in examination.damage))
    counted = [row for row in checksums if row.failures and row.counts and row.database in (database, None)]
    failures = sum(row.failures for row in counted)
    is_whole = not damaged and not failures
    is_proven = is_whole and not examination.unchecked and bool(examination.checked)
    status = "unproven" if is_whole else "damaged"
    outcome.facts["status"] = "whole" if is_proven and not is_selection else status
    enabled = checksums[0].enabled == "on" if checksums else False
    words = [format_count(len(examination.checked), "relation") + " read whole"]
    words += [f"{format_count(len(damaged), 'relation')} damaged"] if damaged else []
    words += [f"{format_count(failures, 'checksum failure')} counted"] if failures else []
    words += [f"{format_count(len(examination.unchecked), 'relation')} not checked"] if examination.unchecked else []
    words += [f"{format_count(len(examination.gone), 'relation')} dropped meanwhile"] if examination.gone else []
    verdict = f"database {database} is {outcome.facts['status']}"
    if is_proven and is_selection:
        tables = sum(relation.kind != "i" for relation in examination.checked)
        verdict = f"{format_count(tables, 'table')} of database {database} {'is' if tables == 1 else 'are'} whole, and no other was looked at"
    outcome.summary = f"{verdict}: {', '.join(words)}"
    outcome.evidence = [damage.describe() for damage in examination.damage]
    outcome.evidence += [
        f"{'database ' + row.database if row.database else 'shared catalogs'}:"
        f" {format_count(row.failures, 'checksum failure')}, the last {row.last_failure}"
        for row in checksums
        if row.failures
    ]
    outcome.evidence.append(
        f"data checksums are {'on' if enabled else 'off: a block that changed on the disk is found only where its form is wrong'}"
    )
    damaged_tables = {relation.oid for relation in damaged if relation.kind != "i"}
    outcome.blockers = [
        Blocker(
            relation.title,
            next(damage.describe() for damage in examination.damage if damage.relation == relation),
            "the storage, the memory or the file system below it",
            REBUILD if relation.kind == "i" and relation.table_oid not in damaged_tables else REPLACE,
        )
        for relation in damaged
    ]
    outcome.blockers += [
        Blocker(
            f"database {row.database}" if row.database else "the shared catalogs",
            f"{format_count(row.failures, 'checksum failure')} counted, the last {row.last_failure}",
            "the storage, the memory or the file system below it",
            f"{REPLACE}. The count stays. {ACCEPT}",
        )
        for row in counted
    ]
    outcome.blockers += explain_unchecked(examination.unchecked)


def explain_unchecked(unchecked: t.Sequence[Unchecked]) -> list[Blocker]:
    """Return for each reason one line with what to do about it."""
    by_reason: dict[Unchecked, list[str]] = {}
    for entry in unchecked:
        by_reason.setdefault(entry._replace(title=""), []).append(entry.title)
    return [
        Blocker(
            titles[0] if len(titles) == 1 else f"{titles[0]} and {len(titles) - 1} more",
            f"not checked: {entry.reason}",
            "the database",
            entry.next_step or _STEPS.get(entry.cause, DUMP),
        )
        for entry, titles in by_reason.items()
    ]
