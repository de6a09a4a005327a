# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Roll the workers of the demo to another image while events are produced: none is lost, and what fails is undone."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from support.playbooks import PlaybookRun
from support.site import INVENTORY, WINDOW, Site

pytestmark = [
    pytest.mark.alone,
    pytest.mark.lab("kubernetes", "kafka", "postgresql", "s3", "feature_service"),
    pytest.mark.timeout(1800),
]
Playbook = Callable[..., PlaybookRun]
UPGRADE, SCALING = "lowtide.ops.rolling_upgrade", "lowtide.ops.scaling"
WORKERS = ("--limit", "feature_workers,window_control")
BAD_IMAGE = {"demo_bad_image": True, "rolling_upgrade_batches": ["100%"]}


@pytest.fixture
def site(lab: dict[str, Any]) -> Site:
    """System A, with four workers of the first image."""
    made = Site(lab)
    made.make_due(release=True)
    return made


@pytest.fixture
def producer(site: Site) -> Iterator[Callable[[], dict[str, Any]]]:
    """Events are being produced; the call ends that and returns what the broker acknowledged."""
    process = site.produce(count=60_000, rate=100)

    def end() -> dict[str, Any]:
        process.terminate()
        said, _none = process.communicate(timeout=300)
        told: dict[str, Any] = json.loads(said)
        return told

    yield end
    if process.poll() is None:
        process.terminate()
        process.communicate(timeout=300)


def count_recorded(site: Site) -> tuple[int, int]:
    """How many events the service's own ledger has, and how many its features have had applied to them."""
    with site.database() as cursor:
        cursor.execute(
            "SELECT (SELECT count(*) FROM execution_events), (SELECT sum(events_applied) FROM feature_executions)"
        )
        recorded, applied = cursor.fetchone()
    return int(recorded), int(applied)


def check_counts(site: Site, before: tuple[int, int], produced: dict[str, Any]) -> None:
    """Check that what was produced is recorded, each event once, and nothing else."""
    assert produced["unconfirmed"] == 0
    audit = site.audit()
    assert audit["ok"], audit
    after = count_recorded(site)
    assert (after[0] - before[0], after[1] - before[1]) == (produced["acknowledged"], produced["acknowledged"])


@pytest.mark.procedure("A2", "C2", "C17")
def test_no_event_is_lost_by_an_upgrade_and_scaling_in_both_directions(
    site: Site, producer: Callable[[], dict[str, Any]], ansible_playbook: Playbook
) -> None:
    """Up to 8 workers, to the second image in batches, and down to 3."""
    before = count_recorded(site)
    name = site.service["worker"]
    for replicas, image in ((8, 0), (8, 1), (3, 1)):
        if set(site.images()) != {site.service["images"][image]}:
            run = ansible_playbook(UPGRADE, *INVENTORY, *WORKERS, timeout=800)
            assert "3 batches" in run.stdout, run.stdout
        else:
            scaled = {"kind": "StatefulSet", "name": name, "partitions": {"feature.events": replicas}}
            extra = {"scaling_workloads": [{**scaled, "allow_scale_down": True}]}
            run = ansible_playbook(SCALING, *INVENTORY, *WORKERS, extra_vars=extra)
        assert run.rc == 0, run.stdout
        assert site.workers()["ready"] == replicas
        assert site.images() == [site.service["images"][image]] * replicas
    check_counts(site, before, producer())
    again = ansible_playbook(UPGRADE, *INVENTORY, *WORKERS)
    assert (again.rc, again.changed) == (0, 0), again.stdout


@pytest.mark.procedure("B19")
def test_a_window_undoes_a_release_that_does_not_start_and_says_so(
    site: Site, producer: Callable[[], dict[str, Any]], ansible_playbook: Playbook
) -> None:
    before = count_recorded(site)
    run = ansible_playbook(WINDOW, *INVENTORY, extra_vars={**BAD_IMAGE, "backup_max_age": "24h"}, timeout=800)
    assert run.rc != 0
    report = site.reports()[-1]
    assert report["state"] == "failed_reverted", report
    assert site.images() == [site.service["images"][0]] * 4
    (step,) = [row for row in report["steps"] if row["step"] == "rolling_upgrade"]
    told = json.dumps(step)
    assert "ImagePull" in told
    assert f"({site.service['images'][0]}) serves again" in told
    assert f"({site.service['images'][0]}) serves again" in run.stdout
    # Nothing after it was begun: the workers were not stopped.
    assert [
        row["step"] for row in report["steps"] if row["changed"] and row["step"] not in ("backup", "rolling_upgrade")
    ] == []
    check_counts(site, before, producer())


@pytest.mark.sweep
def test_a_gate_that_is_breached_puts_the_workers_back(
    site: Site, producer: Callable[[], dict[str, Any]], ansible_playbook: Playbook
) -> None:
    """A group that is never so far ahead: the new pods of the first batch go again.

    In `make test` molecule/rolling_upgrade and tests/integration/kubernetes/test_rolling_upgrade.py have a breach.
    """
    before = count_recorded(site)
    gate = {"groups": [{"name": site.service["group"], "states": ["empty"]}], "timeout": 5}
    extra = {"rolling_upgrade_gate": gate, "rolling_upgrade_gate_first": False}
    run = ansible_playbook(UPGRADE, *INVENTORY, *WORKERS, extra_vars=extra, timeout=800)
    assert run.rc != 0
    assert "Put back: StatefulSet feature-system/feature-worker serves revision" in " ".join(run.stdout.split())
    assert site.images() == [site.service["images"][0]] * 4
    partition = site.kubectl(
        "get", "statefulset", site.service["worker"], "-o", "jsonpath={.spec.updateStrategy.rollingUpdate.partition}"
    )
    assert partition in ("", "0")
    check_counts(site, before, producer())


def test_the_producer_itself_counts_right(lab: dict[str, Any]) -> None:
    """Events that nobody works on are missed: the comparison is able to fail."""
    site = Site(lab)
    before = count_recorded(site)
    process = site.produce(count=10, rate=0)
    said = process.communicate(timeout=300)[0]
    assert isinstance(process, subprocess.Popen)
    with pytest.raises(AssertionError):
        check_counts(site, before, {**json.loads(said), "acknowledged": 11})
