# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A secret among the arguments of a pod's programs is in no output of a module, wherever else it is printed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.operations.diagnosis_info import read_diagnosis
from support.memory_controllers import NAMESPACE
from support.memory_jobs import JobController
from support.memory_kubernetes import MemoryServer
from support.memory_rollouts import CRASH, RolloutControllers
from support.operation_runs import run_operation

from .broken_shop import Shop
from .job_steps import run as run_job
from .rollout_steps import QUICK, roll_out

Json = dict[str, Any]
PLANTED = "Pl4nted99secret"
ARGUMENTS = [
    ["curl", "-u", "user:{}", "https://h"],
    ["curl", "--user=user:{}", "https://h"],
    ["curl", "-H", "Authorization: Bearer {}", "https://h"],
    ["redis-cli", "-a", "{}", "ping"],
    ["redis-cli", "--pass", "{}", "ping"],
    ["mysqladmin", "-uroot", "-p{}", "ping"],
    ["mysqladmin", "--password={}", "ping"],
    ["sh", "-c", "PGPASSWORD={} psql -h db"],
]
PLACES = ["command", "args", "probe", "hook"]


def describe_container(place: str, words: list[str]) -> Json:
    """Return what a container has of the arguments, in one of its places."""
    of_places: dict[str, Json] = {
        "command": {"command": words},
        "args": {"command": words[:1], "args": words[1:]},
        "probe": {"readinessProbe": {"exec": {"command": words}}},
        "hook": {"lifecycle": {"preStop": {"exec": {"command": words}}}},
    }
    return of_places[place]


def list_lines(words: list[str]) -> list[str]:
    """Return what programs print of their arguments, and of the secret alone."""
    return [f"login with {PLANTED} refused", " ".join(words), json.dumps(words), repr(words), f"exec {words} failed"]


def read_files(folder: Path) -> str:
    """Return all that was saved."""
    return "".join(path.read_text() for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("arguments", ARGUMENTS, ids=" ".join)
def test_a_diagnosis_and_its_files_do_not_have_it(
    memory: MemoryServer, tmp_path: Path, place: str, arguments: list[str]
) -> None:
    """In objects, logs, events and verdicts."""
    words = [word.format(PLANTED) for word in arguments]
    shop = Shop(memory, replicas=1, container=describe_container(place, words))
    shop.put_pod("web-1-0", **shop.end("Error", code=3))
    shop.count(0)
    memory.log_lines[NAMESPACE, "web-1-0"] = list_lines(words)
    for number, line in enumerate(list_lines(words)):
        shop.put_event("Pod", "web-1-0", f"Unhealthy{number}", f"Readiness probe failed: {line}")
    result = run_operation(memory, read_diagnosis, evidence_folder=str(tmp_path))
    assert not result.failed, result.msg
    assert len(result["events"]) == 5
    assert PLANTED not in json.dumps(result.result)
    saved = read_files(tmp_path)
    assert "login with [redacted] refused" in saved
    assert PLANTED not in saved


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("arguments", ARGUMENTS, ids=" ".join)
def test_a_job_and_its_log_file_do_not_have_it(
    memory: MemoryServer, tmp_path: Path, place: str, arguments: list[str]
) -> None:
    """Though its program prints it before it fails."""
    words = [word.format(PLANTED) for word in arguments]
    JobController(memory, lines=list_lines(words)).exit_codes = [1]
    template = {
        "template": {"spec": {"containers": [{"name": "main", "image": "i", **describe_container(place, words)}]}}
    }
    result = run_job(memory, template=template, log_file=str(tmp_path / "log"))
    assert result.failed
    assert "login with [redacted] refused" in result["log"]
    assert PLANTED not in json.dumps(result.result)
    assert PLANTED not in read_files(tmp_path)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("arguments", ARGUMENTS, ids=" ".join)
def test_a_rollout_does_not_tell_it(memory: MemoryServer, place: str, arguments: list[str]) -> None:
    """Nor is it in what it leaves on the workload, beside the template itself."""
    words = [word.format(PLANTED) for word in arguments]
    controllers = RolloutControllers(memory)
    controllers.failures["bad"] = {**CRASH, "state": {"waiting": {"reason": "CrashLoopBackOff", "message": words[-1]}}}
    controllers.add("Deployment")
    own = describe_container(place, words)
    memory.change(
        "Deployment", NAMESPACE, "w", lambda obj: obj["spec"]["template"]["spec"]["containers"][0].update(own)
    )
    controllers.act()
    memory.previous_lines[NAMESPACE, "w-new", "main"] = list_lines(words)

    def use() -> None:
        memory.change("Pod", NAMESPACE, "w-new", lambda obj: obj["spec"].update(containers=[{"name": "main", **own}]))

    memory.add_rival(use, when="before", verb="list", path="/events")
    result = roll_out(memory, image="bad", **QUICK)
    assert result.failed
    assert result["cause"]["log"][0] == "login with [redacted] refused"
    assert PLANTED not in json.dumps(result.result)
    assert PLANTED not in json.dumps(memory.read("Deployment", NAMESPACE, "w")["metadata"].get("annotations", {}))
