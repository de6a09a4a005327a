#!/usr/bin/env python3
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Every static gate, two at a time: all of them run before the first failure decides, and each says how long it took.

    tests/lint.py [GATE...]      (tests/lint.py --list names them)

Run it with the Python of the test environment; the other tools are taken from beside it.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]
TOOLS = Path(sys.executable).parent
CACHE = Path(os.environ.get("LOWTIDE_CACHE", "/var/cache/lowtide-lab"))
# The slow ones first, so that the two lanes end together.
GATES: dict[str, list[str]] = {
    "sanity": [sys.executable, "tests/sanity/run.py"],
    "mypy": [str(TOOLS / "mypy")],
    "ansible-lint": [str(TOOLS / "ansible-lint"), "--nocolor"],
    "docs": [
        str(TOOLS / "antsibull-docs"),
        "--config-file",
        "tests/antsibull.cfg",
        "lint-collection-docs",
        "--plugin-docs",
        "--skip-rstcheck",
        ".",
    ],
    "yamllint": [str(TOOLS / "yamllint"), "--strict", "."],
    "ruff": [str(TOOLS / "ruff"), "check", "--no-cache", "--quiet", "."],
    "format": [str(TOOLS / "ruff"), "format", "--no-cache", "--check", "--quiet", "."],
    "changelog": [str(TOOLS / "antsibull-changelog"), "lint"],
}


def run(command: list[str]) -> tuple[int, float, str]:
    """Exit code, seconds, and all that was printed."""
    started = time.monotonic()
    environment = {
        **{key: value for key, value in os.environ.items() if not key.startswith("ANSIBLE_")},
        "PATH": f"{TOOLS}:{os.environ['PATH']}",
        "ANSIBLE_COLLECTIONS_PATH": str(CHECKOUT / "collections"),
        "NO_COLOR": "1",
        "MYPY_CACHE_DIR": str(CACHE / "mypy"),
    }
    process = subprocess.run(
        command,
        cwd=CHECKOUT,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return process.returncode, time.monotonic() - started, process.stdout


def main() -> int:
    """Run the gates named, or all; 1 when one is red, 2 when one is unknown."""
    names = sys.argv[1:] or list(GATES)
    if names == ["--list"]:
        print("\n".join(GATES))
        return 0
    unknown = sorted(set(names) - GATES.keys())
    if unknown:
        print(f"no such gate: {', '.join(unknown)}; known: {', '.join(GATES)}", file=sys.stderr)
        return 2
    started = time.monotonic()
    red = []
    with ThreadPoolExecutor(max_workers=2) as pool:
        futures = {pool.submit(run, GATES[name]): name for name in names}
        for future in as_completed(futures):
            code, seconds, output = future.result()
            if code:
                red.append(futures[future])
                print(output.rstrip())
            print(f"lint/{futures[future]} {'FAILED' if code else 'PASSED'} {seconds:.1f}s", flush=True)
    counts = ([f"{len(red)} failed ({', '.join(red)})"] if red else []) + [f"{len(names) - len(red)} passed"]
    print(f"==== {', '.join(counts)} in {time.monotonic() - started:.2f}s ====")
    return 1 if red else 0


if __name__ == "__main__":
    sys.exit(main())
