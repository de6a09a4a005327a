# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who would put a workload's replicas back: GitOps tools that own the field, and operators that own the object.

A tool that tracks a workload need not have its replicas in Git. Which manager set the field says so; what a client-side
apply left in its annotation says so too, also after another client has taken the field over. Our own write takes it over
too, so that the tool that owned it is saved with it.

Private to lowtide.ops: do not import from other collections.
"""

from __future__ import annotations

import json
import typing as t

from ..._common.outcome import Blocker
from ..fields import as_dict, as_list, as_text, get_path
from ..objects import Workload
from ..patches import Write
from ..saved_state import (
    AUTOSCALER_MANAGERS,
    TAKE,
    TAKEN_FROM,
    FieldOwner,
    SavedState,
    UnreadableSavedState,
    find_owners,
    find_state,
    get_scale_path,
    is_own_manager,
    save_state,
)

APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
"""What a client-side apply (kubectl, Argo CD) has applied."""
POD_TEMPLATE = ("spec", "template")
"""The field that a rollout changes."""
INSTANCE_LABEL = "app.kubernetes.io/instance"
"""Argo CD's default mark. Helm sets it too, so that it counts only together with Argo CD's manager."""


class _Tool(t.NamedTuple):
    """A GitOps tool: the managers that it writes as, and the marks by which it tracks an object."""

    name: str
    managers: tuple[str, ...]
    marks: tuple[str, ...]

    def is_manager(self, manager: str) -> bool:
        """Return whether it writes under that name; ``argocd-*`` stands for every name that begins so."""
        return any(
            manager.startswith(known[:-1]) if known.endswith("*") else manager == known for known in self.managers
        )


_ARGO_CD = _Tool(
    "Argo CD application", ("argocd", "argocd-*"), ("argocd.argoproj.io/tracking-id", "argocd.argoproj.io/instance")
)
_HELM = _Tool("Flux HelmRelease", ("helm-controller",), ("helm.toolkit.fluxcd.io/name",))
_TOOLS = (
    _ARGO_CD,
    _Tool("Flux Kustomization", ("kustomize-controller",), ("kustomize.toolkit.fluxcd.io/name",)),
    _HELM,
)
_LEFT_ALONE = {
    "kustomize.toolkit.fluxcd.io/reconcile": ("disabled",),
    "kustomize.toolkit.fluxcd.io/ssa": ("Ignore", "IfNotPresent"),
    "helm.toolkit.fluxcd.io/driftDetection": ("disabled",),
}
"""Labels or annotations with which Flux does not touch an object (again), though managedFields still name it."""


class _Operator(t.NamedTuple):
    """How an operator is told to leave its workloads alone; {} is the title of its object."""

    how: str
    by_any_reference: bool = False


_OPERATORS = {
    # Strimzi sets its references without controller: true.
    "kafka.strimzi.io": _Operator("annotate {} with strimzi.io/pause-reconciliation=true", by_any_reference=True),
    "cluster.redpanda.com": _Operator("annotate {} with cluster.redpanda.com/managed=false"),
    "monitoring.coreos.com": _Operator("set spec.paused of {} to true"),
    "rabbitmq.com": _Operator("label {} with rabbitmq.com/pauseReconciliation=true"),
    "elasticsearch.k8s.elastic.co": _Operator("annotate {} with eck.k8s.elastic.co/managed=false"),
    "kibana.k8s.elastic.co": _Operator("annotate {} with eck.k8s.elastic.co/managed=false"),
}
_OTHER_OPERATOR = _Operator("pause {0}, or set the {1} there")
_OWN_CONTROLLERS = ("CronJob",)
"""Kinds of Kubernetes itself that make workloads and do not set their replicas back."""


def find_owner_blockers(workload: Workload, field: tuple[str, ...] | None = None) -> list[Blocker]:
    """Return who would put a field of the workload back: a GitOps tool, an operator, or both.

    The field is the replicas (or ``suspend``) where none is given, ``POD_TEMPLATE``, or any other of an object that is
    none of a workload.
    """
    blockers = [find_gitops_blocker(workload, field), find_operator_blocker(workload, field)]
    return [blocker for blocker in blockers if blocker is not None]


def find_gitops_blocker(workload: Workload, field: tuple[str, ...] | None = None) -> Blocker | None:
    """Return the GitOps tool that has the field in Git; None when none has, or it leaves it alone."""
    if any(_get_mark(workload, key) in values for key, values in _LEFT_ALONE.items()):
        return None
    what = _name_field(field)
    previous = _find_previous(workload) if field != POD_TEMPLATE else None
    field = field or get_scale_path(workload.kind)
    owners = find_owners(workload.raw, *field)
    applied = _find_applied(workload, field)
    is_taken = bool(owners) and all(_sets_it_only_now(owner.manager) for owner in owners or [])
    for tool in _TOOLS:
        mark = next((key for key in tool.marks if _get_mark(workload, key)), None)
        owner = next((owner for owner in owners or [] if tool.is_manager(owner.manager)), None)
        tracked = mark or _find_other_manager(workload, tool) if is_taken else None
        if owner is not None and _has_field_in_git(owner, applied):
            evidence = f"manager {owner.manager} set {'.'.join(field)}"
        elif mark is not None and owners is None and applied is not False:
            evidence = mark
        elif mark is not None and applied:
            evidence = f"{mark}, and {APPLIED} has {'.'.join(field)}"
        elif tracked is not None and applied:
            evidence = f"{tracked} keeps its other fields, and {APPLIED} has {'.'.join(field)}"
        elif tracked is not None and previous is not None and tool.is_manager(as_text(previous.spec.get("manager"))):
            evidence = (
                f"manager {previous.spec['manager']} set {'.'.join(field)} before run {previous.run_id}, as annotation"
                f" {TAKEN_FROM} says"
            )
        elif tracked is not None and tool is _HELM and any(is_own_manager(name.manager) for name in owners or []):
            evidence = f"{tracked}, and nothing says that drift detection is off"
        else:
            continue
        holder = " ".join(filter(None, [tool.name, _get_name(workload, tool, mark)]))
        return Blocker(
            object=workload.title,
            what=f"it is kept by {holder} ({evidence}), which may put its {what} back",
            holder=holder,
            next_step=f"Let that tool ignore {'.'.join(field)} (or pause it), then leave gitops out of guards",
        )
    return None


def remember_owner(
    write: Write | None, workload: Workload, *, run_id: str, now: str, field: tuple[str, ...] | None = None
) -> Write | None:
    """Return the write with the GitOps tool in it that owns the field (the replicas) until then, where one has it in Git."""
    field = field or get_scale_path(workload.kind)
    applied = _find_applied(workload, field)
    owner = next(
        (
            owner
            for owner in find_owners(workload.raw, *field) or []
            if any(tool.is_manager(owner.manager) for tool in _TOOLS) and _has_field_in_git(owner, applied)
        ),
        None,
    )
    if write is None or not write.body or owner is None:
        return write
    state = SavedState(owner._asdict(), run_id, now, operation=TAKE)
    metadata = as_dict(write.body.get("metadata"))
    annotations = {**as_dict(metadata.get("annotations")), **save_state(workload.annotations, TAKEN_FROM, state)}
    return write._replace(body={**write.body, "metadata": {**metadata, "annotations": annotations}})


def _has_field_in_git(owner: FieldOwner, applied: bool | None) -> bool:
    return owner.operation == "Apply" or applied is not False


def _sets_it_only_now(manager: str) -> bool:
    """Return whether a manager that owns the replicas has taken them from whoever keeps the object."""
    return is_own_manager(manager) or manager in AUTOSCALER_MANAGERS


def _find_previous(workload: Workload) -> SavedState | None:
    try:
        return find_state(workload.annotations, TAKEN_FROM, TAKE)
    except UnreadableSavedState:
        return None


def _find_other_manager(workload: Workload, tool: _Tool) -> str | None:
    """Return in words the manager of a tool that sets any field of the spec; None when none does."""
    managers = [owner.manager for owner in find_owners(workload.raw, "spec") or [] if tool.is_manager(owner.manager)]
    return f"manager {managers[0]}" if managers else None


def _get_mark(workload: Workload, key: str) -> str:
    return as_text(workload.annotations.get(key) or workload.labels.get(key))


def _get_name(workload: Workload, tool: _Tool, mark: str | None) -> str:
    """Return the name of the tool's object; a tracking id of Argo CD begins with it."""
    if mark is not None:
        return _get_mark(workload, mark).partition(":")[0]
    return _get_mark(workload, INSTANCE_LABEL) if tool is _ARGO_CD else ""


def _find_applied(workload: Workload, field: t.Sequence[str]) -> bool | None:
    """Return whether the last client-side apply had the field; None where there was none.

    Where it had not, the server gave the field its default, which belongs to the applying manager as well. (An apply by
    the server owns only what it was given.)
    """
    try:
        applied = json.loads(as_text(workload.annotations.get(APPLIED)))
    except ValueError:
        return None
    return get_path(applied, *field) is not None


def _name_field(field: tuple[str, ...] | None) -> str:
    if field is None:
        return "replicas"
    return "pod template" if field == POD_TEMPLATE else ".".join(field)


def find_operator_blocker(workload: Workload, field: tuple[str, ...] | None = None) -> Blocker | None:
    """Return the object of an operator that owns the workload, and how to tell the operator; None when none does."""
    for reference in as_list(get_path(workload.raw, "metadata", "ownerReferences")):
        kind, name = as_text(reference.get("kind")), as_text(reference.get("name"))
        operator = _OPERATORS.get(as_text(reference.get("apiVersion")).partition("/")[0], _OTHER_OPERATOR)
        if kind in _OWN_CONTROLLERS or not (reference.get("controller") is True or operator.by_any_reference):
            continue
        title = f"{kind} {workload.namespace}/{name}"
        how = operator.how.format(title, _name_field(field))
        return Blocker(
            object=workload.title,
            what=(
                f"it belongs to {title} ({as_text(reference.get('apiVersion'))}), whose operator may put its"
                f" {_name_field(field)} back"
            ),
            holder=title,
            next_step=f"{how[0].upper()}{how[1:]}, then leave gitops out of guards",
        )
    return None
