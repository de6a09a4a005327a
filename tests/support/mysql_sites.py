# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A MariaDB database and a bucket of its own for each test, and the rights of docs/mysql-rights.sql in it."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pymysql
import pymysql.cursors

from support.backups import Site, make_bucket

RIGHTS = Path("docs/mysql-rights.sql")
SEED = r"""
CREATE TABLE feature (id int PRIMARY KEY AUTO_INCREMENT, name varchar(100), payload blob, twice int AS (id * 2),
  done timestamp DEFAULT '2026-01-01 00:00:00') CHARSET utf8mb4;
INSERT INTO feature (name, payload) SELECT concat('feature-', seq), unhex(md5(seq)) FROM seq_1_to_2000;
CREATE TABLE `we``ird "name"` (`a b` text CHARSET utf8mb4);
INSERT INTO `we``ird "name"` VALUES
  ('tab\t, newline\n(1),\n\\; and emoji 😀'), ('x;\nINSERT INTO `feature` VALUES\n(1);');
CREATE TABLE child (id int PRIMARY KEY, feature_id int,
  CONSTRAINT of_feature FOREIGN KEY (feature_id) REFERENCES feature (id));
INSERT INTO child SELECT seq, seq FROM seq_1_to_50;
CREATE TABLE empty_one (x int);
CREATE SEQUENCE counter START 41;
CREATE VIEW late AS SELECT id, name FROM feature WHERE id > 10;
CREATE VIEW early AS SELECT count(*) AS number FROM late;
CREATE TABLE log (id int PRIMARY KEY AUTO_INCREMENT, said text);
CREATE TRIGGER noted AFTER INSERT ON feature FOR EACH ROW INSERT INTO log (said) VALUES (new.name);
CREATE PROCEDURE count_features() SELECT count(*) FROM feature;
CREATE FUNCTION next_one(x int) RETURNS int DETERMINISTIC RETURN x + 1;
CREATE EVENT tidy ON SCHEDULE EVERY 1 DAY STARTS '2030-01-01 00:00:00' DO DELETE FROM log WHERE id < 0;
"""


@dataclass(frozen=True)
class MySqlSite:
    """One database and one bucket; ``bucket`` asks the S3 server."""

    lab: dict[str, Any]
    database: str
    bucket: Site

    @property
    def facts(self) -> dict[str, Any]:
        """The lab's servers."""
        facts: dict[str, Any] = self.lab["mariadb"]
        return facts

    def sql(self, statement: str, values: Any = None, *, database: str | None = None, server: str = "primary") -> Any:
        """Run statements as the superuser, to the end of the last one, and return the rows of the first."""
        with closing(self.connect(database, server=server)) as connection, connection.cursor() as cursor:
            cursor.execute(statement, values)
            rows = cursor.fetchall()
            while cursor.nextset():
                pass
            return rows

    def connect(self, database: str | None = None, *, server: str = "primary", **more: Any) -> Any:
        """A session of the superuser, in autocommit."""
        return pymysql.connect(
            unix_socket=self.facts[server]["socket"],
            user="root",
            database=self.database if database is None else database or None,
            autocommit=True,
            client_flag=pymysql.constants.CLIENT.MULTI_STATEMENTS,
            **more,
        )

    def params(self, account: str = "backup", **more: Any) -> dict[str, Any]:
        """Options of the modules, by an account of few rights."""
        server = self.facts["primary"]
        return {
            "login_host": server["host"],
            "login_port": server["port"],
            "option_file": self.facts["accounts"][account]["option_file"],
            "database": self.database,
            **self.bucket.s3_params(prefix="team a/my"),
            **more,
        }

    def exists(self, database: str) -> bool:
        """Whether there is a database of that name."""
        return bool(
            self.sql("SELECT 1 FROM information_schema.SCHEMATA WHERE SCHEMA_NAME = %s", [database], database="")
        )

    def checksums(self, database: str | None = None) -> dict[str, Any]:
        """CHECKSUM TABLE of every table of a database."""
        name = database or self.database
        rows = self.sql(
            "SELECT TABLE_NAME FROM information_schema.TABLES WHERE TABLE_SCHEMA = %s AND TABLE_TYPE = 'BASE TABLE'",
            [name],
            database="",
        )
        tables = [row[0] for row in rows]
        return {
            table: self.sql(f"CHECKSUM TABLE {quoted(name)}.{quoted(table)}", database="")[0][1] for table in tables
        }


def quoted(name: str) -> str:
    """``name`` as an SQL identifier."""
    return "`" + name.replace("`", "``") + "`"


def grant_documented_rights(lab: dict[str, Any], database: str) -> None:
    """Execute docs/mysql-rights.sql as it is, but for the name of its database."""
    pattern = database.replace("_", "\\_")
    text = RIGHTS.read_text(encoding="utf-8")
    run_client(lab, re.sub(r"`shop([^`]*)`", lambda match: f"`{pattern}{match[1]}`", text))


def run_client(lab: dict[str, Any], script: str, database: str = "") -> None:
    """Run a script by the client, as the superuser."""
    argv = ["mariadb", "--no-defaults", f"--socket={lab['mariadb']['primary']['socket']}", "-u", "root"]
    if database:
        argv.append(f"--database={database}")
    subprocess.run([*argv, "--default-character-set=utf8mb4"], input=script.encode(), check=True, timeout=300)


@contextmanager
def make_mysql_site(
    lab: dict[str, Any], server: str, unique_name: Callable[..., str], *, seed: str = SEED
) -> Iterator[MySqlSite]:
    """A seeded database with its accounts, and an empty bucket on the lab's ``server``; both removed afterwards."""
    name = unique_name("my", separator="_")
    with make_bucket(lab, server, unique_name) as bucket:
        site = MySqlSite(lab, name, bucket)
        site.sql(f"CREATE DATABASE {quoted(name)} CHARACTER SET utf8mb4", database="")
        try:
            run_client(lab, seed, name)
            grant_documented_rights(lab, name)
            yield site
        finally:
            for suffix in ("", "__restored", "__original"):
                site.sql(f"DROP DATABASE IF EXISTS {quoted(name + suffix)}", database="")
