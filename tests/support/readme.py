# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Examples of documentation, taken out of a page to be run as they are printed."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from .checkout import text

BLOCK = re.compile(r"^```\w+\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def find_example(page: str, name: str) -> str:
    """Find the example whose first line is a comment that begins with ``name``."""
    begin = re.compile(rf"(?:#|--) {re.escape(name)}(?:$|[: ])", re.MULTILINE)
    (example,) = [match[1] for match in BLOCK.finditer(page) if begin.match(match[1])]
    return str(example)


def replace_values(example: str, values: Mapping[str, str]) -> str:
    """Replace those values of an example that differ from site to site; each has to be in it."""
    for printed, own in sorted(values.items(), key=lambda pair: -len(pair[0])):
        assert printed in example, f"{printed!r} is not in the example"
        example = example.replace(printed, own)
    return example


def write_example(page: Path, name: str, folder: Path, values: Mapping[str, str] | None = None) -> Path:
    """Write an example of a page, with values of one's own, into a folder."""
    path = folder / name
    path.write_text(replace_values(find_example(text(page), name), values or {}), encoding="utf-8")
    return path
