# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the role event_reconciliation gives its modules: the offsets of before the stop, and how many rows it reads."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from support.playbooks import PlaybookRun

ROLE = Path(__file__).parents[3] / "roles" / "event_reconciliation"
DEFAULTS = ROLE / "defaults" / "main.yml"


@pytest.mark.parametrize("hosts", ["localhost", "bus"])
def test_what_the_implicit_localhost_has_read_is_found(
    hosts: str, ansible_playbook: Callable[..., PlaybookRun]
) -> None:
    """It is in no group, ``all`` included; a playbook on localhost needs no inventory."""
    plays = [
        {
            "hosts": "localhost",
            "gather_facts": False,
            "tasks": [{"ansible.builtin.set_fact": {"shutdown_consumer_offsets": [{"name": "stopped"}]}}],
        },
        {
            "hosts": hosts,
            "gather_facts": False,
            "tasks": [
                {"ansible.builtin.include_vars": {"file": str(DEFAULTS), "name": "defaults"}},
                {"ansible.builtin.debug": {"var": "defaults.event_reconciliation_before"}},
            ],
        },
    ]
    run = ansible_playbook(plays, "-i", "bus,")
    assert "stopped" in run.stdout.split("event_reconciliation_before", 1)[-1], run.stdout


def test_a_group_of_many_partitions_has_a_row_for_each(ansible_playbook: Callable[..., PlaybookRun]) -> None:
    """The statement returns one for each; pg_query_info by itself takes 1,000."""
    (block,) = yaml.safe_load((ROLE / "tasks" / "main.yml").read_text())
    (query,) = [task for task in block["block"] if "lowtide.ops.pg_query_info" in task]
    partitions = [
        {"topic": "t", "partition": number, "log_start": 0, "log_end": 9, "committed": 9} for number in range(1500)
    ]
    values = {
        **query["vars"],
        "__event_reconciliation_bus": {"groups": [{"name": "g", "partitions": partitions}]},
        "event_reconciliation_before": [],
        "rows": query["lowtide.ops.pg_query_info"]["max_rows"],
    }
    told = {"ansible.builtin.debug": {"msg": "rows={{ rows }}."}}
    run = ansible_playbook([{"hosts": "localhost", "gather_facts": False, "vars": values, "tasks": [told]}])
    assert "rows=2500." in run.stdout, run.stdout
