# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Name what a restore lacks on its server: roles, rights, extensions. Private to lowtide.ops: do not import from other collections."""

from __future__ import annotations

import typing as t

from .._common.errors import Refusal
from .._common.outcome import Blocker
from .._common.text import format_count, join_some
from .._postgresql.names import format_name
from .amcheck import AMCHECK
from .dump_text import Schema

if t.TYPE_CHECKING:
    from .._postgresql.connection import Session

TIMESCALEDB = "timescaledb"

_ROLES = "SELECT rolname::text FROM pg_catalog.pg_roles"
_ACCOUNT = """
SELECT pg_catalog.quote_ident(rolname) AS name, rolsuper AS is_superuser, rolcreatedb AS may_create
  FROM pg_catalog.pg_roles WHERE rolname = session_user
"""
_NOT_MEMBER = """
SELECT rolname::text FROM pg_catalog.pg_roles
 WHERE rolname::text = ANY (%(roles)s) AND NOT pg_catalog.pg_has_role(session_user, oid, 'MEMBER') ORDER BY 1
"""
_EXTENSIONS = """
SELECT e.name::text, v.superuser AND NOT v.trusted AS is_privileged
  FROM pg_catalog.pg_available_extensions e
  JOIN pg_catalog.pg_available_extension_versions v ON v.name = e.name AND v.version = e.default_version
 WHERE e.name::text = ANY (%(names)s)
"""


class Account(t.NamedTuple):
    """As whom a run acts."""

    name: str
    is_superuser: bool
    may_create: bool


class Extension(t.NamedTuple):
    """An extension that the server has; only a superuser creates a privileged one."""

    name: str
    is_privileged: bool


def read_roles(session: Session) -> set[str]:
    """Return the roles of the server."""
    return {row[0] for row in session.query(_ROLES)}


def refuse_timescaledb(schema: Schema, obj: str) -> None:
    """Refuse a dump of TimescaleDB, whose restore takes calls of that extension before and after it."""
    if TIMESCALEDB not in schema.extensions:
        return
    raise Refusal(
        obj=obj,
        problem="it has the extension timescaledb, whose catalog a plain restore would leave inconsistent",
        next_step="Restore it by hand, into a new database: CREATE EXTENSION timescaledb in the version of the dump, SELECT"
        " timescaledb_pre_restore(), pg_restore --exit-on-error, SELECT timescaledb_post_restore()",
    )


def refuse_missing_roles(missing: t.Collection[str], *, obj: str, has_globals: bool) -> None:
    """Refuse a restore that would stop at roles which this server does not have."""
    if not missing:
        return
    names = sorted(format_name(role) for role in missing)
    raise Refusal(
        obj=obj,
        problem=f"{format_count(len(names), 'role')} of it {'is' if len(names) == 1 else 'are'} not on this server:"
        f" {join_some(names)}",
        next_step="Set roles to created, which takes them from globals.sql of the backup without passwords, or create them"
        if has_globals
        else "Create them (CREATE ROLE); this dump has no roles with it",
    )


def find_lacks(session: Session, schema: Schema, *, owners: t.Collection[str]) -> list[Blocker]:
    """Return what login_user lacks to restore a dump, each with the statement that gives it; and missing extensions."""
    account = session.read(Account, _ACCOUNT)[0]
    lacks = []
    if not (account.may_create or account.is_superuser):
        lacks.append(_lack(account, "it may not create databases", f"ALTER ROLE {account.name} CREATEDB"))
    if not account.is_superuser:
        for (role,) in session.query(_NOT_MEMBER, {"roles": sorted(owners)}):
            statement = f"GRANT {format_name(role)} TO {account.name}"
            lacks.append(_lack(account, f"it is no member of {format_name(role)}, which owns something", statement))
    there = {entry.name: entry for entry in session.read(Extension, _EXTENSIONS, {"names": schema.extensions})}
    for name in schema.extensions:
        if name == AMCHECK:
            continue  # it can be left out, see must_leave_out
        if name not in there:
            blocker = Blocker(
                object=f"extension {name}",
                what="this server does not have it",
                holder="",
                next_step="Install its package on the server, in the version of the original",
            )
            lacks.append(blocker)
        elif there[name].is_privileged and not account.is_superuser:
            lacks.append(_lack(account, f"only a superuser may create the extension {name}", "Restore as a superuser"))
    return lacks


def must_leave_out(session: Session, schema: Schema) -> bool:
    """Return whether the extension amcheck is in a dump and cannot be created here."""
    if AMCHECK not in schema.extensions:
        return False
    account = session.read(Account, _ACCOUNT)[0]
    found = session.read(Extension, _EXTENSIONS, {"names": [AMCHECK]})
    return not found or (found[0].is_privileged and not account.is_superuser)


def _lack(account: Account, what: str, step: str) -> Blocker:
    return Blocker(object=f"role {account.name}", what=what, holder="", next_step=step)


def refuse_lacks(lacks: t.Sequence[Blocker], blockers: list[Blocker]) -> None:
    """Refuse where something is lacking, the first of it with its name; all of it becomes blockers."""
    if not lacks:
        return
    blockers += lacks
    raise Refusal(
        obj=lacks[0].object,
        problem=join_some(
            [lack.what if lack.object == lacks[0].object else f"{lack.object}: {lack.what}" for lack in lacks]
        ),
        next_step="; ".join(dict.fromkeys(lack.next_step for lack in lacks[:5])),
    )
