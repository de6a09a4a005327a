# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Roles that clients log in as: what they are, whether two are alike, and their passwords.

Private to lowtide.ops: do not import from other collections.

A password is handed over as a SCRAM verifier that libpq computes here, so that the server, its log, and whoever reads
pg_stat_activity never have the password itself.
"""

from __future__ import annotations

import contextlib
import typing as t

from .._common.dependencies import require
from .._common.errors import Refusal
from .._common.text import format_count, format_duration, join_some
from .connection import Session, driver_error
from .errors import sql_error
from .names import format_name, quote

SET_OPTION_VERSION = 160000
"""From this version on a membership says whether it allows SET ROLE, and CREATEROLE alone changes nobody's password."""


class Role(t.NamedTuple):
    """A role as the catalogs have it. ``memberships`` and ``settings`` are texts to compare; ``granted`` are objects that
    name it in their own privileges, ``owned`` how many objects it owns, without what counts for the session's own role only
    (default privileges, user mappings); ``owned_some`` are a few of them, ``owned_in`` their databases.
    ``valid_seconds``: until VALID UNTIL; None without an end.

    ``may_become``: this session may SET ROLE to it. ``may_alter``: it may change its password as another.
    """

    name: str
    oid: int
    can_login: bool
    is_superuser: bool
    is_expired: bool
    attributes: str
    memberships: list[str]
    settings: list[str]
    granted: list[str]
    owned: int
    may_become: bool
    may_alter: bool
    valid_seconds: float | None = None
    owned_some: t.Sequence[str] = ()
    owned_in: t.Sequence[str] = ()


class RoleSession(t.NamedTuple):
    """A session of a role on the server, for messages."""

    pid: int
    application: str
    database: str


_ROLES_SQL = """
WITH owned AS (
  SELECT h.refobjid AS role, h.classid, h.objid, h.objsubid, d.datname::text AS datname,
    h.dbid = 0 OR d.datname = pg_catalog.current_database() AS is_here
  FROM pg_catalog.pg_shdepend h LEFT JOIN pg_catalog.pg_database d ON d.oid = h.dbid
  WHERE h.refclassid = 'pg_catalog.pg_authid'::regclass AND h.deptype = 'o'
    AND h.classid NOT IN ('pg_catalog.pg_default_acl'::regclass, 'pg_catalog.pg_user_mapping'::regclass))
SELECT r.rolname::text AS name, r.oid::bigint AS oid, r.rolcanlogin AS can_login, r.rolsuper AS is_superuser,
  coalesce(r.rolvaliduntil <= now(), false) AS is_expired,
  concat_ws(' ', CASE WHEN r.rolsuper THEN 'superuser' END, CASE WHEN r.rolinherit THEN 'inherit' END,
    CASE WHEN r.rolcreaterole THEN 'createrole' END, CASE WHEN r.rolcreatedb THEN 'createdb' END,
    CASE WHEN r.rolreplication THEN 'replication' END, CASE WHEN r.rolbypassrls THEN 'bypassrls' END,
    'connection limit ' || r.rolconnlimit) AS attributes,
  ARRAY(SELECT DISTINCT g.rolname || coalesce(' inherit=' || (to_jsonb(m) ->> 'inherit_option'), '')
      || coalesce(' set=' || (to_jsonb(m) ->> 'set_option'), '') || CASE WHEN m.admin_option THEN ' admin' ELSE '' END
    FROM pg_catalog.pg_auth_members m JOIN pg_catalog.pg_roles g ON g.oid = m.roleid
    WHERE m.member = r.oid ORDER BY 1) AS memberships,
  ARRAY(SELECT coalesce(d.datname || ': ', '') || c.setting
    FROM pg_catalog.pg_db_role_setting s LEFT JOIN pg_catalog.pg_database d ON d.oid = s.setdatabase,
      unnest(s.setconfig) c(setting)
    WHERE s.setrole = r.oid ORDER BY 1) AS settings,
  ARRAY(SELECT DISTINCT coalesce(d.datname, 'all databases') || ' ' || h.classid::regclass || ' ' || h.objid
    FROM pg_catalog.pg_shdepend h LEFT JOIN pg_catalog.pg_database d ON d.oid = h.dbid
    WHERE h.refclassid = 'pg_catalog.pg_authid'::regclass AND h.refobjid = r.oid AND h.deptype = 'a'
      AND h.classid <> 'pg_catalog.pg_auth_members'::regclass ORDER BY 1) AS granted,
  (SELECT count(*) FROM owned o WHERE o.role = r.oid) AS owned,
  pg_catalog.pg_has_role(r.oid, %(become)s) AS may_become,
  (SELECT me.rolsuper OR (me.rolcreaterole AND NOT r.rolsuper
      AND (%(version)s < 160000 OR pg_catalog.pg_has_role(r.oid, 'MEMBER WITH ADMIN OPTION')))
    FROM pg_catalog.pg_roles me WHERE me.rolname = current_user) AS may_alter,
  CASE WHEN isfinite(r.rolvaliduntil) THEN extract(epoch FROM r.rolvaliduntil - now())::float8 END AS valid_seconds,
  ARRAY(SELECT coalesce(CASE WHEN o.is_here THEN pg_catalog.pg_describe_object(o.classid, o.objid, o.objsubid) END,
      o.classid::regclass || ' ' || o.objid) || coalesce(' in database ' || o.datname, '')
    FROM owned o WHERE o.role = r.oid ORDER BY o.is_here DESC, o.datname, o.objid LIMIT 4) AS owned_some,
  ARRAY(SELECT DISTINCT o.datname FROM owned o WHERE o.role = r.oid AND o.datname IS NOT NULL ORDER BY 1) AS owned_in
FROM pg_catalog.pg_roles r WHERE r.rolname = ANY(%(names)s)
"""

_SESSIONS_SQL = """
SELECT pid, coalesce(application_name, '') AS application, coalesce(datname::text, '') AS database
FROM pg_catalog.pg_stat_activity WHERE usename = %(name)s AND pid <> pg_catalog.pg_backend_pid() ORDER BY pid
"""


def read_roles(session: Session, names: t.Sequence[str]) -> dict[str, Role]:
    """Return the roles by name; a Refusal for one that is not there."""
    version = session.server.version
    become = "SET" if version >= SET_OPTION_VERSION else "MEMBER"
    rows = session.read(Role, _ROLES_SQL, {"names": list(names), "become": become, "version": version})
    roles = {role.name: role for role in rows}
    for name in names:
        if name not in roles:
            raise Refusal(
                obj=f"role {format_name(name)}",
                problem=f"it does not exist on the server of {session.settings.target}",
                next_step=f"CREATE ROLE {format_name(name)} LOGIN, or correct roles",
            )
    return roles


def refuse_unusable(role: Role, *, account: str) -> None:
    """Refuse a role that nobody can log in as, that is too powerful for this, or whose password this account may not set."""
    obj = f"role {format_name(role.name)}"
    if role.is_superuser:
        raise Refusal(
            obj=obj,
            problem="it is a superuser, and an application does not log in as one",
            next_step="Give the application a role of its own that owns what it needs, and name that one in roles",
        )
    if not role.can_login:
        raise Refusal(obj=obj, problem="it may not log in", next_step=f"ALTER ROLE {format_name(role.name)} LOGIN")
    if role.is_expired:
        raise Refusal(
            obj=obj,
            problem="its password has passed the time of VALID UNTIL, which a new password does not move",
            next_step=f"ALTER ROLE {format_name(role.name)} VALID UNTIL 'infinity', or a later time",
        )
    if not (role.may_become or role.may_alter):
        raise Refusal(
            obj=obj,
            problem=f"{account} may not set its password: it is no member of it",
            next_step=f"GRANT {format_name(role.name)} TO {format_name(account)}",
        )


def refuse_ending(role: Role, *, seconds: float) -> None:
    """Refuse a role whose password, also a new one, ends before the next rotation is due in ``seconds``."""
    if role.valid_seconds is None or role.valid_seconds > seconds:
        return
    name = format_name(role.name)
    raise Refusal(
        obj=f"role {name}",
        problem=f"its VALID UNTIL is in {format_duration(max(0.0, role.valid_seconds))}, before a new password is"
        f" {format_duration(seconds)} old and is replaced; a new password does not move it",
        next_step=f"ALTER ROLE {name} VALID UNTIL 'infinity', or a later time, or a shorter max_age",
    )


def refuse_unlike(first: Role, second: Role, *, owner: str) -> None:
    """Refuse two roles between which an application could tell a difference: either must do as well as the other."""
    for role in (first, second):
        name = format_name(role.name)
        if role.owned:
            raise Refusal(
                obj=f"role {name}",
                problem=f"it owns {format_count(role.owned, 'object')} ({_list_owned(role)}), which a client that logs in"
                " as the other one could not alter",
                next_step=f"REASSIGN OWNED BY {name} TO {format_name(owner)}"
                + (f" in database {join_some(role.owned_in, limit=20)}" if role.owned_in else ""),
            )
        if not any(membership == owner or membership.startswith(f"{owner} ") for membership in role.memberships):
            raise Refusal(
                obj=f"role {name}",
                problem=f"it is no member of {format_name(owner)}, the role that owns what the application uses",
                next_step=f"GRANT {format_name(owner)} TO {name}",
            )
        if not any(setting.split(": ")[-1] == f"role={owner}" for setting in role.settings):
            raise Refusal(
                obj=f"role {name}",
                problem=f"its sessions do not act as {format_name(owner)}, so that what they make would be its own",
                next_step=f"ALTER ROLE {name} SET role = {format_name(owner)}",
            )
    both = f"roles {format_name(first.name)} and {format_name(second.name)}"
    for what, left, right in (
        ("attributes", [first.attributes], [second.attributes]),
        ("memberships", first.memberships, second.memberships),
        ("settings", first.settings, second.settings),
        ("privileges of their own", first.granted, second.granted),
    ):
        if left != right:
            only = [f"{role.name} has {text}" for role, text in _list_differences(first, second, left, right)]
            raise Refusal(
                obj=both,
                problem=f"they differ in their {what}: {'; '.join(only)}",
                next_step=f"Make them alike; what either may do is best granted to {format_name(owner)}",
            )


def _list_owned(role: Role) -> str:
    more = role.owned - len(role.owned_some)
    return ", ".join(role.owned_some) + (f" and {more} more" if more else "")


def _list_differences(
    first: Role, second: Role, left: t.Sequence[str], right: t.Sequence[str]
) -> list[tuple[Role, str]]:
    return [(first, text) for text in left if text not in right] + [
        (second, text) for text in right if text not in left
    ]


def read_sessions(session: Session, name: str) -> list[RoleSession]:
    """Return the sessions of a role on this server, in whatever database."""
    return session.read(RoleSession, _SESSIONS_SQL, {"name": name})


def make_verifier(session: Session, name: str, password: str) -> str:
    """Return the SCRAM verifier of a password, as the server would keep it."""
    extensions = require("psycopg2.extensions", package="psycopg2-binary", why="to talk to PostgreSQL")
    return str(extensions.encrypt_password(password, name, session.connection, "scram-sha-256"))


@contextlib.contextmanager
def changed_password(session: Session, role: Role, verifier: str | None) -> t.Iterator[None]:
    """Set the verifier, or none, in a transaction that ends with the block: committed, or undone where the block failed.

    As the role itself where that is possible, which needs no right to make or change roles.
    """
    name = quote(role.name)
    with _translated(role):
        session.execute("BEGIN")
    try:
        with _translated(role):
            if role.may_become:
                session.execute(f"SET LOCAL ROLE {name}")
            session.execute(f"ALTER ROLE {name} PASSWORD %(verifier)s", {"verifier": verifier})
        yield
        with _translated(role):
            session.execute("COMMIT")
    except BaseException:
        if not session.connection.closed:
            with contextlib.suppress(driver_error()):
                session.execute("ROLLBACK")
        raise


@contextlib.contextmanager
def _translated(role: Role) -> t.Iterator[None]:
    try:
        yield
    except driver_error() as error:
        raise sql_error(f"role {format_name(role.name)}", error) from error
