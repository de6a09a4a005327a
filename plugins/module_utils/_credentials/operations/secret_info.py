# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The work of k8s_secret_info: what is known of Secrets without their values.

Private to lowtide.ops: do not import from other collections.
"""

from __future__ import annotations

import typing as t

from ..._common.errors import Refusal
from ..._common.outcome import Outcome
from ..._common.text import format_count, format_duration
from ..._common.timestamps import format_utc
from ..._kubernetes.arguments import CONNECTION_SPEC
from ..._kubernetes.client import Client
from ..._kubernetes.cluster import check_identity, connect, disconnect
from ..._kubernetes.errors import NotFound
from ..._kubernetes.resources import check_name, format_title, object_path
from ..._kubernetes.secrets import KIND, Secret
from ..certificates import read_certificates
from ..notes import REVERTING, read_note
from ..plan import compute_age

if t.TYPE_CHECKING:
    from ansible.module_utils.basic import AnsibleModule

INFO_SPEC: dict[str, dict[str, t.Any]] = {
    **CONNECTION_SPEC,
    "namespace": {"type": "str", "required": True},
    "names": {"type": "list", "elements": "str", "required": True},
    "timeout": {"type": "float", "default": 60.0},
}

Json = dict[str, t.Any]


def run_secret_info(module: AnsibleModule, outcome: Outcome) -> None:
    """Read each Secret and report its keys, its certificates, and the age of its credential."""
    names = [check_name("names", name) for name in module.params["names"]]
    if not names:
        raise Refusal(obj="option names", problem="it is empty", next_step="Name at least one Secret")
    client = connect(module, seconds=module.params["timeout"])
    try:
        check_identity(client, module.params["cluster_uid"])
        found = [describe_secret(client, module.params["namespace"], name) for name in dict.fromkeys(names)]
    finally:
        disconnect(module, outcome, client)
    outcome.facts["secrets"] = found
    outcome.evidence = [line for entry in found for line in list_lines(entry)]
    outcome.summary = f"{format_count(sum(entry['exists'] for entry in found), 'Secret')} of {len(found)} found"


def describe_secret(client: Client, namespace: str, name: str) -> Json:
    """Return what is known of a Secret; ages by the API server's clock."""
    title = format_title(KIND, namespace, name)
    empty: Json = {"name": name, "title": title, "keys": [], "certificates": [], "credential": None}
    try:
        secret = Secret.from_object(client.get(object_path(KIND, namespace, name), obj=title))
    except NotFound:
        return {**empty, "exists": False}
    now = client.read_server_clock()
    certificates = [
        {
            "key": certificate.key,
            "subject": certificate.subject,
            "not_before": format_utc(certificate.not_before.timestamp()),
            "not_after": format_utc(certificate.not_after.timestamp()),
            "seconds_left": round(certificate.not_after.timestamp() - now),
        }
        for certificate in read_certificates(secret.values, title=title)
    ]
    note = read_note(secret.annotations, title=title)
    credential = None
    if note is not None:
        # How old the password is to which a rotation goes back is not known.
        age = round(compute_age(note, now=now)) if note.rotated_at and note.phase != REVERTING else None
        rotated_at = note.rotated_at or None
        credential = {"phase": note.phase, "user": note.user, "rotated_at": rotated_at, "age_seconds": age}
    keys = sorted(secret.values)
    return {**empty, "exists": True, "keys": keys, "certificates": certificates, "credential": credential}


def list_lines(entry: Json) -> list[str]:
    """Return the lines that say it."""
    if not entry["exists"]:
        return [f"{entry['title']}: it does not exist"]
    lines = [f"{entry['title']}: keys {', '.join(entry['keys']) or 'none'}"]
    for certificate in entry["certificates"]:
        left = certificate["seconds_left"]
        until = f"valid for {format_duration(left)}" if left > 0 else f"expired {format_duration(-left)} ago"
        lines.append(f"{entry['title']}, key {certificate['key']}: {certificate['subject']}, {until}")
    credential = entry["credential"]
    if credential:
        age = "" if credential["age_seconds"] is None else f", {format_duration(credential['age_seconds'])} old"
        lines.append(f"{entry['title']}: credential of {credential['user']}{age}, {credential['phase']}")
    return lines
