# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The commands of docs/journal.md for shared stores, as they stand there."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.lowtide.ops.plugins.plugin_utils._window import store_kubernetes
from ansible_collections.lowtide.ops.plugins.plugin_utils._window.journal import decode_lines
from ansible_collections.lowtide.ops.plugins.plugin_utils._window.store import Store
from support.checkout import text
from support.postgresql_servers import SUPERUSER
from support.store_contract import give_back, make_planned
from support.window_stores import NAME, append

from .conftest import SITE, KubernetesPlace, PostgresqlPlace

pytestmark = pytest.mark.lab("kubernetes", "postgresql_versions")


def find_commands(section: str, program: str) -> str:
    """Return the commands of a section of the page that begin with the program."""
    page = text(Path("docs/journal.md"))
    body = page[page.index(f"\n## {section}") :]
    end = body.find("\n## ", 1)
    blocks = re.findall(r"```\n(.*?)```", body[: None if end < 0 else end], re.DOTALL)
    commands = [one for block in blocks for one in re.split(r"\n(?=\S)", block) if one.startswith(program)]
    assert commands, f"{section} has no command of {program}"
    return "\n".join(commands).rstrip()


def run(commands: str, folder: Path, names: dict[str, str], environment: dict[str, str]) -> str:
    """Return what they print."""
    for name, value in {**names, "SITE": SITE, "NAME@START": NAME}.items():
        commands = commands.replace(name, value)
    return subprocess.run(
        ["bash", "-euo", "pipefail", "-c", commands],
        check=True,
        cwd=folder,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        text=True,
    ).stdout


def require_lines(printed: str, store: Store) -> None:
    """What was printed is the journal, whole and in order."""
    events = decode_lines(printed.encode(), source="the page").events
    assert events == store.load(NAME)
    assert len(events) == 12


def test_kubernetes(
    kubernetes_place: KubernetesPlace, lab: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_kubernetes, "PART_BYTES", 600)  # more than ten objects, whose names are not in order
    store, other = kubernetes_place.connect(), "weekly@tuesday"
    for number in range(12):
        append(store, make_planned(f"db{number}", "x" * 500))
    append(store, make_planned("db1"), other)
    (lease,) = kubernetes_place.list("Lease")
    environment = {"KUBECONFIG": lab["kubernetes"]["kubeconfig"]}
    names = {
        "lowtide-window-SITE-...": lease["metadata"]["name"],
        "--namespace ops": f"--namespace {kubernetes_place.namespace}",
    }

    require_lines(run(find_commands("Where it is", "kubectl"), tmp_path, names, environment), store)
    save, restore = find_commands("Backing it up", "kubectl").rsplit("\n", 1)
    run(save, tmp_path, names, environment)
    run(find_commands("A damaged journal", "kubectl"), tmp_path, names, environment)
    assert store.list_occurrences() == [other]
    assert "db11" in (tmp_path / "damaged.json").read_text()
    printed = run(find_commands("A lease that", "kubectl"), tmp_path, names, environment)
    assert lease["spec"]["renewTime"] in printed
    assert store.read_lease() is None

    with store.lock():
        store.remove([other])
    run(restore, tmp_path, names, environment)
    assert sorted(store.list_occurrences()) == [NAME, other]
    assert len(store.load(NAME)) == 12
    append(store, make_planned("db12"))


def test_postgresql(postgresql_place: PostgresqlPlace, tmp_path: Path) -> None:
    store, other, database = postgresql_place.connect(), "weekly@tuesday", postgresql_place.database
    for number in range(12):
        append(store, make_planned(f"db{number}"))
    append(store, make_planned("db1"), other)
    connection, accounts = postgresql_place.connection, database.server.accounts
    environment = {
        "PGHOST": connection["login_host"],
        "PGPORT": str(connection["login_port"]),
        "PGUSER": connection["login_user"],
        "PGPASSFILE": str(connection["passfile"]),
        "PATH": f"{database.server.programs}:{os.environ['PATH']}",
    }
    names = {"--dbname ops": f"--dbname {database.name}"}
    require_lines(run(find_commands("Where it is", "psql"), tmp_path, names, environment), store)
    save, restore = (find_commands("Backing it up", program) for program in ("pg_dump", "pg_restore"))
    run(save, tmp_path, names, environment)
    run(find_commands("A damaged journal", "psql"), tmp_path, names, environment)
    assert store.list_occurrences() == [other]
    assert "db11" in (tmp_path / "damaged.txt").read_text()
    assert SITE in run(find_commands("A lease that", "psql"), tmp_path, names, environment)
    assert store.read_lease() is None

    database.sql("DROP SCHEMA lowtide_window CASCADE")
    as_owner = {"PGUSER": accounts[SUPERUSER].user, "PGPASSFILE": str(accounts[SUPERUSER].passfile)}
    run(restore, tmp_path, names, {**environment, **as_owner})
    assert sorted(store.list_occurrences()) == [NAME, other]
    assert len(store.load(NAME)) == 12
    held = store.read_lease()
    assert held is not None
    give_back(store, held.token)
    append(store, make_planned("db12"))
