# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Places for the window's stores on the lab's servers, by accounts with the documented rights."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from labkit.postgresql_programs import VERSIONS

from ansible_collections.lowtide.ops.plugins.plugin_utils._window.lease import TTL
from ansible_collections.lowtide.ops.plugins.plugin_utils._window.store_kubernetes import KubernetesStore
from ansible_collections.lowtide.ops.plugins.plugin_utils._window.store_postgresql import PostgresqlStore
from support.kubernetes_account import (
    describe_account,
    describe_kubeconfig,
    read_cluster_entry,
    read_rules,
    request_token,
)
from support.kubernetes_server import ApiServer, build_path
from support.postgresql_servers import Database, find_server, make_database

Json = dict[str, Any]
SITE = "shop/prod"


@dataclass
class PostgresqlPlace:
    """A database that an account owns which may do nothing else. ``changes`` are other options of its connection."""

    database: Database
    changes: Json = field(default_factory=dict)
    patience: float = 30.0

    @property
    def connection(self) -> Json:
        """The options."""
        server = self.database.server
        account = server.accounts[server.default]
        return {
            "login_host": server.host,
            "login_port": server.port,
            "login_user": account.user,
            "passfile": account.passfile,
            "login_db": self.database.name,
            **self.changes,
        }

    def connect(self) -> PostgresqlStore:
        """Return one more client, with the tables."""
        store = self.connect_only()
        store.create()
        return store

    def connect_only(self) -> PostgresqlStore:
        """Return one more client, which has sent nothing."""
        return PostgresqlStore(self.connection, site=SITE, ttl=TTL, patience=self.patience)

    connect_apart = connect

    def expire(self) -> None:
        """Make the lease one that nobody renewed for its whole time."""
        self.database.sql("UPDATE lowtide_window.lease SET renewed = now() - interval '1 hour'")


@dataclass
class KubernetesPlace:
    """A namespace, and an account that may use it by the documented Role."""

    server: ApiServer
    namespace: str
    kubeconfig: Json
    folder: Path
    patience: float = 30.0

    @property
    def connection(self) -> Json:
        """The options."""
        return {"kubeconfig": self.kubeconfig, "namespace": self.namespace}

    def connect(self) -> KubernetesStore:
        """Return one more client of the same run."""
        return self.connect_in(self.folder)

    def connect_apart(self) -> KubernetesStore:
        """Return the client of another run, which shares no directory with others."""
        return self.connect_in(Path(tempfile.mkdtemp(dir=self.folder)))

    def connect_through(self, url: str) -> KubernetesStore:
        """Return one more client of the same run, by the lab's proxy at ``url``, which has credentials of its own."""
        return KubernetesStore({"host": url, "namespace": self.namespace}, site=SITE, ttl=TTL, folder=self.folder)

    def connect_in(self, folder: Path) -> KubernetesStore:
        """Return a client of the run with this directory."""
        return KubernetesStore(self.connection, site=SITE, ttl=TTL, folder=folder, patience=self.patience)

    def list(self, kind: str) -> list[Json]:
        """Return the objects of a kind that are there."""
        return self.server.list(kind, self.namespace)

    def expire(self) -> None:
        """Make the lease one that nobody renewed for its whole time."""
        (lease,) = self.list("Lease")
        path = build_path("Lease", self.namespace, lease["metadata"]["name"])
        self.server.patch(path, {"spec": {"renewTime": "2026-01-01T00:00:00.000000Z"}})


@pytest.fixture
def postgresql_place(
    lab: Json, request: pytest.FixtureRequest, unique_name: Callable[..., str]
) -> Iterator[PostgresqlPlace]:
    """A new database of the oldest version, or of the one that a test is parametrized with."""
    server = find_server(lab, getattr(request, "param", VERSIONS[0]))
    with make_database(server, unique_name) as database:
        yield PostgresqlPlace(database)


@pytest.fixture
def kubernetes_place(lab: Json, unique_name: Callable[..., str], tmp_path: Path) -> Iterator[KubernetesPlace]:
    """A new namespace, removed afterwards."""
    facts, namespace = lab["kubernetes"], unique_name("window")
    server = ApiServer(facts)
    server.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})
    for one in describe_account(namespace, read_rules("Role", "lowtide-window")):
        server.apply(one)
    token = request_token(server, namespace)
    yield KubernetesPlace(server, namespace, describe_kubeconfig(read_cluster_entry(facts), {"token": token}), tmp_path)
    server.request("DELETE", f"/api/v1/namespaces/{namespace}")
