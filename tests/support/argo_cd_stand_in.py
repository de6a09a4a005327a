# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Stand in for Argo CD's application controller in one namespace. It is not Argo CD: its Git is a dictionary.

It does what Argo CD does to the objects of an Application whose sync policy is automated: it applies what is in Git on
the server's side, as ``argocd-controller`` and with its tracking id, when the Application is new, and with ``selfHeal``
whenever an object is not as in Git any more (argo-cd.readthedocs.io, "Automated Sync Policy").
"""

from __future__ import annotations

import http.client
from typing import Any, Self

from .kubernetes_server import APPLY, build_path
from .operator_stand_in import OperatorStandIn

Json = dict[str, Any]

MANAGER = "argocd-controller"
TRACKING = "argocd.argoproj.io/tracking-id"
KINDS = ("StatefulSet", "Deployment")


def describe_application(name: str, *, self_heal: bool = True) -> Json:
    """Return an Application that is synchronised by itself."""
    return {
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "Application",
        "metadata": {"name": name},
        "spec": {"syncPolicy": {"automated": {"prune": True, "selfHeal": self_heal}}},
    }


def is_healing(application: Json) -> bool:
    """Return whether an Application puts back what somebody changes."""
    automated = ((application.get("spec") or {}).get("syncPolicy") or {}).get("automated") or {}
    return bool(automated.get("selfHeal"))


def track(obj: Json, application: str, namespace: str) -> Json:
    """Return an object of Git with the tracking id that Argo CD gives it."""
    group = obj["apiVersion"].split("/")[0]
    identity = f"{application}:{group}/{obj['kind']}:{namespace}/{obj['metadata']['name']}"
    annotations = {**(obj["metadata"].get("annotations") or {}), TRACKING: identity}
    return {**obj, "metadata": {**obj["metadata"], "annotations": annotations}}


class ArgoCdStandIn(OperatorStandIn):
    """A context manager; ``git`` has the objects of each Application, ``healed`` what was put back."""

    watched = ("Application", *KINDS)

    def __init__(self, facts: Json, namespace: str, git: dict[str, list[Json]]) -> None:
        super().__init__(facts, namespace)
        self.git = git
        self._healed: list[str] = []
        self._synchronised: set[str] = set()

    @property
    def healed(self) -> list[str]:
        """What was put back, kind and name, as soon as what it does at the moment is done."""
        with self.at_rest:
            return list(self._healed)

    def reconcile_each(self) -> None:
        """Apply what is in Git for each Application, the first time or where it heals."""
        for application in self.server.list("Application", self.namespace):
            name = application["metadata"]["name"]
            if name not in self._synchronised or is_healing(application):
                for obj in self.git.get(name, []):
                    self._apply(obj, name)
            self._synchronised.add(name)

    def _apply(self, obj: Json, application: str) -> None:
        path = build_path(obj["kind"], self.namespace, obj["metadata"]["name"])
        status, present = self.server.ask("GET", path)
        applied = self.server.request(
            "PATCH",
            f"{path}?fieldManager={MANAGER}&force=true",
            track(obj, application, self.namespace),
            content_type=APPLY,
        )
        if status == http.client.OK and present["metadata"]["generation"] != applied["metadata"]["generation"]:
            self._healed.append(f"{obj['kind']}/{obj['metadata']['name']}")

    def __enter__(self) -> Self:
        self.reconcile()  # so that its objects are there from the beginning
        return super().__enter__()
