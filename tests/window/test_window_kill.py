# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The fast window's controller killed by real signals (F1), and what comes after it. No lab is needed.

LOWTIDE_EXHAUSTIVE=1 kills at every task boundary, with each way on, instead of a seeded sample.
"""

from __future__ import annotations

import os
import random
import shutil
import signal

import pytest

from support.fast_window import BEGINNING, END, RESTORE, TASKS, FastWindow, Played

EXHAUSTIVE = os.environ.get("LOWTIDE_EXHAUSTIVE") == "1"
SIGNALS = [signal.SIGKILL, signal.SIGTERM, signal.SIGINT]
WAYS_ON = ["run_again", "journal_lost", "restored"]
SAMPLE = random.Random(2026).sample(range(2, TASKS), 3)  # noqa: S311 (a sample, no secret)
BOUNDARIES = (
    [(number, signal.SIGKILL, way) for number in range(1, TASKS + 1) for way in WAYS_ON]
    + [(number, sent, "run_again") for number in range(1, TASKS + 1) for sent in SIGNALS[1:]]
    if EXHAUSTIVE
    else list(zip(sorted(SAMPLE), SIGNALS, WAYS_ON, strict=True))
)
STOP, DEAD, START = "workers stop", "dead rows above the limit", "workers start"
INSIDE = [
    (f"between:web1:{STOP}", signal.SIGKILL, "journal_lost"),
    (f"between:db1:{DEAD}", signal.SIGTERM, "run_again"),
    (f"after:db2:{DEAD}", signal.SIGKILL, "restored"),
    (f"before:web1:{START}", signal.SIGKILL, "run_again"),
]


def ends_well(window: FastWindow, killed: Played, way: str) -> None:
    """The service is up, everything is done once: by the next run, or by the one after restore_service."""
    if way == "journal_lost":
        shutil.rmtree(window.folder / "state", ignore_errors=True)
    if way == "restored":
        restored = window.play(playbook=RESTORE)
        assert restored.rc == 0, killed.out + restored.out
        webs = {host: values for host, values in window.world().items() if host.startswith("web")}
        assert webs == {"web1": {"replicas": 3}, "web2": {"replicas": 3}}
    again = window.play()
    assert again.rc == 0, killed.out + again.out
    assert window.world() == END
    assert window.states()[-1] in {"succeeded", "no_changes"}


@pytest.mark.parametrize(("number", "sent", "way"), BOUNDARIES)
def test_killed_between_tasks(window: FastWindow, number: int, sent: signal.Signals, way: str) -> None:
    killed = window.play(env={"KILL_AT": f"{number}:{int(sent)}"})
    assert killed.rc != 0, "it was not killed"
    assert "PLAY RECAP" not in killed.out or sent == signal.SIGINT
    ends_well(window, killed, way)


@pytest.mark.parametrize(("point", "sent", "way"), INSIDE)
def test_killed_inside_a_step(window: FastWindow, point: str, sent: signal.Signals, way: str) -> None:
    killed = window.play(env={"WORLD_KILL": f"{point}:{int(sent)}"})
    assert killed.rc != 0, "it was not killed"
    assert window.states() == []
    assert window.world() not in (BEGINNING, END)
    ends_well(window, killed, way)
