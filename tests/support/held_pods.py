# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Pods that become ready when a test says so, so that it can act before that however late it comes to it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

Json = dict[str, Any]
PLACE = "/held"


class HeldPods:
    """They are ready while a file is in a folder of this machine, which is mounted in each of them."""

    def __init__(self, facts: Json, folder: Path) -> None:
        folder.mkdir()
        folder.chmod(0o755)  # the image's user is nobody of this machine
        self._folder = folder
        self._node: str = facts["nodes"][0]["name"]

    @property
    def fields(self) -> Json:
        """What such a pod has beside its container's image and command, for ``Namespace.workload``."""
        return {
            "readinessProbe": {
                "exec": {"command": ["test", "-e", f"{PLACE}/ready"]},
                "periodSeconds": 1,
                "failureThreshold": 1000,
            },
            "volumeMounts": [{"name": "held", "mountPath": PLACE}],
            "spec": {
                "nodeSelector": {"kubernetes.io/hostname": self._node},
                "volumes": [{"name": "held", "hostPath": {"path": str(self._folder)}}],
            },
        }

    def let_ready(self) -> None:
        """From now on they become ready."""
        (self._folder / "ready").touch()

    def hold(self) -> None:
        """From now on none becomes ready; those that are ready stay so."""
        (self._folder / "ready").unlink()
