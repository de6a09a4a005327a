# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Find in the globals of a backup what makes its roles, and make them. Private to lowtide.ops: do not import from other collections."""

from __future__ import annotations

import re
import typing as t

from .._postgresql.connection import transact
from .dump_text import unquote
from .sql_text import IDENTIFIER, split_statements

if t.TYPE_CHECKING:
    from .._postgresql.connection import Session

_CREATE = re.compile(rf"CREATE ROLE ({IDENTIFIER});")
_ALTER = re.compile(rf"ALTER ROLE ({IDENTIFIER}) (?:WITH|SET) .*;", re.DOTALL)
_MEMBER = re.compile(rf"(GRANT ({IDENTIFIER}) TO ({IDENTIFIER}).*?)(?: GRANTED BY .*)?;")


def list_roles(text: str) -> set[str]:
    """Return the roles that a document of pg_dumpall makes."""
    return {unquote(match[1]) for match in map(_CREATE.fullmatch, split_statements(text)) if match}


def create_roles(session: Session, statements: t.Sequence[str]) -> None:
    """Make roles in one transaction: a run that is killed or refused in between leaves none of them half made."""
    with transact(session):
        for statement in statements:
            session.execute(statement)


def list_statements(text: str, missing: t.Collection[str], existing: t.Collection[str]) -> list[str]:
    """Return the statements that make the ``missing`` roles as they were, and their memberships among roles that exist."""
    statements: list[str] = []
    there = {*missing, *existing}
    for statement in split_statements(text):
        if match := _CREATE.fullmatch(statement) or _ALTER.fullmatch(statement):
            if unquote(match[1]) in missing:
                statements.append(statement)
        elif match := _MEMBER.fullmatch(statement):
            names = {unquote(match[2]), unquote(match[3])}
            if names & set(missing) and names <= there:
                statements.append(f"{match[1]};")
    return statements
