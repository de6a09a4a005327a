# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How much a run may remove at most. Private to lowtide.ops: do not import from other collections."""

from __future__ import annotations

import typing as t

from .amounts import parse_size
from .errors import Refusal
from .text import format_count, format_size


class Amount(t.NamedTuple):
    """A number of things and their bytes."""

    number: int
    size: int

    @classmethod
    def from_sizes(cls, sizes: t.Iterable[int]) -> Amount:
        """Return how many sizes there are, and their sum."""
        listed = list(sizes)
        return cls(len(listed), sum(listed))


class Caps(t.NamedTuple):
    """The most that may go: a number by the option ``count_option``, bytes (None: any), a share of both in percent."""

    count_option: str
    number: int
    size: int | None
    share: int


def read_caps(params: t.Mapping[str, t.Any], count_option: str) -> Caps:
    """Return the caps that a module's options give; refuse what cannot be meant."""
    count, share, size = params[count_option], params["max_share"], params["max_bytes"]
    if count < 1:
        raise Refusal(
            obj=f"option {count_option}", problem=f"{count} would let nothing go", next_step="Give at least 1"
        )
    if not 1 <= share <= 100:
        raise Refusal(
            obj="option max_share",
            problem=f"{share} is not a share in percent",
            next_step="Give 1 to 100; 100 lets everything go that is due",
        )
    return Caps(count_option, count, None if size is None else parse_size(size, option="max_bytes"), share)


def refuse_excess(caps: Caps, *, location: str, due: Amount, total: Amount, noun: str) -> None:
    """Refuse to remove ``due`` of ``total`` where that is more than ``caps`` allow: nothing is removed then."""
    what = f"{format_count(due.number, noun)} ({format_size(due.size)}) would be removed"
    if due.number > caps.number:
        raise _explain(location, f"{what}, and at most {caps.number} may be", caps.count_option)
    if caps.size is not None and due.size > caps.size:
        raise _explain(location, f"{what}, and at most {format_size(caps.size)} may be", "max_bytes")
    for part, whole, words in (
        (due.number, total.number, f"{total.number} that are there"),
        (due.size, total.size, format_size(total.size)),
    ):
        if whole and part * 100 > caps.share * whole:
            share = f"{part * 100 / whole:.1f} % of {words}"
            raise _explain(location, f"{what}: {share}, and at most {caps.share} % may be", "max_share")


def _explain(location: str, problem: str, option: str) -> Refusal:
    return Refusal(
        obj=location,
        problem=problem,
        next_step=f"Read the list in check mode; raise {option} if all of it is to go, and narrow the rules if not",
    )
