# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Name an image of the lab's nodes by its digest, as a registry would."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

Json = dict[str, Any]


@contextmanager
def name_by_digest(facts: Json, image: str) -> Iterator[str]:
    """Give an image, on every node, the name that has its digest instead of its tag; the name goes afterwards."""
    name = ""
    for node in facts["nodes"]:
        lines = _run(facts, node, "images", "ls", f"name=={image}").splitlines()
        digest = next(line.split()[2] for line in lines if line.startswith(f"{image} "))
        name = f"{image.rpartition(':')[0]}@{digest}"
        _run(facts, node, "images", "tag", "--force", image, name)
    try:
        yield name
    finally:
        for node in facts["nodes"]:
            _run(facts, node, "images", "rm", name)


def _run(facts: Json, node: Json, *arguments: str) -> str:
    """Run containerd's own client for a node, as the lab does."""
    program = Path(facts["kubectl"]).parent.parent / "trixie/containerd/usr/bin/ctr"
    address = Path(facts["kubeconfig"]).parent / node["name"] / "containerd.sock"
    argv = [str(program), "--address", str(address), "--namespace", "k8s.io", *arguments]
    return subprocess.run(argv, capture_output=True, text=True, check=True, timeout=300).stdout
