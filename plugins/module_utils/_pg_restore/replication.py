# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Logical replication slots and subscriptions: they belong to a database and not to its name. Private to lowtide.ops: do not import from other collections.

A slot that stays with the original keeps WAL of the whole server, and its consumer gets nothing any more. A subscription
goes on to write into the original. A database that has a subscription cannot be dropped.
"""

from __future__ import annotations

import typing as t

from .._common.errors import Refusal
from .._common.outcome import Blocker
from .._common.text import join_some
from .._postgresql.names import format_name, quote

if t.TYPE_CHECKING:
    from .._postgresql.connection import Session

_SLOTS = """
SELECT slot_name::text AS name, coalesce(plugin::text, '') AS plugin, coalesce(active_pid, 0) AS pid,
       pg_catalog.pg_size_pretty(pg_catalog.pg_wal_lsn_diff(pg_catalog.pg_current_wal_lsn(), restart_lsn)) AS retained
  FROM pg_catalog.pg_replication_slots WHERE slot_type = 'logical' AND database::text = %(name)s ORDER BY 1
"""
_SUBSCRIPTIONS = """
SELECT s.subname::text AS name, s.subenabled AS is_enabled
  FROM pg_catalog.pg_subscription s JOIN pg_catalog.pg_database d ON d.oid = s.subdbid WHERE d.datname::text = %(name)s ORDER BY 1
"""
_STANDBYS = "SELECT count(*) FROM pg_catalog.pg_stat_replication"


class Slot(t.NamedTuple):
    """A logical slot; ``pid`` is 0 where nobody reads from it."""

    name: str
    plugin: str
    pid: int
    retained: str | None


class Subscription(t.NamedTuple):
    """A subscription of a database."""

    name: str
    is_enabled: bool


def read_subscriptions(session: Session, name: str) -> list[Subscription]:
    """Return the subscriptions of a database, which is another one than that of the session."""
    return session.read(Subscription, _SUBSCRIPTIONS, {"name": name})


def block_replication(session: Session, name: str, *, is_dropped: bool) -> list[Blocker]:
    """Return what of logical replication keeps a database from losing its name, or from being dropped."""
    blockers = [
        Blocker(
            object=f"replication slot {slot.name}",
            what=f"it belongs to database {name} and not to its name: its consumer would get nothing more, while it retains"
            f" the server's WAL ({slot.retained or 'none'} so far)",
            holder=f"plugin {slot.plugin}, " + (f"read by pid {slot.pid}" if slot.pid else "nobody reads from it"),
            next_step=f"Stop its consumer and SELECT pg_drop_replication_slot('{slot.name}'). In the restored database it"
            " takes a new slot, and all rows anew",
        )
        for slot in session.read(Slot, _SLOTS, {"name": name})
    ]
    for entry in read_subscriptions(session, name):
        own = format_name(entry.name)
        if is_dropped:
            what = "a database that has one cannot be dropped"
            step = (
                f"In {format_name(name)}: ALTER SUBSCRIPTION {own} DISABLE; ALTER SUBSCRIPTION {own} SET (slot_name = NONE);"
                f" DROP SUBSCRIPTION {own}. If nothing else uses its slot at the publisher, drop that too"
            )
        elif entry.is_enabled:
            what = (
                f"it would go on to write into {name} under its new name, and the restored database would stand still"
            )
            step = (
                f"In {format_name(name)}: ALTER SUBSCRIPTION {own} DISABLE. Enable that of the restored database once the"
                " rows were copied anew that it misses"
            )
        else:
            continue
        blockers.append(
            Blocker(object=f"subscription {entry.name}", what=what, holder=f"database {name}", next_step=step)
        )
    return blockers


def refuse_replication(session: Session, name: str, blockers: list[Blocker], *, is_dropped: bool) -> None:
    """Refuse to rename or drop a database that logical replication depends on; each slot and subscription is a blocker."""
    found = block_replication(session, name, is_dropped=is_dropped)
    if not found:
        return
    blockers += found
    raise Refusal(
        obj=f"database {name}",
        problem=f"logical replication depends on it: {join_some([entry.object for entry in found])}: {found[0].what}",
        next_step=found[0].next_step,
    )


def drop_subscriptions(session: Session) -> None:
    """Drop the subscriptions of the database of this session, a copy; the slots at the publisher are the original's."""
    for entry in read_subscriptions(session, session.server.database):
        own = quote(entry.name)
        session.execute("SET default_transaction_read_only = off")
        session.execute(f"ALTER SUBSCRIPTION {own} DISABLE")
        session.execute(f"ALTER SUBSCRIPTION {own} SET (slot_name = NONE)")
        session.execute(f"DROP SUBSCRIPTION {own}")


def count_standbys(session: Session) -> int:
    """Return how many servers follow this one."""
    return int(session.query(_STANDBYS)[0][0])
