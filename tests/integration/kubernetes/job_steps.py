# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Jobs of a test's namespace: what they run, and what became of them; a database in which they meet."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg2

from support.modules import ModuleRun

from .conftest import Namespace

Json = dict[str, Any]

JOB = "k8s_job"
SECRET_NAME = "database"  # noqa: S105
SCRIPT = """
import os, sys, time
import psycopg2
connection = psycopg2.connect("")
connection.autocommit = True
cursor = connection.cursor()
cursor.execute("SELECT pg_try_advisory_lock(%s)", (int(os.environ["LOCK"]),))
if not cursor.fetchone()[0]:
    sys.exit("another migration runs")
cursor.execute("SELECT coalesce(max(version), 0) FROM " + os.environ["TABLE"])
before = cursor.fetchone()[0]
print("schema version", before, flush=True)
time.sleep(float(os.environ["SECONDS"]))
cursor.execute("INSERT INTO " + os.environ["TABLE"] + " VALUES (%s)", (before + 1,))
print("schema version", before + 1, flush=True)
"""
"""A migration that fails when another one runs at the same time: the database itself sees to it."""
UNTIL_GO = "until [ -e /shared/go ]; do sleep 0.1; done"
"""Go on when a file is there, in a folder of ``share_folder``."""


def describe_shell(namespace: Namespace, script: str, **spec: Any) -> Json:
    """Return the spec of a Job that runs a script in a pod and is not repeated; ``spec`` adds to it."""
    container = {"name": "main", "image": namespace.facts["images"][0], "command": ["sh", "-c", script]}
    pod = {"terminationGracePeriodSeconds": 0, "containers": [container]}
    return {"backoffLimit": 0, "template": {"spec": pod}, **spec}


def share_folder(namespace: Namespace, template: Json, folder: Path) -> Json:
    """Mount a folder of this machine in the pods of a Job, at /shared; return the Job's spec."""
    folder.mkdir(exist_ok=True)
    folder.chmod(0o777)
    pod = template["template"]["spec"]
    pod |= {
        "nodeName": namespace.facts["nodes"][0]["name"],
        "volumes": [{"name": "shared", "hostPath": {"path": str(folder)}}],
    }
    pod["containers"][0]["volumeMounts"] = [{"name": "shared", "mountPath": "/shared"}]
    return template


def run(namespace: Namespace, *, check: bool = False, **params: Any) -> ModuleRun:
    """Run k8s_job with the key ``k``, unless another one is given."""
    return namespace.module(JOB, check=check, **{"name_prefix": "job", "key": "k", "timeout": 300, **params})


def list_names(namespace: Namespace) -> list[str]:
    """Return the names of all Jobs."""
    return sorted(job["metadata"]["name"] for job in namespace.list("Job"))


def is_running(namespace: Namespace, name: str) -> bool:
    """Return whether a pod of a Job runs."""
    return bool(namespace.get("Job", name).get("status", {}).get("ready"))


class Migrations:
    """A table of the lab's database to which migrations add a row each, and the Job that is one."""

    def __init__(self, namespace: Namespace, service: Json, table: str, lock: int) -> None:
        self.service = service
        self.table = table
        self.lock = lock
        password = Path(service["passfile"]).read_text(encoding="utf-8").strip().rpartition(":")[2]
        self.password = password
        secret = {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": SECRET_NAME},
            "stringData": {"pw": password},
        }
        namespace.apply(secret)

    def describe(self, seconds: float = 0.3, *, script: str = SCRIPT) -> Json:
        """Return the spec of a migration that takes so long."""
        environment = {key: value for key, value in self.service["database_environment"].items() if key != "PGPASSFILE"}
        environment |= {"TABLE": self.table, "LOCK": str(self.lock), "SECONDS": str(seconds)}
        password = {"name": "PGPASSWORD", "valueFrom": {"secretKeyRef": {"name": SECRET_NAME, "key": "pw"}}}
        container = {
            "name": "migrate",
            "image": self.service["images"][0],
            "command": ["/usr/bin/python3.11", "-c", script],
            "env": [*({"name": key, "value": value} for key, value in environment.items()), password],
        }
        pod = {"automountServiceAccountToken": False, "terminationGracePeriodSeconds": 0, "containers": [container]}
        return {"backoffLimit": 0, "template": {"spec": pod}}

    def read_versions(self) -> list[int]:
        """Return the versions that the table has."""
        with self.connect() as cursor:
            cursor.execute(f"SELECT version FROM {self.table} ORDER BY version")
            return [row[0] for row in cursor.fetchall()]

    @contextmanager
    def connect(self) -> Iterator[Any]:
        """Give a cursor of the table's owner that commits each statement."""
        names = {"PGHOST": "host", "PGPORT": "port", "PGTARGETSESSIONATTRS": "target_session_attrs"}
        names |= {"PGDATABASE": "dbname", "PGUSER": "user", "PGPASSFILE": "passfile"}
        environment = self.service["database_environment"]
        connection = psycopg2.connect(**{name: environment[key] for key, name in names.items()})
        connection.autocommit = True
        try:
            with connection.cursor() as cursor:
                yield cursor
        finally:
            connection.close()


def tell(result: ModuleRun) -> str:
    """Return everything that a run says, as one text."""
    return json.dumps(result.result, ensure_ascii=False)
