# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Over random schemas: plan, apply, and the next plan is empty; nothing invalid is left, and no row is touched."""

from __future__ import annotations

import contextlib
import random
from dataclasses import dataclass, field
from typing import Any

import psycopg2
import pytest
from psycopg2 import sql

from support.turns import is_sweep

from .conftest import Database

CONDITION: dict[str, Any] = {
    "dead_tuple_ratio": 0.05,
    "changed_tuple_ratio": 0.05,
    "inserted_tuple_ratio": 0.2,
    "minimum_tuples": 50,
    "statistics_age": 86400,
    "transaction_id_age": 100_000_000,
    "invalid_indexes": "none",
    "index_bloat_ratio": 0.4,
    "minimum_index_size": 16384,
    "collation_versions": "report",
    "on_blocked": "report",
}
SCHEMAS = ["public", "Parts & more", "%s{}"]
NAMES = [
    "plain",
    "With Space",
    'quo"te',
    "a.b",
    "größe 🐘",
    "%(x)s",
    "{}",
    "select",
    "x" * 63,
    "back\\slash",
    "-o",
    "'; --",
]
INDEXES = [
    "CREATE INDEX ON {table} (state)",
    "CREATE INDEX ON {table} (id) WHERE state > 3",
    "CREATE INDEX ON {table} ((id % 5), state)",
    "CREATE INDEX ON {table} (lower(note))",
    "CREATE INDEX ON {table} (note)",
    "CREATE INDEX ON {table} USING hash (state)",
    "CREATE INDEX ON {table} (state) INCLUDE (id) WITH (fillfactor = 60, deduplicate_items = off)",
    "CREATE INDEX ON {table} USING brin (id)",
]
SEEDS = list(range(62)) if is_sweep() else [11, 37, 59]


@dataclass
class Schema:
    """A database made from one seed: its relations with rows, by kind."""

    database: Database
    chance: random.Random
    roots: list[sql.Composable] = field(default_factory=list)
    names: list[str] = field(default_factory=list)

    def run(self, *statements: str, **identifiers: sql.Composable) -> None:
        """Statements with identifiers put in, on a session of their own."""
        self.database.sql(*(sql.SQL(statement).format(**identifiers) for statement in statements))

    def take_name(self) -> sql.Identifier:
        """Return a new qualified name."""
        name = self.names.pop()
        return sql.Identifier(self.chance.choice(SCHEMAS), name)

    def add_plain(self) -> None:
        """A table with a key, some indexes, values out of line, an exclusion constraint."""
        table = self.take_name()
        options = self.chance.choice(["", " WITH (fillfactor = 70)", " WITH (autovacuum_enabled = off)"])
        self.run("CREATE TABLE {table} (id int PRIMARY KEY, state int, note text)" + options, table=table)
        if self.chance.random() < 0.3:
            self.run("ALTER TABLE {table} ALTER note SET STORAGE EXTERNAL", table=table)
        if self.chance.random() < 0.3:
            self.run("ALTER TABLE {table} ADD EXCLUDE USING btree (id WITH =)", table=table)
        self.fill(table)

    def add_partitioned(self) -> None:
        """A partitioned table, perhaps of two levels, perhaps without a row in one of them."""
        root, first, second = self.take_name(), self.take_name(), self.take_name()
        nested = self.chance.random() < 0.5
        self.run("CREATE TABLE {root} (id int, state int, note text) PARTITION BY RANGE (id)", root=root)
        by_state = " PARTITION BY LIST (state)" if nested else ""
        self.run(
            "CREATE TABLE {first} PARTITION OF {root} FOR VALUES FROM (0) TO (1000)",
            f"CREATE TABLE {{second}} PARTITION OF {{root}} FOR VALUES FROM (1000) TO (1000000){by_state}",
            root=root, first=first, second=second,
        )  # fmt: skip
        if nested:
            leaf = self.take_name()
            self.run("CREATE TABLE {leaf} PARTITION OF {second} DEFAULT", leaf=leaf, second=second)
        self.fill(root)

    def add_inherited(self) -> None:
        """A table and a child of it, both with rows."""
        parent, child = self.take_name(), self.take_name()
        self.run("CREATE TABLE {parent} (id int, state int, note text)", parent=parent)
        self.run("CREATE TABLE {child} () INHERITS ({parent})", parent=parent, child=child)
        self.fill(parent)
        self.fill(child)

    def add_view(self) -> None:
        """A materialized view with an index."""
        view = self.take_name()
        self.run(
            "CREATE MATERIALIZED VIEW {view} AS SELECT g AS id, g % 7 AS state FROM generate_series(1, 3000) g",
            "CREATE INDEX ON {view} (state)",
            view=view,
        )

    def fill(self, table: sql.Composable) -> None:
        """Rows and indexes; then changes of a part of them."""
        rows = self.chance.choice([0, 300, 3000, 12000])
        length = self.chance.choice([3, 60, 2500 if rows <= 300 else 100])
        for statement in self.chance.sample(INDEXES, self.chance.randint(0, 3)):
            self.run(statement, table=table)
        self.run(
            f"INSERT INTO {{table}} SELECT g, g % 9, repeat(md5(g::text), {length} / 32 + 1) FROM generate_series(1, {rows}) g",
            table=table,
        )
        self.roots.append(table)
        for statement in self.chance.sample(
            ["VACUUM {table}", "ANALYZE {table}", "UPDATE {table} SET state = state + 1 WHERE id % 3 = 0",
             "DELETE FROM {table} WHERE id % 10 <> 0", "VACUUM ANALYZE {table}"], self.chance.randint(0, 4),
        ):  # fmt: skip
            self.run(statement, table=table)

    def leave_invalid(self) -> None:
        """A build that was interrupted, and an index that became invalid otherwise."""
        rows = self.database.sql(
            "SELECT i.indexrelid::regclass::text FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid"
            " JOIN pg_class x ON x.oid = i.indexrelid"
            " WHERE c.relkind = 'r' AND NOT c.relispartition AND i.indisvalid AND NOT i.indisexclusion"
            " AND c.relnamespace IN ('public'::regnamespace, '\"Parts & more\"'::regnamespace, '\"%s{}\"'::regnamespace) ORDER BY 1"
        )
        for (index,) in self.chance.sample(rows, min(2, len(rows))):
            table = self.database.one(
                f"SELECT indrelid::regclass::text FROM pg_index WHERE indexrelid = $l${index}$l$::regclass"
            )
            with contextlib.closing(self.database.connect(autocommit=False)) as holder, holder.cursor() as cursor:
                cursor.execute(f"LOCK TABLE {table} IN ROW EXCLUSIVE MODE")
                with pytest.raises(psycopg2.errors.LockNotAvailable):
                    self.database.sql("SET lock_timeout = '100ms'", f"REINDEX INDEX CONCURRENTLY {index}")
                holder.rollback()

    def count_rows(self) -> list[Any]:
        """How many rows each table has, and what they are."""
        return [
            self.database.sql(
                sql.SQL("SELECT count(*), sum(hashtext(t::text)) FROM ONLY {table} t").format(table=table)
            )
            for table in self.roots
        ]


def build(database: Database, seed: int) -> Schema:
    """Return a random schema; the same for the same seed."""
    chance = random.Random(seed)  # noqa: S311 - not for secrets
    names = [f"{name[:55]}{number}" for number in range(4) for name in NAMES]
    chance.shuffle(names)
    schema = Schema(database, chance, names=names)
    for name in SCHEMAS[1:]:
        schema.run("CREATE SCHEMA {name}", name=sql.Identifier(name))
    if chance.random() < 0.5:
        schema.run("CREATE EXTENSION pgstattuple SCHEMA {name}", name=sql.Identifier("%s{}"))
    for _number in range(chance.randint(4, 8)):
        chance.choice(
            [schema.add_plain, schema.add_plain, schema.add_partitioned, schema.add_inherited, schema.add_view]
        )()
    schema.leave_invalid()
    return schema


@pytest.mark.parametrize("seed", SEEDS)
def test_the_second_plan_is_empty(database: Database, seed: int) -> None:
    """Whatever the schema: what is done is what was planned, and once is enough."""
    schema = build(database, seed)
    rows = schema.count_rows()
    predicted = database.maintain(check=True, **CONDITION)
    run = database.maintain(**CONDITION)
    assert not run.failed, run.msg
    assert [item["object"] for item in run["plan"]] == [item["object"] for item in predicted["plan"]]
    done = [(entry["object"], entry["what"]) for entry in run["done"]]
    assert {(item["object"], item["what"]) for item in run["plan"]} <= set(done), run["not_done"]
    assert len(set(done)) == len(done)
    again = database.maintain(**CONDITION)
    assert again["plan"] == []
    assert not again.changed
    assert database.invalid() == []
    # What only a rebuild with locks can mend stays on record.
    assert [blocker for blocker in again["blockers"] if "exclusion constraint" not in blocker["what"]] == []
    assert schema.count_rows() == rows
