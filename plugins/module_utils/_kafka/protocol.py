# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The Kafka protocol client, on confluent-kafka. Private to lowtide.ops: do not import from other collections.

Every question is one batch, whatever the number of partitions: one Metadata, one describe and one OffsetFetch a group,
one ListOffsets a broker, one OffsetCommit.
"""

from __future__ import annotations

import concurrent.futures
import logging
import typing as t

from .._common.dependencies import require
from .._common.errors import OpsError
from .._common.retry import Deadline
from .api import (
    DEAD,
    MISSING,
    REBALANCING,
    STATE_OF_NAME,
    BusClient,
    Group,
    Log,
    Member,
    OutcomeUnknownError,
    TopicPartition,
)
from .errors import not_allowed, unreachable

if t.TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    Future = concurrent.futures.Future[t.Any]
    K = t.TypeVar("K")

GROUP_ID_NOT_FOUND = "GROUP_ID_NOT_FOUND"
UNKNOWN_TOPIC = "UNKNOWN_TOPIC_OR_PART"
NON_EMPTY = ("UNKNOWN_MEMBER_ID", "NON_EMPTY_GROUP")
"""What brokers answer to an offset commit from outside while the group has members."""
REFUSED = ("_AUTHENTICATION", "_SSL", "SASL_AUTHENTICATION_FAILED", "UNSUPPORTED_SASL_MECHANISM")
NO_ANSWER = ("_TRANSPORT", "_TIMED_OUT", "_ALL_BROKERS_DOWN", "REQUEST_TIMED_OUT", "_TIMED_OUT_QUEUE", "_DESTROY")
PASSING = (
    "NOT_COORDINATOR",
    "NOT_COORDINATOR_FOR_GROUP",
    "COORDINATOR_NOT_AVAILABLE",
    "COORDINATOR_LOAD_IN_PROGRESS",
    "GROUP_COORDINATOR_NOT_AVAILABLE",
    "GROUP_LOAD_IN_PROGRESS",
    "LEADER_NOT_AVAILABLE",
    "NOT_LEADER_FOR_PARTITION",
    "NOT_LEADER_OR_FOLLOWER",
    "REPLICA_NOT_AVAILABLE",
    "FENCED_LEADER_EPOCH",
    "UNKNOWN_LEADER_EPOCH",
    "OFFSET_NOT_AVAILABLE",
    "KAFKA_STORAGE_ERROR",
    "REBALANCE_IN_PROGRESS",
)
"""Conditions which brokers leave by themselves, those that the protocol guide calls retriable: a coordinator or a leader is
moving, or loading its log, or a broker has not heard of it yet."""
NO_LEADER = "_NOENT"
"""librdkafka's name for a log whose partition has no leader in the metadata that it keeps. It does not ask for newer ones by
itself: ListOffsets fails with this for as long as the client lives, also when there has long been a leader."""
PAUSE = 0.2
"""Seconds before such a question is put again; bounded by ``request_timeout``."""
SLICE = 0.05
"""Seconds between looks at connection errors while an answer is awaited; an answer itself ends the wait at once."""

CONFIG_OF_OPTION = {
    "security_protocol": "security.protocol",
    "sasl_mechanism": "sasl.mechanism",
    "sasl_username": "sasl.username",
    "sasl_password": "sasl.password",
    "ssl_cafile": "ssl.ca.location",
    "ssl_certfile": "ssl.certificate.location",
    "ssl_keyfile": "ssl.key.location",
}


def client_config(options: Mapping[str, t.Any]) -> dict[str, t.Any]:
    """Configuration of librdkafka from the module's connection options; options that are None are left out."""
    milliseconds = int(options["request_timeout"] * 1000)
    config: dict[str, t.Any] = {
        "bootstrap.servers": ",".join(options["brokers"]),
        "client.id": "lowtide.ops",
        "socket.timeout.ms": max(1000, milliseconds),
        "socket.connection.setup.timeout.ms": min(10_000, max(1000, milliseconds)),
        "topic.metadata.refresh.interval.ms": -1,
        # A new client may connect to a second broker (here the coordinator) only after half of this, 50 ms by default.
        "reconnect.backoff.ms": 20,
        "enable.metrics.push": False,
    }
    for option, name in CONFIG_OF_OPTION.items():
        if options.get(option) is not None:
            config[name] = options[option]
    return config


class ProtocolClient(BusClient):
    """Asks the brokers themselves."""

    def __init__(self, options: Mapping[str, t.Any]) -> None:
        why = "to speak with Kafka brokers (client: kafka)"
        self._kafka = require("confluent_kafka", package="confluent-kafka", why=why)
        self._library = require("confluent_kafka.admin", package="confluent-kafka", why=why)
        self.label = ",".join(options["brokers"])
        self._timeout = float(options["request_timeout"])
        self._answered = False
        self._fatal: OpsError | None = None
        self._last_detail = ""
        self._config = client_config(options)
        self._admin = self._connect()

    def _connect(self) -> t.Any:
        """A client with connections of its own; broken ones are left behind with the client that held them."""
        logger = logging.getLogger("lowtide.ops.kafka")
        logger.addHandler(logging.NullHandler())
        logger.propagate = False
        self._answered, self._fatal = False, None
        try:
            return self._library.AdminClient({**self._config, "error_cb": self._on_error, "logger": logger})
        except self._kafka.KafkaException as error:
            raise OpsError(
                obj=f"event bus {self.label}",
                problem=f"these connection options cannot be used: {error.args[0].str()}",
                next_step="Correct security_protocol, sasl_* or ssl_*",
            ) from error

    def _on_error(self, error: t.Any) -> None:
        """Connection errors, reported by librdkafka beside the answers."""
        if error.name() in REFUSED:
            self._fatal = not_allowed(self.label, error.str())
        elif error.name() == "_ALL_BROKERS_DOWN":
            if not self._answered:
                self._fatal = unreachable(self.label, self._last_detail or error.str())
        else:
            self._last_detail = error.str()

    def _end(self) -> OpsError:
        """What ends a question early. Brokers may be back when the next one is put, so it is not kept."""
        error, self._fatal = self._fatal, None
        return error or unreachable(self.label, self._last_detail)

    def _await(self, futures: Iterable[Future]) -> None:
        """Until all are done; ends early when no broker can be reached, or none lets us in."""
        deadline = Deadline(self._timeout + 2.0)
        pending = set(futures)
        while pending:
            done, pending = concurrent.futures.wait(pending, timeout=SLICE)
            self._admin.poll(0)
            if done and any(future.exception() is None for future in done):
                self._answered = True
            elif self._fatal is not None:
                raise self._end()
            if pending and deadline.passed:
                raise unreachable(self.label, f"no answer within {self._timeout:g} s. {self._last_detail}".rstrip(". "))

    def _ask(
        self,
        send: Callable[[], Mapping[K, Future]],
        *,
        passing: tuple[str, ...] = PASSING,
        renew: Callable[[], None] | None = None,
    ) -> Mapping[K, Future]:
        """Put a batch of questions, and again while a coordinator or leader is moving; each is done when this returns.

        ``renew`` is called before a question is put again.
        """
        deadline = Deadline(self._timeout)
        while True:
            futures = send()
            self._await(futures.values())
            if deadline.passed or not any(self._name(future) in passing for future in futures.values()):
                return futures
            self._admin.poll(PAUSE)
            if renew is not None:
                renew()

    def _renew_metadata(self, topics: Iterable[str]) -> None:
        """Ask the brokers who leads the partitions of these topics now."""
        for topic in topics:
            try:
                self._admin.list_topics(topic, timeout=self._timeout)
            except self._kafka.KafkaException as error:
                raise self._explain(error.args[0], f"asking for the leaders of {topic}") from error

    def _name(self, future: Future) -> str:
        """Kafka's name of what went wrong, empty when nothing did."""
        error = future.exception()
        return str(error.args[0].name()) if isinstance(error, self._kafka.KafkaException) else ""

    def _value(self, future: Future, what: str) -> t.Any:
        """The answer, or an :class:`OpsError` that names ``what`` was asked."""
        try:
            return future.result(timeout=0)
        except self._kafka.KafkaException as error:
            raise self._explain(error.args[0], what) from error

    def _explain(self, error: t.Any, what: str) -> OpsError:
        name, text = error.name(), error.str()
        if name in NO_ANSWER:
            return unreachable(self.label, f"{what}: {text}. {self._last_detail}".rstrip(". "))
        if name.endswith("AUTHORIZATION_FAILED"):
            return OpsError(
                obj=f"event bus {self.label}",
                problem=f"{what} is not allowed: {name}, {text}",
                next_step="Give this user DESCRIBE on the cluster and topics, and READ on the group",
            )
        if name == NO_LEADER:
            return OpsError(
                obj=f"event bus {self.label}",
                problem=f"{what} failed: its partition has had no leader for {self._timeout:g} s",
                next_step="Bring back the brokers that hold its replicas, then run again",
            )
        return OpsError(
            obj=f"event bus {self.label}",
            problem=f"{what} failed: {name}, {text}",
            next_step="See the broker's log for this request, then run again",
        )

    def cluster_id(self) -> str:
        """As the metadata say that a client gets when it connects: no request of its own."""
        deadline = Deadline(self._timeout)
        while not (found := self._known_cluster_id()):
            self._admin.poll(0)
            if self._fatal is not None:
                raise self._end()
            if deadline.passed:
                raise unreachable(self.label, f"no answer within {self._timeout:g} s. {self._last_detail}".rstrip(". "))
        self._answered = True
        return found

    def _known_cluster_id(self) -> str:
        try:
            return str(self._admin.cluster_id(timeout=SLICE) or "")
        except self._kafka.KafkaException as error:
            if error.args[0].name() == "_TIMED_OUT":
                return ""
            raise self._explain(error.args[0], "reading the cluster's id") from error

    def partition_counts(self, topics: Iterable[str]) -> dict[str, int | None]:
        wanted = sorted(set(topics))
        if not wanted:
            return {}
        collection = self._kafka.TopicCollection(wanted)
        futures = self._ask(lambda: self._admin.describe_topics(collection, request_timeout=self._timeout))
        return {
            topic: None
            if self._name(future) == UNKNOWN_TOPIC
            else len(self._value(future, f"describing topic {topic}").partitions)
            for topic, future in futures.items()
        }

    def groups(self, names: Iterable[str]) -> dict[str, Group]:
        wanted = list(dict.fromkeys(names))
        futures = self._ask(lambda: self._admin.describe_consumer_groups(wanted, request_timeout=self._timeout))
        groups = {name: self._group(name, future) for name, future in futures.items()}
        if any(group.state == DEAD for group in groups.values()):
            listed = self._listed()
            for name, group in groups.items():
                if group.state == DEAD and name not in listed:
                    groups[name] = Group(name=name, state=MISSING)
        return groups

    def _listed(self) -> set[str]:
        """Names of all groups. Brokers describe one that does not exist as Dead (DescribeGroups below version 6)."""
        futures = self._ask(lambda: {"": self._admin.list_consumer_groups(request_timeout=self._timeout)})
        answer = self._value(futures[""], "listing groups")
        for error in answer.errors:
            raise self._explain(error.args[0], "listing groups")
        return {row.group_id for row in answer.valid}

    def _group(self, name: str, future: Future) -> Group:
        if self._name(future) == GROUP_ID_NOT_FOUND:
            return Group(name=name, state=MISSING)
        described = self._value(future, f"describing group {name}")
        kind = described.type.name.lower()
        members = tuple(
            Member(
                member_id=member.member_id,
                client_id=member.client_id,
                host=member.host.lstrip("/"),
                instance_id=member.group_instance_id,
                assignments=tuple(
                    TopicPartition(own.topic, own.partition)
                    for own in (member.assignment.topic_partitions if member.assignment else [])
                ),
            )
            for member in described.members
        )
        return Group(
            name=name,
            state=state_of(described.state.name),
            protocol=kind if kind in ("classic", "consumer") else None,
            assignor=described.partition_assignor or "",
            coordinator=f"{described.coordinator.host}:{described.coordinator.port}" if described.coordinator else "",
            members=members,
            member_count=len(members),
        )

    def committed(self, group: str) -> dict[TopicPartition, int]:
        request = [self._kafka.ConsumerGroupTopicPartitions(group)]
        future = self._ask(lambda: self._admin.list_consumer_group_offsets(request, request_timeout=self._timeout))[
            group
        ]
        if self._name(future) == GROUP_ID_NOT_FOUND:
            return {}
        answer = self._value(future, f"reading the offsets of group {group}").topic_partitions
        for row in answer:
            if row.error is not None:
                raise self._explain(row.error, f"reading the offset of group {group} in {row.topic}[{row.partition}]")
        return {TopicPartition(row.topic, row.partition): row.offset for row in answer if row.offset >= 0}

    def logs(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, Log]:
        wanted = list(partitions)
        starts = self._offsets(wanted, self._library.OffsetSpec.earliest())
        ends = self._offsets(wanted, self._library.OffsetSpec.latest())
        return {partition: Log(starts[partition], ends[partition]) for partition in wanted}

    def offsets_at(self, milliseconds: int, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, int | None]:
        found = self._offsets(partitions, self._library.OffsetSpec.for_timestamp(milliseconds))
        return {partition: (offset if offset >= 0 else None) for partition, offset in found.items()}

    def _offsets(self, partitions: Iterable[TopicPartition], spec: t.Any) -> dict[TopicPartition, int]:
        request = {self._kafka.TopicPartition(topic, number): spec for topic, number in partitions}
        if not request:
            return {}
        # Metadata know the topic already, or nobody would ask: a broker that does not is about to learn of it.
        futures = self._ask(
            lambda: self._admin.list_offsets(request, request_timeout=self._timeout),
            passing=(*PASSING, UNKNOWN_TOPIC, NO_LEADER),
            renew=lambda: self._renew_metadata({partition.topic for partition in request}),
        )
        return {
            TopicPartition(asked.topic, asked.partition): self._value(
                future, f"reading the log of {asked.topic}[{asked.partition}]"
            ).offset
            for asked, future in futures.items()
        }

    def commit(self, group: str, offsets: Mapping[TopicPartition, int]) -> dict[TopicPartition, str]:
        rows = [self._kafka.TopicPartition(topic, number, offset) for (topic, number), offset in offsets.items()]
        request = [self._kafka.ConsumerGroupTopicPartitions(group, rows)]
        future = self._admin.alter_consumer_group_offsets(request, request_timeout=self._timeout)[group]
        try:
            self._await([future])
        except OpsError as error:
            self._admin = self._connect()
            raise OutcomeUnknownError(error.problem) from error
        failure = future.exception()
        if failure is None:
            return {
                TopicPartition(row.topic, row.partition): _reason(row.error)
                for row in future.result().topic_partitions
                if row.error is not None
            }
        if not isinstance(failure, self._kafka.KafkaException):
            raise failure
        name = failure.args[0].name()
        if name in NO_ANSWER or name in PASSING:
            self._admin = self._connect()
            raise OutcomeUnknownError(f"{name}, {failure.args[0].str()}")
        return dict.fromkeys(offsets, _reason(failure.args[0]))


def _reason(error: t.Any) -> str:
    if error.name() in NON_EMPTY:
        return f"{error.name()}: the group has members"
    return f"{error.name()}: {error.str()}"


def state_of(name: str) -> str:
    """Return the state for librdkafka's name of it.

    What it calls UNKNOWN are states that came after it, such as a KIP-848 group's assigning and reconciling. The broker is
    sharing out partitions then: the group is neither empty nor stable, and it will be one of them.
    """
    return STATE_OF_NAME.get(name.replace("_", "").lower(), REBALANCING)
