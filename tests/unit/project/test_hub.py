# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What Galaxy and a Hub do with an upload: galaxy-importer, without the parts that take containers.

It reads documentation with ansible-doc, renders pages, and warns of what is missing. Its ansible-lint is most of its
time, and asks less than `make lint` asks of the same files: that part runs with the sweeps.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest
from galaxy_importer.schema import CollectionInfo

from support.checkout import below, load_yaml, module_names, playbook_names, role_names

KNOWN = re.compile(r"WARNING: ERROR    Failed to find lowtide\.ops\.(?:window_open|step|window_close) playbook\.")
"""ansible-lint looks in another folder than the one to which the importer unpacks. They are in examples of a module."""


def run_importer(tarball: Path, folder: Path, **settings: bool) -> tuple[dict[str, Any], list[str]]:
    """Import a tarball as a Hub does, with these settings of its configuration; the result, and what it warns of."""
    config = folder / "galaxy-importer.cfg"
    lines = [f"{name} = {value}" for name, value in settings.items()]
    config.write_text("\n".join(["[galaxy-importer]", *lines, ""]), encoding="utf-8")
    environment = {
        **{key: value for key, value in os.environ.items() if not key.startswith(("ANSIBLE_", "GALAXY_"))},
        "GALAXY_IMPORTER_CONFIG": str(config),
        "HOME": str(folder),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    process = subprocess.run(
        [sys.executable, "-m", "galaxy_importer.main", str(tarball)],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=800,
        check=False,
    )
    output = process.stdout + process.stderr
    assert process.returncode == 0, output
    assert "Importer processing completed successfully" in output
    warned = [line for line in output.splitlines() if re.match(r"[A-Z]+: ", line)]
    return json.loads((folder / "importer_result.json").read_text(encoding="utf-8")), warned


def test_importer_accepts_the_tarball(tarball: Path, tmp_path: Path) -> None:
    """Without a warning; it finds all modules, roles and playbooks, with their documentation, and the pages."""
    result, warned = run_importer(tarball, tmp_path, run_ansible_lint=False, check_required_tags=True)
    assert warned == []
    found: dict[str, set[str]] = {}
    for content in result["contents"]:
        found.setdefault(content["content_type"], set()).add(content["name"])
        assert content["description"] or content["content_type"] not in ("module", "role"), content
    assert found["module"] == set(module_names())
    assert found["role"] == set(role_names())
    assert found["playbook"] == {f"{name}.yml" for name in playbook_names()}
    assert result["requires_ansible"] == load_yaml(Path("meta/runtime.yml"))["requires_ansible"]
    pages = {page["name"] for page in result["docs_blob"]["documentation_files"]}
    assert pages == {path.name for path in below("docs", ".md") if len(path.parts) == 2}


@pytest.mark.sweep
def test_importer_lints_the_tarball(tarball: Path, tmp_path: Path) -> None:
    """Its own rules, by its own options, on what is unpacked."""
    _result, warned = run_importer(tarball, tmp_path, run_ansible_lint=True, run_ansible_doc=False)
    assert [line for line in warned if not KNOWN.fullmatch(line)] == []


def read_info(tarball: Path) -> dict[str, Any]:
    """Return the metadata that a Hub reads."""
    with tarfile.open(tarball) as archive:
        manifest = archive.extractfile("MANIFEST.json")
        assert manifest is not None
        info: dict[str, Any] = json.load(manifest)["collection_info"]
    return info


def test_certification_wants_a_later_version_and_nothing_else(tarball: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Galaxy and a Hub of one's own take 0.x. Red Hat's certified content has these two settings besides."""
    info = read_info(tarball)
    monkeypatch.setenv("GALAXY_IMPORTER_REQUIRE_V1_OR_GREATER", "true")
    monkeypatch.setenv("GALAXY_IMPORTER_CHECK_REQUIRED_TAGS", "true")
    assert CollectionInfo(**{**info, "version": "1.0.0"})
    with pytest.raises(ValueError, match=r"requires version to be 1\.0\.0 or greater"):
        CollectionInfo(**info)
    assert all(info[name] for name in ("description", "repository", "documentation", "homepage", "issues", "license"))
