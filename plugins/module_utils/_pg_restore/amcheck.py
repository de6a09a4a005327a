# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The extension amcheck, by which a database is looked at for damage; pure. Private to lowtide.ops: do not import from other collections.

It holds nothing of its own, only a superuser creates it, and pg_integrity_info asks for it in the original and in its copy.
So a restore by another account leaves it out, and no comparison counts it.
"""

from __future__ import annotations

import re
import typing as t

if t.TYPE_CHECKING:
    from .dump_text import Entry

AMCHECK = "amcheck"
_FUNCTIONS = ("verify_heapam", "bt_index_check", "bt_index_parent_check", "gin_index_check")
_OWN = re.compile(rf"FUNCTION ({'|'.join(_FUNCTIONS)})\(")
_EXTENSION = re.compile(r"^\d+; \d+ \d+ (?:EXTENSION - amcheck|COMMENT - EXTENSION amcheck)(?: |$)")
_GRANT = re.compile(rf"^\d+; \d+ \d+ ACL (.+?) FUNCTION ({'|'.join(_FUNCTIONS)})\(")
_FUNCTION = re.compile(rf"^\d+; \d+ \d+ FUNCTION (.+?) ({'|'.join(_FUNCTIONS)})\(")


def is_amcheck(entry: Entry, entries: t.Iterable[Entry]) -> bool:
    """Return whether an object of a dump is the extension, its comment, or grants on its functions.

    Functions of an extension are not in a dump: one that is, is somebody's own. Grants write arguments in another way.
    """
    if entry.kind == "EXTENSION":
        return entry.name == AMCHECK
    if entry.kind == "COMMENT":
        return entry.name == f"EXTENSION {AMCHECK}"
    match = _OWN.match(entry.name) if entry.kind == "ACL" else None
    return match is not None and not any(
        other.kind == "FUNCTION" and other.schema == entry.schema and other.name.startswith(f"{match[1]}(")
        for other in entries
    )


def leave_out_amcheck(listing: str) -> str:
    """Return a listing of pg_restore without the extension, its comment and grants on its functions."""
    lines = listing.split("\n")
    own = {match.groups() for match in map(_FUNCTION.match, lines) if match}
    kept = []
    for line in lines:
        grant = _GRANT.match(line)
        if _EXTENSION.match(line) or (grant and grant.groups() not in own):
            continue
        kept.append(line)
    return "\n".join(kept)
