# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""pg_backup in several streams: one snapshot, each table in one object, and all of it restored as the docs say."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from labkit.postgresql_programs import DEBIAN_VERSION, NEWEST

from support import wide_database
from support.backups import Site, make_site, quoted
from support.modules import run_module
from support.postgresql_servers import Server, find_server

pytestmark = pytest.mark.lab("postgresql_versions", "versitygw")

README = Path(__file__).parents[3] / "roles/backup/README.md"
TRANSACTION_TIMEOUT = 17
"""The first version with this setting, which newer programs set."""
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


def read_recipe() -> str:
    """The commands of the README that restore a backup of several objects."""
    text = README.read_text()
    start = text.index("pg_restore --exit-on-error --section=pre-data")
    return text[text.rindex("```sh\n", 0, start) + len("```sh\n") : text.index("```", start)]


@pytest.fixture
def target(server: Server, lab: dict[str, Any], wide: Site) -> Site:
    """A server to restore into: the same one, or a newer one if it does not know a setting of the programs' version."""
    is_known = server.version <= int(DEBIAN_VERSION) or server.version >= TRANSACTION_TIMEOUT
    return wide if is_known else replace_server(wide, find_server(lab, NEWEST))


def replace_server(site: Site, server: Server) -> Site:
    """The same site on another server."""
    own = site.lab["postgresql"] | {"hosts": [server.host], "port": server.port}
    return replace(site, lab={**site.lab, "postgresql": own}, primary=server.host)


@contextmanager
def restored(
    site: Site, target: Site, programs: str, folder: Path, unique_name: Callable[..., str]
) -> Iterator[dict[str, Any]]:
    """What is in a new database after the only backup was restored into it by the README's own commands."""
    name = unique_name("bkcopy", separator="_")
    for key in site.names():
        (folder / key.rpartition("/")[2]).write_bytes(site.get(key))
    target.sql(f"CREATE DATABASE {quoted(name)}", database="postgres")
    facts = target.lab["postgresql"]
    environment = os.environ | {
        "PGHOST": target.primary,
        "PGPORT": str(facts["port"]),
        "PGUSER": facts["superuser"],
        "PGPASSFILE": facts["passfile"],
        "PATH": f"{programs}:{os.environ['PATH']}",
    }
    commands = read_recipe().replace("NEW_DATABASE", name)
    try:
        subprocess.run(["bash", "-euo", "pipefail", "-c", commands], check=True, cwd=folder, env=environment)
        yield wide_database.describe(target, name)
    finally:
        target.sql(f"DROP DATABASE IF EXISTS {quoted(name)} WITH (FORCE)", database="postgres")


@pytest.mark.procedure("A22", "C18", "D27")
def test_all_streams_together_are_the_database(
    wide: Site, target: Site, options: dict[str, Any], tmp_path: Path, unique_name: Callable[..., str]
) -> None:
    """Predicted, made, and nothing more to do; restored, all rows, sequences, large objects and constraints are there."""
    predicted = run_module("pg_backup", wide.params(**options), check=True)
    assert predicted.changed, predicted.msg
    assert wide.names() == []
    done = run_module("pg_backup", wide.params(**options))
    assert done.changed, done.msg
    assert (predicted["plan"], predicted["diff"]) == (done["plan"], done["diff"])
    assert "dump in up to 3 streams" in done["plan"][0]["what"]
    assert done["backup"]["dumps"] == ["dump.pgc.zst", *DATA]
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
    assert sorted(manifest["parts"]) == sorted(["dump.pgc.zst", "globals.sql", "tables.json", *DATA])
    tables = read_tables(wide)
    assert len(tables) == done["backup"]["tables"]
    moved = {name for name, entry in tables.items() if "object" in entry}
    assert {entry["object"] for entry in tables.values() if "object" in entry} == set(DATA)
    # Odd names are among those that went elsewhere; what pg_dump writes under its root's name did not.
    assert any(schema == wide_database.ODD_SCHEMA for schema, _name in moved)
    assert ("public", "painted") in set(tables) - moved
    with restored(wide, target, options["bin_dir"], tmp_path, unique_name) as copy:
        assert copy == wide_database.describe(wide)


@pytest.mark.procedure("C18")
def test_every_table_with_an_odd_name_can_be_taken_out(
    wide: Site, target: Site, options: dict[str, Any], tmp_path: Path, unique_name: Callable[..., str]
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
    with restored(wide, target, options["bin_dir"], tmp_path, unique_name) as copy:
        assert copy == wide_database.describe(wide)


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII"])
def test_names_are_given_in_the_encoding_of_the_database(
    wide: Site, options: dict[str, Any], unique_name: Callable[..., str], encoding: str
) -> None:
    """Whose bytes may be no UTF-8 at all."""
    name = unique_name("bkbytes", separator="_")
    wide.sql(f"CREATE DATABASE {name} ENCODING '{encoding}' LOCALE 'C' TEMPLATE template0", database="postgres")
    site = replace(wide, database=name)
    try:
        with closing(site.connect()) as connection, connection.cursor() as cursor:
            connection.set_client_encoding(encoding)
            rows = b"SELECT g, repeat('x', 1000) AS v FROM generate_series(1, 20000) g"
            for table in (b"caf\xe9", b"c\xf4t\xe9 *"):
                cursor.execute(b'CREATE TABLE "' + table + b'" AS ' + rows)
        done = run_module("pg_backup", site.params(**options | {"jobs": 2}))
        assert done.changed, done.msg
        assert done["backup"]["dumps"] == ["dump.pgc.zst", "data-1.pgc.zst"]
        assert done["backup"]["rows"] == 40_000
    finally:
        wide.sql(f"DROP DATABASE {name} WITH (FORCE)", database="postgres")
