# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The playbook restore_service: what it reverts, in which order, what it does not depend on, what it marks."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.lowtide.ops.plugins.module_utils._common.errors import Refusal
from ansible_collections.lowtide.ops.plugins.plugin_utils._window.declaration import Declaration, Step
from ansible_collections.lowtide.ops.plugins.plugin_utils._window.events import Event, StepReverted
from ansible_collections.lowtide.ops.plugins.plugin_utils._window.places import Place
from ansible_collections.lowtide.ops.plugins.plugin_utils._window.store import (
    LeaseForgotten,
    LeaseOutdated,
    StoreUnreachable,
)
from ansible_collections.lowtide.ops.plugins.plugin_utils._window.store_file import FileStore

from .builders import (
    Entry,
    declare,
    list_files,
    make_inventory,
    make_step,
    open_window,
    start,
    succeed,
)
from .simulation import Simulation, damage, leave_in_force, make_entries, make_groups


def test_a_restore_runs_the_declared_reverting_steps_on_all_their_hosts(simulation: Simulation) -> None:
    simulation.world["web2"] = {"replicas": 0, "before": 3}  # stopped by a window whose journal is lost
    assert simulation.restore() == "succeeded"
    assert simulation.performed == [("resume", "web1"), ("resume", "web2")]
    assert simulation.world["web2"] == {"replicas": 3}
    assert [play["step"] for play in simulation.opened["plays"]] == ["resume"]
    assert simulation.opened["planning"] == {}
    assert simulation.restore() == "no_changes"


def leave_no_journal(monkeypatch: pytest.MonkeyPatch, simulation: Simulation, *, but: str = "") -> None:
    """Let the site's store take no events, but those for one journal."""
    append, site = FileStore.append, simulation.store.directory

    def refuse(store: FileStore, name: str, event: Event) -> Event:
        if store.directory == site and name != but:
            raise StoreUnreachable("no room")
        return append(store, name, event)

    monkeypatch.setattr(FileStore, "append", refuse)


@pytest.mark.parametrize("is_old_refused", [True, False], ids=["a locked table", "a quota of objects"])
def test_a_restore_needs_no_journal_that_can_be_written(
    simulation: Simulation, monkeypatch: pytest.MonkeyPatch, is_old_refused: bool
) -> None:
    """The lease is held, objects tell what is in force, and the journals that can still be written are told."""
    leave_in_force(simulation, "web1", "web2")
    leave_no_journal(monkeypatch, simulation, but="" if is_old_refused else simulation.engine.window.journal)
    cause = simulation.run(start="tuesday")
    assert cause.endswith("Make room there, or bring its server back, then run the window again."), cause
    assert simulation.restore() == "failed_reverted"
    assert simulation.performed == [("resume", "web1"), ("resume", "web2")]
    assert simulation.world["web1"] == simulation.world["web2"] == {"replicas": 3}
    words = "quiesce is reverted, and the journal of weekly@monday cannot be told"
    assert (words in simulation.closed["msg"]) == bool(simulation.list_left()) == is_old_refused
    assert "how the window ended is not in its journal" in simulation.closed["warnings"]


def test_a_restore_whose_journal_cannot_be_written_and_that_fails_has_not_reverted(
    simulation: Simulation, monkeypatch: pytest.MonkeyPatch
) -> None:
    leave_in_force(simulation, "web1", "web2")
    leave_no_journal(monkeypatch, simulation)
    simulation.failing = {("resume", "web2")}
    assert simulation.restore() == "failed_not_reverted"
    assert simulation.world["web2"]["replicas"] == 0


def test_a_restore_that_could_only_not_be_told_says_what_was_not_reached(
    simulation: Simulation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No journal knows of what is in force: only the plays tell whether all was looked at."""
    simulation.store.create()
    leave_no_journal(monkeypatch, simulation)
    open_restore(simulation, steps=make_entries())
    assert simulation.close()["state"] == "failed_not_reverted"
    simulation.end_controller()
    assert simulation.restore() == "failed_reverted"
    assert simulation.performed == [("resume", "web1"), ("resume", "web2")]


def test_a_step_that_is_called_journal_and_cannot_be_loaded_is_not_reverted(simulation: Simulation) -> None:
    def preload(step: Step) -> None:
        raise Refusal(obj=f"step {step.name}", problem="it has no role", next_step="Mend it")

    simulation.preload = preload
    entries = make_entries(verify={"only_after": ["save"]})
    steps = [{**step, "name": "journal"} if step["name"] == "resume" else step for step in entries]
    assert simulation.restore(steps=steps) == "failed_not_reverted"
    assert "step journal on web1" in simulation.closed["msg"]


@pytest.mark.parametrize("answer", [LeaseForgotten, LeaseOutdated])
def test_a_restore_whose_lease_the_store_has_lost_begins_nothing(
    simulation: Simulation, monkeypatch: pytest.MonkeyPatch, answer: type[StoreUnreachable]
) -> None:
    """A failover right after it was taken: another run may have taken it since, and stop what this one starts."""
    leave_in_force(simulation, "web1")

    def check(_store: FileStore, _token: int) -> None:
        raise answer("it has lost what was written last")

    monkeypatch.setattr(FileStore, "check", check)
    monkeypatch.setattr(FileStore, "is_expired", lambda _store: True)
    cause = simulation.restore()
    assert cause.startswith("refused: "), cause
    assert "Make sure that no other run is at work on the site, then run the window again" in cause
    assert simulation.performed == []


def test_a_restore_joins_the_declaration_with_the_journals_of_all_windows(simulation: Simulation) -> None:
    leave_in_force(simulation, "web1", "web2", name="other")
    leave_in_force(simulation, "web1", start="sunday")
    # Declared now: only web1, by the same role. What the journals know of web2 comes to it.
    steps = make_entries(quiesce={"hosts": "web1"})
    assert simulation.restore(steps=steps) == "succeeded"
    assert [(play["step"], play["hosts"]) for play in simulation.opened["plays"]] == [
        ("resume", ["web1"]),
        ("resume", ["web2"]),
    ]
    assert simulation.list_left() == {}
    by = simulation.opened["window_id"]
    for window_id, hosts in (("other@monday", ["web1", "web2"]), ("weekly@sunday", ["web1", "web2"])):
        marks = [event for event in simulation.read_events(window_id) if isinstance(event, StepReverted)]
        assert {mark.by for mark in marks} == {by}
        assert {mark.host for mark in marks} <= set(hosts)


def test_a_restore_marks_exactly_what_it_reverted(simulation: Simulation) -> None:
    leave_in_force(simulation, "web1", "web2")
    simulation.failing = {("resume", "web2")}
    assert simulation.restore() == "failed_not_reverted"
    left = simulation.list_left()
    assert left["weekly@monday"] == [("quiesce", "web2")]
    assert left.keys() == {"weekly@monday"}, "what the restore was to revert stands in the journal of who left it"
    simulation.failing = set()
    assert simulation.restore() == "succeeded"
    assert simulation.list_left() == {}
    assert simulation.run(start="monday") == "succeeded"
    assert simulation.opened["not_reverted"] == []


def test_one_failure_of_a_restore_does_not_hold_back_the_others(simulation: Simulation) -> None:
    leave_in_force(simulation, "web1", "web2")
    simulation.failing = {("resume", "web1")}
    assert simulation.restore(steps=make_entries(quiesce={"hosts": None, "batches": ["web2", "web1"]})) == (
        "failed_not_reverted"
    )
    assert simulation.performed == [("resume", "web1"), ("resume", "web2")]
    assert simulation.world["web2"] == {"replicas": 3}


@pytest.mark.parametrize("steps", [[], [{"name": "broken", "hosts": "nowhere"}], [make_step("save", "db")]])
def test_a_restore_needs_no_valid_declaration(simulation: Simulation, steps: list[Entry]) -> None:
    leave_in_force(simulation, "web1")
    is_broken = bool(steps) and steps[0]["name"] == "broken"
    assert simulation.restore(steps=steps) == ("failed_not_reverted" if is_broken else "succeeded")
    assert simulation.performed == [("resume", "web1")]
    assert simulation.list_left() == {}
    assert ("What can be read of it, and of journals, is reverted" in simulation.closed["msg"]) == is_broken


def test_a_restore_reads_of_a_broken_declaration_what_can_be_read(simulation: Simulation) -> None:
    """A typo in another step must not hide what is in force, and must not end as if nothing were."""
    simulation.world["web1"] = {"replicas": 0, "before": 3}
    assert simulation.restore(steps=make_entries(verify={"hosts": "wbe"})) == "failed_not_reverted"
    assert simulation.world["web1"] == {"replicas": 3}
    assert "step verify names wbe" in simulation.closed["msg"]


def write_journal(store: FileStore, window_id: str, declaration: Declaration, *events: Event) -> None:
    """Write the journal of a window that was killed."""
    with store.lock():
        name = store.make_name(window_id)
        opened = open_window(
            declaration, window=window_id.split("@", maxsplit=1)[0], window_id=window_id, start=window_id
        )
        for event in (opened, *events):
            store.append(name, replace(event, token=1))


BRACKETS = [
    make_step("freeze", "web"),
    make_step("stop", "web"),
    make_step("start", None, reverts="stop"),
    make_step("thaw", None, reverts="freeze"),
]


def open_restore(simulation: Simulation, **changes: Any) -> dict[str, Any]:
    """Open a restore and return what the opening says."""
    return simulation.open(**{"name": "restore_service", "mode": "restore", "places": 0, "steps": [], **changes})


def test_a_restore_reverts_in_the_order_in_which_the_window_would_have(simulation: Simulation) -> None:
    simulation.store.create()
    write_journal(
        simulation.store,
        "nightly@1",
        declare(*BRACKETS),
        *(start("freeze", host, reverted_by="thaw") for host in ("web1", "web2")),
        *(start("stop", host, reverted_by="start") for host in ("web1", "web2")),
    )
    opened = open_restore(simulation)
    assert [(play["step"], play["hosts"]) for play in opened["plays"]] == [
        ("start", ["web1", "web2"]),
        ("thaw", ["web1", "web2"]),
    ], "one play a step, however many hosts journals name one by one"


def test_steps_of_one_name_and_different_roles_are_both_run(simulation: Simulation) -> None:
    simulation.store.create()
    other = declare(make_step("stop"), make_step("resume", None, role="other.resume", reverts="stop"))
    write_journal(simulation.store, "other@1", other, start("stop", "web1", reverted_by="resume"))
    opened = open_restore(simulation, steps=make_entries())
    assert [(play["step"], play["hosts"]) for play in opened["plays"]] == [
        ("resume", ["web1", "web2"]),
        ("resume of other@1", ["web1"]),
    ]


def test_a_host_that_left_the_inventory_is_a_failure_and_the_others_are_restored(simulation: Simulation) -> None:
    leave_in_force(simulation, "web1", "web2")
    smaller = make_inventory(make_groups(web=["web2"]))
    assert simulation.restore(inventory=smaller) == "failed_not_reverted"
    assert simulation.performed == [("resume", "web2")]
    assert (
        "resume on web1: window weekly@monday left it in force there, and this inventory has no such host"
        in (simulation.closed["msg"])
    )
    assert simulation.list_left()["weekly@monday"] == [("quiesce", "web1")]


def test_a_role_that_does_not_load_does_not_hold_back_the_others(simulation: Simulation) -> None:
    def load(step: Step) -> None:
        if step.name == "thaw":
            raise Refusal(obj="role demo.thaw", problem="it cannot be loaded", next_step="Install it")

    simulation.preload = load
    simulation.store.create()
    write_journal(
        simulation.store,
        "nightly@1",
        declare(*BRACKETS),
        start("freeze", "web1", reverted_by="thaw"),
        start("stop", "web1", reverted_by="start"),
    )
    opened = open_restore(simulation)
    assert [play["step"] for play in opened["plays"]] == ["start"]
    assert [failure.key for failure in simulation.read_state().failures] == [("thaw", "web1")]


def test_a_step_that_no_journal_declares_is_a_failure(simulation: Simulation) -> None:
    simulation.store.create()
    write_journal(simulation.store, "nightly@1", declare(make_step("stop")), start("stop", "web1", reverted_by="gone"))
    open_restore(simulation)
    (failure,) = simulation.read_state().failures
    assert (failure.key, failure.error) == (("gone", "web1"), "the journal of nightly@1 does not declare it")


def test_a_step_that_reverts_for_all_is_restored_on_its_own_hosts(simulation: Simulation) -> None:
    simulation.store.create()
    declaration = declare(make_step("stop"), make_step("start", "ctl", reverts="stop"))
    stopped = [start("stop", host, reverted_by="start") for host in ("web1", "web2")]
    write_journal(simulation.store, "nightly@1", declaration, *stopped, succeed("stop", "web1"))
    opened = open_restore(simulation)
    assert [(play["step"], play["hosts"]) for play in opened["plays"]] == [("start", ["ctl"])]
    assert opened["not_reverted"] == ["stop on web1", "stop on web2"]
    simulation.world["ctl"] = {}
    simulation.act = lambda *_args, **_keys: {"changed": True, "summary": "started"}  # type: ignore[method-assign]
    simulation.perform()
    assert simulation.close()["state"] == "succeeded"
    assert simulation.list_left() == {}


def test_a_restore_in_check_mode_writes_nothing(simulation: Simulation) -> None:
    leave_in_force(simulation, "web1")
    before = list_files(simulation.place / "windows")
    simulation.check_mode = True
    assert simulation.restore() == "succeeded"
    assert list_files(simulation.place / "windows") == before
    assert simulation.world["web1"] == {"replicas": 0, "before": 3}


def test_a_restore_goes_on_past_damaged_journals(simulation: Simulation) -> None:
    leave_in_force(simulation, "web1")
    damage(simulation, "weekly@monday")
    (simulation.store.directory / "lease").unlink()
    assert simulation.restore() == "failed_not_reverted", "what else it left in force is not known"
    assert simulation.world["web1"] == {"replicas": 3}
    assert "line 1 is damaged" in simulation.closed["msg"]


def test_a_restore_goes_on_when_its_journal_cannot_be_written_any_more(
    simulation: Simulation, small_disk: Path
) -> None:
    simulation.directory = small_disk / "windows"
    leave_in_force(simulation, "web1", "web2")
    open_restore(simulation)
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    simulation.perform()
    assert simulation.performed == [("resume", "web1"), ("resume", "web2")]
    assert [simulation.world[web] for web in ("web1", "web2")] == [{"replicas": 3}, {"replicas": 3}]
    assert simulation.close()["state"] == "failed_reverted"
    assert "quiesce is reverted, and the journal of weekly@monday cannot be told" in simulation.closed["msg"]
    simulation.end_controller()
    subprocess.run(["mount", "-o", "remount,rw", small_disk], check=True)
    assert simulation.restore() == "no_changes"
    assert simulation.list_left() == {}


def test_a_journal_that_was_damaged_meanwhile_does_not_hold_back_a_restore(simulation: Simulation) -> None:
    leave_in_force(simulation, "web1", "web2")
    simulation.open(**{"name": "restore_service", "mode": "restore", "places": 0})
    damage(simulation, "weekly@monday")
    simulation.perform()
    assert simulation.performed == [("resume", "web1"), ("resume", "web2")]
    assert simulation.close()["state"] == "failed_reverted"
    assert "cannot be told (journal " in simulation.closed["msg"]


# -- the store is away ----------------------------------------------------------------------------------------------


def test_a_restore_in_a_container_goes_by_what_is_on_the_objects(
    simulation: Simulation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the site's store, whose server is away: its directory ends with the container."""
    monkeypatch.setenv("AWX_ISOLATED_DATA_DIR", str(simulation.place))
    simulation.world["web1"] = {"replicas": 0, "before": 3}
    assert simulation.run().startswith("refused: window_dir")
    assert simulation.restore() == "succeeded"
    assert simulation.world["web1"] == {"replicas": 3}
    (warning,) = simulation.opened["warnings"]
    assert "which is made for one job; what journals elsewhere tell is not known to this run" in warning


@pytest.mark.parametrize("mode", ["window", "restore"])
def test_a_store_that_is_away_is_told_with_the_way_back_that_needs_none(
    simulation: Simulation, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    def fail(_store: FileStore) -> None:
        raise StoreUnreachable("no answer")

    monkeypatch.setattr(FileStore, "create", fail)
    monkeypatch.setattr(Place, "connect", lambda _place, _folder: FileStore(simulation.place / "store"))
    place = Place("site", "/nowhere", {"postgresql": {}})
    cause = simulation.restore(place=place) if mode == "restore" else simulation.run(place=place)
    assert "it cannot be written (no answer). Bring its server back. What is in force can be reverted" in cause
    assert """run restore_service with -e '{"window_store": {}}'""" in cause
    assert "window_dir" not in cause
