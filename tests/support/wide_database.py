# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A database with whatever a dump in several streams may come apart at, and how two of them are compared."""

from __future__ import annotations

from typing import Any

from support.backups import Site, quoted

ODD_NAMES = (
    "dotted.name",
    'quo"ted',
    '"".""',
    "star*",
    "starling",
    "quest?ion",
    "questXion",
    "dollar$",
    "[a-z]{2,}(b|c)+^\\d",
    "new\nline",
    "tab\tand space ",
    "Upper",
    "upper",
    "it's",
    "--table",
    "%s",
    "\u00fcn\u00ef",
    "n" * 63,
)
"""Names of tables; where one would be read as a pattern, another one matches it."""
ODD_SCHEMA = 'odd.sch"ema*'
MIB_VALUE = "repeat(md5(random()::text), 40000)"
"""A value of 1.2 MB, which is stored as it is where the column says so."""

SEED = """
CREATE TYPE colour AS ENUM ('red', 'green', 'blue');
CREATE TABLE customer (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text NOT NULL UNIQUE);
INSERT INTO customer (name) SELECT 'c' || g FROM generate_series(1, 100) g;
CREATE TABLE orders (
  id bigserial PRIMARY KEY, customer int NOT NULL REFERENCES customer, parent bigint REFERENCES orders,
  amount int NOT NULL CHECK (amount > 0), twice int GENERATED ALWAYS AS (amount * 2) STORED, note text);
INSERT INTO orders (customer, parent, amount, note)
  SELECT 1 + g % 100, CASE WHEN g % 7 = 0 THEN g - 1 END, g, repeat(md5(g::text), 4) FROM generate_series(1, 90000) g;
CREATE TABLE line (orders bigint REFERENCES orders, number int, text text, PRIMARY KEY (orders, number));
INSERT INTO line SELECT 1 + g % 90000, g, repeat(md5(g::text), 4) FROM generate_series(1, 90000) g;
CREATE INDEX ON line (text);
CREATE TABLE event (at date NOT NULL, orders bigint REFERENCES orders, text text) PARTITION BY RANGE (at);
CREATE TABLE event_1 PARTITION OF event FOR VALUES FROM ('2026-01-01') TO ('2026-02-01');
CREATE TABLE event_2 PARTITION OF event FOR VALUES FROM ('2026-02-01') TO ('2026-03-01');
CREATE TABLE event_rest PARTITION OF event DEFAULT PARTITION BY LIST (orders);
CREATE TABLE event_rest_null PARTITION OF event_rest DEFAULT;
INSERT INTO event
  SELECT date '2026-01-01' + g % 80, 1 + g % 90000, repeat(md5(g::text), 5) FROM generate_series(1, 90000) g;
CREATE TABLE painted (c colour, text text) PARTITION BY HASH (c);
CREATE TABLE painted_1 PARTITION OF painted FOR VALUES WITH (MODULUS 2, REMAINDER 0);
CREATE TABLE painted_2 PARTITION OF painted FOR VALUES WITH (MODULUS 2, REMAINDER 1);
INSERT INTO painted
  SELECT (enum_range(NULL::colour))[1 + g % 3], repeat(md5(g::text), 4) FROM generate_series(1, 20000) g;
CREATE TABLE parent (i int, text text);
CREATE TABLE child (more int) INHERITS (parent);
INSERT INTO parent SELECT g, repeat(md5(g::text), 4) FROM generate_series(1, 20000) g;
INSERT INTO child SELECT g, repeat(md5(g::text), 4), g FROM generate_series(1, 20000) g;
CREATE UNLOGGED TABLE unlogged AS SELECT g, repeat(md5(g::text), 4) AS text FROM generate_series(1, 20000) g;
CREATE TABLE empty (i int);
CREATE MATERIALIZED VIEW totals AS SELECT customer, sum(amount) AS amount FROM orders GROUP BY customer;
CREATE VIEW big_orders AS SELECT * FROM orders WHERE amount > 89000;
CREATE SEQUENCE counter START 41;
SELECT nextval('counter');
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RAISE EXCEPTION 'no more rows'; END$$;
CREATE TRIGGER refuse BEFORE INSERT ON line FOR EACH ROW EXECUTE FUNCTION refuse();
CREATE RULE nothing AS ON INSERT TO child DO INSTEAD NOTHING;
SELECT lo_from_bytea(0, convert_to(repeat('large ' || g, 1000), 'UTF8')) FROM generate_series(1, 20) g;
"""

# Which partition of a table that is hashed by an enum a row is in, is another matter in each database.
ROWS = """
SELECT n.nspname, c.relname, (xpath('/row/h/text()', query_to_xml(format(
       'SELECT count(*) || ''/'' || coalesce(sum(hashtextextended(x::text, 0)), 0) AS h FROM %s %I.%I x',
       CASE c.relkind WHEN 'p' THEN '' ELSE 'ONLY' END, n.nspname, c.relname), false, true, '')))[1]::text
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE c.relkind IN ('r', 'p', 'm') AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_'
   AND c.relname NOT IN ('painted_1', 'painted_2') ORDER BY 1, 2
"""
SEQUENCES = "SELECT schemaname, sequencename, last_value FROM pg_sequences ORDER BY 1, 2"
OBJECTS = "SELECT oid, md5(lo_get(oid)) FROM pg_largeobject_metadata ORDER BY 1"
# PostgreSQL 18 has NOT NULL among the constraints.
DEFINITIONS = """
SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid), convalidated FROM pg_constraint
 WHERE contype <> 'n' AND connamespace::regnamespace::text !~ '^(pg_|information_schema)'
UNION ALL SELECT tgrelid::regclass::text, tgname, pg_get_triggerdef(oid), true FROM pg_trigger WHERE NOT tgisinternal
UNION ALL SELECT tablename, indexname, indexdef, true FROM pg_indexes WHERE schemaname !~ '^(pg_|information_schema)'
 ORDER BY 1, 2, 3
"""


DATABASE = """
SELECT pg_encoding_to_char(d.encoding), d.datcollate, d.datctype, pg_get_userbyid(d.datdba),
       shobj_description(d.oid, 'pg_database'), (SELECT array_agg(a::text ORDER BY a::text) FROM unnest(d.datacl) a),
       (SELECT setconfig FROM pg_db_role_setting WHERE setdatabase = d.oid AND setrole = 0)
  FROM pg_database d WHERE d.datname = current_database()
"""


def fill(site: Site) -> None:
    """Make all of it; each table with an odd name is large enough to be taken out of the main stream."""
    site.sql(SEED)
    database = quoted(site.database)
    site.sql(f"ALTER DATABASE {database} SET work_mem = '7MB'; COMMENT ON DATABASE {database} IS 'wide'")
    site.sql(f"REVOKE CONNECT, TEMPORARY ON DATABASE {database} FROM PUBLIC")
    schema = quoted(ODD_SCHEMA)
    site.sql(f"CREATE SCHEMA {schema}")
    for name in ODD_NAMES:
        table = f"{schema}.{quoted(name)}"
        site.sql(f"CREATE TABLE {table} (id int GENERATED BY DEFAULT AS IDENTITY, value text)")
        site.sql(f"ALTER TABLE {table} ALTER value SET STORAGE EXTERNAL")
        site.sql(f"INSERT INTO {table} (value) SELECT {MIB_VALUE} FROM generate_series(1, 2)")


def describe(site: Site, database: str | None = None) -> dict[str, list[tuple[Any, ...]]]:
    """All that two databases have to have in common."""
    questions = {"rows": ROWS, "sequences": SEQUENCES, "objects": OBJECTS, "definitions": DEFINITIONS}
    questions["database"] = DATABASE
    return {name: site.sql(question, database=database) for name, question in questions.items()}
