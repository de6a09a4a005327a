# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A journal grows for years: a run looks through all of it once, when it opens, and its steps read only what concerns them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.lowtide.ops.plugins.module_utils._common.errors import Refusal
from ansible_collections.lowtide.ops.plugins.module_utils._window.journal import Journal
from ansible_collections.lowtide.ops.plugins.module_utils._window.model import Occurrence, obsolete, read
from ansible_collections.lowtide.ops.plugins.module_utils._window.run import Run

from .simulation import END, Simulation

IDS = ["weekly@1", "weekly@2"]
RECORDS = st.lists(
    st.fixed_dictionaries(
        {
            "kind": st.sampled_from(["open", "begin", "end", "close", "close", "settle", "plan", "failure"]),
            "id": st.sampled_from(IDS),
            "step": st.sampled_from(["quiesce", "resume", "maintain"]),
            "host": st.sampled_from(["a", "b"]),
            "ok": st.booleans(),
            "state": st.sampled_from(["done", "failed_open"]),
            "closes_all": st.booleans(),
        }
    ),
    max_size=25,
)


def journaled(drawn: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The drawn records as a window could have written them: an occurrence is opened first, and again after its end."""
    brackets = {"quiesce": {"closer": "resume"}, "resume": {"closes": "quiesce"}}
    records: list[dict[str, Any]] = []
    opened: set[str] = set()
    for record in drawn:
        if record["kind"] == "open":
            opened.add(record["id"])
        elif record["id"] not in opened:
            continue
        elif record["kind"] == "close":
            opened.remove(record["id"])
        number = len(records) + 1
        records.append({**record, **brackets.get(record["step"], {}), "at": float(number), "n": number, "run": number})
    return records


@settings(max_examples=500, deadline=None)
@given(RECORDS, RECORDS)
def test_what_is_left_out_changes_nothing(history: list[dict[str, Any]], later: list[dict[str, Any]]) -> None:
    before, now = ({"kind": "open", "step": "", "host": "", "id": identity} for identity in IDS)
    until_now = journaled([before, *history])
    records = journaled([before, *history, now, *later])
    kept = records[obsolete(until_now, identity=IDS[1]) :]
    whole, part = (read(some, identity=IDS[1], run=99) for some in (records, kept))
    assert part == whole


def since(simulation: Simulation) -> int:
    """How many records the steps of the newest run left out."""
    run = Run.load(str(simulation.place / f"run{simulation.runs}"))
    assert run is not None
    return run.since[0]


def test_steps_read_nothing_of_what_is_over(simulation: Simulation) -> None:
    assert simulation.run(start="monday") == "done"
    over = len(simulation.journal.read().records)
    assert simulation.run(start="tuesday") == "nothing_to_do"
    assert since(simulation) == over
    assert simulation.run(start="tuesday") == "nothing_to_do"
    assert since(simulation) > over


def test_steps_read_back_to_what_is_still_open(simulation: Simulation) -> None:
    assert simulation.run(start="sunday") == "done"
    over = len(simulation.journal.read().records)
    simulation.world = {host: dict(values) for host, values in END.items()}
    simulation.world["db1"]["dead"] = 9
    simulation.fail = {("resume", "web1")}
    assert simulation.run(start="monday") == "failed_open"
    simulation.fail = set()
    assert simulation.run(start="tuesday") == "done"
    begun = next(
        number
        for number, record in enumerate(simulation.journal.read().records)
        if number >= over and record["kind"] == "begin"
    )
    kept_from = simulation.journal.read().records[since(simulation)]
    assert since(simulation) >= begun
    assert (kept_from["kind"], kept_from["step"], kept_from["host"]) == ("begin", "quiesce", "web1")
    assert simulation.world["web1"] == {"replicas": 3}


def test_a_journal_that_became_shorter_is_refused(simulation: Simulation) -> None:
    assert simulation.run() == "done"
    place = simulation.journal.read().end
    simulation.journal.path.write_bytes(b"")
    with pytest.raises(Refusal, match=rf"it is cut off \(0 bytes, and it had {place.size} when the window opened\)"):
        Journal(simulation.journal.path, after=place).append("end")
    assert simulation.journal.path.read_bytes() == b""


def test_an_occurrence_begins_empty() -> None:
    assert obsolete([], identity=IDS[0]) == 0
    assert read([], identity=IDS[0], run=1) == Occurrence(IDS[0], 1)
