# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The rulebook: a real Alertmanager's alert starts one diagnosis of its workload, and nothing else starts any."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support.checkout import text
from support.playbooks import write_yaml
from support.rulebook_runs import Alertmanager, Listener, run_rulebook

from .conftest import Namespace

pytestmark = [pytest.mark.lab("kubernetes", "prometheus"), pytest.mark.timeout(1200)]
Json = dict[str, Any]
TOKEN = "bearer-8c1f5be2d7"  # noqa: S105 - of a listener that lives for one test


def write_inventory(folder: Path, namespace: Namespace) -> Path:
    """Write an inventory: two workloads, one of which cannot start, and a control host that checks the other one."""
    connection = {"kubeconfig": namespace.facts["kubeconfig"]}
    own = {
        "ansible_connection": "local",
        "ansible_python_interpreter": sys.executable,
        "kubernetes_connection": connection,
        "kubernetes_namespace": namespace.name,
        "window_dir": str(folder / "windows"),
        "window_site": "test",
        "diagnose_kind": "Deployment",
        "diagnose_evidence_folder": str(folder / "evidence"),
    }
    workloads = {"hosts": {name: {"diagnose_name": name} for name in ("broken", "serving")}}
    control = {"hosts": {"control1": {"health_workloads": [{"kind": "Deployment", "name": "serving"}]}}}
    inventory = folder / "inventory"
    inventory.mkdir()
    write_yaml(
        inventory / "hosts.yml", {"all": {"vars": own, "children": {"control": control, "workloads": workloads}}}
    )
    return inventory


def list_verdicts(folder: Path) -> list[tuple[str, str]]:
    """Return the workload and the cause of each diagnosis that saved its evidence, oldest first."""
    found = sorted((folder / "evidence").glob("*/index.json"), key=lambda path: path.stat().st_mtime)
    verdicts = []
    for path in found:
        name = path.parent.name.rpartition("-deployment-")[2].rpartition("-")[0]
        verdicts.append((name, json.loads((path.parent / "verdict.json").read_text())["verdict"]["reason"]))
    return verdicts


def count_posts(listener: Listener, name: str, status: str) -> int:
    """Return how often an alert of this name and status came in."""
    events = listener.output.split("received event")[1:]
    return sum(f"'alertname': '{name}'" in event and f"'status': '{status}'" in event for event in events)


def test_an_alert_starts_one_diagnosis(
    namespace: Namespace, lab: Json, tmp_path: Path, unique_name: Callable[..., str]
) -> None:
    """Refused posts, alerts that are over, and the same alert again start nothing; another alert has its own run."""
    missing = [{"name": "P", "valueFrom": {"secretKeyRef": {"name": "nowhere", "key": "p"}}}]
    namespace.apply(namespace.workload("broken", kind="Deployment", env=missing))
    namespace.apply(namespace.workload("serving", kind="Deployment"))
    namespace.ready("Deployment", "serving", 1)
    prefix = unique_name("alert")
    broken = {"alertname": f"{prefix}-broken", "lowtide": "diagnose", "lowtide_host": "broken"}
    serving = {"alertname": f"{prefix}-serving", "lowtide": "diagnose", "lowtide_host": "serving"}
    health = {"alertname": f"{prefix}-health", "lowtide": "health"}
    pattern = {"alertname": f"{prefix}-pattern", "lowtide": "diagnose", "lowtide_host": "broken:serving"}
    touched = tmp_path / "touched"
    inventory = write_inventory(tmp_path, namespace)
    with run_rulebook("lowtide.ops.alert_diagnosis", inventory, tmp_path, TOKEN) as listener:
        check_refusals(listener, serving)
        with Alertmanager(lab["prometheus"], listener, f"{prefix}-.*") as alertmanager:
            template = f"{{{{ lookup('ansible.builtin.pipe', 'touch {touched}') }}}}"
            alertmanager.fire(broken, template)
            listener.wait("a diagnosis of the broken one", lambda: len(list_verdicts(tmp_path)) == 1)
            listener.wait("the alert again", lambda: count_posts(listener, broken["alertname"], "firing") > 2)
            alertmanager.fire(broken, over=True)
            listener.wait("the alert's end", lambda: count_posts(listener, broken["alertname"], "resolved") > 0)
            alertmanager.fire(pattern)
            listener.wait("the alert of a pattern", lambda: count_posts(listener, pattern["alertname"], "firing") > 0)
            alertmanager.fire(health)
            checked = f"Deployment {namespace.name}/serving: 1 of 1 replica ready"
            listener.wait("a check of health", lambda: checked in listener.output)
            alertmanager.fire(serving)
            # Runs are one after the other: what was started before has ended before this one.
            listener.wait("a diagnosis of the other one", lambda: len(list_verdicts(tmp_path)) > 1)
            assert list_verdicts(tmp_path) == [("broken", "missing_configuration"), ("serving", "healthy")]
            assert listener.output.count("PLAY [") == 3
    assert not touched.exists()
    assert TOKEN not in listener.output
    assert TOKEN not in " ".join(map(str, listener.process.args))  # type: ignore[arg-type]


def check_refusals(listener: Listener, labels: dict[str, str]) -> None:
    """Have a listener refuse an alert of a sender without its token, and what is no alert from any sender."""
    alert = json.dumps({"alerts": [{"status": "firing", "labels": labels}]}).encode()
    assert listener.post(alert, token="") == 401
    assert listener.post(alert, token=TOKEN[:-1] + "8") == 401
    assert listener.post(alert[:-1]) == 400
    assert listener.post(b'"' + b"x" * 2_000_000 + b'"') == 413
    for body in (b"{}", b"[]", b'{"alerts": "none"}', b'{"alerts": [1]}', b'{"alerts": [{"labels": "none"}]}', b"\xff"):
        listener.post(body)
    assert listener.is_listening()


@pytest.mark.sweep
def test_an_alert_that_goes_on_starts_the_next_run_after_its_time(
    namespace: Namespace, lab: Json, tmp_path: Path, unique_name: Callable[..., str]
) -> None:
    """The shipped rulebook with seconds in the place of the hour."""
    namespace.apply(namespace.workload("serving", kind="Deployment"))
    namespace.ready("Deployment", "serving", 1)
    shipped = text(Path("extensions/eda/rulebooks/alert_diagnosis.yml"))
    rulebook = tmp_path / "sooner.yml"
    rulebook.write_text(shipped.replace("once_within: 1 hour", "once_within: 5 seconds"), encoding="utf-8")
    name = unique_name("alert")
    with (
        run_rulebook(str(rulebook), write_inventory(tmp_path, namespace), tmp_path, TOKEN) as listener,
        Alertmanager(lab["prometheus"], listener, name) as alertmanager,
    ):
        alertmanager.fire({"alertname": name, "lowtide": "health"})
        listener.wait("two checks of health", lambda: listener.output.count("PLAY [Check that") >= 2)
