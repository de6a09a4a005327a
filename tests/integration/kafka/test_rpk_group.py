# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""rpk_group on a real broker: every declaration, by both clients, checked, made, checked again and repeated; and refusals.

rpk itself is in no package registry: a FAKE of it (``support.fake_rpk``) stands in for the command, the broker is real.
"""

from __future__ import annotations

import json
import os
import stat
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from support import fake_rpk
from support.kafka_consumer import CLIENT_ID, consumer
from support.modules import ModuleRun, run_module

from .conftest import FIRST, Bus

pytestmark = [pytest.mark.lab("kafka"), pytest.mark.procedure("A15")]
SetOffsets = Callable[..., ModuleRun]

FORMS: dict[str, tuple[list[dict[str, Any]], dict[int, int], tuple[int, int]]] = {
    # what is declared (TOPIC stands for the test's topic), offsets after, (skipped, repeated); all were at 4 of [0, 10)
    "start": ([{"to": "start"}], {0: 0, 1: 0, 2: 0}, (0, 12)),
    "end": ([{"to": "end"}], {0: 10, 1: 10, 2: 10}, (18, 0)),
    "time": ([{"to": "2026-01-01T00:06:00Z"}], {0: 6, 1: 6, 2: 6}, (6, 0)),
    "milliseconds": ([{"to": str(FIRST + 60_000)}], {0: 1, 1: 1, 2: 1}, (0, 9)),
    "offset": ([{"topic": "TOPIC", "partitions": [1], "offset": 7}], {0: 4, 1: 7, 2: 4}, (3, 0)),
    "beyond the end": ([{"topic": "TOPIC", "partitions": [1], "offset": 5000}], {0: 4, 1: 10, 2: 4}, (6, 0)),
    "shift": ([{"topic": "TOPIC", "shift": -3}], {0: 1, 1: 1, 2: 1}, (0, 9)),
    "shift before the start": ([{"shift": -50}], {0: 0, 1: 0, 2: 0}, (0, 12)),
    "general and special": (
        [{"to": "end"}, {"topic": "TOPIC", "partitions": [0], "to": "start"}],
        {0: 0, 1: 10, 2: 10},
        (12, 4),
    ),
}


def options_of(client: str, rpk: str) -> dict[str, Any]:
    """Module options and environment of a client."""
    name, _blank, version = client.partition(" ")
    return {"client": name, "rpk_command": rpk, "env": {"FAKE_RPK_VERSION": version} if version else {}}


def for_topic(declared: list[dict[str, Any]], topic: str) -> list[dict[str, Any]]:
    """The declaration with the test's topic in it."""
    return [{key: topic if value == "TOPIC" else value for key, value in row.items()} for row in declared]


@pytest.mark.parametrize(
    ("client", "form"),
    [*(("kafka", form) for form in FORMS), ("rpk 23.3", "general and special"), ("rpk 24.3", "time")],
)
def test_check_real_check_real(bus: Bus, set_offsets: SetOffsets, rpk: str, client: str, form: str) -> None:
    """What check mode says is what the run does; the second run does nothing; the undo holds the offsets before."""
    rows, after, (skipped, repeated) = FORMS[form]
    declared = for_topic(rows, bus.topic)
    options = options_of(client, rpk)
    predicted = set_offsets(declared, check=True, **options)
    assert predicted.changed, predicted.msg
    assert bus.offsets() == {0: 4, 1: 4, 2: 4}
    assert not bus.undo.exists()
    made = set_offsets(declared, **options)
    assert made.changed, made.msg
    assert bus.offsets() == after
    for key in ("diff", "plan", "partitions", "skipped", "repeated"):
        assert made[key] == predicted[key]
    assert (made["skipped"], made["repeated"]) == (skipped, repeated)
    record = json.loads(bus.undo.read_text())
    assert {row["partition"]: row["before"] for row in record["offsets"]} == {
        number: 4 for number, to in after.items() if to != 4
    }
    assert not set_offsets(declared, check=True, **options).changed
    again = set_offsets(declared, **options)
    assert not again.changed
    assert (again["plan"], bus.offsets()) == ([], after)


@pytest.mark.parametrize("client", ["kafka", "rpk 23.3"])
def test_another_groups_offsets_and_back(
    bus: Bus, set_offsets: SetOffsets, rpk: str, unique_name: Callable[..., str], client: str
) -> None:
    """Its partitions only; and the undo file, given back, restores the offsets before."""
    other, options = unique_name("other"), options_of(client, rpk)
    bus.set({0: 8, 2: 1}, group=other)
    try:
        assert set_offsets([{"from_group": other}], **options).changed
        assert bus.offsets() == {0: 8, 1: 4, 2: 1}
        back = {"restore_file": str(bus.undo), "undo_file": str(bus.undo) + ".redo", **options}
        assert set_offsets(None, check=True, **back).changed
        assert set_offsets(None, **back).changed
        assert bus.offsets() == {0: 4, 1: 4, 2: 4}
        assert not set_offsets(None, **back).changed
    finally:
        bus.remove([], [other])


def test_undo_file_is_private_and_says_whose_it_is(bus: Bus, set_offsets: SetOffsets) -> None:
    """Mode 0600, group and cluster in it."""
    assert set_offsets([{"to": "start"}]).changed
    record = json.loads(bus.undo.read_text())
    assert stat.S_IMODE(bus.undo.stat().st_mode) == 0o600
    assert (record["group"], record["cluster_id"]) == (bus.group, bus.cluster_id)


@pytest.mark.parametrize(
    ("client", "check"), [("kafka", True), ("kafka", False), ("rpk 23.3", False), ("rpk 24.3", False)]
)
def test_live_members_are_refused_by_name(
    bus: Bus, set_offsets: SetOffsets, rpk: str, client: str, check: bool
) -> None:
    """Real consumers; nothing moves; the members are blockers. rpk itself would exit 0."""
    with consumer(bus.brokers, bus.group, bus.topic):
        refused = set_offsets([{"to": "end"}], check=check, **options_of(client, rpk))
        assert refused.failed
        assert f"client {CLIENT_ID} at 10.77.0.1" in refused.msg
        assert CLIENT_ID in refused["blockers"][0]["holder"]
        assert refused["error"]["refused"]
        assert not refused.changed
        assert not set_offsets([{"topic": bus.topic, "offset": 4}], check=check, **options_of(client, rpk)).failed
        assert bus.offsets() == {0: 4, 1: 4, 2: 4}
    assert not bus.undo.exists()


def test_new_consumer_protocol(bus: Bus, set_offsets: SetOffsets, rpk: str, unique_name: Callable[..., str]) -> None:
    """A live group of KIP-848 is refused by name, an empty one is set; rpk cannot tell and says so, both times."""
    group = unique_name("new-style")
    try:
        with consumer(bus.brokers, group, bus.topic, protocol="consumer", consume=True):
            assert CLIENT_ID in set_offsets([{"topic": bus.topic, "to": "start"}], name=group).msg
            blind = set_offsets(
                [{"topic": bus.topic, "to": "start"}], name=group, create=True, **options_of("rpk 24.3", rpk)
            )
            assert "KIP-848" in blind.msg
            assert "client: kafka" in blind.msg
        assert (
            "KIP-848"
            in set_offsets(
                [{"topic": bus.topic, "to": "start"}], name=group, create=True, **options_of("rpk 23.3", rpk)
            ).msg
        )
        assert set_offsets([{"topic": bus.topic, "offset": 3}], name=group).changed
        assert bus.offsets(group) == {0: 3, 1: 3, 2: 3}
    finally:
        bus.remove([], [group])


@pytest.mark.parametrize("client", ["kafka", "rpk 24.3"])
def test_missing_group_is_refused_unless_it_may_be_created(
    bus: Bus, set_offsets: SetOffsets, rpk: str, unique_name: Callable[..., str], client: str
) -> None:
    """A wrong name must not make a group."""
    name, options = unique_name("made"), options_of(client, rpk)
    declared = [{"topic": bus.topic, "to": "end"}]
    refused = set_offsets(declared, name=name, **options)
    assert f"group {name}" in refused.msg
    assert "there is no such group" in refused.msg
    assert refused["state"] == "missing"
    try:
        assert set_offsets(declared, name=name, create=True, check=True, **options)["skipped"] == 30
        assert bus.offsets(name) == {}
        assert set_offsets(declared, name=name, create=True, **options).changed
        assert bus.offsets(name) == {0: 10, 1: 10, 2: 10}
        assert not set_offsets(declared, name=name, **options).changed
    finally:
        bus.remove([], [name])


REFUSED: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "missing topic": (
        {"offsets": [{"topic": "no.such.topic", "to": "end"}]},
        ("topic no.such.topic", "does not exist", "create the topic"),
    ),
    "missing partition": (
        {"offsets": [{"topic": "TOPIC", "partitions": [3], "to": "end"}]},
        ("partitions 0 to 2", "names 3"),
    ),
    "other cluster": ({"cluster_id": "other"}, ("cluster_id says other", "CLUSTER", "set cluster_id to")),
    "cap": ({"max_skipped": 17}, ("skips 18 records", "max_skipped allows 17", "Set max_skipped to 18")),
    "no folder": (
        {"undo_file": "/no/such/folder/undo.json"},
        ("undo_file /no/such/folder/undo.json", "there is no folder"),
    ),
    "word": ({"offsets": [{"to": "latest"}]}, ("to: latest", "name for it is end")),
    "no restore file": (
        {"offsets": None, "restore_file": "/no/such/undo.json"},
        ("/no/such/undo.json", "no such file"),
    ),
    "no name": ({"name": " "}, ("option name", "empty")),
    "nothing declared": ({"offsets": []}, ("option offsets", "empty")),
    "no group to copy": (
        {"offsets": [{"from_group": "no-such-group"}]},
        ("group no-such-group", "there is no such group"),
    ),
}


@pytest.mark.parametrize(
    ("client", "case"),
    [*(("kafka", case) for case in REFUSED), ("rpk 24.3", "missing topic"), ("rpk 24.3", "other cluster")],
)
def test_refused(bus: Bus, set_offsets: SetOffsets, rpk: str, client: str, case: str) -> None:
    """Object, value and next step; nothing moves, and no undo is left; check mode refuses the same."""
    changes, words = REFUSED[case]
    options = {"offsets": [{"to": "end"}], **changes, **options_of(client, rpk)}
    declared = options.pop("offsets")
    refused = set_offsets(declared and for_topic(declared, bus.topic), **options)
    assert refused.failed
    assert refused["error"]["refused"]
    for word in words:
        assert word.replace("CLUSTER", bus.cluster_id) in refused.msg
    assert set_offsets(declared and for_topic(declared, bus.topic), check=True, **options).msg == refused.msg
    assert bus.offsets() == {0: 4, 1: 4, 2: 4}
    assert not bus.undo.exists()


def test_broker_down_is_named(set_offsets: SetOffsets) -> None:
    """Both brokers of the list refuse, and a host that is not there."""
    down = set_offsets([{"to": "end"}], brokers=["10.77.0.1:9", "10.77.0.1:8"])
    assert "event bus 10.77.0.1:9,10.77.0.1:8: no broker answers" in down.msg
    assert "Connection refused" in down.msg
    away = set_offsets([{"to": "end"}], brokers=["10.77.0.250:9092"], request_timeout=1.0)
    assert "10.77.0.250:9092" in away.msg
    assert down.failed
    assert away.failed


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"brokers": []}, "option brokers"),
        ({"request_timeout": 0}, "option request_timeout"),
        ({"security_protocol": "SSL", "ssl_cafile": "/no/such/ca.pem"}, "connection options cannot be used"),
        ({"client": "rpk", "rpk_command": "/no/such/rpk"}, "command /no/such/rpk: it is not on this host"),
    ],
)
def test_unusable_connection(set_offsets: SetOffsets, options: dict[str, Any], words: str) -> None:
    """Said before anything is asked."""
    assert words in set_offsets([{"to": "end"}], **options).msg


def test_undo_of_another_change_is_never_overwritten(bus: Bus, set_offsets: SetOffsets) -> None:
    """Of another declaration; and of the same one, from which the group has moved on."""
    assert set_offsets([{"to": "start"}]).changed
    kept = bus.undo.read_text()
    assert "another declaration" in set_offsets([{"to": "end"}]).msg
    bus.set({0: 3})
    assert "has since moved" in set_offsets([{"to": "start"}]).msg
    assert bus.undo.read_text() == kept
    assert bus.offsets() == {0: 3, 1: 0, 2: 0}


@pytest.mark.parametrize("command", ["group seek", "group describe"])
def test_rpk_that_prints_nothing_is_not_believed(bus: Bus, set_offsets: SetOffsets, rpk: str, command: str) -> None:
    """Neither a success nor a failure: what it did is read back, and what it says is not taken for empty."""
    options = options_of("rpk 24.3", rpk)
    made = set_offsets([{"to": "end"}], **{**options, "env": {"FAKE_RPK_MUTE": command}})
    if command == "group seek":
        assert made.changed, made.msg
        assert bus.offsets() == {0: 10, 1: 10, 2: 10}
    else:
        assert "did not print a description of each group, but: nothing" in made.msg
        assert bus.offsets() == {0: 4, 1: 4, 2: 4}


@pytest.mark.parametrize(
    ("error", "words"),
    [
        ("COORDINATOR_LOAD_IN_PROGRESS: The coordinator is loading.", "Run again when the brokers are ready"),
        ("UNKNOWN_SERVER_ERROR: The server experienced an unexpected error.", "See the broker's log"),
    ],
)
def test_a_group_whose_offsets_rpk_cannot_fetch_is_not_one_without_any(
    bus: Bus, set_offsets: SetOffsets, rpk: str, error: str, words: str
) -> None:
    """It prints a lag of 0 then, and no row: no undo is made of that, and no drain is proved by it."""
    environment = {"FAKE_RPK_GROUP_ERROR": error}
    declared = [{"topic": bus.topic, "to": "start"}]
    refused = set_offsets(declared, client="rpk", rpk_command=rpk, env=environment)
    assert error in refused.msg
    assert words in refused.msg
    assert not bus.undo.exists()
    assert bus.offsets() == {0: 4, 1: 4, 2: 4}
    wait = {"states": ["empty"], "lag_known": True, "timeout": 1.0}
    options = {"brokers": [bus.brokers], "names": [bus.group], "client": "rpk", "rpk_command": rpk, "wait_for": wait}
    drain = run_module("rpk_group_info", options, env=environment)
    assert drain.failed
    assert error in drain.msg


def test_rpk_output_cut_short_is_refused(bus: Bus, set_offsets: SetOffsets, rpk: str) -> None:
    """A stream from a pod may end early; half a table must not become a plan."""
    for cut in (120, 260):
        refused = set_offsets([{"to": "end"}], client="rpk", rpk_command=rpk, env={"FAKE_RPK_CUT": str(cut)})
        assert refused.failed
        assert bus.offsets() == {0: 4, 1: 4, 2: 4}


def test_rpk_in_a_pod(bus: Bus, set_offsets: SetOffsets, rpk: str, tmp_path: Path) -> None:
    """By kubectl exec (a FAKE here), without a terminal; offsets go in by standard input."""
    import support.fake_kubectl

    log = tmp_path / "kubectl.log"
    kubectl = fake_rpk.write_launcher(tmp_path / "kubectl", Path(support.fake_kubectl.__file__))
    pod = {"namespace": "feature-system", "name": "redpanda-0", "container": "redpanda", "kubectl": kubectl}
    made = set_offsets([{"to": "end"}], client="rpk", rpk_command=rpk, rpk_pod=pod, env={"FAKE_KUBECTL_LOG": str(log)})
    assert made.changed, made.msg
    assert bus.offsets() == {0: 10, 1: 10, 2: 10}
    commands = [json.loads(line) for line in log.read_text().splitlines()]
    assert all(command[:4] == ["exec", "--stdin", "--quiet", "--namespace"] for command in commands)
    assert not any({"-t", "--tty", "sh", "bash"} & set(command) for command in commands)


def test_secrets_are_on_no_command_line_and_in_no_result(
    bus: Bus, set_offsets: SetOffsets, rpk: str, tmp_path: Path
) -> None:
    """The password reaches rpk by its environment only."""
    log = tmp_path / "rpk.log"
    secret = "c4nary-p4ssword"  # noqa: S105 (a canary, looked for below)
    made = set_offsets(
        [{"to": "end"}],
        client="rpk",
        rpk_command=rpk,
        sasl_username="u",
        sasl_password=secret,
        env={"FAKE_RPK_LOG": str(log)},
    )
    assert made.changed, made.msg
    assert '"user=u"' in log.read_text()
    assert secret not in log.read_text()
    assert secret not in json.dumps(made.result)
    assert secret not in bus.undo.read_text()


@pytest.mark.parametrize(
    ("client", "needed", "never"),
    [
        ("kafka", {"confluent_kafka"}, {"kubernetes", "requests", "boto3", "kafka", "psycopg2"}),
        ("rpk 24.3", set(), {"confluent_kafka", "kubernetes", "requests", "boto3", "kafka", "psycopg2"}),
    ],
)
def test_imports(set_offsets: SetOffsets, rpk: str, client: str, needed: set[str], never: set[str]) -> None:
    """A run with nothing to change loads the library of its client and no other."""
    options = options_of(client, rpk)
    environment = {**options.pop("env"), "PYTHONPROFILEIMPORTTIME": "1"}
    made = set_offsets([{"shift": 0}], **options, env=environment)
    assert not made.failed, made.msg
    assert not made.changed
    loaded = {
        line.rpartition("|")[2].strip().partition(".")[0]
        for line in made.stderr.splitlines()
        if line.startswith("import time:")
    }
    assert needed <= loaded
    assert not never & loaded


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one page, full."""
    place = tmp_path / "full"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4k", "tmpfs", place], check=True)
    try:
        (place / "filler").write_bytes(b"x" * 4096)
        yield place
    finally:
        subprocess.run(["umount", place], check=True)


def test_full_disk(bus: Bus, set_offsets: SetOffsets, full_disk: Path) -> None:
    """The undo cannot be written: refused before the change, and no half file is left."""
    refused = set_offsets([{"to": "end"}], undo_file=str(full_disk / "undo.json"))
    assert (
        f"undo_file {full_disk}/undo.json: it cannot be written (No space left on device), so nothing was changed"
        in refused.msg
    )
    assert refused["error"]["refused"]
    assert not refused.changed
    assert [path.name for path in full_disk.iterdir()] == ["filler"]
    assert bus.offsets() == {0: 4, 1: 4, 2: 4}


def test_folder_that_takes_no_files(bus: Bus, set_offsets: SetOffsets) -> None:
    """Seen in check mode already."""
    place = f"/proc/{os.getpid()}/undo.json"
    for check in (True, False):
        assert "cannot be written to" in set_offsets([{"to": "end"}], undo_file=place, check=check).msg
    assert bus.offsets() == {0: 4, 1: 4, 2: 4}
