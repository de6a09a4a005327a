# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""System A as the demo's inventory has it, seen by other clients than the collection's own."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import boto3
import psycopg2

from ansible_collections.lowtide.ops.plugins.plugin_utils._window.events import Event, StepStarted
from ansible_collections.lowtide.ops.plugins.plugin_utils._window.store import Store
from ansible_collections.lowtide.ops.plugins.plugin_utils._window.store_file import FileStore

from .modules import CHECKOUT

INVENTORY = ("-i", str(CHECKOUT / "inventories/demo"))
WINDOW = CHECKOUT / "maintenance-window.yml"
CATCH_UP_SECONDS = 300
"""For so long workers that serve may be behind the topic."""


class Site:
    """The feature service and what it runs on. Everything here is read from the servers themselves.

    ``store`` is where its windows keep journals and reports; without it, where the demo's inventory has them.
    """

    def __init__(self, facts: dict[str, Any], *, store: Store | None = None) -> None:
        self.facts = facts
        self.store = store or FileStore(self.windows)
        self.service = facts["feature_service"]

    # -- Kubernetes -----------------------------------------------------------------------------------------------

    def kubectl(self, *arguments: str, timeout: float = 300) -> str:
        """The output of kubectl in the service's namespace."""
        kubernetes = self.facts["kubernetes"]
        command = [
            kubernetes["kubectl"],
            "--kubeconfig",
            kubernetes["kubeconfig"],
            "-n",
            self.service["namespace"],
            *arguments,
        ]
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=timeout).stdout

    def workers(self) -> dict[str, Any]:
        """The workers' StatefulSet: replicas asked for and ready, and which of our annotations say that something is in
        force. What the last rollout left says where to go back to, and stays."""
        found = json.loads(self.kubectl("get", "statefulset", self.service["worker"], "-o", "json"))
        annotations = found["metadata"].get("annotations", {})
        ours = [key for key in annotations if "lowtide" in key and key != "lowtide.ops/rollout"]
        return {"replicas": found["spec"]["replicas"], "ready": found["status"].get("readyReplicas", 0), "notes": ours}

    def api_writes(self) -> int:
        """How many writing requests the API server has answered to users outside the cluster, ever."""
        with open(self.facts["kubernetes"]["audit_log"], encoding="utf-8") as log:
            events = [json.loads(line) for line in log if line.strip()]
        return sum(
            event["verb"] not in ("get", "list", "watch")
            # A question about rights is a POST, and nothing is kept of it.
            and event.get("objectRef", {}).get("resource") != "selfsubjectaccessreviews"
            for event in events
        )

    # -- PostgreSQL -----------------------------------------------------------------------------------------------

    @contextmanager
    def database(self, name: str | None = None) -> Iterator[Any]:
        """A cursor on the primary as superuser, in autocommit."""
        postgresql = self.facts["postgresql"]
        connection = psycopg2.connect(
            host=",".join(postgresql["hosts"]),
            port=postgresql["port"],
            user=postgresql["superuser"],
            passfile=postgresql["passfile"],
            dbname=name or self.service["database"],
            target_session_attrs="read-write",
        )
        connection.autocommit = True
        with closing(connection), connection.cursor() as cursor:
            yield cursor

    def maintenance(self) -> dict[str, Any]:
        """What maintenance leaves in the catalogs: how often tables were vacuumed, indexes' files, invalid indexes."""
        with self.database() as cursor:
            cursor.execute("SELECT relname, vacuum_count, analyze_count FROM pg_stat_user_tables ORDER BY 1")
            tables = cursor.fetchall()
            cursor.execute(
                "SELECT relname, relfilenode, indisvalid FROM pg_index JOIN pg_class ON oid = indexrelid"
                " WHERE relnamespace = 'public'::regnamespace ORDER BY 1"
            )
            indexes = cursor.fetchall()
        return {"tables": tables, "indexes": indexes, "invalid": [name for name, _file, valid in indexes if not valid]}

    def tables(self) -> list[tuple[Any, ...]]:
        """What the statistics say of each table, for the message of a test that failed."""
        with self.database() as cursor:
            cursor.execute(
                "SELECT relname, n_live_tup, n_dead_tup, vacuum_count, analyze_count, last_vacuum::text,"
                " last_analyze::text, now()::text FROM pg_stat_user_tables ORDER BY 1"
            )
            return list(cursor.fetchall())

    # -- the other stores -----------------------------------------------------------------------------------------

    def backup_keys(self) -> list[str]:
        """Every key of the backup bucket; unfinished multipart uploads as ``upload:KEY``."""
        store = self.facts["s3"]
        os.environ["AWS_SHARED_CREDENTIALS_FILE"] = store["credentials_file"]
        client = boto3.Session(profile_name=store["profile"]).client(
            "s3", endpoint_url=store["endpoint_url"], region_name=store["region"]
        )
        objects = client.list_objects_v2(Bucket=store["bucket"]).get("Contents", [])
        uploads = client.list_multipart_uploads(Bucket=store["bucket"]).get("Uploads", [])
        return sorted([one["Key"] for one in objects] + [f"upload:{one['Key']}" for one in uploads])

    def audit(self) -> dict[str, Any]:
        """The service's own audit: topic and ledger compared, without any code of the collection.

        While events are missing it is asked again: workers that serve may still be behind.
        """
        end = time.monotonic() + CATCH_UP_SECONDS
        while (found := self._audit_once())["missing"] and time.monotonic() < end:
            time.sleep(0.2)
        return found

    def _audit_once(self) -> dict[str, Any]:
        environment = {**os.environ, **self.service["database_environment"]}
        done = subprocess.run(
            self.service["audit"], env=environment, capture_output=True, text=True, timeout=120, check=False
        )
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def produce(self, count: int, rate: int) -> subprocess.Popen[str]:
        """Start the bounded producer."""
        command = [*self.service["producer"], "--count", str(count), "--rate", str(rate)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    def record_some(self) -> None:
        """Produce a few events and wait until they are recorded: in a new lab there is nothing to reconcile."""
        self.produce(count=100, rate=100).communicate(timeout=300)
        found = self.audit()
        assert found["ok"], found

    @property
    def windows(self) -> Path:
        """Where the windows of the demo's site keep lease, journals and reports."""
        return Path(self.facts["lab"]["state"], "windows", "feature")

    def reports(self) -> list[dict[str, Any]]:
        """The reports of all runs of windows so far, oldest first."""
        paths = sorted(self.windows.glob("reports/*.json"), key=lambda path: path.stat().st_mtime_ns)
        return [json.loads(path.read_text(encoding="utf-8")) for path in paths]

    def events(self) -> list[Event]:
        """All events of the site's journals, oldest first."""
        events = [event for name in self.store.list_occurrences() for event in self.store.load(name)]
        return sorted(events, key=lambda event: event.at)

    def journal_size(self) -> int:
        """Bytes of the site's journals, to which events are only ever added; of others than files their events."""
        if not isinstance(self.store, FileStore):
            return len(self.events())
        return sum(path.stat().st_size for path in self.windows.glob("journals/*"))

    def wait_for_begin(self, step: str, window: subprocess.Popen[str], since: float) -> None:
        """Until the journal says that ``step`` has begun after ``since`` (seconds since 1970)."""
        end = time.monotonic() + 300
        read = 0
        while True:
            # Reading takes a processor that the window needs: only when something was added.
            if (size := self.journal_size()) > read:
                read = size
                started = [event for event in self.events() if isinstance(event, StepStarted)]
                if any(event.step == step and event.at > since for event in started):
                    return
            assert window.poll() is None, f"the window ended before its step {step}"
            assert time.monotonic() < end, f"step {step} did not begin"
            time.sleep(0.05 if isinstance(self.store, FileStore) else 0.5)

    # -- something to do ------------------------------------------------------------------------------------------

    def images(self) -> list[str]:
        """The image of each of the workers' pods."""
        pods = json.loads(self.kubectl("get", "pods", "-l", f"app={self.service['worker']}", "-o", "json"))["items"]
        return [pod["spec"]["containers"][0]["image"] for pod in pods]

    def use_image(self, image: str) -> None:
        """Have the workers serve with an image, as somebody who uses kubectl does."""
        worker = self.service["worker"]
        self.kubectl("set", "image", f"statefulset/{worker}", f"{worker}={image}")
        self.kubectl("rollout", "status", f"statefulset/{worker}", "--timeout=300s", timeout=310)

    def make_due(self, *, release: bool = False) -> None:
        """Leave a third of the history as dead rows, statistics that do not fit, and fewer workers than partitions.

        Both tables have autovacuum switched off, so nobody but a window does anything about it. With ``release`` the
        workers are of the first image, so that the second one is to be rolled out too.
        """
        with self.database() as cursor:
            cursor.execute(
                "UPDATE feature_executions SET updated_at = updated_at + interval '1 second'"
                " WHERE hashtext(id::text) % 3 = 0"
            )
            cursor.execute("UPDATE execution_steps SET detail = 'again' WHERE id % 3 = 0")
            cursor.execute("SELECT pg_stat_force_next_flush()")
        self.kubectl("scale", "statefulset", self.service["worker"], "--replicas=4")
        for counted in ("replicas", "readyReplicas"):
            condition = f"--for=jsonpath={{.status.{counted}}}=4"
            self.kubectl("wait", condition, f"statefulset/{self.service['worker']}", "--timeout=300s", timeout=310)
        image = self.service["images"][0 if release else 1]
        if set(self.images()) != {image}:
            self.use_image(image)
