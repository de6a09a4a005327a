# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A worker of the feature service: records every event of the topic in the database, each exactly once in effect.

Order of things: read a batch; in one transaction insert it into the ledger, and apply to the features only what the
ledger did not have; commit the database; then commit the offsets. A crash in between delivers the batch again, and the
ledger knows it. Kafka's settings come from FEATURE_*, the database's from libpq's own variables (PGHOST, ...).
"""

from __future__ import annotations

import json
import logging
import os
import signal
import threading
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import psycopg2
from confluent_kafka import Consumer, KafkaException, Message, TopicPartition
from psycopg2.extras import execute_values

RELEASE = Path(__file__).with_name("RELEASE").read_text().strip()
BATCH = 200
PATIENCE_SECONDS = 120.0
"""How long the database may be away before the worker gives up and is restarted."""
GONE = (psycopg2.OperationalError, psycopg2.InterfaceError, psycopg2.errors.ReadOnlySqlTransaction)

# The features are locked in the order of their ids, so that two workers that got the same events in a rebalance
# wait for one another instead of dead-locking.
RECORD = """
WITH batch (event_id, feature, sequence, type, state, error, topic, partition, "offset", produced_at) AS (VALUES %s),
ledger AS (
    INSERT INTO execution_events
        (event_id, feature_execution_id, sequence, type, topic, partition, "offset", produced_at, worker, release)
    SELECT event_id::uuid, feature::uuid, sequence, type, topic, partition, "offset", produced_at::timestamptz,
           current_setting('application_name'), current_setting('feature.release')
    FROM batch ORDER BY feature, sequence
    ON CONFLICT DO NOTHING
    RETURNING partition, "offset"
),
fresh AS (
    SELECT batch.*, row_number() OVER (PARTITION BY feature ORDER BY sequence DESC) AS newest,
           count(*) OVER (PARTITION BY feature) AS number,
           min(produced_at::timestamptz) OVER (PARTITION BY feature) AS begun
    FROM batch JOIN ledger USING (partition, "offset")
),
applied AS (
    INSERT INTO feature_executions AS feature
        (id, state, created_at, updated_at, completed_at, error, events_applied, last_sequence)
    SELECT feature::uuid, state, begun, produced_at::timestamptz,
           CASE WHEN state >= 6 THEN produced_at::timestamptz END, error, number, sequence
    FROM fresh WHERE newest = 1 ORDER BY feature
    ON CONFLICT (id) DO UPDATE SET
        events_applied = feature.events_applied + excluded.events_applied,
        last_sequence = greatest(feature.last_sequence, excluded.last_sequence),
        state = CASE WHEN excluded.last_sequence > feature.last_sequence THEN excluded.state ELSE feature.state END,
        updated_at = greatest(feature.updated_at, excluded.updated_at),
        completed_at = CASE WHEN excluded.last_sequence > feature.last_sequence THEN excluded.completed_at
                            ELSE feature.completed_at END,
        error = CASE WHEN excluded.last_sequence > feature.last_sequence THEN excluded.error ELSE feature.error END
    RETURNING id
),
stepped AS (
    INSERT INTO execution_steps (feature_execution_id, name, finished_at)
    SELECT feature::uuid, type, produced_at::timestamptz FROM fresh
),
again AS (
    INSERT INTO event_redeliveries (topic, partition, "offset", worker)
    SELECT topic, partition, "offset", current_setting('application_name') FROM batch
    WHERE (partition, "offset") NOT IN (SELECT partition, "offset" FROM ledger)
)
SELECT (SELECT count(*) FROM ledger), (SELECT count(*) FROM applied)
"""

log = logging.getLogger("worker")


@dataclass
class Health:
    """What the readiness probe looks at; written by the worker's thread only."""

    joined: bool = False
    database: bool = False


class Stop(Exception):
    """The worker was told to end."""


class Worker:
    """One member of the consumer group, with one database connection."""

    def __init__(self, environment: dict[str, str]) -> None:
        self.health = Health()
        self.stopping = threading.Event()
        self._topic = environment["FEATURE_TOPIC"]
        self._connection: Any = None
        self._consumer = Consumer(
            {
                "bootstrap.servers": environment["FEATURE_BROKERS"],
                "group.id": environment["FEATURE_GROUP"],
                "client.id": environment.get("PGAPPNAME", "feature-worker"),
                "enable.auto.commit": False,
                "auto.offset.reset": "earliest",
                "partition.assignment.strategy": "cooperative-sticky",
                "session.timeout.ms": 6000,
                "heartbeat.interval.ms": 500,
                "fetch.wait.max.ms": 1000,
            }
        )

    def run(self) -> None:
        """Work until told to stop, then leave the group."""
        self._connect()
        self._consumer.subscribe([self._topic], on_assign=self._assigned, on_lost=self._lost, on_revoke=self._revoked)
        try:
            while not self.stopping.is_set():
                messages = self._consumer.consume(BATCH, timeout=0.2)
                for message in messages:
                    if message.error():
                        raise KafkaException(message.error())
                if messages:
                    self._record(messages)
                    self._commit(messages)
        except Stop:
            log.info("stopping before the batch at hand is recorded; it stays uncommitted")
        finally:
            self.health.joined = False
            self._consumer.close()
            log.info("left the group")

    def _connect(self) -> None:
        """Have a connection to the primary, waiting for one as long as is reasonable."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                self._connection = psycopg2.connect(options=f"-c feature.release={RELEASE}")
                self.health.database = True
                return
            except psycopg2.OperationalError as error:
                self.health.database = False
                if time.monotonic() > deadline:
                    raise
                log.warning("database: %s", str(error).strip())
            if self.stopping.wait(0.5):
                raise Stop

    def _record(self, messages: list[Message]) -> None:
        """Write one batch, again and on another server when the connection breaks on the way."""
        rows = [_row(message) for message in messages]
        while True:
            try:
                with self._connection, self._connection.cursor() as cursor:
                    ((recorded, features),) = execute_values(cursor, RECORD, rows, page_size=len(rows), fetch=True)
                self.health.database = True
                log.info("recorded %d of %d events of %d features", recorded, len(rows), features)
                return
            except GONE as error:
                self.health.database = False
                log.warning("database: %s; the batch is tried again", str(error).strip())
                self._connection.close()
                if self.stopping.is_set():
                    raise Stop from error
                self._connect()

    def _commit(self, messages: list[Message]) -> None:
        """Tell the group how far the database is. A refusal costs a redelivery, which the ledger knows."""
        done = {message.partition(): message.offset() + 1 for message in messages}
        offsets = [TopicPartition(self._topic, partition, offset) for partition, offset in done.items()]
        try:
            self._consumer.commit(offsets=offsets, asynchronous=False)
        except KafkaException as error:
            log.warning("offsets %s not committed: %s", done, error)

    def _assigned(self, _consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self.health.joined = True
        log.info("partition assigned: %s", [one.partition for one in partitions])

    def _revoked(self, _consumer: Consumer, partitions: list[TopicPartition]) -> None:
        log.info("partition revoked: %s", [one.partition for one in partitions])

    def _lost(self, _consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self.health.joined = False
        log.warning("partition lost: %s", [one.partition for one in partitions])


def _row(message: Message) -> tuple[Any, ...]:
    event = json.loads(message.value())
    milliseconds = message.timestamp()[1]
    return (
        event["event_id"],
        event["feature_execution_id"],
        event["sequence"],
        event["type"],
        event["state"],
        event["error"],
        message.topic(),
        message.partition(),
        message.offset(),
        datetime.fromtimestamp(milliseconds / 1000, UTC),
    )


def serve(health: Health, port: int) -> None:
    """Answer the readiness probe in a thread: 200 while a member of the group and connected, else 503."""

    class Probe(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = json.dumps({**vars(health), "release": RELEASE}).encode()
            self.send_response(200 if health.joined and health.database else 503)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_arguments: object) -> None:
            """Say nothing: there is a probe every second."""

    threading.Thread(target=ThreadingHTTPServer(("", port), Probe).serve_forever, daemon=True).start()


def main() -> None:
    """Run until SIGTERM."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    worker = Worker(dict(os.environ))
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: worker.stopping.set())
    serve(worker.health, int(os.environ.get("FEATURE_PORT", "8080")))
    log.info("release %s started", RELEASE)
    worker.run()


if __name__ == "__main__":
    main()
