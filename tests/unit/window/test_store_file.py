# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The store in a directory: its files, their permissions, full disks, users of a group."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ansible_collections.lowtide.ops.plugins.module_utils._common.errors import Refusal
from ansible_collections.lowtide.ops.plugins.plugin_utils._window.events import Event, WindowClosed
from ansible_collections.lowtide.ops.plugins.plugin_utils._window.journal import JournalDamaged, encode_line
from ansible_collections.lowtide.ops.plugins.plugin_utils._window.processes import Owner
from ansible_collections.lowtide.ops.plugins.plugin_utils._window.store_file import FileStore, make_slug
from support.window_stores import NAME, dead, make_file_store, me, take

from .builders import close, declare, fill, open_window, plan, start


def append(store: FileStore, event: Event, name: str = NAME) -> Event:
    """Append under the lock, whoever has the lease."""
    with store.lock():
        return store.append(name, event)


@pytest.fixture
def files(tmp_path: Path) -> FileStore:
    """A file store."""
    return make_file_store(tmp_path)


def read_lines(store: FileStore, name: str = NAME) -> bytes:
    """Return a journal's bytes."""
    return (store.directory / "journals" / f"{name}.jsonl").read_bytes()


def test_reports_are_files_beside_each_other(files: FileStore) -> None:
    path = files.write_report(NAME, 3, {".html": "<p>", ".json": "{}"})
    assert path == str(files.directory / "reports" / f"{NAME}.3.html")
    assert Path(path).read_text() == "<p>"
    files.write_report(NAME, 3, {".html": "again"})
    assert Path(path).read_text() == "again"
    with files.lock():
        files.remove([NAME])
    assert list((files.directory / "reports").iterdir()) == []


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"v": 1, "token": 1}', '{"v": "x"}', '{"v": 1', "\xff"])
def test_a_lease_that_cannot_be_read_is_refused(files: FileStore, text: str) -> None:
    (files.directory / "lease").write_text(text, encoding="latin-1")
    for ask in (files.read_lease, lambda: files.check(1), lambda: take(files, me())):
        with pytest.raises(
            Refusal, match=r"lease /.*: it cannot be read .* so who holds the site is unknown\. Make sure"
        ):
            ask()


def test_a_lease_of_a_later_format_is_refused(files: FileStore) -> None:
    (files.directory / "lease").write_text(json.dumps({"v": 2}))
    with pytest.raises(Refusal, match=r"it has format 2, and this version of lowtide\.ops knows 1"):
        take(files, me())


def test_tokens_rise_also_after_the_lease_was_removed(files: FileStore) -> None:
    append(files, open_window(declare(), token=7))
    append(files, close(), "other@1")
    (files.directory / "journals/damaged@1.jsonl").write_bytes(
        b"garbage\n" + encode_line(replace(close(), token=9), 2) + b'{"cut'
    )
    assert take(files, me()).token == 10, "a journal that is damaged keeps nobody from the site"
    assert take(replace_lease(files, dead()), me()).token == 11


def replace_lease(store: FileStore, owner: Owner) -> FileStore:
    """Make another owner the holder of the lease."""
    held = store.read_lease()
    assert held is not None
    store._write_lease(replace(held, owner=owner))
    return store


@given(st.lists(st.integers(0, 400), min_size=1, max_size=6))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_write_that_a_crash_cut_off_never_happened(files: FileStore, cuts: list[int]) -> None:
    """After each cut the next event takes its place; nothing that was written before is lost."""
    path = files.directory / "journals" / f"{NAME}.jsonl"
    path.unlink(missing_ok=True)
    kept: list[Event] = []
    for number, cut in enumerate(cuts):
        kept.append(append(files, plan("save", f"h{number}")))
        size = path.stat().st_size
        append(files, start("lost", "h" * 30))
        os.truncate(path, min(size + cut, path.stat().st_size - 1))
        assert files.load(NAME) == kept
    last = append(FileStore(files.directory), close())
    assert files.load(NAME) == [*kept, last]
    assert files.read_last_event(NAME) == last


def test_the_last_event_of_a_damaged_or_cut_off_journal(files: FileStore) -> None:
    path = files.directory / "journals" / f"{NAME}.jsonl"
    append(files, plan("save", "db1"))
    append(files, close())
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"half')
    assert isinstance(files.read_last_event(NAME), WindowClosed)
    path.write_bytes(whole.replace(b"succeeded", b"suckeeded"))
    assert files.read_last_event(NAME) is None
    with pytest.raises(JournalDamaged, match="line 2 is damaged"):
        files.load(NAME)
    with pytest.raises(JournalDamaged):
        append(FileStore(files.directory), close())
    path.write_bytes(b"")
    assert files.read_last_event(NAME) is None


def test_the_last_event_is_found_after_long_ones(files: FileStore) -> None:
    append(files, plan("save", "db1", plan=[{"what": "x" * 70000}]))
    append(files, close())
    assert isinstance(files.read_last_event(NAME), WindowClosed)


def test_a_journal_can_be_written_whole_for_check_mode(files: FileStore, tmp_path: Path) -> None:
    append(files, open_window(declare()))
    append(files, close())
    copy = make_file_store(tmp_path / "copy")
    copy.copy(NAME, files.load(NAME))
    assert read_lines(copy) == read_lines(files)


def test_an_event_is_synced_before_append_returns(files: FileStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the kernel was asked for, seen from outside: the file's data, and its name when it is new."""
    synced: list[str] = []
    real = os.fsync

    def watch(descriptor: int) -> None:
        synced.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", watch)
    path = str(files.directory / "journals" / f"{NAME}.jsonl")
    append(files, plan("save", "db1"))
    assert synced == [path, str(files.directory / "journals")]
    append(files, close())
    assert synced[2:] == [path]
    take(files, me())
    assert synced[-1] == str(files.directory)
    assert synced[-2].startswith(str(files.directory / ".lease."))


# -- the file store: no room, no right, no writing ------------------------------------------------------------------


def test_a_full_disk_leaves_the_journal_as_it_was(small_disk: Path) -> None:
    store = make_file_store(small_disk)
    kept = [append(store, plan("save", "db1")), append(store, plan("save", "db2"))]
    room = 4096 - len(read_lines(store))
    filler = fill(small_disk)
    with pytest.raises(OSError, match="No space left on device"):
        append(store, plan("save", "x" * (room + 500)))
    assert FileStore(store.directory).load(NAME) == kept
    with pytest.raises(OSError, match="No space left on device"):
        append(store, plan("save", "x" * (room + 500)))
    with pytest.raises(OSError, match="No space left on device"):
        store.write_report(NAME, 1, {".html": "x" * 8192})
    assert list((store.directory / "reports").iterdir()) == []
    filler.unlink()
    kept.append(append(store, close()))
    assert FileStore(store.directory).load(NAME) == kept


def test_a_disk_that_became_read_only_can_still_be_locked_and_read(small_disk: Path) -> None:
    store = make_file_store(small_disk)
    record = take(store, me())
    kept = append(store, plan("save", "db1"))
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    with store.lock():
        store.check(record.token)
        assert store.load(NAME) == [kept]
        with pytest.raises(OSError, match="Read-only file system"):
            store.append(NAME, close())


def list_modes(directory: Path) -> dict[str, str]:
    """Return the permissions of everything below a directory."""
    return {
        str(path.relative_to(directory)): f"{path.stat().st_mode & 0o7777:o}" for path in sorted(directory.rglob("*"))
    }


def use(store: FileStore) -> None:
    """Use all of a store once."""
    store.create()
    with store.lock():
        record = store.acquire(me(), NAME)
        store.append(NAME, replace(close(), token=record.token))
        store.write_report(NAME, record.token, {".html": "<p>"})


def test_a_private_directory_stays_private(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        use(FileStore.from_site(str(tmp_path / "windows"), "prod"))
    finally:
        os.umask(old)
    assert list_modes(tmp_path) == {
        "windows": "700",
        "windows/prod": "700",
        "windows/prod/journals": "700",
        f"windows/prod/journals/{NAME}.jsonl": "600",
        "windows/prod/lease": "600",
        "windows/prod/lease.lock": "600",
        "windows/prod/reports": "700",
        f"windows/prod/reports/{NAME}.1.html": "600",
    }


def test_a_directory_that_everybody_may_write_to_is_not_shared(tmp_path: Path) -> None:
    tmp_path.chmod(0o1777)
    use(FileStore(tmp_path / "site"))
    assert {mode for mode in list_modes(tmp_path).values()} == {"700", "600"}


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    """A directory of a group, as the documentation makes it: install -d -m 2770 -g GROUP."""
    for path in (tmp_path, *tmp_path.parents[:3]):  # also below a directory of each worker of pytest-xdist
        if path != Path(tempfile.gettempdir()):
            path.chmod(0o755)
    directory = tmp_path / "windows"
    directory.mkdir()
    os.chown(directory, 0, 4000)
    directory.chmod(0o2770)
    return directory


def run_as(uid: int, work: Callable[[], None], *, groups: Sequence[int] = (4000,)) -> int:
    """Run something in a child process of another user; return its exit code, 13 when it may not do it."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.umask(0o077)
            os.setgroups(groups)
            os.setresgid(uid, uid, uid)
            os.setresuid(uid, uid, uid)
            work()
            code = 0
        except PermissionError:
            code = 13
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_two_users_of_a_group_share_a_directory(shared: Path) -> None:
    """Each opens, writes, and takes over from the other, whose process ended."""

    def work() -> None:
        store = FileStore.from_site(str(shared), "prod")
        use(store)
        assert len(store.load(NAME)) == store.load(NAME)[-1].token

    for uid in (4001, 4002, 4001):
        assert run_as(uid, work) == 0
    modes = list_modes(shared)
    assert {mode for name, mode in modes.items() if not Path(name).suffix and "lease" not in name} == {"2770"}
    assert modes["prod/lease"] == modes["prod/lease.lock"] == modes[f"prod/journals/{NAME}.jsonl"] == "660"
    assert {path.stat().st_gid for path in shared.rglob("*")} == {4000}
    assert json.loads((shared / "prod/lease").read_text())["token"] == 3


def test_a_user_outside_the_group_is_kept_out(shared: Path) -> None:
    assert run_as(5000, lambda: use(FileStore.from_site(str(shared), "prod")), groups=[]) == 13
    assert list(shared.iterdir()) == []


# -- names ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["weekly@2026-11-21T01:00:00Z", "a_b.c-1"])
def test_a_plain_name_is_its_own_file_name(name: str) -> None:
    assert make_slug(name) == name


@given(st.text(max_size=120), st.text(max_size=120))
def test_different_names_have_different_file_names_that_are_safe(one: str, other: str) -> None:
    assert (make_slug(one) == make_slug(other)) == (one == other)
    slug = make_slug(one)
    assert len(slug) <= 100
    assert "/" not in slug
    assert not slug.startswith(".")


def test_the_store_of_a_site(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", "/home/eve")
    assert FileStore.from_site("~/windows", "").location == "/home/eve/windows/default"
    monkeypatch.chdir(tmp_path)
    assert FileStore.from_site("here", "prod").location == str(tmp_path / "here/prod")
