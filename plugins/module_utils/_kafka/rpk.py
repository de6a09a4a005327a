# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The rpk command as a client, on this host or in a pod. Private to lowtide.ops: do not import from other collections.

rpk exits 0 on refusals and on partial failures, so its exit code is ignored: an answer is what it printed, and what it
did is read back by the caller. No shell, no terminal, no secret among the arguments.
"""

from __future__ import annotations

import os
import subprocess
import typing as t

from .._common.errors import OpsError, Refusal
from . import parse
from .api import DEAD, MISSING, UNKNOWN, BusClient, Group, Log, OutcomeUnknownError, TopicPartition
from .errors import topics_missing, unreachable, unreadable

if t.TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    Runner = Callable[[Sequence[str], str], "Printed"]

T = t.TypeVar("T")
NO_ANSWER = ("unable to dial", "i/o timeout", "connection refused", "unable to open connection to broker")
"""What rpk (franz-go) writes when it reaches no broker."""
CREDENTIALS = ("sasl_mechanism", "sasl_username", "sasl_password", "ssl_cafile", "ssl_certfile", "ssl_keyfile")


class Printed(t.NamedTuple):
    """What a command wrote. There is no exit code in it on purpose."""

    stdout: str
    stderr: str


def pod_prefix(pod: Mapping[str, t.Any]) -> list[str]:
    """The argument list which runs a command in a pod: no terminal, standard input passed on."""
    prefix = [pod.get("kubectl") or "kubectl"]
    for option in ("kubeconfig", "context"):
        if pod.get(option):
            prefix += [f"--{option}", pod[option]]
    prefix += ["exec", "--stdin", "--quiet", "--namespace", pod["namespace"], pod["name"]]
    if pod.get("container"):
        prefix += ["--container", pod["container"]]
    return [*prefix, "--"]


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


def command_runner(options: Mapping[str, t.Any]) -> Runner:
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
        program = pod_prefix(pod) + program
    elif options.get("sasl_password"):
        environment["RPK_PASS"] = options["sasl_password"]
    timeout = float(options["request_timeout"])
    settings = rpk_settings(options)

    def run(arguments: Sequence[str], stdin: str) -> Printed:
        """``arguments`` begin with rpk's two command words; the settings go right behind them."""
        command = [*program, *arguments[:2], *settings, *arguments[2:]]
        try:
            done = subprocess.run(
                command, input=stdin, capture_output=True, text=True, timeout=timeout, env=environment, check=False
            )
        except FileNotFoundError as error:
            raise Refusal(
                obj=f"command {program[0]}",
                problem="it is not on this host",
                next_step="Install it, set rpk_command to its path, or use client: kafka",
            ) from error
        except subprocess.TimeoutExpired as error:
            raise OutcomeUnknownError(f"`rpk {' '.join(arguments[:2])}` gave no answer within {timeout:g} s") from error
        return Printed(done.stdout, done.stderr)

    return run


class RpkClient(BusClient):
    """Asks rpk, and believes only what can be read."""

    def __init__(self, run: Runner, label: str) -> None:
        self._run = run
        self._cluster_id: str | None = None
        # Offsets that rpk told with a group's state, until they are asked for or changed.
        self._rows: dict[str, tuple[parse.DescribedPartition, ...]] = {}
        self.label = label

    def _ask(
        self, arguments: Sequence[str], read: Callable[[str], T], *, expected: str, may_be_empty: bool = False
    ) -> T:
        """Run, and read; whatever cannot be read is an error that shows what rpk said."""
        try:
            printed = self._run(arguments, "")
        except OutcomeUnknownError as error:
            raise unreachable(self.label, str(error)) from error
        text = printed.stdout
        try:
            if not text.endswith("\n") and not (may_be_empty and not text and not printed.stderr.strip()):
                raise parse.UnreadableError("the output has no end")
            return read(text)
        except parse.UnreadableError as error:
            seen = f"{printed.stderr} {text}".strip()
            if any(sign in seen for sign in NO_ANSWER):
                raise unreachable(self.label, " ".join(seen.split())[:300]) from error
            raise unreadable(self.label, f"rpk {' '.join(arguments)}", expected=expected, seen=seen) from error

    def cluster_id(self) -> str:
        """Asked once."""
        if self._cluster_id is None:
            self._cluster_id = self._ask(["cluster", "info", "-c"], parse.cluster_id, expected="the cluster's id")
        return self._cluster_id

    def partition_counts(self, topics: Iterable[str]) -> dict[str, int | None]:
        wanted = sorted(set(topics))
        if not wanted:
            return {}
        listed = self._ask(["topic", "list", "--", *wanted], parse.topic_list, expected="a table of topics")
        absent = [topic for topic in wanted if topic not in listed]
        if absent:
            raise unreadable(self.label, "rpk topic list", expected=f"a row for {', '.join(absent)}", seen=str(listed))
        return {topic: listed[topic] for topic in wanted}

    def _described(self, names: Sequence[str]) -> dict[str, parse.DescribedGroup]:
        described = self._ask(
            ["group", "describe", "--", *names], parse.group_describe, expected="a description of each group"
        )
        absent = [name for name in names if name not in described]
        if absent:
            raise unreadable(
                self.label, "rpk group describe", expected=f"group {', '.join(absent)}", seen=str(list(described))
            )
        return described

    def groups(self, names: Iterable[str]) -> dict[str, Group]:
        """rpk says Dead both of a group that does not exist and of any group of the new protocol; its list tells more."""
        answer = self._described(list(dict.fromkeys(names)))
        self._rows.update({name: one.partitions for name, one in answer.items()})
        described = {name: one.group for name, one in answer.items()}
        if any(group.state == DEAD for group in described.values()):
            rows = self._ask(["group", "list"], parse.group_list, expected="a table of groups")
            listed = {row.name: row.state for row in rows}
            for name, group in described.items():
                if group.state == DEAD:
                    described[name] = self._dead(group, listed)
        return described

    @staticmethod
    def _dead(group: Group, listed: Mapping[str, str | None]) -> Group:
        if group.name not in listed:
            return Group(name=group.name, state=MISSING)
        if (listed[group.name] or "").lower() == DEAD:
            return group
        return Group(name=group.name, state=UNKNOWN, coordinator=group.coordinator)

    def committed(self, group: str) -> dict[TopicPartition, int]:
        """rpk tells state and offsets in one answer: what :meth:`groups` was told just before is used, once."""
        rows = self._rows.pop(group) if group in self._rows else self._described([group])[group].partitions
        seen: dict[str, set[int]] = {}
        for row in rows:
            if row.error:
                raise OpsError(
                    obj=f"group {group} on event bus {self.label}",
                    problem=f"rpk cannot read {row.partition}: {row.error}",
                    next_step="Repair or re-create that topic, or stop its consumers",
                )
            seen.setdefault(row.partition.topic, set()).add(row.partition.partition)
        for topic, count in self.partition_counts(seen).items():
            if seen[topic] != set(range(count or 0)):
                raise unreadable(
                    self.label,
                    f"rpk group describe {group}",
                    expected=f"a row for each of the {count} partitions of {topic}",
                    seen=f"rows for {sorted(seen[topic])}",
                )
        return {row.partition: row.committed for row in rows if row.committed is not None}

    def logs(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, Log]:
        """One rpk call a topic: 23.3 does not describe several."""
        wanted = list(partitions)
        logs: dict[TopicPartition, Log] = {}
        for topic in sorted({partition.topic for partition in wanted}):
            logs.update(
                self._ask(
                    ["topic", "describe", "--print-partitions", "--", topic],
                    lambda text, topic=topic: parse.topic_partitions(topic, text),  # type: ignore[misc]
                    expected=f"a table of the partitions of {topic}",
                )
            )
            if not any(partition.topic == topic for partition in logs):
                raise topics_missing(self.label, [topic])
        absent = [str(partition) for partition in wanted if partition not in logs]
        if absent:
            raise unreadable(self.label, "rpk topic describe", expected=f"a row for {', '.join(absent)}", seen="none")
        return {partition: logs[partition] for partition in wanted}

    def offsets_at(self, milliseconds: int, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, int | None]:
        """One rpk call a partition. Nothing printed may be a lost answer as well as "no such record": that is refused."""
        found: dict[TopicPartition, int | None] = {}
        for partition, log in self.logs(partitions).items():
            if log.start == log.end:
                found[partition] = None
                continue
            arguments = ["topic", "consume", "-p", str(partition.partition), "-o", f"@{milliseconds}:end", "-n", "1"]
            offset = self._ask(
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
            found[partition] = offset
        return found

    def commit(self, group: str, offsets: Mapping[TopicPartition, int]) -> dict[TopicPartition, str]:
        """``rpk group seek --to-file``, the file being rpk's standard input, so that nothing is left behind in a pod."""
        self._rows.clear()
        lines = "".join(f"{topic} {number} {offset}\n" for (topic, number), offset in offsets.items())
        printed = self._run(["group", "seek", "--to-file", "/dev/stdin", "--", group], lines)
        try:
            answered = parse.group_seek(printed.stdout)
        except parse.UnreadableError as error:
            said = " ".join(f"{printed.stderr} {printed.stdout}".split()) or "nothing"
            raise OutcomeUnknownError(f"rpk group seek said: {said[:300]}") from error
        return {
            partition: answered.get(partition, "rpk did not mention it")
            for partition in offsets
            if answered.get(partition, "?")
        }
