# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Find out which rights a role lacks for a whole dump. Private to lowtide.ops: do not import from other collections.

pg_dump stops at the first thing that it may not read, in the middle of the upload. The catalog knows all of them before.
"""

from __future__ import annotations

import typing as t
from itertools import groupby

from .._common.errors import Refusal
from .._common.outcome import Blocker
from .._common.text import format_count, join_some

if t.TYPE_CHECKING:
    from collections.abc import Sequence

    from .._postgresql.connection import Session

SHOWN = 5
"""So many objects are named; where more lack a right, the statement is one for all of them."""

# What pg_dump locks or reads: no system schema, nothing that an extension brought, except tables whose rows it wants saved.
# What only lies in the schema of an extension is not the extension's.
_RELATIONS = """
SELECT c.oid, c.relkind, pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(c.relowner)) AS owner, n.oid AS schema_oid,
       pg_catalog.quote_ident(n.nspname) AS schema,
       pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(c.relname) AS name
  FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
 WHERE c.relkind IN ('r', 'p', 'S') AND c.relpersistence <> 't'
   AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_'
   AND (c.oid IN (SELECT pg_catalog.unnest(extconfig) FROM pg_catalog.pg_extension)
        OR NOT EXISTS (SELECT FROM pg_catalog.pg_depend d
                        WHERE d.deptype = 'e' AND d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass
                          AND d.objid = c.oid))
"""
# There is no function for the rights on a large object before PostgreSQL 18.
_MAY_READ_LARGE_OBJECT = {
    False: """EXISTS (SELECT FROM pg_catalog.aclexplode(coalesce(m.lomacl, pg_catalog.acldefault('L', m.lomowner))) a
                       WHERE a.privilege_type = 'SELECT'
                         AND (a.grantee = 0 OR pg_catalog.pg_has_role(a.grantee, 'USAGE')))""",
    True: "pg_catalog.has_largeobject_privilege(m.oid, 'SELECT')",
}
_LACKS = """
WITH relations AS ({relations}), me AS (SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user)
SELECT kind, name, owner FROM (
  SELECT DISTINCT 1 AS place, 'schema' AS kind, schema AS name, '' AS owner FROM relations
   WHERE NOT pg_catalog.has_schema_privilege(schema_oid, 'USAGE')
  UNION ALL
  SELECT 2, 'table', name, owner FROM relations
   WHERE relkind <> 'S' AND NOT pg_catalog.has_table_privilege(oid, 'SELECT')
  UNION ALL
  SELECT 3, 'sequence', name, owner FROM relations
   WHERE CASE relkind WHEN 'S' THEN NOT pg_catalog.has_sequence_privilege(oid, 'SELECT') END
  UNION ALL
  SELECT 4, 'policy', name, owner FROM relations
   WHERE CASE relkind WHEN 'r' THEN pg_catalog.row_security_active(oid) END
  UNION ALL
  SELECT 5, 'large object', m.oid::text, pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(m.lomowner))
    FROM pg_catalog.pg_largeobject_metadata m, me
   WHERE NOT me.rolsuper AND pg_catalog.current_setting('lo_compat_privileges') = 'off' AND NOT {may_read}
  UNION ALL
  SELECT 6, 'password', '', '' WHERE %(role_passwords)s AND NOT pg_catalog.has_table_privilege('pg_catalog.pg_authid', 'SELECT')
) AS lacks
 ORDER BY place, name
"""
# What pg_dump leaves out for any role that is no superuser: subscriptions, and the options of the user mappings that
# only their owners may see, by the same conditions as in the view.
_LEFT_OUT = """
WITH me AS (SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user)
SELECT 'subscription' AS kind, pg_catalog.quote_ident(s.subname) AS name, '' AS owner
  FROM pg_catalog.pg_subscription s, pg_catalog.pg_database d, me
 WHERE d.oid = s.subdbid AND d.datname = pg_catalog.current_database() AND NOT me.rolsuper
UNION ALL
SELECT 'user mapping', pg_catalog.format('%%s of %%I', CASE u.umuser WHEN 0 THEN 'PUBLIC' ELSE pg_catalog.quote_ident(u.usename) END,
       u.srvname), ''
  FROM pg_catalog.pg_user_mappings u JOIN pg_catalog.pg_foreign_server f ON f.oid = u.srvid, me
 WHERE u.umoptions IS NULL AND NOT me.rolsuper
   AND CASE u.umuser WHEN 0 THEN NOT pg_catalog.pg_has_role(f.srvowner, 'USAGE')
            ELSE u.usename <> current_user
                 OR NOT (pg_catalog.pg_has_role(f.srvowner, 'USAGE') OR pg_catalog.has_server_privilege(f.oid, 'USAGE')) END
 ORDER BY 1, 2
"""
_MEMBERSHIP = """
SELECT pg_catalog.quote_ident(current_user) AS role,
       pg_catalog.pg_has_role('pg_read_all_data', 'MEMBER') AND NOT pg_catalog.pg_has_role('pg_read_all_data', 'USAGE') AS is_idle
"""
_STATEMENTS = {
    "schema": "GRANT USAGE ON SCHEMA {names} TO {role}",
    "table": "GRANT SELECT ON TABLE {names} TO {role}",
    "sequence": "GRANT SELECT ON SEQUENCE {names} TO {role}",
    "policy": "ALTER ROLE {role} BYPASSRLS /* takes a superuser, or a role that has it; tables without FORCE are opened by"
    " GRANT {owners} TO {role}, too */",
    "large object": "{defaults}GRANT SELECT ON LARGE OBJECT {names} TO {role}",
    "password": "GRANT SELECT ON pg_catalog.pg_authid TO {role}",
}
_ALL_DATA = "GRANT pg_read_all_data TO {role}"
_STATEMENTS_FOR_MANY = {
    "schema": _ALL_DATA,
    "table": _ALL_DATA,
    "sequence": _ALL_DATA,
    "large object": "{defaults}SELECT format('GRANT SELECT ON LARGE OBJECT %s TO %I', oid, {literal}) FROM pg_largeobject_metadata \\gexec",
}
_WORDS = {
    "schema": "it may not use {count} ({names})",
    "table": "it may not read {count} ({names})",
    "sequence": "it may not read {count} ({names})",
    "policy": "row-level security hides rows of {count} from it ({names})",
    "large object": "it may not read {count} ({names})",
    "password": "it may not read the hashes of role_passwords",
}
_LEFT_OUT_WORDS = {
    "subscription": "{count} ({names}) will not be in the dump: pg_dump leaves subscriptions out, unless a superuser runs it",
    "user mapping": "options of {count} ({names}), such as a password, will not be in the dump: only a superuser, or the"
    " owner of the foreign server, may read them",
}
_OPENED_BY_ROLE = ("schema", "table", "sequence")
"""What the role pg_read_all_data opens."""
_NOUNS = {"policy": "table"}


class Lack(t.NamedTuple):
    """Something that a role may not read: its ``kind`` is a key of the statements, its ``name`` is quoted for SQL."""

    kind: str
    name: str
    owner: str = ""


class Membership(t.NamedTuple):
    """The role, quoted; ``is_idle`` where it is a member of pg_read_all_data and does not inherit its rights."""

    role: str
    is_idle: bool

    def explain_idle(self, version: int) -> str | None:
        """Return the statement that has the rights inherited; None where there are none to inherit."""
        if not self.is_idle:
            return None
        if version >= 160000:
            return f"GRANT pg_read_all_data TO {self.role} WITH INHERIT TRUE"
        return f"ALTER ROLE {self.role} INHERIT"


def refuse_lacking(session: Session, *, role_passwords: bool, blockers: list[Blocker]) -> None:
    """Refuse a role that may not read all of the database, naming the statements that give it the rights."""
    version = session.server.version
    sql = _LACKS.format(relations=_RELATIONS, may_read=_MAY_READ_LARGE_OBJECT[version >= 180000])
    lacks = session.read(Lack, sql, {"role_passwords": role_passwords})
    if not lacks:
        return
    (membership,) = session.read(Membership, _MEMBERSHIP)
    role = membership.role
    lacking = explain_lacks(lacks, role=role, version=version, inherit=membership.explain_idle(version))
    blockers += lacking
    statements = dict.fromkeys(blocker.next_step for blocker in lacking)
    raise Refusal(
        obj=session.settings.target,
        problem=f"{role} lacks rights for a whole dump: {'; '.join(blocker.what for blocker in lacking)}",
        next_step=f"Have a superuser, or who may grant it, run in this database: {'; '.join(statements)}; then run again",
    )


def explain_lacks(lacks: Sequence[Lack], *, role: str, version: int = 0, inherit: str | None = None) -> list[Blocker]:
    """Return a blocker for each kind of ``lacks``, which are ordered by it; its next step is the statement, as it is run.

    ``inherit`` is the statement that is enough where the role has what it takes, and does not inherit it.
    """
    literal = "'" + role.strip('"').replace('""', '"').replace("'", "''") + "'"
    blockers = []
    for kind, group in groupby(lacks, key=lambda lack: lack.kind):
        entries = list(group)
        names = [lack.name for lack in entries]
        owners = ", ".join(sorted({lack.owner for lack in entries}))
        statement = _STATEMENTS[kind] if len(names) <= SHOWN else _STATEMENTS_FOR_MANY.get(kind, _STATEMENTS[kind])
        if inherit is not None and kind in _OPENED_BY_ROLE:
            statement = inherit.replace("{", "{{").replace("}", "}}")
        blockers.append(
            Blocker(
                object=f"role {role}",
                what=_WORDS[kind].format(
                    count=format_count(len(names), _NOUNS.get(kind, kind)), names=join_some(names, limit=SHOWN)
                ),
                holder="",
                next_step=statement.format(
                    names=", ".join(names),
                    role=role,
                    literal=literal,
                    owners=owners,
                    defaults=_open_later_objects(owners, role=role, version=version),
                ),
            )
        )
    return blockers


def _open_later_objects(owners: str, *, role: str, version: int) -> str:
    """Return what opens the large objects that are yet to be stored. Before 18 only the rights of their owner do."""
    if version >= 180000:
        return f"ALTER DEFAULT PRIVILEGES FOR ROLE {owners} GRANT SELECT ON LARGE OBJECTS TO {role}; "
    return f"/* where more are stored all the time, GRANT {owners} TO {role}, which gives it all their rights, instead of: */ "


def read_left_out(session: Session) -> list[str]:
    """Return what pg_dump leaves out, since this role is no superuser; in sentences."""
    lacks = session.read(Lack, _LEFT_OUT)
    return [
        _LEFT_OUT_WORDS[kind].format(count=format_count(len(names), kind), names=join_some(names, limit=SHOWN))
        for kind, names in (
            (kind, [lack.name for lack in group]) for kind, group in groupby(lacks, key=lambda lack: lack.kind)
        )
    ]
