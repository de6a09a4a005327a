# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""List the systems that an inventory names, and report the identities to write into it.

Private to lowtide.ops: do not import from other collections.

Pure. First every distinct connection with the hosts that use it, without what it connects with; then, from the
answers, what to paste and which system could not be identified.
"""

from __future__ import annotations

import json
import typing as t

from ansible.errors import AnsibleError
from jinja2.exceptions import UndefinedError

from ansible_collections.lowtide.ops.plugins.module_utils._common.errors import Refusal

Json = dict[str, t.Any]
Variables = t.Mapping[str, t.Mapping[str, t.Any]]


class Kind(t.NamedTuple):
    """A kind of system: the site variable of its connection, and the key of its identity, None where it has none."""

    variable: str
    identity: str | None


KINDS: dict[str, Kind] = {
    "kubernetes": Kind("kubernetes_connection", "cluster_uid"),
    "kafka": Kind("kafka_connection", "cluster_id"),
    "postgresql": Kind("postgresql_connection", "system_identifier"),
    "s3": Kind("s3_connection", None),
}
SHOWN_HOSTS = 5


def list_connections(variables: Variables, hosts: t.Sequence[str]) -> dict[str, t.Any]:
    """Return, by kind, every distinct connection: the first host that has it, all of its hosts, what is declared of it.

    Connections that differ by their identity alone are one: the identity is what is asked for. Nothing of a connection
    itself is in the answer, since it may hold secrets. ``unreadable`` says which variables have no value, and why.
    """
    connections: dict[str, t.Any] = {"unreadable": []}
    for kind, (variable, _identity) in KINDS.items():
        distinct: dict[str, Json] = {}
        for host in hosts:
            try:
                add_connection(distinct, kind, host, variables)
            except (AnsibleError, UndefinedError, Refusal) as error:
                connections["unreadable"].append(f"{variable} of {host}: {' '.join(str(error).split())}")
        connections[kind] = [{**entry, "where": name_hosts(entry["hosts"], hosts)} for entry in distinct.values()]
    return connections


def add_connection(distinct: dict[str, Json], kind: str, host: str, variables: Variables) -> None:
    """Add the host to the entry of its connection, if it has one of this kind."""
    variable, identity = KINDS[kind]
    connection = variables[host].get(variable)
    if connection is None:
        return
    check_connection(variable, host, connection)
    bucket = variables[host].get("bucket") if kind == "s3" else None
    options = {name: value for name, value in connection.items() if name != identity}
    key = json.dumps([options, bucket], sort_keys=True, default=str)
    entry = distinct.setdefault(key, {"host": host, "hosts": [], "declared": {}, "bucket": bucket, "prefix": ""})
    entry["hosts"].append(host)
    # Where one of them is the controller itself, nothing else has to be reached to ask.
    if not is_local(variables[entry["host"]]) and is_local(variables[host]):
        entry["host"] = host
    entry["prefix"] = entry["prefix"] or variables[host].get("backup_prefix") or ""
    declared = connection.get(identity) if identity else None
    if declared:
        entry["declared"].setdefault(str(declared), []).append(host)


def check_connection(variable: str, host: str, connection: t.Any) -> None:
    """Refuse a connection that is no dictionary."""
    if not isinstance(connection, t.Mapping):
        raise Refusal(
            obj=f"host {host}: variable {variable}",
            problem=f"it is a {type(connection).__name__}, not a dictionary",
            next_step=f"Set {variable} to connection options",
        )


def is_local(variables: t.Mapping[str, t.Any]) -> bool:
    """Return whether a host's tasks run on the controller."""
    return variables.get("ansible_connection") == "local"


def report_identities(connections: t.Mapping[str, t.Any], answers: t.Mapping[str, t.Any]) -> Json:
    """Return blocks to paste, each with its hosts, notes, and in ``failures`` what could not be identified."""
    blocks: dict[str, Json] = {}
    notes: list[str] = []
    failures: list[str] = list(connections["unreadable"])
    for kind, (variable, _identity) in KINDS.items():
        for number, entry in enumerate(connections[kind]):
            answer, where = find_answer(answers.get(kind), number), entry["where"]
            if answer.get("failed") or answer.get("unreachable") or not answer:
                failures.append(f"{variable} of {where}: {explain_failure(entry, answer)}")
                continue
            identity = read_identity(kind, answer)
            if identity is not None:
                blocks.setdefault(where, {})[variable] = identity
            notes += list_notes(kind, entry, identity, where)
    if not any(connections.values()):
        failures.append(
            f"no host sets {', '.join(kind.variable for kind in KINDS.values())}. Set those of this site's systems."
        )
    return {
        "blocks": [{"hosts": where, "paste": block} for where, block in blocks.items()],
        "notes": notes,
        "failures": failures,
        "summary": summarize_failures(failures),
    }


def find_answer(registered: t.Any, number: int) -> Json:
    """Return the result of the loop's item ``number``; that of the task where it has failed before its loop."""
    answer = registered or {}
    results = answer.get("results")
    if results is None:
        return dict(answer)
    return dict(results[number]) if number < len(results) else {}


def explain_failure(entry: Json, answer: t.Mapping[str, t.Any]) -> str:
    """Return why a system is not identified: the module's message, or that its host cannot be reached."""
    message = " ".join(str(answer.get("msg") or "it was not asked").split())
    if not answer.get("unreachable"):
        return message
    return (
        f"host {entry['host']}, which is to ask it, cannot be reached: {message.rstrip('.')}."
        " Correct how Ansible connects to it, or set ansible_connection: local if the controller reaches the system."
    )


def read_identity(kind: str, answer: t.Mapping[str, t.Any]) -> Json | None:
    """Return the key and value to paste, None for a system that has no identity."""
    identity = KINDS[kind].identity
    return None if identity is None else {identity: str(answer[identity])}


def list_notes(kind: str, entry: Json, identity: Json | None, where: str) -> list[str]:
    """Return what is to be said besides: another identity is declared, or there is none to declare."""
    variable = KINDS[kind].variable
    if identity is None:
        nothing = f"{variable} of {where}: S3 has no identity beyond endpoint and bucket, so there is nothing to paste."
        bucket = entry.get("bucket")
        if not bucket:
            return [f"{nothing} The variable bucket is not set, so it was not asked."]
        return [f"{nothing} Bucket {bucket} can be listed with these credentials."]
    ((key, value),) = identity.items()
    return [
        f"{variable}.{key} of {', '.join(declaring)} is {declared} in the inventory, and the system says {value}."
        " Paste it if this is the system that is meant, else correct the connection."
        for declared, declaring in entry["declared"].items()
        if declared != value
    ]


def name_hosts(some: t.Sequence[str], every: t.Sequence[str]) -> str:
    """Return the hosts that share a connection, in words."""
    if len(some) == len(every) and len(some) > 1:
        return f"all {len(every)} hosts"
    shown = ", ".join(some[:SHOWN_HOSTS])
    rest = len(some) - SHOWN_HOSTS
    return f"{shown} and {rest} more" if rest > 0 else shown


def summarize_failures(failures: t.Sequence[str]) -> str:
    """Return the message of the run's failure, empty when there was none."""
    if not failures:
        return ""
    return "\n".join([f"{len(failures)} of the declared systems could not be identified:", *failures])
