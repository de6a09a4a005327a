# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A rolling upgrade in a window killed on real servers and then run again: the new revision or the old one, whole.

At ten points, and at ten of a release that does not start. In `make test` test_window_kill.py kills at one of them.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from typing import Any

import pytest

from support.playbooks import PlaybookRun, start_playbook
from support.site import INVENTORY, WINDOW, Site

pytestmark = [
    pytest.mark.alone,
    pytest.mark.sweep,
    pytest.mark.lab("kubernetes", "kafka", "postgresql", "s3", "feature_service"),
    pytest.mark.timeout(1800),
]
ONLY = ("-e", "window_only=rolling_upgrade")
BAD_IMAGE = ("-e", "demo_bad_image=true")
POINTS = (0.2, 2.0, 4.0, 6.0, 8.0, 10.0, 12.0, 14.0, 17.0, 20.0)
"""Seconds after the begin of the step, which takes longer than the last of them."""


@pytest.mark.parametrize("bad", [False, True])
@pytest.mark.parametrize("seconds", POINTS)
def test_killed_it_ends_with_one_revision_whole(
    lab: dict[str, Any], ansible_playbook: Callable[..., PlaybookRun], seconds: float, bad: bool
) -> None:
    site = Site(lab)
    site.make_due(release=True)
    arguments = (*INVENTORY, *ONLY, *(BAD_IMAGE if bad else ()))
    producer = site.produce(count=60_000, rate=50)
    try:
        since = time.time()
        killed = start_playbook(WINDOW, *arguments)
        site.wait_for_begin("rolling_upgrade", killed, since)
        time.sleep(seconds)  # the kill comes at a time, not at a condition
        assert killed.poll() is None, "the window was over before the kill"
        os.kill(killed.pid, signal.SIGKILL)
        run = ansible_playbook(WINDOW, *arguments, timeout=500)
        killed.communicate(timeout=60)
    finally:
        producer.terminate()
        producer.communicate(timeout=60)

    report = site.reports()[-1]
    image = site.service["images"][0 if bad else 1]
    assert (run.rc == 0) is not bad, run.stdout
    assert site.images() == [image] * 4
    assert site.workers() == {"replicas": 4, "ready": 4, "notes": []}
    # Killed after the last pod was replaced, the next run finds nothing to do.
    assert report["state"] in ({"failed_reverted"} if bad else {"succeeded", "no_changes"}), report
    (step,) = [row for row in report["steps"] if row["step"] == "rolling_upgrade"]
    assert f"({image}) serves" in json.dumps(step), step
    assert site.audit()["ok"], site.audit()
    again = ansible_playbook(WINDOW, *INVENTORY, *ONLY, timeout=500)
    assert again.rc == 0, again.stdout
    assert site.reports()[-1]["state"] == ("succeeded" if bad else "no_changes")
    assert site.images() == [site.service["images"][1]] * 4
