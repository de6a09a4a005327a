# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Who owns a window, whether that process lives, and what it left running."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Callable

import pytest

from ansible_collections.lowtide.ops.plugins.plugin_utils._window.processes import (
    ENVIRONMENT_MARK,
    Owner,
    find_orphans,
    wait_for_end,
)
from support.window_stores import start_process

Start = Callable[[], subprocess.Popen[bytes]]
NOBODY = 65534
LOOK_AS_ANOTHER = """
import json, os, subprocess, sys
option, user, owner, sys.path = int(sys.argv[1]), int(sys.argv[2]), json.loads(sys.argv[3]), json.loads(sys.argv[4])
from ansible_collections.lowtide.ops.plugins.plugin_utils._window.processes import Owner, find_orphans
subprocess.run(["mount", "-t", "proc", "-o", f"hidepid={option}", "proc", "/proc"], check=True)
os.setgroups([])
os.setgid(user)
os.setuid(user)
owner = Owner.from_dict(owner)
print(owner.check_liveness(), len(find_orphans(mark="/x#1", pipe="pipe:[1]")))
print(Owner.from_pid(os.getpid()).check_liveness())
"""
"""Looks at an owner in a mount namespace whose /proc hides processes, as another user."""
WITHOUT_PIDFD = """
import os, sys, json
sys.path = json.loads(sys.argv[2])
del os.pidfd_open
from ansible_collections.lowtide.ops.plugins.plugin_utils._window.processes import wait_for_end
print(wait_for_end(int(sys.argv[1]), 0.01), flush=True)
print(wait_for_end(int(sys.argv[1]), 60), wait_for_end(int(sys.argv[1]), 0))
"""


def look_as_another(owner: Owner, *, hidepid: int, user: int = NOBODY) -> list[str]:
    """Return what another user is told of the owner, of orphans, and of itself."""
    arguments = [str(hidepid), str(user), json.dumps(owner.as_dict()), json.dumps(sys.path)]
    process = subprocess.run(
        ["unshare", "--mount", sys.executable, "-c", LOOK_AS_ANOTHER, *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    return process.stdout.split()


def test_liveness_is_only_told_where_it_can_be_proved(start_controller: Start) -> None:
    process = start_controller()
    owner = Owner.from_pid(process.pid)
    assert owner.check_liveness() == "alive"
    assert dataclasses.replace(owner, started=owner.started - 1).check_liveness() == "dead", "the pid was reused"
    assert dataclasses.replace(owner, boot="another").check_liveness() == "unknown"
    assert dataclasses.replace(owner, namespace="pid:[1]").check_liveness() == "unknown"
    process.kill()
    assert wait_for_end(process.pid, 60)
    assert owner.check_liveness() == "dead", "a zombie does nothing any more"
    process.wait()
    assert owner.check_liveness() == "dead"
    with pytest.raises(ProcessLookupError, match=f"no process {process.pid}"):
        Owner.from_pid(process.pid)


@pytest.mark.parametrize(
    ("hidepid", "user", "lives", "reused"),
    [
        (0, NOBODY, "alive", "dead"),
        (1, NOBODY, "unknown", "unknown"),
        (2, NOBODY, "unknown", "unknown"),
        (1, 0, "alive", "dead"),
        (2, 0, "alive", "dead"),
    ],
)
def test_a_process_that_is_hidden_is_not_dead(
    start_controller: Start, hidepid: int, user: int, lives: str, reused: str
) -> None:
    """The process of another user, under a /proc that does not show it, or not what it is."""
    process = start_controller()
    owner = Owner.from_pid(process.pid)
    assert look_as_another(owner, hidepid=hidepid, user=user) == [lives, "0", "alive"]
    other = dataclasses.replace(owner, started=owner.started - 1)
    assert look_as_another(other, hidepid=hidepid, user=user)[0] == reused
    process.kill()
    process.wait()
    assert look_as_another(owner, hidepid=hidepid, user=user)[0] == "dead", "no process has that number"


def test_the_end_of_a_process_is_heard_of_without_pidfd(start_controller: Start) -> None:
    """A seccomp filter bars pidfd_open, or Python was built without it."""
    process = start_controller()
    waiting = subprocess.Popen(
        [sys.executable, "-c", WITHOUT_PIDFD, str(process.pid), json.dumps(sys.path)],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert waiting.stdout is not None
    assert waiting.stdout.readline() == "False\n"
    process.kill()  # a zombie: its parent, this process, has not asked for it yet
    assert waiting.communicate(timeout=60)[0] == "True True\n"


def test_an_owner_comes_back_from_json_and_describes_itself() -> None:
    owner = Owner.from_pid(os.getpid())
    assert Owner.from_dict({**owner.as_dict(), "later": 1}) == owner
    described = dataclasses.replace(owner, user="eve", host="bastion", pid=7, since=0.0).describe()
    assert described == "eve@bastion, process 7, since 1970-01-01T00:00:00Z"


def test_a_process_is_the_same_only_with_its_start_boot_and_namespace() -> None:
    owner = Owner.from_pid(os.getpid())
    assert owner.is_same_process(dataclasses.replace(owner, user="other", since=0.0))
    for change in ({"pid": 1}, {"started": 1}, {"boot": "b"}, {"namespace": "n"}):
        assert not owner.is_same_process(dataclasses.replace(owner, **change))


def test_orphans_are_known_by_their_mark_or_their_pipe() -> None:
    read, write = os.pipe()
    os.set_inheritable(write, True)
    pipe = os.readlink(f"/proc/self/fd/{write}")
    marked = start_process(env={**os.environ, ENVIRONMENT_MARK: "/x#1"})
    holding = start_process(pass_fds=[write])
    try:
        me = frozenset({os.getpid()})
        assert [orphan.pid for orphan in find_orphans(mark="/x#1", pipe=None, ignore=me)] == [marked.pid]
        assert [orphan.pid for orphan in find_orphans(mark="/x#2", pipe=pipe, ignore=me)] == [holding.pid]
        assert find_orphans(mark="/x#2", pipe=None, ignore=me) == []
        assert find_orphans(mark="/x#1", pipe=None, ignore=me | {marked.pid}) == []
        assert "signal.pause" in find_orphans(mark="/x#1", pipe=None)[0].describe()
        assert not wait_for_end(marked.pid, 0.01)
    finally:
        for process in (marked, holding):
            process.kill()
            process.wait()
        os.close(read)
        os.close(write)
    assert wait_for_end(marked.pid, 0)
    assert find_orphans(mark="/x#1", pipe=None) == []
