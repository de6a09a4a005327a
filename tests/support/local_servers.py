# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What tests need that start a server for themselves: a port, and patience until it is as it should be."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable


def find_free_port() -> int:
    """Return a port of this host that nobody listens at."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def wait_until(what: str, condition: Callable[[], bool], seconds: float, explain: Callable[[], str] = str) -> None:
    """Until it is so; ``explain`` says more where it did not come true."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"{what}: not within {seconds:.0f} s\n{explain()}"
        time.sleep(0.2)
