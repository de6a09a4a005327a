#!/usr/bin/env python3
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Every module with nothing to change, as a task of ansible-playbook, against a module that does nothing (goal P1).

Each task has a no-op task beside it in the same play, so that both see the same load. Run inside a lab::

    tests/lab/lab run -- python tests/bench/bench_no_change.py --pairs 10 [MODULE...]

Prints one line a module: the median of the pairwise ratios and their range, the same in seconds of CPU, milliseconds on
top of the no-op, and the libraries that the run imports. The no-op's own time comes first.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from confluent_kafka.admin import AdminClient, NewTopic

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from support.backups import make_site
from support.modules import libraries_imported, run_module
from support.task_times import Cost, task_costs

NAME = "bench-no-change"
Tasks = dict[str, dict[str, Any]]


@contextmanager
def kubernetes(facts: dict[str, Any]) -> Iterator[Tasks]:
    """A StatefulSet of one pod that serves."""
    kubectl = [facts["kubectl"], "--kubeconfig", facts["kubeconfig"], "-n", NAME]
    container = {"name": "main", "image": facts["images"][0], "command": ["sleep", "100000"]}
    pod = {"terminationGracePeriodSeconds": 0, "containers": [container]}
    labels = {"app": "w"}
    template = {"metadata": {"labels": labels}, "spec": pod}
    workload = {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": {"name": "w"},
        "spec": {"replicas": 1, "serviceName": "w", "selector": {"matchLabels": labels}, "template": template},
    }
    subprocess.run([*kubectl[:-2], "create", "namespace", NAME], check=True, stdout=subprocess.DEVNULL)
    try:
        subprocess.run(
            [*kubectl, "apply", "-f", "-"], input=json.dumps(workload), text=True, check=True, stdout=subprocess.DEVNULL
        )
        subprocess.run([*kubectl, "rollout", "status", "statefulset/w"], check=True, stdout=subprocess.DEVNULL)
        target = {"kubeconfig": facts["kubeconfig"], "namespace": NAME}
        one = {"kind": "StatefulSet", "name": "w"}
        yield {
            "k8s_scale_to_partitions": {**target, **one, "partitions": 1},
            "k8s_workload": {**target, "state": "running", "workloads": [one]},
            "k8s_workload_info": {**target, "workloads": [one]},
        }
    finally:
        subprocess.run([*kubectl[:-2], "delete", "namespace", NAME], check=True, stdout=subprocess.DEVNULL)


@contextmanager
def kafka(facts: dict[str, Any], folder: Path) -> Iterator[Tasks]:
    """A group at the start of a topic of 12 partitions."""
    admin = AdminClient({"bootstrap.servers": facts["bootstrap_servers"]})
    admin.create_topics([NewTopic(NAME, 12, 1)], operation_timeout=30)[NAME].result()
    try:
        bus = {"brokers": [facts["bootstrap_servers"]]}
        declared = {"name": NAME, "offsets": [{"topic": NAME, "to": "start"}], "undo_file": str(folder / "undo.json")}
        made = run_module("rpk_group", {**bus, **declared, "create": True})
        assert not made.failed, made.msg
        yield {"rpk_group": {**bus, **declared}, "rpk_group_info": {**bus, "names": [NAME]}}
    finally:
        admin.delete_consumer_groups([NAME])[NAME].exception()
        admin.delete_topics([NAME])[NAME].result()


@contextmanager
def postgresql(facts: dict[str, Any]) -> Iterator[Tasks]:
    """A database that is maintained and has a recent backup."""
    with make_site(facts, "s3", lambda *_words, **_options: NAME) as site:
        backup = site.params(max_age="1d")
        database = {key: value for key, value in backup.items() if key.startswith("login_") or key == "passfile"}
        maintenance = {
            **database,
            "dead_tuple_ratio": 0.2,
            "transaction_id_age": 150_000_000,
            "invalid_indexes": "none",
        }
        for name, params in (("pg_maintenance", maintenance), ("pg_backup", backup)):
            made = run_module(name, params)
            assert not made.failed, made.msg
        yield {
            "pg_maintenance": maintenance,
            "pg_maintenance_info": maintenance,
            "pg_backup": backup,
            "pg_backup_info": site.s3_params(),
        }


def line(name: str, costs: list[Cost], libraries: set[str]) -> str:
    """One module's row."""

    def cell(ratios: list[float]) -> str:
        return f"{statistics.median(ratios):5.2f} ({min(ratios):.2f}-{max(ratios):.2f})"

    wall, cpu = cell([one.seconds / one.noop_seconds for one in costs]), cell([one.cpu / one.noop_cpu for one in costs])
    more = [
        f"{1000 * statistics.median(values):5.0f}"
        for values in ([c.seconds - c.noop_seconds for c in costs], [c.cpu - c.noop_cpu for c in costs])
    ]
    return f"{name:24} {wall:18} {cpu:18} {more[0]} ms {more[1]} ms  {', '.join(sorted(libraries)) or '-'}"


def main() -> None:
    """Set up, measure, remove, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=10)
    parser.add_argument("modules", nargs="*", metavar="MODULE")
    options = parser.parse_args()
    facts = json.loads(Path(os.environ["LOWTIDE_LAB_FACTS"]).read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        wanted: Tasks = {}
        systems = {
            "k8s": kubernetes(facts["kubernetes"]),
            "rpk": kafka(facts["kafka"], Path(folder)),
            "pg": postgresql(facts),
        }
        for prefix, system in systems.items():
            if not options.modules or any(name.startswith(prefix) for name in options.modules):
                wanted.update(stack.enter_context(system))
        tasks = {name: params for name, params in wanted.items() if not options.modules or name in options.modules}
        libraries = {name: libraries_imported(name, params) for name, params in tasks.items()}
        load = os.getloadavg()[0]
        costs = task_costs(
            {name: {f"lowtide.ops.{name}": params} for name, params in tasks.items()}, options.pairs, Path(folder)
        )
    noop = [one.noop_seconds for rows in costs.values() for one in rows]
    used = [one.noop_cpu for rows in costs.values() for one in rows]
    print(
        f"load {load:.1f} to {os.getloadavg()[0]:.1f}; no-op task: {statistics.median(noop):.3f} s, {statistics.median(used):.3f} s of CPU"
    )
    print(f"{'module':24} {'time / no-op':18} {'CPU / no-op':18} {'on top':>8} {'CPU':>8}  libraries")
    for name, rows in costs.items():
        print(line(name, rows, libraries[name]))


if __name__ == "__main__":
    main()
