# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How many partitions the topics of a consumer have: data that was passed, or Kafka that is asked each time.

Private to lowtide.ops: do not import from other collections.
"""

from __future__ import annotations

import typing as t

from .._common.errors import Refusal
from .._kafka.connection import open_client
from .._kubernetes.plans.replicas_from_partitions import check_counts, read_given_counts

if t.TYPE_CHECKING:
    from .._kafka.api import BusClient


class Partitions:
    """The partition counts of the options ``topics``, ``partitions`` and ``kafka_connection``."""

    def __init__(self, params: t.Mapping[str, t.Any]) -> None:
        self._topics: list[str] = list(params["topics"])
        self._given = params["partitions"]
        self._connection = params["kafka_connection"]
        self._client: BusClient | None = None

    @property
    def is_live(self) -> bool:
        """Whether asking again can give another answer."""
        return self._connection is not None

    def read_counts(self) -> dict[str, int]:
        """Return the partitions of each topic, each at least 1; anything else is a Refusal."""
        if self._connection is None:
            return read_given_counts(self._given, self._topics)
        if self._client is None:
            self._client = open_client(self._connection)
        counts = self._client.partition_counts(self._topics)
        absent = [topic for topic in self._topics if counts.get(topic) is None]
        if absent:
            raise Refusal(
                obj=", ".join(f"topic {topic!r}" for topic in absent),
                problem=f"it does not exist on {self._client.label}, or this user may not describe it",
                next_step="Correct topics, create the topic, or allow DESCRIBE on it; nothing has been scaled",
            )
        return check_counts(counts, self._topics)

    def close(self) -> None:
        """Close the connection to Kafka."""
        if self._client is not None:
            self._client.close()
