# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The objects of the stand-in for AWX, and what may become one; see ``awx_stand_in``."""

from __future__ import annotations

import copy
import json
import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from .awx_credential_types import check_injectors, check_inputs_schema, complete_inputs, keep_inputs
from .awx_launches import check_prompts, launch_job, launch_workflow
from .awx_surveys import Json, RefusedError, check_survey, parse_text, read_rule
from .awx_updates import UPDATED, AwxUpdates

DATA = Path(__file__).with_name("awx_data")
NAMED = {
    "job_templates": ("JobTemplate with this (name, organization) combination", ("name", "organization")),
    "workflow_job_templates": (
        "WorkflowJobTemplate with this (name, organization) combination",
        ("name", "organization"),
    ),
    "projects": ("Project with this (name, organization) combination", ("name", "organization")),
    "inventory_sources": ("InventorySource with this (name, inventory) combination", ("name", "inventory")),
    "inventories": ("Inventory with this Name and Organization", ("name", "organization")),
    "organizations": ("Organization with this Name", ("name",)),
    "teams": ("Team with this Organization and Name", ("name", "organization")),
    "labels": ("Label with this Name and Organization", ("name", "organization")),
    "execution_environments": ("Execution environment with this Name", ("name",)),
    "notification_templates": ("Notification template with this Organization and Name", ("name", "organization")),
    "hosts": ("Host with this Name and Inventory", ("name", "inventory")),
    "groups": ("Group with this Name and Inventory", ("name", "inventory")),
    "credentials": (
        "Credential with this Organization and Name and Credential type",
        ("name", "organization", "credential_type"),
    ),
    "credential_types": ("Credential type with this Name and Kind", ("name", "kind")),
    "schedules": ("Schedule with this Unified job template and Name", ("name", "unified_job_template")),
    "workflow_job_template_nodes": (
        "Workflow job template node with this Identifier and Workflow job template",
        ("identifier", "workflow_job_template"),
    ),
}
"""What two objects of a kind may not have in common, and how that is said."""
UNIFIED = ("projects", "inventory_sources", "job_templates", "workflow_job_templates", "workflow_approval_templates")
"""Kinds that share one row of ids."""
POINTERS = {
    "project": "projects",
    "source_project": "projects",
    "inventory": "inventories",
    "organization": "organizations",
    "team": "teams",
    "credential": "credentials",
    "webhook_credential": "credentials",
    "signature_validation_credential": "credentials",
    "credential_type": "credential_types",
    "execution_environment": "execution_environments",
    "default_environment": "execution_environments",
    "workflow_job_template": "workflow_job_templates",
    "unified_job_template": "unified_job_templates",
}
LINKS = ("success_nodes", "failure_nodes", "always_nodes")
JSON_TEXTS = ("extra_vars", "variables", "source_vars")
TAKEN_KINDS = ("ssh", "vault", "cloud", "net", "kubernetes")
"""Kinds of credentials that a job takes."""
NO_PAGE = (
    '\n<!doctype html>\n<html lang="en">\n<head>\n  <title>Not Found</title>\n</head>\n<body>\n'
    "  <h1>Not Found</h1><p>The requested resource was not found on this server.</p>\n</body>\n</html>\n"
)
FRESH: Json = {
    "status": "never updated",
    "last_job_run": None,
    "last_job_failed": False,
    "next_job_run": None,
    "last_update_failed": False,
    "last_updated": None,
    "scm_revision": "",
    "local_path": "",
    "managed": False,
    "namespace": None,
    "kind": "",
    "custom_virtualenv": None,
    "unified_job_template": None,
    "has_inventory_sources": False,
    "pending_deletion": False,
    "capacity": 0,
    "consumed_capacity": 0,
    "percent_capacity_remaining": 0.0,
    "jobs_running": 0,
    "jobs_total": 0,
    "instances": 0,
    "policy_instance_list": [],
}
"""Fields of a new object that nobody gives."""


def load(name: str) -> Any:
    """Return a file of what was recorded."""
    return json.loads((DATA / f"{name}.json").read_text(encoding="utf-8"))


OPTIONS: Json = load("options")
OPTIONS["teams"] = {
    "name": {"type": "string", "required": True, "max_length": 512},
    "description": {"type": "string", "default": ""},
    "organization": {"type": "id", "required": True},
}
OPTIONS["workflow_approval_templates"] = OPTIONS["workflow_node_create_approval_template"]


class AwxObjects(AwxUpdates):
    """Answers requests; ``kinds`` has all objects, ``writes`` what was sent, ``secrets`` what credentials hold.

    ``folders`` are the playbooks below PROJECTS_ROOT and of repositories, by folder or address.
    """

    def __init__(self, folders: dict[str, list[str]] | None = None) -> None:
        super().__init__()
        self.folders = folders or {}
        self.writes: list[tuple[str, str, Any]] = []
        self.kinds: dict[str, dict[int, Json]] = {kind: {} for kind in OPTIONS if kind in NAMED or kind in UNIFIED}
        self.kinds |= {"workflow_approval_templates": {}, "instance_groups": {}, "jobs": {}, "roles": {}, "users": {}}
        self.kinds["workflow_jobs"] = {}
        self.surveys: dict[tuple[str, int], Json] = {}
        self.secrets: dict[tuple[int, str], Json] = {}
        self.associated: dict[tuple[str, int, str], list[int]] = {}
        self._shapes: dict[str, Json] = {}
        self._roles: dict[str, list[str]] = {}
        self._lock = threading.Lock()
        for entry in load("objects"):
            kind = entry["object"]["url"].split("/")[3]
            self._shapes.setdefault(kind, entry["object"])
            self._roles.setdefault(kind, entry["object_roles"])
        for managed in load("credential-types")["results"]:
            self.kinds["credential_types"][managed["id"]] = self.finish(
                "credential_types", {"description": "", **managed}
            )

    # --- what a test looks at and changes ---------------------------------------------------------------------------

    def find(self, kind: str, name: str) -> Json:
        """Return the object of this name."""
        (found,) = [obj for obj in self.kinds[kind].values() if name in (obj.get("name"), obj.get("identifier"))]
        return found

    def list_associated(self, kind: str, name: str, what: str) -> list[str]:
        """Return the names of what an object has, such as its credentials."""
        ids = self.associated.get((kind, self.find(kind, name)["id"], what), [])
        other = "notification_templates" if what.startswith("notification") else what
        return [self.kinds[other][number]["name"] for number in ids]

    def snapshot(self) -> Any:
        """Return all that is kept, for ``restore``."""
        return copy.deepcopy((self.kinds, self.surveys, self.secrets, self.associated, self.updated))

    def restore(self, kept: Any) -> None:
        """Take back all that was done after ``snapshot``."""
        self.kinds, self.surveys, self.secrets, self.associated, self.updated = copy.deepcopy(kept)

    def keep(self, kind: str, obj: Json) -> Json:
        """Keep an object that was not made by a request."""
        self.kinds[kind][obj["id"]] = self.finish(kind, obj)
        return self.kinds[kind][obj["id"]]

    def list_unified(self) -> dict[int, Json]:
        """Return all that can be launched."""
        return {number: obj for kind in UNIFIED for number, obj in self.kinds[kind].items()}

    # --- requests ---------------------------------------------------------------------------------------------------

    def ask(self, method: str, address: str, body: Any = None) -> tuple[int, Any]:
        """Answer a request: status and body."""
        parts = urlsplit(address)
        path = [part for part in unquote(parts.path).removeprefix("/api/v2/").split("/") if part]
        with self._lock:
            if method in ("POST", "PATCH", "PUT", "DELETE") and path[0] != "tokens":
                self.writes.append((method, parts.path, copy.deepcopy(body)))
            try:
                return self._route(method, path, dict(parse_qsl(parts.query)), body)
            except RefusedError as refused:
                return refused.status, refused.body

    def _route(self, method: str, path: list[str], query: dict[str, str], body: Any) -> tuple[int, Any]:
        kind, rest = path[0], path[1:]
        if kind == "stand_in":
            return (200, {"writes": len(self.writes)}) if method == "GET" else (204, None)
        of_itself = self.answer_of_itself(method, path, body)
        if of_itself is not None:
            return of_itself
        if kind == "workflow_approval_templates" and not rest:
            raise RefusedError(NO_PAGE, 404)
        if not rest:
            return self._list(kind, query) if method == "GET" else (201, self._create(kind, body or {}))
        if rest[0] == "preview" and kind == "schedules":
            return 200, read_rule(body["rrule"])
        objects = self.list_unified() if kind == "unified_job_templates" else self.kinds.get(kind, {})
        obj = objects.get(int(rest[0]))
        if obj is None:
            raise RefusedError({"detail": "Not found."}, 404)
        if len(rest) == 1:
            return self._handle_object(method, kind, obj, body)
        return self._handle_part(method, kind, obj, rest[1], body)

    def _list(self, kind: str, query: dict[str, str]) -> tuple[int, Any]:
        if kind != "unified_job_templates" and kind not in self.kinds:
            raise RefusedError(NO_PAGE, 404)
        objects = self.list_unified() if kind == "unified_job_templates" else self.kinds[kind]
        wanted = {key: value for key, value in query.items() if key not in ("page", "page_size", "order_by")}
        label = wanted.pop("labels__id", None)
        type_name = wanted.pop("credential_type__name", None)
        states = wanted.pop("status__in", None)
        either = {key.removeprefix("or__"): wanted.pop(key) for key in list(wanted) if key.startswith("or__")}
        found = [
            self.show(obj)
            for obj in objects.values()
            if all(str(obj.get(key)) == value for key, value in wanted.items())
            and (type_name is None or self.kinds["credential_types"][obj["credential_type"]]["name"] == type_name)
            and (states is None or obj["status"] in states.split(","))
            and (label is None or int(label) in self.associated.get((kind, obj["id"], "labels"), []))
            and (not either or any(str(obj.get(key)) == value for key, value in either.items()))
        ]
        return 200, {"count": len(found), "next": None, "previous": None, "results": found}

    def _handle_object(self, method: str, kind: str, obj: Json, body: Any) -> tuple[int, Any]:
        if method == "PATCH":
            if kind == "execution_environments" and not self.may_change(obj):
                raise RefusedError({"detail": "You do not have permission to perform this action."}, 403)
            return 200, self._change(kind, obj, body)
        if method == "DELETE":
            if kind == "credential_types" and self._is_used(obj):
                raise RefusedError({"detail": "Credential types that are in use cannot be deleted"}, 403)
            del self.kinds[kind][obj["id"]]
            return 204, None
        if kind in UPDATED:
            self.go_on(kind, obj)
        return 200, self.show(obj)

    def _handle_part(self, method: str, kind: str, obj: Json, part: str, body: Any) -> tuple[int, Any]:
        answer: tuple[int, Any]
        if part == "survey_spec":
            answer = self._handle_survey(method, (kind, obj["id"]), body)
        elif part == "playbooks":
            answer = 200, self.list_playbooks(obj)
        elif part == "launch":
            launch = launch_workflow if kind == "workflow_job_templates" else launch_job
            self.check_launch(obj)
            answer = (
                201,
                launch(obj, self.surveys.get((kind, obj["id"])) if obj["survey_enabled"] else None, body or {}),
            )
            self.kinds["jobs"][len(self.kinds["jobs"]) + 1] = answer[1]
        elif part == "update" and kind in UPDATED:
            answer = self.start_update(kind, obj)
        elif part == "create_approval_template":
            answer = 201, self._create_approval(obj, body)
        elif method == "GET":
            answer = self._list_associated(kind, obj, part)
        elif method == "POST":
            answer = self._associate(kind, obj, part, body)
        else:
            raise RefusedError({"detail": f'Method "{method}" not allowed.'}, 405)
        return answer

    def _handle_survey(self, method: str, key: tuple[str, int], body: Any) -> tuple[int, Any]:
        if method == "GET":
            return 200, self.surveys.get(key, {})
        if method == "PUT":
            raise RefusedError({"detail": 'Method "PUT" not allowed.'}, 405)
        if method == "DELETE":
            self.surveys.pop(key, None)
        else:
            check_survey(body)
            self.surveys[key] = copy.deepcopy(body)
        return 200, None

    # --- associations -----------------------------------------------------------------------------------------------

    def _list_associated(self, kind: str, obj: Json, part: str) -> tuple[int, Any]:
        if part in LINKS:
            ids, objects = obj[part], self.kinds["workflow_job_template_nodes"]
        else:
            ids = self.associated.get((kind, obj["id"], part), [])
            other = "notification_templates" if part.startswith("notification_templates") else part
            objects = self.kinds["credentials" if other == "galaxy_credentials" else other]
        return 200, {"count": len(ids), "next": None, "previous": None, "results": [self.show(objects[i]) for i in ids]}

    def _associate(self, kind: str, obj: Json, part: str, body: Json) -> tuple[int, Any]:
        if kind == "workflow_approval_templates":
            raise RefusedError({"detail": "Not found."}, 404)
        ids = obj[part] if part in LINKS else self.associated.setdefault((kind, obj["id"], part), [])
        number = body["id"]
        if body.get("disassociate"):
            if number in ids:
                ids.remove(number)
            return 204, None
        if part == "credentials":
            self._check_credential(ids, number)
        if part in LINKS:
            self._check_link(obj, part, number)
        if number not in ids:
            ids.append(number)
        return 204, None

    def _check_credential(self, ids: list[int], number: int) -> None:
        credential = self.kinds["credentials"].get(number)
        if credential is None:
            raise RefusedError({"detail": "Credential matching query does not exist."})
        kind = self.kinds["credential_types"][credential["credential_type"]]
        if kind["kind"] not in TAKEN_KINDS:
            raise RefusedError({"error": f"Cannot assign a Credential of kind `{kind['kind']}`."})
        others = [self.kinds["credentials"][item] for item in ids if item != number]
        same = [item for item in others if item["credential_type"] == kind["id"]]
        vault = credential["inputs"].get("vault_id") if kind["kind"] == "vault" else None
        if any((item["inputs"].get("vault_id") if kind["kind"] == "vault" else None) == vault for item in same):
            shown = f"{kind['name']} (id={vault})" if vault else kind["name"]
            raise RefusedError({"error": f"Cannot assign multiple {shown} credentials."})

    def _check_link(self, node: Json, part: str, number: int) -> None:
        nodes = self.kinds["workflow_job_template_nodes"]
        if any(number in node[other] for other in LINKS if other != part):
            raise RefusedError({"Error": "Relationship not allowed."})
        ahead, seen = [number], set()
        while ahead:
            current = ahead.pop()
            seen.add(current)
            ahead += [item for name in LINKS for item in nodes[current][name] if item not in seen]
        if node["id"] in seen:
            raise RefusedError({"Error": "Cycle detected."})

    # --- objects ----------------------------------------------------------------------------------------------------

    def show(self, obj: Json) -> Json:
        """Return an object as it is answered: secrets are hidden, and what it is related to is named."""
        shown = copy.deepcopy(obj)
        kind = obj["url"].split("/")[3] if "url" in obj else ""
        template = obj.get("unified_job_template")
        if kind == "execution_environments":
            may = self.may_change(obj)
            can = {"edit": may, "delete": may and not obj.get("managed"), "copy": may}
            shown["summary_fields"]["user_capabilities"] = can
        if kind == "credentials":
            shown["summary_fields"]["user_capabilities"] = {"use": obj["name"] not in self.unusable}
        if kind == "workflow_job_template_nodes":
            shown["related"].pop("unified_job_template", None)
            if template:
                shown["related"]["unified_job_template"] = self.list_unified()[template]["url"]
        return shown

    def finish(self, kind: str, obj: Json) -> Json:
        """Add what the server says of an object: its address, its parts, its roles."""
        url = f"/api/v2/{kind}/{obj['id']}/"
        shape = self._shapes.get(kind, {})
        related = {part: f"{url}{part}/" for part in shape.get("related", [])}
        roles = {}
        for name in self._roles.get(kind, []):
            number = len(self.kinds["roles"]) + 1
            self.kinds["roles"][number] = {"id": number, "url": f"/api/v2/roles/{number}/", "name": name, "of": url}
            roles[name] = {"id": number}
        kind_name = {"inventories": "inventory"}.get(kind, kind.removesuffix("s"))
        return {"type": kind_name, **obj, "url": url, "related": related, "summary_fields": {"object_roles": roles}}

    def _create(self, kind: str, body: Json) -> Json:
        if kind not in OPTIONS or kind not in self.kinds:
            raise RefusedError(NO_PAGE, 404)
        given = self._check_fields(kind, body, OPTIONS[kind], is_new=True)
        shape = self._shapes.get(kind, {})
        hidden = ("type", "url", "related", "created", "modified")
        obj = {key: copy.deepcopy(FRESH.get(key)) for key in shape if key not in hidden}
        obj |= {key: copy.deepcopy(_default(key, field)) for key, field in OPTIONS[kind].items() if key in obj}
        obj |= given
        self._check(kind, obj, given)
        shared = UNIFIED if kind in UNIFIED else (kind,)
        obj["id"] = max((number for name in shared for number in self.kinds[name]), default=0) + 1
        self._check_unique(kind, obj)
        obj = self.finish(kind, obj)
        self.kinds[kind][obj["id"]] = obj
        if kind == "projects" and obj["scm_type"]:
            obj["local_path"] = f"_{obj['id']}__{re.sub('[^a-z0-9]+', '_', obj['name'].lower()).strip('_')}"
        return self.show(obj)

    def _change(self, kind: str, obj: Json, body: Json) -> Json:
        if kind == "credential_types":
            if obj["managed"]:
                raise RefusedError({"detail": "Modifications not allowed for managed credential types"}, 403)
            if "inputs" in body and complete_inputs(body["inputs"]) != obj["inputs"] and self._is_used(obj):
                problem = "Modifications to inputs are not allowed for credential types that are in use"
                raise RefusedError({"detail": problem}, 403)
        given = self._check_fields(kind, body, OPTIONS[kind], is_new=False)
        changed = {**obj, **given}
        self._check(kind, changed, given)
        self._check_unique(kind, changed)
        obj.update({**changed, **given})
        return self.show(obj)

    def _create_approval(self, node: Json, body: Json) -> Json:
        given = self._check_fields(
            "workflow_approval_templates", body, OPTIONS["workflow_approval_templates"], is_new=True
        )
        number = max((item for name in UNIFIED for item in self.kinds[name]), default=0) + 1
        obj = {"description": "", "timeout": 0, **given, "id": number}
        obj = self.finish("workflow_approval_templates", obj)
        self.kinds["workflow_approval_templates"][number] = obj
        node["unified_job_template"] = number
        return self.show(obj)

    @property
    def _managed_kinds(self) -> set[str]:
        return {item["kind"] for item in self.kinds["credential_types"].values() if item["managed"]}

    def _is_used(self, kind: Json) -> bool:
        return any(item["credential_type"] == kind["id"] for item in self.kinds["credentials"].values())

    def _check_unique(self, kind: str, obj: Json) -> None:
        if kind in NAMED:
            said, keys = NAMED[kind]
            for other in self.kinds[kind].values():
                if other["id"] != obj["id"] and all(other.get(key) == obj.get(key) for key in keys):
                    raise RefusedError({"__all__": [f"{said} already exists."]})

    def _check_fields(self, kind: str, body: Json, fields: Json, *, is_new: bool) -> Json:
        problems, given = {}, {}
        for name, field in fields.items():
            if name in body:
                try:
                    if kind == "credential_types" and name == "kind" and body[name] in self._managed_kinds:
                        given[name] = body[name]  # refused below, in other words
                        continue
                    given[name] = self._check_field(name, field, body[name])
                except RefusedError as refused:
                    problems[name] = refused.body
            elif is_new and field.get("required"):
                problems[name] = ["This field is required."]
        if problems and not (kind == "credentials" and "organization" in problems):
            raise RefusedError(problems)
        return given

    def _check_field(self, name: str, field: Json, value: Any) -> Any:
        kind = field["type"]
        if name in JSON_TEXTS:
            parse_text(value)
            return value
        if value is None or (kind == "id" and value == ""):
            return None
        if kind == "id":
            target = POINTERS[name]
            objects = self.list_unified() if target == "unified_job_templates" else self.kinds.get(target, {})
            if int(value) not in objects:
                raise RefusedError([f'Invalid pk "{value}" - object does not exist.'])
            return int(value)
        return _check_value(field, value)

    def _check(self, kind: str, obj: Json, given: Json) -> None:
        """Check what fields mean together."""
        check: Callable[[Json, Json], None] | None = getattr(self, f"_check_{kind}", None)
        if check is not None:
            check(obj, given)

    def _check_job_templates(self, obj: Json, given: Json) -> None:
        project = self.kinds["projects"].get(obj["project"] or 0)
        if project is None:
            raise RefusedError({"project": ["Job Templates must have a project assigned."]})
        if not obj["playbook"]:
            raise RefusedError({"playbook": ["Must select playbook for project."]})
        if obj["playbook"] not in self.list_playbooks(project):
            raise RefusedError({"playbook": ["Playbook not found for project."]})
        if obj["inventory"] is None and not obj["ask_inventory_on_launch"]:
            raise RefusedError({"inventory": ["You must either set a default value or ask to prompt on launch."]})
        for name in ("scm_branch", "ask_scm_branch_on_launch"):
            if obj[name] and not project["allow_override"]:
                raise RefusedError({name: ["Project does not allow overriding branch."]})
        given["organization"] = obj["organization"] = project["organization"]

    def _check_execution_environments(self, obj: Json, given: Json) -> None:
        """By the source, not recorded: ExecutionEnvironmentSerializer.validate_organization."""
        there = self.kinds["execution_environments"].get(obj.get("id") or 0, {})
        if there and given.get("organization") and given["organization"] != there["organization"]:
            raise RefusedError({"organization": ["Cannot change the organization of an execution environment"]})

    def _check_inventory_sources(self, obj: Json, given: Json) -> None:
        del given
        project = self.kinds["projects"].get(obj["source_project"] or 0)
        if obj["source"] == "scm" and project is None:
            raise RefusedError({"source_project": ["Project required for scm type sources."]})
        if project is not None and not project["scm_type"]:
            raise RefusedError({"source_project": ["Cannot use manual project for SCM-based inventory."]})

    def _check_groups(self, obj: Json, given: Json) -> None:
        del given
        if obj["name"] == "all":
            raise RefusedError({"name": ["Invalid group name."]})

    def _check_credential_types(self, obj: Json, given: Json) -> None:
        if obj["kind"] not in ("cloud", "net"):
            raise RefusedError({"kind": [f"Must be 'cloud' or 'net', not {obj['kind']}"]})
        check_inputs_schema(obj["inputs"])
        given["inputs"] = obj["inputs"] = complete_inputs(obj["inputs"])
        check_injectors(obj["injectors"], obj["inputs"].get("fields", []))

    def _check_credentials(self, obj: Json, given: Json) -> None:
        if not any(obj.get(owner) for owner in ("user", "team", "organization")):
            raise RefusedError({"detail": ["Missing 'user', 'team', or 'organization'."]})
        kind = self.kinds["credential_types"][obj["credential_type"]]
        owner = (obj["organization"], obj["name"])
        before = self.kinds["credentials"].get(obj.get("id") or 0)
        there = self.secrets.get(owner, before["inputs"]) if before else None
        self.secrets[owner], shown = keep_inputs(kind, there, obj["inputs"], is_given="inputs" in given)
        flags = {"cloud": kind["kind"] == "cloud", "kubernetes": kind["kind"] == "kubernetes"}
        given |= {"inputs": shown, "kind": kind["namespace"], **flags}
        obj |= given
        obj.pop("user", None)
        obj.pop("team", None)

    def _check_notification_templates(self, obj: Json, given: Json) -> None:
        """By the source, not recorded: what a chat needs is missed by its name."""
        del given
        missing = [name for name in ("token", "channels") if name not in obj["notification_configuration"]]
        if obj["notification_type"] == "slack" and missing:
            problem = f"Missing required fields for Notification Configuration: {missing}."
            raise RefusedError({"__all__": [problem]})

    def _check_schedules(self, obj: Json, given: Json) -> None:
        given |= read_rule(obj["rrule"])
        template = self.list_unified()[obj["unified_job_template"]]
        if template["url"].startswith("/api/v2/projects/") and not template["scm_type"]:
            raise RefusedError({"unified_job_template": ["Manual Project cannot have a schedule set."]})
        check_prompts(template, self._find_survey(template), obj)
        if not obj["enabled"]:
            given["next_run"] = None
        obj |= given

    def _check_workflow_job_template_nodes(self, obj: Json, given: Json) -> None:
        del given
        for name in LINKS:
            obj[name] = obj[name] or []
        template = self.list_unified().get(obj["unified_job_template"] or 0)
        if template is not None and template["url"].split("/")[3] in ("job_templates", "workflow_job_templates"):
            check_prompts(template, self._find_survey(template), obj, is_node=True)

    def _find_survey(self, template: Json) -> Json | None:
        kind = template["url"].split("/")[3]
        return self.surveys.get((kind, template["id"])) if template.get("survey_enabled") else None


def _default(name: str, field: Json) -> Any:
    if name in FRESH or "default" in field:
        return field.get("default", FRESH.get(name))
    if field["type"] == "choice":
        return "" if "" in [choice[0] for choice in field["choices"]] else None
    return {"string": "", "boolean": False, "json": {}}.get(field["type"])


def _check_value(field: Json, value: Any) -> Any:
    kind = field["type"]
    if kind == "string":
        if isinstance(value, bool) or not isinstance(value, (str, int, float)):
            raise RefusedError(["Not a valid string."])
        value = str(value).strip()
        if field.get("required") and not value:
            raise RefusedError(["This field may not be blank."])
        limit = field.get("max_length")
        if limit is not None and len(value) > limit:
            raise RefusedError([f"Ensure this field has no more than {limit} characters."])
    elif kind == "integer":
        if isinstance(value, bool) or not re.fullmatch(r"-?\d+", str(value)):
            raise RefusedError(["A valid integer is required."])
        value = int(value)
        low, high = field.get("min_value"), field.get("max_value")
        if low is not None and value < low:
            raise RefusedError([f"Ensure this value is greater than or equal to {low}."])
        if high is not None and value > high:
            raise RefusedError([f"Ensure this value is less than or equal to {high}."])
    elif kind == "boolean" and not isinstance(value, bool):
        raise RefusedError(["Must be a valid boolean."])
    elif kind == "choice" and value not in [choice[0] for choice in field["choices"]]:
        raise RefusedError([f'"{value}" is not a valid choice.'])
    return value
