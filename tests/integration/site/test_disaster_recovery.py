# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A database that is lost or spoiled is brought back by the playbook disaster_recovery, by accounts with few rights."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.lowtide.ops.plugins.plugin_utils._window.events import StepEvent, StepStarted, StepSucceeded
from support.backups import quoted
from support.playbooks import PlaybookRun, start_playbook
from support.postgresql_rights import Superuser, grant_documented_rights
from support.small_site import CONSUMER, PASSWORD, SmallSite, make_small_site

pytestmark = [
    pytest.mark.lab("kubernetes", "kafka", "postgresql", "versitygw", "feature_service"),
    pytest.mark.timeout(1800),
]
PLAYBOOK = "lowtide.ops.disaster_recovery"
SERVING = {CONSUMER: 2, "api": 1, "web": 1}
EVENTS = 300
COUNT = "SELECT (SELECT count(*) FROM invoices), (SELECT count(*) FROM execution_events)"
CHANGED = ["shutdown", "restore", "startup", "backup"]
SPOIL = {
    "lost": ("postgres", "DROP DATABASE {database} WITH (FORCE)"),
    "spoiled": ("", "DELETE FROM invoices WHERE id > 10; DROP TABLE execution_events CASCADE"),
}
Run = Callable[..., PlaybookRun]


@pytest.fixture
def site(lab: dict[str, Any], unique_name: Callable[..., str], tmp_path: Path) -> Iterator[SmallSite]:
    """The site of inventories/example, whose database belongs to its owner, and an account that restores."""
    with make_small_site(lab, unique_name, tmp_path) as made:
        store, facts = made.store, lab["postgresql"]
        account = unique_name("restorer", separator="_")
        owner = store.sql("SELECT tableowner FROM pg_tables WHERE tablename = 'invoices'")[0][0]
        store.sql(f"ALTER DATABASE {quoted(store.database)} OWNER TO {owner}")
        superuser = Superuser(store.primary, facts["port"], facts["superuser"], facts["passfile"])
        grant_documented_rights(superuser, store.database, owner=owner, restore=account)
        store.sql(f"ALTER ROLE {account} PASSWORD '{PASSWORD}'")
        with (tmp_path / "pgpass").open("a", encoding="utf-8") as passfile:
            passfile.write(f"*:*:*:{account}:{PASSWORD}\n")
        connection = made.variables.pop("postgresql_connection")
        made.variables["restore_connection"] = {**connection, "login_user": account}
        # As where a site has several databases: the control host knows none of them.
        made.hosts["all"]["children"]["databases"]["vars"] = {"postgresql_connection": connection}
        made.variables["corruption_triage_evidence_folder"] = str(tmp_path)
        made.write()
        wait_for_events(made)
        try:
            yield made
        finally:
            for (name,) in store.sql(
                "SELECT datname FROM pg_database WHERE starts_with(datname, %(name)s)",
                database="postgres",
                values={"name": f"{store.database}_"},
            ):
                store.sql(f"DROP DATABASE {quoted(name)} WITH (FORCE)", database="postgres")
            store.sql(f"DROP ROLE {account}", database="postgres")


def wait_for_events(site: SmallSite) -> None:
    """Until the workers have recorded all events, so that the backup has them."""
    end = time.monotonic() + 300
    while site.store.sql(COUNT)[0][1] < EVENTS:
        assert time.monotonic() < end, "the workers do not record the events"
        time.sleep(0.1)


def list_runs(site: SmallSite) -> list[str]:
    """The backups that count, oldest first."""
    return sorted(key.split("/")[-2] for key in site.store.names() if key.endswith("/manifest.json"))


def recover(site: SmallSite, ansible_playbook: Run, run_id: str, *more: str) -> PlaybookRun:
    """Run the playbook as an operator does."""
    return ansible_playbook(PLAYBOOK, *site.arguments, *choose(run_id), *more)


def choose(run_id: str) -> tuple[str, ...]:
    """What an operator says."""
    return ("-e", "disaster_recovery=restore", "-e", f"restore_backup={run_id}")


def wait_for_step(site: SmallSite, process: Any, kind: type, step: str) -> None:
    """Until the journal says that a step began or ended."""
    end = time.monotonic() + 600
    while not any(
        isinstance(event, StepEvent) and isinstance(event, kind) and event.step == step for event in site.read_events()
    ):
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < end, f"{step} was not reached"
        time.sleep(0.05)


@pytest.mark.procedure("A24", "B20", "C21")
@pytest.mark.parametrize(
    ("harm", "kind", "step"),
    [
        ("lost", StepStarted, "restore"),
        pytest.param("spoiled", StepStarted, "restore", marks=pytest.mark.sweep),
        pytest.param("spoiled", StepSucceeded, "restore", marks=pytest.mark.sweep),
        pytest.param("lost", StepStarted, "startup", marks=pytest.mark.sweep),
        pytest.param("lost", StepStarted, "backup", marks=pytest.mark.sweep),
    ],
)
def test_a_database_is_brought_back(site: SmallSite, ansible_playbook: Run, harm: str, kind: type, step: str) -> None:
    """Refused without a named backup, rehearsed without a write, killed in the middle, finished by the same command."""
    backup = ansible_playbook("lowtide.ops.backup", *site.arguments)
    assert backup.rc == 0, backup.stdout
    (run_id,) = list_runs(site)
    rows = site.store.sql(COUNT)
    database, statement = SPOIL[harm]
    site.store.sql(statement.format(database=quoted(site.store.database)), database=database or None)

    refused = recover(site, ansible_playbook, "latest")
    assert refused.rc == 2
    assert "run_id" in " ".join(refused.stdout.split()), refused.stdout
    if harm == "spoiled":
        unprepared = recover(site, ansible_playbook, run_id, "--check")
        assert "there is no whole copy of backup" in " ".join(unprepared.stdout.split()), unprepared.stdout
        beside = ansible_playbook("lowtide.ops.restore", *site.arguments, "-e", f"restore_backup={run_id}")
        assert beside.rc == 0, beside.stdout
    rehearsal = recover(site, ansible_playbook, run_id, "--check")
    assert rehearsal.rc == 0, rehearsal.stdout
    assert "cannot be undone" in rehearsal.stdout
    assert {name: item["replicas"] for name, item in site.cluster.read_workloads().items()} == SERVING
    assert len(list_runs(site)) == 1

    killed = start_playbook(PLAYBOOK, *site.arguments, *choose(run_id))
    wait_for_step(site, killed, kind, step)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.communicate(timeout=60)
    done = recover(site, ansible_playbook, run_id)
    assert done.rc == 0, done.stdout

    report = site.read_report()
    assert report["state"] == "succeeded"
    looked_at = [row for row in report["steps"] if row["step"] == "health"]
    assert len({row["host"] for row in looked_at}) == 1 + 1, "the control host, and that of the database"
    assert "primary, system identifier" in str(looked_at)
    assert site.store.sql(COUNT) == rows
    assert site.cluster.read_serving() == SERVING
    assert len(list_runs(site)) == 1 + 1, "a fresh backup was made, and one only"
    databases = site.store.sql(
        "SELECT datname FROM pg_database WHERE starts_with(datname, %(name)s) ORDER BY 1",
        database="postgres",
        values={"name": site.store.database},
    )
    kept = f"{site.store.database}_before_{run_id.lower().replace('-', '_')}"
    assert [name for (name,) in databases] == [site.store.database] + [kept] * (harm == "spoiled")
    (evidence,) = site.folder.glob("*.json")
    assert site.store.database in evidence.name

    before = site.read_state()
    again = recover(site, ansible_playbook, run_id)
    assert again.rc == 0, again.stdout
    assert again.changed == 0
    assert site.read_report()["state"] == "no_changes"
    assert {**site.read_state(), "windows": []} == {**before, "windows": []}
