#!/usr/bin/env python3
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""rpk_group against a module that does nothing (P1), and, on a wide topic, one that makes the bare client calls (P13).

Runs are interleaved. Run inside a lab::

    tests/lab/lab run -- python tests/bench/bench_rpk_group.py --pairs 7 --partitions 10000

Prints one JSON document: seconds as medians with their ranges, medians of the pairwise ratios with their quartiles,
requests that reached the broker, and the largest resident set of a module process in MiB.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from confluent_kafka.admin import AdminClient, NewPartitions, NewTopic

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from support.modules import MAIN, module_environment
from support.playbooks import playbook_command, playbook_environment, write_yaml
from support.tcp_proxy import KafkaProxy

SMALL, WIDE = "bench-rpk-group-12", "bench-rpk-group-wide"
BATCH = 5000
"""Partitions made by one request: KRaft refuses batches of 10,000 records."""
NOOP = """#!/usr/bin/python
from ansible.module_utils.basic import AnsibleModule
AnsibleModule(argument_spec={}, supports_check_mode=True).exit_json(changed=False)
"""
TIMES = """
import time
from ansible.plugins.callback import CallbackBase
class CallbackModule(CallbackBase):
    CALLBACK_VERSION, CALLBACK_TYPE, CALLBACK_NAME = 2.0, "aggregate", "times"
    def v2_playbook_on_task_start(self, task, is_conditional):
        self.at = time.monotonic()
    def v2_runner_on_ok(self, result):
        print("TIME", result.task.name, time.monotonic() - self.at, flush=True)
"""
BARE = """
import sys
from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.testing import patch_module_args
with patch_module_args({}):
    module = AnsibleModule(argument_spec={})
from confluent_kafka import ConsumerGroupTopicPartitions as G, TopicCollection, TopicPartition as P
from confluent_kafka.admin import AdminClient, OffsetSpec
brokers, group, topic, target = sys.argv[1:]
admin = AdminClient({"bootstrap.servers": brokers, "enable.metrics.push": False})
admin.describe_consumer_groups([group])[group].result()
admin.list_consumer_group_offsets([G(group)])[group].result()
count = len(admin.describe_topics(TopicCollection([topic]))[topic].result().partitions)
for spec in (OffsetSpec.earliest(), OffsetSpec.latest()):
    for future in admin.list_offsets({P(topic, n): spec for n in range(count)}).values():
        future.result()
if target != "none":
    admin.alter_consumer_group_offsets([G(group, [P(topic, n, int(target)) for n in range(count)])])[group].result()
    admin.list_consumer_group_offsets([G(group)])[group].result()
"""


def timed(command: list[str], stdin: str = "") -> tuple[float, float]:
    """Seconds and MiB of one process; a failure ends the bench."""
    with tempfile.TemporaryFile("w+") as out:
        begin = time.monotonic()
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=out, stderr=out, text=True, env=module_environment()
        )
        assert process.stdin is not None
        process.stdin.write(stdin)
        process.stdin.close()
        _pid, status, usage = os.wait4(process.pid, 0)
        seconds = time.monotonic() - begin
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        assert process.returncode == 0, out.read()[-2000:]
    return seconds, usage.ru_maxrss / 1024


def summary(values: list[float]) -> dict[str, float]:
    """Median and range."""
    return {"median": round(statistics.median(values), 3), "min": round(min(values), 3), "max": round(max(values), 3)}


def compare(ours: list[float], theirs: list[float]) -> dict[str, Any]:
    """Both, and the ratios pair by pair."""
    ratios = sorted(mine / other for mine, other in zip(ours, theirs, strict=True))
    low, middle, high = statistics.quantiles(ratios, n=4)
    return {
        "ours_s": summary(ours),
        "other_s": summary(theirs),
        "ratio_median": round(middle, 2),
        "ratio_quartiles": [round(low, 2), round(high, 2)],
    }


class Bench:
    """A topic, a group, and the commands to be timed."""

    def __init__(self, brokers: str, folder: Path, topic: str) -> None:
        self.brokers, self.folder = brokers, folder
        self.topic = self.group = topic
        self.admin = AdminClient({"bootstrap.servers": brokers})
        self.runs = 0

    def create(self, partitions: int) -> None:
        """A topic whose partitions all answer, with a group at offset 0."""
        self.admin.create_topics([NewTopic(self.topic, min(partitions, BATCH), 1)], operation_timeout=60)[
            self.topic
        ].result()
        for count in range(2 * BATCH, partitions + BATCH, BATCH):
            more = NewPartitions(self.topic, min(count, partitions))
            self.admin.create_partitions([more], operation_timeout=60)[self.topic].result()
        deadline = time.monotonic() + 300
        while True:
            try:
                self.module(self.params("start", create=True))
                self.bare("0")
                return
            except AssertionError:
                if time.monotonic() > deadline:
                    raise

    def remove(self) -> None:
        """Everything that was made."""
        for futures in (self.admin.delete_consumer_groups([self.group]), self.admin.delete_topics([self.topic])):
            for future in futures.values():
                future.exception()

    def params(self, to: str, **more: Any) -> dict[str, Any]:
        """Arguments of the module, with an undo file of each run's own."""
        self.runs += 1
        undo = str(self.folder / f"{self.topic}-{self.runs}.json")
        return {
            "brokers": [self.brokers],
            "name": self.group,
            "offsets": [{"topic": self.topic, "to": to}],
            "undo_file": undo,
            **more,
        }

    def module(self, params: dict[str, Any]) -> tuple[float, float]:
        """One run of rpk_group."""
        return timed([sys.executable, str(MAIN)], json.dumps({"module": "rpk_group", "args": params}))

    def bare(self, target: str) -> tuple[float, float]:
        """One run of a module that makes the same calls and nothing of them."""
        return timed([sys.executable, "-c", BARE, self.brokers, self.group, self.topic, target])

    def requests(self, run: Callable[[str], object]) -> dict[str, int]:
        """What reaches the broker during ``run(brokers)``."""
        host, port = self.brokers.split(":")
        with KafkaProxy(host, int(port)) as proxy:
            run(proxy.address)
            return proxy.named_counts

    def wide(self, pairs: int) -> dict[str, Any]:
        """Describe (nothing to change) and seek (each partition changes), ours and bare in turn."""
        describe: list[tuple[float, float]] = []
        seek: list[tuple[float, float]] = []
        sizes: list[float] = []
        # The log is empty, so start is 0: moving the group to 1 by hand makes each of our runs change every partition.
        for _pair in range(pairs):
            bare_seek, _size = self.bare("1")
            our_seek, size = self.module(self.params("start"))
            seek.append((our_seek, bare_seek))
            sizes.append(size)
            our_describe, size = self.module(self.params("start"))
            describe.append((our_describe, self.bare("none")[0]))
            sizes.append(size)
        self.bare("1")
        return {
            "describe": compare(*map(list, zip(*describe, strict=True))),
            "seek": compare(*map(list, zip(*seek, strict=True))),
            "rss_mib_max": round(max(sizes), 1),
            "requests_seek": self.requests(lambda brokers: self.module({**self.params("start"), "brokers": [brokers]})),
            "requests_idle": self.requests(lambda brokers: self.module({**self.params("start"), "brokers": [brokers]})),
        }

    def idle_task(self, pairs: int) -> dict[str, Any]:
        """Tasks with nothing to do beside tasks of a module that does nothing, in turn, in one play."""
        library = self.folder / "library"
        library.mkdir()
        (library / "noop.py").write_text(NOOP, encoding="utf-8")
        (library / "times.py").write_text(TIMES, encoding="utf-8")
        tasks: list[dict[str, Any]] = []
        for _pair in range(pairs + 1):
            tasks.append({"name": "ours", "lowtide.ops.rpk_group": self.params("start")})
            tasks.append({"name": "noop", "noop": {}})
        python = {"ansible_python_interpreter": sys.executable}
        play = {"hosts": "localhost", "connection": "local", "gather_facts": False, "vars": python, "tasks": tasks}
        environment = playbook_environment(
            {
                "ANSIBLE_LIBRARY": str(library),
                "ANSIBLE_CALLBACK_PLUGINS": str(library),
                "ANSIBLE_CALLBACKS_ENABLED": "times",
            }
        )
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        path = write_yaml(self.folder / "play.yml", [play])
        done = subprocess.run(playbook_command(path), capture_output=True, text=True, env=environment, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        times: dict[str, list[float]] = {"ours": [], "noop": []}
        for line in done.stdout.splitlines():
            if line.startswith("TIME "):
                _word, name, seconds = line.split()
                times[name].append(float(seconds))
        return compare(times["ours"][1:], times["noop"][1:])


def main() -> None:
    """Create, measure, remove, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--partitions", type=int, default=1000)
    options = parser.parse_args()
    facts = json.loads(Path(os.environ["LOWTIDE_LAB_FACTS"]).read_text(encoding="utf-8"))["kafka"]
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    result: dict[str, Any] = {"partitions": options.partitions, "pairs": options.pairs}
    with tempfile.TemporaryDirectory() as folder:
        for name, topic, partitions in (("idle_task", SMALL, 12), ("wide", WIDE, options.partitions)):
            bench = Bench(facts["bootstrap_servers"], Path(folder), topic)
            try:
                bench.create(partitions)
                result[name] = getattr(bench, name)(options.pairs)
            finally:
                bench.remove()
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
