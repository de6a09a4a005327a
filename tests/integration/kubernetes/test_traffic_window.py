# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Maintenance mode as a step of a window, and the step that reverts it: after success, after a failure, after a kill."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support.playbooks import PlaybookRun, start_playbook, write_yaml
from support.traffic_site import Balancer

from .conftest import Namespace

pytestmark = pytest.mark.lab("kubernetes", "feature_service")
Json = dict[str, Any]
Playbook = Callable[..., PlaybookRun]

WINDOW = "lowtide.ops.maintenance_window"
NOTE = "lowtide.ops/traffic"
GAUGE: Json = {"kind": "Deployment", "name": "web", "port": "http", "metric": "http_requests_in_flight"}
SMOKE: Json = {"kind": "Deployment", "name": "web", "port": "http", "path": "/", "contains": "web"}


@pytest.fixture
def inventory(site: Namespace, tmp_path: Path) -> Path:
    """An inventory with a window of three steps; the middle one does what the file work.yml says."""
    folder = tmp_path / "inventory"
    (folder / "group_vars").mkdir(parents=True)
    work = tmp_path / "work.yml"
    hosts = {"control": {"hosts": {"controller": None}}, "workloads": {"hosts": {"shop": None}}}
    write_yaml(folder / "hosts.yml", {"all": {"children": hosts, "vars": {"ansible_connection": "local"}}})
    write_yaml(
        folder / "group_vars/all.yml",
        {
            "ansible_python_interpreter": "{{ ansible_playbook_python }}",
            "kubernetes_connection": {
                "kubeconfig": site.facts["kubeconfig"],
                "cluster_uid": site.facts["cluster_uid"],
            },
            "kubernetes_namespace": site.name,
            "maintenance_mode_targets": [{"kind": "Service", "name": "web", "selector": {"app": "page"}}],
            "maintenance_mode_in_flight": [GAUGE],
            "maintenance_mode_quiet_seconds": 0.5,
            "maintenance_mode_smoke": [SMOKE],
            "window_dir": str(tmp_path / "windows"),
            "window_site": site.name,
            "window_steps": [
                {"name": "maintenance_mode", "role": "lowtide.ops.maintenance_mode", "hosts": ["workloads"]},
                {"name": "work", "tasks": str(work), "hosts": ["workloads"], "needs": ["maintenance_mode"]},
                {
                    "name": "normal_mode",
                    "role": "lowtide.ops.maintenance_mode",
                    "tasks_from": "normal",
                    "reverts": "maintenance_mode",
                },
            ],
        },
    )
    set_work(tmp_path, {"ansible.builtin.debug": {"msg": "worked"}})
    return folder


def set_work(folder: Path, task: Json) -> None:
    """Say what the window does while the page is shown."""
    write_yaml(folder / "work.yml", [{"name": "Work", **task}])


def read_selector(site: Namespace) -> Json:
    """Where the Service sends its requests, and whether something is saved on it."""
    service = site.get("Service", "web")
    return {**service["spec"]["selector"], "saved": NOTE in (service["metadata"].get("annotations") or {})}


NORMAL = {"app": "web", "saved": False}
AWAY = {"app": "page", "saved": True}


@pytest.mark.procedure("B25", "B27")
def test_a_window_shows_the_page_only_while_it_works(
    site: Namespace, balancer: Balancer, inventory: Path, ansible_playbook: Playbook, tmp_path: Path
) -> None:
    """Rehearsed without a write; reverted after success and after a failure; and no request is lost."""
    rehearsal = ansible_playbook(WINDOW, "-i", str(inventory), "--check")
    assert rehearsal.rc == 0, rehearsal.stdout
    told = " ".join(rehearsal.stdout.split())
    assert "would send traffic to the maintenance page" in told
    assert "would give traffic back" in told
    assert read_selector(site) == NORMAL

    window = ansible_playbook(WINDOW, "-i", str(inventory))
    assert window.rc == 0, window.stdout
    assert "in flight 0 in 2 pods" in " ".join(window.stdout.split()), window.stdout
    assert read_selector(site) == NORMAL
    balancer.wait_for("web")
    assert "page" in balancer.answers

    set_work(tmp_path, {"ansible.builtin.fail": {"msg": "the work went wrong"}})
    failed = ansible_playbook(WINDOW, "-i", str(inventory))
    assert failed.rc == 2, failed.stdout
    assert "the work went wrong" in failed.stdout
    assert read_selector(site) == NORMAL
    assert balancer.failures == []


@pytest.mark.procedure("B27")
def test_what_a_killed_window_left_is_given_back_by_restore_service(
    site: Namespace, balancer: Balancer, inventory: Path, ansible_playbook: Playbook, tmp_path: Path
) -> None:
    """And what was sent away without a window is left alone by a window."""
    set_work(tmp_path, {"ansible.builtin.wait_for": {"path": str(tmp_path / "never"), "timeout": 300}})
    process = start_playbook(WINDOW, "-i", str(inventory))
    balancer.wait_for("page", seconds=200)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate(timeout=120)
    assert read_selector(site) == AWAY

    restored = ansible_playbook("lowtide.ops.restore_service", "-i", str(inventory))
    assert restored.rc == 0, restored.stdout
    assert read_selector(site) == NORMAL
    balancer.wait_for("web")
    assert balancer.failures == []

    by_hand = ansible_playbook("lowtide.ops.maintenance_mode", "-i", str(inventory))
    assert by_hand.rc == 0, by_hand.stdout
    set_work(tmp_path, {"ansible.builtin.debug": {"msg": "worked"}})
    window = ansible_playbook(WINDOW, "-i", str(inventory))
    assert read_selector(site) == AWAY, window.stdout
    back = ansible_playbook("lowtide.ops.maintenance_mode", "-i", str(inventory), "-e", "maintenance_mode_state=normal")
    assert back.rc == 0, back.stdout
    assert read_selector(site) == NORMAL
