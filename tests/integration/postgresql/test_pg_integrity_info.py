# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""pg_integrity_info on servers whose files are really damaged: which relation, which block, and what was not looked at."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from labkit.postgresql_programs import USER, VERSIONS

from support.modules import run_module
from support.playbooks import PlaybookRun
from support.postgresql_rights import grant_documented_rights
from support.postgresql_servers import BLOCK, PASSWORD, Server, damage_blocks, start_server

pytestmark = pytest.mark.lab("postgresql_versions")

SAMPLE = ("14", "18")
HAS_CHECKSUMS = 18
"""From this version on initdb turns them on."""
SEED = """
CREATE EXTENSION amcheck;
CREATE TABLE orders (id int PRIMARY KEY, note text);
CREATE TABLE "Stock ""x" (id int, note text);
CREATE INDEX stock_note ON "Stock ""x" (note);
CREATE TABLE customers (id int PRIMARY KEY, note text);
CREATE INDEX customers_note ON customers USING hash (note);
INSERT INTO orders SELECT g, 'canary-' || g FROM generate_series(1, 3000) g;
INSERT INTO "Stock ""x" SELECT g, md5(g::text) FROM generate_series(1, 3000) g;
CREATE TABLE pair (id int, note text);
CREATE TABLE wide (id int, note text);
ALTER TABLE wide ALTER note SET STORAGE EXTERNAL;
CREATE TABLE spaced (id int PRIMARY KEY, note text) TABLESPACE space;
INSERT INTO pair SELECT g, md5(g::text) FROM generate_series(1, 3000) g;
INSERT INTO wide SELECT g, repeat('x', 9000) FROM generate_series(1, 20) g;
INSERT INTO spaced SELECT g, md5(g::text) FROM generate_series(1, 3000) g;
INSERT INTO customers SELECT g, 'x' FROM generate_series(1, 500) g;
CHECKPOINT;
"""


@pytest.fixture(
    scope="module",
    params=[name if name in SAMPLE else pytest.param(name, marks=pytest.mark.sweep) for name in VERSIONS],
)
def damaged(request: pytest.FixtureRequest, lab_facts: dict[str, Any]) -> Iterator[Server]:
    """A server with a database in which a block of a table and one of an index are damaged, and one without amcheck."""
    facts = lab_facts["postgresql_versions"]
    programs = Path(facts["servers"][request.param]["programs"])
    with start_server(request.param, programs, Path(facts["passfile"]).parent) as server:
        space = server.folder / "space"
        space.mkdir()
        shutil.chown(space, USER, USER)
        server.administer(f"CREATE TABLESPACE space LOCATION '{space}'")
        for name in ("shop", "plain"):
            server.administer(f"CREATE DATABASE {name}")
        server.administer(*SEED.strip().rstrip(";").split(";\n"), database="shop")
        server.administer("CREATE TABLE plain (id int)", database="plain")
        for name in ("shop", "plain"):
            grant_documented_rights(server.superuser, name, integrity="watch")
        server.administer(f"ALTER ROLE watch PASSWORD '{PASSWORD}'")
        toast = "SELECT reltoastrelid::regclass::text FROM pg_class WHERE relname = 'wide'"
        ((toast,),) = server.administer(toast, database="shop")
        wrong = b"\xff" * 64
        damaged = [("orders", 1), ("pair", 1), ("pair", 2), ("pair", 5), ("spaced", 2), (toast, 4)]
        blocks = [(name, block, wrong) for name, block in damaged]
        damage_blocks(server, "shop", *blocks, ("stock_note", 3, bytes(BLOCK)))
        yield server


def ask(server: Server, database: str = "shop", **options: Any) -> Any:
    """Run the module as the documented account."""
    connection = {**server.params(database), "login_user": "watch", "login_password": PASSWORD}
    return run_module("pg_integrity_info", {**connection, **options})


@pytest.mark.procedure("B22")
def test_the_damaged_blocks_are_named_and_nothing_else(damaged: Server) -> None:
    """A block of a table and one of an index; what hangs on the table is not called whole."""
    run = ask(damaged)
    assert not run.failed, run.msg
    assert not run.changed
    assert run["status"] == "damaged"
    found = [(entry["object"], entry["kind"], entry["block"]) for entry in run["damaged"]]
    assert sorted(found, key=str) == [
        ("index public.stock_note", "index", 3),
        ("table public.orders", "table", 1),
        *[("table public.pair", "table", block) for block in (1, 2, 5)],
        ("table public.spaced", "table", 2),
        ("table public.wide", "table", None),
    ]
    assert {"table public.customers", "index public.customers_pkey", 'table public."Stock ""x"'} <= set(run["checked"])
    unchecked = {entry["object"]: entry["reason"] for entry in run["unchecked"]}
    keys = {f"index public.{name}_pkey" for name in ("orders", "spaced")}
    assert unchecked.keys() == {*keys, "index public.customers_note", "table public.wide"}
    for name in ("orders", "spaced"):
        assert f"table public.{name} cannot be read to its end" in unchecked[f"index public.{name}_pkey"]
    assert "TOAST" in unchecked["table public.wide"]
    assert "hash" in unchecked["index public.customers_note"]
    steps = {entry["object"]: entry["next_step"] for entry in run["blockers"]}
    assert "REINDEX INDEX CONCURRENTLY" in steps["index public.stock_note"]
    assert "Drop nothing" in steps["table public.orders"]
    assert "role restore" in steps["table public.orders"]
    assert any("block 1" in line for line in run["evidence"])
    assert "canary" not in str(run.result["damaged"])
    assert run["data_checksums"] == (damaged.version >= HAS_CHECKSUMS)
    if run["data_checksums"]:
        counted = ask(damaged, tables=["customers"])
        assert counted["checksum_failures"][0]["database"] == "shop"
        assert counted["status"] == "damaged"
        assert "checksum_failures_after" in counted["blockers"][0]["next_step"]
        earlier = ask(damaged, tables=["customers"], checksum_failures_after="2000-01-01T00:00:00Z")
        assert earlier["status"] == "damaged"
        accepted = ask(damaged, tables=["customers"], checksum_failures_after="2100-01-01T00:00:00+02:00")
        assert (accepted["status"], accepted["checksum_failures"][0]["counts"]) == ("unproven", False)
        assert ask(damaged, checksum_failures_after="2100-01-01T00:00:00Z")["status"] == "damaged"
    else:
        whole = ask(damaged, tables=['public."Stock ""x"', "orders"], heapallindexed=False)
        assert whole["status"] == "damaged"


def test_only_what_was_read_is_called_whole(damaged: Server) -> None:
    """Without the extension nothing is known, and the step to it is named; wrong names are refused."""
    plain = ask(damaged, "plain")
    assert not plain.failed, plain.msg
    assert (plain["status"], plain["checked"], plain["amcheck"]) == ("unproven", [], None)
    assert "CREATE EXTENSION amcheck" in plain["blockers"][0]["next_step"]
    damaged.administer("CREATE EXTENSION amcheck", database="plain")
    try:
        denied = ask(damaged, "plain")
        assert denied["status"] == "unproven"
        assert "docs/postgresql-rights.sql" in denied["blockers"][0]["next_step"]
        grant_documented_rights(damaged.superuser, "plain", integrity="watch")
        granted = ask(damaged, "plain")
        assert (granted["status"], granted["checked"]) == ("whole", ["table public.plain"])
        for statement in (
            "CREATE TABLE events (id int PRIMARY KEY) PARTITION BY RANGE (id)",
            "CREATE SCHEMA parts",
            "CREATE TABLE parts.first PARTITION OF events FOR VALUES FROM (0) TO (9)",
            "CREATE TABLE later (id int) PARTITION BY RANGE (id)",
        ):
            damaged.administer(statement, database="plain")
        chosen = ask(damaged, "plain", tables=["public.events"])
        assert (chosen["status"], chosen["checked"]) == ("unproven", ["table parts.first", "index parts.first_pkey"])
        assert chosen["summary"].startswith("1 table of database plain is whole, and no other was looked at: ")
        both = ask(damaged, "plain", tables=["plain", "events"], schemas=["public"])
        assert "table public.plain" in both["checked"]
        assert "2 tables of database plain are whole" in both["summary"]
        by_schema = ask(damaged, "plain", schemas=["public"])
        assert by_schema["checked"] == ["table parts.first", "index parts.first_pkey", "table public.plain"]
        none = ask(damaged, "plain", tables=["public.later"])
        assert (none.failed, none["status"], none["checked"]) == (False, "unproven", []), none.msg
        wrong = ask(damaged, "plain", tables=["plain"], schemas=["public", "ghost"])
        assert "option schemas on" in wrong.msg
        assert "there is no table of ghost" in wrong.msg
        for name in ("events", "later"):
            damaged.administer(f"DROP TABLE {name}", database="plain")
        damaged.administer("DROP SCHEMA parts", database="plain")
    finally:
        damaged.administer("DROP EXTENSION amcheck", database="plain")
    for options, words in (
        ({"tables": ["customers", "public.nothing"]}, "there is no table of public.nothing"),
        ({"tables": ["customers"], "schemas": ["pg_catalog"]}, "there is no table of customers"),
        ({"schemas": ["public", "ghost"]}, "there is no table of ghost"),
        ({"timeout": 0}, "option timeout"),
        ({"tables": ["a.b.c"]}, "it is not the name of a table"),
        ({"checksum_failures_after": "2026-11-27 02:00"}, "option checksum_failures_after"),
    ):
        wrong = ask(damaged, **options)
        assert wrong.failed
        assert wrong["error"]["refused"]
        assert words in wrong.msg


@pytest.mark.procedure("B22")
@pytest.mark.parametrize("damaged", ["18"], indirect=True)
def test_the_role_saves_evidence_and_lets_nothing_be_dropped(
    damaged: Server, tmp_path: Path, ansible_playbook: Callable[..., PlaybookRun]
) -> None:
    """It fails until a replacement is found whole; the evidence is there before."""
    connection = {**damaged.params("shop"), "login_user": "watch", "login_password": PASSWORD}
    inputs = {
        "corruption_triage_connection": connection,
        "corruption_triage_evidence_folder": str(tmp_path),
        "ansible_connection": "local",
    }
    role = {"ansible.builtin.include_role": {"name": "lowtide.ops.corruption_triage"}}
    verdict = {"ansible.builtin.assert": {"that": "corruption_triage_result.may_be_replaced"}}
    plays = [{"hosts": "localhost", "gather_facts": False, "tasks": [role, verdict]}]
    refused = ansible_playbook(plays, extra_vars=inputs)
    assert refused.rc != 0
    assert "it must not be dropped: no replacement has been verified" in " ".join(refused.stdout.split())
    (saved,) = tmp_path.glob("*-shop.json")
    assert saved.stat().st_mode & 0o777 == 0o600
    assert json.loads(saved.read_text())["status"] == "damaged"
    inputs["corruption_triage_connection"] = {**connection, "login_db": "plain"}
    unseen = ansible_playbook(plays, extra_vars=inputs)
    assert unseen.rc != 0
    assert "table public.plain could be looked at and was not" in " ".join(unseen.stdout.split())
    inputs["corruption_triage_connection"] = connection
    damaged.administer("CREATE DATABASE copy TEMPLATE template0")
    try:
        damaged.administer(*SEED.strip().rstrip(";").split(";\n"), database="copy")
        damaged.administer("DROP INDEX customers_note", database="copy")
        grant_documented_rights(damaged.superuser, "copy", integrity="watch")
        refused = ansible_playbook(plays, extra_vars={**inputs, "corruption_triage_replacement": "copy"})
        assert refused.rc != 0
        words = " ".join(refused.stdout.split())
        assert "no verified backup is known of which its replacement copy could be" in words
    finally:
        damaged.administer("DROP DATABASE copy WITH (FORCE)")


@pytest.mark.procedure("B22")
@pytest.mark.parametrize("damaged", ["18"], indirect=True)
def test_the_role_tells_what_nobody_can_connect_to(
    damaged: Server, ansible_playbook: Callable[..., PlaybookRun]
) -> None:
    """By what the server refuses it with, as an account that comes into no other database; a refusal of its own is no answer."""
    connection = {**damaged.params("plain"), "login_user": "watch", "login_password": PASSWORD}
    role = {"ansible.builtin.include_role": {"name": "lowtide.ops.corruption_triage"}}
    shown = {"ansible.builtin.debug": {"msg": "{{ corruption_triage_result.summary }}"}}
    plays = [{"hosts": "localhost", "gather_facts": False, "tasks": [role, shown]}]

    def triage(database: str = "plain", **more: Any) -> tuple[int, str]:
        variables = {
            "corruption_triage_connection": {**connection, "login_db": database},
            "corruption_triage_on_damage": "report",
            "ansible_connection": "local",
            **more,
        }
        run = ansible_playbook(plays, extra_vars=variables)
        return run.rc, " ".join(run.stdout.split())

    damaged.administer("REVOKE CONNECT ON DATABASE postgres FROM PUBLIC")
    try:
        for change, back, told in (
            ("datallowconn = false", "datallowconn = true", "database plain is shut: it allows no connections"),
            (
                "datconnlimit = -2",
                "datconnlimit = -1",
                "database plain is invalid: an interrupted DROP DATABASE has left it",
            ),
        ):
            damaged.administer(f"UPDATE pg_database SET {change} WHERE datname = 'plain'")
            rc, words = triage()
            damaged.administer(f"UPDATE pg_database SET {back} WHERE datname = 'plain'")
            assert (rc, told in words) == (0, True), words
        rc, words = triage("gone")
        assert (rc, "database gone is lost: there is no database gone" in words) == (0, True), words
        rc, words = triage(corruption_triage_tables=["ghost"])
        assert (rc, "there is no table of ghost" in words) == (2, True), words
        assert "What has become of plain could not be asked in the database postgres either" in words
    finally:
        damaged.administer("GRANT CONNECT ON DATABASE postgres TO PUBLIC")
    rc, words = triage(corruption_triage_tables=["ghost"])
    assert (rc, "there is no table of ghost" in words, "could not be asked" in words) == (2, True, False), words
