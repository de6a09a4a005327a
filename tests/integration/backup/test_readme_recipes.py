# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the README of the role backup prints, run as it is: the plays, by restricted accounts, and the restore."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import psycopg2
import pytest
from botocore.credentials import Credentials
from botocore.exceptions import ClientError
from labkit.versitygw_setup import (
    APPENDING,
    PRUNING,
    connect,
    create_account,
    delete_account,
    make_policy,
    read_keys,
)

from support import aws_stand_in
from support.backups import Site, make_site
from support.playbooks import playbook_environment, run_playbook
from support.postgresql_rights import PSQL, Superuser, grant_documented_rights
from support.postgresql_servers import Server, start_server
from support.readme import write_example

pytestmark = pytest.mark.lab("postgresql", "postgresql_versions", "versitygw")

README = Path("roles/backup/README.md")
PASSWORD = "canary-of-the-backup"  # noqa: S105 - of a role that a test makes
PREFIX = "postgresql/"
FOLDER = "feature_db/7428119042137459183/20261121T020000Z-5f1c2a77"
SEED = """
CREATE ROLE {owner} LOGIN PASSWORD 'forgotten';
ALTER DATABASE {database} OWNER TO {owner};
CREATE SCHEMA shop AUTHORIZATION {owner};
CREATE TABLE shop.orders (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, note text);
ALTER TABLE shop.orders OWNER TO {owner};
INSERT INTO shop.orders (note) SELECT 'order ' || g FROM generate_series(1, 1000) g;
CREATE TABLE shop.large AS SELECT g AS id, repeat(md5(g::text), 30) AS note FROM generate_series(1, 40000) g;
CREATE TABLE shop.larger AS TABLE shop.large;
SELECT lo_from_bytea(4711, 'large');
ALTER DATABASE {database} SET work_mem = '7MB';
REVOKE CONNECT ON DATABASE {database} FROM PUBLIC;
COMMENT ON DATABASE {database} IS 'of the shop';
"""
COMPARED = (
    "SELECT count(*), sum(id), min(note), (SELECT last_value FROM shop.orders_id_seq), lo_get(4711)::text,"
    " (SELECT tableowner FROM pg_tables WHERE tablename = 'orders'), (SELECT count(*) FROM shop.large),"
    " (SELECT array_agg(a::text ORDER BY a::text) FROM pg_database, unnest(datacl) a WHERE datname = current_database()), current_setting('work_mem'),"
    " (SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = current_database())"
    " FROM shop.orders"
)
RESTORES = {"restore.sh": ("18", 1), "restore-streams.sh": ("18", 2), "restore-older.sh": ("15", 1)}
"""Into a server of which version each is tested, and of how many streams."""


class Recipe(NamedTuple):
    """A site whose values take the place of those printed, and the folder with the examples."""

    site: Site
    folder: Path
    owner: str
    system_identifier: str
    appending: Path
    pruning: Path

    @property
    def database_values(self) -> dict[str, str]:
        """Values of the connection."""
        return {
            "db1.example.com,db2.example.com,db3.example.com": ",".join(self.site.lab["postgresql"]["hosts"]),
            "lowtide_backup": f"{self.site.database}_saver",
            "/etc/ansible/pgpass": str(self.folder / "pgpass"),
            "feature_db": self.site.database,
            "7428119042137459183": self.system_identifier,
        }

    def store_values(self, credentials: str, path: Path) -> dict[str, str]:
        """Values of the bucket."""
        endpoint = str(self.site.server["endpoint_url"])
        return {"https://s3.example.com:9000": endpoint, credentials: str(path), "feature-backups": self.site.bucket}

    def play(self, name: str, credentials: str, path: Path, *more: str) -> int:
        """Run a play of the README; how many tasks changed something."""
        write_example(README, "hosts.yml", self.folder)
        play = write_example(README, name, self.folder, self.database_values | self.store_values(credentials, path))
        run = run_playbook(play, "-i", str(self.folder / "hosts.yml"), *more)
        assert run.rc == 0, run.stdout + run.stderr
        return run.changed

    def back_up(self, options: Path | None = None) -> int:
        """Run the play that only adds objects, with more ``options``."""
        more = () if options is None else ("-e", f"@{options}")
        return self.play("backup.yml", "/etc/ansible/s3", self.appending, *more)

    def count_backups(self) -> int:
        """Return how many backups there are."""
        return sum(name.endswith("/manifest.json") for name in self.site.names())

    def shell(self, name: str, values: dict[str, str], *, stdin: str = "", **environment: str) -> str:
        """Run commands of the README, each of which has to succeed."""
        script = write_example(README, name, self.folder, values)
        done = subprocess.run(
            ["bash", str(script)],
            cwd=self.folder,
            env={**playbook_environment(), **environment},
            input=stdin,
            check=False,
            capture_output=True,
            text=True,
            timeout=400,
            start_new_session=True,  # without a terminal, psql reads passwords from its standard input
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


@pytest.fixture
def recipe(lab: dict[str, Any], unique_name: Callable[..., str], tmp_path: Path) -> Iterator[Recipe]:
    """A database with an owner, and accounts with the documented rights in it and in a bucket."""
    postgresql, versitygw = lab["postgresql"], lab["versitygw"]
    root = read_keys(versitygw["credentials_file"])
    appender, pruner = (Credentials(unique_name(name), "not a secret") for name in ("appender", "pruner"))
    with make_site(lab, "versitygw", unique_name, seed="SELECT") as site:
        owner, saver = f"{site.database}_owner", f"{site.database}_saver"
        site.sql(SEED.format(owner=owner, database=site.database))
        superuser = Superuser(site.primary, postgresql["port"], postgresql["superuser"], postgresql["passfile"])
        grant_documented_rights(superuser, site.database, backup=saver)
        site.sql(f"ALTER ROLE {saver} PASSWORD '{PASSWORD}'")
        (tmp_path / "pgpass").write_text(f"*:*:*:{saver}:{PASSWORD}\n", encoding="utf-8")
        (tmp_path / "pgpass").chmod(0o600)
        policies = []
        for keys, names in ((appender, [APPENDING]), (pruner, [APPENDING, PRUNING])):
            create_account(versitygw["endpoint_url"], root, keys)
            policies.append(json.loads(make_policy(site.bucket, keys.access_key, *names, prefix=PREFIX)))
            (tmp_path / keys.access_key).write_text(
                f"[default]\naws_access_key_id = {keys.access_key}\naws_secret_access_key = {keys.secret_key}\n",
                encoding="utf-8",
            )
        statements = [statement for policy in policies for statement in policy["Statement"]]
        site.client.put_bucket_policy(Bucket=site.bucket, Policy=json.dumps({**policies[0], "Statement": statements}))
        try:
            yield Recipe(
                site,
                tmp_path,
                owner,
                postgresql["system_identifier"],
                tmp_path / appender.access_key,
                tmp_path / pruner.access_key,
            )
        finally:
            for keys in (appender, pruner):
                delete_account(versitygw["endpoint_url"], root, keys.access_key)
            site.sql(f"DROP OWNED BY {saver}; DROP ROLE {saver}")
            site.sql(f"REASSIGN OWNED BY {owner} TO CURRENT_USER; DROP ROLE {owner}")


def add_old_backups(site: Site, number: int) -> None:
    """Copy the only backup under the names of earlier ones, each a day older, the newest of them 20 days."""
    (manifest,) = [name for name in site.names() if name.endswith("/manifest.json")]
    folder = manifest.rpartition("/")[0]
    printed: dict[str, Any] = json.loads(site.get(manifest))
    for age in range(20, 20 + number):
        taken = datetime.now(UTC) - timedelta(days=age)
        run_id = f"{taken:%Y%m%dT%H%M%SZ}-{age:08x}"
        older = folder.replace(printed["run_id"], run_id)
        for part in printed["parts"]:
            source = {"Bucket": site.bucket, "Key": f"{folder}/{part}"}
            site.client.copy_object(Bucket=site.bucket, Key=f"{older}/{part}", CopySource=source)
        body = json.dumps({**printed, "run_id": run_id, "taken_at": f"{taken:%Y-%m-%dT%H:%M:%SZ}"})
        site.client.put_object(Bucket=site.bucket, Key=f"{older}/manifest.json", Body=body.encode())


@pytest.mark.procedure("C18", "D25")
def test_the_printed_plays(recipe: Recipe) -> None:
    """One account adds backups and deletes nothing; another one thins them out."""
    assert recipe.back_up() == 1
    assert recipe.back_up() == 0
    add_old_backups(recipe.site, 9)
    appender = connect(recipe.site.server["endpoint_url"], read_keys(str(recipe.appending)))
    with pytest.raises(ClientError, match="AccessDenied"):
        appender.delete_object(Bucket=recipe.site.bucket, Key=recipe.site.names()[0])
    with pytest.raises(ClientError, match="AccessDenied"):
        appender.put_object(Bucket=recipe.site.bucket, Key="elsewhere", Body=b"")
    assert recipe.count_backups() == 10
    assert recipe.play("prune.yml", "/etc/ansible/s3-pruning", recipe.pruning) == 1
    assert recipe.count_backups() == 7


@pytest.fixture(params=list(RESTORES))
def way(request: pytest.FixtureRequest) -> str:
    """The example that restores."""
    return str(request.param)


@pytest.fixture
def scratch(lab: dict[str, Any], way: str) -> Iterator[Server]:
    """A new server."""
    facts = lab["postgresql_versions"]
    version, _jobs = RESTORES[way]
    with start_server(version, Path(facts["servers"][version]["programs"]), Path(facts["passfile"]).parent) as server:
        yield server


@pytest.mark.procedure("C18")
def test_the_printed_restore(recipe: Recipe, scratch: Server, way: str, lab: dict[str, Any]) -> None:
    """Found, fetched, compared, restored into a new server, with a password; a byte that differs ends it."""
    _version, jobs = RESTORES[way]
    programs_of = str(lab["postgresql_versions"]["client_programs"]) if way == "restore-older.sh" else None
    play = recipe.folder / "options.yml"
    play.write_text(json.dumps({"backup_jobs": jobs, "backup_bin_dir": programs_of or str(PSQL.parent)}))
    recipe.back_up(play)
    bucket = recipe.store_values("/etc/ansible/s3", recipe.appending)
    listed = recipe.shell("find.sh", {**bucket, "feature_db": recipe.site.database})
    folders = re.findall(rf"s3://{recipe.site.bucket}/{PREFIX}(\S+):\s+\d+ rows", listed)
    assert len(folders) == 1, listed
    programs = recipe.folder / "programs"
    programs.mkdir()
    aws = programs / "aws"
    aws.write_text(f'#!/bin/sh\nexec {shlex.join([sys.executable, aws_stand_in.__file__])} "$@"\n', encoding="utf-8")
    aws.chmod(0o755)
    path = ":".join(filter(None, (str(programs), programs_of, str(PSQL.parent), os.environ["PATH"])))
    fetched = {"feature-backups": recipe.site.bucket, FOLDER: folders[0]}
    store = {
        "AWS_ENDPOINT_URL_S3": str(recipe.site.server["endpoint_url"]),
        "AWS_SHARED_CREDENTIALS_FILE": str(recipe.appending),
        "PATH": path,
    }
    recipe.shell("fetch.sh", fetched, **store)
    where = {**scratch.superuser.environment(), "PATH": path}
    database = {"feature_db": recipe.site.database}
    if jobs > 1:  # the other commands do not take a part for the whole
        with pytest.raises(AssertionError, match=r"dump\.pgc\.zst"):
            recipe.shell("restore.sh", database, **where)
        assert scratch.administer(f"SELECT 1 FROM pg_database WHERE datname = {quote(recipe.site.database)}") == []
    recipe.shell(way, database, **where)
    recipe.shell(
        "passwords.sh", {**database, "feature_owner": recipe.owner}, stdin=f"{PASSWORD}\n{PASSWORD}\n", **where
    )
    assert recipe.shell("compare.sh", database, **where) == ""
    assert scratch.administer(COMPARED, database=recipe.site.database) == recipe.site.sql(COMPARED)
    scratch.administer("DELETE FROM shop.orders WHERE id = 1", database=recipe.site.database)
    assert "shop.orders: 1000 in the backup|999" in recipe.shell("compare.sh", database, **where)
    restored: dict[str, Any] = {"host": scratch.host, "port": scratch.port, "dbname": recipe.site.database}
    psycopg2.connect(**restored, user=recipe.owner, password=PASSWORD).close()
    (recipe.folder / "backup/globals.sql").write_bytes(b"damaged")
    with pytest.raises(AssertionError, match=r"globals\.sql: FAILED"):
        recipe.shell("fetch.sh", fetched, **{**store, "PATH": f"{make_idle_aws(recipe.folder)}:{path}"})


def quote(text: str) -> str:
    """``text`` as an SQL literal."""
    return "'" + text.replace("'", "''") + "'"


def make_idle_aws(folder: Path) -> Path:
    """Make an ``aws`` that leaves what was fetched as it is."""
    idle = folder / "idle"
    idle.mkdir()
    (idle / "aws").symlink_to("/bin/true")
    return idle
