# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How components are found and ordered."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from labkit.component import Component, discover, in_order
from labkit.errors import LabError
from labkit.lab import Lab


def component(title: str, *required: str) -> Component:
    """A component that does nothing."""

    class Nothing(Component):
        name = title
        requires = required

        def install(self, lab: Lab) -> None:
            """Nothing."""

        def start(self, lab: Lab) -> None:
            """Nothing."""

        def ready(self, lab: Lab) -> None:
            """Nothing."""

        def facts(self, lab: Lab) -> dict[str, Any]:
            return {"lab": lab.name}

    return Nothing()


def known(*components: Component) -> dict[str, Component]:
    """By name."""
    return {one.name: one for one in components}


def names(ordered: list[Component]) -> list[str]:
    """In order."""
    return [one.name for one in ordered]


def test_what_is_required_comes_first() -> None:
    """Also what is required by what is required, each once."""
    components = known(component("a", "c"), component("b", "a", "d"), component("c"), component("d", "c"))
    assert names(in_order(["b"], components)) == ["c", "a", "d", "b"]
    assert names(in_order(["c"], components)) == ["c"]
    assert sorted(names(in_order([], components))) == ["a", "b", "c", "d"]


def test_an_unknown_component_is_named_with_the_known_ones() -> None:
    """So that a misspelt name is seen at once."""
    with pytest.raises(LabError, match=r"component 'kafak': there is no such component\. Choose from: kafka, s3\."):
        in_order(["kafak"], known(component("s3"), component("kafka")))


def test_a_circle_is_named() -> None:
    """Instead of a recursion that never ends."""
    with pytest.raises(LabError, match="a -> b -> a"):
        in_order(["a"], known(component("a", "b"), component("b", "a")))


def test_every_component_of_the_lab_is_found() -> None:
    """One a file, named as its file; what it requires exists."""
    found = discover()
    assert {"kafka", "kubernetes", "postgresql", "prometheus", "s3", "versitygw"} <= found.keys()
    assert all((Path(__file__).parents[2] / "lab/components" / f"{name}.py").is_file() for name in found)
    assert len(in_order([], found)) == len(found)
