# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a directory ends with the container in which this controller runs, as that of each AWX job does.

Private to lowtide.ops: do not import from other collections.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

from ansible_collections.lowtide.ops.plugins.module_utils._common.errors import Refusal

JOB_FOLDER = "AWX_ISOLATED_DATA_DIR"
"""Set by ansible-runner in a job's container: /runner/artifacts/ID (2.4.0). Its grandparent is the folder that is made
for the job and removed with it."""
MARKS = (Path("/run/.containerenv"), Path("/.dockerenv"))
"""Files that podman and docker put into a container."""
LAYERS = frozenset({"overlay", "fuse.fuse-overlayfs", "aufs"})
"""Types of the file system that is a container's own, above its image."""
FLEETING = frozenset({"tmpfs", "ramfs"})
EMPTY_DIR = "/volumes/kubernetes.io~empty-dir/"
"""In the path, on the node, of a volume that is made for one pod."""


def is_container(environ: Mapping[str, str]) -> bool:
    """Return whether this process runs in a container."""
    marks = {"container", "KUBERNETES_SERVICE_HOST"} & environ.keys()
    return bool(marks) or any(path.exists() for path in MARKS)


def find_job_folder(environ: Mapping[str, str]) -> Path | None:
    """Return the folder that is made for this AWX job (/runner) and removed with it; None where this is no such job."""
    value = environ.get(JOB_FOLDER, "")
    if not value:
        return None
    folder = Path(value)
    return folder.parents[1] if folder.parent.name == "artifacts" else folder


def find_mount(directory: Path, mountinfo: str) -> tuple[str, str, str]:
    """Return mount point and type of the file system on which a directory is, or will be, by /proc/self/mountinfo, and
    which directory of that file system is mounted."""
    existing = next(path for path in (directory, *directory.parents) if path.exists() or path == path.parent)
    real, found = str(existing.resolve()), ("/", "", "/")
    for line in mountinfo.splitlines():
        own, _separator, rest = line.partition(" - ")
        root, point = (re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), word) for word in own.split()[3:5])
        is_above = real == point or real.startswith(point.rstrip("/") + "/")
        if is_above and len(point) >= len(found[0]):
            found = (point, rest.split()[0], root)
    return found


def explain_end(directory: Path, environ: Mapping[str, str], mountinfo: str, *, is_job: bool) -> str:
    """Return why a directory ends with this container; empty when it does not, as far as can be seen."""
    folder = find_job_folder(environ)
    is_job = is_job or folder is not None
    if not (is_job or is_container(environ)):
        return ""
    point, kind, root = find_mount(directory, mountinfo)
    if folder is not None and directory.is_relative_to(folder) and folder.is_relative_to(point):  # no volume below it
        return f"it is in {folder}, which is made for one job"
    if EMPTY_DIR in f"{root}/":
        return f"it is in an emptyDir volume (at {point}), which ends with its pod"
    if kind in LAYERS and point == "/":
        return "it is on the disk of the container, which ends with it"
    return _explain_job(point, kind) if is_job else ""


def _explain_job(point: str, kind: str) -> str:
    """Return why a directory ends with the container of a job, by its mount."""
    if point == "/":
        return "it is no volume, so it ends with the job's container"
    return f"it is in memory ({kind} at {point})" if kind in FLEETING else ""


def find_fleeting(directory: str, *, is_job: bool) -> str:
    """Return why a directory ends with this container; empty when it does not."""
    path = Path(os.path.expanduser(directory)).absolute()
    return explain_end(path, os.environ, Path("/proc/self/mountinfo").read_text(encoding="utf-8"), is_job=is_job)


def refuse_fleeting_directory(directory: str, *, is_job: bool) -> None:
    """Raise Refusal where lease and journals would end with this container, so that the next run would know nothing."""
    why = find_fleeting(directory, is_job=is_job)
    if why:
        raise Refusal(
            obj=f"window_dir {directory}",
            problem=why,
            next_step="Set window_store to a Kubernetes or PostgreSQL connection, or mount a volume for window_dir "
            "that all nodes share (ReadWriteMany)",
        )


def refuse_common_site(site: str) -> None:
    """Raise Refusal where a job of AWX has a directory for its site: it is the same one for every inventory."""
    if os.path.isabs(site):
        raise Refusal(
            obj=f"window_site {site}",
            problem="in a job of AWX that directory is the same for every inventory, so that sites would share a lease",
            next_step="Set window_site to the name of the site, in the inventory's variables",
        )
