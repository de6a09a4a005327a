# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Run a program that is SIGKILLed before the file is removed whose turn it is: NUMBER PYTHON PROGRAM."""

from __future__ import annotations

import os
import runpy
import signal
import sys


def main(number: int, program: str) -> None:
    """Entry point. The interpreter tells of each removal before it."""
    removals = 0

    def count(event: str, _arguments: object) -> None:
        nonlocal removals
        if event == "os.remove":
            removals += 1
            if removals == number:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(count)
    sys.path.insert(0, os.path.dirname(program))
    runpy.run_path(program, run_name="__main__")


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[-1])
