# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Decide from the inputs of the role health what it has to check on a host.

Private to lowtide.ops: do not import from other collections.

Pure. A kind of system is declared by the variables that it needs, each an input of the role or the site variable that
it falls back on. An input that is not set is None here, which an empty list is not.
"""

from __future__ import annotations

import typing as t
from datetime import timedelta

from ansible_collections.lowtide.ops.plugins.module_utils._common.amounts import parse_age
from ansible_collections.lowtide.ops.plugins.module_utils._common.errors import Refusal

Json = dict[str, t.Any]
Inputs = t.Mapping[str, t.Any]


class NothingDeclared(Refusal):
    """A host has nothing that could be checked, which is no mistake where another host of the play has."""


class Need(t.NamedTuple):
    """An input without which a kind cannot be checked: its ``key``, and the site variable that it falls back on."""

    key: str
    site: str | None = None

    @property
    def role_input(self) -> str:
        """The name of the role's input."""
        return f"health_{self.key}"

    @property
    def to_set(self) -> str:
        """The name of the variable that a site sets."""
        return self.site or self.role_input


KUBERNETES = Need("kubernetes_connection", "kubernetes_connection")
NAMESPACE = Need("namespace", "kubernetes_namespace")
WORKLOADS = Need("workloads", "tiers")
KAFKA = Need("kafka_connection", "kafka_connection")
CONSUMER_GROUPS = Need("consumer_groups", "consumer_groups")
POSTGRESQL = Need("postgresql_connection", "postgresql_connection")
S3 = Need("s3_connection", "s3_connection")
BUCKET = Need("bucket", "bucket")
BACKUPS = Need("backups")
ALERTS_URL = Need("alerts_url")
SECRETS = Need("secrets")

# Every kind that can be checked, in the order in which it is read.
NEEDS: dict[str, tuple[Need, ...]] = {
    "workloads": (KUBERNETES, NAMESPACE, WORKLOADS),
    "consumer_groups": (KAFKA, CONSUMER_GROUPS),
    "database": (POSTGRESQL,),
    "backups": (S3, BUCKET),
    "secrets": (KUBERNETES, NAMESPACE, SECRETS),
    "alerts": (ALERTS_URL,),
}
CONNECTIONS: dict[str, Need] = {
    "workloads": KUBERNETES,
    "consumer_groups": KAFKA,
    "database": POSTGRESQL,
    "backups": S3,
    "secrets": KUBERNETES,
    "alerts": ALERTS_URL,
}
WORKLOAD_KINDS = ("StatefulSet", "Deployment", "CronJob", "Job")
DEFAULT_BACKUP_AGE = "25h"
DEFAULT_VALIDITY = "30d"
DEFAULT_SERVER, DEFAULT_PORT = "localhost", 5432
"""What the modules of PostgreSQL connect to where nothing is said."""
GRACE_AFTER_DUE = timedelta(hours=1)
"""How much older than ``backup_max_age`` a backup may get, since a window makes it when it is due, and not earlier."""


def name_variable(need: Need, inputs: Inputs) -> str:
    """Return the name of the variable that gave this input its value: the role's input where it is set."""
    return need.role_input if need.role_input in inputs["set_inputs"] else need.to_set


def plan_checks(inputs: Inputs, host: str) -> Json:
    """Return what is to be checked on ``host``; raise a Refusal where that is nothing or cannot be meant."""
    checks = list_checks(inputs, host)
    plan: Json = {
        "checks": checks,
        "host": host,
        "unchecked": list_unchecked(inputs),
        "variables": {kind: name_variable(CONNECTIONS[kind], inputs) for kind in checks},
        "namespace": inputs["namespace"],
        "bucket": inputs["bucket"],
        "alerts_url": inputs["alerts_url"],
        "workloads": [],
        "stopped_workloads": [],
        "consumer_groups": [],
        "backups": [],
        "secrets": [],
        "database": None,
        "limits": dict(inputs["limits"]),
    }
    if "workloads" in checks:
        plan["stopped_workloads"] = list_stopped_workloads(inputs, host)
        plan["workloads"] = list_workloads(inputs, host)
        plan["workloads"] += [entry for entry in plan["stopped_workloads"] if entry not in plan["workloads"]]
    if "consumer_groups" in checks:
        plan["consumer_groups"] = list_consumer_groups(inputs, host)
    if "database" in checks:
        plan["database"] = inputs["postgresql_connection"].get("login_db")
    if "backups" in checks:
        plan["backups"] = list_backups(inputs, host)
    if "secrets" in checks:
        plan["secrets"] = list_secrets(inputs, host)
    return plan


def list_checks(inputs: Inputs, host: str) -> list[str]:
    """Return the kinds to check: those asked for, else every one that is declared."""
    asked = inputs["checks"]
    if asked is None:
        declared = [kind for kind in NEEDS if not list_missing(kind, inputs)]
        if not declared:
            partial = "; ".join(f"{kind} lacks {' and '.join(lacks)}" for kind, lacks in list_unchecked(inputs).items())
            raise NothingDeclared(
                obj=f"host {host}",
                problem="it declares nothing whose health could be checked" + (f" ({partial})" if partial else ""),
                next_step="Set what one of the checks needs ("
                + "; ".join(f"{kind}: {' and '.join(need.to_set for need in needs)}" for kind, needs in NEEDS.items())
                + "), or name another host for the step",
            )
        return declared
    unknown = [str(kind) for kind in asked if kind not in NEEDS]
    if unknown or not asked:
        raise Refusal(
            obj=f"host {host}: variable health_checks",
            problem=f"{', '.join(unknown)} is no kind of check" if unknown else "it is empty",
            next_step=f"Name at least one of {', '.join(NEEDS)}",
        )
    for kind in asked:
        missing = list_missing(kind, inputs)
        if missing:
            raise Refusal(
                obj=f"host {host}: variable health_checks",
                problem=f"it names {kind}, and {' and '.join(need.to_set for need in missing)} is not set",
                next_step=f"Set {' and '.join(show_alternatives(need) for need in missing)}, or take {kind} out of it",
            )
    return [kind for kind in NEEDS if kind in asked]


def list_unchecked(inputs: Inputs) -> dict[str, list[str]]:
    """Return, by kind that is declared in part, what is not set; nothing where health_checks names the kinds.

    A database of which no bucket is known declares no backups.
    """
    if inputs["checks"] is not None:
        return {}
    return {
        kind: [need.to_set for need in missing]
        for kind in NEEDS
        if (missing := list_missing(kind, inputs)) and is_begun(kind, inputs)
    }


def is_begun(kind: str, inputs: Inputs) -> bool:
    """Return whether something is set that only serves to declare this kind or its system."""
    needs = {"backups": (*NEEDS[kind], BACKUPS), "secrets": (SECRETS,)}.get(kind, NEEDS[kind])
    return any(inputs[need.key] is not None for need in needs)


def list_missing(kind: str, inputs: Inputs) -> list[Need]:
    """Return what a kind needs and is not set."""
    missing = [need for need in NEEDS[kind] if inputs[need.key] is None]
    if kind == "backups" and inputs["backups"] is None and inputs["postgresql_connection"] is None:
        missing.append(POSTGRESQL)
    return missing


def show_alternatives(need: Need) -> str:
    """Return the names by which an input can be set."""
    return f"{need.site} (or {need.role_input})" if need.site else need.role_input


def require_entries(need: Need, inputs: Inputs, host: str, what: str) -> list[t.Any]:
    """Return a list input, which must not be empty: nothing expected is never healthy."""
    variable = name_variable(need, inputs)
    value = inputs[need.key]
    if not isinstance(value, list) or not value:
        raise Refusal(
            obj=f"host {host}: variable {variable}",
            problem="it is empty" if isinstance(value, list) else f"it is {value!r}, not a list",
            next_step=f"List the {what} that must be healthy, or leave that kind out of health_checks",
        )
    return value


def list_workloads(inputs: Inputs, host: str) -> list[Json]:
    """Return what names every workload of the tiers, without other keys; a flat list is one tier."""
    variable = name_variable(WORKLOADS, inputs)
    tiers = require_entries(WORKLOADS, inputs, host, "workloads")
    entries = [entry for tier in tiers for entry in (tier if isinstance(tier, list) else [tier])]
    workloads = name_workloads(entries, variable, host)
    if not workloads:
        raise Refusal(
            obj=f"host {host}: variable {variable}",
            problem="its tiers are empty",
            next_step="List the workloads that must be healthy, or leave that kind out of health_checks",
        )
    return workloads


def list_stopped_workloads(inputs: Inputs, host: str) -> list[Json]:
    """Return what names every workload that is meant to be at 0 replicas, or suspended."""
    variable, entries = "health_stopped_workloads", inputs["stopped_workloads"]
    if not isinstance(entries, list):
        raise Refusal(
            obj=f"host {host}: variable {variable}",
            problem=f"it is {entries!r}, not a list",
            next_step="List the workloads that are meant to be at 0, or leave it out",
        )
    return name_workloads(entries, variable, host)


def name_workloads(entries: t.Sequence[t.Any], variable: str, host: str) -> list[Json]:
    """Return kind and name of the entries of a variable, of another API also what finds it; each once."""
    workloads: list[Json] = []
    for entry in entries:
        kind = entry.get("kind") if isinstance(entry, dict) else None
        is_other = kind not in WORKLOAD_KINDS
        if not kind or not entry.get("name") or (is_other and not entry.get("api_version")):
            raise Refusal(
                obj=f"host {host}: variable {variable}",
                problem=f"{entry!r} is no workload",
                next_step=(
                    f"Give each one a name and a kind ({', '.join(WORKLOAD_KINDS)},"
                    " or of another API, with its api_version)"
                ),
            )
        keys = ("kind", "name", "api_version", "plural") if is_other else ("kind", "name")
        workload = {key: str(entry[key]) for key in keys if entry.get(key)}
        if workload not in workloads:
            workloads.append(workload)
    return workloads


def list_consumer_groups(inputs: Inputs, host: str) -> list[Json]:
    """Return each group with its limit and states; one that is only named gets the common ones."""
    variable = name_variable(CONSUMER_GROUPS, inputs)
    groups: list[Json] = []
    for entry in require_entries(CONSUMER_GROUPS, inputs, host, "consumer groups"):
        given: Json = {"name": entry} if isinstance(entry, str) else entry
        group = {"max_lag": inputs["max_lag"], "states": ["stable"], **given} if isinstance(given, dict) else {}
        if not is_group(group):
            raise Refusal(
                obj=f"host {host}: variable {variable}",
                problem=f"{entry!r} is no consumer group",
                next_step="Give a name, or a dictionary of name, max_lag (a number) and states (a list)",
            )
        groups.append({**group, "max_lag": int(group["max_lag"])})
    return groups


def is_group(group: Json) -> bool:
    """Return whether a dictionary describes a consumer group and nothing else."""
    return (
        group.keys() == {"name", "max_lag", "states"}
        and bool(group["name"])
        and str(group["max_lag"]).isdecimal()
        and isinstance(group["states"], list)
        and bool(group["states"])
    )


def list_backups(inputs: Inputs, host: str) -> list[Json]:
    """Return the databases that must have a backup; without any, the database of the connection."""
    connection = inputs["postgresql_connection"] or {}
    default_age = choose_backup_age(inputs)
    if inputs["backups"] is None:
        own = {"database": connection.get("login_db"), "system_identifier": connection.get("system_identifier")}
        return [{**own, "hosts": list_servers(connection), "max_age": default_age}]
    backups: list[Json] = []
    for entry in require_entries(BACKUPS, inputs, host, "databases"):
        if not isinstance(entry, dict) or not entry.get("database"):
            raise Refusal(
                obj=f"host {host}: variable health_backups",
                problem=f"{entry!r} names no database",
                next_step="Give a dictionary of database, max_age and system_identifier",
            )
        cluster = entry.get("system_identifier")
        is_own = entry["database"] == connection.get("login_db") and (
            cluster is None or str(cluster) == str(connection.get("system_identifier"))
        )
        age = str(entry.get("max_age") or default_age)
        hosts = list_servers(connection) if is_own else []
        backups.append({"system_identifier": None, "hosts": hosts, **entry, "max_age": age})
    return backups


def list_secrets(inputs: Inputs, host: str) -> list[Json]:
    """Return the Secrets, each with how long its certificates must be valid, and how old its password may be."""
    found: list[Json] = []
    for entry in require_entries(SECRETS, inputs, host, "Secrets"):
        if not isinstance(entry, dict) or not entry.get("name"):
            raise Refusal(
                obj=f"host {host}: variable health_secrets",
                problem=f"{entry!r} names no Secret",
                next_step="Give a dictionary of name, valid_for and max_age",
            )
        found.append({"name": str(entry["name"])})
        for key, default in (("valid_for", DEFAULT_VALIDITY), ("max_age", None)):
            age = entry.get(key) or default
            found[-1][key] = (
                None if age is None else parse_age(str(age), option=f"health_secrets[].{key}").total_seconds()
            )
    return found


def list_servers(connection: Inputs) -> list[str]:
    """Return the servers of a connection, each ``host:port``: their backups count, none of a copy of them."""
    names = [name.strip() for name in str(connection.get("login_host") or DEFAULT_SERVER).split(",")]
    return [f"{name}:{connection.get('login_port') or DEFAULT_PORT}" for name in names if name]


def choose_backup_age(inputs: Inputs) -> str:
    """Return the age that is allowed: as set, else what the site's backups are due by, and an hour to make one."""
    if inputs["backup_max_age"]:
        return str(inputs["backup_max_age"])
    if inputs["backup_due_age"]:
        allowed = parse_age(str(inputs["backup_due_age"])) + GRACE_AFTER_DUE
        return f"{int(allowed.total_seconds())}s"
    return DEFAULT_BACKUP_AGE
