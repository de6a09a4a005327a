# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Services of one test on the lab's service hosts: a cache, a database stand-in and an API, each with its releases."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .modules import CHECKOUT
from .playbooks import write_yaml

PROGRAM = CHECKOUT / "tests/lab/app/host_service.py"
NAMES = ("cache", "db", "api")
MODES = {"1": "good", "2": "good", "never_ready": "never_ready", "crash": "crash", "breaks": "breaks"}
"""Releases, and how each behaves."""


@dataclass
class ServiceSite:
    """Three hosts with three services each, and an inventory of them."""

    facts: dict[str, Any]
    folder: Path
    prefix: str
    base: int

    @property
    def hosts(self) -> list[str]:
        """The hosts' names in order."""
        return [host["name"] for host in self.facts["hosts"]]

    @property
    def place(self) -> str:
        """The folder of the releases on each host."""
        return f"/srv/{self.prefix}"

    def name_unit(self, name: str) -> str:
        """Return the unit's name."""
        return f"{self.prefix}-{name}.service"

    def find_port(self, name: str) -> int:
        """Return the service's port on its host."""
        return self.base + NAMES.index(name)

    def make_tiers(self, release: str = "1", **changes: dict[str, Any]) -> list[list[dict[str, Any]]]:
        """Return the declaration; ``changes`` are laid over the entries by name."""
        tiers: list[list[dict[str, Any]]] = []
        for name in NAMES:
            url = f"http://127.0.0.1:{self.find_port(name)}"
            entry: dict[str, Any] = {"name": self.name_unit(name), "ready": {"url": f"{url}/ready", "timeout": 30}}
            if name == "api":
                entry["drain"] = {"url": f"{url}/inflight", "field": "in_flight", "limit": 30}
                entry["release"] = {"link": f"{self.place}/current", "target": f"{self.place}/{release}"}
            tiers.append([{**entry, **changes.get(name, {})}])
        return tiers

    def write_inventory(self) -> str:
        """Write the inventory, and return its path."""
        variables = {
            "ansible_user": self.facts["user"],
            "ansible_ssh_private_key_file": self.facts["key"],
            "ansible_ssh_common_args": self.facts["ssh_arguments"],
            "ansible_control_path_dir": self.facts["control_path"],
            "ansible_pipelining": True,
            "ansible_python_interpreter": "/usr/bin/python3",
            "window_dir": str(self.folder / "windows"),
            "window_site": "services",
        }
        hosts = {host["name"]: {"ansible_host": host["address"]} for host in self.facts["hosts"]}
        local = {"ansible_connection": "local", "ansible_python_interpreter": "{{ ansible_playbook_python }}"}
        children = {
            "service_hosts": {"hosts": hosts, "vars": variables},
            "control": {"hosts": {"window_control": local}, "vars": {**variables, **local}},
        }
        return str(write_yaml(self.folder / "hosts.yml", {"all": {"children": children}}))

    def make_command(self, host: str, *argv: str) -> list[str]:
        """Return what runs a command on a host as its administrator."""
        address = next(entry["address"] for entry in self.facts["hosts"] if entry["name"] == host)
        options = shlex.split(self.facts["ssh_arguments"])
        login = ["ssh", *options, "-i", self.facts["admin_key"], f"{self.facts['admin_user']}@{address}"]
        return [*login, shlex.join(argv)]

    def run(self, host: str, *argv: str, stdin: str = "", check: bool = True) -> str:
        """Run a command on a host as its administrator, and return what it prints."""
        command = self.make_command(host, *argv)
        done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=400, check=False)
        assert done.returncode == 0 or not check, f"{host}: {argv}: {done.stderr}"
        return done.stdout

    def install(self, host: str) -> None:
        """Bring program, releases and units to a host; nothing runs."""
        files = {f"{self.place}/{release}/host_service.py": PROGRAM.read_text() for release in MODES}
        files |= {f"{self.place}/{release}/mode": mode for release, mode in MODES.items()}
        needed = ""
        for name in NAMES:
            folder = "current" if name == "api" else "1"
            start = f"/usr/bin/python3 {self.place}/{folder}/host_service.py {self.find_port(name)} {needed}"
            service = f"[Service]\nExecStart={start.strip()}\nRestart=on-failure\nRestartSec=100ms\n"
            files[f"/etc/systemd/system/{self.name_unit(name)}"] = service
            needed = str(self.find_port(name))
        script = "import json, os, sys, shutil\nfor path, text in json.load(sys.stdin).items():\n"
        script += "    os.makedirs(os.path.dirname(path), exist_ok=True)\n    open(path, 'w').write(text)\n"
        script += f"os.symlink('{self.place}/1', '{self.place}/current')\n"
        script += f"shutil.chown('{self.place}', '{self.facts['user']}')\n"
        self.run(host, "python3", "-c", script, stdin=json.dumps(files))
        self.run(host, "systemctl", "daemon-reload")

    def start(self) -> None:
        """Have everything serve on all hosts, as it is where a test begins with services that run."""
        url = f"http://127.0.0.1:{self.find_port('api')}/ready"
        wait = "import sys, time, urllib.request as u\nend = time.monotonic() + 200\nwhile True:\n    try:\n"
        wait += f"        u.urlopen('{url}')\n        break\n    except OSError:\n"
        wait += "        if time.monotonic() > end: raise\n        time.sleep(0.1)\n"

        def serve(host: str) -> None:
            self.run(host, "systemctl", "start", *map(self.name_unit, NAMES))
            self.run(host, "python3", "-c", wait)

        self.on_all(serve)

    def on_all(self, work: Callable[[str], None]) -> None:
        """Do something for all hosts at once."""
        with ThreadPoolExecutor() as pool:
            list(pool.map(work, self.hosts))

    def remove(self, host: str) -> None:
        """Remove all of it."""
        units = [self.name_unit(name) for name in NAMES]
        script = "import subprocess, sys\nfor argv in (['kill', '--signal=KILL'], ['stop'], ['reset-failed']):\n"
        script += "    subprocess.run(['systemctl', *argv, *sys.argv[1:]], stderr=subprocess.DEVNULL)\n"
        self.run(host, "python3", "-c", script, *units)
        self.run(host, "rm", "-rf", self.place, *(f"/etc/systemd/system/{unit}" for unit in units))
        self.run(host, "systemctl", "daemon-reload")

    def show(self, host: str, prop: str) -> dict[str, str]:
        """Return a property of each unit, by name."""
        units = [self.name_unit(name) for name in NAMES]
        lines = self.run(host, "systemctl", "show", "--value", f"--property={prop}", *units).split()
        return dict(zip(NAMES, lines, strict=True))

    def read_release(self, host: str) -> str:
        """Return the release that the API says it is; empty when it does not answer."""
        url = f"http://127.0.0.1:{self.find_port('api')}/release"
        script = f"import urllib.request as u\ntry: print(u.urlopen('{url}').read().decode())\nexcept OSError: pass"
        return self.run(host, "python3", "-c", script).strip()


def read_next_second() -> str:
    """Return the next whole second as soon as it has come: whatever was started before is older than that."""
    now = int(time.time())
    while time.time() < now + 1:
        time.sleep(0.05)
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now + 1))


@contextmanager
def make_service_site(facts: dict[str, Any], name: str, folder: Path) -> Iterator[ServiceSite]:
    """Install the services on all hosts, and remove them at the end."""
    prefix = f"lab-{name}"
    site = ServiceSite(facts["service_hosts"], folder, prefix, 20000 + os.getpid() * 8 % 30000)
    try:
        site.on_all(site.install)
        yield site
    finally:
        site.on_all(site.remove)
