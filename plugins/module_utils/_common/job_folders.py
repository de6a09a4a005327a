# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a folder ends with the container of the AWX job in which this module runs.

Private to lowtide.ops: do not import from other collections.
"""

from __future__ import annotations

import os
import re
import typing as t

from .errors import Refusal

JOB_FOLDER = "AWX_ISOLATED_DATA_DIR"
"""Set by ansible-runner: /runner/artifacts/ID in a job's container, and another folder where it runs in none."""
RUNNER = "/runner"
"""The folder that is made for a job, and removed with it."""
FLEETING = frozenset({"tmpfs", "ramfs"})


def explain_job_end(folder: str, environ: t.Mapping[str, str], mountinfo: str) -> str:
    """Return why a folder ends with the job in whose container this is; empty when it does not, as far as is seen."""
    if not _is_below(environ.get(JOB_FOLDER, ""), RUNNER):
        return ""
    real = os.path.realpath(folder)
    point, kind = _find_mount(real, mountinfo)
    if _is_below(real, RUNNER) and _is_below(RUNNER, point):
        return f"it is in {RUNNER}, which is made for one job of AWX"
    if point == "/":
        return "it is on the disk of the job's container, which ends with the job"
    if kind in FLEETING:
        return f"it is in memory ({kind} at {point}), which ends with the job"
    return ""


def refuse_job_folder(folder: str, *, what: str) -> None:
    """Raise Refusal where what is saved in a folder would be gone with the job that saved it."""
    if not os.environ.get(JOB_FOLDER):
        return
    with open("/proc/self/mountinfo", encoding="utf-8") as mounts:
        why = explain_job_end(folder, os.environ, mounts.read())
    if why:
        raise Refusal(
            obj=f"{what} {folder}",
            problem=why,
            next_step="Name a folder of a volume that is mounted into jobs, or have the task run on a host by SSH",
        )


def _find_mount(path: str, mountinfo: str) -> tuple[str, str]:
    """Return mount point and type of the file system of a path."""
    found = ("/", "")
    for line in mountinfo.splitlines():
        own, _separator, rest = line.partition(" - ")
        point = re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), own.split()[4])
        if _is_below(path, point) and len(point) >= len(found[0]):
            found = (point, rest.split()[0])
    return found


def _is_below(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")
