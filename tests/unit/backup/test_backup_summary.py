# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The one line and the evidence of pg_backup and pg_backup_info."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.lowtide.ops.plugins.module_utils._backup.plan import Decision
from ansible_collections.lowtide.ops.plugins.module_utils._backup.summary import (
    describe_backup,
    describe_streams,
    summarize_backup,
    summarize_backups,
)

BACKUP: dict[str, Any] = {
    "run_id": "R1",
    "database": "shop",
    "size": 12_897_485,
    "rows": 3000,
    "tables": 1,
    "taken_at": "T1",
    "verified_at": "T2",
    "age_seconds": 12_000,
    "sha256": "0123456789abcdef" * 4,
    "dumps": ["dump.pgc.zst"],
}
NONE = Decision(True, "there is no verified backup")
YOUNG = Decision(False, "newest verified backup R1 is 3 h old, younger than 1 d")


@pytest.mark.parametrize(
    ("decision", "check_mode", "backup", "removed", "expected"),
    [
        (NONE, True, None, [], "would back up shop (there is no verified backup)"),
        (NONE, False, BACKUP, [], "backed up shop: 12.3 MiB to s3://b/shop/7/R1, verified"),
        (YOUNG, False, None, [], "newest verified backup R1 is 3 h old, younger than 1 d"),
        (NONE, True, None, ["x"], f"would back up shop ({NONE.why}); would remove 1 older or unfinished run"),
        (
            NONE,
            False,
            BACKUP,
            ["x", "y"],
            "backed up shop: 12.3 MiB to s3://b/shop/7/R1, verified; removed 2 older or unfinished runs",
        ),
        (NONE, False, None, [], "shop was not backed up (there is no verified backup)"),
    ],
)
def test_backup(
    decision: Decision, check_mode: bool, backup: dict[str, Any] | None, removed: list[str], expected: str
) -> None:
    """Predicted, done, not due, with what was removed."""
    line = summarize_backup(
        database="shop",
        url="s3://b/shop/7/R1",
        decision=decision,
        check_mode=check_mode,
        backup=backup,
        removed=removed,
    )
    assert line == expected


def test_evidence() -> None:
    """Which, what is in it, when it was verified."""
    assert describe_backup(BACKUP, "s3://b/shop/7/R1") == (
        "s3://b/shop/7/R1: 3000 rows of 1 table, 12.3 MiB, taken T1, verified T2, sha256 0123456789abcdef"
    )


def test_info() -> None:
    """The newest of each database, what does not count, what was decoded."""
    assert summarize_backups([], location="s3://b", bad=0, decoded=None) == "no verified backup in s3://b"
    assert (
        summarize_backups([BACKUP], location="s3://b", bad=2, decoded=None)
        == "newest verified backup in s3://b: shop 3 h 20 min old; 2 not verified"
    )
    assert (
        summarize_backups([BACKUP, {**BACKUP, "database": "log"}], location="s3://b", bad=0, decoded=["R1", "R2"])
        == "newest verified backups in s3://b: shop 3 h 20 min old, log 3 h 20 min old; 2 decoded as a whole"
    )


def test_several_streams_are_told() -> None:
    """Before and after; one is not."""
    assert describe_streams(1) == ""
    assert describe_streams(4) == " in up to 4 streams"
    assert " in 2 dumps, taken" in describe_backup({**BACKUP, "dumps": ["dump.pgc.zst", "data-1.pgc.zst"]}, "s3://b")
    assert "dumps" not in describe_backup(BACKUP, "s3://b")
