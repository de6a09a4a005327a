# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The window's one action: open, begin and end of each step, close. It runs on the controller whatever the host's connection is."""

from __future__ import annotations

import os
from typing import Any

from ansible import constants, context
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

from ansible_collections.lowtide.ops.plugins.module_utils._common.errors import OpsError
from ansible_collections.lowtide.ops.plugins.module_utils._window.phases import Controller, Phases, StepCall
from ansible_collections.lowtide.ops.plugins.plugin_utils._window_inputs import digest, plain
from ansible_collections.lowtide.ops.plugins.plugin_utils._window_preload import Preload

ARGUMENTS: dict[str, dict[str, Any]] = {
    "phase": {
        "type": "str",
        "required": True,
        "choices": ["open", "begin", "end", "proceed", "close", "verdict", "settle"],
    },
    "name": {"type": "str"},
    "start": {"type": "str", "default": ""},
    "steps": {"type": "list", "elements": "dict", "default": []},
    "only": {"type": "list", "elements": "str", "default": []},
    "skip": {"type": "list", "elements": "str", "default": []},
    "dir": {"type": "str"},
    "site": {"type": "str", "default": ""},
    "duration": {"type": "int", "default": 14400},
    "orphan_timeout": {"type": "int", "default": 300},
    "step": {"type": "str"},
    "role": {"type": "str"},
    "tasks_from": {"type": "str", "default": "main"},
    "planning": {"type": "bool", "default": False},
    "required": {"type": "bool", "default": False},
    "error": {"type": "dict"},
    "failed_task": {"type": "dict"},
    "evidence": {"type": "list", "elements": "str", "default": []},
}


class ActionModule(ActionBase):
    """See the module documentation of lowtide.ops.window."""

    TRANSFERS_FILES = False
    _requires_connection = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Do one phase; a refusal is a failed task with the parts of its message in ``error``."""
        del tmp
        variables = task_vars or {}
        base: Any = self
        _validated, arguments = base.validate_argument_spec(argument_spec=ARGUMENTS)
        phases = Phases(self._controller(variables))
        try:
            return self._phase(phases, arguments, variables)
        except OpsError as error:
            return {"failed": True, "msg": str(error), "error": error.as_dict()}

    def _phase(self, phases: Phases, arguments: dict[str, Any], variables: dict[str, Any]) -> dict[str, Any]:
        phase = arguments["phase"]
        if phase in {"begin", "end"}:
            return self._step(phases, arguments, self._call(arguments, variables))
        if phase == "open":
            arguments["steps"] = plain(arguments["steps"])
            return phases.open(arguments, preload=self._preload)
        if phase == "close":
            return phases.close(plain(arguments["evidence"]))
        if phase == "settle":
            return phases.settle(arguments)
        return phases.verdict() if phase == "verdict" else phases.proceed()

    def _step(self, phases: Phases, arguments: dict[str, Any], call: StepCall) -> dict[str, Any]:
        if arguments["phase"] == "end":
            return phases.end(call, error=plain(arguments["error"]), failed_task=plain(arguments["failed_task"]))
        return phases.begin(call, required=arguments["required"], preload=self._preload)

    def _preload(self, role: str, tasks_from: str = "main") -> None:
        task: Any = self._task
        Preload(task.get_play(), self._loader).check(role, tasks_from)

    def _call(self, arguments: dict[str, Any], variables: dict[str, Any]) -> StepCall:
        role = arguments["role"] or ""
        short = role.rpartition(".")[2]
        groups: dict[str, list[str]] = variables["groups"]
        return StepCall(
            step=arguments["step"] or "",
            role=role,
            tasks_from=arguments["tasks_from"],
            planning=arguments["planning"],
            host=str(variables["inventory_hostname"]),
            members={str(name): frozenset(map(str, hosts)) for name, hosts in groups.items()},
            play_hosts=[str(host) for host in variables.get("ansible_play_hosts_all", [])],
            batch=[str(host) for host in variables.get("ansible_play_batch", [])],
            digest=lambda: digest(short, variables, self._templar),
            result=plain(self._templar.template(variables.get(f"{short}_result"))),
        )

    def _controller(self, variables: dict[str, Any]) -> Controller:
        arguments = context.CLIARGS
        queue: Any = Display()._final_q
        task: Any = self._task
        return Controller(
            pid=os.getppid(),
            folder=vars(constants)["DEFAULT_LOCAL_TMP"],
            pipe=None if queue is None else os.readlink(f"/proc/self/fd/{queue._writer.fileno()}"),
            rehearsal=bool(self._task.check_mode),
            control=[str(host) for host in variables.get("groups", {}).get("control", [])],
            host=str(variables.get("inventory_hostname", "")),
            strategy=str(task.get_play().strategy),
            limits={
                "--limit": arguments.get("subset"),
                "--tags": [tag for tag in arguments.get("tags") or () if tag != "all"],
                "--skip-tags": list(arguments.get("skip_tags") or ()),
                "--start-at-task": arguments.get("start_at_task"),
            },
        )
