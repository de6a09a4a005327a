# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""promql_gate against a stand-in of the HTTP API: what is within limits, what closes the gate, and what is said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.lowtide.ops.plugins.module_utils._common.errors import Refusal
from ansible_collections.lowtide.ops.plugins.module_utils._metrics.limits import (
    Answer,
    Query,
    Sample,
    describe_answer,
    find_breaches,
    read_queries,
)
from support.modules import ModuleRun, run_module
from support.prometheus_stand_in import PrometheusStandIn, make_vector

Json = dict[str, Any]
GOOD = make_vector(({"job": "api"}, "0.5"))
BAD = make_vector(({"job": "api"}, "0.5"), ({"__name__": "errors", "job": "api", "pod": "a-1"}, "7"))


def ask(server: PrometheusStandIn, *, check: bool = False, **params: Any) -> ModuleRun:
    """Run the module with one query that allows at most 1."""
    queries = [{"name": "errors", "query": "rate(errors[1m])", "max": 1.0}]
    return run_module(
        "promql_gate", {"url": server.url, "queries": queries, "request_timeout": 20, **params}, check=check
    )


def test_what_is_within_limits_passes() -> None:
    with PrometheusStandIn.of_vectors(GOOD) as server:
        run = ask(server, hold=0.2, interval=0.05)
    assert not run.failed, run.msg
    assert (run.changed, run["passed"], run["evidence"]) == (False, True, ['errors {job="api"}: 0.5 (at most 1)'])
    assert run["rounds"] > 2
    path, query, _headers = server.requests[0]
    assert (path, query["query"], query["partial_response"]) == ("/api/v1/query", ["rate(errors[1m])"], ["false"])


def test_a_series_outside_of_its_limit_is_named() -> None:
    """With its labels, its value and the limit."""
    with PrometheusStandIn.of_vectors(BAD) as server:
        run = ask(server, hold=5)
    assert run.failed
    assert 'query errors errors{job="api", pod="a-1"}: its value 7 is above max 1. Look at rate(errors[1m])' in run.msg
    assert run["error"]["refused"] is False
    assert run["blockers"][0]["what"] == "its value 7 is above max 1"
    assert len(server.requests) == 1


def test_it_has_to_stay_within_limits() -> None:
    """One look that is not good within the time of holding closes the gate."""
    with PrometheusStandIn.of_vectors(GOOD, GOOD, BAD) as server:
        run = ask(server, hold=60, interval=0.05)
    assert run.failed
    assert len(server.requests) == 3


def test_values_may_settle_first() -> None:
    with PrometheusStandIn.of_vectors(BAD, BAD, GOOD) as server:
        run = ask(server, hold=0.1, interval=0.05, timeout=20)
    assert not run.failed, run.msg
    assert run["rounds"] >= 4
    assert run["waited"] > 0


@pytest.mark.parametrize(
    ("vector", "problem"),
    [
        (make_vector(), "there is no series, so that its value is not known"),
        (make_vector(({}, "NaN")), "its value is nan, which is no number that could be within at most 1"),
        (make_vector(({}, "-Inf")), "its value is -inf"),
        (make_vector(({}, "seven")), "its value is nan"),
        ({"resultType": "scalar", "result": [1.0, "NaN"]}, "its value is nan"),
    ],
)
def test_what_is_not_known_closes_the_gate(vector: Json, problem: str) -> None:
    with PrometheusStandIn.of_vectors(vector) as server:
        run = ask(server)
    assert run.failed
    assert problem in run.msg
    assert run["passed"] is False


def test_a_series_that_is_missing_closes_the_gate() -> None:
    """An instance that is not scraped any more is not well."""
    queries = [{"name": "workers", "query": "up", "min": 1.0, "min_series": 2}]
    with PrometheusStandIn.of_vectors(make_vector(({"pod": "a"}, "1"))) as server:
        run = ask(server, queries=queries)
    assert "query workers: it has 1 series, fewer than min_series 2" in run.msg


def test_a_server_that_does_not_answer_closes_the_gate() -> None:
    """After further attempts; one that comes back is good."""
    unavailable = (503, {"status": "error", "errorType": "unavailable", "error": "starting"})
    with PrometheusStandIn(unavailable) as server:
        run = ask(server, request_timeout=2)
    assert "its value is not known" in run.msg
    assert "answers 503 starting" in run.msg
    assert len(server.requests) > 1
    with PrometheusStandIn(unavailable, (200, {"status": "success", "data": GOOD})) as server:
        assert not ask(server, request_timeout=20).failed
    gone = ask(server, request_timeout=0.3)  # its port is closed by now
    assert gone.failed
    assert "does not answer" in gone.msg


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        ((400, {"status": "error", "errorType": "bad_data", "error": "1:1: parse error"}), "1:1: parse error"),
        ((404, b"page"), "it answers 404"),
        ((401, b"who"), "Give a token or a header that may read it"),
        ((302, b""), "it answers 302"),
        ((200, b"<html>"), "what answers there is not the HTTP API of Prometheus"),
        ((200, {"status": "success", "data": {"resultType": "matrix", "result": []}}), "of type matrix"),
        (
            (
                200,
                {
                    "status": "success",
                    "data": {"resultType": "vector", "result": [{"metric": {}, "histogram": [1, {}]}]},
                },
            ),
            "it is a native histogram and not a number",
        ),
    ],
)
def test_what_another_attempt_does_not_mend_is_refused_at_once(answer: tuple[int, Any], problem: str) -> None:
    """In check mode as well."""
    for check in (False, True):
        with PrometheusStandIn(answer) as server:
            run = ask(server, check=check, timeout=30)
        assert run.failed
        assert problem in run.msg
        assert (len(server.requests), run["error"]["refused"]) == (1, True)


def test_check_mode_asks_once_and_tells() -> None:
    with PrometheusStandIn.of_vectors(BAD) as server:
        run = ask(server, check=True, hold=60, timeout=60)
    assert not run.failed
    assert (run["passed"], run["check_mode"], len(server.requests)) == (False, True, 1)
    assert run["summary"].startswith("the gate is closed: query errors")


@pytest.mark.parametrize("said", [{"warnings": ["a store is away"]}, {"isPartial": True}])
def test_an_answer_that_may_not_be_whole_closes_the_gate(said: dict[str, Any]) -> None:
    """A sum over a part of the series is low; and the servers that can are told not to answer so."""
    with PrometheusStandIn((200, {"status": "success", "data": GOOD, **said})) as server:
        run = ask(server, request_timeout=1)
    assert (run.failed, run["passed"], run["error"]["refused"]) == (True, False, False)
    assert f"its answer may not be whole: {'a store is away' if 'warnings' in said else 'isPartial'}" in run.msg
    query = server.requests[0][1]
    assert (query["partial_response"], query["deny_partial_response"]) == (["false"], ["1"])


def test_infos_of_the_server_are_no_lack() -> None:
    document = {"status": "success", "data": GOOD, "infos": ["metric might not be a counter"], "isPartial": False}
    with PrometheusStandIn((200, document)) as server:
        run = ask(server)
    assert run["passed"], run.msg


def test_a_token_is_sent_and_not_shown(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("canary-token\n")
    with PrometheusStandIn.of_vectors(GOOD) as server:
        run = ask(server, token_file=str(token), headers={"X-Scope-OrgID": "canary-org"})
    headers = {name.lower(): value for name, value in server.requests[0][2].items()}
    assert headers["authorization"] == "Bearer canary-token"
    assert headers["x-scope-orgid"] == "canary-org"
    assert "canary" not in str(run.result)
    missing = ask(server, token_file=str(tmp_path / "none"))
    assert f"token_file {tmp_path / 'none'}: it cannot be read: No such file or directory" in missing.msg


@pytest.mark.parametrize(
    ("url", "problem"),
    [("prometheus:9090", "is not an address"), ("http://u:p@host", "it has a password, which would be in messages")],
)
def test_an_address_that_is_none_is_refused(url: str, problem: str) -> None:
    run = run_module("promql_gate", {"url": url, "queries": [{"name": "q", "query": "1", "max": 1.0}]})
    assert problem in run.msg
    assert run["error"]["refused"] is True


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ([], "nothing would be judged"),
        ([{"name": "q", "min": None, "max": None, "min_series": 1}], "it has neither min nor max"),
        ([{"name": "q", "min": 2.0, "max": 1.0, "min_series": 1}], "no value is at least 2 and at most 1"),
        ([{"name": "q", "min": 1.0, "max": None, "min_series": 0}], "min_series is 0"),
        ([{"name": "q", "min": 1.0, "max": None, "min_series": 1}] * 2, "there are two queries of this name"),
    ],
)
def test_limits_that_judge_nothing_are_refused(options: list[Json], problem: str) -> None:
    with pytest.raises(Refusal, match=problem):
        read_queries([{"query": "up", **option} for option in options])


VALUES = st.floats(allow_nan=True, allow_infinity=True)


@settings(deadline=None)
@given(values=st.lists(VALUES, max_size=6), low=st.floats(-10, 10), high=st.floats(-10, 10))
def test_the_gate_is_open_only_where_every_value_is_within_both_limits(
    values: list[float], low: float, high: float
) -> None:
    answer = Answer(Query("q", "x", low, high), tuple(Sample(f'{{n="{n}"}}', value) for n, value in enumerate(values)))
    is_open = bool(values) and all(low <= value <= high for value in values)
    assert (find_breaches([answer]) == []) is is_open
    assert describe_answer(answer)


def test_of_many_series_the_outermost_are_evidence() -> None:
    samples = tuple(Sample(f'{{n="{n}"}}', float(n)) for n in range(9))
    lines = describe_answer(Answer(Query("q", "x", None, 100.0), samples))
    assert lines == [
        'q {n="0"}: 0 (at most 100)',
        'q {n="8"}: 8 (at most 100)',
        "q: 7 more series between these",
    ]


def test_a_file_of_certificates_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("no certificate")
    run = run_module(
        "promql_gate",
        {
            "url": "https://127.0.0.1:1",
            "ca_path": str(tmp_path / "ca.pem"),
            "queries": [{"name": "q", "query": "1", "max": 1.0}],
        },
    )
    assert "it cannot be read as certificates" in run.msg
    assert run["error"]["refused"] is True
