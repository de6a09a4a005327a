# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What can go wrong between us and an API server. Private to lowtide.ops: do not import from other collections."""

from __future__ import annotations

from .._common.errors import OpsError


class ApiError(OpsError):
    """The API server could not be asked, or answered with an error.

    ``status`` is the HTTP status, 0 when no answer came.
    """

    def __init__(self, *, obj: str, problem: str, next_step: str, status: int = 0) -> None:
        super().__init__(obj=obj, problem=problem, next_step=next_step)
        self.status = status


class NotFound(ApiError):
    """404: the object, its namespace or its API does not exist."""


class Conflict(ApiError):
    """409 on a write: the object is no longer the one that was read."""


class Uncertain(ApiError):
    """A write was sent and its answer is not known: read the object before deciding anything."""


class Gone(ApiError):
    """410: the resource version is too old to watch from; list again."""
