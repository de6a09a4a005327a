# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a folder ends with the container in which this process runs, as that of each AWX job does.

Private to lowtide.ops: do not import from other collections.
"""

from __future__ import annotations

import os
import re
import tempfile
import typing as t

from .errors import Refusal

JOB_FOLDER = "AWX_ISOLATED_DATA_DIR"
"""Set by ansible-runner (2.4.0): /runner/artifacts/ID in a job's container, another one where it runs in none, as
ansible-rulebook has it. Its grandparent is the folder that is made for the job and removed with it."""
RUNNER = "/runner"
"""That folder in the container of an AWX job."""
MARKS = ("/run/.containerenv", "/.dockerenv")
"""Files that podman and docker put into a container."""
LAYERS = frozenset({"overlay", "fuse.fuse-overlayfs", "aufs"})
"""Types of the file system that is a container's own, above its image."""
FLEETING = frozenset({"tmpfs", "ramfs"})
EMPTY_DIR = "/volumes/kubernetes.io~empty-dir/"
"""In the path, on the node, of a volume that is made for one pod."""


def is_container(environ: t.Mapping[str, str]) -> bool:
    """Return whether this process runs in a container."""
    marks = {"container", "KUBERNETES_SERVICE_HOST"} & environ.keys()
    return bool(marks) or any(os.path.exists(path) for path in MARKS)


def find_job_folder(environ: t.Mapping[str, str]) -> str:
    """Return the folder that is made for this job and removed with it; empty where ansible-runner runs none."""
    folder = environ.get(JOB_FOLDER, "")
    parent, _name = os.path.split(folder)
    return os.path.dirname(parent) if os.path.basename(parent) == "artifacts" else folder


def find_mount(folder: str, mountinfo: str) -> tuple[str, str, str]:
    """Return mount point and type of the file system on which a folder is, or will be, by /proc/self/mountinfo, and
    which directory of that file system is mounted."""
    existing = folder
    while not os.path.exists(existing) and existing != os.path.dirname(existing):
        existing = os.path.dirname(existing)
    real, found = os.path.realpath(existing), ("/", "", "/")
    for line in mountinfo.splitlines():
        own, _separator, rest = line.partition(" - ")
        root, point = (re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), word) for word in own.split()[3:5])
        if _is_below(real, point) and len(point) >= len(found[0]):
            found = (point, rest.split()[0], root)
    return found


def explain_end(folder: str, environ: t.Mapping[str, str], mountinfo: str, *, is_job: bool) -> str:
    """Return why a folder ends with this container; empty when it does not, as far as can be seen. ``is_job``: this is
    a job of AWX, which is also known by where ansible-runner works."""
    job_folder = find_job_folder(environ)
    point, kind, root = find_mount(folder, mountinfo)
    is_job = is_job or job_folder == RUNNER
    is_inside = is_job or is_container(environ)
    # Elsewhere the folder may be a person's, who runs ansible-runner; ansible-rulebook has one made for each run.
    is_own = is_inside or _is_below(job_folder, tempfile.gettempdir())
    if job_folder and is_own and _is_below(folder, job_folder) and _is_below(job_folder, point):  # no volume below it
        return f"it is in {job_folder}, which is made for one job"
    if not is_inside:
        return ""
    if EMPTY_DIR in f"{root}/":
        return f"it is in an emptyDir volume (at {point}), which ends with its pod"
    if kind in LAYERS and point == "/":
        return "it is on the disk of the container, which ends with it"
    return _explain_job(point, kind) if is_job else ""


def _explain_job(point: str, kind: str) -> str:
    """Return why a folder ends with the container of a job, by its mount."""
    if point == "/":
        return "it is no volume, so it ends with the job's container"
    return f"it is in memory ({kind} at {point})" if kind in FLEETING else ""


def _is_below(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def find_fleeting(folder: str, *, is_job: bool = False) -> str:
    """Return why a folder ends with this container; empty when it does not."""
    with open("/proc/self/mountinfo", encoding="utf-8") as mounts:
        return explain_end(os.path.abspath(os.path.expanduser(folder)), os.environ, mounts.read(), is_job=is_job)


def refuse_job_folder(folder: str, *, what: str) -> None:
    """Raise Refusal where what is saved in a folder would be gone with the job that saved it."""
    if not os.environ.get(JOB_FOLDER):  # a host of the play: what is on its disk stays there
        return
    why = find_fleeting(folder)
    if why:
        raise Refusal(
            obj=f"{what} {folder}",
            problem=why,
            next_step="Name a folder of a volume that is mounted into jobs, or have the task run on a host by SSH",
        )
