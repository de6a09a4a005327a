# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Pure parts of drills and of what a run says: what an answer and evidence prove, and summaries."""

from __future__ import annotations

from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest

from ansible_collections.lowtide.ops.plugins.module_utils._backup.keys import Place
from ansible_collections.lowtide.ops.plugins.module_utils._common.errors import OpsError
from ansible_collections.lowtide.ops.plugins.module_utils._pg_restore import evidence
from ansible_collections.lowtide.ops.plugins.module_utils._pg_restore.judging import judge_answer
from ansible_collections.lowtide.ops.plugins.module_utils._pg_restore.summary import summarize_restore


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([], "no row"),
        ([{"n": 1}], "no boolean column"),
        ([{"fine": True, "other": False}], "not true: other is False"),
        ([{"fine": True, "other": None}], "not true: other is None"),
    ],
)
def test_an_answer_that_proves_nothing_is_an_error(rows: list[dict[str, Any]], words: str) -> None:
    """And says what is wrong."""
    with pytest.raises(OpsError, match=words):
        judge_answer(rows, obj="query")
    assert judge_answer([{"fine": True, "n": 3}], obj="query") == {"fine": True, "n": 3}


def test_evidence_of_something_else_proves_nothing() -> None:
    """Another database, cluster, format, or none at all."""
    place = Place("b", "team", "shop", "7")
    document = {
        "proven": True,
        "database": "shop",
        "source_system_identifier": "7",
        "finished_at": "2026-11-21T02:00:00Z",
    }
    assert evidence.name_folder(place) == "team/restore-drills/shop/7/"

    def read(body: bytes) -> evidence.Drill | None:
        return evidence.read_document("u", place, name="n", body=body, signature=b"s")

    assert read(evidence.write_document(document)) is not None
    for change in ({"proven": False}, {"database": "x"}, {"source_system_identifier": "8"}, {"finished_at": "soon"}):
        assert read(evidence.write_document({**document, **change})) is None
    assert read(b"[]") is None
    assert read(b"\xff") is None


def test_evidence_of_a_wrong_clock_hides_none_that_counts() -> None:
    """For it every later drill would be an older one, so that one would be due each night."""
    place, now = Place("b", "team", "shop", "7"), datetime(2026, 11, 27, tzinfo=UTC)
    own = {"proven": True, "database": "shop", "source_system_identifier": "7"}
    written = {
        f"{evidence.name_folder(place)}{name}.json": evidence.write_document({**own, "finished_at": stamp})
        for name, stamp in (("1", "2026-11-26T00:00:00Z"), ("2", "2027-11-26T00:00:00Z"))
    }
    keys = [key + end for key in written for end in ("", ".sig")]
    bucket: Any = SimpleNamespace(
        list_objects=lambda _folder: [SimpleNamespace(key=key) for key in keys],
        read=lambda key: written.get(key, b"s"),
        url=lambda key: key,
    )
    signer: Any = SimpleNamespace(is_ours=lambda _body, _signature: True)
    found = evidence.find_last(bucket, place, signer, latest=now)
    assert found.last is not None
    assert found.last.name == "1"
    ((url, problem),) = found.bad
    assert url.endswith("/2.json")
    assert "dated in the future (2027-11-26T00:00:00Z); set the clock" in problem


@pytest.mark.parametrize(
    ("query", "name"), [("SELECT 1", "1"), ("SELECT 2 ", "2"), ("SELECT 3", None), (None, "2"), ("", "2")]
)
def test_evidence_of_another_query_does_not_count(query: str | None, name: str | None) -> None:
    """The one before it does, if it has asked the same; who only looks need not know the query."""
    place, now = Place("b", "team", "shop", "7"), datetime(2026, 11, 27, tzinfo=UTC)
    own = {"proven": True, "database": "shop", "source_system_identifier": "7", "finished_at": "2026-11-26T00:00:00Z"}
    written = {
        f"{evidence.name_folder(place)}{number}.json": evidence.write_document({**own, "query": f"SELECT {number}\n"})
        for number in (1, 2)
    }
    keys = [key + end for key in written for end in ("", ".sig")]
    bucket: Any = SimpleNamespace(
        list_objects=lambda _folder: [SimpleNamespace(key=key) for key in keys],
        read=lambda key: written.get(key, b"s"),
        url=lambda key: key,
    )
    signer: Any = SimpleNamespace(is_ours=lambda _body, _signature: True)
    found = evidence.find_last(bucket, place, signer, latest=now, query=query)
    assert (None if found.last is None else found.last.name, found.bad) == (name, [])


@pytest.mark.parametrize(
    ("facts", "options", "words"),
    [
        ({}, {"changed": True}, "restored backup R to C, compared"),
        (
            {"database": "shop", "kept": "K"},
            {"changed": True, "is_swapped": True},
            "backup R has taken the place of shop, which is kept as K",
        ),
        (
            {"database": "shop"},
            {"changed": True, "is_swapped": True},
            "backup R has taken the place of shop, which was not there",
        ),
        ({}, {"changed": True, "check_mode": True}, "would restore backup R to C"),
        ({}, {"changed": True, "check_mode": True, "is_swapped": True}, "would put backup R in the place of shop"),
        ({}, {}, "nothing to do: C is there and is backup R"),
        (
            {"database": "shop", "live_since": "T", "not_compared": ["x"]},
            {},
            "nothing done: backup R has taken the place of shop at T; what was written since was not compared",
        ),
        ({"not_compared": ["x"]}, {"changed": True}, "restored backup R to C, compared; not all could be compared"),
        (
            {"backup": {"run_id": "R", "proven": False}},
            {"changed": True},
            "restored backup R to C, compared (unproven: a dump without a manifest)",
        ),
    ],
)
def test_summaries(facts: dict[str, Any], options: dict[str, bool], words: str) -> None:
    """One line for each end."""
    own: dict[str, Any] = {
        "backup": {"run_id": "R", "proven": True},
        "database": "C",
        "kept": None,
        "not_compared": [],
        "live_since": None,
    }
    own |= facts
    given_options = {"is_swapped": False, "check_mode": False, "changed": False, **options}
    assert summarize_restore(own, live="shop", **given_options) == words
