# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The role awx: how project and inventory are read, and what is left to be launched when they cannot be."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from support.awx_stand_in import REPOSITORY, AwxStandIn, make_collection_folders
from support.awx_updates import GOING_ON, LOCKED
from support.checkout import playbook_names
from support.playbooks import PlaybookRun, run_playbook

from .declared import BOUND, MINIMAL, write_site

SITE = {**MINIMAL, "awx_credential_types": []}
REPOSITORIES = make_collection_folders(playbook_names())
ELSEWHERE = "https://git.example.org/platform/elsewhere.git"
BACK = (
    "The project operations was left as it was, and its probe has the address, the branch and the credential of the"
    " project again, so that approved windows go on as before."
)
TO_THE_APPROVAL = [
    *((name, "successful") for name in ("probe", "project", "inventory", "window check")),
    ("approve", "pending"),
]
WITH_TOKEN = REPOSITORY.replace("//", "//ops:glpat-c2VjcmV0LW9m@LXRoZQ@")
"""The address with a token; an ``@`` does not end that."""


def perform(folder: Path, awx: AwxStandIn, *arguments: str, **changed: Any) -> PlaybookRun:
    """Perform the role."""
    site = write_site(folder, awx, **{**SITE, **changed})
    return run_playbook("lowtide.ops.awx", *site, *arguments, timeout=BOUND)


def flatten(run: PlaybookRun) -> str:
    """Return the output in one line."""
    return " ".join(run.stdout.split())


def synchronise(awx: AwxStandIn, name: str) -> str:
    """Press the button Sync of a project, and return how it ended."""
    address = awx.find("projects", name)["url"]
    assert awx.ask("POST", f"{address}update/")[0] == 202
    while True:
        state = awx.ask("GET", address)[1]["status"]
        if state not in GOING_ON:
            return str(state)


def launch(awx: AwxStandIn, name: str) -> tuple[int, Any]:
    """Launch a job template as people do."""
    return awx.ask("POST", f"{awx.find('job_templates', name)['url']}launch/", {})


def test_the_way_back_can_be_launched_while_git_is_away(tmp_path: Path) -> None:
    """A project whose update has failed locks all its templates: neither the workflow nor the role tries one before
    another project has shown that the repository can be read.

    People still can, by hand. What has locked it then goes with the first run that can read it.
    """
    with AwxStandIn(dict(REPOSITORIES)) as awx:
        first = perform(tmp_path, awx)
        assert first.rc == 0, first.stdout
        workflow = awx.find("workflow_job_templates", "shop approved window")
        awx.folders.clear()
        assert awx.run_nodes(workflow) == [("probe", "failed")]
        awx.folders.update(REPOSITORIES)
        refused = perform(tmp_path, awx, awx_project_url=ELSEWHERE)
        assert refused.rc == 2, refused.stdout
        assert f"project operations probe: its state is failed, with {ELSEWHERE} and the branch ''." in flatten(refused)
        assert BACK in flatten(refused)
        project = awx.find("projects", "operations")
        assert (project["status"], project["scm_url"]) == ("successful", REPOSITORY)
        assert awx.find("projects", "operations probe")["scm_url"] == REPOSITORY
        assert launch(awx, "shop restore service")[0] == 201
        assert awx.run_nodes(workflow) == TO_THE_APPROVAL, "a typo of one site ends no window of the others"

        awx.folders.clear()
        assert synchronise(awx, "operations") == "failed"
        assert launch(awx, "shop restore service") == (400, {"playbook": [LOCKED]})
        source = awx.find("inventory_sources", "inventories/shop/hosts.yml")
        assert awx.ask("POST", f"{source['url']}update/") == (400, {"__all__": [LOCKED]})
        awx.folders.update(REPOSITORIES)
        again = perform(tmp_path, awx)
        assert again.rc == 0, again.stdout
        assert launch(awx, "shop restore service")[0] == 201
        assert awx.run_nodes(workflow) == TO_THE_APPROVAL
        probe = awx.find("projects", "operations probe")
        assert not [item for item in awx.kinds["job_templates"].values() if item["project"] == probe["id"]]


def test_a_repository_that_can_be_read_now_is_read(tmp_path: Path) -> None:
    """By a second run alone, whatever was wrong: AWX starts no update for another credential or a deploy key.

    In check mode nothing is sent, and what would be read is not judged. A longer timeout of the project is the probe's
    as well. A token in the address is not printed.
    """
    with AwxStandIn({}) as awx:
        first = perform(tmp_path, awx, awx_project_url=WITH_TOKEN)
        assert first.rc == 2, first.stdout
        said = (
            f"project operations: its state is failed, with {REPOSITORY} and the branch ''. No template has been made"
        )
        assert said in flatten(first)
        assert "LXRoZQ" not in first.stdout
        assert awx.kinds["job_templates"] == {}

        assert synchronise(awx, "operations probe") == "failed"
        awx.folders[WITH_TOKEN] = REPOSITORIES[REPOSITORY]
        awx.find("projects", "operations")["timeout"] = 1800
        awx.writes.clear()
        predicted = perform(tmp_path, awx, "--check", awx_project_url=WITH_TOKEN)
        assert (predicted.rc, awx.writes) == (0, []), predicted.stdout
        assert "msg: project operations probe, project operations, inventory shop" in flatten(predicted)
        assert "project operations is locked, as its last update has failed" in flatten(predicted)
        second = perform(tmp_path, awx, awx_project_url=WITH_TOKEN)
        assert second.rc == 0, second.stdout
        updates = [path for _method, path, _body in awx.writes if path.endswith("/update/") and "/projects/" in path]
        names = ("operations probe", "operations")
        assert updates == [f"{awx.find('projects', name)['url']}update/" for name in names]
        assert awx.find("projects", "operations probe")["timeout"] == 1800


def test_a_project_that_is_read_for_too_long_is_named(tmp_path: Path) -> None:
    """A git server that keeps silent: there is no message in what the wait itself says. A token is not printed."""
    with AwxStandIn(dict(REPOSITORIES)) as awx:
        awx.runs_jobs = False
        run = perform(tmp_path, awx, "-e", "__awx_looks=1", awx_project_url=WITH_TOKEN)
        assert run.rc == 2
        said = f"project operations: AWX is still reading {REPOSITORY}. No template has been made. See its last"
        assert said in flatten(run)
        assert "LXRoZQ" not in run.stdout
        assert awx.kinds["job_templates"] == {}


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("projects", "project operations: AWX cannot be asked whether it has been read"),
        pytest.param(
            "inventory_sources",
            "inventory shop: AWX cannot be asked whether it has read inventories/shop/hosts.yml",
            marks=pytest.mark.sweep,
        ),
    ],
)
def test_what_ends_a_wait_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, said: str) -> None:
    """AWX is restarted meanwhile, or the token ends: nothing is said of a git server."""
    with AwxStandIn(dict(REPOSITORIES)) as awx:
        ask = awx.ask

        def refuse(method: str, address: str, body: Any = None) -> tuple[int, Any]:
            is_waiting = kind == "projects" or any(path.endswith("/success_nodes/") for _, path, _ in awx.writes)
            if method == "GET" and is_waiting and re.search(rf"/{kind}/\d+/$", address):
                return 503, {"detail": "upstream connect error"}
            return ask(method, address, body)

        monkeypatch.setattr(awx, "ask", refuse)
        run = perform(tmp_path, awx)
        assert run.rc == 2, run.stdout
        assert re.search(rf"{re.escape(said)} \(.*503.*\)[.]", flatten(run)), run.stdout
        assert "is still reading" not in flatten(run)
