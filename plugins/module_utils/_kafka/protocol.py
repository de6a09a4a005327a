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
from .._common.errors import OpsError, OutcomeUnknown, Refusal
from .._common.retry import Deadline
from .api import (
    DEAD,
    EMPTY,
    MISSING,
    REBALANCING,
    STABLE,
    UNKNOWN,
    BusClient,
    Group,
    Member,
    OffsetRange,
    RecordCount,
    TopicPartition,
    UnknownState,
)
from .errors import RETRIABLE, UNSTABLE, classify_error, not_allowed, not_ready, topic_gone, unreachable
from .records import RecordCounter, count_records, reader_config

if t.TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    Future = concurrent.futures.Future[t.Any]
    K = t.TypeVar("K")

OLDEST_LIBRARY = "2.16"
GROUP_ID_NOT_FOUND = "GROUP_ID_NOT_FOUND"
UNKNOWN_TOPIC = "UNKNOWN_TOPIC_OR_PART"
NON_EMPTY = ("UNKNOWN_MEMBER_ID", "NON_EMPTY_GROUP")
"""What brokers answer to an offset commit from outside while the group has members."""
AUTHENTICATION_ERRORS = ("_AUTHENTICATION", "_SSL", "SASL_AUTHENTICATION_FAILED", "UNSUPPORTED_SASL_MECHANISM")
CONNECTION_ERRORS = (
    "_TRANSPORT",
    "_TIMED_OUT",
    "_ALL_BROKERS_DOWN",
    "REQUEST_TIMED_OUT",
    "_TIMED_OUT_QUEUE",
    "_DESTROY",
)
STATE_OF_NAME = {
    "PREPARING_REBALANCING": REBALANCING,
    "COMPLETING_REBALANCING": REBALANCING,
    "STABLE": STABLE,
    "DEAD": DEAD,
    "EMPTY": EMPTY,
}
"""Members of librdkafka's ConsumerGroupState. It has none for a KIP-848 group's Assigning and Reconciling: UNKNOWN."""
UNTOLD_STATE = UnknownState(
    "the client library has no name for its state, and it has no members",
    "Update confluent-kafka, or see the state with kafka-consumer-groups.sh --describe --state",
    is_lasting=False,
)
NO_LEADER = "_NOENT"
"""librdkafka's name for a log whose partition has no leader in the metadata that it keeps. It does not ask for newer ones by
itself: ListOffsets fails with this for as long as the client lives, also when there has long been a leader."""
WITHOUT_LOG = (UNKNOWN_TOPIC, NO_LEADER)
"""What the question for a log's offsets gets where the topic is gone, or is not known yet, or has no leader."""
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
    """Configuration of librdkafka from the module's connection options; what is None or empty is left out."""
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
        # An admin client asks for metadata of a topic by name, and brokers make the topic then unless this forbids it.
        "allow.auto.create.topics": False,
    }
    for option, name in CONFIG_OF_OPTION.items():
        if options.get(option):  # AWX sets an empty variable for a field without a value
            config[name] = options[option]
    return config


def refuse_old_library(admin_client: type, version: str) -> None:
    """Refuse a confluent-kafka whose client cannot say the cluster's id from the metadata that it has anyway."""
    if not hasattr(admin_client, "cluster_id"):
        raise Refusal(
            obj="Python library confluent-kafka",
            problem=f"its version is {version}, and {OLDEST_LIBRARY} is the oldest that is supported",
            next_step=f"Install confluent-kafka {OLDEST_LIBRARY} or newer for the interpreter of this task",
        )


class ProtocolClient(BusClient):
    """Asks the brokers themselves."""

    def __init__(self, options: Mapping[str, t.Any]) -> None:
        why = "to speak with Kafka brokers (client: kafka)"
        self._kafka = require("confluent_kafka", package="confluent-kafka", why=why)
        self._library = require("confluent_kafka.admin", package="confluent-kafka", why=why)
        refuse_old_library(self._library.AdminClient, self._kafka.__version__)
        self.label = ",".join(options["brokers"])
        self._timeout = float(options["request_timeout"])
        self._answered = False
        self._fatal: OpsError | None = None
        self._last_detail = ""
        self._config = client_config(options)
        self._logger = logging.getLogger("lowtide.ops.kafka")
        self._logger.addHandler(logging.NullHandler())
        self._logger.propagate = False
        self._admin = self._connect()

    def _connect(self) -> t.Any:
        """A client with connections of its own; broken ones are left behind with the client that held them."""
        self._answered, self._fatal = False, None
        try:
            return self._library.AdminClient({**self._config, "error_cb": self._on_error, "logger": self._logger})
        except self._kafka.KafkaException as error:
            raise OpsError(
                obj=f"event bus {self.label}",
                problem=f"these connection options cannot be used: {error.args[0].str()}",
                next_step="Correct security_protocol, sasl_* or ssl_*",
            ) from error

    def _on_error(self, error: t.Any) -> None:
        """Connection errors, reported by librdkafka beside the answers."""
        if error.name() in AUTHENTICATION_ERRORS:
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

    def _request(
        self,
        send: Callable[[], Mapping[K, Future]],
        *,
        retriable: tuple[str, ...] = RETRIABLE,
        renew: Callable[[], None] | None = None,
    ) -> Mapping[K, Future]:
        """Put a batch of questions, and again while a coordinator or leader is moving; each is done when this returns.

        ``renew`` is called before a question is put again.
        """
        deadline = Deadline(self._timeout)
        while True:
            futures = send()
            self._await(futures.values())
            if deadline.passed or not any(self._name(future) in retriable for future in futures.values()):
                return futures
            self._admin.poll(PAUSE)
            if renew is not None:
                renew()

    def _renew_metadata(self, topics: Iterable[str]) -> set[str]:
        """Ask the brokers who leads the partitions of these topics now; return the topics that they do not know."""
        unknown = set()
        for topic in topics:
            try:
                answer = self._admin.list_topics(topic, timeout=self._timeout).topics[topic]
            except self._kafka.KafkaException as error:
                raise self.explain(error.args[0], f"asking for the leaders of {topic}") from error
            if answer.error is not None and answer.error.name() == UNKNOWN_TOPIC:
                unknown.add(topic)
        return unknown

    def _name(self, future: Future) -> str:
        """Kafka's name of what went wrong, empty when nothing did."""
        error = future.exception()
        return str(error.args[0].name()) if isinstance(error, self._kafka.KafkaException) else ""

    def _value(self, future: Future, what: str) -> t.Any:
        """The answer, or an :class:`OpsError` that names ``what`` was asked."""
        try:
            return future.result(timeout=0)
        except self._kafka.KafkaException as error:
            raise self.explain(error.args[0], what) from error

    def explain(self, error: t.Any, what: str) -> OpsError:
        """Return the error of the class that the library's error belongs to."""
        name, text = error.name(), error.str()
        if name in AUTHENTICATION_ERRORS:
            return not_allowed(self.label, text)
        if name in CONNECTION_ERRORS:
            return unreachable(self.label, f"{what}: {text}. {self._last_detail}".rstrip(". "))
        if name == NO_LEADER:
            return not_ready(self.label, what, f"its partition has had no leader for {self._timeout:g} s")
        return classify_error(self.label, what, f"{name}, {text}")

    def cluster_id(self) -> str:
        """As the metadata say that a client gets when it connects: no request of its own."""
        deadline = Deadline(self._timeout)
        while not (cluster_id := self._known_cluster_id()):
            self._admin.poll(0)
            if self._fatal is not None:
                raise self._end()
            if deadline.passed:
                raise unreachable(self.label, f"no answer within {self._timeout:g} s. {self._last_detail}".rstrip(". "))
        self._answered = True
        return cluster_id

    def _known_cluster_id(self) -> str:
        try:
            return str(self._admin.cluster_id(timeout=SLICE) or "")
        except self._kafka.KafkaException as error:
            if error.args[0].name() == "_TIMED_OUT":
                return ""
            raise self.explain(error.args[0], "reading the cluster's id") from error

    def partition_counts(self, topics: Iterable[str]) -> dict[str, int | None]:
        names = sorted(set(topics))
        if not names:
            return {}
        collection = self._kafka.TopicCollection(names)
        futures = self._request(lambda: self._admin.describe_topics(collection, request_timeout=self._timeout))
        return {
            topic: None
            if self._name(future) == UNKNOWN_TOPIC
            else len(self._value(future, f"describing topic {topic}").partitions)
            for topic, future in futures.items()
        }

    def groups(self, names: Iterable[str]) -> dict[str, Group]:
        groups = self._describe_groups(list(dict.fromkeys(names)))
        suspects = [name for name, group in groups.items() if group.state in (DEAD, MISSING)]
        if not suspects:
            return groups
        listed = self._list_groups()
        # One that was made between the two questions is listed alive, and described so by now.
        alive = [name for name in suspects if name in listed and listed[name] != "DEAD"]
        described = self._describe_groups(alive) if alive else {}
        for name in suspects:
            group = described.get(name, groups[name])
            if group.state in (DEAD, MISSING):
                group = classify_dead_group(group, listed.get(name))
            groups[name] = group
        return groups

    def _describe_groups(self, names: list[str]) -> dict[str, Group]:
        futures = self._request(lambda: self._admin.describe_consumer_groups(names, request_timeout=self._timeout))
        return {name: self._group(name, future) for name, future in futures.items()}

    def _list_groups(self) -> dict[str, str]:
        """Librdkafka's name of the state of every group, by the group's name."""
        futures = self._request(lambda: {"": self._admin.list_consumer_groups(request_timeout=self._timeout)})
        answer = self._value(futures[""], "listing groups")
        for error in answer.errors:
            raise self.explain(error.args[0], "listing groups")
        return {row.group_id: row.state.name for row in answer.valid}

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
            state=read_state(described.state.name, len(members)),
            protocol=kind if kind in ("classic", "consumer") else None,
            assignor=described.partition_assignor or "",
            coordinator=f"{described.coordinator.host}:{described.coordinator.port}" if described.coordinator else "",
            members=members,
            member_count=len(members),
            unknown=UNTOLD_STATE,
        )

    def committed(self, group: str) -> dict[TopicPartition, int]:
        request = [self._kafka.ConsumerGroupTopicPartitions(group)]
        what = f"reading the offsets of group {group}"
        deadline = Deadline(self._timeout)
        while True:
            future = self._request(
                lambda: self._admin.list_consumer_group_offsets(
                    request, require_stable=True, request_timeout=self._timeout
                )
            )[group]
            if self._name(future) == GROUP_ID_NOT_FOUND:
                return {}
            answer = self._value(future, what).topic_partitions
            pending = [row for row in answer if row.error is not None]
            if not pending:
                return {TopicPartition(row.topic, row.partition): row.offset for row in answer if row.offset >= 0}
            row = pending[0]
            if deadline.passed or any(other.error.name() != UNSTABLE for other in pending):
                raise self.explain(row.error, f"{what} in {row.topic}[{row.partition}]")
            self._admin.poll(PAUSE)

    def cleanup_policies(self, topics: Iterable[str]) -> dict[str, tuple[str, ...]]:
        names = sorted(set(topics))
        if not names:
            return {}
        resources = [self._library.ConfigResource(self._library.ConfigResource.Type.TOPIC, name) for name in names]
        futures = self._request(lambda: self._admin.describe_configs(resources, request_timeout=self._timeout))
        policies = {}
        for resource, future in futures.items():
            entries = self._value(future, f"reading the configuration of topic {resource.name}")
            policies[resource.name] = tuple(entries["cleanup.policy"].value.split(","))
        return policies

    def count_records(
        self,
        group: str,
        ranges: Mapping[TopicPartition, OffsetRange],
        *,
        limit: int | None = None,
        seconds: float | None = None,
    ) -> dict[TopicPartition, RecordCount]:
        deadline = Deadline(self._timeout if seconds is None else seconds)
        config = {**reader_config(self._config, group, limit), "logger": self._logger}
        consumer = self._kafka.Consumer(config)
        try:
            return count_records(self._kafka, consumer, self.label, RecordCounter(ranges, limit), deadline)
        finally:
            consumer.close()

    def offset_ranges(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, OffsetRange]:
        partitions = list(partitions)
        starts = self._offsets(partitions, self._library.OffsetSpec.earliest())
        ends = self._offsets(partitions, self._library.OffsetSpec.latest())
        return {partition: OffsetRange(starts[partition], ends[partition]) for partition in partitions}

    def offsets_at(self, milliseconds: int, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, int | None]:
        offsets = self._offsets(partitions, self._library.OffsetSpec.for_timestamp(milliseconds))
        return {partition: (offset if offset >= 0 else None) for partition, offset in offsets.items()}

    def _offsets(self, partitions: Iterable[TopicPartition], spec: t.Any) -> dict[TopicPartition, int]:
        request = {self._kafka.TopicPartition(topic, number): spec for topic, number in partitions}
        if not request:
            return {}
        topics = {partition.topic for partition in request}
        unknown: set[str] = set()

        def renew() -> None:
            """Remember which topics the brokers did not know when they were last asked for the leaders."""
            nonlocal unknown
            unknown = self._renew_metadata(topics)

        # The topic was there when its partitions were counted: a broker that does not know it is about to learn of it,
        # or it is gone, which is sure only when it stays unknown.
        futures = self._request(
            lambda: self._admin.list_offsets(request, request_timeout=self._timeout),
            retriable=(*RETRIABLE, *WITHOUT_LOG),
            renew=renew,
        )
        for asked, future in futures.items():
            if asked.topic in unknown and self._name(future) in WITHOUT_LOG:
                raise topic_gone(self.label, asked.topic, self._timeout)
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
            raise self._lose_answer(group, error.problem) from error
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
        if name in CONNECTION_ERRORS or name in RETRIABLE:
            self._admin = self._connect()
            raise self._lose_answer(group, f"{name}, {failure.args[0].str()}")
        return dict.fromkeys(offsets, _reason(failure.args[0]))

    def _lose_answer(self, group: str, detail: str) -> OutcomeUnknown:
        return OutcomeUnknown(
            obj=f"group {group} on event bus {self.label}",
            problem=detail,
            next_step="Read the group's offsets before anything else is decided",
        )


def _reason(error: t.Any) -> str:
    if error.name() in NON_EMPTY:
        return f"{error.name()}: the group has members"
    return f"{error.name()}: {error.str()}"


def read_state(name: str, member_count: int) -> str:
    """Return the state for the name of a member of librdkafka's ConsumerGroupState.

    What it calls UNKNOWN are states that came after it, such as a KIP-848 group's assigning and reconciling. With members
    the broker is sharing out partitions then: the group is neither empty nor stable, and it will be one of them.
    """
    return STATE_OF_NAME.get(name, REBALANCING if member_count else UNKNOWN)


def classify_dead_group(group: Group, listed_state: str | None) -> Group:
    """Return what a group is that is described as dead or not found; ``listed_state``: as the broker lists it, if it does.

    Librdkafka describes consumer groups. Of a group that does not exist, and of one of another kind, brokers say Dead.
    """
    if listed_state is None:
        return Group(name=group.name, state=MISSING)
    if listed_state == "DEAD":
        return Group(name=group.name, state=DEAD, coordinator=group.coordinator)
    state = "another state" if listed_state == "UNKNOWN" else listed_state.lower()
    unknown = UnknownState(
        f"it is listed ({state}), but described as dead: a group of another kind (share or streams group), not of consumers",
        "Name a consumer group; look at this one with kafka-share-groups.sh or kafka-streams-groups.sh",
    )
    return Group(name=group.name, state=UNKNOWN, coordinator=group.coordinator, unknown=unknown)
