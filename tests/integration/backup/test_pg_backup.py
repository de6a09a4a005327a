# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""pg_backup and pg_backup_info on real servers: what is published is a whole backup, and only when one is due."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support.backups import Site, make_site, quoted
from support.exchanges import MOMENTS, PROBLEMS, Exchange
from support.modules import run_module
from support.s3_proxy import s3_proxy

pytestmark = pytest.mark.lab("postgresql", "s3", "versitygw")

HASHES = """
SELECT c.oid::regclass::text, (xpath('/row/h/text()', query_to_xml(format(
       'SELECT count(*) || ''/'' || coalesce(sum(hashtextextended(x::text, 0)), 0) AS h FROM ONLY %%s x', c.oid::regclass), false, true, '')))[1]::text
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind = 'r' AND n.nspname = 'public' ORDER BY 1
"""


def content(site: Site, database: str) -> tuple[list[Any], list[Any]]:
    """Row count and hash of every table, and the sequence's state."""
    return site.sql(HASHES, database=database, values={}), site.sql(
        "SELECT last_value, is_called FROM counter", database=database
    )


def restore(site: Site, dump: bytes, name: str) -> None:
    """Decode ``dump`` and restore it into a fresh database ``name``."""
    site.sql(f"CREATE DATABASE {quoted(name)}", database="postgres")
    plain = subprocess.run(["zstd", "-d", "-c"], input=dump, capture_output=True, check=True).stdout
    facts = site.lab["postgresql"]
    environment = os.environ | {
        "PGHOST": site.primary,
        "PGPORT": str(facts["port"]),
        "PGUSER": facts["superuser"],
        "PGPASSFILE": facts["passfile"],
    }
    subprocess.run(
        ["pg_restore", "--exit-on-error", "--single-transaction", "-d", name], input=plain, check=True, env=environment
    )


@pytest.mark.procedure("A22", "B23")
def test_publishes_one_verified_backup_and_is_then_content(site: Site) -> None:
    """Check, real, check, real: predicted, done, nothing more to do."""
    predicted = run_module("pg_backup", site.params(), check=True)
    assert predicted.changed
    assert site.names() == []
    done = run_module("pg_backup", site.params())
    assert done.changed, done.msg
    assert predicted["plan"] == done["plan"]
    assert predicted["diff"] == done["diff"]
    before = sorted(site.names())
    for check in (True, False):
        again = run_module("pg_backup", site.params(), check=check)
        assert not again.failed, again.msg
        assert not again.changed
        assert again["plan"] == []
        assert again["backup"]["run_id"] == done["backup"]["run_id"]
        assert done["backup"]["run_id"] in again["why"]
    assert sorted(site.names()) == before
    names = ["dump.pgc.zst", "globals.sql", "manifest.json", "started.json", "tables.json"]
    assert [key.rsplit("/", 1)[1] for key in before] == names
    site.nothing_left()
    # One time stamp names the run, everything in it and its manifest.
    manifest = json.loads(site.get(site.key("manifest.json")))
    assert {key.rsplit("/", 2)[1] for key in before} == {manifest["run_id"]}
    assert manifest["taken_at"].replace("-", "").replace(":", "") == manifest["run_id"].split("-")[0]
    assert manifest["system_identifier"] == site.lab["postgresql"]["system_identifier"]


@pytest.mark.procedure("A22", "C18", "D27")
def test_what_is_published_restores_to_the_same_rows(site: Site, unique_name: Callable[..., str]) -> None:
    """Restored into a fresh database, every table has the same count and hash; roles lie beside the dump."""
    done = run_module("pg_backup", site.params())
    assert done.changed, done.msg
    copy = unique_name("bkcopy", separator="_")
    try:
        restore(site, site.get(site.key("dump.pgc.zst")), copy)
        assert content(site, copy) == content(site, site.database)
    finally:
        site.sql(f"DROP DATABASE IF EXISTS {quoted(copy)} WITH (FORCE)", database="postgres")
    rows = {(entry["schema"], entry["name"]): entry["rows"] for entry in json.loads(site.get(site.key("tables.json")))}
    assert rows == {
        ("public", "feature"): 2000,
        ("public", 'we"ird\nname'): 1,
        ("public", "parted_1"): 100,
        ("public", "empty_one"): 0,
    }
    roles = site.get(site.key("globals.sql")).decode()
    assert f"CREATE ROLE {site.lab['postgresql']['superuser']}" in roles
    assert "PASSWORD" not in roles


def test_a_backup_older_than_allowed_is_followed_by_another(real_site: Site) -> None:
    """Due again once too old; the older one stays."""
    first = run_module("pg_backup", real_site.params())
    second = run_module("pg_backup", real_site.params(max_age="0"))
    assert second.changed, second.msg
    assert first["backup"]["run_id"] in second["why"]
    listed = run_module("pg_backup_info", real_site.s3_params())
    assert [one["run_id"] for one in listed["backups"]] == [second["backup"]["run_id"], first["backup"]["run_id"]]
    assert [one["run_id"] for one in listed["newest"]] == [second["backup"]["run_id"]]
    assert listed["bad"] == []
    assert second["plan"][0]["estimate"] > 0


def test_a_replaced_truncated_or_missing_object_does_not_count(real_site: Site) -> None:
    """The bucket's listing tells: another ETag, another size, gone; the next run makes a new backup and names the bad one."""
    first = run_module("pg_backup", real_site.params())["backup"]
    key = real_site.key("dump.pgc.zst")
    dump = real_site.get(key)
    for damaged in (dump[:-1], dump[:-1] + bytes([dump[-1] ^ 1]), None):
        if damaged is None:
            real_site.client.delete_object(Bucket=real_site.bucket, Key=key)
        else:
            real_site.client.put_object(Bucket=real_site.bucket, Key=key, Body=damaged)
        predicted = run_module("pg_backup", real_site.params(), check=True)
        assert predicted.changed
        assert predicted["why"] == "there is no verified backup"
        assert [one["run_id"] for one in predicted["bad"]] == [first["run_id"]]
        assert "dump.pgc.zst" in predicted["bad"][0]["problem"]
        listed = run_module("pg_backup_info", real_site.s3_params())
        assert listed["newest"] == []
        assert listed["bad"] == predicted["bad"]
    second = run_module("pg_backup", real_site.params())
    assert second.changed, second.msg


def test_full_verification_decodes_the_newest_again(real_site: Site) -> None:
    """verify: full passes on a good backup and fails without any."""
    empty = run_module("pg_backup_info", real_site.s3_params(verify="full"))
    assert empty.failed
    assert "no verified backup" in empty.msg
    done = run_module("pg_backup", real_site.params())
    full = run_module("pg_backup_info", real_site.s3_params(verify="full", database=real_site.database))
    assert full["decoded"] == [done["backup"]["run_id"]]
    assert not full.changed


@pytest.mark.parametrize("name", ["../up/b c", "-o a=b $(id)", 'postgresql://q"uo;te', "\U0001f600%2F.incoming"])
def test_hostile_database_names_stay_in_their_folder(
    lab: dict[str, Any], unique_name: Callable[..., str], name: str
) -> None:
    """Names are data: for libpq, for the programs' arguments and for the key."""
    database = f"{name} {os.getpid()}"
    with make_site(lab, "versitygw", unique_name, rows=5, database=database) as site:
        done = run_module("pg_backup", site.params())
        assert done.changed, done.msg
        assert done["backup"]["database"] == database
        assert all(key.startswith("team a/pg/") and key.count("/") == 5 for key in site.names())
        assert not run_module("pg_backup", site.params()).changed
        listed = run_module("pg_backup_info", site.s3_params(database=database))
        assert [one["database"] for one in listed["backups"]] == [database]


@pytest.mark.procedure("C18")
def test_encryption_is_asked_for_and_read_back(moto_site: Site) -> None:
    """Every object carries it."""
    done = run_module("pg_backup", moto_site.params(encryption="AES256"))
    assert done.changed, done.msg
    heads = [moto_site.client.head_object(Bucket=moto_site.bucket, Key=key) for key in moto_site.names()]
    assert [head["ServerSideEncryption"] for head in heads] == ["AES256"] * 5


def test_a_server_that_does_not_encrypt_is_found_out(real_site: Site) -> None:
    """versitygw takes the header and stores in clear: nothing is published, nothing is left."""
    done = run_module("pg_backup", real_site.params(encryption="AES256"))
    assert done.failed
    assert "encryption AES256 was asked for, the server reports none" in done.msg
    assert real_site.names() == []
    real_site.nothing_left()


@pytest.mark.procedure("A22")
def test_only_the_primary_is_dumped(real_site: Site) -> None:
    """A standby is refused by what it is; a list of all members leads to the primary, whichever comes first."""
    hosts = real_site.lab["postgresql"]["hosts"]
    real_site.wait_replayed()
    refused = run_module(
        "pg_backup", real_site.params(login_host=next(host for host in hosts if host != real_site.primary))
    )
    assert refused["error"]["refused"] is True
    assert "standby" in refused.msg
    assert real_site.names() == []
    last = [host for host in hosts if host != real_site.primary] + [real_site.primary]
    done = run_module("pg_backup", real_site.params(login_host=",".join(last)))
    assert done.changed, done.msg


def test_role_passwords_are_saved_only_on_request(real_site: Site) -> None:
    """And then as the hashes that they are."""
    done = run_module("pg_backup", real_site.params(role_passwords=True))
    assert done.changed, done.msg
    assert "SCRAM-SHA-256$" in real_site.get(real_site.key("globals.sql")).decode()


def test_no_byte_touches_the_local_disk(moto_site: Site, tmp_path: Path) -> None:
    """With every temporary folder full the backup works, and neither the module nor its children write to a disk."""
    full = tmp_path / "full"
    full.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(full)], check=True)
    try:
        subprocess.run(["dd", "if=/dev/zero", f"of={full}/fill", "bs=64k", "count=1"], check=True, capture_output=True)
        blocked = {
            "TMPDIR": str(full),
            "TMP": str(full),
            "TEMP": str(full),
            "HOME": str(full),
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        done = run_module("pg_backup", moto_site.params(), env=blocked)
        assert done.changed, done.msg
        assert sorted(path.name for path in full.iterdir()) == ["fill"]
    finally:
        subprocess.run(["umount", str(full)], check=True)


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_dump_that_is_exchanged_before_its_manifest_does_not_count(moment: str, real_site: Site) -> None:
    """What is published is what was verified, whenever another client writes under its name."""
    exchange = Exchange(real_site, "dump.pgc.zst", moment)
    with s3_proxy(real_site.server["endpoint_url"], exchange) as proxy:
        run = run_module("pg_backup", real_site.params(endpoint_url=proxy.url))
    assert exchange.done
    assert run.failed
    assert PROBLEMS[moment] in run.msg
    assert ("manifest.json" in str(real_site.names())) == (moment == "published")
    after = run_module("pg_backup", real_site.params(), check=True)
    assert after["due"], after.result
