# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The rpk command as a client, on this host or in a pod. Private to lowtide.ops: do not import from other collections.

rpk exits 0 on refusals and on partial failures, so its exit code is ignored: an answer is what it printed, and what it
did is read back by the caller. No shell, no terminal, no secret among the arguments.
"""

from __future__ import annotations

import os
import re
import subprocess
import typing as t

from .._common.errors import OpsError, OutcomeUnknown, Refusal
from . import parse
from .api import DEAD, MISSING, UNKNOWN, BusClient, Group, OffsetRange, RecordCount, TopicPartition, UnknownState
from .errors import (
    RETRIABLE,
    BusDeniedError,
    BusUnsupportedError,
    classify_error,
    find_error_name,
    is_denial,
    topics_missing,
    unreachable,
    unreadable,
)

if t.TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    Runner = Callable[[Sequence[str], str], "CommandOutput"]

T = t.TypeVar("T")
CONNECTION_ERRORS = (
    "unable to dial",
    "i/o timeout",
    "connection refused",
    "unable to open connection to broker",
    "error dialing backend",
    "unable to upgrade connection",
    "Unable to connect to the server",
    "net/http: TLS handshake timeout",
)
"""What rpk (franz-go) writes when it reaches no broker, and kubectl when it reaches no API server or kubelet."""
DENIALS = ("Error from server (Forbidden)", "SASL_AUTHENTICATION_FAILED", "You must be logged in to the server")
"""What kubectl and rpk write when they are not let in."""
GROUP_ID_NOT_FOUND = "GROUP_ID_NOT_FOUND"
KILL_AFTER = 2
"""Seconds after which ``timeout`` in a pod kills an rpk that does not end."""
POD_SECONDS = KILL_AFTER + 5.0
"""Seconds that kubectl may take on top of the command in the pod, which has its own bound."""
NEW_PROTOCOL = UnknownState(
    "rpk describes it as dead although it is listed, as it does every group of the new consumer protocol (KIP-848)",
    "Use client: kafka, which sees its members and offsets",
)
CREDENTIALS = ("sasl_mechanism", "sasl_username", "sasl_password", "ssl_cafile", "ssl_certfile", "ssl_keyfile")


class CommandOutput(t.NamedTuple):
    """What a command wrote. There is no exit code in it on purpose."""

    stdout: str
    stderr: str


def pod_prefix(pod: Mapping[str, t.Any], timeout: float) -> list[str]:
    """The argument list which runs a command in a pod: no terminal, standard input passed on.

    What kubectl has started runs on when kubectl is killed, so the command is bounded inside the pod, by ``timeout``.
    """
    prefix = [pod.get("kubectl") or "kubectl"]
    for option in ("kubeconfig", "context"):
        if pod.get(option):
            prefix += [f"--{option}", pod[option]]
    prefix += ["exec", "--stdin", "--quiet", "--namespace", pod["namespace"], pod["name"]]
    if pod.get("container"):
        prefix += ["--container", pod["container"]]
    return [*prefix, "--", "timeout", "-k", str(KILL_AFTER), f"{timeout:g}"]


def rpk_settings(options: Mapping[str, t.Any]) -> list[str]:
    """``-X key=value`` arguments; rpk's own configuration answers for what is not given. Never a secret."""
    settings = []
    if options.get("brokers"):
        settings.append("brokers=" + ",".join(options["brokers"]))
    if str(options.get("security_protocol") or "").upper() in ("SSL", "SASL_SSL"):
        settings.append("tls.enabled=true")
    names = {
        "ssl_cafile": "tls.ca",
        "ssl_certfile": "tls.cert",
        "ssl_keyfile": "tls.key",
        "sasl_mechanism": "sasl.mechanism",
        "sasl_username": "user",
    }
    settings += [f"{name}={options[option]}" for option, name in names.items() if options.get(option)]
    return [word for setting in settings for word in ("-X", setting)]


def command_runner(options: Mapping[str, t.Any], *, pod_seconds: float = POD_SECONDS) -> Runner:
    """Runs rpk with these connection options; the password travels in the environment of the rpk process only."""
    environment = {**os.environ, "LC_ALL": "C"}
    program = [options.get("rpk_command") or "rpk"]
    pod = options.get("rpk_pod")
    if pod:
        given = [option for option in CREDENTIALS if options.get(option)]
        if given:
            raise Refusal(
                obj=f"rpk in pod {pod['namespace']}/{pod['name']}",
                problem=f"{', '.join(given)} cannot be handed to a command in a pod without showing it there",
                next_step="Leave these options out and configure rpk in that pod (a profile, or RPK_* variables of the container)",
            )
        program = pod_prefix(pod, float(options["request_timeout"])) + program
    elif options.get("sasl_password"):
        environment["RPK_PASS"] = options["sasl_password"]
    timeout = float(options["request_timeout"]) + (pod_seconds if pod else 0.0)
    settings = rpk_settings(options)

    def run(arguments: Sequence[str], stdin: str) -> CommandOutput:
        """``arguments`` begin with rpk's two command words; the settings go right behind them."""
        command = [*program, *arguments[:2], *settings, *arguments[2:]]
        try:
            done = subprocess.run(
                command, input=stdin, capture_output=True, text=True, timeout=timeout, env=environment, check=False
            )
        except OSError as error:
            missing = isinstance(error, FileNotFoundError)
            raise Refusal(
                obj=f"command {program[0]}",
                problem="it is not on this host" if missing else f"it cannot be run ({error.strerror})",
                next_step="Install it, set rpk_command to its path, or use client: kafka",
            ) from error
        except subprocess.TimeoutExpired as error:
            what = f"rpk {' '.join(arguments[:2])}"
            raise OutcomeUnknown(
                obj=f"command {what}",
                problem=f"`{what}` gave no answer within {timeout:g} s"
                + (", and what it was to do in the pod may still happen" if pod else ""),
                next_step="Read back what it did before anything else is decided",
            ) from error
        return CommandOutput(done.stdout, done.stderr)

    return run


class RpkClient(BusClient):
    """Asks rpk, and believes only what can be read."""

    def __init__(self, run: Runner, label: str) -> None:
        self._run = run
        self._cluster_id: str | None = None
        # Offsets that rpk told with a group's state, until they are asked for or changed.
        self._rows: dict[str, tuple[parse.DescribedPartition, ...]] = {}
        self.label = label

    def _request(
        self, arguments: Sequence[str], read: Callable[[str], T], *, expected: str, may_be_empty: bool = False
    ) -> T:
        """Run, and read; whatever cannot be read is an error that shows what rpk said."""
        try:
            printed = self._run(arguments, "")
        except OutcomeUnknown as error:
            raise unreachable(self.label, error.problem) from error
        text = printed.stdout
        try:
            if not text.endswith("\n") and not (may_be_empty and not text and not printed.stderr.strip()):
                raise parse.ParseError("the output has no end")
            return read(text)
        except parse.ParseError as error:
            output = f"{printed.stderr} {text}".strip()
            raise self._explain_unreadable(f"rpk {' '.join(arguments)}", output, expected=expected) from error

    def _explain_unreadable(self, command: str, output: str, *, expected: str) -> OpsError:
        """Return the error of the class that the output tells of: not reachable, not ready, denied, or none of these."""
        line = " ".join(output.split())[:300]
        if any(sign in output for sign in CONNECTION_ERRORS):
            return unreachable(self.label, line)
        if any(sign in output for sign in DENIALS):
            return BusDeniedError(
                obj=f"event bus {self.label}",
                problem=f"`{command}` was not let in: {line}",
                next_step="Check the credentials of rpk, and for a pod the right to create pods/exec",
            )
        for name in re.findall(r"\b[A-Z][A-Z0-9]*_[A-Z0-9_]+\b", output):
            if name in RETRIABLE or is_denial(name):
                return classify_error(self.label, f"`{command}`", f"{name}: {line}")
        return unreadable(self.label, command, expected=expected, output=output)

    def cluster_id(self) -> str:
        """Asked once."""
        if self._cluster_id is None:
            self._cluster_id = self._request(["cluster", "info", "-c"], parse.cluster_id, expected="the cluster's id")
        return self._cluster_id

    def partition_counts(self, topics: Iterable[str]) -> dict[str, int | None]:
        names = sorted(set(topics))
        if not names:
            return {}
        listed = self._request(["topic", "list", "--", *names], parse.topic_list, expected="a table of topics")
        absent = [topic for topic in names if topic not in listed]
        if absent:
            raise unreadable(
                self.label, "rpk topic list", expected=f"a row for {', '.join(absent)}", output=str(listed)
            )
        return {topic: listed[topic] for topic in names}

    def _described(self, names: Sequence[str]) -> dict[str, parse.DescribedGroup]:
        described = self._request(
            ["group", "describe", "--", *names], parse.group_describe, expected="a description of each group"
        )
        absent = [name for name in names if name not in described]
        if absent:
            raise unreadable(
                self.label, "rpk group describe", expected=f"group {', '.join(absent)}", output=str(list(described))
            )
        for name, entry in described.items():
            if find_error_name(entry.error) == GROUP_ID_NOT_FOUND:
                described[name] = parse.DescribedGroup(Group(name=name, state=DEAD), ())
            elif entry.error:
                # State and offsets of such a block are made up: no rows, and a lag of 0.
                raise classify_error(self.label, f"describing group {name} with its offsets", entry.error)
        return described

    def groups(self, names: Iterable[str]) -> dict[str, Group]:
        """rpk says Dead both of a group that does not exist and of any group of the new protocol; its list tells more."""
        answer = self._described(list(dict.fromkeys(names)))
        self._rows.update({name: entry.partitions for name, entry in answer.items()})
        described = {name: entry.group for name, entry in answer.items()}
        if any(group.state == DEAD for group in described.values()):
            rows = self._request(["group", "list"], parse.group_list, expected="a table of groups")
            listed = {row.name: row.state for row in rows}
            for name, group in described.items():
                if group.state == DEAD:
                    described[name] = self._classify_dead_group(group, listed)
        return described

    @staticmethod
    def _classify_dead_group(group: Group, listed: Mapping[str, str | None]) -> Group:
        if group.name not in listed:
            return Group(name=group.name, state=MISSING)
        if (listed[group.name] or "").lower() == DEAD:
            return group
        return Group(name=group.name, state=UNKNOWN, coordinator=group.coordinator, unknown=NEW_PROTOCOL)

    def committed(self, group: str) -> dict[TopicPartition, int]:
        """rpk tells state and offsets in one answer: what :meth:`groups` was told just before is used, once."""
        rows = self._rows.pop(group) if group in self._rows else self._described([group])[group].partitions
        numbers: dict[str, set[int]] = {}
        for row in rows:
            if find_error_name(row.error) in RETRIABLE:
                raise classify_error(self.label, f"reading {row.partition} of group {group}", row.error)
            if row.error:
                raise OpsError(
                    obj=f"group {group} on event bus {self.label}",
                    problem=f"rpk cannot read {row.partition}: {row.error}",
                    next_step="Repair or re-create that topic, or stop its consumers",
                )
            numbers.setdefault(row.partition.topic, set()).add(row.partition.partition)
        for topic, count in self.partition_counts(numbers).items():
            if numbers[topic] != set(range(count or 0)):
                raise unreadable(
                    self.label,
                    f"rpk group describe {group}",
                    expected=f"a row for each of the {count} partitions of {topic}",
                    output=f"rows for {sorted(numbers[topic])}",
                )
        return {row.partition: row.committed for row in rows if row.committed is not None}

    def offset_ranges(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, OffsetRange]:
        """One rpk call a topic: 23.3 does not describe several."""
        partitions = list(partitions)
        logs: dict[TopicPartition, OffsetRange] = {}
        for topic in sorted({partition.topic for partition in partitions}):
            logs.update(
                self._request(
                    ["topic", "describe", "--print-partitions", "--", topic],
                    lambda text, topic=topic: parse.topic_partitions(topic, text),  # type: ignore[misc]
                    expected=f"a table of the partitions of {topic}",
                )
            )
            if not any(partition.topic == topic for partition in logs):
                raise topics_missing(self.label, [topic])
        absent = [str(partition) for partition in partitions if partition not in logs]
        if absent:
            raise unreadable(self.label, "rpk topic describe", expected=f"a row for {', '.join(absent)}", output="none")
        return {partition: logs[partition] for partition in partitions}

    def offsets_at(self, milliseconds: int, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, int | None]:
        """One rpk call a partition. Nothing printed may be a lost answer as well as "no such record": that is refused."""
        offsets: dict[TopicPartition, int | None] = {}
        for partition, log in self.offset_ranges(partitions).items():
            if log.start == log.end:
                offsets[partition] = None
                continue
            arguments = ["topic", "consume", "-p", str(partition.partition), "-o", f"@{milliseconds}:end", "-n", "1"]
            offset = self._request(
                [*arguments, "-f", "%p %o\n", "--", partition.topic],
                parse.consumed_offset,
                expected="one record's partition and offset",
                may_be_empty=True,
            )
            if offset is None:
                raise Refusal(
                    obj=f"{partition} on event bus {self.label}",
                    problem=f"rpk shows no record at or after {milliseconds} ms, which is no proof that there is none",
                    next_step="Declare `to: end` or an exact offset for this partition, or use client: kafka",
                )
            offsets[partition] = offset
        return offsets

    def commit(self, group: str, offsets: Mapping[TopicPartition, int]) -> dict[TopicPartition, str]:
        """``rpk group seek --to-file``, the file being rpk's standard input, so that nothing is left behind in a pod."""
        self._rows.clear()
        lines = "".join(f"{topic} {number} {offset}\n" for (topic, number), offset in offsets.items())
        printed = self._run(["group", "seek", "--to-file", "/dev/stdin", "--", group], lines)
        try:
            answered = parse.group_seek(printed.stdout)
        except parse.ParseError as error:
            output = " ".join(f"{printed.stderr} {printed.stdout}".split()) or "nothing"
            raise OutcomeUnknown(
                obj=f"group {group} on event bus {self.label}",
                problem=f"`rpk group seek` printed: {output[:300]}",
                next_step="Read the group's offsets before anything else is decided",
            ) from error
        return {
            partition: answered.get(partition, "rpk did not mention it")
            for partition in offsets
            if answered.get(partition, "?")
        }

    def cleanup_policies(self, topics: Iterable[str]) -> dict[str, tuple[str, ...]]:
        """One rpk call a topic: 23.3 does not describe several."""
        policies = {}
        for topic in sorted(set(topics)):
            configs = self._request(
                ["topic", "describe", "--print-configs", "--", topic],
                parse.topic_configs,
                expected=f"the configuration of {topic}",
            )
            if "cleanup.policy" not in configs:
                raise unreadable(
                    self.label,
                    f"rpk topic describe {topic}",
                    expected="a row cleanup.policy",
                    output=str(list(configs)),
                )
            policies[topic] = tuple(configs["cleanup.policy"].split(","))
        return policies

    def count_records(
        self,
        group: str,  # noqa: ARG002 (the interface's, as the next ones)
        ranges: Mapping[TopicPartition, OffsetRange],
        *,
        limit: int | None = None,  # noqa: ARG002
        seconds: float | None = None,  # noqa: ARG002
    ) -> dict[TopicPartition, RecordCount]:
        """Refused: what rpk does not print is no proof that there is no record."""
        raise BusUnsupportedError(
            obj=f"event bus {self.label}",
            problem=f"client: rpk cannot count the records in {', '.join(sorted({own.topic for own in ranges}))}",
            next_step="Use client: kafka, or a max_lag of at least the number of partitions",
        )
