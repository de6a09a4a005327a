# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""pg_backup with no more than it needs: of the bucket, of the database, of the environment."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from support.backups import Site, quoted
from support.modules import run_module
from support.s3_proxy import Fault, Request, s3_proxy

pytestmark = pytest.mark.lab("postgresql", "s3", "versitygw")

PASSWORD = "canary-of-the-saver"  # noqa: S105  # of a role that a test makes


@pytest.fixture
def saver(real_site: Site, unique_name: Callable[..., str]) -> Iterator[str]:
    """A role that may read all data, with a password, and nothing else."""
    role = unique_name("saver", separator="_")
    real_site.sql(f"CREATE ROLE {role} LOGIN PASSWORD '{PASSWORD}'")
    real_site.sql(f"GRANT pg_read_all_data TO {role}")
    yield role
    real_site.sql(f"DROP OWNED BY {role}; DROP ROLE {role}")


def without_passfile(site: Site, **more: Any) -> dict[str, Any]:
    """The site's options, none of which has a password."""
    return {name: value for name, value in site.params(**more).items() if name != "passfile"}


@pytest.mark.procedure("C18")
def test_a_role_that_may_only_read_is_enough(real_site: Site, saver: str) -> None:
    """Its tables, its sequences, the roles beside it; all of it is in the dump."""
    done = run_module("pg_backup", without_passfile(real_site, login_user=saver, login_password=PASSWORD))
    assert done.changed, done.msg
    assert (done["backup"]["tables"], done["backup"]["rows"]) == (4, 2101)


@pytest.mark.procedure("C18")
def test_what_a_role_may_not_read_is_named_before_anything_is_written(
    real_site: Site, unique_name: Callable[..., str]
) -> None:
    """In check mode too; the statements of the message, as they are, are enough."""
    role = unique_name("saver", separator="_")
    real_site.sql(
        f"CREATE ROLE {role} LOGIN PASSWORD '{PASSWORD}';"
        " CREATE SCHEMA app; CREATE TABLE app.t (i int GENERATED ALWAYS AS IDENTITY); INSERT INTO app.t DEFAULT VALUES;"
        " CREATE TABLE hidden (i int); ALTER TABLE hidden ENABLE ROW LEVEL SECURITY; INSERT INTO hidden VALUES (1);"
        " SELECT lo_from_bytea(0, 'x'), lo_from_bytea(0, 'y')"
    )
    try:
        options = without_passfile(real_site, login_user=role, login_password=PASSWORD)
        for check in (True, False):
            refused = run_module("pg_backup", options, check=check)
            assert refused["error"]["refused"] is True
            assert f"{role} lacks rights for a whole dump: it may not use 1 schema (app)" in refused["error"]["problem"]
            statements = [blocker["next_step"] for blocker in refused["blockers"]]
            assert f"GRANT USAGE ON SCHEMA app TO {role}" in statements
            assert any(statement.startswith(f"ALTER ROLE {role} BYPASSRLS ") for statement in statements)
            assert any("GRANT SELECT ON LARGE OBJECT " in statement for statement in statements)
            assert real_site.names() == []
        real_site.sql("; ".join(statements))
        assert run_module("pg_backup", options, check=True).changed
        done = run_module("pg_backup", options)
        assert done.changed, done.msg
        assert (done["backup"]["tables"], done["backup"]["rows"]) == (6, 2103)
    finally:
        real_site.sql(f"DROP OWNED BY {role}; DROP ROLE {role}")


@pytest.mark.procedure("C18")
def test_a_table_in_the_schema_of_an_extension_is_a_table_of_the_database(
    real_site: Site, unique_name: Callable[..., str]
) -> None:
    """As chunks of TimescaleDB are: pg_dump dumps it, so its rights are asked for before and its rows are expected."""
    role = unique_name("saver", separator="_")
    real_site.sql(
        f"CREATE ROLE {role} LOGIN PASSWORD '{PASSWORD}'; GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role};"
        f" GRANT SELECT ON ALL SEQUENCES IN SCHEMA public TO {role};"
        " CREATE EXTENSION pgstattuple; CREATE SCHEMA chunks; ALTER EXTENSION pgstattuple ADD SCHEMA chunks;"
        " CREATE TABLE chunks.one AS SELECT g, repeat(md5(g::text), 20) AS v FROM generate_series(1, 40000) g;"
        " CREATE TABLE two AS TABLE chunks.one"
    )
    try:
        refused = run_module(
            "pg_backup", without_passfile(real_site, login_user=role, login_password=PASSWORD), check=True
        )
        assert refused["error"]["refused"] is True
        assert "GRANT USAGE ON SCHEMA chunks TO" in refused["error"]["next_step"]
        done = run_module("pg_backup", real_site.params(jobs=2))
        assert done.changed, done.msg
        (tables,) = [key for key in real_site.names() if key.endswith("/tables.json")]
        moved = {entry["name"] for entry in json.loads(real_site.get(tables)) if "object" in entry}
        assert moved & {"one", "two"}
    finally:
        real_site.sql(f"DROP OWNED BY {role}; DROP ROLE {role}")


@pytest.mark.procedure("C18")
def test_what_only_a_superuser_can_dump_is_named(real_site: Site, saver: str, unique_name: Callable[..., str]) -> None:
    """Before, in check mode too, and in the manifest: subscriptions, and the options of user mappings."""
    name = unique_name("feed", separator="_")
    real_site.sql(f"CREATE SUBSCRIPTION {name} CONNECTION 'dbname=x' PUBLICATION p WITH (connect = false)")
    real_site.sql(
        "CREATE EXTENSION postgres_fdw; CREATE SERVER far FOREIGN DATA WRAPPER postgres_fdw;"
        " CREATE USER MAPPING FOR CURRENT_USER SERVER far OPTIONS (password 'canary-of-a-mapping')"
    )
    try:
        options = without_passfile(real_site, login_user=saver, login_password=PASSWORD)
        for check in (True, False):
            run = run_module("pg_backup", options, check=check)
            assert run.changed, run.msg
            warnings = json.dumps(run["warnings"])
            assert f"1 subscription ({name}) will not be in the dump" in warnings
            assert "options of 1 user mapping (" in warnings
            assert "canary-of-a-mapping" not in json.dumps(run.result)
        (manifest,) = [key for key in real_site.names() if key.endswith("/manifest.json")]
        assert [words.partition(" (")[0] for words in json.loads(real_site.get(manifest))["warnings"]] == [
            "1 subscription",
            "options of 1 user mapping",
        ]
        # A superuser dumps them, and is told nothing.
        whole = run_module("pg_backup", real_site.params(max_age="0"))
        assert whole["backup"]["warnings"] == []
        assert whole.result.get("warnings", []) == []
    finally:
        real_site.sql(f"ALTER SUBSCRIPTION {name} SET (slot_name = NONE)")
        real_site.sql(f"DROP SUBSCRIPTION {name}")


@pytest.mark.procedure("C18")
def test_a_role_that_does_not_inherit_its_rights_is_told_the_statement_that_does(real_site: Site, saver: str) -> None:
    """Not the grant that it has already."""
    real_site.sql(f"CREATE SCHEMA app; CREATE TABLE app.t (i int); REVOKE pg_read_all_data FROM {saver}")
    real_site.sql(f"ALTER ROLE {saver} NOINHERIT; GRANT pg_read_all_data TO {saver}")
    options = without_passfile(real_site, login_user=saver, login_password=PASSWORD)
    refused = run_module("pg_backup", options, check=True)
    statements = dict.fromkeys(blocker["next_step"] for blocker in refused["blockers"])
    assert all("INHERIT" in statement for statement in statements)
    real_site.sql("; ".join(statements))
    assert run_module("pg_backup", options, check=True).changed


def test_the_password_of_the_session_is_that_of_the_programs(real_site: Site, saver: str) -> None:
    """PGPASSWORD where no option has one; one that is stale loses against an option."""
    done = run_module("pg_backup", without_passfile(real_site, login_user=saver), env={"PGPASSWORD": PASSWORD})
    assert done.changed, done.msg
    options = without_passfile(real_site, login_user=saver, login_password=PASSWORD, max_age="0")
    assert run_module("pg_backup", options, env={"PGPASSWORD": "stale"}).changed
    assert run_module("pg_backup", real_site.params(max_age="0"), env={"PGPASSWORD": "stale"}).changed


@pytest.mark.procedure("C18")
def test_an_account_that_may_only_add_objects_makes_one_backup_after_the_other(real_site: Site) -> None:
    """Also where an interrupted run left something and retention is asked for: that is a warning."""

    def rule(request: Request) -> Fault | None:
        removes = request.method == "DELETE" or "delete" in request.target.partition("?")[2]
        return Fault(status=403, code="AccessDenied") if removes else None

    with s3_proxy(real_site.server["endpoint_url"], rule) as proxy:
        runs = [
            run_module("pg_backup", real_site.params(endpoint_url=proxy.url, max_age="0", keep=1)) for _ in range(3)
        ]
    for run in runs:
        assert run.changed, run.msg
        assert run["removed"] == []
    assert runs[0].result.get("warnings", []) == []
    assert "could not be removed" in json.dumps(runs[2]["warnings"])
    assert len([key for key in real_site.names() if key.endswith("manifest.json")]) == 3


def test_a_bucket_that_wants_content_md5_gets_it(real_site: Site) -> None:
    """As one with Object Lock does, on every object and part; nothing is deleted in a request for many."""

    def rule(request: Request) -> Fault | None:
        if request.method == "POST" and request.target.partition("?")[2].startswith("delete"):
            return Fault(status=501, code="NotImplemented")
        is_body = request.method == "PUT" and "Content-MD5" not in request.headers
        return Fault(status=400, code="InvalidRequest") if is_body else None

    real_site.sql(
        "CREATE TABLE wide AS SELECT g, (SELECT string_agg(md5((g * 1000 + i)::text), '') FROM generate_series(1, 100) i) AS v"
        " FROM generate_series(1, 12000) g"
    )
    with s3_proxy(real_site.server["endpoint_url"], rule) as proxy:
        for _ in range(2):
            done = run_module("pg_backup", real_site.params(endpoint_url=proxy.url, max_age="0", keep=1))
            assert done.changed, done.msg
        parts = [request for request in proxy.seen if "partNumber=" in request.target]
    assert len(parts) >= 4
    assert [key.rsplit("/", 1)[1] for key in real_site.names() if "manifest" in key] == ["manifest.json"]
    real_site.nothing_left()


def test_the_region_and_the_endpoint_come_from_the_environment_too(real_site: Site) -> None:
    """AWS_ENDPOINT_URL_S3, for reading and for writing."""
    params = {name: value for name, value in real_site.params().items() if name not in ("endpoint_url", "region")}
    done = run_module("pg_backup", params, env={"AWS_ENDPOINT_URL_S3": real_site.server["endpoint_url"]})
    assert done.changed, done.msg
    assert real_site.names()


def test_a_proxy_is_used(real_site: Site) -> None:
    """Every request goes to it, when the environment says so."""
    with s3_proxy(real_site.server["endpoint_url"], lambda _request: None) as proxy:
        done = run_module(
            "pg_backup",
            real_site.params(endpoint_url="http://s3.nowhere.test:7070"),
            env={"HTTP_PROXY": proxy.url, "http_proxy": proxy.url, "NO_PROXY": "", "no_proxy": ""},
        )
        assert done.changed, done.msg
        assert all(request.target.startswith("http://s3.nowhere.test:7070/") for request in proxy.seen)


def test_the_backup_takes_no_lock_beyond_the_dumps_own(real_site: Site) -> None:
    """Tables with indexes: while the dump is sent, each of its sessions holds one lock for each table and none for indexes."""
    names = [f"part_{number}" for number in range(50)]
    real_site.sql("; ".join(f"CREATE TABLE {quoted(name)} (a int PRIMARY KEY, b int UNIQUE)" for name in names))
    locks: list[tuple[Any, ...]] = []
    query = """
        SELECT count(*) FROM pg_locks l JOIN pg_class c ON c.oid = l.relation
         WHERE c.relkind = 'i' AND c.relname LIKE 'part\\_%%' AND l.database = (SELECT oid FROM pg_database
         WHERE datname = current_database())"""

    def rule(request: Request) -> None:
        if request.is_part:
            locks.extend(real_site.sql(query, values={}))

    with s3_proxy(real_site.server["endpoint_url"], rule) as proxy:
        done = run_module("pg_backup", real_site.params(endpoint_url=proxy.url))
    assert done.changed, done.msg
    assert locks
    assert {row[0] for row in locks} == {0}
