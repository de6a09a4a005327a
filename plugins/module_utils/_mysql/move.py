# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Bring a restored database into place, and keep the original.

Tables are renamed, all of both databases in one atomic statement. What a rename cannot carry to another database
(triggers, views, events) is dropped before and made anew after it, by scripts that were noted first; routines are
replaced, since a routine that is dropped takes the rights on it along. Every step can be done twice, so that a run
which follows a killed one completes it. Before the rename it can be given up.
Private to lowtide.ops: do not import from other collections.
"""

from __future__ import annotations

import typing as t

from .._backup.pipeline import Pipeline
from .._common.errors import OpsError, Refusal
from .._common.outcome import Blocker
from .._common.retry import Deadline
from .._common.text import format_count, join_some
from . import programs, schema
from .connection import quote_name
from .definitions import ORDER, ROUTINES, lacks_what_it_needs, rank, word_replacement
from .dump_text import DumpText
from .errors import read_code
from .events import explain_inactive, read_event
from .locks import name_client, refuse_used
from .manifest import compare_dump
from .restore_state import (
    ADD_SCRIPT,
    BOOK,
    KEPT,
    MOVED,
    MOVING,
    READ_SCRIPTS,
    REMOVE_SCRIPTS,
    RESTORED,
    Note,
    read_note,
    refuse_interrupted,
)

if t.TYPE_CHECKING:
    from .._common.outcome import Outcome
    from .connection import Session
    from .dump_text import Key
    from .manifest import Contents, Difference

# By the names of InnoDB, since this account may not see the tables of other databases.
_FOREIGN_KEYS = """
SELECT FOR_NAME AS child, REF_NAME AS parent FROM information_schema.INNODB_SYS_FOREIGN
"""
_TRANSACTIONS = """
SELECT p.ID AS id, p.USER AS user, p.HOST AS host, t.trx_started AS started
  FROM information_schema.INNODB_TRX t JOIN information_schema.PROCESSLIST p ON p.ID = t.trx_mysql_thread_id
 WHERE p.ID <> CONNECTION_ID() ORDER BY t.trx_started
"""
_VIEWS = "SELECT TABLE_NAME AS name FROM information_schema.VIEWS WHERE TABLE_SCHEMA = %s ORDER BY TABLE_NAME"
LOCK_TIMEOUT = 1205
MAKE_AGAIN_SECONDS = 60
"""For so long it is tried to make again what was dropped, while a transaction holds a table that it belongs to."""
INVALID_VIEW = 1356
_ENDED = "SELECT CONVERT_TZ(%s, %s, '+00:00') <= UTC_TIMESTAMP() AS ended"


def refuse_unclear(dump: DumpText, obj: str, untouched: str) -> None:
    """Refuse triggers of which it is not known whether they would be made in another database than their own."""
    if dump.unclear:
        raise OpsError(
            obj=obj,
            problem=f"the text of its triggers may name a database: {join_some(sorted(dump.unclear))}",
            next_step=f"{untouched}. Make these triggers anew without the name of the database and comments before FOR"
            " EACH ROW; to restore this backup, use mariadb by hand on another server",
        )


def refuse_untrusted(session: Session, contents: Contents) -> None:
    """Refuse an account that the server does not let make triggers and functions, where the backup has some."""
    kinds = {kind for kind, _name in contents.definitions} & {"TRIGGER", "FUNCTION"}
    row = session.query("SELECT @@log_bin AS log_bin, @@log_bin_trust_function_creators AS trusts")[0]
    if not kinds or not row["log_bin"] or row["trusts"]:
        return
    grants = [str(next(iter(grant.values()))) for grant in session.query("SHOW GRANTS")]
    if schema.find_rights(grants, "")[2] & {"SUPER", "ALL PRIVILEGES"}:
        return
    raise Refusal(
        obj=session.settings.target,
        problem=f"this account may not make what the backup has ({join_some(sorted(kinds)).lower()}s): the binary log"
        " is on, and log_bin_trust_function_creators is OFF",
        next_step="SET GLOBAL log_bin_trust_function_creators = ON (an administrator; OFF afterwards), and run again",
    )


class Move:
    """One move of the tables of ``beside`` into ``database``, whose own go to ``kept``."""

    def __init__(
        self,
        session: Session,
        found: programs.Programs,
        *,
        database: str,
        beside: str,
        kept: str,
        backup: str,
        deadline: Deadline,
        outcome: Outcome,
    ) -> None:
        self._session = session
        self._programs = found
        self._database = database
        self._beside = beside
        self._kept = kept
        self._backup = backup
        self._deadline = deadline
        self._outcome = outcome

    def refuse_unfit(self, contents: Contents) -> None:
        """Refuse while sessions use the database, and what the move would break: foreign keys, definers.

        Of an interrupted move too, as long as its tables have not been renamed: clients may have been started again.
        """
        is_begun = self._is_begun()
        self._refuse_used(
            "nothing has been moved"
            + (
                ". Its triggers, views and events may be dropped already: state absent makes them again, and"
                f" removes {self._beside}"
                if is_begun
                else ""
            )
        )
        self.refuse_breaking(contents)

    def refuse_breaking(self, contents: Contents) -> None:
        """Refuse what the move would break, whoever uses the database: foreign keys, definers, broken views."""
        obj = f"database {self._database} on {self._session.settings.target}"
        noted = self._scripts("original") if self._is_begun() else {}
        broken = [name for name in self._list_broken_views() if ("VIEW", name) not in noted]
        if broken:
            raise Refusal(
                obj=obj,
                problem="views of it cannot be used any more, so that mariadb-dump cannot note how they are made:"
                f" {join_some(broken)}",
                next_step="Keep their text if it is needed (SHOW CREATE VIEW), drop them, and run again; the restore"
                " makes those of the backup",
            )
        own = f"{self._encode(self._database)}/"
        children = [
            row["child"]
            for row in self._session.query(_FOREIGN_KEYS)
            if row["parent"].startswith(own) and not row["child"].startswith(own)
        ]
        if children:
            raise Refusal(
                obj=obj,
                problem="foreign keys of other databases refer to it, and would go with the original:"
                f" {join_some(children)}",
                next_step="Drop these foreign keys, and make them anew after the restore",
            )
        accounts = {
            f"{row['User']}@{row['Host']}" if row["Host"] else row["User"]
            for row in self._session.query("SELECT User, Host FROM mysql.user")
        }
        missing = sorted(set(contents.definers) - accounts)
        if missing:
            raise Refusal(
                obj=obj,
                problem=f"definers of the backup are no accounts of this server: {join_some(missing)}",
                next_step="Create them (CREATE USER), since what they define could not be executed",
            )

    def _refuse_used(self, then: str) -> None:
        refuse_used(self._session, self._database, self._outcome.blockers, then=then)

    def _list_broken_views(self) -> list[str]:
        """Return the views that refer to what is not there, which the server tells only when they are opened."""
        broken: list[str] = []
        for row in self._session.query(_VIEWS, [self._database]):
            try:
                self._session.query(f"SHOW FIELDS FROM {quote_name(self._database)}.{quote_name(row['name'])}")
            except OpsError as error:
                if read_code(error.__cause__ or error) != INVALID_VIEW:
                    raise
                broken.append(row["name"])
        return broken

    def _encode(self, name: str) -> str:
        """Return a database's name as InnoDB has it."""
        row = self._session.query("SELECT CAST(CONVERT(%s USING filename) AS BINARY) AS name", [name])[0]
        return bytes(row["name"]).decode()

    def is_renamed(self) -> bool:
        """Return whether the tables are in place already, so that the move can only be completed."""
        phase = self._phase() if self._is_begun() else None
        return phase == MOVED or (phase == MOVING and not self._list_beside())

    def refuse_renamed(self) -> None:
        """Refuse to give up a move that can only be completed, or of which somebody else has done a part."""
        if self.is_renamed():
            raise refuse_interrupted(self._database, self._backup)
        moved = schema.list_tables(self._session, self._kept)
        if moved:
            raise Refusal(
                obj=f"database {self._kept}",
                problem=f"it has tables ({join_some(moved)}), though no restore has moved those of {self._database}",
                next_step=f"Look at both. Rename them back, or drop {self._kept} if nobody needs it, and run again",
            )

    def undo(self) -> None:
        """Make again what an interrupted move has dropped of the original, which is in place still."""
        self._session.execute(f"SET SESSION lock_wait_timeout={programs.LOCK_WAIT}")
        self._outcome.write_attempted = True
        names = self._make_again()
        self._drop_empty()
        self._outcome.evidence.append(
            f"{self._database}: its tables were not moved; made again: {join_some(names, limit=20)}"
            if names
            else f"{self._database}: its tables were not moved, and nothing of it was dropped"
        )

    def _drop_empty(self) -> None:
        """Drop the database for the original that this move has made, and moved nothing into."""
        kept = schema.read_schema(self._session, self._kept)
        note = None if kept is None else read_note(kept.comment)
        if note is not None and note.of == self._database and not schema.list_tables(self._session, self._kept):
            self._execute(f"DROP DATABASE {quote_name(self._kept)}")

    def _make_again(self) -> list[str]:
        """Make what is noted of the original, and is not there, and return what that was."""
        self._drop_broken()
        there = set(self._dump_definitions(self._database).scripts)
        lost: list[Key] = []
        made = self._make(
            self._database, "original", ORDER, without=there, stage="Its tables were not moved", lost=lost
        )
        self._tell_lost(self._database, lost)
        return [f"{kind.lower()} {name}" for kind, name in made]

    def _tell_lost(self, database: str, lost: t.Sequence[Key]) -> None:
        """Say what was noted of the original and cannot be made, since somebody has dropped what it needs."""
        if lost:
            self._outcome.evidence.append(
                f"{database}: not made again, since what they need is not there any more:"
                f" {join_some([f'{kind.lower()} {name}' for kind, name in lost], limit=20)}"
            )

    def _begin_anew(self) -> None:
        """Make the copy beside whole again, and note that no move has begun: the database may be changed by now."""
        there = set(self._dump_definitions(self._beside).scripts)
        self._make(self._beside, "restored", ORDER[:-1], without=there, stage="Its tables were not moved")
        self._drop_empty()
        self._note(self._beside, RESTORED)

    def _drop_broken(self) -> None:
        """Drop noted views that read another one which is dropped already: mariadb-dump ends at them."""
        noted = self._scripts("original")
        self._drop(self._database, [key for name in self._list_broken_views() if (key := ("VIEW", name)) in noted])

    def run(self, contents: Contents, documents: t.Mapping[str, bytes], *, charset: str, collation: str) -> None:
        """Do what has not been done yet of the move, and read back what is there."""
        self._session.execute(f"SET SESSION lock_wait_timeout={programs.LOCK_WAIT}")
        if self._phase() != MOVED:
            self._refuse_locked()
        self._outcome.write_attempted = True
        if not self.is_renamed():
            self._begin(charset, collation, documents)
        self._ensure_database(self._kept, charset, collation)
        if self._phase() == MOVING:
            try:
                self._rename()
            except OpsError as error:
                raise _add_step(error, self._give_back()) from error
        try:
            self._complete(contents, charset, collation)
        except OpsError as error:
            raise _add_step(error, self._word_incomplete()) from error
        self._note(self._kept, KEPT)
        self._execute(f"DROP DATABASE {quote_name(self._beside)}")

    def _give_back(self) -> str:
        """Make again what was dropped for a rename that did not come about, and say what is there now.

        What kept the rename from its lock may keep this from it as well; so it is tried for a while.
        """
        end = Deadline(min(MAKE_AGAIN_SECONDS, max(1, int(self._deadline.remaining))))
        is_known = False
        while True:
            try:
                if self.is_renamed():
                    return self._word_incomplete()
                is_known = True
                made = self._make_again()
            except OpsError as error:
                if not is_known:
                    return (
                        f"Whether the tables of {self._database} were moved is not known ({error.problem}): keep its"
                        " clients stopped, and run again, which completes the move or begins it anew"
                    )
                if end.passed or str(LOCK_TIMEOUT) not in error.problem:
                    return (
                        f"Nothing has been moved, and triggers, views or events of {self._database} are missing, since"
                        f" they could not be made again ({error.problem}): keep its clients stopped, and run again; or"
                        " state absent makes them again"
                    )
                continue
            words = f"Nothing has been moved; what was dropped of {self._database} is made again"
            words += f": {join_some(made, limit=20)}" if made else ""
            try:
                self._begin_anew()
            except OpsError as error:
                words += (
                    f". {self._beside} is not whole again ({error.problem}): before {self._database} is changed, run"
                    " again, or remove the copy (state: absent)"
                )
            return words

    def _word_incomplete(self) -> str:
        return (
            f"Until a run completes it, {self._database} has the restored tables, and triggers, views or events may be"
            " missing: keep its clients stopped"
        )

    def _complete(self, contents: Contents, charset: str, collation: str) -> None:
        """Make what a rename does not carry, in both databases; nothing is to be done where the book has gone on."""
        if self._find_book() is not None:
            name = quote_name(self._database)
            self._execute(f"ALTER DATABASE {name} CHARACTER SET {charset} COLLATE {collation}")
            self._make(self._database, "restored", ORDER)
            lost: list[Key] = []
            self._make(self._kept, "original", ORDER[:-1], lost=lost)
            self._tell_lost(self._kept, lost)
            self._drop_surplus()
            self._check(contents)
            self._execute(
                f"RENAME TABLE {quote_name(self._beside)}.{quote_name(BOOK)}"
                f" TO {quote_name(self._kept)}.{quote_name(BOOK)}"
            )

    def _refuse_locked(self) -> None:
        """Refuse while a transaction holds one of the tables, of whatever database its session is."""
        names = schema.list_tables(self._session, self._database)
        if not names:
            return
        tables = ", ".join(f"{quote_name(self._database)}.{quote_name(name)} WRITE" for name in names)
        try:
            self._session.execute(f"LOCK TABLES {tables}")
        except OpsError as error:
            if read_code(error.__cause__ or error) != LOCK_TIMEOUT:
                raise
            holders = self._session.query(_TRANSACTIONS)
            self._outcome.blockers += [
                Blocker(
                    object=f"connection {row['id']}",
                    what=f"it has a transaction since {row['started']} by the server's clock, and may hold a table of"
                    f" {self._database}",
                    holder=f"{row['user']} from {row['host']}",
                    next_step="Have it ended by its client",
                )
                for row in holders
            ]
            raise OpsError(
                obj=f"database {self._database} on {self._session.settings.target}",
                problem=f"a table of it is held, after {programs.LOCK_WAIT} s still, by one of:"
                f" {join_some([str(row['id']) for row in holders]) or 'no transaction that is open now'}",
                next_step="End that transaction or dump, and run again; nothing of it has been moved or dropped by"
                " this run",
            ) from error
        self._session.execute("UNLOCK TABLES")

    def _execute(self, statement: str) -> None:
        self._session.execute(statement)
        self._outcome.changed = True

    def _is_begun(self) -> bool:
        """Return whether there is a database beside that a move has noted itself on."""
        found = schema.read_schema(self._session, self._beside)
        note = None if found is None else read_note(found.comment)
        return note is not None and note.phase in (MOVING, MOVED)

    def _phase(self) -> str | None:
        found = schema.require_schema(self._session, self._beside)
        note = read_note(found.comment)
        return None if note is None else note.phase

    def _note(self, name: str, phase: str) -> None:
        comment = self._session.connection.escape(Note(self._backup, self._database, phase).to_comment())
        self._execute(f"ALTER DATABASE {quote_name(name)} COMMENT {comment}")

    def _ensure_database(self, name: str, charset: str, collation: str) -> None:
        comment = self._session.connection.escape(Note(self._backup, self._database, MOVING).to_comment())
        self._execute(
            f"CREATE DATABASE IF NOT EXISTS {quote_name(name)} CHARACTER SET {charset} COLLATE {collation}"
            + (f" COMMENT {comment}" if name != self._database else "")
        )

    def _begin(self, charset: str, collation: str, documents: t.Mapping[str, bytes]) -> None:
        """Note how what cannot be renamed of the original is made, and what is needed of the backup to go on.

        A run that was killed may have dropped some of it already: what it has noted stays, and what is there by now is
        noted as well.
        """
        self._ensure_database(self._database, charset, collation)
        if self._phase() == MOVING:
            self._drop_broken()
        dump = self._dump_definitions(self._database)
        refuse_unclear(dump, f"database {self._database}", "Its tables are untouched")
        book = f"{quote_name(self._beside)}.{quote_name(BOOK)}"
        if self._phase() != MOVING:
            self._session.execute(REMOVE_SCRIPTS.format(book=book), ["original"])
        with self._session.connection.cursor() as cursor:
            rows = [("original", kind, name, script) for (kind, name), script in dump.scripts.items()]
            rows += [("backup", "DOCUMENT", name, body) for name, body in documents.items()]
            cursor.executemany(ADD_SCRIPT.format(book=book), rows)
        self._note(self._beside, MOVING)

    def _dump_definitions(self, database: str, *options: str) -> DumpText:
        dump = DumpText()
        with programs.option_file(self._session.settings) as descriptor:
            command = programs.dump_command(self._programs, descriptor, database, options=("--no-data", *options))
            with Pipeline([command], deadline=self._deadline, collect=True) as pipeline:
                dump.feed(pipeline.stdout.read())
                pipeline.finish()
        dump.finish()
        problem = dump.explain_end()
        if problem is not None:
            raise OpsError(
                obj=f"database {database}",
                problem=f"its definitions cannot be read: {problem}",
                next_step="Report this with the version of mariadb-dump",
            )
        return dump

    def _find_book(self) -> str | None:
        return BOOK if BOOK in schema.list_tables(self._session, self._beside) else None

    def _scripts(self, owner: str) -> dict[tuple[str, str], bytes]:
        book = f"{quote_name(self._beside)}.{quote_name(BOOK)}"
        rows = self._session.query(READ_SCRIPTS.format(book=book), [owner])
        return {(row["kind"], row["name"]): row["script"] for row in rows}

    def _list_beside(self) -> list[str]:
        return [name for name in schema.list_tables(self._session, self._beside) if name != BOOK]

    def _drop(self, database: str, keys: t.Collection[Key]) -> None:
        """Drop definitions, the last first, so that those that are left are in order once it is made again.

        Views go in one statement, since one that reads another is broken without it.
        """
        for kind, name in sorted(reversed([*keys]), key=lambda key: -rank(key[0])):
            if kind != "VIEW":
                self._execute(f"DROP {kind} IF EXISTS {quote_name(database)}.{quote_name(name)}")
        views = [f"{quote_name(database)}.{quote_name(name)}" for kind, name in sorted(keys) if kind == "VIEW"]
        if views:
            self._execute(f"DROP VIEW IF EXISTS {', '.join(views)}")

    def _rename(self) -> None:
        """Drop what cannot be renamed and would be in the way, then rename all tables of both in one statement."""
        for database, owner in ((self._database, "original"), (self._beside, "restored")):
            self._drop(database, [key for key in self._scripts(owner) if key[0] in ORDER and key[0] not in ROUTINES])
        live = schema.list_tables(self._session, self._database)
        beside = self._list_beside()
        if beside:  # else the rename has been done by a run that was killed right after it
            self._refuse_used("it was connected while the move began")
            pairs = [(self._database, self._kept, name) for name in live]
            pairs += [(self._beside, self._database, name) for name in beside]
            renames = ", ".join(
                f"{quote_name(old)}.{quote_name(name)} TO {quote_name(new)}.{quote_name(name)}"
                for old, new, name in pairs
            )
            self._execute(f"RENAME TABLE {renames}")
        self._note(self._beside, MOVED)

    def _drop_surplus(self) -> None:
        """Drop the routines of the original that the backup has not; they are in the kept original by now."""
        restored = self._scripts("restored")
        self._drop(
            self._database, [key for key in self._scripts("original") if key[0] in ROUTINES and key not in restored]
        )

    def _make(
        self,
        database: str,
        owner: str,
        kinds: tuple[str, ...],
        *,
        without: t.Container[Key] = (),
        stage: str = "The tables are in place",
        lost: list[Key] | None = None,
    ) -> list[Key]:
        """Make definitions by their scripts, and return which; ``stage`` says how far the move is, should it fail.

        A view may need another: what failed is tried again while any succeeds. With ``lost`` given, what needs
        something that is not there is added to it, and is no error.
        """
        scripts = self._scripts(owner)
        defaults = schema.require_schema(self._session, database)
        made = sorted((key for key in scripts if key[0] in kinds and key not in without), key=lambda key: rank(key[0]))
        todo, where = made, self._kept if self.is_renamed() else self._database
        while todo:
            failed: list[Key] = []
            error: OpsError | None = None
            is_lost = lost is not None
            for key in todo:
                script = word_replacement(scripts[key]) if key[0] in ROUTINES else scripts[key]
                try:
                    self._run_script(database, script)
                except OpsError as problem:
                    failed.append(key)
                    is_lost = is_lost and lacks_what_it_needs(problem.problem)
                    error = problem
                    self._execute(
                        f"ALTER DATABASE {quote_name(database)} CHARACTER SET {defaults.charset}"
                        f" COLLATE {defaults.collation}"
                    )
            if lost is not None and is_lost and len(failed) == len(todo):
                lost += failed
                return [key for key in made if key not in failed]
            if error is not None and len(failed) == len(todo):
                raise OpsError(
                    obj=f"{failed[-1][0].lower()} {failed[-1][1]} of {database}",
                    problem=error.problem,
                    next_step=f"{stage}, the original is {where}. Correct the cause and run again",
                ) from error
            todo = failed
        return made

    def _run_script(self, database: str, script: bytes) -> None:
        with programs.option_file(self._session.settings) as descriptor:
            command = programs.client_command(self._programs, descriptor, database, mark=name_client(self._database))
            with Pipeline([command], deadline=self._deadline, feed=True) as client:
                client.stdin.write(script)
                client.finish()
        self._outcome.changed = True

    def _check(self, contents: Contents) -> None:
        """Compare the definitions in place with those of the backup.

        What another run would make is an error. All else cannot become true by another run, and is only told: what the
        database's users have changed since its tables are in place, and events whose time has passed.
        """
        dump = self._dump_definitions(self._database)
        inactive, ended = self._list_inactive()
        found = [
            difference
            for difference in compare_dump(contents, dump, with_events=True, with_rows=False)
            if not (difference.kind == "EVENT" and difference.name in ended)
        ]
        unmade = [difference for difference in found if difference.how == "missing" and difference.kind in ORDER]
        self._outcome.facts["differences"] = [str(difference) for difference in found]
        if unmade:
            raise OpsError(
                obj=f"database {self._database}",
                problem=f"in place, and not what the backup has: {join_some([str(one) for one in unmade])}",
                next_step=f"The original is in {self._kept}. Correct the cause, and run again",
            )
        self._tell(found, inactive)

    def _list_inactive(self) -> tuple[dict[str, str], set[str]]:
        """Return the events of the backup that do not run in place, each with the reason, and those that have ended."""
        inactive: dict[str, str] = {}
        ended: set[str] = set()
        for (kind, name), script in sorted(self._scripts("restored").items()):
            event = read_event(script) if kind == "EVENT" else None
            if event is None:
                continue
            if event.last is not None and self._session.query(_ENDED, [event.last, event.zone])[0]["ended"]:
                ended.add(name)
            reason = explain_inactive(event, has_ended=name in ended)
            if reason is not None:
                inactive[name] = reason
        return inactive, ended

    def _tell(self, found: t.Sequence[Difference], inactive: t.Mapping[str, str]) -> None:
        """Say what is in place, and what is not as one may expect."""
        evidence = self._outcome.evidence
        if found:
            evidence.append(
                f"{self._database}: changed since its tables are in place: {join_some([str(one) for one in found])};"
                f" the original is {self._kept}"
            )
        else:
            evidence.append(
                f"{self._database}: definitions of tables, views, routines, triggers and events are those of the"
                f" backup; the original is {self._kept}"
            )
        self._outcome.facts["inactive_events"] = [f"event {name}: {why}" for name, why in inactive.items()]
        if inactive:
            evidence.append(
                f"{self._database}: {format_count(len(inactive), 'event')} of the backup"
                f" {'does' if len(inactive) == 1 else 'do'} not run: {join_some(sorted(inactive))}"
            )


def _add_step(error: OpsError, words: str) -> OpsError:
    """Return the same error with what is to be known besides."""
    return type(error)(obj=error.obj, problem=error.problem, next_step=f"{error.next_step}. {words}")
