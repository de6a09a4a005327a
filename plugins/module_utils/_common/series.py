# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What of a name tells one series of files or objects from another; pure.

Private to lowtide.ops: do not import from other collections.
"""

from __future__ import annotations

import re
import typing as t
from datetime import date, timedelta

from .errors import Refusal
from .outcome import Blocker
from .text import join_some

Pattern = t.Optional["re.Pattern[str]"]
# A day with the year first, and a time of day that nothing but a time looks like. A group of digits of its own, behind
# a day as well, may be a host's or a tenant's: 20261127-1001.dump.
_HOUR, _MINUTE = "(?:[01][0-9]|2[0-3])", "[0-5][0-9]"
_MOMENT = re.compile(
    r"(?<![0-9])(?P<year>(?:19|20)[0-9]{2})(?P<mark>[-_.]?)(?P<month>[0-9]{2})(?P=mark)(?P<day>[0-9]{2})"
    rf"(?:[Tt]?{_HOUR}{_MINUTE}(?:{_MINUTE})?"  # 20261127020005, 20261127T0200
    rf"|[Tt_. -]{_HOUR}(?P<part>[-_.:]){_MINUTE}(?P=part){_MINUTE}"
    rf"|[Tt_. -]{_HOUR}:{_MINUTE})?"
    r"(?![0-9])"
)
_NEAR = timedelta(days=7)
"""How far the day in a name may be from the one of its writing: a rotated log is named days after its last line."""
_DIGITS = re.compile(r"[0-9]+")


def read_series(text: str | None) -> Pattern:
    """Return the option ``series`` as a regular expression, None for the default; refuse what is none."""
    try:
        return None if text is None else re.compile(text)
    except re.error as error:
        raise Refusal(
            obj="option series",
            problem=f"{text!r} is no regular expression: {error}",
            next_step="Give one whose groups are what tells one series from another, such as ^(.+)-[0-9]{8}",
        ) from None


def name_series(name: str, pattern: Pattern, written: date) -> str:
    """Return the series of a name: the groups of ``pattern`` (all that it matches where it has none).

    A name that it does not match is a series of its own. Without a pattern it is the name without days and times about
    when it was ``written``: a customer's number may look like another day.
    """
    if pattern is None:
        return _MOMENT.sub(lambda match: "#" if _is_near(match, written) else match[0], name)
    match = pattern.search(name)
    if match is None:
        return f"{name} (not like series)"
    groups = match.groups()
    if len(groups) > 1:
        return " ".join(repr(group) for group in groups)
    return (groups[0] or "") if groups else match[0]


def _is_near(match: re.Match[str], written: date) -> bool:
    try:
        day = date(int(match["year"]), int(match["month"]), int(match["day"]))
    except ValueError:
        return False
    return abs(day - written) <= _NEAR


def find_alike(names: t.Iterable[str]) -> list[str]:
    """Return the series that differ from another one in digits only, so that they may be one."""
    alike: dict[str, list[str]] = {}
    for name in names:
        alike.setdefault(_DIGITS.sub("#", name), []).append(name)
    return [name for group in alike.values() if len(group) > 1 for name in group]


def explain_alike(alike: t.Sequence[str], obj: str) -> Blocker:
    """Return what to say of series which are all kept though they are too old, and which may be one."""
    return Blocker(
        obj,
        f"{len(alike)} series differ in digits only, and of each all is kept though it is too old: {join_some(alike)}",
        "options keep and series",
        "Nothing, if each is a series; otherwise say by series what tells one from another, such as"
        " ^(.+)[-_][0-9]{8}[-_][0-9]{6}",
    )
