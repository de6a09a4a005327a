# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Errors that a person can act on. Private to lowtide.ops: do not import from other collections."""

from __future__ import annotations


class OpsError(Exception):
    """Something went wrong with one named object.

    A message always has three parts: which object, what is wrong (with the value seen), what to do next.
    """

    def __init__(self, *, obj: str, problem: str, next_step: str) -> None:
        self.obj = obj
        self.problem = problem.rstrip(".")
        self.next_step = next_step.rstrip(".")
        super().__init__(f"{self.obj}: {self.problem}. {self.next_step}.")

    def as_dict(self) -> dict[str, object]:
        """The parts, for ``error`` in a module's result."""
        return {
            "object": self.obj,
            "problem": self.problem,
            "next_step": self.next_step,
        }


class Refusal(OpsError):
    """Something must not or cannot be done. Whether anything was changed before is known by ``run_module``."""


class WaitError(OpsError):
    """A wait ended and its condition does not hold. It is never reported as refused, since a wait decides nothing."""


class WaitTimeout(WaitError):
    """A deadline passed before the awaited condition held."""


class WaitFailed(WaitError):
    """A wait ended early: the state seen cannot reach the awaited condition by waiting."""


class OutcomeUnknown(OpsError):
    """A write was sent and no answer came: whether it took effect must be read before anything else is decided."""
