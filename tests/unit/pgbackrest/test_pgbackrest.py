# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What pgBackRest prints, what is due, and which WAL a backup needs: pure."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.lowtide.ops.plugins.module_utils._common.errors import OpsError, Refusal
from ansible_collections.lowtide.ops.plugins.module_utils._pgbackrest.operations.backup import find_problems
from ansible_collections.lowtide.ops.plugins.module_utils._pgbackrest.plan import decide
from ansible_collections.lowtide.ops.plugins.module_utils._pgbackrest.repository import (
    Backup,
    Verification,
    list_archived,
    list_needed_segments,
    parse_bad_files,
    parse_info,
    parse_verification,
    parse_version,
)
from support.modules import run_module

HOUR = 3600
NOW = 1_000_000.0
FULL = Backup(
    label="F", type="full", started=int(NOW) - HOUR, ended=int(NOW) - HOUR + 60, has_errors=False, references=(),
    archive_id="15-1",
    first_segment="000000010000000000000002", last_segment="000000010000000000000003", start_lsn="0/2000028",
    size=1, stored=1, verified_at="2026-11-27T02:00:00Z", damaged_at="",
)  # fmt: skip
DIFF = FULL._replace(label="F_D", type="diff", references=("F",), started=int(NOW) - 60, ended=int(NOW) - 30)
ENTRY: dict[str, Any] = {
    "archive": {"start": "000000010000000000000002", "stop": "000000010000000000000003"},
    "database": {"id": 1, "repo-key": 1},
    "error": False,
    "info": {"size": 100, "repository": {"delta": 7}},
    "label": "20261127-132928F",
    "lsn": {"start": "0/2000028", "stop": "0/3000050"},
    "reference": None,
    "timestamp": {"start": 10, "stop": 13},
    "type": "full",
}
STANZA: dict[str, Any] = {
    "name": "main",
    "backup": [ENTRY, {**ENTRY, "label": "elsewhere", "database": {"id": 1, "repo-key": 2}}],
    "db": [
        {"id": 1, "repo-key": 1, "system-id": 5, "version": "15"},
        {"id": 1, "repo-key": 2, "system-id": 5, "version": "15"},
    ],
    "repo": [{"key": 1, "status": {"code": 0, "message": "ok"}}, {"key": 2, "status": {"code": 0, "message": "ok"}}],
    "status": {"code": 0, "lock": {"backup": {"held": False}}, "message": "ok"},
}
GOOD = """stanza: main
status: ok
  archiveId: 15-1, total WAL checked: 7, total valid WAL: 7
    missing: 0, checksum invalid: 0, size invalid: 0, other: 0
  backup: F, status: valid, total files checked: 964, total valid files: 964
    missing: 0, checksum invalid: 0, size invalid: 0, other: 0
"""


def test_the_list_is_that_of_one_repository() -> None:
    """With what was noted on a backup; a repository that is not there is refused, what is not understood an error."""
    noted = {**ENTRY, "annotation": {"lowtide-verified": "then", "other": "x"}}
    stanza = parse_info(json.dumps([{**STANZA, "backup": [noted]}]), stanza="main", repository=1)
    (backup,) = stanza.backups
    assert (backup.verified_at, backup.damaged_at, backup.archive_id, backup.stored) == ("then", "", "15-1", 7)
    assert [entry.label for entry in parse_info(json.dumps([STANZA]), stanza="main", repository=2).backups] == [
        "elsewhere"
    ]
    with pytest.raises(Refusal, match="it is not configured; there is 1, 2"):
        parse_info(json.dumps([STANZA]), stanza="main", repository=3)
    for output in ("", "[]", "{}", json.dumps([{**STANZA, "status": {}}])):
        with pytest.raises(OpsError, match="not of the known form"):
            parse_info(output, stanza="main", repository=1)


@pytest.mark.parametrize(
    ("output", "version"), [("pgBackRest 2.45", (2, 45)), ("pgBackRest 2.54.2", (2, 54)), ("command not found", None)]
)
def test_versions(output: str, version: tuple[int, int] | None) -> None:
    """As it prints them."""
    assert parse_version(output) == version


def test_a_verification_is_read_by_section() -> None:
    """Each backup with its own counts, and what is wrong with the archive or the whole repository."""
    good = parse_verification(GOOD)
    assert good == Verification("ok", {"F": "valid"}, ())
    bad = GOOD.replace("status: ok", "status: error").replace("F, status: valid", "F, status: invalid")
    lines = bad.splitlines()
    lines[-1] = "    checksum invalid: 1"
    lines[3] = "    missing: 2, checksum invalid: 0, size invalid: 0, other: 0"
    read = parse_verification("\n".join(lines))
    assert read == Verification(
        "error", {"F": "invalid (checksum invalid: 1)"}, (), ("WAL archive 15-1: missing: 2",), {"15-1": 0}
    )
    log = (
        "2026-11-27 02:00:00.000 P01   INFO: invalid checksum"
        f" '15-1/0000000100000000/000000010000000000000001-{'a' * 40}.gz'\n"
        "2026-11-27 02:00:00.000 P01   INFO: invalid result"
        f" 14-0/0000000100000000/000000010000000000000009-{'b' * 40}.gz: [29] inflate error\\n"
        "2026-11-27 02:00:00.000 P00   INFO: Results:\n            archiveId: 15-1, total WAL checked: 7\n"
        "              missing: 0, checksum invalid: 1, size invalid: 0, other: 0\n"
    )
    named = parse_verification(log + GOOD.replace("checksum invalid: 0", "checksum invalid: 1", 1))
    assert named is not None
    assert named.bad_segments == {("15-1", "000000010000000000000001"), ("14-0", "000000010000000000000009")}
    assert named.wal_damage == ("WAL archive 15-1: checksum invalid: 1",)
    assert (named.invalid, named.backups) == ({"15-1": 1}, {"F": "valid"})
    lost = parse_verification("stanza: main\nstatus: error\n  No usable backup.info file\n")
    assert lost == Verification("error", {}, ("No usable backup.info file",))
    assert parse_verification("") is None


DAY, WEEK = timedelta(days=1), timedelta(days=7)


@pytest.mark.parametrize(
    ("backups", "kind", "why"),
    [
        ([], "full", "there is no backup"),
        ([FULL._replace(has_errors=True, started=int(NOW) - 90000)], "full", "there is no backup without errors"),
        ([FULL, DIFF._replace(has_errors=True)], None, "the newest backup F_D found damage in the database"),
        (
            [
                FULL._replace(started=int(NOW) - 95000),
                FULL._replace(label="G", has_errors=True, started=int(NOW) - 90000, ended=int(NOW)),
            ],
            "full",
            "is 1 d 2 h old",
        ),
        ([FULL._replace(is_current=False)], "full", "only 1 from before a stanza-upgrade"),
        ([FULL._replace(is_current=False, label="E"), FULL], None, "the newest verified backup F is 1 h old"),
        ([FULL._replace(damaged_at="then")], "full", "there is no backup without errors"),
        ([FULL], None, "the newest verified backup F is 1 h old"),
        ([FULL, DIFF], None, "the newest verified backup F_D is 1 min old"),
        ([FULL._replace(started=int(NOW) - 90000)], "diff", "the newest backup without errors F is 1 d 1 h old"),
        ([FULL._replace(started=int(NOW) - 90000, verified_at="")], "full", "is 1 d 1 h old"),
        ([FULL._replace(started=int(NOW) - 8 * 86400)], "full", "is 8 d old"),
        ([FULL._replace(started=int(NOW) - 8 * 86400), DIFF], "full", "no full backup without errors that is young"),
        ([FULL._replace(damaged_at="then"), DIFF], "full", "there is no backup without errors"),
        ([DIFF], "full", "there is no backup without errors"),
    ],
)
def test_what_is_due(backups: list[Backup], kind: str | None, why: str) -> None:
    """A backup that builds on a damaged or missing one is none; one builds only on a verified full one."""
    decision = decide(backups, now=NOW, max_age=DAY, interval=DAY, full_max_age=WEEK, between="diff")
    assert (decision.type, decision.unverified) == (kind, None)
    assert why in decision.why
    assert decision.is_due is (kind is not None)


def test_what_nobody_verified_is_due_for_that() -> None:
    """Only where it is young enough itself."""
    backup = FULL._replace(verified_at="")
    decision = decide([backup], now=NOW, max_age=DAY, interval=DAY, full_max_age=WEEK, between="incr")
    assert (decision.type, decision.unverified, decision.is_due) == (None, backup, True)


JITTER = (0, 3, -2, 5, -4, 8, 1, -6)
"""Seconds that runs of cron begin later or sooner than the first one."""


@pytest.mark.parametrize(
    ("every", "runs", "max_age", "full_days"),
    [(DAY, 56, DAY, range(0, 56, 7)), (WEEK, 8, WEEK, range(0, 56, 7)), (DAY, 14, timedelta(hours=25), (0, 7))],
)
def test_a_backup_is_made_at_each_run_of_a_schedule(
    every: timedelta, runs: int, max_age: timedelta, full_days: Sequence[int]
) -> None:
    """However many seconds the one before was later; a second one in that night makes none. Full ones come weekly."""
    made: list[Backup] = []
    full: list[int] = []
    for number in range(runs):
        day = number * every.days
        start = NOW + day * 86400 + JITTER[number % len(JITTER)]
        ages = {"max_age": max_age, "interval": max_age, "full_max_age": WEEK}
        decision = decide(made, now=start, between="diff", **ages)
        assert decision.type, (day, decision.why)
        began = int(start) + 2
        backup = FULL._replace(label=str(day), type=decision.type, started=began, ended=began + 1800)
        made.append(backup)
        if decision.type == "full":
            full.append(day)
        again = decide(made, now=start + 7200, between="diff", **ages)
        assert not again.is_due, (day, again.why)
    assert full == list(full_days)


@pytest.mark.parametrize(
    ("first", "last", "lsn", "segments"),
    [
        ("000000010000000000000002", "000000010000000000000003", "0/2000028", ["02", "03"]),
        ("0000000100000000000000FE", "000000010000000100000001", "0/FE000028", ["FE", "FF", "100", "101"]),
        ("000000010000000000000FFF", "000000010000000100000000", "0/FFF00028", ["FFF", "1000"]),
        ("000000010000000000000000", "000000010000000000000000", "0/28", ["00"]),
        ("", "", "", []),
    ],
)
def test_the_wal_that_a_backup_needs(first: str, last: str, lsn: str, segments: list[str]) -> None:
    """From its first segment to its last, over the end of a file of 4 GiB, with segments of 16 and of 1 MiB."""
    per_file = 4096 if "FFF" in first else 256
    expected = [f"00000001{int(name, 16) // per_file:08X}{int(name, 16) % per_file:08X}" for name in segments]
    needed = list_needed_segments(FULL._replace(first_segment=first, last_segment=last, start_lsn=lsn))
    assert needed == expected


def test_what_stands_against_a_restore() -> None:
    """Damage of the backup or of what it builds on, a segment that is missing, and an error that nothing explains."""
    asked: list[tuple[str, list[str]]] = []

    def list_segments(archive_id: str, prefixes: Any) -> set[str]:
        asked.append((archive_id, sorted(set(prefixes))))
        return {"000000010000000000000002"}

    whole = FULL._replace(last_segment="000000010000000000000002")
    diff = whole._replace(label="F_D", references=("F",))
    good = Verification("ok", {"F": "valid", "F_D": "valid"}, ())
    assert find_problems(good, [whole, diff], list_segments) == []
    assert asked == [("15-1", ["0000000100000000"])]
    assert find_problems(good, [FULL], list_segments) == ["WAL segment 000000010000000000000003 is not in the archive"]
    base = Verification("error", {"F": "invalid (missing: 1)", "F_D": "valid"}, ())
    assert find_problems(base, [whole, diff], list_segments) == ["backup F is invalid (missing: 1)"]
    other = Verification("error", {"F": "valid", "G": "invalid"}, ())
    assert find_problems(other, [whole], list_segments) == []
    assert find_problems(Verification("ok", {}, ()), [whole], list_segments) == ["backup F is not mentioned by verify"]
    assert find_problems(good._replace(status="error"), [whole], list_segments) == ["verify ends with status error"]
    assert find_problems(good._replace(problems=("No usable backup.info file",)), [whole], list_segments) == [
        "No usable backup.info file"
    ]


def test_damage_of_wal_counts_where_it_is_needed() -> None:
    """A segment from before the backup, or of another cluster, does not make it worthless; one that it needs does."""
    whole = FULL._replace(last_segment="000000010000000000000002")

    def list_segments(_archive_id: str, _prefixes: Any) -> set[str]:
        return {"000000010000000000000002"}

    line = "WAL archive 15-1: checksum invalid: 1"
    damaged = Verification("error", {"F": "valid"}, (), (line,), {"15-1": 1})
    old = damaged._replace(bad_segments=frozenset({("15-1", "000000010000000000000001")}))
    assert find_problems(old, [whole], list_segments) == []
    other = damaged._replace(wal_damage=("WAL archive 14-0: missing: 1",), invalid={"14-0": 1})
    assert find_problems(other, [whole], list_segments) == []
    needed = damaged._replace(bad_segments=frozenset({("15-1", "000000010000000000000002")}))
    assert find_problems(needed, [whole], list_segments) == ["WAL segment 000000010000000000000002 is damaged"]
    assert find_problems(damaged, [whole], list_segments) == [f"{line}, and verify does not say which"]


def test_backups_from_before_an_upgrade_are_known() -> None:
    """By the number of the database, which stanza-upgrade raises."""
    upgraded = {**STANZA, "db": [*STANZA["db"], {"id": 2, "repo-key": 1, "system-id": 6, "version": "16"}]}
    newer = {**ENTRY, "label": "20261127-142928F", "database": {"id": 2, "repo-key": 1}}
    upgraded["backup"] = [ENTRY, newer]
    backups = parse_info(json.dumps([upgraded]), stanza="main", repository=1).backups
    assert [(backup.archive_id, backup.is_current) for backup in backups] == [("15-1", False), ("16-2", True)]


def test_lists_of_files() -> None:
    """The archive's names without their checksums; damaged files with the name of their database."""
    listing = {
        ".": {"type": "path"},
        f"000000010000000000000002-{'a' * 40}.zst": {"type": "file"},
        f"000000010000000000000003-{'b' * 40}": {"type": "file"},
        "000000010000000000000002.00000028.backup": {"type": "file"},
        "000000010000000000000004.partial": {"type": "file"},
    }
    assert list_archived(json.dumps(listing)) == {"000000010000000000000002", "000000010000000000000003"}
    assert list_archived("") == set()
    detail = {**ENTRY, "error-list": ["base/5/16384", "global/1"], "database-ref": [{"name": "shop", "oid": 5}]}
    output = json.dumps([{**STANZA, "backup": [detail]}])
    assert parse_bad_files(output, ENTRY["label"]) == ["base/5/16384 (database shop)", "global/1"]
    assert parse_bad_files("no", "x") == []


PROGRAM = """#!/usr/bin/env python3
import json, pathlib, sys
place = pathlib.Path(__file__).parent
words = [word for word in sys.argv[1:] if not word.startswith(("--stanza", "--config", "--log", "--repo"))]
with (place / "called").open("a") as called:
    called.write(" ".join(words) + "\\n")
entry = json.loads((place / "info.json").read_text())
if words[0] == "version":
    print("pgBackRest 2.45")
elif words[0] == "info":
    print(json.dumps([entry]))
elif words[0] == "backup":
    entry["backup"] = json.loads((place / "next.json").read_text())
    (place / "info.json").write_text(json.dumps(entry))
elif words[0] == "verify":
    print((place / "verify.txt").read_text())
elif words[0] == "repo-ls":
    print(json.dumps({f"00000001000000000000000{number}-" + "a" * 40: {} for number in (2, 3)}))
"""


@pytest.mark.parametrize(
    ("has_errors", "status", "called"),
    [
        (False, "valid", ["backup", "info", "verify", "info", "repo-ls", "annotate", "expire", "info"]),
        (False, "invalid", ["backup", "info", "verify", "info", "annotate", "repo-ls", "annotate"]),
        (True, "valid", ["backup", "info", "info"]),
    ],
)
def test_nothing_is_expired_before_a_backup_is_verified(
    tmp_path: Path, has_errors: bool, status: str, called: list[str]
) -> None:
    """Neither by the backup itself, nor after one that found damage or is damaged."""
    program = tmp_path / "pgbackrest"
    program.write_text(PROGRAM)
    program.chmod(0o755)
    (tmp_path / "info.json").write_text(json.dumps({**STANZA, "backup": []}))
    (tmp_path / "next.json").write_text(json.dumps([{**ENTRY, "error": has_errors}]))
    (tmp_path / "verify.txt").write_text(
        GOOD.replace("backup: F, status: valid", f"backup: {ENTRY['label']}, status: {status}")
    )
    run = run_module("pgbackrest_backup", {"stanza": "main", "bin_dir": str(tmp_path)})
    assert run.failed == (has_errors or status != "valid"), run.msg
    calls = (tmp_path / "called").read_text().splitlines()
    assert [words.split()[0] for words in calls] == ["version", "info", *called]
    assert calls[2] == "backup --type=full --no-expire-auto"


def test_the_time_until_the_next_run_counts(tmp_path: Path) -> None:
    """By default it is max_age: a backup of 20 hours would be 44 hours old at the next nightly run."""
    program = tmp_path / "pgbackrest"
    program.write_text(PROGRAM)
    program.chmod(0o755)
    started = int(time.time()) - 20 * HOUR
    entry = {**ENTRY, "timestamp": {"start": started, "stop": started + 60}, "annotation": {"lowtide-verified": "then"}}
    (tmp_path / "info.json").write_text(json.dumps({**STANZA, "backup": [entry]}))
    options = {"stanza": "main", "bin_dir": str(tmp_path)}
    due = run_module("pgbackrest_backup", options, check=True)
    assert "and would be 1 d 20 h old at the next run, allowed are 1 d" in due["summary"]
    assert (due.changed, due["plan"][0]["what"]) == (True, "diff backup, and verify the repository")
    hourly = run_module("pgbackrest_backup", {**options, "interval": "1h"}, check=True)
    assert (hourly.failed, hourly.changed) == (False, False), hourly.msg
