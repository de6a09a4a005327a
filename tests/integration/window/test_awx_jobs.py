# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The fast window as jobs of AWX run it: by ansible-runner, each in a container and folder of its own."""

from __future__ import annotations

import re
import signal
from datetime import UTC, datetime, timedelta

import pytest

from ansible_collections.lowtide.ops.plugins.plugin_utils._window.events import WindowOpened
from support.awx_jobs import RESTORE, Controller, Ended, Job, open_controller
from support.fast_window import BEGINNING, END
from support.store_contract import Backend

pytestmark = [pytest.mark.lab("kubernetes", "postgresql_versions"), pytest.mark.timeout(600)]
STORES = ["kubernetes", "postgresql"]
STOP_AT_STOP = {"WORLD_KILL": f"after:web1:workers stop:{int(signal.SIGSTOP)}"}
"""The controller stops once the first worker is stopped."""
STOP_AT_VACUUM = {"WORLD_KILL": f"before:db2:dead rows above the limit:{int(signal.SIGSTOP)}"}
"""The controller stops when one database has been maintained."""
UP = {"web1": {"replicas": 3}, "web2": {"replicas": 3}}


@pytest.fixture(autouse=True)
def _renew_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the jobs renew often, so that a lease that is over is taken soon."""
    monkeypatch.setenv("FAST_RENEWAL", "5")


def assert_nothing_leaked(controller: Controller, ended: Ended, job: Job) -> None:
    """No secret and no path of a credential file is in what AWX keeps, nor in a journal."""
    journals = repr(controller.window.events())
    text = "".join(one.content for one in controller.credentials)
    secrets = re.findall(r'"token": "([^"]+)"', text) + re.findall(r"(?m)^(?:[^:\s]+:){4}(\S+)$", text)
    assert secrets
    for word in (*secrets, *job.files):
        assert word not in ended.text
        assert word not in journals


@pytest.mark.parametrize("kind", STORES)
def test_a_job_leaves_lease_journal_and_report_in_the_store(request: pytest.FixtureRequest, kind: str) -> None:
    with open_controller(request.getfixturevalue(f"{kind}_place"), kind=kind) as controller:
        job = controller.start()
        ended = job.finish()
        assert (ended.status, ended.rc) == ("successful", 0), ended.out
        assert controller.window.world() == END
        assert controller.window.states() == ["succeeded"]
        (opened,) = [event for event in controller.window.events() if isinstance(event, WindowOpened)]
        assert opened.job == {"id": "100", "user": "alice", "template": "window", "launch": "manual"}
        held = controller.window.store.read_lease()
        assert held is not None
        assert held.released
        assert held.owner.user in {"4711", "uid 4711"}
        assert "AWX job 100 of template window, by alice" in ended.window["report_text"]
        assert ended.window["report_data"]["job"]["id"] == "100"
        assert_nothing_leaked(controller, ended, job)


def take_turn(store: str, *, ordinary: str) -> object:
    """One store in an ordinary run, both in a sweep."""
    return store if store == ordinary else pytest.param(store, marks=pytest.mark.sweep)


@pytest.mark.parametrize("kind", [take_turn(store, ordinary="kubernetes") for store in STORES])
def test_cancelled_and_relaunched_with_other_credential_files(request: pytest.FixtureRequest, kind: str) -> None:
    backend: Backend = request.getfixturevalue(f"{kind}_place")
    with open_controller(backend, kind=kind) as controller:
        job = controller.start(env=STOP_AT_VACUUM, maintain_plan=False)
        job.wait_until_stopped()
        job.cancel()
        cancelled = job.finish()
        assert (cancelled.status, cancelled.rc) == ("canceled", 254)
        assert cancelled.artifacts == {}
        assert controller.window.world()["web1"]["replicas"] == 0
        backend.expire()  # else the next job waits for that
        again = controller.start(launch="relaunch", maintain_plan=False)
        assert set(again.files).isdisjoint(job.files)
        ended = again.finish()
        assert (ended.status, ended.rc) == ("successful", 0), ended.out
        assert controller.window.world() == END
        assert len(set(controller.window.window_ids())) == 1
        assert_nothing_leaked(controller, cancelled, job)


@pytest.mark.parametrize("kind", [take_turn(store, ordinary="postgresql") for store in STORES])
def test_the_next_job_overlaps_the_cancelled_one(request: pytest.FixtureRequest, kind: str) -> None:
    backend: Backend = request.getfixturevalue(f"{kind}_place")
    with open_controller(backend, kind=kind) as controller:
        job = controller.start(env=STOP_AT_STOP)
        job.wait_until_stopped()
        early = controller.run(launch="relaunch")
        assert early.status == "failed"
        held = controller.window.store.read_lease()
        assert held is not None
        assert f"{held.owner.describe()}, holds it with window fast@" in early.flat
        assert "Waiting: it is succeeded if it is not renewed for 120 s" in early.flat
        assert "or cancel job 100 in AWX, and run this again" in early.flat
        assert early.window["state"] == "refused"
        job.signal(signal.SIGSTOP)
        backend.expire()
        ended = controller.run(launch="relaunch")
        assert (ended.status, ended.rc) == ("successful", 0), ended.out
        assert controller.window.world() == END
        before = controller.window.events()
        job.signal(signal.SIGCONT)
        late = job.finish()
        assert late.status == "failed"
        assert f"this run held it with token {held.token}, and now" in late.flat
        assert "Leave the site to that run; this one writes no more" in late.flat
        # A task that it begins before its renewer has heard of it may still end: docs/window.md, known limits.
        assert controller.window.events() == before


@pytest.mark.parametrize("kind", [take_turn(store, ordinary="kubernetes") for store in STORES])
def test_timed_out_and_restored(request: pytest.FixtureRequest, kind: str) -> None:
    backend: Backend = request.getfixturevalue(f"{kind}_place")
    with open_controller(backend, kind=kind) as controller:
        job = controller.start(env=STOP_AT_STOP)
        job.wait_until_stopped()
        job.run_out_of_time()
        assert job.finish().status == "timeout"
        assert controller.window.world()["web1"]["replicas"] == 0
        backend.expire()
        restored = controller.run(playbook=RESTORE)
        assert (restored.status, restored.rc) == ("successful", 0), restored.out
        world = controller.window.world()
        assert {host: values for host, values in world.items() if host.startswith("web")} == UP


@pytest.mark.parametrize("kind", [take_turn(store, ordinary="postgresql") for store in STORES])
def test_a_schedule_fires_late_and_twice_with_empty_answers(request: pytest.FixtureRequest, kind: str) -> None:
    with open_controller(request.getfixturevalue(f"{kind}_place"), kind=kind) as controller:
        begins = datetime.now(UTC) - timedelta(minutes=20)
        controller.variables["window_times"] = [{"time": f"{begins:%H:%M}", "zone": "UTC"}]
        first = controller.run(launch="scheduled", window_start="", window_only="", window_skip=[])
        assert (first.status, first.rc) == ("successful", 0), first.out
        assert f"after its declared time {begins:%Y-%m-%dT%H:%M}:00Z, and has so much less time" in first.flat
        second = controller.run(launch="scheduled", window_start=[], window_only=[], window_skip="")
        assert (second.status, second.rc) == ("successful", 0), second.out
        assert controller.window.states() == ["succeeded", "no_changes"]
        assert set(controller.window.window_ids()) == {f"fast@{begins:%Y-%m-%dT%H:%M}:00Z"}
        assert controller.window.world() == END
        assert "(scheduled, schedule nightly window)" in second.window["report_text"]


@pytest.mark.parametrize("names", ["verify\nsave", pytest.param("save,verify", marks=pytest.mark.sweep)])
def test_steps_as_text_of_a_survey(request: pytest.FixtureRequest, names: str) -> None:
    with open_controller(request.getfixturevalue("postgresql_place"), kind="postgresql") as controller:
        ended = controller.run(window_only=names)
        assert (ended.status, ended.rc) == ("successful", 0), ended.out
        world = controller.window.world()
        assert [world["db1"], world["web1"]] == [{"dead": 100, "backup_age": 0, "backups": 1}, {"replicas": 3}]


def assert_refused(controller: Controller, ended: Ended, *words: str) -> None:
    """Nothing was touched, and the output says why."""
    assert ended.status == "failed"
    assert controller.window.world() == BEGINNING
    for word in words:
        assert word in ended.flat, ended.out


@pytest.mark.parametrize(
    ("under_podman", "directory", "why"),
    [
        # The private data directory; in the other case HOME, which is no volume either.
        (True, "{{ lookup('env', 'AWX_ISOLATED_DATA_DIR') | dirname | dirname }}/state", "is made for one job"),
        (False, "", "it is no volume, so it ends with the job's container"),
        pytest.param(False, "{{ inventory_dir }}/state", "is made for one job", marks=pytest.mark.sweep),
    ],
)
def test_a_file_store_that_ends_with_the_job_is_refused(under_podman: bool, directory: str, why: str) -> None:
    with open_controller() as controller:
        controller.variables |= {"window_dir": directory} if directory else {}
        ended = controller.run(under_podman=under_podman)
        next_step = "Set window_store to a Kubernetes or PostgreSQL connection, or mount a volume for window_dir"
        assert_refused(controller, ended, why, next_step)
        assert not list(controller.folder.rglob("lease"))
        assert ended.window["state"] == "refused"


@pytest.mark.parametrize(
    ("hosts", "words"),
    [
        (("db1", "web1"), "this is a slice of an AWX job without the host of the group control?"),
        (("controller", "db2", "web2"), "AWX job 100: its workflow has the name of its template, window"),
    ],
)
def test_a_slice_is_refused(hosts: tuple[str, ...], words: str) -> None:
    with open_controller() as controller:
        ended = controller.run(hosts=hosts, launch="workflow", workflow="window")
        assert_refused(controller, ended, words, "et Job Slicing of the template to 1")


@pytest.mark.parametrize(
    ("limit", "words"),
    [
        ("controller,web1", "relaunch on failed hosts sets a limit by itself. Leave the limit of template and launch"),
        pytest.param("web1,db1", "in AWX set Job Slicing", marks=pytest.mark.sweep),
    ],
)
def test_a_relaunch_on_failed_hosts_is_refused(limit: str, words: str) -> None:
    with open_controller() as controller:
        ended = controller.run(limit=limit, launch="relaunch")
        assert_refused(controller, ended, words, "relaunch on all hosts")
