# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The whole maintenance window on the lab: rehearsed, run, run again, and refused."""

from __future__ import annotations

import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from support.playbooks import PlaybookRun, run_playbook, write_yaml
from support.site import INVENTORY, WINDOW, Site
from support.tarball import build, install, run_installed
from support.turns import is_sweep

pytestmark = [
    pytest.mark.alone,
    pytest.mark.lab("kubernetes", "kafka", "postgresql", "s3", "feature_service"),
    pytest.mark.timeout(1800),
]
Playbook = Callable[..., PlaybookRun]
MODULE_TASKS = 25
"""At most so many modules are started by a window that has nothing to do (goal P2)."""
ALWAYS = {"backup_max_age": "0s"}
"""A backup is due in every window."""


@pytest.fixture
def site(lab: dict[str, Any]) -> Site:
    """System A."""
    return Site(lab)


def seen(site: Site) -> dict[str, Any]:
    """Everything that a window may change."""
    return {
        "workers": site.workers(),
        "images": sorted(site.images()),
        "maintenance": site.maintenance(),
        "backups": site.backup_keys(),
        "writes": site.api_writes(),
    }


def test_a_window_is_rehearsed_without_a_write_then_does_what_it_said_and_then_nothing(
    site: Site, ansible_playbook: Playbook, tmp_path: Path
) -> None:
    """The last of the three from the installed tarball, by its full name."""
    site.make_due(release=True)
    site.record_some()
    before = seen(site)
    reports = len(site.reports())

    rehearsal = ansible_playbook(WINDOW, *INVENTORY, "--check", "--diff", extra_vars=ALWAYS)

    assert rehearsal.rc == 0, rehearsal.stdout
    assert seen(site) == before
    assert len(site.reports()) == reports
    assert re.search(
        r"would: StatefulSet \S*feature-worker: \S* ?0 -> 12|would: .*feature-worker.* 12", rehearsal.stdout
    ), rehearsal.stdout

    producer = site.produce(count=20_000, rate=50)
    try:
        run = ansible_playbook(WINDOW, *INVENTORY, extra_vars=ALWAYS)
    finally:
        producer.terminate()
        producer.communicate(timeout=300)

    assert run.rc == 0, run.stdout
    report = site.reports()[-1]
    assert report["state"] == "succeeded"
    changed = {row["step"] for row in report["steps"] if row["changed"]}
    assert changed == {"backup", "rolling_upgrade", "shutdown", "database_maintenance", "startup", "scaling"}
    assert site.workers() == {"replicas": 12, "ready": 12, "notes": []}
    assert site.images() == [site.service["images"][1]] * 12
    after = seen(site)
    assert after["maintenance"]["invalid"] == []
    assert after["maintenance"]["tables"] != before["maintenance"]["tables"]
    assert set(before["backups"]) < set(after["backups"])
    assert not [key for key in after["backups"] if key.startswith("upload:")]
    assert site.audit()["ok"], site.audit()

    installed = install(build(tmp_path), tmp_path)
    again = run_installed(installed, "lowtide.ops.maintenance_window", *INVENTORY, "-vvv")

    assert again.rc == 0, again.stdout
    assert str(installed) in again.stdout
    assert site.reports()[-1]["state"] == "no_changes"
    assert 0 < again.stdout.count("Using module file") <= MODULE_TASKS
    assert again.changed == 0
    assert seen(site) == after


MISTAKES: dict[str, tuple[dict[str, Any], list[str]]] = {
    "wrong context": ({"kubernetes_connection": {"context": "production"}}, ["production"]),
    "other cluster": (
        {"kubernetes_connection": {"cluster_uid": "11111111-1111-1111-1111-111111111111"}},
        ["11111111-1111", "cluster_uid"],
    ),
    "wrong namespace": ({"kubernetes_namespace": "feature-sistem"}, ["feature-sistem"]),
    "wrong database": ({"postgresql_connection": {"login_db": "feature_bd"}}, ["feature_bd"]),
    "wrong password": (
        {"postgresql_connection": {"passfile": None, "login_password": "guessed-canary"}},
        ["password", "feature_backup"],
    ),
    "broker down": ({"kafka_connection": {"brokers": ["10.77.0.1:9"]}}, ["10.77.0.1:9"]),
    "no bucket": ({"bucket": "lowtide-bakups"}, ["lowtide-bakups"]),
    "topic missing": (
        {"scaling_workloads": [{"kind": "StatefulSet", "name": "feature-worker", "topics": ["feature.evens"]}]},
        ["feature.evens"],
    ),
}
CASES = [mistake for mistake in MISTAKES if is_sweep() or mistake not in ("wrong context", "wrong namespace")]
"""One mistake about each system, and each identity and credential of another kind; all of them in a sweep."""


def window_of(mistake: str) -> str:
    """The name of the window that is run with ``mistake``."""
    return f"mistaken-{mistake.replace(' ', '-')}"


class Refusals(NamedTuple):
    """The runs of every mistake, and what could have changed, before the first and after the last."""

    runs: dict[str, PlaybookRun]
    before: dict[str, Any]
    after: dict[str, Any]


@pytest.fixture(scope="module")
def refusals(lab_facts: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Refusals:
    """Three runs at a time, since none of them should change anything."""
    site, folder = Site(lab_facts), tmp_path_factory.mktemp("mistaken")

    def mistaken(mistake: str) -> PlaybookRun:
        extra: dict[str, Any] = {"window_name": window_of(mistake), "window_site": window_of(mistake)}
        for key, value in MISTAKES[mistake][0].items():
            extra[key] = {**connection(site, key), **value} if isinstance(value, dict) else value
        given = write_yaml(folder / f"{window_of(mistake)}.yml", extra)
        return run_playbook(WINDOW, *INVENTORY, "-e", f"@{given}", timeout=800)

    before = seen(site)
    with ThreadPoolExecutor(max_workers=3) as pool:
        runs = dict(zip(CASES, pool.map(mistaken, CASES), strict=True))
    return Refusals(runs, before, seen(site))


@pytest.mark.procedure("B24")
@pytest.mark.parametrize("mistake", CASES)
def test_a_wrong_site_is_refused_before_any_change(refusals: Refusals, mistake: str) -> None:
    run = refusals.runs[mistake]
    assert run.rc != 0
    last = re.findall(rf"lowtide window {window_of(mistake)}@\S+ (\w+)", run.stdout)
    assert "refused" in last, run.stdout[-3000:]
    cause = next(line for line in run.stdout.splitlines() if "First cause" in line)
    for word in MISTAKES[mistake][1]:
        assert word in cause, cause
    assert "guessed-canary" not in run.stdout + run.stderr
    assert refusals.after == refusals.before


def connection(site: Site, name: str) -> dict[str, Any]:
    """What the inventory has under ``name``, as data."""
    lab = site.facts
    known = {
        "kubernetes_connection": {key: lab["kubernetes"][key] for key in ("kubeconfig", "context", "cluster_uid")},
        "kafka_connection": {
            "brokers": [lab["kafka"]["bootstrap_servers"]],
            "cluster_id": lab["kafka"]["cluster_id"],
        },
        "postgresql_connection": {
            "login_host": ",".join(lab["postgresql"]["hosts"]),
            "login_port": lab["postgresql"]["port"],
            "login_user": site.service["accounts"]["maintenance"]["user"],
            "login_db": site.service["database"],
            "passfile": site.service["accounts"]["maintenance"]["passfile"],
            "system_identifier": lab["postgresql"]["system_identifier"],
        },
    }
    return known.get(name, {})
