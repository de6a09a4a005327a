# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every version of ansible-core that the window is tested with runs, as the process that a test started."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from labkit.ansible_versions import IN_TEST_ENVIRONMENT, LOCKS, VERSIONS, environment_path, find_ansible_playbook
from labkit.errors import LabError
from labkit.lab import CHECKOUT

PLAYBOOK = """
- hosts: localhost
  gather_facts: false
  connection: local
  vars:
    ansible_python_interpreter: "{{ ansible_playbook_python }}"
    stat: "{{ lookup('ansible.builtin.file', '/proc/self/stat').split() }}"
  tasks:
    - ansible.builtin.debug:
        msg: "version={{ ansible_version.full }}; parent={{ stat[3] }};"
    - ansible.builtin.command: pwd
      register: module
    - ansible.builtin.debug:
        msg: "directory={{ module.stdout }};"
"""


@pytest.mark.parametrize("version", VERSIONS)
def test_a_version_runs_as_the_process_that_was_started(version: str, tmp_path: Path) -> None:
    """No process is in between: the workers' parent is the process that the test holds. Paths are the machine's."""
    (tmp_path / "playbook.yml").write_text(PLAYBOOK)
    process = subprocess.Popen(
        [find_ansible_playbook(version), "-i", "localhost,", "playbook.yml"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "ANSIBLE_LOCAL_TEMP": str(tmp_path / "tmp"), "ANSIBLE_REMOTE_TEMP": str(tmp_path / "tmp")},
    )
    output, _none = process.communicate(timeout=120)
    assert process.returncode == 0, output
    assert f"version={version}." in output
    assert f"parent={process.pid};" in output
    assert f"directory={tmp_path};" in output


@pytest.mark.parametrize("version", [version for version in VERSIONS if version != IN_TEST_ENVIRONMENT])
def test_a_lock_holds_its_version(version: str) -> None:
    """A lock that was made from the wrong file would test another version."""
    lock = (CHECKOUT / LOCKS / f"{version}.txt").read_text()
    assert f"\nansible-core=={version}." in f"\n{lock}"


def test_a_version_that_is_not_installed_is_named_with_what_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As are its place and the next step."""
    monkeypatch.setenv("LOWTIDE_CACHE", str(tmp_path))
    with pytest.raises(LabError, match=rf"ansible-core {VERSIONS[-1]}: {tmp_path}.*make tools"):
        find_ansible_playbook(VERSIONS[-1])


def test_an_unknown_version_is_refused_with_the_known_ones() -> None:
    """Before a file is looked for."""
    with pytest.raises(LabError, match=r"ansible-core 2\.18: .*2\.19, 2\.20, 2\.21"):
        find_ansible_playbook("2.18")


def test_the_environment_of_another_cache_has_another_place(tmp_path: Path) -> None:
    """And the same name: the lock and Python decide it."""
    here, there = (environment_path(tmp_path / name, VERSIONS[-1]) for name in ("here", "there"))
    assert here.name == there.name
    assert here != there
