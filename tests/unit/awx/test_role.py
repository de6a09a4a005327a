# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The role awx by real Ansible and the modules of awx.awx, against the stand-in: what it makes."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.awx_objects import load
from support.awx_roles import list_granted, list_readers, list_teams
from support.awx_stand_in import REPOSITORY, AwxStandIn, make_collection_folders
from support.checkout import playbook_names
from support.playbooks import run_playbook

from .declared import BOUND, SITE, write_site

OWN = {
    *("id", "url", "related", "summary_fields", "created", "modified", "name", "description", "playbook", "extra_vars"),
    *("inventory", "project", "organization", "execution_environment", "prevent_instance_group_fallback"),
}
"""Fields of a template in which that of the role and the recorded one may differ."""


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[AwxStandIn, list[str], list[Any]]]:
    """An AWX in which the role has been performed once, the arguments to perform it again, and what was written."""
    with AwxStandIn(make_collection_folders(playbook_names())) as awx:
        arguments = write_site(tmp_path_factory.mktemp("site"), awx)
        run = run_playbook("lowtide.ops.awx", *arguments, timeout=BOUND)
        assert run.rc == 0, run.stdout + run.stderr
        assert "[WARNING]" not in run.stderr, run.stderr
        yield awx, arguments, list(awx.writes)


@pytest.fixture(scope="module")
def made(first: tuple[AwxStandIn, list[str], list[Any]]) -> tuple[AwxStandIn, list[str]]:
    """That AWX, and the arguments to perform it again."""
    return first[:2]


def test_templates_are_complete(made: tuple[AwxStandIn, list[str]]) -> None:
    """Of what a real AWX was given for a window, each field has the same value but for the site's own."""
    awx, _arguments = made
    template = awx.find("job_templates", "shop window")
    (recorded,) = [item["object"] for item in load("objects") if item["object"].get("name") == "window"]
    assert set(template) - {"summary_fields"} == set(recorded) - {"created", "modified"}
    workflow = awx.find("workflow_job_templates", "shop approved window")
    assert json.loads(workflow["extra_vars"]) == {"window_site": "shop", "window_approved_only": True}
    own = OWN | {"timeout"}
    assert {name: template[name] for name in set(recorded) & set(template) - own} == {
        name: value for name, value in recorded.items() if name in set(template) - own
    }
    assert template["timeout"] == -1, "0 would be the timeout of the whole AWX"
    assert json.loads(template["extra_vars"]) == {"window_site": "shop", "window_name": "weekly"}
    assert template["playbook"] == "playbooks/maintenance_window.yml"
    assert awx.list_associated("job_templates", "shop window", "credentials") == ["shop cluster"]
    assert awx.list_associated("job_templates", "shop window", "labels") == ["shop"]
    assert awx.list_associated("job_templates", "shop window", "notification_templates_error") == ["shop chat"]
    assert awx.list_associated("job_templates", "shop window", "notification_templates_success") == []
    survey = awx.surveys["job_templates", template["id"]]
    assert [(q["variable"], q.get("choices")) for q in survey["spec"]] == [
        ("window_start", None),
        ("window_only", ["health", "backup"]),
        ("window_skip", ["health", "backup"]),
        ("window_duration", None),
    ]


def test_each_template_is_what_its_name_says(made: tuple[AwxStandIn, list[str]]) -> None:
    """Runs and check mode, what may run beside others, what is asked."""
    awx, _arguments = made
    said = {
        item["name"]: (item["job_type"], item["diff_mode"], item["allow_simultaneous"], item["survey_enabled"])
        for item in awx.kinds["job_templates"].values()
    }
    assert said == {
        "shop window": ("run", False, False, True),
        "shop window check": ("check", True, True, True),
        "shop restore service": ("run", False, False, False),
        "shop window status": ("run", False, True, False),
        "shop health": ("run", False, True, False),
        "shop backup": ("run", False, False, True),
        "shop mend": ("run", False, False, False),
        "shop failover check": ("check", True, True, False),
    }
    assert awx.list_associated("job_templates", "shop failover check", "credentials") == []
    mend = awx.find("job_templates", "shop mend")
    assert (mend["limit"], json.loads(mend["extra_vars"])["diagnose_apply"]) == ("shop_workloads", True)


def launch(awx: AwxStandIn, name: str, body: dict[str, Any]) -> tuple[int, Any]:
    """Launch a template as people do."""
    kind = "workflow_job_templates" if name == "shop approved window" else "job_templates"
    return awx.ask("POST", f"/api/v2/{kind}/{awx.find(kind, name)['id']}/launch/", body)


def test_an_empty_answer_is_none(made: tuple[AwxStandIn, list[str]]) -> None:
    """Nothing answered gives no variable; a text that is left empty is refused, or means the same."""
    awx, _arguments = made
    own = {"window_site": "shop", "window_name": "weekly"}
    for name in ("shop window", "shop backup"):
        status, job = launch(awx, name, {})
        assert (status, json.loads(job["extra_vars"])) == (201, own)
    empty = {"window_start": "", "window_only": [], "window_skip": []}
    status, job = launch(awx, "shop window", {"extra_vars": empty})
    assert (status, json.loads(job["extra_vars"])) == (201, {**own, **empty})
    assert launch(awx, "shop backup", {"extra_vars": {"backup_max_age": ""}})[0] == 400


def test_nobody_chooses_what_is_not_asked(made: tuple[AwxStandIn, list[str]]) -> None:
    """Neither hosts nor tags nor another site; a check mode stays one; a workflow refuses at once."""
    awx, _arguments = made
    wanted = {"limit": "x", "job_tags": "x", "job_type": "run", "job_slice_count": 3}
    status, job = launch(awx, "shop window check", {**wanted, "extra_vars": {"window_site": "other"}})
    assert (status, job["job_type"], job["limit"]) == (201, "check", "")
    assert set(job["ignored_fields"]) == {*wanted, "extra_vars"}
    assert launch(awx, "shop approved window", {"extra_vars": {"window_site": "other"}})[0] == 400
    assert launch(awx, "shop approved window", {"extra_vars": {"window_only": ["backup"]}})[0] == 201


def test_the_workflow_waits_for_approval(made: tuple[AwxStandIn, list[str]]) -> None:
    """Probe, project and inventory, check mode, approval, window; a failed window is a failed workflow.

    Nothing starts restore_service by itself, which takes back stops of people too.
    """
    awx, _arguments = made
    nodes = {node["id"]: node for node in awx.kinds["workflow_job_template_nodes"].values()}
    links = {
        (node["identifier"], what): [nodes[number]["identifier"] for number in node[what]]
        for node in nodes.values()
        for what in ("success_nodes", "failure_nodes", "always_nodes")
        if node[what]
    }
    assert links == {
        ("probe", "success_nodes"): ["project"],
        ("project", "success_nodes"): ["inventory"],
        ("inventory", "success_nodes"): ["window check"],
        ("window check", "success_nodes"): ["approve"],
        ("approve", "success_nodes"): ["window"],
    }
    names = {node["identifier"]: awx.list_unified()[node["unified_job_template"]]["name"] for node in nodes.values()}
    assert names == {
        "probe": "operations probe",
        "project": "operations",
        "inventory": "inventories/shop/hosts.yml",
        "window check": "shop window check",
        "approve": "shop approve",
        "window": "shop window",
    }
    (approval,) = awx.kinds["workflow_approval_templates"].values()
    assert approval["timeout"] == 3600
    assert awx.list_associated(
        "workflow_job_templates", "shop approved window", "notification_templates_approvals"
    ) == ["shop chat"]


def test_the_window_is_linked_as_soon_as_it_is_there(first: tuple[AwxStandIn, list[str], list[Any]]) -> None:
    """AWX starts each node that nothing leads to: a run that ends in between leaves no window without its approval."""
    awx, _arguments, writes = first
    paths = [path for _method, path, _body in writes]
    names = {number: node["identifier"] for number, node in awx.kinds["workflow_job_template_nodes"].items()}
    linked = [index for index, path in enumerate(paths) if path.endswith("/success_nodes/")]
    assert [names[writes[index][2]["id"]] for index in linked] == [
        *("window", "approve", "window check", "inventory", "project"),
    ]
    nodes = [index for index, path in enumerate(paths) if path == "/api/v2/workflow_job_template_nodes/"]
    assert writes[nodes[-1]][2]["identifier"] == "window"
    assert linked[0] == nodes[-1] + 1, "nothing else is written before its link"


def test_teams_may_what_is_declared(made: tuple[AwxStandIn, list[str]]) -> None:
    """And read what they decide on, nothing else."""
    awx, _arguments = made
    read = ("window check", "window", "restore service")
    assert list_granted(awx) == {
        ("Operators", "execute_role", "shop window check"),
        ("Operators", "execute_role", "shop approved window"),
        ("Leads", "approval_role", "shop approved window"),
        *((team, "read_role", f"shop {name}") for team in ("Operators", "Leads") for name in read),
    }


def test_who_decides_sees_what_on(made: tuple[AwxStandIn, list[str]]) -> None:
    """Whoever may launch or approve the workflow sees output and artifacts of the jobs that it starts."""
    awx, _arguments = made
    workflow = "shop approved window"
    deciding = list_teams(awx, "execute_role", workflow) | list_teams(awx, "approval_role", workflow)
    assert deciding == {"Operators", "Leads"}
    nodes = awx.kinds["workflow_job_template_nodes"].values()
    started = {awx.list_unified()[node["unified_job_template"]]["name"] for node in nodes}
    seen = {name: list_readers(awx, name) for name in started if name in ("shop window check", "shop window")}
    assert seen == {"shop window check": deciding, "shop window": deciding}


def test_the_schedule_is_off_and_local(made: tuple[AwxStandIn, list[str]]) -> None:
    """Until somebody declares it in force."""
    awx, _arguments = made
    schedule = awx.find("schedules", "shop weekly")
    assert (schedule["enabled"], schedule["timezone"], schedule["dtstart"]) == (
        False,
        "Europe/Berlin",
        "2026-01-01T00:00:00Z",
    )
    assert schedule["extra_data"] == {"window_skip": ["health"]}


def test_no_job_needs_git(made: tuple[AwxStandIn, list[str]]) -> None:
    """Neither project nor inventory is read anew at a launch; it was read once, in the image of the jobs.

    While one of them is being read AWX starts no job, so that a git server that keeps silent must not last.
    """
    awx, _arguments = made
    project = awx.find("projects", "operations")
    assert (project["scm_url"], project["scm_update_on_launch"], project["allow_override"]) == (
        REPOSITORY,
        False,
        False,
    )
    assert project["timeout"] == 300
    source = awx.find("inventory_sources", "inventories/shop/hosts.yml")
    image = awx.find("execution_environments", "lowtide")["id"]
    expected = {"source": "scm", "update_on_launch": False, "overwrite": True, "overwrite_vars": True, "timeout": 300}
    assert {name: source[name] for name in expected} == expected
    assert (source["execution_environment"], source["status"]) == (image, "successful")


def test_no_secret_was_sent(made: tuple[AwxStandIn, list[str]]) -> None:
    """A credential is made empty, of its type, and filled in AWX."""
    awx, _arguments = made
    credential = awx.find("credentials", "shop cluster")
    kind = awx.kinds["credential_types"][credential["credential_type"]]
    assert (credential["inputs"], kind["name"]) == ({}, "lowtide kubeconfig")
    assert kind["injectors"]["env"]["KUBECONFIG"] == "{{ tower.filename }}"


def test_a_second_run_changes_nothing(made: tuple[AwxStandIn, list[str]]) -> None:
    """Nor does it write, with an approval, and a notification template that holds a secret."""
    awx, arguments = made
    awx.writes.clear()
    run = run_playbook("lowtide.ops.awx", *arguments, timeout=BOUND)
    assert (run.rc, run.changed, awx.writes) == (0, 0, []), run.stdout
    assert "msg: nothing to do" in run.stdout


def test_what_is_not_declared_is_turned_off(made: tuple[AwxStandIn, list[str]], tmp_path: Path) -> None:
    """A schedule that is on, of a template that is declared no more too; those of others stay, whatever its label.

    What AWX does to long jobs is said, with the day it leaves out.
    """
    awx, _arguments = made
    awx.find("schedules", "shop weekly")["enabled"] = True
    awx.find("projects", "operations").update({"scm_update_on_launch": True, "allow_override": True, "timeout": 0})
    awx.find("projects", "operations probe")["status"] = "successful"  # it was read meanwhile
    other = {
        "id": 99,
        "name": "of others",
        "enabled": True,
        "unified_job_template": awx.find("projects", "operations")["id"],
    }
    awx.keep("schedules", other)
    mend, weekly = awx.find("job_templates", "shop mend"), awx.find("schedules", "shop weekly")
    awx.keep("job_templates", {**mend, "id": 90, "name": "deploy of others"})
    awx.associated["job_templates", 90, "labels"] = [awx.find("labels", "shop")["id"]]
    for number, name, of in ((97, "shop mending", mend["id"]), (98, "of a template of others", 90)):
        awx.keep("schedules", {**weekly, "id": number, "name": name, "extra_data": {}, "unified_job_template": of})
    awx.keep("instance_groups", {"id": 9, "name": "default", "is_container_group": True})
    awx.settings["DEFAULT_JOB_IDLE_TIMEOUT"] = 600
    renamed = {"name": "new", "time": "02:30", "zone": "Europe/Berlin", "weekdays": ["sun"], "enabled": True}
    awx.writes.clear()
    changed = {"awx_schedules": [renamed], "awx_procedures": SITE["awx_procedures"][:1]}
    arguments = write_site(tmp_path, awx, **changed, awx_synchronise=True)
    predicted = run_playbook("lowtide.ops.awx", *arguments, "--check", timeout=BOUND)
    assert (predicted.rc, awx.writes) == (0, []), predicted.stdout
    awx.find("projects", "operations")["status"] = "running"  # an update that began before the push
    run = run_playbook("lowtide.ops.awx", *arguments, timeout=BOUND)
    assert run.rc == 0, run.stdout + run.stderr
    on = {item["name"]: item["enabled"] for item in awx.kinds["schedules"].values()}
    of_others = {"of others": True, "of a template of others": True}
    assert on == {"shop weekly": False, "shop mending": False, "shop new": True, **of_others}
    said = " ".join(run.stdout.split())
    off = [f"schedule {name} turned off, as it is not declared" for name in ("shop mending", "shop weekly")]
    summary = f"project operations probe, project operations, inventory shop, new, {', '.join(off)}"
    assert f"msg: {summary}" in said, run.stdout
    assert f"msg: {summary}" in " ".join(predicted.stdout.split()), predicted.stdout
    updates = [path.split("/")[3] for _method, path, _body in awx.writes if path.endswith("/update/")]
    assert updates == ["projects", "projects", "inventory_sources"]
    assert re.search(
        r"schedule new: AWX starts nothing on 20\d\d-03-\d\d, as the clock goes forward over its hour", said
    )
    assert "setting DEFAULT_JOB_IDLE_TIMEOUT of AWX is 600: a job that prints nothing for so many" in said
    assert "AWX_RUNNER_KEEPALIVE_SECONDS of AWX is 0, and jobs may run in the container group default" in said
    assert "project operations is updated at each launch" in said
    assert "project operations has no timeout of its own: while its git server keeps silent" in said
    project = awx.find("projects", "operations")
    kept = (project["scm_update_on_launch"], project["allow_override"], project["timeout"])
    assert kept == (True, True, 0), "others may depend on it"
