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
TOKEN = "glpat-c2VjcmV0LW9m@LXRoZQ"  # noqa: S105
"""One that an address has as it is; an ``@`` does not end it."""


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
    another project has shown that the repository can be read."""
    with AwxStandIn(dict(REPOSITORIES)) as awx:
        first = perform(tmp_path, awx)
        assert first.rc == 0, first.stdout
        workflow = awx.find("workflow_job_templates", "shop approved window")
        awx.folders.clear()
        assert awx.run_nodes(workflow) == [("probe", "failed")]
        for changed in ({"awx_synchronise": True}, {"awx_project_url": ELSEWHERE}, {"awx_project_url": ELSEWHERE}):
            refused = perform(tmp_path, awx, **changed)
            assert refused.rc == 2, refused.stdout
            place = changed.get("awx_project_url", REPOSITORY)
            said = f"project operations probe: its state is failed, with {place} and the branch ''. The project operations"
            assert f"{said} was left as it was. See its last job in AWX" in flatten(refused)
        project = awx.find("projects", "operations")
        assert (project["status"], project["scm_url"]) == ("successful", REPOSITORY)
        assert launch(awx, "shop restore service")[0] == 201

        awx.folders.update(REPOSITORIES)
        again = perform(tmp_path, awx)
        assert again.rc == 0, again.stdout
        assert awx.run_nodes(workflow) == [
            *((name, "successful") for name in ("probe", "project", "inventory", "window check")),
            ("approve", "pending"),
        ]
        probe = awx.find("projects", "operations probe")
        assert not [item for item in awx.kinds["job_templates"].values() if item["project"] == probe["id"]]


def test_a_repository_that_can_be_read_now_is_read(tmp_path: Path) -> None:
    """By a second run alone, whatever was wrong: AWX starts no update for another credential or a deploy key.

    In check mode nothing is sent, and what would be read is not judged. A longer timeout of the project is the probe's
    as well. What has failed without need is left alone.
    """
    with AwxStandIn({}) as awx:
        first = perform(tmp_path, awx)
        assert first.rc == 2, first.stdout
        said = f"project operations: its state is failed, with {REPOSITORY} and the branch ''. No template has been made"
        assert said in flatten(first)
        assert awx.kinds["job_templates"] == {}

        awx.folders.update(REPOSITORIES)
        awx.find("projects", "operations")["timeout"] = 1800
        awx.writes.clear()
        predicted = perform(tmp_path, awx, "--check")
        assert (predicted.rc, awx.writes) == (0, []), predicted.stdout
        second = perform(tmp_path, awx)
        assert second.rc == 0, second.stdout
        updates = [path for _method, path, _body in awx.writes if path.endswith("/update/") and "/projects/" in path]
        names = ("operations probe", "operations")
        assert updates == [f"{awx.find('projects', name)['url']}update/" for name in names]
        assert awx.find("projects", "operations probe")["timeout"] == 1800

        awx.folders.clear()
        assert synchronise(awx, "operations probe") == "failed"
        awx.writes.clear()
        third = perform(tmp_path, awx)
        assert (third.rc, third.changed, awx.writes) == (0, 0, []), third.stdout


def test_a_failed_synchronisation_locks_until_one_succeeds(tmp_path: Path) -> None:
    """What only people can do: by hand, while git is away. The run that can read it again takes the lock away."""
    with AwxStandIn(dict(REPOSITORIES)) as awx:
        assert perform(tmp_path, awx).rc == 0
        workflow = awx.find("workflow_job_templates", "shop approved window")
        awx.folders.clear()
        assert synchronise(awx, "operations") == "failed"
        assert launch(awx, "shop restore service") == (400, {"playbook": [LOCKED]})
        source = awx.find("inventory_sources", "inventories/shop/hosts.yml")
        assert awx.ask("POST", f"{source['url']}update/") == (400, {"__all__": [LOCKED]})
        assert perform(tmp_path, awx).rc == 2
        assert awx.run_nodes(workflow) == [("probe", "failed")]
        awx.folders.update(REPOSITORIES)
        assert perform(tmp_path, awx).rc == 0
        assert launch(awx, "shop restore service")[0] == 201


@pytest.mark.parametrize("is_read", [False, True])
def test_the_token_of_an_address_is_not_printed(tmp_path: Path, *, is_read: bool) -> None:
    """Neither of one that is still read nor of one that could not be."""
    with AwxStandIn({}) as awx:
        awx.runs_jobs = is_read
        url = REPOSITORY.replace("//", f"//ops:{TOKEN}@")
        run = perform(tmp_path, awx, "-e", "__awx_looks=2", awx_project_url=url)
        assert run.rc == 2
        words = f"its state is failed, with {REPOSITORY} and" if is_read else f"AWX is still reading {REPOSITORY}. No"
        assert f"project operations: {words}" in flatten(run)
        assert not [part for part in TOKEN.split("@") if part in run.stdout + run.stderr], run.stdout


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("projects", "project operations: AWX cannot be asked whether it has been read"),
        ("inventory_sources", "inventory shop: AWX cannot be asked whether it has read inventories/shop/hosts.yml"),
    ],
)
def test_what_ends_a_wait_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, said: str) -> None:
    """AWX is restarted meanwhile, or the token ends: nothing is said of a git server."""
    with AwxStandIn(dict(REPOSITORIES)) as awx:
        ask = awx.ask

        def refuse(method: str, address: str, body: Any = None) -> tuple[int, Any]:
            is_waiting = kind == "projects" or any(path.endswith("/success_nodes/") for _method, path, _body in awx.writes)
            if method == "GET" and is_waiting and re.search(rf"/{kind}/\d+/$", address):
                return 503, {"detail": "upstream connect error"}
            return ask(method, address, body)

        monkeypatch.setattr(awx, "ask", refuse)
        run = perform(tmp_path, awx)
        assert run.rc == 2, run.stdout
        assert re.search(rf"{re.escape(said)} \(.*503.*\)[.]", flatten(run)), run.stdout
        assert "is still reading" not in flatten(run)
