# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The work of pgbackrest_restore_drill: restore beside, start by itself, recover, ask, check, sign, remove.

Private to lowtide.ops: do not import from other collections.
"""

from __future__ import annotations

import os
import platform
import time
import typing as t
import uuid
from dataclasses import dataclass
from datetime import datetime, timezone

from ..._backup import keys
from ..._backup.manifest import stamp
from ..._backup.plan import SKEW, readable_age
from ..._common.amounts import parse_age
from ..._common.errors import OpsError, Refusal
from ..._common.outcome import PlanItem
from ..._common.retry import Deadline
from ..._common.text import format_duration, format_size, join_some
from ..._common.timestamps import format_utc
from ..._pg_restore import evidence, judging
from ..._postgresql.connection import Session, Settings, driver_error, new_run_id
from ..._postgresql.errors import sql_error
from .. import checking
from ..drill_place import DrillPlace
from ..plan import is_sound
from ..private_server import OLDEST, PrivateServer, ServerPrograms, make_restore_command
from ..program import PgBackRest
from ..repository import Backup, Stanza, describe, has_reached

if t.TYPE_CHECKING:
    from ansible.module_utils.basic import AnsibleModule

    from ..._common.outcome import Outcome

ARGUMENT_SPEC: dict[str, t.Any] = {
    "stanza": {"type": "str", "required": True},
    "repository": {"type": "int", "default": 1},
    "config": {"type": "path"},
    "bin_dir": {"type": "path"},
    "server_bin_dir": {"type": "path"},
    "directory": {"type": "path"},
    "backup": {"type": "str", "default": "latest"},
    "target": {"type": "str", "choices": ["latest", "immediate"], "default": "latest"},
    "max_age": {"type": "str", "default": "7d"},
    "interval": {"type": "str"},
    "max_rpo": {"type": "str", "default": "2d"},
    "on_due": {"type": "str", "choices": ["run", "fail"], "default": "run"},
    "database": {"type": "str"},
    "superuser": {"type": "str", "default": "postgres"},
    "query": {"type": "str"},
    "query_timeout": {"type": "float", "default": 60.0},
    "signing_key": {"type": "path", "no_log": False},
    "public_keys": {"type": "list", "elements": "str", "default": [], "no_log": False},
    "evidence_dir": {"type": "path", "required": True},
    "timeout": {"type": "int", "default": 86400},
}
LATEST = "latest"
UTC = timezone.utc  # noqa: UP017  # the database's host may have Python 3.8
_POSITION_SQL = """
SELECT pg_catalog.pg_is_in_recovery(), pg_catalog.pg_last_wal_replay_lsn()::text,
       pg_catalog.pg_last_xact_replay_timestamp(),
       pg_catalog.pg_size_bytes(pg_catalog.current_setting('wal_segment_size'))
"""


@dataclass(frozen=True)
class Recovered:
    """To where the server has recovered; ``last_commit`` is None where no transaction was replayed."""

    position: str
    last_commit: datetime | None
    segment_size: int


def run_drill(module: AnsibleModule, outcome: Outcome) -> None:
    """Fill the outcome; raise OpsError."""
    Drill(module, outcome).ensure()


class Drill:
    """One run: judge the last drill, and make one where it is due."""

    def __init__(self, module: AnsibleModule, outcome: Outcome) -> None:
        self._params = params = module.params
        self._check_mode = bool(module.check_mode)
        self._outcome = outcome
        self._deadline = Deadline(params["timeout"])
        self._runs = params["on_due"] == "run"
        if self._runs:
            judging.check_query(params["query"])
            refuse_missing(params, "directory", "database")
        judging.refuse_no_key(params)
        if self._runs and os.geteuid() == 0:
            raise Refusal(
                obj="this task",
                problem="it runs as root, and PostgreSQL does not start as root",
                next_step="Run it as the user of the server: become_user: postgres",
            )
        self._max_age = parse_age(params["max_age"])
        self._max_rpo = parse_age(params["max_rpo"], option="max_rpo")
        self._interval = judging.read_interval(params, self._max_age)
        public = params["public_keys"]
        signer = evidence.Signer(params["signing_key"], public) if params["signing_key"] else None
        self._verifier: evidence.Verifier = signer or evidence.Verifier(public)
        # Without a key or a directory no drill is made: that was refused above.
        self._signer = t.cast("evidence.Signer", signer)
        self._place = DrillPlace(params["directory"] or "")
        self._query = (params["query"] or "").strip()
        self._warn = module.warn
        self._program = PgBackRest(
            stanza=params["stanza"],
            repository=params["repository"],
            config=params["config"],
            bin_dir=params["bin_dir"],
            deadline=self._deadline,
        )

    def ensure(self) -> None:
        """Read, judge, and unless in check mode make the drill that is due."""
        params, outcome = self._params, self._outcome
        outcome.facts["version"] = self._program.check_version()
        stanza = self._program.read_usable()
        stanza_of = {
            "format": evidence.FORMAT,
            "format_version": evidence.FORMAT_VERSION,
            "proven": True,
            "stanza": stanza.name,
            "repository": params["repository"],
            "source_system_identifier": stanza.system_identifier,
        }
        now = datetime.now(UTC)
        asked = self._list_expected()
        drills = evidence.find_last_local(
            params["evidence_dir"], self._verifier, expected={**stanza_of, **asked}, latest=now + SKEW
        )
        what = f" with this {join_some([name.replace('_option', '') for name in asked])}"
        why = judging.explain_due(drills, now, max_age=self._max_age, interval=self._interval, what=what)
        self._report(drills, now, why)
        if why is None:
            if self._runs:
                self._clear_up()
            return
        title = f"restore drill of stanza {stanza.name}"
        if not self._runs:
            raise OpsError(
                obj=title,
                problem=why,
                next_step="Make one (on_due: run), and find out why the last run did not",
            )
        backup = choose_backup(stanza, params["backup"])
        outcome.facts["backup"] = describe(backup)
        if params["backup"] == LATEST:
            self._tell_passed(stanza, backup)
        version = int(backup.archive_id.partition("-")[0].partition(".")[0])
        if version < OLDEST:
            raise Refusal(
                obj=f"backup {backup.label}",
                problem=f"it is of PostgreSQL {version}",
                next_step=f"A drill takes {OLDEST} or newer",
            )
        programs = ServerPrograms(version, params["server_bin_dir"])
        programs.check_version(self._deadline)
        self._place.check()
        self._place.check_room(backup.size)
        evidence.check_local(params["evidence_dir"])
        if params["target"] != LATEST:
            self._judge_age(find_newest(backup, None), now, Refusal)
        self._plan(backup)
        outcome.summary = f"would make a {title}: {why}"
        if self._check_mode:
            outcome.changed = True
            return
        self._perform(stanza, backup, programs, stanza_of)

    def _list_expected(self) -> dict[str, t.Any]:
        """Return what evidence has to say of what was drilled. Who makes no drill need not give all of it."""
        params = self._params
        # Who has replayed all WAL has replayed what a backup needs as well.
        expected: dict[str, t.Any] = {"target": LATEST if params["target"] == LATEST else (LATEST, params["target"])}
        if params["backup"] == LATEST:
            expected["backup_option"] = LATEST
        else:
            expected["backup"] = params["backup"]
        if params["database"]:
            expected["database"] = params["database"]
        if self._query:
            expected["query"] = self._query
        return expected

    def _perform(
        self, stanza: Stanza, backup: Backup, programs: ServerPrograms, stanza_of: t.Mapping[str, t.Any]
    ) -> None:
        facts, started, clock = self._outcome.facts, datetime.now(UTC), time.monotonic()
        server = PrivateServer(self._place, programs, self._deadline)
        name = keys.run_id(started, uuid.uuid4().hex)
        begun = {"started_at": stamp(started), "backup": backup.label, "node": platform.node()}
        try:
            facts["removed"] = self._place.open(self._deadline)
            self._outcome.changed = self._outcome.write_attempted = True
            evidence.try_local(self._params["evidence_dir"], name, begun)
            data, lock = str(self._place.data), str(self._place.run)
            self._program.restore(
                backup.label, data=data, tablespaces=str(self._place.tablespaces), lock=lock, mark=self._place.mark
            )
            facts["restore_seconds"] = round(time.monotonic() - clock, 3)
            command = make_restore_command(self._program.list_restore_command(data=data, lock=lock))
            server.configure(restore_command=command, target=self._params["target"])
            recovered = self._recover(server)
            facts["recovery_seconds"] = round(time.monotonic() - clock - facts["restore_seconds"], 3)
            self._judge_position(stanza, backup, recovered, server)
            newest = find_newest(backup, recovered.last_commit)
            self._judge_age(newest, started)
            answer = self._ask()
            rto = time.monotonic() - clock
            checks = checking.check_copy(
                server,
                programs,
                self._place,
                user=self._params["superuser"],
                list_databases=self._list_databases,
                deadline=self._deadline,
            )
        except BaseException:
            # What was found is in the result, and a copy for each night fills the disk.
            failure = self._clear(server)
            if failure is not None:
                self._warn(f"What the drill has put there was not removed, which the next one does: {failure}")
            raise
        failure = self._clear(server)
        document = {
            **stanza_of,
            "database": self._params["database"],
            "backup": backup.label,
            "backup_option": LATEST if self._params["backup"] == LATEST else backup.label,
            "backup_type": backup.type,
            "backup_taken_at": format_utc(backup.started),
            "server_version": str(programs.version),
            "target": self._params["target"],
            "recovered_to": {"lsn": recovered.position, "time": stamp(newest)},
            "started_at": stamp(started),
            "finished_at": stamp(datetime.now(UTC)),
            "rpo_seconds": max(0, int((started - newest).total_seconds())),
            "rto_seconds": round(rto, 3),
            "restore_seconds": facts["restore_seconds"],
            "recovery_seconds": facts["recovery_seconds"],
            "query": self._query,
            "answer": answer,
            "checks": checks,
            "passed_over": facts["passed_over"],
            "node": platform.node(),
            "copy_removed": failure is None,
            "public_key": self._signer.public_key,
        }
        self._sign(name, document)
        if failure is not None:
            raise failure
        rpo = format_duration(document["rpo_seconds"])
        self._outcome.summary = (
            f"proved backup {backup.label} of stanza {stanza.name} by a restore: RPO {rpo}, RTO {format_duration(rto)}"
        )

    # ---- telling

    def _report(self, drills: evidence.Drills, now: datetime, why: str | None) -> None:
        last = drills.last
        age = None if last is None else max(0, int((now - last.finished_at).total_seconds()))
        self._outcome.facts.update(
            due=why is not None,
            why=why or f"the last proven drill is {format_duration(age or 0)} old",
            last=None if last is None else {"path": last.url, "age_seconds": age, **last.document},
            bad=[{"path": path, "problem": problem} for path, problem in drills.bad],
            backup=None,
            drill=None,
            removed=[],
            passed_over=[],
        )
        if why is None and last is not None:
            stanza = self._params["stanza"]
            self._outcome.summary = (
                f"nothing to do: the last proven drill of stanza {stanza} is {format_duration(age or 0)} old"
            )
            self._outcome.evidence = [
                f"{last.url}: backup {last.document['backup']} proven {last.document['finished_at']}"
            ]

    def _tell_passed(self, stanza: Stanza, chosen: Backup) -> None:
        """Name the newer backups that do not count: the drill is of an older one for as long as there are only such."""
        passed = list_passed(stanza, chosen)
        self._outcome.facts["passed_over"] = [{"backup": label, "problem": problem} for label, problem in passed]
        for label, problem in passed:
            self._warn(f"backup {label} is newer than {chosen.label} and was passed over: {problem}")

    def _clear_up(self) -> None:
        """Remove what an earlier drill has left, where none is due: it is all of the data, and the next may be far."""
        left = [str(folder) for folder in self._place.list_left()]
        if not left or self._place.is_in_use():
            return
        outcome = self._outcome
        outcome.plan = [
            PlanItem(folder, "remove it", "an earlier drill has left it", reversible=False) for folder in left
        ]
        outcome.summary += f"; {'would remove' if self._check_mode else 'removed'} {join_some(left)}"
        outcome.changed = True
        if self._check_mode:
            return
        outcome.write_attempted = True
        try:
            outcome.facts["removed"] = self._place.clear_left(self._deadline)
        finally:
            self._place.close()

    def _plan(self, backup: Backup) -> None:
        place = f"directory {self._place.path}"
        size = format_size(backup.size)
        self._outcome.plan = [
            PlanItem(place, f"restore backup {backup.label} ({size})", "a backup that was restored is proven"),
            PlanItem(place, "start a server that nothing reaches, recover, ask and check", "by its answer"),
            PlanItem(place, "remove all of it", "the drill needs it no longer", reversible=False),
            PlanItem(self._params["evidence_dir"], "sign and write the evidence", "others rely on it"),
        ]

    # ---- the drill

    def _connect(self, database: str) -> Session:
        settings = Settings(
            host=str(self._place.socket), port=5432, user=self._params["superuser"], dbname=database, sslmode="disable"
        )
        # A database whose transactions are read only is as good as any: this only reads.
        return Session(settings, module="pgbackrest_restore_drill", run_id=new_run_id(), writes=False)

    def _recover(self, server: PrivateServer) -> Recovered:
        """Start the server, and wait until it has recovered and accepts writes."""
        found: list[Recovered] = []

        def is_ready() -> bool:
            was_open = self._is_open()  # a server that opens in between has refused for being closed
            try:
                with self._connect(self._params["database"]) as session:
                    in_recovery, position, last, size = session.query(_POSITION_SQL)[0]
            except Refusal:
                if was_open:
                    raise
                return False
            if in_recovery:
                return False
            found.append(Recovered(position or "0/0", last, int(size)))
            return True

        server.start(is_ready)
        return found[0]

    def _is_open(self) -> bool:
        """Return whether the server takes sessions at all, so that a refused one says something."""
        pid = self._place.data / "postmaster.pid"
        if not pid.exists():
            return False
        return pid.read_text(encoding="utf-8").splitlines()[7:8] == ["ready   "]

    def _judge_position(self, stanza: Stanza, backup: Backup, recovered: Recovered, server: PrivateServer) -> None:
        """Raise where recovery ended before the end of the archive: PostgreSQL takes a missing segment for its end."""
        newest = stanza.newest_segments.get(backup.archive_id, "")
        if self._params["target"] != LATEST or not newest:
            return
        if not has_reached(recovered.position, newest, recovered.segment_size):
            raise OpsError(
                obj=f"WAL of stanza {stanza.name}",
                problem=f"recovery ended at {recovered.position}, and the archive has WAL up to segment {newest}: one"
                f" between is missing or damaged ({server.read_errors()})",
                next_step="A restore loses all after that. Make a backup now (lowtide.ops.pgbackrest_backup), and find"
                " out what removes or damages WAL in the repository",
            )

    def _judge_age(self, newest: datetime, started: datetime, kind: type[OpsError] = OpsError) -> None:
        """Raise where the newest data is older than may be lost: backups and archiving may have stopped."""
        age = started - newest
        if age <= self._max_rpo:
            return
        raise kind(
            obj=f"stanza {self._params['stanza']}",
            problem=f"the newest data in the repository is {readable_age(age)} old ({stamp(newest)}), allowed are"
            f" {readable_age(self._max_rpo)}",
            next_step="Find out whether the server still archives its WAL (`pgbackrest check`), and make a backup"
            " (lowtide.ops.pgbackrest_backup); or set max_rpo to what may be lost, or to how long"
            " nothing may be written",
        )

    def _clear(self, server: PrivateServer) -> OpsError | None:
        """End the server and remove all that is the drill's; return what stands in the way of that."""
        server.end()
        try:
            self._place.close()
        except OpsError as error:
            return error
        return None

    def _ask(self) -> dict[str, t.Any]:
        """Ask the application's query of the copy: one row, whose boolean columns are all true."""
        database = self._params["database"]
        try:
            with self._connect(database) as session:
                rows = judging.ask(session, self._params["query"], self._params["query_timeout"])
        except driver_error() as error:
            raise sql_error(f"database {database} of the restored server", error) from error
        self._outcome.facts["answer"] = rows
        return judging.judge_answer(rows, obj=f"query on database {database} of the restored server")

    def _list_databases(self) -> list[str]:
        with self._connect(self._params["database"]) as session:
            rows = session.query("SELECT datname::text FROM pg_catalog.pg_database WHERE datallowconn ORDER BY 1")
        return [row[0] for row in rows]

    def _sign(self, name: str, document: dict[str, t.Any]) -> None:
        """Sign the evidence and write it; without that nothing is proven."""
        body = evidence.write_document(document)
        path = evidence.save_local(self._params["evidence_dir"], name, body, self._signer.sign(body))
        self._outcome.facts["drill"] = {"path": path, **document}
        answer = join_some([f"{column}={value}" for column, value in document["answer"].items()])
        self._outcome.evidence = [
            f"{path}: backup {document['backup']}, recovered to {document['recovered_to']['lsn']}, answer {answer},"
            f" signed by {self._signer.public_key}",
            *document["checks"],
        ]


def refuse_missing(params: t.Mapping[str, t.Any], *names: str) -> None:
    """Refuse a drill without what it needs, which who only looks for the last one need not give."""
    for name in names:
        if not params[name]:
            raise Refusal(
                obj=f"option {name}",
                problem="it is not given",
                next_step="A drill needs it; or have on_due: fail, which makes none",
            )


def find_newest(backup: Backup, last_commit: datetime | None) -> datetime:
    """Return of when the newest data is: the last commit that was replayed, or the backup's end where it is later."""
    ended = datetime.fromtimestamp(backup.ended, UTC)
    return ended if last_commit is None else max(ended, last_commit)


def choose_backup(stanza: Stanza, label: str) -> Backup:
    """Return the backup of this name, or the newest one against which nothing is known."""
    current = {backup.label: backup for backup in stanza.backups if backup.is_current}
    if label != LATEST:
        if label in current:
            return current[label]
        raise Refusal(
            obj=f"backup {label} of stanza {stanza.name}",
            problem=f"the repository has {join_some(sorted(current)) or 'none'}",
            next_step="Correct the option backup",
        )
    usable = [backup for backup in current.values() if explain_unusable(backup, current) is None]
    if not usable:
        raise Refusal(
            obj=f"stanza {stanza.name}",
            problem="there is no backup against which nothing is known" if current else "there is no backup",
            next_step="Make one with lowtide.ops.pgbackrest_backup, then drill",
        )
    return max(usable, key=lambda backup: backup.ended)


def list_passed(stanza: Stanza, chosen: Backup) -> list[tuple[str, str]]:
    """Return the backups of the cluster that are newer than the chosen one, each with why it does not count."""
    current = {backup.label: backup for backup in stanza.backups if backup.is_current}
    newer = sorted((entry for entry in current.values() if entry.ended > chosen.ended), key=lambda entry: entry.ended)
    return [(backup.label, explain_unusable(backup, current) or "") for backup in newer]


def explain_unusable(backup: Backup, current: t.Mapping[str, Backup]) -> str | None:
    """Return what is known against a backup of those of the cluster, by their labels; None where nothing is."""
    if backup.has_errors:
        return "it found pages with an invalid checksum in the database"
    if backup.damaged_at:
        return f"damage of it was found at {backup.damaged_at}"
    lacking = [name for name in backup.references if name not in current or not is_sound(current[name])]
    return f"it builds on {join_some(lacking)}, which is damaged or gone" if lacking else None
