# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The role awx in an AWX that has the project already: its probe is like it, and what is refused leaves both."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from support.awx_stand_in import MANUAL, REPOSITORY, AwxStandIn, make_collection_folders
from support.checkout import playbook_names
from support.playbooks import PlaybookRun, run_playbook

from .declared import BOUND, MINIMAL, write_site

SITE = {**MINIMAL, "awx_credential_types": []}
REPOSITORIES = make_collection_folders(playbook_names())
LEFT = "The project operations was left as it was"
WAITS = f"{LEFT}, and approved windows end at their node probe until this one can be read."


def perform(folder: Path, awx: AwxStandIn, *arguments: str, **changed: Any) -> PlaybookRun:
    """Perform the role."""
    site = write_site(folder, awx, **{**SITE, **changed})
    return run_playbook("lowtide.ops.awx", *site, *arguments, timeout=BOUND)


def flatten(run: PlaybookRun) -> str:
    """Return the output in one line."""
    return " ".join(run.stdout.split())


def find_summary(run: PlaybookRun) -> str:
    """Return what the role says that it has changed, or would."""
    return (
        flatten(run).rpartition("Show the result")[2].partition("msg: ")[2].partition(" TASK")[0].partition(" PLAY")[0]
    )


def add(awx: AwxStandIn, kind: str, **body: Any) -> int:
    """Make an object as people do."""
    status, made = awx.ask("POST", f"/api/v2/{kind}/", body)
    assert status == 201, made
    return int(made["id"])


def add_project(awx: AwxStandIn, **given: Any) -> dict[str, Any]:
    """Make the organization, two credentials and the project by hand, and return that once it has been read."""
    organization = add(awx, "organizations", name="Operations")
    kind = awx.find("credential_types", "Source Control")["id"]
    for name in ("git", "key of another place"):
        add(awx, "credentials", name=name, organization=organization, credential_type=kind, inputs={})
    git = {"name": "operations", "scm_type": "git", "scm_url": REPOSITORY, **given}
    add(awx, "projects", organization=organization, **git)
    project = awx.find("projects", "operations")
    while awx.ask("GET", project["url"])[1]["status"] != "successful":
        pass
    return project


def test_a_probe_is_like_the_project_that_is_there(tmp_path: Path) -> None:
    """What is not declared comes from the project, and a limit where that has none. A probe that was changed is read
    although the project is as it should be, since each window begins with it. Check mode foresees a missing one.
    """
    with AwxStandIn(dict(REPOSITORIES)) as awx:
        project = add_project(awx, scm_refspec="refs/*:refs/*")
        key = awx.find("credentials", "git")["id"]
        awx.private[REPOSITORY] = "git"
        project["credential"] = key
        first = perform(tmp_path, awx)
        assert first.rc == 0, first.stdout
        probe = awx.find("projects", "operations probe")
        found = {name: probe[name] for name in ("credential", "scm_refspec", "timeout", "status")}
        assert found == {"credential": key, "scm_refspec": "refs/*:refs/*", "timeout": 3600, "status": "successful"}
        workflow = awx.find("workflow_job_templates", "shop approved window")
        assert awx.run_nodes(workflow)[-1] == ("approve", "pending")

        # as a site whose workflow was made before there was a probe
        nodes = awx.kinds["workflow_job_template_nodes"]
        del nodes[awx.find("workflow_job_template_nodes", "probe")["id"]], awx.kinds["projects"][probe["id"]]
        project["timeout"] = 1800
        awx.writes.clear()
        predicted = perform(tmp_path, awx, "--check")
        assert (predicted.rc, awx.writes) == (0, []), predicted.stdout
        second = perform(tmp_path, awx)
        assert second.rc == 0, second.stdout
        assert find_summary(second) == find_summary(predicted) == "project operations probe, probe"
        assert awx.run_nodes(workflow)[-1] == ("approve", "pending")

        awx.private[REPOSITORY] = "another"
        project["timeout"] = 900
        awx.writes.clear()
        third = perform(tmp_path, awx)
        assert third.rc == 2, third.stdout
        assert f"project operations probe: its state is failed, with {REPOSITORY} and the branch ''." in flatten(third)
        assert WAITS in flatten(third)
        assert not [path for _method, path, _body in awx.writes if path.startswith(project["url"])]
        assert project["status"] == "successful"


@pytest.mark.parametrize(
    ("declared", "is_there", "said"),
    [
        (
            {"awx_project_credential": "key of another place"},
            True,
            f"{LEFT}, and its probe has the address, the branch and the credential of the project again, so",
        ),
        (
            {"awx_project_credential": "key of another place"},
            False,
            f"{LEFT}, but its probe could not be put back (the credential key of another place can be taken from it in"
            " AWX only). Give operations probe the address, the branch and the credential of the project in AWX",
        ),
    ],
)
def test_a_refused_probe_has_what_the_project_has(
    tmp_path: Path, declared: dict[str, Any], is_there: bool, said: str
) -> None:
    """Also its credential, as far as modules can: a mistake of one site is not to end the windows of all others."""
    with AwxStandIn(dict(REPOSITORIES)) as awx:
        project = add_project(awx)
        project["credential"] = awx.find("credentials", "git")["id"] if is_there else None
        awx.private[REPOSITORY] = "git"
        run = perform(tmp_path, awx, **declared)
        assert run.rc == 2, run.stdout
        assert said in flatten(run)
        if is_there:
            assert awx.find("projects", "operations probe")["credential"] == project["credential"]
        assert project["status"] == "successful"


def test_a_probe_that_cannot_be_put_back_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the reason, and without the address of the project, which may have a token."""
    unseen = REPOSITORY.replace("//", "//ops:dW5zZWVu@")
    with AwxStandIn({unseen: REPOSITORIES[REPOSITORY]}) as awx:
        add_project(awx, scm_url=unseen)
        ask = awx.ask

        def refuse(method: str, address: str, body: Any = None) -> tuple[int, Any]:
            if method == "PATCH" and "/projects/" in address:
                return 403, {"detail": "You do not have permission to perform this action."}
            return ask(method, address, body)

        monkeypatch.setattr(awx, "ask", refuse)
        run = perform(tmp_path, awx, "-vvv", awx_project_url="https://git.example.org/platform/elsewhere.git")
        assert run.rc == 2, run.stdout
        said = f"{LEFT}, but its probe could not be put back (You don't have permission to PATCH to /api/v2/projects/"
        assert said in flatten(run).replace("''", "'")
        assert "dW5zZWVu" not in run.stdout + run.stderr


def test_a_locked_project_is_named(tmp_path: Path) -> None:
    """While git is away nothing of it starts, which is said with the ways out; check mode says it as well."""
    with AwxStandIn(dict(REPOSITORIES)) as awx:
        project = add_project(awx)
        project["status"] = "failed"
        awx.folders.clear()
        refused = perform(tmp_path, awx)
        assert refused.rc == 2, refused.stdout
        said = (
            "The project operations is locked, as its last update has failed: AWX starts nothing of it, restore service"
        )
        assert said in flatten(refused)
        assert LEFT not in flatten(refused)
        assert "press Sync of it and cancel that update at once" in flatten(refused)
        predicted = perform(tmp_path, awx, "--check")
        assert predicted.rc == 0, predicted.stdout
        assert "project operations is locked, as its last update has failed" in flatten(predicted)


def test_nodes_that_are_declared_no_more_are_named(tmp_path: Path) -> None:
    """From git to a manual project: they stay in the workflow, and end each window."""
    with AwxStandIn(dict(REPOSITORIES)) as awx:
        organization = add(awx, "organizations", name="Operations")
        add(awx, "inventories", name="shop", organization=organization)
        workflow = add(awx, "workflow_job_templates", name="shop approved window", organization=organization)
        for name in ("probe", "project", "inventory", "of others"):
            add(awx, "workflow_job_template_nodes", identifier=name, workflow_job_template=workflow)
        manual = {"awx_project_url": "", "awx_project_path": MANUAL, "awx_inventory_path": ""}
        run = perform(tmp_path, awx, "--check", **manual)
        assert run.rc == 0, run.stdout
        said = "workflow shop approved window: its nodes probe, project, inventory are declared no more, and a window"
        assert said in flatten(run)
