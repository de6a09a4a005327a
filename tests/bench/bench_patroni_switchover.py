#!/usr/bin/env python3
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""patroni_cluster against a bare POST /switchover, in turns, under a client that writes every 10 ms.

Run inside a lab::

    tests/lab/lab run -- python tests/bench/bench_patroni_switchover.py --pairs 5

Prints one JSON document: how long writes stopped with each, the median of the pairwise ratios, how long after the old
leader streams again the module returns, the rows that were lost, and the seconds of a run that changes nothing (goal P14).
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "lab"))
from support.modules import run_module
from support.patroni_sites import Cluster, make_region
from support.steady_writer import SteadyWriter

RUNNING = {"running", "streaming"}


def describe(values: list[float]) -> dict[str, float]:
    """The median of some seconds, and between what they lie."""
    return {
        "median": round(statistics.median(values), 2),
        "least": round(min(values), 2),
        "most": round(max(values), 2),
    }


def switch_bare(cluster: Cluster, new: str) -> float:
    """Ask once, and wait until the old leader streams. Return when it returned."""
    cluster.ask("/switchover", cluster.leader(), {"leader": cluster.leader(), "candidate": new})
    return time.monotonic()


def switch_ours(cluster: Cluster, new: str) -> float:
    """Run the module. Return when its process had ended."""
    run = run_module("patroni_cluster", {**cluster.params, "leader": new})
    if run.failed:
        raise SystemExit(run.msg)
    return time.monotonic()


def runs_whole(cluster: Cluster) -> bool:
    """Whether each member says itself that it runs, all on one timeline, and the others stream from the leader."""
    if not cluster.is_whole():
        return False
    states = [cluster.ask("/patroni", name) for name in cluster.nodes]
    return {state["state"] for state in states} <= RUNNING and len({state.get("timeline") for state in states}) == 1


def measure(cluster: Cluster, switch: Callable[[Cluster, str], float]) -> dict[str, Any]:
    """One switchover under load."""
    new = next(name for name in cluster.nodes if name != cluster.wait_whole())
    whole: list[float] = []

    def observe() -> None:
        while cluster.leader() != new or not runs_whole(cluster):
            time.sleep(0.02)
        whole.append(time.monotonic())

    observer = threading.Thread(target=observe)
    with SteadyWriter(cluster.connect).writing() as writer:
        observer.start()
        returned = switch(cluster, new)
        observer.join()
    return {"gap": writer.gap, "returned_after_whole": returned - whole[0], "lost": len(writer.lost())}


def main() -> None:
    """Measure in turns."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--loop-wait", type=int, default=10, help="Patroni's own default is 10")
    options = parser.parse_args()
    with make_region() as region:
        cluster = region.make("bench", ["b1", "b2"], dcs={"loop_wait": options.loop_wait})
        pairs = [(measure(cluster, switch_bare), measure(cluster, switch_ours)) for _pair in range(options.pairs)]
        started = time.monotonic()
        run_module("patroni_cluster", {**cluster.params, "leader": cluster.leader()})
        unchanged = time.monotonic() - started
    ratios = [ours["gap"] / bare["gap"] for bare, ours in pairs]
    report = {
        "loop_wait": options.loop_wait,
        "gap_bare": describe([bare["gap"] for bare, _ours in pairs]),
        "gap_ours": describe([ours["gap"] for _bare, ours in pairs]),
        "gap_ratio_median": round(statistics.median(ratios), 2),
        "ours_returned_after_whole": describe([ours["returned_after_whole"] for _bare, ours in pairs]),
        "each_returned_after_whole": [round(ours["returned_after_whole"], 2) for _bare, ours in pairs],
        "lost": sum(side["lost"] for pair in pairs for side in pair),
        "unchanged_seconds": round(unchanged, 2),
    }
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
