# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The site that the role awx is given in its tests."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from support.awx_stand_in import REPOSITORY, AwxStandIn
from support.playbooks import write_yaml

SLACK = {"token": "secret", "channels": ["#windows"], "hex_color": ""}
SITE: dict[str, Any] = {
    "window_site": "shop",
    "window_steps": [
        {"name": "health", "role": "lowtide.ops.health"},
        {"name": "backup", "role": "lowtide.ops.backup"},
    ],
    "awx_organization": "Operations",
    "awx_project": "operations",
    "awx_project_url": REPOSITORY,
    "awx_inventory_path": "inventories/shop/hosts.yml",
    "awx_execution_environment": "lowtide",
    "awx_image": "registry.example.org/lowtide:1",
    "awx_credential_types": ["lowtide kubeconfig"],
    "awx_credentials": [{"name": "shop cluster", "type": "lowtide kubeconfig"}],
    "awx_variables": {"window_name": "weekly"},
    "awx_procedures": [
        {"playbook": "backup", "questions": ["backup_max_age"]},
        {"playbook": "diagnose", "name": "mend", "variables": {"diagnose_apply": True}, "limit": "shop_workloads"},
        {"playbook": "failover", "name": "failover check", "job_type": "check", "credentials": []},
    ],
    "awx_teams": [
        {"name": "Operators", "launch": ["window check", "approved window"], "approve": "no"},
        {"name": "Leads", "approve": True},
    ],
    "awx_schedules": [
        {
            "name": "weekly",
            "time": "01:00",
            "zone": "Europe/Berlin",
            "weekdays": ["mon"],
            "answers": {"window_skip": ["health"]},
        }
    ],
    "awx_notifications": [
        {"name": "shop chat", "type": "slack", "configuration": SLACK, "events": ["error", "approval"]}
    ],
}
BOUND = 900
"""Seconds that a run may take on a slow machine; it is some 45 modules."""
MINIMAL: dict[str, Any] = {
    "awx_image": "",
    "awx_execution_environment": "",
    "awx_credentials": [],
    "awx_notifications": [],
    "awx_teams": [],
    "awx_schedules": [],
    "awx_procedures": [],
}


def write_site(folder: Path, awx: AwxStandIn, **changed: Any) -> list[str]:
    """Write the inventory of a site, and return the arguments with it."""
    own = {
        "ansible_connection": "local",
        "ansible_python_interpreter": sys.executable,
        "awx_connection": awx.connection,
    }
    control = {"control": {"hosts": {"control1": None}}}
    content = {"all": {"vars": {**own, **SITE, **changed}, "children": control}}
    return ["-i", str(write_yaml(folder / "hosts.yml", content))]
