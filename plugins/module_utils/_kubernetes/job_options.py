# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The options of k8s_job: what they ask for, and what cannot be meant.

Private to lowtide.ops: do not import from other collections.
"""

from __future__ import annotations

import os
import secrets
import typing as t

from .._common.errors import Refusal
from .client import Client
from .cluster import read_object
from .fields import Json, as_dict
from .objects import Workload
from .plans import job as plans
from .resources import check_name

DEFAULT_DEADLINE = 3600
"""Seconds after which Kubernetes ends a Job for which nobody says when."""
SHORTEST_TTL = 60
"""Seconds. Kubernetes removes a Job with a shorter time before it is certain that its end and its log have been read."""


def read_request(client: Client, params: t.Mapping[str, t.Any]) -> plans.JobRequest:
    """Return what the options ask for; a Refusal for what cannot be meant. Reads the CronJob or workload that they name."""
    namespace = str(params["namespace"])
    cron_job = None
    spec = as_dict(params["template"])
    labels: Json = {}
    annotations: Json = {}
    if params["from_cronjob"]:
        raw = read_object(client, "CronJob", namespace, params["from_cronjob"])
        cron_job = Workload.from_object(raw, "CronJob")
        spec, labels, annotations = plans.read_cron_job(cron_job)
    elif params["from_workload"]:
        spec = _read_spec_like(client, namespace, params["from_workload"])
    else:
        _check_template(spec)
    prefix = params["name_prefix"] or params["from_cronjob"]
    _check_prefix(prefix)
    _check_seconds(params)
    _check_log_file(params["log_file"])
    lock = plans.choose_lock(params["lock"], cron_job)
    if lock:
        _check_lock(lock)
    if params["lock"]:
        _check_parallelism(spec, lock)
    return plans.JobRequest(
        namespace=namespace,
        prefix=prefix,
        key=params["key"] or params["run_id"] or secrets.token_hex(8),
        lock=lock,
        spec=plans.complete_spec(
            spec,
            deadline=params["deadline"],
            default_deadline=DEFAULT_DEADLINE,
            ttl=params["ttl_seconds"],
            lock=lock,
        ),
        labels={**labels, **_read_texts(params["labels"])},
        annotations={**annotations, **_read_texts(params["annotations"])},
        cron_job=cron_job,
    )


def _read_spec_like(client: Client, namespace: str, option: t.Mapping[str, t.Any]) -> Json:
    kind = option["kind"]
    workload = Workload.from_object(read_object(client, kind, namespace, option["name"]), kind)
    if not option["command"]:
        raise Refusal(
            obj="option from_workload.command",
            problem="it is empty, so that the workload itself would run",
            next_step="Give the command and its arguments as a list",
        )
    return plans.build_spec_like(
        workload,
        container=option["container"],
        image=option["image"],
        command=option["command"],
        args=option["args"],
    )


def _read_texts(option: t.Mapping[str, t.Any] | None) -> dict[str, str]:
    """Return labels or annotations as the API has them, which are texts, where YAML reads numbers and truths."""
    return {
        str(name): str(value).lower() if isinstance(value, bool) else str(value)
        for name, value in (option or {}).items()
    }


def _check_template(spec: Json) -> None:
    """Refuse a whole object where the spec of a Job is asked for, and fields that this module sets."""
    problem = ""
    if "metadata" in spec or "kind" in spec or "apiVersion" in spec:
        problem = "it is a whole object (it has apiVersion, kind or metadata)"
    elif not isinstance(spec.get("template"), dict):
        problem = f"it has no key template, but {', '.join(map(str, spec)) or 'nothing'}"
    if problem:
        raise Refusal(
            obj="option template",
            problem=problem,
            next_step="Give the spec of a Job: template with the pod's spec in it, and for example backoffLimit",
        )
    own = [name for name in ("suspend", "selector", "manualSelector") if name in spec]
    if own:
        raise Refusal(
            obj="option template",
            problem=f"it sets {', '.join(own)}, which belongs to this module or to Kubernetes",
            next_step=f"Remove {', '.join(own)}; a lock is given by the option lock",
        )


def _check_prefix(prefix: str | None) -> None:
    if not prefix:
        raise Refusal(
            obj="option name_prefix",
            problem="it is not set, and only a CronJob gives a name",
            next_step="Set name_prefix",
        )
    check_name("name_prefix", prefix)
    if len(prefix) > plans.LONGEST_PREFIX:
        raise Refusal(
            obj=f"option name_prefix {prefix!r}",
            problem=f"it has {len(prefix)} characters, and the name of a Job's pods has room for {plans.LONGEST_PREFIX}",
            next_step="Give a shorter one",
        )


def _check_lock(lock: str) -> None:
    check_name("lock", lock)
    if len(lock) > plans.LONGEST_LOCK:
        raise Refusal(
            obj=f"option lock {lock!r}",
            problem=f"it has {len(lock)} characters, and a label has at most {plans.LONGEST_LOCK}",
            next_step="Give a shorter one",
        )


def _check_parallelism(spec: Json, lock: str) -> None:
    """Refuse a Job that would run several pods at once under a lock that lets one run."""
    parallelism = spec.get("parallelism")
    if parallelism is not None and str(parallelism) != "1":
        raise Refusal(
            obj=f"option lock {lock!r}",
            problem=f"the Job's parallelism is {parallelism}, and under a lock one pod runs at a time",
            next_step="Set parallelism to 1 (completions may be more), or leave lock out",
        )


def _check_seconds(params: t.Mapping[str, t.Any]) -> None:
    for name, least in (("ttl_seconds", SHORTEST_TTL), ("deadline", 1), ("lock_timeout", 0)):
        value = params[name]
        if value is not None and value < least:
            raise Refusal(
                obj=f"option {name}",
                problem=f"it is {value:g}, and the least is {least}",
                next_step=f"Set it to {least} or more"
                + ("; a Job that is removed at once cannot tell how it ended" if name == "ttl_seconds" else ""),
            )


def _check_log_file(path: str | None) -> None:
    if path and not os.access(os.path.dirname(os.path.abspath(path)), os.W_OK):
        raise Refusal(
            obj=f"option log_file {path}",
            problem="its folder does not exist or may not be written to",
            next_step="Create the folder first, since the log could not be kept after the Job has run",
        )
