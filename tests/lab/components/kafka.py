# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Kafka 4.1.1: one KRaft node that is broker and controller, on 10.77.0.1:9092."""

from __future__ import annotations

import secrets
import shutil
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any

from labkit.component import Component
from labkit.network import CONTROL
from labkit.packages import apt

if TYPE_CHECKING:
    from labkit.lab import Lab

VERSION = "4.1.1"
PORT = 9092
BOOTSTRAP = f"{CONTROL}:{PORT}"
CONTROLLER = f"{CONTROL}:9193"
JAVA = "/usr/bin/java"
# A small heap, and only the fast compiler: the broker is up sooner and leaves the processors to the others.
JAVA_OPTIONS = (
    "-Xms128m",
    "-Xmx512m",
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    "-Dorg.slf4j.simpleLogger.showDateTime=true",
)
ASK_CLUSTER = (
    "import sys; from confluent_kafka.admin import AdminClient; "
    "seen = AdminClient({'bootstrap.servers': sys.argv[1]}).list_topics(timeout=30); "
    "print(seen.cluster_id if seen.brokers else '')"
)


class Kafka(Component):
    """One broker. Session timeouts may be as short as 1 s; new groups rebalance for 3 s first, as everywhere."""

    name = "kafka"

    def install(self, lab: Lab) -> None:
        """Java from Debian, the broker's jars from Maven Central."""
        apt(lab, "openjdk-17-jre-headless", "maven")
        jars = self._jars(lab)
        if jars.is_dir():
            return
        partial = jars.with_name(f".{jars.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        pom = lab.checkout / "tests/lab/build/kafka/pom.xml"
        lab.build(
            f"kafka: download {VERSION}",
            ["mvn", "--batch-mode", "--file", pom, "dependency:copy-dependencies", f"-DoutputDirectory={partial}"],
        )
        partial.rename(jars)

    @staticmethod
    def _jars(lab: Lab) -> Path:
        return lab.cache / f"kafka-{VERSION}"

    def start(self, lab: Lab) -> None:
        """Format the log directory once, then run the broker."""
        state = lab.state(self.name)
        properties = state / "server.properties"
        properties.write_text("".join(f"{key}={value}\n" for key, value in self._settings(state / "data").items()))
        java = [JAVA, *JAVA_OPTIONS, "-cp", f"{self._jars(lab)}/*"]
        if not (state / "data/meta.properties").exists():
            lab.run(
                [
                    *java,
                    "kafka.tools.StorageTool",
                    "format",
                    "--cluster-id",
                    self._new_cluster_id(),
                    "--config",
                    properties,
                ]
            )
        lab.spawn(self.name, "broker", [*java, "kafka.Kafka", properties])

    @staticmethod
    def _new_cluster_id() -> str:
        """128 random bits as Kafka writes them (Uuid.randomUuid): never with a dash in front, as options have."""
        drawn = "-"
        while drawn.startswith("-"):
            drawn = secrets.token_urlsafe(16)
        return drawn

    @staticmethod
    def _settings(data: Path) -> dict[str, object]:
        return {
            "process.roles": "broker,controller",
            "node.id": 1,
            "controller.quorum.voters": f"1@{CONTROLLER}",
            "listeners": f"PLAINTEXT://{BOOTSTRAP},CONTROLLER://{CONTROLLER}",
            "advertised.listeners": f"PLAINTEXT://{BOOTSTRAP}",
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "inter.broker.listener.name": "PLAINTEXT",
            "controller.listener.names": "CONTROLLER",
            "log.dirs": data,
            "auto.create.topics.enable": "false",
            "offsets.topic.replication.factor": 1,
            "offsets.topic.num.partitions": 5,
            "transaction.state.log.replication.factor": 1,
            "transaction.state.log.min.isr": 1,
            "transaction.state.log.num.partitions": 5,
            "share.coordinator.state.topic.replication.factor": 1,
            "share.coordinator.state.topic.min.isr": 1,
            "share.coordinator.state.topic.num.partitions": 5,
            "group.min.session.timeout.ms": 1000,
            "group.consumer.min.session.timeout.ms": 1000,
            "group.consumer.min.heartbeat.interval.ms": 500,
        }

    @staticmethod
    def _cluster_id(lab: Lab) -> str:
        return lab.run([lab.cache / "venv/bin/python", "-c", ASK_CLUSTER, BOOTSTRAP]).stdout.strip()

    def ready(self, lab: Lab) -> None:
        """A client sees the broker in the cluster's metadata."""

        def seen() -> str:
            with socket.create_connection((CONTROL, PORT), timeout=5):  # costs less than a client that waits
                return self._cluster_id(lab)

        lab.wait_for(f"Kafka at {BOOTSTRAP}", seen, 300, *lab.processes(self.name))

    def facts(self, lab: Lab) -> dict[str, Any]:
        """Where it listens, and which cluster it is."""
        return {"bootstrap_servers": BOOTSTRAP, "cluster_id": self._cluster_id(lab)}
