# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run a command that prints one line per finished part, and number the lines, so that a long build shows how far it is.

A program of its own: ``numbered.py TOTAL -- COMMAND ARGUMENT...``.
"""

from __future__ import annotations

import subprocess
import sys


def main(arguments: list[str]) -> int:
    """Number the command's output; its exit code."""
    total, separator, *command = arguments
    if separator != "--" or not command:
        raise SystemExit("usage: numbered.py TOTAL -- COMMAND ARGUMENT...")
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as child:
        if child.stdout is None:
            raise SystemExit("the command has no output to number")
        for number, line in enumerate(child.stdout, start=1):
            sys.stdout.write(f"{number} of at most {total}: {line}")
            sys.stdout.flush()
    return child.returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
