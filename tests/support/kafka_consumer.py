# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A real consumer in a process of its own, for tests that need a group with a member.

``python kafka_consumer.py BROKERS GROUP TOPIC PROTOCOL [CONSUME]``: prints ``joined`` once it owns partitions, then,
unless CONSUME is ``idle``, commits what it reads. SIGTERM makes it leave its group.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from confluent_kafka import Consumer

CLIENT_ID = "lt-test-consumer"


@contextmanager
def consumer(
    brokers: str, group: str, topic: str, *, protocol: str = "classic", consume: bool = False
) -> Iterator[subprocess.Popen[str]]:
    """A member of ``group`` while the block lasts; it owns all partitions when the block begins."""
    command = [sys.executable, __file__, brokers, group, topic, protocol, "consume" if consume else "idle"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "joined\n"
        yield process
    finally:
        process.terminate()
        process.wait(timeout=120)


def main() -> None:
    """Join, say so, and read until SIGTERM."""
    brokers, group, topic, protocol, mode = sys.argv[1:]
    ended: list[int] = []

    def end(number: int, _frame: FrameType | None) -> None:
        ended.append(number)

    signal.signal(signal.SIGTERM, end)
    settings = {
        "bootstrap.servers": brokers,
        "group.id": group,
        "group.protocol": protocol,
        "client.id": CLIENT_ID,
        "auto.offset.reset": "earliest",
        "enable.auto.commit": False,
    }
    member = Consumer(settings)
    member.subscribe([topic], on_assign=lambda *_: print("joined", flush=True))
    while not ended:
        message = member.poll(0.1)
        if message is not None and mode == "consume" and message.error() is None:
            member.commit(message=message, asynchronous=False)
    member.close()


if __name__ == "__main__":
    main()
