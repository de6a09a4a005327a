# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""An application with two roles of PostgreSQL and a Secret, and clients of it that log in ten times a second."""

from __future__ import annotations

import base64
import contextlib
import json
import secrets
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Protocol, Self

import psycopg2
from psycopg2 import sql

from .kubernetes_account import describe_account, read_cluster_entry, read_rules, request_token, write_kubeconfig
from .kubernetes_server import ApiServer
from .modules import ModuleRun, run_module
from .postgresql_rights import grant_documented_rights
from .postgresql_servers import Database, Server, make_database

Json = dict[str, Any]
SECRET = "database"  # noqa: S105 - its name
ANNOTATION = "lowtide.ops/credential"
CLIENT = """
import os, signal, socket, sys, time
import psycopg2
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
sink, pod, user = socket.socket(socket.AF_INET, socket.SOCK_DGRAM), os.environ["HOSTNAME"], os.environ["PGUSER"]
address = (os.environ["SINK_HOST"], int(os.environ["SINK_PORT"]))
while True:
    begun = time.monotonic()
    try:
        connection = psycopg2.connect()
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
        connection.close()
        said = "ok"
    except psycopg2.Error as error:
        said = str(error)
    sink.sendto(f"{user}\\n{pod}\\n{said}".encode(), address)
    time.sleep(max(0.0, 0.1 - (time.monotonic() - begun)))
"""


class Space(Protocol):
    """The part of a test's namespace that is used here."""

    name: str
    facts: Json

    def apply(self, *objects: Json) -> None: ...
    def get(self, kind: str, name: str) -> Json: ...
    def list(self, kind: str) -> list[Json]: ...
    def ready(self, kind: str, name: str, replicas: int) -> None: ...
    def request(self, method: str, kind: str, name: str = "", body: Any = None, *, type_: str = ...) -> Json: ...
    def module(self, module: str, /, *, check: bool = False, **params: Any) -> ModuleRun: ...


class Sink:
    """Counts what clients say of each login: by role, and the refused ones with their words; ``pods`` were let in."""

    def __init__(self, host: str) -> None:
        self.logins: Counter[str] = Counter()
        self.pods: set[str] = set()
        self.failures: list[str] = []
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind((host, 0))
        self.host, self.port = self._socket.getsockname()
        self._thread = threading.Thread(target=self._read, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()

    def _read(self) -> None:
        with contextlib.suppress(OSError):  # closed: the end
            while True:
                user, pod, said = self._socket.recv(65536).decode().split("\n", 2)
                self.logins[user] += 1
                if said == "ok":
                    self.pods.add(pod)
                else:
                    self.failures.append(f"{user}: {said}")


class CredentialSite:
    """A database of its own with the roles ``a`` and ``b``, a Secret with the credential of ``a``, and an account."""

    def __init__(self, space: Space, database: Database, unique_name: Callable[..., str], kubeconfig: str) -> None:
        self.space, self.database, self.server = space, database, database.server
        self.owner, self.a, self.b, self.account = (
            unique_name(name, separator="_") for name in ("owner", "a", "b", "rotator")
        )
        self.passwords = {name: secrets.token_urlsafe(16) for name in (self.a, self.account)}
        self.kubeconfig = kubeconfig

    def make(self) -> None:
        """Make the roles, the account with the documented rights, and the Secret."""
        self.sql("CREATE ROLE {}", self.owner)
        for role in (self.a, self.b):
            self.sql("CREATE ROLE {} LOGIN", role)
            self.sql("GRANT {} TO {}", self.owner, role)
            self.sql("ALTER ROLE {} SET role = {}", role, self.owner)
        self.sql("GRANT CONNECT ON DATABASE {} TO {}", self.database.name, self.owner)
        grant_documented_rights(
            self.server.superuser, self.database.name, credentials=self.account, first=self.a, second=self.b
        )
        for role, password in self.passwords.items():
            self.set_password(role, password)
        self.put({"username": self.a, "password": self.passwords[self.a], "other": "kept"})

    def remove(self) -> None:
        """Remove the roles; the database goes first."""
        self.server.administer(
            sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(self.database.name))
        )
        for role in (self.a, self.b, self.account, self.owner):
            self.sql("DROP ROLE IF EXISTS {}", role)

    def sql(self, statement: str, *names: str) -> list[tuple[Any, ...]]:
        """Execute a statement as superuser in the database ``postgres``, with quoted names."""
        return self.server.administer(sql.SQL(statement).format(*map(sql.Identifier, names)))

    def set_password(self, role: str, password: str) -> None:
        """Set a password as an administrator does."""
        statement = sql.SQL("ALTER ROLE {} PASSWORD {}").format(sql.Identifier(role), sql.Literal(password))
        self.server.administer(statement)

    def put(self, values: dict[str, str], **fields: Any) -> None:
        """Have a Secret with these values."""
        data = {key: base64.b64encode(value.encode()).decode() for key, value in values.items()}
        self.space.apply({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": SECRET}, "data": data, **fields})

    def params(self, **options: Any) -> Json:
        """Options of the module, by the accounts with the documented rights."""
        return {
            "login_host": self.server.host,
            "login_port": self.server.port,
            "login_db": self.database.name,
            "login_user": self.account,
            "login_password": self.passwords[self.account],
            "system_identifier": self.server.system_identifier,
            "kubernetes_connection": {"kubeconfig": self.kubeconfig},
            "namespace": self.space.name,
            "secret": SECRET,
            "roles": [self.a, self.b],
            "owner": self.owner,
            "timeout": 120,
            **options,
        }

    def run(self, *, check: bool = False, **options: Any) -> ModuleRun:
        """Run pg_credential."""
        return run_module("pg_credential", self.params(**options), check=check)

    def values(self) -> dict[str, str]:
        """What the Secret has."""
        data = self.space.get("Secret", SECRET)["data"]
        return {key: base64.b64decode(value).decode() for key, value in data.items()}

    def note(self) -> Json | None:
        """What is noted on the Secret."""
        text = self.space.get("Secret", SECRET)["metadata"].get("annotations", {}).get(ANNOTATION)
        return None if text is None else dict(json.loads(text))

    def execute(self, statement: str) -> list[tuple[Any, ...]]:
        """Execute a statement as superuser in the application's database."""
        return self.server.administer(sql.SQL(statement), database=self.database.name)

    def edit(self, values: Mapping[str, str | None], *, keeps_note: bool = True) -> None:
        """Change or remove keys of the Secret as a person does, and the annotation."""
        data = {key: None if text is None else base64.b64encode(text.encode()).decode() for key, text in values.items()}
        body: Json = {"data": data}
        if not keeps_note:
            body["metadata"] = {"annotations": {ANNOTATION: None}}
        self.space.request("PATCH", "Secret", SECRET, body, type_="merge-patch+json")

    def write_note(self, note: Json) -> None:
        """Have this noted on the Secret."""
        body = {"metadata": {"annotations": {ANNOTATION: json.dumps(note)}}}
        self.space.request("PATCH", "Secret", SECRET, body, type_="merge-patch+json")

    def connect(self, user: str, password: str, **where: Any) -> Any:
        """Return a session of a client, on this server or on another one."""
        parameters: Json = {"host": self.server.host, "port": self.server.port, "dbname": self.database.name, **where}
        return psycopg2.connect(**parameters, user=user, password=password)

    def find_log(self) -> str:
        """Return what the server of this version has logged."""
        logs = [path for path in (self.server.folder.parent / "log").iterdir() if str(self.server.version) in path.name]
        return "".join(path.read_text(encoding="utf-8", errors="replace") for path in logs)

    def may_login(self, user: str, password: str, **where: Any) -> bool:
        """Whether a login works, for whatever reason not."""
        try:
            self.connect(user, password, **where).close()
        except psycopg2.OperationalError:
            return False
        return True

    def works(self) -> bool:
        """Whether the credential of the Secret opens the database."""
        values = self.values()
        return self.may_login(values["username"], values["password"])

    def start_clients(self, sink: Sink, image: str, *, kind: str = "Deployment", **more: Any) -> None:
        """Have a workload of two pods that get the credential as variables and log in ten times a second.

        ``more`` are further fields of the container.
        """
        variables = {"PGHOST": self.server.host, "PGPORT": self.server.port, "PGDATABASE": self.database.name}
        variables |= {"PGCONNECT_TIMEOUT": 60, "SINK_HOST": sink.host, "SINK_PORT": sink.port}
        env: list[Json] = [{"name": name, "value": str(value)} for name, value in variables.items()]
        for name, key in (("PGUSER", "username"), ("PGPASSWORD", "password")):
            env.append({"name": name, "valueFrom": {"secretKeyRef": {"name": SECRET, "key": key}}})
        container = {"name": "main", "image": image, "command": ["/usr/bin/python3.11", "-c", CLIENT], "env": env}
        container |= more
        template = {
            "metadata": {"labels": {"app": "client"}},
            "spec": {"terminationGracePeriodSeconds": 5, "containers": [container]},
        }
        spec: Json = {"replicas": 2, "selector": {"matchLabels": {"app": "client"}}, "template": template}
        if kind == "StatefulSet":
            spec["serviceName"] = "client"
        self.space.apply({"apiVersion": "apps/v1", "kind": kind, "metadata": {"name": "client"}, "spec": spec})
        self.space.ready(kind, "client", 2)


@contextmanager
def make_site(
    space: Space, server: Server, api: ApiServer, unique_name: Callable[..., str], folder: Any
) -> Iterator[CredentialSite]:
    """Make an application with its roles and its Secret; both accounts have exactly the documented rights."""
    rules = [*read_rules("Role", "lowtide-credentials"), *read_rules("Role", "lowtide-rollout")]
    space.apply(*describe_account(space.name, rules))
    token = request_token(api, space.name)
    path = write_kubeconfig(folder / "credentials.kubeconfig", read_cluster_entry(space.facts), {"token": token})
    with make_database(server, unique_name) as database:
        site = CredentialSite(space, database, unique_name, str(path))
        try:
            site.make()
            yield site
        finally:
            site.remove()
