# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The rpk client over recorded answers, and the command lines that it builds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.lowtide.ops.plugins.module_utils._common.errors import OpsError, OutcomeUnknown, Refusal
from ansible_collections.lowtide.ops.plugins.module_utils._kafka import rpk
from ansible_collections.lowtide.ops.plugins.module_utils._kafka.api import OffsetRange, TopicPartition
from ansible_collections.lowtide.ops.plugins.module_utils._kafka.connection import connection_spec
from ansible_collections.lowtide.ops.plugins.module_utils._kafka.errors import (
    BusDeniedError,
    BusNotReadyError,
    BusUnreachableError,
    BusUnsupportedError,
)
from unit.kafka.recordings import VERSIONS, cases

both = pytest.mark.parametrize("version", VERSIONS)
DEFAULTS = {name: option.get("default") for name, option in connection_spec().items()}


class Replay:
    """A runner that answers each command pair with one recorded case."""

    def __init__(self, version: str, **answers: str) -> None:
        self.answers = {pair.replace("_", " "): cases(version)[case] for pair, case in answers.items()}
        self.asked: list[tuple[list[str], str]] = []

    def __call__(self, arguments: Sequence[str], stdin: str) -> rpk.CommandOutput:
        """The recording's streams."""
        self.asked.append((list(arguments), stdin))
        case = self.answers[" ".join(arguments[:2])]
        return rpk.CommandOutput(case["stdout"], case["stderr"])


def client(version: str, **answers: str) -> rpk.RpkClient:
    """A client over recordings."""
    return rpk.RpkClient(Replay(version, **answers), "the recorded bus")


@both
def test_missing_and_new_protocol_are_told_apart_by_the_list(version: str) -> None:
    """rpk describes both as Dead; only one of them is listed."""
    missing = client(version, group_describe="group-describe-never-seen", group_list="group-list").groups(
        ["never-seen"]
    )
    assert missing["never-seen"].state == "missing"
    hidden = client(version, group_describe="group-describe-new-style", group_list="group-list").groups(["new-style"])
    assert hidden["new-style"].state == "unknown"


@both
def test_an_empty_group_needs_no_list(version: str) -> None:
    """One command."""
    run = Replay(version, group_describe="group-describe-empty")
    assert rpk.RpkClient(run, "x").groups(["reports"])["reports"].state == "empty"
    assert [arguments for arguments, _stdin in run.asked] == [["group", "describe", "--", "reports"]]


@both
def test_committed_offsets_must_cover_every_partition_of_their_topics(version: str) -> None:
    """A table with a row less than the topic has partitions is refused."""
    run = Replay(version, group_describe="group-describe-stable", topic_list="topic-list-one")
    found = rpk.RpkClient(run, "x").committed("billing")
    assert found == {TopicPartition("orders", 0): 7, TopicPartition("orders", 1): 8, TopicPartition("orders", 2): 1}

    def without_a_row(arguments: Sequence[str], stdin: str) -> rpk.CommandOutput:
        """Partition 1 has no lag, so that the sum of the others still agrees."""
        lines = run(arguments, stdin).stdout.splitlines(keepends=True)
        return rpk.CommandOutput("".join(line for line in lines if not line.startswith("orders  1")), "")

    with pytest.raises(OpsError, match="a row for each of the 3 partitions of orders"):
        rpk.RpkClient(without_a_row, "x").committed("billing")


@both
def test_state_and_offsets_are_one_answer_until_something_is_committed(version: str) -> None:
    """Offsets read once more, or after a commit, are asked for again."""
    run = Replay(version, group_describe="group-describe-stable", topic_list="topic-list-one", group_seek="seek-file")
    bus = rpk.RpkClient(run, "x")
    reads: dict[str, Callable[[], object]] = {
        "with the state": lambda: (bus.groups(["billing"]), bus.committed("billing")),
        "once more": lambda: bus.committed("billing"),
        "state again": lambda: bus.groups(["billing"]),
        "after a commit": lambda: (bus.commit("billing", {TopicPartition("orders", 0): 1}), bus.committed("billing")),
    }
    described = {}
    for name, read in reads.items():
        run.asked.clear()
        read()
        described[name] = sum(arguments[:2] == ["group", "describe"] for arguments, _stdin in run.asked)
    assert described == {"with the state": 1, "once more": 1, "state again": 1, "after a commit": 1}


@both
def test_commit_reports_the_error_column(version: str) -> None:
    """Exit code 0, one of two rows refused."""
    run = Replay(version, group_seek="seek-file-unknown-topic")
    good, bad = TopicPartition("orders", 0), TopicPartition("not-created", 0)
    errors = rpk.RpkClient(run, "x").commit("seek-a", {good: 9, bad: 1})
    assert list(errors) == [bad]
    assert run.asked == [
        (["group", "seek", "--to-file", "/dev/stdin", "--", "seek-a"], "orders 0 9\nnot-created 0 1\n")
    ]


@both
def test_a_row_that_rpk_does_not_mention_is_an_error(version: str) -> None:
    """Silence is no success."""
    other = TopicPartition("other", 0)
    assert client(version, group_seek="seek-file").commit("seek-a", {other: 1}) == {other: "rpk did not mention it"}


@both
def test_commit_without_an_answer_is_unknown_not_failed(version: str) -> None:
    """It must be read back."""
    with pytest.raises(OutcomeUnknown, match="connection refused"):
        client(version, group_seek="refused-group-seek-file").commit("billing", {TopicPartition("orders", 0): 1})


@both
def test_refused_connection_is_named_whichever_stream_it_is_on(version: str) -> None:
    """``group list`` writes it to standard output."""
    with pytest.raises(BusUnreachableError, match=r"the recorded bus.*connection refused"):
        client(version, group_describe="refused-group-describe").groups(["billing"])
    with pytest.raises(BusUnreachableError, match="connection refused"):
        client(version, group_describe="group-describe-never-seen", group_list="refused-group-list").groups(
            ["never-seen"]
        )


@both
def test_logs_and_counts(version: str) -> None:
    """One call a topic for logs, one for all counts; None for a missing topic."""
    one = client(version, topic_describe="topic-describe-partitions", topic_list="topic-list-two-one-missing")
    assert one.offset_ranges([TopicPartition("orders", 1)]) == {
        TopicPartition("orders", 1): OffsetRange(start=0, end=8)
    }
    assert one.partition_counts(["not-created", "orders"]) == {"not-created": None, "orders": 3}
    with pytest.raises(Refusal, match="no topic named orders"):
        client(version, topic_describe="topic-describe-missing-partitions").offset_ranges([TopicPartition("orders", 1)])


@both
def test_no_record_printed_is_no_proof_that_there_is_none(version: str) -> None:
    """It may as well be an answer cut short, so it never becomes the end of the log."""
    one = client(version, topic_describe="topic-describe-partitions", topic_consume="consume-timestamp-future")
    with pytest.raises(Refusal, match=r"orders\[0\].*no proof"):
        one.offsets_at(1794229000000, [TopicPartition("orders", 0)])


def test_output_without_its_last_newline_is_refused() -> None:
    """A stream from a pod may end early."""
    with pytest.raises(OpsError, match="did not print"):
        rpk.RpkClient(
            lambda _arguments, _stdin: rpk.CommandOutput("BROKER  GROUP\n1       bill", ""), "x"
        ).partition_counts(["t"])


def test_settings_hold_no_secret() -> None:
    """The password is not among the arguments."""
    options = {
        **DEFAULTS,
        "brokers": ["a:1", "b:2"],
        "security_protocol": "SASL_SSL",
        "sasl_username": "u",
        "sasl_password": "s3cret",
    }
    settings = rpk.rpk_settings(options)
    assert settings == ["-X", "brokers=a:1,b:2", "-X", "tls.enabled=true", "-X", "user=u"]
    assert "s3cret" not in " ".join(settings)


def test_pod_command() -> None:
    """No terminal, no shell, the namespace always said, and bounded where it runs: kubectl's end would not end it."""
    pod: dict[str, Any] = {
        "namespace": "n",
        "name": "p",
        "container": "c",
        "kubeconfig": "/k",
        "context": "x",
        "kubectl": "kubectl",
    }
    assert rpk.pod_prefix(pod, 15.0) == [
        *("kubectl", "--kubeconfig", "/k", "--context", "x", "exec", "--stdin", "--quiet"),
        *("--namespace", "n", "p", "--container", "c", "--", "timeout", "-k", "2", "15"),
    ]


def test_credentials_for_a_pod_are_refused() -> None:
    """They would be on a command line."""
    pod = {"namespace": "n", "name": "p"}
    with pytest.raises(Refusal, match="sasl_password") as caught:
        rpk.command_runner({**DEFAULTS, "rpk_pod": pod, "sasl_password": "s3cret"})
    assert "s3cret" not in str(caught.value)


def test_missing_program() -> None:
    """By name."""
    with pytest.raises(Refusal, match="command no-such-rpk"):
        rpk.command_runner({**DEFAULTS, "rpk_command": "no-such-rpk"})(["group", "list"], "")


FETCH_ERROR = """GROUP        billing
COORDINATOR  1
STATE        Empty
BALANCER
MEMBERS      0
TOTAL-LAG    0
ERROR        {error}
"""


def describing(text: str, listed: str = "") -> rpk.RpkClient:
    """A client whose ``group describe`` prints this."""

    def run(arguments: Sequence[str], _stdin: str) -> rpk.CommandOutput:
        return rpk.CommandOutput(listed if arguments[1] == "list" else text, "")

    return rpk.RpkClient(run, "x")


@pytest.mark.parametrize("ask", [lambda bus: bus.groups(["billing"]), lambda bus: bus.committed("billing")])
@pytest.mark.parametrize(
    ("error", "kind"),
    [
        ("COORDINATOR_LOAD_IN_PROGRESS: The coordinator is loading.", BusNotReadyError),
        ("UNSTABLE_OFFSET_COMMIT: There are unstable offsets.", BusNotReadyError),
        ("GROUP_AUTHORIZATION_FAILED: Not authorized to access group.", BusDeniedError),
        ("UNKNOWN_SERVER_ERROR: The server experienced an unexpected error.", OpsError),
        ("unable to parse the response", OpsError),
    ],
)
def test_an_error_of_the_group_is_no_group_without_offsets(ask: Any, error: str, kind: type[OpsError]) -> None:
    """rpk prints a lag of 0 and no row then: neither an undo nor a drain may be made of that."""
    with pytest.raises(OpsError, match=error.partition(":")[0]) as caught:
        ask(describing(FETCH_ERROR.format(error=error)))
    assert type(caught.value) is kind
    assert caught.value.next_step


def test_a_group_that_brokers_do_not_find_is_missing() -> None:
    """As newer versions of DescribeGroups say it."""
    bus = describing(FETCH_ERROR.format(error="GROUP_ID_NOT_FOUND: x"), "BROKER  GROUP\n1       other\n")
    assert bus.groups(["billing"])["billing"].state == "missing"


@pytest.mark.parametrize(
    ("state", "members", "expected"),
    [("Reconciling", 2, "rebalancing"), ("NewState", 2, "rebalancing"), ("", 0, "unknown")],
)
def test_a_state_without_a_name_of_ours(state: str, members: int, expected: str) -> None:
    """With members it is a rebalance; without, the reason is what rpk printed, and it is asked again."""
    text = FETCH_ERROR.replace("Empty", state).replace("MEMBERS      0", f"MEMBERS      {members}")
    group = describing(text.partition("ERROR")[0]).groups(["billing"])["billing"]
    assert group.state == expected
    assert not group.unknown.is_lasting


def test_the_layout_of_rpk_25() -> None:
    """Its coordinator has a key of another name."""
    lines = [
        f"{key:<24}{value}" for key, value in [("GROUP", "billing"), ("COORDINATOR-NODE", "1"), ("STATE", "Empty")]
    ]
    lines += [f"{key:<24}{value}" for key, value in [("MEMBERS", "0"), ("TOTAL-LAG", "0")]]
    assert describing("\n".join(lines) + "\n").groups(["billing"])["billing"].coordinator == "1"


@pytest.mark.parametrize(
    ("stderr", "kind"),
    [
        ("error: error dialing backend: dial tcp 10.0.0.3:10250: connect: no route to host", BusUnreachableError),
        ("Unable to connect to the server: net/http: TLS handshake timeout", BusUnreachableError),
        ("unable to list groups: NOT_COORDINATOR: This is not the correct coordinator.", BusNotReadyError),
        ('Error from server (Forbidden): pods "p" is forbidden', BusDeniedError),
        ("unable to request: CLUSTER_AUTHORIZATION_FAILED: Cluster authorization failed.", BusDeniedError),
        ("panic: something", OpsError),
    ],
)
def test_what_goes_wrong_is_of_three_classes(stderr: str, kind: type[OpsError]) -> None:
    """The first two pass, so that waits go on through them."""
    with pytest.raises(OpsError) as caught:
        rpk.RpkClient(lambda _arguments, _stdin: rpk.CommandOutput("", stderr), "x").groups(["g"])
    assert type(caught.value) is kind


def test_a_row_that_is_not_ready_is_no_broken_topic() -> None:
    """A leader moves."""
    row = "orders  0          -               -                 -               -    -          -          -     {}\n"
    header = (
        "TOPIC   PARTITION  CURRENT-OFFSET  LOG-START-OFFSET  LOG-END-OFFSET  LAG  MEMBER-ID  CLIENT-ID  HOST  ERROR\n"
    )
    text = FETCH_ERROR.partition("ERROR")[0] + "\n" + header + row.format("NOT_LEADER_FOR_PARTITION: moving")
    with pytest.raises(BusNotReadyError, match=r"reading orders\[0\] of group billing"):
        describing(text).committed("billing")


def test_a_program_that_cannot_be_run(tmp_path: Path) -> None:
    """It is there, but no program."""
    (tmp_path / "rpk").write_text("x")
    with pytest.raises(Refusal, match=r"rpk: it cannot be run \(Permission denied\)"):
        rpk.command_runner({**DEFAULTS, "rpk_command": str(tmp_path / "rpk")})(["group", "list"], "")


def test_a_command_in_a_pod_ends_by_itself(tmp_path: Path) -> None:
    """kubectl (here a stand-in that runs the command behind --) has time to tell that the bound in the pod was reached."""
    kubectl = tmp_path / "kubectl"
    kubectl.write_text('#!/bin/sh\nwhile [ "$1" != "--" ]; do shift; done; shift; exec "$@"\n')
    kubectl.chmod(0o755)
    program = tmp_path / "rpk"
    program.write_text("#!/bin/sh\nexec sleep 60\n")
    program.chmod(0o755)
    pod = {"namespace": "n", "name": "p", "kubectl": str(kubectl)}
    options = {**DEFAULTS, "rpk_pod": pod, "rpk_command": str(program), "request_timeout": 0.2}
    bus = rpk.RpkClient(rpk.command_runner(options), "x")
    with pytest.raises(OutcomeUnknown, match="printed: nothing"):
        bus.commit("g", {TopicPartition("t", 0): 1})


def test_a_command_in_a_pod_without_an_answer_may_still_happen(tmp_path: Path) -> None:
    """kubectl itself hangs: nobody knows what runs in the pod."""
    kubectl = tmp_path / "kubectl"
    kubectl.write_text("#!/bin/sh\nexec sleep 60\n")
    kubectl.chmod(0o755)
    pod = {"namespace": "n", "name": "p", "kubectl": str(kubectl)}
    run = rpk.command_runner({**DEFAULTS, "rpk_pod": pod, "request_timeout": 0.1}, pod_seconds=0.1)
    with pytest.raises(OutcomeUnknown, match="may still happen"):
        run(["group", "seek"], "")


def test_a_topic_that_is_not_shown_may_be_one_that_may_not_be_seen() -> None:
    """rpk prints 0 partitions for both."""
    bus = describing("PARTITION  LEADER  LOG-START-OFFSET  HIGH-WATERMARK\n")
    with pytest.raises(Refusal, match="no topic named t, or this user may not describe it"):
        bus.offset_ranges([TopicPartition("t", 0)])


def test_cleanup_policies() -> None:
    """From the configuration; an answer without the key is no answer."""
    text = "KEY                 VALUE           SOURCE\ncleanup.policy      compact,delete  DYNAMIC_TOPIC_CONFIG\n"
    assert describing(text).cleanup_policies(["t"]) == {"t": ("compact", "delete")}
    with pytest.raises(OpsError, match=r"a row cleanup\.policy"):
        describing(text.replace("cleanup.policy", "other.policy ")).cleanup_policies(["t"])


def test_records_cannot_be_counted() -> None:
    """Nothing printed is no proof of nothing there."""
    with pytest.raises(BusUnsupportedError, match="client: rpk cannot count the records in t"):
        describing("").count_records("g", {TopicPartition("t", 0): OffsetRange(0, 1)})
