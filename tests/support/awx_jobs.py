# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The fast window as jobs of AWX 24.6.1: private data directories as AWX writes them, each run by ansible-runner in a
container of its own.

What a job sees was recorded from a real AWX: ``env/extravars`` with ``!unsafe``, one inventory script, credential files
with random names, a HOME that is new, a user without a passwd entry.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from labkit.ansible_versions import IN_TEST_ENVIRONMENT

from .fast_window import CHECKOUT, FAST, FastWindow
from .store_contract import Backend

Json = dict[str, Any]
USER, GROUP = 4711, 0
"""As OpenShift runs a pod: any uid, group 0."""
DRIVER = Path(__file__).with_name("_awx_job.py")
CONTAINER = ("unshare", "--pid", "--mount", "--fork", "--kill-child", "--mount-proc", "sh", "-c")
IN_POD = '"$@"; exit $?'
UNDER_PODMAN = 'mount --bind "$0" "$0"; cd /; "$@"; exit $?'
"""There the private data directory is a mount: ``-v /runner/:/runner/``."""
RESTORE = "restore-service.yml"
PLAYBOOKS = {"maintenance-window.yml": "maintenance_window", RESTORE: "restore_service"}
SCRIPT = "#! /usr/bin/env python3\n# -*- coding: utf-8 -*-\nprint({text!r})\n"
TEMPLATE_ID = 12
CONFIGURATION = """[defaults]
roles_path = roles
library = library
action_plugins = action_plugins
forks = 3
"""
"""The project's ansible.cfg, which counts in a job. AWX joins its roles_path with its own (ANSIBLE_ROLES_PATH)."""


@dataclass(frozen=True)
class Credential:
    """A credential type's file: its path goes into environment variables."""

    names: tuple[str, ...]
    content: str


@dataclass(frozen=True)
class Ended:
    """What AWX has of a job that ended."""

    status: str
    rc: int
    events: list[Json]
    text: str

    @property
    def out(self) -> str:
        """The job's output."""
        return "\n".join(str(event.get("stdout", "")) for event in self.events)

    @property
    def flat(self) -> str:
        """The job's output in one line, without colours and line breaks."""
        return " ".join(self.out.split())

    @property
    def artifacts(self) -> Json:
        """What AWX keeps of ``set_stats``: the data of the last event that has any."""
        found = [event["event_data"]["artifact_data"] for event in self.events if _has_artifacts(event)]
        return dict(found[-1]) if found else {}

    @property
    def window(self) -> Json:
        """The window's artifact."""
        return dict(self.artifacts["lowtide_window"])


def _has_artifacts(event: Json) -> bool:
    return bool((event.get("event_data") or {}).get("artifact_data"))


@dataclass
class Job:
    """A job that was started."""

    folder: Path
    process: subprocess.Popen[bytes]
    files: list[str]
    """Names of its credential files."""

    def cancel(self) -> None:
        """Cancel it as AWX does: ansible-runner kills ansible-playbook's process group."""
        (self.folder / "cancel").touch()

    def run_out_of_time(self) -> None:
        """Let its time be over, as if it had run for that long."""
        (self.folder / "timeout").touch()

    def wait_until_stopped(self) -> None:
        """Wait until its controller has stopped itself (SIGSTOP)."""
        deadline = time.monotonic() + 300
        while not any(_is_stopped(pid) for pid in self.find_processes()):
            assert self.process.poll() is None, self.finish().out
            assert time.monotonic() < deadline, "it did not stop"
            time.sleep(0.1)

    def finish(self) -> Ended:
        """Wait for its end."""
        self.process.wait(timeout=300)
        text = (self.folder.parent / f"{self.folder.name}.out").read_text()
        lines = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
        assert lines, text
        assert "status" in lines[-1], text[-3000:]
        return Ended(lines[-1]["status"], lines[-1]["rc"], lines[:-1], text)

    def find_processes(self) -> list[int]:
        """Return the processes of the job: those of its pid namespace."""
        found: list[int] = []
        try:
            wanted = os.readlink(f"/proc/{self.process.pid}/ns/pid_for_children")
        except FileNotFoundError:  # its first process is not there yet
            return found
        if wanted == os.readlink("/proc/self/ns/pid"):  # it is not made yet
            return found
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            try:
                namespace = os.readlink(entry / "ns/pid")
            except (FileNotFoundError, ProcessLookupError, PermissionError):  # gone, or the machine's own
                continue
            if namespace == wanted:
                found.append(int(entry.name))
        return found

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to all processes of the job."""
        for pid in self.find_processes():
            with suppress(ProcessLookupError):  # it ended meanwhile
                os.kill(pid, number)


def _is_stopped(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"
    except (FileNotFoundError, ProcessLookupError):
        return False


@dataclass
class Controller:
    """An AWX with one template of the fast window. ``variables`` are the template's own, ``inventory`` its
    inventory's."""

    window: FastWindow
    folder: Path
    credentials: list[Credential] = field(default_factory=list)
    variables: Json = field(default_factory=dict)
    inventory: Json = field(default_factory=dict)
    jobs: list[Job] = field(default_factory=list)

    def start(
        self,
        *,
        launch: str = "manual",
        playbook: str = "maintenance-window.yml",
        limit: str = "",
        hosts: tuple[str, ...] = (),
        workflow: str = "",
        env: Mapping[str, str] | None = None,
        under_podman: bool = False,
        **answers: Any,
    ) -> Job:
        """Start a job. ``answers`` are those of the survey or of a schedule; ``hosts`` is a slice."""
        number = 100 + len(self.jobs)
        own = self.folder / f"awx_{number}_{secrets.token_hex(4)}"
        self._write_project(own / "project")
        environment = self._write_credentials(own)
        files = [Path(value).name for value in environment.values()]
        inventory = slice_inventory(read_inventory(), hosts) if hosts else read_inventory()
        inventory["all"]["vars"].update(self.inventory)
        self._write(own / "inventory/hosts", SCRIPT.format(text=json.dumps(inventory)), 0o700)
        job = self._describe_job(number, launch, workflow)
        self._write(own / "env/extravars", format_extravars(self.variables, {**answers, **job}), 0o600)
        self._write(own / "env/cmdline", f"-u root{f' -l {limit}' if limit else ''}", 0o600)
        settings = {"job_timeout": 7200, "suppress_ansible_output": True, "suppress_output_file": True}
        self._write(own / "env/settings", json.dumps({**settings, "pexpect_timeout": 1}), 0o600)
        (own / "cp").mkdir()
        (own / "requirements_collections").symlink_to(CHECKOUT / "collections")
        environment.update(self._describe_environment(own, number), **(env or {}))
        for path in (own, *own.rglob("*")):
            os.chown(path, USER, GROUP, follow_symlinks=False)
        home = Path(tempfile.mkdtemp(prefix="home_", dir=self.folder))
        os.chown(home, USER, GROUP)
        image = {"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin", "HOME": str(home), "LANG": "C.UTF-8"}
        arguments = {
            "playbook": playbook,
            "ident": str(number),
            "inventory": str(own / "inventory/hosts"),
            "envvars": environment,
        }
        with open(self.folder / f"{own.name}.out", "wb") as out, tempfile.TemporaryFile() as order:
            order.write(json.dumps(arguments).encode())
            order.seek(0)
            process = subprocess.Popen(
                [
                    *(*CONTAINER, UNDER_PODMAN if under_podman else IN_POD, str(own)),
                    *("setpriv", f"--reuid={USER}", f"--regid={GROUP}", "--clear-groups", "--bounding-set=-all"),
                    *(sys.executable, str(DRIVER), str(own)),
                ],
                stdin=order,
                stdout=out,
                stderr=subprocess.STDOUT,
                env=image,
                cwd="/",
                start_new_session=True,
            )
        started = Job(own, process, files)
        self.jobs.append(started)
        return started

    def run(self, **arguments: Any) -> Ended:
        """Run a job to its end."""
        return self.start(**arguments).finish()

    def end(self) -> None:
        """End what a test left running."""
        for job in self.jobs:
            if job.process.poll() is None:
                job.process.kill()
                job.process.wait()

    @staticmethod
    def _write_project(folder: Path) -> None:
        shutil.copytree(FAST, folder, ignore=shutil.ignore_patterns("__pycache__", "inventory.yml"))
        for name, playbook in PLAYBOOKS.items():
            (folder / name).write_text(f"---\n- import_playbook: lowtide.ops.{playbook}\n")
        (folder / "ansible.cfg").write_text(CONFIGURATION)

    def _write_credentials(self, folder: Path) -> dict[str, str]:
        environment = {}
        for one in self.credentials:
            path = folder / f"env/tmp{secrets.token_hex(4)}"
            self._write(path, one.content, 0o600)
            environment.update(dict.fromkeys(one.names, str(path)))
        return environment

    @staticmethod
    def _write(path: Path, content: str, mode: int) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
        path.chmod(mode)

    def _describe_environment(self, folder: Path, number: int) -> dict[str, str]:
        return {
            "JOB_ID": str(number),
            "INVENTORY_ID": "2",
            "PROJECT_REVISION": "",
            "AWX_HOST": "https://towerhost",
            "AWX_PRIVATE_DATA_DIR": f"/tmp/awx_{number}_gone",
            "MAX_EVENT_RES": "700000",
            "ANSIBLE_FORCE_COLOR": "False",
            "ANSIBLE_HOST_KEY_CHECKING": "False",
            "ANSIBLE_INVENTORY_UNPARSED_FAILED": "True",
            "ANSIBLE_RETRY_FILES_ENABLED": "False",
            "ANSIBLE_ROLES_PATH": f"{folder}/requirements_roles:{folder}/project/roles",
            "ANSIBLE_COLLECTIONS_PATH": f"{folder}/requirements_collections",
            "ANSIBLE_SSH_CONTROL_PATH_DIR": f"{folder}/cp",
            # The world of the fast window, and the points at which a test stops it.
            "WORLD": str(self.window.folder / "world"),
            "ANSIBLE_CALLBACK_PLUGINS": f"{folder}/project/callback_plugins",
            "ANSIBLE_CALLBACKS_ENABLED": "kill_at",
            "FAST_RENEWAL": os.environ.get("FAST_RENEWAL", "15"),
        }

    @staticmethod
    def _describe_job(number: int, launch: str, workflow: str) -> Json:
        facts: Json = {"job_id": number, "job_launch_type": launch}
        if launch == "scheduled":
            facts |= {"schedule_id": 6, "schedule_name": "nightly window"}
        else:
            facts |= {"user_id": 1, "user_name": "alice", "user_email": "alice@example.org", "user_first_name": ""}
        if workflow:
            facts |= {"workflow_job_id": 17, "workflow_job_name": workflow, "workflow_job_launch_type": "manual"}
        facts |= {"inventory_id": 2, "inventory_name": "fast site", "project_revision": ""}
        facts |= {"job_template_id": TEMPLATE_ID, "job_template_name": "window"}
        return {f"{prefix}_{name}": value for prefix in ("awx", "tower") for name, value in facts.items()}


@contextmanager
def open_controller(backend: Backend | None = None, *, kind: str = "", site: str = "shop/prod") -> Iterator[Controller]:
    """Yield an AWX whose jobs may read what they need, with the store's credential in a file."""
    folder = Path(tempfile.mkdtemp(prefix="awx_"))
    folder.chmod(0o755)  # pytest's own directories are closed for the jobs' user
    shared = backend.connect() if backend else None
    window = FastWindow(folder / "fast", IN_TEST_ENVIRONMENT, shared=shared)
    (window.folder / "world").chmod(0o777)
    controller = Controller(window, folder, variables={"window_site": site})
    if backend:
        place: Any = backend
        controller.credentials, connection = split_connection(kind, dict(place.connection))
        check = {"name": "room", "tasks": "tasks/check_room.yml", "hosts": ["databases"], "reads_only": True}
        controller.inventory = {
            "window_store": {kind: connection},
            "window_steps": [check, *read_inventory()["all"]["vars"]["window_steps"]],  # a file of the project
            # Of a step's own: its path differs from job to job.
            "maintain_connection": {"login_host": "db", "passfile": "{{ lookup('env', 'PGPASSFILE') }}"},
            "save_connection": {"kubeconfig": "{{ lookup('env', 'KUBECONFIG') }}", "context": "shop"},
        }
    try:
        yield controller
    finally:
        controller.end()
        shutil.rmtree(folder)


def split_connection(kind: str, connection: Json) -> tuple[list[Credential], Json]:
    """Return a connection's credentials as AWX injects them, and the rest of it."""
    if kind == "kubernetes":
        text = json.dumps(connection.pop("kubeconfig"))
        return [Credential(("KUBECONFIG", "K8S_AUTH_KUBECONFIG"), text), Credential(("PGPASSFILE",), "")], connection
    text = Path(connection.pop("passfile")).read_text()
    other = Credential(("KUBECONFIG",), "apiVersion: v1\nkind: Config\n")
    return [other, Credential(("PGPASSFILE",), text)], connection


@cache
def _export_inventory() -> str:
    program = Path(sys.executable).with_name("ansible-inventory")
    return subprocess.run(
        [str(program), "-i", str(FAST / "inventory.yml"), "--list", "--export"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout


def read_inventory() -> Json:
    """Return the fast window's inventory as AWX gives it to a job."""
    inventory: Json = json.loads(_export_inventory())
    hosts = sorted({host for group in inventory.values() for host in group.get("hosts", [])})
    for number, host in enumerate(hosts, 2):
        own = {"remote_host_enabled": "true", "remote_host_id": number}
        own |= {"remote_tower_enabled": "true", "remote_tower_id": number}
        inventory["_meta"]["hostvars"].setdefault(host, {}).update(own)
    return inventory


def slice_inventory(inventory: Json, hosts: tuple[str, ...]) -> Json:
    """Return what a slice with these hosts gets: all groups, some empty."""
    sliced = {name: dict(group) for name, group in inventory.items()}
    for group in sliced.values():
        if "hosts" in group:
            group["hosts"] = [host for host in group["hosts"] if host in hosts]
    hostvars = inventory["_meta"]["hostvars"]
    sliced["_meta"] = {"hostvars": {host: hostvars[host] for host in hosts if host in hostvars}}
    return sliced


class _Unsafe(str):
    """Text that is not to be templated."""


class _Dumper(yaml.SafeDumper):
    """Writes ``!unsafe``."""


_Dumper.add_representer(_Unsafe, lambda dumper, text: dumper.represent_scalar("!unsafe", str(text), style="'"))


def _mark(value: Any) -> Any:
    if isinstance(value, dict):
        return {_mark(key): _mark(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_mark(item) for item in value]
    return _Unsafe(value) if isinstance(value, str) else value


def format_extravars(template: Json, others: Json) -> str:
    """Return env/extravars: only what is the template's own is templated."""
    own = {name: value for name, value in template.items() if name not in others}
    return (yaml.safe_dump(own) if own else "") + yaml.dump(_mark(others), Dumper=_Dumper)
