# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The role cleanup: no entry waits for another one's success."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support.playbooks import PlaybookRun

pytestmark = pytest.mark.lab("s3")
DAY = 86400.0


@pytest.mark.procedure("D25", "A17")
def test_a_bucket_that_refuses_does_not_keep_a_disk_full(
    tmp_path: Path, lab: dict[str, Any], ansible_playbook: Callable[..., PlaybookRun]
) -> None:
    """Nor does a folder that is not there: the rest is done, the result says what, and the role fails."""
    paths = []
    for number in range(3):
        moment = time.time() - (40 + number) * DAY
        path = tmp_path / time.strftime("%Y%m%d.dump", time.gmtime(moment))
        path.write_bytes(b"x" * 5000)
        paths.append(path)
        os.utime(path, (moment, moment))
    entry = {"patterns": ["*.dump"], "older_than": "30d", "keep": 2}
    play = {
        "hosts": "localhost",
        "gather_facts": False,
        "tasks": [
            {
                "block": [{"ansible.builtin.include_role": {"name": "lowtide.ops.cleanup"}}],
                "rescue": [{"ansible.builtin.fail": {"msg": "summary: {{ cleanup_result.summary }}"}}],
            }
        ],
    }
    variables = {
        "cleanup_s3_connection": {name: lab["s3"][name] for name in ("endpoint_url", "region", "credentials_file")},
        "cleanup_files": [{**entry, "path": str(tmp_path / "none")}, {**entry, "path": str(tmp_path)}],
        "cleanup_objects": [{"bucket": "nobody-has-made-this", "prefix": "", "older_than": "30d"}],
    }
    run = ansible_playbook([play], extra_vars=variables, timeout=400)
    assert run.rc != 0
    told = " ".join(run.stdout.split())
    assert "No such file" in told
    assert "nobody-has-made-this" in told
    assert "summary: removed 1 of 1 expired file" in told
    assert sorted(tmp_path.glob("*.dump")) == sorted(paths[:2])
