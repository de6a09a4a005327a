# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The declared steps: what is refused before anything moves, and which steps a choice by name takes along."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.lowtide.ops.plugins.module_utils._common.errors import Refusal
from ansible_collections.lowtide.ops.plugins.module_utils._window.steps import Step, Steps

ENTRIES: list[dict[str, Any]] = [
    {"name": "save"},
    {"name": "freeze"},
    {"name": "quiesce", "needs": "freeze"},
    {"name": "maintain", "needs": ["quiesce"], "irreversible": True, "estimate": "30"},
    {"name": "resume", "closes": "quiesce"},
    {"name": "thaw", "closes": "freeze"},
    {"name": "verify", "follows": ["resume"], "hosts": ["control"]},
]


def test_the_list_keeps_its_order_and_values() -> None:
    steps = Steps(ENTRIES)
    assert [step.name for step in steps] == ["save", "freeze", "quiesce", "maintain", "resume", "thaw", "verify"]
    assert steps["maintain"] == Step("maintain", needs=("quiesce",), irreversible=True, estimate=30.0)
    assert steps.closer_of("quiesce") == steps["resume"]
    assert steps.closer_of("save") is None
    assert steps.needed_by("freeze") == [steps["quiesce"]]
    assert "save" in steps
    assert "nobody" not in steps
    assert Steps([step.as_dict() for step in steps])["verify"] == steps["verify"]


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ([], "the list is empty"),
        (["save"], "has no name"),
        ([{"name": ""}], "has no name"),
        ([{"name": "a"}, {"name": "a"}], "the same name"),
        ([{"name": "a", "need": ["b"]}], "unknown key need"),
        ([{"name": "a", "estimate": "soon"}], "estimate 'soon'"),
        ([{"name": "a", "needs": ["b"]}, {"name": "b"}], "needs b, which is no step before it"),
        ([{"name": "a", "follows": ["x"]}], "follows x, which is no step before it"),
        ([{"name": "a", "closes": "a"}], "closes a, which is no step before it"),
        (
            [{"name": "a"}, {"name": "b"}, {"name": "c", "closes": "a"}, {"name": "d", "closes": "b"}],
            "b is the one to close next",
        ),
        ([{"name": "a"}, {"name": "b", "closes": "a"}, {"name": "c", "closes": "a"}], "closes a, but b is the one"),
        ([{"name": "a"}, {"name": "b", "closes": "a"}, {"name": "c", "needs": ["a"]}], "which b closes before it"),
    ],
)
def test_a_list_that_cannot_be_kept_is_refused(entries: list[Any], words: str) -> None:
    with pytest.raises(Refusal, match=words):
        Steps(entries)


def test_a_step_that_is_not_declared_is_refused_with_the_declared_ones() -> None:
    with pytest.raises(Refusal, match="step nobody: it is not in window_steps \\(save, freeze"):
        Steps(ENTRIES)["nobody"]


@pytest.mark.parametrize(
    ("only", "skip", "chosen"),
    [
        ([], [], {"save", "freeze", "quiesce", "maintain", "resume", "thaw", "verify"}),
        (["save"], [], {"save"}),
        (["maintain"], [], {"maintain", "quiesce", "freeze", "resume", "thaw"}),
        (["thaw"], [], {"freeze", "thaw"}),
        ([], ["save"], {"freeze", "quiesce", "maintain", "resume", "thaw", "verify"}),
        ([], ["maintain", "quiesce", "resume"], {"save", "freeze", "thaw", "verify"}),
    ],
)
def test_a_choice_takes_along_what_it_needs_and_what_closes_that(
    only: list[str], skip: list[str], chosen: set[str]
) -> None:
    assert Steps(ENTRIES).select(only=only, skip=skip) == chosen


@pytest.mark.parametrize(
    ("only", "skip", "words"),
    [
        ([], ["quiesce"], "leaves out quiesce, which maintain needs"),
        ([], ["resume"], "leaves out resume, which closes quiesce"),
        ([], ["freeze", "quiesce", "maintain", "resume"], "leaves out freeze, which thaw closes"),
        (["nobody"], [], "step nobody"),
        ([], ["nobody"], "step nobody"),
    ],
)
def test_a_choice_that_would_leave_something_open_is_refused(only: list[str], skip: list[str], words: str) -> None:
    with pytest.raises(Refusal, match=words):
        Steps(ENTRIES).select(only=only, skip=skip)


def test_the_control_host_stands_by_unless_named() -> None:
    steps = Steps(ENTRIES)
    assert steps.performs(steps["save"], "db1", ["databases"], control="ctl")
    assert not steps.performs(steps["save"], "ctl", ["control"], control="ctl")
    assert steps.performs(steps["verify"], "ctl", ["control"], control="ctl")
    assert not steps.performs(steps["verify"], "db1", ["databases"], control="ctl")
    assert steps.performs(Step("x", hosts=("db1",)), "db1", [], control="ctl")
