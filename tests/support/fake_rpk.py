# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A FAKE of Redpanda's rpk, which is in no package registry: it asks a real broker and prints as rpk 23.3 or 24.3 does.

It knows the commands that the rpk client uses, and like rpk it exits 0 when it refuses. Layout and words are those of
the recordings in ``tests/unit/kafka/data``. Environment of the fake, for tests:
``FAKE_RPK_VERSION`` 23.3 or 24.3 (default); ``FAKE_RPK_LOG`` a file to append each argument list to;
``FAKE_RPK_GROUP_ERROR`` is printed as the error of each described group, as rpk does when it cannot fetch its offsets;
``FAKE_RPK_CUT`` ends the output of ``group describe`` after so many characters; ``FAKE_RPK_MUTE`` names a command pair
(``group seek``) that does its work and prints nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from confluent_kafka import ConsumerGroupTopicPartitions, KafkaException, TopicCollection, TopicPartition
from confluent_kafka.admin import AdminClient, ConfigResource, OffsetSpec

STATES = {"PREPARING_REBALANCING": "PreparingRebalance", "COMPLETING_REBALANCING": "CompletingRebalance"}
NON_EMPTY = "INVALID_OPERATION: seeking a non-empty group is not allowed."
UNKNOWN_PARTITION = "UNKNOWN_TOPIC_OR_PARTITION: This server does not host this topic-partition."


def write_launcher(path: Path, script: Path = Path(__file__)) -> str:
    """Make ``path`` an executable which imports ``script`` with this interpreter and calls its ``main``; returns it."""
    path.write_text(
        f"#!{sys.executable}\nimport sys\nsys.path.insert(0, {str(script.parent)!r})\nimport {script.stem}\n"
        f"sys.exit({script.stem}.main())\n",
        encoding="utf-8",
    )
    path.chmod(0o755)
    return str(path)


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Columns as wide as their widest cell, two blanks between."""
    lines = [[str(cell) for cell in row] for row in [header, *rows]]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    return "".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() + "\n" for line in lines
    )


class FakeRpk:
    """One run against one broker."""

    def __init__(self, brokers: str, old: bool) -> None:
        self.admin = AdminClient({"bootstrap.servers": brokers})
        self.old = old

    def counts(self, topics: Sequence[str]) -> dict[str, int]:
        """Partitions by topic, 0 for a missing one."""
        counts = {}
        for topic, future in self.admin.describe_topics(TopicCollection(list(topics))).items():
            try:
                counts[topic] = len(future.result().partitions)
            except KafkaException:
                counts[topic] = 0
        return counts

    def logs(self, topic: str, count: int) -> list[tuple[int, int]]:
        """Start and end by partition."""
        ends = []
        for spec in (OffsetSpec.earliest(), OffsetSpec.latest()):
            futures = self.admin.list_offsets({TopicPartition(topic, number): spec for number in range(count)})
            found = {asked.partition: future.result().offset for asked, future in futures.items()}
            ends.append([found[number] for number in range(count)])
        return list(zip(*ends, strict=True))

    def committed(self, group: str) -> dict[tuple[str, int], int]:
        """Offsets of a group."""
        answer = self.admin.list_consumer_group_offsets([ConsumerGroupTopicPartitions(group)])[group].result()
        return {(row.topic, row.partition): row.offset for row in answer.topic_partitions if row.offset >= 0}

    def cluster_info(self) -> str:
        """``cluster info -c``."""
        return f"{self.admin.cluster_id(timeout=60)}\n"

    def topic_list(self, topics: Sequence[str]) -> str:
        """``topic list NAME...``."""
        return table(
            ["NAME", "PARTITIONS", "REPLICAS"],
            [(name, n, int(n > 0)) for name, n in sorted(self.counts(topics).items())],
        )

    def topic_describe(self, topic: str) -> str:
        """``topic describe -p NAME``."""
        logs = self.logs(topic, count) if (count := self.counts([topic])[topic]) else []
        header = ["PARTITION", "LEADER", "EPOCH", "REPLICAS", "LOG-START-OFFSET", "HIGH-WATERMARK"]
        return table(header, [(number, 1, 0, "[1]", start, end) for number, (start, end) in enumerate(logs)])

    def topic_configs(self, topic: str) -> str:
        """``topic describe --print-configs NAME``."""
        resource = ConfigResource(ConfigResource.Type.TOPIC, topic)
        entries = self.admin.describe_configs([resource])[resource].result()
        rows = [(name, entry.value, "DEFAULT_CONFIG") for name, entry in sorted(entries.items())]
        return table(["KEY", "VALUE", "SOURCE"], rows)

    def topic_consume(self, options: argparse.Namespace) -> str:
        """``topic consume -p P -o @MS:end -n 1 -f '%p %o\\n'``."""
        at = int(options.o.removeprefix("@").removesuffix(":end"))
        asked = TopicPartition(options.names[0], options.p)
        offset = self.admin.list_offsets({asked: OffsetSpec.for_timestamp(at)})[asked].result().offset
        return f"{options.p} {offset}\n" if offset >= 0 else ""

    def group_list(self) -> str:
        """``group list``; only 24.3 has states."""
        listed = sorted(self.admin.list_consumer_groups().result().valid, key=lambda row: str(row.group_id))
        if self.old:
            return table(["BROKER", "GROUP"], [(1, row.group_id) for row in listed])
        return table(["BROKER", "GROUP", "STATE"], [(1, row.group_id, row.state.name.title()) for row in listed])

    def group_describe(self, groups: Sequence[str]) -> str:
        """``group describe G...``: sorted, an empty line between."""
        return "\n".join(self._describe(group) for group in sorted(groups))

    def _describe(self, group: str) -> str:
        seen = self.admin.describe_consumer_groups([group])[group].result()
        if error := os.environ.get("FAKE_RPK_GROUP_ERROR"):
            keys = {"GROUP": group, "COORDINATOR": 1, "STATE": seen.state.name.title(), "BALANCER": "", "MEMBERS": 0}
            return "".join(f"{key:<13}{value}\n" for key, value in {**keys, "TOTAL-LAG": 0, "ERROR": error}.items())
        new_style = seen.type.name == "CONSUMER"
        members = [] if new_style else seen.members
        state = "Dead" if new_style else STATES.get(seen.state.name, seen.state.name.title())
        owners = {
            (own.topic, own.partition): member for member in members for own in member.assignment.topic_partitions
        }
        committed = {} if new_style else self.committed(group)
        rows, total = [], 0
        for topic, count in sorted(
            self.counts(sorted({topic for topic, _n in (*committed, *owners)})).items() if committed or owners else []
        ):
            for number, (start, end) in enumerate(self.logs(topic, count)):
                own = committed.get((topic, number))
                lag = end - ((0 if self.old else start) if own is None else own)
                total += max(0, lag)
                shown_lag = "-" if end == 0 else lag if self.old else max(0, lag)
                offset = own if own is not None else 0 if self.old and members else "-"
                who = owners.get((topic, number))
                cells = (who.member_id, who.client_id, f"/{who.host.lstrip('/')}") if who else ("", "", "")
                rows.append((topic, number, offset, *(() if self.old else (start,)), end, shown_lag, *cells))
        keys = {
            "GROUP": group,
            "COORDINATOR": 1,
            "STATE": state,
            "BALANCER": seen.partition_assignor if members else "",
            "MEMBERS": len(members),
            "TOTAL-LAG": total,
        }
        text = "".join(f"{key:<13}{value}\n" for key, value in keys.items())
        start_column = [] if self.old else ["LOG-START-OFFSET"]
        header = [
            "TOPIC",
            "PARTITION",
            "CURRENT-OFFSET",
            *start_column,
            "LOG-END-OFFSET",
            "LAG",
            "MEMBER-ID",
            "CLIENT-ID",
            "HOST",
        ]
        return text + ("\n" + table(header, rows) if rows else "")

    def group_seek(self, group: str, lines: str) -> str:
        """``group seek --to-file``: with an error in any row, every row shows -1 -1."""
        rows = [line.split(" ") for line in lines.splitlines() if line]
        wanted = [TopicPartition(topic, int(number), int(offset)) for topic, number, offset in rows]
        before = self.committed(group)
        errors: dict[tuple[str, int], str] = {}
        future = self.admin.alter_consumer_group_offsets([ConsumerGroupTopicPartitions(group, wanted)])[group]
        try:
            for row in future.result().topic_partitions:
                if row.error is not None:
                    errors[row.topic, row.partition] = UNKNOWN_PARTITION
        except KafkaException:
            errors = {(row.topic, row.partition): NON_EMPTY for row in wanted}
        for row in wanted:
            if (row.topic, row.partition) in errors or not future.exception():
                continue
            errors[row.topic, row.partition] = NON_EMPTY
        ordered = sorted(wanted, key=lambda row: (row.topic, row.partition))
        if errors:
            cells: list[tuple[Any, ...]] = [
                (row.topic, row.partition, -1, -1, errors.get((row.topic, row.partition), "")) for row in ordered
            ]
            return table(["TOPIC", "PARTITION", "PRIOR-OFFSET", "CURRENT-OFFSET", "ERROR"], cells)
        cells = [(row.topic, row.partition, before.get((row.topic, row.partition), -1), row.offset) for row in ordered]
        return table(["TOPIC", "PARTITION", "PRIOR-OFFSET", "CURRENT-OFFSET"], cells)


def main() -> None:
    """Parse as far as the rpk client goes, print, exit 0."""
    if "FAKE_RPK_LOG" in os.environ:
        with open(os.environ["FAKE_RPK_LOG"], "a", encoding="utf-8") as log:
            log.write(json.dumps(sys.argv[1:]) + "\n")
    parser = argparse.ArgumentParser(prog="fake_rpk")
    parser.add_argument("noun", choices=["cluster", "topic", "group"])
    parser.add_argument("verb", choices=["info", "list", "describe", "consume", "seek"])
    parser.add_argument("-X", action="append", default=[])
    parser.add_argument("-c", action="store_true")
    parser.add_argument("--print-partitions", action="store_true")
    parser.add_argument("--print-configs", action="store_true")
    parser.add_argument("--to-file")
    parser.add_argument("-p", type=int)
    for flag in ("-o", "-n", "-f"):
        parser.add_argument(flag)
    split = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    options = parser.parse_args(sys.argv[1:split], argparse.Namespace(names=sys.argv[split + 1 :]))
    settings = dict(pair.split("=", 1) for pair in options.X)
    fake = FakeRpk(settings.get("brokers") or os.environ["RPK_BROKERS"], os.environ.get("FAKE_RPK_VERSION") == "23.3")
    command = f"{options.noun} {options.verb}"
    commands: dict[str, Callable[[], str]] = {
        "cluster info": fake.cluster_info,
        "topic list": lambda: fake.topic_list(options.names),
        "topic describe": lambda: (
            fake.topic_configs(options.names[0]) if options.print_configs else fake.topic_describe(options.names[0])
        ),
        "topic consume": lambda: fake.topic_consume(options),
        "group list": fake.group_list,
        "group describe": lambda: fake.group_describe(options.names),
        "group seek": lambda: fake.group_seek(options.names[0], Path(options.to_file).read_text(encoding="utf-8")),
    }
    text = commands[command]()
    if command == "group describe" and "FAKE_RPK_CUT" in os.environ:
        text = text[: int(os.environ["FAKE_RPK_CUT"])]
    if command != os.environ.get("FAKE_RPK_MUTE"):
        sys.stdout.write(text)


if __name__ == "__main__":
    main()
