# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The role awx: how project and inventory are read, and what is left to be launched when they cannot be."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from support.awx_stand_in import REPOSITORY, AwxStandIn
from support.awx_updates import LOCKED

from .existing import REPOSITORIES, TO_THE_APPROVAL, find_summary, flatten, list_updates, perform, run_window, wait_for

ELSEWHERE = "https://git.example.org/platform/elsewhere.git"
WITH_TOKEN = REPOSITORY.replace("//", "//ops:glpat-c2VjcmV0LW9m@LXRoZQ@")
"""The address with a token; an ``@`` does not end that."""


def synchronise(awx: AwxStandIn, name: str) -> str:
    """Press the button Sync of a project, and return how it ended."""
    project = awx.find("projects", name)
    assert awx.ask("POST", f"{project['url']}update/")[0] == 202
    return wait_for(awx, project)


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
        awx.folders.clear()
        assert run_window(awx) == [("probe", "failed")]
        awx.folders.update(REPOSITORIES)
        refused = perform(tmp_path, awx, awx_project_url=ELSEWHERE)
        assert refused.rc == 2, refused.stdout
        assert f"project operations next: its state is failed, with {ELSEWHERE} and the branch ''." in flatten(refused)
        project = awx.find("projects", "operations")
        assert (project["status"], project["scm_url"]) == ("successful", REPOSITORY)
        assert awx.find("projects", "operations probe")["scm_url"] == REPOSITORY
        assert launch(awx, "shop restore service")[0] == 201
        assert run_window(awx) == TO_THE_APPROVAL, "a typo of one site ends no window of the others"

        awx.folders.clear()
        assert synchronise(awx, "operations") == "failed"
        assert launch(awx, "shop restore service") == (400, {"playbook": [LOCKED]})
        source = awx.find("inventory_sources", "inventories/shop/hosts.yml")
        assert awx.ask("POST", f"{source['url']}update/") == (400, {"__all__": [LOCKED]})
        awx.folders.update(REPOSITORIES)
        again = perform(tmp_path, awx)
        assert again.rc == 0, again.stdout
        assert launch(awx, "shop restore service")[0] == 201
        assert run_window(awx) == TO_THE_APPROVAL
        project_id = awx.find("projects", "operations")["id"]
        assert {item["project"] for item in awx.kinds["job_templates"].values()} == {project_id}


@pytest.mark.sweep
def test_a_repository_that_can_be_read_now_is_read(tmp_path: Path) -> None:
    """By a second run alone, whatever was wrong: AWX starts no update for another credential or a deploy key.

    Nothing but what was tried has been made before. In check mode nothing is sent, and what would be read is not
    judged. A longer timeout of the project is the probe's as well, and the inventory is read when the project was. A
    token in the address is not printed.
    """
    with AwxStandIn({}) as awx:
        first = perform(tmp_path, awx, awx_project_url=WITH_TOKEN)
        assert first.rc == 2, first.stdout
        said = (
            f"project operations next: its state is failed, with {REPOSITORY} and the branch ''. The project operations"
            " has not been made."
        )
        assert said in flatten(first)
        assert "LXRoZQ" not in first.stdout
        assert [one["name"] for one in awx.kinds["projects"].values()] == ["operations next"]

        awx.folders[WITH_TOKEN] = REPOSITORIES[REPOSITORY]
        awx.writes.clear()
        second = perform(tmp_path, awx, awx_project_url=WITH_TOKEN)
        assert second.rc == 0, second.stdout
        assert list_updates(awx)[0] == "operations next"

        awx.find("projects", "operations").update({"status": "failed", "timeout": 1800})
        awx.writes.clear()
        predicted = perform(tmp_path, awx, "--check", awx_project_url=WITH_TOKEN)
        assert (predicted.rc, awx.writes) == (0, []), predicted.stdout
        assert "project operations is locked, as its last update has failed" in flatten(predicted)
        third = perform(tmp_path, awx, awx_project_url=WITH_TOKEN)
        assert third.rc == 0, third.stdout
        changed = "project operations probe, project operations, inventory shop"
        assert find_summary(third) == find_summary(predicted) == changed
        assert list_updates(awx) == ["operations probe", "operations", "inventories/shop/hosts.yml"]
        assert awx.find("projects", "operations probe")["timeout"] == 1800


def test_a_project_that_is_read_for_too_long_is_named(tmp_path: Path) -> None:
    """A git server that keeps silent: there is no message in what the wait itself says. A token is not printed."""
    with AwxStandIn(dict(REPOSITORIES)) as awx:
        awx.runs_jobs = False
        run = perform(tmp_path, awx, "-e", "__awx_looks=1", awx_project_url=WITH_TOKEN)
        assert run.rc == 2
        said = f"project operations next: AWX is still reading {REPOSITORY}. The project operations has not been made."
        assert said in flatten(run)
        assert "LXRoZQ" not in run.stdout
        assert len(awx.kinds["projects"]) == 1


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("projects", "project operations next: AWX cannot be asked to read it, or whether it has been read"),
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
