# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Run ansible-playbook as a user does: in a process of its own, from the checkout."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from .modules import CHECKOUT, PATIENCE

RECAP = re.compile(r"^(?P<host>\S+)\s+: (?P<counts>ok=\d+.*)$", re.MULTILINE)


@dataclass(frozen=True)
class PlaybookRun:
    """What a playbook left: exit code, both streams, and the recap as ``{host: {"ok": 3, "changed": 0, ...}}``."""

    rc: int
    stdout: str
    stderr: str

    @property
    def stats(self) -> dict[str, dict[str, int]]:
        """The last recap printed, empty when the run ended before it."""
        _before, _heading, recap = self.stdout.rpartition("PLAY RECAP")
        return {
            match["host"]: {key: int(value) for key, value in re.findall(r"(\w+)=(\d+)", match["counts"])}
            for match in RECAP.finditer(recap)
        }

    @property
    def changed(self) -> int:
        """Changed tasks over all hosts."""
        return sum(counts["changed"] for counts in self.stats.values())


def playbook_command(playbook: str | Path, *arguments: str) -> list[str]:
    """The command line for ``playbook``: a path, or a name such as ``lowtide.ops.backup``."""
    return [str(Path(sys.executable).with_name("ansible-playbook")), str(playbook), *arguments]


def playbook_environment(extra: dict[str, str] | None = None) -> dict[str, str]:
    """This environment without what could colour or redirect Ansible's output, plus ``extra``."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("ANSIBLE_")}
    environment["ANSIBLE_NOCOLOR"] = "1"
    environment["ANSIBLE_CONFIG"] = str(CHECKOUT / "ansible.cfg")
    environment["ANSIBLE_COLLECTIONS_PATH"] = str(CHECKOUT / "collections")
    environment["ANSIBLE_LOCALHOST_WARNING"] = "0"
    environment["ANSIBLE_INVENTORY_UNPARSED_WARNING"] = "0"
    environment.update(extra or {})
    return environment


def write_yaml(path: Path, data: list[dict[str, Any]] | dict[str, Any]) -> Path:
    """Write plays or variables given as data to ``path`` and return it."""
    path.write_text(yaml.safe_dump(data, sort_keys=False), encoding="utf-8")
    return path


def describe_window(folder: Path) -> dict[str, Any]:
    """Write an inventory of one database for a window, and return the variables of the window."""
    own = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
    groups = {"control": {"hosts": {"control1": None}}, "databases": {"hosts": {"database1": None}}}
    write_yaml(folder / "hosts.yml", {"all": {"vars": own, "children": groups}})
    return {"window_dir": str(folder / "windows"), "window_site": "test"}


def start_playbook(
    playbook: str | Path, *arguments: str, env: dict[str, str] | None = None, cwd: Path = CHECKOUT
) -> subprocess.Popen[str]:
    """Start a playbook in a process group of its own, for tests that disturb it while it runs."""
    return subprocess.Popen(
        playbook_command(playbook, *arguments),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=playbook_environment(env),
        cwd=cwd,
        start_new_session=True,
    )


def kill_playbook(process: subprocess.Popen[str]) -> None:
    """End a started playbook as a power cut does: with all that it has started, of whatever process group.

    Ansible's workers have sessions of their own, so that a signal to the controller's group does not reach them.
    """
    known: set[int] = set()
    while found := {process.pid, *_list_children(known)} - known:
        known |= found
        for pid in found:
            _send(pid, signal.SIGSTOP)  # so that it starts nothing more
    for pid in known:
        _send(pid, signal.SIGKILL)
    process.communicate(timeout=60)


def _list_children(parents: set[int]) -> set[int]:
    children = set()
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError):  # it has ended
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
                if int(fields[1]) in parents:
                    children.add(int(folder.name))
    return children


def _send(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def finish_playbook(process: subprocess.Popen[str], *, timeout: float = PATIENCE) -> PlaybookRun:
    """Wait for a started playbook; after ``timeout`` seconds its whole process group is killed and the wait raises."""
    try:
        out, err = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired as expired:
        os.killpg(process.pid, signal.SIGKILL)
        out, err = process.communicate()
        raise AssertionError(f"the playbook ran longer than {timeout:.0f} s:\n{out}\n{err}") from expired
    return PlaybookRun(rc=process.returncode, stdout=out, stderr=err)


def run_playbook(
    playbook: str | Path,
    *arguments: str,
    env: dict[str, str] | None = None,
    cwd: Path = CHECKOUT,
    timeout: float = PATIENCE,
) -> PlaybookRun:
    """Run a playbook to its end."""
    return finish_playbook(start_playbook(playbook, *arguments, env=env, cwd=cwd), timeout=timeout)
