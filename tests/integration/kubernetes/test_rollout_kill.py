# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""k8s_rollout killed before and after each of its writes, and run again: the new revision or the old one, whole.

By default at some of them; LOWTIDE_EXHAUSTIVE=1 takes all.
"""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
from typing import Any

import pytest

from support.http_proxy import CutOffError
from support.modules import start_module
from support.rival_proxy import Rival, RivalProxy

from .conftest import Namespace
from .rollout_steps import (
    BAD_IMAGE,
    NOTE,
    QUICK,
    ROLLOUT,
    check_done,
    list_running_images,
    put,
    read_image,
    read_note,
    roll_out,
)

pytestmark = pytest.mark.lab("kubernetes")
Json = dict[str, Any]

EXHAUSTIVE = os.environ.get("LOWTIDE_EXHAUSTIVE") == "1"
TRY, CHANGE, THIRD, FOURTH = 1, 2, 3, 4
"""Patches: a dry run, the change, and what follows: that it is complete, or the undo and that this is complete."""
Point = tuple[str, int, str]
GOOD: list[Point] = [("PATCH", number, when) for number in (TRY, CHANGE, THIRD) for when in ("before", "after")]
BAD: list[Point] = [
    *(("PATCH", number, when) for number in (TRY, CHANGE, THIRD, FOURTH) for when in ("before", "after")),
    ("DELETE", 1, "before"),
    ("DELETE", 1, "after"),
]


def choose(points: list[Any], *numbers: int) -> list[Any]:
    """Return the points that are tried by default."""
    return points if EXHAUSTIVE else [points[number] for number in numbers]


def kill_at(namespace: Namespace, kind: str, point: Point, **params: Any) -> None:
    """Run a rollout that is killed before its n-th such request reaches the server, or before it gets the answer."""
    method, number, when = point
    started: list[subprocess.Popen[str]] = []
    counted = itertools.count(1)

    def kill() -> None:
        if next(counted) == number:
            os.kill(started[0].pid, signal.SIGKILL)
            raise CutOffError

    with RivalProxy(namespace.facts, Rival(method, "", kill, when, times=100)) as proxy:
        given = {"namespace": namespace.name, "kind": kind, "name": "w", "host": proxy.url, **params}
        started.append(start_module(ROLLOUT, given))
        started[0].communicate(timeout=400)
    assert started[0].returncode == -signal.SIGKILL


@pytest.mark.parametrize("point", choose(GOOD, 3), ids=str)
@pytest.mark.parametrize("kind", ["Deployment", "OrderedReady"])
def test_a_rollout_that_is_killed_is_ended_by_the_next_run(namespace: Namespace, kind: str, point: Point) -> None:
    """All pods are of the new revision, and a third run changes nothing."""
    new = namespace.facts["images"][1]
    kind = put(namespace, kind)
    kill_at(namespace, kind, point, image=new)
    check_done(roll_out(namespace, kind, image=new))
    assert (list_running_images(namespace), read_note(namespace, kind)["completed"]) == ({new}, True)
    again = check_done(roll_out(namespace, kind, image=new))
    assert (again.changed, again["revision"]) == (False, {"before": 2, "after": 2})


@pytest.mark.parametrize(
    ("kind", "point"),
    [
        *(("OrderedReady", point) for point in choose(BAD, 5, 8)),
        *(("Deployment", point) for point in choose(BAD[:8], 4)),
    ],
    ids=str,
)
def test_a_failed_rollout_that_is_killed_is_undone_by_the_next_run(
    namespace: Namespace, kind: str, point: Point
) -> None:
    """Also in the middle of its undo. All pods are of the old revision, and the run names the cause."""
    kind = put(namespace, kind)
    template = namespace.get(kind, "w")["spec"]["template"]
    kill_at(namespace, kind, point, image=BAD_IMAGE, **QUICK)
    run = roll_out(namespace, kind, image=BAD_IMAGE, **QUICK)
    assert (run.failed, run["rolled_back"]) == (True, True), run.msg
    assert run["cause"]["reason"] == "ImagePullBackOff"
    assert namespace.get(kind, "w")["spec"]["template"] == template
    assert list_running_images(namespace) == {read_image(namespace, kind)}
    assert read_note(namespace, kind)["completed"] is True


@pytest.mark.parametrize(("number", "when"), choose([point[1:] for point in BAD[2:8]], 1, 2, 5))
def test_a_write_whose_answer_is_lost_is_decided_about_again(namespace: Namespace, number: int, when: str) -> None:
    """Of the change, of the undo, and of the note: whether it was carried out is read, not assumed."""
    kind = put(namespace, "Deployment")
    counted = itertools.count(1)

    def lose_one() -> None:
        if next(counted) == number:
            raise CutOffError

    with RivalProxy(namespace.facts, Rival("PATCH", "", lose_one, when, times=100)) as proxy:
        run = roll_out(namespace, kind, image=BAD_IMAGE, host=proxy.url, **QUICK)
    assert (run.failed, run["rolled_back"]) == (True, True), run.msg
    assert BAD_IMAGE not in list_running_images(namespace)
    assert NOTE in namespace.get(kind, "w")["metadata"]["annotations"]
    assert read_note(namespace, kind)["completed"] is True
