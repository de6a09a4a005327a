# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Name what a restore lacks on its server: roles, rights, extensions. Private to lowtide.ops: do not import from other collections."""

from __future__ import annotations

import re
import typing as t

from .._common.errors import Refusal
from .._common.outcome import Blocker
from .._common.text import format_count, join_some
from .._postgresql.names import INHERIT_VERSION, format_name
from .amcheck import AMCHECK, is_amcheck
from .dump_text import DATABASE_OWNER, Schema, unquote
from .sql_text import IDENTIFIER

if t.TYPE_CHECKING:
    from .._postgresql.connection import Session

TIMESCALEDB = "timescaledb"

_ROLES = "SELECT rolname::text FROM pg_catalog.pg_roles"
_ACCOUNT = """
SELECT pg_catalog.quote_ident(rolname) AS name, rolsuper AS is_superuser, rolcreatedb AS may_create,
       rolbypassrls AS sees_all_rows, rolcreaterole AS may_alter_roles
  FROM pg_catalog.pg_roles WHERE rolname = session_user
"""
# Its rights without SET ROLE, and from PostgreSQL 16 on to hand something over to it, which a membership may both lack.
_NOT_MEMBER = """
SELECT rolname::text, rolsuper FROM pg_catalog.pg_roles
 WHERE rolname::text = ANY (%(roles)s)
   AND NOT (pg_catalog.pg_has_role(session_user, oid, 'USAGE') AND pg_catalog.pg_has_role(session_user, oid, %(handing)s))
 ORDER BY 1
"""
_MEMBER = """
SELECT rolname::text FROM pg_catalog.pg_roles
 WHERE rolname::text = ANY (%(roles)s) AND pg_catalog.pg_has_role(session_user, oid, 'USAGE')
"""
_TABLESPACES = """
SELECT n.name, s.oid IS NOT NULL AS is_there FROM unnest(%(names)s::text[]) AS n (name)
  LEFT JOIN pg_catalog.pg_tablespace s ON s.spcname::text = n.name
 WHERE s.oid IS NULL OR NOT pg_catalog.has_tablespace_privilege(session_user, s.oid, 'CREATE') ORDER BY 1
"""
_EXTENSIONS = """
SELECT e.name::text, v.superuser AND NOT v.trusted AS is_privileged
  FROM pg_catalog.pg_available_extensions e
  JOIN pg_catalog.pg_available_extension_versions v ON v.name = e.name AND v.version = e.default_version
 WHERE e.name::text = ANY (%(names)s)
"""
# Settings that take a right of their own. One that no loaded library knows may be any, so the server wants a superuser.
_SETTINGS = """
SELECT n.name FROM unnest(%(names)s::text[]) AS n (name)
  LEFT JOIN pg_catalog.pg_settings s ON lower(s.name) = lower(n.name)
 WHERE coalesce(s.context, '') IN ('', 'superuser', 'superuser-backend'){granted}
"""
_GRANTED = " AND NOT pg_catalog.has_parameter_privilege(session_user, n.name, 'SET')"
OWN_PUBLIC = 150000
"""From this version on the schema public belongs to the owner of the database."""
PUBLIC = ("-", "SCHEMA public")
_GIVE_PUBLIC = (
    f"In the live database ALTER SCHEMA public OWNER TO {DATABASE_OWNER}, as it is in a new one, and back up again; or restore"
    " as a superuser"
)
PARAMETER_RIGHTS = 150000
"""From this version on a right to a setting can be granted."""
_NO_ADMIN = """
SELECT rolname::text FROM pg_catalog.pg_roles
 WHERE rolname::text = ANY (%(roles)s) AND (rolsuper OR NOT pg_catalog.pg_has_role(session_user, oid, 'MEMBER WITH ADMIN OPTION'))
"""
_SET = re.compile(
    rf"ALTER (?:DATABASE (?:{IDENTIFIER})|ROLE ({IDENTIFIER}) IN DATABASE (?:{IDENTIFIER})) SET ({IDENTIFIER}) .*;",
    re.DOTALL,
)
_FORCED = re.compile(r"^ALTER TABLE ONLY (.*) FORCE ROW LEVEL SECURITY;$", re.MULTILINE)


class Account(t.NamedTuple):
    """As whom a run acts."""

    name: str
    is_superuser: bool
    may_create: bool
    sees_all_rows: bool
    may_alter_roles: bool


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
        handing = "SET" if session.server.version >= INHERIT_VERSION else "MEMBER"
        for role, is_superuser in session.query(_NOT_MEMBER, {"roles": sorted(owners), "handing": handing}):
            owned = schema.find_owned(role) or ["something"]
            what = f"it is no member of {format_name(role)}, which owns {join_some(owned, limit=3)}"
            if is_superuser:
                # To be a member of a superuser is to be one. A database that was made before PostgreSQL 15 keeps the owner
                # of its schema public through each pg_upgrade.
                is_old = owned == ["schema public"] and session.server.version >= OWN_PUBLIC
                step = _GIVE_PUBLIC if is_old else "Restore as a superuser"
                lacks.append(_lack(account, f"{what} and is a superuser", step))
                continue
            statement = f"GRANT {format_name(role)} TO {account.name}"
            if session.server.version >= INHERIT_VERSION:
                statement += " WITH INHERIT TRUE, SET TRUE"
            lacks.append(_lack(account, what, statement))
        lacks += find_grant_lacks(session, schema, account)
    forced = find_forced(schema)
    if forced and not (account.is_superuser or account.sees_all_rows):
        what = f"{join_some(forced)} {'has' if len(forced) == 1 else 'have'} FORCE ROW LEVEL SECURITY, and it may not read all rows"
        lacks.append(_lack(account, what, f"ALTER ROLE {account.name} BYPASSRLS"))
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


def find_grant_lacks(session: Session, schema: Schema, account: Account) -> list[Blocker]:
    """Return which grants, comments and labels of a dump its restore would come to at its end and not be able to make.

    ``account`` is no superuser.
    """
    lacks = []
    for grantor in sorted(schema.find_grantors()):
        if format_name(grantor) != account.name:
            what = f"it may not grant as {format_name(grantor)}, who has passed on what was granted to it"
            lacks.append(_lack(account, what, "Restore as a superuser"))
    given = [(entry, owner) for entry, owner in schema.find_given() if not is_amcheck(entry, schema.entries)]
    if session.server.version >= OWN_PUBLIC:
        given = [(entry, owner) for entry, owner in given if entry[1:] != PUBLIC]
    owners = sorted({owner for _entry, owner in given})
    known = {row[0] for row in session.query(_MEMBER, {"roles": owners})}
    titles = [entry.title for entry, owner in given if owner not in known]
    if titles:
        what = f"the dump has {join_some(titles)}, and it does not own that"
        lacks.append(_lack(account, what, "Restore as a superuser"))
    return lacks


def find_setting_lacks(session: Session, statements: t.Iterable[str]) -> list[Blocker]:
    """Return what login_user lacks to give the copy the settings of its database, which a dump has for its end."""
    account = session.read(Account, _ACCOUNT)[0]
    matches = [match for match in map(_SET.fullmatch, statements) if match]
    if account.is_superuser or not matches:
        return []
    can_grant = session.server.version >= PARAMETER_RIGHTS
    names = sorted({unquote(match[2]) for match in matches})
    sql = _SETTINGS.format(granted=_GRANTED if can_grant else "")
    lacks = []
    for (name,) in session.query(sql, {"names": names}):
        step = f"GRANT SET ON PARAMETER {format_name(*name.split('.'))} TO {account.name}"
        what = f"it may not set {name}, which is a setting of the database"
        lacks.append(_lack(account, what, step if can_grant else "Restore as a superuser"))
    roles = sorted({unquote(match[1]) for match in matches if match[1]} - {unquote(account.name)})
    if account.may_alter_roles:
        # From that version on it takes the administration of the role as well.
        found = session.query(_NO_ADMIN, {"roles": roles}) if session.server.version >= INHERIT_VERSION else []
        roles = [row[0] for row in found]
    for role in roles:
        own = format_name(role)
        step = "Restore as a superuser"
        if session.server.version >= INHERIT_VERSION:
            step += f", or ALTER ROLE {account.name} CREATEROLE; GRANT {own} TO {account.name} WITH ADMIN OPTION"
        lacks.append(
            _lack(account, f"it may not set what {own} has in the database (ALTER ROLE ... IN DATABASE)", step)
        )
    return lacks


def find_tablespace_lacks(session: Session, names: t.Collection[str]) -> list[Blocker]:
    """Return the tablespaces of a dump that this server does not have, or that login_user may not use."""
    account = session.read(Account, _ACCOUNT)[0]
    lacks = []
    for name, is_there in session.query(_TABLESPACES, {"names": sorted(names)}):
        own = format_name(name)
        grant = f"GRANT CREATE ON TABLESPACE {own} TO {account.name}"
        if is_there:
            lacks.append(_lack(account, f"it may not use the tablespace {own}", grant))
            continue
        step = f"Make it, wherever there is room: CREATE TABLESPACE {own} LOCATION '...'; {grant}"
        lacks.append(
            Blocker(object=f"tablespace {own}", what="this server does not have it", holder="", next_step=step)
        )
    return lacks


def find_forced(schema: Schema) -> list[str]:
    """Return the tables whose rows even their owner sees by policies only."""
    texts = ("\n".join(lines) for entry, lines in schema.entries.items() if entry.kind == "TABLE")
    return [match[1] for text in texts for match in _FORCED.finditer(text)]


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
