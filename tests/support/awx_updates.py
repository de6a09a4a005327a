# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Updates of projects and inventories in the stand-in for AWX, and what it says of itself; see ``awx_stand_in``.

Made of AWX 24.6.1's source (``ProjectUpdateView``, ``InventorySourceUpdateView``), as no job ran where requests were
recorded: an update is pending, then running, then ended, each time when somebody looks.
"""

from __future__ import annotations

from typing import Any

from .awx_surveys import Json, RefusedError

UPDATED = {"projects": "project_updates", "inventory_sources": "inventory_updates"}
"""Kinds that can be updated, and what their updates are."""
GOING_ON = ("pending", "running")
TOKEN = "stand-in"  # noqa: S105
"""What a client gets for a password."""


class AwxUpdates:
    """What an AWX does by itself; ``runs_jobs`` is false where it has nobody who runs them."""

    kinds: dict[str, dict[int, Json]]
    folders: dict[str, list[str]]

    def __init__(self) -> None:
        self.runs_jobs = True
        self.unreadable: set[str] = set()
        self.updated: set[int] = set()
        self.updates: dict[tuple[str, int], Json] = {}
        self.account: Json = {"id": 1, "username": "admin", "is_superuser": True, "is_system_auditor": False}
        self.settings: Json = {
            "DEFAULT_JOB_IDLE_TIMEOUT": 0,
            "AWX_RUNNER_KEEPALIVE_SECONDS": 0,
            "DEFAULT_PROJECT_UPDATE_TIMEOUT": 0,
        }

    def answer_of_itself(self, method: str, path: list[str]) -> tuple[int, Any] | None:
        """Return an answer on the account, the settings of jobs or an update, None for other paths."""
        if path[0] == "tokens":
            return (201, {"id": 1, "token": TOKEN}) if method == "POST" else (204, None)
        if path == ["me"]:
            return 200, {"count": 1, "next": None, "previous": None, "results": [self.account]}
        if path == ["settings", "jobs"]:
            if not self.account["is_superuser"] and not self.account["is_system_auditor"]:
                raise RefusedError({"detail": "You do not have permission to perform this action."}, 403)
            return 200, self.settings
        if path[0] in UPDATED.values():
            return 200, self._look_at(path[0], int(path[1]))
        return None

    def start_update(self, kind: str, obj: Json) -> tuple[int, Json]:
        """Start an update, and return it."""
        if kind == "projects" and not obj["scm_type"]:
            raise RefusedError({"detail": 'Method "POST" not allowed.'}, 405)
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
            return
        if kind == "projects":
            is_good = obj["scm_url"] in self.folders
            self.updated |= {obj["id"]} if is_good else set()
        else:
            is_good = obj["source_project"] in self.updated and obj["source_path"] not in self.unreadable
        obj["status"] = "successful" if is_good else "failed"

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
