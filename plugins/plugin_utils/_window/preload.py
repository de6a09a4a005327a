# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Load a role as ansible-core will, before a window rests on it. Private to lowtide.ops: do not import from other
collections.

A module that cannot be resolved is a parse error of an included role, and ansible-core ends the whole run on it, past
every ``rescue`` and every later play (seen on 2.19 to 2.21). Loading the role here first turns that into an ordinary
failed task. These are private interfaces of ansible-core: a caller that cannot import this file, or gets
AttributeError or TypeError from it, goes on without.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from fnmatch import fnmatch
from importlib import import_module
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

from .declaration import suggest

# ansible-core's own loaders carry no types.
LOAD_INCLUDE: Callable[..., Any] = RoleInclude.load
LOAD_ROLE: Callable[..., Any] = Role.load
LOAD_BLOCKS: Callable[..., list[Any]] = load_list_of_blocks

ENDING_META = frozenset({"end_play", "end_host", "end_batch"})
"""Values of ``meta`` that end more than the role: the window would never hear how the step ended."""


NO_ROLE = re.compile(r"[Tt]he role '(?P<name>[^']+)' was not found in:? (?P<places>.+)", re.DOTALL)
"""What ansible-core 2.19 to 2.21 say of a role that is not there, with the places where it was looked for."""
ORIGIN = re.compile(r"^Origin: (/.+)$", re.MULTILINE)
TEMPLATE = re.compile(r"\{\{.*?\}\}|\{%.*?%\}", re.DOTALL)


class Preload:
    """Loads roles and task files with what they include; remembers what it has seen."""

    def __init__(self, play: Any, loader: DataLoader) -> None:
        self._play = play
        self._loader = loader
        self._variables = VariableManager(loader=loader)
        self._seen: set[tuple[str, str]] = set()

    def check_role(self, name: str, tasks_from: str = "main") -> dict[str, Any]:
        """Load a role and return its defaults.

        Raise Refusal for one that does not load, or that would end the run in a way that cannot be rescued.
        """
        try:
            role = self._load_role(name, tasks_from)
        except AnsibleError as error:
            raise self._make_load_refusal(f"role {name}", error) from error
        return dict(role.get_default_vars()) if role is not None else {}

    def check_tasks(self, path: str) -> None:
        """Load a file of tasks. Raise Refusal as :meth:`check_role` does."""
        try:
            self._load_file(None, Path(path), Path(path).parent, f"file {path}")
        except AnsibleError as error:
            raise self._make_load_refusal(f"file {path}", error) from error

    @staticmethod
    def _make_load_refusal(obj: str, error: AnsibleError) -> Refusal:
        words, origin = str(error).strip(), _find_origin(error)
        next_step = "Install what is missing on the controller"
        missing = NO_ROLE.search(words)
        if origin:
            words = f"{words.rstrip('.')}; see {origin}"
        if missing:
            near = suggest(missing["name"], _list_roles(missing["name"], missing["places"]))
            next_step = f"{near}Correct the name, or install it"
        return Refusal(
            obj=obj,
            problem=f"it cannot be loaded ({words})",
            next_step=f"{next_step} (collections_path, roles_path); nothing has been changed",
        )

    def _load_role(self, name: str, tasks_from: str, collections: list[str] | None = None) -> Any:
        if (name, tasks_from) in self._seen:
            return None
        self._seen.add((name, tasks_from))
        include = LOAD_INCLUDE(
            name, play=self._play, loader=self._loader, variable_manager=self._variables, collection_list=collections
        )
        role = LOAD_ROLE(include, self._play, from_files={"tasks": tasks_from}, from_include=True)
        for part in (role, *role.get_all_dependencies()):
            folder = Path(part._role_path, "tasks")
            self._check_blocks(part, part.get_task_blocks(), folder, f"role {name}")
            self._check_blocks(part, part.get_handler_blocks(play=self._play), folder, f"role {name}")
        return role

    def _check_blocks(self, role: Any, entries: Iterable[Any], folder: Path, obj: str) -> None:
        for entry in entries:
            # Its own value, not that of the play around it; a template of it could become true.
            if getattr(entry, "_any_errors_fatal", None) not in (None, False) and not _is_unset(entry):
                raise self._make_rescue_refusal(
                    obj, "it sets any_errors_fatal, which ends the run before its last plays"
                )
            if isinstance(entry, Block):
                for part in (entry.block, entry.rescue, entry.always):
                    self._check_blocks(role, part, folder, obj)
            elif isinstance(entry, IncludeRole):
                self._check_included_role(role, entry)
            elif isinstance(entry, TaskInclude):
                self._check_included_tasks(role, entry, folder, obj)
            elif str(entry.action).rpartition(".")[2] == "meta" and entry.args.get("_raw_params") in ENDING_META:
                meta = entry.args["_raw_params"]
                raise self._make_rescue_refusal(
                    obj, f"it has meta: {meta}, so the window would not hear how the step ended"
                )

    def _check_included_role(self, role: Any, task: IncludeRole) -> None:
        tasks_from = str(task._from_files.get("tasks", "main"))
        name = str(task._role_name)
        if _is_template(name):  # which role that is turns out when it is included
            return
        collections = list(getattr(role, "collections", None) or [])
        names = [tasks_from]
        if _is_template(tasks_from):
            include = LOAD_INCLUDE(
                name,
                play=self._play,
                loader=self._loader,
                variable_manager=self._variables,
                collection_list=collections,
            )
            folder = Path(include.get_role_path(), "tasks")
            names = [str(path.relative_to(folder)) for path in self._list_task_files(folder, tasks_from)]
        for tasks in names:
            self._load_role(name, tasks, collections)

    def _check_included_tasks(self, role: Any, task: TaskInclude, folder: Path, obj: str) -> None:
        file = str(task.args.get("_raw_params") or task.args.get("file") or "")
        if not file:
            return
        if _is_template(file):  # one of these it will be; those of a plain file of tasks may be anywhere
            for path in self._list_task_files(Path(role._role_path, "tasks"), file) if role is not None else ():
                self._load_file(role, path, path.parent, obj)
            return
        # As ansible-core looks for it: beside the file that includes it, then in the role's directory of tasks.
        places = [folder, *([Path(role._role_path, "tasks")] if role is not None else [])]
        path = next((place / file for place in places if (place / file).is_file()), places[-1] / file)
        self._load_file(role, path, path.parent, obj)

    def _load_file(self, role: Any, path: Path, folder: Path, obj: str) -> None:
        if (obj, str(path)) in self._seen:
            return
        self._seen.add((obj, str(path)))
        entries = self._loader.load_from_file(str(path)) or []
        blocks = LOAD_BLOCKS(
            ds=entries, play=self._play, role=role, loader=self._loader, variable_manager=self._variables
        )
        self._check_blocks(role, blocks, folder, obj)

    def _list_task_files(self, folder: Path, template: str) -> Iterator[Path]:
        """Yield the lists of tasks below ``folder`` whose names a template can give; other files are none of them."""
        pattern = TEMPLATE.sub("*", template).rpartition("/")[2]
        for path in sorted(folder.rglob("*")):
            is_like = fnmatch(path.name, pattern) or fnmatch(path.stem, pattern)
            if is_like and path.suffix in {".yml", ".yaml"} and path.is_file():
                entries = self._loader.load_from_file(str(path))
                if isinstance(entries, list) and all(isinstance(entry, dict) for entry in entries):
                    yield path

    @staticmethod
    def _make_rescue_refusal(obj: str, problem: str) -> Refusal:
        return Refusal(obj=obj, problem=problem, next_step="Leave it out; meta end_role ends only the role")


def _is_unset(entry: Any) -> bool:
    """Whether the attribute holds ansible-core's own mark for a value that nobody gave (a sentinel class)."""
    return isinstance(getattr(entry, "_any_errors_fatal", None), type)


def _is_template(name: str) -> bool:
    return TEMPLATE.search(name) is not None


def _find_origin(error: AnsibleError) -> str:
    """Return the file, line and column that the error is about (``PATH:3:5``); empty where it is about none."""
    match = ORIGIN.search(str(getattr(error, "_formatted_source_context", None) or ""))
    return match[1] if match else ""


def _list_roles(name: str, places: str) -> list[str]:
    """Return the names of installed roles that could have been meant: those of the same collection, and those in the
    places where a role was looked for."""
    folders = {Path(place): "" for place in places.split(":")}
    collection, dot, _role = name.rpartition(".")
    if dot:
        with suppress(ImportError):  # there is no such collection
            for folder in import_module(f"ansible_collections.{collection}").__path__:
                folders[Path(folder, "roles")] = f"{collection}."
    return [
        f"{prefix}{path.name}"
        for folder, prefix in folders.items()
        if folder.is_dir()
        for path in sorted(folder.iterdir())
        if any((path / part).is_dir() for part in ("tasks", "meta"))
    ]
