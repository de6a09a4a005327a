# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Accounts with the documented rights, and what the API server's audit log says that they used of them."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from .checkout import load_yaml
from .kubernetes_server import ApiServer, build_path
from .playbooks import write_yaml

Json = dict[str, Any]

MANIFEST = Path("docs/kubernetes-rights.yml")
"""What users apply; everything here is made of it."""
RBAC = "rbac.authorization.k8s.io"
ACCOUNT = "lowtide"
FOR_EVERYBODY = {("create", "authorization.k8s.io", "selfsubjectaccessreviews")}
"""What every authenticated account may do (ClusterRole system:basic-user), so that no role has to say it."""


class Right(NamedTuple):
    """A verb on a resource, whatever its name."""

    verb: str
    group: str
    resource: str


def read_rules(kind: str, name: str) -> list[Json]:
    """Return the rules of a Role or ClusterRole of the documented manifest."""
    items = load_yaml(MANIFEST)["items"]
    (rules,) = [item["rules"] for item in items if (item["kind"], item["metadata"]["name"]) == (kind, name)]
    return list(rules)


def expand(rules: Iterable[Json]) -> set[Right]:
    """Return every right that the rules give."""
    return {
        Right(verb, group, resource)
        for rule in rules
        for verb in rule["verbs"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
    }


def narrow(rules: Iterable[Json], *left_out: Right) -> list[Json]:
    """Return rules that give the same rights without those left out, a rule for each right."""
    return [
        {"apiGroups": [right.group], "resources": [right.resource], "verbs": [right.verb]}
        for right in sorted(expand(rules) - set(left_out))
    ]


def describe_account(namespace: str, rules: list[Json]) -> list[Json]:
    """Return a ServiceAccount, a Role of these rules, and what binds the two."""
    metadata = {"name": ACCOUNT, "namespace": namespace}
    version = f"{RBAC}/v1"
    return [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata},
        {"apiVersion": version, "kind": "Role", "metadata": metadata, "rules": rules},
        {
            "apiVersion": version,
            "kind": "RoleBinding",
            "metadata": metadata,
            "subjects": [{"kind": "ServiceAccount", "name": ACCOUNT, "namespace": namespace}],
            "roleRef": {"apiGroup": RBAC, "kind": "Role", "name": ACCOUNT},
        },
    ]


def name_user(namespace: str) -> str:
    """Return how the audit log names the account."""
    return f"system:serviceaccount:{namespace}:{ACCOUNT}"


def request_token(server: ApiServer, namespace: str) -> str:
    """Return a token of the account."""
    path = build_path("ServiceAccount", namespace, ACCOUNT, "token")
    review = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": 3600}}
    return str(server.request("POST", path, review)["status"]["token"])


def read_cluster_entry(facts: Mapping[str, Any]) -> Json:
    """Return the entry of the lab's cluster in the administrator's kubeconfig: server and authority."""
    document = yaml.safe_load(Path(facts["kubeconfig"]).read_text(encoding="utf-8"))
    entry: Json = document["clusters"][0]["cluster"]
    return entry


def describe_kubeconfig(cluster: Json, user: Json) -> Json:
    """Return a kubeconfig with one cluster, one user and one context, all of them named ``lab``."""
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "lab",
        "clusters": [{"name": "lab", "cluster": cluster}],
        "users": [{"name": "lab", "user": user}],
        "contexts": [{"name": "lab", "context": {"cluster": "lab", "user": "lab"}}],
    }


def write_kubeconfig(path: Path, cluster: Json, user: Json) -> Path:
    """Write such a kubeconfig, readable by its owner only."""
    write_yaml(path, describe_kubeconfig(cluster, user))
    path.chmod(0o600)
    return path


class AuditLog:
    """Reads what the API server has answered since this object was made."""

    def __init__(self, facts: Json) -> None:
        self.path = Path(facts["audit_log"])
        self.start = self.path.stat().st_size

    def read(self, user: str) -> list[Json]:
        """Return the entries of requests of a user, the refused ones too."""
        with self.path.open(encoding="utf-8") as log:
            log.seek(self.start)
            entries = [json.loads(line) for line in log if user in line and line.endswith("\n")]
        return [entry for entry in entries if entry["user"]["username"] == user]

    def wait_for_rights(self, user: str, expected: set[Right], *, seconds: float = 60.0) -> set[Right]:
        """Return the rights that a user has used, as soon as those expected are among them, or when time is up.

        A request is logged after it was answered, and a watch when the server has noticed that its client has gone.
        """
        end = time.monotonic() + seconds
        while expected - (used := self.read_rights(user)) and time.monotonic() < end:
            time.sleep(0.2)
        return used

    def read_rights(self, user: str) -> set[Right]:
        """Return the rights that a user has used, without those of everybody."""
        rights = set()
        for entry in self.read(user):
            reference = entry.get("objectRef")
            if reference is None or entry["annotations"].get("authorization.k8s.io/decision") != "allow":
                continue
            parts = [reference["resource"], reference.get("subresource")]
            resource = "/".join(part for part in parts if part)
            rights.add(Right(entry["verb"], reference.get("apiGroup", ""), resource))
        return {right for right in rights if right not in FOR_EVERYBODY}
