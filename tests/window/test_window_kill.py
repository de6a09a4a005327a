# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The fast window's controller killed by real signals and run again (F1), two controllers at once (F3). No lab is
needed.

LOWTIDE_KILL_EXHAUSTIVE=1 sends each signal at every task boundary instead of a seeded sample.
"""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

import pytest

from .harness import BEGINNING, END, TASKS, FastWindow, Played

EXHAUSTIVE = os.environ.get("LOWTIDE_KILL_EXHAUSTIVE") == "1"
SAMPLE = sorted(random.Random(2026).sample(range(2, TASKS), 3))  # noqa: S311 (a sample, no secret)
SIGNALS = [signal.SIGKILL, signal.SIGTERM, signal.SIGINT]
BOUNDARIES = (
    [(number, sent) for number in range(1, TASKS + 1) for sent in SIGNALS]
    if EXHAUSTIVE
    else list(zip(SAMPLE, SIGNALS, strict=True))
)
STOP, DEAD, START = "workers stop", "dead rows above the limit", "workers start"
INSIDE = [
    ("between", "web1", STOP, signal.SIGKILL),
    ("between", "db1", DEAD, signal.SIGTERM),
    ("after", "db2", DEAD, signal.SIGKILL),
    ("before", "web1", START, signal.SIGKILL),
]


def ends_well(window: FastWindow, killed: Played) -> None:
    """Run again: the same end as undisturbed, everything done once, the service up."""
    again = window.play()
    assert again.rc == 0, killed.out + again.out
    assert window.world() == END
    assert window.states()[-1] in {"done", "nothing_to_do"}


@pytest.mark.parametrize(("number", "sent"), BOUNDARIES)
def test_killed_between_tasks_and_run_again(window: FastWindow, number: int, sent: signal.Signals) -> None:
    killed = window.play(env={"KILL_AT": f"{number}:{int(sent)}"})
    assert killed.rc != 0, "it was not killed"
    assert "PLAY RECAP" not in killed.out or sent == signal.SIGINT
    ends_well(window, killed)


@pytest.mark.parametrize(("point", "host", "why", "sent"), INSIDE)
def test_killed_inside_a_step_and_run_again(
    window: FastWindow, point: str, host: str, why: str, sent: signal.Signals
) -> None:
    killed = window.play(env={"WORLD_KILL": f"{point}:{host}:{why}:{int(sent)}"})
    assert killed.rc != 0, "it was not killed"
    assert window.states() == []
    assert window.world() not in (BEGINNING, END)
    ends_well(window, killed)


def test_a_run_waits_for_the_orphan_of_a_killed_one(window: FastWindow) -> None:
    world = window.folder / "world"
    os.mkfifo(world / "go")
    killed = window.start(maintain_role="orphan")
    end = time.monotonic() + 60
    while not (world / "started").exists():
        assert killed.poll() is None, "it ended before its slow step began"
        assert time.monotonic() < end, "its slow step never began"
        time.sleep(0.05)
    killed.kill()
    killed.wait()
    again = window.start(maintain_role="orphan")
    orphan = int((world / "started").read_text())
    assert Path(f"/proc/{orphan}").exists()
    (world / "go").write_text("go")  # returns when the orphan reads it
    (world / "go").unlink()
    played = window.finish(again)
    assert played.rc == 0, played.out
    written = (world / "db1.json").stat().st_mtime
    opened = [record["at"] for record in window.records() if record["kind"] == "open"]
    assert len(opened) == 2
    assert opened[1] >= written, "the second run did not wait for the orphan"
    assert window.world() == END


def test_two_controllers_at_once(window: FastWindow) -> None:
    both = [window.start(), window.start()]
    played = [window.finish(process) for process in both]
    assert sorted(one.rc for one in played) == [0, 2], played[0].out + played[1].out
    loser = next(one for one in played if one.rc)
    winner = next(process for process in both if process.returncode == 0)
    assert "refused" in loser.verdict
    assert f"process {winner.pid}" in loser.verdict
    assert window.world() == END
    assert window.states() == ["done"]
