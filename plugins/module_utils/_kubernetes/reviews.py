# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What we may do, asked of the server before anything is done. Private to lowtide.ops: do not import from other collections."""

from __future__ import annotations

import typing as t

from .client import Client
from .errors import Forbidden, NotFound
from .fields import Json
from .resources import Resource, collection_path


class Right(t.NamedTuple):
    """One thing to do: with ``name`` on one object only, as rules with resourceNames allow it."""

    verb: str
    resource: Resource
    namespace: str
    name: str = ""
    subresource: str = ""

    @property
    def rule(self) -> str:
        """What to grant, for messages: ``watch statefulsets.apps in namespace shop``."""
        resource = self.resource.qualified
        if self.subresource:
            plural, dot, group = resource.partition(".")
            resource = f"{plural}/{self.subresource}{dot}{group}"
        named = f" {self.name}" if self.name else ""
        return f"{self.verb} {resource}{named}" + (f" in namespace {self.namespace}" if self.namespace else "")


def can_i(
    client: Client, *, verb: str, resource: Resource, namespace: str, name: str = "", subresource: str = ""
) -> bool:
    """Return whether the server would allow it. Each right is asked once for each client.

    Raises Forbidden or NotFound when the server does not tell, and ApiError.
    """
    right = Right(verb, resource, namespace, name, subresource)
    if right not in client.rights:
        answer = client.create(
            collection_path("SelfSubjectAccessReview", None),
            _make_review(right),
            obj=f"right to {right.rule}",
            reads_only=True,
        )
        client.rights[right] = (answer.get("status") or {}).get("allowed") is True
    return client.rights[right]


def require_rights(client: Client, rights: t.Iterable[Right]) -> list[Right]:
    """Return the rights that the server would not allow, in the order given, each once.

    Where nobody may ask, none is returned and the client gets a warning: the first refusal of the server then says it.
    """
    try:
        return [right for right in dict.fromkeys(rights) if not can_i(client, **right._asdict())]
    except (Forbidden, NotFound) as error:
        client.warnings.append(f"Which rights this account has could not be asked beforehand: {error}")
        return []


def _make_review(right: Right) -> Json:
    attributes = {
        "verb": right.verb,
        "group": right.resource.group,
        "version": right.resource.group_version.rpartition("/")[2],
        "resource": right.resource.plural,
        "subresource": right.subresource,
        "namespace": right.namespace,
        "name": right.name,
    }
    return {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": {key: value for key, value in attributes.items() if value}},
    }
