# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A FAKE of ``kubectl exec``: runs what stands behind ``--`` on this host, as if that were the pod.

``FAKE_KUBECTL_LOG`` names a file to append each argument list to.
"""

from __future__ import annotations

import json
import os
import sys


def main() -> None:
    """Log, and become the command."""
    with open(os.environ["FAKE_KUBECTL_LOG"], "a", encoding="utf-8") as log:
        log.write(json.dumps(sys.argv[1:]) + "\n")
    command = sys.argv[sys.argv.index("--") + 1 :]
    os.execvp(command[0], command)


if __name__ == "__main__":
    main()
