# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""k8s_diagnosis_info on real broken workloads: the cause is named, the evidence kept, and no planted secret is in it."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support.kubernetes_account import read_rules
from support.modules import ModuleRun

from .conftest import Namespace
from .steps import stop, tell

pytestmark = pytest.mark.lab("kubernetes")
Json = dict[str, Any]
Connect = Callable[..., Json]

DIAGNOSE = "k8s_diagnosis_info"
SECRET = "pl4nted-S3cret/value+1"
URL_PASSWORD = "pl4nted-Url-p4ss"
PLANTED = (SECRET, URL_PASSWORD, base64.b64encode(SECRET.encode()).decode(), "pl4nted%2D", "S3cret%2Fvalue%2B1")


def put_secret(namespace: Namespace, name: str = "db", **more: str) -> None:
    """Create a Secret with the planted values."""
    values = {"password": SECRET, "url": f"postgres://app:{URL_PASSWORD}@db:5432/app", **more}
    namespace.apply({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": values})


def refer_to_secret(*names: str, key: str = "password", secret: str = "db") -> list[Json]:
    """Return variables that hold a key of the Secret."""
    return [{"name": name, "valueFrom": {"secretKeyRef": {"name": secret, "key": key}}} for name in names]


def diagnose(namespace: Namespace, kind: str, name: str, **params: Any) -> ModuleRun:
    """Diagnose a workload; no planted secret is in anything that is said."""
    run = namespace.module(DIAGNOSE, kind=kind, name=name, **params)
    assert not run.failed, run.msg
    assert not run.changed
    check_no_secret(tell(run))
    return run


def check_no_secret(text: str) -> None:
    """Whatever form it was printed in."""
    assert [secret for secret in PLANTED if secret in text] == []


def wait_for(namespace: Namespace, kind: str, name: str, reason: str, seconds: float = 60, **params: Any) -> ModuleRun:
    """Diagnose until the verdict is this one."""
    runs: list[ModuleRun] = []

    def is_so() -> bool:
        runs.append(diagnose(namespace, kind, name, **params))
        return bool(runs[-1]["verdict"]["reason"] == reason)

    try:
        namespace.wait(f"verdict {reason}", is_so, seconds)
    except AssertionError as error:
        raise AssertionError(f"{error}: {runs[-1]['summary']} {runs[-1]['others']}") from error
    return runs[-1]


@pytest.mark.procedure("B3", "B4", "C2")
@pytest.mark.parametrize("kind", ["Deployment", "StatefulSet"])
def test_a_crash_loop_shows_the_end_of_the_previous_log_without_secrets(
    namespace: Namespace, kind: str, tmp_path: Path
) -> None:
    """The program prints its password in several ways before it ends, and has ended when somebody looks."""
    put_secret(namespace)
    script = (
        'echo "connect with $P"; echo "url $U"; echo "dsn user=app password=$P x=1"; printf "%s" "$P" | base64;'
        ' echo "fatal: cannot connect"; exit 3'
    )
    env = [*refer_to_secret("P"), *refer_to_secret("U", key="url"), {"name": "DB_PASSWORD", "value": URL_PASSWORD}]
    namespace.apply(namespace.workload("w", kind=kind, replicas=2, command=["sh", "-c", script], env=env))
    run = wait_for(namespace, kind, "w", "crash_loop", evidence_folder=str(tmp_path / "evidence"))
    verdict = run["verdict"]
    assert "container main ended by itself (Error, exit code 3" in verdict["message"]
    assert any("fatal: cannot connect" in line for line in verdict["evidence"])
    assert any(log["previous"] and "connect with [redacted]" in log["text"] for log in run["logs"])
    assert {log["pod"] for log in run["logs"]} == {f"{namespace.name}/{pod['name']}" for pod in run["pods"]}
    check_bundle(Path(run["evidence_path"]))


def check_bundle(folder: Path) -> None:
    """Only the owner may read it, the index has every file's sum, and no planted secret is anywhere."""
    index = json.loads((folder / "index.json").read_text())
    files = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()} - {"index.json"}
    assert files == set(index["files"])
    assert {"objects.json", "events.txt", "verdict.json"} <= files
    for path in [folder, *folder.rglob("*")]:
        assert path.stat().st_mode & 0o077 == 0, path
    for name, entry in index["files"].items():
        content = (folder / name).read_bytes()
        assert hashlib.sha256(content).hexdigest() == entry["sha256"]
        check_no_secret(content.decode())
