# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What tests need that start a server for themselves: a port, and patience until it is as it should be."""

from __future__ import annotations

import contextlib
import random
import socket
import time
from collections.abc import Callable
from pathlib import Path

RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")


def find_free_port() -> int:
    """Return a port of this host that nobody listens at.

    It is none of those that connections get, so that no connection has it by the time at which the server begins.
    """
    end = int(RANGE.read_text(encoding="utf-8").split()[0])
    while True:
        port = random.randrange(10_240, end)  # noqa: S311 - no secret
        with socket.socket() as one, contextlib.suppress(OSError):
            one.bind(("127.0.0.1", port))
            return port


def wait_until(what: str, condition: Callable[[], bool], seconds: float, explain: Callable[[], str] = str) -> None:
    """Until it is so; ``explain`` says more where it did not come true."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"{what}: not within {seconds:.0f} s\n{explain()}"
        time.sleep(0.2)
