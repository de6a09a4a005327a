# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""In which batches the role rolling_upgrade rolls out a release, and what it says of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.errors import AnsibleFilterError
from hypothesis import given, settings
from hypothesis import strategies as st
from jinja2 import Template

from ansible_collections.lowtide.ops.plugins.filter.rolling_upgrade_begin import FilterModule as Begin
from ansible_collections.lowtide.ops.plugins.filter.rolling_upgrade_plan import FilterModule as Plan
from ansible_collections.lowtide.ops.plugins.filter.rolling_upgrade_report import FilterModule as Report
from ansible_collections.lowtide.ops.plugins.plugin_utils._rolling_upgrade import list_batches, read_size
from support.checkout import text

Json = dict[str, Any]
begin = Begin().filters()["rolling_upgrade_begin"]
plan = Plan().filters()["rolling_upgrade_plan"]
report = Report().filters()["rolling_upgrade_report"]

WORKERS: Json = {"kind": "StatefulSet", "name": "worker", "image": "worker:2"}
API: Json = {"kind": "Deployment", "name": "api", "image": "api:2"}
BEGIN: Json = {"run_id": "release", "key": ""}
BEFORE: Json = {"check_mode": False, "evidence": ["StatefulSet shop/worker: 12 of 12 replicas ready"]}


def predict(
    *, replicas: int = 12, partition: int = 0, changes: bool = True, template: bool = True, run_id: str = ""
) -> Json:
    """What k8s_rollout says in check mode."""
    after = {"worker: image": "worker:2"} if template else {"partition": 0}
    return {
        "changed": False,
        "check_mode": True,
        "summary": "would roll out StatefulSet shop/worker: worker: image worker:1 -> worker:2",
        "plan": [{"object": "StatefulSet shop/worker"}] if changes else [],
        "diff": {"before": {}, "after": after if changes else {}},
        "workload": {
            "title": "StatefulSet shop/worker",
            "replicas": replicas,
            "partition": partition,
            "run_id": run_id,
        },
        "revision": {"before": 1, "after": 1},
        "images": {"worker": "worker:1"},
    }


def roll(before: int, after: int, *, changed: bool = True, title: str = "StatefulSet shop/worker", **more: Any) -> Json:
    """What k8s_rollout returned."""
    return {
        "changed": changed,
        "check_mode": False,
        "summary": f"rolled out {title}: partition 11 -> 6",
        "plan": [{"object": title}] if changed else [],
        "evidence": [f"{title}: 12 of 12 replicas ready"],
        "workload": {"title": title, "replicas": 12, "partition": 0, "run_id": "release"},
        "revision": {"before": before, "after": after},
        "images": {"worker": f"worker:{after}"},
        **more,
    }


def list_partitions(steps: list[Json]) -> list[int | None]:
    """The partitions of the steps."""
    return [step["partition"] for step in steps]


def test_a_stateful_set_is_rolled_out_from_its_highest_ordinals() -> None:
    decided = plan([predict()], [WORKERS], [1, "50%", "100%"], BEGIN, False)
    assert list_partitions(decided["steps"]) == [11, 6, 0]
    assert decided["steps"][1]["title"] == "StatefulSet/worker, batch 2 of 3 (6 of 12 pods)"
    assert decided["steps"][1]["image"] == "worker:2"
    assert (decided["due"], decided["changes"], decided["judges_again"]) == (True, True, False)


@pytest.mark.parametrize(
    ("batches", "replicas", "partitions"),
    [
        ([], 12, [0]),
        ([1], 12, [11, 0]),
        (["100%"], 12, [0]),
        ([20], 12, [0]),
        (["50%", 1, "50%"], 4, [3, 2, 0]),
        ([1, "50%", "100%"], 1, [0]),
        ([1, "50%", "100%"], 0, [0]),
    ],
)
def test_sizes_become_partitions(batches: list[Any], replicas: int, partitions: list[int]) -> None:
    """All pods are new after the last batch, whatever it says, and no batch does nothing."""
    assert list_partitions(plan([predict(replicas=replicas)], [WORKERS], batches, BEGIN, False)["steps"]) == partitions


def test_a_canary_that_is_declared_stays_one() -> None:
    assert list_partitions(plan([predict()], [{**WORKERS, "partition": 9}], [1, "50%"], BEGIN, False)["steps"]) == [
        11,
        9,
    ]


def test_a_run_that_was_cut_off_goes_on_with_the_batch_that_it_was_at() -> None:
    """The template is new and the partition that of the second batch, whose gate may not have been judged."""
    cut_off = predict(partition=6, template=False, run_id="release")
    steps = plan([cut_off], [WORKERS], [1, "50%", "100%"], BEGIN, True)["steps"]
    assert [(step["partition"], step["resumes"]) for step in steps] == [(6, True), (0, False)]
    fresh = plan([predict(partition=6)], [WORKERS], [1, "50%", "100%"], BEGIN, True)["steps"]
    assert [(step["partition"], step["resumes"]) for step in fresh] == [(11, False), (6, False), (0, False)]


def test_another_kind_is_rolled_out_by_its_own_strategy() -> None:
    steps = plan([predict()], [API], [1, "50%"], BEGIN, False)["steps"]
    assert (list_partitions(steps), steps[0]["title"]) == ([None], "Deployment/api")


def test_what_is_as_declared_is_looked_at_once() -> None:
    decided = plan([predict(changes=False)], [WORKERS], [1, "50%"], BEGIN, True)
    assert (list_partitions(decided["steps"]), decided["due"]) == ([0], False)


@pytest.mark.parametrize(
    ("run_id", "resumed", "due"), [("release", True, True), ("release", False, False), ("x", True, False)]
)
def test_the_gate_is_judged_again_where_this_run_was_cut_off_before_it(run_id: str, resumed: bool, due: bool) -> None:
    decided = plan([predict(changes=False, run_id=run_id)], [WORKERS], [], BEGIN, resumed)
    assert (decided["judges_again"], decided["due"], decided["changes"]) == (due, due, False)


@pytest.mark.parametrize("size", ["many", "0", 0, -1, "0%", None])
def test_a_size_that_is_none_is_refused(size: Any) -> None:
    with pytest.raises(AnsibleFilterError, match="is no number of pods"):
        plan([predict()], [WORKERS], [size], BEGIN, False)


@settings(deadline=None)
@given(
    replicas=st.integers(0, 50),
    sizes=st.lists(st.one_of(st.integers(1, 60), st.integers(1, 100).map(lambda n: f"{n}%")), max_size=5),
)
def test_batches_only_ever_grow_and_end_with_all_pods(replicas: int, sizes: list[Any]) -> None:
    batches = list_batches(predict(replicas=replicas), WORKERS, sizes, changing=True)
    new = [batch.new for batch in batches]
    assert new == sorted(set(new))
    assert new[-1] == replicas
    assert all(read_size(size, replicas) <= replicas for size in sizes)


@pytest.mark.parametrize(("variables", "name"), [({"window_id": "night@1"}, "night@1/rolling_upgrade"), ({}, "")])
def test_its_run_has_a_name_of_its_own_in_a_window(variables: Json, name: str) -> None:
    """Under the window's alone, a breach would take back what another step of it has rolled out."""
    defaults = yaml.safe_load(text(Path("roles/rolling_upgrade/defaults/main.yml")))
    assert Template(defaults["rolling_upgrade_run_id"]).render(variables) == name


def test_the_migration_has_a_key_of_the_run_and_the_release() -> None:
    """A run that is resumed has the same, and the next release another."""
    first = begin([WORKERS], "window@1", True)
    assert first == begin([dict(WORKERS)], "window@1", True)
    assert first["run_id"] == "window@1"
    others = [begin([{**WORKERS, "image": "worker:3"}], "window@1", True), begin([WORKERS], "window@2", True)]
    assert len({first["key"], *(other["key"] for other in others)}) == 3
    unnamed = begin([WORKERS], "", True)
    assert unnamed["key"] == begin([WORKERS], "", True)["key"]
    assert unnamed["run_id"].startswith("rolling_upgrade@")
    assert begin([WORKERS], "", False) | {"run_id": ""} == {
        "run_id": "",
        "key": "",
        "names": [{"kind": "StatefulSet", "name": "worker"}],
    }


@pytest.mark.parametrize(
    ("workloads", "problem"),
    [
        ([], "it is empty"),
        ([{"kind": "Deployment", "name": "api"}], "it does not say what it is to become"),
        ([WORKERS, {**WORKERS, "image": "worker:3"}], "it is there twice"),
    ],
)
def test_a_declaration_that_says_nothing_is_refused(workloads: list[Json], problem: str) -> None:
    with pytest.raises(AnsibleFilterError, match=problem):
        begin(workloads, "", False)


def test_a_success_is_told_by_workload() -> None:
    gate = {"changed": False, "check_mode": False, "summary": "worker stable", "evidence": ["consumer group worker"]}
    job = {"changed": True, "check_mode": False, "job": "migrate-1", "summary": "Job shop/migrate-1 is complete"}
    skipped = {"changed": False, "skipped": True}
    result = report([gate, job, roll(1, 2), gate, roll(2, 2), skipped, gate], BEGIN, {"judges_again": False}, BEFORE)
    assert result["summary"] == (
        "Job shop/migrate-1 is complete; rolled out StatefulSet shop/worker: revision 1 -> 2 (worker:2) serves with"
        " 12 replicas after 2 batches"
    )
    assert (result["changed"], result["rolled_back"], result["run_id"]) == (True, False, "release")
    assert result["evidence"] == [
        "before: StatefulSet shop/worker: 12 of 12 replicas ready",
        "consumer group worker",
        "StatefulSet shop/worker: 12 of 12 replicas ready",
    ]


def test_check_mode_tells_what_would_be_done() -> None:
    before = {**BEFORE, "check_mode": True}
    result = report([predict()], BEGIN, {"judges_again": False, "changes": True}, before)
    assert (result["changed"], result["check_mode"]) == (True, True)
    assert result["summary"] == "would roll out StatefulSet shop/worker: worker: image worker:1 -> worker:2"
    again = report([predict(changes=False)], BEGIN, {"judges_again": True, "changes": False}, before)
    assert again["changed"] is True
    assert again["plan"][0]["what"] == "judge the gate again: run release rolled it out and did not end"


def test_a_failure_is_told_with_its_cause_and_what_serves() -> None:
    """Of a loop, the item that failed says why."""
    closed = {
        "failed": True,
        "changed": False,
        "msg": "query errors: its value 7 is above max 1.",
        "blockers": [{"object": "q"}],
    }
    failure = {
        "task": "Gate",
        "result": {"results": [{"changed": False, "msg": "fine"}, closed]},
        "undone": {"results": [roll(3, 4, title="Deployment shop/api"), roll(1, 1, changed=False)]},
        "diagnosed": {"results": [{"evidence_path": "/evidence/1"}, {}]},
    }
    result = report([roll(1, 2)], BEGIN, {}, BEFORE, failure)
    assert result["summary"] == (
        "Gate: query errors: its value 7 is above max 1. Put back: Deployment shop/api serves revision 4 (worker:4)."
    )
    assert (result["failed"], result["changed"], result["rolled_back"]) == (True, True, True)
    assert result["blockers"] == [{"object": "q"}]
    assert "evidence of before it was put back: /evidence/1" in result["evidence"]


def test_a_rollout_that_undid_itself_is_told_once() -> None:
    failure = {
        "task": "Roll out",
        "result": {"failed": True, "msg": "its rollout failed; it was undone."},
        "undone": {"results": [roll(1, 1, changed=False)]},
    }
    result = report([], BEGIN, {}, BEFORE, failure)
    assert result["summary"] == (
        "Roll out: its rollout failed; it was undone. Nothing else had to be put back: StatefulSet shop/worker serves"
        " revision 1 (worker:1)."
    )


def test_what_cannot_be_put_back_is_told_with_its_step() -> None:
    refused = {"failed": True, "changed": False, "msg": "pod template of w: it works with schema 41. Migrate first."}
    failure = {
        "task": "Gate",
        "result": {"msg": "closed."},
        "undone": {"results": [refused, roll(3, 4)], "msg": "One failed"},
    }
    result = report([], BEGIN, {}, BEFORE, failure)
    assert result["rolled_back"] is False
    assert result["summary"].endswith(
        "Put back: StatefulSet shop/worker serves revision 4 (worker:4). Not put back: pod template of w: it works with"
        " schema 41. Migrate first."
    )
    stopped = report([], BEGIN, {}, BEFORE, {**failure, "undone": {"changed": False, "skipped": True}})
    assert stopped["summary"].endswith("What had been rolled out stays as it is.")
    assert not stopped["rolled_back"]
    broken = report([], BEGIN, {}, BEFORE, {**failure, "undone": {"failed": True, "msg": "no such option"}})
    assert broken["summary"].endswith("What it had rolled out could not be put back: no such option")
