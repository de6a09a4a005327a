# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Keep a proven restore drill no older than declared. Private to lowtide.ops: do not import from other collections.

The newest backup is restored beside and compared, the application's own query is asked of it, what it took is measured,
the copy is removed again, and then the evidence is signed. It is signed as well where the copy could not be removed.
"""

from __future__ import annotations

import os
import platform
import re
import time
import typing as t
import uuid
from dataclasses import dataclass, replace
from functools import partial

from .._backup import keys
from .._backup.manifest import stamp
from .._backup.plan import SKEW
from .._common.errors import OpsError, Refusal
from .._common.outcome import Outcome, PlanItem
from .._common.text import format_count, format_duration, join_some
from .._pg_backup.database import read_clock
from .._postgresql.connection import Session, driver_error, new_run_id
from .._postgresql.errors import sql_error
from .._postgresql.pings import Pings
from . import evidence, judging, side
from .restore import Restore
from .work import DRILL as PURPOSE
from .work import Options

if t.TYPE_CHECKING:
    from datetime import datetime, timedelta

    from .._common.retry import Deadline
    from .._postgresql.connection import Settings
    from .._s3.bucket import Bucket
    from .evidence import Drill, Drills, Signer, Verifier
    from .source import Source

MODULE = "pg_restore_drill"
_RUN = re.compile(r"[0-9]{8}t[0-9]{6}z_[0-9a-f]{8}")
_LEFTOVERS = "SELECT datname::text FROM pg_catalog.pg_database WHERE pg_catalog.starts_with(datname::text, %(start)s)"


@dataclass(frozen=True)
class DrillOptions:
    """What the module was asked for; ``max_rpo`` is how old the backup's data may be, ``interval`` the time to the next run."""

    live: str
    max_age: timedelta
    interval: timedelta
    max_rpo: timedelta
    query: str
    query_timeout: float
    roles: str
    bin_dir: str | None
    evidence_dir: str | None


class RestoreDrill:
    """One run: judge the last drill, and make one where it is due."""

    def __init__(
        self,
        *,
        session: Session,
        settings: Settings,
        bucket: Bucket,
        place: keys.Place,
        options: DrillOptions,
        verifier: Verifier,
        signer: Signer | None,
        outcome: Outcome,
        deadline: Deadline,
    ) -> None:
        self._session = session
        self._settings = settings
        self._bucket = bucket
        self._place = place
        self._options = options
        self._verifier = verifier
        self._signer = signer
        self._outcome = outcome
        self._deadline = deadline
        self._run_id = new_run_id()
        self._restore, self._remover = self._make_restore(session, outcome), self._make_restore(session, Outcome())
        self.warnings = self._restore.warnings

    def _make_restore(self, session: Session, outcome: Outcome) -> Restore:
        own = self._options
        return Restore(
            session=session,
            options=Options(state="beside", live=own.live, roles=own.roles, bin_dir=own.bin_dir, purpose=PURPOSE),
            outcome=outcome,
            deadline=self._deadline,
            run_id=self._run_id,
            settings=self._settings,
        )

    def ensure(self, find: t.Callable[[], Source], *, check: bool) -> None:
        """Read, judge, and unless ``check`` make the drill that is due, of the backup that ``find`` returns."""
        now = read_clock(self._session)
        drills, why = self._look(now)
        self._report(drills, now, why)
        if why is None:
            self._clear_up(drills.last, check=check)
            return
        signer = self._signer
        if signer is None:
            raise OpsError(
                obj=f"restore drill of {self._place.database}",
                problem=why,
                next_step="Make one with the role lowtide.ops.restore_drill (on_due: run), and find out why the last run"
                " did not",
            )
        started, clock = now, time.monotonic()
        source = find()
        self._refuse_old(source, now)
        if self._options.evidence_dir is not None:
            evidence.check_local(self._options.evidence_dir)
        if check:
            self._restore.ensure(source, check=True)
            self._plan_rest(source)
            self._outcome.changed = True
            self._outcome.summary = f"would make a restore drill of {self._place.database}: {why}"
            return
        self._restore.lock()
        self._outcome.write_attempted = True
        begun = {"started_at": stamp(started), "backup": source.run, "node": platform.node()}
        name = keys.run_id(now, uuid.uuid4().hex)
        evidence.try_place(self._bucket, self._place, self._options.evidence_dir, name, begun)
        self.warnings += [f"The copy was not removed: {error}" for error in self._remove_leftovers(check=False)]
        try:
            self._restore.ensure(source, check=False)
            # The query may take minutes, in which nothing else is said on this session.
            with Pings(self._session.is_alive, period=self._restore.ping_period):
                answer = self._ask(self._restore.name_side(source.run))
            seconds = time.monotonic() - clock
            described = self._describe(source, started=started, rto=seconds, answer=answer)
        except BaseException:
            # What was found is in the result, and a copy for each night fills the disk.
            self._remove_failed(source.run)
            raise
        failure = self._remove_proven(source.run)
        facts = self._outcome.facts
        facts["database"] = None
        self._outcome.after = self._outcome.before
        self._plan_rest(source)
        measured = {name: facts[name] for name in ("restore_seconds", "compare_seconds", "rows", "tables", "compared")}
        own = {"copy_removed": failure is None, "public_key": signer.public_key}
        self._sign(signer, name, described | measured | own)
        self._outcome.changed = True
        if failure is not None:
            raise failure
        self._outcome.summary = (
            f"proved backup {source.run} of {self._place.database} by a restore:"
            f" RPO {format_duration(facts['drill']['rpo_seconds'])}, RTO {format_duration(seconds)}"
        )
        if facts["not_compared"]:
            self._outcome.summary += f"; not compared: {join_some(facts['not_compared'])}"

    def _look(self, now: datetime) -> tuple[Drills, str | None]:
        """Return the drills that there is evidence of, and why another one is due."""
        asked = self._options
        drills = evidence.find_last(self._bucket, self._place, self._verifier, latest=now + SKEW, query=asked.query)
        what = " with this query" if asked.query else ""
        return drills, judging.explain_due(drills, now, max_age=asked.max_age, interval=asked.interval, what=what)

    def _refuse_old(self, source: Source, now: datetime) -> None:
        """Refuse a backup that is older than may be lost: what it proves helps nobody."""
        manifest, allowed = source.manifest, self._options.max_rpo
        if manifest is None or now - manifest.taken_at <= allowed:
            return
        newer = f"; {source.passed[0][0]} does not count ({source.passed[0][1]})" if source.passed else ""
        raise Refusal(
            obj=source.url,
            problem=f"the newest backup that counts is {format_duration((now - manifest.taken_at).total_seconds())} old,"
            f" allowed are {format_duration(allowed.total_seconds())}{newer}",
            next_step="Find out why there is no newer one with lowtide.ops.pg_backup_info, make one, and run again;"
            " or set max_rpo to what may be lost",
        )

    def _clear_up(self, last: Drill | None, *, check: bool) -> None:
        """See to what an earlier drill has left open, where none is due."""
        if last is not None:
            self._copy_evidence(last, check=check)
        if self._signer is None:
            return  # it was asked to look only
        # A copy that could not be removed then has all the rows, and the next drill may be days away.
        failures = self._remove_leftovers(check=check)
        removed = self._outcome.facts["removed"]
        if removed:
            self._outcome.summary += f"; {'would drop' if check else 'dropped'} {join_some(removed)}"
        if failures:
            raise failures[0]

    def _copy_evidence(self, last: Drill, *, check: bool) -> None:
        """Write the evidence of the last drill to the folder of this host that lacks it."""
        folder = self._options.evidence_dir
        if folder is None or os.path.exists(os.path.join(folder, f"{last.name}.json")):
            return
        self._outcome.plan = [PlanItem(folder, f"write {last.name}.json", "the evidence is in the bucket only")]
        self._outcome.changed = True
        self._outcome.summary += f", its evidence {'would be' if check else 'was'} written to {folder}"
        if not check:
            self._outcome.write_attempted = True
            evidence.save_local(folder, last.name, last.body, last.signature)

    def _report(self, drills: Drills, now: datetime, why: str | None) -> None:
        last = drills.last
        age = None if last is None else max(0, int((now - last.finished_at).total_seconds()))
        self._outcome.facts |= {
            "due": why is not None,
            "why": why or f"the last proven drill is {format_duration(age or 0)} old",
            "last": None if last is None else {"url": last.url, "age_seconds": age, **last.document},
            "bad": [{"url": url, "problem": problem} for url, problem in drills.bad],
            "drill": None,
            "removed": [],
        }
        if why is None and last is not None:
            self._outcome.summary = (
                f"nothing to do: the last proven drill of {self._place.database} is {format_duration(age or 0)} old"
            )
            self._outcome.evidence = [
                f"{last.url}: backup {last.document['backup']} proven {last.document['finished_at']}"
            ]

    def _plan_rest(self, source: Source) -> None:
        name = self._restore.name_side(source.run)
        self._outcome.plan += [
            PlanItem(f"database {name}", "ask the application's query", "a drill is proven by its answer"),
            PlanItem(f"database {name}", "drop", "the drill needs it no longer", reversible=False),
            PlanItem(
                self._bucket.url(evidence.name_folder(self._place)), "sign and write the evidence", "others rely on it"
            ),
        ]

    def _remove_proven(self, run: str) -> OpsError | None:
        """Remove the copy of a drill that has proven its backup; what stands in the way makes that no less true."""
        return _find_failure(partial(self._remover.remove, run, check=False), self._restore.name_side(run))

    def _remove_failed(self, run: str) -> None:
        """Remove the copy of a drill that has failed, by another session where its own was lost; the failure stays the error."""
        try:
            if not self._session.connection.closed:
                self._remover.remove(run, check=False)
                return
            with Session(self._settings, module="pg_restore", run_id=self._run_id) as session:
                self._make_restore(session, Outcome()).remove(run, check=False)
        except (OpsError, driver_error()) as error:
            told = error if isinstance(error, OpsError) else sql_error(self._restore.name_side(run), error)
            self.warnings.append(f"The copy was not removed, which the next drill does: {told}")

    def _remove_leftovers(self, *, check: bool) -> list[OpsError]:
        """Drop what earlier drills have left, whatever backup it was; never what another run is making.

        Return what stands in the way of any of them: it does not stand in the way of another drill.
        """
        live = self._options.live
        head = side.name_database(live, PURPOSE, "20000101T000000Z-00000000").rpartition(f"_{PURPOSE}_")[0]
        start = f"{head}_{PURPOSE}_"
        names = [row[0] for row in self._session.query(_LEFTOVERS, {"start": start})]
        names = [name for name in names if _RUN.fullmatch(name[len(start) :])]
        if names and not check:
            self._restore.lock()
        failures = []
        for name, found in side.read_databases(self._session, *names).items():
            mark = found.mark
            is_ours = (
                mark is not None and mark.database == live and name == side.name_database(live, PURPOSE, mark.backup)
            )
            if is_ours and mark is not None and mark.state in (side.RESTORING, side.RESTORED):
                drop = partial(self._remover.remove, mark.backup, check=check)
            elif found.is_unmarked and head == live:
                # Where the name had to be cut, it may be the beginning of another database's.
                drop = partial(self._drop_unmarked, name, check=check)
            else:
                continue
            self._outcome.plan.append(
                PlanItem(f"database {name}", "drop", "an earlier drill has left it", reversible=False)
            )
            failure = _find_failure(drop, name)
            if failure is not None:
                failures.append(failure)
                continue
            self._outcome.facts["removed"].append(name)
            self._outcome.changed = True
            self._outcome.write_attempted = not check
        return failures

    def _drop_unmarked(self, name: str, *, check: bool) -> None:
        if not check:
            side.drop_database(self._session, name, end_sessions=False)

    def _ask(self, database: str) -> dict[str, t.Any]:
        """Ask the application's query of the copy: one row, whose boolean columns are all true."""
        own = replace(self._settings, dbname=database)
        # A database whose transactions are read only is as good as any: this one only reads.
        with Session(own, module="pg_restore", run_id=new_run_id(), writes=False) as session:
            rows = judging.ask(session, self._options.query, self._options.query_timeout)
        self._outcome.facts["answer"] = rows
        return judging.judge_answer(rows, obj=f"query on database {database}")

    def _describe(
        self, source: Source, *, started: datetime, rto: float, answer: t.Mapping[str, t.Any]
    ) -> dict[str, t.Any]:
        manifest = source.manifest
        if manifest is None:
            raise Refusal(
                obj=source.url, problem="it has no manifest", next_step="Drill a backup of lowtide.ops.pg_backup"
            )
        server = self._session.server
        return {
            "proven": True,
            "database": self._place.database,
            "source_system_identifier": self._place.system_identifier,
            "backup": source.run,
            "backup_url": source.url,
            "backup_sha256": {name: part.sha256 for name, part in manifest.parts.items()},
            "backup_taken_at": stamp(manifest.taken_at),
            "backup_hosts": list(manifest.hosts),
            "restored_on": {"system_identifier": server.system_identifier, "address": server.address},
            "server_version": "{}.{}".format(*divmod(server.version, 10000)),
            "started_at": stamp(started),
            "finished_at": stamp(read_clock(self._session)),
            "rpo_seconds": max(0, int((started - manifest.taken_at).total_seconds())),
            "rto_seconds": round(rto, 3),
            "query": self._options.query,
            "answer": dict(answer),
            "not_compared": list(self._outcome.facts["not_compared"]),
            "passed_over": list(self._outcome.facts["passed_over"]),
            "node": platform.node(),
        }

    def _sign(self, signer: Signer, name: str, document: dict[str, t.Any]) -> None:
        """Sign the evidence and write it; without that nothing is proven."""
        body = evidence.write_document(document)
        signature = signer.sign(body)
        key = evidence.save(self._bucket, self._place, name, body, signature)
        path = None
        if self._options.evidence_dir is not None:
            path = evidence.save_local(self._options.evidence_dir, name, body, signature)
        self._outcome.facts["drill"] = {"url": self._bucket.url(key), "path": path, **document}
        rows = f"{format_count(document['rows'], 'row')} of {format_count(document['tables'], 'table')}"
        self._outcome.evidence.append(
            f"{self._bucket.url(key)}: backup {document['backup']}, {rows}, answer"
            f" {join_some([f'{column}={value}' for column, value in document['answer'].items()])},"
            f" signed by {signer.public_key}"
        )


def _find_failure(drop: t.Callable[[], None], name: str) -> OpsError | None:
    """Drop a copy, and return what stands in the way of it."""
    try:
        drop()
    except OpsError as error:
        return error
    except driver_error() as error:
        return sql_error(f"database {name}", error)
    return None
