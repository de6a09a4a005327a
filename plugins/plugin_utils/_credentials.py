# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is told of a rotation that was taken back: pure, for the role credentials.

Private to lowtide.ops: do not import from other collections.
"""

from __future__ import annotations

import typing as t

from ansible_collections.lowtide.ops.plugins.plugin_utils._results import merge_results
from ansible_collections.lowtide.ops.plugins.plugin_utils._rolling_upgrade import (
    describe_undo,
    find_cause,
    find_failed,
    list_items,
)

Json = dict[str, t.Any]
Result = t.Mapping[str, t.Any]

GO_ON = {
    True: "Mend what the restart failed of, and run again: that makes another password.",
    False: "Mend that, and run again: that goes on with the way back.",
}
"""What to do next, by whether the way back has come to its end."""


def report_reversion(rotated: Result, failure: Result, reverted: Result, undone: Result, finished: Result) -> Json:
    """Return the role's result: why the restart failed, and which credential is where now.

    ``failure`` is empty where the way back of an earlier run was gone on with. Of steps that were not reached,
    ``undone`` is empty and ``finished`` was skipped.
    """
    parts = [rotated, *([failure] if "changed" in failure else []), reverted, *list_items(undone), finished]
    merged = merge_results([part for part in parts if "changed" in part])
    is_ended = not finished.get("skipped")
    words = [_explain_failure(rotated, failure), _describe_secret(rotated, reverted)]
    if list_items(undone) or undone.get("failed"):
        words += describe_undo(dict(undone))
    if is_ended:
        words.append(_describe_end(finished))
    is_whole = is_ended and not any(step.get("failed") for step in (reverted, undone, finished))
    words.append(GO_ON[is_whole])
    merged["summary"] = " ".join(words)
    merged["blockers"] = [*(find_failed(failure).get("blockers") or []), *merged["blockers"]]
    merged["failed"] = True
    return merged


def _explain_failure(rotated: Result, failure: Result) -> str:
    if not failure:
        return f"{rotated['summary']}."
    return f"What uses {rotated['secret']} could not be restarted with its new credential: {_end(find_cause(failure))}"


def _describe_secret(rotated: Result, reverted: Result) -> str:
    if reverted.get("failed"):
        return f"The old credential could not be put back: {_end(find_cause(reverted))}"
    return f"{rotated['secret']} has the old credential of {reverted['user']} again, which works."


def _describe_end(finished: Result) -> str:
    if finished.get("failed"):
        return f"The new one has not been ended and works too: {_end(find_cause(finished))}"
    return "The new one has been ended, and is refused."


def _end(text: str) -> str:
    return text if text.endswith(".") else f"{text}."
