# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Functions begin with a verb: a floor for each package that has been brought into line, which only rises."""

from __future__ import annotations

import pytest

from support.checkout import plugin_packages, text
from support.verbs import measure

FLOORS = {
    "module_utils/_common": 95,
    "module_utils/_consumers": 90,
    "module_utils/_kubernetes": 88,
    "module_utils/_postgresql": 88,
    "plugin_utils/_window": 90,
}
"""Percent. A package may be here before it exists. `tests/verbs.py PACKAGE` prints the names without a verb."""


@pytest.mark.parametrize("package", FLOORS)
def test_functions_of_a_package_begin_with_a_verb(package: str) -> None:
    """The message has the names that do not."""
    share = measure([text(path) for path in plugin_packages().get(package, [])])
    assert share.percent >= FLOORS[package], share.without


@pytest.mark.parametrize(
    "name",
    ["find_pod", "_read", "is_ready", "try_acquire", "plan_stop", "run", "record_abandoned_steps", "wait"],
)
def test_a_verb_is_known(name: str) -> None:
    """Private or not, with other words or alone."""
    share = measure([f"def {name}(): ..."])
    assert (share.counted, share.without) == (1, ())


@pytest.mark.parametrize("name", ["pod", "topics_named", "_keys", "plan", "state", "finder", "unreachable", "record"])
def test_a_noun_is_found(name: str) -> None:
    """Also one that would be a verb if another word followed."""
    assert measure([f"def {name}(): ..."]).without == (name,)


def test_what_is_named_by_convention_is_not_counted() -> None:
    """Properties are nouns; conversions and dunders are the language's; methods and inner functions count."""
    source = """
class Pod:
    def __init__(self): ...
    @property
    def name(self): ...
    @functools.cached_property
    def title(self): ...
    @name.setter
    def name(self, value): ...
    @classmethod
    def from_object(cls, value): ...
    def as_dict(self): ...
    def to_json(self): ...
    def read(self):
        def key(): ...
    async def owner(self): ...
def main(): ...
"""
    share = measure([source])
    assert (share.counted, sorted(share.without)) == (3, ["key", "owner"])
    assert round(share.percent) == 33


def test_of_no_functions_all_begin_with_a_verb() -> None:
    """A package of nothing but types breaks no floor."""
    assert measure(["X = 1"]).percent == 100
