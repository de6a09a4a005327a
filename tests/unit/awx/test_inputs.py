# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The role awx and what credentials hold that are there: secrets stay, what AWX says is told without them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from support.awx_stand_in import AwxStandIn, make_collection_folders
from support.checkout import playbook_names
from support.playbooks import PlaybookRun, run_playbook

from .declared import BOUND, MINIMAL, write_site

OLD, NEW, GIVEN = "b2xkLXNlY3JldA", "bmV3LXNlY3JldA", "Z2l2ZW4"
SITE = {**MINIMAL, "awx_credential_types": []}
KIND = "Amazon Web Services"


def perform(folder: Path, awx: AwxStandIn, inputs: dict[str, Any], *arguments: str) -> PlaybookRun:
    """Perform the role with a credential; what comes after it is refused, as nothing can be read."""
    declared = [{"name": "shop buckets", "type": KIND, "inputs": inputs}]
    site = write_site(folder, awx, **{**SITE, "awx_credentials": declared})
    return run_playbook("lowtide.ops.awx", *site, *arguments, timeout=BOUND)


def add_credential(awx: AwxStandIn, kind: str, inputs: dict[str, Any]) -> dict[str, Any]:
    """Make a credential by hand."""
    organization = awx.ask("POST", "/api/v2/organizations/", {"name": "Operations"})[1]["id"]
    body = {"name": "shop buckets", "organization": organization, "inputs": inputs}
    body["credential_type"] = awx.find("credential_types", kind)["id"]
    assert awx.ask("POST", "/api/v2/credentials/", body)[0] == 201
    return awx.find("credentials", "shop buckets")


def test_a_secret_that_was_changed_in_awx_stays(tmp_path: Path) -> None:
    """Also where something else is written, unless secrets are to be written."""
    with AwxStandIn() as awx:
        credential = add_credential(awx, KIND, {"username": "old", "password": NEW, "security_token": GIVEN})
        owner = (credential["organization"], credential["name"])
        perform(tmp_path, awx, {"username": "new", "password": OLD})
        assert awx.secrets[owner] == {"username": "new", "password": NEW, "security_token": GIVEN}
        perform(tmp_path, awx, {"username": "new", "password": OLD}, "-e", "awx_update_secrets=true")
        assert awx.secrets[owner] == {"username": "new", "password": OLD, "security_token": GIVEN}


def test_what_awx_says_of_a_change_is_told(tmp_path: Path) -> None:
    """The module says only that there is an answer. A value that is no text is in the answer, and is not printed."""
    with AwxStandIn(make_collection_folders(playbook_names())) as awx:
        add_credential(awx, KIND, {"username": "old"})
        unknown = perform(tmp_path, awx, {"usernme": NEW})
        said = " ".join(unknown.stdout.split()).replace("''", "'").replace('\\"', '"')
        assert (
            "shop buckets: AWX has refused it ({'inputs': [\"Additional properties are not allowed ('usernme'" in said
        )
        assert "Correct its entry in awx_credentials." in said
        other = perform(tmp_path, awx, {"username": {"user": NEW}}, "-vvv")
        said = " ".join(other.stdout.split()).replace("''", "'").replace('\\"', '"')
        assert "AWX has refused it ({'inputs': {'username': [a value is not of type 'string'" in said
        assert NEW not in unknown.stdout + unknown.stderr + other.stdout + other.stderr


@pytest.mark.parametrize(
    ("status", "reason"), [(503, "The host sent back a server error"), (403, "You don't have permission to")]
)
def test_what_is_no_refusal_is_called_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: int, reason: str
) -> None:
    """AWX is away, or the account may not: the entry may be right."""
    with AwxStandIn(make_collection_folders(playbook_names())) as awx:
        add_credential(awx, KIND, {"username": "old"})
        ask = awx.ask

        def refuse(method: str, address: str, body: Any = None) -> tuple[int, Any]:
            if method == "PATCH" and "/credentials/" in address:
                return status, {"detail": "upstream connect error"}
            return ask(method, address, body)

        monkeypatch.setattr(awx, "ask", refuse)
        run = perform(tmp_path, awx, {"username": "new"})
        assert run.rc == 2, run.stdout
        said = " ".join(run.stdout.split()).replace("''", "'")
        assert f"shop buckets: it could not be written ({reason}" in said
        assert "Its entry may be right: run this again when AWX answers, and lets this account write it." in said
        assert "AWX has refused it" not in said
