# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The decisions of a pgBackRest restore drill: settings, position, directory, evidence, choice of the backup."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ansible_collections.lowtide.ops.plugins.module_utils._backup.manifest import stamp
from ansible_collections.lowtide.ops.plugins.module_utils._common.errors import Refusal
from ansible_collections.lowtide.ops.plugins.module_utils._common.retry import Deadline
from ansible_collections.lowtide.ops.plugins.module_utils._pg_restore import evidence, judging
from ansible_collections.lowtide.ops.plugins.module_utils._pgbackrest.drill_place import MARK, DrillPlace, find_server
from ansible_collections.lowtide.ops.plugins.module_utils._pgbackrest.operations.restore_drill import (
    Drill,
    choose_backup,
    find_newest,
)
from ansible_collections.lowtide.ops.plugins.module_utils._pgbackrest.private_server import (
    make_restore_command,
    quote_setting,
    write_settings,
)
from ansible_collections.lowtide.ops.plugins.module_utils._pgbackrest.repository import Backup, Stanza, has_reached

NOW = datetime(2026, 11, 27, 12, tzinfo=UTC)
MIB = 1 << 20


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """A folder with a short path, as that of a server's socket is to be; pytest's own is longer with workers."""
    with tempfile.TemporaryDirectory(prefix="lowtide-") as place:
        yield Path(place)


def make_backup(label: str, ended: int, **more: Any) -> Backup:
    """A sound full backup."""
    values: dict[str, Any] = {
        "label": label,
        "type": "full",
        "started": ended - 10,
        "ended": ended,
        "has_errors": False,
        "references": (),
        "archive_id": "15-1",
        "first_segment": "",
        "last_segment": "",
        "start_lsn": "",
        "size": 1,
        "stored": 1,
        "verified_at": "",
        "damaged_at": "",
        **more,
    }
    return Backup(**values)


def make_stanza(*backups: Backup) -> Stanza:
    """A stanza with these backups."""
    return Stanza("shop", 0, "ok", False, backups)


@pytest.mark.parametrize(
    ("position", "segment", "reached"),
    [
        ("0/5000000", "000000010000000000000005", True),
        ("0/4FFFFFF", "000000010000000000000005", False),
        ("1/0", "0000000100000000000000FF", True),
        ("0/FFFFFFFF", "000000020000000100000000", False),
        ("A/1000000", "000000020000000A00000001", True),
    ],
)
def test_whether_recovery_has_come_to_a_segment(position: str, segment: str, reached: bool) -> None:
    assert has_reached(position, segment, 16 * MIB) is reached


def test_settings_leave_no_way_out(tmp_path: Path) -> None:
    """And a path with a quote or a percent sign stays one word."""
    text = write_settings(
        DrillPlace(str(tmp_path)),
        version=15,
        limits={"max_prepared_xacts": 7},
        restore_command=make_restore_command(["/a b/pgbackrest", "--config=/it's 100%/x.conf", "archive-get"]),
        target="immediate",
    )
    values = dict(line.split(" = ", 1) for line in text.splitlines())
    for name in (
        "listen_addresses",
        "archive_command",
        "archive_library",
        "primary_conninfo",
        "shared_preload_libraries",
        "session_preload_libraries",
    ):
        assert values[name] == "''", name
    for name in ("max_logical_replication_workers", "max_wal_senders"):
        assert values[name] == "'0'", name
    assert values["archive_mode"] == "'off'"
    assert values["max_prepared_transactions"] == "'7'"
    assert (values["max_wal_size"], values["min_wal_size"]) == ("'64MB'", "'32MB'")
    assert values["recovery_target"] == "'immediate'"
    command = values["restore_command"][1:-1].replace("''", "'").replace("%%", "%")
    words = subprocess.run(["sh", "-c", f"printf '%s\\n' {command}"], capture_output=True, text=True, check=True).stdout
    assert words.splitlines() == ["/a b/pgbackrest", "--config=/it's 100%/x.conf", "archive-get", "%f", "%p"]
    assert quote_setting("a'b\\c") == "'a''b\\\\c'"


def test_the_newest_backup_against_which_nothing_is_known_is_taken() -> None:
    good, bad = make_backup("a", 10), make_backup("b", 20, damaged_at="T")
    builds_on_bad = make_backup("c", 30, references=("b",))
    former = make_backup("d", 40, is_current=False)
    wrong = make_backup("e", 50, has_errors=True)
    assert choose_backup(make_stanza(good, bad, builds_on_bad, former, wrong), "latest") is good
    assert choose_backup(make_stanza(good, bad), "b") is bad
    for stanza, label, words in (
        (make_stanza(good), "x", "the repository has a"),
        (make_stanza(former), "latest", "there is no backup"),
        (make_stanza(bad), "latest", "against which nothing is known"),
    ):
        with pytest.raises(Refusal, match=words):
            choose_backup(stanza, label)


def make_drills(age: timedelta | None) -> evidence.Drills:
    """The last drill of this age."""
    return evidence.Drills(None if age is None else evidence.Drill("x", NOW - age, {}, "n", b"", b""), [])


WEEK = timedelta(days=7)


@pytest.mark.parametrize(
    ("age", "interval", "words"),
    [
        (None, WEEK, "there is no evidence"),
        (timedelta(hours=13), WEEK, None),
        (timedelta(days=3), WEEK, "3 d old and would be 10 d old at the next run, allowed are 7 d"),
        (timedelta(days=6), WEEK, "6 d old and would be 13 d old at the next run, allowed are 7 d"),
        (timedelta(days=5), timedelta(days=1), None),
        (timedelta(days=6.5), timedelta(days=1), "would be 7 d 12 h old at the next run"),
        (timedelta(days=6.9), timedelta(0), None),
        (timedelta(days=8), timedelta(0), "8 d old, allowed are 7 d"),
    ],
)
def test_when_a_drill_is_due(age: timedelta | None, interval: timedelta, words: str | None) -> None:
    why = judging.explain_due(make_drills(age), NOW, max_age=WEEK, interval=interval)
    assert why is None if words is None else words in (why or "")


@pytest.mark.parametrize("jitter", [(0, 0), (8, -8), (-8, 8), (2, 5)])
def test_a_weekly_schedule_makes_a_drill_each_week(jitter: tuple[int, int]) -> None:
    """The last one has ended later than this run begins, a week on; the check beside it takes a day more."""
    params: dict[str, Any] = {"interval": None, "on_due": "run"}
    last = make_drills(None)
    for week in range(8):
        start = NOW + week * WEEK + timedelta(seconds=jitter[week % 2])
        due = {"max_age": WEEK, "interval": judging.read_interval(params, WEEK)}
        assert judging.explain_due(last, start, **due), f"week {week}"
        finished = start + timedelta(minutes=30)
        last = evidence.Drills(evidence.Drill("x", finished, {}, "n", b"", b""), [])
        assert judging.explain_due(last, start + timedelta(hours=6), **due) is None
        longer = WEEK + timedelta(days=1)
        looking = {"max_age": longer, "interval": judging.read_interval({**params, "on_due": "fail"}, longer)}
        assert judging.explain_due(last, start + WEEK + timedelta(minutes=20), **looking) is None


def test_what_the_newest_data_is_of() -> None:
    """The end of the backup counts where nothing was committed after it, or nothing was replayed."""
    backup = make_backup("a", int(NOW.timestamp()))
    later = NOW + timedelta(hours=1)
    assert find_newest(backup, None) == find_newest(backup, NOW - timedelta(hours=1)) == NOW
    assert find_newest(backup, later) == later


def test_a_folder_that_evidence_cannot_be_written_to_is_refused(tmp_path: Path) -> None:
    """Before anything is done, also in check mode; nothing is made."""
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file/below"):
        with pytest.raises(Refusal, match="file is no directory"):
            evidence.check_local(str(folder))
    evidence.check_local(str(tmp_path / "a/b"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file"]


@pytest.fixture
def key(tmp_path: Path) -> str:
    """A key of the site."""
    path = tmp_path / "drill.pem"
    subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", path], check=True)
    path.chmod(0o600)
    return str(path)


def test_evidence_of_others_does_not_count(tmp_path: Path, key: str) -> None:
    """Of another stanza it is passed over; without its signature, or with another one, it is told."""
    signer, folder = evidence.Signer(key), str(tmp_path / "evidence")
    expected = {"stanza": "shop", "proven": True}

    def save(name: str, **values: Any) -> str:
        body = evidence.write_document({**expected, "finished_at": stamp(NOW), **values})
        return evidence.save_local(folder, name, body, signer.sign(body))

    assert evidence.find_last_local(folder, signer, expected=expected, latest=NOW) == evidence.Drills(None, [])
    first = save("1")
    future = save("6", finished_at=stamp(NOW + timedelta(days=90)))
    save("2", stanza="other")
    unsigned, changed, no_json = save("3"), save("4"), Path(folder, "5.json")
    os.unlink(f"{unsigned}.sig")
    Path(changed).write_text(Path(changed).read_text(encoding="utf-8").replace("true", "true "), encoding="utf-8")
    no_json.write_text("[]", encoding="utf-8")
    found = evidence.find_last_local(folder, signer, expected=expected, latest=NOW)
    assert found.last is not None
    assert found.last.url == first
    assert [Path(path).name for path, _problem in found.bad] == ["6.json", "5.json", "4.json", "3.json"]
    assert found.bad[0][0] == future
    assert "dated in the future" in found.bad[0][1]


def test_a_directory_is_taken_marked_and_left_empty(tmp_path: Path) -> None:
    """What is left of a killed drill goes; what is not a drill's stays, and is refused."""
    path = tmp_path / "drill"
    place = DrillPlace(str(path))
    assert place.open(Deadline(10)) == []
    assert {entry.name for entry in path.iterdir()} == {MARK, place.folder.name}
    assert sorted(entry.name for entry in place.folder.iterdir()) == ["data", "run", "socket", "tablespaces"]
    with pytest.raises(Refusal, match="another drill is running in it"):
        DrillPlace(str(path)).open(Deadline(10))
    place.close()
    assert list(path.iterdir()) == []

    left = path / "drill-0123abcd"
    (path / MARK).write_text(f"{left.name}\n")
    (left / "data").mkdir(parents=True)
    (left / "data/postmaster.pid").write_text(f"{os.getpid()}\n")
    assert find_server(left / "data") is None, "a process of another directory is not ended"
    assert place.open(Deadline(10)) == [str(left)]
    assert not left.exists()
    place.close()

    (path / "precious").touch()
    for refused in (place.check, lambda: place.open(Deadline(10))):
        with pytest.raises(Refusal, match="it has precious, which no drill has put there"):
            refused()
    (path / MARK).touch()
    with pytest.raises(Refusal, match="precious"):
        place.check()
    assert (path / "precious").exists()


@pytest.mark.parametrize("what", ["folder", "link", "unnamed"])
def test_a_data_directory_beside_a_mark_that_was_left_is_not_a_drill_s(tmp_path: Path, what: str) -> None:
    """Somebody has freed the disk with ``rm -rf *``, which leaves the mark, and made a server there."""
    path, name = tmp_path / "drill", "data" if what == "folder" else "drill-0123abcd"
    path.mkdir()
    (path / MARK).write_text("drill-0123abcd\n" if what != "unnamed" else "")
    real = path / name if what != "link" else tmp_path / "elsewhere"
    real.mkdir()
    (real / "PG_VERSION").write_text("15\n")
    if what == "link":
        (path / name).symlink_to(real)
    place = DrillPlace(str(path))
    for refused in (place.check, lambda: place.open(Deadline(10))):
        with pytest.raises(Refusal, match=f"it has {name}, which no drill has put there"):
            refused()
    assert (real / "PG_VERSION").exists()


def test_what_a_killed_drill_has_started_is_waited_for(tmp_path: Path) -> None:
    """It holds the mark, as pgbackrest restore does after its drill is gone."""
    path = tmp_path / "drill"
    place = DrillPlace(str(path))
    place.open(Deadline(10))
    process = subprocess.Popen(["cat"], stdin=subprocess.PIPE, pass_fds=(place.mark,))
    try:
        os.close(place.mark)
        os.close(place._own)
        with pytest.raises(Refusal, match="what a killed drill has started"):
            DrillPlace(str(path)).open(Deadline(10))
        assert place.data.is_dir()
    finally:
        process.communicate()
    after = DrillPlace(str(path))
    assert after.open(Deadline(10)) == [str(place.folder)]
    after.close()


def test_a_server_that_opens_while_it_is_asked_is_asked_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A refusal from before it was ready says nothing, though it is ready when that is looked at; a later one does."""
    drill = Drill.__new__(Drill)
    drill._params, drill._place = {"database": "shop"}, DrillPlace(str(tmp_path))
    drill._place.data.mkdir(parents=True)
    asked: list[str] = []

    def connect(database: str) -> Any:
        asked.append(database)
        (drill._place.data / "postmaster.pid").write_text("\n" * 7 + "ready   \n", encoding="utf-8")
        raise Refusal(obj="x", problem="not accepting connections", next_step="y")

    monkeypatch.setattr(drill, "_connect", connect)

    def start(is_ready: Any) -> None:
        assert is_ready() is False
        is_ready()

    with pytest.raises(Refusal):
        drill._recover(SimpleNamespace(start=start))  # type: ignore[arg-type]  # all that is asked of a server here
    assert asked == ["shop", "shop"]


def test_room_is_needed_for_the_whole_cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = DrillPlace(str(tmp_path / "a/b"))
    monkeypatch.setattr("shutil.disk_usage", lambda _path: SimpleNamespace(free=360 * MIB, total=400 * MIB))
    place.check_room(100 * MIB)
    with pytest.raises(Refusal, match="are free there, and the drill takes"):
        place.check_room(180 * MIB)
    with pytest.raises(Refusal, match="its path has more than"):
        DrillPlace("/" + "x" * 100).check()
