# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The occurrences of a site that are not settled. Private to lowtide.ops: do not import from other collections."""

from __future__ import annotations

from dataclasses import dataclass

from ansible_collections.lowtide.ops.plugins.module_utils._common.errors import Refusal

from .rules import RESTORE
from .state import WindowState, compute_state, is_settled
from .store import Store


@dataclass(frozen=True)
class Occurrences:
    """The occurrences of a site that are not settled, by window id, and the journals that cannot be trusted."""

    states: dict[str, WindowState]
    damaged: dict[str, Refusal]

    def select_window(self, window: str) -> dict[str, WindowState]:
        """Return those of one window."""
        return {
            window_id: state
            for window_id, state in self.states.items()
            if state.opened is not None and state.opened.window == window
        }


def read_occurrences(store: Store, *, also: str = "") -> Occurrences:
    """Read every journal of the site but those whose last event says that all is done and nothing is left.

    ``also`` is an occurrence that is read even so.

    Those of restore_service are left out as well: what these revert was left by others, whose journals tell of it.
    """
    with store.reading():
        return _read_occurrences(store, also)


def _read_occurrences(store: Store, also: str) -> Occurrences:
    states: dict[str, WindowState] = {}
    damaged: dict[str, Refusal] = {}
    for name in store.list_occurrences():
        if is_settled(store.read_last_event(name)) and (not also or name != store.make_name(also)):
            continue
        try:
            state = compute_state(store.load(name))
        except Refusal as error:  # damaged, or of a later format
            damaged[name] = error
            continue
        if state.opened is not None and state.opened.mode != RESTORE:
            states[state.opened.window_id] = state
    return Occurrences(states, damaged)
