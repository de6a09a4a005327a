# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One maintenance run in a database at a time, orphans included. Private to lowtide.ops: do not import from other collections.

Two advisory locks of the database: the run's own (exclusive, on the session that decides), and one that every working session
shares. A killed run loses the first at once; its working sessions go on until their statement ends, and hold the second so long.
"""

from __future__ import annotations

import typing as t

from .._common.errors import Refusal

if t.TYPE_CHECKING:
    from .connection import Session

# "LOWT" as an int4: the class of this collection's advisory locks. The second key says which.
LOCK_CLASS = 0x4C4F5754
RUN, WORKERS = 1, 2

_HOLDERS = """
SELECT l.pid, concat_ws(', ', 'pid ' || l.pid, 'user ' || a.usename, 'application ' || a.application_name,
    'client ' || a.client_addr::text), a.backend_start::text, nullif(left(a.query, 80), '')
FROM pg_catalog.pg_locks l LEFT JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid
WHERE l.locktype = 'advisory' AND l.classid = %(class)s::bigint::oid AND l.objid = ANY(%(keys)s::bigint[]::oid[]) AND l.objsubid = 2
  AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database())
  AND l.granted AND l.pid <> pg_backend_pid()
ORDER BY l.objid, a.backend_start
"""


def refuse_if_taken(session: Session) -> None:
    """Refuse, naming the holder, when another run or what is left of one is at work; takes no lock."""
    holders = session.query(_HOLDERS, {"class": LOCK_CLASS, "keys": [RUN, WORKERS]})
    if holders:
        pid, who, since, query = holders[0]
        raise Refusal(
            obj=session.settings.target,
            problem=f"another maintenance run, or a session that it left behind, is at work: {who}, since {since}"
            + (f" ({query})" if query else ""),
            next_step=f"Run again when it has ended, or end it with SELECT pg_terminate_backend({pid})",
        )


def take(session: Session) -> None:
    """Take the run's lock for as long as this session lives, or refuse, naming the holder."""
    values = {"class": LOCK_CLASS, "run": RUN, "workers": WORKERS}
    alone = session.query("SELECT pg_try_advisory_lock(%(class)s, %(run)s)", values)[0][0]
    if alone:
        alone = session.query("SELECT pg_try_advisory_lock(%(class)s, %(workers)s)", values)[0][0]
        if alone:
            session.query("SELECT pg_advisory_unlock(%(class)s, %(workers)s)", values)
            return
        session.query("SELECT pg_advisory_unlock(%(class)s, %(run)s)", values)
    refuse_if_taken(session)
    # The holder ended between the two questions: once more, and then somebody else was faster.
    if not session.query("SELECT pg_try_advisory_lock(%(class)s, %(run)s)", values)[0][0]:
        raise Refusal(
            obj=session.settings.target,
            problem="another maintenance run has just started",
            next_step="Run again when it has ended",
        )


def join(session: Session) -> None:
    """Mark a working session of the run that holds :func:`take`'s lock."""
    session.query("SELECT pg_advisory_lock_shared(%(class)s, %(workers)s)", {"class": LOCK_CLASS, "workers": WORKERS})
