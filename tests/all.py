#!/usr/bin/python3
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Run targets of the Makefile, all of them; say how long each took, and how long a processor; fail when one failed.

    tests/all.py "lab-up integration ..." "lint unit ..."

Each argument is a lane: its targets run one after another, the lanes side by side. A target that stands in several
lanes is made once, by the lane that comes to it first; the others wait for it there. The first lane's output is shown
as it comes, that of the others when a target has ended; they are served last by the processor, so that the first is not
held up. How a target that failed ended is shown once more at the end, and which tests failed after that: a log is often
kept in part only, its end.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import IO, NamedTuple, cast

CHECKOUT = Path(__file__).resolve().parents[1]
BEHIND = 5
"""Niceness of the lanes after the first: a quarter of a processor that both want, so that no test starves."""
SHOWN = 20
"""Lines of a failure that are shown again at the end."""
NAMED = 30
"""Tests that failed, of those of a target that are named at the end."""


class Result(NamedTuple):
    """What became of a target, and the end of what it printed."""

    part: str
    code: int
    seconds: float
    processor: float
    """Seconds of processor time of its processes; the lab's servers are not among them."""
    ending: bytes
    failures: list[bytes]


def run(part: str, *, first: bool) -> Result:
    """Make one target."""
    started = time.monotonic()
    command = ["make", "--no-print-directory", part]
    if first:
        print(f"==== make {part} ====", flush=True)
    with subprocess.Popen(
        command if first else ["nice", "-n", str(BEHIND), *command],
        cwd=CHECKOUT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    ) as process:
        printed, output = b"", cast("IO[bytes]", process.stdout).fileno()
        while piece := os.read(output, 65536):
            printed += piece
            if first:
                os.write(sys.stdout.fileno(), piece)
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if not first:
        os.write(sys.stdout.fileno(), b"\n==== make %s, meanwhile ====\n" % part.encode() + printed)
    lines = printed.splitlines()
    failures = [line[:300] for line in lines if line.startswith((b"FAILED ", b"ERROR "))]
    seconds = time.monotonic() - started
    processor = used.ru_utime + used.ru_stime
    return Result(part, process.returncode, seconds, processor, b"\n".join(lines[-SHOWN:]), failures[:NAMED])


class Lanes:
    """Makes every target once; ``results`` is in the order in which they were begun."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._made: dict[str, Future[Result]] = {}

    def run(self, lane: str, *, first: bool) -> None:
        """Make the targets of a lane, and wait for those that another lane makes."""
        for part in lane.split():
            with self._lock:
                is_known = part in self._made
                made = self._made.setdefault(part, Future())
            if not is_known:
                try:
                    made.set_result(run(part, first=first))
                except OSError as error:
                    made.set_exception(error)  # who waits for it fails as well
            made.result()

    @property
    def results(self) -> list[Result]:
        """What became of each target."""
        return [made.result() for made in self._made.values()]


def main(arguments: list[str]) -> int:
    """Run the lanes and end with a table; 1 when a target failed."""
    started = time.monotonic()
    lanes = Lanes()
    with ThreadPoolExecutor(max_workers=len(arguments)) as pool:
        running = [pool.submit(lanes.run, lane, first=number == 0) for number, lane in enumerate(arguments)]
        for lane in running:
            lane.result()
    results = lanes.results
    for result in results:
        if result.code:
            print(f"==== make {result.part} failed, after: ====\n{result.ending.decode(errors='replace')}")
    print("==== parts ====")
    for result in results:
        verdict = f"FAILED (exit {result.code})" if result.code else "PASSED"
        print(f"{result.part:<12} {verdict} {result.seconds:.1f}s ({result.processor:.0f}s of processor)")
        for failure in result.failures if result.code else []:
            print(f"  {failure.decode(errors='replace')}")
    failed = sum(result.code != 0 for result in results)
    counts = ([f"{failed} failed"] if failed else []) + [f"{len(results) - failed} passed"]
    print(f"==== parts: {', '.join(counts)} in {time.monotonic() - started:.2f}s ====")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
