# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""KWOK, which plays the kubelets of nodes that do not exist, so that a namespace can have thousands of pods."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, ClassVar

from labkit.component import Component
from labkit.lab import Lab
from labkit.packages import go_binary, go_environment

VERSION = "0.8.0"


class Kwok(Component):
    """The program only: a test that wants such nodes makes them, runs it, and removes them (tests/support/crowd.py).

    So nodes that run nothing are in nobody else's way.
    """

    name: ClassVar[str] = "kwok"
    requires: ClassVar[tuple[str, ...]] = ("kubernetes",)

    def install(self, lab: Lab) -> None:
        """Built from its Go module."""
        target = self._folder(lab)
        if target.is_dir():
            return
        partial = target.with_name(f".{target.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        module = f"sigs.k8s.io/kwok/cmd/kwok@v{VERSION}"
        lab.build(
            f"kwok: go install {VERSION}",
            [go_binary(lab), "install", "-p", "2", "-trimpath", "-ldflags", "-s -w", module],
            env={**go_environment(lab), "GOBIN": str(partial)},
        )
        partial.rename(target)

    @staticmethod
    def _folder(lab: Lab) -> Path:
        return lab.cache / f"kwok-{VERSION}"

    def start(self, lab: Lab) -> None:
        """Start nothing: see the class."""

    def ready(self, lab: Lab) -> None:
        """Have nothing to wait for."""

    def facts(self, lab: Lab) -> dict[str, Any]:
        """Where the program is."""
        return {"program": str(self._folder(lab) / "kwok"), "version": VERSION}
