# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the tests of the role awx make in AWX by hand, and how they perform the role there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from support.awx_stand_in import REPOSITORY, AwxStandIn, make_collection_folders
from support.awx_updates import GOING_ON
from support.checkout import playbook_names
from support.playbooks import PlaybookRun, run_playbook

from .declared import BOUND, MINIMAL, write_site

SITE = {**MINIMAL, "awx_credential_types": []}
REPOSITORIES = make_collection_folders(playbook_names())
DESCRIPTIONS = {
    "operations probe": "Read before operations, so that this is updated only when git answers",
    "operations next": "Read with what operations is to have next, before that is changed",
}
TO_THE_APPROVAL = [
    *((name, "successful") for name in ("probe", "project", "inventory", "window check")),
    ("approve", "pending"),
]
"""How an approved window goes on until somebody has to approve it."""


def perform(folder: Path, awx: AwxStandIn, *arguments: str, **changed: Any) -> PlaybookRun:
    """Perform the role."""
    site = write_site(folder, awx, **{**SITE, **changed})
    return run_playbook("lowtide.ops.awx", *site, *arguments, timeout=BOUND)


def flatten(run: PlaybookRun) -> str:
    """Return the output in one line."""
    return " ".join(run.stdout.split())


def find_summary(run: PlaybookRun) -> str:
    """Return what the role says that it has changed, or would."""
    return (
        flatten(run).rpartition("Show the result")[2].partition("msg: ")[2].partition(" TASK")[0].partition(" PLAY")[0]
    )


def list_updates(awx: AwxStandIn) -> list[str]:
    """Return the names of projects and sources that the role has had updated by itself."""
    asked = [path for _method, path, _body in awx.writes if path.endswith("/update/")]
    return [str(awx.list_unified()[int(path.split("/")[4])]["name"]) for path in asked]


def run_window(awx: AwxStandIn) -> list[tuple[str, str]]:
    """Run the nodes of the approved window to the first that fails or waits."""
    return awx.run_nodes(awx.find("workflow_job_templates", "shop approved window"))


def add(awx: AwxStandIn, kind: str, **body: Any) -> int:
    """Make an object as people do."""
    status, made = awx.ask("POST", f"/api/v2/{kind}/", body)
    assert status == 201, made
    return int(made["id"])


def wait_for(awx: AwxStandIn, project: dict[str, Any]) -> str:
    """Look at a project until its update has ended, and return how."""
    while True:
        state = str(awx.ask("GET", project["url"])[1]["status"])
        if state not in GOING_ON:
            return state


def add_project(awx: AwxStandIn, **given: Any) -> dict[str, Any]:
    """Make the organization, two credentials and the project by hand, and return that once it has been read."""
    organization = add(awx, "organizations", name="Operations")
    kind = awx.find("credential_types", "Source Control")["id"]
    for name in ("git", "key of another place"):
        add(awx, "credentials", name=name, organization=organization, credential_type=kind, inputs={})
    git = {"name": "operations", "scm_type": "git", "scm_url": REPOSITORY, **given}
    add(awx, "projects", organization=organization, **git)
    project = awx.find("projects", "operations")
    assert wait_for(awx, project) == "successful"
    return project


def add_beside(awx: AwxStandIn, name: str, **given: Any) -> dict[str, Any]:
    """Make ``operations probe`` or ``operations next`` as the role does for that project, but for what is given."""
    project = awx.find("projects", "operations")
    like = {field: project[field] for field in ("organization", "scm_type", "scm_url", "scm_branch", "credential")}
    add(awx, "projects", name=name, **{**like, "description": DESCRIPTIONS[name], "timeout": 3600, **given})
    return awx.find("projects", name)
