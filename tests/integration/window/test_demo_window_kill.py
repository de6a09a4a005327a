# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The demo's window with lease and journals on a server, killed with its container and launched again in a fresh one.

Process ids, HOME and Ansible's temporary directory are new in each. LOWTIDE_EXHAUSTIVE=1 takes each of ten points with
each store, run again and restored.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from ansible_collections.lowtide.ops.plugins.plugin_utils._window.events import WindowClosed
from support.killed_window import DUE, LAST_LOOK, POINTS, check_end, check_maintained, check_service
from support.playbooks import PlaybookRun, playbook_command, playbook_environment
from support.site import INVENTORY, WINDOW, Site
from support.store_contract import Backend
from support.turns import is_sweep

from .conftest import SITE
from .test_shared_window import CONTAINER

pytestmark = [
    pytest.mark.alone,
    pytest.mark.lab("kubernetes", "kafka", "postgresql", "postgresql_versions", "s3", "feature_service"),
    pytest.mark.timeout(900),
]
Json = dict[str, Any]


class Kill(NamedTuple):
    """A case: the kind of store, a step, how many seconds after its begin, and what is launched then."""

    store: str
    step: str
    seconds: float
    way: str


KILLED = (
    [
        Kill(store, *point, way)
        for way in ("run_again", "restored")
        for store in ("kubernetes", "postgresql")
        for point in POINTS
    ]
    if is_sweep()
    else [Kill("kubernetes", "shutdown", 2.0, "run_again")]
)


class Containers:
    """Runs playbooks on the demo's inventory, each as a job in a container of its own."""

    def __init__(self, folder: Path, variables: Json) -> None:
        self._folder = folder
        self._variables = folder / "variables.json"
        self._variables.write_text(json.dumps(variables), encoding="utf-8")
        self._number = 0

    def start(self, playbook: str | Path, *arguments: str) -> subprocess.Popen[str]:
        """Start one; its home is removed when it has ended, or by :meth:`kill`."""
        self._number += 1
        home = self.home
        home.mkdir()
        command = [*CONTAINER, *playbook_command(playbook, *INVENTORY, "-e", f"@{self._variables}", *arguments)]
        environment = playbook_environment({"HOME": str(home), "ANSIBLE_LOCAL_TEMP": str(home / "tmp")})
        with (self._folder / f"{self._number}.log").open("w", encoding="utf-8") as log:
            return subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, text=True, env=environment
            )

    @property
    def home(self) -> Path:
        """Of the one that was started last."""
        return self._folder / f"home{self._number}"

    def kill(self, process: subprocess.Popen[str]) -> None:
        """End a container with all that is in it, and its disk."""
        os.kill(process.pid, signal.SIGKILL)
        process.wait(60)
        shutil.rmtree(self.home)

    def run(self, playbook: str | Path, *arguments: str) -> PlaybookRun:
        """Run one to its end."""
        process = self.start(playbook, *arguments)
        try:
            code = process.wait(400)
        finally:
            if process.poll() is None:
                self.kill(process)
        output = (self._folder / f"{self._number}.log").read_text(encoding="utf-8")
        shutil.rmtree(self.home)
        return PlaybookRun(code, output, "")


@pytest.mark.parametrize("kill", KILLED, ids=lambda kill: "-".join(map(str, kill)))
def test_killed_with_its_container_the_demo_ends_in_the_same_state(
    request: pytest.FixtureRequest, lab: Json, tmp_path: Path, kill: Kill
) -> None:
    backend: Backend = request.getfixturevalue(f"{kill.store}_place")
    place: Any = backend
    jobs = Containers(tmp_path, {"window_store": {kill.store: place.connection}, "window_site": SITE})
    site = Site(lab, store=backend.connect())
    site.make_due()
    backups = site.backup_keys()
    producer = site.produce(count=20_000, rate=50)
    try:
        since = time.time()
        killed = jobs.start(WINDOW, *DUE)
        site.wait_for_begin(kill.step, killed, since)
        time.sleep(kill.seconds)  # the kill comes at a time, not at a condition
        assert killed.poll() is None, "the window was over before the kill"
        jobs.kill(killed)
        backend.expire()  # else the next one waits for that
        context = f"{kill}, with {site.workers()}"
        if kill.way == "restored":
            restored = jobs.run("lowtide.ops.restore_service")
            assert restored.rc == 0, f"{context}:\n{restored.stdout}"
            check_service(site)
            status = jobs.run("lowtide.ops.window_status")
            assert "Nothing is left to revert" in status.stdout, f"{context}:\n{status.stdout}"
        else:
            again = jobs.run(WINDOW, *DUE)
            assert again.rc == 0, f"{context}:\n{again.stdout}"
    finally:
        producer.terminate()
        producer.communicate(timeout=60)
    if kill.way == "restored":
        audit = site.audit()
        assert audit["ok"], audit
        return
    check_end(site, backups, context=context)
    closed = [event for event in site.events() if isinstance(event, WindowClosed)]
    assert [event.state for event in closed] == ["succeeded"]
    check_maintained(site, jobs.run(*LAST_LOOK), [], context=context)
