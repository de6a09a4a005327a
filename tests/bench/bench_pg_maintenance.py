#!/usr/bin/env python3
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""pg_maintenance beside vacuumdb and reindexdb on one server, in pairs by turns; prints the median of the ratios and their spread.

    tests/bench/bench_pg_maintenance.py --host 127.0.0.1 --port 5432 --user postgres [--bin DIR] [--pairs 5] [CASE...]

Cases: many (small tables of two integers, half their rows updated), toast (the same with a text column, so that each has a TOAST
table), large (8 tables, a quarter updated), reindex (24 indexes of 8 tables, each three times as large as needed), query (the
statement over all tables), idle (nothing to change, beside a module that does nothing). It makes and drops a database of its
own. The password, if any, is found by libpq (PGPASSFILE, ~/.pgpass). The server should have autovacuum = off.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

CHECKOUT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(CHECKOUT / "tests"), str(CHECKOUT / "collections")]

import psycopg2  # noqa: E402

from support.modules import run_module  # noqa: E402

DATABASE = "lowtide_bench"


class Bench:
    """The server, and what is done on it."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.params = {
            "login_host": options.host,
            "login_port": options.port,
            "login_user": options.user,
            "login_db": DATABASE,
        }

    def sql(self, *statements: str, database: str = DATABASE) -> list[tuple[Any, ...]]:
        """Statements, each on its own; the rows of the last."""
        o = self.options
        with (
            closing(psycopg2.connect(host=o.host, port=o.port, user=o.user, dbname=database)) as connection,
            connection.cursor() as cursor,
        ):
            connection.autocommit = True
            for statement in statements:
                cursor.execute(statement)
            return cursor.fetchall() if cursor.description else []

    @contextmanager
    def database(self) -> Iterator[None]:
        """A fresh database for one case."""
        self.sql(f"DROP DATABASE IF EXISTS {DATABASE} WITH (FORCE)", f"CREATE DATABASE {DATABASE}", database="postgres")
        yield
        self.sql(f"DROP DATABASE {DATABASE} WITH (FORCE)", database="postgres")

    def tool(self, name: str, *arguments: str) -> float:
        """Seconds of one of PostgreSQL's own programs."""
        o = self.options
        begun = time.perf_counter()
        command = [str(o.bin / name), "-h", o.host, "-p", str(o.port), "-U", o.user, "-d", DATABASE, *arguments]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        return time.perf_counter() - begun

    def ours(self, count: int, **condition: Any) -> float:
        """Seconds of the module's process, interpreter start included, to do ``count`` things."""
        begun = time.perf_counter()
        run = run_module("pg_maintenance", {**self.params, **condition}, diff=False, timeout=600)
        seconds = time.perf_counter() - begun
        if run.failed or len(run["done"]) != count:
            raise SystemExit(f"pg_maintenance did not do {count}: {run.msg or run['not_done']}")
        return seconds

    def each_table(self, count: int, statement: str) -> None:
        """One statement for each table, committed by the hundred; {} in it is the number."""
        quoted = statement.replace("'", "''").replace("{}", "%s").replace("% 2", "%% 2")
        self.sql(
            f"DO $$ BEGIN FOR i IN 1..{count} LOOP EXECUTE format('{quoted}', i);"
            " IF i % 100 = 0 THEN COMMIT; END IF; END LOOP; END $$"
        )

    def pairs(
        self, name: str, spoil: Callable[[], object], ours: Callable[[], float], theirs: Callable[[], float]
    ) -> None:
        """By turns, each time on what was spoilt anew, and each the first of every other pair."""
        ratios, seconds = [], []
        load = os.getloadavg()[0]
        for number in range(self.options.pairs):
            measured: dict[Callable[[], float], float] = {}
            for measure in (ours, theirs) if number % 2 == 0 else (theirs, ours):
                spoil()
                measured[measure] = measure()
            first, second = measured[ours], measured[theirs]
            ratios.append(first / second)
            seconds.append((first, second))
        middle = statistics.median(ratios)
        mine, other = (statistics.median(column) for column in zip(*seconds, strict=True))
        print(
            f"{name}: {middle:.2f}x ({min(ratios):.2f}-{max(ratios):.2f}), {mine:.2f} s against {other:.2f} s; load {load:.1f} to {os.getloadavg()[0]:.1f}",
            flush=True,
        )

    def many(self) -> None:
        """P6: small tables."""
        self._small("id int PRIMARY KEY, v int", "tables")

    def toast(self) -> None:
        """P6: small tables with a column that may be long, as most have."""
        self._small("id int PRIMARY KEY, v int, note text", "tables with TOAST")

    def _small(self, columns: str, name: str) -> None:
        count = self.options.tables
        with self.database():
            self.each_table(count, f"CREATE TABLE t{{}} ({columns})")
            self.each_table(count, "INSERT INTO t{} SELECT generate_series(1, 100), 0")
            # The first VACUUM of a table makes its maps; it is not what is compared.
            self.sql("VACUUM ANALYZE", "CHECKPOINT")
            self.pairs(
                f"vacuum {count} {name} / vacuumdb -z -j2",
                lambda: self.each_table(count, "UPDATE t{} SET v = v + 1 WHERE id % 2 = 0"),
                lambda: self.ours(count, dead_tuple_ratio=0.1, minimum_tuples=10),
                lambda: self.tool("vacuumdb", "-z", "-j2", "-q"),
            )

    def _large(self, rows: int) -> None:
        for number in range(8):
            self.sql(
                f"CREATE TABLE l{number} (id int PRIMARY KEY, a int, note text)",
                f"INSERT INTO l{number} SELECT g, g * 7919::bigint % {rows}, repeat('x', 60) FROM generate_series(1, {rows}) g",
                f"CREATE INDEX l{number}_a ON l{number} (a)",
            )
        self.sql("VACUUM ANALYZE")

    def large(self) -> None:
        """P6: large tables."""
        with self.database():
            self._large(self.options.rows)
            self.pairs(
                "vacuum 8 large tables / vacuumdb -z -j2",
                lambda: self.sql(*(f"UPDATE l{number} SET a = a + 1 WHERE id % 4 = 0" for number in range(8))),
                lambda: self.ours(8, dead_tuple_ratio=0.1),
                lambda: self.tool("vacuumdb", "-z", "-j2", "-q"),
            )

    def reindex(self) -> None:
        """P7: every index of 8 tables, filled to 30 %, which is no longer what they are declared to be."""
        indexes = [f"l{number}_{suffix}" for number in range(8) for suffix in ("pkey", "a", "both")]

        def spoil() -> None:
            self.sql(*(f"ALTER INDEX {index} SET (fillfactor = 30)" for index in indexes))
            self.sql(*(f"REINDEX TABLE l{number}" for number in range(8)))
            self.sql(*(f"ALTER INDEX {index} RESET (fillfactor)" for index in indexes), "CHECKPOINT")

        with self.database():
            self._large(self.options.rows)
            self.sql(*(f"CREATE INDEX l{number}_both ON l{number} (id, a)" for number in range(8)))
            self.pairs(
                f"reindex {len(indexes)} indexes / reindexdb --concurrently -j2",
                spoil,
                lambda: self.ours(len(indexes), index_bloat_ratio=0.4),
                lambda: self.tool(
                    "reindexdb", "--concurrently", "-j2", "-q", *(f"--table=l{number}" for number in range(8))
                ),
            )
            left = self.sql("SELECT count(*) FROM pg_index WHERE NOT indisvalid")[0][0]
            print(f"invalid indexes left: {left}", flush=True)

    def query(self) -> None:
        """P8: the statement over all tables, fetched and parsed; and with the second one about those that nobody counted."""
        from ansible_collections.lowtide.ops.plugins.module_utils._postgresql import catalog, connection

        params = {**{name: spec.get("default") for name, spec in connection.CONNECTION_SPEC.items()}, **self.params}
        count = self.options.tables
        with self.database():
            self.each_table(count, "CREATE TABLE t{} (id int PRIMARY KEY, v int)")
            self.sql("VACUUM ANALYZE pg_class")
            with connection.Session(connection.settings_from(params), module="bench", run_id="bench") as session:
                for kind in ("never counted", "counted"):
                    seconds = []
                    for _ in range(7):
                        begun = time.perf_counter()
                        assert len(catalog.read_tables(session)) == count
                        seconds.append(time.perf_counter() - begun)
                    print(
                        f"query over {count} {kind} tables: {statistics.median(seconds):.3f} s"
                        f" ({min(seconds):.3f}-{max(seconds):.3f})",
                        flush=True,
                    )
                    self.sql("VACUUM", "ANALYZE")

    def idle(self) -> None:
        """P1: nothing to change, against ansible.builtin.ping run the same way."""
        program = (
            "from ansible.module_utils.testing import patch_module_args\n"
            "import ansible.modules.ping as ping\n"
            "with patch_module_args({}):\n    ping.main()\n"
        )

        def noop() -> float:
            begun = time.perf_counter()
            subprocess.run([sys.executable, "-c", program], check=True, stdout=subprocess.DEVNULL)
            return time.perf_counter() - begun

        def unchanged() -> float:
            begun = time.perf_counter()
            run = run_module("pg_maintenance", {**self.params, "dead_tuple_ratio": 0.1, "invalid_indexes": "none"})
            if run.failed or run.changed:
                raise SystemExit(f"expected no change: {run.msg}")
            return time.perf_counter() - begun

        with self.database():
            self.sql("CREATE TABLE t (id int)")
            self.pairs("nothing to change / no-op module", lambda: None, unchanged, noop)


def main() -> None:
    """Parse the command line and run the cases."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=5432)
    parser.add_argument("--user", default="postgres")
    parser.add_argument(
        "--bin", type=Path, default=Path("/usr/lib/postgresql/15/bin"), help="where vacuumdb and reindexdb are"
    )
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--tables", type=int, default=10000)
    parser.add_argument("--rows", type=int, default=100000, help="of each large table")
    parser.add_argument(
        "cases", nargs="*", metavar="CASE", default=["many", "toast", "large", "reindex", "query", "idle"]
    )
    options = parser.parse_args()
    bench = Bench(options)
    for case in options.cases:
        getattr(bench, case)()


if __name__ == "__main__":
    main()
