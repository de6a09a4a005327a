# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Save evidence as files in a folder of its own, with an index.

Private to lowtide.ops: do not import from other collections.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
import typing as t

from .errors import OpsError

INDEX = "index.json"
_UNUSUAL = re.compile(r"[^A-Za-z0-9._-]+")


def save_bundle(folder: str, name: str, files: t.Mapping[str, str], *, about: t.Mapping[str, t.Any], at: float) -> str:
    """Save files below ``folder`` in a new folder named after ``name`` and the time, and return its path.

    It is never one that was there before. Only its owner may read it. The index has ``about`` and the sha256 of each
    file; it is written last, so that a folder without it is one whose run was killed. Raises OpsError.
    """
    try:
        path = _make_folder(folder, f"{_clean(name)}-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime(at))}")
        entries = {}
        for title, text in sorted(files.items()):
            content = text.encode("utf-8", "replace")
            parts = [_clean(part) for part in title.split("/")]
            os.makedirs(os.path.join(path, *parts[:-1]), mode=0o700, exist_ok=True)
            _write_new(os.path.join(path, *parts), content)
            entries["/".join(parts)] = {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}
        index = json.dumps({**about, "files": entries}, indent=2, sort_keys=True, ensure_ascii=False)
        _write_new(os.path.join(path, INDEX), index.encode("utf-8", "replace"))
    except OSError as error:
        raise OpsError(
            obj=f"evidence folder {folder}",
            problem=f"nothing can be saved there: {error.strerror or error} ({error.filename})",
            next_step="Name a folder on the control host that this user may write to and that has room",
        ) from error
    return path


def _make_folder(folder: str, name: str) -> str:
    """Make the first of ``name``, ``name-2``, ``name-3`` and so on that nobody has made."""
    os.makedirs(folder, mode=0o700, exist_ok=True)
    number = 1
    while True:
        path = os.path.join(folder, name if number == 1 else f"{name}-{number}")
        try:
            os.mkdir(path, mode=0o700)
        except FileExistsError:
            number += 1
        else:
            return path


def _write_new(path: str, content: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)


def _clean(name: str) -> str:
    """Return a name of a file that means nothing to a file system or a shell."""
    return _UNUSUAL.sub("_", name).lstrip(".-") or "_"
