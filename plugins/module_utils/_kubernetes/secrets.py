# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A Secret: its keys read, and changed one by one on the condition that it is still the one that was read.

Values are nowhere but in ``Secret.values`` and in the body of a patch: neither texts nor results have them.
Private to lowtide.ops: do not import from other collections.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
import typing as t

from .._common.errors import OpsError, Refusal
from .._common.outcome import Blocker
from .client import Client
from .cluster import read_object
from .constraints.owners import APPLIED, find_gitops_blocker, find_operator_blocker
from .fields import Json, as_dict, as_list, as_text, as_time, get_path
from .objects import Workload
from .patches import Write
from .resources import format_title, object_path
from .saved_state import find_owners

KIND = "Secret"
CREDENTIAL = "lowtide.ops/credential"
"""The annotation of a Secret whose credential pg_credential replaces; its ``keys`` are the keys that it writes."""
PREVIOUS_USER = "lowtide.previous-username"
PREVIOUS_PASSWORD = "lowtide.previous-password"  # noqa: S105 - a key
_MANAGED_BY = "app.kubernetes.io/managed-by"


class _Keeper(t.NamedTuple):
    """A tool that writes Secrets from a source of its own: its marks, labels and managers, and when it writes again."""

    name: str
    when: str
    marks: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    managers: tuple[str, ...] = ()


_KEEPERS = (
    _Keeper(
        "External Secrets Operator",
        "within its refresh interval",
        ("reconcile.external-secrets.io/managed", "reconcile.external-secrets.io/data-hash"),
        managers=("external-secrets",),
    ),
    _Keeper(
        "Vault Secrets Operator",
        "within its refresh interval",
        labels=("hashicorp-vso",),
        managers=("vault-secrets-operator",),
    ),
    _Keeper("Helm", "at the next upgrade", ("meta.helm.sh/release-name",), ("Helm",), ("helm",)),
    _Keeper("Terraform", "at the next apply", labels=("Terraform", "terraform"), managers=("HashiCorp", "Terraform")),
    _Keeper("Pulumi", "at the next update", labels=("pulumi",), managers=("pulumi-kubernetes",)),
)
_KEY = re.compile(r"[-._a-zA-Z0-9]{1,253}")


class Secret(t.NamedTuple):
    """A Secret as it was read. ``values`` are its decoded values by key."""

    namespace: str
    name: str
    uid: str
    version: str
    annotations: Json
    values: dict[str, bytes]
    is_immutable: bool
    raw: Json

    @classmethod
    def from_object(cls, obj: Json) -> Secret:
        """Read an object. Raises OpsError for a value that is not base64."""
        meta = as_dict(obj.get("metadata"))
        title = format_title(KIND, as_text(meta.get("namespace")), as_text(meta.get("name")))
        values: dict[str, bytes] = {}
        for key, text in as_dict(obj.get("data")).items():
            try:
                values[key] = base64.b64decode(as_text(text), validate=True)
            except binascii.Error:
                raise OpsError(
                    obj=title, problem=f"the value of key {key} is not base64", next_step="Correct the Secret"
                ) from None
        return cls(
            namespace=as_text(meta.get("namespace")),
            name=as_text(meta.get("name")),
            uid=as_text(meta.get("uid")),
            version=as_text(meta.get("resourceVersion")),
            annotations=as_dict(meta.get("annotations")),
            values=values,
            is_immutable=obj.get("immutable") is True,
            raw=obj,
        )

    @property
    def title(self) -> str:
        """What messages call it."""
        return format_title(KIND, self.namespace, self.name)

    def get_text(self, key: str) -> str | None:
        """Return a value as text; None where there is no such key, or its value is no text."""
        value = self.values.get(key)
        try:
            return None if value is None else value.decode("utf-8")
        except UnicodeDecodeError:
            return None


class SecretChange(t.NamedTuple):
    """What is to be changed: values by key, None to remove one; annotations likewise. All else stays as it is."""

    values: t.Mapping[str, str | None]
    annotations: t.Mapping[str, str | None]


def read_secret(client: Client, namespace: str, name: str) -> Secret:
    """Return a Secret; a Refusal says what there is instead when it is missing."""
    return Secret.from_object(read_object(client, KIND, namespace, name))


def check_key(option: str, key: str) -> str:
    """Return a key that a Secret can have; a Refusal otherwise."""
    if not _KEY.fullmatch(key) or key in (".", ".."):
        raise Refusal(
            obj=f"option {option}: {key!r}",
            problem="this is not a key that a Secret can have",
            next_step="Use letters, digits, '-', '_' and '.'",
        )
    return key


def refuse_immutable(secret: Secret) -> None:
    """Refuse a Secret that the server lets nobody change."""
    if secret.is_immutable:
        raise Refusal(
            obj=secret.title,
            problem="it is immutable (immutable: true), which cannot be taken back",
            next_step="Make a Secret of another name without immutable, and point the workloads at it",
        )


def find_secret_owners(secret: Secret, keys: t.Iterable[str]) -> list[Blocker]:
    """Return who would put back what is changed: whoever makes the Secret, and GitOps tools that set one of the keys."""
    described = Workload.from_object(secret.raw, KIND)
    blockers = [find_operator_blocker(described, ("data",))]
    keys = [key for key in keys if key in secret.values]
    blockers += [find_gitops_blocker(described, ("data", key)) for key in keys]
    blockers.append(_find_keeper(secret, described.labels, keys))
    return list(dict.fromkeys(blocker for blocker in blockers if blocker is not None))


def _find_keeper(secret: Secret, labels: Json, keys: t.Iterable[str]) -> Blocker | None:
    """Return the tool that writes the Secret again from a place of its own, by its mark or as the manager of a key."""
    writers = {owner.manager for key in keys for owner in find_owners(secret.raw, "data", key) or []}
    for keeper in _KEEPERS:
        mark = next((key for key in keeper.marks if as_text(secret.annotations.get(key) or labels.get(key))), None)
        is_labelled = as_text(labels.get(_MANAGED_BY)) in keeper.labels
        manager = next((name for name in keeper.managers if name in writers), None)
        evidence = mark or (_MANAGED_BY if is_labelled else None) or (f"manager {manager}" if manager else None)
        if evidence is not None:
            return Blocker(
                object=secret.title,
                what=f"it is kept by {keeper.name} ({evidence}), which would put the old value back: {keeper.when}",
                holder=keeper.name,
                next_step="Change the credential where that tool has it from, or have it leave these keys alone, and leave"
                " gitops out of guards",
            )
    return None


def find_credential_blocker(secret: Secret, keys: t.Iterable[str]) -> Blocker | None:
    """Return what stands in the way of changing keys of a credential that pg_credential replaces; pure.

    Where its note does not say which keys these are, any may be.
    """
    text = secret.annotations.get(CREDENTIAL)
    if text is None:
        return None
    try:
        noted = as_text(as_dict(json.loads(as_text(text))).get("keys"))
    except ValueError:
        noted = ""
    own = {*noted.split(","), PREVIOUS_USER, PREVIOUS_PASSWORD}
    held = sorted(key for key in keys if not noted or key in own)
    if not held:
        return None
    return Blocker(
        object=secret.title,
        what=f"key {', '.join(held)} is of the credential that pg_credential replaces ({CREDENTIAL}): another value would"
        " lock clients out",
        holder="pg_credential",
        next_step=f"Leave {', '.join(held)} out; for a new password run pg_credential with max_age 0s",
    )


def find_last_change(secret: Secret, keys: t.Iterable[str]) -> float:
    """Return when one of these keys was changed for the last time, by managedFields; else when the Secret was made; pure."""
    metadata = as_dict(secret.raw.get("metadata"))
    times = [
        as_time(entry.get("time"))
        for entry in map(as_dict, as_list(metadata.get("managedFields")))
        if any(get_path(entry, "fieldsV1", "f:data", f"f:{key}") is not None for key in keys)
    ]
    return max((time for time in times if time is not None), default=as_time(metadata.get("creationTimestamp")) or 0.0)


def is_applied_by_kubectl(secret: Secret, key: str) -> bool:
    """Return whether a manifest that somebody applied (kubectl apply) has the key, so that it may be applied again."""
    try:
        applied = json.loads(as_text(secret.annotations.get(APPLIED)))
    except ValueError:
        return False
    return any(get_path(applied, field, key) is not None for field in ("data", "stringData"))


def build_write(change: SecretChange) -> Write:
    """Return the patch of exactly these keys, on the condition that nothing of the Secret has changed since it was read."""
    body: Json = {}
    if change.values:
        body["data"] = {key: None if text is None else encode_value(text) for key, text in change.values.items()}
    if change.annotations:
        body["metadata"] = {"annotations": dict(change.annotations)}
    return Write(body, depends_on=(("metadata", "resourceVersion"),))


def encode_value(text: str) -> str:
    """Return a value as a Secret has it."""
    return base64.b64encode(text.encode("utf-8")).decode("ascii")


def is_applied(secret: Secret, change: SecretChange) -> bool:
    """Return whether the Secret is as the change makes it."""
    values = all(
        secret.values.get(key) == (None if text is None else text.encode("utf-8"))
        for key, text in change.values.items()
    )
    return values and all(secret.annotations.get(key) == text for key, text in change.annotations.items())


def write_secret(client: Client, secret: Secret, change: SecretChange, *, dry_run: bool = False) -> Secret:
    """Send the change, and return the Secret as it is then.

    After a write without an answer it is read: the change is there, or the Secret is still the one that was read and it
    is sent again. Anything else is an error, and nothing is written over what another client has set.
    """

    def decide(current: Json) -> Write | None:
        latest = Secret.from_object(current)
        if latest.uid == secret.uid and latest.version == secret.version:
            return build_write(change)
        if latest.uid == secret.uid and is_applied(latest, change):
            return None
        raise OpsError(
            obj=secret.title,
            problem="another client has changed it since it was read, so nothing was written over it",
            next_step="Look who changes it (its managedFields), and run again when that has ended",
        )

    path = object_path(KIND, secret.namespace, secret.name)
    obj, _sent = client.patch_with_retry(path, decide, obj=secret.title, first=secret.raw, dry_run=dry_run)
    return Secret.from_object(obj)
