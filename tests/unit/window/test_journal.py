# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The journal: whole lines or nothing, damage and the future refused. A stateful model crashes writes at every byte."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from ansible_collections.lowtide.ops.plugins.module_utils._common.errors import Refusal
from ansible_collections.lowtide.ops.plugins.module_utils._window.journal import (
    FORMAT,
    Journal,
    checksum,
    decode,
    encode,
)

OLD = Path(__file__).with_name("data") / "journal-1.jsonl"


def test_an_absent_journal_is_empty(tmp_path: Path) -> None:
    reading = Journal(tmp_path / "j").read()
    assert (reading.records, reading.size, reading.torn) == ([], 0, False)


def test_records_come_back_as_written(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j", clock=lambda: 12.3456)
    first = journal.append("open", name="weekly", steps=[{"name": "a", "estimate": 1.5}])
    second = journal.append("begin", step="naïve\n\u2028")
    assert journal.read().records == [{**first, "sum": checksum(first)}, {**second, "sum": checksum(second)}]
    assert (first["n"], first["at"], first["v"], second["n"]) == (1, 12.346, FORMAT, 2)
    assert (tmp_path / "j").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("cut", [1, 5, -1])
def test_a_line_cut_off_by_a_crash_never_happened(tmp_path: Path, cut: int) -> None:
    journal = Journal(tmp_path / "j")
    journal.append("open")
    journal.append("begin")
    lines = (tmp_path / "j").read_bytes().splitlines(keepends=True)
    (tmp_path / "j").write_bytes(lines[0] + lines[1][:cut])
    assert journal.read().torn
    assert [record["kind"] for record in journal.read().records] == ["open"]
    journal.append("end")
    assert not journal.read().torn
    assert [(record["n"], record["kind"]) for record in journal.read().records] == [(1, "open"), (2, "end")]


def test_another_writer_in_between_is_seen(tmp_path: Path) -> None:
    mine, other = Journal(tmp_path / "j"), Journal(tmp_path / "j")
    mine.append("open")
    other.append("begin")
    mine.append("end")
    assert [(record["n"], record["kind"]) for record in other.read().records] == [(1, "open"), (2, "begin"), (3, "end")]


@pytest.mark.parametrize(
    "line",
    [
        b"garbage\n",
        b"\n",
        b"[1]\n",
        b'{"v": 1}\n',
        encode({"v": 1, "n": 7, "at": 0, "kind": "open"}),
        encode({"v": 1, "n": 1, "at": 0, "kind": "open"}).replace(b"open", b"oben"),
    ],
)
def test_a_damaged_line_is_refused_and_named(line: bytes) -> None:
    with pytest.raises(Refusal, match="journal J: line 1 is damaged") as caught:
        decode(line, name="J")
    assert "restore_service" in str(caught.value)


def test_a_format_from_the_future_is_refused_not_guessed() -> None:
    with pytest.raises(Refusal, match=r"line 1 has format 2, and this version of lowtide\.ops knows 1"):
        decode(json.dumps({"v": FORMAT + 1, "anything": "else"}).encode() + b"\n", name="J")


def test_a_journal_of_format_1_stays_readable() -> None:
    records = decode(OLD.read_bytes(), name=str(OLD)).records
    assert [record["kind"] for record in records] == ["open", "plan", "begin", "end", "close"]
    assert records[-1]["state"] == "done"


def test_a_full_disk_leaves_the_journal_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal(tmp_path / "j")
    journal.append("open")
    written: list[int] = []
    real = os.write

    def little_room(descriptor: int, data: bytes) -> int:
        if written:
            raise OSError(28, "No space left on device")
        written.append(real(descriptor, data[:9]))
        return written[0]

    with monkeypatch.context() as patch:
        patch.setattr("os.write", little_room)
        with pytest.raises(OSError, match="No space left"):
            journal.append("begin")
    assert [record["kind"] for record in journal.read().records] == ["open"]
    journal.append("end")
    assert [record["kind"] for record in journal.read().records] == ["open", "end"]


class CrashingWriter(RuleBasedStateMachine):
    """Appends, and appends cut off after any number of bytes: what is read is exactly what was written whole."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.journal = Journal(self.folder / "j", clock=lambda: 1.0)
        self.model: list[dict[str, Any]] = []

    @rule(kind=st.sampled_from(["open", "begin", "end", "close"]), host=st.text(max_size=20))
    def append(self, kind: str, host: str) -> None:
        self.journal.append(kind, host=host)
        self.model.append({"kind": kind, "host": host})

    @rule(data=st.data())
    def crash(self, data: st.DataObject) -> None:
        path = self.journal.path
        before = path.read_bytes() if path.exists() else b""
        self.journal.append("lost")
        whole = path.read_bytes()
        start = self.journal.read().size - len(whole.splitlines(keepends=True)[-1])
        keep = data.draw(st.integers(start, len(whole) - 1))
        path.write_bytes(whole[:keep])
        assert before[:start] == whole[:start]

    @invariant()
    def reads_what_was_whole(self) -> None:
        read = [{"kind": record["kind"], "host": record["host"]} for record in self.journal.read().records]
        assert read == self.model

    def teardown(self) -> None:
        shutil.rmtree(self.folder)


CrashingWriter.TestCase.settings = settings(max_examples=40, stateful_step_count=15, deadline=None)
TestCrashingWriter = CrashingWriter.TestCase
