# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""For tests only: kill the controller at the start of its n-th task, KILL_AT=NUMBER:SIGNAL.

FAST_RENEWAL=SECONDS shortens the time between two renewals of the lease, for which one that seems to be over is
watched, for all processes of the run.
"""

from __future__ import annotations

import os
import signal
from typing import Any

from ansible.plugins.callback import CallbackBase

from ansible_collections.lowtide.ops.plugins.plugin_utils._window import lease

DOCUMENTATION = """
name: kill_at
type: aggregate
short_description: kills the controller at a task, for tests
description: Counts started tasks and sends a signal to its own process.
"""


class CallbackModule(CallbackBase):
    """Counts tasks."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "kill_at"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self) -> None:
        """Read where to kill."""
        super().__init__()
        number, _colon, name = os.environ.get("KILL_AT", "0:9").partition(":")
        if "FAST_RENEWAL" in os.environ:
            lease.RENEWAL = float(os.environ["FAST_RENEWAL"])
        self._at, self._signal, self._count = int(number), int(name), 0

    def v2_playbook_on_task_start(self, task: Any, is_conditional: bool) -> None:
        """One more."""
        del task, is_conditional
        self._count += 1
        if self._count == self._at:
            if self._signal == signal.SIGINT:
                # ansible-core 2.19 hangs when a worker is terminated while it holds the lock of the result queue
                # (StrategyBase.cleanup waits for it). Whoever sits before it would kill it; here the alarm does.
                signal.alarm(10)
            os.kill(os.getpid(), signal.Signals(self._signal))
