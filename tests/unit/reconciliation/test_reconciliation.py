# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Offsets that a group has passed against what a ledger recorded: proven, lost, doubled, not comparable."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.lowtide.ops.plugins.plugin_utils._reconciliation import list_passed, reconcile

IN_LOG = {"log_end": 18, "lost": 0, "beyond_end": 0}
PASSED = {"topic": "t", "partition": 0, "log_start": 5, "committed": 15, **IN_LOG}
NOT_STARTED = {"topic": "t", "partition": 1, "log_start": 0, "committed": None, **IN_LOG}
EQUAL = {"recorded": 10, "doubled": 0, "recorded_since": 4}


def bus(*partitions: dict[str, Any]) -> dict[str, Any]:
    """The answer of rpk_group_info."""
    return {"groups": [{"name": "g", "partitions": list(partitions), "total_lag": 3}], "check_mode": False}


def ledger(*rows: dict[str, Any]) -> dict[str, Any]:
    """The answer of pg_query_info."""
    return {"rows": list(rows), "columns": list(rows[0] if rows else EQUAL)}


def test_equal_counts_are_a_proof() -> None:
    """Partitions without a commit do not count; what is gone from the log does not either."""
    told = reconcile(bus(PASSED, NOT_STARTED), ledger(EQUAL), "2026-11-26T03:00:00Z")
    assert told["blockers"] == []
    assert told["summary"] == (
        "no event lost, none doubled: topic 10, recorded 10, lost 0, doubled 0; 4 recorded since 2026-11-26T03:00:00Z;"
        " 3 still on their way"
    )
    assert told["evidence"] == [
        "consumer group g: topic 10, recorded 10, lost 0, doubled 0; 4 recorded since 2026-11-26T03:00:00Z; lag 3"
    ]
    assert told["counts"] == {**EQUAL, "expected": 10, "lost": 0, "lag": 3}
    assert "since" not in reconcile(bus(PASSED), ledger(EQUAL), "")["summary"]


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"recorded": 9}, "lost 1, doubled 0"),
        ({"doubled": 3}, "lost 0, doubled 3"),
        ({"recorded": 11}, "lost -1, doubled 0"),
    ],
)
def test_differences_are_told(row: dict[str, Any], words: str) -> None:
    """Lost, doubled, and more recorded than there ever were."""
    told = reconcile(bus(PASSED), ledger({**EQUAL, **row}), "")
    (blocker,) = told["blockers"]
    assert words in blocker["what"]
    assert words in told["summary"]
    assert blocker["object"] == "consumer group g"


def counted(*numbers: int) -> list[dict[str, Any]]:
    """What rpk_group_info has counted."""
    return [{"topic": "t", "partition": number, "records": records} for number, records in enumerate(numbers)]


def test_offsets_that_transactions_took_are_not_lost_events() -> None:
    """Five events of five transactions have ten offsets: the records are counted, and only they."""
    recorded = {**EQUAL, "recorded": 5}
    first = reconcile(bus(PASSED, NOT_STARTED), ledger(recorded), "")
    assert first["to_count"] == [{"topic": "t", "partition": 0, "start": 5, "end": 15}]
    assert "lost 5, doubled 0; by offsets, of which transactions take some for themselves" in first["summary"]
    proof = reconcile(bus(PASSED, NOT_STARTED), ledger(recorded), "", counted(5))
    assert (proof["blockers"], proof["to_count"], proof["counts"]["expected"]) == ([], [], 5)


def test_an_event_that_is_lost_among_transactions_is_lost() -> None:
    """And one of an aborted transaction that took effect is one too many."""
    told = reconcile(bus(PASSED), ledger({**EQUAL, "recorded": 5}), "", counted(6))
    assert "topic 6, recorded 5, lost 1, doubled 0)" in told["summary"]
    assert "lost -1" in reconcile(bus(PASSED), ledger({**EQUAL, "recorded": 5}), "", counted(4))["summary"]


def test_nothing_is_counted_where_offsets_are_a_proof_or_counting_cannot_help() -> None:
    """Equal, doubled, or more recorded than there are offsets."""
    for row in ({}, {"doubled": 3}, {"recorded": 11}):
        assert reconcile(bus(PASSED), ledger({**EQUAL, **row}), "")["to_count"] == []


def test_a_compacted_topic_is_refused_by_name() -> None:
    """Even where the counts agree."""
    compacted = bus(PASSED)
    compacted["groups"][0]["compacted_topics"] = ["t"]
    told = reconcile(compacted, ledger(EQUAL), "")
    assert "topic t is compacted (cleanup.policy)" in told["blockers"][0]["what"]
    assert (told["counts"], told["to_count"]) == ({}, [])
    compacted["groups"][0]["compacted_topics"] = []
    assert reconcile(compacted, ledger(EQUAL), "")["blockers"] == []


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (ledger(), "it returned 0 rows with the columns recorded, doubled, recorded_since"),
        (ledger(EQUAL, EQUAL), "it returned 2 rows"),
        (ledger({"topic": "t", "partition": "0", **EQUAL}), "it returned partition '0'"),
        (
            ledger({"topic": "t", "partition": 0, **EQUAL}, {"topic": "t", "partition": 0, **EQUAL}),
            "several rows for one",
        ),
        (ledger({"recorded": 10}), "it returned 1 rows with the columns recorded"),
        (ledger({**EQUAL, "more": 1}), "recorded_since, more"),
        (ledger({**EQUAL, "recorded": None}), "it returned recorded None"),
        (ledger({**EQUAL, "doubled": "0.5"}), "it returned doubled '0.5'"),
        (ledger({**EQUAL, "doubled": False}), "it returned doubled False"),
    ],
)
def test_a_statement_of_another_shape_is_told_what_is_expected(answer: dict[str, Any], words: str) -> None:
    """Rows, columns, values."""
    (blocker,) = reconcile(bus(PASSED), answer, "")["blockers"]
    assert blocker["object"] == "event_reconciliation_query"
    assert words in blocker["what"]
    assert "one row with the columns recorded, doubled, recorded_since, each a whole number" in blocker["next_step"]


@pytest.mark.parametrize(
    ("partitions", "words"),
    [
        ([], "it has committed no offset"),
        ([NOT_STARTED], "it has committed no offset"),
        ([PASSED, {**PASSED, "topic": "gone", "log_start": None}], "offsets of gone, which does not exist any more"),
        ([{**PASSED, "committed": 3, "lost": 2}], "2 offsets that it had not passed are no longer in t[0]"),
        ([{**PASSED, "committed": 50, "beyond_end": 32}], "committed 50 in t[0], beyond the log's end 18"),
    ],
)
def test_offsets_that_prove_nothing_are_told(partitions: list[dict[str, Any]], words: str) -> None:
    """No group of that name, no commit, a topic that was removed."""
    (blocker,) = reconcile(bus(*partitions), ledger(EQUAL), "")["blockers"]
    assert words in blocker["what"]


OTHER = {"topic": "t", "partition": 1, "log_start": 0, "committed": 10, **IN_LOG}


def of(partition: int, recorded: int) -> dict[str, Any]:
    """A row of a ledger that tells partitions apart."""
    return {"topic": "t", "partition": partition, "recorded": recorded, "doubled": 0, "recorded_since": 0}


def test_a_loss_is_not_made_up_for_by_another_partition() -> None:
    """The sums agree, and neither partition does."""
    assert reconcile(bus(PASSED, OTHER), ledger(of(0, 10), of(1, 10)), "")["blockers"] == []
    told = reconcile(bus(PASSED, OTHER), ledger(of(0, 12), of(1, 8)), "")
    assert "lost 0, doubled 0; lost -2 of t[0]; lost 2 of t[1]" in told["blockers"][0]["what"]
    assert [row["partition"] for row in told["to_count"]] == [0, 1]
    counted_again = reconcile(bus(PASSED, OTHER), ledger(of(0, 10), of(1, 8)), "", counted(10, 8))
    assert counted_again["blockers"] == []
    nothing = reconcile(bus(PASSED, OTHER), ledger(of(0, 10)), "")
    assert "lost 10 of t[1]" in nothing["blockers"][0]["what"]


def stopped(*partitions: dict[str, Any]) -> list[dict[str, Any]]:
    """The groups as they were when the consumers were stopped."""
    return [
        {"name": "other", "partitions": [{**PASSED, "committed": 1}]},
        {"name": "g", "partitions": list(partitions)},
    ]


def test_what_retention_removed_while_the_consumers_were_stopped_is_lost() -> None:
    """Though the group has gone on, and everything from the log's start on is recorded; for each partition."""
    moved = {**PASSED, "log_start": 100, "committed": 150, "log_end": 150}
    ahead = {**OTHER, "log_start": 0, "committed": 200, "log_end": 200}
    recorded = ledger(of(0, 50), of(1, 200))
    assert reconcile(bus(moved, ahead), recorded, "")["blockers"] == []
    before = stopped({**PASSED, "committed": 50}, {**OTHER, "committed": 190}, NOT_STARTED | {"partition": 2})
    (blocker,) = reconcile(bus(moved, ahead), recorded, "", None, before)["blockers"]
    assert blocker["what"] == (
        "retention has removed offsets that it had not passed when it was stopped: 50 of t[0] (50 to 99), and not all"
        " of them are recorded (topic 300, recorded 250, lost 50, doubled 0; lost 50 of t[0])"
    )
    in_sum = ledger({"recorded": 250, "doubled": 0, "recorded_since": 0})
    (blocker,) = reconcile(bus(moved, ahead), in_sum, "", None, before)["blockers"]
    assert "50 of t[0] (50 to 99)" in blocker["what"]
    before = stopped({**PASSED, "committed": 100}, {**OTHER, "committed": 190})
    assert reconcile(bus(moved, ahead), recorded, "", None, before)["blockers"] == []


def test_what_was_removed_after_the_group_had_gone_on_is_proven_by_the_ledger() -> None:
    """It is asked for all from the commit at the stop on, of which the log holds the end alone."""
    now = {**PASSED, "log_start": 500, "committed": 5000, "log_end": 5000}
    before = stopped({**PASSED, "log_start": 0, "committed": 100, "log_end": 100})
    assert list_passed(bus(now), before) == [{"topic": "t", "partition": 0, "log_start": 100, "committed": 5000}]
    assert list_passed(bus(now)) == [{"topic": "t", "partition": 0, "log_start": 500, "committed": 5000}]
    assert reconcile(bus(now), ledger(of(0, 4900)), "", None, before)["blockers"] == []
    told = reconcile(bus(now), ledger(of(0, 4899)), "", None, before)
    assert "400 of t[0] (100 to 499)" in told["blockers"][0]["what"]
    assert told["to_count"] == [{"topic": "t", "partition": 0, "start": 500, "end": 5000}]
    by_transactions = ledger(
        of(0, 400 + 2250)
    )  # what is held was written by transactions, which took half of the offsets
    assert reconcile(bus(now), by_transactions, "", counted(2250), before)["blockers"] == []
    assert reconcile(bus(now), by_transactions, "", counted(2251), before)["blockers"] != []


@pytest.mark.parametrize("committed", [12, None])
def test_what_was_removed_of_a_partition_without_a_commit_is_lost(committed: int | None) -> None:
    """Its group would have begun where the log did; whether it has begun by now or not."""
    before = stopped(PASSED, {**NOT_STARTED, "log_start": 0, "log_end": 10})
    now = {**NOT_STARTED, "log_start": 10, "log_end": 12, "committed": committed}
    (blocker,) = reconcile(bus(PASSED, now), ledger(of(0, 10), of(1, 2 if committed else 0)), "", None, before)[
        "blockers"
    ]
    assert "10 of t[1] (0 to 9)" in blocker["what"]
    proven = [of(1, committed)] if committed else []
    unmoved = {**now, "log_start": 0}
    assert reconcile(bus(PASSED, unmoved), ledger(of(0, 10), *proven), "", None, before)["blockers"] == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"committed": 50, "log_end": 50}, "the end of t[0] went from 1000 to 50"),  # the topic was made anew
        ({"committed": 2000, "log_end": 2000, "log_start": 0}, "the start of t[0] went from 5 to 0"),
        ({"committed": 50, "log_end": 1000}, "lower than when it was stopped: t[0] from 1000 to 50"),
    ],
)
def test_a_commit_or_log_that_went_back_is_named(change: dict[str, Any], words: str) -> None:
    """The ledger has as many events as asked for, of the topic that there was."""
    before = stopped({**PASSED, "committed": 1000, "log_end": 1000})
    now = {**PASSED, **change}
    recorded = now["committed"] - now["log_start"]
    (blocker,) = reconcile(bus(now), ledger(of(0, recorded)), "", None, before)["blockers"]
    assert words in blocker["what"]


@pytest.mark.parametrize("is_listed", [True, False])
def test_a_commit_that_vanished_while_the_consumers_were_stopped_is_named(is_listed: bool) -> None:
    """Whether the partition is still listed or not: consumers would begin elsewhere, and nothing of it is proven."""
    gone = [NOT_STARTED] if is_listed else []
    partitions: list[dict[str, Any]] = [PASSED, {**NOT_STARTED, "committed": 100}]
    before = [{"name": "g", "partitions": partitions}]
    (blocker,) = reconcile(bus(PASSED, *gone), ledger(EQUAL), "", None, before)["blockers"]
    assert blocker["what"] == "commits that it had when it was stopped are gone: 100 of t[1]"
    assert "offsets.retention.minutes" in blocker["next_step"]
    partitions[1]["committed"] = None
    assert reconcile(bus(PASSED, *gone), ledger(EQUAL), "", None, before)["blockers"] == []
