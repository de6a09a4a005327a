# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What leaves a module when its work ends as nobody foresaw: what was done by then, and no credential."""

from __future__ import annotations

from typing import Any, NoReturn

import pytest

from ansible_collections.lowtide.ops.plugins.module_utils._common.module import run_module
from ansible_collections.lowtide.ops.plugins.module_utils._common.outcome import Outcome

CANARY = "Bearer canary-3fe9"


class Left(Exception):
    """What AnsibleModule's exit is here."""


class FakeModule:
    """The four things of an AnsibleModule that ``run_module`` uses."""

    check_mode = False
    _name = "lowtide.ops.example"

    def __init__(self) -> None:
        self.failed: dict[str, Any] = {}

    def fail_json(self, **result: Any) -> NoReturn:
        """Keep the result."""
        self.failed = result
        raise Left

    def exit_json(self, **result: Any) -> NoReturn:
        """No work of this file comes to a good end."""
        raise AssertionError(result)


def fail_unforeseen(*, after_a_write: bool) -> dict[str, Any]:
    """The result of a module whose work raises a ValueError with a credential in its text."""

    def work(_module: Any, outcome: Outcome) -> None:
        outcome.changed = after_a_write
        outcome.facts["workloads"] = ["Deployment/w"]
        try:
            raise ValueError(f"Invalid header value {CANARY!r}")
        except ValueError as error:
            raise RuntimeError(CANARY) from error

    module = FakeModule()
    with pytest.raises(Left):
        run_module(module, work)  # type: ignore[arg-type]
    return module.failed


@pytest.mark.parametrize("after_a_write", [False, True])
def test_what_was_done_is_reported(after_a_write: bool) -> None:
    failed = fail_unforeseen(after_a_write=after_a_write)
    assert failed["changed"] is after_a_write
    assert failed["error"]["refused"] is not after_a_write
    assert failed["workloads"] == ["Deployment/w"]


def test_the_place_is_named_and_the_text_is_not() -> None:
    failed = fail_unforeseen(after_a_write=False)
    assert "module lowtide.ops.example: an unforeseen RuntimeError at " in failed["msg"]
    assert "test_module.py:" in failed["msg"]
    assert CANARY not in str(failed)
    assert "because of" in failed["exception"]
    assert failed["exception"].endswith("ValueError")
