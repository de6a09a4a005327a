#!/usr/bin/env python3
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Run the molecule scenarios, three at a time, and end with one line as pytest's.

    tests/lab/lab run -- tests/scenarios.py [-j 3] [NAME...]

The output of a scenario is shown when it failed, and at the end once more where it failed: a log is often kept in part
only, its end. The exit code is 0 only when every scenario passed.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]
SHOWN = 20
"""Lines of a failure that are shown again at the end."""
MOLECULE = shutil.which("molecule", path=f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}")


def known_scenarios() -> list[str]:
    """Every scenario of the checkout; those with the most files first, so that none is left alone at the end."""
    folders = [path.parent for path in CHECKOUT.glob("molecule/*/molecule.yml")]
    return [
        folder.name for folder in sorted(folders, key=lambda folder: (-len(list(folder.rglob("*.yml"))), folder.name))
    ]


def run(name: str) -> tuple[bool, float, str]:
    """Test one scenario: whether it passed, seconds, and all that was printed."""
    started = time.monotonic()
    environment = {
        **os.environ,
        "MOLECULE_GLOB": "molecule/*/molecule.yml",
        "PATH": f"{Path(str(MOLECULE)).parent}:{os.environ.get('PATH', '')}",
    }
    process = subprocess.run(
        [str(MOLECULE), "test", "-s", name],
        cwd=CHECKOUT,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return process.returncode == 0, time.monotonic() - started, process.stdout


def where_it_failed(printed: str) -> str:
    """The last task that failed, with the beginning of what it said; the last lines of a scenario without such a task.

    A task that failed and was rescued comes before the one that ended its play; the clean-up after it does not fail as
    a rule.
    """
    lines = [re.sub("\x1b\\[[0-9;]*m", "", line).removeprefix("  │ ") for line in printed.splitlines()]
    errors = [number for number, line in enumerate(lines) if line.startswith("[ERROR]: ")]
    if not errors:
        return "\n".join(lines[-SHOWN:])
    task = max((number for number in range(errors[-1]) if lines[number].startswith("TASK [")), default=errors[-1])
    return "\n".join(lines[task : errors[-1] + SHOWN])


def main() -> int:
    """Parse the command line, run, print; 1 when a scenario failed, 2 when none could run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-j", type=int, default=3, metavar="N", help="how many at the same time (default: 3)")
    parser.add_argument("names", nargs="*", metavar="NAME", help="which scenarios (default: all)")
    options = parser.parse_args()
    names = options.names or known_scenarios()
    unknown = sorted(set(names) - set(known_scenarios()))
    if unknown or not names:
        print(
            f"no such scenario: {', '.join(unknown) or 'there is none at all'}; known: {', '.join(known_scenarios())}",
            file=sys.stderr,
        )
        return 2
    if MOLECULE is None:
        print("molecule is not installed beside this Python, nor on PATH", file=sys.stderr)
        return 2
    if not os.environ.get("LOWTIDE_LAB_FACTS"):
        print("not inside a lab. Run it as: tests/lab/lab run -- tests/scenarios.py", file=sys.stderr)
        return 2
    started = time.monotonic()
    failures: dict[str, str] = {}
    with ThreadPoolExecutor(max_workers=options.j) as pool:
        futures = {pool.submit(run, name): name for name in names}
        for future in as_completed(futures):
            passed, seconds, output = future.result()
            if not passed:
                failures[futures[future]] = output
                print(output)
            print(f"molecule/{futures[future]} {'PASSED' if passed else 'FAILED'} {seconds:.1f}s", flush=True)
    for name, output in failures.items():
        print(f"---- molecule/{name} failed:\n{where_it_failed(output)}")
    counts = ([f"{len(failures)} failed"] if failures else []) + [f"{len(names) - len(failures)} passed"]
    print(f"==== {', '.join(counts)} in {time.monotonic() - started:.2f}s ====")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
