# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""k8s_diagnosis_info asks real pods for what their sidecar measures, by an account that may do no more than documented."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from support.kubernetes_account import AuditLog, Right, expand, name_user, read_rules

from .conftest import Namespace

pytestmark = pytest.mark.lab("kubernetes")
Json = dict[str, Any]
Connect = Callable[..., Json]

SERVE = """mkdir -p /tmp/www/stats
case $HOSTNAME in *-1) value=40;; *) value=3;; esac
printf '# TYPE rq_active gauge\\nrq_active{cluster="db"} %s\\nrq_active{cluster="x"} 99\\n' $value > /tmp/www/stats/prometheus
exec httpd -f -p 15090 -h /tmp/www
"""
READING: Json = {
    "name": "requests in flight",
    "port": "15090",
    "path": "/stats/prometheus",
    "metric": 'rq_active{cluster="db"}',
    "limit": 20,
}


def put_workload(namespace: Namespace) -> None:
    """Two pods whose first container has no port; the second is the sidecar that measures."""
    workload = namespace.workload("w", replicas=2)
    sidecar = {"name": "proxy", "image": namespace.facts["images"][0], "command": ["sh", "-c", SERVE]}
    sidecar["ports"] = [{"name": "http-envoy-prom", "containerPort": 15090}]
    sidecar["readinessProbe"] = {"tcpSocket": {"port": 15090}, "periodSeconds": 1}
    workload["spec"]["template"]["spec"]["containers"].append(sidecar)
    namespace.apply(workload)
    namespace.ready("StatefulSet", "w", 2)


@pytest.mark.procedure("B7", "B11")
def test_a_sidecar_is_asked_at_its_own_port(namespace: Namespace, connect: Connect) -> None:
    """The pod above the limit is the verdict; a pod that does not answer is told, and right after right is used."""
    put_workload(namespace)
    rules = read_rules("Role", "lowtide-diagnosis") + read_rules("Role", "lowtide-diagnosis-readings")
    account = connect(rules)
    audit = AuditLog(namespace.facts)

    def diagnose(**changes: Any) -> Any:
        run = namespace.module(
            "k8s_diagnosis_info", kind="StatefulSet", name="w", readings=[{**READING, **changes}], **account
        )
        assert not run.failed, run.msg
        return run

    for port in ("15090", "http-envoy-prom"):
        run = diagnose(port=port)
        verdict = run["verdict"]
        assert (verdict["reason"], verdict["container"], run["others"]) == ("observation_above_limit", "proxy", [])
        message = f'Pod {namespace.name}/w-1: rq_active{{cluster="db"}} is 40, above its limit of 20'
        assert (verdict["object"], verdict["message"]) == ("requests in flight", message)
        assert [entry["samples"][0]["value"] for entry in run["readings"]] == [3.0, 40.0]
    assert diagnose(limit=40)["verdict"]["reason"] == "healthy"
    silent = diagnose(port="15091")
    assert silent["verdict"]["reason"] == "reading_missing"
    assert "the API server could not ask it" in silent["verdict"]["message"]
    assert silent["verdict"]["message"].endswith("1 other pod alike")
    assert diagnose(metric="rq_renamed")["verdict"]["reason"] == "reading_missing"
    used = audit.wait_for_rights(name_user(namespace.name), {Right("get", "", "pods/proxy")})
    assert used - expand(rules) == set(), "used, and not documented"
    assert Right("get", "", "pods/proxy") in used


@pytest.mark.procedure("B7")
def test_the_right_to_ask_pods_is_told_where_it_is_lacking(namespace: Namespace, connect: Connect) -> None:
    """And is not needed without the option."""
    put_workload(namespace)
    account = connect(read_rules("Role", "lowtide-diagnosis"))
    plain = namespace.module("k8s_diagnosis_info", kind="StatefulSet", name="w", **account)
    assert plain["verdict"]["reason"] == "healthy", plain.msg
    run = namespace.module("k8s_diagnosis_info", kind="StatefulSet", name="w", readings=[READING], **account)
    assert run["verdict"]["reason"] == "reading_missing", run.msg
    assert f"not allowed to ask: grant get pods/proxy in namespace {namespace.name}" in run["unreadable"]
