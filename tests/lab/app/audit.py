# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Prove from the topic and the database alone that no event was lost and none was applied twice.

    audit.py --brokers HOST:PORT --topic NAME --group NAME        (the database by libpq's own variables: PGHOST, ...)

Prints JSON and exits 0 only when everything in the topic is recorded exactly once. The topic has one offset for each
event, because the producer uses no transactions and the topic is not compacted.
"""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

import psycopg2
from confluent_kafka import Consumer, TopicPartition

SECONDS = 60.0
LEDGER = """
SELECT partition, count(*), min("offset"), max("offset") FROM execution_events WHERE topic = %s GROUP BY partition
"""
# A feature is wrong when what was applied to it is not what the ledger holds of it, or the ledger skips a sequence.
FEATURES = """
SELECT
    (SELECT count(*) FROM execution_events),
    (SELECT coalesce(sum(events_applied), 0)::bigint FROM feature_executions),
    (SELECT count(*) FROM event_redeliveries),
    (SELECT count(*) FROM (
        SELECT feature_execution_id AS id, count(*) AS events, max(sequence) AS newest FROM execution_events GROUP BY 1
    ) AS ledger FULL JOIN (SELECT * FROM feature_executions WHERE events_applied > 0) AS feature USING (id)
    WHERE ledger.events IS DISTINCT FROM feature.events_applied OR ledger.newest IS DISTINCT FROM feature.last_sequence
       OR ledger.newest IS DISTINCT FROM ledger.events)
"""


def topic_ranges(brokers: str, topic: str, group: str) -> dict[int, dict[str, int]]:
    """For each partition: first and next offset of the log, and the group's committed offset (-1001: none)."""
    consumer = Consumer({"bootstrap.servers": brokers, "group.id": group, "enable.auto.commit": False})
    try:
        metadata = consumer.list_topics(topic, timeout=SECONDS).topics[topic]
        if metadata.error is not None:
            raise SystemExit(f"topic {topic!r}: {metadata.error}. Check --topic and --brokers {brokers}.")
        partitions = [TopicPartition(topic, number) for number in sorted(metadata.partitions)]
        committed = {one.partition: one.offset for one in consumer.committed(partitions, timeout=SECONDS)}
        ranges = {}
        for one in partitions:
            low, high = consumer.get_watermark_offsets(one, timeout=SECONDS)
            ranges[one.partition] = {"low": low, "high": high, "committed": committed[one.partition]}
        return ranges
    finally:
        consumer.close()


def audit(ranges: dict[int, dict[str, int]], ledger: dict[int, tuple[int, int, int]]) -> dict[str, Any]:
    """Compare the log's offsets with the ledger's. ``ledger``: partition -> rows, lowest offset, highest offset.

    Offsets are unique in the ledger, so rows = highest - lowest + 1 means that there is no gap between them.
    """
    partitions: dict[str, dict[str, int]] = {}
    for number, log in ranges.items():
        rows, lowest, highest = ledger.get(number, (0, log["low"], log["low"] - 1))
        gaps = highest - lowest + 1 - rows
        before = max(0, lowest - log["low"])
        after = max(0, log["high"] - 1 - highest)
        beyond = max(0, highest - log["high"] + 1)
        partitions[str(number)] = {**log, "recorded": rows, "missing": gaps + before + after, "beyond_log": beyond}
    return {
        "produced": sum(log["high"] for log in ranges.values()),
        "recorded": sum(rows for rows, *_ in ledger.values()),
        "missing": sum(one["missing"] for one in partitions.values()),
        "beyond_log": sum(one["beyond_log"] for one in partitions.values()),
        "partitions": partitions,
    }


def main() -> int:
    """Entry point; the exit code."""
    parser = argparse.ArgumentParser(description="Audit the feature service's ledger against its topic.")
    for name in ("--brokers", "--topic", "--group"):
        parser.add_argument(name, required=True)
    options = parser.parse_args()
    ranges = topic_ranges(options.brokers, options.topic, options.group)
    connection = psycopg2.connect()
    connection.set_session(isolation_level="REPEATABLE READ", readonly=True)
    with connection, connection.cursor() as cursor:
        cursor.execute(LEDGER, (options.topic,))
        found = audit(
            ranges, {partition: (rows, lowest, highest) for partition, rows, lowest, highest in cursor.fetchall()}
        )
        cursor.execute(FEATURES)
        ((ledger, applied, redelivered, wrong),) = cursor.fetchall()
    connection.close()
    found |= {"applied": applied, "redelivered": redelivered, "wrong_features": wrong}
    found["doubled"] = applied - ledger
    found["ok"] = found["missing"] == found["beyond_log"] == found["doubled"] == wrong == 0
    print(json.dumps(found))
    return 0 if found["ok"] else 1


if __name__ == "__main__":
    sys.exit(main())
