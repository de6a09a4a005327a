# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What of a name tells one series of files or objects from another; pure.

Private to lowtide.ops: do not import from other collections.
"""

from __future__ import annotations

import re
import typing as t

from .errors import Refusal

Pattern = t.Optional["re.Pattern[str]"]
# A month, a day or a moment, with or without separators, and seconds or milliseconds since the epoch. Another number
# may be a host's or a tenant's, and so tells one series from another.
_MOMENT = re.compile(
    r"(?<![0-9])(?:"
    r"(?:19|20)[0-9]{2}[-_.]?(?:0[1-9]|1[0-2])(?:[-_.]?(?:0[1-9]|[12][0-9]|3[01])"
    r"(?:[T_. -]?[0-2][0-9][-_.:]?[0-5][0-9](?:[-_.:]?[0-5][0-9](?:[.,]?[0-9]{3,6})?)?Z?)?)?"
    r"|[0-9]{10}(?:[0-9]{3})?)(?![0-9])"
)


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


def name_series(name: str, pattern: Pattern) -> str:
    """Return the series of a name: the groups of ``pattern`` (all that it matches where it has none).

    A name that it does not match is a series of its own. Without a pattern it is the name without dates and times.
    """
    if pattern is None:
        return _MOMENT.sub("#", name)
    match = pattern.search(name)
    if match is None:
        return f"{name} (not like series)"
    groups = match.groups()
    if len(groups) > 1:
        return " ".join(repr(group) for group in groups)
    return (groups[0] or "") if groups else match[0]
