# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Pure parts of restores: texts of dumps, differences, marks and names, roles."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import psycopg2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.lowtide.ops.plugins.module_utils._common.errors import Refusal
from ansible_collections.lowtide.ops.plugins.module_utils._pg_restore import compare, role_statements, side
from ansible_collections.lowtide.ops.plugins.module_utils._pg_restore.dump_text import (
    Data,
    DataReader,
    Entry,
    Rows,
    Schema,
    find_encoding,
    join_data,
    list_object_owners,
    read_schema,
)
from ansible_collections.lowtide.ops.plugins.module_utils._pg_restore.rights import refuse_timescaledb
from ansible_collections.lowtide.ops.plugins.module_utils._pg_restore.side import (
    Database,
    Mark,
    name_database,
    read_comment,
)
from ansible_collections.lowtide.ops.plugins.module_utils._pg_restore.source import is_foreign, name_foreign
from ansible_collections.lowtide.ops.plugins.module_utils._s3.bucket import Listed

HEAD = """--
-- PostgreSQL database dump
--

\\restrict Abc123

-- Dumped from database version 15.18 (Debian 15.18-0+deb12u1)
-- Dumped by pg_dump version 17.6

SET client_encoding = 'LATIN1';
SELECT pg_catalog.set_config('search_path', '', false);

--
-- Name: shop; Type: DATABASE; Schema: -; Owner: boss
--

CREATE DATABASE shop WITH TEMPLATE = template0 ENCODING = 'UTF8';


ALTER DATABASE shop OWNER TO boss;

\\unrestrict Abc123
\\connect shop
\\restrict Abc123

SET statement_timeout = 0;

--
-- Name: DATABASE shop; Type: COMMENT; Schema: -; Owner: boss
--

COMMENT ON DATABASE shop IS 'one;

DATABASE three';


--
-- Name: timescaledb; Type: EXTENSION; Schema: -; Owner: -
--

CREATE EXTENSION IF NOT EXISTS timescaledb WITH SCHEMA public;


SET default_tablespace = '';

--
-- Name: orders; Type: TABLE; Schema: public; Owner: "Odd ""one"
--

CREATE TABLE public.orders (
    i integer
);


ALTER TABLE public.orders OWNER TO "Odd ""one";

--
-- Name: p; Type: POLICY; Schema: public; Owner: boss
--

CREATE POLICY p ON public.orders TO clerk, "A b" USING (true);


--
-- Name: TABLE orders; Type: ACL; Schema: public; Owner: boss
--

GRANT SELECT ON TABLE public.orders TO reader WITH GRANT OPTION;
GRANT INSERT ON TABLE public.orders TO PUBLIC;


--
-- Name: DEFAULT PRIVILEGES FOR TABLES; Type: DEFAULT ACL; Schema: public; Owner: boss
--

ALTER DEFAULT PRIVILEGES FOR ROLE maker IN SCHEMA public GRANT SELECT ON TABLES TO taker;


--
-- PostgreSQL database dump complete
--

\\unrestrict Abc123
"""
ROWS = b"""
--
-- Data for Name: orders; Type: TABLE DATA; Schema: public; Owner: boss
--

COPY public.orders (i) FROM stdin;
1
2
two;\\\\.
\\.


SELECT pg_catalog.setval('public.counter', 41, true);
SELECT pg_catalog.setval('public."it''s"', 1, false);

BEGIN;

SELECT pg_catalog.lo_open('16423', 131072);
SELECT pg_catalog.lowrite(0, '\\x7879');
SELECT pg_catalog.lowrite(0, '\\x7a');
SELECT pg_catalog.lo_close(0);

SELECT pg_catalog.lo_open('5', 131072);
SELECT pg_catalog.lo_close(0);

COMMIT;
"""


def read(text: bytes, size: int = 1 << 20) -> Data:
    """What is in a text that comes in pieces."""
    reader = DataReader()
    for start in range(0, len(text), size):
        reader.feed(text[start : start + size])
    assert reader.explain_end() is None
    return reader.read()


def test_objects_of_a_dump_are_read() -> None:
    """Each with its statements, without settings and commands of psql; and who is named in them."""
    schema = read_schema(HEAD)
    assert (schema.server_version, schema.program_version, find_encoding(HEAD.encode())) == (15, 17, "LATIN1")
    assert [entry.kind for entry in schema.entries] == [
        *("DATABASE", "COMMENT", "EXTENSION", "TABLE", "POLICY", "ACL", "DEFAULT ACL")
    ]
    assert schema.extensions == ["timescaledb"]
    assert schema.find_owners() == {"boss", 'Odd "one', "maker"}
    assert schema.find_roles() == {"boss", 'Odd "one', "clerk", "A b", "reader", "maker", "taker"}
    assert schema.name_copy("c") == (
        "CREATE DATABASE c WITH TEMPLATE = template0 ENCODING = 'UTF8';",
        ["ALTER DATABASE c OWNER TO boss;", "COMMENT ON DATABASE c IS 'one;\n\nDATABASE three';"],
        [],
        [],
    )
    assert schema.entries[Entry("EXTENSION", "-", "timescaledb")] == [
        "CREATE EXTENSION IF NOT EXISTS timescaledb WITH SCHEMA public;"
    ]


@pytest.mark.procedure("B20")
def test_a_dump_of_timescaledb_is_refused() -> None:
    """With the calls that its restore takes; any other is not."""
    with pytest.raises(Refusal, match=r"timescaledb_pre_restore\(\)"):
        refuse_timescaledb(read_schema(HEAD), "s3://b/k")
    refuse_timescaledb(Schema({}, None, None), "s3://b/k")


@given(st.integers(min_value=1, max_value=len(ROWS)))
def test_content_is_read_in_any_pieces(size: int) -> None:
    """Rows, sequences and large objects."""
    whole, pieces = read(ROWS), read(ROWS, size)
    assert pieces == whole
    assert whole.rows["public", "orders"].number == 3
    assert whole.sequences == {"public.counter": (41, True), 'public."it\'s"': (1, False)}
    assert set(whole.objects) == {16423, 5}


@given(st.permutations([b"1", b"2", b"two;\\\\.", b"2", b""]))
def test_order_of_rows_means_nothing_and_each_row_counts(rows: list[bytes]) -> None:
    """The sum of the hashes is the same; without one row, or with another one, it is not."""

    def text(lines: list[bytes]) -> bytes:
        return b"COPY public.t (i) FROM stdin;\n" + b"".join(line + b"\n" for line in lines) + b"\\.\n"

    first = read(text([b"1", b"2", b"two;\\\\.", b"2", b""])).rows
    assert read(text(rows)).rows == first
    assert read(text(rows[1:])).rows != first
    assert read(text([*rows[1:], b"3"])).rows["public", "t"].total != first["public", "t"].total


def test_each_difference_of_content_is_named() -> None:
    """More, fewer and other rows; sequences; large objects; a table without rows may be left out."""
    expected = Data(
        {("p", "a"): Rows(2, 7), ("p", "b"): Rows(2, 7), ("p", "empty"): Rows(0, 0)},
        {"s": (4, True), "t": (1, False)},
        {1: "x", 2: "y"},
        {1: 5, 2: 6},
    )
    actual = Data(
        {("p", "a"): Rows(1, 7), ("p", "b"): Rows(2, 8), ("p", "c"): Rows(1, 1)},
        {"s": (5, True)},
        {1: "z", 3: "y"},
        {1: 7, 3: 6},
    )
    assert [f"{entry.object}: {entry.what}" for entry in compare.compare_data(expected, actual)] == [
        "table p.a: it has 1 row, not 2",
        "table p.b: it has as many rows (2), but not the same ones",
        "table p.c: it has 1 row, not 0",
        "sequence s: it is at 5, where it should be that it is at 4",
        "sequence t: it is missing, where it should be that it starts at 1",
        "large object 1: its content is another",
        "large object 2: it is missing",
        "large object 3: it should not be there",
    ]
    assert compare.compare_data(expected, expected) == []
    assert compare.compare_objects(expected, actual) == [("large object 1", "its owner, grants or comment are others")]
    assert compare.compare_objects(expected, expected) == []
    assert compare.select_tables(expected, {("p", "a")}).rows == {("p", "a"): Rows(2, 7)}
    assert join_data([expected, actual]).rows["p", "c"] == Rows(1, 1)


def test_tables_whose_names_join_to_the_same_text_are_two() -> None:
    """A table b.c in a, and a table c in a.b."""
    text = b'COPY "a.b".c (i) FROM stdin;\n%b\\.\n\nCOPY a."b.c" (i) FROM stdin;\n1\n\\.\n'
    full, less = read(text % b"1\n2\n"), read(text % b"")
    assert [entry.object for entry in compare.compare_data(full, less)] == ['table "a.b".c']


@pytest.mark.parametrize(
    ("full", "other", "what"),
    [
        (
            rb"SELECT pg_catalog.lowrite(0, E'\\x616263');",
            rb"SELECT pg_catalog.lowrite(0, E'\\x58595a');",
            "large object 7",
        ),
        (
            rb"SELECT pg_catalog.lowrite(0, '\\x616263');",
            rb"SELECT pg_catalog.lowrite(0, '\\x58595a');",
            "large object 7",
        ),
        (
            rb"SELECT pg_catalog.setval(E'p.\"a\\b\"', 5, true);",
            rb"SELECT pg_catalog.setval(E'p.\"a\\b\"', 1, true);",
            "sequence",
        ),
    ],
)
def test_literals_with_escapes_are_read(full: bytes, other: bytes, what: str) -> None:
    """As a database with standard_conforming_strings off has them in its dump."""
    start = b"SELECT pg_catalog.lo_open('7', 131072);\n"
    found = compare.compare_data(read(start + full + b"\n"), read(start + other + b"\n"))
    assert [entry.object.startswith(what) for entry in found] == [True]
    plain = read(rb"SELECT pg_catalog.setval('p.\"a\b\"', 5, true);" + b"\n").sequences
    assert what != "sequence" or plain == read(full + b"\n").sequences


def test_what_is_said_of_large_objects_among_the_rows_is_read() -> None:
    """By pg_dump 17 and newer: owner, grants, comment, in whatever order; and one without content is there."""
    made = b"SELECT pg_catalog.lo_create('7');\nSELECT pg_catalog.lo_create('8');\n"
    about = [
        b"ALTER LARGE OBJECT 7 OWNER TO a;\n",
        b"GRANT SELECT ON LARGE OBJECT 7 TO b;\n",
        b"COMMENT ON LARGE OBJECT 7 IS 'x; y';\n",
        b"ALTER LARGE OBJECT 8 OWNER TO a;\n",
    ]
    full = read(made + b"".join(about))
    assert set(full.objects) == {7, 8}
    assert read(made + b"".join(reversed(about))) == full
    for line in about[:3]:
        less = read(made + b"".join(entry for entry in about if entry != line))
        assert [entry.object for entry in compare.compare_objects(full, less)] == ["large object 7"]
    listing = "3284; 2613 900001 BLOB METADATA - 900001..900003 some one\n3285; 0 0 BLOBS - 900001..900003 other\n"
    assert list_object_owners(listing) == {"some one"}
    assert Schema({}, None, None, list_object_owners(listing)).find_roles() == {"some one"}


def test_a_call_that_nobody_knows_is_not_passed_over() -> None:
    """What it does could not be compared."""
    reader = DataReader()
    reader.feed(b"SELECT pg_catalog.set_config('search_path', '', false);\nSELECT pg_catalog.lo_truncate(0, 3);\n")
    with pytest.raises(Refusal, match="lo_truncate"):
        reader.read()


@pytest.mark.parametrize("values", [b" VALUES (1, 'canary;')", b" (i, t) VALUES (1, 'canary')", b" DEFAULT VALUES"])
def test_rows_as_statements_are_refused_at_once(values: bytes) -> None:
    """They would be restored, and be a difference of every table then; a row that looks like one is a row."""
    reader = DataReader()
    reader.feed(ROWS.replace(b"two;", b"INSERT INTO x VALUES (1);"))
    reader.check()
    reader.feed(b"INSERT INTO public.t" + values + b";\n")
    for ask in (reader.check, reader.read):
        with pytest.raises(Refusal, match="--inserts") as caught:
            ask()
        assert "public.t" in str(caught.value)
        assert "canary" not in str(caught.value)


def test_each_difference_of_the_database_itself_is_named() -> None:
    """Owner, grants, settings of it and of roles in it, comment; not its name, and not our mark."""
    mark = Mark("R", "it's", side.RESTORED, oid=7, system="1").write("one;\n\nDATABASE three").replace("'", "''")
    shop = HEAD.replace(
        "COMMENT ON DATABASE shop IS 'one;\n\nDATABASE three';", f"COMMENT ON DATABASE shop IS '{mark}';"
    )
    assert shop != HEAD
    assert compare.compare_databases(read_schema(HEAD), read_schema(shop), "shop") == []
    other = read_schema(HEAD.replace("ALTER DATABASE shop OWNER TO boss", "ALTER DATABASE shop OWNER TO clerk"))
    (found,) = compare.compare_databases(read_schema(HEAD), other, "shop")
    assert "missing is ALTER DATABASE shop OWNER TO boss; not" not in found.what
    assert "missing is ALTER DATABASE shop OWNER TO boss;" in found.what
    assert "not expected is ALTER DATABASE shop OWNER TO clerk;" in found.what
    assert compare.compare_databases(Schema({}, None, None), other, "shop") == []


def test_a_database_that_nobody_may_come_into_is_no_copy() -> None:
    """What an interrupted DROP DATABASE has left is made anew."""
    expected = Mark("R", "shop", side.RESTORED)
    found = Database(7, "c", "boss", expected._replace(oid=7, system="1").write(""), -1, True)
    assert found.is_restored(expected, system="1")
    assert not found._replace(connection_limit=-2).is_restored(expected, system="1")


def test_each_difference_of_definitions_is_named() -> None:
    """Missing, too many, changed, and the statement of a grant; not what belongs to the database as a whole."""
    full = read_schema(HEAD)
    less = read_schema(HEAD.replace("TO reader WITH GRANT OPTION", "TO other").replace("i integer", "i bigint"))
    less.entries[Entry("VIEW", "public", "v")] = ["CREATE VIEW public.v AS SELECT 1;"]
    del less.entries[Entry("EXTENSION", "-", "timescaledb")]
    del less.entries[Entry("DATABASE", "-", "shop")]
    del less.entries[Entry("DEFAULT ACL", "public", "DEFAULT PRIVILEGES FOR TABLES")]
    assert {f"{entry.object}: {entry.what}" for entry in compare.compare_schemas(full, less)} == {
        "grants on TABLE public.orders: missing is GRANT SELECT ON TABLE public.orders TO reader WITH GRANT OPTION;;"
        " not expected is GRANT SELECT ON TABLE public.orders TO other;",
        "default acl public.DEFAULT PRIVILEGES FOR TABLES: it is missing",
        "extension timescaledb: it is missing",
        "table public.orders: missing is i integer; not expected is i bigint",
        "view public.v: it should not be there",
    }


@given(st.text(max_size=40), st.text(min_size=1, max_size=40))
def test_a_mark_is_read_as_it_was_written(comment: str, database: str) -> None:
    """Behind whatever a person has written, which stays; written again, there is one."""
    mark = Mark("20261121T020000Z-5f1c2a77", database, side.RESTORED, ("public.a",))
    written = mark.write(comment)
    assert read_comment(written) == (comment, mark)
    again = mark._replace(state=side.LIVE)
    assert read_comment(again.write(written)) == (comment, again)


@pytest.mark.parametrize(
    "comment",
    [
        None,
        "",
        "lowtide.ops pg_restore",
        "lowtide.ops pg_restore by hand",
        'lowtide.ops pg_restore {"backup": "x"}',
        "a\nb",
    ],
)
def test_what_is_not_a_mark_is_none(comment: str | None) -> None:
    """So that the database is left alone; and one of a later format neither."""
    assert read_comment(comment) == (comment or "", None)
    mark = Mark("20261121T020000Z-5f1c2a77", "shop", side.RESTORED)
    database = Database(1, "shop_restore", "boss", comment, -1, True)
    with pytest.raises(Refusal, match="left alone"):
        side.refuse_foreign(database, expected=mark)
    later = mark._replace(schema_version=2).write(comment)
    with pytest.raises(Refusal, match="left alone"):
        side.refuse_foreign(database._replace(comment=later), expected=mark)
    side.refuse_foreign(database._replace(connection_limit=side.MARK_LIMIT), expected=mark)


def test_a_live_mark_is_of_one_database_of_one_cluster() -> None:
    """A dump takes the comment along: another oid, cluster, database, run or state is not the one that took the place."""
    mark = Mark("R", "shop", side.LIVE, oid=7, system="1", since="T")
    database = Database(7, "shop", "boss", mark.write("ours"), -1, True)
    assert read_comment(mark.write("ours")) == ("ours", mark)
    assert database.find_live_since("R", system="1") == "T"
    assert database.find_live_since("S", system="1") is None
    assert database.find_live_since("R", system="2") is None
    assert database._replace(oid=8).find_live_since("R", system="1") is None
    assert database._replace(name="other").find_live_since("R", system="1") is None
    for change in ({"state": side.RESTORED}, {"database": "other"}, {"oid": 0}):
        assert database._replace(comment=mark._replace(**change).write("")).find_live_since("R", system="1") is None


def test_a_mark_of_a_copy_is_of_one_database() -> None:
    """Restored whole, equal or not; not another backup, part, state or database."""
    expected = Mark("R", "shop", side.RESTORED)
    own = expected._replace(oid=7, system="1")
    for mark, is_restored in (
        (own, True),
        (own._replace(since="T"), True),
        (own._replace(oid=8), False),
        (own._replace(system="2"), False),
        (own._replace(tables=("a",)), False),
        (own._replace(backup="S"), False),
        (own._replace(state=side.RESTORING), False),
        (expected, False),
    ):
        database = Database(7, "c", "boss", mark.write("ours"), -1, True)
        assert database.is_restored(expected, system="1") is is_restored


def test_a_foreign_dump_is_known_by_what_it_is() -> None:
    """Another one under the same key is another backup."""
    moment = datetime(2026, 11, 27, tzinfo=UTC)
    entry = Listed("dumps/latest.dump", 3, "e", moment)
    changes = ({"key": "k"}, {"size": 4}, {"etag": "f"}, {"modified": moment + timedelta(days=1)})
    names = [name_foreign(entry), *(name_foreign(replace(entry, **change)) for change in changes)]
    assert len(set(names)) == 5
    assert all(is_foreign(name) for name in names)
    assert not is_foreign("20261121T020000Z-5f1c2a77")


@given(st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=63))
def test_names_fit_and_tell_their_run(database: str) -> None:
    """In 63 bytes, whole characters, and differently for each purpose and run."""
    run, other = "20261121T020000Z-5f1c2a77", "20261121T020000Z-5f1c2a78"
    names = {name_database(database, purpose, of) for purpose in ("restore", "before", "drill") for of in (run, other)}
    assert len(names) == 6
    assert all(len(name.encode()) <= 63 for name in names)


def test_roles_are_made_as_they_were() -> None:
    """Those that are missing, with what they are members of; nothing of others."""
    text = """CREATE ROLE reader;
ALTER ROLE reader WITH NOSUPERUSER LOGIN PASSWORD 'SCRAM-SHA-256$x';
ALTER ROLE reader SET work_mem TO '8MB';
CREATE ROLE "Odd one";
ALTER ROLE "Odd one" WITH NOLOGIN;
CREATE TABLESPACE t OWNER reader LOCATION '/x';
GRANT team TO reader GRANTED BY postgres;
GRANT gone TO reader WITH ADMIN OPTION GRANTED BY postgres;
GRANT team TO boss GRANTED BY postgres;
"""
    assert role_statements.list_roles(text) == {"reader", "Odd one"}
    assert role_statements.list_statements(text, {"reader"}, {"team", "boss"}) == [
        "CREATE ROLE reader;",
        "ALTER ROLE reader WITH NOSUPERUSER LOGIN PASSWORD 'SCRAM-SHA-256$x';",
        "ALTER ROLE reader SET work_mem TO '8MB';",
        "GRANT team TO reader;",
    ]


class Connection:
    """A server that fails at one statement, and knows what was committed."""

    closed = 0

    def __init__(self, bad: str | None) -> None:
        self.connection = self
        self._bad = bad
        self._open: list[str] | None = None
        self.committed: list[str] = []

    def execute(self, sql: str) -> None:
        """Take a statement."""
        if sql == self._bad:
            raise psycopg2.Error("refused")
        if sql == "BEGIN":
            self._open = []
        elif sql in ("COMMIT", "ROLLBACK"):
            self.committed += (self._open or []) if sql == "COMMIT" else []
            self._open = None
        elif self._open is None:
            self.committed.append(sql)
        else:
            self._open.append(sql)


def test_roles_are_made_together_or_not_at_all() -> None:
    """A role without its login and its memberships would be taken for one that is there."""
    statements = ["CREATE ROLE a;", "ALTER ROLE a WITH LOGIN;", "GRANT team TO a;"]
    whole = Connection(None)
    role_statements.create_roles(whole, statements)  # type: ignore[arg-type]
    assert whole.committed == statements
    refused = Connection("GRANT team TO a;")
    with pytest.raises(psycopg2.Error):
        role_statements.create_roles(refused, statements)  # type: ignore[arg-type]
    refused.execute("SELECT 1")
    assert refused.committed == ["SELECT 1"]


def test_a_setting_of_a_role_is_no_statement() -> None:
    """Each role sets what it likes for itself, also what looks like lines of the document."""
    planted = "ALTER ROLE reader SET a.b TO 'x\nALTER ROLE reader WITH SUPERUSER;\nCREATE ROLE other;\n';"
    text = f"--\n-- Roles\n--\n\n\\restrict x\nSET client_encoding = 'UTF8';\nCREATE ROLE reader;\n{planted}\n\n\\unrestrict x\n"
    assert role_statements.list_roles(text) == {"reader"}
    assert role_statements.list_statements(text, {"reader"}, set()) == ["CREATE ROLE reader;", planted]
