# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The connection options of the Patroni modules. Private to lowtide.ops: do not import from other collections.

Mirrored in ``plugins/doc_fragments/_patroni.py``.
"""

from __future__ import annotations

import typing as t

from .._common.errors import Refusal
from .client import Client, Unreadable
from .state import Cluster, Status

if t.TYPE_CHECKING:
    from ansible.module_utils.basic import AnsibleModule

CONNECTION: dict[str, dict[str, t.Any]] = {
    "urls": {"type": "list", "elements": "str", "required": True},
    "username": {"type": "str"},
    "password": {"type": "str", "no_log": True},
    "password_file": {"type": "path", "no_log": False},
    "ca_path": {"type": "path"},
    "client_cert": {"type": "path"},
    "client_key": {"type": "path", "no_log": False},
    "validate_certs": {"type": "bool", "default": True},
    "request_timeout": {"type": "float", "default": 5.0},
    "scope": {"type": "str"},
    "system_identifier": {"type": "str"},
}


def make_client(module: AnsibleModule, params: t.Mapping[str, t.Any]) -> Client:
    """Return the client that the options describe; warn where certificates are not verified."""
    if params["password"] and params["password_file"]:
        raise Refusal(
            obj="option password",
            problem="password_file is given as well",
            next_step="Give one of the two",
        )
    names = ("username", "password", "password_file", "ca_path", "client_cert", "client_key")
    client = Client(
        params["urls"],
        **{name: params[name] for name in names},
        validate_certs=params["validate_certs"],
        request_timeout=params["request_timeout"],
    )
    if not params["validate_certs"]:
        module.warn(f"The TLS certificate of {client.urls[0]} is not verified: validate_certs is false.")
    return client


def read_cluster(client: Client, params: t.Mapping[str, t.Any]) -> Cluster:
    """Return the cluster. Raises Refusal where the DCS is away, and for another cluster than the one that is meant."""
    try:
        cluster = client.read_cluster()
    except Unreadable as error:
        raise explain_unreadable(client, error) from error
    check_identity(cluster, params)
    return cluster


def explain_unreadable(client: Client, error: Unreadable) -> Refusal:
    """Return why no member gives the state of the cluster: it cannot be reached, or its DCS cannot."""
    answers = {url: client.read_status(url) for url in client.urls}
    alive = {url: status for url, status in answers.items() if not status.error}
    return refuse_without_dcs(alive, len(answers)) if alive else error


def check_dcs(cluster: Cluster) -> None:
    """Raise Refusal where no member reads the DCS: what they say of the cluster then is what they remember."""
    alive = {member.name: member.status for member in cluster.members if not member.status.error}
    if alive and all(cluster.has_lost_dcs(member) for member in cluster.members if member.name in alive):
        raise refuse_without_dcs(alive, len(cluster.members))


def refuse_without_dcs(alive: t.Mapping[str, Status], total: int) -> Refusal:
    """Return the refusal for members that answer and have no DCS."""
    place, status = min(alive.items(), key=lambda entry: entry[1].dcs_age or 0.0)
    age = "at a time that it does not say" if status.dcs_age is None else f"{status.dcs_age:.0f} s ago"
    return Refusal(
        obj=f"Patroni cluster {status.scope}",
        problem=f"{len(alive)} of {total} members answer, and none reads the DCS (etcd, Consul, ZooKeeper, Kubernetes);"
        f" {place} has seen it last {age}, so that nobody could take over the leader key",
        next_step="Bring the DCS back to a quorum first",
    )


def check_identity(cluster: Cluster, params: t.Mapping[str, t.Any]) -> None:
    """Raise Refusal where the cluster is not the one that the options name."""
    for option, actual in (("scope", cluster.scope), ("system_identifier", cluster.system_identifier)):
        expected = params.get(option)
        if expected and actual != expected:
            raise Refusal(
                obj=cluster.title,
                problem=f"its {option} is {actual or 'not known'}, and {expected} is meant",
                next_step=f"Correct urls, or {option}",
            )
