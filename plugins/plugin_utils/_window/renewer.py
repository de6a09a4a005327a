# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Keep a site's lease fresh while its controller lives: a process of its own.

Private to lowtide.ops: do not import from other collections. It reads what to do from its standard input, since that
holds credentials: the JSON that :meth:`.store.Store.start_renewer` writes.

It ends with the controller (at once by its pidfd, without that within a second) or when the lease is given back. Where
the lease has passed to another owner it ends the controller and what that runs here: the site is another's now. It
never takes or releases a lease.
"""

from __future__ import annotations

import json
import os
import select
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if __name__ == "__main__":
    WORK = json.load(sys.stdin)
    sys.path[:0] = WORK["path"]

# What follows is found on the path of the process that started this one.
from ansible_collections.lowtide.ops.plugins.module_utils._common.errors import OpsError
from ansible_collections.lowtide.ops.plugins.plugin_utils._window.lease import LeaseLost
from ansible_collections.lowtide.ops.plugins.plugin_utils._window.places import connect
from ansible_collections.lowtide.ops.plugins.plugin_utils._window.processes import end_run, tell_process
from ansible_collections.lowtide.ops.plugins.plugin_utils._window.renewal import Moment, Sign
from ansible_collections.lowtide.ops.plugins.plugin_utils._window.store import LeaseOutdated, make_loss
from ansible_collections.lowtide.ops.plugins.plugin_utils._window.watch import Watch

if TYPE_CHECKING:
    from ansible_collections.lowtide.ops.plugins.plugin_utils._window.store import Store

LOOK_INTERVAL = 1.0
"""Seconds between two looks at a controller whose end cannot be heard of."""


def _is_at_work(pid: int, started: int) -> bool:
    """Return whether ``pid`` is the process that started at ``started`` (clock ticks since boot), and no zombie."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as handle:
            fields = handle.read().rpartition(")")[2].split()
    except (ProcessLookupError, FileNotFoundError):
        return False
    return fields[0] not in {"Z", "X"} and int(fields[19]) == started


class _Controller:
    """The controller's process, whose end is heard of at once (pidfd), or by looking at it once a second where
    pidfd_open is barred (by a seccomp filter) or missing (in this build of Python)."""

    def __init__(self, pid: int, started: int) -> None:
        self._pid = pid
        self._started = started
        self._poller = select.poll()
        self._can_hear = True
        try:
            self._poller.register(os.pidfd_open(pid), select.POLLIN)
        except (AttributeError, OSError):  # missing, barred, or the process has ended
            self._can_hear = False

    def is_at_work(self) -> bool:
        """Return whether it still lives."""
        return _is_at_work(self._pid, self._started)

    def wait_for_end(self, seconds: float) -> bool:
        """Wait for its end, at most ``seconds``; return whether it has ended."""
        if self._can_hear:
            return bool(self._poller.poll(seconds * 1000))
        deadline = time.monotonic() + seconds
        while self.is_at_work():
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            self._poller.poll(min(LOOK_INTERVAL, left) * 1000)
        return True


def renew(store: Store, token: int, pid: int, started: int, *, interval: float, sign: Sign | None = None) -> str:
    """Renew every ``interval`` seconds and return why it ended. Raise LeaseLost when the lease is another owner's."""
    controller = _Controller(pid, started)
    if not controller.is_at_work():
        return "controller ended"
    outdated = Watch(time.monotonic)
    while True:
        try:
            if not _renew_once(store, token, sign, outdated):
                return "lease given back"
        except LeaseLost:
            raise
        except (OSError, OpsError) as error:  # the server does not answer now: that is no other owner
            _keep_error(sign, f"{store.location}: {error}")
        if controller.wait_for_end(interval):
            return "controller ended"


def _renew_once(store: Store, token: int, sign: Sign | None, outdated: Watch) -> bool:
    """Renew the lease, and return whether that has still a sense: this run has not given it back.

    Raise LeaseLost also for a lease of an earlier token that somebody renews: its run acquired it after this one, from
    a server whose clock is behind.
    """
    begun = Moment.now()
    try:
        store.renew(token)
    except LeaseLost:
        held = store.read_lease()
        if held is not None and held.token == token and held.released:
            return False
        raise
    except LeaseOutdated:
        held = store.read_lease()
        if held is not None and outdated.look(held.token, store.read_last_renewal()):
            raise make_loss(store.location, token, held) from None
        raise
    if sign is not None:
        sign.write(begun)
    return True


def _keep_error(sign: Sign | None, words: str) -> None:
    """Leave the error where the next step finds it."""
    sys.stderr.write(f"{words}\n")
    try:
        if sign is not None:
            sign.write_error(words)
    except OSError as error:  # no room in Ansible's own directory
        sys.stderr.write(f"{error}\n")


def stop_run(work: dict[str, Any], sign: Sign | None, loss: LeaseLost) -> None:
    """End what this run does on a site that is another's now, and tell why."""
    words = (
        f"lowtide window: this run is ended, since its site is another's now: {loss} Tasks with become, and those on "
        "other hosts, go on to their end."
    )
    try:
        if sign is not None:
            sign.write_loss(str(loss))
        tell_process(work["pid"], words)
    except OSError as error:  # closed, or no room: it has to end all the same
        sys.stderr.write(f"{words} ({error})\n")
    end_run(work["pid"], work["started"], mark=work["mark"], pipe=work["pipe"])


def main(work: dict[str, Any]) -> None:
    """Renew what a controller has described."""
    if work["place"]["kind"] == "file":
        os.chdir("/")  # a directory that somebody unmounts; files of a connection may be named from it
    store = connect(work["place"])
    sign = None if work["sign"] is None else Sign(Path(work["sign"]))
    try:
        renew(store, work["token"], work["pid"], work["started"], interval=work["interval"], sign=sign)
    except LeaseLost as loss:
        stop_run(work, sign, loss)


if __name__ == "__main__":
    main(WORK)
