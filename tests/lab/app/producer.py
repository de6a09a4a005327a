# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Produce a bounded number of events of features to the topic, and print as JSON what the broker acknowledged.

    producer.py --brokers HOST:PORT --topic NAME --count 5000 --rate 500

Every feature's events have its id as key, so that they stay in order; each event has an id of its own. The seed decides
the shape (which feature comes next, how it ends); ids are new in every run. SIGTERM and SIGINT end it early and well:
what has been handed over is delivered and counted. Exit 1 when the broker refused an event or did not confirm it.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import sys
import time
import uuid
from collections import Counter
from collections.abc import Iterator

from confluent_kafka import KafkaError, Message, Producer

STEPS = ("pending", "analyzing", "planning", "executing", "verifying")
ENDINGS = ((6, "completed", 94), (7, "failed", 4), (8, "cancelled", 2))
"""State, name, and how many of a hundred features end so."""
FLUSH_SECONDS = 30.0


def events(seed: int, active: int) -> Iterator[dict[str, object]]:
    """Events of features without end; ``active`` features are under way at any time."""
    choice = random.Random(seed)  # noqa: S311 (shapes, not secrets)
    running: list[tuple[str, int]] = []
    while True:
        if len(running) < active:
            running.append((str(uuid.uuid4()), 1))
        place = choice.randrange(len(running))
        feature, sequence = running[place]
        if sequence <= len(STEPS):
            state, name = sequence, STEPS[sequence - 1]
            running[place] = (feature, sequence + 1)
        else:
            ((state, name, _weight),) = choice.choices(ENDINGS, [weight for *_, weight in ENDINGS])
            running.pop(place)
        yield {
            "event_id": str(uuid.uuid4()),
            "feature_execution_id": feature,
            "sequence": sequence,
            "type": f"feature.execution.{name}",
            "state": state,
            "error": "verification failed" if name == "failed" else None,
        }


class Tally:
    """What became of the events handed over."""

    def __init__(self) -> None:
        self.partitions: Counter[int] = Counter()
        self.errors: Counter[str] = Counter()

    def delivered(self, error: KafkaError | None, message: Message) -> None:
        """Count one answer of the broker."""
        if error is None:
            self.partitions[message.partition()] += 1
        else:
            self.errors[str(error)] += 1


class Stop:
    """Set by a signal. No ``threading.Event``: its lock may be held by the ``wait`` that the handler interrupts."""

    asked = False

    def __call__(self, *_signal: object) -> None:
        """The handler."""
        self.asked = True


def produce(options: argparse.Namespace, stop: Stop) -> dict[str, object]:
    """Produce until the count is reached or ``stop`` is asked for; what happened."""
    tally = Tally()
    producer = Producer(
        {
            "bootstrap.servers": options.brokers,
            "acks": "all",
            "enable.idempotence": True,
            "linger.ms": 5,
            "client.id": "feature-producer",
        }
    )
    begin = time.monotonic()
    handed = 0
    source = events(options.seed, options.active)
    while handed < options.count and not stop.asked:
        wait = begin + handed / options.rate - time.monotonic() if options.rate else 0.0
        if wait > 0:
            producer.poll(0)
            time.sleep(min(wait, 0.2))
            continue
        event = next(source)
        message = {"key": str(event["feature_execution_id"]), "value": json.dumps(event)}
        while True:
            try:
                producer.produce(options.topic, **message, on_delivery=tally.delivered)
                break
            except BufferError:  # the queue is full: wait for answers, then hand over this very event
                producer.poll(0.5)
        handed += 1
        producer.poll(0)
    producer.flush(FLUSH_SECONDS)
    acknowledged = sum(tally.partitions.values())
    return {
        "handed_over": handed,
        "acknowledged": acknowledged,
        "unconfirmed": handed - acknowledged,
        "errors": dict(tally.errors),
        "partitions": {str(partition): tally.partitions[partition] for partition in sorted(tally.partitions)},
        "seed": options.seed,
        "seconds": round(time.monotonic() - begin, 3),
        "ended_by": "signal" if stop.asked else "count",
    }


def main() -> int:
    """Entry point; the exit code."""
    parser = argparse.ArgumentParser(description="Produce a bounded number of feature events.")
    parser.add_argument("--brokers", required=True)
    parser.add_argument("--topic", required=True)
    parser.add_argument("--count", type=int, required=True, help="events in all")
    parser.add_argument(
        "--rate", type=float, default=0.0, help="events per second; 0 is as fast as the broker takes them"
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--active", type=int, default=200, help="features under way at any time")
    options = parser.parse_args()
    if options.count < 1 or options.rate < 0 or options.active < 1:
        parser.error("--count and --active must be at least 1, --rate at least 0")
    stop = Stop()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    result = produce(options, stop)
    print(json.dumps(result))
    return 0 if result["unconfirmed"] == 0 else 1


if __name__ == "__main__":
    sys.exit(main())
