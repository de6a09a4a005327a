# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""inventories/example, by real Ansible: every variable of every host has a value, and the site is as small as
promised."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support.checkout import below, load_yaml
from support.modules import CHECKOUT
from support.playbooks import PlaybookRun

EXAMPLE = Path("inventories/example")
INVENTORY = ("-i", str(CHECKOUT / EXAMPLE))
SITE_VARIABLES = {
    "kubernetes_connection",
    "kafka_connection",
    "postgresql_connection",
    "s3_connection",
    "kubernetes_namespace",
    "tiers",
    "consumer_groups",
    "topics",
    "bucket",
    "window_dir",
    "window_site",
    "window_steps",
}
ROLES = ("backup", "database_maintenance", "scaling", "shutdown", "startup")


def run_in(tmp_path: Path, ansible_playbook: Callable[..., PlaybookRun], names: list[str], *arguments: str) -> Any:
    """The values of these variables on every host, templated by Ansible, by host."""
    out = tmp_path / "values"
    out.mkdir()
    values = "{{ dict(names | zip(names | map('extract', vars))) | to_json }}"
    write = {
        "ansible.builtin.copy": {"content": values, "dest": f"{out}/{{{{ inventory_hostname }}}}.json", "mode": "0600"}
    }
    play = {"hosts": "all", "gather_facts": False, "vars": {"names": names}, "tasks": [write]}
    run = ansible_playbook([play], *arguments)
    assert run.rc == 0, run.stdout + run.stderr
    return {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in out.glob("*.json")}


def test_it_is_two_files_and_twelve_variables() -> None:
    """What a newcomer has to write."""
    assert [str(path.relative_to(EXAMPLE)) for path in below(str(EXAMPLE))] == ["group_vars/all.yml", "hosts.yml"]
    assert load_yaml(EXAMPLE / "group_vars/all.yml").keys() == SITE_VARIABLES
    assert "lab" not in (CHECKOUT / EXAMPLE / "group_vars/all.yml").read_text(encoding="utf-8").split()


def test_every_variable_of_every_host_has_a_value(tmp_path: Path, ansible_playbook: Callable[..., PlaybookRun]) -> None:
    """Templated on each of them, none empty but the password, which comes from the environment."""
    values = run_in(tmp_path, ansible_playbook, sorted(SITE_VARIABLES), *INVENTORY)
    assert values.keys() == {"window_control", "shop_workloads", "shop_db"}
    for host, variables in values.items():
        assert variables.keys() == SITE_VARIABLES, host
        assert all(variables.values()), host
        assert variables == values["window_control"]
    assert [[entry["name"] for entry in tier] for tier in values["shop_workloads"]["tiers"]] == [
        ["order-consumer"],
        ["api", "web"],
    ]


def test_the_check_finds_a_variable_without_a_value(
    tmp_path: Path, ansible_playbook: Callable[..., PlaybookRun]
) -> None:
    """A reference to what is not there fails it."""
    with pytest.raises(AssertionError, match="no_such_site"):
        run_in(tmp_path, ansible_playbook, ["bucket"], *INVENTORY, "-e", '{"bucket": "{{ no_such_site.bucket }}"}')


@pytest.mark.parametrize("role", ROLES)
def test_a_missing_site_variable_is_named_with_its_host(
    role: str, ansible_playbook: Callable[..., PlaybookRun]
) -> None:
    """By the role itself, before anything is done: host, variable, and what else could be set."""
    include = {"ansible.builtin.include_role": {"name": f"lowtide.ops.{role}"}}
    play = {"hosts": "localhost", "gather_facts": False, "vars": {"scaling_workloads": []}, "tasks": [include]}
    run = ansible_playbook([play])
    assert run.rc == 2, run.stdout + run.stderr
    connection = "postgresql_connection" if role in ("backup", "database_maintenance") else "kubernetes_connection"
    assert f"localhost: set {connection} or {role}_connection" in " ".join(run.stdout.split())


@pytest.mark.parametrize("role", ROLES)
def test_roles_find_their_inputs_in_the_example(
    tmp_path: Path, role: str, ansible_playbook: Callable[..., PlaybookRun]
) -> None:
    """Every default of every role has a value on every host."""
    defaults = sorted(load_yaml(Path(f"roles/{role}/defaults/main.yml")))
    path = str(CHECKOUT / f"roles/{role}/defaults/main.yml")
    values = run_in(
        tmp_path, ansible_playbook, defaults, *INVENTORY, "-e", f"@{path}", "-e", '{"scaling_workloads": []}'
    )
    assert all(variables.keys() == set(defaults) for variables in values.values())
    assert values["shop_db"][f"{role}_connection"]
