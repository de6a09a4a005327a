# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Folders that end with a job of AWX are told from those of a volume, and from those of no job."""

from __future__ import annotations

import pytest

from ansible_collections.lowtide.ops.plugins.module_utils._common import job_folders
from ansible_collections.lowtide.ops.plugins.module_utils._common.errors import Refusal
from ansible_collections.lowtide.ops.plugins.module_utils._common.job_folders import explain_job_end, refuse_job_folder

JOB = {"AWX_ISOLATED_DATA_DIR": "/runner/artifacts/7"}
BY_RULEBOOK = {"AWX_ISOLATED_DATA_DIR": "/tmp/eda1234/artifacts/8f2a"}
LINE = "{number} 1 0:{number} / {point} rw,relatime shared:1 - {kind} none rw"


def write_mounts(**kinds: str) -> str:
    """Return a mountinfo with these mount points (``_`` is a slash) and types."""
    points = {"/" + point.strip("_").replace("_", "/"): kind for point, kind in kinds.items()}
    return "\n".join(
        LINE.format(number=number, point=point, kind=kind) for number, (point, kind) in enumerate(points.items(), 20)
    )


@pytest.mark.parametrize(
    ("folder", "environ", "mounts", "why"),
    [
        ("/lowtide/evidence", JOB, {"_": "overlay"}, "on the disk of the job's container"),
        ("/lowtide/evidence", JOB, {"_": "overlay", "lowtide": "nfs4"}, ""),
        ("/lowtide-more/evidence", JOB, {"_": "overlay", "lowtide": "nfs4"}, "on the disk of the job's container"),
        ("/lowtide/evidence", JOB, {"_": "overlay", "lowtide": "tmpfs"}, "in memory (tmpfs at /lowtide)"),
        ("/runner/evidence", JOB, {"_": "overlay"}, "made for one job"),
        # Under podman, whose folder of the job is a mount of the node's directory of that job.
        ("/runner/evidence", JOB, {"_": "overlay", "runner": "xfs"}, "made for one job"),
        ("/runner/evidence", JOB, {"_": "overlay", "runner": "xfs", "runner_evidence": "nfs4"}, ""),
        # No job of AWX: ansible-runner in no container, as ansible-rulebook has it; a host of the play; a workstation.
        ("/lowtide/evidence", BY_RULEBOOK, {"_": "ext4"}, ""),
        ("/lowtide/evidence", {}, {"_": "overlay"}, ""),
    ],
)
def test_a_folder_that_ends_with_its_job(
    folder: str, environ: dict[str, str], mounts: dict[str, str], why: str
) -> None:
    said = explain_job_end(folder, environ, write_mounts(**mounts))
    assert (why in said) if why else said == ""


def test_a_refusal_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """And nothing is refused outside of a job."""
    monkeypatch.setattr(job_folders, "explain_job_end", lambda *_arguments: "it is gone")
    refuse_job_folder("/x", what="evidence folder")
    monkeypatch.setenv("AWX_ISOLATED_DATA_DIR", "/runner/artifacts/7")
    with pytest.raises(Refusal, match=r"evidence folder /x: it is gone\. Name a folder of a volume that is mounted"):
        refuse_job_folder("/x", what="evidence folder")
