# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lines of a journal file: one event a line, numbered and with a checksum; pure.

Private to lowtide.ops: do not import from other collections. A line without its newline is a write that a crash cut
off: it never happened. Any other damage is refused, never guessed at.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from ansible_collections.lowtide.ops.plugins.module_utils._common.errors import Refusal

from . import events
from .events import Event


class JournalDamaged(Refusal):
    """A journal that cannot be trusted."""


@dataclass(frozen=True)
class Lines:
    """The events of a journal's whole lines, how many bytes these take, and whether a cut-off line follows them."""

    events: list[Event]
    size: int
    is_cut_off: bool


def compute_checksum(values: dict[str, Any]) -> str:
    """Return the first 12 hex digits of the SHA-256 over the values without their ``sum``."""
    body = {key: value for key, value in values.items() if key != "sum"}
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()[:12]


def encode_line(event: Event, number: int) -> bytes:
    """Return the line of the event that is the ``number``-th (from 1) of its journal."""
    values = {**events.encode(event), "n": number}
    return json.dumps({**values, "sum": compute_checksum(values)}, sort_keys=True).encode() + b"\n"


def decode_lines(data: bytes, *, source: str) -> Lines:
    """Return the events in a journal's bytes. ``source`` names it in messages.

    Raise JournalDamaged for a line that was changed, lost or moved, Refusal for a later format.
    """
    *lines, rest = data.split(b"\n")
    if _is_object(rest[:-1]):  # a whole line whose newline became something else: no crash leaves that
        lines.append(rest)
    decoded = [_decode_line(line, number, source) for number, line in enumerate(lines, start=1)]
    return Lines(decoded, len(data) - len(rest), bool(rest))


def _is_object(data: bytes) -> bool:
    try:
        return isinstance(json.loads(data), dict)
    except ValueError:
        return False


def _decode_line(line: bytes, number: int, source: str) -> Event:
    try:
        values = json.loads(line)
        if values["v"] <= events.FORMAT and (values["n"] != number or values["sum"] != compute_checksum(values)):
            raise ValueError("checksum or number differs")
        return events.decode(values, source=source)
    except (ValueError, KeyError, TypeError) as error:
        raise JournalDamaged(
            obj=f"journal {source}",
            problem=f"line {number} is damaged ({error}: {line[:60]!r})",
            next_step="Run the playbook restore_service, so that nothing stays stopped, "
            "then take the journal away as docs/journal.md says for its store, and run the window again",
        ) from error


def decode_last_line(line: bytes) -> Event | None:
    """Return the event of a line whose number is not known; None when it is damaged or of a later format."""
    try:
        values = json.loads(line)
        if values["sum"] != compute_checksum(values):
            return None
        return events.decode(values, source="")
    except (ValueError, KeyError, TypeError, Refusal):
        return None
