# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The window killed on real servers and run again: the same end, the service up, no event lost or doubled (F1).

By default at two points one after the other, the second while the first is being resumed; LOWTIDE_KILL_EXHAUSTIVE=1 takes
each of ten by itself, which are spread over the whole run.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from typing import Any

import pytest

from support.modules import CHECKOUT
from support.playbooks import PlaybookRun, start_playbook
from support.site import INVENTORY, WINDOW, Site

pytestmark = [
    pytest.mark.alone,
    pytest.mark.lab("kubernetes", "kafka", "postgresql", "s3", "feature_service"),
    pytest.mark.timeout(900),
]
DUE = ("-e", "backup_max_age=0s")
POINTS = [
    ("health", 0.2),
    ("backup", 0.2),
    ("backup", 1.5),
    ("shutdown", 0.2),
    ("shutdown", 2.0),
    ("database_maintenance", 0.2),
    ("database_maintenance", 1.5),
    ("startup", 0.2),
    ("startup", 2.0),
    ("event_reconciliation", 0.2),
]
"""A step, and how many seconds after its begin. The first comes after planning; planning writes nothing."""
SAMPLE = [[("shutdown", 2.0), ("database_maintenance", 1.5)]]


def wait_for_begin(site: Site, step: str, window: subprocess.Popen[str], since: float) -> None:
    """Until the journal says that ``step`` has begun after ``since`` (seconds since 1970)."""
    end = time.monotonic() + 300
    read = 0
    while True:
        # Reading takes a processor that the window needs: only when something was added.
        if (size := site.journal_size()) > read:
            read = size
            if any((one["kind"], one.get("step")) == ("begin", step) and one["at"] > since for one in site.journal()):
                return
        assert window.poll() is None, f"the window ended before its step {step}"
        assert time.monotonic() < end, f"step {step} did not begin"
        time.sleep(0.05)


@pytest.mark.parametrize(
    "points", [[one] for one in POINTS] if os.environ.get("LOWTIDE_KILL_EXHAUSTIVE") == "1" else SAMPLE
)
def test_killed_and_run_again_it_ends_in_the_same_state(
    lab: dict[str, Any], ansible_playbook: Callable[..., PlaybookRun], points: list[tuple[str, float]]
) -> None:
    site = Site(lab)
    site.make_due()
    backups = site.backup_keys()
    runs, seen = [], []
    producer = site.produce(count=20_000, rate=50)
    try:
        for step, seconds in points:
            since = time.time()
            killed = start_playbook(WINDOW, *INVENTORY, *DUE)
            wait_for_begin(site, step, killed, since)
            time.sleep(seconds)  # the kill comes at a time, not at a condition
            assert killed.poll() is None, "the window was over before the kill"
            os.kill(killed.pid, signal.SIGKILL)
            seen.append((step, site.workers()))
            runs.append(killed)
        run = ansible_playbook(WINDOW, *INVENTORY, *DUE, timeout=400)
        for killed in runs:
            killed.communicate(timeout=60)
    finally:
        producer.terminate()
        producer.communicate(timeout=60)

    assert run.rc == 0, f"killed in {seen}:\n{run.stdout}"
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
    assert due.changed == 0, f"killed in {seen}, something is still due:\n{due.stdout}"
