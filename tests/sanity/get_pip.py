# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Give ansible-test's empty virtual environments their pip, from PyPI alone.

ansible-test would download get-pip from a server of the Ansible project; ``run`` puts this file where it looks
first. The arguments are get-pip's: requirements, and two flags that pip itself does not know.
"""

from __future__ import annotations

import ensurepip
import subprocess
import sys

NOT_FOR_PIP = {"--no-setuptools", "--no-wheel"}

if __name__ == "__main__":
    ensurepip.bootstrap()
    arguments = [argument for argument in sys.argv[1:] if argument not in NOT_FOR_PIP]
    sys.exit(subprocess.run([sys.executable, "-m", "pip", "install", *arguments], check=False).returncode)
