# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Undo records: written whole, private, and never lost to a second run."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.lowtide.ops.plugins.module_utils._common.errors import Refusal
from ansible_collections.lowtide.ops.plugins.module_utils._kafka import plan, undo
from ansible_collections.lowtide.ops.plugins.module_utils._kafka.api import OffsetRange, TopicPartition
from ansible_collections.lowtide.ops.plugins.module_utils._kafka.group import restore_targets

T0, T1, T2 = (TopicPartition("t", number) for number in range(3))
DECLARED = [{"to": "end"}]


def moved(before: dict[TopicPartition, int | None], after: int = 10) -> undo.Record:
    """The record of changes to ``after`` in a log of [0, 10)."""
    target = plan.OffsetTarget(plan.OFFSET, after)
    return undo.record(
        "g",
        "c",
        DECLARED,
        [plan.compute_change(one, target, offset, log=OffsetRange(0, 10)) for one, offset in before.items()],
    )


def why(earlier: undo.Record, committed: dict[TopicPartition, int]) -> str:
    """Why it is another change's."""
    return undo.explain_mismatch(earlier, group="g", cluster_id="c", declared=DECLARED, committed=committed)


names = st.text(min_size=1, max_size=20)
partitions = st.builds(TopicPartition, names, st.integers(0, 2**31 - 1))


@given(before=st.dictionaries(partitions, st.none() | st.integers(0, 2**62), max_size=20))
def test_a_record_survives_its_file(before: dict[TopicPartition, int | None]) -> None:
    """Any name, any offset, and no commit at all."""
    one = undo.Record("g", "c", "2026-01-01T00:00:00+00:00", DECLARED, before, dict.fromkeys(before, 7))
    assert undo.parse(one.as_json(), "x") == one


def test_only_moves_that_change_something_are_recorded() -> None:
    """The others need no undo."""
    assert moved({T0: 3, T1: 10}).before == {T0: 3}


def test_file(tmp_path: Path) -> None:
    """Mode 0600, nothing left beside it, the old one replaced."""
    path = tmp_path / "undo.json"
    undo.save(str(path), moved({T0: 3}))
    undo.save(str(path), moved({T0: 4}))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [path]
    assert json.loads(path.read_text())["format"] == undo.FORMAT
    loaded = undo.load(str(path))
    assert loaded is not None
    assert loaded.before == {T0: 4}
    assert undo.load(str(tmp_path / "none")) is None


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": "other"}', '{"format": 1}'])
def test_anything_else_is_refused(tmp_path: Path, text: str) -> None:
    """By the file's name."""
    path = tmp_path / "undo.json"
    path.write_text(text)
    with pytest.raises(Refusal, match=str(path)):
        undo.load(str(path))


def test_an_offset_that_is_no_number_is_refused() -> None:
    """Not taken for 0."""
    text = moved({T0: 3}).as_json().replace('"before": 3', '"before": "3"')
    with pytest.raises(Refusal, match="no number"):
        undo.parse(text, "x")


@pytest.mark.parametrize("committed", [{T0: 3, T1: 4}, {T0: 10, T1: 4}, {T0: 10, T1: 10}])
def test_the_same_change_not_begun_half_done_and_done_is_recognised(committed: dict[TopicPartition, int]) -> None:
    """So that a run after a kill goes on."""
    assert why(moved({T0: 3, T1: 4}), committed) == ""


def test_another_change_is_told_apart() -> None:
    """Another group, cluster or declaration, or offsets that have moved since."""
    one = moved({T0: 3})
    assert "has since moved" in why(one, {T0: 6})
    assert "has since moved" in why(one, {})
    assert "another declaration" in undo.explain_mismatch(
        one, group="g", cluster_id="c", declared=[], committed={T0: 3}
    )
    assert "group g in cluster c" in undo.explain_mismatch(
        one, group="h", cluster_id="c", declared=DECLARED, committed={T0: 3}
    )
    assert "group g in cluster c" in undo.explain_mismatch(
        one, group="g", cluster_id="d", declared=DECLARED, committed={T0: 3}
    )


def test_the_oldest_offsets_before_stay() -> None:
    """A second run after a half-done first one must not record half-done offsets as those from before."""
    kept = undo.merged(moved({T0: 3, T1: 4}, after=9), moved({T0: 9, T2: None}, after=10))
    assert kept.before == {T0: 3, T1: 4, T2: None}
    assert kept.after == {T0: 10, T1: 9, T2: 10}


def test_restore() -> None:
    """The offsets before, as targets; what cannot be put back is refused by name."""
    one = moved({T0: 3, T1: None})
    assert restore_targets(one, "g", "c", {T0: 10}) == {T0: plan.OffsetTarget(plan.OFFSET, 3)}
    with pytest.raises(Refusal, match=r"no commit before in t\[1\]"):
        restore_targets(one, "g", "c", {T0: 10, T1: 10})
    with pytest.raises(Refusal, match="not of group h"):
        restore_targets(one, "h", "c", {})


def test_place(tmp_path: Path) -> None:
    """A folder that is not there, a path that is a folder."""
    undo.check_place(str(tmp_path / "x.json"))
    with pytest.raises(Refusal, match="there is no folder"):
        undo.check_place(str(tmp_path / "no" / "x.json"))
    with pytest.raises(Refusal, match="it is a folder"):
        undo.check_place(str(tmp_path))
