# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A session that waits is spoken on, until it is used no more or is gone."""

from __future__ import annotations

import threading
from typing import Any

from ansible_collections.lowtide.ops.plugins.module_utils._pg_restore.restore import Restore
from ansible_collections.lowtide.ops.plugins.module_utils._postgresql.pings import Pings


def test_a_session_is_asked_again_and_again() -> None:
    """As long as it is waited for, and not afterwards."""
    calls = threading.Semaphore(0)
    count = [0]

    def ping() -> bool:
        count[0] += 1
        calls.release()
        return True

    with Pings(ping, period=0.01):
        for _ in range(3):
            assert calls.acquire(timeout=30)
    after = count[0]
    threading.Event().wait(0.05)
    assert count[0] == after


def test_the_session_of_a_restore_is_asked_as_long_as_it_is_at_work() -> None:
    """It has the lock, and would be silent for as long as rows are restored and compared."""
    asked = threading.Semaphore(0)

    class Session:
        """A session that notes that it was asked."""

        def is_alive(self) -> bool:
            """Note it."""
            asked.release()
            return True

    class LongRestore(Restore):
        """A restore that ends once its session was asked twice."""

        ping_period = 0.01

        def _ensure(self, *_source: Any, **_options: Any) -> None:
            assert asked.acquire(timeout=10)
            assert asked.acquire(timeout=10)
            self.ended = True

    parts: dict[str, Any] = dict.fromkeys(("options", "outcome", "deadline", "run_id", "settings"))
    work = LongRestore(session=Session(), **parts)  # type: ignore[arg-type]
    work.ensure(None, check=False)  # type: ignore[arg-type]
    assert work.ended


def test_a_session_that_is_gone_is_not_asked_again() -> None:
    """Whoever uses it next tells so."""
    answers = iter([True, False])
    ended = threading.Event()

    def ping() -> bool:
        answer = next(answers)
        if not answer:
            ended.set()
        return answer

    with Pings(ping, period=0.01):
        assert ended.wait(30)
    assert list(answers) == []
