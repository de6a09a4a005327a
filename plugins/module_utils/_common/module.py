# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The one place where a module's work meets AnsibleModule. Private to lowtide.ops: do not import from other collections."""

from __future__ import annotations

import importlib
import sys
import time
import typing as t

from .errors import OpsError, Refusal, WaitError
from .outcome import Outcome

if t.TYPE_CHECKING:
    from ansible.module_utils.basic import AnsibleModule


def run_module(module: AnsibleModule, work: t.Callable[[AnsibleModule, Outcome], None]) -> t.NoReturn:
    """Run ``work(module, outcome)`` and leave through ``exit_json`` or ``fail_json``.

    ``work`` fills the outcome as it goes and raises :class:`OpsError`; whatever the outcome holds by then is
    part of the failure, so that it shows how far it got. A write without an answer must have set ``changed``.
    """
    outcome = Outcome(check_mode=module.check_mode)
    try:
        work(module, outcome)
    except OpsError as error:
        details = {**error.as_dict(), "refused": is_refused(error, outcome)}
        module.fail_json(msg=str(error), error=details, **outcome.as_result())
    module.exit_json(**outcome.as_result())


def is_refused(error: OpsError, outcome: Outcome) -> bool:
    """Return whether the run ended before it changed or tried to change anything, and not because a wait had no success.

    In check mode nothing is changed, whatever ``outcome.changed`` predicts.
    """
    acted = outcome.write_attempted or (outcome.changed and not outcome.check_mode)
    return not acted and not isinstance(error, WaitError)


def require(library: str, *, package: str, why: str) -> t.Any:
    """Import ``library`` (a dotted module name) or refuse, naming the package, this interpreter and the reason."""
    try:
        return importlib.import_module(library)
    except ImportError as error:
        raise Refusal(
            obj=f"Python library {package}",
            problem=f"{sys.executable} cannot import {library} ({error}), which is needed {why}",
            next_step=f"Install it for that interpreter (pip install {package}) or set ansible_python_interpreter",
        ) from error


class Deadline:
    """A point in time that a wait must not pass. Clock in seconds, monotonic; it and the sleep injectable for tests."""

    def __init__(
        self,
        seconds: float,
        clock: t.Callable[[], float] = time.monotonic,
        sleep: t.Callable[[float], None] = time.sleep,
    ) -> None:
        self._clock = clock
        self._sleep = sleep
        self._start = clock()
        self.seconds = seconds

    @property
    def elapsed(self) -> float:
        """Seconds since the deadline was set."""
        return self._clock() - self._start

    @property
    def remaining(self) -> float:
        """Seconds left, never negative."""
        return max(0.0, self.seconds - self.elapsed)

    @property
    def passed(self) -> bool:
        """Whether no time is left."""
        return self.remaining <= 0.0

    def pause(self, seconds: float) -> None:
        """Sleep between two looks at a condition that nothing announces, but not past the deadline."""
        self._sleep(min(seconds, self.remaining))
