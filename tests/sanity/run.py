#!/usr/bin/env python3
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Run ``ansible-test sanity`` on a copy of the checkout: its path must end in ansible_collections/lowtide/ops.

    tests/sanity/run.py [NAME_OF_A_TEST...]

The virtual environments that ansible-test makes are kept in a cache (LOWTIDE_CACHE, else ~/.cache/lowtide), so only
the first run is slow. The tests run in two groups side by side, of about the same length.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
PYTHON = "3.11"
# What ansible-core asks of a collection is asked of what is shipped.
SHIPPED = (
    "changelogs",
    "docs",
    "meta",
    "playbooks",
    "plugins",
    "roles",
    "tests/config.yml",
    "tests/sanity/ignore-*.txt",
    "galaxy.yml",
    "README.md",
)
SLOW = ("pylint", "import", "yamllint")


def cache_directory() -> Path:
    """Where the virtual environments are kept, outside of any checkout."""
    configured = os.environ.get("LOWTIDE_CACHE")
    return (Path(configured) if configured else Path.home() / ".cache" / "lowtide") / "ansible-test"


def copy_checkout(target: Path) -> None:
    """Copy what git knows or would add, of the shipped paths, as it is on disk now."""
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", *SHIPPED],
        cwd=CHECKOUT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    for name in filter(None, listing.split("\0")):
        source = CHECKOUT / name
        if source.is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target / name)


def ansible_test(collection: Path, home: Path, arguments: list[str]) -> tuple[int, str]:
    """One ``ansible-test sanity`` with a home of its own: exit code and output."""
    environment = {
        **os.environ,
        "HOME": str(home),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "LC_ALL": "C.UTF-8",
    }
    process = subprocess.run(
        [
            str(Path(sys.executable).with_name("ansible-test")),
            "sanity",
            "--python",
            PYTHON,
            "--color",
            "no",
            *arguments,
        ],
        cwd=collection,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return process.returncode, process.stdout


def main() -> int:
    """Copy, run, print what was found; the worst exit code of the groups."""
    started = time.monotonic()
    home = cache_directory()
    bootstrap = home / ".ansible" / "test" / "cache" / "get_pip_24_2.py"
    bootstrap.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(Path(__file__).with_name("get_pip.py"), bootstrap)
    wanted = sys.argv[1:]
    if wanted:
        groups = [[argument for name in wanted for argument in ("--test", name)]]
    else:
        groups = [
            [argument for name in SLOW for argument in ("--test", name)],
            [argument for name in SLOW for argument in ("--skip-test", name)],
        ]
    with tempfile.TemporaryDirectory(prefix="lowtide-sanity-") as scratch, ThreadPoolExecutor() as pool:
        runs = []
        for number, arguments in enumerate(groups):
            # A copy each: ansible-test writes its output below the collection.
            collection = Path(scratch) / str(number) / "ansible_collections" / "lowtide" / "ops"
            copy_checkout(collection)
            runs.append(pool.submit(ansible_test, collection, home, arguments))
        results = [run.result() for run in runs]
    for code, output in results:
        print(output if code or "-v" in wanted else output.rstrip().rpartition("\n")[2])
    how = "failed" if any(code for code, _output in results) else "passed"
    print(f"sanity: {how} in {time.monotonic() - started:.1f}s")
    return max(code for code, _output in results)


if __name__ == "__main__":
    sys.exit(main())
