# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What AWX says of a job, by the variables that it gives to one (recorded from AWX 24.6.1)."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.lowtide.ops.plugins.plugin_utils._window.ansible_context import AnsibleContext

MANUAL: dict[str, Any] = {
    "job_id": 36,
    "job_launch_type": "workflow",
    "job_template_name": "shop window",
    "user_name": "alice",
    "workflow_job_id": 24,
    "workflow_job_name": "shop approved window",
    "project_revision": "4f1c",
}
SCHEDULED = {key: value for key, value in MANUAL.items() if key != "user_name"}
PARENT = {"parent_job_schedule_id": 6, "parent_job_schedule_name": "shop at 02:00 sat"}


def read_job(prefix: str, facts: dict[str, Any]) -> dict[str, str]:
    """Return what is kept of a job with these facts."""
    variables = {f"{prefix}_{name}": value for name, value in facts.items()}
    return AnsibleContext(None, None, None, variables).read_job()


@pytest.mark.parametrize("prefix", ["awx", "tower"])
def test_a_job_of_a_workflow(prefix: str) -> None:
    assert read_job(prefix, MANUAL) == {
        "id": "36",
        "launch": "workflow",
        "template": "shop window",
        "user": "alice",
        "workflow": "shop approved window",
        "workflow_id": "24",
        "revision": "4f1c",
    }


def test_the_schedule_of_a_job_is_its_own_or_that_of_its_workflow() -> None:
    assert read_job("awx", {**SCHEDULED, **PARENT})["schedule"] == "shop at 02:00 sat"
    assert read_job("awx", {**SCHEDULED, "schedule_name": "own"})["schedule"] == "own"
    assert "schedule" not in read_job("awx", {**MANUAL, "project_revision": ""})
    assert read_job("awx", {"user_name": "nobody", **PARENT}) == {}
