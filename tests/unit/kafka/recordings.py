# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Recorded output of rpk 23.3.6 and 24.3 against Apache Kafka 4.1.1: ``data/rpk-VERSION.json``.

Each case: ``id``, ``argv``, ``rc``, ``stdout``, ``stderr``, and ``observed`` (what another client saw before and after).
"""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

VERSIONS = ("23.3", "24.3")


@functools.cache
def cases(version: str) -> dict[str, dict[str, Any]]:
    """The cases of one version by id."""
    path = Path(__file__).with_name("data") / f"rpk-{version}.json"
    return {case["id"]: case for case in json.loads(path.read_text(encoding="utf-8"))}


def stdout(version: str, case: str) -> str:
    """What rpk printed."""
    return str(cases(version)[case]["stdout"])
