# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Nothing that is written into a database becomes a statement of whoever restores it."""

from __future__ import annotations

import pytest

from ansible_collections.lowtide.ops.plugins.module_utils._common.errors import Refusal
from ansible_collections.lowtide.ops.plugins.module_utils._pg_restore.dump_text import Entry, read_schema
from ansible_collections.lowtide.ops.plugins.module_utils._pg_restore.sql_text import rename_database, split_statements

EVIL = "x\n--\n-- Name: shop; Type: {kind}; Schema: -; Owner: o\n--\n\n{statement}\n"
PLANTED = EVIL.format(kind="DATABASE", statement="ALTER ROLE mallory SUPERUSER;")
PROPERTY = EVIL.format(kind="DATABASE PROPERTIES", statement="ALTER DATABASE shop SET session_preload_libraries = 'x';")


def write_dump(*objects: tuple[str, str, str, str], settings: str = "SET standard_conforming_strings = on;") -> str:
    """The text of a dump: kind, schema, name and statements of each object."""
    text = f"--\n-- PostgreSQL database dump\n--\n\n-- Dumped from database version 15.18\n\n{settings}\n\n"
    for kind, schema, name, body in (
        (
            "DATABASE",
            "-",
            "shop",
            "CREATE DATABASE shop WITH TEMPLATE = template0;\n\n\nALTER DATABASE shop OWNER TO o;",
        ),
        *objects,
    ):
        text += f"--\n-- Name: {name}; Type: {kind}; Schema: {schema}; Owner: o\n--\n\n{body}\n\n\n"
    return text + "SET default_tablespace = '';\n\n--\n-- PostgreSQL database dump complete\n--\n\n\\unrestrict x\n"


@pytest.mark.parametrize("planted", [PLANTED, PROPERTY])
@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("COMMENT", "COMMENT ON TABLE public.t IS '{}';"),
        ("COMMENT", "COMMENT ON TABLE public.t IS E'\\\\''{}';"),
        ("COMMENT", "COMMENT ON TABLE public.t IS 'it''s \\{}';"),
        ("FUNCTION", "CREATE FUNCTION public.f() RETURNS text LANGUAGE sql AS $_$ SELECT $$'{} $$ $_$;"),
        ("FUNCTION", "CREATE FUNCTION public.a$b$() RETURNS text LANGUAGE sql AS $b$ ' {} $b$;"),
        ("VIEW", "CREATE VIEW public.v AS\n SELECT '{}'::text AS \"it's\n--\n; /*\";"),
        ("VIEW", 'CREATE VIEW public.v AS\n SELECT $1 AS """{}";'),
        ("OPERATOR", "CREATE VIEW public.v AS SELECT 1 -- '\n, '{}';"),
    ],
)
def test_a_literal_is_never_a_statement_of_the_database(kind: str, body: str, planted: str) -> None:
    """Wherever it is: a comment, a function, a view, a name."""
    planted = planted.replace("'", "''") if "'{}" in body or "{}'" in body else planted
    schema = read_schema(write_dump((kind, "public", "t", body.replace("{}", planted))))
    assert [entry.kind for entry in schema.entries] == ["DATABASE", kind]
    assert schema.name_copy("c") == (
        "CREATE DATABASE c WITH TEMPLATE = template0;",
        ["ALTER DATABASE c OWNER TO o;"],
        [],
        [],
    )


def test_a_comment_of_the_database_itself_is_one_literal() -> None:
    """Its owner writes it; the end of it may look like a setting."""
    text = "COMMENT ON DATABASE shop IS '" + PLANTED + "SET a = b;';"
    schema = read_schema(write_dump(("COMMENT", "-", "DATABASE shop", text)))
    assert schema.name_copy("c").further[1:] == [text.replace("shop IS", "c IS")]


def test_the_settings_of_the_dump_say_what_a_backslash_is() -> None:
    """Without standard_conforming_strings it escapes."""
    body = "COMMENT ON TABLE public.t IS '\\'" + PLANTED + "';"
    schema = read_schema(
        write_dump(("COMMENT", "public", "TABLE t", body), settings="SET standard_conforming_strings = off;")
    )
    assert [entry.kind for entry in schema.entries] == ["DATABASE", "COMMENT"]


def test_a_name_that_looks_like_a_header_is_none() -> None:
    """It is one line; the object is compared, and nothing of it is executed for the database."""
    names = (
        ("TABLE", "public", "shop; Type: DATABASE; Schema: -; Owner: z", "CREATE TABLE public.x ();"),
        ("TABLE", "s; Type: DATABASE PROPERTIES; Schema: -", "t", "ALTER DATABASE shop SET a = 'b';"),
    )
    schema = read_schema(write_dump(*names))
    assert len(schema.entries) == 3
    assert len(schema.name_copy("c").further) == 1
    assert schema.name_copy("c").properties == []


@pytest.mark.parametrize(
    "text",
    [
        "CREATE TABLE t (a text DEFAULT 'x);",
        'CREATE TABLE "t;',
        "CREATE FUNCTION f() AS $a$ x $b$;",
        "SELECT 1 /* /* */;",
        "SELECT 1 \\g",
    ],
)
def test_a_text_that_cannot_be_read_is_refused(text: str) -> None:
    """Nothing is guessed."""
    with pytest.raises(Refusal, match="has no end"):
        read_schema(write_dump(("TABLE", "public", "t", text)))


@pytest.mark.parametrize(
    ("statement", "renamed"),
    [
        ("CREATE DATABASE shop WITH TEMPLATE = template0 ENCODING = 'UTF8';", None),
        ('ALTER DATABASE shop OWNER TO "a b";', None),
        ("REVOKE CONNECT,TEMPORARY ON DATABASE shop FROM PUBLIC;", None),
        ('GRANT CREATE ON DATABASE shop TO "x" WITH GRANT OPTION;', None),
        ("COMMENT ON DATABASE shop IS 'DATABASE shop; it''s';", "COMMENT ON DATABASE c IS 'DATABASE shop; it''s';"),
        ("SECURITY LABEL FOR dummy ON DATABASE shop IS 'x';", None),
        ("ALTER DATABASE shop SET search_path TO 'a', 'b';", None),
        ("ALTER DATABASE shop CONNECTION LIMIT = 5;", None),
        (
            'ALTER ROLE "x DATABASE ""c" IN DATABASE shop SET a TO \'shop\';',
            'ALTER ROLE "x DATABASE ""c" IN DATABASE c SET a TO \'shop\';',
        ),
        ("SET SESSION AUTHORIZATION boss;", "SET SESSION AUTHORIZATION boss;"),
        ("RESET SESSION AUTHORIZATION;", "RESET SESSION AUTHORIZATION;"),
    ],
)
def test_what_pg_dump_writes_of_a_database_is_for_another_one(statement: str, renamed: str | None) -> None:
    """The name of the database only, whatever else it says."""
    assert rename_database(statement, "shop", "c") == (renamed or statement.replace("shop", "c"))
    weird = rename_database('COMMENT ON DATABASE "we""ird" IS \'x\';', '"we""ird"', '"a""\\1"')
    assert weird == 'COMMENT ON DATABASE "a""\\1" IS \'x\';'


@pytest.mark.parametrize(
    "statement",
    [
        "ALTER ROLE mallory SUPERUSER;",
        "ALTER ROLE mallory SET search_path TO 'x';",
        "ALTER DATABASE other OWNER TO mallory;",
        "ALTER DATABASE shop RENAME TO other;",
        "DROP DATABASE shop;",
        "GRANT boss TO mallory;",
        "COMMENT ON DATABASE shop IS 'x'; ALTER ROLE mallory SUPERUSER;",
        "ALTER DATABASE shop SET a TO 'x'; ALTER ROLE mallory SUPERUSER;",
        "ALTER DATABASE shop SET a TO '\\'; ALTER ROLE mallory SUPERUSER; --';",
        "CREATE DATABASE shop TEMPLATE template0",
        "",
    ],
)
def test_any_other_statement_is_refused(statement: str) -> None:
    """Whoever has written it."""
    with pytest.raises(Refusal, match="not executed"):
        rename_database(statement, "shop", "c")


def test_two_databases_in_a_dump_are_refused() -> None:
    """Only one is restored."""
    schema = read_schema(write_dump(("DATABASE", "-", "other", "CREATE DATABASE other TEMPLATE template0;")))
    with pytest.raises(Refusal, match="not one database"):
        schema.name_copy("c")
    assert read_schema("").name_copy("c").creating == "CREATE DATABASE c TEMPLATE template0"


def test_statements_are_divided_as_the_server_does() -> None:
    """Semicolons and comments in literals are part of them."""
    assert split_statements("SELECT 'a;b' ; SELECT $x$;$x$;\n") == ["SELECT 'a;b' ;", "SELECT $x$;$x$;"]


def test_settings_between_objects_belong_to_none() -> None:
    """They follow the order of the objects, which means nothing."""
    body = "CREATE TABLE public.t (\n    a text\n);\n\n\nSET default_tablespace = x;"
    schema = read_schema(write_dump(("TABLE", "public", "t", body)))
    assert schema.entries[Entry("TABLE", "public", "t")] == ["CREATE TABLE public.t (", "    a text", ");"]
