# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A workload of an Argo CD Application that heals itself: what would be put back is refused, and who put it back is told.

Argo CD itself does not run here. ``support.argo_cd_stand_in`` stands in for its application controller.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from support.argo_cd_stand_in import MANAGER, ArgoCdStandIn, describe_application

from .conftest import Namespace
from .rollout_steps import list_running_images, read_image, roll_out
from .steps import read_replicas, start, stop, tell

pytestmark = [pytest.mark.lab("kubernetes"), pytest.mark.usefixtures("argo_cd")]
Json = dict[str, Any]


def describe(namespace: Namespace, *, replicas: bool = True) -> Json:
    """The StatefulSet ``w`` as it is in Git, with or without its replicas."""
    workload = namespace.workload("w")
    if not replicas:
        del workload["spec"]["replicas"]
    return workload


@pytest.fixture
def git(namespace: Namespace) -> dict[str, list[Json]]:
    """What is in Git for the Application ``shop``."""
    return {"shop": [describe(namespace)]}


@pytest.fixture
def stand_in(namespace: Namespace, git: dict[str, list[Json]]) -> Iterator[ArgoCdStandIn]:
    """The stand-in for Argo CD at work, with what is in Git serving."""
    namespace.apply(describe_application("shop"))
    with ArgoCdStandIn(namespace.facts, namespace.name, git) as made:
        namespace.ready("StatefulSet", "w", 1)
        yield made


@pytest.mark.procedure("B19", "C17")
def test_what_an_application_would_put_back_is_refused(namespace: Namespace, stand_in: ArgoCdStandIn) -> None:
    """A rollout and a stop, in check mode too, with the Application by its name."""
    for check in (True, False):
        rollout = roll_out(namespace, "StatefulSet", image=namespace.facts["images"][1], check=check)
        stopped = stop(namespace, "StatefulSet/w", check=check, timeout=20)
        for run in (rollout, stopped):
            assert run.failed, tell(run)
            assert run["error"]["refused"] is True
            assert "Argo CD application shop" in run.msg
            assert run["blockers"][0]["holder"] == "Argo CD application shop"
    assert (read_replicas(namespace, "StatefulSet", "w"), stand_in.healed) == ([1], [])


@pytest.mark.procedure("C17")
def test_who_put_the_template_back_is_told(namespace: Namespace, stand_in: ArgoCdStandIn) -> None:
    """Where the guard was switched off; nothing is undone over what Argo CD wrote."""
    first = namespace.facts["images"][0]
    run = roll_out(namespace, "StatefulSet", image=namespace.facts["images"][1], guards=[], timeout=120)
    assert run.failed, tell(run)
    assert f"its pod template was changed by {MANAGER} while it was rolled out" in run.msg
    assert run["rolled_back"] is False
    assert stand_in.healed[0] == "StatefulSet/w"
    assert read_image(namespace, "StatefulSet") == first
    namespace.wait("it serves what is in Git", lambda: list_running_images(namespace) == {first})


def test_an_application_without_the_replicas_lets_it_be_stopped(
    namespace: Namespace, git: dict[str, list[Json]]
) -> None:
    """As Argo CD's documentation says where something else scales; the template stays refused."""
    git["shop"] = [describe(namespace, replicas=False)]
    namespace.apply(describe_application("shop"))
    with ArgoCdStandIn(namespace.facts, namespace.name, git) as stand_in:
        namespace.ready("StatefulSet", "w", 1)
        stopped = stop(namespace, "StatefulSet/w", timeout=120)
        assert not stopped.failed, stopped.msg
        started = start(namespace, "StatefulSet/w", timeout=120)
        assert not started.failed, started.msg
        refused = roll_out(namespace, "StatefulSet", image=namespace.facts["images"][1])
    assert "Argo CD application shop" in refused.msg
    assert (stand_in.healed, read_replicas(namespace, "StatefulSet", "w")) == ([], [1])
