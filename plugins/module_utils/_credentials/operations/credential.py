# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The work of pg_credential: a password of PostgreSQL that clients get from a Kubernetes Secret, and its replacement.

Private to lowtide.ops: do not import from other collections.
"""

from __future__ import annotations

import typing as t
import zlib

from ..._common.errors import Refusal
from ..._common.outcome import Outcome
from ..._common.retry import Backoff, Deadline
from ..._kubernetes.arguments import CONNECTION_SPEC as KUBERNETES_SPEC
from ..._kubernetes.cluster import check_identity, connect, disconnect
from ..._kubernetes.resources import check_name
from ..._kubernetes.secrets import check_key
from ..._postgresql.connection import CONNECTION_SPEC, Session, new_run_id, settings_from, translate_errors
from ..._postgresql.locks import ClusterLock, read_holders
from ..clients import SESSION_GRACE
from ..notes import METHODS, TWO_ROLES
from ..plan import check_method
from .reversion import Reversion
from .rotation import Rotation

if t.TYPE_CHECKING:
    from ansible.module_utils.basic import AnsibleModule

ROTATED, RETIRED, BACK = "rotated", "finished", "reverted"

LOGIN_SPEC: dict[str, dict[str, t.Any]] = {
    "host": {"type": "str", "required": True},
    "port": {"type": "int", "default": 5432},
    "database": {"type": "str"},
    "ssl_mode": {"type": "str", "choices": CONNECTION_SPEC["ssl_mode"]["choices"]},
    "ca_cert": {"type": "path"},
}
CREDENTIAL_SPEC: dict[str, dict[str, t.Any]] = {
    **CONNECTION_SPEC,
    "state": {"type": "str", "choices": [ROTATED, RETIRED, BACK], "default": ROTATED},
    "kubernetes_connection": {"type": "dict", "default": {}, "options": KUBERNETES_SPEC},
    "namespace": {"type": "str", "required": True},
    "secret": {"type": "str", "required": True, "no_log": False},
    "username_key": {"type": "str", "default": "username", "no_log": False},
    "password_key": {"type": "str", "default": "password", "no_log": False},
    "templates": {"type": "dict", "default": {}},
    "method": {"type": "str", "choices": list(METHODS), "default": TWO_ROLES},
    "roles": {"type": "list", "elements": "str", "required": True},
    "owner": {"type": "str"},
    "accept_interruption": {"type": "bool", "default": False},
    "max_age": {"type": "str", "default": "90d"},
    "guards": {"type": "list", "elements": "str", "choices": ["gitops"], "default": ["gitops"]},
    "logins": {"type": "list", "elements": "dict", "default": [], "options": LOGIN_SPEC},
    "timeout": {"type": "float", "default": 120.0},
    "run_id": {"type": "str"},
}


def run_credential(module: AnsibleModule, outcome: Outcome) -> None:
    """Read, plan, apply unless check mode, prove, report."""
    params = module.params
    check_method(params["method"], params["roles"], params["owner"])
    _check_keys(params)
    settings = settings_from(params)
    kubernetes = {**params["kubernetes_connection"], "namespace": params["namespace"], "run_id": params["run_id"]}
    client = connect(module, seconds=params["timeout"], params=kubernetes)
    try:
        outcome.facts["run_id"] = client.run_id
        check_identity(client, kubernetes["cluster_uid"])
        with (
            translate_errors(settings.target),
            Session(settings, module="pg_credential", run_id=new_run_id()) as session,
        ):
            _lock(session, params["roles"], check_mode=module.check_mode)
            if params["state"] == BACK:
                Reversion(module, outcome, client, session).revert()
            elif params["state"] == ROTATED:
                Rotation(module, outcome, client, session).rotate()
            else:
                Rotation(module, outcome, client, session).finish()
    finally:
        write_attempted = outcome.write_attempted
        disconnect(module, outcome, client)
        outcome.write_attempted = outcome.write_attempted or write_attempted


def _check_keys(params: t.Mapping[str, t.Any]) -> None:
    check_name("secret", params["secret"])
    for option in ("username_key", "password_key"):
        check_key(option, params[option])
    for key, template in params["templates"].items():
        check_key("templates", str(key))
        if not isinstance(template, str) or "{password}" not in template:
            raise Refusal(
                obj=f"option templates: {key}",
                problem="it does not contain {password}, so it would not follow the credential",
                next_step="Write {username} and {password} where they belong, or leave this key out",
            )
    keys = [params["username_key"], params["password_key"], *params["templates"]]
    if len(set(keys)) < len(keys):
        raise Refusal(obj="keys of the Secret", problem="one key is named twice", next_step="Give each its own key")


def find_role_key(role: str) -> int:
    """Return the key of the lock of rotations of a role: beyond all of LockKey and below those of pg_restore."""
    return zlib.crc32(role.encode()) & 0x1FFFFFFF | 0x20000000


def _lock(session: Session, roles: t.Sequence[str], *, check_mode: bool) -> None:
    """Keep other runs away from these roles for as long as this session lives; in check mode only look for one.

    Roles are of all databases, so a run through another one counts. The server may take a moment to see that a run
    was killed.
    """
    keys, deadline, backoff = sorted({find_role_key(role) for role in roles}), Deadline(SESSION_GRACE), Backoff()
    while True:
        if not check_mode and _acquire(session, keys):
            return
        holders = read_holders(session, *keys, anywhere=True)
        if check_mode and not holders:
            return
        if deadline.passed:
            raise Refusal(
                obj=session.settings.target,
                problem="another rotation of one of these roles is at work: "
                + (holders[0].description if holders else "it has ended this moment"),
                next_step="Run again when it has ended",
            )
        deadline.pause(backoff.take_pause())


def _acquire(session: Session, keys: t.Sequence[int]) -> bool:
    """Acquire all of the locks, or none of them."""
    acquired: list[ClusterLock] = []
    for lock in (ClusterLock(session, key) for key in keys):
        if not lock.try_acquire():
            for other in acquired:
                other.release()
            return False
        acquired.append(lock)
    return True
