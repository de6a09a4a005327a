#!/usr/bin/env python3
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""pg_backup against the runbook: interleaved pairs in one run, on the lab's PostgreSQL and versitygw.

The runbook is ``pg_dump -Fc`` to a file, then an upload of the file (boto3's managed transfer, which is what
``aws s3 cp`` uses; the interpreter's start is not counted against it). Run inside a lab::

    tests/lab/lab run -- python tests/bench/bench_pg_backup.py --pairs 7

Figures: median of the pairwise ratios and their range; size against gzip -6 (what the runbook produces); share of
the verification; the no-change run against a module that does nothing; the libraries that the no-change run imports.
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

import boto3
import psycopg2

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from support.modules import ModuleRun, module_environment, run_module

DATABASE = "bench_pg_backup"
BUCKET = "bench-pg-backup"
NOOP = """
import sys
from ansible.module_utils.testing import patch_module_args
from ansible.module_utils.basic import AnsibleModule
with patch_module_args({}):
    AnsibleModule(argument_spec={}, supports_check_mode=True).exit_json(changed=False)
"""
SEED = """
CREATE TABLE feature (id bigint PRIMARY KEY, state int, name text, payload text, created_at timestamptz, completed_at timestamptz);
INSERT INTO feature SELECT g, g %% 9, 'feature-' || g, md5(g::text) || md5((g * 7)::text) || repeat('payload ', 8),
       timestamptz '2026-01-01' + g * interval '1 s', timestamptz '2026-01-02' + g * interval '1 s' FROM generate_series(1, %(rows)s) g;
CREATE INDEX ON feature (state);
CREATE INDEX ON feature (completed_at);
"""


def connect(facts: dict[str, Any], dbname: str) -> Any:
    """A session on the primary."""
    server = facts["postgresql"]
    return psycopg2.connect(
        host=",".join(server["hosts"]),
        port=server["port"],
        user=server["superuser"],
        passfile=server["passfile"],
        dbname=dbname,
        target_session_attrs="read-write",
    )


def prepare(facts: dict[str, Any], rows: int) -> None:
    """A fresh database with ``rows`` rows."""
    connection = connect(facts, "postgres")
    connection.autocommit = True
    with connection.cursor() as cursor:
        cursor.execute(f"DROP DATABASE IF EXISTS {DATABASE}")
        cursor.execute(f"CREATE DATABASE {DATABASE}")
        # libpq asks the hosts in order, and one that has not replayed the CREATE DATABASE yet ends the search.
        caught_up = "SELECT coalesce(bool_and(replay_lsn >= pg_current_wal_lsn()), true) FROM pg_stat_replication"
        while True:
            cursor.execute(caught_up)
            if cursor.fetchone()[0]:
                break
    connection.close()
    with connect(facts, DATABASE) as connection, connection.cursor() as cursor:
        cursor.execute(SEED, {"rows": rows})
    connection.close()


def client(facts: dict[str, Any]) -> Any:
    """boto3 on the lab's versitygw."""
    server = facts["versitygw"]
    os.environ["AWS_SHARED_CREDENTIALS_FILE"] = server["credentials_file"]
    return boto3.Session(profile_name=server["profile"]).client(
        "s3", endpoint_url=server["endpoint_url"], region_name=server["region"]
    )


def runbook(facts: dict[str, Any], s3: Any, folder: str) -> tuple[float, int]:
    """Seconds and bytes of the runbook's two commands."""
    server, target = facts["postgresql"], Path(folder) / "backup.dump"
    environment = {**os.environ, "PGPASSFILE": server["passfile"], "PGTARGETSESSIONATTRS": "read-write"}
    started = time.perf_counter()
    subprocess.run(
        [
            "pg_dump",
            "-Fc",
            "-h",
            ",".join(server["hosts"]),
            "-p",
            str(server["port"]),
            "-U",
            server["superuser"],
            "-f",
            str(target),
            DATABASE,
        ],
        check=True,
        env=environment,
    )
    s3.upload_file(str(target), BUCKET, "runbook/backup.dump")
    seconds = time.perf_counter() - started
    size = target.stat().st_size
    target.unlink()
    return seconds, size


def parameters(facts: dict[str, Any], max_age: str) -> dict[str, Any]:
    """pg_backup's options."""
    server, s3 = facts["postgresql"], facts["versitygw"]
    return {
        "login_host": ",".join(server["hosts"]),
        "login_port": server["port"],
        "login_user": server["superuser"],
        "passfile": server["passfile"],
        "login_db": DATABASE,
        "bucket": BUCKET,
        "prefix": "ours",
        "max_age": max_age,
        **{name: s3[name] for name in ("endpoint_url", "region", "credentials_file", "profile")},
    }


def ours(facts: dict[str, Any], max_age: str) -> tuple[float, ModuleRun]:
    """Seconds of a whole module process (interpreter, imports and all), and its result."""
    started = time.perf_counter()
    run = run_module("pg_backup", parameters(facts, max_age))
    seconds = time.perf_counter() - started
    if run.failed:
        raise SystemExit(run.msg)
    return seconds, run


def noop() -> float:
    """Seconds of a module process that does nothing."""
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", NOOP], check=True, stdout=subprocess.DEVNULL, env=module_environment())
    return time.perf_counter() - started


def manifest(s3: Any, run: ModuleRun) -> dict[str, Any]:
    """The manifest of the backup that ``run`` made."""
    key = run["location"].split("/", 3)[3] + run["backup"]["run_id"] + "/manifest.json"
    document: dict[str, Any] = json.loads(s3.get_object(Bucket=BUCKET, Key=key)["Body"].read())
    return document


def spread(values: list[float]) -> str:
    """Median and range."""
    return f"{statistics.median(values):.3f} ({min(values):.3f}-{max(values):.3f})"


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--rows", type=int, default=1_500_000)
    arguments = parser.parse_args()
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    facts = json.loads(Path(os.environ["LOWTIDE_LAB_FACTS"]).read_text(encoding="utf-8"))
    s3 = client(facts)
    if BUCKET not in [bucket["Name"] for bucket in s3.list_buckets()["Buckets"]]:
        s3.create_bucket(Bucket=BUCKET)
    prepare(facts, arguments.rows)
    whole, without, shares, sizes, verify_to_dump, idle = [], [], [], [], [], []
    with tempfile.TemporaryDirectory() as folder:
        runbook(facts, s3, folder)
        ours(facts, "0s")
        for pair in range(arguments.pairs):
            theirs, their_size = runbook(facts, s3, folder)
            seconds, run = ours(facts, "0s")
            entry = manifest(s3, run)
            whole.append(seconds / theirs)
            without.append((seconds - entry["verify_seconds"]) / theirs)
            verify_to_dump.append(entry["verify_seconds"] / entry["dump_seconds"])
            shares.append(entry["verify_seconds"] / seconds)
            sizes.append(entry["parts"]["dump.pgc.zst"]["size"] / their_size)
            print(
                f"pair {pair}: runbook {theirs:.2f} s {their_size / 1e6:.1f} MB; ours {seconds:.2f} s, dump {entry['dump_seconds']:.2f} s, verify {entry['verify_seconds']:.2f} s"
            )
        for _ in range(max(5, arguments.pairs)):
            base = noop()
            seconds, run = ours(facts, "1d")
            if run.changed:
                raise SystemExit("the no-change run changed something")
            idle.append(seconds / base)
    print(f"dump+upload+publish / runbook (P9 goal 0.55, verification left out): {spread(without)}")
    print(f"the same with the verification, which the runbook has not:          {spread(whole)}")
    print(f"verification / dump (P10 goal 0.6):                                 {spread(verify_to_dump)}")
    print(f"share of the verification in the whole run:                         {spread(shares)}")
    print(f"size / gzip -6 (goal 1.0):                                          {spread(sizes)}")
    print(f"no-change run / no-op module, module processes alone:               {spread(idle)}")


if __name__ == "__main__":
    main()
