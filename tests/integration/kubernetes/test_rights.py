# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What an account needs is what docs/kubernetes-rights.yml gives, and what it lacks is found before the first write."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from support.keda_stand_in import PAUSED_REPLICAS, KedaStandIn
from support.kubernetes_account import AuditLog, Right, expand, name_user, narrow, read_rules, request_token
from support.kubernetes_objects import add_claims, describe_job
from support.kubernetes_server import ApiServer
from support.moving_autoscaler import describe_autoscaler
from support.rival_proxy import Rival, RivalProxy

from .conftest import Namespace
from .steps import (
    INFO,
    SCALE,
    apply_ready,
    name_workloads,
    read_annotations,
    read_replicas,
    start,
    stop,
    tell,
)
from .test_scale import scaled_object
from .test_workload import cron_job

pytestmark = [pytest.mark.lab("kubernetes"), pytest.mark.usefixtures("keda")]
Json = dict[str, Any]
Connect = Callable[..., Json]
RULES = read_rules("Role", "lowtide")
ALL = ("StatefulSet/s", "Deployment/d", "CronJob/c", "Job/j")


def apply_all(namespace: Namespace) -> None:
    """Have one workload of each kind, with an autoscaler for two of them, and a quota, with which LimitRanges are read."""
    apply_ready(namespace, namespace.workload("s", replicas=2), namespace.workload("d", kind="Deployment"))
    scaled = scaled_object(namespace, "s", 1, 5)
    scaled["spec"]["pollingInterval"] = 1  # a stop waits for KEDA as long as that and ten seconds
    namespace.apply(
        cron_job(namespace, "c"),
        scaled,
        describe_autoscaler("d", 1, 5, kind="Deployment"),
        describe_job("j", namespace.workload("j")["spec"]["template"]["spec"]),
        {
            "apiVersion": "v1",
            "kind": "ResourceQuota",
            "metadata": {"name": "q"},
            "spec": {"hard": {"pods": "50", "persistentvolumeclaims": "50"}},
        },
    )
    namespace.wait("Job runs", lambda: namespace.get("Job", "j").get("status", {}).get("ready") == 1)


def test_every_kind_is_stopped_started_and_scaled_with_the_documented_rights(
    namespace: Namespace, server: ApiServer, connect: Connect
) -> None:
    """And with none of them left over: the API server's log has exactly these verbs on these resources (F42)."""
    apply_all(namespace)
    audit = AuditLog(namespace.facts)
    account = connect()
    workloads = name_workloads(*ALL)

    looked = namespace.module(INFO, **account)
    assert not looked.failed, looked.msg
    with KedaStandIn(namespace.facts, namespace.name):
        namespace.wait("published", lambda: bool(namespace.get("ScaledObject", "s-keda").get("status")))
        stopped = stop(namespace, *ALL, autoscaler="pause", timeout=120, **account)
    assert not stopped.failed, stopped.msg
    named = namespace.module(INFO, workloads=workloads, **account)
    assert [workload["name"] for workload in named["stopped_by_lowtide"]] == ["s", "d", "c", "j"]
    started = start(namespace, *ALL, timeout=120, **account)
    assert not started.failed, started.msg
    assert PAUSED_REPLICAS not in read_annotations(namespace, "ScaledObject", "s-keda")
    interfere(namespace, server)
    rehearse_with_claims(namespace, account)
    wait_for_what_never_serves(namespace, account)

    user = name_user(namespace.name)
    documented = expand(RULES)
    used = audit.wait_for_rights(user, documented)
    assert used - documented == set(), "used, and not documented"
    assert documented - used == set(), "documented, and not used"


def interfere(namespace: Namespace, server: ApiServer) -> None:
    """Scale, stop and start while another client changes what each write depends on, so that it is read again."""

    def change(kind: str, name: str, spec: Json) -> None:
        body = {"spec": spec}
        namespace.request("PATCH", kind, name, body, type_="merge-patch+json", manager="kubectl-edit")

    rivals = [
        Rival("PATCH", "/statefulsets/s", lambda: change("StatefulSet", "s", {"replicas": 1})),
        Rival("PATCH", "/deployments/d", lambda: change("Deployment", "d", {"replicas": 2})),
        Rival("PATCH", "/cronjobs/c", lambda: change("CronJob", "c", {"suspend": True})),
        Rival("PATCH", "/jobs/j", lambda: change("Job", "j", {"suspend": True})),
        Rival("PATCH", "/scaledobjects/s-keda", lambda: change("ScaledObject", "s-keda", {"maxReplicaCount": 9})),
        Rival(
            "PATCH",
            "/horizontalpodautoscalers/d-hpa",
            lambda: change("HorizontalPodAutoscaler", "d-hpa", {"maxReplicas": 9}),
        ),
    ]
    token = request_token(server, namespace.name)
    with RivalProxy(namespace.facts, *rivals, token=token) as proxy:
        connection: Json = {"host": proxy.url, "timeout": 120}
        for kind, name in (("StatefulSet", "s"), ("Deployment", "d")):
            guards = ["hpa", "keda", "gitops", "quota", "disruption_budget"]
            scaled = namespace.module(
                SCALE, kind=kind, name=name, partitions=3, autoscaler="adjust", guards=guards, **connection
            )
            assert not scaled.failed, scaled.msg
        for run in (
            stop(namespace, *ALL, autoscaler="pause", **connection),
            start(namespace, *ALL, **connection),
        ):
            assert not run.failed, run.msg
        assert [rival.path for rival in rivals if rival.times] == []


def rehearse_with_claims(namespace: Namespace, account: Json) -> None:
    """Predict the first pod of a StatefulSet with volumes, whose claims a quota limits."""
    namespace.apply(add_claims(namespace.workload("v", replicas=0)))
    scaled = namespace.module(
        SCALE, check=True, kind="StatefulSet", name="v", partitions=1, guards=["quota"], **account
    )
    assert not scaled.failed, scaled.msg


def wait_for_what_never_serves(namespace: Namespace, account: Json) -> None:
    """Wait long enough that the reasons are looked for: pods, ReplicaSets, Jobs, events."""
    broken: Json = {"image": "localhost/none:1", "imagePullPolicy": "Never"}
    namespace.apply(
        namespace.workload("never-s", replicas=0, **broken), namespace.workload("never-d", kind="Deployment", **broken)
    )
    # What explains a delay is looked for after a fifth of the time, which has to be before it is given up.
    for entry in ({"kind": "StatefulSet", "name": "never-s", "replicas": 1}, {"kind": "Deployment", "name": "never-d"}):
        run = namespace.module(
            "k8s_workload", state="running", workloads=[entry], timeout=20, failure_grace_factor=0.4, **account
        )
        assert run.failed
        assert "localhost/none:1" in run.msg
    stopped = stop(namespace, "StatefulSet/never-s", "Deployment/never-d", timeout=120, **account)
    assert not stopped.failed, stopped.msg


# -- what is lacking --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "lacking",
    [
        Right("patch", "apps", "deployments"),
        Right("list", "", "pods"),
        Right("list", "keda.sh", "scaledobjects"),
        Right("list", "autoscaling", "horizontalpodautoscalers"),
    ],
    ids=lambda right: f"{right.verb} {right.resource}",
)
@pytest.mark.parametrize("check", [True, False], ids=["check mode", "real"])
def test_a_right_that_a_stop_will_need_is_asked_for_first(
    namespace: Namespace, connect: Connect, lacking: Right, check: bool
) -> None:
    """Nothing of two tiers is stopped when the second could not be, or could not be waited for."""
    apply_ready(namespace, namespace.workload("s"), namespace.workload("d", kind="Deployment"))
    account = connect(narrow(RULES, lacking))
    tiers = [name_workloads("Deployment/d"), name_workloads("StatefulSet/s")]
    refused = namespace.module("k8s_workload", check=check, state="stopped", tiers=tiers, timeout=20, **account)
    assert refused.failed, tell(refused)
    assert (refused["error"]["refused"], refused.changed) == (True, False)
    for word in (lacking.verb, lacking.resource, namespace.name):
        assert word in refused.msg
    assert read_replicas(namespace, "StatefulSet", "s") + read_replicas(namespace, "Deployment", "d") == [1, 1]


def test_without_the_right_to_watch_it_is_asked_again_and_again(namespace: Namespace, connect: Connect) -> None:
    """Slower, with a warning that names the right, and right all the same."""
    apply_ready(namespace, namespace.workload("s"))
    watching = [right for right in expand(RULES) if right.verb == "watch"]
    account = connect(narrow(RULES, *watching))
    stopped = stop(namespace, "StatefulSet/s", timeout=120, **account)
    assert not stopped.failed, stopped.msg
    assert namespace.list("Pod") == []
    started = start(namespace, "StatefulSet/s", timeout=120, **account)
    assert not started.failed, started.msg
    assert "watch" in str(started.result.get("warnings"))


def test_an_empty_namespace_can_be_looked_at(namespace: Namespace, connect: Connect) -> None:
    """Whether it exists, an account of this namespace may not ask; that it may list in it is answer enough."""
    run = namespace.module(INFO, **connect())
    assert not run.failed, run.msg
    assert run["workloads"] == []


def test_a_role_that_names_its_objects_is_enough_for_several(namespace: Namespace, connect: Connect) -> None:
    """With resourceNames a list of the whole namespace is not allowed, and need not be."""
    apply_ready(namespace, namespace.workload("s"), namespace.workload("t"))
    others = narrow(RULES, *(right for right in expand(RULES) if right.resource == "statefulsets"))
    named = {
        "apiGroups": ["apps"],
        "resources": ["statefulsets"],
        "resourceNames": ["s", "t"],
        "verbs": ["get", "list", "watch", "patch"],
    }
    account = connect([*others, named])
    stopped = stop(namespace, "StatefulSet/s", "StatefulSet/t", timeout=120, **account)
    assert not stopped.failed, stopped.msg
    started = start(namespace, "StatefulSet/s", "StatefulSet/t", timeout=120, **account)
    assert not started.failed, started.msg


def test_an_account_of_a_namespace_is_enough_where_there_is_no_keda(
    namespace: Namespace, server: ApiServer, connect: Connect
) -> None:
    """It may do nothing with keda.sh, so it gets 403 for a group that does not exist; discovery says that."""
    apply_ready(namespace, namespace.workload("s"))
    of_keda = [right for right in expand(RULES) if right.group == "keda.sh"]
    connect(narrow(RULES, *of_keda))
    token = request_token(server, namespace.name)
    with RivalProxy(namespace.facts, token=token, answers={"/apis/keda.sh": 404}) as proxy:
        for run in (
            stop(namespace, "StatefulSet/s", host=proxy.url, timeout=120),
            start(namespace, "StatefulSet/s", host=proxy.url, timeout=120),
        ):
            assert not run.failed, run.msg
        assert ("GET", "/apis/keda.sh") in proxy.requests
