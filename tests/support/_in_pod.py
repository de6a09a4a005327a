# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Become a program that finds itself in a pod: its service account's files are where a kubelet would have put them.

``unshare --mount _in_pod.py FOLDER PROGRAM ARGUMENT...``; FOLDER holds ``token``, ``ca.crt`` and ``namespace``.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ACCOUNT = Path("/run/secrets/kubernetes.io/serviceaccount")


def main(arguments: list[str]) -> None:
    """Cover /run of this mount namespace, put the files below it, and become the program."""
    folder, *program = arguments
    files = {path.name: path.read_bytes() for path in Path(folder).iterdir()}
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", "/run"], check=True)
    ACCOUNT.mkdir(parents=True)
    for name, content in files.items():
        (ACCOUNT / name).write_bytes(content)
    os.execvp(program[0], program)


if __name__ == "__main__":
    main(sys.argv[1:])
