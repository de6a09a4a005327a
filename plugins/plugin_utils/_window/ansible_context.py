# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the window takes from ansible-core: the controller, the inventory, the play, a role's inputs.

Private to lowtide.ops: do not import from other collections. Private interfaces of ansible-core are used only where
they are there: without them the window goes on with less (named at each).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ansible import constants, context
from ansible.errors import AnsibleError
from ansible.utils.display import Display

from .approval import name_artifact
from .declaration import Inventory, Step
from .engine import StepCall
from .inputs import as_plain, compute_digest
from .session import Controller

CONTROL_GROUP = "control"


class AnsibleContext:
    """One task of the action, with its play, its loader and its variables."""

    def __init__(self, task: Any, loader: Any, templar: Any, variables: Mapping[str, Any]) -> None:
        self._task = task
        self._loader = loader
        self._templar = templar
        self._variables = variables
        self._defaults: dict[str, dict[str, Any]] = {}

    @property
    def host(self) -> str:
        """The host of the task."""
        return str(self._variables.get("inventory_hostname", ""))

    @property
    def groups(self) -> dict[str, list[str]]:
        """The inventory's groups with their hosts."""
        groups: Mapping[str, Any] = self._variables.get("groups", {})
        return {str(name): [str(host) for host in hosts] for name, hosts in groups.items()}

    def read_controller(self) -> Controller:
        """Return the ansible-playbook process of this run."""
        arguments = context.CLIARGS
        return Controller(
            pid=os.getppid(),
            folder=vars(constants)["DEFAULT_LOCAL_TMP"],
            pipe=find_result_pipe(),
            check_mode=bool(self._task.check_mode),
            control=self.groups.get(CONTROL_GROUP, []),
            host=self.host,
            limits={
                "--limit": arguments.get("subset"),
                "--tags": [tag for tag in arguments.get("tags") or () if tag != "all"],
                "--skip-tags": list(arguments.get("skip_tags") or ()),
                "--start-at-task": arguments.get("start_at_task"),
            },
        )

    def read_job(self) -> dict[str, str]:
        """Return what AWX says of the job that this run is; empty for a run that is none."""
        words = {
            "id": "job_id",
            "user": "user_name",
            "template": "job_template_name",
            "launch": "job_launch_type",
            "schedule": "schedule_name",
            "workflow": "workflow_job_name",
            "workflow_id": "workflow_job_id",
            "revision": "project_revision",
        }
        found = {key: self._read_fact(word) for key, word in words.items()}
        # A job of a workflow that a schedule launched has no schedule of its own.
        found["schedule"] = found["schedule"] or self._read_fact("parent_job_schedule_name")
        return {key: str(value) for key, value in found.items() if value} if found["id"] else {}

    def read_shown(self, site: str, window: str) -> Any:
        """Return what the check mode of this window, earlier in a workflow of AWX, has shown; None without one."""
        return as_plain(self._variables.get(name_artifact(site, window)))

    def _read_fact(self, word: str) -> Any:
        """Return one of AWX's own variables; empty where the job has none."""
        return next((self._variables[name] for name in (f"awx_{word}", f"tower_{word}") if name in self._variables), "")

    def read_inventory(self) -> Inventory:
        """Return what a declaration may name."""
        control = self.groups.get(CONTROL_GROUP, [""])
        return Inventory(self.groups, control[0] if control else "", self._find_task_file)

    def _find_task_file(self, path: str) -> str | None:
        """Return the absolute path of a task file: relative to the inventory's directory, the playbook's, and the one
        in which ansible-playbook was started.

        In AWX only the last is the project: the inventory is elsewhere, and the playbook that the project imports is in
        the collection.
        """
        for directory in ("", self._variables.get("inventory_dir"), self._variables.get("playbook_dir"), os.getcwd()):
            candidate = Path(os.path.expanduser(str(directory or "/")), os.path.expanduser(path))
            if (directory or os.path.isabs(os.path.expanduser(path))) and candidate.is_file():
                return str(candidate)
        return None

    def read_call(self, arguments: Mapping[str, Any]) -> StepCall:
        """Return the step that the task stands around."""
        play = self._task.get_play()
        return StepCall(
            host=self.host,
            step=str(arguments.get("step") or ""),
            batch=int(arguments.get("batch") or 0),
            play=arguments.get("place"),
            planning=bool(arguments.get("planning")),
            reverting=bool(arguments.get("reverting")),
            play_hosts=tuple(str(host) for host in self._variables.get("ansible_play_hosts_all", [])),
            serial=bool(play.serial),
            strategy=str(play.strategy),
            digest=self._compute_digest,
        )

    def read_result(self, variable: str) -> Any:
        """Return what the role left in its public result, None when it left none."""
        return as_plain(self._templar.template(self._variables.get(variable)))

    def preload(self, step: Step) -> None:
        """Load what performs the step. Raise Refusal when it cannot be loaded or its failure could not be rescued."""
        try:
            from .preload import Preload  # here, since it may not be importable

            preload = Preload(self._task.get_play(), self._loader)
            if step.role:
                self._defaults[step.performer] = preload.check_role(step.role, step.tasks_from)
            else:
                preload.check_tasks(step.tasks or "")
        except (AttributeError, ImportError, TypeError) as error:
            Display().warning(
                f"{step.performer} was not checked before the window: this ansible-core differs ({error})"
            )

    def _compute_digest(self, step: Step) -> str:
        if step.performer not in self._defaults:
            self.preload(step)
        variables = {**self._defaults.get(step.performer, {}), **self._variables}
        return compute_digest(step.result_variable.removesuffix("_result"), variables, self._make_resolver(variables))

    def _make_resolver(self, variables: Mapping[str, Any]) -> Any:
        templar = self._templar.copy_with_new_env(available_variables=variables)

        def resolve(value: Any) -> Any:
            try:
                return templar.template(value)
            except AnsibleError:
                return str(value)

        return resolve


def find_result_pipe() -> str | None:
    """Return the name of the controller's result queue (``pipe:[inode]``), by which workers that outlive it are known.

    None without that private interface: they are then known only by their environment.
    """
    queue = getattr(Display(), "_final_q", None)
    writer = getattr(queue, "_writer", None)
    if writer is None:
        return None
    try:
        return os.readlink(f"/proc/self/fd/{writer.fileno()}")
    except (AttributeError, OSError):
        return None
