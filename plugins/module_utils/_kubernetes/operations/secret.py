# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The work of k8s_secret: keys of one Secret, declared one by one; what is not named stays as it is.

Private to lowtide.ops: do not import from other collections.
"""

from __future__ import annotations

import secrets
import typing as t

from ..._common.errors import OpsError, Refusal
from ..._common.outcome import Outcome, PlanItem
from ..._common.text import join_some
from ..arguments import CONNECTION_SPEC
from ..client import Client
from ..cluster import check_identity, connect, disconnect
from ..errors import NotFound
from ..fields import Json
from ..resources import check_name, collection_path, find_resource, format_title, object_path
from ..reviews import Right, require_rights
from ..secrets import (
    KIND,
    Secret,
    SecretChange,
    check_key,
    encode_value,
    find_credential_blocker,
    find_secret_owners,
    refuse_immutable,
    write_secret,
)

if t.TYPE_CHECKING:
    from ansible.module_utils.basic import AnsibleModule

GENERATED_BYTES = 32
SECRET_SPEC: dict[str, dict[str, t.Any]] = {
    **CONNECTION_SPEC,
    "namespace": {"type": "str", "required": True},
    "name": {"type": "str", "required": True},
    "data": {"type": "dict", "default": {}, "no_log": True},
    "generate": {"type": "list", "elements": "str", "default": []},
    "remove": {"type": "list", "elements": "str", "default": []},
    "type": {"type": "str", "default": "Opaque"},
    "create": {"type": "bool", "default": True},
    "guards": {"type": "list", "elements": "str", "choices": ["gitops"], "default": ["gitops"]},
    "timeout": {"type": "float", "default": 60.0},
    "run_id": {"type": "str"},
}


def run_secret(module: AnsibleModule, outcome: Outcome) -> None:
    """Read, plan, apply unless check mode, report."""
    values = check_options(module.params)
    client = connect(module, seconds=module.params["timeout"])
    try:
        outcome.facts["run_id"] = client.run_id
        check_identity(client, module.params["cluster_uid"])
        _ensure(module, outcome, client, values)
    finally:
        disconnect(module, outcome, client)


def check_options(params: t.Mapping[str, t.Any]) -> dict[str, str]:
    """Return the declared values; a Refusal for what cannot be meant."""
    check_name("name", params["name"])
    named = [*params["data"], *params["generate"], *params["remove"]]
    for key in named:
        check_key("data, generate or remove", str(key))
    repeated = sorted({str(key) for key in named if named.count(key) > 1})
    if repeated:
        raise Refusal(
            obj=f"key {join_some(repeated)}",
            problem="it is named twice among data, generate and remove",
            next_step="Name each key once",
        )
    if not named:
        raise Refusal(
            obj="options data, generate and remove",
            problem="all of them are empty",
            next_step="Declare at least one key",
        )
    for key, value in params["data"].items():
        if not isinstance(value, str) or not value:
            raise Refusal(
                obj=f"option data: {key}",
                problem="its value is empty or no text",
                next_step="Give text that is not empty; to remove the key, name it in remove",
            )
    return {str(key): value for key, value in params["data"].items()}


def plan_secret(secret: Secret | None, values: t.Mapping[str, str], params: t.Mapping[str, t.Any]) -> dict[str, str]:
    """Return what is to be done by key: ``add``, ``change``, ``generate`` or ``remove``; pure. Values are not in it."""
    present = secret.values if secret else {}
    actions = {key: "change" if key in present else "add" for key in values if present.get(key) != values[key].encode()}
    actions |= {key: "generate" for key in params["generate"] if not present.get(key)}
    actions |= {key: "remove" for key in params["remove"] if key in present}
    return actions


def _ensure(module: AnsibleModule, outcome: Outcome, client: Client, values: dict[str, str]) -> None:
    params = module.params
    secret = _find(module, client)
    title = format_title(KIND, params["namespace"], params["name"])
    if secret is None and not params["create"]:
        raise Refusal(obj=title, problem="it does not exist", next_step="Create it, or set create to true")
    if secret is not None and secret.raw.get("type", "Opaque") != params["type"] and params["type"] != "Opaque":
        raise Refusal(
            obj=title,
            problem=f"its type is {secret.raw.get('type')}, not {params['type']}, and a type cannot be changed",
            next_step="Correct type, or make a Secret of another name",
        )
    actions = plan_secret(secret, values, params)
    _describe(outcome, secret, title, actions, check_mode=module.check_mode)
    if not actions:
        return
    if secret is not None:
        refuse_immutable(secret)
        _refuse_owned(outcome, secret, actions, params["guards"])
    if module.check_mode:
        _refuse_missing_right(client, params, exists=secret is not None)
        outcome.changed = True
        return
    new = {key: secrets.token_urlsafe(GENERATED_BYTES) for key, action in actions.items() if action == "generate"}
    module.no_log_values.update({*new.values(), *map(encode_value, new.values())})
    changed: dict[str, str | None] = {key: {**values, **new}.get(key) for key in actions}
    if secret is None:
        _create(client, params, {key: text for key, text in changed.items() if text is not None}, title)
    else:
        write_secret(client, secret, SecretChange(changed, {}))


def _find(module: AnsibleModule, client: Client) -> Secret | None:
    namespace, name = module.params["namespace"], module.params["name"]
    try:
        obj = client.get(object_path(KIND, namespace, name), obj=format_title(KIND, namespace, name))
    except NotFound:
        return None
    secret = Secret.from_object(obj)
    module.no_log_values.update(
        text for key in (*module.params["data"], *module.params["generate"]) if (text := secret.get_text(key))
    )
    return secret


def _refuse_owned(outcome: Outcome, secret: Secret, actions: t.Iterable[str], guards: t.Collection[str]) -> None:
    rotated = find_credential_blocker(secret, actions)
    outcome.blockers += [rotated] if rotated else []
    outcome.blockers += find_secret_owners(secret, actions) if "gitops" in guards else []
    if outcome.blockers:
        blocker = outcome.blockers[0]
        raise Refusal(obj=secret.title, problem=blocker.what, next_step=blocker.next_step)


def _refuse_missing_right(client: Client, params: t.Mapping[str, t.Any], *, exists: bool) -> None:
    verb, name = ("patch", params["name"]) if exists else ("create", "")
    missing = require_rights(client, [Right(verb, find_resource(KIND), params["namespace"], name)])
    if missing:
        raise Refusal(
            obj=format_title(KIND, params["namespace"], params["name"]),
            problem=f"this account may not {missing[0].rule}",
            next_step="Grant it the Role lowtide-credentials of docs/kubernetes-rights.yml, and create where it is to be made",
        )


def _create(client: Client, params: t.Mapping[str, t.Any], values: dict[str, str], title: str) -> None:
    """Create it with exactly these keys; one that somebody else has made meanwhile is not written over."""
    namespace, name = params["namespace"], params["name"]
    body: Json = {
        "apiVersion": "v1",
        "kind": KIND,
        "metadata": {"name": name, "namespace": namespace},
        "type": params["type"],
        "data": {key: encode_value(text) for key, text in values.items()},
    }
    path = object_path(KIND, namespace, name)
    obj, _is_ours = client.create_named(collection_path(KIND, namespace), path, body, obj=title)
    made = Secret.from_object(obj)
    if any(made.get_text(key) != text for key, text in values.items()):
        raise OpsError(
            obj=title, problem="another client has made it at the same time, with other values", next_step="Run again"
        )


def _describe(
    outcome: Outcome, secret: Secret | None, title: str, actions: t.Mapping[str, str], *, check_mode: bool
) -> None:
    """Add plan, diff and summary, all of them without values."""
    for key, action in sorted(actions.items()):
        outcome.plan.append(PlanItem(title, f"{action} key {key}", "declared", reversible=False))
    before = sorted(secret.values) if secret else []
    after = sorted((set(before) | set(actions)) - {key for key, action in actions.items() if action == "remove"})
    outcome.before = dict.fromkeys(before, "a value")
    outcome.after = {key: "another value" if actions.get(key) == "change" else "a value" for key in after}
    outcome.facts |= {"secret": title, "keys": after, "created": secret is None}
    outcome.summary = summarize_secret(title, actions, check_mode=check_mode, creates=secret is None)
    outcome.evidence = [f"{title}: keys {', '.join(after) or 'none'}"]


def summarize_secret(title: str, actions: t.Mapping[str, str], *, check_mode: bool, creates: bool) -> str:
    """Return the one line that says which keys are changed."""
    if not actions:
        return f"{title} has every declared key as it is declared"
    verb = "create" if creates else "change"
    done = f"would {verb}" if check_mode else f"{verb}d"
    return f"{done} {title}: {', '.join(f'{action} {key}' for key, action in sorted(actions.items()))}"
