# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Find values that the text of a dump cannot hold: they would be others after a restore, and compare as equal.

mariadb-dump writes FLOAT with six digits, and all text in utf8mb4, in which some bytes of older character sets are a
question mark. Whether that loses something is asked of the server, value by value.
Private to lowtide.ops: do not import from other collections.
"""

from __future__ import annotations

import typing as t

from .._common.errors import Refusal
from .._common.text import format_count, join_some
from .connection import quote_name

if t.TYPE_CHECKING:
    from .._common.retry import Deadline
    from .connection import Session

# What is generated is computed anew by a restore. latin1 has a character for each byte, and utf8mb3 is part of utf8mb4.
_COLUMNS = """
SELECT c.TABLE_NAME AS name, c.COLUMN_NAME AS own, c.DATA_TYPE AS type, c.CHARACTER_SET_NAME AS charset
  FROM information_schema.COLUMNS c
  JOIN information_schema.TABLES t ON t.TABLE_SCHEMA = c.TABLE_SCHEMA AND t.TABLE_NAME = c.TABLE_NAME
 WHERE c.TABLE_SCHEMA = %s AND t.TABLE_TYPE = 'BASE TABLE' AND c.IS_GENERATED = 'NEVER'
   AND (c.DATA_TYPE = 'float' OR c.CHARACTER_SET_NAME NOT IN ('utf8mb4', 'utf8mb3', 'utf8', 'latin1'))
 ORDER BY c.TABLE_NAME, c.ORDINAL_POSITION
"""
_SUMS = "SET STATEMENT max_statement_time={seconds} FOR SELECT {terms} FROM {table}"
_FLOAT = "SUM(NOT (CAST(CAST({column} AS CHAR) AS FLOAT) <=> {column}))"
_TEXT = (
    "SUM(NOT (CAST(CONVERT(CONVERT({column} USING utf8mb4) USING {charset}) AS BINARY) <=> CAST({column} AS BINARY)))"
)


def refuse_inexact(session: Session, database: str, *, then: str, deadline: Deadline) -> None:
    """Refuse a database with values that a dump would change; ``then`` says what became of the run.

    To look reads all rows of tables with such columns, so the server ends it when the time of the run has passed.
    """
    columns: dict[str, list[dict[str, t.Any]]] = {}
    for row in session.query(_COLUMNS, [database]):
        columns.setdefault(row["name"], []).append(row)
    found: list[str] = []
    kinds: set[str] = set()
    for table, rows in columns.items():
        terms = ", ".join(
            f"{word_term(row['own'], row['type'], row['charset'])} AS `{index}`" for index, row in enumerate(rows)
        )
        seconds = max(1, int(deadline.remaining))  # 0 would be without end
        target = f"{quote_name(database)}.{quote_name(table)}"
        sums = session.query(_SUMS.format(seconds=seconds, terms=terms, table=target))[0]
        for index, row in enumerate(rows):
            if sums[str(index)]:
                kinds.add("float" if row["type"] == "float" else "text")
                what = row["type"].upper() if row["type"] == "float" else row["charset"]
                found.append(f"{table}.{row['own']} ({what}, {format_count(int(sums[str(index)]), 'value')})")
    if not found:
        return
    steps = [
        "ALTER TABLE ... MODIFY ... DOUBLE, which changes none of them" if "float" in kinds else "",
        "ALTER TABLE ... MODIFY ... VARBINARY or BLOB keeps the bytes; or correct the text" if "text" in kinds else "",
    ]
    raise Refusal(
        obj=f"database {database} on {session.settings.target}",
        problem="a dump cannot hold these values (FLOAT has six digits there, and bytes without a character become a"
        f" question mark): {join_some(found, limit=20)}",
        next_step=f"{then}. {'; '.join(step for step in steps if step)}; or back up the server by mariadb-backup",
    )


def word_term(column: str, kind: str, charset: str | None) -> str:
    """Return the expression that counts the values of a column that its text in a dump does not give back."""
    if kind == "float":
        return _FLOAT.format(column=quote_name(column))
    return _TEXT.format(column=quote_name(column), charset=charset)
