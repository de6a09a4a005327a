# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Services on three hosts over SSH, by an account that may manage its units and nothing else: order, drain, canary, kill."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from support.playbooks import PlaybookRun, finish_playbook, start_playbook, write_yaml
from support.service_site import NAMES, ServiceSite, make_service_site, read_next_second

pytestmark = [pytest.mark.lab("service_hosts"), pytest.mark.timeout(1200)]
PLAYBOOK = "lowtide.ops.service"
WINDOW = "lowtide.ops.maintenance_window"
Run = Callable[..., PlaybookRun]


@pytest.fixture
def site(lab: dict[str, Any], unique_name: Callable[..., str], tmp_path: Path) -> Iterator[ServiceSite]:
    """Three hosts with three services each, none of which runs."""
    with make_service_site(lab, unique_name("svc"), tmp_path) as made:
        yield made


def declare(site: ServiceSite, **given: Any) -> dict[str, Any]:
    """Return what the site declares."""
    return {"service_units": site.make_tiers(), "service_canary_seconds": 1, **given}


def read_words(run: PlaybookRun) -> str:
    """Return what was printed, without line breaks."""
    return " ".join(run.stdout.split())


def read_states(
    site: ServiceSite, prop: str = "InvocationID", hosts: list[str] | None = None
) -> dict[str, dict[str, str]]:
    """Return a property of each unit on each host."""
    return {host: site.show(host, prop) for host in hosts or site.hosts}


REQUEST = """import threading, time, urllib.request as u
answers = []
request = threading.Thread(target=lambda: answers.append(u.urlopen('{url}/work?{seconds}').read().decode()))
request.start()
while request.is_alive() and u.urlopen('{url}/inflight').read() == b'{{"in_flight": 0}}':
    time.sleep(0.02)
print('in flight', flush=True)
request.join()
print(*answers)
"""
"""The host itself says when its request is in flight: by then a look from elsewhere may come after it."""


def start_request(site: ServiceSite, host: str, seconds: float) -> Callable[[], str]:
    """Begin a request to the API that takes so long; the call waits for the answer, which is empty if there is none."""
    script = REQUEST.format(url=f"http://127.0.0.1:{site.find_port('api')}", seconds=seconds)
    command = site.make_command(host, "python3", "-c", script)
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    stream = process.stdout
    assert stream.readline() == "in flight\n"

    def wait_for_answer() -> str:
        with process:  # of what the stream has read already, communicate() knows nothing
            return stream.read().strip()

    return wait_for_answer


@pytest.mark.procedure("D2", "D3", "D28")
def test_restarted_and_stopped_in_order(site: ServiceSite, ansible_playbook: Run) -> None:
    """Nothing in a second run, no request lost, no other unit within reach. A first start: molecule/service."""
    common = ["-i", site.write_inventory()]
    site.start()
    declared = declare(site, service_state="restarted", service_restarted_after=read_next_second())
    before = read_states(site)
    request = start_request(site, site.hosts[0], 5)
    restarted = ansible_playbook(PLAYBOOK, *common, extra_vars=declared)
    assert restarted.rc == 0, restarted.stdout
    assert request() == "done"
    after = read_states(site)
    assert all(after[host][name] != before[host][name] for host in site.hosts for name in NAMES)
    entered = [int(value) for value in site.show(site.hosts[0], "ActiveEnterTimestampMonotonic").values()]
    assert entered[0] + 500000 < entered[1]
    assert entered[1] + 500000 < entered[2]
    assert f"{site.name_unit('api')}: 0 requests in flight before the stop" in read_words(restarted)
    again = ansible_playbook(PLAYBOOK, *common, extra_vars=declared)
    assert (again.rc, again.changed) == (0, 0), again.stdout
    assert read_states(site) == after

    shared = site.make_tiers(cache={"shared": True})
    stopped = ansible_playbook(
        PLAYBOOK, *common, extra_vars=declare(site, service_state="stopped", service_units=shared)
    )
    assert stopped.rc == 0, stopped.stdout
    for host in site.hosts:
        assert site.show(host, "ActiveState") == {"cache": "active", "db": "inactive", "api": "inactive"}
    assert f"stopped {site.name_unit('api')}, {site.name_unit('db')}" in read_words(stopped)

    foreign = ansible_playbook(
        PLAYBOOK, *common, extra_vars=declare(site, service_state="stopped", service_units=["ssh"])
    )
    assert foreign.rc != 0
    assert "this account may not stop it" in read_words(foreign)


@pytest.mark.procedure("D28", "D22")
def test_a_failing_canary_is_put_back_and_stops_the_rest(site: ServiceSite, ansible_playbook: Run) -> None:
    """With its last words and without its secret. One that is ready at first and then not: a window with batches, below."""
    common = ["-i", site.write_inventory()]
    site.start()
    before = read_states(site)
    canary, *rest = site.hosts
    failed = ansible_playbook(PLAYBOOK, *common, extra_vars=declare(site, service_units=site.make_tiers("crash")))
    assert failed.rc != 0
    assert "the setting feature_table is missing" in read_words(failed), failed.stdout
    assert "put back and serving again" in read_words(failed)
    assert "planted-5e1d" not in failed.stdout + failed.stderr
    assert site.read_release(canary) == "1"
    assert read_states(site, hosts=rest) == {host: before[host] for host in rest}
    good = ansible_playbook(PLAYBOOK, *common, extra_vars=declare(site, service_units=site.make_tiers("2")))
    assert good.rc == 0, good.stdout
    assert [site.read_release(host) for host in site.hosts] == ["2", "2", "2"]


@pytest.mark.procedure("D2", "D23")
def test_a_dependency_that_is_never_ready_stops_the_rest(site: ServiceSite, ansible_playbook: Run) -> None:
    """It says which one and what it answers; no later tier and no later host is touched."""
    canary, *rest = site.hosts
    site.run(canary, "tee", f"{site.place}/1/mode", stdin="never_ready")
    failed = ansible_playbook(
        PLAYBOOK,
        "-i",
        site.write_inventory(),
        extra_vars=declare(
            site,
            service_units=site.make_tiers(
                cache={"ready": {"url": f"http://127.0.0.1:{site.find_port('cache')}/ready", "timeout": 10}}
            ),
        ),
    )
    assert failed.rc != 0
    assert f"unit {site.name_unit('cache')}: tier 1 is not ready, and no later tier was started" in read_words(failed)
    assert "status 503, not 200: the release does not work" in read_words(failed)
    assert site.show(canary, "ActiveState") == {"cache": "active", "db": "inactive", "api": "inactive"}
    for host in rest:
        assert set(site.show(host, "ActiveState").values()) == {"inactive"}


@pytest.mark.procedure("D3")
def test_a_stop_that_takes_longer_than_the_run_waits(site: ServiceSite, ansible_playbook: Run) -> None:
    """A limit below that of systemd is refused untouched; what still outlasts it ends down, and is started again."""
    site.start()
    first, *rest = site.hosts
    unit = site.name_unit("api")
    limits = "ExecStop=/bin/sleep 5\nKillSignal=SIGCONT\nTimeoutStopSec=6\n"
    site.run(first, "tee", "-a", f"/etc/systemd/system/{unit}", stdin=limits)
    site.run(first, "systemctl", "daemon-reload")
    before = read_states(site)
    after = {
        "service_state": "restarted",
        "service_restarted_after": read_next_second(),
    }

    def restart(seconds: int) -> PlaybookRun:
        declared = declare(site, service_units=site.make_tiers(api={"stop_timeout": seconds}), **after)
        return ansible_playbook(PLAYBOOK, "-i", site.write_inventory(), extra_vars=declared)

    refused = restart(5)
    assert refused.rc != 0
    assert f"unit {unit}, stop_timeout: 5 s is not longer than its TimeoutStopSec, 6 s" in read_words(refused)
    assert read_states(site) == before

    late = restart(7)
    assert late.rc != 0
    assert "systemctl stop had not ended after 7 s; now it is failed (failed), result timeout" in read_words(late)
    assert f"{unit} had been stopped before and serves again" in read_words(late)
    assert set(site.show(first, "ActiveState").values()) == {"active"}
    assert site.show(first, "InvocationID")["api"] != before[first]["api"]
    assert read_states(site, hosts=rest) == {host: before[host] for host in rest}


@pytest.mark.sweep
@pytest.mark.procedure("D2", "D3")
def test_what_nobody_declared_is_neither_started_nor_stopped(site: ServiceSite, ansible_playbook: Run) -> None:
    """A target that requires a service, a service behind a target that another one wants, and one that it conflicts with."""
    first, *_rest = site.hosts
    api = site.name_unit("api")
    group, helper = f"{site.prefix}-group.target", f"{site.prefix}-helper.service"
    sleep = "[Service]\nExecStart=/bin/sleep infinity\n"
    files = {group: f"[Unit]\nWants={helper}\n", helper: sleep, f"{api}.d/test.conf": ""}
    folder = "/etc/systemd/system"

    def refuse(unit: str, state: str, **texts: str) -> str:
        for name, text in {**files, **{f"{api}.d/test.conf": texts.get("api", "")}, **texts}.items():
            if name != "api":
                site.run(first, "mkdir", "-p", os.path.dirname(f"{folder}/{name}"))
                site.run(first, "tee", f"{folder}/{name}", stdin=text)
        site.run(first, "systemctl", "daemon-reload")
        site.run(first, "systemctl", "start", *([unit] if unit else []), check=bool(unit))
        before = read_states(site, "MainPID")
        run = ansible_playbook(PLAYBOOK, "-i", site.write_inventory(), extra_vars=declare(site, service_state=state))
        assert run.rc != 0, run.stdout
        assert read_states(site, "MainPID") == before
        site.run(first, "systemctl", "stop", group, helper)
        return read_words(run)

    try:
        pulled = refuse("", "started", api=f"[Unit]\nWants={group}\n")
        assert (
            f"unit {helper}: it does not run, is not declared, and systemd would start it together with {api}" in pulled
        )
        assert f"(through {group})" in pulled
        rival = refuse(helper, "started", api=f"[Unit]\nConflicts={helper}\n")
        assert f"unit {helper}: it runs, is not declared, and systemd would stop it when {api} is started" in rival
        site.start()
        required = refuse(group, "stopped", **{group: f"[Unit]\nRequires={api}\n"})
        assert f"unit {group}: it runs, is not declared, and systemd would stop it together with {api}" in required
    finally:
        site.run(first, "systemctl", "stop", group, helper, check=False)
        site.run(first, "rm", "-rf", *(f"{folder}/{name}" for name in (group, helper, f"{api}.d")))


@pytest.mark.procedure("D28")
def test_a_release_is_drained_before_it_is_put_back(site: ServiceSite, ansible_playbook: Run) -> None:
    """A request to the release that breaks is answered; a link that cannot be written stops nothing for good."""
    site.start()
    first = site.hosts[0]
    url = f"http://127.0.0.1:{site.find_port('api')}"
    script = f"""import time, urllib.request as u
end = time.monotonic() + 300
while time.monotonic() < end:
    try:
        if u.urlopen('{url}/release').read() == b'breaks':
            print(u.urlopen('{url}/work?8').read().decode())
            break
    except OSError:
        pass
    time.sleep(0.02)
"""
    answers: list[str] = []
    request = threading.Thread(target=lambda: answers.append(site.run(first, "python3", "-c", script)))
    request.start()
    failed = ansible_playbook(
        PLAYBOOK,
        "-i",
        site.write_inventory(),
        extra_vars=declare(site, service_units=site.make_tiers("breaks"), service_canary_seconds=20),
    )
    request.join()
    assert failed.rc != 0
    assert answers == ["done\n"]
    words = read_words(failed)
    assert "put back and serving again" in words
    assert words.count(f"{site.name_unit('api')}: 0 requests in flight before the stop") >= 2
    assert site.read_release(first) == "1"

    site.run(first, "mkdir", f"{site.place}/current.lowtide-new")
    site.run(first, "touch", f"{site.place}/current.lowtide-new/keep")
    before = site.show(first, "InvocationID")
    switched = ansible_playbook(
        PLAYBOOK, "-i", site.write_inventory(), extra_vars=declare(site, service_units=site.make_tiers("2"))
    )
    assert switched.rc != 0
    assert "and is as it was: File exists" in read_words(switched)
    assert f"{site.name_unit('api')} had been stopped before and serves again" in read_words(switched)
    assert site.read_release(first) == "1"
    assert site.show(first, "InvocationID")["api"] != before["api"]


@pytest.mark.sweep
@pytest.mark.procedure("D2", "D3")
def test_a_start_that_takes_longer_than_the_run_waits(site: ServiceSite, ansible_playbook: Run) -> None:
    """A limit below that of systemd is refused; what outlasts one where systemd has none is waited for by the next run."""
    first, *_rest = site.hosts
    unit = site.name_unit("cache")

    def start(limit: str, seconds: int) -> PlaybookRun:
        text = f"[Service]\nExecStartPre=/bin/sleep 12\nTimeoutStartSec={limit}\n"
        site.run(first, "mkdir", "-p", f"/etc/systemd/system/{unit}.d")
        site.run(first, "tee", f"/etc/systemd/system/{unit}.d/test.conf", stdin=text)
        site.run(first, "systemctl", "daemon-reload")
        tiers = site.make_tiers(cache={"start_timeout": seconds})
        return ansible_playbook(PLAYBOOK, "-i", site.write_inventory(), extra_vars=declare(site, service_units=tiers))

    try:
        refused = start("30", 20)
        assert f"unit {unit}, start_timeout: 20 s is not longer than its TimeoutStartSec, 30 s" in read_words(refused)
        assert set(site.show(first, "ActiveState").values()) == {"inactive"}
        late = start("infinity", 2)
        assert late.rc != 0
        assert f"unit {unit}: it is still activating (start-pre) after 2 s, and systemd goes on" in read_words(late)
        again = start("infinity", 100)
        assert again.rc == 0, again.stdout
        assert site.show(first, "NRestarts")["cache"] == "0"
    finally:
        site.run(first, "rm", "-rf", f"/etc/systemd/system/{unit}.d")


@pytest.mark.procedure("D28")
def test_a_host_lost_in_the_middle_stops_the_rest(
    site: ServiceSite, ansible_playbook: Run, lab: dict[str, Any]
) -> None:
    """The first has the new release, the lost one the old or the new, whole; the last is untouched; a rerun ends well."""
    site.start()
    first, lost, last = site.hosts
    address = next(host["address"] for host in lab["service_hosts"]["hosts"] if host["name"] == lost)
    before = site.show(last, "InvocationID")
    request = start_request(site, lost, 20)
    declared = declare(site, service_units=site.make_tiers("2"))
    file = write_yaml(site.folder / "declared.yml", declared)
    alive = "ansible_ssh_args='-o ServerAliveInterval=1 -o ServerAliveCountMax=3'"
    process = start_playbook(PLAYBOOK, "-i", site.write_inventory(), "-e", f"@{file}", "-e", alive)
    end = time.monotonic() + 300
    while site.read_release(first) != "2":
        assert time.monotonic() < end, "the first host did not change"
    subprocess.run(["ip", "route", "add", "blackhole", f"{address}/32"], check=True)
    try:
        run = finish_playbook(process, timeout=400)
    finally:
        subprocess.run(["ip", "route", "del", "blackhole", f"{address}/32"], check=True)
    request()
    assert run.rc != 0
    assert run.stats[lost]["unreachable"] == 1, run.stdout
    assert site.read_release(first) == "2"
    assert site.read_release(lost) in {"1", "2"}
    assert site.show(last, "InvocationID") == before

    again = ansible_playbook(PLAYBOOK, "-i", site.write_inventory(), extra_vars=declared)
    assert again.rc == 0, again.stdout
    assert [site.read_release(host) for host in site.hosts] == ["2", "2", "2"]


@pytest.mark.procedure("D28")
def test_killed_in_the_middle_and_run_again(site: ServiceSite, ansible_playbook: Run) -> None:
    """Killed on the controller and on the host, while the new release is not yet proven."""
    site.start()
    declared = declare(site, service_units=site.make_tiers("2"), service_canary_seconds=20)
    file = write_yaml(site.folder / "declared.yml", declared)
    process = start_playbook(PLAYBOOK, "-i", site.write_inventory(), "-e", f"@{file}")
    canary = site.hosts[0]
    note = shlex.join(["test", "-L", f"{site.place}/current.lowtide-previous"])
    end = time.monotonic() + 300
    while "there" not in site.run(canary, "sh", "-c", f"{note} && echo there", check=False):
        assert time.monotonic() < end, "nothing was switched"
    os.killpg(process.pid, signal.SIGKILL)
    site.run(canary, "pkill", "--signal", "KILL", "--uid", site.facts["user"])
    process.communicate(timeout=60)

    again = ansible_playbook(
        PLAYBOOK, "-i", site.write_inventory(), extra_vars={**declared, "service_canary_seconds": 1}
    )
    assert again.rc == 0, again.stdout
    assert [site.read_release(host) for host in site.hosts] == ["2", "2", "2"]
    assert site.run(canary, "ls", site.place).split() == ["1", "2", "breaks", "crash", "current", "never_ready"]
    unchanged = ansible_playbook(PLAYBOOK, "-i", site.write_inventory(), extra_vars=declared)
    assert (unchanged.rc, unchanged.changed) == (0, 0), unchanged.stdout


@pytest.mark.procedure("D28")
def test_a_step_of_a_window_with_batches(site: ServiceSite, ansible_playbook: Run) -> None:
    """Planned in check mode; the first batch is the canary of the second."""
    site.start()
    canary, *rest = site.hosts
    before = read_states(site)
    step = {"name": "services", "role": "lowtide.ops.service", "batches": [[canary], rest], "plan": True}
    declared = {"window_steps": [step], "service_canary_seconds": 4}
    bad = {**declared, "service_units": site.make_tiers("breaks")}
    failed = ansible_playbook(WINDOW, "-i", site.write_inventory(), extra_vars=bad)
    assert failed.rc == 2, failed.stdout
    assert "did not stay so" in read_words(failed)
    assert "put back and serving again" in read_words(failed)
    assert site.read_release(canary) == "1"
    assert read_states(site, hosts=rest) == {host: before[host] for host in rest}
    good = {**declared, "service_units": site.make_tiers("2"), "window_start": "second"}
    run = ansible_playbook(WINDOW, "-i", site.write_inventory(), extra_vars=good)
    assert run.rc == 0, run.stdout
    assert run.changed > 0
    assert [site.read_release(host) for host in site.hosts] == ["2", "2", "2"]


@pytest.mark.procedure("D2", "D3")
def test_stopped_for_a_step_and_started_again_after_its_failure(site: ServiceSite, ansible_playbook: Run) -> None:
    """A rehearsal predicts both; what the step needs down is down; nothing is left to start then."""
    site.start()
    before = read_states(site)
    down = {"wait_for": {"port": site.find_port("api"), "state": "stopped", "timeout": 1}}
    work = write_yaml(
        site.folder / "work.yml", [down, {"fail": {"msg": "the work went wrong"}, "when": "not ansible_check_mode"}]
    )
    steps = [
        {"name": "down", "role": "lowtide.ops.service", "tasks_from": "stop", "hosts": ["service_hosts"]},
        {"name": "work", "tasks": str(work), "hosts": ["service_hosts"], "needs": ["down"]},
        {"name": "up", "role": "lowtide.ops.service", "tasks_from": "start", "reverts": "down"},
    ]
    declared = declare(site, window_steps=steps)
    rehearsal = ansible_playbook(WINDOW, "-i", site.write_inventory(), "--check", extra_vars=declared)
    assert f"would stop {site.name_unit('api')}, {site.name_unit('db')}, {site.name_unit('cache')}" in read_words(
        rehearsal
    )
    assert read_states(site) == before
    failed = ansible_playbook(WINDOW, "-i", site.write_inventory(), extra_vars=declared)
    assert failed.rc == 2, failed.stdout
    assert "the work went wrong" in read_words(failed)
    assert "failed_reverted" in read_words(failed)
    after = read_states(site)
    assert all(after[host][name] != before[host][name] for host in site.hosts for name in NAMES)
    assert {state for host in site.hosts for state in site.show(host, "ActiveState").values()} == {"active"}
