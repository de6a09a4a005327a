# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What restore drills, of a dump or by pgBackRest, have in common: when one is due, and what answer proves a backup.

Private to lowtide.ops: do not import from other collections.
"""

from __future__ import annotations

import typing as t
from datetime import timedelta

from .._backup.plan import explain_age, readable_age
from .._common.amounts import parse_age
from .._common.errors import OpsError, Refusal
from .._common.text import join_some
from .._postgresql.operations.query_info import read_rows

if t.TYPE_CHECKING:
    from datetime import datetime

    from .._postgresql.connection import Session
    from .evidence import Drills

_EXAMPLE = "SELECT count(*) > 1000 AS has_orders FROM orders"


def check_query(query: str | None) -> None:
    """Refuse a drill without a query."""
    if not (query or "").strip():
        raise Refusal(
            obj="option query",
            problem="it is empty",
            next_step=f"Give one statement that says what must be true, such as {_EXAMPLE}",
        )


def refuse_no_key(params: t.Mapping[str, t.Any]) -> None:
    """Refuse to make a drill without the key that signs, and to look for one without any key that may have."""
    runs = params["on_due"] == "run"
    if params["signing_key"] or (params["public_keys"] and not runs):
        return
    raise Refusal(
        obj="option signing_key",
        problem="it is not given" if runs else "neither it nor public_keys is given",
        next_step="Give the key that signs the evidence" + ("" if runs else ", or the public keys that may have"),
    )


def read_interval(params: t.Mapping[str, t.Any], max_age: timedelta) -> timedelta:
    """Return how long it is until the next drill can be made. Who makes none judges the last one as it is."""
    interval = max_age if params["interval"] is None else parse_age(params["interval"], option="interval")
    return interval if params["on_due"] == "run" else timedelta(0)


def explain_due(
    drills: Drills, now: datetime, *, max_age: timedelta, interval: timedelta, what: str = ""
) -> str | None:
    """Return why a drill is due; None when the last one is young enough. ``what`` is what evidence was looked for.

    It is due also when the last one would be too old at the next run, as for :func:`explain_age`.
    """
    if drills.last is None:
        bad = f" ({drills.bad[0][0]}: {drills.bad[0][1]})" if drills.bad else ""
        return f"there is no evidence of a proven drill{what}{bad}"
    age = now - drills.last.finished_at
    late = explain_age(age, max_age=max_age, interval=interval)
    return None if late is None else f"the last proven drill is {readable_age(age)} old{late}"


def ask(session: Session, query: str, query_timeout: float) -> list[dict[str, t.Any]]:
    """Return what the application's query answers, of which one row is read."""
    params = {"query": query, "values": {}, "max_rows": 1, "timeout": query_timeout}
    return read_rows(session, params).list_objects()


def judge_answer(rows: t.Sequence[t.Mapping[str, t.Any]], *, obj: str) -> dict[str, t.Any]:
    """Return the one row of an answer that proves a drill, or raise with what is not true."""
    step = "Look into the backup: what the application needs is not in it. If the query is wrong, correct it"
    if not rows:
        raise OpsError(obj=obj, problem="it returns no row", next_step=step)
    row = dict(rows[0])
    judged = {column: value for column, value in row.items() if isinstance(value, bool) or value is None}
    if not any(isinstance(value, bool) for value in row.values()):
        raise OpsError(
            obj=obj,
            problem=f"it returns no boolean column to judge by ({join_some(sorted(row))})",
            next_step="Have it say what must be true, as in SELECT count(*) > 1000 AS has_orders, count(*) AS orders FROM orders",
        )
    wrong = sorted(column for column, value in judged.items() if value is not True)
    if wrong:
        raise OpsError(
            obj=obj, problem=f"not true: {join_some([f'{name} is {row[name]}' for name in wrong])}", next_step=step
        )
    return row
