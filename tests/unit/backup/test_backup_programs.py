# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Command lines of the client programs: to the one database that was named, whatever its name is, and without a secret."""

from __future__ import annotations

from pathlib import Path

import psycopg2.extensions
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.lowtide.ops.plugins.module_utils._common.errors import OpsError, Refusal
from ansible_collections.lowtide.ops.plugins.module_utils._common.retry import Deadline
from ansible_collections.lowtide.ops.plugins.module_utils._pg_backup import programs
from ansible_collections.lowtide.ops.plugins.module_utils._pg_backup.database import ConnectionLimits, count_connections
from ansible_collections.lowtide.ops.plugins.module_utils._pg_backup.making import explain_failure

NAMES = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=63)
PROGRAMS = programs.Programs(
    pg_dump="/p/pg_dump", pg_dumpall="/p/pg_dumpall", pg_restore="/p/pg_restore", zstd="/p/zstd", version="15.1"
)


@settings(deadline=None)
@given(NAMES)
def test_a_name_is_never_read_as_a_connection(name: str) -> None:
    """libpq takes a name with ``=`` or ``://`` for a connection string; from this one it reads the name, byte for byte."""
    read = psycopg2.extensions.parse_dsn(programs.quote_conninfo(name))
    assert read["dbname"] == name
    assert sorted(read) == ["dbname", "keepalives_count", "keepalives_idle", "keepalives_interval"]


@pytest.mark.procedure("C18")
def test_every_program_connects_to_the_named_database() -> None:
    """pg_dumpall too, whose own choice may be closed to this role."""
    environment = {"PGPASSWORD": "canary"}
    dump, _compress = programs.dump_commands(
        PROGRAMS, environment, database="d=b", snapshot="s", lock_timeout=3, encoding="LATIN1"
    )
    roles = programs.globals_command(PROGRAMS, environment, database="d=b", role_passwords=False)
    for command, option in ((dump, "--dbname"), (roles, "--database")):
        (given_name,) = [argument for argument in command.argv if argument.startswith(option)]
        assert given_name.startswith(f"{option}=dbname='d=b' ")
        assert "canary" not in " ".join(command.argv)
        assert "--no-password" in command.argv
    assert "--lock-wait-timeout=3000" in dump.argv
    assert "--no-role-passwords" in roles.argv
    with_passwords = programs.globals_command(PROGRAMS, environment, database="d", role_passwords=True)
    assert "--no-role-passwords" not in with_passwords.argv


def test_two_dumps_of_the_same_rows_are_the_same_text() -> None:
    """Whatever the server, the database or the role has; a pooler gets what it knows, an earlier backup what it was made with."""
    direct, pooled = (programs.choose_output("UTC", is_pooled=is_pooled) for is_pooled in (False, True))
    assert pooled == {"PGTZ": "UTC", "PGDATESTYLE": "ISO"}
    assert {name: value for name, value in direct.items() if name != "PGOPTIONS"} == pooled
    for setting in ("IntervalStyle=postgres", "extra_float_digits=3", "bytea_output=hex", "xmlbinary=base64"):
        assert f"-c {setting}" in direct["PGOPTIONS"]
    assert programs.choose_output(None, is_pooled=False) == {}
    assert set(direct) <= set(programs.REDIRECTING)


def test_one_stream_is_dumped_as_ever() -> None:
    """By the same command line; what a stream is made of goes into it, and nothing else changes."""
    words = {"database": "d", "snapshot": "s", "lock_timeout": 3, "encoding": "LATIN1"}
    dump, compress = programs.dump_commands(PROGRAMS, {}, **words)  # type: ignore[arg-type]
    assert dump.argv[:-1] == (
        "/p/pg_dump",
        "-Fc",
        "-Z0",
        "--no-password",
        "--encoding=LATIN1",
        "--snapshot=s",
        "--lock-wait-timeout=3000",
    )
    part, same = programs.dump_commands(PROGRAMS, {}, **words, options=("--data-only", "--table=t"))  # type: ignore[arg-type]
    assert [argument for argument in part.argv if argument not in dump.argv] == ["--data-only", "--table=t"]
    assert same == compress


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        ((None, None), None),
        ((6, 6), None),
        ((5, None), "6 connections are needed, and the CONNECTION LIMIT of login_user is 5"),
        ((None, 0), "6 connections are needed, and the CONNECTION LIMIT of the database is 0"),
    ],
)
def test_a_limit_of_connections_is_found_before(limits: tuple[int | None, int | None], words: str | None) -> None:
    """Of four streams, which take two more."""
    assert ConnectionLimits(*limits).explain_lack(count_connections(4)) == words


SAYS = "exit status 1: pg_dump: detail: Error message from server: ERROR: "
CONFLICT = f"{SAYS} canceling statement due to conflict with recovery"
DAMAGED = f'{SAYS} invalid page in block 1 of relation "base/5/16390"'


@pytest.mark.parametrize(
    ("said", "is_standby", "is_snapshot_lost", "words", "step"),
    [
        (CONFLICT, True, False, "went on with its recovery", "hot_standby_feedback"),
        ('exit status 1: ERROR:  invalid snapshot identifier: "a"', True, True, "went on with its", "dump the primary"),
        ('exit status 1: ERROR:  invalid snapshot identifier: "a"', False, True, "invalid snapshot", "as before"),
        ('FATAL: too many connections for role "b"', False, False, "no connection left", "takes 3 connections"),
        ("upload: access denied", True, False, "upload: access denied", "as before"),
        (DAMAGED, True, True, "its data is damaged", "pg_amcheck"),
        (DAMAGED, False, False, "its data is damaged", "verify: full"),
    ],
)
def test_what_ended_a_dump_is_told(said: str, is_standby: bool, is_snapshot_lost: bool, words: str, step: str) -> None:
    """With the server's own words; what the server has no part in stays as it is."""
    error = OpsError(obj="pg_dump", problem=said, next_step="as before")
    told = explain_failure(
        error,
        target="database d",
        is_standby=is_standby,
        is_snapshot_lost=is_snapshot_lost,
        is_snapshot_held=False,
        jobs=1,
    )
    assert words in told.problem
    assert said in told.problem
    assert step in told.next_step
    assert told is error or (told.obj, "pg_dump: " in told.problem) == ("database d", True)


@pytest.mark.parametrize(
    ("output", "client_version", "words"),
    [
        ("pg_restore (PostgreSQL) 17.6", "17.6", None),
        ("pg_restore (PostgreSQL) 17.0", "17.6", None),
        ("pg_restore (PostgreSQL) 18beta1", "17.6", None),
        (
            "pg_restore (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)",
            "17.6",
            "may not read what pg_dump 17.6 has written",
        ),
        ("something else", "17.6", "'something else' may not read"),
        ("pg_restore (PostgreSQL) 15.18", "unknown", None),
    ],
)
def test_an_older_pg_restore_is_no_damage(output: str, client_version: str, words: str | None) -> None:
    """By major version, in which the format of an archive stays as it is."""
    problem = programs.explain_older_decoder(output, client_version)
    assert problem is None if words is None else words in str(problem)


def test_a_decoder_is_asked_for_its_version_before_anything_is_read(tmp_path: Path) -> None:
    """The refusal names the program and what to install."""
    program = tmp_path / "pg_restore"
    program.write_text("#!/bin/sh\necho 'pg_restore (PostgreSQL) 14.19'\n")
    program.chmod(0o700)
    programs.refuse_older_decoder(str(program), "14.2", deadline=Deadline(30))
    with pytest.raises(Refusal, match=r"may not read what pg_dump 16\.4 has written") as caught:
        programs.refuse_older_decoder(str(program), "16.4", deadline=Deadline(30))
    assert caught.value.obj == str(program)
    assert "version 16 or newer" in caught.value.next_step


def test_programs_of_the_server_s_own_version_are_preferred(tmp_path: Path) -> None:
    """Where all of them are installed; newer ones write what the server does not know, which is told."""
    folders = [f"{tmp_path}/a/{{}}/bin", f"{tmp_path}/b-{{}}/bin"]
    assert programs.find_version_folder(16, folders) is None
    for folder, names in (("a/16/bin", ["pg_dump"]), ("b-16/bin", ["pg_dump", "pg_dumpall", "pg_restore"])):
        (tmp_path / folder).mkdir(parents=True)
        for name in names:
            (tmp_path / folder / name).touch(mode=0o755)
    assert programs.find_version_folder(16, folders) == f"{tmp_path}/b-16/bin"
    assert programs.explain_newer(16, "16.4") is None
    assert "postgresql-client-16" in str(programs.explain_newer(16, "18.1"))


def test_a_snapshot_that_another_server_does_not_know_is_told() -> None:
    """While the session that holds it is there; otherwise the message is pg_dump's own."""
    error = OpsError(obj="pg_dump", problem=f'{SAYS} invalid snapshot identifier: "a"', next_step="as before")
    for is_standby in (True, False):
        told = explain_failure(
            error, target="db", is_standby=is_standby, is_snapshot_lost=False, is_snapshot_held=True, jobs=1
        )
        assert "has reached another server" in told.problem
        assert "login_host" in told.next_step
    gone = explain_failure(error, target="db", is_standby=False, is_snapshot_lost=False, is_snapshot_held=False, jobs=1)
    assert gone is error
