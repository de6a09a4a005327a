# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What is found in the schema of a dump before it is restored: roles, tablespaces, limits, hidden rows."""

from __future__ import annotations

from ansible_collections.lowtide.ops.plugins.module_utils._pg_restore.dump_text import Entry, Schema, read_schema
from ansible_collections.lowtide.ops.plugins.module_utils._pg_restore.rights import find_forced

from .test_restore import HEAD
from .test_sql_text import write_dump


def test_tables_that_hide_rows_from_their_owner_are_found() -> None:
    """Before anything is restored."""
    table = "ALTER TABLE ONLY public.orders FORCE ROW LEVEL SECURITY;"
    entries = {Entry("TABLE", "public", "orders"): [table], Entry("FUNCTION", "public", "f()"): [table]}
    assert find_forced(Schema(entries, None, None)) == ["public.orders"]


def test_roles_are_not_found_in_what_others_have_written() -> None:
    """A body, a comment or a literal may look like a statement; default privileges are of somebody who must be a role."""
    body = (
        "CREATE FUNCTION f() RETURNS void LANGUAGE plpgsql AS $$BEGIN\nEXECUTE 'ALTER TABLE t OWNER TO nobody';\nEND$$;"
    )
    default = "ALTER DEFAULT PRIVILEGES FOR ROLE maker IN SCHEMA s GRANT SELECT ON TABLES TO taker;"
    lines = [
        *body.split("\n"),
        "ALTER FUNCTION f() OWNER TO boss;",
        "COMMENT ON FUNCTION f() IS '",
        " OWNER TO x;",
        "';",
    ]
    entries = {Entry("FUNCTION", "s", "f()"): lines, Entry("DEFAULT ACL", "s", "d"): [default]}
    schema = Schema(entries, None, None)
    assert schema.find_owners() == {"boss", "maker"}
    assert schema.find_roles() == {"boss", "maker", "taker"}


def test_who_may_come_in_is_for_the_live_name() -> None:
    """A limit of connections, or what makes a template, would be in the way of the comparison and of the end of a drill."""
    more = [
        "ALTER DATABASE shop CONNECTION LIMIT = 0;",
        "ALTER DATABASE shop IS_TEMPLATE = true;",
        "ALTER DATABASE shop SET work_mem TO '5MB';",
    ]
    schema = read_schema(HEAD)
    schema.entries[Entry("DATABASE PROPERTIES", "-", "shop")] = more
    made = schema.name_copy("c")
    assert made.properties == ["ALTER DATABASE c SET work_mem TO '5MB';"]
    assert made.limits == ["ALTER DATABASE c CONNECTION LIMIT = 0;", "ALTER DATABASE c IS_TEMPLATE = true;"]


def test_what_a_role_owns_is_named() -> None:
    """Also large objects, whose owner is in no statement."""
    text = write_dump(
        (
            "SCHEMA",
            "-",
            "public",
            '-- *not* creating schema, since initdb creates it\n\n\nALTER SCHEMA public OWNER TO "P";',
        ),
        (
            "DEFAULT ACL",
            "shop",
            "TABLES",
            'ALTER DEFAULT PRIVILEGES FOR ROLE "P" IN SCHEMA shop GRANT SELECT ON TABLES TO x;',
        ),
        ("COMMENT", "public", "TABLE t", "COMMENT ON TABLE public.t IS '\nALTER TABLE u OWNER TO \"P\";\n';"),
    )
    schema = read_schema(text)._replace(object_owners=frozenset({"P"}))
    assert schema.find_owned("P") == ["default acl shop.TABLES", "large objects", "schema public"]
    assert schema.find_owned("o") == ["database shop"]
    assert schema.find_owned("x") == []


def test_tablespaces_of_a_dump_are_found() -> None:
    """Those that it sets, and that of the database."""
    text = HEAD.replace("ENCODING = 'UTF8'", "ENCODING = 'UTF8' TABLESPACE = slow")
    text += "SET default_tablespace = '';\nSET default_tablespace = \"Fast one\";\n"
    assert read_schema(text).tablespaces == {"slow", "Fast one"}
    assert read_schema(HEAD).tablespaces == set()


def test_what_only_a_superuser_can_grant_is_found() -> None:
    """As somebody who has passed a grant on, and on what belongs to the server; not what is in a literal, or of the dump."""
    text = write_dump(
        ("TABLE", "public", "t", "CREATE TABLE public.t ();\n\n\nALTER TABLE public.t OWNER TO o;"),
        (
            "ACL",
            "public",
            "TABLE t",
            'SET SESSION AUTHORIZATION "Lead";\nGRANT SELECT ON TABLE public.t TO analyst;\nRESET SESSION AUTHORIZATION;',
        ),
        ("COMMENT", "public", "TABLE t", "COMMENT ON TABLE public.t IS '\nSET SESSION AUTHORIZATION nobody;\n';"),
    )
    for owner, about in (
        ("postgres", "-- Name: FUNCTION pg_ls_waldir(); Type: ACL; Schema: pg_catalog; Owner: "),
        ("pg_database_owner", "-- Name: SCHEMA public; Type: ACL; Schema: -; Owner: "),
        ("-", "-- Name: EXTENSION citext; Type: COMMENT; Schema: -; Owner: "),
        ("", "-- Name: EXTENSION hstore; Type: COMMENT; Schema: -; Owner: "),
    ):
        text += f"--\n{about}{owner}\n--\n\nGRANT USAGE ON x TO y;\n\n\n"
    schema = read_schema(text)
    assert schema.find_grantors() == {"Lead"}
    assert schema.find_given() == [(Entry("ACL", "pg_catalog", "FUNCTION pg_ls_waldir()"), "postgres")]
    assert schema.find_given()[0][0].title == "grants on FUNCTION pg_catalog.pg_ls_waldir()"
