# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The store in Kubernetes, as far as a double of the API server shows it: lost answers, and copies of what was read."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.lowtide.ops.plugins.plugin_utils._window.lease import LeaseLost
from ansible_collections.lowtide.ops.plugins.plugin_utils._window.part_copies import PartCopies
from ansible_collections.lowtide.ops.plugins.plugin_utils._window.store import StoreUnreachable
from ansible_collections.lowtide.ops.plugins.plugin_utils._window.store_kubernetes import PART_BYTES, KubernetesStore
from support.memory_kubernetes import MemoryServer
from support.store_contract import make_closed, make_opened, make_planned
from support.window_stores import NAME, append, dead, me, take


@pytest.fixture
def server() -> Iterator[MemoryServer]:
    """A double that has no objects yet."""
    with MemoryServer() as server:
        yield server


def connect(server: MemoryServer, folder: Path, *, patience: float = 30.0) -> KubernetesStore:
    """Return the store as a process of the run with this directory has it."""
    folder.mkdir(exist_ok=True)
    connection = {"host": server.url, "api_key": "t", "namespace": "ops"}
    return KubernetesStore(connection, site="shop", ttl=120.0, folder=folder, patience=patience)


# -- the fence ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_fence_whose_answer_is_lost_is_written_again(server: MemoryServer, tmp_path: Path, when: str) -> None:
    before, after = connect(server, tmp_path / "before"), connect(server, tmp_path / "after")
    with before.lock():
        token = before.acquire(dead(), NAME).token
        before.append(NAME, replace(make_opened(), token=token))
        server.lose_next(when, verb="patch", path="/configmaps/")
        record = take(after, me(), "weekly@tuesday")
        assert record.token > token
        with pytest.raises(LeaseLost):
            before.append(NAME, replace(make_closed(), token=token))
    assert after.read_lease() == record
    assert server.count("patch", "/configmaps/") >= 2, "it was lost once"


def test_a_fence_that_cannot_be_written_is_given_up_after_the_patience(server: MemoryServer, tmp_path: Path) -> None:
    with connect(server, tmp_path / "before").lock():
        before = connect(server, tmp_path / "other")
        token = before.acquire(dead(), NAME).token
        before.append(NAME, replace(make_opened(), token=token))
    server.lose_next(times=10**6, verb="patch", path="/configmaps/")
    with pytest.raises(StoreUnreachable, match="ConfigMap ops/lowtide-journal"):
        take(connect(server, tmp_path / "after", patience=1.0), me())


def test_events_are_in_the_order_in_which_they_were_written_whatever_the_clock_says(
    server: MemoryServer, tmp_path: Path
) -> None:
    """Two processes take the server's time from answers of different moments; a Date has no parts of a second."""
    server.clock_ahead = 60.0
    first = append(connect(server, tmp_path / "one"), make_opened())
    server.clock_ahead = 0.0
    second = append(connect(server, tmp_path / "other"), make_planned("h1", "x"))
    assert second.at == first.at > 0


# -- what was read --------------------------------------------------------------------------------------------------


def make_part(version: str) -> dict[str, Any]:
    """Return an object as a run has read it."""
    return {"metadata": {"uid": "u1", "resourceVersion": version}, "data": {"000001": version}}


def test_a_copy_counts_as_long_as_its_object_did_not_change(tmp_path: Path) -> None:
    copies, (old, new) = PartCopies(tmp_path), (make_part("7"), make_part("8"))
    assert copies.recall(old["metadata"]) is None
    copies.remember(old)
    assert copies.recall(old["metadata"]) == old
    assert copies.recall(new["metadata"]) is None
    copies.remember(new)
    assert copies.recall(new["metadata"]) == new
    assert len(list(tmp_path.iterdir())) == 1


def test_a_copy_that_cannot_be_read_is_none(tmp_path: Path) -> None:
    copies, part = PartCopies(tmp_path), make_part("7")
    copies.remember(part)
    (path,) = tmp_path.iterdir()
    path.write_text(path.read_text()[:9])
    assert copies.recall(part["metadata"]) is None


@pytest.mark.parametrize("failing", ["mkstemp", "replace"])
def test_a_journal_is_read_where_there_is_no_room_for_copies(
    server: MemoryServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    store = connect(server, tmp_path)
    events = [make_opened(), *(make_planned(f"h{number}", "x" * (PART_BYTES // 3)) for number in range(4))]
    for event in events:
        append(store, event)
    for path in tmp_path.glob("lowtide_window_part_*"):
        path.unlink()
    left = sorted(tmp_path.iterdir())
    tried: list[object] = []

    def fail(*arguments: object, **_options: object) -> None:
        tried.append(arguments)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(tempfile if failing == "mkstemp" else os, failing, fail)
    with store.lock():
        assert len(store.load(NAME)) == len(events)
    assert tried
    assert sorted(tmp_path.iterdir()) == left
