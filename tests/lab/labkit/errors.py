# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The one error of the lab."""

from __future__ import annotations


class LabError(Exception):
    """Something in the lab went wrong: which object, what was seen, what to do next."""

    def __init__(self, *, obj: str, problem: str, next_step: str) -> None:
        self.obj = obj
        self.problem = problem.rstrip(".")
        self.next_step = next_step.rstrip(".")
        super().__init__(f"{self.obj}: {self.problem}. {self.next_step}.")
