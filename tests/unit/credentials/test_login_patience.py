# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""After the switch, an address behind which one of several servers is a moment behind is waited for."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from ansible_collections.lowtide.ops.plugins.module_utils._common.errors import OpsError
from ansible_collections.lowtide.ops.plugins.module_utils._common.retry import Deadline
from ansible_collections.lowtide.ops.plugins.module_utils._credentials.operations import rotation
from ansible_collections.lowtide.ops.plugins.module_utils._postgresql import logins
from ansible_collections.lowtide.ops.plugins.module_utils._postgresql.logins import Login


@pytest.mark.parametrize(("is_new", "is_accepted"), [(True, True), (False, False)])
def test_a_credential_that_is_new_gets_time(monkeypatch: pytest.MonkeyPatch, is_new: bool, is_accepted: bool) -> None:
    """One that has been proven before gets none: there is nothing that could be a moment behind."""
    answers = iter([Login(False, error="not yet"), Login(True)])
    monkeypatch.setattr(logins, "try_login", lambda *_args: next(answers))
    run: Any = rotation.Rotation.__new__(rotation.Rotation)
    run.params = {"username_key": "user", "password_key": "password"}
    run.secret = SimpleNamespace(title="Secret x/y", values={}, get_text=lambda key: key)
    run.note, run.deadline = None, Deadline(60)
    run.addresses = [SimpleNamespace(host="standbys", port=5432)]
    run.outcome = SimpleNamespace(evidence=[])
    if is_accepted:
        run._check_login(is_new=is_new)
        assert run.outcome.evidence == ["standbys:5432 lets user in with the password of the Secret"]
        return
    with pytest.raises(OpsError, match="refuses its password of user: not yet"):
        run._check_login(is_new=is_new)


@pytest.mark.parametrize(("seconds", "attempts"), [(0.0, 1), (0.5, 2), (30.0, 3)])
def test_a_wrong_password_is_tried_a_few_times_only(
    monkeypatch: pytest.MonkeyPatch, seconds: float, attempts: int
) -> None:
    """Where failed logins are counted, more of them lock the role that clients have, or this address."""
    now = 0.0

    def sleep(pause: float) -> None:
        nonlocal now
        now += pause

    tried: list[float] = []

    def refuse(*_args: object) -> Login:
        tried.append(now)
        return Login(False, error="no")

    monkeypatch.setattr(logins, "try_login", refuse)
    deadline = Deadline(seconds, clock=lambda: now, sleep=sleep)
    address: Any = SimpleNamespace(host="standbys", port=5432)
    assert logins.wait_for_login(address, "user", "wrong", deadline=deadline).error == "no"
    assert len(tried) == attempts
    assert tried[-1] == seconds
    assert all(moment <= 5 for moment in tried[:-1]), "a standby is seldom further behind"
