# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Fields of plain JSON objects that may be missing or null. Nothing here copies what it is given.

Private to lowtide.ops: do not import from other collections.
"""

from __future__ import annotations

import datetime
import email.utils
import typing as t

Json = dict[str, t.Any]
"""An object as the API server sends it."""


def get_path(value: t.Any, *keys: str) -> t.Any:
    """Return the value below nested keys; None as soon as something on the way is missing, null or no object."""
    for key in keys:
        if not isinstance(value, dict):
            return None
        value = value.get(key)
    return value


def as_int(value: t.Any, default: int = 0) -> int:
    """Return an integer field, ``default`` when it is missing, null or no number."""
    if value is None:
        return default
    try:
        return int(value)
    except (TypeError, ValueError):
        return default


def as_dict(value: t.Any) -> Json:
    """Return an object field itself, an empty one when it is missing or null."""
    return value if isinstance(value, dict) else {}


def as_list(value: t.Any) -> list[t.Any]:
    """Return a list field itself, an empty one when it is missing or null."""
    return value if isinstance(value, list) else []


def as_text(value: t.Any) -> str:
    """Return a field as text, empty when it is missing or null."""
    return "" if value is None else str(value)


def resolve_share(value: t.Any, total: int, *, round_up: bool) -> int:
    """Return a field that is a number, or a share of a total such as 25%; 0 when it is missing or null."""
    text = as_text(value)
    if not text.endswith("%"):
        return as_int(value)
    hundredfold = total * as_int(text[:-1])
    return -(-hundredfold // 100) if round_up else hundredfold // 100


def as_time(value: t.Any) -> float | None:
    """Return an RFC 3339 field in seconds since 1970; None when it is missing, null or not a time."""
    if not isinstance(value, str) or not value:
        return None
    try:
        moment = datetime.datetime.fromisoformat(value)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=datetime.UTC)
    return moment.timestamp()


def parse_http_date(text: str | None) -> float | None:
    """Return the time of a header such as Date in seconds since 1970; None when it is missing or not a time."""
    try:
        return email.utils.parsedate_to_datetime(text or "").timestamp()
    except (ValueError, OverflowError):
        return None
