# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""file_expiry on a folder of this machine: what goes, what stays, and what is refused."""

from __future__ import annotations

import hashlib
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.lowtide.ops.plugins.module_utils._common.errors import OpsError
from ansible_collections.lowtide.ops.plugins.module_utils._files.listing import (
    File,
    explain_unproven,
    list_files,
    remove_file,
)
from support.modules import run_module, start_module

DAY = 86400
KILLER = Path(__file__).parents[2] / "support" / "_killed_at_removal.py"


def write(folder: Path, name: str, *, days: float, body: bytes = b"x" * 5000, proven: bool | None = None) -> Path:
    """A file that is so many days old; with ``proven`` its SHA-256, right or wrong, beside it."""
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(body)
    moment = time.time() - days * DAY
    os.utime(path, (moment, moment))
    if proven is not None:
        digest = hashlib.sha256(body if proven else b"other").hexdigest()
        checksum = folder / f"{name}.sha256"
        checksum.write_text(f"{digest}  {name}\n")
        os.utime(checksum, (moment, moment))
    return path


def name_day(days: float) -> str:
    """The day that is so many days ago, as names of dumps have it."""
    return time.strftime("%Y%m%d", time.gmtime(time.time() - days * DAY))


def make_params(folder: Path, **more: Any) -> dict[str, Any]:
    """Options of file_expiry."""
    return {"path": str(folder), "patterns": ["*.dump"], "older_than": "30d", "keep": 2, "series": "dump$", **more}


def list_names(folder: Path) -> set[str]:
    """Every file in a folder."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


@pytest.mark.procedure("D25")
def test_the_last_backups_stay_when_backups_have_stopped(tmp_path: Path) -> None:
    """All are older than allowed: the newest two stay. Predicted exactly, done, and nothing is due any more."""
    for number, name in enumerate(["a b.dump", "new\nline.dump", "c.dump", "d.dump"]):
        write(tmp_path, name, days=40 + number)
    write(tmp_path, "other.txt", days=99)
    (tmp_path / "link.dump").symlink_to(tmp_path / "other.txt")
    params = make_params(tmp_path)
    before = list_names(tmp_path)
    prediction = run_module("file_expiry", params, check=True)
    assert prediction.changed
    assert list_names(tmp_path) == before
    run = run_module("file_expiry", params)
    assert not run.failed, run.msg
    assert run.changed
    assert (run["plan"], run["expired"], run["diff"]) == (
        prediction["plan"],
        prediction["expired"],
        prediction["diff"],
    )
    assert before - list_names(tmp_path) == {"c.dump", "d.dump"}
    assert sorted(run["removed"]) == [str(tmp_path / "c.dump"), str(tmp_path / "d.dump")]
    assert not run_module("file_expiry", params).changed


def test_only_proven_files_count(tmp_path: Path) -> None:
    """The newest is truncated, the next has no checksum: an older one that is whole stays in their place."""
    write(tmp_path, "1.dump", days=1, proven=False)
    write(tmp_path, "2.dump", days=35)
    write(tmp_path, "3.dump", days=36, proven=True)
    write(tmp_path, "4.dump", days=37, proven=True)
    write(tmp_path, "5.dump", days=38, proven=True)
    params = make_params(tmp_path, checksum_suffix=".sha256")
    few = run_module("file_expiry", {**params, "keep": 4})
    assert not few.changed
    assert "fewer proven files than have to stay" in few["blockers"][-1]["what"]
    run = run_module("file_expiry", params)
    assert not run.failed, run.msg
    assert [Path(path).name for path in run["kept"]] == ["3.dump", "4.dump"]
    assert sorted(Path(path).name for path in run["removed"]) == ["2.dump", "5.dump"]
    assert not (tmp_path / "5.dump.sha256").exists()
    assert "SHA-256" in run["blockers"][0]["what"]


@pytest.mark.procedure("D25")
def test_empty_files_are_no_backups(tmp_path: Path) -> None:
    """Backups have failed for days, and left files without content: the last good one stays."""
    write(tmp_path, "good.dump", days=40)
    for number in range(3):
        write(tmp_path, f"{number}.dump", days=number, body=b"")
    run = run_module("file_expiry", make_params(tmp_path))
    assert not run.failed, run.msg
    assert not run.changed
    assert run["kept"] == [str(tmp_path / "good.dump")]
    assert "it does not count as one that stays: it is empty" in run["blockers"][0]["what"]
    assert "there are fewer files with content than have to stay (2)" in run["blockers"][-1]["what"]
    write(tmp_path, "better.dump", days=20)
    write(tmp_path, "oldest.dump", days=50)
    again = run_module("file_expiry", make_params(tmp_path))
    assert again["removed"] == [str(tmp_path / "oldest.dump")]


def test_a_checksum_without_its_file_goes_by_its_age(tmp_path: Path) -> None:
    """A run that was killed between the two has left it; one of a file that is there goes with that file only."""
    for name in ("old.dump", "new.dump", "there.dump"):
        write(tmp_path, name, days=40 if name != "new.dump" else 1, proven=True)
    for name in ("old.dump", "new.dump"):
        (tmp_path / name).unlink()
    run = run_module("file_expiry", make_params(tmp_path, keep=1, checksum_suffix=".sha256"))
    assert not run.failed, run.msg
    assert run["removed"] == [str(tmp_path / "old.dump.sha256")]
    assert list_names(tmp_path) == {"new.dump.sha256", "there.dump", "there.dump.sha256"}


def test_an_open_file_stays(tmp_path: Path) -> None:
    """To remove it would free nothing, and a file with another name below is found with recurse only."""
    with write(tmp_path, "open.dump", days=50).open("rb"):
        write(tmp_path, "sub/closed.dump", days=50)
        run = run_module("file_expiry", make_params(tmp_path, keep=0, recurse=True))
    assert [Path(path).name for path in run["removed"]] == ["closed.dump"]
    assert "a process has it open" in run["blockers"][0]["what"]
    assert (tmp_path / "open.dump").exists()


def test_limits_and_wrong_options_are_refused(tmp_path: Path) -> None:
    """Object, value, next step; nothing is removed."""
    for number in range(5):
        write(tmp_path, f"{number}.dump", days=40)
    (tmp_path / "link").symlink_to(tmp_path)
    (tmp_path / "below").mkdir()
    before = list_names(tmp_path)
    wrong: list[tuple[dict[str, Any], list[str]]] = [
        ({"max_files": 2}, ["3 files", "at most 2 may be", "raise max_files"]),
        ({"max_bytes": "1KiB"}, ["at most 1.0 KiB may be", "raise max_bytes"]),
        ({"max_share": 50}, ["60.0 % of 5 that are there", "raise max_share"]),
        ({"path": "/tmp"}, ["'/tmp' is a folder of the system"]),
        ({"path": "/a/../b"}, ["'/a/../b' is not an absolute path"]),
        ({"path": str(tmp_path / "none")}, ["No such file"]),
        ({"path": str(tmp_path / "link")}, ["a symbolic link"]),
        ({"keep": -1}, ["option keep", "-1"]),
        ({"patterns": ["a/b"]}, ["option patterns", "'a/b'"]),
        ({"checksum_suffix": "/../x"}, ["option checksum_suffix", "another folder"]),
        ({"series": "("}, ["option series", "'('"]),
        ({"path": "//tmp"}, ["'//tmp' is a folder of the system"]),
        ({"path": str(tmp_path / "link" / "below")}, ["a symbolic link leads to it"]),
        ({"patterns": []}, ["option patterns", "empty"]),
        ({"older_than": "old"}, ["option older_than", "'old'"]),
    ]
    for options, words in wrong:
        run = run_module("file_expiry", make_params(tmp_path, **options))
        assert run.failed, options
        assert run["error"]["refused"], options
        for part in words:
            assert part in run.msg, run.msg
    assert list_names(tmp_path) == before


def test_each_series_keeps_its_own(tmp_path: Path) -> None:
    """The dumps of a database that has stopped stay, whatever another one has that is newer."""
    for number in range(1, 5):
        write(tmp_path, f"a-{name_day(10 - number)}.dump", days=10 - number)
        write(tmp_path, f"b-{name_day(70 - number)}.dump", days=70 - number)
    run = run_module("file_expiry", make_params(tmp_path, series=None))
    assert not run.failed, run.msg
    assert sorted(Path(path).name for path in run["removed"]) == [
        f"b-{name_day(69)}.dump",
        f"b-{name_day(68)}.dump",
    ]
    assert run["series"] == {str(tmp_path / "a-#.dump"): 4, str(tmp_path / "b-#.dump"): 2 + 2}
    write(tmp_path, f"sub/b-{name_day(80)}.dump", days=80)
    again = run_module("file_expiry", make_params(tmp_path, series="^(.)-", recurse=True))
    assert not again.changed
    assert f"{tmp_path}/sub/b has 1" in again["blockers"][-1]["what"]


def test_files_that_are_all_kept_though_too_old_are_told(tmp_path: Path) -> None:
    """What a script puts behind a day may be a tenant's number: all of it stays, and one line says so."""
    for days in range(40, 45):
        write(tmp_path, f"shop-{name_day(days)}_0200{days}.dump", days=days)
    params = make_params(tmp_path, keep=1, series=None)
    run = run_module("file_expiry", params)
    assert not run.failed, run.msg
    assert (run.changed, len(run["series"]), len(run["blockers"])) == (False, 5, 1)
    assert run["blockers"][0]["object"] == "5 of 5 series"
    assert "5 series differ in digits only, and of each all is kept though it is too old" in run["blockers"][0]["what"]
    assert "^(.+)[-_][0-9]{8}[-_][0-9]{6}" in run["blockers"][0]["next_step"]
    again = run_module("file_expiry", {**params, "series": "^(.+)[-_][0-9]{8}[-_][0-9]{6}"})
    assert len(again["removed"]) == 4
    assert again["blockers"] == []


def test_killed_before_any_removal_and_run_again(tmp_path: Path) -> None:
    """What has to stay is there with its checksum, whichever removal was the last; the next run removes the rest."""
    removals = 6
    for number in range(1, removals + 1):
        folder = tmp_path / str(number)
        kept = {f"{series}-{name_day(40 + age)}.dump" for series in "ab" for age in (0, 1)}
        for series, ages in (("a", 4), ("b", 3)):
            for age in range(ages):
                write(folder, f"{series}-{name_day(40 + age)}.dump", days=40 + age, proven=True)
        params = make_params(folder, checksum_suffix=".sha256", series=None)
        process = start_module("file_expiry", params, wrapper=[sys.executable, str(KILLER), str(number)])
        process.communicate(timeout=60)
        assert process.returncode == -signal.SIGKILL, number
        stay = kept | {f"{name}.sha256" for name in kept}
        left = list_names(folder)
        assert stay < left, number
        assert len(left) == len(stay) + removals - (number - 1)
        again = run_module("file_expiry", params)
        assert not again.failed, (number, again.msg)
        assert list_names(folder) == stay, number
        assert not run_module("file_expiry", params).changed, number


def test_a_folder_that_is_swapped_for_a_link_is_not_followed(tmp_path: Path) -> None:
    """Neither when it is listed, nor when a file in it is removed or proven."""
    victim = write(tmp_path / "elsewhere", "x.dump", days=50, proven=True)
    own = write(tmp_path / "own", "x.dump", days=50, proven=True)
    status = victim.stat()
    (tmp_path / "own").rename(tmp_path / "moved")
    (tmp_path / "own").symlink_to(tmp_path / "elsewhere")
    listed = File.from_status(str(own), status)
    assert "directory" in remove_file(listed, ".sha256").lower()
    assert "cannot be read" in explain_unproven(listed, ".sha256")
    with pytest.raises(OpsError, match="it cannot be listed"):
        list_files(str(tmp_path / "own"), ["*"], recurse=True)
    assert victim.exists()
    assert (tmp_path / "elsewhere" / "x.dump.sha256").exists()
