# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A client that writes a row every 10 ms, whoever is the primary, and knows which of them were acknowledged."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import psycopg2

PERIOD = 0.01


class SteadyWriter:
    """Writes numbers into table ``steady`` until it is stopped. ``connect`` makes a session on the primary."""

    def __init__(self, connect: Callable[[], Any]) -> None:
        self.connect = connect
        self.acknowledged: list[int] = []
        self.times: list[float] = []
        self.refused: list[str] = []
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._write, daemon=True)

    @property
    def gap(self) -> float:
        """The longest time between two acknowledged rows, in seconds."""
        return max((later - earlier for earlier, later in zip(self.times, self.times[1:], strict=False)), default=0.0)

    def _write(self) -> None:
        number = 0
        connection: Any = None
        while not self._end.is_set():
            number += 1
            try:
                connection = connection or self.connect()
                with connection.cursor() as cursor:
                    cursor.execute("INSERT INTO steady VALUES (%s)", (number,))
            except psycopg2.Error as error:
                self.refused.append(str(error).strip())
                if connection is not None:
                    connection.close()
                connection = None
            else:
                self.acknowledged.append(number)
                self.times.append(time.monotonic())
            self._end.wait(PERIOD)
        if connection is not None:
            connection.close()

    def wait_for(self, rows: int, seconds: float = 120.0) -> None:
        """Until it has written so many more rows."""
        goal, end = len(self.acknowledged) + rows, time.monotonic() + seconds
        while len(self.acknowledged) < goal:
            assert time.monotonic() < end, self.refused[-3:]
            time.sleep(PERIOD)

    def stop(self) -> None:
        """End it."""
        self._end.set()
        self._thread.join(120)

    @contextlib.contextmanager
    def writing(self) -> Iterator[SteadyWriter]:
        """Make the table anew, and write until the end of the block."""
        with contextlib.closing(self.connect()) as connection, connection.cursor() as cursor:
            cursor.execute("DROP TABLE IF EXISTS steady")
            cursor.execute("CREATE TABLE steady (id bigint PRIMARY KEY)")
        self._thread.start()
        try:
            self.wait_for(20)
            yield self
            self.wait_for(20)
        finally:
            self.stop()

    def read_present(self) -> set[int]:
        """The rows that the primary has now."""
        with contextlib.closing(self.connect()) as connection, connection.cursor() as cursor:
            cursor.execute("SELECT id FROM steady")
            return {row[0] for row in cursor.fetchall()}

    def lost(self) -> list[int]:
        """The rows that were acknowledged and are not there."""
        return sorted(set(self.acknowledged) - self.read_present())
