# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Programs joined by pipes: none outlives its time, also one that another program has started, and warnings are kept."""

from __future__ import annotations

import time

import pytest

from ansible_collections.lowtide.ops.plugins.module_utils._backup import pipeline
from ansible_collections.lowtide.ops.plugins.module_utils._backup.pipeline import Command, Pipeline, run
from ansible_collections.lowtide.ops.plugins.module_utils._common.errors import OpsError, WaitTimeout
from ansible_collections.lowtide.ops.plugins.module_utils._common.retry import Deadline

WRAPPER = ("sh", "-c", "echo begun; sleep 600; echo after")
"""A program that starts another one and does not become it: the other one holds the pipes."""
RUNAWAY = ("sh", "-c", "echo begun; setsid sleep 60; echo after")
"""One that leaves its process group, too."""


def read_until_the_end(argv: tuple[str, ...], seconds: float) -> float:
    """Read what a program writes until it is ended; the seconds that took."""
    started = time.monotonic()
    with Pipeline([Command(argv), Command(("cat",))], deadline=Deadline(seconds), collect=True) as pipe:
        assert pipe.stdout.read() == b"begun\n"
        with pytest.raises(WaitTimeout, match="not finished within"):
            pipe.finish()
    return time.monotonic() - started


def test_a_wrapper_does_not_outlive_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    """What it has started is ended with it; nothing is waited for."""
    monkeypatch.setattr(pipeline, "GRACE", 60.0)
    assert read_until_the_end(WRAPPER, 1.5) < pipeline.GRACE


def test_what_has_left_its_group_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not for its standard error either, which it goes on holding."""
    monkeypatch.setattr(pipeline, "GRACE", 0.5)
    assert read_until_the_end(RUNAWAY, 1.5) < 40


def test_an_output_that_is_read_beside_is_bounded_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    """By whatever program writes it."""
    monkeypatch.setattr(pipeline, "GRACE", 60.0)
    started = time.monotonic()
    taken: list[bytes] = []
    with Pipeline([Command(WRAPPER)], deadline=Deadline(1.5), collect=True) as pipe:
        pipe.consume(taken.append)
        with pytest.raises(WaitTimeout):
            pipe.finish()
    assert time.monotonic() - started < pipeline.GRACE
    assert taken == [b"begun\n"]


@pytest.mark.parametrize(
    "said",
    [
        'pg_restore: error: COPY failed for table "p": ERROR:  new row violates check\n'
        'DETAIL:  Failing row contains (anna@example.org,\nand a second line).\nCONTEXT:  COPY p, line 1: "anna@example.org"\n'
        "pg_restore: warning: errors ignored",
        "pg_restore: error: COPY failed: ERROR:  doppelter Schlüsselwert\nDETAIL:  Schlüssel (a)=(anna@example.org) existiert.\n"
        "KONTEXT:  COPY p, Zeile 1\nTIP:  anna@example.org\n",
        "pg_restore: error: could not execute query: ERROR:  new row\nCommand was: INSERT INTO p VALUES ('anna@example.org\nx');\n",
        'psql:x.sql:1: ERROR:  syntax\nLINE 1: INSERT INTO p VALUES ("anna@example.org")\n                     ^\n',
        "ERROR 1062 (23000) at line 3: Duplicate entry 'anna@example.org' for key 'PRIMARY'\n",
    ],
)
def test_a_message_quotes_no_row(said: str) -> None:
    """Whatever the server's language; what the program says itself stays."""
    with pytest.raises(OpsError) as caught:
        run(Command(("sh", "-c", 'printf "%s" "$1" >&2; exit 1', "sh", said)), deadline=Deadline(30))
    assert "anna" not in str(caught.value)
    assert "second line" not in str(caught.value)
    assert said.partition("ERROR:")[0].partition("Duplicate")[0] in str(caught.value)
    assert "what it quotes of rows is left out" in str(caught.value)
    if "errors ignored" in said:
        assert "pg_restore: warning: errors ignored" in str(caught.value)


def test_a_message_without_rows_is_whole() -> None:
    """A hint and the statement that failed are needed to act."""
    said = "pg_restore: error: could not execute query: ERROR:  no schema\nHINT:  make it\nCommand was: CREATE TABLE a.b (\n    c int\n);"
    with pytest.raises(OpsError) as caught:
        run(Command(("sh", "-c", 'printf "%s" "$1" >&2; exit 1', "sh", said)), deadline=Deadline(30))
    assert said in str(caught.value)


def test_a_message_that_was_cut_begins_with_a_whole_line() -> None:
    """Its first line may be the rest of a row."""
    script = (
        "printf 'DETAIL:  ' >&2; head -c 5000 /dev/zero | tr '\\0' 'a' >&2; printf '\\nx: error: end\\n' >&2; exit 1"
    )
    with pytest.raises(OpsError) as caught:
        run(Command(("sh", "-c", script)), deadline=Deadline(30))
    assert "aaa" not in str(caught.value)
    assert "x: error: end" in str(caught.value)


def test_warnings_of_a_program_that_succeeds_are_kept() -> None:
    """Line by line; what else it says is not."""
    script = "echo out; echo 'pg_dump: warning: a' >&2; echo 'pg_dump: detail: b' >&2; echo 'x: warning: c' >&2"
    warnings: list[str] = []
    assert run(Command(("sh", "-c", script)), deadline=Deadline(30), warn=warnings.append) == b"out\n"
    assert warnings == ["pg_dump: warning: a", "x: warning: c"]


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ('ERROR:  must be member of role "r"\nLINE 1: SELECT 1\n', 'ERROR:  must be member of role "r"'),
        ("FATAL:  terminating connection\nDETAIL:  x\n", "FATAL:  terminating connection"),
        (
            'psql:<stdin>:40: ERROR:  duplicate key "k"\nDETAIL:  Key (a)=(canary) already exists.\nCONTEXT:  COPY t, line 1\n',
            'psql:<stdin>:40: ERROR:  duplicate key "k"',
        ),
        (
            "psql:<stdin>:4: FEHLER:  Zugriff verweigert\nDETAIL:  canary\n",
            "psql:<stdin>:4: FEHLER:  Zugriff verweigert",
        ),
    ],
)
def test_the_cause_is_never_left_out_with_the_rows(said: str, kept: str) -> None:
    """Also where no program's name is before the server's message."""
    assert pipeline.leave_out_rows(said).split("\n")[0] == kept
    assert "canary" not in pipeline.leave_out_rows(said)
