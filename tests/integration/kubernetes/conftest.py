# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A namespace of the lab's cluster for each test, and workloads of it."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from labkit.postgresql_programs import VERSIONS

from support.credential_site import CredentialSite, make_site
from support.held_pods import HeldPods
from support.http_proxy import upstream
from support.kubernetes_account import (
    describe_account,
    read_cluster_entry,
    read_rules,
    request_token,
    write_kubeconfig,
)
from support.kubernetes_objects import describe_volume
from support.kubernetes_proxy import KubernetesProxy
from support.kubernetes_server import IDLE_SECONDS, ApiServer
from support.modules import ModuleRun, run_module
from support.postgresql_servers import Server, find_server
from support.rollout_stand_in import describe_definition
from support.traffic_site import Balancer, describe_site

Json = dict[str, Any]

PATIENCE = 120.0
"""Seconds in which controllers and kubelets do anything, also where they stand still for several of them."""
PROBE_SECONDS = 5
"""What a probe may take, unless a test says otherwise: by default that is one second, for a program that is started."""
PROBES = ("readinessProbe", "livenessProbe", "startupProbe")
PATHS = {
    "Namespace": "api/v1//namespaces",
    "Pod": "api/v1/{}/pods",
    "Event": "api/v1/{}/events",
    "ResourceQuota": "api/v1/{}/resourcequotas",
    "StatefulSet": "apis/apps/v1/{}/statefulsets",
    "Deployment": "apis/apps/v1/{}/deployments",
    "ReplicaSet": "apis/apps/v1/{}/replicasets",
    "DaemonSet": "apis/apps/v1/{}/daemonsets",
    "ControllerRevision": "apis/apps/v1/{}/controllerrevisions",
    "LimitRange": "api/v1/{}/limitranges",
    "Secret": "api/v1/{}/secrets",
    "CronJob": "apis/batch/v1/{}/cronjobs",
    "Job": "apis/batch/v1/{}/jobs",
    "ConfigMap": "api/v1/{}/configmaps",
    "Service": "api/v1/{}/services",
    "Ingress": "apis/networking.k8s.io/v1/{}/ingresses",
    "EndpointSlice": "apis/discovery.k8s.io/v1/{}/endpointslices",
    "HTTPRoute": "apis/gateway.networking.k8s.io/v1/{}/httproutes",
    "ServiceAccount": "api/v1/{}/serviceaccounts",
    "Role": "apis/rbac.authorization.k8s.io/v1/{}/roles",
    "RoleBinding": "apis/rbac.authorization.k8s.io/v1/{}/rolebindings",
    "PersistentVolume": "api/v1//persistentvolumes",
    "PersistentVolumeClaim": "api/v1/{}/persistentvolumeclaims",
    "HorizontalPodAutoscaler": "apis/autoscaling/v2/{}/horizontalpodautoscalers",
    "PodDisruptionBudget": "apis/policy/v1/{}/poddisruptionbudgets",
    "ScaledObject": "apis/keda.sh/v1alpha1/{}/scaledobjects",
    "Application": "apis/argoproj.io/v1alpha1/{}/applications",
    "Rollout": "apis/argoproj.io/v1alpha1/{}/rollouts",
    "Experiment": "apis/argoproj.io/v1alpha1/{}/experiments",
    "Canary": "apis/flagger.app/v1beta1/{}/canaries",
    "Crew": "apis/crews.example.org/v1alpha1/{}/crews",
    "CustomResourceDefinition": "apis/apiextensions.k8s.io/v1//customresourcedefinitions",
}


class Namespace:
    """A namespace of the test's own, seen through plain requests and used through the modules."""

    def __init__(self, name: str, facts: Json) -> None:
        self.name = name
        self.facts = facts
        host, port, tls = upstream(facts["kubeconfig"])
        self._connection = http.client.HTTPSConnection(host, port, context=tls)
        self._used = time.monotonic()

    def request(
        self,
        method: str,
        kind: str,
        name: str = "",
        body: Any = None,
        *,
        type_: str = "apply-patch+yaml",
        manager: str = "test",
    ) -> Json:
        """One request about objects of a kind; an error is a failed test."""
        path = "/" + PATHS[kind].replace("{}", f"namespaces/{self.name}").replace("//", "/")
        query = (
            f"?fieldManager={manager}" + ("&force=true" if type_.startswith("apply") else "")
            if method == "PATCH"
            else ""
        )
        target = f"{path}/{name}{query}" if name else path
        payload = None if body is None else json.dumps(body)
        if time.monotonic() - self._used > IDLE_SECONDS:
            self._connection.close()  # the request opens it again
        self._used = time.monotonic()
        self._connection.request(method, target, body=payload, headers={"Content-Type": f"application/{type_}"})
        response = self._connection.getresponse()
        answer: Json = json.loads(response.read())
        assert response.status < 300, answer
        return answer

    def apply(self, *objects: Json) -> None:
        """Create or change objects."""
        for one in objects:
            self.request("PATCH", one["kind"], one["metadata"]["name"], one)

    def get(self, kind: str, name: str) -> Json:
        """One object."""
        return self.request("GET", kind, name)

    def list(self, kind: str) -> list[Json]:
        """All objects of a kind."""
        return list(self.request("GET", kind)["items"])

    def delete(self, kind: str, name: str) -> None:
        """Delete an object; its pods follow (those of a Job stay, unless that is asked for)."""
        options = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Background"}
        self.request("DELETE", kind, name, options, type_="json")

    def set_replicas(self, kind: str, name: str, replicas: int, *, manager: str) -> None:
        """As somebody else would."""
        self.request("PATCH", kind, name, {"spec": {"replicas": replicas}}, type_="merge-patch+json", manager=manager)

    def wait(self, what: str, condition: Callable[[], bool], seconds: float = PATIENCE) -> None:
        """Until ``condition`` holds."""
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, f"{what} did not happen within {seconds} s"
            time.sleep(0.1)

    def ready(self, kind: str, name: str, replicas: int) -> None:
        """Until so many replicas are ready and counted as available, so that the status comes to rest."""

        def counted() -> bool:
            status = self.get(kind, name)["status"]
            return all(status.get(count, 0) == replicas for count in ("readyReplicas", "availableReplicas"))

        self.wait(f"{name} ready", counted)

    def module(
        self, module: str, /, *, check: bool = False, env: dict[str, str] | None = None, **params: Any
    ) -> ModuleRun:
        """Run a module here."""
        return run_module(module, self.params(**params), check=check, env=env)

    def params(self, **params: Any) -> Json:
        """Module parameters with this namespace and the lab's connection, unless others are given."""
        connection = {} if "host" in params else {"kubeconfig": self.facts["kubeconfig"]}
        return {"namespace": self.name, **connection, **params}

    def workload(self, name: str, /, *, kind: str = "StatefulSet", replicas: int = 1, **pod: Any) -> Json:
        """A workload of pods that do nothing and end at once; ``pod`` adds to their container, or to their spec (``spec``)."""
        spec = pod.pop("spec", {})
        pod |= {probe: {"timeoutSeconds": PROBE_SECONDS, **pod[probe]} for probe in PROBES if probe in pod}
        container = {"name": "main", "image": self.facts["images"][0], "command": ["sleep", "100000"], **pod}
        template = {
            "metadata": {"labels": {"app": name}},
            "spec": {"terminationGracePeriodSeconds": 0, "containers": [container], **spec},
        }
        body: Json = {"replicas": replicas, "selector": {"matchLabels": {"app": name}}, "template": template}
        if kind == "StatefulSet":
            body |= {"serviceName": name, "podManagementPolicy": "Parallel"}
        return {"apiVersion": "apps/v1", "kind": kind, "metadata": {"name": name, "namespace": self.name}, "spec": body}


@pytest.fixture
def namespace(lab: Json, unique_name: Callable[..., str]) -> Iterator[Namespace]:
    """A new namespace, removed afterwards."""
    space = Namespace(unique_name("k8s"), lab["kubernetes"])
    space.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": space.name}})
    yield space
    space.delete("Namespace", space.name)


@pytest.fixture
def proxy(lab: Json) -> Iterator[KubernetesProxy]:
    """A counting and failing proxy before the API server."""
    with KubernetesProxy(lab["kubernetes"]["kubeconfig"]) as one:
        yield one


@pytest.fixture
def held_pods(lab: Json, tmp_path: Path) -> HeldPods:
    """Pods that become ready when the test says so, which they may from the beginning."""
    made = HeldPods(lab["kubernetes"], tmp_path / "held")
    made.let_ready()
    return made


@pytest.fixture
def server(lab: Json) -> ApiServer:
    """The API server, as its administrator."""
    return ApiServer(lab["kubernetes"])


@pytest.fixture
def connect(namespace: Namespace, server: ApiServer, tmp_path: Path) -> Callable[..., Json]:
    """Make an account in the namespace, and return the options that connect as it: ``connect(rules)``.

    Without rules it has those of docs/kubernetes-rights.yml.
    """

    def make(rules: list[Json] | None = None) -> Json:
        namespace.apply(*describe_account(namespace.name, read_rules("Role", "lowtide") if rules is None else rules))
        token = request_token(server, namespace.name)
        path = write_kubeconfig(tmp_path / "account.kubeconfig", read_cluster_entry(namespace.facts), {"token": token})
        return {"kubeconfig": str(path)}

    return make


@pytest.fixture
def site(lab: Json, namespace: Namespace) -> Namespace:
    """A namespace with a site of two pods and its page, which serve."""
    namespace.apply(*describe_site(lab["feature_service"]["images"][0], namespace.name))
    namespace.ready("Deployment", "web", 2)
    namespace.ready("Deployment", "page", 1)
    return namespace


@pytest.fixture(params=VERSIONS)
def postgresql(request: pytest.FixtureRequest, lab: Json) -> Server:
    """The lab's server of a version, by turns (``@pytest.mark.lab("postgresql_versions")``)."""
    return find_server(lab, request.param)


@pytest.fixture
def credentials(
    postgresql: Server, namespace: Namespace, server: ApiServer, unique_name: Callable[..., str], tmp_path: Path
) -> Iterator[CredentialSite]:
    """An application whose Secret has the credential of the first of its two roles."""
    with make_site(namespace, postgresql, server, unique_name, tmp_path) as made:
        yield made


@pytest.fixture
def balancer(site: Namespace, server: ApiServer) -> Iterator[Balancer]:
    """Who sends requests to the Service all the time."""
    with Balancer(server, site.name, "web") as running:
        running.wait_for("web")
        yield running


@pytest.fixture
def volume(namespace: Namespace, tmp_path: Path) -> Iterator[Callable[[str, int], Path]]:
    """Make the volume of a StatefulSet's pod, ``volume("w", 0)``, and return its folder; it is removed afterwards."""
    made: list[str] = []

    def make(workload: str, number: int) -> Path:
        folder = tmp_path / f"{workload}-{number}"
        folder.mkdir()
        folder.chmod(0o777)  # the image's user is nobody of this machine
        node = namespace.facts["nodes"][0]["name"]
        described = describe_volume(namespace.name, workload, number, folder, node)
        namespace.apply(described)
        made.append(described["metadata"]["name"])
        return folder

    yield make
    for name in made:
        namespace.delete("PersistentVolume", name)


@pytest.fixture(scope="session")
def keda(lab_facts: Json) -> None:
    """The ScaledObject's resource definition, as far as the modules look at it. No KEDA operator runs: this is its API only."""
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    names = {"kind": "ScaledObject", "plural": "scaledobjects", "singular": "scaledobject"}
    version = {"name": "v1alpha1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
    version["subresources"] = {"status": {}}
    definition = {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "scaledobjects.keda.sh"},
        "spec": {"group": "keda.sh", "scope": "Namespaced", "names": names, "versions": [version]},
    }
    define(Namespace("default", lab_facts["kubernetes"]), definition)


@pytest.fixture(scope="session")
def argo_cd(lab_facts: Json) -> None:
    """The Application's resource definition. No Argo CD runs: this is its API only."""
    define(Namespace("default", lab_facts["kubernetes"]), describe_definition("Application", "applications"))


@pytest.fixture(scope="session")
def other_apis(lab_facts: Json) -> None:
    """Kinds of other APIs: a Rollout, an Experiment without the subresource scale, a Crew whose replicas are its workers."""
    default = Namespace("default", lab_facts["kubernetes"])
    define(default, describe_definition("Rollout", "rollouts", replicas_path=".spec.replicas"))
    define(default, describe_definition("Experiment", "experiments"))
    define(default, describe_definition("Crew", "crews", replicas_path=".spec.workers", group="crews.example.org"))


@pytest.fixture(scope="session")
def flagger(lab_facts: Json) -> None:
    """The Canary's resource definition. No Flagger runs: this is its API only."""
    definition = describe_definition("Canary", "canaries", group="flagger.app")
    definition["spec"]["versions"][0]["name"] = "v1beta1"
    define(Namespace("default", lab_facts["kubernetes"]), definition)


def define(space: Namespace, definition: Json) -> None:
    """Create a definition and wait until it is served."""
    space.apply(definition)
    name = definition["metadata"]["name"]
    space.wait(f"{name} served", lambda: served(space, definition))


def served(space: Namespace, definition: Json) -> bool:
    """Whether the definition is established and its path answers, which comes a moment later."""
    status = space.get("CustomResourceDefinition", definition["metadata"]["name"]).get("status", {})
    if not any(one["type"] == "Established" and one["status"] == "True" for one in status.get("conditions") or []):
        return False
    spec = definition["spec"]
    path = f"/apis/{spec['group']}/{spec['versions'][0]['name']}/{spec['names']['plural']}"
    try:
        return ApiServer(space.facts).ask("GET", path)[0] == http.client.OK
    except json.JSONDecodeError:
        return False  # what is not there is said in plain text
