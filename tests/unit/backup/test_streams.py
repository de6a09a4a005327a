# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Pipelines side by side: the first failure ends the others, and is the one that is told."""

from __future__ import annotations

import threading
from functools import partial

import pytest

from ansible_collections.lowtide.ops.plugins.module_utils._backup.pipeline import Command, Pipeline, Stopped
from ansible_collections.lowtide.ops.plugins.module_utils._backup.streams import Streams
from ansible_collections.lowtide.ops.plugins.module_utils._common.errors import OpsError, WaitTimeout
from ansible_collections.lowtide.ops.plugins.module_utils._common.retry import Deadline

ENDLESS = ("sh", "-c", "echo begun; exec sleep 600")


class Runs:
    """Tasks of one test: what each has started, and how each has ended."""

    def __init__(self, seconds: float = 60) -> None:
        self.beside = Streams()
        self.deadline = Deadline(seconds)
        self.started: list[Pipeline] = []
        self.ends: list[BaseException] = []
        self.ready = threading.Semaphore(0)

    def read(self, *argv: str) -> bytes:
        """Read what a program writes."""
        with Pipeline([Command(argv)], deadline=self.deadline, collect=True) as pipeline:
            self.started.append(pipeline)
            self.beside.attach(pipeline)
            output = pipeline.stdout.readline()
            self.ready.release()
            output += pipeline.stdout.read()
            try:
                pipeline.finish()
            except BaseException as error:
                self.ends.append(error)
                raise
        return output

    def fail_after(self, others: int, error: BaseException) -> bytes:
        """Raise once so many others have begun."""
        for _ in range(others):
            assert self.ready.acquire(timeout=30)
        raise error


def test_results_come_in_the_order_of_the_tasks() -> None:
    """Of one, too, which needs no thread."""
    runs = Runs()
    assert runs.beside.run([partial(runs.read, "echo", f"{number}") for number in range(4)]) == [
        b"0\n",
        b"1\n",
        b"2\n",
        b"3\n",
    ]
    assert Streams().run([threading.get_ident]) == [threading.get_ident()]


@pytest.mark.parametrize("error", [OpsError(obj="o", problem="first", next_step="n"), KeyboardInterrupt()])
def test_the_first_failure_ends_the_others_and_is_told(error: BaseException) -> None:
    """What was ended says so for itself; no process is left."""
    runs = Runs()
    tasks = [partial(runs.read, *ENDLESS), partial(runs.fail_after, 2, error), partial(runs.read, *ENDLESS)]
    with pytest.raises(type(error)) as raised:
        runs.beside.run(tasks)
    assert raised.value is error
    assert [type(end) for end in runs.ends] == [Stopped, Stopped]
    assert [process.poll() for pipeline in runs.started for process in pipeline._processes] == [-9, -9]


def test_what_starts_after_a_failure_ends_at_once() -> None:
    """A task that was between two steps when another one failed."""
    runs = Runs()
    failed = threading.Event()

    def fail() -> bytes:
        raise OpsError(obj="o", problem="first", next_step="n")

    def start_late() -> bytes:
        while runs.beside._failure is None:
            failed.wait(0.01)
        return runs.read(*ENDLESS)

    with pytest.raises(OpsError, match="first"):
        runs.beside.run([start_late, fail])
    assert isinstance(runs.ends[0], Stopped)


def test_a_program_that_fails_ends_the_others() -> None:
    """With its own words."""
    runs = Runs()
    with pytest.raises(OpsError, match="no such table"):
        runs.beside.run(
            [partial(runs.read, *ENDLESS), partial(runs.read, "sh", "-c", "echo 'no such table' >&2; exit 1")]
        )
    assert len(runs.ends) == 2


def test_the_deadline_is_one_for_all() -> None:
    """And is told as such."""
    runs = Runs(seconds=0.5)
    with pytest.raises(WaitTimeout, match="not finished within the time allowed"):
        runs.beside.run([partial(runs.read, *ENDLESS)] * 3)
    assert len(runs.ends) == 3
