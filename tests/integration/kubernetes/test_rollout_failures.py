# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What k8s_rollout does when a rollout fails on a real cluster: the cause by name, in time, and the way back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from support.kubernetes_server import ApiServer, build_path

from .conftest import Namespace
from .rollout_steps import (
    BAD_IMAGE,
    KINDS,
    NOTE,
    QUICK,
    RULES,
    Onlooker,
    check_done,
    put,
    read_image,
    roll_out,
)

pytestmark = pytest.mark.lab("kubernetes")
Json = dict[str, Any]

TIME_TO_NAME = 15.0
"""Seconds from when the API shows a failure until it is known by name, which is when the undo is written."""
QUOTA: Json = {
    "apiVersion": "v1",
    "kind": "ResourceQuota",
    "metadata": {"name": "q"},
    "spec": {"hard": {"requests.memory": "40Mi"}},
}


def main(**values: Any) -> Json:
    """The option for the only container."""
    return {"containers": [{"name": "main", **values}]}


def pod_waits(*reasons: str) -> Callable[[list[Json], Json], bool]:
    """Return whether a container waits for one of these reasons."""

    def look(pods: list[Json], _workload: Json) -> bool:
        states = [state for pod in pods for state in pod.get("status", {}).get("containerStatuses") or []]
        return any(state["state"].get("waiting", {}).get("reason") in reasons for state in states)

    return look


def pod_is_unschedulable(pods: list[Json], _workload: Json) -> bool:
    """Return whether the scheduler finds no node."""
    conditions = [entry for pod in pods for entry in pod.get("status", {}).get("conditions") or []]
    return any(entry.get("reason") == "Unschedulable" for entry in conditions)


def is_short_of_pods(pods: list[Json], workload: Json) -> bool:
    """Return whether a quota keeps pods away: by the Deployment's condition, or a StatefulSet without a pod."""
    conditions = workload.get("status", {}).get("conditions") or []
    return any(entry["type"] == "ReplicaFailure" for entry in conditions) or len(pods) < 2


FAILURES: dict[str, tuple[Json, str, str, Callable[[list[Json], Json], bool]]] = {
    "image": (main(image=BAD_IMAGE), "ImagePullBackOff", BAD_IMAGE, pod_waits("ErrImagePull", "ImagePullBackOff")),
    "crash": (main(env={"CRASH": "1"}), "CrashLoopBackOff", "exit code 3", pod_waits("CrashLoopBackOff")),
    "request": (main(resources={"requests": {"cpu": "1000"}}), "Unschedulable", "nodes are", pod_is_unschedulable),
    "quota": (main(resources={"requests": {"memory": "32Mi"}}), "QuotaExceeded", "exceeded quota: q", is_short_of_pods),
}


@pytest.mark.procedure("A20", "B19", "C17")
@pytest.mark.parametrize("failure", FAILURES)
@pytest.mark.parametrize("kind", KINDS)
def test_a_failure_is_named_in_time_and_undone(
    namespace: Namespace, connect: Callable[..., Json], kind: str, failure: str
) -> None:
    """F10: by an account with the documented rights; the recorded revision serves again, and the module fails."""
    change, reason, said, question = FAILURES[failure]
    account = connect(RULES)
    if failure == "quota":
        namespace.apply(QUOTA)
    kind = put(namespace, kind)
    template = namespace.get(kind, "w")["spec"]["template"]

    def ask(server: ApiServer) -> Json:
        return server.request("GET", build_path(kind, namespace.name, "w"))

    def is_visible(server: ApiServer) -> bool:
        return question(server.list("Pod", namespace.name), ask(server))

    def is_undoing(server: ApiServer) -> bool:
        return '"undoing"' in ask(server)["metadata"]["annotations"].get(NOTE, "")

    with Onlooker(namespace.facts, visible=is_visible, undoing=is_undoing) as onlooker:
        run = roll_out(namespace, kind, **change, **QUICK, **account, guards=["gitops"])
    assert run.failed
    assert (run["rolled_back"], run["cause"]["reason"]) == (True, reason), run.msg
    assert said in run["cause"]["message"]
    assert onlooker.moments["undoing"] - onlooker.moments["visible"] < TIME_TO_NAME
    assert namespace.get(kind, "w")["spec"]["template"] == template
    pods = [pod for pod in namespace.list("Pod") if "deletionTimestamp" not in pod["metadata"]]
    assert [pod["status"]["containerStatuses"][0]["ready"] for pod in pods] == [True, True]
    if failure == "crash":
        assert run["cause"]["log"][-1] == "cannot go on"
    again = check_done(roll_out(namespace, kind, **main(image=read_image(namespace, kind)), **account))
    assert again.changed is False
