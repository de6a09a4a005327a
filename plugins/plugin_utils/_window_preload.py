# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Load a role as ansible-core will, before a window rests on it. Private to lowtide.ops: do not import from other collections.

A module that cannot be resolved is a parse error of an included role, and ansible-core ends the whole run on it, past every
``rescue`` and every later play (seen on 2.19). Loading the role here first turns that into an ordinary failed task.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleError
from ansible.parsing.dataloader import DataLoader
from ansible.playbook.block import Block
from ansible.playbook.helpers import load_list_of_blocks
from ansible.playbook.role import Role
from ansible.playbook.role.include import RoleInclude
from ansible.playbook.role_include import IncludeRole
from ansible.playbook.task_include import TaskInclude
from ansible.vars.manager import VariableManager

from ansible_collections.lowtide.ops.plugins.module_utils._common.errors import Refusal

# ansible-core's own loaders carry no types.
LOAD_INCLUDE: Callable[..., Any] = RoleInclude.load
LOAD_ROLE: Callable[..., Any] = Role.load
LOAD_BLOCKS: Callable[..., list[Any]] = load_list_of_blocks


class Preload:
    """Loads roles and what they include; remembers what it has seen."""

    def __init__(self, play: Any, loader: DataLoader) -> None:
        self._play = play
        self._loader = loader
        self._variables = VariableManager(loader=loader)
        self._seen: set[tuple[str, str]] = set()

    def check(self, name: str, tasks_from: str = "main") -> None:
        """Refuse a role that does not load, or whose failure could not be rescued (handlers, ``any_errors_fatal``)."""
        try:
            self._role(name, tasks_from)
        except AnsibleError as error:
            raise Refusal(
                obj=f"role {name}",
                problem=f"it cannot be loaded ({str(error).strip()})",
                next_step="Install what is missing on the controller (collections_path, roles_path); nothing has been touched",
            ) from error

    def _role(self, name: str, tasks_from: str) -> None:
        if (name, tasks_from) in self._seen:
            return
        self._seen.add((name, tasks_from))
        include = LOAD_INCLUDE(name, play=self._play, loader=self._loader, variable_manager=self._variables)
        role = LOAD_ROLE(include, self._play, from_files={"tasks": tasks_from}, from_include=True)
        if any(block.block for block in role.get_handler_blocks(play=self._play)):
            raise self._unsafe(
                name, "it has handlers, and a handler that fails cannot be rescued", "Do the work in a task of the role"
            )
        self._blocks(role, role.get_task_blocks(), name)
        for dependency in role.get_all_dependencies():
            self._blocks(dependency, dependency.get_task_blocks(), name)

    def _blocks(self, role: Any, entries: Iterable[Any], name: str) -> None:
        for entry in entries:
            # Its own value, not that of the play around it.
            if getattr(entry, "_any_errors_fatal", None) is True:
                raise self._unsafe(
                    name, "it sets any_errors_fatal, which ends the run before its closing plays", "Leave it out"
                )
            if isinstance(entry, Block):
                for part in (entry.block, entry.rescue, entry.always):
                    self._blocks(role, part, name)
            elif isinstance(entry, IncludeRole):
                self._include_role(entry)
            elif isinstance(entry, TaskInclude):
                self._include_tasks(role, entry, name)

    def _include_role(self, task: IncludeRole) -> None:
        tasks_from = str(task._from_files.get("tasks", "main"))
        name = str(task._role_name)
        if "{{" not in name + tasks_from:
            self._role(name, tasks_from)

    def _include_tasks(self, role: Any, task: TaskInclude, name: str) -> None:
        file = str(task.args.get("_raw_params") or task.args.get("file") or "")
        if not file or "{{" in file or (f"{name}/{role.get_name()}", file) in self._seen:
            return
        self._seen.add((f"{name}/{role.get_name()}", file))
        path = Path(role._role_path, "tasks", file)
        entries = self._loader.load_from_file(str(path)) or []
        blocks = LOAD_BLOCKS(
            ds=entries, play=self._play, role=role, loader=self._loader, variable_manager=self._variables
        )
        self._blocks(role, blocks, name)

    @staticmethod
    def _unsafe(name: str, problem: str, next_step: str) -> Refusal:
        return Refusal(obj=f"role {name}", problem=problem, next_step=next_step)
