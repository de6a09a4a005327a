# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A systemd in memory, which is asked and told by the same command lines as the real one."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from ansible_collections.lowtide.ops.plugins.module_utils._systemd.manager import CommandOutput

OUT_OF_MEMORY = "fe6faa94e7774663a0da52717891d8ef"
"""systemd's identity of its message on a unit that the OOM killer has hit (sd-messages.h)."""


class MemorySystemd:
    """Units by name, each with the properties that systemctl shows; every start and stop is kept.

    As systemd 252 does it: a start by hand counts towards StartLimitBurst, and begins NRestarts anew only after a stop
    of what ran, not of what waited to be restarted. What has ended and that nothing names (WantedBy) is not loaded any
    more, which ends all counts.
    """

    def __init__(self) -> None:
        self.units: dict[str, dict[str, str]] = {}
        self.commands: list[tuple[str, str]] = []
        self.journal: dict[str, list[str]] = {}
        self.records: dict[str, list[str]] = {}
        """What systemd itself noted of processes that the kernel killed for memory, as journalctl prints it."""
        self.asked: list[str] = []
        """Every command line, in order, by its verb; of journalctl the program's name."""
        self.on_start: Callable[[str], str] = lambda _name: "active"
        """What ActiveState a unit has once it was started."""
        self.on_stop: Callable[[str], str] = lambda _name: "inactive"
        """What ActiveState a unit has once it was stopped."""
        self.refusals: dict[tuple[str, str], str] = {}
        """Verb and unit: what systemctl says instead of doing it."""
        self.slow_stops: dict[str, int] = {}
        """Units that outlast the client that stops them: how often they are looked at until systemd has killed them."""
        self.slow_starts: set[str] = set()
        """Units that outlast the client that starts them."""
        self.resets: list[str] = []
        """Units whose failures and counts of starts were asked to be forgotten."""
        self.crashing: Callable[[str], bool] = lambda _name: False
        """Whether a unit's processes end by themselves: each look finds it restarted, until its StartLimitBurst."""
        self.clients: dict[str, int] = {}
        """Units to whose socket a client connects whenever they are down, and how often still."""
        self._starts: dict[str, int] = {}
        """How often each unit was started, by systemd too, since that was forgotten."""
        self._number = 0
        self._flushed: set[str] = set()
        """Units that were stopped while they ran: the next start begins the count of restarts anew."""

    def add(self, name: str, active: str = "active", **properties: str) -> None:
        """Have a unit, active for an hour unless said otherwise."""
        entered = int((time.clock_gettime(time.CLOCK_MONOTONIC) - 3600) * 1e6) if active == "active" else 0
        self.units[name if "." in name else f"{name}.service"] = {
            "LoadState": "loaded",
            "ActiveState": active,
            "SubState": "running" if active == "active" else "dead",
            "Result": "success",
            "MainPID": "100" if active == "active" else "0",
            "NRestarts": "0",
            "InvocationID": "first",
            "ActiveEnterTimestampMonotonic": str(entered),
            **properties,
        }

    def run(self, argv: Sequence[str], _seconds: float) -> CommandOutput:
        """What a command line comes to."""
        self.asked.append(argv[0] if argv[0] == "journalctl" else argv[1])
        if argv[0] == "journalctl":
            return self._read_journal(argv)
        verb, names = argv[1], argv[argv.index("--") + 1 :]
        self._go_on(names)
        if verb == "show":
            missing = {"LoadState": "not-found", "ActiveState": "inactive"}
            blocks = [self.units.get(name, missing) for name in names]
            text = "\n\n".join("\n".join(f"{key}={value}" for key, value in block.items()) for block in blocks)
            return CommandOutput(0, text + "\n", "")
        (name,) = names
        if (verb, name) in self.refusals:
            if verb != "reset-failed":
                self.commands.append((verb, name.removesuffix(".service")))
            return CommandOutput(1, "", self.refusals[(verb, name)])
        if verb == "reset-failed":
            return self._reset(name)
        self.commands.append((verb, name.removesuffix(".service")))
        shown = self.units[name]
        is_slow = name in {"start": self.slow_starts, "stop": self.slow_stops}.get(verb, ())
        if is_slow and verb == "start":
            shown |= {"ActiveState": "activating", "SubState": "start", "MainPID": "200", "Job": "8"}
        elif is_slow:
            shown |= {"ActiveState": "deactivating", "SubState": "stop-sigterm", "Job": "7"}
        elif verb == "start":
            return self._start(name)
        elif verb == "stop":
            self._stop(name)
        return CommandOutput(None if is_slow else 0, "", "")

    def _read_journal(self, argv: Sequence[str]) -> CommandOutput:
        name = argv[1].removeprefix("--unit=")
        lines = self.journal.get(name, [])
        if f"MESSAGE_ID={OUT_OF_MEMORY}" in argv:
            lines = self.records.get(name, [])[-1:] if "_PID=1" in argv else []
        return CommandOutput(0, "".join(f"{line}\n" for line in lines), "")

    def _reset(self, name: str) -> CommandOutput:
        self.resets.append(name.removesuffix(".service"))
        shown = self.units[name]
        if shown["ActiveState"] == "inactive" and "WantedBy" not in shown:
            said = f"Failed to reset failed state of unit {name}: Unit {name} not loaded."
            return CommandOutput(1, "", said)
        shown["NRestarts"] = "0"
        self._starts[name] = 0
        return CommandOutput(0, "", "")

    def _start(self, name: str) -> CommandOutput:
        shown = self.units[name]
        self._starts[name] = self._starts.get(name, 0) + 1
        if self._starts[name] > int(shown.get("StartLimitBurst", "5")):
            shown |= {"ActiveState": "failed", "SubState": "failed", "MainPID": "0"}
            said = f"Job for {name} failed. Start request repeated too quickly."
            return CommandOutput(1, "", said)
        if name in self._flushed:
            self._flushed.remove(name)
            shown["NRestarts"] = "0"
        self._number += 1
        active = self.on_start(name.removesuffix(".service"))
        entered = int(time.clock_gettime(time.CLOCK_MONOTONIC) * 1e6)
        shown |= {"ActiveState": active, "SubState": "running" if active == "active" else active}
        shown |= {"MainPID": str(200 + self._number), "ActiveEnterTimestampMonotonic": str(entered)}
        shown |= {"InvocationID": f"start-{self._number}"}
        if active == "active":
            shown["Result"] = "success"
        return CommandOutput(0, "", "")

    def _stop(self, name: str) -> None:
        shown = self.units[name]
        waited = shown["SubState"] == "auto-restart"
        active = self.on_stop(name.removesuffix(".service"))
        shown |= {"ActiveState": active, "SubState": "running" if active == "active" else "dead", "Job": ""}
        if active == "active":
            return
        shown["MainPID"] = "0"
        if not waited:
            self._flushed.add(name)
        if "WantedBy" not in shown:
            self._starts[name] = 0
            shown["NRestarts"] = "0"

    def _go_on(self, names: Sequence[str]) -> None:
        """A stop job goes on although nobody waits for it; what crashes, or is asked for by a client, is started."""
        for name in [name for name, left in self.clients.items() if left]:
            if self.units[name]["ActiveState"] == "inactive":
                self.clients[name] -= 1
                self._start(name)
        for name in names:
            shown = self.units.get(name, {})
            if shown.get("ActiveState") in {"active", "activating"} and self.crashing(name.removesuffix(".service")):
                shown |= {"ActiveState": "activating", "SubState": "auto-restart", "MainPID": "0"}
                shown["NRestarts"] = str(int(shown["NRestarts"]) + 1)
                self._starts[name] = self._starts.get(name, 0) + 1
                if self._starts[name] > int(shown.get("StartLimitBurst", "5")):
                    shown |= {"ActiveState": "failed", "SubState": "failed", "Result": "exit-code"}
            if name in self.slow_stops and self.units[name]["ActiveState"] == "deactivating":
                self.slow_stops[name] -= 1
                if self.slow_stops[name] < 0:
                    ended = {"ActiveState": "failed", "SubState": "failed", "Result": "timeout", "MainPID": "0"}
                    self.units[name] |= {**ended, "Job": ""}
