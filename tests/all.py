#!/usr/bin/python3
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Run targets of the Makefile, all of them; say how long each took; fail when one failed.

    tests/all.py "lab-up integration ..." "lint unit ..."

Each argument is a lane: its targets run one after another, the lanes side by side. The first lane's output is shown as
it comes, that of the others when a target has ended; they are served last by the processor, so that the first is not
held up. How a target that failed ended is shown once more at the end: a log is often kept in part only, its end.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, NamedTuple, cast

CHECKOUT = Path(__file__).resolve().parents[1]
BEHIND = 19
"""Niceness of the lanes after the first."""
SHOWN = 20
"""Lines of a failure that are shown again at the end."""


class Result(NamedTuple):
    """What became of a target, and the end of what it printed."""

    part: str
    code: int
    seconds: float
    ending: bytes


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
    if not first:
        os.write(sys.stdout.fileno(), b"\n==== make %s, meanwhile ====\n" % part.encode() + printed)
    return Result(part, process.returncode, time.monotonic() - started, b"\n".join(printed.splitlines()[-SHOWN:]))


def main(lanes: list[str]) -> int:
    """Run the lanes and end with a table; 1 when a target failed."""
    started = time.monotonic()
    with ThreadPoolExecutor(max_workers=len(lanes)) as pool:
        running = [
            pool.submit(lambda parts, first: [run(part, first=first) for part in parts], lane.split(), number == 0)
            for number, lane in enumerate(lanes)
        ]
        results = [result for lane in running for result in lane.result()]
    for part, code, _, ending in results:
        if code:
            print(f"==== make {part} failed, after: ====\n{ending.decode(errors='replace')}")
    print("==== parts ====")
    for part, code, seconds, _ in results:
        print(f"{part:<12} {'PASSED' if code == 0 else f'FAILED (exit {code})'} {seconds:.1f}s")
    failed = sum(result.code != 0 for result in results)
    counts = ([f"{failed} failed"] if failed else []) + [f"{len(results) - failed} passed"]
    print(f"==== parts: {', '.join(counts)} in {time.monotonic() - started:.2f}s ====")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
