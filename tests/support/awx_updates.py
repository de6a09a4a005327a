# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Projects and their updates, those of inventories, and what runs by them, in the stand-in for AWX, and what it says of
itself; see ``awx_stand_in``.

Made of AWX 24.6.1's source (``ProjectUpdateView``, ``InventorySourceUpdateView``, ``Project.get_reason_if_failed``), as
no job ran where requests were recorded: an update is pending, then running, then ended, each time when somebody looks.
"""

from __future__ import annotations

from typing import Any

from .awx_surveys import Json, RefusedError

UPDATED = {"projects": "project_updates", "inventory_sources": "inventory_updates"}
"""Kinds that can be updated, and what their updates are."""
GOING_ON = ("pending", "running")
READING = ("scm_url", "scm_branch", "scm_type", "scm_refspec")
"""Fields of a project that have it updated when they change (``FIELDS_TRIGGER_UPDATE``); no others do."""
LOCKED = "Missing a revision to run due to failed project update."
TOKEN = "stand-in"  # noqa: S105
"""A token that somebody has made."""


class AwxUpdates:
    """What an AWX does by itself; ``runs_jobs`` is false where it has nobody who runs them.

    ``updated`` are the playbooks of each project when it was last read, ``foreign`` the organizations that the account
    does not administer, ``private`` the names of the credentials that repositories ask for, ``tokens`` those that were
    given for a password and are good still, ``descriptions`` of all that ever were, ``unusable`` the credentials that
    the account sees and may not use, ``strict`` the repositories whose submodules cannot be read, and whose content has
    no signature.
    """

    kinds: dict[str, dict[int, Json]]
    folders: dict[str, list[str]]

    def __init__(self) -> None:
        self.runs_jobs = True
        self.unreadable: set[str] = set()
        self.updated: dict[int, list[str]] = {}
        self.foreign: set[int] = set()
        self.private: dict[str, str] = {}
        self.unusable: set[str] = set()
        self.strict: set[str] = set()
        self.begun: dict[int, Json] = {}
        self.tokens: dict[int, Json] = {}
        self.descriptions: list[str] = []
        self.updates: dict[tuple[str, int], Json] = {}
        self.account: Json = {"id": 1, "username": "admin", "is_superuser": True, "is_system_auditor": False}
        self.settings: Json = {
            "DEFAULT_JOB_IDLE_TIMEOUT": 0,
            "AWX_RUNNER_KEEPALIVE_SECONDS": 0,
            "DEFAULT_PROJECT_UPDATE_TIMEOUT": 0,
        }

    def is_token(self, text: str) -> bool:
        """Tell whether somebody may ask with this token."""
        return text in (TOKEN, *(token["token"] for token in self.tokens.values()))

    def answer_of_itself(self, method: str, path: list[str], body: Json | None) -> tuple[int, Any] | None:
        """Return an answer on the account, its tokens, the settings of jobs or an update, None for other paths."""
        if path == ["ping"]:
            return 200, {"ha": False, "version": "24.6.1", "active_node": "awx", "instances": []}
        if path[0] == "tokens":
            return self._handle_tokens(method, path[1:], body or {})
        if path == ["me"]:
            return 200, {"count": 1, "next": None, "previous": None, "results": [self.account]}
        if path == ["settings", "jobs"]:
            if not self.account["is_superuser"] and not self.account["is_system_auditor"]:
                raise RefusedError({"detail": "You do not have permission to perform this action."}, 403)
            return 200, self.settings
        if path[0] in UPDATED.values():
            return 200, self._look_at(path[0], int(path[1]))
        return None

    def _handle_tokens(self, method: str, rest: list[str], body: Json) -> tuple[int, Any]:
        """Give one, which is shown this once (``OAuth2TokenSerializer``), or take one back."""
        if method == "POST" and not rest:
            number = len(self.descriptions) + 1
            self.descriptions.append(body.get("description", ""))
            known = {"id": number, "type": "o_auth2_access_token", "url": f"/api/v2/tokens/{number}/"}
            self.tokens[number] = {**known, "token": f"{TOKEN}-{number}-unseen", **body}
            return 201, self.tokens[number]
        if int(rest[0]) not in self.tokens:
            raise RefusedError({"detail": "Not found."}, 404)
        if method == "DELETE":
            del self.tokens[int(rest[0])]
            return 204, None
        return 200, {**self.tokens[int(rest[0])], "token": "************"}

    def start_update(self, kind: str, obj: Json) -> tuple[int, Json]:
        """Start an update, and return it."""
        if kind == "projects" and not obj["scm_type"]:
            raise RefusedError({"detail": 'Method "POST" not allowed.'}, 405)
        reason = self.find_reason(self.kinds["projects"].get(obj.get("source_project") or 0))
        if reason:
            raise RefusedError({"__all__": [reason]})
        obj["status"] = "pending"
        number = len(self.updates) + 1
        self.updates[UPDATED[kind], number] = obj
        return 202, {UPDATED[kind].removesuffix("s"): number, **self._look_at(UPDATED[kind], number)}

    def go_on(self, kind: str, obj: Json) -> None:
        """Have an update of an object go on by one step."""
        if not self.runs_jobs or obj["status"] not in GOING_ON:
            return
        if obj["status"] == "pending":
            obj["status"] = "running"
            self.begun[obj["id"]] = dict(obj)
            return
        if kind == "projects":
            taken = self.begun.get(obj["id"], obj)  # as an update takes these fields over when it is made
            is_good = taken["scm_url"] in self.folders and self._is_opened(taken) and not self._is_spoilt(taken)
            self.updated |= {obj["id"]: self.folders[taken["scm_url"]]} if is_good else {}
        else:
            is_good = obj["source_project"] in self.updated and obj["source_path"] not in self.unreadable
        obj["status"] = "successful" if is_good else "failed"

    def _is_opened(self, project: Json) -> bool:
        """Tell whether a project has the credential that its repository asks for, if it does."""
        wanted = self.private.get(project["scm_url"])
        credential = self.kinds["credentials"].get(project["credential"] or 0, {})
        return wanted is None or wanted == credential.get("name")

    def _is_spoilt(self, project: Json) -> bool:
        """Tell whether a project asks for what its repository has not."""
        asks = project["scm_track_submodules"] or project["signature_validation_credential"]
        return bool(asks) and project["scm_url"] in self.strict

    def find_reason(self, project: Json | None) -> str:
        """Return why nothing of a project can be started, or nothing (``Project.get_reason_if_failed``)."""
        if project is None or project["scm_update_on_launch"] or project["status"] not in ("error", "failed"):
            return ""
        return LOCKED

    def check_launch(self, template: Json) -> None:
        """Refuse the launch of a job template whose project cannot be used (``JobLaunchSerializer.validate``)."""
        reason = self.find_reason(self.kinds["projects"].get(template.get("project") or 0))
        if reason:
            raise RefusedError({"playbook": [reason]})

    def run_nodes(self, workflow: Json) -> list[tuple[str, str]]:
        """Run the nodes of a workflow one by one to the first that fails or waits for people: name and status."""
        nodes = [
            node
            for node in self.kinds["workflow_job_template_nodes"].values()
            if node["workflow_job_template"] == workflow["id"]
        ]
        led_to = {number for node in nodes for number in node["success_nodes"]}
        (number,) = [node["id"] for node in nodes if node["id"] not in led_to]
        run: list[tuple[str, str]] = []
        while True:
            node = self.kinds["workflow_job_template_nodes"][number]
            run.append((node["identifier"], self._run_node(node["unified_job_template"])))
            if run[-1][1] != "successful":
                return run
            (number,) = node["success_nodes"]

    def _run_node(self, number: int) -> str:
        """Return how it ended. A job of a project that cannot be used fails as it starts (``sync_and_copy``)."""
        if number in self.kinds["workflow_approval_templates"]:
            return "pending"
        template = self.kinds["job_templates"].get(number)
        if template:
            return "failed" if self.find_reason(self.kinds["projects"][template["project"]]) else "successful"
        kind = "projects" if number in self.kinds["projects"] else "inventory_sources"
        obj = self.kinds[kind][number]
        if self.find_reason(self.kinds["projects"].get(obj.get("source_project") or 0)):
            return "failed"
        self.start_update(kind, obj)
        while obj["status"] in GOING_ON:
            self.go_on(kind, obj)
        return str(obj["status"])

    def list_playbooks(self, project: Json) -> list[str]:
        """Return what can be named as a playbook of a project."""
        if project["scm_type"]:
            return self.updated.get(project["id"], [])
        return self.folders.get(project["local_path"], [])

    def may_change(self, obj: Json) -> bool:
        """Tell whether the account may change an execution environment (``ExecutionEnvironmentAccess.can_change``)."""
        owner = obj.get("organization")
        return bool(self.account["is_superuser"] or (owner and owner not in self.foreign))

    def _check_projects(self, obj: Json, given: Json) -> None:
        if not obj["scm_type"]:
            if obj["scm_update_on_launch"]:
                problem = "Update options must be set to false for manual projects."
                raise RefusedError({"scm_update_on_launch": [problem]})
            used = {
                other["local_path"]
                for other in self.kinds["projects"].values()
                if not other["scm_type"] and other["id"] != obj.get("id")
            }
            path = obj["local_path"] or ""
            if path and (path not in self.folders or path in used):
                raise RefusedError({"local_path": ["This path is already being used by another manual project."]})
        if obj["scm_type"]:
            credential = self.kinds["credentials"].get(obj["credential"] or 0)
            if credential and self.kinds["credential_types"][credential["credential_type"]]["namespace"] != "scm":
                raise RefusedError({"credential": ["Credential kind must be 'scm'."]})
            there = self.kinds["projects"].get(obj.get("id") or 0, {})
            is_read = any(there.get(name) != obj[name] for name in READING)
            state = "pending" if is_read else obj["status"]
        else:
            state = "ok" if obj["local_path"] else "missing"
        given["status"] = obj["status"] = state

    def _look_at(self, kind: str, number: int) -> Json:
        obj = self.updates[kind, number]
        self.go_on("projects" if kind == "project_updates" else "inventory_sources", obj)
        is_done = obj["status"] not in GOING_ON
        return {
            "id": number,
            "url": f"/api/v2/{kind}/{number}/",
            "status": obj["status"],
            "failed": obj["status"] == "failed",
            "started": "2026-11-27T00:00:00Z",
            "finished": "2026-11-27T00:00:09Z" if is_done else None,
            "elapsed": 9.0,
            "event_processing_finished": is_done,
            "scm_revision": obj.get("scm_revision", ""),
        }
