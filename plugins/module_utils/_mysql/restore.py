# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Restore a backup beside a database, compare it, and bring it into place.

Private to lowtide.ops: do not import from other collections.
"""

from __future__ import annotations

import typing as t
from dataclasses import dataclass, replace

from .._backup import keys
from .._backup.catalogue import Examined, Manifests, Run, examine, group
from .._backup.pipeline import Pipeline
from .._backup.verify import verify_small
from .._common.errors import OpsError, Refusal
from .._common.outcome import PlanItem
from .._common.retry import Deadline
from .._common.text import format_count, join_some
from . import programs, schema
from .backup import decode_dump
from .connection import quote_name
from .dump_text import DumpText
from .locks import NamedLock, end_orphans, find_use
from .manifest import (
    DUMP,
    LAYOUT,
    Contents,
    MySqlManifest,
    compare_dump,
    explain_other_server,
    read_contents,
    read_manifest,
)
from .move import Move, refuse_unclear, refuse_untrusted
from .restore_state import (
    ADD_SCRIPT,
    BESIDE_SUFFIX,
    BOOK,
    CONTENTS,
    LOADING,
    MANIFEST,
    MOVED,
    MOVING,
    ORIGINAL_SUFFIX,
    READ_SCRIPTS,
    RESTORED,
    Database,
    Note,
    Todo,
    decide,
    is_kept_of,
    read_note,
)

if t.TYPE_CHECKING:
    from .._common.outcome import Outcome
    from .._s3.bucket import Bucket
    from .connection import Session


_HAS_TABLE = "SELECT 1 FROM information_schema.TABLES WHERE TABLE_SCHEMA = %s AND TABLE_NAME = %s"
_COUNT = "SELECT COUNT(*) AS rows_now FROM {table}"


@dataclass(frozen=True)
class RestoreOptions:
    """What the module was asked for; ``backup`` is a run's name, None for the newest verified one."""

    database: str
    state: str
    backup: str | None
    compare_live: bool
    timeout: int
    bin_dir: str | None
    is_server_declared: bool = False


class Restore:
    """The work of one run of mysql_restore."""

    def __init__(
        self,
        *,
        session: Session,
        bucket: Bucket,
        place: keys.Place,
        options: RestoreOptions,
        outcome: Outcome,
        warn: t.Callable[[str], None],
    ) -> None:
        self._session = session
        self._bucket = bucket
        self._place = place
        self._options = options
        self._outcome = outcome
        self._warn = warn
        self._deadline = Deadline(options.timeout)
        self._beside = options.database + BESIDE_SUFFIX
        self._kept = options.database + ORIGINAL_SUFFIX

    def ensure(self, *, check: bool) -> None:
        """Find the backup, decide, and unless ``check`` restore, compare and move."""
        schema.refuse_replica(self._session)
        self._take_lock(check=check)  # before anything is decided by what another run may be changing
        beside, kept = self._read(self._beside), self._read(self._kept)
        self._outcome.facts |= {
            "beside": self._beside,
            "original": self._kept,
            "differences": [],
            "not_compared": [],
            "inactive_events": [],
        }
        if self._options.state == "absent":
            self._remove(beside, kept, check=check)
        else:
            self._restore(beside, kept, check=check)

    def _take_lock(self, *, check: bool) -> None:
        lock = NamedLock(self._session, self._options.database, "restore")
        holder = lock.holder() if check else lock.take()
        if holder is not None:
            self._outcome.blockers.append(holder)
            raise Refusal(obj=holder.object, problem=f"{holder.what}: {holder.holder}", next_step=holder.next_step)

    def _restore(self, beside: Database | None, kept: Database | None, *, check: bool) -> None:
        noted = self._read_noted(beside, kept)
        examined = self._find(beside) if noted is None else None
        manifest = read_manifest(noted[MANIFEST]) if noted else t.cast("MySqlManifest", examined and examined.manifest)
        todo = decide(
            state=self._options.state,
            database=self._options.database,
            backup=(self._options.backup or manifest.run_id) if noted else manifest.run_id,
            beside=beside,
            kept=kept,
            has_tables=bool(schema.list_tables(self._session, self._options.database)),
        )
        self._outcome.facts |= {
            "backup": manifest.run_id,
            "taken_at": manifest.taken_at.strftime("%Y-%m-%dT%H:%M:%SZ"),
        }
        self._plan(todo, manifest)
        found = programs.find_programs(self._options.bin_dir, deadline=self._deadline)
        if examined is not None:
            part = examined.run.parts[keys.TABLES].key
            noted = {
                MANIFEST: manifest.to_json(),
                CONTENTS: verify_small(self._bucket, part, manifest.parts[keys.TABLES]),
            }
        documents = noted or {}
        contents = read_contents(documents[CONTENTS])
        if todo.is_in_place:
            self._look_in_place(contents, manifest.run_id)
        if not check:
            self._end_orphans(todo)
        move = self._make_move(manifest.run_id, found)
        if todo.load or todo.move:
            refuse_untrusted(self._session, contents)
        if todo.move and not (todo.is_resumed and move.is_renamed()):
            if check:
                # Their clients are stopped between the rehearsal, or a window's plan, and the run.
                self._warn_used()
                move.refuse_breaking(contents)
            else:
                move.refuse_unfit(contents)
        if check:
            self._outcome.changed = todo.discard or todo.load or todo.move
        else:
            self._act(todo, examined, manifest, found=found, move=move, documents=documents)
        self._summarize(todo, manifest, check=check)

    def _warn_used(self) -> None:
        """Say who uses the database now, which the run itself refuses."""
        use = find_use(self._session, self._options.database, self._outcome.blockers)
        if use:
            self._warn(
                f"database {self._options.database} on {self._session.settings.target}: {use}. It is not moved while it"
                " is in use: stop its clients (role shutdown) before the run"
            )

    def _read_noted(self, beside: Database | None, kept: Database | None) -> dict[str, bytes] | None:
        """Return what a move that has begun, or has been done, has noted of the backup; None where none has.

        Such a run does not ask for the backup, which may have been removed meanwhile.
        """
        own = self._options
        is_begun = beside is not None and beside.note is not None and beside.note.phase in (MOVING, MOVED)
        is_done = own.state == "in_place" and beside is None and is_kept_of(kept, own.database, own.backup)
        if not is_begun and not is_done:
            return None
        for database in (self._beside, self._kept):
            if self._session.query(_HAS_TABLE, [database, BOOK]):
                book = f"{quote_name(database)}.{quote_name(BOOK)}"
                rows = self._session.query(READ_SCRIPTS.format(book=book), ["backup"])
                noted = {row["name"]: bytes(row["script"]) for row in rows}
                return noted if {MANIFEST, CONTENTS} <= set(noted) else None
        return None

    def _look_in_place(self, contents: Contents, backup: str) -> None:
        """Refuse to call a restore fulfilled of which tables are gone; rows may have changed since, rightly."""
        own = self._options
        expected = {*contents.tables, *(name for kind, name in contents.definitions if kind == "SEQUENCE")}
        missing = sorted(expected - set(schema.list_tables(self._session, own.database)))
        if missing:
            raise Refusal(
                obj=f"database {own.database}",
                problem=f"backup {backup} was brought into its place before, and"
                f" {format_count(len(missing), 'table')} of it {'is' if len(missing) == 1 else 'are'} not there any"
                f" more: {join_some(missing)}",
                next_step="Restore it beside (state: beside), and copy what is needed from there; or, when nobody needs"
                f" the original any more, let it go (DROP DATABASE `{self._kept}`), and bring it into place once more",
            )
        self._outcome.evidence.append(
            f"{own.database}: all of the {format_count(len(expected), 'table')} of backup {backup} are there; their"
            " rows were not compared, since they may have been changed since"
        )

    def _make_move(self, backup: str, found: programs.Programs) -> Move:
        return Move(
            self._session,
            found,
            database=self._options.database,
            beside=self._beside,
            kept=self._kept,
            backup=backup,
            deadline=self._deadline,
            outcome=self._outcome,
        )

    def _remove(self, beside: Database | None, kept: Database | None, *, check: bool) -> None:
        """Remove what is beside, and give up a move whose tables have not been renamed; neither needs the backup."""
        database = self._options.database
        backup = beside.note.backup if beside is not None and beside.note is not None else ""
        todo = decide(state="absent", database=database, backup=backup, beside=beside, kept=kept, has_tables=False)
        self._outcome.facts["backup"] = backup or None
        self._outcome.before = {self._beside: backup or None}
        self._outcome.after = {self._beside: None}
        move: Move | None = None
        if not check:
            self._end_orphans(todo)
        if todo.undo:
            move = self._make_move(backup, programs.find_programs(self._options.bin_dir, deadline=self._deadline))
            move.refuse_renamed()
            words = "make again what an interrupted restore has dropped of it: triggers, views, events"
            self._outcome.plan.append(PlanItem(f"database {database}", words, "its tables have not been moved"))
        if todo.discard:
            self._plan_drop()
        if check:
            self._outcome.changed = todo.discard
        else:
            if move is not None:
                move.undo()
            if todo.discard:
                self._write(f"DROP DATABASE {quote_name(self._beside)}")
        words = f"{'would remove' if check else 'removed'} {self._beside}" if todo.discard else "nothing to remove"
        self._outcome.summary = words + (f"; {database} is the original, which was not moved" if todo.undo else "")

    def _end_orphans(self, todo: Todo) -> None:
        """End what a killed run has left at work, before the database is in use by it, or dropped under it."""
        if todo.discard or todo.is_resumed:
            live = self._options.database if todo.is_resumed or todo.undo else None
            ended = end_orphans(self._session, [self._beside, self._kept], live=live, deadline=self._deadline)
            if ended:
                words = f"{self._options.database}: {format_count(ended, 'session')} of this account ended"
                self._outcome.evidence.append(f"{words}, which a killed run had left")

    def _plan_drop(self) -> None:
        self._outcome.plan.append(
            PlanItem(f"database {self._beside}", "drop", "an earlier restore has made it", reversible=False)
        )

    def _read(self, name: str) -> Database | None:
        found = schema.read_schema(self._session, name)
        return None if found is None else Database(name, read_note(found.comment))

    def _find(self, beside: Database | None) -> Examined:
        """Find the backup: the one that was asked for, or that is restored beside, or the newest that counts.

        What is half loaded is discarded in any case, and does not say which.
        """
        runs = group(self._bucket.list_objects(self._place.root), self._place.prefix, LAYOUT)
        note = beside.note if beside is not None else None
        noted = note.backup if note is not None and note.phase != LOADING else None
        name = self._options.backup or noted
        bad: list[str] = []
        manifests = Manifests(self._bucket, read_manifest)
        is_any = name is not None or self._options.is_server_declared
        identity = None if is_any else schema.read_identity(self._session)
        for run in runs:
            if run.is_unfinished or (name is not None and run.run_id != name):
                continue
            examined = examine(manifests, run)
            problem = examined.problem
            if examined.verified:
                problem = explain_other_server(identity, t.cast("MySqlManifest", examined.manifest))
                if problem is None:
                    return examined
            bad.append(f"{run.run_id}: {problem}")
        raise Refusal(
            obj=self._place.url(),
            problem=(f"there is no verified backup {name}" if name else "there is no verified backup")
            + (f" ({join_some(bad)})" if bad else ""),
            next_step="Correct bucket, prefix, database, server and backup, or make one with lowtide.ops.mysql_backup",
        )

    def _plan(self, todo: Todo, manifest: MySqlManifest) -> None:
        """Tell what is to be done, in order."""
        why = f"of backup {manifest.run_id}"
        plan = self._outcome.plan
        if todo.discard:
            self._plan_drop()
        if todo.load:
            words = f"create, load {format_count(manifest.tables, 'table')}, compare with the backup"
            plan.append(PlanItem(f"database {self._beside}", words, why, estimate=round(2 * manifest.dump_seconds, 1)))
        if todo.move:
            words = f"move its tables to {self._kept}, and those of {self._beside} into their place"
            plan.append(PlanItem(f"database {self._options.database}", words, why))
        is_beside = not (todo.load or todo.discard) and self._options.state == "beside"
        backup = manifest.run_id
        self._outcome.before = {
            self._beside: backup if is_beside else "another or none" if todo.discard else None,
            self._options.database: backup if todo.is_in_place else "the original",
        }
        self._outcome.after = {
            self._beside: backup if self._options.state == "beside" else None,
            self._options.database: backup if todo.is_in_place or todo.move else "the original",
        }

    def _act(
        self,
        todo: Todo,
        examined: Examined | None,
        manifest: MySqlManifest,
        *,
        found: programs.Programs,
        move: Move,
        documents: t.Mapping[str, bytes],
    ) -> None:
        """Do what is to be done; ``examined`` is None where an interrupted move goes on."""
        contents = read_contents(documents[CONTENTS])
        if todo.discard:
            self._write(f"DROP DATABASE {quote_name(self._beside)}")
        if todo.is_in_place:
            return
        if todo.load and examined is not None:
            self._load(manifest, examined.run, found)
        if not todo.is_resumed:
            self._compare(contents, manifest, found)
        if todo.move:
            if not todo.is_resumed:
                move.refuse_unfit(contents)  # who uses it now; to load and to compare may have taken hours
            move.run(contents, documents, charset=manifest.charset, collation=manifest.collation)

    def _write(self, statement: str) -> None:
        self._outcome.write_attempted = True
        self._session.execute(statement)
        self._outcome.changed = True

    def _load(self, manifest: MySqlManifest, run: Run, found: programs.Programs) -> None:
        """Stream the backup into a new database. Events are withheld, since they would run beside the original's."""
        name = quote_name(self._beside)
        note = Note(manifest.run_id, self._options.database, LOADING)
        comment = self._session.connection.escape(note.to_comment())
        self._write(
            f"CREATE DATABASE {name} CHARACTER SET {manifest.charset} COLLATE {manifest.collation} COMMENT {comment}"
        )
        self._write(
            f"CREATE TABLE {name}.{quote_name(BOOK)} (owner varchar(8) NOT NULL, kind varchar(16) NOT NULL,"
            " name varchar(64) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL, script longblob NOT NULL,"
            " place bigint NOT NULL AUTO_INCREMENT UNIQUE, PRIMARY KEY (owner, kind, name)) ENGINE=InnoDB"
        )
        dump, listed = DumpText(), run.parts[DUMP]
        with programs.option_file(self._session.settings) as descriptor:
            command = replace(
                programs.client_command(found, descriptor, self._beside),
                next_step="The original is untouched. Correct what the message names, and run again:"
                f" {self._beside} is made anew",
            )
            with Pipeline([command], deadline=self._deadline, feed=True) as client:
                is_fed = True

                def take(chunk: bytes) -> None:
                    nonlocal is_fed
                    lines = b"".join(dump.feed(chunk))
                    if is_fed:
                        try:
                            client.stdin.write(lines)
                        except (BrokenPipeError, ValueError):
                            is_fed = False  # the client gave up: its message says why

                try:
                    decode_dump(
                        self._bucket,
                        listed.key,
                        manifest.parts[DUMP],
                        zstd=found.zstd,
                        dump=dump,
                        deadline=self._deadline,
                        take=take,
                    )
                except OpsError:
                    client.stop()
                    raise
                client.finish()
        refuse_unclear(dump, f"backup {manifest.run_id}", f"{self._options.database} is untouched")
        with self._session.connection.cursor() as cursor:
            cursor.executemany(
                ADD_SCRIPT.format(book=f"{name}.{quote_name(BOOK)}"),
                [("restored", kind, own, script) for (kind, own), script in dump.scripts.items()],
            )
        self._write(
            f"ALTER DATABASE {name} CHARACTER SET {manifest.charset} COLLATE {manifest.collation} COMMENT"
            f" {self._session.connection.escape(replace(note, phase=RESTORED).to_comment())}"
        )

    def _compare(self, contents: Contents, manifest: MySqlManifest, found: programs.Programs) -> None:
        """Dump what was restored and compare it with the backup; then say how it differs from the database in use.

        Other versions of server or mariadb-dump word the same definition otherwise: how it is worded is compared only
        where they are those of the backup.
        """
        dump = dump_text(
            self._session,
            found,
            self._beside,
            deadline=self._deadline,
            options=(f"--ignore-table={self._beside}.{BOOK}",),
        )
        compared = compare_dump(contents, dump, with_events=False)
        made_by = manifest.server_version, manifest.client_version
        is_same = made_by == (self._session.server.version, found.version)
        differences = [str(one) for one in compared if is_same or one.how != "text"]
        if differences:
            self._outcome.facts["differences"] = differences
            raise OpsError(
                obj=f"database {self._beside}",
                problem=f"it is not what the backup has: {join_some(differences, limit=10)}",
                next_step=f"{self._options.database} is untouched. Find out who has changed it; remove it by state"
                " absent, and run again",
            )
        self._outcome.evidence.append(
            f"{self._beside}: {dump.rows} rows of {format_count(len(dump.tables), 'table')} and"
            f" {format_count(len(dump.scripts), 'definition')} are those of the backup"
        )
        worded = [str(one) for one in compared if one.how == "text"]
        if worded:
            self._outcome.facts["not_compared"] = worded
            self._outcome.evidence.append(
                f"{self._beside}: worded otherwise, so that it is not known whether it is the same:"
                f" {join_some(worded)}; the backup is of server {made_by[0]} and mariadb-dump {made_by[1]}, this is"
                f" server {self._session.server.version} and mariadb-dump {found.version}"
            )
        if self._options.compare_live and schema.read_schema(self._session, self._options.database) is not None:
            self._outcome.facts["live_differences"] = self._compare_live(contents)

    def _compare_live(self, contents: Contents) -> list[str]:
        """Return how the database in use differs from what was restored: rows and CHECKSUM TABLE of each table."""
        live, beside = quote_name(self._options.database), quote_name(self._beside)
        names = {
            row["name"]
            for row in self._session.query(
                "SELECT TABLE_NAME AS name FROM information_schema.TABLES"
                " WHERE TABLE_SCHEMA = %s AND TABLE_TYPE = 'BASE TABLE'",
                [self._options.database],
            )
        }
        differences = [f"table {name} is not in the backup" for name in sorted(names - set(contents.tables))]
        for name in sorted(contents.tables):
            if name not in names:
                differences.append(f"table {name} is only in the backup")
                continue
            table = quote_name(name)
            rows = self._session.query(f"CHECKSUM TABLE {live}.{table}, {beside}.{table}")
            if rows[0]["Checksum"] != rows[1]["Checksum"]:
                count = self._session.query(_COUNT.format(table=f"{live}.{table}"))[0]["rows_now"]
                differences.append(f"table {name} has {count} rows, the backup {contents.tables[name][0]}: others")
        return differences

    def _summarize(self, todo: Todo, manifest: MySqlManifest, *, check: bool) -> None:
        own = self._options
        would = "would " if check else ""
        if todo.is_in_place:
            words = f"{own.database} is restored from backup {manifest.run_id} already; the original is {self._kept}"
        elif todo.move:
            verb = "restore" if check else "restored"
            words = f"{would}{verb} {own.database} from backup {manifest.run_id}; the original is kept as {self._kept}"
        elif todo.load:
            verb = "restore" if check else "restored"
            words = f"{would}{verb} backup {manifest.run_id} as {self._beside}; {own.database} is untouched"
        else:
            words = f"backup {manifest.run_id} is restored as {self._beside} already; {own.database} is untouched"
        self._outcome.summary = words


def dump_text(
    session: Session, found: programs.Programs, database: str, *, deadline: Deadline, options: tuple[str, ...]
) -> DumpText:
    """Dump a database of the server and return what is in it."""
    dump = DumpText()
    with programs.option_file(session.settings) as descriptor:
        command = programs.dump_command(found, descriptor, database, options=options)
        with Pipeline([command], deadline=deadline, collect=True) as pipeline:
            while chunk := pipeline.stdout.read(1 << 20):
                dump.feed(chunk)
            pipeline.finish()
    dump.finish()
    problem = dump.explain_end()
    if problem is not None:
        raise OpsError(
            obj=f"database {database}",
            problem=f"its dump cannot be read: {problem}",
            next_step="Report this with the version of mariadb-dump",
        )
    return dump
