# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Whose clock judges how old something is: the one of the server, which wrote the times, and not ours."""

from __future__ import annotations

import contextlib
import re
import time

import pytest

from ansible_collections.lowtide.ops.plugins.module_utils._common.errors import WaitTimeout
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.cache import Cache
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.conditions import Serving
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.resources import collection_path
from support.memory_handler import Fault
from support.memory_kubernetes import MemoryServer
from support.memory_objects import format_now

from .test_wait_server import LATE, follow, wait_on
from .yaml_objects import describe_event, find, load, replace

SETS = collection_path("StatefulSet", "shop")
HOUR = 3600.0
SHORT = replace(LATE, status__replicas=1)


def wait_in_vain(memory: MemoryServer) -> str:
    """Wait for what does not come, and return what the error says."""
    with contextlib.closing(memory.client()) as client, Cache(client) as cache:
        workload = follow(cache, SHORT)
        with pytest.raises(WaitTimeout) as caught:
            wait_on(cache, Serving(workload, 3), seconds=0.5)
    return str(caught.value)


@pytest.mark.parametrize("ahead", [-HOUR, 0.0, HOUR])
def test_an_event_is_of_this_wait_by_the_clock_of_the_server(memory: MemoryServer, ahead: float) -> None:
    """One of this moment is none of an hour ago, and one of an hour ago is not new."""
    memory.clock_ahead = ahead
    memory.put(SHORT)
    memory.put(describe_event("s-db", "FailedCreate", "an hour ago", at=format_now(ahead - HOUR)))
    assert "an hour ago" not in wait_in_vain(memory)
    memory.put(describe_event("s-db", "FailedCreate", "just now", at=format_now(ahead + 1)))
    assert "FailedCreate: StatefulSet shop/db: just now" in wait_in_vain(memory)


@pytest.mark.parametrize("ahead", [-HOUR, 0.0, HOUR])
@pytest.mark.parametrize(("seconds", "words"), [(5, r"ended [4-9] s ago"), (HOUR, r"ended (59 min 59 s|1 h)")])
def test_an_age_is_told_by_the_clock_of_the_server(
    memory: MemoryServer, ahead: float, seconds: float, words: str
) -> None:
    """What ended 5 s ago did not end an hour ago, nor will it in an hour."""
    memory.clock_ahead = ahead
    memory.put(SHORT)
    pod = find(load("statefulset"), "Pod", "db-1")
    memory.put(replace(pod, metadata__deletionTimestamp=format_now(ahead - seconds)))
    assert re.search(words, wait_in_vain(memory))


def test_the_newest_answer_tells_the_time(memory: MemoryServer) -> None:
    """Whatever is answered, a watch too; and nothing is asked for it."""
    with contextlib.closing(memory.client()) as client:
        assert client.clock_offset == 0
        for number, ahead in enumerate((HOUR, -HOUR), 1):
            memory.clock_ahead = ahead
            client.list(SETS, obj="x")
            assert client.clock_offset == pytest.approx(ahead, abs=2)
            assert client.read_server_clock() == pytest.approx(time.time() + ahead, abs=2)
            assert client.requests == number
        memory.clock_ahead = 2 * HOUR
        client.stream(SETS, obj="x", params={"watch": "true"}).close()
        assert client.clock_offset == pytest.approx(2 * HOUR, abs=2)
        memory.clock_ahead = 3 * HOUR
        memory.faults.append(Fault(status=503))
        client.list(SETS, obj="x")
        assert client.clock_offset == pytest.approx(3 * HOUR, abs=2)


@pytest.mark.parametrize("date", ["", "yesterday", "2026-05-01T10:00:00Z", "Fri, 99 May 2026 10:00:00 GMT"])
def test_a_time_that_cannot_be_read_is_ignored(memory: MemoryServer, date: str) -> None:
    """What was known before counts."""
    memory.clock_ahead = HOUR
    with contextlib.closing(memory.client()) as client:
        client.list(SETS, obj="x")
        before = client.clock_offset
        memory.date = date
        client.list(SETS, obj="x")
        assert client.clock_offset == before
