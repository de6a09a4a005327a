# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Command lines of the client programs: to the one database that was named, whatever its name is, and without a secret."""

from __future__ import annotations

import psycopg2.extensions
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.lowtide.ops.plugins.module_utils._backup import programs
from ansible_collections.lowtide.ops.plugins.module_utils._backup.making import explain_failure
from ansible_collections.lowtide.ops.plugins.module_utils._common.errors import OpsError

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
    dump, _compress = programs.dump_commands(PROGRAMS, environment, database="d=b", snapshot="s", lock_timeout=3)
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


SAYS = "exit status 1: pg_dump: detail: Error message from server: ERROR: "
CONFLICT = f"{SAYS} canceling statement due to conflict with recovery"
DAMAGED = f'{SAYS} invalid page in block 1 of relation "base/5/16390"'


@pytest.mark.parametrize(
    ("said", "is_standby", "is_snapshot_lost", "words", "step"),
    [
        (CONFLICT, True, False, "went on with its recovery", "hot_standby_feedback"),
        ('exit status 1: ERROR:  invalid snapshot identifier: "a"', True, True, "went on with its", "dump the primary"),
        ('exit status 1: ERROR:  invalid snapshot identifier: "a"', False, True, "invalid snapshot", "as before"),
        ("upload: access denied", True, False, "upload: access denied", "as before"),
        (DAMAGED, True, True, "its data is damaged", "pg_amcheck"),
        (DAMAGED, False, False, "its data is damaged", "verify: full"),
    ],
)
def test_what_ended_a_dump_is_told(said: str, is_standby: bool, is_snapshot_lost: bool, words: str, step: str) -> None:
    """With the server's own words; what the server has no part in stays as it is."""
    error = OpsError(obj="pg_dump", problem=said, next_step="as before")
    told = explain_failure(error, target="database d", is_standby=is_standby, is_snapshot_lost=is_snapshot_lost)
    assert words in told.problem
    assert said in told.problem
    assert step in told.next_step
    assert told is error or (told.obj, "pg_dump: " in told.problem) == ("database d", True)
