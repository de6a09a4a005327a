# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Folders that end with a container, or with a job of AWX, are told from those that outlive it."""

from __future__ import annotations

import pytest

from ansible_collections.lowtide.ops.plugins.module_utils._common import containers
from ansible_collections.lowtide.ops.plugins.module_utils._common.containers import (
    explain_end,
    find_mount,
    refuse_job_folder,
)
from ansible_collections.lowtide.ops.plugins.module_utils._common.errors import Refusal

LINE = "{number} 1 0:{number} {root} {point} rw,relatime shared:1 - {kind} none rw"
JOB = {"AWX_ISOLATED_DATA_DIR": "/runner/artifacts/7"}
IN_USR = {"AWX_ISOLATED_DATA_DIR": "/usr/artifacts/7"}
"""A folder of a job that exists here, so that its mount points count."""
BY_RULEBOOK = {"AWX_ISOLATED_DATA_DIR": "/tmp/eda1/artifacts/8f2a"}
POD = {"KUBERNETES_SERVICE_HOST": "10.0.0.1"}


def write_mounts(**kinds: str) -> str:
    """Return a mountinfo with these mount points (``_`` is a slash) and types."""
    points = {"/" + point.strip("_").replace("_", "/"): kind for point, kind in kinds.items()}
    return "\n".join(
        LINE.format(number=number, root="/", point=point, kind=kind)
        for number, (point, kind) in enumerate(points.items(), 20)
    )


@pytest.mark.parametrize(
    ("directory", "environ", "mounts", "why"),
    [
        # As AWX runs a job in a pod, with a volume and without one.
        ("/usr/state", {**JOB, **POD}, {"_": "overlay"}, "on the disk of the container"),
        ("/usr/state", {**JOB, **POD}, {"_": "overlay", "usr": "ext4"}, ""),
        ("/runner/state", {**JOB, **POD}, {"_": "overlay"}, "made for one job"),
        # Under podman, whose folder of the job is a mount of the node's directory of that job.
        ("/runner/state", JOB, {"_": "overlay", "runner": "xfs"}, "made for one job"),
        ("/usr/state", {**IN_USR, **POD}, {"_": "overlay", "usr": "xfs"}, "it is in /usr, which is made for one job"),
        ("/usr/lib/state", {**IN_USR, **POD}, {"_": "overlay", "usr": "xfs", "usr_lib": "nfs4"}, ""),
        ("/runner/state", {"AWX_ISOLATED_DATA_DIR": "/runner"}, {"_": "overlay", "runner": "xfs"}, "made for one job"),
        ("/usr/state", JOB, {"_": "overlay", "usr": "tmpfs"}, "it is in memory (tmpfs at /usr)"),
        ("/usr/state", JOB, {"_": "xfs"}, "it is no volume"),
        # A container of somebody else.
        ("/usr/state", {"container": "oci"}, {"_": "overlay"}, "on the disk of the container"),
        ("/usr/state", POD, {"_": "overlay", "usr": "nfs4"}, ""),
        ("/usr/state", {"container": "lxc"}, {"_": "ext4"}, ""),
        # ansible-runner in no container, as ansible-rulebook has it.
        ("/usr/state", BY_RULEBOOK, {"_": "ext4"}, ""),
        ("/tmp/eda1/state", BY_RULEBOOK, {"_": "ext4"}, "it is in /tmp/eda1, which is made for one job"),
        ("/srv/ops/state", {"AWX_ISOLATED_DATA_DIR": "/srv/ops/artifacts/8"}, {"_": "ext4"}, ""),
        ("/usr/state", {**BY_RULEBOOK, **POD}, {"_": "overlay"}, "on the disk of the container"),
        # No container: a live system has such a root.
        ("/usr/state", {}, {"_": "overlay"}, ""),
        ("/usr/state", {}, {"_": "ext4", "usr": "tmpfs"}, ""),
    ],
)
def test_a_directory_that_ends_with_its_container(
    monkeypatch: pytest.MonkeyPatch,
    directory: str,
    environ: dict[str, str],
    mounts: dict[str, str],
    why: str,
) -> None:
    monkeypatch.setattr(containers, "MARKS", ())
    said = explain_end(directory, environ, write_mounts(**mounts), is_job=JOB.items() <= environ.items())
    assert why in said if why else said == ""


@pytest.mark.parametrize(
    ("root", "is_fleeting"),
    [
        ("/var/lib/kubelet/pods/4f/volumes/kubernetes.io~empty-dir/journal", True),
        ("/kubelet/pods/4f/volumes/kubernetes.io~empty-dir/journal/site", True),
        ("/var/lib/kubelet/pods/4f/volumes/kubernetes.io~nfs/journal", False),
        ("/srv/journals", False),
    ],
)
def test_an_empty_dir_ends_with_its_pod(root: str, is_fleeting: bool) -> None:
    lines = [("/", "/", "overlay"), (root, "/usr", "ext4")]
    text = "\n".join(LINE.format(number=1, root=source, point=point, kind=kind) for source, point, kind in lines)
    said = explain_end("/usr/state", {**JOB, **POD}, text, is_job=True)
    assert said == ("it is in an emptyDir volume (at /usr), which ends with its pod" if is_fleeting else "")


def test_the_deepest_mount_counts_and_the_last_of_two_on_one_point() -> None:
    lines = [("/", "ext4"), ("/usr", "overlay"), ("/usr", "xfs"), ("/usrlocal", "tmpfs"), (r"/with\040blank", "nfs")]
    text = "\n".join(
        LINE.format(number=number, root="/", point=point, kind=kind) for number, (point, kind) in enumerate(lines)
    )
    assert find_mount("/usr/not/there", text) == ("/usr", "xfs", "/")
    assert find_mount("/etc", text) == ("/", "ext4", "/")
    assert find_mount("/with blank", text)[0] == "/", "it is not there, so its mount is that of what is above"


def test_a_refusal_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """And nothing is refused outside of a job."""
    monkeypatch.setattr(containers, "explain_end", lambda *_arguments, **_options: "it is gone")
    refuse_job_folder("/x", what="evidence folder")
    monkeypatch.setenv("AWX_ISOLATED_DATA_DIR", "/runner/artifacts/7")
    with pytest.raises(Refusal, match=r"evidence folder /x: it is gone\. Name a folder of a volume that is mounted"):
        refuse_job_folder("/x", what="evidence folder")
