#!/usr/bin/env python3
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The first run in a fresh image against the second, with and without the definition's steps that compile (goal P15).

    python tests/bench/bench_bytecode.py --pairs 5

For each pair two environments are made as an image has them: the tarball, and the newest libraries of its requirements,
installed without bytecode; in one of them the steps of execution-environment.yml are run. Then the same playbook runs
twice in each. A job in an image cannot write bytecode, so without the steps each of them is a first run.

Prints one JSON document: seconds, and the median of first / second, of a playbook that does no more than tell what
windows do, and of a task's own part, which is to import the libraries.
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
from pathlib import Path

import yaml

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "lab"))
from labkit.packages import SYSTEM_PYTHON, cache

from support.execution_environments import PYTHON, compile_as_in_the_image
from support.modules import CHECKOUT
from support.tarball import build, install

IMPORTS = "import boto3, confluent_kafka.admin, kubernetes.config, psycopg2, pymysql"
STEPS = yaml.safe_load((CHECKOUT / "execution-environment.yml").read_text("utf-8"))["additional_build_steps"]
UV = cache() / "uv/bin/uv"


def make_image(folder: Path, tarball: Path, *, compiled: bool) -> Path:
    """Make an environment with the collection and its libraries; return its Python."""
    python = folder / "venv/bin/python"
    subprocess.run([UV, "venv", "--quiet", "--python", SYSTEM_PYTHON, folder / "venv"], check=True)
    options: list[str | Path] = ["--quiet", "--link-mode", "copy", "--no-compile-bytecode", "--python", python]
    wanted: list[str | Path] = ["ansible-core>=2.19,<2.20", "-r", CHECKOUT / PYTHON]
    subprocess.run([UV, "pip", "install", *options, *wanted], check=True)
    install(tarball, folder)
    if compiled:
        compile_as_in_the_image(STEPS["append_final"], python, folder)
    control = {
        "ansible_connection": "local",
        "ansible_python_interpreter": str(python),
        "window_dir": str(folder / "w"),
    }
    hosts = {"all": {"children": {"control": {"hosts": {"c": control}}}}}
    (folder / "hosts.yml").write_text(yaml.safe_dump(hosts), encoding="utf-8")
    return python


def measure(command: list[str | Path], folder: Path) -> float:
    """Run a command; its seconds."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("ANSIBLE_", "PYTHON"))}
    environment |= {"ANSIBLE_COLLECTIONS_PATH": str(folder), "HOME": str(folder)}
    started = time.monotonic()
    subprocess.run(command, cwd=folder, env=environment, check=True, stdout=subprocess.DEVNULL)
    return time.monotonic() - started


def measure_image(tarball: Path, *, compiled: bool) -> dict[str, tuple[float, float]]:
    """Make one image; the seconds of the first and the second run of playbook and imports."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        python = make_image(folder, tarball, compiled=compiled)
        play: list[str | Path] = [python.with_name("ansible-playbook"), "-i", "hosts.yml", "lowtide.ops.window_status"]
        library: list[str | Path] = [python, "-I", "-c", IMPORTS]
        runs = {"playbook": play, "imports": library}
        return {key: (measure(command, folder), measure(command, folder)) for key, command in runs.items()}


def describe(pairs: list[tuple[float, float]]) -> dict[str, float | list[float]]:
    """Medians of the seconds and of the ratios, and the ratios' range."""
    ratios = [first / second for first, second in pairs]
    return {
        "first": round(statistics.median(first for first, _second in pairs), 3),
        "second": round(statistics.median(second for _first, second in pairs), 3),
        "ratio": round(statistics.median(ratios), 2),
        "range": [round(min(ratios), 2), round(max(ratios), 2)],
    }


def main() -> None:
    """Interleave both kinds of image."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=5)
    pairs = parser.parse_args().pairs
    measured: dict[str, dict[str, list[tuple[float, float]]]] = {}
    with tempfile.TemporaryDirectory() as output:
        tarball = build(Path(output))
        for _pair in range(pairs):
            for kind in ("compiled", "not compiled"):
                for key, seconds in measure_image(tarball, compiled=kind == "compiled").items():
                    measured.setdefault(kind, {}).setdefault(key, []).append(seconds)
    print(json.dumps({kind: {k: describe(v) for k, v in both.items()} for kind, both in measured.items()}, indent=2))


if __name__ == "__main__":
    main()
