# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The stand-in for AWX answers as the real one did: each recorded request against it, status and words."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from support.awx_objects import load
from support.awx_stand_in import REPOSITORY, AwxStandIn, load_recorded_world

MODULES = "awx.awx modules"
REFUSALS = load("refusals")
CASES = [(subject, name) for subject, cases in REFUSALS.items() if subject != MODULES for name in cases]
LAUNCHES = {name: case for name, case in load("launch").items() if "/28/" not in case["request"]["path"]}
"""What was launched; of template 28 the survey is not on record."""
VOLATILE = ("id", "url", "created", "modified", "related", "summary_fields", "next_run")


@pytest.fixture(scope="module")
def recorded() -> AwxStandIn:
    """The world in which requests were recorded."""
    awx = AwxStandIn()
    load_recorded_world(awx)
    return awx


@pytest.fixture
def awx(recorded: AwxStandIn) -> Iterator[AwxStandIn]:
    """That world, as it was before each request."""
    kept = recorded.snapshot()
    yield recorded
    recorded.restore(kept)


def keep_stable(body: Any) -> Any:
    """Return what of an answer is the same at another time."""
    return {key: value for key, value in body.items() if key not in VOLATILE} if isinstance(body, dict) else body


@pytest.mark.parametrize(("subject", "name"), CASES)
def test_request_is_answered_as_it_was(awx: AwxStandIn, subject: str, name: str) -> None:
    """Refused with the same status and words, or accepted with the same fields."""
    case = REFUSALS[subject][name]
    request = case["request"]
    status, body = awx.ask(request["method"], request["path"], request["body"])
    assert (status, keep_stable(body)) == (case["status"], keep_stable(case["body"]))
    if "preview" in case and case["status"] != 201:
        status, body = awx.ask("POST", "/api/v2/schedules/preview/", {"rrule": request["body"]["rrule"]})
        assert (status, body) == (case["preview"]["status"], case["preview"]["body"])


@pytest.mark.parametrize("name", LAUNCHES)
def test_launch_is_answered_as_it_was(awx: AwxStandIn, name: str) -> None:
    """What arrives where nothing is answered, what is ignored, what is refused."""
    case = LAUNCHES[name]
    request = case["request"]
    status, body = awx.ask(request["method"], request["path"], request["body"])
    expected = case["body"]
    if case["status"] == 201:
        body = {key: body[key] for key in expected if key in body}
        body["extra_vars"], expected = json.loads(body["extra_vars"]), dict(expected)
        expected["extra_vars"] = json.loads(expected["extra_vars"])
    assert (status, body) == (case["status"], expected)


def test_several_vaults_are_told_apart_by_their_id() -> None:
    """As Credential.unique_hash of the source has it: the type, and the id where there is one."""
    awx = AwxStandIn()
    load_recorded_world(awx)
    kind = awx.find("credential_types", "Vault")["id"]
    awx.associated["job_templates", 14, "credentials"] = []

    def add(number: int, inputs: dict[str, Any]) -> tuple[int, Any]:
        given = {"id": number, "name": f"vault {number}", "credential_type": kind, "inputs": inputs}
        awx.keep("credentials", given)
        return awx.ask("POST", "/api/v2/job_templates/14/credentials/", {"id": number})

    assert [add(50, {})[0], add(51, {"vault_id": "one"})[0]] == [204, 204]
    assert add(52, {}) == (400, {"error": "Cannot assign multiple Vault credentials."})
    assert add(53, {"vault_id": "one"}) == (400, {"error": "Cannot assign multiple Vault (id=one) credentials."})


def test_an_execution_environment_stays_where_it_is() -> None:
    """In its organization, or in none."""
    awx = AwxStandIn()
    path = "/api/v2/execution_environments/"
    organization = awx.ask("POST", "/api/v2/organizations/", {"name": "Operations"})[1]["id"]
    made = awx.ask("POST", path, {"name": "lowtide", "image": "one"})[1]["url"]
    refused = {"organization": ["Cannot change the organization of an execution environment"]}
    assert awx.ask("PATCH", made, {"organization": organization}) == (400, refused)
    assert awx.ask("PATCH", made, {"image": "two"})[0] == 200


def test_an_update_is_started_by_what_is_read_anew() -> None:
    """As Project.FIELDS_TRIGGER_UPDATE of the source has it: no other field does, nor one that is as it was."""
    awx = AwxStandIn({REPOSITORY: []})
    organization = awx.ask("POST", "/api/v2/organizations/", {"name": "Operations"})[1]["id"]
    git = {"scm_type": "git", "scm_url": REPOSITORY, "scm_branch": ""}
    address = awx.ask("POST", "/api/v2/projects/", {"name": "p", "organization": organization, **git})[1]["url"]
    while awx.ask("GET", address)[1]["status"] != "successful":
        pass
    assert awx.ask("PATCH", address, {**git, "timeout": 300})[1]["status"] == "successful"
    assert awx.ask("PATCH", address, {"scm_branch": "main"})[1]["status"] == "pending"


def test_who_may_change_an_execution_environment_is_told() -> None:
    """As ExecutionEnvironmentAccess.can_change of the source has it, and the change is refused to others."""
    awx = AwxStandIn()
    own, others = (awx.ask("POST", "/api/v2/organizations/", {"name": name})[1]["id"] for name in ("own", "others"))
    awx.foreign.add(others)
    path = "/api/v2/execution_environments/"

    def ask(organization: int | None) -> tuple[bool, int]:
        body = {"name": f"of {organization}", "image": "one", "organization": organization}
        made = awx.ask("POST", path, body)[1]["url"]
        told = awx.ask("GET", made)[1]["summary_fields"]["user_capabilities"]["edit"]
        return told, awx.ask("PATCH", made, {"image": "two"})[0]

    awx.account["is_superuser"] = False
    assert [ask(one) for one in (own, others, None)] == [(True, 200), (False, 403), (False, 403)]


def test_the_id_of_a_vault_stays_and_a_hidden_secret_is_kept() -> None:
    """As Credential.save and CredentialSerializer.validate_inputs of the source have it, its own fault too."""
    awx = AwxStandIn()
    organization = awx.ask("POST", "/api/v2/organizations/", {"name": "Operations"})[1]["id"]
    kind = awx.find("credential_types", "Vault")["id"]

    def add(name: str, inputs: dict[str, Any]) -> str:
        body = {"name": name, "organization": organization, "credential_type": kind, "inputs": inputs}
        return str(awx.ask("POST", "/api/v2/credentials/", body)[1]["url"])

    one, none = add("one", {"vault_id": "one", "vault_password": "first"}), add("none", {})
    refused = {"inputs": ["Vault IDs cannot be changed once they have been created."]}
    assert awx.ask("PATCH", one, {"inputs": {"vault_id": "two"}}) == (400, refused)
    assert awx.ask("PATCH", none, {"inputs": {"vault_id": "two"}})[0] == 500
    assert awx.ask("PATCH", one, {"inputs": {"vault_id": "one", "vault_password": "$encrypted$"}})[0] == 200
    assert awx.secrets[organization, "one"] == {"vault_id": "one", "vault_password": "first"}


def test_a_repository_may_ask_for_a_credential() -> None:
    """One of Source Control, and no other."""
    awx = AwxStandIn({REPOSITORY: []})
    awx.private[REPOSITORY] = "key"
    organization = awx.ask("POST", "/api/v2/organizations/", {"name": "Operations"})[1]["id"]

    def add(name: str, kind: str) -> int:
        body = {"name": name, "organization": organization, "credential_type": awx.find("credential_types", kind)["id"]}
        return int(awx.ask("POST", "/api/v2/credentials/", body)[1]["id"])

    key, other = add("key", "Source Control"), add("other", "Machine")
    git = {"organization": organization, "scm_type": "git", "scm_url": REPOSITORY}
    refused = {"credential": ["Credential kind must be 'scm'."]}
    assert awx.ask("POST", "/api/v2/projects/", {"name": "p", **git, "credential": other}) == (400, refused)
    ended = {}
    for name, credential in (("with", key), ("without", None)):
        address = awx.ask("POST", "/api/v2/projects/", {"name": name, **git, "credential": credential})[1]["url"]
        while awx.ask("GET", address)[1]["status"] in ("pending", "running"):
            pass
        ended[name] = awx.ask("GET", address)[1]["status"]
    assert ended == {"with": "successful", "without": "failed"}


def test_a_token_is_good_until_it_is_given_back() -> None:
    """It is shown once."""
    awx = AwxStandIn()
    status, made = awx.ask("POST", "/api/v2/tokens/", {"description": "one", "scope": "write"})
    assert (status, awx.is_token(made["token"])) == (201, True)
    assert awx.ask("GET", made["url"])[1]["token"] != made["token"]
    assert awx.ask("DELETE", made["url"])[0] == 204
    assert not awx.is_token(made["token"])


def test_enough_was_compared() -> None:
    """All recorded requests, none of them by a list that somebody shortened."""
    assert (len(CASES), len(LAUNCHES)) == (156, 27)
