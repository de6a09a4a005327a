# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Run sites that are not the demo, as a newcomer writes them: two files, accounts with few rights, the shipped playbooks."""

from __future__ import annotations

import subprocess
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from ansible_collections.lowtide.ops.plugins.plugin_utils._window.events import StepEvent, StepStarted, StepSucceeded
from support.checkout import load_yaml
from support.playbooks import PlaybookRun, kill_playbook, start_playbook, write_yaml
from support.small_site import (
    CONSUMER,
    EXAMPLE,
    SmallSite,
    describe_role_without_patch_of,
    make_small_site,
    make_tiered_site,
)

pytestmark = [
    pytest.mark.lab("kubernetes", "kafka", "postgresql", "versitygw", "feature_service"),
    pytest.mark.timeout(1800),
]
WINDOW = "lowtide.ops.maintenance_window"
STATUS = "lowtide.ops.window_status"
IDENTITIES = {
    "kubernetes_connection": "cluster_uid",
    "kafka_connection": "cluster_id",
    "postgresql_connection": "system_identifier",
}
SERVING = {CONSUMER: 2, "api": 1, "web": 1}
TIERS = [f"tier_{number}" for number in range(1, 6)]
TIERS_SERVING = {f"app-{number}": 1 for number in range(1, 6)}
Run = Callable[..., PlaybookRun]


@pytest.fixture
def site(lab: dict[str, Any], unique_name: Callable[..., str], tmp_path: Path) -> Iterator[SmallSite]:
    """Make the site of inventories/example."""
    with make_small_site(lab, unique_name, tmp_path) as made:
        yield made


@pytest.fixture
def tiered_site(lab: dict[str, Any], unique_name: Callable[..., str], tmp_path: Path) -> Iterator[SmallSite]:
    """Make five tiers, each a host of its own, and no Kafka."""
    with make_tiered_site(lab, unique_name, tmp_path, tiers=len(TIERS)) as made:
        yield made


def read_words(run: PlaybookRun) -> str:
    """Return what was printed, without line breaks."""
    return " ".join(run.stdout.split())


def paste(site: SmallSite, run: PlaybookRun) -> None:
    """Do with what identify printed what it says: put it under the variables of those names."""
    block = run.stdout.partition("paste:\n")[2].partition("\n\n")[0]
    for name, identity in yaml.safe_load(textwrap.dedent(block)).items():
        site.variables[name] |= identity
    site.write()


def test_a_site_is_two_files(site: SmallSite, lab: dict[str, Any], ansible_playbook: Run) -> None:
    """Identify, rehearse, maintain, tell, and then nothing is due; the accounts have the documented rights only."""
    assert site.variables.keys() == load_yaml(EXAMPLE / "group_vars/all.yml").keys()
    assert len(site.variables) <= 12
    assert [path.name for path in site.folder.glob("inventory/**/*.*")] == ["hosts.yml", "all.yml"]
    assert "{{" not in (site.folder / "inventory/group_vars/all.yml").read_text(encoding="utf-8")

    for name, key in IDENTITIES.items():
        del site.variables[name][key]
    site.write()
    identified = ansible_playbook("lowtide.ops.identify", *site.arguments)
    assert identified.rc == 0, identified.stdout
    paste(site, identified)
    pasted = {name: site.variables[name][key] for name, key in IDENTITIES.items()}
    systems = ("kubernetes", "kafka", "postgresql")
    facts = [lab[system][key] for system, key in zip(systems, IDENTITIES.values(), strict=True)]
    assert list(pasted.values()) == facts

    site.make_dead_rows()
    before = site.read_state()
    rehearsal = ansible_playbook(WINDOW, "--check", *site.arguments)
    assert rehearsal.rc == 0, rehearsal.stdout
    assert site.read_state() == before
    told = read_words(rehearsal)
    for words in (
        "would back up",
        "would stop Deployment",
        f"StatefulSet {site.cluster.namespace}/{CONSUMER}: replicas 2 -> 0",
        "would: table public.invoices: VACUUM",
        "would start StatefulSet",
    ):
        assert words in told, rehearsal.stdout

    window = ansible_playbook(WINDOW, *site.arguments)
    assert window.rc == 0, window.stdout
    report = site.read_report()
    assert report["state"] == "succeeded"
    changed = [row["step"] for row in report["steps"] if row["changed"]]
    assert changed == ["backup", "shutdown", "database_maintenance", "startup"]
    (shutdown,) = [row for row in report["steps"] if row["step"] == "shutdown"]
    assert "empty, lag 0, 3 partitions" in shutdown["evidence"][-1]
    assert site.cluster.read_serving() == SERVING
    after = site.read_state()
    assert after["vacuums"] == before["vacuums"] + 1
    assert sum(key.endswith("/manifest.json") for key in after["keys"]) == 1

    status = read_words(ansible_playbook(STATUS, *site.arguments))
    assert "not held by anybody" in status
    assert f"Window {report['window_id']}: succeeded" in status
    assert "did 1 of 1 step" in status

    again = ansible_playbook(WINDOW, *site.arguments)
    assert again.rc == 0, again.stdout
    assert again.changed == 0
    assert site.read_report()["state"] == "no_changes"
    then = site.read_state()
    assert {**then, "windows": []} == {**after, "windows": []}


def wait_for_stop(site: SmallSite, window: subprocess.Popen[str]) -> None:
    """Wait until the journal says that everything is stopped."""
    end = time.monotonic() + 300
    while not any(isinstance(event, StepSucceeded) and event.step == "shutdown" for event in site.read_events()):
        if window.poll() is not None:
            pytest.fail(f"the window ended before it had stopped anything:\n{window.communicate()[0]}")
        assert time.monotonic() < end, "nothing was stopped"
        time.sleep(0.1)


def hold_before_maintenance(site: SmallSite) -> None:
    """Have the window wait when everything is stopped, so that it is killed there however late that is."""
    wait = {"ansible.builtin.wait_for": {"path": str(site.folder / "never"), "timeout": 300}}
    tasks = write_yaml(site.folder / "hold.yml", [{"name": "Wait", **wait, "when": "not ansible_check_mode"}])
    steps: list[dict[str, Any]] = site.variables["window_steps"]
    (stopped,) = [number for number, step in enumerate(steps) if step["name"] == "shutdown"]
    hold = {"name": "hold", "tasks": str(tasks), "hosts": ["workloads"], "needs": ["shutdown"]}
    steps.insert(stopped + 1, hold)
    site.write()


@pytest.mark.sweep
def test_a_killed_window_is_restored_and_not_resumed(site: SmallSite, ansible_playbook: Run) -> None:
    """With the same two files; the maintenance that the window was about to do stays undone."""
    hold_before_maintenance(site)
    site.make_dead_rows()
    vacuums = site.count_vacuums()
    window = start_playbook(WINDOW, *site.arguments)
    try:
        wait_for_stop(site, window)
    finally:
        if window.poll() is None:
            kill_playbook(window)
    stopped = site.cluster.read_workloads()
    assert {name: item["replicas"] for name, item in stopped.items()} == dict.fromkeys(SERVING, 0)
    assert all(item["notes"] for item in stopped.values())
    status = read_words(ansible_playbook(STATUS, *site.arguments))
    assert "Not reverted yet: shutdown on shop_workloads" in status
    assert "not held by anybody" in status

    restored = ansible_playbook("lowtide.ops.restore_service", *site.arguments)

    assert restored.rc == 0, restored.stdout
    assert site.cluster.read_serving() == SERVING
    assert site.count_vacuums() == vacuums
    assert "Not reverted yet" not in read_words(ansible_playbook(STATUS, *site.arguments))


def read_order(site: SmallSite, step: str) -> list[tuple[str, str]]:
    """Return on which host the step began and ended, in order."""
    words = {StepStarted: "begin", StepSucceeded: "end"}
    return [
        (words[type(event)], event.host)
        for event in site.read_events()
        if isinstance(event, StepEvent) and event.step == step and type(event) in words
    ]


def list_in_turn(hosts: list[str]) -> list[tuple[str, str]]:
    """Return what it is when each begins after the one before has ended."""
    return [(word, host) for host in hosts for word in ("begin", "end")]


@pytest.mark.sweep
def test_five_tiers_without_kafka_run_by_the_same_playbook(tiered_site: SmallSite, ansible_playbook: Run) -> None:
    """Stopped from the last to the first, one when the other is gone, and started in the reverse order.

    A tier is missing: the window is refused.
    """
    tiered_site.make_dead_rows()
    window = ansible_playbook(WINDOW, *tiered_site.arguments)
    assert window.rc == 0, window.stdout
    assert tiered_site.read_report()["state"] == "succeeded"
    assert read_order(tiered_site, "shutdown") == list_in_turn(TIERS[::-1])
    assert read_order(tiered_site, "startup") == list_in_turn(TIERS)
    assert tiered_site.cluster.read_serving() == TIERS_SERVING

    tiered_site.make_dead_rows()
    cluster = tiered_site.cluster
    cluster.kubectl("delete", "deployment", "app-3")
    before = cluster.read_workloads()
    refused = ansible_playbook(WINDOW, *tiered_site.arguments)
    assert refused.rc == 2
    assert tiered_site.read_report()["state"] == "refused"
    assert f"Deployment {cluster.namespace}/app-3" in tiered_site.read_report()["cause"]
    assert cluster.read_workloads() == before


@pytest.mark.sweep
def test_a_tier_that_may_not_be_stopped_has_the_others_started_again(
    tiered_site: SmallSite, ansible_playbook: Run
) -> None:
    """Those that were stopped before it."""
    tiered_site.make_dead_rows()
    cluster = tiered_site.cluster
    cluster.apply(*tiered_site.objects, describe_role_without_patch_of("app-3", TIERS_SERVING))
    cluster.wait_ready()
    failed = ansible_playbook(WINDOW, *tiered_site.arguments)
    assert failed.rc == 2
    report = tiered_site.read_report()
    assert report["state"] == "failed_reverted"
    assert "shutdown on tier_3" in report["cause"]
    assert 'cannot patch resource "deployments"' in report["cause"]
    stopped = [host for word, host in read_order(tiered_site, "shutdown") if word == "end"]
    assert stopped == ["tier_5", "tier_4"]
    assert cluster.read_serving() == TIERS_SERVING
