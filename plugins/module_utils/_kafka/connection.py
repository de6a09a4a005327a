# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Connection options and the choice of the client. Private to lowtide.ops: do not import from other collections.

Mirrored by the documentation fragment ``lowtide.ops._kafka``.
"""

from __future__ import annotations

import typing as t

from ansible.module_utils.common.parameters import env_fallback

from .._common.errors import OpsError, Refusal
from .errors import other_cluster
from .protocol import ProtocolClient
from .rpk import RpkClient, command_runner

if t.TYPE_CHECKING:
    from collections.abc import Mapping

    from .api import BusClient


VARIABLES = {
    "brokers": "KAFKA_BROKERS",
    "security_protocol": "KAFKA_SECURITY_PROTOCOL",
    "sasl_mechanism": "KAFKA_SASL_MECHANISM",
    "sasl_username": "KAFKA_SASL_USERNAME",
    "sasl_password": "KAFKA_SASL_PASSWORD",
    "ssl_cafile": "KAFKA_SSL_CAFILE",
    "ssl_certfile": "KAFKA_SSL_CERTFILE",
    "ssl_keyfile": "KAFKA_SSL_KEYFILE",
}
"""Variables of our own, since Kafka's clients have none: for a credential type of AWX."""


def connection_spec() -> dict[str, dict[str, t.Any]]:
    """The connection options of every module of the group, as an argument spec (also usable as sub-options).

    An option that is not given is taken from its variable of the environment, where VARIABLES has one.
    """
    return {name: {**option, **_find_variable(name)} for name, option in _describe_options().items()}


def _find_variable(name: str) -> dict[str, t.Any]:
    return {"fallback": (env_fallback, [VARIABLES[name]])} if name in VARIABLES else {}


def _describe_options() -> dict[str, dict[str, t.Any]]:
    return {
        "brokers": {"type": "list", "elements": "str", "default": []},
        "security_protocol": {
            "type": "str",
            "choices": ["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"],
            "default": "PLAINTEXT",
        },
        "sasl_mechanism": {"type": "str", "choices": ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"]},
        "sasl_username": {"type": "str"},
        "sasl_password": {"type": "str", "no_log": True},
        "ssl_cafile": {"type": "path"},
        "ssl_certfile": {"type": "path"},
        "ssl_keyfile": {"type": "path"},
        "cluster_id": {"type": "str"},
        "client": {"type": "str", "choices": ["kafka", "rpk"], "default": "kafka"},
        "rpk_command": {"type": "str", "default": "rpk"},
        "rpk_pod": {
            "type": "dict",
            "options": {
                "namespace": {"type": "str", "required": True},
                "name": {"type": "str", "required": True},
                "container": {"type": "str"},
                "kubeconfig": {"type": "path"},
                "context": {"type": "str"},
                "kubectl": {"type": "str", "default": "kubectl"},
            },
        },
        "request_timeout": {"type": "float", "default": 15.0},
    }


def open_client(options: Mapping[str, t.Any]) -> BusClient:
    """Open a client for these options, and, where ``cluster_id`` is given, only if that cluster answers."""
    client = make_client(options)
    if options.get("cluster_id"):
        try:
            check_identity(client, options)
        except OpsError:
            client.close()
            raise
    return client


def make_client(options: Mapping[str, t.Any]) -> BusClient:
    """Make a client that has asked nothing yet. The libraries of the client that is not used are not imported."""
    if options["request_timeout"] <= 0:
        raise Refusal(
            obj="option request_timeout",
            problem=f"it is {options['request_timeout']:g} s, so no answer could be in time",
            next_step="Set it above 0",
        )
    return _rpk_client(options) if options["client"] == "rpk" else _protocol_client(options)


def check_identity(client: BusClient, options: Mapping[str, t.Any]) -> str:
    """Return the cluster's id, if it is the one of the option ``cluster_id`` or that is not given."""
    actual = client.cluster_id()
    expected = options.get("cluster_id")
    if expected and actual != expected:
        raise other_cluster(client.label, expected=expected, actual=actual)
    return actual


def _protocol_client(options: Mapping[str, t.Any]) -> BusClient:
    if not [broker for broker in options["brokers"] if broker.strip()]:
        raise Refusal(
            obj="option brokers",
            problem="it is empty, and client: kafka needs a broker to begin with",
            next_step="Set brokers to host:port of one broker or more",
        )
    return ProtocolClient(options)


def _rpk_client(options: Mapping[str, t.Any]) -> BusClient:
    pod = options.get("rpk_pod")
    place = f"rpk in pod {pod['namespace']}/{pod['name']}" if pod else f"command {options['rpk_command']}"
    brokers = ",".join(options["brokers"])
    return RpkClient(command_runner(options), f"{brokers} by {place}" if brokers else f"of {place}")
