# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Objects of Kubernetes as a run has read them, so that each of its processes need not read them again.

Private to lowtide.ops: do not import from other collections.
"""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .files import write_atomically

Json = dict[str, Any]


@dataclass(frozen=True)
class PartCopies:
    """The copies in ``folder``, a directory of the run. One counts as long as the object has its resourceVersion."""

    folder: Path

    def _find(self, metadata: Json) -> Path:
        return self.folder / f"lowtide_window_part_{metadata['uid']}.json"

    def recall(self, metadata: Json) -> Json | None:
        """Return the object with these metadata; None where it was not read, or has changed since."""
        try:
            kept: Json = json.loads(self._find(metadata).read_text(encoding="utf-8"))
        except (OSError, ValueError):  # one that cannot be read is none
            return None
        return kept if kept["metadata"]["resourceVersion"] == metadata["resourceVersion"] else None

    def remember(self, read: Json) -> None:
        """Keep an object as it was read, where there is room: without a copy it is read again."""
        with suppress(OSError):
            write_atomically(self._find(read["metadata"]), json.dumps(read), is_durable=False)
