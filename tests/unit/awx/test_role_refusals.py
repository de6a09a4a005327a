# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The role awx: what it refuses, and an AWX that has objects already, runs no jobs, or is empty."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support.awx_stand_in import MANUAL, PASSWORD, REPOSITORY, USERNAME, AwxStandIn, make_collection_folders
from support.checkout import playbook_names
from support.playbooks import PlaybookRun, run_playbook

from .declared import BOUND, MINIMAL, write_site

PROBE = "Read before operations, so that this is updated only when git answers"
UNSEEN = "c2VjcmV0LW9mLXRoZS1zaXRl"
VAULTS: list[dict[str, Any]] = [
    {"name": f"vault {name}", "type": "Vault", "inputs": {"vault_id": name}} for name in ("one", "two")
]
KUBECONFIG = {"name": "shop cluster", "type": "lowtide kubeconfig"}


@pytest.mark.parametrize(
    ("verbosity", "changed", "said"),
    [
        (
            "-v",
            {"awx_credentials": [{**KUBECONFIG, "inputs": {"kubeconfg": UNSEEN}}]},
            "shop cluster: AWX has refused it (Unable to create credential shop cluster: {'inputs': [\"Additional"
            " properties are not allowed ('kubeconfg' was unexpected)\"]}). What was made before it stays, and is"
            " not made again. Correct its entry in awx_credentials.",
        ),
        (
            "-vvv",
            {
                "awx_credentials": [{**KUBECONFIG, "inputs": {"kubeconfig": UNSEEN}}],
                "awx_notifications": [{"name": "chat", "type": "slack", "configuration": {"token": UNSEEN}}],
            },
            "chat: AWX has refused it (Unable to create notification_template chat: Missing required fields for"
            " Notification Configuration: ['channels'].). What was made before it stays, and is not made again."
            " Correct its entry in awx_notifications.",
        ),
        pytest.param(
            "-vvv",
            {
                "awx_credential_types": ["lowtide Kafka certificate"],
                "awx_credentials": [
                    {
                        "name": "bus",
                        "type": "lowtide Kafka certificate",
                        "inputs": {"certificate": "a text", "key": UNSEEN},
                    }
                ],
            },
            "bus: AWX has refused it (Unable to create credential bus: {'inputs': {'key': ['Invalid certificate or"
            " key: it is none",
            marks=pytest.mark.sweep,
        ),
    ],
)
def test_a_refused_secret_is_not_printed(tmp_path: Path, verbosity: str, changed: dict[str, Any], said: str) -> None:
    """At no verbosity, neither what was refused nor what was taken, nor what AWX has in clear of what is only named;
    what AWX says of it is."""
    with AwxStandIn(make_collection_folders(playbook_names())) as awx:
        organization = awx.ask("POST", "/api/v2/organizations/", {"name": "Operations"})[1]["id"]
        hook: dict[str, Any] = {
            "url": "https://pager.example.org",
            "http_method": "POST",
            "username": "",
            "password": "",
        }
        hook |= {"headers": {"Authorization": UNSEEN}, "disable_ssl_verification": False}
        pager: dict[str, Any] = {"name": "pager", "organization": organization, "notification_type": "webhook"}
        assert (
            awx.ask("POST", "/api/v2/notification_templates/", {**pager, "notification_configuration": hook})[0] == 201
        )
        changed = {**changed, "awx_notifications": [{"name": "pager"}, *changed.get("awx_notifications", [])]}
        arguments = write_site(tmp_path, awx, **{**MINIMAL, **changed})
        run = run_playbook("lowtide.ops.awx", *arguments, verbosity, timeout=BOUND)
        assert run.rc == 2
        assert UNSEEN not in run.stdout + run.stderr
        assert said in " ".join(run.stdout.split()).replace("''", "'").replace('\\"', '"'), run.stdout
        assert awx.kinds["job_templates"] == {}


@pytest.mark.sweep
def test_an_awx_that_runs_no_jobs_gets_its_objects(tmp_path: Path) -> None:
    """All of them, beside another organization with an inventory of that name, with an execution environment of none.

    A job has two passwords of Ansible Vault, which people have filled in before. It is said that no job has hosts yet,
    and that this account cannot see the settings, nor may change an execution environment of no organization.
    """
    with AwxStandIn(make_collection_folders(playbook_names())) as awx:
        awx.account["is_superuser"] = False
        image = {"awx_image": "registry.example.org/lowtide:1", "awx_execution_environment": "lowtide"}
        declared = [VAULTS[0], {"name": "vault two", "type": "Vault"}]
        arguments = write_site(tmp_path, awx, **{**MINIMAL, **image, "awx_credentials": declared})
        environment = {"name": "lowtide", "image": image["awx_image"], "pull": "always"}
        awx.ask("POST", "/api/v2/execution_environments/", environment)
        staging = awx.ask("POST", "/api/v2/organizations/", {"name": "Staging"})[1]["id"]
        awx.ask("POST", "/api/v2/inventories/", {"name": "shop", "organization": staging})
        organization = awx.ask("POST", "/api/v2/organizations/", {"name": "Operations"})[1]["id"]
        vault = awx.find("credential_types", "Vault")["id"]
        for one in VAULTS:
            inputs = {**one["inputs"], "vault_password": "filled by hand"}
            body = {"name": one["name"], "organization": organization, "credential_type": vault, "inputs": inputs}
            assert awx.ask("POST", "/api/v2/credentials/", body)[0] == 201
        project = {"name": "operations", "organization": organization, "scm_type": "git", "scm_url": REPOSITORY}
        probe = {"name": "operations probe", "description": PROBE, "timeout": 3600}
        for given in ({"timeout": -1}, probe):
            address = awx.ask("POST", "/api/v2/projects/", {**project, **given})[1]["url"]
            while awx.ask("GET", address)[1]["status"] != "successful":
                pass
        awx.runs_jobs = False
        run = run_playbook("lowtide.ops.awx", *arguments, "-e", "__awx_looks=1", timeout=BOUND)
        assert run.rc == 0, run.stdout + run.stderr
        said = " ".join(run.stdout.split())
        assert "inventory shop: AWX is still reading inventories/shop/hosts.yml. Launch nothing before" in said
        assert "the settings of AWX cannot be read with this account" in said
        assert "project operations has no timeout of its own: while its git server keeps silent" in said
        assert awx.find("workflow_job_templates", "shop approved window")
        inventory = awx.kinds["inventories"][awx.find("job_templates", "shop window")["inventory"]]
        assert inventory["organization"] == organization
        kept = awx.find("execution_environments", "lowtide")
        assert (kept["image"], kept["pull"], kept["organization"]) == (image["awx_image"], "always", None)
        assert awx.list_associated("job_templates", "shop window", "credentials") == ["vault one", "vault two"]
        assert not [path for method, path, _body in awx.writes if method == "PATCH" and "/credentials/" in path]
        for one in VAULTS:
            assert awx.find("credentials", one["name"])["inputs"] == {**one["inputs"], "vault_password": "$encrypted$"}


def test_check_mode_of_an_empty_awx_writes_nothing(tmp_path: Path) -> None:
    """It predicts what it can look at: what everything else rests on. By user and password, which nobody sees."""
    with AwxStandIn(make_collection_folders(playbook_names())) as awx:
        login = {"controller_host": awx.url, "controller_username": USERNAME, "controller_password": PASSWORD}
        run = run_playbook("lowtide.ops.awx", *write_site(tmp_path, awx, awx_connection=login), "--check")
        assert PASSWORD not in run.stdout
        assert (run.rc, awx.writes) == (0, []), run.stdout
        assert awx.tokens == {}
        assert "msg: organization Operations, lowtide kubeconfig" in run.stdout


CASES: dict[str, tuple[dict[str, Any], str]] = {
    "two sites": (
        {"awx_site": "Shop production"},
        "awx_site is Shop production and window_site is shop: jobs of AWX and runs from a shell would hold two leases",
    ),
    "variables": (
        {"awx_procedures": [{"playbook": "backup", "variables": {"window_site": "billing"}}]},
        "window_site is among the variables of backup: that template would hold another site's lease. Leave it out",
    ),
    "one type twice": (
        {"awx_credentials": [{"name": name, "type": "lowtide kubeconfig"} for name in ("a", "b")]},
        "credentials a, b, of the types lowtide kubeconfig, lowtide kubeconfig: a job takes one of each type, of Vault"
        " several with another vault_id each",
    ),
    "of no job": (
        {"awx_credentials": [{"name": "git", "type": "Source Control"}]},
        "credentials git, of the types Source Control: a job takes one of each type",
    ),
    "of another service": (
        {"awx_credentials": [{"name": "hashi", "type": "HashiCorp Vault Secret Lookup"}]},
        "credentials hashi, of the types HashiCorp Vault Secret Lookup: a job takes one of each type",
    ),
    "vaults that are one": (
        {"awx_credentials": [{"name": name, "type": "Vault"} for name in ("a", "b")]},
        "credentials a, b, of the types Vault, Vault: a job takes one of each type, of Vault several with another",
    ),
    "names of vaults": (
        {"awx_credentials": [{"name": name, "type": "Machine"} for name in ("vault one", "vault two")]},
        "credentials vault one, vault two, of the types Machine, Machine: a job takes one of each type",
    ),
    "answer of another type": (
        {"awx_schedules": [{"name": "s", "time": "01:00", "zone": "UTC", "answers": {"window_only": "backup"}}]},
        "schedule s: its answer window_only is 'backup', and approved window asks for a list of backup, health",
    ),
    "site": ({"window_site": "/etc/site"}, "awx_site is /etc/site, and all names in AWX begin with it. Give a literal"),
    "steps": ({"window_steps": []}, "awx_steps is empty, so that nobody could choose a step. Set window_steps"),
    "two places": (
        {"awx_project_path": MANUAL, "awx_project_url": REPOSITORY.replace("//", "//ops:of-a-token@")},
        f"awx_project_url is '{REPOSITORY}' and awx_project_path is '{MANUAL}'",
    ),
    "manual": (
        {"awx_project_url": "", "awx_project_path": MANUAL},
        "awx_inventory_path is inventories/shop/hosts.yml, and AWX reads inventories from git projects only. Use",
    ),
    "two names": ({"awx_procedures": [{"playbook": "health"}]}, "awx_procedures has two templates of one name"),
    "image without name": (
        {"awx_execution_environment": ""},
        "awx_image is registry.example.org/lowtide:1, and its execution environment has no name. Set awx_execution",
    ),
    "image of all": (
        {"awx_execution_environment": "of all"},
        "execution environment of all: it has the image registry.example.org/lowtide:0, and AWX does not let this"
        " account give it registry.example.org/lowtide:1. Nothing has been done.",
    ),
    "image of others": (
        {"awx_execution_environment": "of others"},
        "execution environment of others: it has the image registry.example.org/lowtide:0, and AWX does not let this",
    ),
    "team": ({"awx_teams": [{"name": "T", "launch": ["x"]}]}, "T launches x, and there is approved window, backup"),
    "question": (
        {"awx_questions": ["window_onyl"]},
        "survey of shop window, question window_onyl: it is no option of the role, and no type is given. Correct",
    ),
    "zone": (
        {
            "window_times": [{"time": "01:00", "zone": "Mars/Base", "weekdays": ["sat"]}],
            "awx_schedules": "{{ window_times }}",
        },
        "schedule time 1: zone 'Mars/Base' is not known here",
    ),
    "answer": (
        {"awx_schedules": [{"name": "s", "time": "01:00", "zone": "UTC", "answers": {"window_name": "x"}}]},
        "schedule s: it answers window_name, which approved window does not ask for (it asks for window_duration",
    ),
    "credential": (
        {"awx_credentials": [{"name": "shop cluser"}]},
        "credential shop cluser: this account sees none of this name, and one is needed. Nothing has been done.",
    ),
    "credential of others": (
        {"awx_credentials": [{"name": "cluster of others"}]},
        "credential cluster of others: AWX does not let this account use it. Nothing has been done. Ask who",
    ),
    "credential of another type": (
        {"awx_credentials": [], "awx_project_credential": "vault one"},
        "credential vault one: awx_project_credential is of another type than Source Control, and AWX gives no other",
    ),
    "vault with another id": (
        {"awx_credentials": [{"name": "vault one", "type": "Vault", "inputs": {"vault_id": "three"}}]},
        "credential vault one: its vault_id is three here, and one in AWX, which never changes it. Nothing has been",
    ),
    "vault without id": (
        {"awx_credentials": [{"name": "vault none", "type": "Vault", "inputs": {"vault_id": "three"}}]},
        "credential vault none: its vault_id is three here, and none in AWX, which never changes it. Nothing has been",
    ),
    "probe of others": (
        {"awx_project": "theirs"},
        "project theirs probe: its description is not that of the role's own, and the role would give it the address",
    ),
    "credential of the project": (
        {"awx_project": "closed"},
        "project closed: AWX does not let this account use its credential, which its probe needs as well. Nothing has",
    ),
    "inventory": ({"awx_inventory_path": ""}, "inventory shop: this account sees none of this name, and one is needed"),
    "token": (
        {"awx_connection": {"controller_host": "{{ awx_host }}", "controller_oauthtoken": "old"}},
        "Invalid authentication credentials for /api/v2/organizations/ (HTTP 401). Nothing has been done. Install the",
    ),
    "address": (
        {"awx_connection": {"controller_host": "http://127.0.0.1:9", "controller_oauthtoken": "x"}},
        "AWX at http://127.0.0.1:9: ",
    ),
}


FAILED = (
    "ansible_failed_result.results | default([ansible_failed_result]) | selectattr('failed', 'defined')"
    " | selectattr('failed') | map(attribute='msg') | join(' ')"
)
"""What a task that failed has said, or its items."""


def keep_projects(awx: AwxStandIn, organization: int) -> None:
    """Keep a project of others that is called as a probe, and one with a credential that the account may not use."""
    git = awx.find("credential_types", "Source Control")["id"]
    body: dict[str, Any] = {"name": "git of others", "organization": organization, "credential_type": git}
    credential = awx.ask("POST", "/api/v2/credentials/", body)[1]["id"]
    awx.unusable |= {"cluster of others", "git of others"}
    project = {"organization": organization, "scm_type": "git", "scm_url": REPOSITORY}
    assert awx.ask("POST", "/api/v2/projects/", {**project, "name": "closed", "credential": credential})[0] == 201
    assert awx.ask("POST", "/api/v2/projects/", {**project, "name": "theirs probe"})[0] == 201


def test_what_is_refused_has_changed_nothing(tmp_path: Path, ansible_playbook: Callable[..., PlaybookRun]) -> None:
    """With object, value and next step, before the first write; all cases in one play."""
    tasks: list[dict[str, Any]] = []
    for name, (changed, _said) in CASES.items():
        include = {"name": "Perform", "ansible.builtin.include_role": {"name": "lowtide.ops.awx"}, "vars": changed}
        fail = {"name": "It was not refused", "ansible.builtin.fail": {"msg": "not refused"}}
        keep = {"ansible.builtin.set_fact": {"said": "{{ said | combine({'" + name + "': " + FAILED + "}) }}"}}
        tasks.append({"name": name, "block": [include, fail], "rescue": [{"name": "Keep", **keep}]})
    content = {"content": "{{ said | to_json }}", "dest": str(tmp_path / "said"), "mode": "0600"}
    tasks.append({"name": "Write", "ansible.builtin.copy": content})
    with AwxStandIn(make_collection_folders(playbook_names())) as awx:
        arguments = write_site(tmp_path, awx, awx_host=awx.url, said={}, awx_procedures=[{"playbook": "backup"}])
        environment = {"name": "of all", "image": "registry.example.org/lowtide:0"}
        awx.ask("POST", "/api/v2/execution_environments/", environment)
        organization, others = (
            awx.ask("POST", "/api/v2/organizations/", {"name": name})[1]["id"] for name in ("Operations", "Others")
        )
        awx.foreign.add(others)
        environment |= {"name": "of others", "organization": others}
        assert awx.ask("POST", "/api/v2/execution_environments/", environment)[0] == 201
        vault = awx.find("credential_types", "Vault")["id"]
        for one in (*VAULTS, {"name": "vault none", "inputs": {}}, {"name": "cluster of others"}):
            body = {**one, "organization": organization, "credential_type": vault}
            assert awx.ask("POST", "/api/v2/credentials/", body)[0] == 201
        keep_projects(awx, organization)
        awx.account["is_superuser"] = False
        awx.writes.clear()
        play = {"hosts": "control", "gather_facts": False, "tasks": tasks}
        run = ansible_playbook([play], *arguments, timeout=BOUND)
        assert run.rc == 0, run.stdout + run.stderr
        assert awx.writes == []
    said = {name: " ".join(str(text).split()) for name, text in json.loads((tmp_path / "said").read_text()).items()}
    assert {name: text for name, text in said.items() if CASES[name][1] not in text} == {}


def test_a_playbook_that_the_project_lacks_is_named(tmp_path: Path) -> None:
    """Before the first template: one that AWX refuses in the middle would leave the others behind."""
    names = [name for name in playbook_names() if name != "backup"]
    with AwxStandIn(make_collection_folders(names)) as awx:
        minimal: dict[str, Any] = {
            "awx_credential_types": [],
            "awx_credentials": [],
            "awx_teams": [],
            "awx_notifications": [],
        }
        run = run_playbook("lowtide.ops.awx", *write_site(tmp_path, awx, **minimal))
        assert run.rc == 2
        said = " ".join(run.stdout.split())
        assert "project operations has no playbooks/backup.yml; it has playbooks/awx.yml" in said
        assert "No template has been made. Add each file, with the line" in said
        assert awx.kinds["job_templates"] == {}


@pytest.mark.sweep
def test_an_inventory_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    """As one with a file that Ansible Vault has encrypted: a job without hosts would succeed."""
    with AwxStandIn(make_collection_folders(playbook_names())) as awx:
        awx.unreadable.add("inventories/shop/hosts.yml")
        run = run_playbook("lowtide.ops.awx", *write_site(tmp_path, awx, **MINIMAL), timeout=BOUND)
        assert run.rc == 2
        said = " ".join(run.stdout.split())
        assert (
            "inventory shop: reading inventories/shop/hosts.yml of the project operations has ended as failed" in said
        )


def test_a_missing_collection_is_named(tmp_path: Path) -> None:
    """awx.awx is no dependency."""
    with AwxStandIn() as awx:
        alone = {"ANSIBLE_COLLECTIONS_SCAN_SYS_PATH": "false"}
        run = run_playbook("lowtide.ops.awx", *write_site(tmp_path, awx), env=alone)
    assert run.rc == 2
    said = " ".join(run.stdout.split())
    assert "Install the collection awx.awx 24.6.1 or newer" in said
    assert "awx.awx.controller_api" in said
