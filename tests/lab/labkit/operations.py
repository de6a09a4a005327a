# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Up, down and status of a whole lab."""

from __future__ import annotations

import shutil
import threading
import time
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

from labkit import packages, process
from labkit.component import Component, in_order
from labkit.errors import LabError
from labkit.lab import Lab

WORKERS = 4
"""Components at work at once. Most of their time is waiting, also for the components they require."""


def install(lab: Lab, components: dict[str, Component], wanted: list[str]) -> None:
    """Install ``wanted`` and what they require."""
    packages.base(lab)
    for component in in_order(wanted, components):
        _install(lab, component)


def _install(lab: Lab, component: Component) -> None:
    with lab.locked(f"install-{component.name}"):
        begin = time.monotonic()
        component.install(lab)
        seconds = time.monotonic() - begin
        if seconds > 1:
            lab.say(f"{component.name}: installed in {seconds:.1f} s")


def prepare(lab: Lab) -> None:
    """Have network, cgroups and state directory; end the remains of a lab whose network is gone."""
    lab.root.mkdir(parents=True, exist_ok=True)
    if lab.network.create():
        lab.facts_file.unlink(missing_ok=True)  # nobody lives on in a network that is new
        left = lab.cgroup.pids()
        if left:
            lab.say(f"ending {len(left)} processes of an earlier run whose network is gone")
            _kill_all(lab)
            unmount_below(lab.root)
    lab.cgroup.create()


def up(lab: Lab, components: dict[str, Component], wanted: list[str]) -> None:
    """Install and start ``wanted`` and what they require, independent ones at the same time; write the facts."""
    ordered = in_order(wanted, components)
    with lab.locked(f"lab-{lab.name}"):
        packages.base(lab)
        prepare(lab)
        facts = _facts_of_the_living(lab, components)
        facts["lab"] = {
            "name": lab.name,
            "netns": str(lab.netns),
            "state": str(lab.root),
            "cache": str(lab.cache),
            "python": str(lab.cache / "venv/bin/python"),
        }
        lab.write_facts(facts)
        guard = threading.Lock()

        def bring(component: Component) -> None:
            _install(lab, component)
            for required in component.requires:
                futures[required].result()
            begin = time.monotonic()
            with lab.network.entered():
                component.start(lab)
                component.ready(lab)
                answer = component.facts(lab)
            with guard:
                facts[component.name] = answer
                lab.write_facts(facts)
            lab.say(f"{component.name}: ready ({time.monotonic() - begin:.1f} s)")

        futures: dict[str, Future[None]] = {}
        with ThreadPoolExecutor(WORKERS) as pool:
            for component in ordered:
                futures[component.name] = pool.submit(bring, component)
            try:
                _finish(lab, futures)
            except BaseException:
                lab.interrupted.set()
                raise


def _facts_of_the_living(lab: Lab, components: dict[str, Component]) -> dict[str, Any]:
    """The facts of an earlier run, without the components that have died since or stand on one that has."""
    before = lab.facts() if lab.facts_file.exists() else {}
    kept: dict[str, Any] = {}
    for component in in_order([], components):
        alive = all(process.alive() for process in lab.processes(component.name))
        if component.name in before and alive and all(required in kept for required in component.requires):
            kept[component.name] = before[component.name]
    return kept


def _finish(lab: Lab, futures: dict[str, Future[None]]) -> None:
    """Wait for all; after a failure start nothing new, let the others come to their end, and raise the first failure.

    In the order of ``futures`` what failed because of another comes after that one.
    """
    pending = set(futures.values())
    while pending:
        done, pending = wait(pending, return_when=FIRST_COMPLETED)
        if pending and any(not one.cancelled() and one.exception() for one in done):
            waiting = [name for name, future in futures.items() if future in pending and not future.cancel()]
            failed = [name for name, future in futures.items() if future in done]
            lab.say(f"{', '.join(failed)}: failed; waiting for {', '.join(waiting)} to come to an end")
            pending = {futures[name] for name in waiting}
    for future in futures.values():
        error = None if future.cancelled() else future.exception()
        if error is not None:
            raise error


def down(lab: Lab, components: dict[str, Component]) -> None:
    """Stop everything and remove every trace, also after a crash and on the remains of a killed run."""
    with lab.locked(f"lab-{lab.name}"):
        begin = time.monotonic()
        failures = []
        if lab.network.exists():
            for component in reversed(in_order([], components)):
                if (lab.root / component.name).is_dir():
                    try:
                        with lab.network.entered():
                            component.stop(lab)
                    except LabError as error:
                        failures.append(error)
        _kill_all(lab)
        unmount_below(lab.root)
        lab.network.remove()
        lab.cgroup.remove()
        if lab.root.exists():
            shutil.rmtree(lab.root)
        for failure in failures:
            lab.say(f"it did not stop well and was removed by force: {failure}")
        lab.say(f"lab {lab.name} is down ({time.monotonic() - begin:.1f} s)")


def _kill_all(lab: Lab, seconds: float = 120.0) -> None:
    """Kill every process in the lab's cgroups or network, new ones too, until there is none."""
    spared = process.ancestors()
    deadline = time.monotonic() + seconds
    while True:
        left = (lab.cgroup.pids() | lab.network.pids()) - spared
        left = {pid for pid in left if process.start_time(pid) is not None}
        if not left:
            return
        if time.monotonic() > deadline:
            raise LabError(
                obj=f"lab {lab.name}",
                problem=f"processes {sorted(left)} cannot be killed",
                next_step="See what they wait for (ps -o stat,wchan)",
            )
        process.kill(left)
        process.wait_gone(left, 2.0)


def mounts_below(folder: Path, mountinfo: str) -> list[str]:
    """Mount points at or below ``folder``, last mounted first, from the text of /proc/self/mountinfo."""
    found = []
    for line in mountinfo.splitlines():
        point = line.split()[4].encode().decode("unicode_escape")
        if Path(point).is_relative_to(folder):
            found.append(point)
    return list(reversed(found))


def unmount_below(folder: Path) -> None:
    """Unmount everything at or below ``folder``."""
    for point in mounts_below(folder, Path("/proc/self/mountinfo").read_text()):
        packages.command(["umount", "--lazy", point])


def status(lab: Lab, components: dict[str, Component]) -> None:
    """Print every component's processes."""
    facts = lab.facts()
    for name in components:
        running = lab.processes(name)
        if not running:
            continue
        state = "ready" if name in facts else "not ready"
        print(f"{name}: {state}")
        for one in running:
            alive = f"pid {one.pid}, {one.rss_kib() // 1024} MiB" if one.alive() else "dead"
            print(f"  {one.name}: {alive}  {one.log}")
