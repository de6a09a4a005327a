# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A lab of service hosts beside the one these tests run in: killed, mended, and taken down without a trace.

The tests run in this order and share one lab: each leaves it up, the last takes it down.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from labkit import process

from support.modules import CHECKOUT

NAME = "hosts"
LAB = str(CHECKOUT / "tests/lab/lab")
STATE = Path("/var/lib/lowtide-lab") / NAME
PROPAGATED = Path("/run/systemd/nspawn/propagate")
MOUNTS = Path("/proc/self/mountinfo")


def start(*arguments: str) -> subprocess.Popen[str]:
    """Start the lab's command line for this lab."""
    environment = {**os.environ, "LOWTIDE_LAB": NAME}
    return subprocess.Popen(
        [LAB, *arguments], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def lab(*arguments: str, rc: int | None = 0) -> str:
    """Run it to its end, and return what it printed."""
    command = start(*arguments)
    output = command.communicate(timeout=800)[0]
    assert rc is None or command.returncode == rc, output
    return output


def read_facts() -> dict[str, Any]:
    """Read the facts of the hosts."""
    facts: dict[str, Any] = json.loads(lab("facts"))["service_hosts"]
    return facts


def run_on(number: int, user: str, command: str, rc: int | None = 0) -> str:
    """Run a command on a host by SSH."""
    facts = read_facts()
    key = facts["key"] if user == facts["user"] else facts["admin_key"]
    login = ["ssh", *facts["ssh_arguments"].split(), "-i", key, f"{user}@{facts['hosts'][number]['address']}"]
    return lab("run", "--", *login, command, rc=rc)


def read_pids() -> dict[str, int]:
    """Read the process of each host's systemd-nspawn."""
    records = [json.loads(path.read_text()) for path in STATE.glob("service_hosts/processes/*.json")]
    return {record["name"]: record["pid"] for record in records}


@pytest.fixture(scope="module", autouse=True)
def _lab_of_hosts() -> Iterator[None]:
    """Nothing of an earlier run before, nothing left after."""
    lab("down")
    yield
    lab("down")


def test_up_killed_halfway_and_again() -> None:
    """The second run comes up over mounts and half-booted hosts of the first."""
    first = start("up", "service_hosts")
    deadline = time.monotonic() + 300
    while not read_pids():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    first.kill()
    first.communicate()
    for pid in read_pids().values():
        os.kill(pid, signal.SIGKILL)
    lab("up", "service_hosts")
    assert [run_on(number, "lowtide", "hostname").strip() for number in range(3)] == [
        "service1",
        "service2",
        "service3",
    ]


def test_the_account_may_manage_its_units_and_nothing_else() -> None:
    """Neither another unit nor root is within its reach; the journal is."""
    assert read_facts()["user"] == "lowtide"
    run_on(0, "root", "printf '[Service]\\nExecStart=/usr/bin/sleep 600\\n' > /etc/systemd/system/lab-a.service")
    run_on(0, "root", "systemctl daemon-reload")
    run_on(0, "lowtide", "systemctl start --no-ask-password lab-a.service")
    run_on(0, "root", "journalctl --sync")  # the journal takes in what systemd says when it comes to it
    assert "Started lab-a.service" in run_on(0, "lowtide", "journalctl --unit=lab-a --no-pager")
    refused = run_on(0, "lowtide", "systemctl stop --no-ask-password ssh.service", rc=None)
    assert "authentication required" in refused
    assert run_on(0, "lowtide", "systemctl is-active ssh.service lab-a.service").split() == ["active", "active"]
    assert run_on(0, "lowtide", "command -v sudo", rc=None) == ""


def test_a_killed_host_is_booted_and_the_others_left_alone() -> None:
    """With its files as they were."""
    before = read_pids()
    os.kill(before["service1"], signal.SIGKILL)
    lab("up", "service_hosts")
    after = read_pids()
    assert after["service1"] != before.pop("service1")
    assert {name: after[name] for name in before} == before
    assert "sleep 600" in run_on(0, "lowtide", "cat /etc/systemd/system/lab-a.service")


def test_network_lost_then_up() -> None:
    """Hosts on a bridge that nobody can reach any more are ended, and booted on a new one."""
    subprocess.run(["umount", f"/run/netns/lowtide-{NAME}"], check=True)
    assert "whose network is gone" in lab("up", "service_hosts")
    assert run_on(2, "lowtide", "hostname").strip() == "service3"


def test_down_leaves_nothing() -> None:
    """No process, mount, namespace, cgroup, state, nor directory of systemd-nspawn; of a killed host neither."""
    pids = read_pids()
    os.kill(pids["service2"], signal.SIGKILL)
    lab("down")
    assert [pid for pid in pids.values() if process.start_time(pid) is not None] == []
    assert str(STATE) not in MOUNTS.read_text()
    mounted = Path("/sys/fs/cgroup")
    assert [*mounted.glob(f"lowtide-{NAME}"), *mounted.glob(f"*/lowtide-{NAME}")] == []
    assert not Path(f"/run/netns/lowtide-{NAME}").exists()
    assert [path for path in PROPAGATED.glob("*") if path.name.startswith(f"{NAME}-")] == []
    assert not STATE.exists()
