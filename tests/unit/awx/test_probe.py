# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The role awx in an AWX that has the project already: its probe is like it, and is good after each run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from support.awx_stand_in import MANUAL, REPOSITORY, AwxStandIn

from .existing import (
    REPOSITORIES,
    TO_THE_APPROVAL,
    add,
    add_beside,
    add_project,
    find_summary,
    flatten,
    list_updates,
    perform,
    run_window,
    wait_for,
)

LEFT = "The project operations was left as it was"
WAITS = f"{LEFT}, and approved windows end at their node probe until this one can be read."
IS_LOCKED = "The project operations is locked, as its last update has failed: AWX starts nothing of it, restore service"


def test_a_probe_is_like_the_project_that_is_there(tmp_path: Path) -> None:
    """What is not declared comes from the project, and a limit where that has none. A probe that was changed is read
    although the project is as it should be, since each window begins with it. What the project would refuse, such as
    submodules and content without a signature, the probe refuses before. Check mode foresees a missing one.
    """
    with AwxStandIn(dict(REPOSITORIES)) as awx:
        project = add_project(awx, scm_refspec="refs/*:refs/*", scm_track_submodules=True)
        key, signature = (awx.find("credentials", name)["id"] for name in ("git", "key of another place"))
        awx.private[REPOSITORY] = "git"
        project |= {"credential": key, "signature_validation_credential": signature}
        first = perform(tmp_path, awx)
        assert first.rc == 0, first.stdout
        probe = awx.find("projects", "operations probe")
        expected = {
            "credential": key,
            "scm_refspec": "refs/*:refs/*",
            "scm_track_submodules": True,
            "signature_validation_credential": signature,
            "timeout": 3600,
            "status": "successful",
        }
        assert {name: probe[name] for name in expected} == expected
        assert len(awx.kinds["projects"]) == 2, "nothing was to be tried"
        assert run_window(awx) == TO_THE_APPROVAL

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
        assert run_window(awx) == TO_THE_APPROVAL

        awx.strict.add(REPOSITORY)
        awx.writes.clear()
        third = perform(tmp_path, awx, awx_synchronise=True)
        assert third.rc == 2, third.stdout
        assert f"project operations probe: its state is failed, with {REPOSITORY} and the branch ''." in flatten(third)
        assert WAITS in flatten(third)
        assert not [path for _method, path, _body in awx.writes if path.startswith(project["url"])]
        assert project["status"] == "successful"


def test_no_run_is_green_while_the_probe_is_bad(tmp_path: Path) -> None:
    """It is read until that succeeds, although nothing else is to be done; each window would end at it."""
    with AwxStandIn(dict(REPOSITORIES)) as awx:
        add_project(awx)
        probe = add_beside(awx, "operations probe")
        probe["status"] = "failed"
        awx.folders.clear()
        refused = perform(tmp_path, awx)
        assert refused.rc == 2, refused.stdout
        assert WAITS in flatten(refused)
        awx.folders.update(REPOSITORIES)
        awx.writes.clear()
        predicted = perform(tmp_path, awx, "--check")
        assert (predicted.rc, awx.writes) == (0, []), predicted.stdout
        again = perform(tmp_path, awx)
        assert again.rc == 0, again.stdout
        for run in (predicted, again):
            assert "project operations probe, inventory shop" in find_summary(run)
        assert list_updates(awx)[0] == "operations probe"
        assert run_window(awx) == TO_THE_APPROVAL


def test_a_locked_project_is_named(tmp_path: Path) -> None:
    """While git is away nothing of it starts, which is said with the ways out; check mode says it as well."""
    with AwxStandIn(dict(REPOSITORIES)) as awx:
        project = add_project(awx)
        project["status"] = "failed"
        awx.folders.clear()
        refused = perform(tmp_path, awx)
        assert refused.rc == 2, refused.stdout
        assert IS_LOCKED in flatten(refused)
        assert LEFT not in flatten(refused)
        assert "press Sync of it and cancel that update at once" in flatten(refused)
        predicted = perform(tmp_path, awx, "--check")
        assert predicted.rc == 0, predicted.stdout
        assert "project operations is locked, as its last update has failed" in flatten(predicted)


@pytest.mark.parametrize(
    ("is_silent", "said"),
    [
        (False, f"Its templates were left as they were. {IS_LOCKED}"),
        (
            True,
            f"project operations: AWX is still reading {REPOSITORY}. Its templates were left as they were. See its last"
            " job in AWX: where the git server keeps silent, cancel that job, which frees operations, and mend",
        ),
    ],
)
def test_what_the_project_does_after_its_probe_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_silent: bool, said: str
) -> None:
    """Git goes away just between the two: the project is locked, or holds up its jobs, and the way out is said."""
    with AwxStandIn(dict(REPOSITORIES)) as awx:
        project = add_project(awx)
        ask = awx.ask

        def end(method: str, address: str, body: Any = None) -> tuple[int, Any]:
            if method == "POST" and address == f"{project['url']}update/":
                awx.runs_jobs = not is_silent
                awx.folders.clear()
            return ask(method, address, body)

        monkeypatch.setattr(awx, "ask", end)
        run = perform(tmp_path, awx, "-e", "__awx_looks=3", awx_synchronise=True)
        assert run.rc == 2, run.stdout
        assert said in flatten(run)
        assert ("is locked" in flatten(run)) is not is_silent


@pytest.mark.sweep
def test_what_is_written_without_quotes_is_as_in_awx(tmp_path: Path) -> None:
    """A branch that is a number, and keys without a value: neither is the project changed, nor is it read anew."""
    with AwxStandIn(dict(REPOSITORIES)) as awx:
        project = add_project(awx)
        probe = add_beside(awx, "operations probe")
        assert wait_for(awx, probe) == "successful"
        empty = dict.fromkeys(("awx_project_path", "awx_project_credential", "awx_image", "awx_execution_environment"))
        for declared, branch in ((20261128, "20261128"), (24.6, "24.6"), (None, "")):
            project["scm_branch"] = probe["scm_branch"] = branch
            run = perform(tmp_path, awx, "--check", awx_project_branch=declared, **empty)
            assert run.rc == 0, run.stdout
            assert "inventory shop" in find_summary(run)
            assert "project" not in find_summary(run), declared


def test_nodes_that_are_declared_no_more_are_named(tmp_path: Path) -> None:
    """From git to a manual project: they stay in the workflow, and end each window."""
    with AwxStandIn(dict(REPOSITORIES)) as awx:
        organization = add(awx, "organizations", name="Operations")
        add(awx, "inventories", name="shop", organization=organization)
        workflow = add(awx, "workflow_job_templates", name="shop approved window", organization=organization)
        for name in ("probe", "project", "inventory", "of others"):
            add(awx, "workflow_job_template_nodes", identifier=name, workflow_job_template=workflow)
        manual = {"awx_project_url": None, "awx_project_path": MANUAL, "awx_inventory_path": None}
        run = perform(tmp_path, awx, "--check", **manual)
        assert run.rc == 0, run.stdout
        said = "workflow shop approved window: its nodes probe, project, inventory are declared no more, and a window"
        assert said in flatten(run)


def test_a_window_that_was_begun_keeps_its_revision(tmp_path: Path) -> None:
    """Where the project would be read anew, what its check mode has shown would be another than what is approved."""
    with AwxStandIn(dict(REPOSITORIES)) as awx:
        organization = add_project(awx)["organization"]
        workflow = add(awx, "workflow_job_templates", name="shop approved window", organization=organization)
        for number, status in ((70, "successful"), (71, "running")):
            awx.keep("workflow_jobs", {"id": number, "workflow_job_template": workflow, "status": status})
        awx.writes.clear()
        refused = perform(tmp_path, awx, awx_synchronise=True)
        assert (refused.rc, awx.writes) == (2, []), refused.stdout
        said = "workflow shop approved window: its jobs 71 have begun or wait for their approval, and project operat"
        assert said in flatten(refused)
        other = perform(tmp_path, awx, "--check")
        assert other.rc == 0, other.stdout
