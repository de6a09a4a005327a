# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A PostgreSQL server that archives its WAL by pgBackRest into a repository of its own, for each test."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from labkit.postgresql_programs import USER

from support.modules import ModuleRun, finish_module, start_module

STANZA = "shop"
PATIENCE = 300.0
"""Seconds that a run may take on a machine that is busy with other tests."""
AS_OWNER = ("setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups", "env", "HOME=/nonexistent")
CONFIGURATION = """[global]
repo1-path={place}/repository
repo1-retention-full=3
repo1-bundle=y
log-path={place}/log
lock-path={place}/lock
spool-path={place}/spool
start-fast=y
compress-type=lz4
archive-timeout=120
[{stanza}]
pg1-path={place}/data
pg1-socket-path={place}
"""
SERVER = """
listen_addresses = ''
unix_socket_directories = '{place}'
archive_mode = on
archive_command = 'pgbackrest --config={place}/pgbackrest.conf --stanza={stanza} archive-push %p'
autovacuum = off
fsync = off
"""


@dataclass(frozen=True)
class Archived:
    """The server, its repository, and the module on it as their owner."""

    place: Path
    programs: Path

    @property
    def config(self) -> str:
        """pgBackRest's configuration file."""
        return str(self.place / "pgbackrest.conf")

    def run(self, *argv: str | Path) -> str:
        """Run a program as the owner."""
        done = subprocess.run(
            [*AS_OWNER, *map(str, argv)], cwd=self.place, capture_output=True, text=True, check=False, timeout=300
        )
        assert done.returncode == 0, f"{argv}: {done.stdout}{done.stderr}"
        return done.stdout

    def control(self, *arguments: str) -> None:
        """Start or stop the server, whole."""
        argv: tuple[str | Path, ...] = (
            "-D",
            self.place / "data",
            "-l",
            self.place / "log/server",
            "-w",
            "-t",
            "240",
            *arguments,
        )
        self.run(self.programs / "pg_ctl", *argv)

    def sql(self, statement: str) -> str:
        """One statement; the rows."""
        argv = ("-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-h", self.place, "-d", "postgres", "-c", statement)
        return self.run(self.programs / "psql", *argv).strip()

    def pgbackrest(self, *arguments: str) -> str:
        """Run pgBackRest past the module."""
        return self.run("pgbackrest", f"--config={self.config}", f"--stanza={STANZA}", *arguments)

    def start(self, *, check: bool = False, **params: Any) -> subprocess.Popen[str]:
        """Start the module."""
        params = {"stanza": STANZA, "config": self.config, **params}
        return start_module("pgbackrest_backup", params, check=check, wrapper=AS_OWNER)

    def back_up(self, *, check: bool = False, **params: Any) -> ModuleRun:
        """The module to its end."""
        return finish_module(self.start(check=check, **params))

    def list_backups(self) -> list[dict[str, Any]]:
        """What pgBackRest says that there is."""
        return list(json.loads(self.pgbackrest("info", "--output=json"))[0]["backup"])


@contextlib.contextmanager
def make_place(programs: Path) -> Iterator[Archived]:
    """A folder whose server is stopped at the end, and which is removed then."""
    # pytest's folders are closed to other users, and a socket's path must be short.
    place = Path(tempfile.mkdtemp(prefix="lowtide-br-"))
    server = Archived(place, programs)
    try:
        yield server
    finally:
        if (place / "data/postmaster.pid").exists():
            server.control("stop", "-m", "immediate")
        shutil.rmtree(place)


def configure(server: Archived) -> None:
    """Have the configuration of server and pgBackRest lead to their folder."""
    place = server.place
    (place / "pgbackrest.conf").write_text(CONFIGURATION.format(place=place, stanza=STANZA))
    (place / "data/postgresql.conf").write_text(SERVER.format(place=place, stanza=STANZA))
    for path in (place, *place.iterdir()):
        shutil.chown(path, USER, USER)


@pytest.fixture(scope="session")
def template(lab_facts: dict[str, Any]) -> Iterator[Archived]:
    """A server of Debian's version with a stanza, which has been stopped: each test has a copy of it."""
    with make_place(Path(lab_facts["postgresql_versions"]["servers"]["15"]["programs"])) as server:
        for name in ("repository", "log", "lock"):
            (server.place / name).mkdir()
        shutil.chown(server.place, USER, USER)
        argv = (
            "--no-sync",
            "--wal-segsize=1",
            "--data-checksums",
            "--encoding=UTF8",
            "--locale=C.UTF-8",
            "--auth=peer",
        )
        server.run(server.programs / "initdb", "-D", server.place / "data", *argv)
        configure(server)
        server.control("start")
        server.pgbackrest("stanza-create")
        server.control("stop", "-m", "fast")
        yield server


@pytest.fixture
def archived(template: Archived) -> Iterator[Archived]:
    """A server with a stanza and no backup."""
    with make_place(template.programs) as server:
        subprocess.run(["cp", "-a", f"{template.place}/.", str(server.place)], check=True)
        configure(server)
        server.control("start")
        yield server
