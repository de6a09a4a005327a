# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What tests of backups share: a site (database, bucket, options) and questions to both."""

from __future__ import annotations

import configparser
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any

import boto3
import psycopg2

SEED = """
CREATE TABLE feature (id bigint PRIMARY KEY, name text, payload text, done timestamptz);
INSERT INTO feature
  SELECT g, 'feature-' || g, md5(g::text) || md5((g + 1)::text), timestamptz '2026-01-01' + g * interval '1 s'
  FROM generate_series(1, %(rows)s) g;
CREATE TABLE "we""ird
name" ("a b" text);
INSERT INTO "we""ird
name" VALUES (E'tab\\t, newline\\n, \\\\. and emoji \U0001f600');
CREATE TABLE parted (k int, v text) PARTITION BY RANGE (k);
CREATE TABLE parted_1 PARTITION OF parted FOR VALUES FROM (0) TO (100);
INSERT INTO parted SELECT g, 'p' FROM generate_series(0, 99) g;
CREATE TABLE empty_one (x int);
CREATE SEQUENCE counter START 41;
SELECT nextval('counter');
"""


PATIENCE = 120.0
"""Seconds in which something comes about on a machine that is busy with other tests."""


def quoted(name: str) -> str:
    """``name`` as an SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


@dataclass(frozen=True)
class Site:
    """One database and one bucket. ``client`` is a boto3 client; ``server`` the facts of the S3 server."""

    lab: dict[str, Any]
    primary: str
    database: str
    bucket: str
    client: Any
    server: dict[str, Any]

    def connect(self, database: str | None = None) -> Any:
        """A session of the superuser on the primary, in autocommit."""
        facts = self.lab["postgresql"]
        connection = psycopg2.connect(
            host=self.primary,
            port=facts["port"],
            user=facts["superuser"],
            passfile=facts["passfile"],
            dbname=database or self.database,
        )
        connection.autocommit = True
        return connection

    def sql(
        self, statement: str, *, database: str | None = None, values: dict[str, Any] | None = None
    ) -> list[tuple[Any, ...]]:
        """Run one statement and return its rows, if it has any."""
        with closing(self.connect(database)) as connection, connection.cursor() as cursor:
            cursor.execute(statement, values)
            return list(cursor.fetchall()) if cursor.description else []

    def params(self, **more: Any) -> dict[str, Any]:
        """Options of pg_backup."""
        facts = self.lab["postgresql"]
        return {
            "login_host": self.primary,
            "login_port": facts["port"],
            "login_user": facts["superuser"],
            "passfile": facts["passfile"],
            "login_db": self.database,
            **self.s3_params(),
            **more,
        }

    def s3_params(self, **more: Any) -> dict[str, Any]:
        """Options of pg_backup_info."""
        return {
            "bucket": self.bucket,
            "prefix": "team a/pg",
            **{name: self.server[name] for name in ("endpoint_url", "region", "credentials_file", "profile")},
            **more,
        }

    def names(self) -> list[str]:
        """Every key in the bucket."""
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket)
        return [entry["Key"] for page in pages for entry in page.get("Contents", [])]

    def uploads(self) -> list[str]:
        """Every unfinished multipart upload in the bucket."""
        return [entry["Key"] for entry in self.client.list_multipart_uploads(Bucket=self.bucket).get("Uploads", [])]

    def get(self, key: str) -> bytes:
        """An object."""
        body: bytes = self.client.get_object(Bucket=self.bucket, Key=key)["Body"].read()
        return body

    def key(self, part: str) -> str:
        """The key of ``part`` of the only published backup."""
        keys = [key for key in self.names() if key.endswith(f"/{part}")]
        assert len(keys) == 1, keys
        return keys[0]

    def clear(self) -> None:
        """Remove every object and every unfinished upload."""
        for key in self.names():
            self.client.delete_object(Bucket=self.bucket, Key=key)
        for upload in self.client.list_multipart_uploads(Bucket=self.bucket).get("Uploads", []):
            self.client.abort_multipart_upload(Bucket=self.bucket, Key=upload["Key"], UploadId=upload["UploadId"])

    def nothing_left(self) -> None:
        """Every run has its manifest, and there is no unfinished upload."""
        folders = {key.rpartition("/")[0] for key in self.names()}
        assert {folder for folder in folders if f"{folder}/manifest.json" not in self.names()} == set()
        assert self.uploads() == []

    def wait_replayed(self) -> None:
        """Until every standby has what the primary has written so far."""
        end = time.monotonic() + PATIENCE
        while not self.sql(
            "SELECT coalesce(bool_and(replay_lsn >= pg_current_wal_lsn()), false) FROM pg_stat_replication"
        )[0][0]:
            assert time.monotonic() < end, "a standby does not catch up"
            time.sleep(0.05)

    def wait_unlocked(self) -> None:
        """Until the server has noticed that a killed run's session is gone."""
        end = time.monotonic() + PATIENCE
        query = """SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'
                    AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"""
        while self.sql(query)[0][0]:
            assert time.monotonic() < end, "the lock of a killed run is still held"
            time.sleep(0.05)


def find_primary(facts: dict[str, Any]) -> str:
    """The host that accepts writes."""
    for host in facts["hosts"]:
        connection = psycopg2.connect(
            host=host, port=facts["port"], user=facts["superuser"], passfile=facts["passfile"], dbname="postgres"
        )
        with closing(connection), connection.cursor() as cursor:
            cursor.execute("SELECT pg_is_in_recovery()")
            if cursor.fetchone() == (False,):
                return str(host)
    raise AssertionError("the lab has no primary")


@contextmanager
def make_bucket(
    lab: dict[str, Any], server: str, unique_name: Callable[..., str], *, primary: str = "", database: str = ""
) -> Iterator[Site]:
    """An empty bucket on the lab's ``server``, removed afterwards."""
    facts = lab[server]
    access_key, secret_key = _keys(facts)
    session = boto3.Session(aws_access_key_id=access_key, aws_secret_access_key=secret_key)
    client: Any = session.client("s3", endpoint_url=facts["endpoint_url"], region_name=facts["region"])
    site = Site(lab, primary, database, unique_name("bk").lower(), client, facts)
    client.create_bucket(Bucket=site.bucket)
    try:
        yield site
    finally:
        site.clear()
        client.delete_bucket(Bucket=site.bucket)


@contextmanager
def make_site(
    lab: dict[str, Any],
    server: str,
    unique_name: Callable[..., str],
    *,
    rows: int = 2000,
    database: str | None = None,
    seed: str = SEED,
) -> Iterator[Site]:
    """A seeded database and an empty bucket on the lab's ``server``, removed afterwards."""
    name = database or unique_name("bk", separator="_")
    with make_bucket(lab, server, unique_name, primary=find_primary(lab["postgresql"]), database=name) as site:
        site.sql(f"CREATE DATABASE {quoted(name)}", database="postgres")
        try:
            site.sql(seed, values={"rows": rows})
            yield site
        finally:
            site.sql(f"DROP DATABASE IF EXISTS {quoted(name)} WITH (FORCE)", database="postgres")


def _keys(facts: dict[str, Any]) -> tuple[str, str]:
    """Access and secret key from a shared credentials file."""
    parser = configparser.RawConfigParser()
    parser.read(facts["credentials_file"])
    section = parser[facts["profile"]]
    return section["aws_access_key_id"], section["aws_secret_access_key"]
