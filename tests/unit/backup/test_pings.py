# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A session that waits is spoken on, until it is used no more or is gone."""

from __future__ import annotations

import threading

from ansible_collections.lowtide.ops.plugins.module_utils._backup.pings import Pings


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
