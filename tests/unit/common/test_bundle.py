# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Evidence is saved in a folder of its own, for its owner alone, and never over other evidence."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from ansible_collections.lowtide.ops.plugins.module_utils._common.bundle import save_bundle
from ansible_collections.lowtide.ops.plugins.module_utils._common.errors import OpsError

AT = 1777629600.0
FILES = {"a.txt": "text\n", "logs/p_main.log": "line é\n"}


def save(folder: Path, name: str = "shop-web") -> Path:
    """Save the files."""
    return Path(save_bundle(str(folder), name, FILES, about={"object": "x"}, at=AT))


def test_each_run_has_a_folder_of_its_own(tmp_path: Path) -> None:
    """Also in the same second; what was saved before stays as it is."""
    paths = [save(tmp_path / "new" / "deep") for _ in range(3)]
    names = ["shop-web-20260501T100000Z", "shop-web-20260501T100000Z-2", "shop-web-20260501T100000Z-3"]
    assert [path.name for path in paths] == names
    assert [(path / "a.txt").read_text() for path in paths] == ["text\n"] * 3


def test_the_index_has_the_sum_of_each_file(tmp_path: Path) -> None:
    """And what it is about; only the owner may read any of it."""
    path = save(tmp_path / "evidence")
    index = json.loads((path / "index.json").read_text())
    assert index["object"] == "x"
    sums = {name: hashlib.sha256(text.encode()).hexdigest() for name, text in FILES.items()}
    assert {name: entry["sha256"] for name, entry in index["files"].items()} == sums
    assert {entry.stat().st_mode & 0o777 for entry in path.rglob("*") if entry.is_file()} == {0o600}
    assert {entry.stat().st_mode & 0o777 for entry in (path, path / "logs", path.parent)} == {0o700}


def test_no_name_leads_out_of_the_folder(tmp_path: Path) -> None:
    """Whatever an object is called."""
    path = Path(save_bundle(str(tmp_path), "../x", {"../../y": "", "logs/../z": "", "/w": ""}, about={}, at=AT))
    assert path.parent == tmp_path
    assert {entry for entry in tmp_path.rglob("*") if entry.is_file()} == {
        path / name for name in ("_/_/y", "logs/_/z", "_/w", "index.json")
    }


def test_a_folder_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    """With what to do."""
    (tmp_path / "file").write_text("")
    with pytest.raises(
        OpsError, match=r"evidence folder .*/file: nothing can be saved there: Not a directory|File exists"
    ):
        save(tmp_path / "file")
