# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""systemctl and journalctl as clients. Private to lowtide.ops: do not import from other collections.

No shell, no terminal, nothing that follows a journal without end. What a command did is read back by the caller.
"""

from __future__ import annotations

import os
import subprocess
import time
import typing as t

from .._common.errors import OpsError, WaitTimeout
from .._common.text import format_duration
from .units import PROPERTIES, UnitState, parse_shown

DENIED = ("Access denied", "Interactive authentication required", "Permission denied", "authentication required")
QUERY_SECONDS = 30.0
OUT_OF_MEMORY = "fe6faa94e7774663a0da52717891d8ef"
"""MESSAGE_ID of systemd's own message that a process of a unit was killed by the OOM killer (sd-messages.h)."""


class CommandOutput(t.NamedTuple):
    """What a command wrote, and its exit code; None when it was ended at its time limit."""

    code: int | None
    stdout: str
    stderr: str


Runner = t.Callable[[t.Sequence[str], float], CommandOutput]


def run_command(argv: t.Sequence[str], seconds: float) -> CommandOutput:
    """Run a command to its end or its time limit."""
    environment = {**os.environ, "LC_ALL": "C.UTF-8", "SYSTEMD_PAGER": "", "SYSTEMD_COLORS": "0"}
    try:
        done = subprocess.run(
            list(argv),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            env=environment,
            timeout=seconds,
            check=False,
        )
    except FileNotFoundError as error:
        raise OpsError(
            obj=f"program {argv[0]}",
            problem="it is not on this host",
            next_step="Run this on hosts whose services are managed by systemd",
        ) from error
    except subprocess.TimeoutExpired:
        return CommandOutput(code=None, stdout="", stderr="")
    return CommandOutput(code=done.returncode, stdout=done.stdout, stderr=done.stderr)


class Manager:
    """The systemd of this host."""

    def __init__(self, runner: Runner = run_command) -> None:
        self._run = runner

    def show(self, names: t.Sequence[str]) -> dict[str, UnitState]:
        """Return the states of units, all by one question. What is not answered is asked once more."""
        argv = ["systemctl", "show", "--no-pager", f"--property={','.join(PROPERTIES)}", "--", *names]
        answer = self._run(argv, QUERY_SECONDS)
        if answer.code != 0:
            answer = self._run(argv, QUERY_SECONDS)
        if answer.code != 0:
            raise OpsError(
                obj="systemctl show",
                problem=f"exit {answer.code}: {answer.stderr.strip() or 'no answer in time'}",
                next_step="See whether systemd answers on this host: `systemctl status`",
            )
        boot = time.time() - time.clock_gettime(time.CLOCK_MONOTONIC)
        return parse_shown(answer.stdout, names, boot)

    def start(self, name: str, seconds: float) -> None:
        """Start a unit and return when systemd calls it started."""
        self._act("start", name, seconds)

    def stop(self, name: str, seconds: float) -> None:
        """Stop a unit and return when its processes have ended. systemd signals them by its control group."""
        self._act("stop", name, seconds)

    def forget_counts(self, name: str) -> None:
        """Have systemd begin its counts of starts and restarts anew. A unit that is not loaded has none."""
        try:
            self._act("reset-failed", name, QUERY_SECONDS)
        except OpsError as error:
            if "not loaded" not in error.problem:
                raise

    def _act(self, verb: str, name: str, seconds: float) -> None:
        answer = self._run(["systemctl", verb, "--no-ask-password", "--", name], seconds)
        if answer.code == 0:
            return
        if answer.code is None:
            raise WaitTimeout(
                obj=f"unit {name}",
                problem=f"systemctl {verb} had not ended after {format_duration(seconds)}",
                next_step=f"See what it waits for: `systemctl list-jobs`, `systemctl status {name}`",
            )
        said = " ".join(answer.stderr.split())
        if any(word.lower() in said.lower() for word in DENIED):
            raise OpsError(
                obj=f"unit {name}",
                problem=f"this account may not {verb} it: {said}",
                next_step="Let it manage this unit (a polkit rule for org.freedesktop.systemd1.manage-units), "
                "or set ansible_become for the host",
            )
        raise OpsError(
            obj=f"unit {name}",
            problem=f"systemctl {verb} ended with exit {answer.code}: {said}",
            next_step=f"See its journal in the evidence, or `journalctl --unit={name}`",
        )

    def read_kill_record(self, name: str, seconds: float) -> float:
        """Return when systemd noted last that a unit's process was killed for memory; 0 where it did not, or is unread.

        Only what systemd itself (process 1) has written counts: a program can log any words, and any MESSAGE_ID.
        """
        argv = ["journalctl", f"--unit={name}", "--lines=1", f"--since=-{seconds:.0f}s", "--no-pager"]
        argv += ["--output=short-unix", "--quiet", "_PID=1", f"MESSAGE_ID={OUT_OF_MEMORY}"]
        answer = self._run(argv, QUERY_SECONDS)
        first = answer.stdout.split(maxsplit=1)[:1] if answer.code == 0 else []
        try:
            return float(first[0]) if first else 0.0
        except ValueError:
            return 0.0

    def read_journal(self, name: str, lines: int) -> list[str]:
        """Return the last lines of a unit's journal, bounded; one line that says why when there is none."""
        argv = ["journalctl", f"--unit={name}", f"--lines={lines}", "--no-pager", "--output=cat", "--quiet"]
        answer = self._run(argv, QUERY_SECONDS)
        if answer.code != 0:
            said = " ".join(answer.stderr.split()) or "no answer in time"
            return [f"(its journal could not be read: {said})"]
        return answer.stdout.splitlines()[-lines:] or ["(its journal has no lines, or this account may not read them)"]
