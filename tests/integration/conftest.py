# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The running lab, as a dictionary of facts. Nothing is skipped: a component that is not there fails its tests."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="session")
def lab_facts() -> dict[str, Any]:
    """Everything that ``tests/lab/lab facts`` says: endpoints, credential files, identities, by component."""
    path = os.environ.get("LOWTIDE_LAB_FACTS")
    if not path:
        pytest.fail("not inside a lab: LOWTIDE_LAB_FACTS is not set. Run it as: tests/lab/lab run -- pytest ...", pytrace=False)
    facts: dict[str, Any] = json.loads(Path(path).read_text(encoding="utf-8"))
    return facts


@pytest.fixture
def lab(lab_facts: dict[str, Any], request: pytest.FixtureRequest) -> dict[str, Any]:
    """The facts, once every component that ``@pytest.mark.lab(...)`` asks for is known to be up."""
    wanted = {component for mark in request.node.iter_markers("lab") for component in mark.args}
    missing = sorted(wanted - lab_facts.keys())
    if missing:
        pytest.fail(f"this lab has no {', '.join(missing)}. Start it with: tests/lab/lab up {' '.join(missing)}", pytrace=False)
    return lab_facts
