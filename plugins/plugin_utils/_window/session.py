# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The open window of this controller run, and its journal under the site's lock.

Private to lowtide.ops: do not import from other collections. A file in Ansible's own temporary directory of this run
says that a window is open, and where its journal is. That directory is made for each controller process and removed at
its end, so another run never sees it. Credentials of a shared store are not in that file: each task brings them.

A server that keeps the store may not answer when a step begins or ends. What this run knows of the journal is in its
directory, too: a step that would change something is not begun then, and a reverting step goes on by that, as long as
the lease cannot have passed to somebody else. What ends meanwhile is kept, and written as soon as the server answers.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from ansible_collections.lowtide.ops.plugins.module_utils._common.errors import OpsError

from .events import Event, WindowOpened
from .files import write_atomically
from .lease import LeaseLost, find_interval, make_run_marker
from .places import Place
from .processes import ENVIRONMENT_MARK
from .renewal import SIGN, Moment, Sign, read_tick
from .rules import WindowRules
from .state import WindowState, compute_state
from .store import PATIENCE, SHORT_PATIENCE, JournalLost, LeaseForgotten, LeaseOutdated, Store, StoreUnreachable
from .store_file import FileStore, make_slug

Written = TypeVar("Written")
CONTEXT_FILE = "lowtide_window.json"
ASK_INTERVAL = 10.0
"""Seconds from an attempt to reach a store that does not answer to the next one, for all processes of a run."""
WAITED = 1.0
"""Seconds after which an error is one that was waited for. What is refused at once costs nothing to ask again."""
MARGIN = 5.0
"""Seconds before the end of a lease from which it counts as over for a run that cannot reach the store."""


@dataclass(frozen=True)
class Controller:
    """The ansible-playbook process: its ``pid``, its temporary ``folder`` and result queue (``pipe:[inode]``, None
    when unknown), whether it runs in check mode, the hosts of the group ``control``, the ``host`` of this task, and
    the options that leave parts of a playbook out."""

    pid: int
    folder: str
    pipe: str | None
    check_mode: bool
    control: list[str]
    host: str
    limits: dict[str, Any]


@dataclass(frozen=True)
class OpenWindow:
    """The window that is open in this controller run. ``journal`` is its name in the store at ``place``."""

    window: str
    window_id: str
    token: int
    journal: str
    control: str
    check_mode: bool
    version: str
    folder: str
    keep_days: int
    place: Place = field(repr=False)
    shown: dict[str, str] = field(default_factory=dict)
    """What a check mode shows, for those who approve it."""

    @property
    def store(self) -> Store:
        """Where lease, journal and reports are; in check mode a private copy of it."""
        return make_copy(self.folder) if self.check_mode else self.place.connect(self.folder)

    @property
    def sign(self) -> Sign:
        """What the process that renews the lease has left."""
        return Sign(Path(self.folder, SIGN))

    @property
    def environment(self) -> dict[str, str]:
        """What the module processes of a step carry, so that one that outlives its controller is known by it."""
        return {ENVIRONMENT_MARK: make_run_marker(self.store.location, self.token)}

    def save(self) -> None:
        """Make the window known to every worker of this run."""
        kept = asdict(replace(self, place=replace(self.place, shared={})))
        write_atomically(Path(self.folder, CONTEXT_FILE), json.dumps(kept))

    @classmethod
    def load(cls, folder: str, *, shared: Mapping[str, Any] | None = None) -> OpenWindow | None:
        """Return the open window of this run; None when none was opened. ``shared`` is the option window_store."""
        try:
            values = json.loads(Path(folder, CONTEXT_FILE).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        place = Place(values["place"]["site"], values["place"]["directory"], shared or {})
        return cls(**{**values, "place": place})

    @contextmanager
    def open_session(self, *, patience: float | None = None) -> Iterator[Session]:
        """Hold the lock with the journal read. Raise LeaseLost when another run has taken over the site.

        Where the store does not answer, the session is of what this run knows, and keeps what is appended. Raise
        OpsError when the lease may have passed to another run meanwhile. ``patience`` is for how many seconds a store
        is asked that did not answer the last time, where nothing can be done without it; None: it is left alone for
        ASK_INTERVAL.
        """
        store, silence = self.store, Silence(Path(self.folder, "lowtide_window_silent"))
        with ExitStack() as stack:
            # Before the store is asked: of hosts that begin together one waits for a server that is away.
            stack.enter_context(_lock(self.folder))
            self._refuse_loss(store)
            try:
                self._bear(silence, store, patience)
                with silence.listen():
                    stack.enter_context(store.lock())
                    events = store.load(self.journal)
                    if not self.check_mode:
                        # After the journal was read: what another owner has written since is not what was read.
                        self._check_token(store)
                forgotten = self._find_forgotten(store, events)
            except OSError as error:
                if not isinstance(error, (LeaseForgotten, JournalLost)):  # it was just read who has the site
                    self._require_lease(store, error)
                store.shorten_patience()  # for what is asked all the same
                session = Session(self, store, self.known.load(self.local_name), error=error, patience=patience)
                if isinstance(error, JournalLost):
                    self._keep_lease(session)
            else:
                session = Session(self, store, events, patience=patience, forgotten=forgotten)
                stack.callback(session.keep)  # with what it writes
                self._keep_lease(session)
                session.write_kept()
            yield session

    def _bear(self, silence: Silence, store: Store, patience: float | None) -> None:
        """Ask a store for no longer than the lease has left; one that did not answer the last time for a shorter time,
        or not yet."""
        if not silence.is_on:
            patience = PATIENCE
        left = store.ttl - MARGIN - self._measure_age(store)
        if left <= 0:
            # Nothing can be done without its answer, and nothing is lost by waiting, but for one who waited just now.
            usual = SHORT_PATIENCE if silence.is_fresh else PATIENCE
            store.shorten_patience(usual if patience is None else patience)
            return
        if patience is None:
            silence.refuse()
            # What is to be reverted has only the time of the lease. One that answers the renewer is only slow, which is
            # waited for until a host was refused.
            is_waited_for = self.is_renewed(store) and not UnrecordedPlay(self.folder).is_told
            patience = PATIENCE if is_waited_for else SHORT_PATIENCE
        # A store may take some seconds longer, and who waits in vain until the lease is over can do nothing any more.
        store.shorten_patience(max(SHORT_PATIENCE, min(patience, left - MARGIN)))

    def _find_forgotten(self, store: Store, journal: Sequence[Event]) -> list[Event]:
        """Return those events that this run has written and the store has lost since, with the lease that was written
        before them (a failover to a standby that lagged): they are true, and to be written again.

        Raise JournalLost where those of earlier runs are lost, too, which no store takes from this one; or where others
        came after them (that failover was between the reading of the journal and a write): they would be out of turn.
        """
        if self.check_mode or self.known.count_lines(self.local_name) <= len(journal):
            return []
        known = self.known.load(self.local_name)
        forgotten = known[len(journal) :]
        if not are_same(journal, known[: len(journal)]):
            raise JournalLost(
                f"{store.location}: the journal of {self.window_id} has lost events between others that it has"
            )
        if any(event.token != self.token for event in forgotten):
            raise JournalLost(
                f"{store.location}: the journal of {self.window_id} has lost {len(forgotten)} events, also of "
                "earlier runs, or was taken away"
            )
        return forgotten

    def _check_token(self, store: Store) -> None:
        """Raise unless this run holds the lease. An earlier one that is over is nobody's, like one that is forgotten:
        any other run may take it."""
        try:
            store.check(self.token)
        except LeaseOutdated as error:
            if store.is_expired():
                raise LeaseForgotten(f"{error}; that one is over, too") from error
            raise

    def _refuse_loss(self, store: Store) -> None:
        """Raise LeaseLost where the renewer has found that another run holds the site, and ends this one."""
        loss = self.sign.read_loss()
        if loss:
            raise LeaseLost(
                obj=f"site {store.location}",
                problem=f"the process that renews its lease has found another owner ({loss})",
                next_step="Leave the site to that run; this one writes no more",
            )

    @property
    def local_name(self) -> str:
        """The journal's name in this run's own directory."""
        return make_slug(self.window_id)

    @property
    def known(self) -> FileStore:
        """What this run has read of its journal."""
        return FileStore(Path(self.folder, "lowtide_window_known"))

    @property
    def fallback(self) -> FileStore:
        """What its journal has not, and this run has to write there."""
        return FileStore(Path(self.folder, "lowtide_window_fallback"))

    def is_renewed(self, store: Store) -> bool:
        """Return whether the process that renews the lease has done so of late."""
        return self._measure_age(store) <= 2 * find_interval(store.ttl)

    def _measure_age(self, store: Store) -> float:
        """Return the seconds since the lease was renewed; its whole time where that is not known."""
        age = self.sign.measure_age()
        return store.ttl if age is None else age

    def _keep_lease(self, session: Session) -> None:
        """Renew the lease where its process has not for two renewals, since it was killed, or its credentials are over,
        and start another one that connects as this task does.

        That it cannot be renewed (a disk that became read-only) is a warning: it was just read that it is held.
        """
        store, sign = session.store, self.sign
        age = self._measure_age(store)
        if self.check_mode or self.is_renewed(store):
            return
        why = sign.read_error() or "it left no error: it was ended, or is stuck"
        begun = Moment.now()
        try:
            session.write(lambda: store.renew(self.token))
            held = store.read_lease()
            sign.write(begun)
            if held is not None and held.owner.check_liveness() == "alive":
                store.start_renewer(held, sign=sign.path)
        except OSError as error:
            session.warnings.append(f"the lease of the site was not renewed for {age:.0f} s ({error})")
            return
        session.warnings.append(
            f"the process that renews the lease of the site had not done so for {age:.0f} s ({why}); another one was "
            "started with the connection that this task has"
        )

    def _require_lease(self, store: Store, error: OSError) -> None:
        """Raise OpsError when the lease was not renewed for so long that it may be another run's."""
        age = self._measure_age(store)
        if age >= store.ttl - MARGIN:
            raise OpsError(
                obj=f"site {store.location}",
                problem=f"its lease cannot be confirmed ({error}), and was not renewed for {age:.0f} s, so that "
                "another run may hold it",
                next_step=f"{_find_remedy(error)}, then run the window again, or restore_service",
            ) from error


def _find_remedy(error: OSError) -> str:
    """Return what helps against a store that takes nothing from this run."""
    if isinstance(error, (LeaseForgotten, LeaseOutdated)):
        return "Make sure that no other run is at work on the site"
    if isinstance(error, JournalLost):
        return "Launch restore_service after this run, since no later one knows of what its journal has lost"
    return "Make room there, or bring its server back"


def are_same(events: Sequence[Event], others: Sequence[Event]) -> bool:
    """Return whether they are the same events; a store gives each its own time."""
    return [replace(event, at=0.0) for event in events] == [replace(event, at=0.0) for event in others]


@contextmanager
def _lock(folder: str) -> Iterator[None]:
    """Take turns with the other processes of this run, by a file in its directory."""
    descriptor = os.open(Path(folder, "lowtide_window_turn"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


class Silence:
    """The file that tells that a server did not answer the last time, with the time and the error of that. The time is
    by the one clock that nobody sets: where a machine was held meanwhile, the store is left alone a little longer."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @property
    def is_on(self) -> bool:
        """Whether it did not answer."""
        return self._path.exists()

    @contextmanager
    def listen(self) -> Iterator[None]:
        """Ask the server inside, and tell whether it answered."""
        begun = read_tick()
        try:
            yield
        except (LeaseForgotten, LeaseOutdated):  # an answer, however long it took
            self._path.unlink(missing_ok=True)
            raise
        except StoreUnreachable as error:
            if read_tick() - begun >= WAITED:
                with suppress(OSError):  # no room: it is waited for the next time as well
                    self._path.write_text(json.dumps([read_tick(), str(error)]), encoding="utf-8")
            raise
        self._path.unlink(missing_ok=True)

    @property
    def is_fresh(self) -> bool:
        """Whether it was asked less than ASK_INTERVAL ago, and did not answer."""
        return self._read() is not None

    def refuse(self) -> None:
        """Raise StillSilentError where it was asked less than ASK_INTERVAL ago, and did not answer."""
        words = self._read()
        if words is not None:
            raise StillSilentError(words)

    def _read(self) -> str | None:
        """Return the error of less than ASK_INTERVAL ago."""
        try:
            tick, words = json.loads(self._path.read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):  # it answered; or what was told is cut off by a full disk
            return None
        return str(words) if 0 <= read_tick() - tick < ASK_INTERVAL else None


class StillSilentError(StoreUnreachable):
    """The store did not answer a moment ago, and was not asked again."""


class UnrecordedError(OpsError):
    """What may only be done on record cannot be recorded, so it is not done."""


class UnrecordedPlay:
    """The file that tells that a host of a play was refused, since its start could not be recorded. Its step has failed
    with that: the others of the play are refused alike, and do not wait for the store one after another."""

    def __init__(self, folder: str) -> None:
        self._path = Path(folder, "lowtide_window_unrecorded")

    @property
    def is_told(self) -> bool:
        """Whether any play of this run was refused so."""
        return self._path.exists()

    def tell(self, number: int, error: UnrecordedError) -> None:
        """Tell it of the play ``number`` of the window."""
        with suppress(OSError):  # no room: the next host asks once more
            self._path.write_text(json.dumps([number, error.obj, error.problem, error.next_step]), encoding="utf-8")

    def refuse(self, number: int) -> None:
        """Raise UnrecordedError where a host of the play ``number`` was refused."""
        try:
            refused, obj, problem, next_step = json.loads(self._path.read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):  # none was; or what was told is cut off by a full disk
            return
        if refused == number:
            raise UnrecordedError(obj=obj, problem=problem, next_step=next_step)


def make_copy(folder: str) -> FileStore:
    """Return the private store of a run in check mode."""
    return FileStore(Path(folder, "lowtide_window_check"))


class Session:
    """The state of the open window as read under the lock, and the way to add to it. ``error`` says why the store could
    not be reached, if it could not."""

    def __init__(
        self,
        window: OpenWindow,
        store: Store,
        journal: Sequence[Event],
        *,
        error: OSError | None = None,
        patience: float | None = None,
        forgotten: Sequence[Event] = (),
    ) -> None:
        """``forgotten`` are events that the store had, and has lost."""
        self.window = window
        self.store = store
        self._error = error
        self._is_read = error is None or isinstance(error, JournalLost)
        self._patience = patience
        # Apart from that of what is read: a commit without its standby, an etcd without room.
        self._silence = Silence(Path(window.folder, "lowtide_window_takes_no_writes"))
        self.warnings: list[str] = []
        self._fallback = window.fallback
        kept = self._fallback.load(window.local_name)
        if forgotten:
            self.warnings.append(
                f"the store has lost the last {len(forgotten)} events of this window, which are to be written once more"
            )
            if kept[: len(forgotten)] != list(forgotten):
                kept = [*forgotten, *kept]
                self._keep_copy(self._fallback, kept)
        self._is_doubled = bool(kept) and are_same(journal[-1:], kept[:1])  # it was written, and the answer was lost
        self.lost = kept[1:] if self._is_doubled else kept
        """Events that the journal has not, so that this run still reverts what it started. Nothing is written past
        them: they are the last ones, since nobody else writes this journal."""
        self._journal = list(journal)
        self.state: WindowState = compute_state([*journal, *self.lost])

    def write(self, action: Callable[[], Written]) -> Written:
        """Return what a write to the store gives. Raise OSError; StillSilentError where one was waited for a moment
        ago, and something can be done without this one."""
        if self._patience is None:
            self._silence.refuse()
        if self._silence.is_on:  # whatever the renewer says: it may write its lease, and no journal be taken
            self.store.shorten_patience(SHORT_PATIENCE if self._patience is None else self._patience)
        try:
            with self._silence.listen():
                return action()
        except StoreUnreachable:
            if self._patience is not None:  # what follows is not waited for as long once more
                self._patience = SHORT_PATIENCE
            raise

    def write_kept(self) -> None:
        """Write what was kept while the store did not answer; what cannot be written stays kept."""
        if self._is_doubled:
            self._keep_copy(self._fallback, self.lost)
        while self.lost and not self.window.check_mode:
            try:
                written = self.write(lambda: self.store.append(self.window.journal, self.lost[0]))
            except OSError as error:
                self._error = error
                return
            self._journal.append(written)
            self.lost = self.lost[1:]
            self._keep_copy(self._fallback, self.lost)

    def keep(self) -> None:
        """Keep what was read and written for a time when the store does not answer."""
        self._keep_copy(self.window.known, self._journal)

    def _keep_copy(self, place: FileStore, events: Sequence[Event]) -> None:
        try:
            place.create()
            place.copy(self.window.local_name, events)
        except OSError as error:  # no room in Ansible's own directory, and the store answers
            self.warnings.append(f"what the window knows could not be kept in {place.location} ({error})")

    @property
    def has_lease(self) -> bool:
        """False where the store has answered that this run's lease is nobody's, or that an earlier one is held."""
        return not isinstance(self._error, (LeaseForgotten, LeaseOutdated))

    @cached_property
    def rules(self) -> WindowRules:
        """The rules over the state, which they see as it changes."""
        return WindowRules(self.state)

    def read_clock(self) -> float:
        """Return the store's time; this machine's where it cannot be reached."""
        if self._error is None:
            try:
                return self.store.read_clock()
            except OSError as error:
                self._error = error
        return time.time()

    def append_elsewhere(self, journal: str, event: Event) -> None:
        """Add an event to the journal of another occurrence, also where this run's own takes none. Raise OSError where
        the store could not be read, or does not answer."""
        if self._error is not None and (not self._is_read or self._silence.is_on):
            raise self._error
        self.write(lambda: self.store.append(journal, event))

    def append(self, event: Event, *, durable: bool = False) -> None:
        """Add an event of this run. ``durable``: nothing may be done that is not on record, so a journal that cannot be
        written raises UnrecordedError, and StillSilentError where a session that needs it has to ask; other events are
        then kept until it can."""
        event = replace(event, token=self.window.token)
        try:
            if self._error is not None:
                raise self._error
            written = self.write(lambda: self.store.append(self.window.journal, event))
        except OSError as error:
            if durable and isinstance(error, StillSilentError):
                raise
            if durable:
                raise UnrecordedError(
                    obj=f"journal of {self.window.window_id} in {self.store.location}",
                    problem=f"it cannot be written ({error})",
                    next_step=f"{_find_remedy(error)}, then run the window again"
                    f"{'' if isinstance(event, WindowOpened) else '; reverting steps run all the same'}",
                ) from error
            self._error = error
            self._fallback.create()
            written = self._fallback.append(self.window.local_name, event)
            self.lost.append(written)
        else:
            self._journal.append(written)
        self.state.apply(written)
