# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Turn values of PostgreSQL into values of JSON without loss.

Private to lowtide.ops: do not import from other collections.

What JSON has is given as it is: booleans, integers, texts, NULL, and documents of json and jsonb. What it lacks is
given as text: decimal fractions of numeric, not-a-number and infinity, times (RFC 3339), bytea (hexadecimal),
everything else as the server writes it.
"""

from __future__ import annotations

import math
import re
import typing as t
from decimal import Decimal

# pg_type.oid of what psycopg2 would turn into objects of Python that hold less than the server's text: no infinity, no
# year before Christ, no months in an interval. Scalars, and below the arrays of them.
_TIMES = (1082, 1083, 1114, 1184, 1186, 1266)
_RANGES = (3904, 3906, 3908, 3910, 3912, 3926)
_ARRAYS_OF_TIMES = (1115, 1182, 1183, 1185, 1187, 1270)
_ARRAYS_OF_RANGES = (3905, 3907, 3909, 3911, 3913, 3927)

# "2026-11-26 03:00:00.5+01", as DateStyle ISO writes it; psycopg2 sets that style on every connection.
_TIMESTAMP = re.compile(r"(\d{4,}-\d\d-\d\d) (\d\d:\d\d:\d\d(?:\.\d+)?)([+-]\d\d(?::\d\d)*)?")


def format_time(text: str) -> str:
    """Return a date or time as RFC 3339 writes it; infinity, years before Christ and intervals as the server does.

    >>> format_time("2026-11-26 03:00:00.5+00")
    '2026-11-26T03:00:00.5Z'
    >>> format_time("-infinity")
    '-infinity'
    """
    match = _TIMESTAMP.fullmatch(text)
    if match is None:
        return text
    day, time, offset = match.groups()
    if offset is None:
        return f"{day}T{time}"
    return f"{day}T{time}{format_offset(offset)}"


def format_offset(offset: str) -> str:
    """Return the server's offset from UTC (``+01``) as RFC 3339 writes it (``+01:00``, or ``Z``)."""
    if offset in ("+00", "-00"):
        return "Z"
    return offset if ":" in offset else f"{offset}:00"


def to_json_value(value: t.Any) -> t.Any:
    """Return a value as the driver gives it as one that JSON can hold without loss."""
    if isinstance(value, list):
        return [to_json_value(item) for item in value]
    if isinstance(value, dict):
        return {str(key): to_json_value(item) for key, item in value.items()}
    if isinstance(value, Decimal):
        return format_decimal(value)
    if isinstance(value, (memoryview, bytes)):
        return f"\\x{bytes(value).hex()}"
    if isinstance(value, float) and not math.isfinite(value):
        return format_special(value)
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)


def format_special(value: float) -> str:
    """Return NaN or an infinity by PostgreSQL's name for it."""
    if math.isnan(value):
        return "NaN"
    return "Infinity" if value > 0 else "-Infinity"


def format_decimal(value: Decimal) -> int | str:
    """Return a numeric as an integer where it has no decimal places, else as its digits: a float would round them."""
    if not value.is_finite():
        return format_special(float(value))
    return int(value) if value.as_tuple().exponent == 0 else format(value, "f")


def register_casters(extensions: t.Any, cursor: t.Any) -> None:
    """Have ``cursor`` give times and ranges as text; ``extensions`` is psycopg2.extensions."""

    def cast_time(text: str | None, _cursor: t.Any) -> str | None:
        return None if text is None else format_time(text)

    def cast_text(text: str | None, _cursor: t.Any) -> str | None:
        return text

    for scalars, arrays, cast in ((_TIMES, _ARRAYS_OF_TIMES, cast_time), (_RANGES, _ARRAYS_OF_RANGES, cast_text)):
        scalar = extensions.new_type(scalars, "LOWTIDE_TEXT", cast)
        extensions.register_type(scalar, cursor)
        extensions.register_type(extensions.new_array_type(arrays, "LOWTIDE_TEXT_ARRAY", scalar), cursor)
