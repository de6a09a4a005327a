# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The recovery of MariaDB that docs/disaster-recovery.md prints, as a window, while a client uses the database."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from support.checkout import text
from support.mysql_restores import name_server, restore
from support.mysql_sites import MySqlSite
from support.playbooks import PlaybookRun, write_yaml
from support.readme import BLOCK

pytestmark = [pytest.mark.lab("mariadb", "versitygw")]
OWN = {"ansible_connection": "local", "ansible_python_interpreter": "{{ ansible_playbook_python }}"}


def read_printed_steps() -> list[dict[str, Any]]:
    """The list of the page, but for its health: nothing is declared here that it could look at."""
    blocks = [match[1] for match in BLOCK.finditer(text(Path("docs/disaster-recovery.md")))]
    (printed,) = [block for block in blocks if block.startswith("disaster_recovery_steps:")]
    steps = yaml.safe_load(printed)["disaster_recovery_steps"]["mysql"]
    return [step for step in steps if step["name"] != "health"]


def write_workers(folder: Path, site: MySqlSite) -> dict[str, str]:
    """Files of tasks that end the clients of the database, as the shutdown of workers does, and that start nothing."""
    client = f"mariadb --no-defaults --socket={site.facts['primary']['socket']} -u root"
    listed = f"SELECT concat('KILL ', ID, ';') FROM information_schema.PROCESSLIST WHERE DB = '{site.database}'"
    files = {}
    for name, command in (("shutdown", f'{client} -N -e "{listed}" | {client}'), ("startup", "true")):
        told = {"changed": True, "summary": name}
        tasks: list[dict[str, Any]] = [
            {"name": name, "ansible.builtin.shell": command, "changed_when": True},
            {"name": "Tell", "ansible.builtin.set_fact": {f"{name}_result": told}},
        ]
        files[name] = str(write_yaml(folder / f"{name}.yml", tasks))
    return files


@pytest.mark.procedure("E9", "A24")
def test_the_printed_recovery_begins_while_the_database_is_in_use(
    site: MySqlSite, backup: str, ansible_playbook: Callable[..., PlaybookRun], tmp_path: Path
) -> None:
    """Its plan tells of the client, which the step before ends; the module itself refuses as long as one is there."""
    assert restore(site, "beside").changed
    steps, files = read_printed_steps(), write_workers(tmp_path, site)
    steps = [
        {**{key: value for key, value in step.items() if key != "role"}, "tasks": files[step["name"]]}
        if step["name"] in files
        else step
        for step in steps
    ]
    names = {"control": "controller", "workloads": "web1", "mysql_databases": "orders_db"}
    groups = {group: {"hosts": {host: None}} for group, host in names.items()}
    inventory = write_yaml(tmp_path / "hosts.yml", {"all": {"vars": OWN, "children": groups}})
    params = site.params("restore")
    variables = {
        "disaster_recovery": "mysql",
        "disaster_recovery_steps": {"mysql": steps},
        "window_dir": str(tmp_path / "state"),
        "mysql_restore_connection": {key: params[key] for key in ("login_host", "login_port", "option_file")},
        "mysql_restore_database": site.database,
        "mysql_restore_s3_connection": {
            key: value for key, value in site.bucket.s3_params().items() if key not in ("bucket", "prefix")
        },
        "mysql_restore_bucket": params["bucket"],
        "mysql_restore_prefix": params["prefix"],
        "mysql_restore_server": name_server(site),
        "mysql_restore_backup": backup,
    }
    user = site.connect()
    try:
        rehearsed = restore(site, "in_place", backup=backup, check=True)
        assert rehearsed.changed, rehearsed.msg
        assert [blocker["holder"] for blocker in rehearsed["blockers"]] == ["root from localhost"]
        assert "it is in use by 1 session: root from localhost" in json.dumps(rehearsed.result["warnings"])
        refused = restore(site, "in_place", backup=backup)
        assert refused.failed
        assert "it is in use by 1 session: root from localhost" in refused.msg
        run = ansible_playbook("lowtide.ops.disaster_recovery", "-i", str(inventory), extra_vars=variables, timeout=300)
    finally:
        user.close()
    assert run.rc == 0, run.stdout
    assert site.sql("SELECT count(*) FROM child")[0][0] == 50
    assert site.exists(f"{site.database}__original")
