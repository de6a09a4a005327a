# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The demo's window that is killed: where, and how it has to end once it is run again."""

from __future__ import annotations

from typing import Any

from .modules import CHECKOUT
from .playbooks import PlaybookRun
from .site import INVENTORY, Site

DUE = ("-e", "backup_max_age=0s")
"""A backup is due whatever is there."""
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
LAST_LOOK = (CHECKOUT / "playbooks/database_maintenance.yml", *INVENTORY, "--check")


def check_service(site: Site) -> None:
    """Assert that all workers are up that are asked for, and that nothing on them says otherwise."""
    workers = site.workers()
    assert workers["replicas"] == workers["ready"] > 0
    assert workers["notes"] == []


def check_end(site: Site, backups: list[str], *, context: str) -> None:
    """Assert the state in which each window ends. ``backups`` are the keys of the bucket before it."""
    assert site.workers() == {"replicas": 12, "ready": 12, "notes": []}, context
    assert site.images() == [site.service["images"][1]] * 12
    assert site.maintenance()["invalid"] == []
    keys = site.backup_keys()
    assert set(backups) < set(keys)
    assert not [key for key in keys if key.startswith("upload:")]
    audit = site.audit()
    assert audit["ok"], audit


def check_maintained(site: Site, due: PlaybookRun, maintained: list[dict[str, Any]], *, context: str) -> None:
    """Assert that nothing is due after a window, by check mode of the maintenance and the steps of the report.

    A vacuum that an orphan did beside the next run's backup removes nothing that the backup's snapshot still sees. The
    window then leaves it and names the holder; nothing else may be left.
    """
    assert due.rc == 0, due.stdout
    held_back = [
        blocker for step in maintained for blocker in step["blockers"] if "cannot be removed" in blocker["what"]
    ]
    assert due.changed == 0 or held_back, (
        f"{context}, something is still due:\n{due.stdout}\n{maintained}\n{site.tables()}"
    )
