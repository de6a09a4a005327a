# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Restore a backup beside the live database, compare it, and have the two take each other's place.

Private to lowtide.ops: do not import from other collections.

The live database is not written to. A copy comes to be under a name of its own, which says of what it is; it is compared
with the backup by a dump of its own; and only then, in one transaction, it takes the live name.
"""

from __future__ import annotations

import time
import typing as t
from dataclasses import replace

from .._backup.manifest import stamp
from .._common.errors import Refusal
from .._common.outcome import Blocker, PlanItem
from .._common.text import format_count, join_some
from .._pg_backup import programs
from .._postgresql.connection import Session, transact, translate_errors
from .._postgresql.locks import ClusterLock, read_holders
from .._postgresql.names import format_name, quote
from .._postgresql.pings import PERIOD, Pings
from . import replication, role_statements, side
from . import rights as restore_rights
from .comparing import Comparer
from .dump_text import Schema
from .restoring import Restorer, Tools, find_decompressor
from .source import place_tables
from .summary import describe_restore, summarize_restore
from .swap import Swap, swap_databases
from .work import DRILL, Options, Work

if t.TYPE_CHECKING:
    from .._common.outcome import Outcome
    from .._common.retry import Deadline
    from .._postgresql.connection import Settings
    from .dump_text import Data
    from .source import Source

MODULE = "pg_restore"


class Restore:
    """One run on one server: ``session`` is on another database than the live one."""

    ping_period = PERIOD

    def __init__(
        self,
        *,
        session: Session,
        options: Options,
        outcome: Outcome,
        deadline: Deadline,
        run_id: str,
        settings: Settings,
    ) -> None:
        self._session = session
        self._options = options
        self._outcome = outcome
        self._deadline = deadline
        self._run_id = run_id
        self._settings = settings
        self.warnings: list[str] = []

    def name_side(self, run: str) -> str:
        """Return the name of the copy of a backup."""
        return side.name_database(self._options.live, self._options.purpose, run)

    def name_kept(self, run: str) -> str:
        """Return the name of the original once a backup has taken its place."""
        return side.name_database(self._options.live, "before", run)

    def ensure(self, source: Source, *, check: bool) -> None:
        """Read, plan, and unless ``check`` restore, compare and swap as far as asked; no proxy ends the session meanwhile."""
        with Pings(self._session.is_alive, period=self.ping_period):
            self._ensure(source, check=check)

    def _ensure(self, source: Source, *, check: bool) -> None:
        options = self._options
        since = self._find_live_since(source.run) if options.state == side.LIVE else None
        if since is not None:
            self._report(source, options.live, restored=False)
            self._outcome.facts["live_since"] = since
            self._outcome.facts["not_compared"] = [
                f"backup {source.run}: {options.live} is in use since {since}, and what was written since is not compared"
            ]
            self._outcome.facts["kept"] = self._name_existing(self.name_kept(source.run))
            self._summarize(source, check=check, is_swapped=False)
            return
        work = self._read(source)
        is_due = self._is_restore_due(work)
        self._plan(work, is_due=is_due)
        self._report(source, self.name_side(source.run), restored=False)
        if check:
            self._outcome.changed = is_due or options.state == side.LIVE
            if not is_due:
                self._comparer(source).compare(work, notes=False)
            self._summarize(source, check=True, is_swapped=options.state == side.LIVE)
            return
        self.lock()
        work.databases = self._read_names(source)  # another run may have ended in between
        self._refuse_state(work.databases, source, work.mark)
        is_due = self._is_restore_due(work)
        data = self._restore(work) if is_due else None
        self._outcome.facts["restored"] = is_due
        copy = self._read_names(source).get(self.name_side(source.run))
        comparer = self._comparer(source)
        comparer.compare(work, data=data, notes=True)
        if source.manifest is None and options.state == side.LIVE:
            self._refuse_partial(source, work.databases.get(options.live), comparer.filled)
        if options.state == side.LIVE:
            self._swap(work, compared=copy)
        self._summarize(source, check=False, is_swapped=options.state == side.LIVE)

    def remove(self, run: str, *, check: bool) -> None:
        """Drop the copy of a backup, if there is one that a run of ours has made."""
        name = self.name_side(run)
        found = side.read_databases(self._session, name).get(name)
        self._outcome.facts |= {"database": name, "kept": None}
        if found is None:
            self._outcome.summary = f"there is no copy {name} to remove"
            return
        side.refuse_foreign(found, expected=side.Mark(run, self._options.live, side.RESTORED))
        self._drop(name, why="it is not wanted any more", check=check)

    def release(self, run: str, *, check: bool) -> None:
        """Drop the original that a backup has taken the place of."""
        live, name = self._options.live, self.name_kept(run)
        databases = side.read_databases(self._session, name)
        self._outcome.facts |= {"database": live, "kept": None}
        if name not in databases:
            self._outcome.summary = f"there is no original {name} to release"
            return
        mark = databases[name].mark
        if mark is None or (mark.backup, mark.database, mark.state) != (run, live, side.ORIGINAL):
            raise Refusal(
                obj=f"database {name}",
                problem="it is not marked as an original that this module has kept",
                next_step="It is left alone. Look what it is, and drop it by hand",
            )
        if self._find_live_since(run) is None:
            raise Refusal(
                obj=f"database {name}",
                problem=f"{live} is not the database which has taken its place",
                next_step="It is left alone, since it may be the only good one. Look at both, and drop it by hand",
            )
        side.refuse_sessions(self._session, name, self._outcome.blockers, own="")
        replication.refuse_replication(self._session, name, self._outcome.blockers, is_dropped=True)
        self._drop(name, why=f"{live} has taken its place, and a person lets it go", check=check)

    def _drop(self, name: str, *, why: str, check: bool) -> None:
        self._outcome.plan = [PlanItem(f"database {name}", "drop", why, reversible=False)]
        self._outcome.before, self._outcome.after = {"databases": [name]}, {"databases": []}
        self._outcome.changed = True
        if not check:
            self.lock()
            self._refuse_strangers(name)
            self._outcome.write_attempted = True
            self._drop_now(name)
        self._outcome.summary = f"{'would drop' if check else 'dropped'} {name}"

    def _drop_now(self, name: str) -> None:
        """Drop a database that is ours, with the subscriptions that a dump has brought along."""
        if replication.read_subscriptions(self._session, name):
            with self._enter(name) as inside:
                replication.drop_subscriptions(inside)
        side.drop_database(self._session, name, end_sessions=True)

    def _enter(self, name: str) -> Session:
        """Return a session in a database of ours, whatever it says of writing."""
        return Session(replace(self._settings, dbname=name), module=MODULE, run_id=self._run_id, writes=False)

    def _comparer(self, source: Source) -> Comparer:
        return Comparer(self._session, self._options, self._outcome, copy=self.name_side(source.run))

    # ---- reading

    def _find_live_since(self, run: str) -> str | None:
        """Return when the backup has taken the live name; None where the live database is another one."""
        live = self._options.live
        found = side.read_databases(self._session, live).get(live)
        system = self._session.server.system_identifier
        return None if found is None else found.find_live_since(run, system=system)

    def _name_existing(self, name: str) -> str | None:
        return name if name in side.read_databases(self._session, name) else None

    def _read_names(self, source: Source) -> dict[str, side.Database]:
        live, copy, kept = self._options.live, self.name_side(source.run), self.name_kept(source.run)
        return side.read_databases(self._session, live, copy, kept)

    def _read(self, source: Source) -> Work:
        """Read all that decides, and refuse what must not or cannot be done; nothing has been written."""
        options, own = self._options, self._session
        found = programs.find_programs(own, bin_dir=options.bin_dir, deadline=self._deadline)
        if source.manifest is not None:
            programs.refuse_older_decoder(found.pg_restore, source.manifest.client_version, deadline=self._deadline)
        tools = Tools(
            programs=found,
            environment=programs.client_environment(
                own, run_id=self._run_id, module=MODULE, time_zone=source.time_zone
            ),
            server_version=own.server.version // 10000,
            deadline=self._deadline,
        )
        decompressor = found.zstd if source.manifest is not None else find_decompressor(source.dump)
        restorer = Restorer(source.dump, tools, decompressor=decompressor)
        schema = restorer.read_schema()
        restorer.leaves_out_amcheck = restore_rights.must_leave_out(own, schema)
        restore_rights.refuse_timescaledb(schema, source.url)
        databases = self._read_names(source)
        places = place_tables(source, options.tables)
        names = sorted(format_name(*table) for entries in places.values() for table in entries)
        mark = side.Mark(source.run, options.live, side.RESTORED, tuple(names))
        copy, live = self.name_side(source.run), databases.get(options.live)
        self._refuse_state(databases, source, mark)
        if options.compare_with == "original" and live is None:
            raise Refusal(
                obj=f"database {options.live}",
                problem="it is not on this server, and compare_with is original",
                next_step="Set compare_with to backup, or correct login_db",
            )
        self._refuse_shut(live, source)
        existing = restore_rights.read_roles(own)
        missing = schema.find_roles() - existing
        text = source.read_globals() if missing else None
        known = role_statements.list_roles(text) if text else set()
        roles: list[str] = []
        if options.roles == "created" and text is not None:
            roles = role_statements.list_statements(text, missing & known, existing)
        else:
            restore_rights.refuse_missing_roles(missing, obj=source.url, has_globals=bool(known))
        if missing - known:
            restore_rights.refuse_missing_roles(missing - known, obj=source.url, has_globals=False)
        lacks = restore_rights.find_lacks(own, schema, owners=schema.find_owners() - missing)
        if live is not None and options.state == side.LIVE:
            lacks += restore_rights.find_lacks(own, Schema({}, None, None), owners={live.owner})
        statements = schema.name_copy(quote(copy))
        lacks += restore_rights.find_setting_lacks(own, statements.properties)
        lacks += restore_rights.find_tablespace_lacks(own, schema.tablespaces)
        restore_rights.refuse_lacks(list(dict.fromkeys(lacks)), self._outcome.blockers)
        return Work(source, restorer, tools, schema, statements, mark, databases, missing, roles, places)

    def _refuse_shut(self, live: side.Database | None, source: Source) -> None:
        """Refuse what has to look into a live database that nobody may connect to, before hours go into a copy."""
        if live is None or live.is_invalid or live.allows_connections:
            return
        if self._options.compare_with == "original":
            why = "compare_with is original"
        elif source.manifest is None and self._options.state == side.LIVE:
            why = "this dump has no manifest, so that its tables are compared with those that have rows there"
        else:
            return
        raise Refusal(
            obj=f"database {live.name}",
            problem=f"it allows no connections, and {why}",
            next_step=f"ALTER DATABASE {quote(live.name)} ALLOW_CONNECTIONS true, with the applications stopped"
            + ("; or set compare_with to backup" if self._options.compare_with == "original" else "")
            + "; then run again",
        )

    def _refuse_state(self, databases: dict[str, side.Database], source: Source, mark: side.Mark) -> None:
        """Refuse what is on the server and is not ours to drop, rename or replace."""
        copy = self.name_side(source.run)
        if copy in databases:
            side.refuse_foreign(databases[copy], expected=mark)
            side.refuse_other(databases[copy], expected=mark, system=self._session.server.system_identifier)
            self._refuse_strangers(copy)
        if self._options.state == side.LIVE:
            self._refuse_swap(databases, source)

    def _refuse_swap(self, databases: dict[str, side.Database], source: Source) -> None:
        """Refuse to put a copy in the place of a database that somebody uses, and where the original has no name to go to."""
        kept, live = self.name_kept(source.run), databases.get(self._options.live)
        if kept in databases and live is not None:
            raise Refusal(
                obj=f"database {kept}",
                problem=f"there is one already, and {live.name} is not the copy that has taken its place",
                next_step="Look at both: one of them is an original of an earlier run. Rename or drop it by hand, and run again",
            )
        if live is None:
            return
        if not live.is_invalid:
            self._refuse_unprepared(databases.get(self.name_side(source.run)), source, live)
        replication.refuse_replication(self._session, live.name, self._outcome.blockers, is_dropped=False)
        if self._options.sessions == "refuse":
            own = f"lowtide.ops {MODULE} {self._run_id}"
            side.refuse_sessions(self._session, live.name, self._outcome.blockers, own=own)
        else:
            side.refuse_unendable(self._session, live.name, self._outcome.blockers)

    def _refuse_unprepared(self, copy: side.Database | None, source: Source, live: side.Database) -> None:
        """Refuse to replace a database by a backup of which there is no copy beside.

        A swap uses up its copy, and only state beside makes one. So a request for the swap that comes once more, long
        after it was fulfilled, finds none, whatever has become of marks in comments and of the kept original. One that was
        not restored to its end is none: beside may have been killed, or given up.
        """
        whole = side.Mark(source.run, self._options.live, side.RESTORED)
        if copy is not None and copy.is_restored(whole, system=self._session.server.system_identifier):
            return
        raise Refusal(
            obj=f"database {live.name}",
            problem=f"there is no whole copy of backup {source.run} beside it, so nothing says that this backup has not taken"
            " its place before, and that what was written since may go",
            next_step=f"Restore it first (state: beside, backup: {source.run}; in the role restore_state and"
            " restore_backup), look at the copy, and run again",
        )

    def _refuse_partial(
        self, source: Source, live: side.Database | None, filled: t.Collection[tuple[str, str]]
    ) -> None:
        """Refuse a dump that nothing vouches for where tables with rows would have none: it may be of a part, or have no rows."""
        if live is None or live.is_invalid:
            return
        with self._enter(live.name) as inside:
            lost = [table for table in side.list_filled(inside) if table not in filled]
        if not lost:
            return
        raise Refusal(
            obj=source.url,
            problem=f"{format_count(len(lost), 'table')} of {live.name} with rows would be missing or empty"
            f" ({join_some([format_name(*table) for table in lost])}), and no manifest says that this dump is of all of it",
            next_step="Copy what is needed from the database beside. If all of them may really go, rename the two by hand"
            " (ALTER DATABASE ... RENAME TO, in one transaction)",
        )

    def _refuse_strangers(self, name: str) -> None:
        """Refuse to drop or rename a copy that others than our own programs are connected to.

        The copy of a drill is nobody's: sessions on it end with it, if they can be ended.
        """
        if self._options.purpose == DRILL:
            side.refuse_unendable(self._session, name, self._outcome.blockers)
            return
        sessions = [
            entry
            for entry in side.list_sessions(self._session, name)
            if not entry.application.startswith(f"lowtide.ops {MODULE} ")
            and not (entry.is_left and self._session.is_pooled)
        ]
        if sessions:
            self._outcome.blockers += side.block_sessions(name, sessions)
            raise Refusal(
                obj=f"database {name}",
                problem=f"somebody is connected to it: {sessions[0].describe()}",
                next_step="End that session, and run again",
            )

    def _is_restore_due(self, work: Work) -> bool:
        found = work.databases.get(self.name_side(work.source.run))
        return found is None or not found.is_restored(work.mark, system=self._session.server.system_identifier)

    def lock(self) -> None:
        """Take the right to restore this database, from whichever database; it goes with the session."""
        key = side.find_lock_key(self._options.live)
        if ClusterLock(self._session, key).try_acquire():
            return
        holders = read_holders(self._session, key, anywhere=True)
        holder = holders[0].description if holders else "a session that has ended since"
        since = holders[0].since if holders else None
        self._outcome.blockers.append(
            Blocker(
                object=f"database {self._options.live}",
                what="another restore of this database is running",
                holder=holder,
                since=since,
                next_step="Wait for it to end, or end that session, and run again",
            )
        )
        raise Refusal(
            obj=f"database {self._options.live}",
            problem=f"another restore of this database is running: {holder}, since {since or 'just now'}",
            next_step="Wait for it to end, or end that session, and run again",
        )

    # ---- telling

    def _plan(self, work: Work, *, is_due: bool) -> None:
        source, copy = work.source, self.name_side(work.source.run)
        manifest = source.manifest
        items = []
        if work.roles:
            names = join_some(sorted(work.missing_roles))
            items.append(PlanItem("roles", f"create {names}", "the backup has objects and grants of them"))
        if is_due and copy in work.databases:
            why = "an interrupted run of this module left it"
            items.append(PlanItem(f"database {copy}", "drop", why, reversible=False))
        if is_due:
            estimate = None if manifest is None else round(2 * (manifest.dump_seconds + manifest.verify_seconds), 1)
            what = f"restore {join_some(work.mark.tables)} beside" if work.mark.tables else "restore beside"
            what += " without the extension amcheck" if work.restorer.leaves_out_amcheck else ""
            items.append(PlanItem(f"database {copy}", what, f"there is no copy of {source.run}", estimate=estimate))
        if self._options.state == side.LIVE:
            kept = self.name_kept(source.run)
            live = self._options.live
            what = f"rename to {live}, and {live} to {kept}" if live in work.databases else f"rename to {live}"
            why = f"{live} is to be as backup {source.run} has it"
            if live in work.databases and work.databases[live].is_invalid:
                why += "; what is there now is what an interrupted DROP DATABASE has left, and can only be dropped"
            items.append(PlanItem(f"database {copy}", what, why))
        self._outcome.plan = items
        before = sorted(work.databases)
        after = {*before, copy} if self._options.state != side.LIVE else {*before, self._options.live}
        if self._options.state == side.LIVE and self._options.live in work.databases:
            after = {*after, self.name_kept(source.run)}
        if self._options.state == side.LIVE:
            after -= {copy}
        self._outcome.before, self._outcome.after = {"databases": before}, {"databases": sorted(after)}

    def _report(self, source: Source, database: str, *, restored: bool) -> None:
        manifest = source.manifest
        self._outcome.facts |= {
            "backup": {
                "run_id": source.run,
                "url": source.url,
                "proven": manifest is not None,
                "taken_at": None if manifest is None else stamp(manifest.taken_at),
                "hosts": [] if manifest is None else list(manifest.hosts),
                "tables": None if manifest is None else manifest.tables,
                "rows": None if manifest is None else manifest.rows,
            },
            "database": database,
            "kept": None,
            "live_since": None,
            "restored": restored,
            "passed_over": [{"url": url, "problem": problem} for url, problem in source.passed],
            "compared": [],
            "not_compared": [],
            "differences": [],
            "restore_seconds": None,
            "compare_seconds": None,
            "swap_seconds": None,
            "sessions_ended": 0,
        }
        self.warnings += [
            f"{url} is newer than backup {source.run} and was passed over: {problem}" for url, problem in source.passed
        ]

    def _summarize(self, source: Source, *, check: bool, is_swapped: bool) -> None:
        facts = self._outcome.facts
        self._outcome.summary = summarize_restore(
            facts, live=self._options.live, is_swapped=is_swapped, check_mode=check, changed=self._outcome.changed
        )
        if facts["compared"]:
            self._outcome.evidence = [describe_restore(facts)]
        if source.manifest is None:
            self._outcome.evidence.append(f"{source.url}: unproven, it has no manifest of pg_backup")

    # ---- doing

    def _restore(self, work: Work) -> Data | None:
        """Make the copy, from nothing to a mark that says it is whole; return what was in the dump."""
        started = time.monotonic()
        own, source = self._session, work.source
        copy = self.name_side(source.run)
        self._outcome.write_attempted = True
        # As statements of the dump are read: that a backslash means nothing in a literal.
        own.execute("SET standard_conforming_strings = on")
        if work.roles:
            role_statements.create_roles(own, work.roles)
            self._outcome.changed = True
        if copy in work.databases:
            self._drop_now(copy)
            self._outcome.changed = True
        quoted = quote(copy)
        side.create_database(own, work.statements.creating)
        self._outcome.changed = True
        mark = work.mark._replace(state=side.RESTORING)
        with transact(own):
            self._make(copy, work.statements.further)
            own.execute(f"ALTER DATABASE {quoted} CONNECTION LIMIT -1")
            side.set_mark(own, copy, mark, comment=side.read_databases(own, copy)[copy].comment)
        # What the server does not accept at the end is to be known before the rows are restored.
        with transact(own, keep=False):
            self._make(copy, [*work.statements.properties, *work.statements.limits])
        data = None
        if work.places:
            work.restorer.restore_tables(copy, work.places)
        else:
            data = work.restorer.restore(copy)
            if source.manifest is not None:
                self._comparer(source).compare_counts(work, data)
        # Settings such as default_transaction_read_only would be in the way before; limits of connections and the like are
        # for the live name only.
        with transact(own):
            self._make(copy, work.statements.properties)
        self._analyze(copy)
        found = side.read_databases(own, copy)[copy]
        mark = work.mark._replace(oid=found.oid, system=own.server.system_identifier)
        side.set_mark(own, copy, mark, comment=found.comment)
        self._outcome.facts["restore_seconds"] = round(time.monotonic() - started, 3)
        return data

    def _make(self, copy: str, statements: t.Sequence[str]) -> None:
        """Execute statements of the dump on the database itself."""
        for statement in statements:
            with translate_errors(f"database {copy}: {statement.partition(' TO ')[0][:200]}"):
                self._session.execute(statement)

    def _analyze(self, copy: str) -> None:
        """Give the copy statistics, which no dump has: without them every query is planned by guesses."""
        with self._enter(copy) as inside, translate_errors(f"ANALYZE of database {copy}"):
            inside.execute(f"SET statement_timeout = {max(1, min(int(self._deadline.remaining * 1000), 2**31 - 1))}")
            inside.execute("ANALYZE")

    def _swap(self, work: Work, *, compared: side.Database | None) -> None:
        """Have the copy take the live name, and the original the name under which it is kept."""
        own, source = self._options, work.source
        databases = self._read_names(source)
        live, copy = databases.get(own.live), databases.get(self.name_side(source.run))
        if copy is None or compared is None or copy.oid != compared.oid:
            raise Refusal(
                obj=f"database {self.name_side(source.run)}",
                problem="it is not the one any more that was compared",
                next_step="Find out who has dropped or replaced it, and run again",
            )
        self._refuse_state(databases, source, work.mark)
        limits = work.schema.name_copy(quote(own.live)).limits
        kept = self.name_kept(source.run)
        swap = Swap(own.live, kept, work.mark, copy, live, tuple(limits), opens=own.sessions == "end")
        self._outcome.write_attempted = True
        for name in (copy.name, own.live):
            side.end_pooled(self._session, name)
        if own.sessions == "end" and live is not None:
            with Session(self._settings, module=MODULE, run_id=self._run_id) as end:
                done = swap_databases(self._session, swap, end=end)
        else:
            done = swap_databases(self._session, swap, end=None)
        self._outcome.changed = True
        self._outcome.facts |= {
            "database": own.live,
            "kept": None if live is None else kept,
            "swap_seconds": round(done.seconds, 3),
            "sessions_ended": done.ended,
        }
        if swap.was_shut and swap.opens:
            self.warnings.append(f"{own.live} was shut, and lets clients in again as in the backup")
        elif live is not None and not live.is_invalid and not live.allows_connections:
            self.warnings.append(
                f"{own.live} is shut as it was before: ALTER DATABASE {quote(own.live)} ALLOW_CONNECTIONS true lets clients in"
            )
        standbys = 0 if live is None else replication.count_standbys(self._session)
        if standbys:
            self.warnings.append(
                f"{format_count(standbys, 'server')} follow this one. Who was connected to {own.live} on a standby before the"
                f" swap goes on reading the original there, which is {kept} now: end the sessions on {kept} on each standby"
            )
