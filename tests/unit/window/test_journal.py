# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The lines of a journal: whole or as if never written; any other change is found."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.lowtide.ops.plugins.module_utils._common.errors import Refusal
from ansible_collections.lowtide.ops.plugins.plugin_utils._window.events import (
    FORMAT,
    KINDS,
    Event,
    StepPlanned,
    StepSkipped,
    WindowClosed,
)
from ansible_collections.lowtide.ops.plugins.plugin_utils._window.journal import (
    JournalDamaged,
    compute_checksum,
    decode_last_line,
    decode_lines,
    encode_line,
)
from ansible_collections.lowtide.ops.plugins.plugin_utils._window.rules import WindowRules
from ansible_collections.lowtide.ops.plugins.plugin_utils._window.state import compute_state

from .builders import close, declare, make_step, open_window, plan, stamp, start, succeed

OLD = Path(__file__).with_name("data") / "journal-1.jsonl"
EVENTS: list[Event] = stamp(
    [
        open_window(declare(make_step("a", "web1", estimate=1.5))),
        plan("a", "web1", plan=[{"object": "naïve\n\u2028"}]),
        start("a", "web1"),
        succeed("a", "web1", evidence=["1 table"]),
        close(),
    ]
)


def encode(events: list[Event]) -> bytes:
    """Return a journal."""
    return b"".join(encode_line(event, number) for number, event in enumerate(events, start=1))


DATA = encode(EVENTS)


def test_an_empty_journal_has_no_events() -> None:
    lines = decode_lines(b"", source="J")
    assert (lines.events, lines.size, lines.is_cut_off) == ([], 0, False)


def test_events_come_back_as_written() -> None:
    lines = decode_lines(DATA, source="J")
    assert (lines.events, lines.size, lines.is_cut_off) == (EVENTS, len(DATA), False)


@pytest.mark.parametrize("number", range(1, len(EVENTS) + 1))
def test_a_line_cut_off_anywhere_never_happened(number: int) -> None:
    begin, end = len(encode(EVENTS[: number - 1])), len(encode(EVENTS[:number]))
    for cut in range(begin + 1, end):
        lines = decode_lines(DATA[:cut], source="J")
        assert (lines.events, lines.size, lines.is_cut_off) == (EVENTS[: number - 1], begin, True)


def test_every_changed_byte_is_found() -> None:
    """Each byte, changed to a few others: refused, or the same events (a digit of an escape in capitals)."""
    for place, byte in enumerate(DATA):
        for other in {byte ^ 1, byte ^ 32, byte ^ 128, ord("0"), ord("9"), ord('"'), ord("\n"), ord(" ")} - {byte}:
            changed = DATA[:place] + bytes([other]) + DATA[place + 1 :]
            try:
                events = decode_lines(changed, source="J").events
            except Refusal:
                continue
            assert events == EVENTS, (place, bytes([byte]), bytes([other]))


@given(st.integers(0, len(DATA) - 1), st.integers(0, 255))
@settings(max_examples=500)
def test_any_changed_byte_is_found(place: int, other: int) -> None:
    changed = DATA[:place] + bytes([other]) + DATA[place + 1 :]
    try:
        events = decode_lines(changed, source="J").events
    except Refusal:
        return
    assert events == EVENTS


LINES = DATA.splitlines(keepends=True)


@pytest.mark.parametrize(
    "lines",
    [
        LINES[1:],
        [*LINES[:1], *LINES[2:]],
        [LINES[1], LINES[0], *LINES[2:]],
        [*LINES, LINES[-1]],
        [b"\n", *LINES],
        [b"[1]\n"],
        [b"null\n"],
        [b'{"v": 1}\n'],
        [b'{"v": "x"}\n'],
        [b"\xff\n"],
    ],
    ids=["lost_first", "lost", "moved", "doubled", "blank", "list", "null", "keys", "version", "bytes"],
)
def test_a_line_lost_moved_or_strange_is_named(lines: list[bytes]) -> None:
    with pytest.raises(JournalDamaged, match=r"journal J: line \d is damaged \(.*Run the playbook restore_service"):
        decode_lines(b"".join(lines), source="J")


def test_an_event_of_unknown_kind_or_without_a_key_is_damage() -> None:
    for event in ({"v": 1, "event": "StepPaused", "n": 1}, {"v": 1, "event": "WindowClosed", "n": 1}):
        line = json.dumps({**event, "sum": compute_checksum(event)}).encode() + b"\n"
        with pytest.raises(JournalDamaged, match=r"StepPaused|WindowClosed without state"):
            decode_lines(line, source="J")
        assert decode_last_line(line) is None


def test_a_later_format_is_refused_whatever_its_checksum_is_and_is_no_damage() -> None:
    line = json.dumps({"v": FORMAT + 1, "anything": "else"}).encode()
    with pytest.raises(Refusal, match="it has format 2") as caught:
        decode_lines(line + b"\n", source="J")
    assert not isinstance(caught.value, JournalDamaged)
    assert decode_last_line(line) is None
    summed = {"v": FORMAT + 1, "event": "WindowClosed", "state": "succeeded"}
    assert decode_last_line(json.dumps({**summed, "sum": compute_checksum(summed)}).encode()) is None


def test_the_last_line_is_read_without_its_number() -> None:
    assert decode_last_line(LINES[-1]) == EVENTS[-1]
    assert decode_last_line(LINES[-1].replace(b"succeeded", b"succeedet")) is None
    assert decode_last_line(b"") is None


def test_a_journal_of_format_1_stays_readable() -> None:
    events = decode_lines(OLD.read_bytes(), source=str(OLD)).events
    assert {type(event).__name__ for event in events} == KINDS.keys()
    state = compute_state(events)
    rules = WindowRules(state)
    assert (rules.opened.window_id, rules.opened.ends, rules.opened.version) == (
        "weekly@2026-11-21T01:00:00Z",
        1795280400.0,
        "0.1.0",
    )
    assert [step.name for step in rules.declaration] == ["save", "quiesce", "maintain", "resume", "verify"]
    assert state.pending.keys() == {("quiesce", "web2")}
    assert state.succeeded.keys() == {("save", "db1"), ("quiesce", "web1"), ("resume", "web1")}
    assert isinstance(events[-1], WindowClosed)
    assert rules.compute_final_state() == events[-1].state == "failed_not_reverted"
    assert any(isinstance(event, StepPlanned) and event.blockers for event in events)
    assert any(isinstance(event, StepSkipped) and event.not_due for event in events)
