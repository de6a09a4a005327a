# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Shared stores whose server is cut off, slow, restarted or refuses, and late writers of a lease that passed on."""

from __future__ import annotations

import copy
import json
import multiprocessing
import os
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.lowtide.ops.plugins.module_utils._common.errors import OpsError, Refusal
from ansible_collections.lowtide.ops.plugins.module_utils._postgresql.connection import Session
from ansible_collections.lowtide.ops.plugins.plugin_utils._window import store_kubernetes, store_postgresql
from ansible_collections.lowtide.ops.plugins.plugin_utils._window.lease import TTL, LeaseLost
from ansible_collections.lowtide.ops.plugins.plugin_utils._window.processes import Owner, wait_for_end
from ansible_collections.lowtide.ops.plugins.plugin_utils._window.status import read_status
from ansible_collections.lowtide.ops.plugins.plugin_utils._window.store import StoreUnreachable
from ansible_collections.lowtide.ops.plugins.plugin_utils._window.store_kubernetes import KubernetesStore
from ansible_collections.lowtide.ops.plugins.plugin_utils._window.store_postgresql import PostgresqlStore
from support.kubernetes_account import ACCOUNT, AuditLog, expand, name_user, read_rules
from support.kubernetes_proxy import Fault, KubernetesProxy
from support.kubernetes_server import build_path
from support.postgresql_proxy import StatementProxy
from support.store_contract import Backend, list_calls, make_closed, make_opened, make_planned, start_controller
from support.tcp_proxy import TcpProxy
from support.turns import is_sweep
from support.window_stores import NAME, append, me, take

from .conftest import KubernetesPlace, PostgresqlPlace

__all__ = ["start_controller"]
pytestmark = pytest.mark.lab("kubernetes", "postgresql_versions")
JOBS = 200 if is_sweep() else 40


@pytest.fixture(params=["kubernetes", "postgresql"])
def backend(request: pytest.FixtureRequest) -> Backend:
    """A place of each kind."""
    place: Backend = request.getfixturevalue(f"{request.param}_place")
    return place


def elsewhere(number: int = 1) -> Owner:
    """A process of another machine, about which nothing can be found out here."""
    return replace(me(), host=f"job-{number}", boot=f"boot {number}")


# -- late writers ---------------------------------------------------------------------------------------------------


def test_a_late_write_of_an_owner_that_was_succeeded_is_refused_by_the_server(backend: Backend) -> None:
    """It has looked at the lease and read the journal, slept, and writes."""
    late, other = backend.connect_apart(), backend.connect_apart()
    token = take(late, elsewhere(1)).token
    append(late, make_planned("db1"))
    if isinstance(late, KubernetesStore):
        late.check(token)
        assert len(late.load(NAME)) == 1
    backend.expire()
    assert take(other, elsewhere(2)).token > token
    with pytest.raises(LeaseLost, match=f"this run held it with token {token}, and now .*job-2"):
        late.append(NAME, replace(make_planned("db2"), token=token))
    with pytest.raises(LeaseLost):
        late.renew(token)
    assert [event.host for event in other.load(NAME)] == ["db1"]  # type: ignore[attr-defined]


@pytest.mark.parametrize("summary", ["a line that needs another object", "a journal that is begun"])
def test_a_late_write_that_makes_an_object_is_refused_as_well(
    kubernetes_place: KubernetesPlace, monkeypatch: pytest.MonkeyPatch, summary: str
) -> None:
    """The creation of an object has no precondition."""
    monkeypatch.setattr(store_kubernetes, "PART_BYTES", 600)
    late, other = kubernetes_place.connect_apart(), kubernetes_place.connect_apart()
    token = take(late, elsewhere(1)).token
    append(late, make_planned("db1"))
    late.check(token)
    assert len(late.load(NAME)) == 1
    kubernetes_place.expire()
    assert take(other, elsewhere(2)).token > token
    name = NAME if "line" in summary else "weekly@another"
    with pytest.raises(LeaseLost):
        late.append(name, replace(make_planned("db2", "x" * 900), token=token))
    assert other.list_occurrences() == [NAME]
    assert [event.host for event in other.load(NAME)] == ["db1"]  # type: ignore[attr-defined]


def test_after_a_failover_that_lost_the_lease_no_two_runs_have_one_token(backend: Backend) -> None:
    """The standby had not received the lease of the first run, so nobody knows its token."""
    first = take(backend.connect_apart(), elsewhere(1)).token
    if isinstance(backend, KubernetesPlace):
        (lease,) = backend.list("Lease")
        backend.server.request("DELETE", build_path("Lease", backend.namespace, lease["metadata"]["name"]))
    elif isinstance(backend, PostgresqlPlace):
        backend.database.sql("DELETE FROM lowtide_window.lease")
    deadline = time.monotonic() + 120
    while backend.connect().read_clock() < first + 1.5:  # in the second of the first run it would have the same
        assert time.monotonic() < deadline
        time.sleep(0.1)
    second = take(backend.connect_apart(), elsewhere(2)).token
    assert second > first
    with pytest.raises(LeaseLost):
        backend.connect_apart().check(first)


def test_an_owner_that_was_frozen_between_its_looks_writes_nothing(kubernetes_place: KubernetesPlace) -> None:
    """It knows that it has the lease, is frozen, and reads the journal after somebody else has taken over."""
    late, other = kubernetes_place.connect_apart(), kubernetes_place.connect_apart()
    token = take(late, elsewhere(1)).token
    append(late, make_planned("db1"))
    late.check(token)
    kubernetes_place.expire()
    take(other, elsewhere(2))
    assert len(late.load(NAME)) == 1
    with pytest.raises(LeaseLost):
        late.append(NAME, replace(make_planned("db2"), token=token))
    assert len(other.load(NAME)) == 1


def contend(backend: Backend, number: int, barrier: Any, results: Any) -> None:
    """Be one of two jobs that start together, each in a container of its own; the clock of one is an hour off."""
    if number == 1:
        own = time.time
        time.time = lambda: own() + 3600
    store = backend.connect_apart()
    for trial in range(JOBS):
        barrier.wait()
        try:
            token = take(store, elsewhere(number), f"w@{trial}").token
        except Refusal:
            token = None
        barrier.wait()  # who came later has seen a lease that is held
        if token is not None:
            with store.lock():
                store.release(token)
        results.put((trial, token))


@pytest.mark.timeout(600)
def test_of_two_jobs_at_once_exactly_one_runs(backend: Backend) -> None:
    context = multiprocessing.get_context("fork")
    barrier, results = context.Barrier(2), context.Queue()
    processes = [context.Process(target=contend, args=(backend, number, barrier, results)) for number in (1, 2)]
    for process in processes:
        process.start()
    outcomes = [results.get(timeout=300) for _ in range(2 * JOBS)]
    for process in processes:
        process.join()
    winners = [token for trial in range(JOBS) for number, token in outcomes if number == trial and token is not None]
    assert len(winners) == JOBS
    assert winners == sorted(set(winners))


# -- the server's clock ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("off", [-3600.0, 3600.0])
def test_a_controller_whose_clock_is_off_judges_by_the_servers(
    backend: Backend, monkeypatch: pytest.MonkeyPatch, off: float
) -> None:
    now, own = time.time(), time.time
    monkeypatch.setattr(time, "time", lambda: own() + off)
    store = backend.connect()
    token = take(store, elsewhere()).token
    written = append(store, make_planned("db1"))
    store.renew(token)
    assert abs(written.at - now) < 60
    assert abs(store.read_last_renewal() - now) < 60
    assert abs(store.read_clock() - now) < 60
    monkeypatch.undo()
    assert not backend.connect().is_expired()


# -- the server is away ---------------------------------------------------------------------------------------------


def test_a_database_that_does_not_answer_is_an_oserror_in_time(postgresql_place: PostgresqlPlace) -> None:
    server = postgresql_place.database.server
    with TcpProxy(server.host, server.port) as proxy:
        store = replace(postgresql_place, changes={"login_port": proxy.port}).connect()
        token = take(store, me()).token
    store.patience = 0.2
    for call in list_calls(store, token):
        begin = time.monotonic()
        with pytest.raises(StoreUnreachable, match="PostgreSQL database"):
            call()
        assert time.monotonic() - begin < 20
    assert postgresql_place.connect().load(NAME) == []


def test_an_api_server_that_does_not_answer_is_an_oserror_in_time(
    kubernetes_place: KubernetesPlace, lab: dict[str, Any]
) -> None:
    with KubernetesProxy(lab["kubernetes"]["kubeconfig"]) as proxy:
        store = kubernetes_place.connect_through(proxy.url)
        token = take(store, me()).token
    store.patience = 0.2
    for call in list_calls(store, token):
        begin = time.monotonic()
        with pytest.raises(StoreUnreachable):
            call()
        assert time.monotonic() - begin < 20


def test_an_api_server_that_refuses_is_an_oserror_as_well(kubernetes_place: KubernetesPlace) -> None:
    """A right that was taken away, or a quota: what is in force must be reverted all the same."""
    store = kubernetes_place.connect()
    token = take(store, me()).token
    path = build_path("RoleBinding", kubernetes_place.namespace, ACCOUNT)
    kubernetes_place.server.request("DELETE", path)
    for call in list_calls(store, token):
        with pytest.raises(StoreUnreachable, match="the server answered 403"):
            call()


def test_a_database_that_takes_no_writes_is_an_oserror_as_well(postgresql_place: PostgresqlPlace) -> None:
    """As where its disk is full on a managed service, or its only host has become a standby."""
    store = postgresql_place.connect()
    store.patience = 0.2
    token = take(store, me()).token
    database = postgresql_place.database
    database.administer(f'ALTER DATABASE "{database.name}" SET default_transaction_read_only = on')
    for call in list_calls(store, token):
        with pytest.raises(StoreUnreachable, match="transactions are read only here"):
            call()
    database.administer(
        "SET default_transaction_read_only = off",
        f'ALTER DATABASE "{database.name}" RESET default_transaction_read_only',
    )
    database.sql("DROP SCHEMA lowtide_window CASCADE")
    for call in list_calls(store, token):
        with pytest.raises(StoreUnreachable, match="its tables are not there"):
            call()


@pytest.mark.parametrize(
    ("begin", "end"),
    [
        ("CONNECTION LIMIT 0", "CONNECTION LIMIT -1"),
        ("SET default_transaction_read_only = on", "RESET default_transaction_read_only"),
    ],
)
def test_a_database_that_takes_nobody_for_a_moment_is_asked_again(
    postgresql_place: PostgresqlPlace, begin: str, end: str
) -> None:
    """As with all sessions in use, or in a switchover, whatever the language of the server."""
    store, database = postgresql_place.connect(), postgresql_place.database
    statement = f'ALTER DATABASE "{database.name}"'
    database.server.administer(f"{statement} {begin}")
    patient = threading.Thread(target=lambda: append(store, make_planned("db1")))
    patient.start()
    patient.join(1.0)
    assert patient.is_alive()
    database.server.administer(f"{statement} {end}")
    patient.join(120)
    assert [event.host for event in store.load(NAME)] == ["db1"]  # type: ignore[attr-defined]


def test_an_event_whose_answer_is_lost_is_written_once_in_kubernetes(
    kubernetes_place: KubernetesPlace, lab: dict[str, Any]
) -> None:
    with KubernetesProxy(lab["kubernetes"]["kubeconfig"]) as proxy:
        store = kubernetes_place.connect_through(proxy.url)
        token = take(store, me()).token
        for number, verb in enumerate(("POST", "PATCH", "PATCH")):
            reset = "before" if number == 2 else "after"
            proxy.faults.append(Fault(verb, path="configmaps", reset=reset))
            append(store, make_planned(f"db{number}"))
            assert not [fault for fault in proxy.faults if fault.times], "the fault did not happen"
        proxy.faults.append(Fault("PATCH", path="leases", reset="after"))
        store.renew(token)
    hosts = [event.host for event in kubernetes_place.connect().load(NAME)]  # type: ignore[attr-defined]
    assert hosts == ["db0", "db1", "db2"]


@pytest.mark.parametrize("which", ["_APPEND", "_WRITE", "_END"])
def test_a_statement_whose_answer_is_lost_counts_once_in_postgresql(
    postgresql_place: PostgresqlPlace, monkeypatch: pytest.MonkeyPatch, which: str
) -> None:
    """The session ends between the statement and its answer, or (first case of each) before it is sent."""
    statement = getattr(store_postgresql, which)
    lost: list[str] = []
    query = Session.query

    def lose(self: Any, sql: Any, values: Any = None) -> Any:
        if sql is not statement or len(lost) == 2:
            return query(self, sql, values)
        lost.append(which)
        if len(lost) == 2:
            query(self, sql, values)
        pid = self.connection.info.backend_pid
        postgresql_place.database.administer(f"SELECT pg_terminate_backend({pid}, 10000)")
        return query(self, "SELECT 1")

    store = postgresql_place.connect()
    monkeypatch.setattr(Session, "query", lose)
    token = take(store, me()).token
    for number in range(2):
        with store.lock():
            store.append(NAME, replace(make_planned(f"db{number}"), token=token))
    monkeypatch.undo()
    assert lost == [which, which]
    assert [event.host for event in store.load(NAME)] == ["db0", "db1"]  # type: ignore[attr-defined]


# -- accounts, sizes, versions --------------------------------------------------------------------------------------


def test_an_account_that_may_not_make_the_tables_is_told_how(postgresql_place: PostgresqlPlace) -> None:
    database = postgresql_place.database
    user = database.server.accounts[database.server.default].user
    database.administer(
        f'ALTER DATABASE "{database.name}" OWNER TO postgres',
        f'GRANT CONNECT ON DATABASE "{database.name}" TO "{user}"',
    )
    with pytest.raises(
        Refusal, match=r"the tables are not there, and \S+ may not make them. Run docs/window-store.sql"
    ):
        postgresql_place.connect()
    script = Path("docs/window-store.sql").read_text(encoding="utf-8")
    database.administer(script.replace("lowtide_operator", f'"{user}"'))
    store = postgresql_place.connect()
    append(store, make_planned("db1"))
    with store.lock():
        store.write_report(NAME, 1, {".json": "{}"})
        store.remove([NAME])
    assert store.list_occurrences() == []


@pytest.mark.parametrize("postgresql_place", ["14", "16", "18"], indirect=True)
def test_each_version_keeps_a_journal(postgresql_place: PostgresqlPlace) -> None:
    store = postgresql_place.connect()
    written = [append(store, event) for event in (make_opened(), make_planned("db1"), make_closed())]
    assert postgresql_place.connect().load(NAME) == written
    assert postgresql_place.database.one("SELECT count(*) FROM lowtide_window.event") == 3


def test_sites_of_one_database_do_not_see_each_other(postgresql_place: PostgresqlPlace) -> None:
    shop = postgresql_place.connect()
    other = PostgresqlStore(postgresql_place.connection, site="other", ttl=TTL)
    append(shop, make_planned("db1"))
    take(other, me(), "w@1")
    assert other.list_occurrences() == []
    with shop.lock(), other.lock():
        assert other.read_lease() != shop.read_lease()


def test_a_status_of_many_journals_takes_one_session(postgresql_place: PostgresqlPlace) -> None:
    writer = postgresql_place.connect()
    for number in range(20):
        for event in (make_opened(f"weekly@{number}"), make_closed()):
            append(writer, event, f"weekly@{number}")
    server = postgresql_place.database.server
    with StatementProxy(server.host, server.port, lambda _statement: True) as proxy:
        place = replace(postgresql_place, changes={"login_port": proxy.port, "ssl_mode": "disable"})
        status = read_status(place.connect_only(), now=time.time())
        assert len(status["occurrences"]) == 5
        assert proxy.connections == 1
        assert len([one for one in proxy.statements if "lowtide_window.event" in one.text]) < 10


def test_what_a_run_connects_by_may_be_gone_for_a_moment(
    postgresql_place: PostgresqlPlace, kubernetes_place: KubernetesPlace, tmp_path: Path
) -> None:
    passfile = tmp_path / "passfile"
    place = replace(postgresql_place, changes={"passfile": str(passfile)}, patience=0.2)
    store = place.connect_only()
    with pytest.raises(StoreUnreachable, match=r"option passfile: \S+ is not there or not readable"):
        store.read_clock()
    passfile.write_text(Path(postgresql_place.connection["passfile"]).read_text(encoding="utf-8"), encoding="utf-8")
    passfile.chmod(0o600)
    assert store.read_clock()

    token, kubeconfig = tmp_path / "token", copy.deepcopy(kubernetes_place.kubeconfig)
    (user,) = kubeconfig["users"]
    plugin = {
        "apiVersion": "client.authentication.k8s.io/v1",
        "command": str(tmp_path / "plugin"),
        "interactiveMode": "Never",
    }
    token.write_text(json.dumps({"kind": "ExecCredential", "apiVersion": plugin["apiVersion"], "status": user["user"]}))
    (tmp_path / "plugin").write_text(f"#!/bin/sh\nexec cat {tmp_path}/issued\n")
    (tmp_path / "plugin").chmod(0o700)
    user["user"] = {"exec": plugin}
    changed = replace(kubernetes_place, kubeconfig=kubeconfig, patience=0.2)
    with pytest.raises(StoreUnreachable, match="plugin"):
        changed.connect().read_lease()
    token.rename(tmp_path / "issued")
    assert changed.connect().read_lease() is None


# -- renewal --------------------------------------------------------------------------------------------------------


def test_the_lease_is_renewed_as_long_as_its_controller_lives(
    backend: Backend, start_controller: Callable[[], subprocess.Popen[bytes]], tmp_path: Path
) -> None:
    controller = start_controller()
    store = backend.connect()
    store.ttl = 0.8
    record = take(store, Owner.from_pid(controller.pid))
    backend.expire()
    sign = tmp_path / "sign"
    sign.touch()
    os.utime(sign, (1, 1))
    pid = store.start_renewer(record, sign=sign)
    for _look in range(3):
        before = store.read_last_renewal()
        deadline = time.monotonic() + 60
        while store.read_last_renewal() <= before:
            assert time.monotonic() < deadline, "it was not renewed"
            time.sleep(0.05)
    assert sign.stat().st_mtime > 1
    with open(f"/proc/{pid}/cmdline", "rb") as arguments:
        assert b"passfile" not in arguments.read(), "how to connect is nobody's business"
    controller.kill()
    controller.wait()
    assert wait_for_end(pid, 120)


def test_a_connection_of_the_environment_is_used(
    postgresql_place: PostgresqlPlace,
    kubernetes_place: KubernetesPlace,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """As AWX gives it: files with another name in each job, and nothing in the inventory."""
    passfile = tmp_path / "tmpab12cd"
    connection = postgresql_place.connection
    passfile.write_text(Path(connection["passfile"]).read_text(encoding="utf-8"), encoding="utf-8")
    passfile.chmod(0o600)
    for name, value in (
        ("PGPASSFILE", str(passfile)),
        ("PGHOST", connection["login_host"]),
        ("PGPORT", str(connection["login_port"])),
        ("PGUSER", connection["login_user"]),
        ("PGDATABASE", connection["login_db"]),
    ):
        monkeypatch.setenv(name, value)
    postgresql_place.connect()
    append(PostgresqlStore({}, site="shop/prod", ttl=TTL), make_planned("db1"))
    assert len(postgresql_place.connect().load(NAME)) == 1
    kubeconfig = tmp_path / "tmpef34gh"
    kubeconfig.write_text(json.dumps(kubernetes_place.kubeconfig), encoding="utf-8")
    kubeconfig.chmod(0o600)
    monkeypatch.setenv("K8S_AUTH_KUBECONFIG", str(kubeconfig))
    store = KubernetesStore({"namespace": kubernetes_place.namespace}, site="shop/prod", ttl=TTL, folder=tmp_path)
    append(store, make_planned("db1"))
    assert len(kubernetes_place.connect().load(NAME)) == 1


def test_an_option_that_no_module_has_is_refused(
    postgresql_place: PostgresqlPlace, kubernetes_place: KubernetesPlace, tmp_path: Path
) -> None:
    with pytest.raises(OpsError, match=r"window_store\.postgresql: login_hots\. Supported parameters include"):
        PostgresqlStore({**postgresql_place.connection, "login_hots": "x"}, site="s", ttl=TTL)
    with pytest.raises(OpsError, match=r"window_store\.kubernetes: kubecfg\. Supported parameters include"):
        KubernetesStore({**kubernetes_place.connection, "kubecfg": "x"}, site="s", ttl=TTL, folder=tmp_path)


def test_the_documented_rights_are_those_that_a_window_uses(
    kubernetes_place: KubernetesPlace, lab: dict[str, Any]
) -> None:
    """By the API server's audit log: no right is missing, and none is given in vain."""
    audit = AuditLog(lab["kubernetes"])
    store = kubernetes_place.connect()
    store.create()
    token = take(store, me()).token
    for event in (make_opened(), make_planned("db1"), make_closed()):
        append(store, event)
    store.renew(token)
    with store.lock():
        store.write_report(NAME, token, {".json": "{}"})
        store.write_report(NAME, token, {".json": "{1}"})
        assert store.list_occurrences() == [NAME]
        assert store.load(NAME)
        store.release(token)
    take(store, me())
    with store.lock():
        store.remove([NAME])
    used = audit.read_rights(name_user(kubernetes_place.namespace))
    assert used == expand(read_rules("Role", "lowtide-window"))
