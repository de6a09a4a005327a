# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The declared steps: what is refused and with which words, what is taken where nothing is said, and the plays."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.lowtide.ops.plugins.module_utils._common.errors import Refusal
from ansible_collections.lowtide.ops.plugins.plugin_utils._window.declaration import (
    Declaration,
    Inventory,
    Step,
    split_names,
)

from .builders import STEPS, Entry, declare, make_inventory, make_step

STOP = make_step("stop")
START = make_step("start", None, reverts="stop")


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ([], "the list is empty. Declare every step"),
        (None, "the list is empty"),
        ("save", "the list is empty"),
        (["save"], "an entry has no name ('save')"),
        ([{"role": "x"}], "an entry has no name"),
        ([{"name": "", "role": "x"}], "an entry has no name"),
        ([{"name": 5, "role": "x"}], "an entry has no name"),
        ([make_step("a", closes="b")], "step a has the unknown key closes. Use reverts instead"),
        ([make_step("a", follows=["b"])], "step a has the unknown key follows. Use only_after instead"),
        ([make_step("a", serial=1)], "step a has the unknown key serial. Use batches instead"),
        ([make_step("a", host="web")], "step a has the unknown key host. Did you mean hosts? Known keys: batches, "),
        ([make_step("a", xyz="web")], "step a has the unknown key xyz. Known keys: batches, estimate, hosts, "),
        ([dict([*make_step("a").items(), (5, 6), (None, 7)])], "step a has the unknown key 5. Known keys: "),
        ([make_step("save"), make_step("b", needs=["svae"])], "step b has needs: svae, which is no step before it. "
         "Did you mean save? Name a step"),
        ([make_step("save"), make_step("b", only_after="svae")], "step b has only_after: svae, which is no step before "
         "it. Did you mean save? Name a step"),
        ([make_step("save"), make_step("b", reverts="svae")], "step b has reverts: svae, which is no step before it. "
         "Did you mean save? Name a step"),
        ([make_step("b1", needs=["b2"]), make_step("b2"), make_step("b3")], "step b1 has needs: b2, which is no step "
         "before it. Name a step"),
        ([make_step("a", tasks="x.yml")], "step a has both role and tasks. Give the role that performs it"),
        ([{"name": "a", "hosts": "web"}], "step a has neither role nor tasks"),
        ([{"name": "a", "hosts": "web", "role": ""}], "step a has neither role nor tasks"),
        ([{"name": "a", "hosts": "web", "tasks": "x.yml"}], "step a has tasks: x.yml, and there is no such file"),
        ([make_step("a", "wbe")], "step a names wbe, which is neither a group nor a host of this inventory. "
         "Did you mean web? Correct the name in hosts or batches of step a"),
        ([make_step("a", ["web", "db11"])], "step a names db11, which is neither a group nor a host of this inventory. "
         "Did you mean db1?"),
        ([make_step("a", "zzzzzz")], "step a names zzzzzz, which is neither a group nor a host of this inventory. "
         "Correct the name"),
        ([make_step("a", None)], "step a has no hosts. Give hosts or batches"),
        ([make_step("a", None, reverts="b")], "step a has reverts: b, which is no step before it. Name a step"),
        ([STOP, make_step("start", None, reverts="stpo")], "step start has reverts: stpo, which is no step before it. "
         "Did you mean stop? Name a step"),
        ([make_step("a"), make_step("b"), make_step("a")], "step a is declared twice. Give each step a name"),
        ([make_step("a", needs=["b"]), make_step("b", needs=["a"])], "needs form a circle: a -> b -> a. Take one"),
        ([make_step("a", needs=["a"])], "needs form a circle: a -> a"),
        (
            [make_step("x"), make_step("a", needs=["x", "b"]), make_step("b", needs=["x", "a"])],
            "needs form a circle: a -> b -> a",
        ),
        (
            [make_step("a", needs="c"), make_step("b", needs="a"), make_step("c", needs="b")],
            "needs form a circle: a -> c -> b -> a",
        ),
        ([make_step("a", needs=["b"])], "step a has needs: b, which is no step before it. Name a step that stands"),
        ([make_step("a", needs=["b"]), make_step("b")], "step a has needs: b, which is no step before it"),
        ([make_step("a", only_after=["b"]), make_step("b")], "step a has only_after: b, which is no step before it"),
        ([make_step("a", only_after=["a"])], "step a has only_after: a, which is no step before it"),
        ([make_step("a", reverts="b"), make_step("b")], "step a has reverts: b, which is no step before it"),
        ([make_step("a", reverts="a")], "step a has reverts: a, which is no step before it"),
        (
            [make_step("a"), make_step("b"), make_step("ra", reverts="a"), make_step("rb", reverts="b")],
            "step ra reverts a, but b comes first. Revert in the reverse order, each step once",
        ),
        ([STOP, START, make_step("again", reverts="stop")], "step again reverts stop, but start comes first"),
        ([STOP, START, make_step("back", reverts="start")], "step back reverts start, which reverts a step itself"),
        ([STOP, START, make_step("late", needs="stop")], "step late needs stop, which start reverts before it. "
         "Put it before start"),
        ([make_step("a", None, batches="web")], "step a has batches: 'web'. Give a list; each item is a host"),
        ([make_step("a", None, batches=2)], "step a has batches: 2. Give a list"),
        ([make_step("a", None, batches=[])], "step a has batches: []. Give a list"),
        ([make_step("a", None, batches=["web1", "web"])], "step a has host web1 in two batches. Leave it in one"),
        ([make_step("a", "web", batches=["web1"])], "step a has hosts and batches that differ by web2. Leave out"),
        ([make_step("a", "web1", batches=["web1", "db1"])], "step a has hosts and batches that differ by db1"),
        ([make_step("a", estimate="soon")], "step a has the estimate 'soon'. Give seconds as a number"),
        ([make_step("a", estimate=-1)], "step a has the estimate -1"),
        ([make_step("a", estimate=float("nan"))], "step a has the estimate nan"),
        ([make_step("a", estimate=float("inf"))], "step a has the estimate inf"),
        ([make_step("a", estimate=[1])], "step a has the estimate [1]"),
        ([make_step("a", estimate=True)], "step a has the estimate True"),
        ([make_step("a", plan="yes")], "step a has plan: 'yes'. Give true or false"),
        ([make_step("a", reads_only=1)], "step a has reads_only: 1"),
        ([make_step("a", irreversible="false")], "step a has irreversible: 'false'"),
        ([make_step("a", in_turn=True)], "step a has in_turn and reverts nothing"),
        # Values of a wrong type that people write: each is named, and none is a traceback.
        ([make_step("a", needs=5)], "step a has needs: 5. Give a name or a list of names"),
        ([make_step("a", only_after=True)], "step a has only_after: True. Give a name or a list of names"),
        ([make_step("a", 5)], "step a has hosts: 5. Give a name or a list of names"),
        ([make_step("a", {"web": None})], "step a has hosts: {'web': None}. Give a name or a list of names"),
        ([make_step("a", None, batches=[["web1"], 5])], "step a has batches: 5. Give a name or a list of names"),
        ([STOP, make_step("a", None, reverts=["stop"])], "step a has reverts: ['stop']. Give the name of one step"),
        ([make_step("a"), make_step("b", reverts=5)], "step b has reverts: 5. Give the name of one step"),
        ([make_step("a", "empty")], "step a has no host: empty is empty. Fill the group"),
        ([make_step("a", [])], "step a has no host"),
        ([make_step("a", None, batches=["empty"])], "step a has no host: empty is empty"),
    ],
)  # fmt: skip
def test_refused(entries: Any, words: str) -> None:
    with pytest.raises(Refusal) as caught:
        Declaration.from_entries(entries, make_inventory())
    assert str(caught.value).startswith(f"window_steps: {words}")


@pytest.mark.parametrize("value", [None, "", [], " , "])
def test_a_blank_list_of_names_is_none(value: Any) -> None:
    assert split_names(value) == []
    assert declare(make_step("a", needs=value, only_after=value))["a"].needs == ()


@pytest.mark.parametrize("value", ["a, b,", ["a", "b "], "a\nb\n", ["a\r\nb"]])
def test_names_are_a_list_or_a_text_with_commas_or_lines(value: Any) -> None:
    assert split_names(value) == ["a", "b"]


def test_what_is_taken_where_nothing_is_said() -> None:
    step = declare(make_step("a"))["a"]
    assert step == Step(name="a", role="demo.a", batches=(("web1", "web2"),))
    assert (step.tasks_from, step.plan, step.reads_only, step.irreversible, step.estimate) == (
        "main", False, False, False, None,
    )  # fmt: skip


@pytest.mark.parametrize(("given_plan", "expected"), [(None, True), (True, True), (False, False)])
def test_a_reverting_step_is_planned_unless_it_says_otherwise(given_plan: bool | None, expected: bool) -> None:
    assert declare(STOP, {**START, "plan": given_plan})["start"].plan is expected


@pytest.mark.parametrize(
    ("hosts", "batches"),
    [
        ("web", (("web1", "web2"),)),
        ("web2,db", (("web2", "db1", "db2"),)),
        (["db2", "db", "web1"], (("db2", "db1", "web1"),)),
    ],
)
def test_hosts_are_one_batch_in_the_order_of_their_names(hosts: Any, batches: Any) -> None:
    assert declare(make_step("a", hosts))["a"].batches == batches


def test_batches_may_be_hosts_groups_and_lists_of_them() -> None:
    step = declare(make_step("a", None, batches=["web1", ["web2", "db1"], "empty", "db2"]))["a"]
    assert step.batches == (("web1",), ("web2", "db1"), (), ("db2",))
    assert step.hosts == ("web1", "web2", "db1", "db2")


def test_a_reverting_step_without_hosts_takes_the_reversed_batches() -> None:
    declaration = declare(make_step("stop", None, batches=["web1", "web2"]), START)
    assert declaration["start"].batches == (("web2",), ("web1",))
    assert not declaration.is_reverting_all(declaration["start"])
    assert not declaration.is_reverting_all(declaration["stop"])


def test_a_reverting_step_on_other_hosts_reverts_for_all() -> None:
    declaration = declare(STOP, {**START, "hosts": "control"})
    assert declaration.is_reverting_all(declaration["start"])


def test_a_batch_without_hosts_has_no_play_and_titles_count_batches() -> None:
    declaration = declare(make_step("a", None, batches=["web1", "empty", "db1"]), make_step("c"))
    assert [(play.title, play.hosts) for play in declaration.plays] == [
        ("Step a (1 of 3)", ("web1",)),
        ("Step a (3 of 3)", ("db1",)),
        ("Step c", ("web1", "web2")),
    ]
    assert [declaration.find_play(*key) for key in (("a", 0), ("a", 2), ("c", 0))] == [0, 1, 2]
    with pytest.raises(Refusal, match="step a: it has no batch number 2 with hosts"):
        declaration.find_play("a", 1)
    with pytest.raises(Refusal, match=r"step d: it is not in window_steps \(a, c\)"):
        declaration.find_play("d", 0)


def test_a_task_file_is_kept_with_its_whole_path_and_names_its_result() -> None:
    step = declare({"name": "probe", "hosts": "web", "tasks": "probe.yml"}, files=["probe.yml"])["probe"]
    assert (step.tasks, step.role, step.performer, step.result_variable) == (
        "/site/probe.yml", None, "/site/probe.yml", "probe_result",
    )  # fmt: skip
    assert declare(make_step("a", role="lowtide.ops.backup"))["a"].result_variable == "backup_result"


def test_who_needs_and_who_reverts() -> None:
    declaration = declare()
    assert [step.name for step in declaration.list_needing("quiesce")] == ["maintain"]
    reverting = declaration.find_reverting("quiesce")
    assert reverting is not None
    assert reverting.name == "resume"
    assert declaration.find_reverting("save") is None
    assert "save" in declaration
    assert declaration.get("nothing") is None


NESTED = [
    make_step("check"),
    make_step("freeze"),
    make_step("stop", needs="check"),
    make_step("work", needs="stop"),
    make_step("start", None, reverts="stop"),
    make_step("thaw", None, reverts="freeze"),
    make_step("verify"),
]


@pytest.mark.parametrize(
    ("only", "skip", "expected"),
    [
        ([], [], "check freeze stop work start thaw verify"),
        (["work"], [], "check stop work start"),
        (["start"], [], "check stop start"),
        (["verify"], [], "verify"),
        (["freeze", "verify"], [], "freeze thaw verify"),
        ([], ["verify"], "check freeze stop work start thaw"),
        ([], ["stop", "work", "start"], "check freeze thaw verify"),
        (["work"], ["check", "stop", "start", "work"], ""),
    ],
)
def test_select(only: list[str], skip: list[str], expected: str) -> None:
    assert declare(*NESTED).select(only=only, skip=skip) == frozenset(expected.split())


@pytest.mark.parametrize(
    ("only", "skip", "words"),
    [
        (["wrok"], [], r"step wrok: it is not in window_steps \(check, .*\). Did you mean work\? Declare it there"),
        ([], ["wrok"], r"step wrok: it is not in window_steps \(check, .*\). Did you mean work\? Declare it there"),
        (["zzzzz"], [], r"step zzzzz: it is not in window_steps \(check, .*\). Declare it there"),
        ([], ["check"], "window_skip leaves out check, which stop needs. Leave out stop as well"),
        ([], ["start"], "window_skip leaves out start, which reverts stop. Leave out stop as well"),
        ([], ["stop"], "window_skip leaves out stop, which work needs. Leave out work as well"),
        ([], ["stop", "work"], "window_skip leaves out stop, which start reverts. Leave out start as well"),
        (["work"], ["stop"], "window_skip leaves out stop, which work needs"),
    ],
)
def test_select_refuses(only: list[str], skip: list[str], words: str) -> None:
    with pytest.raises(Refusal, match=words):
        declare(*NESTED).select(only=only, skip=skip)


@st.composite
def entries(draw: st.DrawFn) -> list[Entry]:
    """Valid lists of steps: plain, needing, reversible ones, reverted like brackets."""
    result: list[Entry] = []
    open_steps: list[str] = []
    reverted: set[str] = set()
    for number in range(draw(st.integers(1, 8))):
        name = f"s{number}"
        earlier = [str(entry["name"]) for entry in result if entry["name"] not in reverted]
        entry: Entry = make_step(name, None)
        kind = draw(st.sampled_from(["plain", "open", "revert"]))
        if kind == "revert" and open_steps:
            entry["reverts"] = open_steps.pop()
            reverted.add(entry["reverts"])
        else:
            entry["batches"] = draw(st.permutations(["web1", "web2", "db", "empty"]))
            entry["needs"] = draw(st.lists(st.sampled_from(earlier), unique=True)) if earlier else []
            entry["only_after"] = draw(st.lists(st.sampled_from(earlier), unique=True)) if earlier else []
            if kind == "open":
                open_steps.append(name)
        entry["estimate"] = draw(st.none() | st.floats(0, 1e6))
        entry["plan"] = draw(st.none() | st.booleans())
        entry["reads_only"] = draw(st.booleans())
        entry["irreversible"] = draw(st.booleans())
        result.append(entry)
    while open_steps:
        result.append(make_step(f"s{len(result)}", None, reverts=open_steps.pop()))
    return result


@given(entries())
def test_a_journal_gives_the_declaration_back(drawn: list[Entry]) -> None:
    declaration = Declaration.from_entries(drawn, make_inventory())
    stored = json.loads(json.dumps(declaration.as_dicts()))
    assert list(Declaration.from_dicts(stored)) == list(declaration)
    assert list(Declaration.from_dicts([{**values, "later": 1} for values in stored])) == list(declaration)
    assert Declaration.from_dicts(stored).plays == declaration.plays


@given(entries(), st.data())
def test_what_is_selected_stands_on_itself(drawn: list[Entry], data: st.DataObject) -> None:
    declaration = Declaration.from_entries(drawn, make_inventory())
    only = data.draw(st.lists(st.sampled_from([step.name for step in declaration]), unique=True))
    selected = declaration.select(only=only, skip=[])
    assert set(only) <= selected
    for name in selected:
        assert set(declaration[name].needs) <= selected
        reverting = declaration.find_reverting(name)
        assert reverting is None or reverting.name in selected
        assert declaration[name].reverts in {None, *selected}


def test_the_inventory_knows_each_host_once_in_order() -> None:
    inventory = Inventory({"a": ["h2", "h1"], "b": ["h1", "h3"]}, "h2", lambda path: path)
    assert inventory.hosts == ["h2", "h1", "h3"]
    assert inventory.resolve("b", step="s") == ("h1", "h3")
    assert inventory.resolve("h3", step="s") == ("h3",)


def test_the_steps_of_these_tests_are_valid() -> None:
    assert [play.title for play in declare(*STEPS).plays] == [
        "Step save",
        "Step quiesce",
        "Step maintain (1 of 2)",
        "Step maintain (2 of 2)",
        "Step resume",
        "Step verify",
    ]
