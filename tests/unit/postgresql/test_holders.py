# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Who is in the way, and what to do about it: pure."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.lowtide.ops.plugins.module_utils._postgresql import holders
from ansible_collections.lowtide.ops.plugins.module_utils._postgresql.holders import LockHolder, XminHolder
from ansible_collections.lowtide.ops.plugins.module_utils._postgresql.steps import Phase, Step
from ansible_collections.lowtide.ops.plugins.module_utils._postgresql.worker_pool import Record

TERMINATE = "End that transaction, or the session with SELECT pg_terminate_backend(7)"
HOLDER = LockHolder(1, 7, "pid 7", "ShareUpdateExclusiveLock", "2026-11-21", 60.0, TERMINATE, "")
FREEZE = Step(
    phase=Phase.FREEZE, table=1, oid=1, schema="public", name="t", display_name="table public.t", action="VACUUM (FREEZE)",
    unmet={"transaction_id_age": "old"}, priority=1.0, size=1, estimate=1.0, vacuum=True,
)  # fmt: skip


@pytest.mark.parametrize(
    ("vacuum", "says"),
    [
        ("wraparound", "Let it finish"),
        ("autovacuum", "deadlock_timeout"),
        ("command", "when that VACUUM has ended"),
        ("", "pg_terminate_backend(7)"),
    ],
)
def test_nobody_is_told_to_end_a_vacuum(vacuum: str, says: str) -> None:
    """One against wraparound is the cure: ended, it begins anew, and the server comes nearer to its stop."""
    blocker = holders.make_lock_blocker("table public.t", HOLDER._replace(vacuum=vacuum))
    assert says in blocker.next_step
    assert ("pg_terminate_backend" in blocker.next_step) is (vacuum == "")
    assert ("VACUUM" in blocker.what) is (vacuum != "")


@pytest.mark.parametrize(("vacuum", "cured"), [("wraparound", True), ("autovacuum", False), ("command", False)])
def test_what_autovacuum_freezes_is_no_danger(vacuum: str, cured: bool) -> None:
    """The run does not fail over it."""
    holder = HOLDER._replace(vacuum=vacuum)
    record = Record()
    record.add_skip(FREEZE, "locked", holders.make_lock_blocker("t", holder), cured=holders.is_cure(holder))
    assert record.skips[0].is_danger is not cured


@pytest.mark.parametrize(
    ("change", "lasts"),
    [
        ({}, True),
        ({"seconds": None}, True),
        ({"seconds": 4.0}, False),
        ({"vacuum": "autovacuum"}, False),
        ({"vacuum": "wraparound"}, True),
        ({"vacuum": "command"}, True),
    ],
)
def test_a_build_is_not_refused_for_an_autovacuum_that_gives_way(change: dict[str, Any], lasts: bool) -> None:
    """The server ends it when the build has waited for deadlock_timeout."""
    holder = HOLDER._replace(**change)
    assert holders.find_lasting([holder], limit=5.0) == (holder if lasts else None)


SNAPSHOT = XminHolder("an open snapshot", "pid 7", None, None, 1.0, 50, 99, False, TERMINATE, 900.0)


@pytest.mark.parametrize(
    ("change", "seconds"),
    [
        ({}, 900.0),  # an active session under REPEATABLE READ: its statement is new, its transaction is not
        ({"transaction_seconds": 2.0}, None),
        ({"transaction_seconds": None}, None),
        ({"transaction_seconds": None, "seconds": 6.0}, 6.0),
        ({"what": "a replication slot"}, None),
    ],
)
def test_a_build_waits_for_the_whole_transaction(change: dict[str, Any], seconds: float | None) -> None:
    """Not for the statement that it is at."""
    snapshot = holders.find_old_snapshot([SNAPSHOT._replace(**change)], limit=5.0)
    assert (snapshot and snapshot.seconds) == seconds


def test_a_session_of_another_database_holds_shared_catalogs_alone() -> None:
    """And no build waits for it."""
    elsewhere = SNAPSHOT._replace(only_shared=True)
    assert holders.find_oldest([elsewhere, SNAPSHOT], catalog=True, shared=True) == elsewhere
    assert holders.find_oldest([elsewhere, SNAPSHOT], catalog=True, shared=False) == SNAPSHOT
    assert holders.find_oldest([elsewhere], catalog=True, shared=False) is None
    assert holders.find_old_snapshot([elsewhere], limit=5.0) is None
