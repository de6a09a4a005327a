# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The playbook of the role restore, its controller SIGKILLed as a task begins; then run again.

By default before the task after the module; LOWTIDE_EXHAUSTIVE=1 takes all.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from support.modules import CHECKOUT
from support.playbooks import PlaybookRun, run_playbook, write_yaml
from support.restores import Shop, check_whole, put_back
from support.turns import is_sweep

pytestmark = pytest.mark.lab("postgresql_versions", "versitygw")
PLAYBOOK = "lowtide.ops.restore"
TASK = re.compile(r"^TASK \[(.*)\] \*", re.MULTILINE)


def write_inventory(shop: Shop, folder: Path) -> Path:
    """One database that is restored in place of the live one."""
    own = shop.params()
    connection = {name: own[name] for name in own if name.startswith("login_") or name == "ssl_mode"}
    bucket = {name: own[name] for name in ("endpoint_url", "region", "credentials_file", "profile") if name in own}
    host = {
        "ansible_connection": "local",
        "ansible_python_interpreter": "{{ ansible_playbook_python }}",
        "postgresql_connection": connection,
        "s3_connection": bucket,
        "bucket": own["bucket"],
        "restore_prefix": own["prefix"],
        "restore_state": "live",
        "restore_backup": shop.run_id,
        "restore_maintenance_db": own["maintenance_db"],
        "restore_bin_dir": own["bin_dir"],
    }
    return write_yaml(folder / "hosts.yml", {"databases": {"hosts": {"shop": host}}})


def run_restore(inventory: Path, *, kill_at: int = 0) -> PlaybookRun:
    """Run the playbook; with ``kill_at`` it is killed as that task begins."""
    environment = {
        "ANSIBLE_CALLBACKS_ENABLED": "kill_at",
        "ANSIBLE_CALLBACK_PLUGINS": str(CHECKOUT / "tests" / "window" / "fast" / "callback_plugins"),
        "KILL_AT": f"{kill_at}:9",
    }
    return run_playbook(PLAYBOOK, "-i", str(inventory), env=environment, timeout=300)


@pytest.mark.procedure("A24", "C21")
def test_killed_at_any_task_the_live_name_is_whole_and_the_rerun_ends_right(shop: Shop, tmp_path: Path) -> None:
    """The original before the module and the restored one after it; the next run completes it, or does nothing."""
    original = shop.oid(shop.name)
    inventory = write_inventory(shop, tmp_path)
    assert shop.restore().changed
    whole = run_restore(inventory)
    assert whole.rc == 0, whole.stdout + whole.stderr
    assert check_whole(shop, original)
    tasks = TASK.findall(whole.stdout)
    module = next(number for number, name in enumerate(tasks, 1) if name.endswith("Have the backup there, compared"))
    assert len(tasks) > module
    points = range(1, len(tasks) + 1) if is_sweep() else [module + 1]
    for number in points:
        put_back(shop)
        assert shop.restore().changed
        killed = run_restore(inventory, kill_at=number)
        assert killed.rc == -9, (number, tasks, killed.stdout)
        assert check_whole(shop, original) is (number > module), (number, tasks)
        again = run_restore(inventory)
        assert again.rc == 0, (number, again.stdout)
        assert (again.changed > 0) is (number <= module), (number, again.stdout)
        assert check_whole(shop, original), number
