# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Where the role event_reconciliation looks for what was read when the consumers were stopped."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from support.playbooks import PlaybookRun

DEFAULTS = Path(__file__).parents[3] / "roles" / "event_reconciliation" / "defaults" / "main.yml"


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
