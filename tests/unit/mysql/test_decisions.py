# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What is due, whose a backup is, what a restore may touch, and what an account may do: decided without a server."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from ansible_collections.lowtide.ops.plugins.module_utils._backup import catalogue, keys
from ansible_collections.lowtide.ops.plugins.module_utils._backup.manifest import NotAManifest, Part
from ansible_collections.lowtide.ops.plugins.module_utils._common.errors import Refusal
from ansible_collections.lowtide.ops.plugins.module_utils._mysql.connection import Settings, quote_value
from ansible_collections.lowtide.ops.plugins.module_utils._mysql.findings import (
    Finding,
    Limits,
    Reading,
    Tried,
    explain_restart,
    judge,
    judge_no_connection,
    summarize,
)
from ansible_collections.lowtide.ops.plugins.module_utils._mysql.locks import name_client
from ansible_collections.lowtide.ops.plugins.module_utils._mysql.manifest import (
    LAYOUT,
    MySqlManifest,
    MySqlOrigin,
    ServerIdentity,
    parse_gtid,
    read_manifest,
)
from ansible_collections.lowtide.ops.plugins.module_utils._mysql.programs import Programs, client_command
from ansible_collections.lowtide.ops.plugins.module_utils._mysql.restore_state import (
    KEPT,
    LOADING,
    MOVED,
    MOVING,
    RESTORED,
    Database,
    Note,
    Todo,
    decide,
    read_note,
)
from ansible_collections.lowtide.ops.plugins.module_utils._mysql.schema import (
    explain_ddl,
    find_rights,
    matches_pattern,
)
from ansible_collections.lowtide.ops.plugins.module_utils._s3.bucket import Listed

NOW = datetime(2026, 11, 21, 2, tzinfo=UTC)
MANIFEST = MySqlManifest(
    run_id="20261121T020000Z-0123abcd",
    database="shop",
    system_identifier="db.example.com:3306",
    server_version="10.11.19-MariaDB",
    client_version="10.11.19",
    hosts=("db.example.com:3306",),
    source="primary",
    taken_at=NOW,
    finished_at=NOW,
    verified_at=NOW,
    dump_seconds=1.0,
    verify_seconds=1.0,
    tables=1,
    rows=2,
    encryption=None,
    parts={name: Part(1, "s", "e") for name in ("dump.sql.zst", "tables.json")},
    gtid="0-1-50,1-2-7",
    log_file="binlog.000001",
    log_position=4,
    charset="utf8mb4",
    collation="utf8mb4_general_ci",
    definitions=0,
)


def test_a_manifest_reads_as_it_was_written() -> None:
    """And one with another part, or of PostgreSQL, is none."""
    assert read_manifest(MANIFEST.to_json()) == MANIFEST
    for body in (
        b"{",
        MANIFEST.to_json().replace(b"mysql_backup", b"pg_backup"),
        MANIFEST.to_json().replace(b"tables.json", b"other"),
        MANIFEST.to_json().replace(b'"utf8mb4"', b'"utf8mb4; DROP DATABASE shop"'),
    ):
        with pytest.raises(NotAManifest):
            read_manifest(body)


def test_its_folder_is_no_backup_of_postgresql() -> None:
    """Both may lie below one prefix: neither takes the other's objects for its own."""
    place = keys.Place("b", "p", "shop", "db.example.com:3306")
    objects = [
        Listed(place.key(MANIFEST.run_id, part), 1, "e", NOW)
        for part in ("started.json", "dump.sql.zst", "tables.json", "manifest.json")
    ]
    (run,) = catalogue.group(objects, "p", LAYOUT)
    assert catalogue.judge(run, MANIFEST.to_json(), read_manifest).verified
    assert run.layout.order_parts(run.parts) == ["started.json", "dump.sql.zst", "tables.json", "manifest.json"]
    assert catalogue.group(objects, "p") == []


@pytest.mark.parametrize(
    ("gtid", "is_own"),
    [("0-1-50,1-2-7", True), ("0-9-51,1-2-9,3-1-1", True), ("0-1-49,1-2-7", False), ("0-1-60", False), ("", False)],
)
def test_a_backup_ahead_of_the_server_is_anothers(gtid: str, is_own: bool) -> None:
    """By the position of each domain, whichever server wrote it last."""
    assert (MySqlOrigin(gtid).explain_foreign(MANIFEST) is None) == is_own
    assert MySqlOrigin(gtid).explain_foreign(replace(MANIFEST, gtid=None)) is None
    assert parse_gtid("0-1-50, 1-2-7") == {0: 50, 1: 7}


OWN = ServerIdentity("production:3306", 1, "")


@pytest.mark.parametrize(
    ("server", "hosts", "is_own"),
    [
        (OWN, ("controller:3306", "production:3306"), True),
        (replace(OWN, host="staging:3306"), ("controller:3306", "staging:3306"), False),
        (replace(OWN, server_id=2), ("controller:3306", "production:3306"), False),
        (replace(OWN, uid="x"), ("controller:3306", "production:3306"), False),
        (None, ("controller:3306", "production:3306"), True),
        (None, ("controller:3306", "staging:3306"), False),
    ],
)
def test_a_backup_of_another_server_is_anothers(
    server: ServerIdentity | None, hosts: tuple[str, ...], is_own: bool
) -> None:
    """Both reached through one tunnel, both with a database shop: neither counts for the other, whatever its GTID."""
    manifest = replace(MANIFEST, server=server, hosts=hosts)
    for gtid in ("0-1-9000,1-2-9", ""):
        problem = MySqlOrigin("0-1-9000,1-2-9", OWN).explain_foreign(replace(manifest, gtid=gtid))
        assert (problem is None) == is_own
        assert is_own or "this one is production:3306 (server_id 1)" in str(problem)
    assert MySqlOrigin("0-1-9000,1-2-9").explain_foreign(manifest) is None
    assert read_manifest(manifest.to_json()) == manifest


SHOP = "shop"
BESIDE = Database("shop__restored", Note("B1", SHOP, RESTORED))


@pytest.mark.parametrize(
    ("state", "beside", "kept", "todo"),
    [
        ("beside", None, None, Todo(load=True)),
        ("absent", None, None, Todo()),
        ("beside", BESIDE, None, Todo()),
        ("in_place", BESIDE, None, Todo(move=True)),
        ("absent", BESIDE, None, Todo(discard=True)),
        ("beside", Database("x", Note("B0", SHOP, LOADING)), None, Todo(discard=True, load=True)),
        ("in_place", Database("x", Note("B1", SHOP, MOVING)), Database("k", None), Todo(move=True, is_resumed=True)),
        ("absent", Database("x", Note("B1", SHOP, MOVING)), None, Todo(discard=True, undo=True)),
        ("in_place", None, Database("k", Note("B1", SHOP, KEPT)), Todo(is_in_place=True)),
        ("beside", None, Database("k", Note("B1", SHOP, KEPT)), Todo(load=True)),
    ],
)
def test_what_a_restore_does(state: str, beside: Database | None, kept: Database | None, todo: Todo) -> None:
    """By what is there."""
    assert decide(state=state, database=SHOP, backup="B1", beside=beside, kept=kept, has_tables=True) == todo


@pytest.mark.parametrize("beside", [None, Database("x", Note("B1", SHOP, LOADING))])
def test_a_database_that_is_gone_needs_no_copy_beside_first(beside: Database | None) -> None:
    """Nothing was written since that could go."""
    todo = decide(state="in_place", database=SHOP, backup="B1", beside=beside, kept=None, has_tables=False)
    assert todo == Todo(discard=beside is not None, load=True, move=True)


@pytest.mark.parametrize(
    "beside", [None, Database("x", Note("B1", SHOP, LOADING)), Database("x", Note("B0", SHOP, LOADING))]
)
def test_a_database_in_use_is_not_replaced_by_a_backup_that_is_not_beside(beside: Database | None) -> None:
    """The same request may have been fulfilled months ago, and its original dropped: all rows since would go."""
    with pytest.raises(Refusal) as refused:
        decide(state="in_place", database=SHOP, backup="B1", beside=beside, kept=None, has_tables=True)
    assert refused.value.problem.startswith("there is no whole copy of backup B1 beside it, so nothing says that")
    assert "Restore it first (state: beside, backup: B1)" in refused.value.next_step


@pytest.mark.parametrize(
    ("state", "beside", "kept", "words"),
    [
        ("beside", Database("x", None), None, "no restore of this database has made it"),
        ("absent", Database("x", None), None, "no restore of this database has made it"),
        ("beside", Database("x", Note("B1", "other", LOADING)), None, "no restore of this database has made it"),
        ("beside", Database("x", Note("B0", SHOP, RESTORED)), None, "it is restored from backup B0, not B1"),
        ("beside", Database("x", Note("B1", SHOP, MOVING)), None, "was interrupted while it was brought into place"),
        ("absent", Database("x", Note("B1", SHOP, MOVED)), None, "was interrupted while it was brought into place"),
        (
            "in_place",
            Database("x", Note("B0", SHOP, MOVING)),
            None,
            "Complete it: run with state in_place and backup B0",
        ),
        ("in_place", None, Database("k", None), "it is there: the original of an earlier restore"),
        ("in_place", None, Database("k", Note("B1", "other", KEPT)), "it is there: the original of an earlier restore"),
        (
            "in_place",
            None,
            Database("k", Note("B0", SHOP, KEPT)),
            "request means backup B1. If it is B0 that is meant, it is in place: name it",
        ),
    ],
)
def test_what_a_restore_refuses(state: str, beside: Database | None, kept: Database | None, words: str) -> None:
    """What it has not made, and what would leave a move half done."""
    with pytest.raises(Refusal, match=words):
        decide(state=state, database=SHOP, backup="B1", beside=beside, kept=kept, has_tables=True)


@pytest.mark.parametrize("comment", [None, "", "a shop", "[]", "{}", '{"by": "lowtide.ops", "format": 2}'])
def test_another_ones_comment_is_no_note(comment: str | None) -> None:
    """Nor is one of a later release."""
    assert read_note(comment) is None
    assert read_note(Note("B1", SHOP, KEPT).to_comment()) == Note("B1", SHOP, KEPT)


def test_rights_are_read_from_grants() -> None:
    """Of the database itself, of a pattern, of a role, and everywhere."""
    grants = [
        "GRANT BINLOG MONITOR, PROCESS ON *.* TO `a`@`%` IDENTIFIED BY PASSWORD '*X'",
        "GRANT SELECT, SHOW VIEW ON `shop\\_%`.* TO `a`@`%`",
        "GRANT TRIGGER ON `other`.* TO `a`@`%`",
        "GRANT SELECT ON `mysql`.`proc` TO `a`@`%`",
        "GRANT `reader` TO `a`@`%`",
    ]
    own, reads_routines, everywhere = find_rights(grants, "shop_eu")
    assert own >= {"SELECT", "SHOW VIEW"}
    assert "TRIGGER" not in own
    assert reads_routines
    assert everywhere == {"BINLOG MONITOR", "PROCESS"}
    assert find_rights(["GRANT ALL PRIVILEGES ON *.* TO `a`@`%`"], "x")[0] >= {"SELECT", "TRIGGER", "EVENT"}


@pytest.mark.parametrize(
    ("pattern", "name", "is_same"),
    [
        ("shop", "shop", True),
        ("sh_p", "shop", True),
        ("sh\\_p", "shop", False),
        ("s%", "shop", True),
        ("shop", "shops", False),
    ],
)
def test_names_in_grants_are_patterns(pattern: str, name: str, is_same: bool) -> None:
    """But for what is behind a backslash."""
    assert matches_pattern(pattern, name) == is_same


def test_ddl_is_told_by_two_readings() -> None:
    """Made, dropped, redefined."""
    before = {("TABLE", "a"): "1", ("VIEW", "v"): "1", ("TRIGGER", "t"): "1"}
    after = {("TABLE", "a"): "2", ("VIEW", "v"): "1", ("EVENT", "e"): "1"}
    assert explain_ddl(before, after) == ["event e (made)", "table a (redefined)", "trigger t (dropped)"]
    assert explain_ddl(before, before) == []


def test_a_script_waits_seconds_for_a_lock() -> None:
    """And not a day, while all others that use the table queue behind it."""
    programs = Programs(dump="mariadb-dump", client="mariadb", zstd="zstd", version="10.11.19")
    assert "--init-command=SET SESSION lock_wait_timeout=5" in client_command(programs, 3, "shop__restored").argv
    marked = client_command(programs, 3, "shop", mark=name_client("shop")).argv
    assert any(word.endswith(f"=5, @lowtide_ops_mark=GET_LOCK('{name_client('shop')}', 5)") for word in marked)


def test_option_files_hold_any_password() -> None:
    """And a message about the connection does not."""
    odd = 'a"\\# b'
    settings = Settings(host="h", port=1, user="u", password=odd)
    assert b'password="a\\"\\\\# b"\n' in settings.write_option_file()
    assert "a" not in settings.target.replace("MariaDB server at", "").replace("as", "")
    assert "password" not in repr(settings)
    assert quote_value("x") == '"x"'


def sessions(number: int, *, command: str = "Sleep", seconds: int = 400) -> list[dict[str, object]]:
    """Sessions of one user."""
    return [{"user": "app", "command": command, "seconds": seconds, "state": ""} for _number in range(number)]


def reading(**more: object) -> Reading:
    """A server with nothing the matter, and what a test makes of it."""
    values = {"max_connections": 10, "status": {"Threads_connected": 2}, "limits": Limits(0.8, 300, 60, 30)}
    return Reading(**{**values, **more})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("server", "names", "words"),
    [
        (reading(), [], ""),
        (
            reading(status={"Threads_connected": 8}, sessions=sessions(7)),
            ["connections_taken"],
            "8 of 10 connections are taken: app has 7, 7 of them idle for 5 min or more",
        ),
        (
            reading(transactions=[{"id": 4, "user": "app", "command": "Sleep", "seconds": 90}]),
            ["long_transactions"],
            "connection 4 (app, Sleep) for 1 min 30 s",
        ),
        (
            reading(waits=[{"waiter": 5, "holder": 4, "holder_user": "app", "holder_command": "Sleep"}]),
            ["lock_waits"],
            "connection 4 (app, Sleep) holds up 5",
        ),
        (
            reading(status={"Threads_connected": 1, "Aborted_connects": 3}),
            ["aborted_connects"],
            "3 attempts to connect failed",
        ),
        (reading(read_only=True), ["read_only"], "writes fail"),
        (reading(read_only=True, replica={"lag": 0, "io": "Yes", "sql": "Yes", "error": ""}), [], ""),
        (reading(replica={"lag": 31, "io": "Yes", "sql": "Yes", "error": ""}), ["replica_lags"], "31 s behind"),
        (reading(replica={"lag": None, "io": "No", "sql": "Yes", "error": "denied"}), ["replica_stopped"], "denied"),
    ],
)
def test_what_is_the_matter(server: Reading, names: list[str], words: str) -> None:
    """Each by its name, with its numbers."""
    findings = judge(server)
    assert [finding.name for finding in findings] == names
    assert words in " ".join(finding.what for finding in findings)
    assert summarize(findings, used=server.used, maximum=10).startswith(f"{server.used} of 10 connections taken")


@pytest.mark.parametrize(
    ("code", "answers", "name", "can_restart"),
    [
        (2003, False, "unreachable", True),
        (2003, True, "not_responding", True),
        (1040, True, "connections_taken", True),
        (1045, True, "access_denied", False),
        (1129, True, "host_blocked", False),
    ],
)
def test_no_connection_is_a_finding(code: int, answers: bool, name: str, can_restart: bool) -> None:
    """A wrong password is nothing that a restart mends."""
    finding = judge_no_connection(code, "problem", "step", answers=answers)
    assert finding.name == name
    assert bool(finding.steps) == can_restart


TAKEN = Finding("connections_taken", "what", "next", ("end_idle_sessions", "correct_pools"))


@pytest.mark.parametrize(
    ("findings", "minutes", "words"),
    [
        ([], {}, "nothing was found"),
        ([Finding("read_only", "what", "next")], {}, "read_only: a restart cannot mend it"),
        ([TAKEN], {}, "step end_idle_sessions was not tried"),
        ([TAKEN], {"end_idle_sessions": 5}, "step correct_pools was not tried"),
        ([TAKEN], {"end_idle_sessions": 5, "correct_pools": 0}, "step correct_pools was tried less than 30 s ago"),
        ([TAKEN], {"end_idle_sessions": -5, "correct_pools": 5}, "step end_idle_sessions is dated in the future"),
        ([TAKEN], {"end_idle_sessions": 5, "correct_pools": 5}, ""),
    ],
)
def test_a_restart_is_the_last_step(findings: list[Finding], minutes: dict[str, int], words: str) -> None:
    """Only where each step before it was done, and the finding is still there."""
    tried = [Tried(step, NOW - timedelta(minutes=number)) for step, number in minutes.items()]
    reasons = explain_restart(findings, tried, now=NOW, settle=30)
    assert (words in " ".join(reasons)) if words else reasons == []
