# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Programs joined by pipes: none outlives its time, also one that another program has started, and warnings are kept."""

from __future__ import annotations

import time

import pytest

from ansible_collections.lowtide.ops.plugins.module_utils._backup import pipeline
from ansible_collections.lowtide.ops.plugins.module_utils._backup.pipeline import Command, Pipeline, run
from ansible_collections.lowtide.ops.plugins.module_utils._common.errors import WaitTimeout
from ansible_collections.lowtide.ops.plugins.module_utils._common.retry import Deadline

WRAPPER = ("sh", "-c", "echo begun; sleep 600; echo after")
"""A program that starts another one and does not become it: the other one holds the pipes."""
RUNAWAY = ("sh", "-c", "echo begun; setsid sleep 60; echo after")
"""One that leaves its process group, too."""


def read_until_the_end(argv: tuple[str, ...], seconds: float) -> float:
    """Read what a program writes until it is ended; the seconds that took."""
    started = time.monotonic()
    with Pipeline([Command(argv), Command(("cat",))], deadline=Deadline(seconds), collect=True) as pipe:
        assert pipe.stdout.read() == b"begun\n"
        with pytest.raises(WaitTimeout, match="not finished within"):
            pipe.finish()
    return time.monotonic() - started


def test_a_wrapper_does_not_outlive_the_deadline() -> None:
    """What it has started is ended with it; nothing is waited for."""
    assert read_until_the_end(WRAPPER, 0.5) < pipeline.GRACE


def test_what_has_left_its_group_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not for its standard error either, which it goes on holding."""
    monkeypatch.setattr(pipeline, "GRACE", 0.5)
    assert read_until_the_end(RUNAWAY, 0.5) < 20


def test_an_output_that_is_read_beside_is_bounded_as_well() -> None:
    """By whatever program writes it."""
    started = time.monotonic()
    taken: list[bytes] = []
    with Pipeline([Command(WRAPPER)], deadline=Deadline(0.5), collect=True) as pipe:
        pipe.consume(taken.append)
        with pytest.raises(WaitTimeout):
            pipe.finish()
    assert time.monotonic() - started < pipeline.GRACE
    assert taken == [b"begun\n"]


def test_warnings_of_a_program_that_succeeds_are_kept() -> None:
    """Line by line; what else it says is not."""
    script = "echo out; echo 'pg_dump: warning: a' >&2; echo 'pg_dump: detail: b' >&2; echo 'x: warning: c' >&2"
    warnings: list[str] = []
    assert run(Command(("sh", "-c", script)), deadline=Deadline(30), warn=warnings.append) == b"out\n"
    assert warnings == ["pg_dump: warning: a", "x: warning: c"]
