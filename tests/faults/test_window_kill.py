# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The window killed on real servers and then run again, run again without its journal, or restored (F1).

It ends in the same state: the service up, no event lost or doubled. By default in the middle of a release, and once
more while that is being resumed, after which the journal is lost; and restored after one kill. LOWTIDE_EXHAUSTIVE=1
takes each of ten points, which are spread over the whole run, with each way on.
"""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Callable
from typing import Any

import pytest

from support.killed_window import DUE, LAST_LOOK, POINTS, check_end, check_maintained, check_service
from support.playbooks import PlaybookRun, start_playbook
from support.site import INVENTORY, WINDOW, Site
from support.turns import is_sweep

pytestmark = [
    pytest.mark.alone,
    pytest.mark.lab("kubernetes", "kafka", "postgresql", "s3", "feature_service"),
    pytest.mark.timeout(1800),
]
WAYS_ON = ("run_again", "journal_lost", "restored")
SAMPLE: list[tuple[list[tuple[str, float]], str]] = [
    ([("rolling_upgrade", 12.0), ("database_maintenance", 1.5)], "journal_lost"),
]
SWEEP: list[tuple[list[tuple[str, float]], str]] = [
    ([("shutdown", 0.2)], "restored"),
    ([("shutdown", 2.0), ("database_maintenance", 1.5)], "run_again"),
    *(([point], way) for point in POINTS for way in WAYS_ON),
]
CASES = [*SAMPLE, *SWEEP] if is_sweep() else SAMPLE


def go_on(site: Site, way: str, ansible_playbook: Callable[..., PlaybookRun]) -> None:
    """What comes between the kill and the run that has to end well."""
    if way == "journal_lost":
        # At once, as a lost disk: a worker that the kill left may be writing there.
        shutil.rmtree(site.windows.rename(site.windows.with_name("lost")))
    if way == "restored":
        restored = ansible_playbook("lowtide.ops.restore_service", *INVENTORY, timeout=600)
        assert restored.rc == 0, restored.stdout
        check_service(site)


@pytest.mark.parametrize(("points", "way"), CASES)
def test_killed_it_ends_in_the_same_state(
    lab: dict[str, Any], ansible_playbook: Callable[..., PlaybookRun], points: list[tuple[str, float]], way: str
) -> None:
    site = Site(lab)
    site.make_due(release=points[0][0] == "rolling_upgrade")
    backups = site.backup_keys()
    runs, seen = [], []
    producer = site.produce(count=20_000, rate=50)
    try:
        for step, seconds in points:
            since = time.time()
            killed = start_playbook(WINDOW, *INVENTORY, *DUE)
            site.wait_for_begin(step, killed, since)
            time.sleep(seconds)  # the kill comes at a time, not at a condition
            assert killed.poll() is None, "the window was over before the kill"
            os.kill(killed.pid, signal.SIGKILL)
            seen.append((step, site.workers()))
            runs.append(killed)
        go_on(site, way, ansible_playbook)
        run = ansible_playbook(WINDOW, *INVENTORY, *DUE, timeout=800)
        for killed in runs:
            killed.communicate(timeout=60)
        if way == "journal_lost" and "refused before any change" in run.stdout:
            # A module of the killed run may still have been starting the workers, which nobody knows without the
            # journal. They were not ready yet, and health refused. That process is over now.
            run = ansible_playbook(WINDOW, *INVENTORY, *DUE, timeout=800)
    finally:
        producer.terminate()
        producer.communicate(timeout=60)

    context = f"killed in {seen}, {way}"
    assert run.rc == 0, f"{context}:\n{run.stdout}"
    check_end(site, backups, context=context)
    last = site.reports()[-1]
    assert last["state"] == "succeeded"
    maintained = [step for step in last["steps"] if step["step"] == "database_maintenance"]
    check_maintained(site, ansible_playbook(*LAST_LOOK, timeout=400), maintained, context=context)
