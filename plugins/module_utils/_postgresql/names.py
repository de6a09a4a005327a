# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Names of tables as people write them. Private to lowtide.ops: do not import from other collections.

Pure.
"""

from __future__ import annotations

import functools
import re
import typing as t

from .._common.errors import Refusal

# What needs no quotes: ASCII only, since the server folds other letters by rules of its own (keywords aside, which do not
# matter in a message or an option).
_PLAIN = re.compile(r"[a-z_][a-z0-9_$]*")
_PART = re.compile(r'"((?:[^"]|"")+)"|([A-Za-z_][A-Za-z0-9_$]*)')

INHERIT_VERSION = 160000
"""From this version on a grant says itself whether its rights are inherited."""


class TableName(t.NamedTuple):
    """A table as an option names it; ``schema`` is None when any schema is meant."""

    schema: str | None
    name: str


def parse_name(text: str, *, option: str) -> TableName:
    """``table`` or ``schema.table`` in SQL's notation: quoted parts as they are, others folded to lower case.

    >>> parse_name('public."Weird.Name"', option="tables")
    TableName(schema='public', name='Weird.Name')
    """
    parts: list[str] = []
    position = 0
    stripped = text.strip(" \t\r\n")
    while True:
        match = _PART.match(stripped, position)
        if match is None or len(parts) == 2:
            break
        quoted, plain = match.groups()
        parts.append(quoted.replace('""', '"') if quoted is not None else plain.lower())
        position = match.end()
        if position == len(stripped):
            return TableName(None, parts[0]) if len(parts) == 1 else TableName(parts[0], parts[1])
        if stripped[position] != ".":
            break
        position += 1
    raise Refusal(
        obj=f"option {option}: {text!r}",
        problem="it is not the name of a table (table, or schema.table)",
        next_step='Write a name with other characters than letters, digits and _ in double quotes, as in public."My Table"',
    )


@functools.lru_cache(maxsize=None)  # noqa: UP033  # managed hosts may have Python 3.8
def _format_part(part: str) -> str:
    if _PLAIN.fullmatch(part):
        return part
    return quote(part).encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def quote(*parts: str) -> str:
    """Return a qualified name for a statement, each part in double quotes.

    As the driver does it, which cannot where the bytes of a name are not UTF-8 (a database of SQL_ASCII).
    """
    return ".".join('"' + part.replace('"', '""') + '"' for part in parts)


def format_name(*parts: str) -> str:
    """A qualified name for messages, each part in double quotes where PostgreSQL needs them."""
    return ".".join(map(_format_part, parts))


def grant_role(role: str, user: str, version: int) -> str:
    """Return the statement that gives a user the rights of a role, also one that does not inherit rights by default."""
    grant = f"GRANT {format_name(role)} TO {format_name(user)}"
    if version >= INHERIT_VERSION:
        return f"{grant} WITH INHERIT TRUE"
    return f"{grant}; ALTER ROLE {format_name(user)} INHERIT"


def grant_schema(schema: str, user: str) -> str:
    """Return the statement that lets a role name what is in a schema."""
    return f"GRANT USAGE ON SCHEMA {format_name(schema)} TO {format_name(user)}"


def find_leftover_base(index_name: str) -> str | None:
    """The name before ``_ccnew``, ``_ccnew1``, ``_ccold`` ..., or None: what REINDEX CONCURRENTLY calls its own indexes."""
    match = re.fullmatch(r"(.+)_cc(?:new|old)[0-9]*", index_name, flags=re.DOTALL)
    return match.group(1) if match else None


def is_leftover_of(index_name: str, other: str) -> bool:
    """Whether ``index_name`` is what REINDEX CONCURRENTLY would call its copy of index ``other``.

    The server cuts the base so that the whole fits into 63 bytes, so the base may be a beginning of ``other``.
    """
    base = find_leftover_base(index_name)
    if base is None or not other.startswith(base):
        return False
    # A cut happens only when there was no room: within 3 bytes, since a character is never cut in two.
    return base == other or len(index_name.encode()) >= 60
