# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""This collection's version. Private to lowtide.ops: do not import from other collections."""

from __future__ import annotations

import json
from pathlib import Path


def read_version() -> str:
    """Return the version: from MANIFEST.json where it was installed, from galaxy.yml in a checkout."""
    root = Path(__file__).resolve().parents[3]
    manifest = root / "MANIFEST.json"
    if manifest.exists():
        return str(json.loads(manifest.read_text(encoding="utf-8"))["collection_info"]["version"])
    for line in (root / "galaxy.yml").read_text(encoding="utf-8").splitlines():
        key, _colon, value = line.partition(":")
        if key == "version":
            return value.strip().strip("'\"")
    return "unknown"
