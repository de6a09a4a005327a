# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Who owns a window, whether that process lives, and what it left running."""

from __future__ import annotations

import dataclasses
import os
import subprocess
from collections.abc import Callable

import pytest

from ansible_collections.lowtide.ops.plugins.plugin_utils._window.processes import (
    ENVIRONMENT_MARK,
    Owner,
    find_orphans,
    wait_for_end,
)

from .builders import start_process

Start = Callable[[], subprocess.Popen[bytes]]


def test_liveness_is_only_told_where_it_can_be_proved(start_controller: Start) -> None:
    process = start_controller()
    owner = Owner.from_pid(process.pid)
    assert owner.check_liveness() == "alive"
    assert dataclasses.replace(owner, started=owner.started - 1).check_liveness() == "dead", "the pid was reused"
    assert dataclasses.replace(owner, boot="another").check_liveness() == "unknown"
    assert dataclasses.replace(owner, namespace="pid:[1]").check_liveness() == "unknown"
    process.kill()
    assert wait_for_end(process.pid, 10)
    assert owner.check_liveness() == "dead", "a zombie does nothing any more"
    process.wait()
    assert owner.check_liveness() == "dead"
    with pytest.raises(ProcessLookupError, match=f"no process {process.pid}"):
        Owner.from_pid(process.pid)


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
