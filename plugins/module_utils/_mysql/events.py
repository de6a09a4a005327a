# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which events do not run after a restore, by the scripts that make them; pure.

An event whose last moment has passed cannot be made: the server drops it at once, or makes it disabled, and
says so by a note only.
Private to lowtide.ops: do not import from other collections.
"""

from __future__ import annotations

import re
import typing as t

_EVENT = re.compile(
    rb"\bEVENT (?:`(?:[^`]|``)+`|\"(?:[^\"]|\"\")+\") ON SCHEDULE (?:AT '(?P<at>[^']*)'"
    rb"|EVERY (?:'[^']*'|\S+) \w+(?: STARTS '[^']*')?(?: ENDS '(?P<ends>[^']*)')?)"
    rb" ON COMPLETION (?P<not>NOT )?PRESERVE (?P<status>ENABLE|DISABLE(?: ON (?:SLAVE|REPLICA))?)\b"
)
_ZONE = re.compile(rb"\bSET time_zone\s*= '([^']*)'")


class Event(t.NamedTuple):
    """An event's last moment in its time zone, None where it has none; whether it stays after it; and its status."""

    last: str | None
    zone: str
    is_preserved: bool
    status: str


def read_event(script: bytes) -> Event | None:
    """Return what the script of an event says of its schedule; None where it is not as the server writes it."""
    match = _EVENT.search(script)
    if match is None:
        return None
    last, zone = match["at"] or match["ends"], _ZONE.search(script)
    return Event(
        last=None if last is None else last.decode(),
        zone="SYSTEM" if zone is None else zone[1].decode(),
        is_preserved=match["not"] is None,
        status=match["status"].decode(),
    )


def explain_inactive(event: Event, *, has_ended: bool) -> str | None:
    """Return why an event does not run after a restore; None where it does."""
    if has_ended:
        what = "off" if event.is_preserved else "not made"
        return f"{what}, since its time has passed ({event.last}, time zone {event.zone})"
    if event.status == "ENABLE":
        return None
    return f"off, as in the backup ({event.status})"
