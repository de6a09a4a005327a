# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Run a module in a process of its own, as a task does, without a playbook around it."""

from __future__ import annotations

import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.reduction import DupFd
from pathlib import Path
from typing import Any

from ._module_main import call

CHECKOUT = Path(__file__).resolve().parents[2]
MAIN = Path(__file__).with_name("_module_main.py")
PATIENCE = 600.0
"""Seconds until a module is taken for one that never ends; what it waits for has bounds of its own."""
WARM = multiprocessing.get_context("forkserver")
"""Processes that have imported what Ansible brings itself, which is half of the time that a module takes."""
WARM.set_forkserver_preload(["ansible.module_utils.basic"])


@dataclass(frozen=True)
class ModuleRun:
    """What a module process left: its JSON result, exit code and standard error."""

    result: dict[str, Any]
    rc: int
    stderr: str

    @property
    def failed(self) -> bool:
        """Whether the module called ``fail_json``."""
        return bool(self.result.get("failed", False))

    @property
    def changed(self) -> bool:
        """The module's own ``changed``."""
        return bool(self.result["changed"])

    @property
    def msg(self) -> str:
        """The error message, empty on success."""
        return str(self.result.get("msg", ""))

    def __getitem__(self, key: str) -> Any:
        return self.result[key]


def module_environment(extra: dict[str, str] | None = None) -> dict[str, str]:
    """The environment of a module process: this one, with the checkout's collections importable."""
    environment = dict(os.environ)
    environment["PYTHONPATH"] = str(CHECKOUT / "collections")
    environment.update(extra or {})
    return environment


def _request(name: str, params: dict[str, Any], *, check: bool, diff: bool) -> dict[str, Any]:
    """What ``_module_main`` takes."""
    return {"module": name, "args": {**params, "_ansible_check_mode": check, "_ansible_diff": diff}}


def start_module(
    name: str,
    params: dict[str, Any],
    *,
    check: bool = False,
    diff: bool = True,
    env: dict[str, str] | None = None,
    wrapper: Sequence[str] = (),
) -> subprocess.Popen[str]:
    """Start module ``name`` and return its process, for tests that disturb it while it runs.

    ``wrapper`` is a program that becomes the module's process, with its arguments.
    """
    process = subprocess.Popen(
        [*wrapper, sys.executable, str(MAIN)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=module_environment(env),
        start_new_session=True,
    )
    assert process.stdin is not None
    process.stdin.write(json.dumps(_request(name, params, check=check, diff=diff)))
    process.stdin.close()
    process.stdin = None
    return process


def finish_module(process: subprocess.Popen[str], *, timeout: float = PATIENCE) -> ModuleRun:
    """Wait for a started module and parse its result; a process that printed no JSON is an assertion error."""
    out, err = process.communicate(timeout=timeout)
    return _left(out, err, process.returncode)


def _left(out: str, err: str, rc: int | None) -> ModuleRun:
    lines = [line for line in out.splitlines() if line.startswith("{")]
    assert lines, f"the module printed no result (rc {rc}):\n{out}\n{err}"
    return ModuleRun(result=json.loads(lines[-1]), rc=rc or 0, stderr=err)


def run_module(
    name: str,
    params: dict[str, Any],
    *,
    check: bool = False,
    diff: bool = True,
    env: dict[str, str] | None = None,
    timeout: float = PATIENCE,
) -> ModuleRun:
    """Run module ``name`` with ``params`` to its end, in a process of its own: started for it if ``env`` is given."""
    if env is not None:
        return finish_module(start_module(name, params, check=check, diff=diff, env=env), timeout=timeout)
    request = _request(name, params, check=check, diff=diff)
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        process = WARM.Process(
            target=_become_module, args=(request, module_environment(), DupFd(out.fileno()), DupFd(err.fileno()))
        )
        process.start()
        process.join(timeout)
        if process.is_alive():
            process.kill()
            raise TimeoutError(f"module {name} did not end within {timeout:.0f} s")
        out.seek(0)
        err.seek(0)
        return _left(out.read(), err.read(), process.exitcode)


def _become_module(request: dict[str, Any], environment: dict[str, str], out: Any, err: Any) -> None:
    os.environ.clear()
    os.environ.update(environment)
    sys.path.insert(0, environment["PYTHONPATH"])
    for number, given in ((1, out), (2, err)):
        os.dup2(given.detach(), number)
    call(request)


def modules_imported(name: str, params: dict[str, Any]) -> list[str]:
    """Every Python module which a run of module ``name`` imports that changes nothing, on top of Ansible's own."""
    process = subprocess.run(
        [sys.executable, str(MAIN)],
        input=json.dumps({"module": name, "args": params, "report_imports": True}),
        capture_output=True,
        text=True,
        env=module_environment(),
        check=False,
    )
    assert process.returncode == 0, process.stdout + process.stderr
    result, imported = (json.loads(line) for line in process.stdout.splitlines()[-2:])
    assert not result["changed"], result
    return [str(one) for one in imported]


def libraries_imported(name: str, params: dict[str, Any]) -> set[str]:
    """The packages among them that are neither Python's nor Ansible's (nor "cython", which compiled ones share)."""
    packages = {one.partition(".")[0] for one in modules_imported(name, params)} - {"ansible", "ansible_collections"}
    return {one for one in packages - sys.stdlib_module_names if "cython" not in one}
