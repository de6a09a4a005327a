# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Logs of containers: the end of each, bounded, redacted, and with a reason where there is none."""

from __future__ import annotations

import re
import time
from typing import Any

import pytest

from ansible_collections.lowtide.ops.plugins.module_utils._common.redaction import Redactor
from ansible_collections.lowtide.ops.plugins.module_utils._common.retry import Deadline
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.client import GRACE
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.logs import (
    OVERLAP_BYTES,
    Log,
    cut_tail,
    list_logs,
    read_log,
    redact_tail,
)
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.objects import Pod
from support.memory_handler import Fault
from support.memory_kubernetes import MemoryServer


def keep(text: str) -> str:
    """Redact nothing."""
    return text


def put_pod(memory: MemoryServer, name: str = "p", **restarts: int) -> Pod:
    """Put a pod with containers, each with its number of restarts."""
    statuses = [{"name": container, "restartCount": count} for container, count in (restarts or {"main": 0}).items()]
    obj = {"kind": "Pod", "metadata": {"name": name, "namespace": "n"}, "status": {"containerStatuses": statuses}}
    return Pod.from_object(memory.put(obj))


def read(memory: MemoryServer, pod: Pod, **options: Any) -> Log:
    """Read the log of its container ``main``."""
    limits = {"redact": keep, "tail_lines": 10, "limit_bytes": 1000, **options}
    return read_log(memory.client(), pod, "main", **limits)


def test_the_last_lines_are_read(memory: MemoryServer) -> None:
    """Of a shorter log all of it, of a longer one the end, which says so."""
    pod = put_pod(memory)
    memory.log_lines["n", "p"] = [f"line {number}" for number in range(5)]
    assert read(memory, pod) == Log("n/p", "main", False, "line 0\nline 1\nline 2\nline 3\nline 4", False)
    cut = read(memory, pod, tail_lines=2)
    assert (cut.text, cut.truncated) == ("line 3\nline 4", True)
    assert cut.title == "log of container main of Pod n/p"
    query = memory.log[-1].query
    assert (query["container"], query["tailLines"], "previous" in query) == ("main", "103", False)


def test_the_end_of_a_log_is_what_a_limit_of_bytes_keeps(memory: MemoryServer) -> None:
    """Whole lines from its end; the API's own limitBytes would keep the beginning."""
    pod = put_pod(memory)
    memory.log_lines["n", "p"] = ["a" * 50, "b" * 50, "the cause"]
    cut = read(memory, pod, limit_bytes=60)
    assert (cut.text, cut.truncated) == ("b" * 50 + "\nthe cause", True)


def test_the_previous_container_s_log_is_another_one(memory: MemoryServer) -> None:
    """It is asked for by a parameter, and its title says so."""
    pod = put_pod(memory, main=1)
    memory.log_lines["n", "p"] = ["starting"]
    memory.previous_lines["n", "p", "main"] = ["Traceback", "KeyError: 'DB_HOST'"]
    before = read(memory, pod, previous=True)
    assert before.text == "Traceback\nKeyError: 'DB_HOST'"
    assert before.title == "previous log of container main of Pod n/p"


def test_a_log_since_a_time_is_asked_for_by_it(memory: MemoryServer) -> None:
    """As the API writes times."""
    read(memory, put_pod(memory), since=0.0)
    assert memory.log[-1].query["sinceTime"] == "1970-01-01T00:00:00Z"


def test_what_is_cut_off_is_redacted_first(memory: MemoryServer) -> None:
    """A private key that begins before the lines that are kept leaves nothing of itself."""
    pod = put_pod(memory)
    key = ["-----BEGIN PRIVATE KEY-----", *["c2VjcmV0" * 8] * 50, "-----END PRIVATE KEY-----"]
    memory.log_lines["n", "p"] = [*key, "started"]

    def redact(text: str) -> str:
        return re.sub(r"(?s)-----BEGIN.*?END PRIVATE KEY-----", "[redacted]", text)

    assert read(memory, pod, redact=redact, tail_lines=5).text == "[redacted]\nstarted"


@pytest.mark.parametrize(
    ("prepare", "reason"),
    [
        (lambda memory: memory.deny("get", "pods/log"), "not allowed to read it: grant get on pods/log in namespace n"),
        (lambda memory: memory.remove("Pod", "n", "p"), "Pod n/p does not exist any more"),
        (lambda _memory: None, "it is empty"),
        (
            lambda memory: memory.faults.append(Fault(status=400, path="/log")),
            "there is none of the container main: the server answered 400: injected 400",
        ),
    ],
)
def test_a_log_that_is_not_there_says_why(memory: MemoryServer, prepare: Any, reason: str) -> None:
    """Nothing is raised, since a log only explains something else."""
    pod = put_pod(memory)
    prepare(memory)
    log = read(memory, pod)
    assert (log.text, log.truncated) == ("", False)
    assert log.reason.startswith(reason)


def test_there_is_no_previous_log_of_a_container_that_was_not_restarted(memory: MemoryServer) -> None:
    """The server's own words are the reason."""
    reason = read(memory, put_pod(memory), previous=True).reason
    assert reason.startswith("there is none of the container before the last restart main: the server answered 400")


def test_a_log_is_read_after_the_deadline_too(memory: MemoryServer) -> None:
    """It explains why the deadline passed; the client's own deadline stays what it was."""
    pod = put_pod(memory)
    memory.log_lines["n", "p"] = ["too slow"]
    client = memory.client(0.01)
    own = client.deadline
    while own.elapsed < 0.01 + GRACE:
        time.sleep(0.05)
    assert read_log(client, pod, "main", redact=keep, tail_lines=1, limit_bytes=100).text == "too slow"
    assert client.deadline is own


def test_a_node_that_does_not_answer_costs_only_the_time_of_logs(memory: MemoryServer) -> None:
    """The API server answers 502 for it; the reason says so."""
    pod = put_pod(memory)
    memory.faults.append(Fault(status=502, path="/log", times=1000))
    log = read(memory, pod, deadline=Deadline(0.3))
    assert log.reason.startswith("it could not be read: the server answered 502")


def test_the_logs_of_all_pods_are_listed(memory: MemoryServer) -> None:
    """Each container of each pod, the previous one of a restarted one first; those left out are not asked for."""
    pods = [put_pod(memory, "p", main=2, sidecar=0), put_pod(memory, "q", main=0)]
    memory.log_lines |= {("n", "p"): ["p"], ("n", "q"): ["q"]}
    memory.previous_lines["n", "p", "main"] = ["crashed"]
    options: dict[str, Any] = {"redact": keep, "tail_lines": 5, "limit_bytes": 100}
    logs = list_logs(memory.client(), pods, **options)
    assert [(log.pod, log.container, log.previous, log.text) for log in logs] == [
        ("n/p", "main", True, "crashed"),
        ("n/p", "main", False, "p"),
        ("n/p", "sidecar", False, "p"),
        ("n/q", "main", False, "q"),
    ]
    chosen = list_logs(memory.client(), pods, select=lambda _pod, container: container.restarts > 0, **options)
    assert [(log.pod, log.container) for log in chosen] == [("n/p", "main")] * 2
    cut = list_logs(memory.client(), pods, limit=3, **options)
    assert [log.reason for log in cut] == ["", "", "", "it was not read, as 3 others were"]


@pytest.mark.parametrize(
    ("text", "tail_lines", "limit_bytes", "kept"),
    [
        ("", 5, 5, ("", False)),
        ("a\nb", 2, 3, ("a\nb", False)),
        ("a\nb", 2, 2, ("b", True)),
        ("a\nb", 0, 9, ("", True)),
        ("a\nb", 9, 0, ("", True)),
        ("xx\nabcdef", 5, 3, ("def", True)),
        ("éé", 1, 3, ("é", True)),
    ],
)
def test_the_end_of_a_text(text: str, tail_lines: int, limit_bytes: int, kept: tuple[str, bool]) -> None:
    """Lines and bytes limit it, whichever is less; a character is never cut."""
    assert cut_tail(text, tail_lines=tail_lines, limit_bytes=limit_bytes) == kept


def test_what_a_kubelet_says_of_a_log_that_it_removed_is_no_log(memory: MemoryServer) -> None:
    """It says so with the status of a success, in place of the lines."""
    pod = put_pod(memory)
    memory.log_lines["n", "p"] = ["unable to retrieve container logs for containerd://69f5daa4"]
    log = read(memory, pod)
    assert log.text == ""
    assert log.reason == "its node has removed it: unable to retrieve container logs for containerd://69f5daa4"


def test_only_what_is_kept_is_redacted() -> None:
    """With some of what stands before it, in which a secret may begin; a line that is cut is left out."""
    asked: list[str] = []

    def redact(text: str) -> str:
        asked.append(text)
        return Redactor().redact(text)

    key = "-----BEGIN PRIVATE KEY-----\n" + "\n".join(["Q" * 64] * 20) + "\n-----END PRIVATE KEY-----"
    text = "\n".join([*("x" * 99 for _ in range(100_000)), key, "last"])
    kept, truncated = redact_tail(text, redact, tail_lines=3, limit_bytes=500)
    assert (kept.split("\n")[1:], truncated) == (["[redacted]", "last"], True)
    assert len(asked[0]) <= 500 + OVERLAP_BYTES
    assert asked[0].startswith("x" * 99 + "\n")


def test_the_end_of_one_long_line_begins_in_no_secret() -> None:
    """Where the line is cut nobody knows what stood before."""
    text = "a" * 200_000 + "password=" + "s3cret" * 100 + "z" * (OVERLAP_BYTES + 100 - 300) + " end"
    kept, truncated = redact_tail(text, Redactor().redact, tail_lines=5, limit_bytes=OVERLAP_BYTES)
    assert truncated
    assert kept.endswith(" end") or kept == ""
    assert "s3cret" not in kept
    short = redact_tail("b\npassword=s3cret", Redactor().redact, tail_lines=5, limit_bytes=99)
    assert short == ("b\npassword=[redacted]", False)
