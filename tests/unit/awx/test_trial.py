# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The role awx: what the project has not yet is tried on a project that nothing uses, so that a mistake of one site
ends no window of the others, in this run or the next.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from support.awx_stand_in import REPOSITORY, AwxStandIn

from .existing import (
    REPOSITORIES,
    TO_THE_APPROVAL,
    add_beside,
    add_project,
    find_summary,
    flatten,
    list_updates,
    perform,
    run_window,
)

OTHER = {"awx_project_credential": "key of another place"}
GOES_ON = "The project operations and its probe were left as they were, and approved windows go on as before."


def list_written(awx: AwxStandIn, name: str) -> list[Any]:
    """Return what was sent to change a project, or to have it updated."""
    url = awx.find("projects", name)["url"]
    return [body for _method, path, body in awx.writes if path.startswith(url)]


def test_a_refused_credential_is_in_no_other_project(tmp_path: Path) -> None:
    """Not after the run that tried it, nor after a second one, which tries it again. Without it there is nothing to do,
    and what was tried is left alone; one that opens the repository is given to both."""
    with AwxStandIn(dict(REPOSITORIES)) as awx:
        project = add_project(awx)
        awx.private[REPOSITORY] = "git"
        project["credential"] = awx.find("credentials", "git")["id"]
        first = perform(tmp_path, awx)
        assert first.rc == 0, first.stdout
        probe = awx.find("projects", "operations probe")
        for _ in range(2):
            awx.writes.clear()
            refused = perform(tmp_path, awx, **OTHER)
            assert refused.rc == 2, refused.stdout
            said = f"project operations next: its state is failed, with {REPOSITORY} and the branch ''. {GOES_ON}"
            assert said in flatten(refused)
            assert list_written(awx, "operations") == list_written(awx, "operations probe") == []
            assert run_window(awx) == TO_THE_APPROVAL
        awx.writes.clear()
        taken_back = perform(tmp_path, awx)
        assert (taken_back.rc, awx.writes, find_summary(taken_back)) == (0, [], "nothing to do"), taken_back.stdout

        awx.private[REPOSITORY] = "key of another place"
        predicted = perform(tmp_path, awx, "--check", **OTHER)
        assert (predicted.rc, awx.writes) == (0, []), predicted.stdout
        turned = perform(tmp_path, awx, **OTHER)
        assert turned.rc == 0, turned.stdout
        projects = ", ".join(f"project operations{name}" for name in (" next", " probe", ""))
        assert find_summary(turned) == find_summary(predicted) == projects
        assert list_updates(awx) == ["operations next", "operations probe"]
        key = awx.find("credentials", "key of another place")["id"]
        assert (probe["credential"], project["credential"]) == (key, key)
        assert run_window(awx) == TO_THE_APPROVAL


def test_a_credential_that_nobody_can_take_out_is_named(tmp_path: Path) -> None:
    """Of a project that has none: in the probe it would be refused by another place, or be shown to it."""
    with AwxStandIn(dict(REPOSITORIES)) as awx:
        add_project(awx)
        key = awx.find("credentials", "key of another place")["id"]
        add_beside(awx, "operations next", credential=key)
        awx.writes.clear()
        moved = perform(tmp_path, awx, awx_project_branch="next")
        assert (moved.rc, awx.writes) == (2, []), moved.stdout
        said = (
            "it has the credential key of another place, project operations has none there, and the modules of awx.awx"
            " cannot take it out. Nothing has been done. Take it out of"
        )
        assert f"project operations next: {said} operations next in AWX" in flatten(moved)
        add_beside(awx, "operations probe", signature_validation_credential=key)
        awx.writes.clear()
        probe = perform(tmp_path, awx)
        assert (probe.rc, awx.writes) == (2, []), probe.stdout
        assert f"project operations probe: {said} operations probe in AWX" in flatten(probe)


def test_windows_go_on_while_an_address_is_tried(tmp_path: Path) -> None:
    """A run that ends there, such as one that was killed, has left probe and project as they were."""
    with AwxStandIn(dict(REPOSITORIES)) as awx:
        first = perform(tmp_path, awx)
        assert first.rc == 0, first.stdout
        awx.runs_jobs = False
        silent = perform(tmp_path, awx, "-e", "__awx_looks=1", awx_project_url="https://git.example.org/elsewhere.git")
        assert silent.rc == 2, silent.stdout
        said = f"project operations next: AWX is still reading https://git.example.org/elsewhere.git. {GOES_ON} See its"
        assert said in flatten(silent)
        assert "cancel that job, which frees operations next" in flatten(silent)
        awx.runs_jobs = True
        for name in ("operations", "operations probe"):
            assert awx.find("projects", name)["scm_url"] == REPOSITORY
        assert run_window(awx) == TO_THE_APPROVAL


def test_an_update_of_before_says_nothing_of_what_is_tried(tmp_path: Path) -> None:
    """A run before this one has not seen its end: it has another credential than this one has written since."""
    with AwxStandIn(dict(REPOSITORIES)) as awx:
        add_project(awx)
        key, wrong = (awx.find("credentials", name)["id"] for name in ("git", "key of another place"))
        trial = add_beside(awx, "operations next", credential=wrong)
        awx.private[REPOSITORY] = "git"
        assert awx.ask("GET", trial["url"])[1]["status"] == "running"
        run = perform(tmp_path, awx, awx_project_credential="git")
        assert run.rc == 0, run.stdout
        assert list_updates(awx)[0] == "operations next"
        assert {one["credential"] for one in awx.kinds["projects"].values()} == {key}
