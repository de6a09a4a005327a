# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What systemd counts and starts by itself, on real hosts: after a crash loop, behind a socket, past another service."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from support.playbooks import PlaybookRun
from support.service_site import ServiceSite, make_service_site, read_next_second

pytestmark = [pytest.mark.lab("service_hosts"), pytest.mark.timeout(1200)]
UNITS = "/etc/systemd/system"


@pytest.fixture
def site(lab: dict[str, Any], unique_name: Callable[..., str], tmp_path: Path) -> Iterator[ServiceSite]:
    """Three hosts with three services each, all of which serve."""
    with make_service_site(lab, unique_name("svc"), tmp_path) as made:
        made.start()
        yield made


@pytest.fixture
def perform(site: ServiceSite, ansible_playbook: Callable[..., PlaybookRun]) -> Callable[..., tuple[int, str]]:
    """Have the first host as declared; the exit code, and what was printed without line breaks."""

    def run(tiers: list[Any], *, restart: bool = False) -> tuple[int, str]:
        given: dict[str, Any] = {}
        if restart:
            given = {"service_state": "restarted", "service_restarted_after": read_next_second()}
        declared = {"service_units": tiers, "service_canary_seconds": 1, **given}
        done = ansible_playbook(
            "lowtide.ops.service", "-i", site.write_inventory(), "-l", site.hosts[0], extra_vars=declared
        )
        return done.rc, " ".join(done.stdout.split())

    return run


def write_units(site: ServiceSite, files: dict[str, str]) -> None:
    """Have these files of units on the first host."""
    for name, text in files.items():
        site.run(site.hosts[0], "mkdir", "-p", f"{UNITS}/{name}".rpartition("/")[0])
        site.run(site.hosts[0], "tee", f"{UNITS}/{name}", stdin=text)
    site.run(site.hosts[0], "systemctl", "daemon-reload")


@pytest.mark.procedure("D28")
@pytest.mark.parametrize(("burst", "pause"), [(4, "400ms"), pytest.param(5, "350ms", marks=pytest.mark.sweep)])
def test_a_release_is_put_back_after_a_crash_loop(
    site: ServiceSite, perform: Callable[..., tuple[int, str]], burst: int, pause: str
) -> None:
    """A unit that multi-user.target wants stays loaded, with its counts: they are not held against the old release."""
    first, unit = site.hosts[0], site.name_unit("api")
    text = f"[Unit]\nStartLimitIntervalSec=30\nStartLimitBurst={burst}\n[Service]\nRestart=always\nRestartSec={pause}\n"
    wants = f"{UNITS}/multi-user.target.wants/{unit}"
    try:
        site.run(first, "ln", "-s", f"{UNITS}/{unit}", wants)
        write_units(site, {f"{unit}.d/test.conf": text})
        code, words = perform(site.make_tiers("crash"))
        assert code != 0
        assert "put back and serving again" in words, words
        assert site.read_release(first) == "1"
        assert site.show(first, "ActiveState")["api"] == "active"
    finally:
        site.run(first, "rm", "-rf", wants, f"{UNITS}/{unit}.d")


@pytest.mark.procedure("D28", "D3")
def test_a_release_that_a_socket_has_woken_is_replaced(
    site: ServiceSite, perform: Callable[..., tuple[int, str]]
) -> None:
    """A client connects after the stop and before the switch: the old release is stopped once more."""
    first, unit = site.hosts[0], site.name_unit("api")
    opened = unit.replace(".service", ".socket")
    port = site.find_port("api") + 5
    script = f"""import socket, subprocess, time
end = time.monotonic() + 300
while subprocess.run(['systemctl', 'is-active', '--quiet', '{unit}']).returncode == 0:
    assert time.monotonic() < end, 'it was not stopped'
    time.sleep(0.1)
socket.create_connection(('127.0.0.1', {port})).close()
"""
    waking = threading.Thread(target=lambda: site.run(first, "python3", "-c", script), daemon=True)
    try:
        write_units(
            site,
            {
                opened: f"[Socket]\nListenStream=127.0.0.1:{port}\n",
                f"{site.name_unit('db')}.d/test.conf": "[Service]\nExecStop=/bin/sleep 4\n",
            },
        )
        site.run(first, "systemctl", "stop", unit)
        site.run(first, "systemctl", "start", opened)
        site.start()
        waking.start()
        code, words = perform(site.make_tiers("2"), restart=True)
        waking.join()
        assert code == 0, words
        assert f"{unit}: stopped with" in words or words.count(f"{unit}: 0 requests in flight before the stop") >= 2
        assert site.read_release(first) == "2"
    finally:
        site.run(first, "systemctl", "stop", opened, unit, check=False)
        site.run(first, "rm", "-rf", f"{UNITS}/{opened}", f"{UNITS}/{site.name_unit('db')}.d")


@pytest.mark.procedure("D3")
def test_another_service_that_is_not_ready_leaves_nothing_down(
    site: ServiceSite, perform: Callable[..., tuple[int, str]]
) -> None:
    """Not ready before the first stop, it is a refusal; not ready any more after it, what was stopped serves again."""
    first = site.hosts[0]
    before = site.show(first, "InvocationID")
    never = site.make_tiers(cache={"shared": True, "ready": {"port": 9, "timeout": 2}})
    code, words = perform(never, restart=True)
    assert code != 0
    assert "it is not ready: port 9 of 127.0.0.1" in words
    assert "nothing was stopped" in words
    assert site.show(first, "InvocationID") == before

    url = f"http://127.0.0.1:{site.find_port('db')}/ready"
    crossed = site.make_tiers(cache={"shared": True, "ready": {"url": url, "timeout": 6}})
    code, words = perform(crossed, restart=True)
    assert code != 0
    assert "tier 1 is not ready, and no later tier was started" in words
    assert "had been stopped before and serves again" in words
    after = site.show(first, "InvocationID")
    assert [after[name] == before[name] for name in ("cache", "db", "api")] == [True, False, False]
    assert set(site.show(first, "ActiveState").values()) == {"active"}
