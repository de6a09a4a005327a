# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The window's one action. It runs on the controller whatever the host's connection is."""

from __future__ import annotations

from typing import Any

from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

from ansible_collections.lowtide.ops.plugins.module_utils._common.errors import OpsError
from ansible_collections.lowtide.ops.plugins.plugin_utils._window.ansible_context import AnsibleContext
from ansible_collections.lowtide.ops.plugins.plugin_utils._window.closing import close_window
from ansible_collections.lowtide.ops.plugins.plugin_utils._window.declaration import split_names
from ansible_collections.lowtide.ops.plugins.plugin_utils._window.engine import Engine
from ansible_collections.lowtide.ops.plugins.plugin_utils._window.inputs import as_plain
from ansible_collections.lowtide.ops.plugins.plugin_utils._window.opening import Opening
from ansible_collections.lowtide.ops.plugins.plugin_utils._window.places import Place
from ansible_collections.lowtide.ops.plugins.plugin_utils._window.request import Request
from ansible_collections.lowtide.ops.plugins.plugin_utils._window.results import Result
from ansible_collections.lowtide.ops.plugins.plugin_utils._window.session import OpenWindow
from ansible_collections.lowtide.ops.plugins.plugin_utils._window.status import describe_holder, read_status
from ansible_collections.lowtide.ops.plugins.plugin_utils._window.verdict import read_verdict
from ansible_collections.lowtide.ops.plugins.plugin_utils._window.version import read_version

Spec = dict[str, dict[str, Any]]
STORE: Spec = {"store": {"type": "dict", "default": {}}}
SITE: Spec = {**STORE, "dir": {"type": "str", "default": ""}, "site": {"type": "str", "default": ""}}
STEP: Spec = {
    **STORE,
    "place": {"type": "int"},
    "step": {"type": "str", "default": ""},
    "batch": {"type": "int", "default": 0},
    "planning": {"type": "bool", "default": False},
    "reverting": {"type": "bool", "default": False},
}
OPEN: Spec = {
    **SITE,
    "name": {"type": "str", "required": True},
    "mode": {"type": "str", "choices": ["window", "restore"], "default": "window"},
    "start": {"type": "str", "default": ""},
    "steps": {"type": "list", "elements": "raw", "default": []},
    "times": {"type": "list", "elements": "dict", "default": []},
    "only": {"type": "list", "elements": "str", "default": []},
    "skip": {"type": "list", "elements": "str", "default": []},
    "duration": {"type": "int", "default": 14400},
    "orphan_timeout": {"type": "int", "default": 300},
    "keep_days": {"type": "int", "default": 90},
    "places": {"type": "int", "default": 0},
    "approved_only": {"type": "bool", "default": False},
}
PHASES: dict[str, Spec] = {
    "open": OPEN,
    "begin": STEP,
    "end": {**STEP, "result_variable": {"type": "str", "required": True}},
    "fail": {**STEP, "error": {"type": "dict", "required": True}, "failed_task": {"type": "dict", "required": True}},
    "in_force": STORE,
    "close": STORE,
    "verdict": {},
    "status": SITE,
    "holder": SITE,
}
"""The options of each phase."""


class ActionModule(ActionBase):
    """See the module documentation of lowtide.ops.window."""

    TRANSFERS_FILES = False
    _requires_connection = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> Result:
        """Do one phase; a refusal is a failed task with the parts of its message in ``error``."""
        del tmp
        base: Any = self
        phase = str(self._task.args.get("phase", ""))
        spec: Spec = {"phase": {"type": "str", "required": True, "choices": list(PHASES)}, **PHASES.get(phase, {})}
        _validated, arguments = base.validate_argument_spec(argument_spec=spec)
        ansible = AnsibleContext(self._task, self._loader, self._templar, task_vars or {})
        try:
            if phase in {"status", "holder"}:
                return self._read(phase, arguments, ansible.read_controller().folder)
            return self._run(phase, arguments, ansible)
        except OpsError as error:
            return {"failed": True, "msg": str(error), "error": error.as_dict()}

    def _run(self, phase: str, arguments: dict[str, Any], ansible: AnsibleContext) -> Result:
        controller = ansible.read_controller()
        if phase == "open":
            shown = ansible.read_shown(arguments["site"], arguments["name"])
            request = make_request(arguments, job=ansible.read_job(), shown=shown)
            opening = Opening(controller, tell=Display().warning)
            return opening.open(request, ansible.read_inventory(), preload=ansible.preload)
        if phase == "verdict":
            return read_verdict(controller.folder)
        engine = Engine(OpenWindow.load(controller.folder, shared=as_plain(arguments["store"])))
        if phase == "in_force":
            return engine.list_in_force()
        if phase == "close":
            return close_window(engine.window)
        call = ansible.read_call(arguments)
        result: Result
        if phase == "begin":
            result = engine.begin_step(call, preload=ansible.preload)
            result["stale"] = ansible.read_result(result["result_variable"]) is not None
        elif phase == "fail":
            error, task = as_plain(arguments["error"]), as_plain(arguments["failed_task"])
            result = engine.fail_step(call, error=error, task=task)
        else:
            result = engine.finish_step(call, ansible.read_result(arguments["result_variable"]))
        return result

    @staticmethod
    def _read(phase: str, arguments: dict[str, Any], folder: str) -> Result:
        if phase == "status":
            store = read_place(arguments).connect(folder)
            try:
                return read_status(store, now=store.read_clock())
            except OSError as error:
                raise OpsError(
                    obj=f"site {store.location}",
                    problem=f"it cannot be read ({error})",
                    next_step="Bring its server back, or read it as a user who may",
                ) from error
        try:
            store = read_place(arguments).connect(folder)
            holder = "" if store.is_new() else describe_holder(store.read_lease())
            warnings = [f"site {store.location} is held by {holder}"] if holder else []
        except (OpsError, OSError) as error:  # it is advice: the procedure goes on
            holder, warnings = "", [f"whether a window holds the site is unknown: {error}"]
        return {"changed": False, "holder": holder, "warnings": warnings}


def read_place(arguments: dict[str, Any]) -> Place:
    """Return where the site's lease and journals are, from the options of the action."""
    return Place(arguments["site"], arguments["dir"], as_plain(arguments["store"]))


def make_request(arguments: dict[str, Any], *, job: dict[str, str], shown: Any) -> Request:
    """Return what the opening is asked for, from the options of the action."""
    return Request(
        name=arguments["name"],
        mode=arguments["mode"],
        start=arguments["start"],
        steps=as_plain(arguments["steps"]),
        times=as_plain(arguments["times"]),
        only=split_names(arguments["only"]),
        skip=split_names(arguments["skip"]),
        place=read_place(arguments),
        duration=float(arguments["duration"]),
        orphan_timeout=float(arguments["orphan_timeout"]),
        keep_days=arguments["keep_days"],
        places=arguments["places"],
        version=read_version(),
        job=job,
        approved=shown,
        approved_only=arguments["approved_only"],
    )
