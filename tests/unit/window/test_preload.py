# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Roles and files of tasks that ansible-core could not load are refused before a window rests on them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from ansible_collections.lowtide.ops.plugins.plugin_utils._window.preload import NO_ROLE
from support.modules import CHECKOUT

FINE = "- name: Say it\n  ansible.builtin.debug:\n    msg: fine\n"
MISSING = "- name: A module that nobody has\n  nobody.has.this:\n"
INCLUDE = '- name: By its name\n  ansible.builtin.include_tasks: "{{ flavour }}.yml"\n'
LOAD = """
import json, sys
from ansible.plugins.loader import init_plugin_loader
init_plugin_loader()
from ansible.parsing.dataloader import DataLoader
from ansible.playbook.play import Play
from ansible.vars.manager import VariableManager
from ansible_collections.lowtide.ops.plugins.module_utils._common.errors import Refusal
from ansible_collections.lowtide.ops.plugins.plugin_utils._window.preload import Preload

loader = DataLoader()
loader.set_basedir(sys.argv[1])
play = Play.load({"name": "P", "hosts": "all"}, loader=loader, variable_manager=VariableManager(loader=loader))
words = []
for name in sys.argv[2:]:
    preload = Preload(play, loader)
    try:
        (preload.check_tasks if name.endswith(".yml") else preload.check_role)(name)
        words.append("")
    except Refusal as error:
        words.append(str(error))
print(json.dumps(words))
"""
"""Loads roles and files of tasks with ansible-core's own loader of plugins, which a process has once."""


def load(site: Path, *names: str, **roles: Mapping[str, str]) -> list[str]:
    """Write roles (their files of tasks by name) below a site; return for each name with which words the role or the
    file is refused, empty when it is not."""
    for role, files in roles.items():
        for name, text in files.items():
            path = site / "roles" / role / "tasks" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"---\n{text}")
    settings = {"CONFIG": CHECKOUT / "ansible.cfg", "COLLECTIONS_PATH": CHECKOUT / "collections"}
    process = subprocess.run(
        [sys.executable, "-c", LOAD, str(site), *names],
        env={**os.environ, **{f"ANSIBLE_{name}": str(value) for name, value in settings.items()}},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    words: list[str] = json.loads(process.stdout)
    return words


def test_a_module_that_is_not_found_is_told_with_its_file(tmp_path: Path) -> None:
    include = "- name: More\n  ansible.builtin.include_tasks: more.yml\n"
    probe = tmp_path / "probe.yml"
    probe.write_text(MISSING)
    stop, file = load(tmp_path, "stop", str(probe), stop={"main.yml": include, "more.yml": MISSING})
    assert stop.startswith("role stop: it cannot be loaded (couldn't resolve module/action 'nobody.has.this'. This")
    assert f"; see {tmp_path}/roles/stop/tasks/more.yml:2:3). Install what is missing on the controller" in stop
    assert file.startswith(f"file {probe}: it cannot be loaded (couldn't resolve module/action")
    assert f"; see {probe}:1:3). Install" in file


def test_a_role_that_is_not_found_is_told_with_the_near_one(tmp_path: Path) -> None:
    names = ["quiecse", "lowtide.ops.bakcup", "zzzzzzz", "nobody.has.this", "lowtide.zzzzzzz"]
    own, of_collection, *unknown = load(tmp_path, *names, quiesce={"main.yml": FINE})
    assert own.startswith("role quiecse: it cannot be loaded (the role 'quiecse' was not found in ")
    assert "). Did you mean quiesce? Correct the name, or install it (collections_path, roles_path); " in own
    assert "). Did you mean lowtide.ops.backup? Correct the name, or install it" in of_collection
    assert [words for words in unknown if "Correct the name, or install it" not in words or "Did you" in words] == []


@pytest.mark.parametrize("words", ["the role 'stop' was not found in /a:/b", "The role 'stop' was not found in: /a:/b"])
def test_a_missing_role_is_known_by_the_words_of_each_ansible_core(words: str) -> None:
    missing = NO_ROLE.search(words)
    assert missing is not None
    assert missing.groups() == ("stop", "/a:/b")


@pytest.mark.parametrize(
    "name", ["{{ flavour }}.yml", "{{ flavour }}", "sub/{{ flavour }}.yml", "b{% if x %}{% endif %}d"]
)
def test_every_file_that_a_template_can_name_is_loaded(tmp_path: Path, name: str) -> None:
    role = f'- name: Other\n  ansible.builtin.include_role:\n    name: third\n    tasks_from: "{name}"\n'
    refused = load(
        tmp_path,
        "first",
        "second",
        first={"main.yml": INCLUDE.replace("{{ flavour }}.yml", name), "sub/bad.yml": MISSING, "good.yml": FINE},
        second={"main.yml": role},
        third={"main.yml": FINE, "sub/bad.yml": MISSING},
    )
    places = [f"{tmp_path}/roles/{role}/tasks/sub/bad.yml:2:3" for role in ("first", "third")]
    assert [place in words for place, words in zip(places, refused, strict=True)] == [True, True]


def test_what_no_template_names_and_what_is_no_list_of_tasks_is_not_refused(tmp_path: Path) -> None:
    files = {
        "main.yml": INCLUDE.replace("{{ flavour }}", "for-{{ flavour }}"),
        "for-debian.yml": FINE,
        "other.yml": MISSING,
        "for-a-dictionary.yml": "retries: 3\n",
        "for-a-list.yml": "- one\n- two\n",
        "for-nothing.yml": "",
        "for-people.txt": "none",
        "for-itself.yaml": INCLUDE.replace("{{ flavour }}", "for-{{ flavour }}"),
    }
    other = '- name: Other\n  ansible.builtin.include_role:\n    name: "{{ other }}"\n'
    probe = tmp_path / "probe.yml"
    probe.write_text(INCLUDE)
    (tmp_path / "playbook.yml").write_text("- hosts: all\n")
    names = ["stop", "leave", str(probe)]
    assert load(tmp_path, *names, stop=files, leave={"main.yml": other}, bad={"main.yml": MISSING}) == ["", "", ""]
