# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The report: rows in the order in which things happened, what was really found, one page that refers to nothing."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.lowtide.ops.plugins.plugin_utils._window import report_html, report_text
from ansible_collections.lowtide.ops.plugins.plugin_utils._window.events import Event
from ansible_collections.lowtide.ops.plugins.plugin_utils._window.report import (
    Report,
    build_report,
    build_rows,
    describe_outcome,
)
from ansible_collections.lowtide.ops.plugins.plugin_utils._window.results import NO_RESULT
from ansible_collections.lowtide.ops.plugins.plugin_utils._window.state import FINAL_STATES

from .builders import (
    close,
    declare,
    fail,
    make_rules,
    make_step,
    open_window,
    plan,
    skip,
    start,
    stop_and_start,
    succeed,
)

BLOCKERS = [{"object": "db1", "what": "a lock", "holder": "pid 7", "next_step": "End it"}]
EVENTS: list[Event] = [
    plan("maintain", "db2", due=False, blockers=[{"object": "db2", "what": "planned"}]),
    plan("maintain", "db1", blockers=[{"object": "db1", "what": "planned"}]),
    plan("resume", "web1", due=False, reverts="quiesce"),
    skip("save", "db1", not_due=True),
    start("quiesce", "web2", reverted_by="resume", at=1010.0),
    start("quiesce", "web1", reverted_by="resume", at=1011.0),
    succeed("quiesce", "web1", at=1013.0),
    succeed("quiesce", "web2", at=1014.5),
    start("maintain", "db1", at=1020.0),
    fail("maintain", "db1", error="Vacuum: no", at=1050.0, blockers=BLOCKERS, plan=[{"object": "t"}]),
    start("resume", "web1", at=1060.0),
    succeed("resume", "web1", reverts="quiesce", evidence=["3 of 3 ready"], at=1061.0),
]


def build(*events: Event, check_mode: bool = False, **opening: Any) -> Report:
    """Return the report of a run that is closed at 1100."""
    rules = make_rules(*events, **opening)
    return build_report(rules, at=1100.0, check_mode=check_mode, journal="/d: weekly@monday", version="1.0.0")


def test_rows_are_in_the_order_in_which_things_happened() -> None:
    rows = build_rows(make_rules(*EVENTS))
    assert [(row["step"], row["host"], describe_outcome(row)) for row in rows] == [
        ("save", "db1", "skipped"),
        ("quiesce", "web2", "changed"),
        ("quiesce", "web1", "changed"),
        ("maintain", "db1", "failed"),
        ("resume", "web1", "changed"),
        ("maintain", "db2", "not due"),
    ]


def test_a_row_tells_what_the_real_run_found() -> None:
    rows = {(row["step"], row["host"]): row for row in build_rows(make_rules(*EVENTS))}
    failed = rows[("maintain", "db1")]
    assert (failed["blockers"], failed["plan"], failed["summary"]) == (BLOCKERS, [{"object": "t"}], "Vacuum: no")
    assert (failed["begin"], failed["seconds"], failed["changed"]) == (1020.0, 30.0, False)
    assert (failed["builds_on"], failed["irreversible"]) == (["quiesce"], True)
    assert rows[("maintain", "db2")]["blockers"] == [{"object": "db2", "what": "planned"}]
    reverted = rows[("resume", "web1")]
    assert (reverted["evidence"], reverted["reverts"], reverted["builds_on"]) == (
        ["3 of 3 ready"], "quiesce", ["quiesce"],
    )  # fmt: skip
    assert (rows[("save", "db1")]["why"], rows[("save", "db1")]["begin"]) == ("nothing to do", None)


def test_a_step_that_never_ended_a_due_plan_and_a_planning_that_failed_have_rows() -> None:
    rows = build_rows(
        make_rules(
            plan("save", "db1"),
            fail("maintain", "db1", planning=True, error="no answer", blockers=BLOCKERS),
            fail("save", "db2", planning=True, error="no role"),
            skip("maintain", "db1"),
            start("quiesce", "web1"),
        )
    )
    assert [(row["step"], row["host"], row["outcome"], row["summary"]) for row in rows] == [
        ("save", "db2", "failed", "whether it is due is unknown: no role"),
        ("maintain", "db1", "failed", "whether it is due is unknown: no answer"),
        ("quiesce", "web1", "interrupted", "started at 1970-01-01T00:16:45Z, and its end is not on record"),
        ("save", "db1", "due", ""),
    ]
    assert rows[1]["blockers"] == BLOCKERS
    assert rows[3]["why"] == "save is due"


def test_what_a_run_at_work_has_started_is_running() -> None:
    rules = make_rules(start("quiesce", "web1"), start("quiesce", "web2"), succeed("quiesce", "web2"))
    for token, outcome, words in (
        (1, "running", "since 00:16:41Z"),
        (2, "interrupted", "started at 1970-01-01T00:16:41Z, and its end is not on record"),
        (None, "interrupted", "started at 1970-01-01T00:16:41Z, and its end is not on record"),
    ):
        rows = build_rows(rules, running=token)
        assert [(row["outcome"], row["summary"]) for row in rows] == [(outcome, words), ("ok", "quiesce is done")]


def test_a_step_that_left_no_result_is_done_all_the_same() -> None:
    events = [start("save", "db1"), succeed("save", "db1", changed=False, summary=NO_RESULT)]
    assert [row["summary"] for row in build(*events)["steps"]] == ["done (it gave no result)"]
    assert [row["summary"] for row in build(*events, check_mode=True)["steps"]] == ["it gave no result"]


def test_durations_are_from_the_first_start_to_the_last_end_of_a_step() -> None:
    report = build(*EVENTS)
    assert report["durations"] == {"quiesce": 4.5, "maintain": 30.0, "resume": 1.0}
    assert (report["opened"], report["closed"], report["seconds"]) == (1000.0, 1100.0, 100.0)


def test_the_whole_report() -> None:
    report = build(*EVENTS)
    assert {key: report[key] for key in ("window", "window_id", "state", "cause", "not_reverted", "resumed")} == {
        "window": "weekly",
        "window_id": "weekly@monday",
        "state": "failed_not_reverted",
        "cause": "maintain on db1: Vacuum: no",
        "not_reverted": ["quiesce on web2"],
        "resumed": False,
    }
    assert json.loads(json.dumps(report)) == report
    assert build(close("failed_reverted"), open_window(declare()), *EVENTS)["resumed"]


def test_a_clock_that_went_back_gives_no_negative_duration() -> None:
    report = build(start("save", "db1", at=1010.0), succeed("save", "db1", at=1005.0))
    assert report["steps"][0]["seconds"] == 0.0


# -- for the console ------------------------------------------------------------------------------------------------


def test_the_lines() -> None:
    assert report_text.render({**build(*EVENTS), "path": "/d/report.html"}) == [
        f"Window weekly@monday: {FINAL_STATES['failed_not_reverted']} (100 s)",
        "First cause: maintain on db1: Vacuum: no",
        "  save                     db1                  skipped                nothing to do",
        "  quiesce                  web2                 changed         4.5 s  quiesce is done",
        "  quiesce                  web1                 changed         2.0 s  quiesce is done",
        "  maintain                 db1                  failed         30.0 s  Vacuum: no",
        "      blocked: db1: a lock, held by pid 7. End it",
        "  resume                   web1                 changed         1.0 s  resume is done",
        "      3 of 3 ready",
        "  maintain                 db2                  not due                maintain is not due",
        "      blocked: db2: planned",
        "Durations: quiesce 4.5 s, maintain 30.0 s, resume 1.0 s",
        "Not reverted yet: quiesce on web2",
        "Report: /d/report.html",
    ]  # fmt: skip


def test_check_mode_tells_what_would_be_done_and_on_what_that_builds() -> None:
    events = [
        *stop_and_start(),
        start("maintain", "db1"),
        succeed("maintain", "db1", plan=[{"object": "t1", "what": "vacuum", "why": "9 dead rows"}], evidence=["read"]),
        start("maintain", "db2"),
        succeed("maintain", "db2", changed=False),
        fail("verify", "web1"),
    ]
    lines = report_text.render(build(*events, check_mode=True))
    assert lines[0].startswith("Check mode of window weekly@monday: ")
    first = next(number for number, line in enumerate(lines) if line.startswith("  maintain"))
    assert lines[first] == "  maintain                 db1                  would change    1.0 s  maintain is done"
    assert lines[first + 1 : first + 4] == [
        "      would: t1: vacuum (9 dead rows)",
        "      builds on quiesce, which was only predicted: the real run may differ",
        "      cannot be undone",
    ]
    assert lines[first + 4].startswith("  maintain                 db2                  ok")
    assert "cannot be undone" not in lines[first + 5 :]
    assert "would change" in Page(report_html.render(build(*events, check_mode=True))).text
    real = report_text.render(build(*events))
    assert "      read" in real
    assert not [line for line in real if "would" in line or "builds on" in line]


def test_a_resumed_run_says_so() -> None:
    lines = report_text.render(build(close("failed_reverted"), open_window(declare())))
    assert lines == ["Window weekly@monday: nothing was due, nothing was changed (100 s, resumed)"]


@pytest.mark.parametrize(
    ("events", "line"),
    [
        ([], "no_changes (nothing was due, nothing was changed)"),
        ([start("save", "db1"), succeed("save", "db1")], "succeeded (everything that was due is done)"),
        ([fail("save", "db1", error="no")], "refused (refused before any change): save on db1: no"),
        (
            [start("save", "db1"), fail("save", "db1", error="no")],
            "failed_reverted (failed; every reversible step is reverted): save on db1: no",
        ),
    ],
)
def test_the_last_line(events: list[Event], line: str) -> None:
    assert report_text.render_last_line(build(*events)) == f"lowtide window weekly@monday: {line}"


# -- the page -------------------------------------------------------------------------------------------------------


class Page(HTMLParser):
    """What is in a page: its elements, their attributes, its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Keep an element."""
        self.elements.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_data(self, data: str) -> None:
        """Keep text."""
        self.text += data


def test_the_page_tells_what_the_lines_tell_and_refers_to_nothing() -> None:
    report = build(*EVENTS)
    html = report_html.render(report)
    page = Page(html)
    for words in (
        "weekly@monday",
        FINAL_STATES["failed_not_reverted"],
        "1970-01-01T00:16:40Z to 1970-01-01T00:18:20Z, 100.0 s.",
        "maintain on db1: Vacuum: no",
        "Not reverted yetquiesce on web2",
        "blocked: db1: a lock",
        "3 of 3 ready",
        "30.0 s",
        "Journal: /d: weekly@monday; lowtide.ops 1.0.0",
    ):
        assert words in page.text
    assert set(page.elements).isdisjoint({"script", "link", "img", "iframe", "a", "object", "base"})
    assert {name for name, _value in page.attributes} <= {"class", "style", "lang", "charset"}
    assert "url(" not in html
    assert "//" not in html
    order = [page.text.index(words) for words in ("savedb1", "quiesceweb2", "quiesceweb1", "maintaindb1", "resumeweb1")]
    assert order == sorted(order)


def test_bars_are_where_things_happened() -> None:
    styles = [value for name, value in Page(report_html.render(build(*EVENTS))).attributes if name == "style"]
    assert styles == [
        "left:10.0%;width:4.5%",
        "left:11.0%;width:2.0%",
        "left:20.0%;width:30.0%",
        "left:60.0%;width:1.0%",
    ]


NASTY = st.text(alphabet="<>&\"'/ab=;", min_size=1, max_size=12)


@given(NASTY, NASTY, NASTY, NASTY, NASTY)
def test_whatever_is_in_a_report_is_text(name: str, host: str, text: str, evidence: str, window_id: str) -> None:
    declaration = declare(make_step("a", "web1"))
    plain = [start("a", "h"), fail("a", "h", error="e", blockers=[{"object": "o", "what": "w"}])]
    nasty = [
        start(name, host),
        fail(name, host, error=text, blockers=[{"object": text, "what": evidence}]),
    ]
    plain += [start("b", "h"), succeed("b", "h", evidence=["e"], summary="s")]
    nasty += [start(f"{name}b", host), succeed(f"{name}b", host, evidence=[evidence], summary=text)]
    shown = Page(report_html.render(build(*nasty, declaration=declaration, window_id=window_id, version=text)))
    expected = Page(report_html.render(build(*plain, declaration=declaration)))
    assert shown.elements == expected.elements
    assert [name for name, _value in shown.attributes] == [name for name, _value in expected.attributes]
    for words in (name, host, text, evidence, window_id):
        assert words in shown.text
