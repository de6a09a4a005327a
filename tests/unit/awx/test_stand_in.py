# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The stand-in for AWX answers as the real one did: each recorded request against it, status and words."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from support.awx_objects import load
from support.awx_stand_in import AwxStandIn, load_recorded_world

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


def test_enough_was_compared() -> None:
    """All recorded requests, none of them by a list that somebody shortened."""
    assert (len(CASES), len(LAUNCHES)) == (156, 27)
