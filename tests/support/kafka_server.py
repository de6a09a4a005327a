# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A Kafka broker for tests that need one of their own: each account proves itself, and may what ACLs allow it."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from .local_servers import find_free_port, wait_until

JARS = Path(os.environ.get("LOWTIDE_CACHE", "/var/cache/lowtide-lab")) / "kafka-4.1.1"
JAVA = ("/usr/bin/java", "-Xms64m", "-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp", f"{JARS}/*")
CLUSTER_ID = "MkU3OEVBNTcwNTJENDM2Qk"
ADMIN = "admin"
PASSWORD = "canary-9d3b2c44"  # noqa: S105 - of a broker that lives for one file of tests on loopback
START_SECONDS = 300.0


@dataclass(frozen=True)
class Broker:
    """Where it listens, and how one of its accounts comes in."""

    address: str

    def params(self, account: str) -> dict[str, Any]:
        """Connection options of a module."""
        return {
            "brokers": [self.address],
            "security_protocol": "SASL_PLAINTEXT",
            "sasl_mechanism": "PLAIN",
            "sasl_username": account,
            "sasl_password": PASSWORD,
        }

    def settings(self, account: str) -> dict[str, Any]:
        """Configuration of a client."""
        names = {"brokers": "bootstrap.servers"}
        given = {names.get(key, key.replace("_", ".")): value for key, value in self.params(account).items()}
        return {**given, "bootstrap.servers": self.address}


def _describe_broker(port: int, controller: int, data: Path, accounts: tuple[str, ...]) -> dict[str, object]:
    users = " ".join(f'user_{name}="{PASSWORD}"' for name in (ADMIN, *accounts))
    login = "org.apache.kafka.common.security.plain.PlainLoginModule required"
    return {
        "process.roles": "broker,controller",
        "node.id": 1,
        "controller.quorum.voters": f"1@127.0.0.1:{controller}",
        "listeners": f"SASL_PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}",
        "listener.security.protocol.map": "SASL_PLAINTEXT:SASL_PLAINTEXT,CONTROLLER:PLAINTEXT",
        "security.inter.broker.protocol": "SASL_PLAINTEXT",
        "sasl.enabled.mechanisms": "PLAIN",
        "sasl.mechanism.inter.broker.protocol": "PLAIN",
        "listener.name.sasl_plaintext.plain.sasl.jaas.config": (
            f'{login} username="{ADMIN}" password="{PASSWORD}" {users};'
        ),
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        # The controller's listener knows no accounts; nobody but the broker itself uses it.
        "super.users": f"User:{ADMIN};User:ANONYMOUS",
        "controller.listener.names": "CONTROLLER",
        "log.dirs": data,
        "auto.create.topics.enable": "false",
        "offsets.topic.replication.factor": 1,
        "offsets.topic.num.partitions": 1,
        "transaction.state.log.replication.factor": 1,
        "transaction.state.log.min.isr": 1,
        "transaction.state.log.num.partitions": 1,
    }


@contextlib.contextmanager
def start_broker(folder: Path, *accounts: str) -> Iterator[Broker]:
    """Run a broker with these accounts, which may nothing yet, and an administrator."""
    port = find_free_port()
    properties, log = folder / "server.properties", folder / "broker.log"
    values = _describe_broker(port, find_free_port(), folder / "data", accounts)
    properties.write_text("".join(f"{key}={value}\n" for key, value in values.items()), encoding="utf-8")
    arguments = ["format", "--cluster-id", CLUSTER_ID, "--config", str(properties)]
    made = subprocess.run(
        [*JAVA, "kafka.tools.StorageTool", *arguments],
        capture_output=True,
        text=True,
        timeout=START_SECONDS,
        check=False,
    )
    assert made.returncode == 0, made.stdout + made.stderr
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [*JAVA, "kafka.Kafka", str(properties)], stdin=subprocess.DEVNULL, stdout=stream, stderr=stream
        )
    broker = Broker(f"127.0.0.1:{port}")

    def is_up() -> bool:
        assert process.poll() is None, log.read_text(errors="replace")[-4000:]
        try:
            with socket.create_connection(
                ("127.0.0.1", port), timeout=5
            ):  # tells more quietly than a client that waits
                return bool(AdminClient(broker.settings(ADMIN)).list_topics(timeout=5).brokers)
        except (OSError, KafkaException):
            return False

    try:
        wait_until("the broker answers", is_up, START_SECONDS, lambda: log.read_text(errors="replace")[-4000:])
        yield broker
    finally:
        process.kill()
        process.wait(timeout=60)
