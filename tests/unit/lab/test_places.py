# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the lab reads from the kernel and from programs, and what environment its commands get."""

from __future__ import annotations

import os
import subprocess
import threading
from pathlib import Path

import pytest
from labkit import process
from labkit.cgroup import hierarchies
from labkit.cli import environment
from labkit.credentials import aws_credentials
from labkit.errors import LabError
from labkit.lab import Lab
from labkit.operations import mounts_below
from labkit.packages import go_version


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    """A lab of which only the directories matter."""
    return Lab("unit", cache=tmp_path / "cache", states=tmp_path / "states")


def test_cgroup_hierarchies_of_v1_v2_and_both() -> None:
    """Every mount of either type, nothing else."""
    text = "\n".join(
        [
            "tmpfs /sys/fs/cgroup tmpfs rw 0 0",
            "cgroup /sys/fs/cgroup/memory cgroup rw,memory 0 0",
            "none /sys/fs/cgroup/unified cgroup2 rw 0 0",
            "/dev/vda / ext4 rw 0 0",
        ]
    )
    assert hierarchies(text) == [Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup/unified")]
    assert hierarchies("/dev/vda / ext4 rw 0 0\n") == []


def test_mounts_below_come_last_mounted_first() -> None:
    """A mount on a mount must go before it; names with spaces are escaped by the kernel; a sibling is left alone."""
    text = "\n".join(
        f"{number} 1 0:1 / {point} rw - tmpfs none rw"
        for number, point in enumerate(["/", "/l/main/a", "/l/main/a/b\\040c", "/l/mainly/x", "/l/main"])
    )
    assert mounts_below(Path("/l/main"), text) == ["/l/main", "/l/main/a/b c", "/l/main/a"]


@pytest.mark.parametrize(
    ("text", "version"),
    [("go version go1.26.8 linux/amd64", (1, 26)), ("go version go1.19.8 linux/amd64", (1, 19)), ("", (0, 0))],
)
def test_go_version(text: str, version: tuple[int, int]) -> None:
    """Unreadable is too old."""
    assert go_version(text) == version


def test_a_command_in_the_lab_gets_none_of_the_users_own_servers(lab: Lab) -> None:
    """Only what is not about servers is kept, and the lab's facts are named."""
    given = {
        "KUBECONFIG": "/k",
        "PGHOST": "h",
        "AWS_PROFILE": "p",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PATH": "/bin",
        "TERM": "xterm",
    }
    made = environment(lab, given)
    assert made.keys() == {"PATH", "TERM", "LOWTIDE_LAB", "LOWTIDE_CACHE", "LOWTIDE_LAB_FACTS"}
    assert made["PATH"] == f"{lab.cache}/venv/bin:/bin"


@pytest.mark.parametrize("name", ["", "Main", "a b", "../x", "a" * 21, "1a"])
def test_a_lab_name_that_could_not_be_a_path_or_device_is_refused(name: str) -> None:
    """Before anything is made of it."""
    with pytest.raises(LabError, match="LOWTIDE_LAB"):
        Lab(name, cache=Path("/c"), states=Path("/s"))


def test_a_process_is_known_by_its_start_time_too(tmp_path: Path) -> None:
    """A recycled process id is not the recorded process, and is never signalled."""
    child = subprocess.Popen(["sleep", "60"])
    started = process.start_time(child.pid)
    assert started is not None
    recycled = process.Process(name="x", pid=child.pid, started=started - 1, log=str(tmp_path / "log"))
    assert not recycled.alive()
    assert process.stop(recycled, 1.0) == "was gone"
    assert child.poll() is None
    same = process.Process(name="x", pid=child.pid, started=started, log="")
    assert same.alive()
    assert process.stop(same, 60.0) == "stopped"
    assert not same.alive()
    child.wait()


def test_a_process_that_ignores_sigterm_is_killed(tmp_path: Path) -> None:
    """After the time it was given."""
    program = (
        "import signal, sys, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
        " print('set', flush=True); time.sleep(60)"
    )
    child = subprocess.Popen(["/usr/bin/python3", "-c", program], stdout=subprocess.PIPE)
    assert child.stdout is not None
    assert child.stdout.readline() == b"set\n"
    stubborn = process.Process(name="x", pid=child.pid, started=process.start_time(child.pid) or 0, log=str(tmp_path))
    assert process.stop(stubborn, 0.2) == "killed"
    assert child.wait() == -9
    child.stdout.close()


def test_a_wait_that_fails_names_the_cause_and_the_log(lab: Lab, tmp_path: Path) -> None:
    """The last exception, and the end of the log of the process that it waited for."""
    log = tmp_path / "log"
    log.write_text("".join(f"line {number}\n" for number in range(40)))
    myself = process.Process(name="server", pid=os.getpid(), started=process.start_time(os.getpid()) or 0, log=str(log))

    def refused() -> bool:
        raise ConnectionRefusedError(111, "Connection refused")

    with pytest.raises(LabError, match="server at x") as caught:
        lab.wait_for("server at x", refused, 0.1, myself)
    assert "Connection refused" in str(caught.value)
    assert "line 39" in str(caught.value)
    assert "line 20\n" not in str(caught.value)


def test_a_wait_ends_early_when_its_process_ended(lab: Lab) -> None:
    """A dead server will not become ready."""
    gone = process.Process(name="server", pid=os.getpid(), started=1, log="/nowhere")
    with pytest.raises(LabError, match="server ended"):
        lab.wait_for("server", lambda: False, 60, gone)


def test_a_lock_is_held_by_one_at_a_time_and_leaves_no_file(lab: Lab) -> None:
    """The second waits; the file goes with the last."""
    inside: list[str] = []

    def second() -> None:
        with lab.locked("unit-test"):
            inside.append("second")

    with lab.locked("unit-test"):
        thread = threading.Thread(target=second)
        thread.start()
        thread.join(0.2)
        inside.append("first")
    thread.join(60)
    assert inside == ["first", "second"]
    assert not Path("/run/lowtide-lab/unit-test.lock").exists()


def test_credentials_are_made_once_and_private(tmp_path: Path) -> None:
    """The same pair the second time, readable by its owner only."""
    made = aws_credentials(tmp_path)
    assert aws_credentials(tmp_path) == made
    assert made.file.stat().st_mode & 0o777 == 0o600
    assert len(made.secret_key) == 40
