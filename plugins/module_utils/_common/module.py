# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The one place where a module's work meets AnsibleModule. Private to lowtide.ops: do not import from other collections."""

from __future__ import annotations

import traceback
import typing as t

from .errors import OpsError, WaitError
from .outcome import Outcome

if t.TYPE_CHECKING:
    from ansible.module_utils.basic import AnsibleModule


def run_module(module: AnsibleModule, work: t.Callable[[AnsibleModule, Outcome], None]) -> t.NoReturn:
    """Run ``work(module, outcome)`` and leave through ``exit_json`` or ``fail_json``.

    ``work`` fills the outcome as it goes and raises :class:`OpsError`; whatever the outcome holds by then is
    part of the failure, so that it shows how far it got. A write without an answer must have set ``changed``.
    An exception that nobody foresaw is reported in the same way, without its text, which may hold a credential.
    """
    outcome = Outcome(check_mode=module.check_mode)
    try:
        work(module, outcome)
    except OpsError as error:
        details = {**error.as_dict(), "refused": is_refused(error, outcome)}
        module.fail_json(msg=str(error), error=details, **outcome.as_result())
    except Exception as error:  # pylint: disable=broad-exception-caught
        unforeseen = explain_unforeseen(error, module._name)
        details = {**unforeseen.as_dict(), "refused": is_refused(unforeseen, outcome)}
        module.fail_json(msg=str(unforeseen), error=details, exception=format_frames(error), **outcome.as_result())
    module.exit_json(**outcome.as_result())


def is_refused(error: OpsError, outcome: Outcome) -> bool:
    """Return whether the run ended before it changed or tried to change anything, and not because a wait had no success.

    In check mode nothing is changed, whatever ``outcome.changed`` predicts.
    """
    acted = outcome.write_attempted or (outcome.changed and not outcome.check_mode)
    return not acted and not isinstance(error, WaitError)


def explain_unforeseen(error: Exception, name: str) -> OpsError:
    """Return what to say of an exception that the module did not foresee: its type and place, never its text."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    place = frame.filename.rsplit("/plugins/", 1)[-1]
    return OpsError(
        obj=f"module {name}",
        problem=f"an unforeseen {type(error).__name__} at {place}:{frame.lineno} ended it",
        next_step="Look at what the result says was done, and report this with the result's exception",
    )


def format_frames(error: BaseException) -> str:
    """Return the traceback of an exception and of its causes without their texts."""
    parts: list[str] = []
    current: BaseException | None = error
    while current is not None:
        frames = "".join(traceback.format_tb(current.__traceback__))
        parts.append(f"Traceback (most recent call last):\n{frames}{type(current).__name__}")
        current = current.__cause__ or (None if current.__suppress_context__ else current.__context__)
    return "\nbecause of\n".join(parts)
