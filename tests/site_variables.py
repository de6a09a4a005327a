#!/usr/bin/env python3
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Write the tables of docs/site-variables.md from what roles, playbooks and connections say of themselves.

tests/site_variables.py
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "collections"))

from support.modules import CHECKOUT
from support.site_variables import PAGE, make_page


def main() -> None:
    """Write the page."""
    (CHECKOUT / PAGE).write_text(make_page(), encoding="utf-8")


if __name__ == "__main__":
    main()
