# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Patroni clusters of a test's own, each member a process that the test may kill, stop and start again."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import psycopg2
from labkit.packages import cache
from labkit.patroni_site import Node, Passwords, PatroniSite, make_certificates, make_passwords
from labkit.process import kill, wait_gone, working_in

from support.database_ports import find_port

ADDRESS = "127.0.0.1"
PATIENCE = 240.0
"""Seconds in which a cluster gets somewhere on a machine that is busy with other tests."""
Json = dict[str, Any]
TIMEOUT = 240
"""Seconds that a module has for what takes some on an idle machine."""
TAGS: dict[str, Json] = {"east1": {"site": "a"}, "east2": {"site": "b"}, "east3": {"site": "b", "nofailover": True}}
"""Members of a cluster on two sites; the third must not lead."""


def find_etcd() -> Path:
    """The lab's etcd."""
    return next(cache().glob("trixie/etcd-server*/usr/bin/etcd"))


def wait_until(condition: Callable[[], Any], what: str, seconds: float = PATIENCE) -> Any:
    """The condition's value once it is true."""
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end, f"not within {seconds:.0f} s: {what}"
        time.sleep(0.05)
    return value


class Etcd:
    """A DCS of its own."""

    def __init__(self, folder: Path) -> None:
        self.address = f"{ADDRESS}:{find_port()}"
        peer = f"http://{ADDRESS}:{find_port()}"
        own = f"http://{self.address}"
        command = [str(find_etcd()), "--name", "patroni", "--data-dir", str(folder / "etcd"), "--unsafe-no-fsync"]
        command += ["--listen-client-urls", own, "--advertise-client-urls", own, "--log-level", "warn"]
        command += ["--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer]
        command += ["--initial-cluster", f"patroni={peer}"]
        with (folder / "etcd.log").open("wb") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log)

    @contextlib.contextmanager
    def stopped(self) -> Iterator[None]:
        """The process stands still until the end of the block."""
        self.process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.process.send_signal(signal.SIGCONT)

    def close(self) -> None:
        """End it."""
        self.process.send_signal(signal.SIGCONT)
        self.process.kill()
        self.process.wait()


class Cluster:
    """A running cluster, and ways to look at it past the modules."""

    def __init__(self, site: PatroniSite) -> None:
        self.site = site
        self.nodes = {node.name: node for node in site.nodes}
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        options = site.make_rest_options()
        self.context = self._make_context(options)
        password = Path(options["password_file"]).read_text().strip()
        manager = urllib.request.HTTPPasswordMgrWithPriorAuth()
        manager.add_password(None, options["urls"], options["username"], password, is_authenticated=True)
        self.opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}),
            urllib.request.HTTPSHandler(context=self.context),
            urllib.request.HTTPBasicAuthHandler(manager),
        )

    @staticmethod
    def _make_context(options: Json) -> Any:
        import ssl

        context = ssl.create_default_context(cafile=options["ca_path"])
        context.load_cert_chain(options["client_cert"], options["client_key"])
        return context

    def start(self, *names: str) -> None:
        """Start members, all without names."""
        for name in names or self.nodes:
            config = self.site.write(self.nodes[name])
            with (config.parent / "patroni.log").open("ab") as log:
                self.processes[name] = subprocess.Popen(
                    ["/usr/bin/patroni", str(config)],
                    user="postgres",
                    group="postgres",
                    extra_groups=[],
                    cwd=config.parent,
                    env={"PATH": os.environ["PATH"], "LANG": "C.UTF-8"},
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )

    def postmaster(self, name: str) -> int:
        """The process id of a member's PostgreSQL."""
        return int((self.site.folder / name / "data/postmaster.pid").read_text().splitlines()[0])

    def kill(self, name: str) -> None:
        """End a member at once, as a power cut does: Patroni first, so that it does not start PostgreSQL again."""
        self.processes[name].kill()
        self.processes[name].wait()
        data = self.site.folder / name / "data"
        kill(working_in(data))
        wait_gone(working_in(data))

    def close(self) -> None:
        """End all members."""
        for process in self.processes.values():
            process.kill()
            process.wait()
        kill({pid for name in self.nodes for pid in working_in(self.site.folder / name / "data")})

    @property
    def params(self) -> Json:
        """Connection options of a module."""
        return self.site.make_rest_options()

    def ask(self, path: str, name: str = "", body: Any = None, method: str = "") -> Json:
        """What a member's REST interface answers; that of the first one without a name."""
        node = self.nodes[name] if name else self.site.nodes[0]
        request = urllib.request.Request(
            f"https://{ADDRESS}:{node.rest_port}{path}",
            data=None if body is None else json.dumps(body).encode(),
            method=method or ("GET" if body is None else "POST"),
        )
        with self.opener.open(request, timeout=60) as answer:
            text = answer.read().decode()
        return json.loads(text) if text.startswith(("{", "[")) else {"text": text}

    def members(self) -> dict[str, Json]:
        """The members of /cluster by name; none while it does not answer."""
        for name in self.nodes:
            with contextlib.suppress(OSError, ValueError):
                return {member["name"]: member for member in self.ask("/cluster", name)["members"]}
        return {}

    def leader(self) -> str:
        """Who leads, empty where nobody does."""
        members = self.members().values()
        return next((member["name"] for member in members if member["role"] in ("leader", "standby_leader")), "")

    def is_whole(self) -> bool:
        """Whether there is a leader and all others stream from it, on its timeline."""
        with contextlib.suppress(OSError, ValueError):
            members = self.members()
            leader = self.leader()
            if len(members) != len(self.nodes) or not leader:
                return False
            state = self.ask("/patroni", leader)
            streams = {one["application_name"] for one in state.get("replication", []) if one["state"] == "streaming"}
            return state["state"] == "running" and set(self.nodes) - {leader} <= streams
        return False

    def wait_whole(self, seconds: float = PATIENCE) -> str:
        """The leader, once all are there."""
        wait_until(self.is_whole, f"{self.site.scope} is whole: {self.members()}", seconds)
        return self.leader()

    def connect(self, name: str = "", *, database: str = "postgres") -> Any:
        """A session in autocommit: on a member, or on the primary."""
        ports = [self.nodes[name].port] if name else [node.port for node in self.site.nodes]
        connection = psycopg2.connect(
            host=",".join([ADDRESS] * len(ports)),
            port=",".join(str(port) for port in ports),
            user="postgres",
            password=self.site.passwords.superuser,
            dbname=database,
            connect_timeout=10,
            target_session_attrs="any" if name else "read-write",
        )
        connection.autocommit = True
        return connection

    def sql(self, statement: str, name: str = "") -> list[tuple[Any, ...]]:
        """Rows of a statement, on a member or on the primary."""
        with contextlib.closing(self.connect(name)) as connection, connection.cursor() as cursor:
            cursor.execute(statement)
            return cursor.fetchall() if cursor.description else []


class Region:
    """A folder with a DCS, certificates and passwords, in which clusters are made."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.passwords: Passwords = make_passwords(folder)
        self.pki = make_certificates(
            folder, ADDRESS, lambda argv: subprocess.run(argv, check=True, capture_output=True)
        )
        self.etcd = Etcd(folder)
        self.clusters: list[Cluster] = []

    def make(
        self,
        scope: str,
        members: Sequence[str],
        *,
        tags: dict[str, Json] | None = None,
        primary: Json | None = None,
        dcs: Json | None = None,
    ) -> Cluster:
        """Start a cluster; the first member bootstraps it."""
        nodes = [Node(name, find_port(), find_port(), (tags or {}).get(name, {})) for name in members]
        site = PatroniSite(
            scope, self.folder, ADDRESS, self.etcd.address, nodes, self.passwords, self.pki, primary, dcs or {}
        )
        cluster = Cluster(site)
        self.clusters.append(cluster)
        cluster.start(members[0])
        wait_until(lambda: cluster.leader() == members[0], f"{members[0]} leads {scope}")
        if members[1:]:
            cluster.start(*members[1:])
        cluster.wait_whole()
        return cluster

    def close(self) -> None:
        """End all."""
        for cluster in reversed(self.clusters):
            cluster.close()
        self.etcd.close()


@contextlib.contextmanager
def make_region() -> Iterator[Region]:
    """A region in a folder that the members' user may enter."""
    folder = Path(tempfile.mkdtemp(prefix="lowtide-patroni-"))
    folder.chmod(0o755)
    region = Region(folder)
    try:
        yield region
    finally:
        region.close()
        shutil.rmtree(folder, ignore_errors=True)
