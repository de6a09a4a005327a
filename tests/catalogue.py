#!/usr/bin/env python3
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Write docs/coverage/README.md from docs/coverage/procedures.yml and the tests' marks, and say what does not hold.

tests/catalogue.py; the exit code is 1 when a row and the tests disagree.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from support.catalogue import PAGE, checkout_findings, checkout_page
from support.modules import CHECKOUT


def main() -> int:
    """Write the page, print the findings."""
    (CHECKOUT / PAGE).write_text(checkout_page(), encoding="utf-8")
    found = checkout_findings()
    print("\n".join(found) or f"{PAGE}: every row and every mark agree")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
