# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What documentation and build files name: paths of the checkout and targets of the Makefile, as functions of text."""

from __future__ import annotations

import re
from collections.abc import Iterator

FOLDERS = ("changelogs", "docs", "inventories", "molecule", "playbooks", "plugins", "roles", "tests")
PATH = re.compile(rf"(?<![\w./{{$:~-])(?:{'|'.join(FOLDERS)})/[\w./*{{}}<>-]+")
PLACEHOLDER = re.compile(r"[A-Z]{2,}|[*{<]|\byours\b")
"""``roles/NAME``, ``docs/*.md``, ``inventories/yours``: names that stand for others."""
MAKE = re.compile(r"(?:^\s*|`|\bexec )make ([a-z][a-z-]*)", re.MULTILINE)
TARGET = re.compile(r"^([a-z][a-z-]*):(?!=)", re.MULTILINE)
LANE = re.compile(r"^WITH(?:OUT)?_LAB := (.*)$", re.MULTILINE)


def find_paths(text: str) -> Iterator[str]:
    """Find the paths that a text names, without placeholders."""
    for match in PATH.finditer(text):
        path = match[0].rstrip("./")
        if not PLACEHOLDER.search(path):
            yield path


def find_targets(makefile: str) -> set[str]:
    """Find the targets that a Makefile has."""
    return set(TARGET.findall(makefile))


def find_made(text: str) -> set[str]:
    """Find the targets that a text makes: ``make X`` as a command or in backquotes, and the lanes of `make test`."""
    lanes = re.sub(r"\$\(if \S+ \S+,([a-z-]+)\)", r"\1", " ".join(LANE.findall(text)))
    return {*MAKE.findall(text), *re.findall(r"[a-z][a-z-]*", lanes)}
