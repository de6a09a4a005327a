# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the protocol client makes of the client library's names, and what it asks of the mock broker in that library.

The mock broker (librdkafka's ``test.mock.num.brokers``) speaks the protocol on a port of this host, and makes a topic
when it is asked for one by name, as brokers with ``auto.create.topics.enable`` do.
"""

from __future__ import annotations

import struct
from contextlib import closing

import pytest
from confluent_kafka import ConsumerGroupState, KafkaError
from confluent_kafka.admin import AdminClient

from ansible_collections.lowtide.ops.plugins.module_utils._common.errors import OpsError, Refusal
from ansible_collections.lowtide.ops.plugins.module_utils._kafka import errors, protocol
from ansible_collections.lowtide.ops.plugins.module_utils._kafka.api import Group, OffsetRange, TopicPartition
from support.tcp_proxy import API_VERSIONS, OFFSET_FETCH, KafkaProxy


class MockBroker:
    """The mock broker of a client library's instance; it ends with that."""

    def __init__(self) -> None:
        self._owner = AdminClient({"test.mock.num.brokers": 1, "bootstrap.servers": ""})
        (broker,) = self._owner.list_topics(timeout=10).brokers.values()
        self.host, self.port = broker.host, broker.port

    @property
    def address(self) -> str:
        """``host:port`` to connect to."""
        return f"{self.host}:{self.port}"

    def list_topics(self) -> list[str]:
        """Name the topics that there are; a question about all of them makes none."""
        return sorted(self._owner.list_topics(timeout=10).topics)

    def make_topic(self, name: str) -> None:
        """Ask for it by name."""
        AdminClient({"bootstrap.servers": self.address}).list_topics(name, timeout=10)


@pytest.fixture
def broker() -> MockBroker:
    """A broker without topics."""
    return MockBroker()


def test_a_library_that_is_too_old_is_named() -> None:
    """An AdminClient of confluent-kafka 2.15 has no cluster_id; the oldest is what the documentation says."""
    protocol.refuse_old_library(AdminClient, "2.16.0")
    with pytest.raises(Refusal, match=r"confluent-kafka: its version is 2\.15\.1, and 2\.16 is the oldest"):
        protocol.refuse_old_library(type("AdminClient", (), {}), "2.15.1")


def test_every_state_of_the_client_library_is_known() -> None:
    """Joining members are a rebalance, and so is a state newer than the library where there are members."""
    names = [state.name for state in ConsumerGroupState]
    assert {name: protocol.read_state(name, 2) for name in names} == {
        "UNKNOWN": "rebalancing",
        "PREPARING_REBALANCING": "rebalancing",
        "COMPLETING_REBALANCING": "rebalancing",
        "STABLE": "stable",
        "DEAD": "dead",
        "EMPTY": "empty",
    }
    assert protocol.read_state("UNKNOWN", 0) == "unknown"
    assert protocol.read_state("PREPARING_REBALANCING", 0) == "rebalancing"
    assert set(protocol.STATE_OF_NAME) == set(names) - {"UNKNOWN"}


@pytest.mark.parametrize(
    ("described", "listed", "state"),
    [
        ("dead", None, "missing"),
        ("missing", None, "missing"),
        ("dead", "DEAD", "dead"),
        ("dead", "STABLE", "unknown"),
        ("dead", "EMPTY", "unknown"),
        ("dead", "UNKNOWN", "unknown"),
        ("missing", "STABLE", "unknown"),
    ],
)
def test_dead_is_believed_only_where_the_list_agrees(described: str, listed: str | None, state: str) -> None:
    """A living share or streams group is described as dead too, and must be neither deleted nor taken for drained."""
    group = protocol.classify_dead_group(Group("g", described), listed)
    assert group.state == state
    if state == "unknown":
        assert "a group of another kind" in group.unknown.problem
        assert group.unknown.is_lasting


def test_a_state_that_the_library_has_no_name_for_may_pass() -> None:
    """It is asked again, and never said to be of rpk."""
    assert not protocol.UNTOLD_STATE.is_lasting
    assert "rpk" not in protocol.UNTOLD_STATE.problem


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (KafkaError.COORDINATOR_LOAD_IN_PROGRESS, errors.BusNotReadyError),
        (KafkaError.NOT_COORDINATOR, errors.BusNotReadyError),
        (KafkaError.UNSTABLE_OFFSET_COMMIT, errors.BusNotReadyError),
        (KafkaError._NOENT, errors.BusNotReadyError),
        (KafkaError._TRANSPORT, errors.BusUnreachableError),
        (KafkaError._TIMED_OUT, errors.BusUnreachableError),
        (KafkaError.GROUP_AUTHORIZATION_FAILED, errors.BusDeniedError),
        (KafkaError.SASL_AUTHENTICATION_FAILED, errors.BusDeniedError),
        (KafkaError._AUTHENTICATION, errors.BusDeniedError),
        (KafkaError.INVALID_REQUEST, OpsError),
    ],
)
def test_what_goes_wrong_is_of_three_classes(code: int, kind: type[OpsError]) -> None:
    """The first two pass, so that waits go on through them."""
    options = {"brokers": ["127.0.0.1:1"], "request_timeout": 1.0}
    client = protocol.ProtocolClient(options)
    try:
        error = client.explain(KafkaError(code), "asking")
    finally:
        client.close()
    assert type(error) is kind
    assert error.next_step


def make_client(address: str, seconds: float = 1.0) -> protocol.ProtocolClient:
    """A client that gives up soon."""
    return protocol.ProtocolClient({"brokers": [address], "request_timeout": seconds})


def test_a_read_makes_no_topic_and_says_that_it_is_gone(broker: MockBroker) -> None:
    """One that was deleted after its partitions were counted, on a broker that makes what it is asked for."""
    gone = TopicPartition("orders", 0)
    # It takes the whole limit, which is long enough for a busy machine: less would be a broker that does not answer.
    with closing(make_client(broker.address, 5.0)) as client, pytest.raises(errors.BusChangedError) as caught:
        client.offset_ranges([gone])
    assert broker.list_topics() == []
    assert str(caught.value).startswith(f"topic orders on event bus {broker.address}: it is gone")
    assert "for 5 s" in caught.value.problem
    assert isinstance(caught.value, errors.PASSING_ERRORS)


def test_the_count_of_records_makes_no_topic(broker: MockBroker) -> None:
    """Its consumer has the same configuration."""
    with closing(make_client(broker.address)) as client, pytest.raises(OpsError):
        client.count_records("g", {TopicPartition("orders", 0): OffsetRange(0, 1)})
    assert broker.list_topics() == []


def test_a_topic_that_is_there_is_read(broker: MockBroker) -> None:
    """The mock broker's topics have 4 empty partitions."""
    broker.make_topic("orders")
    asked = [TopicPartition("orders", number) for number in range(4)]
    with closing(make_client(broker.address, seconds=20.0)) as client:
        assert client.offset_ranges(asked) == dict.fromkeys(asked, OffsetRange(0, 0))
    assert broker.list_topics() == ["orders"]


def offer_require_stable(key: int, frame: bytes) -> bytes:
    """Say in the mock broker's answer that it knows OffsetFetch 7, the first version that has the field; it knows 6."""
    known, offered = struct.pack(">hhh", OFFSET_FETCH, 0, 6), struct.pack(">hhh", OFFSET_FETCH, 0, 7)
    return frame.replace(known, offered) if key == API_VERSIONS else frame


def test_offsets_that_a_transaction_is_about_to_commit_are_asked_for(broker: MockBroker) -> None:
    """The request says require_stable: without it a broker answers with the offsets before the transaction."""
    with (
        KafkaProxy(broker.host, broker.port, alter=offer_require_stable) as proxy,
        closing(make_client(proxy.address)) as client,
        pytest.raises(OpsError),
    ):
        client.committed("g")
    request = proxy.last_request[OFFSET_FETCH]
    assert struct.unpack(">hh", request[:4]) == (OFFSET_FETCH, 7)
    assert request[-2:] == b"\x01\x00"  # true, and no tagged fields


def test_an_empty_option_is_none() -> None:
    """AWX sets an empty variable for a field of a credential without a value, and no file has an empty name."""
    config = protocol.client_config({"request_timeout": 1, "brokers": ["b:1"], "ssl_cafile": "", "sasl_username": "u"})
    assert "ssl.ca.location" not in config
    assert config["sasl.username"] == "u"
