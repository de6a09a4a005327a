# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a team may by the roles that it was given in the stand-in for AWX; see ``awx_stand_in``.

By the source of AWX 24.6.1, not recorded: a role has others below it (``ImplicitRoleField`` in ``models/jobs.py`` and
``models/workflow.py``), and a job is seen by who may read its job template (``JobAccess`` in ``access.py``). Roles of
a workflow give nothing on the templates of its nodes.
"""

from __future__ import annotations

from .awx_objects import AwxObjects

IMPLIED = {
    "job_templates": {"admin_role": ("execute_role", "read_role"), "execute_role": ("read_role",)},
    "workflow_job_templates": {
        "admin_role": ("execute_role", "approval_role", "read_role"),
        "execute_role": ("read_role",),
        "approval_role": ("read_role",),
    },
}
"""Roles that come with a role, by kind of what it is on."""


def list_granted(awx: AwxObjects) -> set[tuple[str, str, str]]:
    """Return what was granted itself: team, role, and what it is on."""
    granted = set()
    for (kind, number, what), teams in awx.associated.items():
        if kind == "roles" and what == "teams":
            role = awx.kinds["roles"][number]
            subject = awx.ask("GET", role["of"])[1]["name"]
            granted |= {(awx.kinds["teams"][team]["name"], role["name"], subject) for team in teams}
    return granted


def list_teams(awx: AwxObjects, role: str, subject: str) -> set[str]:
    """Return the teams that have a role on a template or workflow, also by another role."""
    kind = next(kind for kind in IMPLIED if any(obj["name"] == subject for obj in awx.kinds[kind].values()))
    giving = {role, *(name for name, below in IMPLIED[kind].items() if role in below)}
    return {team for team, given, on in list_granted(awx) if on == subject and given in giving}


def list_readers(awx: AwxObjects, template: str) -> set[str]:
    """Return the teams that see output and artifacts of a template's jobs."""
    return list_teams(awx, "read_role", template)
