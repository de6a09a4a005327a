# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Judge what the role corruption_triage has read: is a database damaged, and may it be let go.

Private to lowtide.ops: do not import from other collections.
"""

from __future__ import annotations

import typing as t

from ..module_utils._common.text import format_count, join_some
from ..module_utils._pg_restore.side import RESTORED, read_comment
from ..module_utils._postgresql.integrity import INVALID, NO_METHOD, UNLOGGED
from ..module_utils._postgresql.names import format_name

Json = dict[str, t.Any]

RESTORE = "Restore the newest verified backup beside it (role restore), and name it in corruption_triage_replacement"
BACKUP = (
    "Make a verified backup of what can still be read (pg_backup), and copy the server's files before anything else"
)

_UNSEEN = {
    "shut": "it allows no connections, so nothing of it was looked at",
    "invalid": "an interrupted DROP DATABASE has left it, and it can only be dropped",
}
"""What the server says of a database that is there and that nobody can connect to."""


def judge(integrity: Json, *, backups: Json | None, replacement: Json | None) -> Json:
    """Return the role's result from those of pg_integrity_info, pg_backup_info and pg_integrity_info of a replacement.

    ``may_be_replaced`` is true only if the database is damaged and all tables of another one were found whole, which
    pg_restore has made of the newest verified backup and found equal to it. Its indexes were built from these tables:
    those of a method that amcheck does not know are named, and decide nothing.

    ``integrity`` may be a failure of the module: of a database that nobody can connect to. What the server says of that
    is in ``found``.
    """
    if integrity.get("failed"):
        integrity = _describe_unseen(integrity)
    status = integrity["status"]
    overlooked = _list_overlooked(integrity)
    database = integrity["database"]
    newest = _find_backup(backups, integrity)
    blockers = list(integrity["blockers"])
    evidence = list(integrity["evidence"])
    words = [integrity["summary"]]
    refused = ""
    if newest is not None:
        evidence.append(f"newest verified backup of {database}: {newest['run_id']}, taken {newest['taken_at']}")
    elif backups is not None:
        evidence.append(f"there is no verified backup of {database} of this cluster; {backups['summary']}")
    if replacement is not None:
        evidence += [f"replacement: {line}" for line in [replacement["summary"], *replacement["evidence"]]]
        evidence += [
            f"replacement: {entry['object']} is not checked: {entry['reason']}" for entry in replacement["unchecked"]
        ]
    if status == "damaged":
        refused = _explain_refusal(integrity, replacement, newest)
        if refused:
            step = RESTORE if newest is not None or backups is None else BACKUP
            blockers.append(_block(f"database {database}", refused, step))
            words.append(f"it must not be dropped: {refused}")
        else:
            words.append(_describe_replacement(replacement) if replacement else "")
    elif overlooked:
        names = join_some([entry["object"] for entry in overlooked])
        words.append(f"nothing is proven: {names} could be looked at and was not")
    return {
        "changed": False,
        "check_mode": integrity["check_mode"],
        "summary": "; ".join(word for word in words if word),
        "plan": [],
        "blockers": blockers,
        "evidence": evidence,
        "status": status,
        "damaged": integrity["damaged"],
        "unchecked": integrity["unchecked"],
        "overlooked": [entry["object"] for entry in overlooked],
        "newest_backup": newest,
        "may_be_replaced": status == "damaged" and not refused,
    }


def _describe_unseen(failure: Json) -> Json:
    """Return what pg_integrity_info would say of a database that nobody can connect to, from its failure to."""
    database, found = failure["database"], failure.get("found", "lost")
    words = f"database {database} is {found}"
    summary = f"{words}: {_UNSEEN[found]}" if found in _UNSEEN else f"{words}: {failure['error']['problem']}"
    step = f"To have it looked at: ALTER DATABASE {format_name(database)} ALLOW_CONNECTIONS true, and run again"
    return {
        **failure,
        "status": found,
        "summary": summary,
        "check_mode": failure.get("check_mode", False),
        "blockers": [_block(f"database {database}", _UNSEEN["shut"], step)] if found == "shut" else [],
        "evidence": [],
        "damaged": [],
        "unchecked": [],
        "checked": [],
    }


def _find_backup(backups: Json | None, integrity: Json) -> Json | None:
    """Return the newest verified backup of the database of this cluster; of any cluster, where it is not known."""
    for entry in (backups or {}).get("newest", []):
        if entry["database"] == integrity["database"] and integrity["system_identifier"] in (
            "",
            entry["system_identifier"],
        ):
            return dict(entry)
    return None


def _explain_refusal(integrity: Json, replacement: Json | None, newest: Json | None) -> str:
    """Return why the damaged database has to stay; "" if another one was found whole in its place."""
    if replacement is None:
        return "no replacement has been verified"
    if replacement["status"] == "damaged" or not replacement["checked"]:
        return f"its replacement {replacement['database']} is {replacement['status']}"
    decisive = [entry for entry in replacement["unchecked"] if not _is_unknown_index(entry)]
    if decisive:
        more = f" and {len(decisive) - 1} more" if len(decisive) > 1 else ""
        return (
            f"its replacement {replacement['database']} is unproven:"
            f" {decisive[0]['object']}{more} was not checked, {decisive[0]['reason']}"
        )
    same = (replacement["database"], replacement["system_identifier"]) == (
        integrity["database"],
        integrity["system_identifier"],
    )
    if same:
        return "the replacement that is named is the database itself"
    tables = {name for name in integrity["checked"] if name.startswith("table ")}
    tables |= {entry["object"] for entry in integrity["damaged"] if entry["kind"] == "table"}
    tables |= {entry["object"] for entry in integrity["unchecked"] if entry["object"].startswith("table ")}
    missing = sorted(tables - set(replacement["checked"]))
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        return f"its replacement {replacement['database']} has not {missing[0]}{more}"
    return _explain_origin(integrity, replacement, newest)


def _list_overlooked(integrity: Json) -> list[Json]:
    """Return what was not looked at though it can be: a job that is green for ever without it would prove nothing."""
    if not integrity["checked"]:
        return list(integrity["unchecked"])
    return [entry for entry in integrity["unchecked"] if entry["cause"] not in (NO_METHOD, INVALID, UNLOGGED)]


def _is_unknown_index(entry: Json) -> bool:
    """Return whether it is an index of a method that amcheck does not know; btree never is."""
    return bool(entry["object"].startswith("index ") and entry["cause"] == NO_METHOD)


def _describe_replacement(replacement: Json) -> str:
    """Return what was found of a database that may take the place."""
    unknown = len(replacement["unchecked"])
    if not unknown:
        return f"{replacement['database']} is whole and can take its place"
    return (
        f"{replacement['database']} can take its place: its tables are whole, and {format_count(unknown, 'index')} of"
        " methods that amcheck does not know were built from them"
    )


def _explain_origin(integrity: Json, replacement: Json, newest: Json | None) -> str:
    """Return why it is not proven that the replacement has the rows of the newest backup; "" if it is.

    Whole blocks and the names of tables say nothing of rows.
    """
    name = f"its replacement {replacement['database']}"
    if newest is None:
        return f"no verified backup is known of which {name} could be"
    mark = read_comment(replacement["database_comment"])[1]
    place = (replacement["database_oid"], replacement["system_identifier"])
    if mark is None or mark.state != RESTORED or (mark.oid, mark.system) != place:
        return f"{name} is not marked as restored by pg_restore, so that nothing says which rows it has"
    if (mark.backup, mark.database) != (newest["run_id"], integrity["database"]):
        return f"{name} is of backup {mark.backup} of {mark.database}, and the newest is {newest['run_id']}"
    if mark.tables:
        return f"{name} has the rows of some tables only ({', '.join(mark.tables)})"
    return "" if mark.since else f"{name} was not found equal to its backup {mark.backup}"


def _block(obj: str, what: str, next_step: str) -> Json:
    return {"object": obj, "what": what, "holder": "role corruption_triage", "next_step": next_step, "since": None}
