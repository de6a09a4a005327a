# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The filter that gives each place of a playbook its play."""

from __future__ import annotations

from typing import Any

import pytest
from ansible import context

from ansible_collections.lowtide.ops.plugins.filter.window_play import EXTRA_PLAYS, NO_HOST, FilterModule, window_play

from .builders import GROUPS, STEPS

PLAYS = [
    {"title": "Step a (1 of 2)", "step": "a", "batch": 0, "hosts": ["web1"]},
    {"title": "Step a (2 of 2)", "step": "a", "batch": 1, "hosts": ["web2", "ctl"]},
]
OPENED = {"plays": PLAYS, "planning": {"db1": ["a"], "web1": ["b"]}, "planning_reverts": {"web2": ["c"]}}


def find(place: Any, *, batch: int = 0, groups: Any = GROUPS, **control: Any) -> tuple[str, Any]:
    """Return title and hosts of a place, as the control host's variables say."""
    play = window_play({"ctl": control, "web1": {}}, groups, place, batch)
    assert play.keys() == {"title", "hosts"}
    return play["title"], play["hosts"]


@pytest.mark.parametrize(
    ("place", "batch", "expected"),
    [
        (0, 0, ("Step a (1 of 2)", ["web1", "ctl"])),
        (1, 0, ("Step a (2 of 2)", ["web2", "ctl", "localhost"])),
        (2, 0, ("Place 2 is not used", NO_HOST)),
        ("a", 0, ("Step a (1 of 2)", ["web1", "ctl"])),
        ("a", 1, ("Step a (2 of 2)", ["web2", "ctl", "localhost"])),
        ("a", 2, ("Place a is not used", NO_HOST)),
        ("b", 0, ("Step b, which is not declared", ["ctl", "localhost"])),
        ("b", 1, ("Place b is not used", NO_HOST)),
        (":planning", 0, ("Find out what is due", ["db1", "web1", "ctl", "localhost"])),
        (":planning_reverts", 0, ("Find out what is in force", ["web2", "ctl", "localhost"])),
    ],
)
def test_the_plays_of_the_opening(place: Any, batch: int, expected: Any) -> None:
    assert find(place, batch=batch, window_opened=OPENED) == expected


@pytest.mark.parametrize("opened", [{}, {"refused": True}, {"plays": None, "planning": None}])
def test_a_window_that_was_refused_has_no_plays(opened: dict[str, Any]) -> None:
    for place in (0, *EXTRA_PLAYS):
        assert find(place, window_opened=opened, window_steps=STEPS)[1] == NO_HOST


def test_what_is_reverted_out_of_turn_has_a_play() -> None:
    in_force = {"items": [{"step": "c", "batch": 0}], "hosts": ["web1", "web2"]}
    expected = ("Revert what is still in force", ["web1", "web2", "ctl", "localhost"])
    assert find(":reverting", window_opened=OPENED, __window_in_force=in_force) == expected
    assert find(":reverting", window_opened=OPENED, __window_in_force={"items": [], "hosts": []})[1] == NO_HOST
    assert find(":reverting", window_opened=OPENED, __window_in_force={"skipped": True})[1] == NO_HOST
    assert find(":reverting", window_opened=OPENED)[1] == NO_HOST


def test_after_the_end_no_place_has_a_host() -> None:
    begun = {"over": True}
    assert find(1, window_opened=OPENED, __window_begin=begun) == (
        "Place 1: nothing is left to do after a failure",
        NO_HOST,
    )
    assert find(1, window_opened=OPENED, __window_begin={"over": False})[1] == ["web2", "ctl", "localhost"]
    assert find(1, window_opened=OPENED, __window_begin={"failed": True})[1] == ["web2", "ctl", "localhost"]


@pytest.mark.parametrize(("hostvars", "groups"), [({}, GROUPS), ({"ctl": {}}, {}), ({"ctl": {}}, {"control": []})])
def test_where_no_window_was_opened_every_host_is_told(hostvars: Any, groups: Any) -> None:
    """As after --limit: a play without hosts would end well, with nothing done."""
    assert window_play(hostvars, groups, 0) == {"title": "The window was not opened", "hosts": "all"}
    for place in EXTRA_PLAYS:
        assert window_play(hostvars, groups, place)["hosts"] == NO_HOST


def test_where_the_opening_was_left_out_every_host_is_told() -> None:
    assert find(0, window_steps=STEPS) == ("The window was not opened", "all")


@pytest.mark.parametrize("option", ["listhosts", "listtasks", "listtags", "syntax"])
def test_a_playbook_that_is_only_listed_has_no_plays(option: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(context, "CLIARGS", {option: True})
    assert window_play({}, {}, 0) == {"title": "Place 0 is not used", "hosts": NO_HOST}


def test_ansible_finds_it() -> None:
    assert FilterModule().filters() == {"window_play": window_play}
