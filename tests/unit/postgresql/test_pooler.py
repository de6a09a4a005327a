# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Which answers of a pooler show that its sessions are shared: pure."""

from __future__ import annotations

import itertools
from collections import deque
from functools import partial

import pytest

from ansible_collections.lowtide.ops.plugins.module_utils._postgresql.pooler import (
    NEIGHBOURS,
    ROUNDS,
    ask_clients,
    explain_sharing,
)

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


@pytest.mark.parametrize("poolers", [1, 2, 3, 4])
def test_poolers_behind_one_address_do_not_look_like_sessions(poolers: int) -> None:
    """Each has one free session: two of the clients are with the same one, however they are spread."""
    for places in itertools.product(range(poolers), repeat=CLIENTS):
        assert explain_sharing([places] * ROUNDS)


@pytest.mark.parametrize("size", range(1, 20))
def test_sessions_that_are_handed_out_in_turn_are_shared(size: int) -> None:
    """Also when there are as many as clients (server_round_robin of PgBouncer): the second round meets them in another order."""
    free = deque(range(size))

    def answer() -> int:
        free.rotate(-1)
        return free[-1]

    assert explain_sharing(ask_clients([answer] * CLIENTS))


def test_each_client_is_asked_in_each_round() -> None:
    assert ask_clients([partial(int, number) for number in range(CLIENTS)]) == [list(range(CLIENTS))] * 3
