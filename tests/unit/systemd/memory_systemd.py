# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A systemd in memory, which is asked and told by the same command lines as the real one."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from ansible_collections.lowtide.ops.plugins.module_utils._systemd.manager import CommandOutput

OUT_OF_MEMORY = "fe6faa94e7774663a0da52717891d8ef"
"""systemd's identity of its message on a unit that the OOM killer has hit (sd-messages.h)."""


class MemorySystemd:
    """Units by name, each with the properties that systemctl shows; every command that changes something is kept."""

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
            name = argv[1].removeprefix("--unit=")
            if f"MESSAGE_ID={OUT_OF_MEMORY}" in argv:
                lines = self.records.get(name, []) if "_PID=1" in argv else []
                return CommandOutput(0, "".join(f"{line}\n" for line in lines[-1:]), "")
            return CommandOutput(0, "".join(f"{line}\n" for line in self.journal.get(name, [])), "")
        verb, names = argv[1], argv[argv.index("--") + 1 :]
        if verb == "show":
            self._go_on(names)
            missing = {"LoadState": "not-found", "ActiveState": "inactive"}
            blocks = [self.units.get(name, missing) for name in names]
            text = "\n\n".join("\n".join(f"{key}={value}" for key, value in block.items()) for block in blocks)
            return CommandOutput(0, text + "\n", "")
        (name,) = names
        self.commands.append((verb, name.removesuffix(".service")))
        if (verb, name) in self.refusals:
            return CommandOutput(1, "", self.refusals[(verb, name)])
        shown = self.units[name]
        is_slow = name in {"start": self.slow_starts, "stop": self.slow_stops}.get(verb, ())
        if is_slow and verb == "start":
            shown |= {"ActiveState": "activating", "SubState": "start", "MainPID": "200", "Job": "8"}
        elif is_slow:
            shown |= {"ActiveState": "deactivating", "SubState": "stop-sigterm", "Job": "7"}
        elif verb == "start":
            active = self.on_start(name.removesuffix(".service"))
            entered = int(time.clock_gettime(time.CLOCK_MONOTONIC) * 1e6)
            shown |= {"ActiveState": active, "SubState": "running" if active == "active" else active, "MainPID": "200"}
            shown |= {"ActiveEnterTimestampMonotonic": str(entered), "InvocationID": f"start-{len(self.commands)}"}
        elif verb == "stop":
            active = self.on_stop(name.removesuffix(".service"))
            shown |= {"ActiveState": active, "SubState": "running" if active == "active" else "dead", "MainPID": "0"}
            shown["Job"] = ""
        return CommandOutput(None if is_slow else 0, "", "")

    def _go_on(self, names: Sequence[str]) -> None:
        """A stop job goes on although nobody waits for it."""
        for name in names:
            if name in self.slow_stops and self.units[name]["ActiveState"] == "deactivating":
                self.slow_stops[name] -= 1
                if self.slow_stops[name] < 0:
                    ended = {"ActiveState": "failed", "SubState": "failed", "Result": "timeout", "MainPID": "0"}
                    self.units[name] |= {**ended, "Job": ""}
