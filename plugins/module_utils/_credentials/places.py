# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The servers of a cluster on which a role may have sessions: the primary, and each standby that an option names.

Each server shows its own sessions only, so clients that read from a standby are not seen on the primary.
Private to lowtide.ops: do not import from other collections.
"""

from __future__ import annotations

import contextlib
import typing as t
from dataclasses import replace

from .._common.errors import OpsError
from .._postgresql.connection import Session, Settings, new_run_id, translate_errors
from .._postgresql.roles import read_sessions


class Places(t.NamedTuple):
    """The sessions by which servers are asked, by their addresses, the primary first; and why others are not asked."""

    asked: t.Mapping[str, Session]
    unasked: t.Mapping[str, str]

    def list_sessions(self, name: str) -> list[str]:
        """Return the sessions of a role on all of them, for messages."""
        found = []
        for number, (place, session) in enumerate(self.asked.items()):
            where = f", at {place}" if number else ""
            with translate_errors(session.settings.target):
                found += [
                    f"pid {entry.pid} ({entry.application or 'no application_name'}, database {entry.database}{where})"
                    for entry in read_sessions(session, name)
                ]
        return found


@contextlib.contextmanager
def open_places(session: Session, addresses: t.Sequence[Settings]) -> t.Iterator[Places]:
    """Connect to every standby that is a host of the session's own settings, or an address where clients log in.

    One that cannot be asked (down, a pooler that shares sessions, no entry for this account in pg_hba.conf) is named.
    """
    info, base = session.connection.info, session.settings
    own = replace(base, system_identifier=session.server.system_identifier)
    candidates = [replace(own, host=host) for host in base.hosts]
    candidates += [
        replace(own, host=one.host, port=one.port, sslmode=one.sslmode, sslrootcert=one.sslrootcert)
        for one in addresses
    ]
    asked: dict[str, Session] = {f"{info.host}:{info.port}": session}
    unasked: dict[str, str] = {}
    with contextlib.ExitStack() as stack:
        for candidate in candidates:
            place = f"{candidate.host}:{candidate.port}"
            if place in asked or place in unasked:
                continue
            try:
                other = stack.enter_context(
                    Session(candidate, module="pg_credential", run_id=new_run_id(), primary=False, writes=False)
                )
            except OpsError as error:
                unasked[place] = error.problem
                continue
            if other.server.in_recovery:
                asked[place] = other
        yield Places(asked, unasked)
