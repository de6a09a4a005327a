# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Which answers of a pooler show that its sessions are shared: pure."""

from __future__ import annotations

import itertools

import pytest

from ansible_collections.lowtide.ops.plugins.module_utils._postgresql.pooler import NEIGHBOURS, ROUNDS, explain_sharing

CLIENTS = NEIGHBOURS + 1


@pytest.mark.parametrize(
    ("answers", "reason"),
    [
        ([[7, 8, 9], [7, 8, 9]], None),
        ([[7, 7, 7], [7, 7, 7]], "server process 7 answers more than one client"),  # the free session is everybody's
        ([[7, 8, 9], [7, 9, 8]], "server processes 8 and 9 answer one client"),  # in turn
        ([[7, 8, 9], [7, 8, 10]], "server processes 9 and 10 answer one client"),
    ],
)
def test_sharing_is_told_by_which_process_answers_whom(answers: list[list[int]], reason: str | None) -> None:
    assert explain_sharing(answers) == reason


@pytest.mark.parametrize("poolers", range(1, CLIENTS))
def test_poolers_behind_one_address_do_not_look_like_sessions(poolers: int) -> None:
    """Each has one free session: two of the clients are with the same one, however they are spread."""
    for places in itertools.product(range(poolers), repeat=CLIENTS):
        assert explain_sharing([places] * ROUNDS)
