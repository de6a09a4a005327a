# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A small lab beside the one these tests run in: killed, mended, isolated, and taken down without a trace.

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

from support.modules import CHECKOUT

NAME = "small"
COMPONENTS = ("pgbouncer", "postgresql", "s3", "versitygw")
LAB = str(CHECKOUT / "tests/lab/lab")
STATE = Path("/var/lib/lowtide-lab") / NAME
NETNS = Path(f"/run/netns/lowtide-{NAME}")


def start(*arguments: str) -> subprocess.Popen[str]:
    """Start the lab's command line for the small lab."""
    return subprocess.Popen(
        [LAB, *arguments],
        env={**os.environ, "LOWTIDE_LAB": NAME},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def lab(*arguments: str, rc: int = 0) -> str:
    """Run it to its end; what it printed."""
    process = start(*arguments)
    output = process.communicate(timeout=800)[0]
    assert process.returncode == rc, output
    return output


def facts() -> dict[str, Any]:
    """The small lab's facts."""
    found: dict[str, Any] = json.loads(lab("facts"))
    return found


def cgroups() -> list[Path]:
    """The small lab's cgroups, at the root of each hierarchy; deeper, the pods of other labs come and go under the walk."""
    mounted = Path("/sys/fs/cgroup")
    return [*mounted.glob(f"lowtide-{NAME}"), *mounted.glob(f"*/lowtide-{NAME}")]


def service_pids() -> set[int]:
    """Every process in them."""
    found: set[int] = set()
    for cgroup in cgroups():
        for procs in cgroup.glob("**/cgroup.procs"):
            found.update(map(int, procs.read_text().split()))
    return found


def kill_all(pids: set[int]) -> None:
    """SIGKILL to each that still runs."""
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


def pids_inside() -> set[int]:
    """Every process whose command line or network namespace is the small lab's."""
    inode = f"net:[{NETNS.stat().st_ino}]" if NETNS.exists() else "none"
    found = set()
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if str(STATE) in (entry / "cmdline").read_text() or os.readlink(entry / "ns/net") == inode:
                found.add(int(entry.name))
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
    return found


def is_running(pid: int, program: str) -> bool:
    """Whether a process has become this program."""
    return Path(f"/proc/{pid}/comm").read_text() == f"{program}\n"


def select_one() -> str:
    """One query to the leader of the small lab, with what the facts say."""
    postgresql = facts()["postgresql"]
    hosts = ",".join(postgresql["hosts"])
    address = (
        f"host={hosts} user={postgresql['superuser']} passfile={postgresql['passfile']} target_session_attrs=read-write"
    )
    return lab("run", "--", "psql", "-XAt", address, "-c", "select 1").strip()


def facts_of_versions() -> dict[str, str]:
    """The identifier of the server of each version, as the facts say."""
    servers = facts()["postgresql_versions"]["servers"]
    return {version: server["system_identifier"] for version, server in servers.items()}


def ask_versions() -> dict[str, str]:
    """The same from the servers, by the account that may least; and PgBouncer lets it through."""
    now = facts()
    versions = now["postgresql_versions"]
    account = versions["accounts"]["owner"]
    who = f"user={account['user']} passfile={account['passfile']} dbname={versions['database']}"
    question = ["-c", "select system_identifier from pg_control_system()"]
    addresses = {**versions["servers"], "pooled": now["pgbouncer"]["transaction"]}
    answers = {
        version: lab("run", "--", "psql", "-XAt", f"host={place['host']} port={place['port']} {who}", *question).strip()
        for version, place in addresses.items()
    }
    assert answers.pop("pooled") in answers.values()
    return answers


@pytest.fixture(scope="module", autouse=True)
def _small_lab() -> Iterator[None]:
    """Nothing of an earlier run before, nothing left after."""
    lab("down")
    yield
    lab("down")


def test_up_killed_halfway_and_again() -> None:
    """The second run comes up over what the first one left: daemons dead in the middle of their first start."""
    first = start("up", *COMPONENTS)
    deadline = time.monotonic() + 300
    while len(service_pids()) < 4:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    first.kill()
    first.communicate()
    kill_all(service_pids())
    lab("up", *COMPONENTS)
    assert select_one() == "1"
    assert facts()["s3"]["endpoint_url"] == "http://10.77.0.1:5000"
    assert ask_versions() == facts_of_versions()


def test_up_again_starts_nothing_anew() -> None:
    """Two at once do not race either."""
    before = {path.name: path.read_text() for path in STATE.glob("*/processes/*.json")}
    both = [start("up", *COMPONENTS) for _number in range(2)]
    outputs = [one.communicate(timeout=400)[0] for one in both]
    assert [one.returncode for one in both] == [0, 0], outputs
    assert {path.name: path.read_text() for path in STATE.glob("*/processes/*.json")} == before


def test_nothing_leads_out() -> None:
    """No route to anywhere else; the same addresses as in every lab reach this lab's servers."""
    assert "unreachable" in lab("run", "--", "ip", "route", "get", "192.0.2.1", rc=2)
    path = facts()["postgresql"]["patroni"][0]["rest"]
    inside = json.loads(lab("run", "--", "curl", "--silent", path))
    assert inside["patroni"]["scope"] == f"lab-{NAME}"


def test_every_daemon_killed_then_up() -> None:
    """It heals, and the data is still there."""
    identifier = facts()["postgresql"]["system_identifier"]
    versions = facts_of_versions()
    pids = service_pids()
    assert len(pids) > 10
    kill_all(pids)
    assert "dead" in lab("status")
    lab("up", *COMPONENTS)
    assert select_one() == "1"
    assert facts()["postgresql"]["system_identifier"] == identifier
    assert ask_versions() == facts_of_versions() == versions


def test_network_lost_then_up() -> None:
    """Daemons in a namespace that nobody can enter any more are ended, and started in a new one."""
    subprocess.run(["umount", str(NETNS)], check=True)
    output = lab("up", "s3")
    assert "whose network is gone" in output
    assert facts().keys() & {*COMPONENTS, "postgresql_versions"} == {"s3"}
    lab("run", "--", "curl", "--silent", "--fail", "http://10.77.0.1:5000/moto-api/data.json")


def test_down_leaves_nothing_and_can_be_repeated() -> None:
    """No process (a detached one that no record knows neither), mount, namespace, cgroup, state."""
    detached = subprocess.Popen(
        [LAB, "run", "--", "sleep", "600"], env={**os.environ, "LOWTIDE_LAB": NAME}, start_new_session=True
    )
    deadline = time.monotonic() + 120
    while not is_running(detached.pid, "sleep"):  # before that it is not inside yet
        assert time.monotonic() < deadline
        time.sleep(0.05)
    mounted = STATE / "s3/a pod's volume"
    mounted.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "none", str(mounted)], check=True)
    assert pids_inside()
    lab("down")
    assert detached.wait(timeout=60) == -signal.SIGKILL
    assert pids_inside() == set()
    assert str(STATE) not in Path("/proc/self/mountinfo").read_text()
    assert not NETNS.exists()
    assert cgroups() == []
    assert not STATE.exists()
    lab("down")


def test_a_lab_that_is_down_says_so() -> None:
    """Instead of an empty answer, or a command run on the wrong network."""
    for arguments in (["facts"], ["status"], ["run", "--", "true"]):
        assert f"lab {NAME}: it is not up. Run `tests/lab/lab up`." in lab(*arguments, rc=1)
