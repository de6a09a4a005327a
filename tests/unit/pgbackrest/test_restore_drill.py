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
from cryptography.hazmat.primitives import serialization

from ansible_collections.lowtide.ops.plugins.module_utils._backup.manifest import stamp
from ansible_collections.lowtide.ops.plugins.module_utils._common.errors import OpsError, Refusal
from ansible_collections.lowtide.ops.plugins.module_utils._common.retry import Deadline
from ansible_collections.lowtide.ops.plugins.module_utils._pg_restore import evidence, judging
from ansible_collections.lowtide.ops.plugins.module_utils._pgbackrest.checking import DAMAGE, check_copy
from ansible_collections.lowtide.ops.plugins.module_utils._pgbackrest.drill_place import MARK, DrillPlace, find_server
from ansible_collections.lowtide.ops.plugins.module_utils._pgbackrest.operations.restore_drill import (
    Drill,
    choose_backup,
    find_newest,
)
from ansible_collections.lowtide.ops.plugins.module_utils._pgbackrest.private_server import (
    PrivateServer,
    ServerPrograms,
    leave_out_libpq,
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


def test_what_a_version_has_of_its_own_is_set_there_only(tmp_path: Path) -> None:
    """A setting that a server does not know ends its start; restartpoints are made as often as the original allows."""
    for version, lines in (
        (14, set()),
        (15, {"archive_library"}),
        (17, {"archive_library", "event_triggers"}),
    ):
        text = write_settings(
            DrillPlace(str(tmp_path)), version=version, limits={}, restore_command="x", target="latest"
        )
        values = dict(line.split(" = ", 1) for line in text.splitlines())
        assert {"archive_library", "event_triggers"} & values.keys() == lines
        assert values.get("event_triggers", "'off'") == "'off'"
        assert (values["checkpoint_timeout"], values["recovery_target"]) == ("'30s'", "''")


def test_variables_of_libpq_lead_nowhere_else() -> None:
    """Those of pgBackRest stay, where a site configures it by them."""
    environment = {"PGHOST": "live", "PGOPTIONS": "-c a=b", "PGBACKREST_REPO1_PATH": "/r", "PATH": "/bin"}
    assert leave_out_libpq(environment) == {"PGBACKREST_REPO1_PATH": "/r", "PATH": "/bin"}


def make_programs(folder: Path, **programs: str) -> ServerPrograms:
    """Programs of a server that are scripts."""
    for name, script in {"postgres": "exec sleep 60", **programs}.items():
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(0o755)
    return ServerPrograms(15, str(folder))


@pytest.fixture
def place(tmp_path: Path) -> Iterator[DrillPlace]:
    """A directory that is taken."""
    place = DrillPlace(str(tmp_path / "drill"))
    place.open(Deadline(10))
    yield place
    place.close()


def test_a_recovery_ends_before_the_file_system_is_full(
    tmp_path: Path, place: DrillPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """WAL between two checkpoints of the original stays, and the file system may be the one of production."""
    free = iter([900, 500, 200, 101, 99])
    monkeypatch.setattr("shutil.disk_usage", lambda _path: SimpleNamespace(free=1000 * MIB, total=1000 * MIB))
    place.check_room(300 * MIB)
    monkeypatch.setattr("shutil.disk_usage", lambda _path: SimpleNamespace(free=next(free) * MIB, total=1000 * MIB))
    (place.data / "pg_wal").mkdir()
    (place.data / "pg_wal/000000010000000000000001").write_bytes(b"\1" * MIB)
    server = PrivateServer(place, make_programs(tmp_path), Deadline(30))
    try:
        with pytest.raises(OpsError, match=r"99.0 MiB are free there, 100.0 MiB are to stay free, .* takes 1.0 MiB"):
            server.start(lambda: False)
    finally:
        server.end()


@pytest.mark.parametrize("names", [{"PGBACKREST_STANZA"}, {"PGHOST", "PGBACKREST_STANZA"}])
def test_a_server_has_the_variables_of_pgbackrest_only(
    tmp_path: Path, place: DrillPlace, monkeypatch: pytest.MonkeyPatch, names: set[str]
) -> None:
    """Its restore_command is run with them."""
    for name in names:
        monkeypatch.setenv(name, "x")
    server = PrivateServer(place, make_programs(tmp_path, postgres=f"env > {tmp_path}/seen"), Deadline(30))
    with pytest.raises(OpsError, match="it ended with 0 before it had recovered"):
        server.start(lambda: False)
    seen = {line.partition("=")[0] for line in (tmp_path / "seen").read_text().splitlines()}
    assert {name for name in seen if name.startswith("PG")} == {"PGBACKREST_STANZA"}


STAMP = "2026-11-27 02:00:00.000 UTC [7]"
TIMEOUT = f"{STAMP} 57014 ERROR:  canceling statement due to statement timeout\n"


@pytest.mark.parametrize(
    ("status", "output", "log", "damaged"),
    [
        (2, 'heap table "shop.public.t", block 3, offset 7:\n    xmin 9 precedes freeze', "", True),
        (2, 'btree index "shop.public.i":', f"{STAMP} XX002 ERROR:  item order invariant violated\n{TIMEOUT}", True),
        (2, 'heap table "shop.public.t":\n    ERROR:  canceling statement', TIMEOUT, False),
        (2, "", f"{STAMP} 58030 ERROR:  could not read block 7 in file: Input/output error\n", False),
        (2, "", f'{STAMP} 58P01 ERROR:  could not open file "base/5/16384": No such file or directory\n', True),
        (2, "", f'{STAMP} 58P01 ERROR:  could not access file "$libdir/postgis-3": No such file\n', False),
        (2, "", f"{STAMP} 53100 ERROR:  could not extend file\n{STAMP} 42P01 ERROR:  relation does not exist\n", True),
        (2, "", "", True),
        (1, "", f"{STAMP} 25006 ERROR:  cannot execute CREATE EXTENSION in a read-only transaction\n", False),
        (1, "", f"{STAMP} 42501 ERROR:  permission denied\n", False),
        (1, "", f"{STAMP} 00000 LOG:  server process (PID 8) was terminated by signal 11: Segmentation fault\n", True),
        (1, "", f"{STAMP} 00000 LOG:  server process (PID 8) was terminated by signal 9: Killed\n", False),
    ],
)
def test_what_a_check_says_is_told_from_what_keeps_it_from_looking(
    place: DrillPlace, status: int, output: str, log: str, damaged: bool
) -> None:
    """A timeout that came with the backup is no damage; what was found is in the message."""
    folder = place.path.parent
    (folder / "output").write_text(output + "\n")
    script = f"cat {folder}/output; echo of >&2; cat {folder}/log >> {place.run}/server.log; exit {status}"
    programs = make_programs(folder, pg_amcheck=script)
    (folder / "log").write_text(log)
    (place.run / "server.log").write_text(f"{STAMP} XX001 ERROR:  of before\n")
    server = PrivateServer(place, programs, Deadline(30))
    with pytest.raises(OpsError) as raised:
        check_copy(server, programs, place, user="u", list_databases=list, deadline=Deadline(30))
    assert (raised.value.next_step == DAMAGE.rstrip(".")) is damaged
    assert raised.value.obj == "pg_amcheck"
    for line in (f"exit status {status}: of", *output.split("\n")):
        assert line.strip() in raised.value.problem


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
        due: dict[str, Any] = {"max_age": WEEK, "interval": judging.read_interval(params, WEEK)}
        assert judging.explain_due(last, start, **due), f"week {week}"
        finished = start + timedelta(minutes=30)
        last = evidence.Drills(evidence.Drill("x", finished, {}, "n", b"", b""), [])
        assert judging.explain_due(last, start + timedelta(hours=6), **due) is None
        longer = WEEK + timedelta(days=1)
        looking: dict[str, Any] = {
            "max_age": longer,
            "interval": judging.read_interval({**params, "on_due": "fail"}, longer),
        }
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


def test_a_key_is_read_by_an_old_library_too(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """That of Ubuntu 20.04 asks for a backend, and told everybody that the key was none."""
    load = serialization.load_pem_private_key

    def load_as_before(data: bytes, password: bytes | None, backend: Any) -> Any:
        assert backend is not None
        return load(data, password)

    monkeypatch.setattr(serialization, "load_pem_private_key", load_as_before)
    signer = evidence.Signer(key)
    assert signer.is_ours(b"body", signer.sign(b"body"))


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


def test_the_mark_names_what_is_there_and_leads_nowhere_else(tmp_path: Path) -> None:
    """What a file says is removed only below the directory, by a name that a drill gives; a new one is noted alone."""
    path = tmp_path / "drills/drill"
    names = (
        "drill-0123abcd",
        "drill-89abcdef",
        "data",
        "..",
        "drill-0123abcd/..",
        "../drill-76543210",
        "drill-0123abcd.old",
    )
    for name in ("drill-0123abcd", "../drill-76543210"):
        (path / name).mkdir(parents=True)
    (path / MARK).write_text("\n".join(names))
    place = DrillPlace(str(path))
    assert place.list_left() == [path / "drill-0123abcd"]
    assert place.open(Deadline(10)) == [str(path / "drill-0123abcd")]
    assert (path / MARK).read_text() == f"{place.folder.name}\n"
    place.close()
    assert sorted(entry.name for entry in path.parent.iterdir()) == ["drill", "drill-76543210"]
    for name in ("data", "drill-0123abcd.old"):
        (path / name).mkdir()
        (path / MARK).write_text(f"{name}\n")
        other = DrillPlace(str(path))
        with pytest.raises(Refusal, match=f"it has {name}, which no drill has put there"):
            other.open(Deadline(10))
        other.close()
        assert (path / name).is_dir()
        (path / name).rmdir()


def test_a_directory_that_is_closed_to_this_user_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As are its parents: who has made it as somebody else is told so."""

    def stat(path: Path, **_options: Any) -> Any:
        raise PermissionError(13, "Permission denied", str(path))

    place = DrillPlace(str(tmp_path / "drill"))
    with monkeypatch.context() as patch:
        patch.setattr(Path, "stat", stat)
        patch.setattr(Path, "read_text", stat)
        for refused in (place.check, place.list_left):
            with pytest.raises(Refusal, match="this user cannot use it: Permission denied"):
                refused()


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
