# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Several module results as one. Private to lowtide.ops: do not import from other collections."""

from __future__ import annotations

import typing as t

from ansible_collections.lowtide.ops.plugins.module_utils._common.errors import Refusal

Result = t.Mapping[str, t.Any]
LISTS = ("plan", "blockers", "evidence")


def merge_results(results: t.Any) -> dict[str, t.Any]:
    """Return one result for several registered ones, in their order. Results of skipped tasks are left out.

    ``changed`` and ``check_mode`` are true if one of them is, summaries are joined, and plan, blockers and evidence
    follow each other. Where no result has a summary it is ``nothing to do``. A Refusal names a result that is not one.
    """
    if not isinstance(results, list | tuple):
        raise Refusal(
            obj="merge_results",
            problem=f"its input is of type {type(results).__name__}, not a list of results",
            next_step="Give a list of registered results, or the results of a loop",
        )
    performed = [_check(result, number) for number, result in enumerate(results)]
    performed = [result for result in performed if not result.get("skipped", False)]
    merged: dict[str, t.Any] = {
        "changed": any(result["changed"] for result in performed),
        "check_mode": any(result.get("check_mode", False) for result in performed),
        "summary": "; ".join(result["summary"] for result in performed if result.get("summary")) or "nothing to do",
    }
    for key in LISTS:
        merged[key] = [entry for result in performed for entry in result.get(key) or []]
    return merged


def _check(result: t.Any, number: int) -> Result:
    if isinstance(result, t.Mapping) and "changed" in result:
        return result
    raise Refusal(
        obj=f"merge_results, result {number}",
        problem=f"it is {type(result).__name__} {str(result)[:80]!r} and has no changed",
        next_step="Give what register has stored; for a loop, its results",
    )
