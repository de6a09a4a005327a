# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The feature service in small: workers that record the events of a topic in a database, an API, a bounded producer."""

from __future__ import annotations

import json
import secrets
from pathlib import Path
from typing import Any, ClassVar

from labkit import feature_image, feature_objects
from labkit.component import Component
from labkit.errors import LabError
from labkit.lab import Lab
from labkit.network import CONTROL, POSTGRESQL
from labkit.postgresql_accounts import FEATURE_DATABASE, LIMITED_ACCOUNTS, make_grant_arguments
from labkit.postgresql_programs import DEBIAN_VERSION, find_server_programs
from labkit.private import write_private

from components.kubernetes import Kubernetes

BROKERS = f"{CONTROL}:9092"
TOPIC = "feature.events"
PARTITIONS = 12
GROUP = "feature-workers"
DATABASE = FEATURE_DATABASE
OWNER = "feature_owner"
MAINTENANCE = "feature_maintenance"
BACKUP = LIMITED_ACCOUNTS[DATABASE]
SERVERS = {
    "PGHOST": ",".join(POSTGRESQL),
    "PGPORT": "5432",
    "PGTARGETSESSIONATTRS": "read-write",
    "PGCONNECT_TIMEOUT": "3",
}
CLUSTER = Kubernetes()


class FeatureService(Component):
    """Workers and API in the cluster. On a running lab only what is missing is made: scaling and images stay."""

    name: ClassVar[str] = "feature_service"
    requires: ClassVar[tuple[str, ...]] = ("kubernetes", "kafka", "postgresql")

    def install(self, lab: Lab) -> None:
        """The image, under two tags."""
        feature_image.build(lab)

    def start(self, lab: Lab) -> None:
        """Images, topic, database, objects."""
        password = self._password(lab)
        CLUSTER.load_images(lab, feature_image.build(lab))
        self._set_up(lab, password)
        wanted = feature_objects.objects(
            image=f"{feature_image.NAME}:{feature_image.TAGS[0]}",
            bus={"FEATURE_BROKERS": BROKERS, "FEATURE_TOPIC": TOPIC, "FEATURE_GROUP": GROUP},
            database={**SERVERS, "PGDATABASE": DATABASE, "PGUSER": OWNER},
            password=password,
        )
        missing = [one for one in wanted if not CLUSTER.exists(lab, one["kind"], one["metadata"])]
        if missing:
            CLUSTER.kubectl(
                lab, "create", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": missing})
            )
        CLUSTER.grant_rights(lab, feature_objects.NAMESPACE)

    def _password(self, lab: Lab, account: str = OWNER) -> str:
        """The password of the owner or another account, made once; also as a libpq passfile."""
        path = lab.state(self.name) / ("password" if account == OWNER else f"{account}.password")
        if not path.exists():
            write_private(path, secrets.token_urlsafe(24))
        password = path.read_text()
        write_private(self._passfile(lab, account), f"*:*:*:{account}:{password}\n")
        return password

    def _passfile(self, lab: Lab, account: str = OWNER) -> Path:
        return lab.state(self.name) / ("passfile" if account == OWNER else f"{account}.passfile")

    def _set_up(self, lab: Lab, password: str) -> None:
        facts = lab.facts()["postgresql"]
        superuser = {**SERVERS, "PGUSER": facts["superuser"], "PGPASSFILE": facts["passfile"]}
        lab.run(
            [
                *self._program(lab, "setup.py"),
                *["--brokers", BROKERS, "--topic", TOPIC, "--partitions", str(PARTITIONS)],
                *["--database", DATABASE, "--role", OWNER, "--maintenance-role", MAINTENANCE, "--backup-role", BACKUP],
            ],
            env={
                **superuser,
                "FEATURE_PASSWORD": password,
                "FEATURE_MAINTENANCE_PASSWORD": self._password(lab, MAINTENANCE),
                "FEATURE_BACKUP_PASSWORD": self._password(lab, BACKUP),
            },
            seconds=600,
        )
        psql = find_server_programs(lab, DEBIAN_VERSION) / "psql"
        grants = make_grant_arguments(owner=OWNER, maintenance=MAINTENANCE, backup=BACKUP)
        lab.run([psql, "-d", DATABASE, *grants], env=superuser)

    @staticmethod
    def _program(lab: Lab, name: str) -> list[str]:
        return [str(lab.cache / "venv/bin/python"), str(feature_image.PROGRAMS / name)]

    def ready(self, lab: Lab) -> None:
        """All pods that are wanted are ready, and the group is stable with every worker in it."""
        lab.wait_for("feature service: pods", lambda: self._pods_ready(lab), 400)
        lab.wait_for(f"consumer group {GROUP}", lambda: self._group_complete(lab), 300)

    @staticmethod
    def _workload(lab: Lab, resource: str, name: str) -> dict[str, Any]:
        return CLUSTER.get(lab, f"/apis/apps/v1/namespaces/{feature_objects.NAMESPACE}/{resource}/{name}")

    def _pods_ready(self, lab: Lab) -> bool:
        for resource, name in (("statefulsets", feature_objects.WORKER), ("deployments", feature_objects.API)):
            found = self._workload(lab, resource, name)
            wanted, ready = found["spec"]["replicas"], found["status"].get("readyReplicas", 0)
            if ready != wanted:
                raise LabError(
                    obj=f"{resource}/{name}",
                    problem=f"{ready} of {wanted} replicas are ready",
                    next_step=f"See `kubectl describe pods --namespace {feature_objects.NAMESPACE}`",
                )
        return True

    def _group_complete(self, lab: Lab) -> bool:
        workers = self._workload(lab, "statefulsets", feature_objects.WORKER)["spec"]["replicas"]
        group = json.loads(lab.run([*self._program(lab, "group.py"), "--brokers", BROKERS, "--group", GROUP]).stdout)
        assigned = sum(group["members"].values())
        wanted = ("STABLE", workers, PARTITIONS) if workers else ("EMPTY", 0, 0)
        seen = (group["state"], len(group["members"]), assigned)
        if seen != wanted:
            raise LabError(
                obj=f"consumer group {GROUP}",
                problem=f"its state, members and assigned partitions are {seen}, not {wanted}",
                next_step="See the workers' logs",
            )
        return True

    def facts(self, lab: Lab) -> dict[str, Any]:
        """Names of everything, and how to produce events and how to audit them."""
        bus = ["--brokers", BROKERS, "--topic", TOPIC]
        return {
            "namespace": feature_objects.NAMESPACE,
            "worker": feature_objects.WORKER,
            "workers": feature_objects.REPLICAS[feature_objects.WORKER],
            "api": feature_objects.API,
            "port": feature_objects.PORT,
            "topic": TOPIC,
            "partitions": PARTITIONS,
            "group": GROUP,
            "database": DATABASE,
            "owner_role": OWNER,
            "passfile": str(self._passfile(lab)),
            "accounts": {
                "maintenance": {"user": MAINTENANCE, "passfile": str(self._passfile(lab, MAINTENANCE))},
                "backup": {"user": BACKUP, "passfile": str(self._passfile(lab, BACKUP))},
            },
            "images": [f"{feature_image.NAME}:{tag}" for tag in feature_image.TAGS],
            "database_environment": {
                **SERVERS,
                "PGDATABASE": DATABASE,
                "PGUSER": OWNER,
                "PGPASSFILE": str(self._passfile(lab)),
            },
            "producer": [*self._program(lab, "producer.py"), *bus],
            "audit": [*self._program(lab, "audit.py"), *bus, "--group", GROUP],
        }
