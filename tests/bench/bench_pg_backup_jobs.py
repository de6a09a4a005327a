#!/usr/bin/env python3
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""pg_backup in 1, 2 and 4 streams by turns, of some tables of different size, on the lab's PostgreSQL 17 and versitygw.

    tests/lab/lab run -- python tests/bench/bench_pg_backup_jobs.py --rounds 3

Figures: seconds of the dump and of the verification, as the manifest has them, and of the whole module process; its
memory; the size of each object. Server, S3 server and module share the processors of one machine, as they seldom do
elsewhere: what several streams gain is bounded by these.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from support.backups import Site, make_site
from support.modules import finish_module, start_module

SHARES = (40, 25, 15, 10, 10)
"""Percent of the rows in each table."""
JOBS = (1, 2, 4)


def fill(site: Site, rows: int) -> None:
    """Make the tables: rows of 500 bytes, of which a third hardly compresses."""
    key = " || ".join(f"md5((g * {factor})::text)" for factor in (1, 7, 11, 13, 17, 19))
    for number, share in enumerate(SHARES):
        site.sql(
            f"CREATE TABLE t{number} AS SELECT g AS id, {key} AS key,"
            f" repeat('payload of ' || g || ' ', 14) AS v, now() AS at FROM generate_series(1, {rows * share // 100}) g"
        )
    site.sql("CHECKPOINT")


def measure(site: Site, programs: str, jobs: int) -> dict[str, Any]:
    """Make one backup."""
    site.clear()
    started = time.perf_counter()
    run = finish_module(start_module("pg_backup", site.params(jobs=jobs, bin_dir=programs, max_age="0")))
    seconds = time.perf_counter() - started
    if run.failed:
        raise SystemExit(run.msg)
    manifest = json.loads(site.get(site.key("manifest.json")))
    objects = [round(manifest["parts"][name]["size"] / 1e6) for name in run["backup"]["dumps"]]
    return {
        "dump": manifest["dump_seconds"],
        "verify": manifest["verify_seconds"],
        "whole": seconds,
        "objects": objects,
        "memory": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024,
    }


def name_uniquely() -> Callable[..., str]:
    """Names of this process."""
    return lambda kind, separator="-": separator.join(("bench", kind, str(os.getpid())))


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rows", type=int, default=2_000_000)
    arguments = parser.parse_args()
    lab = json.loads(Path(os.environ["LOWTIDE_LAB_FACTS"]).read_text(encoding="utf-8"))
    versions = lab["postgresql_versions"]
    server = versions["servers"]["17"]
    own = {
        "hosts": [server["host"]],
        "port": server["port"],
        **{key: versions[key] for key in ("superuser", "passfile")},
    }
    runs: dict[int, list[dict[str, Any]]] = {jobs: [] for jobs in JOBS}
    with make_site({**lab, "postgresql": own}, "versitygw", name_uniquely(), seed="SELECT") as site:
        fill(site, arguments.rows)
        with closing(site.connect()) as connection, connection.cursor() as cursor:
            cursor.execute("SELECT sum(pg_table_size(oid)) / 1e6 FROM pg_class WHERE relname ~ '^t[0-9]$'")
            print(f"{cursor.fetchone()[0]:.0f} MB in {len(SHARES)} tables, {os.cpu_count()} processors")
        for number in range(arguments.rounds):
            for jobs in JOBS:
                runs[jobs].append(measure(site, versions["client_programs"], jobs))
                print(f"round {number}, jobs {jobs}: {runs[jobs][-1]}", flush=True)
    for jobs, made in runs.items():
        figures = {name: statistics.median(run[name] for run in made) for name in ("dump", "verify", "whole")}
        print(f"jobs {jobs}: " + ", ".join(f"{name} {seconds:.2f} s" for name, seconds in figures.items()))


if __name__ == "__main__":
    main()
