# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The fast window with lease and journals on a server, each run in a container of its own: killed, and run again.

A run's own directory and pid namespace end with it. LOWTIDE_EXHAUSTIVE=1 kills at ten points with each way on.
"""

from __future__ import annotations

import random
import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from labkit.ansible_versions import VERSIONS as ANSIBLE_VERSIONS

from ansible_collections.lowtide.ops.plugins.plugin_utils._window.events import WindowOpened
from support.fast_window import END, RESTORE, STATUS, TASKS, FastWindow, Played
from support.kubernetes_proxy import KubernetesProxy
from support.store_contract import Backend
from support.tcp_proxy import TcpProxy
from support.turns import is_sweep

from .conftest import SITE, KubernetesPlace, PostgresqlPlace

pytestmark = [pytest.mark.lab("kubernetes", "postgresql_versions"), pytest.mark.timeout(600)]
CONTAINER = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c", '"$@"; exit $?', "sh")
"""A pid namespace whose first process is not the controller, and with whose end everything in it ends."""
STORES = ["kubernetes", "postgresql"]
POINTS = sorted(random.Random(13).sample(range(8, TASKS - 4), 10))  # noqa: S311 (a sample, no secret)
KILLED = (
    [(store, point, way) for store in STORES for point in POINTS for way in ("run_again", "restored")]
    if is_sweep()
    else [("kubernetes", POINTS[4], "run_again"), ("postgresql", POINTS[6], "restored")]
)
UP = {"web1": {"replicas": 3}, "web2": {"replicas": 3}}


@pytest.fixture(autouse=True)
def _renew_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the jobs renew often, so that a lease that is over is taken soon."""
    monkeypatch.setenv("FAST_RENEWAL", "5")


def make_window(backend: Backend, folder: Path, kind: str, **changes: Any) -> FastWindow:
    """Return the fast window of a site whose lease and journals are in a place."""
    place: Any = backend
    connection = {**place.connection, **changes}
    variables = {"window_store": {kind: connection}, "window_site": SITE}
    return FastWindow(
        folder / "fast", ANSIBLE_VERSIONS[0], shared=backend.connect(), variables=variables, within=CONTAINER
    )


def find_webs(window: FastWindow) -> dict[str, Any]:
    """Return the workers as they are."""
    return {host: values for host, values in window.world().items() if host.startswith("web")}


@pytest.mark.parametrize(("kind", "point", "way"), KILLED)
def test_killed_with_its_container_and_run_in_another(
    request: pytest.FixtureRequest, tmp_path: Path, kind: str, point: int, way: str
) -> None:
    backend: Backend = request.getfixturevalue(f"{kind}_place")
    window = make_window(backend, tmp_path, kind)
    killed = window.play(env={"KILL_AT": f"{point}:{int(signal.SIGKILL)}"})
    assert killed.rc != 0
    assert "PLAY RECAP" not in killed.out
    held = window.store.read_lease()
    assert held is not None
    assert not held.released
    backend.expire()  # else the next run waits for that
    if way == "restored":
        restored = window.play(playbook=RESTORE)
        assert restored.rc == 0, killed.out + restored.out
        assert find_webs(window) == UP
    again = window.play()
    assert again.rc == 0, killed.out + again.out
    assert window.world() == END
    assert window.states()[-1] in {"succeeded", "no_changes"}
    status = window.play(playbook=STATUS)
    assert "Nothing is left to revert" in status.out
    assert f"Site site {SITE} in" in status.out


@pytest.mark.parametrize("kind", STORES)
def test_two_jobs_at_once_and_a_report_in_the_store(request: pytest.FixtureRequest, tmp_path: Path, kind: str) -> None:
    backend: Backend = request.getfixturevalue(f"{kind}_place")
    window = make_window(backend, tmp_path, kind)
    job: dict[str, Any] = {"awx_user_name": "alice", "awx_job_template_name": "window"}
    processes = [window.start(**job, awx_job_id=number) for number in (7, 8)]
    first, second = sorted((window.finish(process) for process in processes), key=lambda run: run.rc)
    assert first.rc == 0, first.out
    assert second.rc != 0
    assert "refused" in second.verdict
    assert window.world() == END
    (opened,) = [event for event in window.events() if isinstance(event, WindowOpened)]
    assert opened.job["user"] == "alice"
    assert f"Run as AWX job {opened.job['id']} of template window, by alice" in first.out
    where = " ".join(first.out.split()).partition("Report: ")[2]
    assert where.startswith("ConfigMap lowtide-report-" if kind == "kubernetes" else "lowtide_window.report of")


class Cut:
    """Cuts the server off once a step is at work."""

    def __init__(self, window: FastWindow, proxy: Any) -> None:
        self.window, self.proxy = window, proxy

    def play(self) -> Played:
        """Run the window; the server is away from the first backup on."""
        process = self.window.start()
        deadline = time.monotonic() + 300
        while not any("backups" in values for values in self.window.world().values()):
            assert time.monotonic() < deadline, "no backup was made"
            time.sleep(0.05)
        self.proxy.__exit__(None, None, None)
        return self.window.finish(process)


@pytest.mark.parametrize("kind", [pytest.param("kubernetes", marks=pytest.mark.sweep), "postgresql"])
def test_a_server_that_is_cut_off_lets_no_step_begin_and_reverting_steps_run(
    request: pytest.FixtureRequest, tmp_path: Path, lab: dict[str, Any], kind: str
) -> None:
    if kind == "postgresql":
        database: PostgresqlPlace = request.getfixturevalue("postgresql_place")
        server = database.database.server
        proxy: Any = TcpProxy(server.host, server.port).__enter__()
        backend: Backend = database
        window = make_window(replace(database), tmp_path, kind, login_port=proxy.port)
    else:
        namespace: KubernetesPlace = request.getfixturevalue("kubernetes_place")
        proxy = KubernetesProxy(lab["kubernetes"]["kubeconfig"]).__enter__()
        backend = namespace
        window = make_window(namespace, tmp_path, kind, host=proxy.url, kubeconfig=None)
    run = Cut(window, proxy).play()
    assert run.rc != 0
    assert "failed_reverted" in run.verdict, run.out[-3000:]
    assert find_webs(window) == UP
    window.variables["window_store"] = {kind: backend.connection}  # type: ignore[attr-defined]
    backend.expire()
    again = window.play()
    assert again.rc == 0, run.out[-3000:] + again.out
    assert {
        host: {**values, "backups": 1} if host.startswith("db") else values for host, values in window.world().items()
    } == END
