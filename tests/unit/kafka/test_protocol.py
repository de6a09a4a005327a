# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the protocol client makes of the client library's names, without a broker."""

from __future__ import annotations

import pytest
from confluent_kafka import ConsumerGroupState, KafkaError

from ansible_collections.lowtide.ops.plugins.module_utils._common.errors import OpsError
from ansible_collections.lowtide.ops.plugins.module_utils._kafka import errors, protocol
from ansible_collections.lowtide.ops.plugins.module_utils._kafka.api import Group


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
