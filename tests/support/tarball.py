# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The collection as its users get it: built, and installed from the tarball."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from .modules import CHECKOUT
from .playbooks import PlaybookRun, run_playbook


def galaxy(*arguments: str | Path, cwd: Path) -> None:
    """Run ``ansible-galaxy collection`` and show what it said when it failed."""
    command = [str(Path(sys.executable).with_name("ansible-galaxy")), "collection", *map(str, arguments)]
    process = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=600, check=False)
    assert process.returncode == 0, process.stdout + process.stderr


def build(output: Path) -> Path:
    """Build the checkout as it is on disk into the folder ``output``; the tarball."""
    galaxy("build", CHECKOUT, "--output-path", output, cwd=output)
    (built,) = output.glob("lowtide-ops-*.tar.gz")
    return built


def install(tarball: Path, folder: Path) -> Path:
    """Install the tarball, and nothing else, below ``folder``; returns it."""
    galaxy("install", tarball, "--no-deps", "--offline", "-p", folder, cwd=folder)
    return folder


def run_installed(installed: Path, playbook: str, *arguments: str, timeout: float = 600.0) -> PlaybookRun:
    """Run a playbook from outside of the checkout, by its full name, from the installed tarball."""
    (installed / "ansible.cfg").write_text("", encoding="utf-8")
    env = {"ANSIBLE_COLLECTIONS_PATH": str(installed), "ANSIBLE_CONFIG": str(installed / "ansible.cfg")}
    return run_playbook(playbook, *arguments, env=env, cwd=installed, timeout=timeout)
