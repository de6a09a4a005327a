# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Fixtures of every test: names that collide with nothing, playbooks run as a user runs them, and the running lab."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from support.modules import PATIENCE
from support.playbooks import PlaybookRun, run_playbook, write_yaml
from support.turns import leave_out_sweeps

pytest.register_assert_rewrite("support.store_contract")
_numbers = itertools.count(1)

# Times are not asserted: a busy machine is no failure.
settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave the cases that are marked ``sweep`` to LOWTIDE_EXHAUSTIVE=1."""
    leave_out_sweeps(config, items)


@pytest.fixture
def unique_name() -> Callable[..., str]:
    """``unique_name("topic")`` gives ``lt-topic-<pid>-<n>``; with ``separator="_"`` it fits SQL without quotes."""

    def make(what: str, *, separator: str = "-") -> str:
        return separator.join(["lt", what, str(os.getpid()), str(next(_numbers))])

    return make


@pytest.fixture
def ansible_playbook(tmp_path: Path) -> Callable[..., PlaybookRun]:
    """Run a playbook (a path, a fully qualified name, or plays as data) and return rc, output and recap.

    ``ansible_playbook(plays, "--check", extra_vars={...}, env={...}, timeout=60)``
    """

    def run(
        playbook: str | Path | list[dict[str, Any]],
        *arguments: str,
        extra_vars: dict[str, Any] | None = None,
        env: dict[str, str] | None = None,
        timeout: float = PATIENCE,
    ) -> PlaybookRun:
        if isinstance(playbook, list):
            playbook = write_yaml(tmp_path / f"playbook-{next(_numbers)}.yml", playbook)
        if extra_vars:
            path = write_yaml(tmp_path / f"vars-{next(_numbers)}.yml", extra_vars)
            arguments = (*arguments, "-e", f"@{path}")
        return run_playbook(playbook, *arguments, env=env, timeout=timeout)

    return run


@pytest.fixture(scope="session")
def lab_facts() -> dict[str, Any]:
    """Everything that ``tests/lab/lab facts`` says: endpoints, credential files, identities, by component."""
    path = os.environ.get("LOWTIDE_LAB_FACTS")
    if not path:
        pytest.fail(
            "not inside a lab: LOWTIDE_LAB_FACTS is not set. Run it as: tests/lab/lab run -- pytest ...", pytrace=False
        )
    facts: dict[str, Any] = json.loads(Path(path).read_text(encoding="utf-8"))
    return facts


@pytest.fixture
def lab(lab_facts: dict[str, Any], request: pytest.FixtureRequest) -> dict[str, Any]:
    """The facts, once every component that ``@pytest.mark.lab(...)`` asks for is known to be up."""
    wanted = {component for mark in request.node.iter_markers("lab") for component in mark.args}
    missing = sorted(wanted - lab_facts.keys())
    if missing:
        pytest.fail(
            f"this lab has no {', '.join(missing)}. Start it with: tests/lab/lab up {' '.join(missing)}", pytrace=False
        )
    return lab_facts
