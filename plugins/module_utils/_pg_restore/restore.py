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
from dataclasses import dataclass, field

from .._backup.manifest import stamp
from .._common.errors import OpsError, Refusal
from .._common.outcome import Blocker, PlanItem
from .._common.text import format_count, join_some
from .._pg_backup import programs
from .._postgresql.connection import Session
from .._postgresql.locks import AdvisoryLock, read_holders
from .._postgresql.names import quote
from .._postgresql.pings import PERIOD, Pings
from . import compare, role_statements, side
from . import rights as restore_rights
from .dump_text import CopyStatements, Schema
from .restoring import Restorer, Tools, dump_database, find_decompressor
from .source import place_tables
from .summary import describe_restore, summarize_restore

if t.TYPE_CHECKING:
    from .._common.outcome import Outcome
    from .._common.retry import Deadline
    from .._postgresql.connection import Settings
    from .._postgresql.names import TableName
    from .dump_text import Data
    from .source import Source

MODULE = "pg_restore"


@dataclass(frozen=True)
class Options:
    """What the module was asked for. ``live`` is the name of the live database; ``purpose`` is in the name of the copy."""

    state: str
    live: str
    tables: tuple[TableName, ...] = ()
    compare_with: str = "backup"
    roles: str = "required"
    sessions: str = "refuse"
    bin_dir: str | None = None
    purpose: str = "restore"


@dataclass
class Work:
    """What has been read before anything is done: the dump's objects, what is on the server, and what is to be done."""

    source: Source
    restorer: Restorer
    tools: Tools
    schema: Schema
    statements: CopyStatements
    mark: side.Mark
    databases: dict[str, side.Database]
    missing_roles: set[str]
    roles: list[str]
    places: dict[str, list[tuple[str, str]]] = field(default_factory=dict)


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
                self._compare(work)
            self._summarize(source, check=True, is_swapped=options.state == side.LIVE)
            return
        self._lock()
        work.databases = self._read_names(source)  # another run may have ended in between
        is_due = self._is_restore_due(work)
        data = self._restore(work) if is_due else None
        self._outcome.facts["restored"] = is_due
        try:
            self._compare(work, data=data)
        except OpsError:
            self._note_compared(work, is_equal=False)
            raise
        self._note_compared(work, is_equal=True)
        if options.state == side.LIVE:
            self._swap(work)
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
        side.refuse_sessions(self._session, name, self._outcome.blockers)
        self._drop(name, why=f"{live} has taken its place, and a person lets it go", check=check)

    def _drop(self, name: str, *, why: str, check: bool) -> None:
        self._outcome.plan = [PlanItem(f"database {name}", "drop", why, reversible=False)]
        self._outcome.before, self._outcome.after = {"databases": [name]}, {"databases": []}
        self._outcome.changed = True
        if not check:
            self._lock()
            self._refuse_strangers(name)
            self._outcome.write_attempted = True
            side.drop_database(self._session, name, end_sessions=True)
        self._outcome.summary = f"{'would drop' if check else 'dropped'} {name}"

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
        names = sorted(f"{schema_name}.{name}" for entries in places.values() for schema_name, name in entries)
        mark = side.Mark(source.run, options.live, side.RESTORED, tuple(names))
        copy, live = self.name_side(source.run), databases.get(options.live)
        if copy in databases:
            side.refuse_foreign(databases[copy], expected=mark)
            self._refuse_strangers(copy)
        if options.compare_with == "original" and live is None:
            raise Refusal(
                obj=f"database {options.live}",
                problem="it is not on this server, and compare_with is original",
                next_step="Set compare_with to backup, or correct login_db",
            )
        if options.state == side.LIVE:
            self._refuse_swap(databases, source, live)
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
        restore_rights.refuse_lacks(list(dict.fromkeys(lacks)), self._outcome.blockers)
        return Work(
            source, restorer, tools, schema, schema.name_copy(quote(copy)), mark, databases, missing, roles, places
        )

    def _refuse_swap(self, databases: dict[str, side.Database], source: Source, live: side.Database | None) -> None:
        """Refuse to put a copy in the place of a database that somebody uses, and where the original has no name to go to."""
        kept = self.name_kept(source.run)
        if kept in databases and live is not None:
            raise Refusal(
                obj=f"database {kept}",
                problem=f"there is one already, and {live.name} is not the copy that has taken its place",
                next_step="Look at both: one of them is an original of an earlier run. Rename or drop it by hand, and run again",
            )
        if live is not None and self._options.sessions == "refuse":
            side.refuse_sessions(self._session, live.name, self._outcome.blockers)

    def _refuse_strangers(self, name: str) -> None:
        """Refuse to drop or rename a copy that others than our own programs are connected to."""
        sessions = [
            entry
            for entry in side.list_sessions(self._session, name)
            if not entry.application.startswith(f"lowtide.ops {MODULE} ")
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

    def _lock(self) -> None:
        """Take the right to restore this database; it goes with the session."""
        key = side.find_lock_key(self._options.live)
        if AdvisoryLock(self._session, key).try_acquire():
            return
        holders = read_holders(self._session, key)
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
            items.append(
                PlanItem(f"database {copy}", "drop", "an interrupted run of this module left it", reversible=False)
            )
        if is_due:
            estimate = None if manifest is None else round(2 * (manifest.dump_seconds + manifest.verify_seconds), 1)
            what = f"restore {join_some(work.mark.tables)} beside" if work.mark.tables else "restore beside"
            what += " without the extension amcheck" if work.restorer.leaves_out_amcheck else ""
            items.append(PlanItem(f"database {copy}", what, f"there is no copy of {source.run}", estimate=estimate))
        if self._options.state == side.LIVE:
            kept = self.name_kept(source.run)
            live = self._options.live
            what = f"rename to {live}, and {live} to {kept}" if live in work.databases else f"rename to {live}"
            items.append(PlanItem(f"database {copy}", what, f"{live} is to be as backup {source.run} has it"))
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
            "compared": [],
            "not_compared": [],
            "differences": [],
            "restore_seconds": None,
            "compare_seconds": None,
        }

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
            side.drop_database(own, copy, end_sessions=True)
            self._outcome.changed = True
        quoted = quote(copy)
        side.create_database(own, work.statements.creating)
        self._outcome.changed = True
        mark = work.mark._replace(state=side.RESTORING)
        own.execute("BEGIN")
        for statement in work.statements.further:
            own.execute(statement)
        own.execute(f"ALTER DATABASE {quoted} CONNECTION LIMIT -1")
        side.set_mark(own, copy, mark, comment=side.read_databases(own, copy)[copy].comment)
        own.execute("COMMIT")
        data = None
        if work.places:
            work.restorer.restore_tables(copy, work.places)
        else:
            data = work.restorer.restore(copy)
            if source.manifest is not None:
                self._compare_counts(work, data)
        # Settings such as default_transaction_read_only, and a limit of connections, would be in the way before.
        own.execute("BEGIN")
        for statement in work.statements.properties:
            own.execute(statement)
        found = side.read_databases(own, copy)[copy]
        mark = work.mark._replace(oid=found.oid, system=own.server.system_identifier)
        side.set_mark(own, copy, mark, comment=found.comment)
        own.execute("COMMIT")
        self._outcome.facts["restore_seconds"] = round(time.monotonic() - started, 3)
        return data

    def _compare_counts(self, work: Work, data: Data) -> None:
        """Compare the rows in the dump with what was counted when the backup was made."""
        for entry in work.source.read_tables():
            name = f"{entry['schema']}.{entry['name']}"
            count = data.rows.get(name, compare.NO_ROWS).number
            if count != entry["rows"]:
                raise OpsError(
                    obj=work.source.url,
                    problem=f"table {name} has {count} rows, {entry['rows']} were recorded",
                    next_step="Use another backup; find out what altered this one",
                )

    def _compare(self, work: Work, *, data: Data | None = None) -> None:
        """Compare the copy with the dump, and with the original if asked; each difference is named."""
        started = time.monotonic()
        own, copy = self._options, self.name_side(work.source.run)
        facts = self._outcome.facts
        schema, actual = dump_database(work.tools, copy)
        expected = data or work.restorer.read_data()
        self._compare_with(
            f"backup {work.source.run}",
            work.schema,
            compare.select_tables(expected, work.mark.tables) if work.mark.tables else expected,
            schema,
            compare.select_tables(actual, work.mark.tables) if work.mark.tables else actual,
            is_partial=bool(work.mark.tables),
        )
        if work.mark.tables:
            actual = compare.select_tables(actual, work.mark.tables)
        if own.compare_with == "original":
            original_schema, original = dump_database(work.tools, own.live)
            if work.mark.tables:
                original = compare.select_tables(original, work.mark.tables)
            self._compare_with(
                f"original {own.live}", original_schema, original, schema, actual, is_partial=bool(work.mark.tables)
            )
        facts["rows"] = sum(rows.number for rows in actual.rows.values())
        facts["tables"] = len(actual.rows)
        facts["compare_seconds"] = round(time.monotonic() - started, 3)

    def _note_compared(self, work: Work, *, is_equal: bool) -> None:
        """Note on the copy that it is equal to its backup, or no more: others rely on it (corruption_triage)."""
        found = side.read_databases(self._session, self.name_side(work.source.run)).get(self.name_side(work.source.run))
        mark = None if found is None else found.mark
        if found is None or mark is None or bool(mark.since) == is_equal:
            return
        since = side.read_time(self._session) if is_equal else ""
        side.set_mark(self._session, found.name, mark._replace(since=since), comment=found.comment)

    def _compare_with(
        self, what: str, schema: Schema, data: Data, own_schema: Schema, own: Data, *, is_partial: bool
    ) -> None:
        """Compare with one other, and raise with the names of all that differs."""
        facts = self._outcome.facts
        differences = compare.compare_data(data, own)
        parts = ["rows"] if is_partial else ["rows", "sequences", "large objects"]
        versions = [(which.server_version, which.program_version) for which in (schema, own_schema)]
        if is_partial:
            facts["not_compared"].append(f"{what}: definitions, since only some tables were asked for")
        elif versions[0] == versions[1]:
            differences += compare.compare_schemas(schema, own_schema)
            parts += ["definitions", "owners", "grants", "extensions"]
        else:
            facts["not_compared"].append(
                f"{what}: definitions, owners, grants and extensions, since they are of PostgreSQL {versions[0][0]}"
                f" (pg_dump {versions[0][1]}) there and {versions[1][0]} (pg_dump {versions[1][1]}) here"
            )
        facts["compared"].append(f"{what}: {', '.join(parts)}")
        if differences:
            facts["differences"] = compare.report(differences)
            raise OpsError(
                obj=f"database {facts['database']}",
                problem=f"{format_count(len(differences), 'difference')} from {what}: {compare.describe(differences)}",
                next_step="It has not taken the live name. Find out who has changed it; remove it with state: absent, and"
                " restore again",
            )

    def _swap(self, work: Work) -> None:
        """Have the copy take the live name, and the original the name under which it is kept."""
        own, source = self._options, work.source
        databases = self._read_names(source)
        live, copy = databases.get(own.live), databases[self.name_side(source.run)]
        self._refuse_swap(databases, source, live)
        swap = side.Swap(
            live=own.live,
            side=copy.name,
            kept=self.name_kept(source.run),
            mark=work.mark,
            connection_limit=copy.connection_limit if live is None else live.connection_limit,
            allows_connections=live is None or live.allows_connections,
        )
        self._outcome.write_attempted = True
        if own.sessions == "end" and live is not None:
            with Session(self._settings, module=MODULE, run_id=self._run_id) as end:
                side.swap_databases(self._session, swap, has_original=True, end=end)
        else:
            side.swap_databases(self._session, swap, has_original=live is not None, end=None)
        self._outcome.changed = True
        self._outcome.facts |= {"database": own.live, "kept": None if live is None else swap.kept}
