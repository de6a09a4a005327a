#!/usr/bin/env python3
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""pg_restore against the bare program: interleaved pairs in one run, on the lab's PostgreSQL 15 and versitygw.

Bare is ``CREATE DATABASE`` and ``pg_restore --exit-on-error`` of a local file, which verifies nothing; ours is streamed out
of the bucket, decoded a second time to be hashed, and compared by a dump of the copy. Run inside a lab::

    tests/lab/lab run -- python tests/bench/bench_pg_restore.py --pairs 5

Figures: median of the pairwise ratios and their range; the comparison alone against a bare ``pg_dump -Fc``.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "lab"))
from support.backups import Site, make_site
from support.modules import run_module

COPY = "bench_pg_restore_bare"
PROGRAMS = "/usr/lib/postgresql/15/bin"
SEED = """
CREATE TABLE feature (id bigint PRIMARY KEY, state int, name text, payload text, created_at timestamptz, completed_at timestamptz);
INSERT INTO feature SELECT g, g %% 9, 'feature-' || g, md5(g::text) || md5((g * 7)::text) || repeat('payload ', 8),
       timestamptz '2026-01-01' + g * interval '1 s', timestamptz '2026-01-02' + g * interval '1 s' FROM generate_series(1, %(rows)s) g;
CREATE INDEX ON feature (state);
CREATE INDEX ON feature (completed_at);
"""


def environment(site: Site) -> dict[str, str]:
    """Where the bare programs go."""
    facts = site.lab["postgresql"]
    return {
        **os.environ,
        "PGHOST": site.primary,
        "PGPORT": str(facts["port"]),
        "PGUSER": facts["superuser"],
        "PGPASSFILE": facts["passfile"],
    }


def run_bare(site: Site, dump: Path) -> float:
    """Seconds of the bare restore."""
    started = time.perf_counter()
    site.sql(f"CREATE DATABASE {COPY} TEMPLATE template0", database="postgres")
    command = [f"{PROGRAMS}/pg_restore", "--exit-on-error", "-d", COPY, str(dump)]
    subprocess.run(command, check=True, env=environment(site))
    seconds = time.perf_counter() - started
    site.sql(f"DROP DATABASE {COPY}", database="postgres")
    return seconds


def run_ours(site: Site, run_id: str) -> tuple[float, float]:
    """Seconds of the module, and of comparing the copy once more."""
    options = site.params(bin_dir=PROGRAMS, backup=run_id)
    started = time.perf_counter()
    done = run_module("pg_restore", options, timeout=900)
    seconds = time.perf_counter() - started
    assert done.changed, done.msg
    again = run_module("pg_restore", options, timeout=900)
    assert not again.changed, again.msg
    assert run_module("pg_restore", options | {"state": "absent"}).changed
    return seconds, float(again["compare_seconds"])


def main() -> None:
    """Print the figures as JSON."""
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    parser = argparse.ArgumentParser()
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--rows", type=int, default=1_000_000)
    arguments = parser.parse_args()
    lab: dict[str, Any] = json.loads(Path(os.environ["LOWTIDE_LAB_FACTS"]).read_text(encoding="utf-8"))
    versions = lab["postgresql_versions"]
    server = versions["servers"]["15"]
    own = {"hosts": [server["host"]], "port": server["port"]}
    own |= {name: versions[name] for name in ("superuser", "passfile")}
    ratios, compared, bare = [], [], []
    with (
        tempfile.TemporaryDirectory() as folder,
        make_site(
            {**lab, "postgresql": own},
            "versitygw",
            lambda kind, **_options: f"bench-{kind}".replace("-", "_") if _options else f"bench-{kind}",
            rows=arguments.rows,
            seed=SEED,
        ) as site,
    ):
        made = run_module("pg_backup", site.params(bin_dir=PROGRAMS), timeout=900)
        assert made.changed, made.msg
        dump = Path(folder) / "dump.pgc"
        for _ in range(arguments.pairs):
            started = time.perf_counter()
            command = [f"{PROGRAMS}/pg_dump", "-Fc", "-f", str(dump), site.database]
            subprocess.run(command, check=True, env=environment(site))
            dump_seconds = time.perf_counter() - started
            bare.append(run_bare(site, dump))
            ours, compare_seconds = run_ours(site, made["backup"]["run_id"])
            ratios.append(ours / bare[-1])
            compared.append(compare_seconds / dump_seconds)
    print(
        json.dumps(
            {
                "rows": arguments.rows,
                "bare_seconds": round(statistics.median(bare), 2),
                "restore_over_bare": [round(value, 2) for value in sorted(ratios)],
                "restore_over_bare_median": round(statistics.median(ratios), 2),
                "compare_over_dump_median": round(statistics.median(compared), 2),
            }
        )
    )


if __name__ == "__main__":
    main()
