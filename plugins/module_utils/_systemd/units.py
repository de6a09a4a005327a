# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Units as they are declared, and as systemd shows them.

Private to lowtide.ops: do not import from other collections.
"""

from __future__ import annotations

import math
import posixpath
import re
import typing as t

from .._common.errors import OpsError, Refusal
from .._common.text import format_size
from .urls import find_fault, hide_query

RUNNING = ("active", "activating", "reloading", "deactivating", "refreshing", "maintenance")
"""Values of ActiveState in which processes of the unit may run."""
SERVING = ("active", "reloading", "refreshing")
"""Values of ActiveState of a unit that has been started."""
PROPERTIES = (
    "Id",
    "LoadState",
    "ActiveState",
    "SubState",
    "Result",
    "MainPID",
    "NRestarts",
    "InvocationID",
    "ActiveEnterTimestampMonotonic",
    "ExecMainCode",
    "ExecMainStatus",
    "OOMPolicy",
    "MemoryMax",
    "MemoryPeak",
    "NeedDaemonReload",
    "RequiredBy",
    "BoundBy",
    "ConsistsOf",
    "RequisiteOf",
    "PropagatesStopTo",
    "TriggeredBy",
    "UpheldBy",
    "Requires",
    "Wants",
    "BindsTo",
    "Upholds",
    "Conflicts",
    "ConflictedBy",
    "Type",
    "RemainAfterExit",
    "CanStart",
    "CanStop",
    "Transient",
    "Job",
    "TimeoutStartUSec",
    "TimeoutStopUSec",
)
"""What is asked of systemd. Never Environment, nor anything else that may hold a secret.

systemctl leaves out what its version does not know.
"""
NO_AMOUNT = ("", "infinity", "[not set]", str(2**64 - 1))
"""How systemd writes that an amount of memory has no limit, or is not known."""

START_PHASES = 4
"""The commands of ExecCondition, ExecStartPre, ExecStart and ExecStartPost: each phase may take TimeoutStartSec."""
STOP_PHASES = 3
"""The command of ExecStop, SIGTERM and SIGKILL: systemd gives each of them TimeoutStopSec."""
MARGIN = 10.0
DEFAULT_SECONDS = 90.0
"""What systemd gives a start or a stop by default, and what is given where it gives any time."""
_SPANS = {"us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_SPANS.update({"month": 2629800.0, "y": 31557600.0})


HIGHEST_PORT = 65535
URLS = ("url", "begin_url", "cancel_url")
DEPENDENTS = ("RequiredBy", "BoundBy", "ConsistsOf", "RequisiteOf", "PropagatesStopTo")
"""Properties that name what systemd stops together with a unit."""
DEPENDENCIES = ("Requires", "Wants", "BindsTo", "Upholds")
"""Properties that name what systemd starts together with a unit."""
RIVALS = ("Conflicts", "ConflictedBy")
"""Properties that name what systemd stops when a unit is started."""
NAME = re.compile(r"[A-Za-z0-9:_.\\-]+(?:@[A-Za-z0-9:_.\\@-]+)?\.service")
"""A service's name, or that of an instance. What systemctl would take as a pattern or a path is none."""


class Ready(t.NamedTuple):
    """How a unit shows that it serves: an answer of that status from ``url``, or a port that accepts connections."""

    url: str = ""
    status: int = 200
    port: int = 0
    address: str = "127.0.0.1"
    timeout: float = 60.0
    ca_path: str = ""


class Drain(t.NamedTuple):
    """Where the number of requests in flight is read, and how long they may take to end."""

    url: str
    field: str = ""
    limit: float = 60.0
    begin_url: str = ""
    cancel_url: str = ""
    ca_path: str = ""


class Release(t.NamedTuple):
    """A symbolic link, and the folder of the release that it has to point at."""

    link: str
    target: str


class Unit(t.NamedTuple):
    """One unit as declared. ``tier`` counts from 1."""

    name: str
    tier: int
    ready: Ready | None = None
    drain: Drain | None = None
    release: Release | None = None
    shared: bool = False
    start_timeout: float = 0.0
    """How long a start may take; 0 is as long as systemd itself gives it."""
    stop_timeout: float = 0.0
    """How long a stop may take; 0 is as long as systemd itself gives it."""


class UnitState(t.NamedTuple):
    """One unit as systemd shows it; ``entered`` is when it became active, in seconds since the epoch."""

    name: str
    """As it was asked for, which may be an alias."""
    load: str
    active: str
    sub: str
    result: str
    pid: int
    restarts: int
    invocation: str
    entered: float
    exit_code: str
    exit_status: str
    outdated: bool
    needed_by: tuple[str, ...]
    """What systemd stops together with it, of any kind."""
    triggered_by: tuple[str, ...] = ()
    """The sockets, timers and paths that start it."""
    upheld_by: tuple[str, ...] = ()
    """The units that start it again whenever it is down."""
    pulls: tuple[str, ...] = ()
    """What systemd starts together with it, of any kind."""
    rivals: tuple[str, ...] = ()
    """What systemd stops when it is started."""
    kind: str = ""
    """Its Type; empty of what is no service."""
    own_name: str = ""
    """Its Id: what systemd and the journal call it, where it was asked for by an alias."""
    entered_monotonic: int = 0
    """When it became active, in microseconds since the boot."""
    remains: bool = False
    """Whether it stays active when its processes have ended."""
    can_start: bool = True
    """Whether systemd starts it when it is told to."""
    can_stop: bool = True
    """Whether systemd stops it when it is told to."""
    transient: bool = False
    """Whether it has no file, so that it is gone once it was stopped."""
    start_limit: float = DEFAULT_SECONDS
    """TimeoutStartSec, after which systemd ends a start; infinity where it never does."""
    stop_limit: float = DEFAULT_SECONDS
    """TimeoutStopSec, after which systemd kills what has not ended; infinity where it never does."""
    has_job: bool = False
    """Whether systemd is at starting or stopping it."""
    oom_policy: str = ""
    memory_max: int | None = None
    memory_peak: int | None = None

    @property
    def running(self) -> bool:
        """Whether processes of it may run."""
        return self.active in RUNNING

    @property
    def identity(self) -> str:
        """What no other start of it has: before systemd 232, which has no InvocationID, its process and its time."""
        return self.invocation or f"{self.pid} {self.entered_monotonic}"

    @property
    def settled(self) -> bool:
        """Whether nothing is being done to it, so that it stays as it is."""
        return self.active != "deactivating" and not self.has_job

    @property
    def start_seconds(self) -> float:
        """How long systemd may take to start it, or to end a start that takes too long, all phases together."""
        if not math.isfinite(self.start_limit):
            return DEFAULT_SECONDS
        return START_PHASES * self.start_limit + self.stop_seconds

    @property
    def stop_seconds(self) -> float:
        """How long systemd may take to stop it, all phases together."""
        return STOP_PHASES * self.stop_limit + MARGIN if math.isfinite(self.stop_limit) else DEFAULT_SECONDS

    @property
    def serving(self) -> bool:
        """Whether systemd calls it active."""
        return self.active in SERVING

    @property
    def answering(self) -> bool:
        """Whether something may answer: not while it waits to be restarted. A MainPID of 0 says nothing of it."""
        return self.running and not self.sub.startswith("auto-restart")

    def describe(self) -> str:
        """Return the state in systemd's words; of a unit that was killed out of memory with what it could take."""
        words = f"{self.active} ({self.sub})"
        if self.result == "oom-kill":
            limit = "no MemoryMax" if self.memory_max is None else f"MemoryMax {format_size(self.memory_max)}"
            peak = "" if self.memory_peak is None else f", MemoryPeak {format_size(self.memory_peak)}"
            return f"{words}, killed out of memory (result oom-kill, {limit}{peak})"
        return f"{words}, result {self.result}" if self.result not in {"", "success"} else words


def parse_tiers(given: t.Sequence[t.Any]) -> list[list[Unit]]:
    """Return the declared tiers. A flat list is one tier; a Refusal names what cannot be understood."""
    if not given:
        raise _refuse("tiers", "no unit is declared", "Declare at least one unit")
    flat = all(not isinstance(entry, list) for entry in given)
    tiers = [list(given)] if flat else list(given)
    parsed: list[list[Unit]] = []
    for number, tier in enumerate(tiers, start=1):
        if not isinstance(tier, list) or not tier:
            raise _refuse(f"tier {number}", f"it is {tier!r}, not a list of units", "Give a list of mappings with name")
        parsed.append([_parse_unit(entry, number) for entry in tier])
    names = [unit.name for tier in parsed for unit in tier]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise _refuse(f"unit {twice[0]}", "it is declared twice", "Leave one of the entries")
    return parsed


def _parse_unit(entry: t.Any, tier: int) -> Unit:
    if isinstance(entry, str):
        entry = {"name": entry}
    if not isinstance(entry, dict) or not isinstance(entry.get("name"), str) or not entry["name"]:
        raise _refuse(f"tier {tier}", f"{entry!r} is no unit", "Give a mapping with name")
    name = entry["name"] if "." in entry["name"] else f"{entry['name']}.service"
    place = f"unit {name}"
    if not name.endswith(".service"):
        raise _refuse(place, "it is no service", "Name a unit that ends in .service")
    if not NAME.fullmatch(name):
        raise _refuse(
            place,
            "it is no name of one unit: patterns (* ? [), paths and templates without an instance are not taken",
            "Declare each unit by its name, as `systemctl list-units` has it",
        )
    fields = _take(place, {**entry, "name": name}, Unit)
    fields["tier"] = tier
    for key, kind in (("ready", Ready), ("drain", Drain), ("release", Release)):
        if fields.get(key) is not None:
            fields[key] = _parse_part(f"{place}, {key}", fields[key], kind)
    unit = Unit(**fields)
    _check(place, unit)
    return unit


def _parse_part(place: str, given: t.Any, kind: type[t.Any]) -> t.Any:
    if not isinstance(given, dict):
        raise _refuse(place, f"{given!r} is no mapping", f"Give a mapping of {', '.join(kind._fields)}")
    fields = _take(place, given, kind)
    missing = [key for key in kind._fields if key not in fields and key not in kind._field_defaults]
    if missing:
        raise _refuse(place, f"{missing[0]} is missing", f"Set {missing[0]}")
    return kind(**fields)


def _take(place: str, given: t.Mapping[str, t.Any], kind: type[t.Any]) -> dict[str, t.Any]:
    """Return the fields of a mapping in the types of their defaults; texts of a template are numbers where asked."""
    allowed = [key for key in kind._fields if key != "tier"]
    unknown = sorted(set(given) - set(allowed))
    if unknown:
        raise _refuse(place, f"unknown key {unknown[0]}", f"Use some of {', '.join(allowed)}")
    fields: dict[str, t.Any] = {}
    for key, value in given.items():
        default = kind._field_defaults.get(key, "")
        fields[key] = value if default is None else _convert(f"{place}, {key}", value, type(default))
    return fields


def _convert(place: str, value: t.Any, kind: type[t.Any]) -> t.Any:
    if kind is bool:
        if isinstance(value, bool):
            return value
        raise _refuse(place, f"{value!r} is not true or false", "Give true or false")
    if kind is str:
        if isinstance(value, str):
            return value
        raise _refuse(place, f"{value!r} is no text", "Give a text")
    try:
        number = kind(value)
    except (TypeError, ValueError):
        number = -1
    if isinstance(value, bool) or number < 0:
        raise _refuse(place, f"{value!r} is no number from 0", "Give a number")
    return number


def _check(place: str, unit: Unit) -> None:
    """Refuse what contradicts itself, and what could only fail once services have been stopped."""
    if unit.ready is not None and bool(unit.ready.url) == bool(unit.ready.port):
        raise _refuse(f"{place}, ready", "it has neither or both of url and port", "Give one of url and port")
    if unit.ready is not None and unit.ready.port > HIGHEST_PORT:
        raise _refuse(f"{place}, ready", f"port {unit.ready.port} is above {HIGHEST_PORT}", "Give a port of TCP")
    for part in (unit.ready, unit.drain):
        for key, value in part._asdict().items() if part is not None else ():
            fault = find_fault(value) if key in URLS and value else ""
            if fault:
                kind = type(part).__name__.lower()
                raise _refuse(
                    f"{place}, {kind}, {key} {hide_query(value)!r}", fault, "Give one such as http://HOST:PORT/PATH"
                )
    if unit.drain is not None and not unit.drain.url:
        raise _refuse(f"{place}, drain", "its url is empty", "Give the URL that says how many requests are in flight")
    if unit.shared and (unit.release is not None or unit.drain is not None):
        raise _refuse(
            place,
            "it is shared, so it is never stopped, and yet it has a release or a drain",
            "Leave out shared, or release and drain",
        )
    if unit.release is not None:
        for key, path in unit.release._asdict().items():
            if not path.startswith("/") or posixpath.normpath(path) != path:
                raise _refuse(
                    f"{place}, release", f"{key} {path!r} is no absolute path in its shortest form", "Give such a path"
                )


def parse_shown(text: str, names: t.Sequence[str], boot: float) -> dict[str, UnitState]:
    """Return the states by the names asked for, from what ``systemctl show`` printed: one block for each, in order.

    ``boot`` is when the monotonic clock was 0, in seconds since the epoch.
    """
    blocks = [block for block in text.strip().split("\n\n") if block.strip()]
    if len(blocks) != len(names):
        raise OpsError(
            obj="systemctl show",
            problem=f"it printed {len(blocks)} units when asked for {len(names)}",
            next_step="Run `systemctl show --property=Id` with these units on the host",
        )
    return {name: _parse_block(name, blocks[index], boot) for index, name in enumerate(names)}


def _parse_block(name: str, block: str, boot: float) -> UnitState:
    shown = {key: value for key, _sign, value in (line.partition("=") for line in block.splitlines())}
    if not shown.get("LoadState") or not shown.get("ActiveState"):
        raise OpsError(
            obj=f"unit {name}",
            problem="systemctl show printed no LoadState or no ActiveState for it",
            next_step=f"Run `systemctl show {name}` on the host",
        )

    def read_names(*keys: str) -> tuple[str, ...]:
        return tuple(sorted({other for key in keys for other in shown.get(key, "").split()}))

    def read_limit(key: str) -> float:
        return parse_span(name, key, shown[key]) if shown.get(key) else DEFAULT_SECONDS

    monotonic = int(shown.get("ActiveEnterTimestampMonotonic") or 0)
    return UnitState(
        name=name,
        load=shown["LoadState"],
        active=shown["ActiveState"],
        sub=shown.get("SubState", ""),
        result=shown.get("Result", ""),
        pid=int(shown.get("MainPID") or 0),
        restarts=int(shown.get("NRestarts") or 0),
        invocation=shown.get("InvocationID", ""),
        entered=boot + monotonic / 1e6 if monotonic else 0.0,
        exit_code=shown.get("ExecMainCode", ""),
        exit_status=shown.get("ExecMainStatus", ""),
        outdated=shown.get("NeedDaemonReload") == "yes",
        needed_by=read_names(*DEPENDENTS),
        triggered_by=read_names("TriggeredBy"),
        upheld_by=read_names("UpheldBy"),
        pulls=read_names(*DEPENDENCIES),
        rivals=read_names(*RIVALS),
        kind=shown.get("Type", ""),
        own_name=shown.get("Id") or name,
        entered_monotonic=monotonic,
        remains=shown.get("RemainAfterExit") == "yes",
        can_start=shown.get("CanStart") != "no",
        can_stop=shown.get("CanStop") != "no",
        transient=shown.get("Transient") == "yes",
        start_limit=read_limit("TimeoutStartUSec"),
        stop_limit=read_limit("TimeoutStopUSec"),
        has_job=shown.get("Job", "") not in {"", "0"},
        oom_policy=shown.get("OOMPolicy", ""),
        memory_max=_parse_amount(shown.get("MemoryMax", "")),
        memory_peak=_parse_amount(shown.get("MemoryPeak", "")),
    )


def parse_span(name: str, key: str, text: str) -> float:
    """Return the seconds of a property as systemctl prints it: ``1min 30s``, ``infinity``."""
    if text == "infinity":
        return math.inf
    parts = [re.fullmatch(r"(\d+(?:\.\d+)?)([a-zµ]*)", word) for word in text.split()]
    spans = [float(part[1]) * _SPANS[part[2]] for part in parts if part is not None and part[2] in _SPANS]
    if len(spans) == len(parts):
        return math.fsum(spans)
    if text == "0":
        return 0.0
    raise OpsError(
        obj=f"unit {name}",
        problem=f"systemctl show printed {key}={text}, which is no time",
        next_step=f"Run `systemctl show --property={key} {name}` on the host",
    )


def _parse_amount(value: str) -> int | None:
    return None if value in NO_AMOUNT else int(value)


def _refuse(obj: str, problem: str, next_step: str) -> Refusal:
    return Refusal(obj=obj, problem=problem, next_step=next_step)
