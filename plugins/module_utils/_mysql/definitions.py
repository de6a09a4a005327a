# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a rename does not carry to another database: in which order it is made, and how its scripts are run.

Private to lowtide.ops: do not import from other collections.
"""

from __future__ import annotations

import re

ROUTINES = ("FUNCTION", "PROCEDURE", "PACKAGE", "PACKAGE BODY")
ORDER = (*ROUTINES, "VIEW", "TRIGGER", "EVENT")
"""In which order definitions are made; dropped in the reverse of it."""
_DROP_ROUTINE = re.compile(rb"^/\*!\d+ DROP (?:FUNCTION|PROCEDURE|PACKAGE|PACKAGE BODY) IF EXISTS .*\n", re.MULTILINE)
_CREATE = re.compile(rb"^DELIMITER ;;\nCREATE (?!OR REPLACE\b)", re.MULTILINE)
_NEEDS_GONE = re.compile(r"\bERROR (?:1054|1146|1305|1356) ")
"""What the client says where a table, column, routine or view that a definition needs is not there."""


def word_replacement(script: bytes) -> bytes:
    """Return the script of a routine so that it replaces the one that is there, and the rights on it stay."""
    replaced, number = _CREATE.subn(b"DELIMITER ;;\nCREATE OR REPLACE ", script, count=1)
    return _DROP_ROUTINE.sub(b"", replaced, count=1) if number else script


def rank(kind: str) -> int:
    """Return the place of a kind in the order in which definitions are made."""
    return ORDER.index(kind) if kind in ORDER else -1


def lacks_what_it_needs(message: str) -> bool:
    """Return whether the client could not make a definition since what that needs is not there."""
    return _NEEDS_GONE.search(message) is not None
