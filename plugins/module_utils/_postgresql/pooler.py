# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tell a connection pooler, and whether it keeps a server session for each of its clients. Private to lowtide.ops: do not import from other collections.

A pooler that pools by transaction or by statement hands settings and locks of a session to whichever client comes next.
Only what changes nothing is asked: which server process answers. No transaction is opened and no setting is made.
"""

from __future__ import annotations

import secrets
import select
import typing as t

from .._common.dependencies import require
from .._common.errors import Refusal
from .._common.retry import Deadline
from .errors import one_line

NEIGHBOURS = 4
"""Connections beside the one that is judged. Five idle ones can be spread over four poolers behind one address, and two of
them share one; then they share its free session too, if it pools by transaction."""

ROUNDS = 3
"""How often each of them is asked: where other clients are at work, or sessions are handed out in turn, answers change.

Asked in the same order each time, as many clients as there are sessions in turn would meet the same ones again.
"""

DIRECT = "Name the PostgreSQL server itself in login_host and login_port, or a pooler that pools by session"

PID_SQL = "SELECT pg_catalog.pg_backend_pid()"


class Neighbour:
    """A further connection of the same client, asked without waiting longer than the deadline."""

    def __init__(self, keywords: t.Mapping[str, t.Any], deadline: Deadline) -> None:
        psycopg2 = require("psycopg2", package="psycopg2-binary", why="to talk to PostgreSQL")
        self._states = psycopg2.extensions
        self._deadline = deadline
        self._connection = psycopg2.connect(**keywords, async_=True)

    def read_process(self) -> int:
        """Return the server process that answers; raise TimeoutError when there is none in time."""
        return int(self.read_value(PID_SQL))

    def read_value(self, sql: str, values: t.Mapping[str, t.Any] | None = None) -> t.Any:
        """Return the single value of a query, None without a row; raise TimeoutError when there is no answer in time."""
        self._wait()
        with self._connection.cursor() as cursor:
            cursor.execute(sql, values)
            self._wait()
            row = cursor.fetchone()
            return None if row is None else row[0]

    def _wait(self) -> None:
        while (state := self._connection.poll()) != self._states.POLL_OK:
            descriptors = [self._connection.fileno()]
            reads, writes = (descriptors, []) if state == self._states.POLL_READ else ([], descriptors)
            if self._deadline.passed or not any(select.select(reads, writes, [], self._deadline.remaining)):
                raise TimeoutError("no answer in time")

    def close(self) -> None:
        """End it."""
        self._connection.close()


def is_pooled(connection: t.Any, answering: int) -> bool:
    """Return whether another process answers than the one that the connection was greeted by."""
    return bool(connection.info.backend_pid != answering)


def refuse_shared_sessions(
    read_process: t.Callable[[], int], keywords: t.Mapping[str, t.Any], *, target: str, seconds: float
) -> None:
    """Refuse a pooler unless every one of several clients keeps a server process of its own, with no transaction open."""
    deadline = Deadline(seconds)
    psycopg2 = require("psycopg2", package="psycopg2-binary", why="to talk to PostgreSQL")
    neighbours: list[Neighbour] = []
    try:
        for _number in range(NEIGHBOURS):
            neighbours.append(Neighbour(keywords, deadline))
        answers = ask_clients([read_process, *(neighbour.read_process for neighbour in neighbours)])
    except (psycopg2.Error, TimeoutError) as error:
        raise Refusal(
            obj=target,
            problem="a connection pooler answers there, and whether each of its clients has a server session of its own could"
            f" not be found out with {NEIGHBOURS} more connections: {one_line(str(error))}",
            next_step=f"{DIRECT} and has {NEIGHBOURS + 1} connections to spare",
        ) from error
    finally:
        for neighbour in neighbours:
            neighbour.close()
    if reason := explain_sharing(answers):
        raise Refusal(
            obj=target,
            problem=f"a connection pooler answers there that pools by transaction or statement ({reason});"
            " settings and locks of a session would reach other clients",
            next_step=DIRECT,
        )


def ask_clients(readers: t.Sequence[t.Callable[[], int]]) -> list[list[int]]:
    """Return for each round each client's process: asked in their order, then from the last to the first, then in any."""
    order = list(range(len(readers)))
    answers = []
    for number in range(ROUNDS):
        answer = {client: readers[client]() for client in order}
        answers.append([answer[client] for client in range(len(readers))])
        if number == 0:
            order.reverse()
        else:
            secrets.SystemRandom().shuffle(order)
    return answers


def explain_sharing(answers: t.Sequence[t.Sequence[int]]) -> str | None:
    """Return what shows that server processes are shared, or None. ``answers``: for each round, each client's process.

    >>> explain_sharing([[7, 8, 9], [7, 8, 9]])
    >>> explain_sharing([[7, 7, 9], [7, 7, 9]])
    'server process 7 answers more than one client'
    >>> explain_sharing([[7, 8, 9], [8, 9, 7]])
    'server processes 7 and 8 answer one client'
    """
    for client in zip(*answers):  # noqa: B905  # managed hosts may have Python 3.8
        if len(set(client)) > 1:
            return f"server processes {' and '.join(map(str, sorted(set(client))))} answer one client"
    for answer in answers:
        for process in answer:
            if answer.count(process) > 1:
                return f"server process {process} answers more than one client"
    return None
