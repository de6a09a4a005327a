# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The window killed on real servers and run again: the same end, the service up, no event lost or doubled (F1).

LOWTIDE_KILL_POINTS says at how many points, spread over the whole run (default 2; 10 before a release).
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from typing import Any

import pytest

from support.modules import CHECKOUT
from support.playbooks import PlaybookRun, finish_playbook, start_playbook
from support.site import INVENTORY, WINDOW, Site

pytestmark = [
    pytest.mark.alone,
    pytest.mark.lab("kubernetes", "kafka", "postgresql", "s3", "feature_service"),
    pytest.mark.timeout(900),
]
POINTS = int(os.environ.get("LOWTIDE_KILL_POINTS", "2"))
DUE = ("-e", "backup_max_age=0s")


@pytest.fixture(scope="module")
def undisturbed(lab_facts: dict[str, Any]) -> float:
    """How many seconds an undisturbed window takes: as long as the last one that did everything, else one is run."""
    site = Site(lab_facts)
    whole = [
        one["seconds"]
        for one in site.reports()
        if one["window"] == "feature-maintenance" and set(one["phases"]) == {row["step"] for row in one["steps"]} and not one["resumed"]
    ]
    if whole:
        return float(whole[-1])
    site.make_due()
    begin = time.monotonic()
    run = finish_playbook(start_playbook(WINDOW, *INVENTORY, *DUE), timeout=400)
    assert run.rc == 0, run.stdout
    return time.monotonic() - begin


@pytest.mark.parametrize("point", range(1, POINTS + 1))
def test_killed_and_run_again_it_ends_in_the_same_state(
    lab: dict[str, Any], undisturbed: float, ansible_playbook: Callable[..., PlaybookRun], point: int
) -> None:
    site = Site(lab)
    site.make_due()
    backups = site.backup_keys()
    producer = site.produce(count=20_000, rate=50)
    try:
        killed = start_playbook(WINDOW, *INVENTORY, *DUE)
        time.sleep(undisturbed * point / (POINTS + 1))  # the kill comes at a time, not at a condition
        assert killed.poll() is None, "the window was over before the kill"
        os.kill(killed.pid, signal.SIGKILL)
        at_the_kill = site.workers()
        run = ansible_playbook(WINDOW, *INVENTORY, *DUE, timeout=400)
        killed.communicate(timeout=60)
    finally:
        producer.terminate()
        producer.communicate(timeout=60)

    assert run.rc == 0, f"killed at point {point} with {at_the_kill}:\n{run.stdout}"
    assert site.workers() == {"replicas": 12, "ready": 12, "notes": []}
    assert site.maintenance()["invalid"] == []
    keys = site.backup_keys()
    assert set(backups) < set(keys)
    assert not [key for key in keys if "incoming" in key or key.startswith("upload:")]
    audit = site.audit()
    assert audit["ok"], audit
    assert site.reports()[-1]["state"] == "done"
    due = ansible_playbook(CHECKOUT / "playbooks/database_maintenance.yml", *INVENTORY, "--check", timeout=100)
    assert due.rc == 0, due.stdout
    assert due.changed == 0, f"killed at point {point}, something is still due:\n{due.stdout}"
