# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The work of k8s_diagnosis_info. Private to lowtide.ops: do not import from other collections."""

from __future__ import annotations

import json
import math
import re
import typing as t

from ..._common.bundle import save_bundle
from ..._common.containers import refuse_job_folder
from ..._common.errors import Refusal
from ..._common.outcome import Outcome
from ..._common.text import format_count
from ..._common.timestamps import format_utc
from ..cluster import check_identity, connect, disconnect
from ..evidence import Material, collect, list_event_lines, list_files
from ..fields import Json, as_dict, as_text, as_time, get_path
from ..pod_proxy import require_proxy
from ..pod_readings import Answers, ask_pods, parse_metrics
from ..reasons import Verdict
from ..references import list_containers
from ..summary import describe_state, describe_workload
from ..verdicts import Question, find_write_time, judge, list_untold

if t.TYPE_CHECKING:
    from ansible.module_utils.basic import AnsibleModule

RESTARTED_AT = "kubectl.kubernetes.io/restartedAt"
FIXED = "lowtide.ops/fixed"
"""On a pod template: which cause the role diagnose answered last, when, and how."""
_FIXED_NOTE = re.compile(r"(?P<fix>\S+) for (?P<reason>\S+) at (?P<at>\S+)(?: by (?P<run>.+))?")


def read_diagnosis(module: AnsibleModule, outcome: Outcome) -> None:
    """Read a workload and what is around it, judge it, and save the evidence where that is asked for."""
    params = module.params
    if params["evidence_folder"]:
        refuse_job_folder(params["evidence_folder"], what="evidence folder")
    question = _read_question(params)
    metrics = parse_metrics(params["readings"], kind=params["kind"], workload=params["name"])
    client = connect(module, seconds=params["timeout"])
    try:
        check_identity(client, params["cluster_uid"])
        material = collect(
            client,
            params["kind"],
            params["namespace"],
            params["name"],
            log_lines=params["log_lines"],
            log_bytes=params["log_bytes"],
        )
        answers = ask_pods(client, material.pods, metrics)
    finally:
        disconnect(module, outcome, client)
    question = question._replace(since=material.snapshot.at - params["since"], readings=answers)
    verdicts = judge(material, question)
    facts = _describe(material, verdicts)
    facts["readings"] = _describe_readings(material, answers)
    if any(entry.denied for entry in answers):
        facts["unreadable"].append(f"not allowed to ask: grant {require_proxy(params['namespace']).rule}")
    facts["unreadable"] += list_untold(material, question)
    outcome.facts.update(facts)
    outcome.summary = summarize(facts["verdict"], facts["others"])
    outcome.evidence = [describe_state(material.workload), *facts["verdict"]["evidence"]]
    outcome.facts["evidence_path"] = None
    if params["evidence_folder"] and not module.check_mode:
        outcome.facts["evidence_path"] = _save(params["evidence_folder"], material, facts, client.access.server)


def _read_question(params: t.Mapping[str, t.Any]) -> Question:
    """Return what the options ask; its ``since`` is counted from when all was read, by the server's clock."""
    if not (params["since"] > 0 and math.isfinite(params["since"])):
        raise Refusal(obj="option since", problem=f"it is {params['since']:g} s", next_step="Set it above 0")
    for name in ("log_lines", "log_bytes"):
        if params[name] < 0:
            raise Refusal(obj=f"option {name}", problem=f"it is {params[name]}", next_step="Set it to 0 or more")
    return Question(
        required={entry["container"]: entry["required"] for entry in params["configuration"]},
        groups=read_groups(params["consumer_group_state"]),
        observations=[_read_observation(entry) for entry in params["observations"]],
    )


def read_groups(state: t.Any) -> list[Json]:
    """Return the groups of a result of rpk_group_info, or the one that is given by itself. Raises Refusal."""
    if not state:
        return []
    if state.get("failed") and "groups" not in state:
        return [{"name": "of the workload", "state": "unknown", "reason": f"it could not be read: {state.get('msg')}"}]
    groups = state.get("groups", [state])
    if not isinstance(groups, list) or any("state" not in group or "name" not in group for group in groups):
        raise Refusal(
            obj="option consumer_group_state",
            problem="it has no groups with name and state",
            next_step="Give what lowtide.ops.rpk_group_info registered",
        )
    return groups


def _read_observation(entry: t.Mapping[str, t.Any]) -> Json:
    """Return an observation with its value as a number, None for one that is missing. Raises Refusal."""
    value = entry["value"]
    if value is None or value == "":
        return {**entry, "value": None}
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if math.isnan(number):
        raise Refusal(
            obj=f"observation {entry['name']}",
            problem=f"its value {value!r} is no number",
            next_step="Give a number, or null where there is none",
        )
    return {**entry, "value": number}


def summarize(verdict: t.Mapping[str, t.Any], others: t.Sequence[t.Any]) -> str:
    """Return one line: the verdict, and how many others there are."""
    more = f"; {format_count(len(others), 'other finding')}" if others else ""
    return f"{verdict['reason']}: {verdict['object']}: {verdict['message']}{more}"


def _describe(material: Material, verdicts: t.Sequence[Verdict]) -> dict[str, t.Any]:
    redact = material.redactor.redact
    first, *others = [verdict.as_result(redact) for verdict in verdicts]
    return {
        "verdict": first,
        "others": others,
        "workload": describe_workload(material.workload),
        "containers": _describe_containers(material),
        "pods": [_describe_pod(pod) for pod in material.pods],
        "revisions": list_revisions(material),
        "last_changes": _describe_changes(material),
        "events": list_event_lines(material),
        "logs": [log._asdict() for log in material.logs],
        "services": list(material.services),
        "unreadable": list(material.unreadable),
    }


def _describe_readings(material: Material, answers: t.Sequence[Answers]) -> list[t.Any]:
    """Return what each pod answered for each metric, without secrets."""
    entries = [reading.as_dict(entry.metric.name) for entry in answers for reading in entry.pods]
    return [material.redactor.redact_document(entry) for entry in entries]


def _describe_containers(material: Material) -> list[dict[str, t.Any]]:
    """Return what the newest pods' containers are and what they may use."""
    template = material.workload.template.get("spec") or {}
    return [
        {
            "name": container.get("name"),
            "image": container.get("image"),
            "requests": get_path(container, "resources", "requests") or {},
            "limits": get_path(container, "resources", "limits") or {},
        }
        for container in list_containers(template)
    ]


def _describe_pod(pod: t.Any) -> dict[str, t.Any]:
    return {
        "name": pod.name,
        "node": pod.node,
        "phase": pod.phase,
        "ready": pod.is_ready,
        "revision": pod.template_hash,
        "restarts": sum(container.restarts for container in pod.containers),
    }


def list_revisions(material: Material) -> list[dict[str, t.Any]]:
    """Return the revisions of a workload, newest first, with the images of each."""
    workload, snapshot = material.workload, material.snapshot
    entries: list[t.Any] = []
    if workload.kind == "Deployment":
        entries += snapshot.list_replica_sets(workload)
    else:
        entries += snapshot.list_revisions(workload)
    entries.sort(key=lambda entry: -entry.revision)
    return [
        {
            "revision": entry.revision,
            "name": entry.name,
            "created": format_utc(entry.created_at) if entry.created_at is not None else None,
            "images": _list_images(entry.raw),
        }
        for entry in entries
    ]


def _list_images(obj: Json) -> list[str]:
    template = get_path(obj, "spec", "template", "spec") or get_path(obj, "data", "spec", "template", "spec")
    return [as_text(get_path(container, "image")) for container in get_path(template, "containers") or []]


def _describe_changes(material: Material) -> dict[str, t.Any]:
    """Return when its pods were restarted on purpose, who wrote its replicas, and what the last fix said of itself.

    Restarts and fixes are looked for in its earlier revisions too: a fix that failed has been undone.
    """
    workload = material.workload
    annotations = [as_dict(get_path(template, "metadata", "annotations")) for template in _list_templates(material)]
    restarts = [as_text(entry[RESTARTED_AT]) for entry in annotations if as_time(entry.get(RESTARTED_AT)) is not None]
    fixes = [fixed for entry in annotations if (fixed := _parse_fixed(entry.get(FIXED))) is not None]
    written_at = find_write_time(workload.raw, "f:replicas", workload.writer)
    return {
        "restarted_at": max(restarts, key=lambda at: as_time(at) or 0.0, default=None),
        "fixed": max(fixes, key=lambda fixed: as_time(fixed["at"]) or 0.0, default=None),
        "replicas_by": workload.writer,
        "replicas_at": None if written_at is None else format_utc(written_at),
    }


def _list_templates(material: Material) -> list[Json]:
    workload, snapshot = material.workload, material.snapshot
    earlier = [get_path(entry.raw, "spec", "template") for entry in snapshot.list_replica_sets(workload)]
    earlier += [get_path(entry.raw, "data", "spec", "template") for entry in snapshot.list_revisions(workload)]
    return [workload.template, *(as_dict(template) for template in earlier)]


def _parse_fixed(text: t.Any) -> Json | None:
    """Return what a fix wrote about itself; None when there is nothing, or nothing that can be understood."""
    match = _FIXED_NOTE.fullmatch(as_text(text))
    return match.groupdict() if match is not None else None


def _save(folder: str, material: Material, facts: t.Mapping[str, t.Any], server: str) -> str:
    workload = material.workload
    shown = {name: value for name, value in facts.items() if name not in ("logs", "events")}
    files = {**list_files(material), "verdict.json": json.dumps(shown, indent=1, ensure_ascii=False)}
    about = {"object": workload.title, "uid": workload.uid, "at": format_utc(material.snapshot.at), "server": server}
    name = f"{workload.namespace}-{workload.kind.lower()}-{workload.name}"
    return save_bundle(folder, name, files, about={"format": 1, **about}, at=material.snapshot.at)
