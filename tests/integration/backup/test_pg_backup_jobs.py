# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""pg_backup in several streams: one snapshot, each table in one object, and all of it restored as the docs say."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from labkit.postgresql_programs import DEBIAN_VERSION

from support import wide_database
from support.backups import Site, make_site, quoted
from support.modules import run_module
from support.postgresql_rights import PSQL
from support.postgresql_servers import Server
from support.readme import write_example

pytestmark = pytest.mark.lab("postgresql_versions", "versitygw")

README = Path("roles/backup/README.md")
TRANSACTION_TIMEOUT = 17
"""The first version with this setting, which newer programs set."""
OLDER = [version for version in range(14, TRANSACTION_TIMEOUT) if version != int(DEBIAN_VERSION)]
"""Servers that the programs which there are for them are newer than, and write what they do not know."""
JOBS = 3
DATA = ["data-1.pgc.zst", "data-2.pgc.zst"]


def find_programs(server: Server, lab: dict[str, Any]) -> str:
    """The oldest client programs that there are for a server, so that old and new ones are used."""
    if server.version <= int(DEBIAN_VERSION):
        return f"/usr/lib/postgresql/{DEBIAN_VERSION}/bin"
    return str(lab["postgresql_versions"]["client_programs"])


@pytest.fixture
def wide(server: Server, lab: dict[str, Any], unique_name: Callable[..., str]) -> Iterator[Site]:
    """A database with large tables of every kind, on a server of each version by turns."""
    facts = lab["postgresql_versions"]
    own = {"hosts": [server.host], "port": server.port, **{name: facts[name] for name in ("superuser", "passfile")}}
    with make_site({**lab, "postgresql": own}, "versitygw", unique_name, seed="SELECT") as site:
        wide_database.fill(site)
        yield site


@pytest.fixture
def options(server: Server, lab: dict[str, Any]) -> dict[str, Any]:
    """Options of each run."""
    return {"jobs": JOBS, "bin_dir": find_programs(server, lab)}


def read_tables(site: Site) -> dict[tuple[str, str], dict[str, Any]]:
    """What tables.json says of each table."""
    return {(entry["schema"], entry["name"]): entry for entry in json.loads(site.get(site.key("tables.json")))}


def restore(site: Site, server: Server, programs: str, folder: Path) -> str:
    """Restore the only backup by the README's own commands, in the place of its database; return what differs in numbers."""
    backup = folder / "backup"
    backup.mkdir()
    for key in site.names():
        (backup / key.rpartition("/")[2]).write_bytes(site.get(key))
    (backup / "globals.sql").write_text("")  # other tests' roles are in it
    site.sql(f"DROP DATABASE {quoted(site.database)} WITH (FORCE)", database="postgres")
    environment = server.superuser.environment() | {
        "PATH": f"{programs}:{os.environ['PATH']}:{PSQL.parent}",
    }
    output = ""
    for name in ("restore-older.sh" if server.version in OLDER else "restore-streams.sh", "compare.sh"):
        script = write_example(README, name, folder, {"feature_db": site.database})
        done = subprocess.run(
            ["bash", script], cwd=folder, env=environment, check=True, stdout=subprocess.PIPE, text=True
        )
        output = done.stdout
    return output


@pytest.mark.procedure("A22", "C18", "D27")
def test_all_streams_together_are_the_database(
    wide: Site, server: Server, options: dict[str, Any], tmp_path: Path
) -> None:
    """Predicted, made, and nothing more to do; restored, all rows, sequences, large objects and constraints are there."""
    predicted = run_module("pg_backup", wide.params(**options), check=True)
    assert predicted.changed, predicted.msg
    assert wide.names() == []
    done = run_module("pg_backup", wide.params(**options))
    assert done.changed, done.msg
    assert (predicted["plan"], predicted["diff"]) == (done["plan"], done["diff"])
    assert "dump in up to 3 streams" in done["plan"][0]["what"]
    assert done["backup"]["dumps"] == ["main.pgc.zst", *DATA]
    assert "in 3 dumps" in done["evidence"][0]
    before = sorted(wide.names())
    for check in (True, False):
        again = run_module("pg_backup", wide.params(**options), check=check)
        assert not again.changed, again.msg
        assert again["backup"]["run_id"] == done["backup"]["run_id"]
    assert sorted(wide.names()) == before
    wide.nothing_left()
    manifest = json.loads(wide.get(wide.key("manifest.json")))
    assert manifest["format_version"] == 2
    assert sorted(manifest["parts"]) == sorted(["main.pgc.zst", "globals.sql", "tables.json", *DATA])
    tables = read_tables(wide)
    assert len(tables) == done["backup"]["tables"]
    moved = {name for name, entry in tables.items() if "object" in entry}
    assert {entry["object"] for entry in tables.values() if "object" in entry} == set(DATA)
    # Odd names are among those that went elsewhere; what pg_dump writes under its root's name did not.
    assert any(schema == wide_database.ODD_SCHEMA for schema, _name in moved)
    assert ("public", "painted") in set(tables) - moved
    original = wide_database.describe(wide)
    assert restore(wide, server, options["bin_dir"], tmp_path) == ""
    assert wide_database.describe(wide) == original


@pytest.mark.procedure("C18")
def test_every_table_with_an_odd_name_can_be_taken_out(
    wide: Site, server: Server, options: dict[str, Any], tmp_path: Path
) -> None:
    """Where what stays is as large as all of them, each is dumped by its name, and no other that it matches as a pattern."""
    wide.sql("DROP TABLE line, event, parent, child, unlogged, orders CASCADE")
    wide.sql("INSERT INTO painted SELECT 'red', repeat(md5(g::text), 32) FROM generate_series(1, 60000) g")
    done = run_module("pg_backup", wide.params(**options | {"jobs": 2}))
    assert done.changed, done.msg
    tables = read_tables(wide)
    odd = [entry for (schema, _name), entry in tables.items() if schema == wide_database.ODD_SCHEMA]
    assert len(odd) == len(wide_database.ODD_NAMES)
    assert "object" not in tables["public", "painted"]
    assert [entry["object"] for entry in odd] == ["data-1.pgc.zst"] * len(odd)
    original = wide_database.describe(wide)
    assert restore(wide, server, options["bin_dir"], tmp_path) == ""
    assert wide_database.describe(wide) == original


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII"])
def test_names_are_given_in_the_encoding_of_the_database(
    wide: Site, options: dict[str, Any], unique_name: Callable[..., str], encoding: str
) -> None:
    """Whose bytes may be no UTF-8 at all, and whatever encoding clients have by default."""
    name = unique_name("bkbytes", separator="_")
    wide.sql(f"CREATE DATABASE {name} ENCODING '{encoding}' LOCALE 'C' TEMPLATE template0", database="postgres")
    wide.sql(f"ALTER DATABASE {name} SET client_encoding = 'UTF8'", database="postgres")
    site = replace(wide, database=name)
    try:
        with closing(site.connect()) as connection, connection.cursor() as cursor:
            connection.set_client_encoding(encoding)
            rows = b"SELECT g, repeat('x', 1000) AS v FROM generate_series(1, 20000) g"
            for table in (b"caf\xe9", b"c\xf4t\xe9 *"):
                cursor.execute(b'CREATE TABLE "' + table + b'" AS ' + rows)
        done = run_module("pg_backup", site.params(**options | {"jobs": 2}))
        assert done.changed, done.msg
        assert done["backup"]["dumps"] == ["main.pgc.zst", "data-1.pgc.zst"]
        assert done["backup"]["rows"] == 40_000
    finally:
        wide.sql(f"DROP DATABASE {name} WITH (FORCE)", database="postgres")
