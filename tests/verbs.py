#!/usr/bin/env python3
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Print for each package which share of its functions begins with a verb.

    tests/verbs.py [PACKAGE...]      (with packages, such as module_utils/_kafka: the names that do not, too)

The floors are in tests/unit/project/test_verbs.py.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from support.checkout import plugin_packages, text
from support.verbs import measure


def main() -> int:
    """Print the table."""
    asked = [name.removeprefix("plugins/").rstrip("/") for name in sys.argv[1:]]
    packages = plugin_packages()
    unknown = sorted(set(asked) - packages.keys())
    if unknown:
        sys.stderr.write(f"{', '.join(unknown)}: not among {', '.join(packages)}\n")
        return 1
    for name in asked or packages:
        share = measure([text(path) for path in packages[name]])
        print(f"{name:30} {share.counted - len(share.without):4} of {share.counted:4}  {share.percent:5.1f} %")
        if asked:
            print("".join(f"    {function}\n" for function in share.without), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
