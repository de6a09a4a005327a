# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a run leaves behind that was killed after it had switched a release."""

from __future__ import annotations

import time
from pathlib import Path


def leave_killed(releases: Path) -> None:
    """Leave what a run leaves that was killed after it had switched from release 1 to 2."""
    (releases / "current.lowtide-previous").symlink_to(releases / "1")
    (releases / "current").unlink()
    (releases / "current").symlink_to(releases / "2")


def enter_after_switch() -> str:
    """Return the ActiveEnterTimestampMonotonic of a unit that was started after a switch of just now."""
    return str(int(time.clock_gettime(time.CLOCK_MONOTONIC) * 1e6) + 10**6)
