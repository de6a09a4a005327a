# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The role awx with user and password: AWX keeps each token until somebody removes it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from support.awx_stand_in import PASSWORD, USERNAME, AwxStandIn, make_collection_folders
from support.awx_updates import TOKEN
from support.checkout import playbook_names
from support.playbooks import PlaybookRun, run_playbook

from .declared import BOUND, MINIMAL, write_site

SITE = {**MINIMAL, "awx_credential_types": []}
OF_THE_MODULE = "Automation Platform Controller Module Token"
"""That of the module that takes the other one; it is given back at its end."""


def perform(folder: Path, awx: AwxStandIn, *arguments: str, **changed: Any) -> PlaybookRun:
    """Perform the role with a password."""
    login = {"controller_host": awx.url, "controller_username": USERNAME, "controller_password": PASSWORD}
    site = write_site(folder, awx, **{"awx_connection": login, **SITE, **changed})
    return run_playbook("lowtide.ops.awx", *site, *arguments, timeout=BOUND)


@pytest.mark.parametrize(
    ("arguments", "changed", "rc"),
    [
        pytest.param(["-vvv"], {}, 0, id="success"),
        pytest.param(["--check"], {}, 0, id="check mode", marks=pytest.mark.sweep),
        pytest.param(["-vvv"], {"awx_credentials": [{"name": "nowhere"}]}, 2, id="refusal"),
        pytest.param(["-v"], {"awx_project_url": "https://git.example.org/gone.git"}, 2, id="failure"),
    ],
)
def test_one_token_is_taken_and_given_back(
    tmp_path: Path, arguments: list[str], changed: dict[str, Any], rc: int
) -> None:
    """However a run ends. It is named, for the case that a run is killed, and nobody sees it."""
    with AwxStandIn(make_collection_folders(playbook_names())) as awx:
        run = perform(tmp_path, awx, *arguments, **changed)
        assert run.rc == rc, run.stdout
        assert awx.tokens == {}
        assert awx.descriptions == [OF_THE_MODULE, "Role lowtide.ops.awx for shop"]
        assert f"{TOKEN}-" not in run.stdout + run.stderr
        assert PASSWORD not in run.stdout + run.stderr


def test_a_token_is_in_no_fact_after_a_run(tmp_path: Path) -> None:
    """The module makes facts of it, which a cache of facts would keep."""
    cache = {"ANSIBLE_CACHE_PLUGIN": "jsonfile", "ANSIBLE_CACHE_PLUGIN_CONNECTION": str(tmp_path / "cache")}
    with AwxStandIn(make_collection_folders(playbook_names())) as awx:
        login = {"controller_host": awx.url, "controller_username": USERNAME, "controller_password": PASSWORD}
        refused = {**SITE, "awx_connection": login, "awx_credentials": [{"name": "nowhere"}]}
        run = run_playbook("lowtide.ops.awx", *write_site(tmp_path, awx, **refused), env=cache, timeout=BOUND)
        assert run.rc == 2, run.stdout
        assert "credential nowhere: this account sees none of this name" in run.stdout
        assert awx.tokens == {}
    kept = [path.read_text() for path in (tmp_path / "cache").iterdir()]
    assert kept
    assert not [text for text in kept if f"{TOKEN}-" in text]


def test_a_token_that_is_kept_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run ends as it did, and a wrong password is told as such."""
    with AwxStandIn(make_collection_folders(playbook_names())) as awx:
        ask = awx.ask

        def refuse(method: str, address: str, body: Any = None) -> tuple[int, Any]:
            if method == "DELETE" and address == "/api/v2/tokens/2/":
                return 503, {"detail": "upstream connect error"}
            return ask(method, address, body)

        monkeypatch.setattr(awx, "ask", refuse)
        run = perform(tmp_path, awx, "--check")
        said = " ".join(run.stdout.split())
        assert run.rc == 0, run.stdout
        assert "token 2 of AWX, Role lowtide.ops.awx for shop: it could not be given back (" in said
        login = {"controller_host": awx.url, "controller_username": USERNAME, "controller_password": "wrong"}
        wrong = perform(tmp_path, awx, awx_connection=login)
        assert wrong.rc == 2, wrong.stdout
        assert "Failed to get token: HTTP Error 401" in " ".join(wrong.stdout.split())
