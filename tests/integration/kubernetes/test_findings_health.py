# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the role health says of workloads: each kind in its own words, with the reason, and no failure as a warning."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from support.kubernetes_objects import change_spec
from support.playbooks import PlaybookRun

from .conftest import Namespace
from .steps import apply_ready, name_workloads
from .test_findings_start import set_image
from .test_workload import cron_job

pytestmark = pytest.mark.lab("kubernetes")
Check = Callable[..., PlaybookRun]


@pytest.fixture
def check(namespace: Namespace, ansible_playbook: Callable[..., PlaybookRun]) -> Check:
    """Run the role on the workloads that are named ``StatefulSet/w``."""

    def run(*workloads: str) -> PlaybookRun:
        variables: dict[str, Any] = {
            "health_kubernetes_connection": {"kubeconfig": namespace.facts["kubeconfig"]},
            "health_namespace": namespace.name,
            "health_workloads": name_workloads(*workloads),
        }
        tasks = [{"name": "Check", "ansible.builtin.include_role": {"name": "lowtide.ops.health"}, "vars": variables}]
        play = {"hosts": "localhost", "gather_facts": False, "tasks": tasks}
        return ansible_playbook([play], env={"ANSIBLE_CALLBACK_RESULT_FORMAT": "yaml"})

    return run


def find_line(run: PlaybookRun, title: str) -> str:
    """Return what is said of a workload: its level and all after it."""
    words = " ".join(run.stdout.replace("- '", " ").replace('- "', " ").split())
    before, found, after = words.partition(f"{title}:")
    assert found, run.stdout
    return f"{before.split()[-1]} {after[:200].strip()}"


def test_each_kind_has_words_of_its_own(namespace: Namespace, check: Check) -> None:
    """A CronJob has no replicas, so nothing is said of how many of them are ready."""
    apply_ready(namespace, namespace.workload("w"))
    namespace.apply(cron_job(namespace, "c"))
    run = check("StatefulSet/w", "CronJob/c")
    assert run.rc == 0, run.stdout
    assert find_line(run, f"StatefulSet {namespace.name}/w").startswith("OK 1 of 1 replica ready")
    line = find_line(run, f"CronJob {namespace.name}/c").partition("StatefulSet")[0]
    assert line.startswith("OK")
    assert "of 1 ready" not in line


def test_a_failure_has_its_reason(namespace: Namespace, check: Check) -> None:
    """Every pod is ready, and still it is not as declared: the change of a paused Deployment is pending."""
    apply_ready(namespace, namespace.workload("w", kind="Deployment"))
    namespace.request("PATCH", "Deployment", "w", {"spec": {"paused": True}}, type_="merge-patch+json")
    set_image(namespace, "Deployment", "w", 1)
    run = check("Deployment/w")
    assert "paused" in find_line(run, f"Deployment {namespace.name}/w").lower(), run.stdout


@pytest.mark.parametrize("workload", ["StatefulSet/w", "CronJob/c"])
def test_what_somebody_has_stopped_is_a_failure(namespace: Namespace, check: Check, workload: str) -> None:
    """It was declared, nothing of ours was left on it, and it serves nobody."""
    namespace.apply(namespace.workload("w", replicas=0), change_spec(cron_job(namespace, "c"), suspend=True))
    run = check(workload)
    assert run.rc == 2, run.stdout
    kind, name = workload.split("/")
    assert find_line(run, f"{kind} {namespace.name}/{name}").startswith("FAIL")
