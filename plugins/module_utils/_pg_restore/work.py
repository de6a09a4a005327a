# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a restore was asked for, and what it has read before it does anything. Private to lowtide.ops: do not import from other collections."""

from __future__ import annotations

import typing as t
from dataclasses import dataclass, field

if t.TYPE_CHECKING:
    from .._postgresql.names import TableName
    from .dump_text import CopyStatements, Schema
    from .restoring import Restorer, Tools
    from .side import Database, Mark
    from .source import Source

RESTORE, DRILL = "restore", "drill"


@dataclass(frozen=True)
class Options:
    """What the module was asked for. ``live`` is the name of the live database; ``purpose`` is in the name of the copy."""

    state: str
    live: str
    tables: tuple[TableName, ...] = ()
    compare_with: str = "backup"
    roles: str = "required"
    sessions: str = "refuse"
    bin_dir: str | None = None
    purpose: str = RESTORE


@dataclass
class Work:
    """What has been read before anything is done: the dump's objects, what is on the server, and what is to be done."""

    source: Source
    restorer: Restorer
    tools: Tools
    schema: Schema
    statements: CopyStatements
    mark: Mark
    databases: dict[str, Database]
    missing_roles: set[str]
    roles: list[str]
    places: dict[str, list[tuple[str, str]]] = field(default_factory=dict)

    @property
    def tables(self) -> set[tuple[str, str]]:
        """Return the tables that are wanted; none where all are."""
        return {table for tables in self.places.values() for table in tables}
