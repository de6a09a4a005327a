# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One lab: its name, its places on the machine, and what a component does in it."""

from __future__ import annotations

import fcntl
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from labkit import process as processes
from labkit.cgroup import Cgroup
from labkit.errors import LabError
from labkit.network import Network
from labkit.process import Process

T = TypeVar("T")

CHECKOUT = Path(__file__).resolve().parents[3]
CLEAN = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LANG": "C.UTF-8",
    # Servers written in Go: a tenth less of processor time for starting and stopping pods, for 0.4 GB more memory.
    "GOGC": "400",
}
"""The whole environment of a lab process before the component adds to it."""
PROGRESS_SECONDS = 10.0


class Lab:
    """The lab ``name``. Several labs run side by side: same addresses, each in a network namespace of its own."""

    def __init__(self, name: str, *, cache: Path, states: Path) -> None:
        if not re.fullmatch(r"[a-z][a-z0-9-]{0,19}", name):
            raise LabError(
                obj=f"lab name {name!r}",
                problem="it is not 1 to 20 lower-case letters, digits and dashes",
                next_step="Set LOWTIDE_LAB to such a name",
            )
        self.name = name
        self.cache = cache
        """Downloads and builds, shared by all labs, kept by ``down``."""
        self.root = states / name
        """Everything of this lab on disk; ``down`` removes it."""
        self.network = Network(f"lowtide-{name}")
        self.cgroup = Cgroup(f"lowtide-{name}")
        """Put what must die with the lab below it: ``lab.cgroup.create("node1")`` makes every lowtide-NAME/node1."""
        self.interrupted = threading.Event()
        """Set when the person at the terminal gave up: long waits and builds end."""
        self.checkout = CHECKOUT
        self._begin = time.monotonic()

    @property
    def netns(self) -> Path:
        """Path of the network namespace (for ``nsenter --net=``)."""
        return self.network.path

    @property
    def facts_file(self) -> Path:
        """Where the facts of the running lab are."""
        return self.root / "facts.json"

    def state(self, component: str) -> Path:
        """The state directory of ``component``, made when missing. Nothing of a lab may live elsewhere."""
        path = self.root / component
        path.mkdir(parents=True, exist_ok=True)
        return path

    def log(self, component: str, name: str) -> Path:
        """Where the output of a spawned process is."""
        return self.root / component / "log" / f"{name}.log"

    def say(self, text: str) -> None:
        """Tell the person at the terminal (standard error: standard output is for answers)."""
        sys.stderr.write(f"[{time.monotonic() - self._begin:6.1f} s] {text}\n")
        sys.stderr.flush()

    # -- commands ---------------------------------------------------------------------------------------------------

    def run(
        self,
        argv: Sequence[str | Path],
        *,
        env: Mapping[str, str] | None = None,
        user: str | None = None,
        cwd: Path | None = None,
        stdin: str | None = None,
        seconds: float = 300.0,
        check: bool = True,
    ) -> subprocess.CompletedProcess[str]:
        """Run a short command inside the lab's network, in a clean environment plus ``env``, and return its output."""
        with self.network.entered():
            return self._run(argv, env=env, user=user, cwd=cwd, stdin=stdin, seconds=seconds, check=check)

    def run_outside(
        self,
        argv: Sequence[str | Path],
        *,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        seconds: float = 600.0,
        check: bool = True,
    ) -> subprocess.CompletedProcess[str]:
        """The same with the machine's own network and environment, for ``install``; see ``build`` for long ones."""
        return self._run(
            argv, env={**os.environ, **(env or {})}, user=None, cwd=cwd, stdin=None, seconds=seconds, check=check
        )

    def _run(
        self,
        argv: Sequence[str | Path],
        *,
        env: Mapping[str, str] | None,
        user: str | None,
        cwd: Path | None,
        stdin: str | None,
        seconds: float,
        check: bool,
    ) -> subprocess.CompletedProcess[str]:
        command = [str(part) for part in argv]
        try:
            done = subprocess.run(
                command,
                input=stdin if stdin is not None else "",
                capture_output=True,
                text=True,
                env={**CLEAN, **(env or {})},
                cwd=cwd or "/",
                user=user,
                group=user,
                extra_groups=None if user is None else [],
                timeout=seconds,
                check=False,
            )
        except FileNotFoundError as error:
            raise LabError(obj=f"command {command[0]}", problem=str(error), next_step="Run `lab install`") from error
        except subprocess.TimeoutExpired as error:
            raise LabError(
                obj=f"command {' '.join(command[:4])}",
                problem=f"it did not end within {seconds:g} s",
                next_step="Look at the logs below the lab's state directory",
            ) from error
        if check and done.returncode != 0:
            said = (done.stderr.strip() or done.stdout.strip())[-2000:]
            raise LabError(
                obj=f"command {' '.join(command[:4])}",
                problem=f"exit {done.returncode}: {said}",
                next_step="See what it said",
            )
        return done

    def build(
        self, what: str, argv: Sequence[str | Path], *, env: Mapping[str, str] | None = None, cwd: Path | None = None
    ) -> None:
        """Run a long command of ``install`` outside the lab; say every 10 s how far it is; its output is in the cache.

        ``what`` names it in the output and its log: ``"kubernetes: go build"``.
        """
        log = self.cache / "log" / (re.sub(r"[^A-Za-z0-9.]+", "-", what) + ".log")
        log.parent.mkdir(parents=True, exist_ok=True)
        begin = time.monotonic()
        self.say(f"{what} ...")
        with log.open("wb") as output:
            child = subprocess.Popen(
                [str(part) for part in argv],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **(env or {})},
                cwd=cwd,
            )
        pidfd = os.pidfd_open(child.pid)
        said = begin
        try:
            while not processes.ended(pidfd, 0.5) and not self.interrupted.is_set():
                if time.monotonic() - said >= PROGRESS_SECONDS:
                    said = time.monotonic()
                    last = processes.last_line(log)
                    self.say(f"{what}: {said - begin:.0f} s{': ' if last else ''}{last[:100]}")
        finally:
            os.close(pidfd)
            if child.poll() is None:
                child.terminate()
            code = child.wait()
        if code != 0:
            raise LabError(
                obj=what, problem=f"exit {code}; {processes.tail(log)}", next_step="Mend the cause and run it again"
            )
        self.say(f"{what}: done in {time.monotonic() - begin:.1f} s")

    # -- processes --------------------------------------------------------------------------------------------------

    def spawn(
        self,
        component: str,
        name: str,
        argv: Sequence[str | Path],
        *,
        env: Mapping[str, str] | None = None,
        user: str = "",
        cwd: Path | None = None,
        log: Path | None = None,
        cgroup: str = "services",
    ) -> Process:
        """Start a daemon inside the lab unless it is running: own session, in the lab's cgroups, output in its log.

        It lives on after this program has ended. Secrets go in ``env`` or files, never in ``argv``. One that makes
        cgroups below its own, such as a container with a systemd, needs a ``cgroup`` of its own.
        """
        running = self.process(component, name)
        if running is not None and running.alive():
            return running
        with self.network.entered():
            return processes.spawn(
                name,
                [str(part) for part in argv],
                records=self._records(component),
                log=log or self.log(component, name),
                env={**CLEAN, **(env or {})},
                cgroups=self.cgroup.create(cgroup),
                user=user,
                cwd=cwd or self.state(component),
            )

    def _records(self, component: str) -> Path:
        return self.root / component / "processes"

    def processes(self, component: str) -> list[Process]:
        """All recorded processes of ``component``, first started first, dead ones included."""
        return processes.recorded(self._records(component))

    def process(self, component: str, name: str) -> Process | None:
        """The recorded process ``name``; it may be dead: ask ``alive()``."""
        return processes.read_record(self._records(component), name)

    def stop_process(
        self, component: str, name: str, *, seconds: float = 15.0, sent: signal.Signals = signal.SIGTERM
    ) -> None:
        """SIGTERM (or what it takes as such), after ``seconds`` SIGKILL; forgets the record. Nothing to do when it is
        not running."""
        process = self.process(component, name)
        if process is None:
            return
        how = processes.stop(process, seconds, sent)
        if how == "killed":
            self.say(f"{component}: {name} did not end within {seconds:g} s and was killed")
        (self._records(component) / f"{name}.json").unlink(missing_ok=True)

    def wait_for(self, what: str, condition: Callable[[], T | None], seconds: float, *process: Process) -> T:
        """Wait until ``condition()`` is true and return its value; fail after ``seconds`` or when a ``process`` ended.

        The condition may raise OSError or LabError for "not yet": the last one is named in the failure, with the end
        of the logs of ``process``.
        """
        begin = time.monotonic()
        deadline = begin + seconds
        pause = 0.02
        why = "the condition does not hold"
        while True:
            try:
                value = condition()
                if value:
                    return value
            except (OSError, LabError) as error:
                why = f"{type(error).__name__}: {error}"
            dead = [one for one in process if not one.alive()]
            if dead or time.monotonic() > deadline or self.interrupted.is_set():
                problem = f"{dead[0].name} ended" if dead else f"not after {time.monotonic() - begin:.1f} s"
                logs = "\n".join(one.tail() for one in dead or process)
                raise LabError(
                    obj=what, problem=f"{problem}; {why}\n{logs}", next_step="Mend the cause and run `lab up` again"
                )
            time.sleep(pause)
            pause = min(pause * 1.3, 0.25)

    # -- facts and locks --------------------------------------------------------------------------------------------

    def facts(self) -> dict[str, Any]:
        """The facts of the running lab; refuses when there are none."""
        if not self.facts_file.exists():
            raise LabError(obj=f"lab {self.name}", problem="it is not up", next_step="Run `tests/lab/lab up`")
        facts: dict[str, Any] = json.loads(self.facts_file.read_text())
        return facts

    def write_facts(self, facts: dict[str, Any]) -> None:
        """Replace the facts file, so that a reader sees the old or the new one."""
        partial = self.facts_file.with_suffix(".partial")
        partial.write_text(json.dumps(facts, indent=2) + "\n")
        partial.replace(self.facts_file)

    @contextmanager
    def locked(self, name: str) -> Iterator[None]:
        """Hold the machine-wide lock ``name`` (say so when another process has it); it ends with this process."""
        folder = Path("/run/lowtide-lab")
        folder.mkdir(exist_ok=True)
        path = folder / f"{name}.lock"
        while True:
            with path.open("a") as handle:
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    self.say(f"waiting for another lab command that holds {path}")
                    fcntl.flock(handle, fcntl.LOCK_EX)
                if not path.exists() or path.stat().st_ino != os.fstat(handle.fileno()).st_ino:
                    continue  # the holder removed it: this lock guards nothing any more
                try:
                    yield
                finally:
                    path.unlink()
                return
