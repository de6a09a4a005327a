# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which store a site has: the options window_dir, window_site and window_store.

Private to lowtide.ops: do not import from other collections.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ansible_collections.lowtide.ops.plugins.module_utils._common.errors import Refusal

from .lease import SHARED_TTL
from .store import Store
from .store_file import FileStore
from .store_kubernetes import KubernetesStore
from .store_postgresql import PostgresqlStore

KUBERNETES, POSTGRESQL = "kubernetes", "postgresql"


@dataclass(frozen=True)
class Place:
    """The options; ``shared`` is window_store, with the connection below the kind, and empty for a directory."""

    site: str
    directory: str = ""
    shared: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def connect(self, folder: str) -> Store:
        """Return the site's store. ``folder`` is a directory of this run. Raises Refusal for options that cannot be
        meant."""
        if not self.shared:
            if not self.directory:
                raise Refusal(
                    obj="window_dir",
                    problem="it is empty",
                    next_step="Give a directory that outlives this run, or window_store",
                )
            return FileStore.from_site(self.directory, self.site)
        if len(self.shared) != 1 or not {KUBERNETES, POSTGRESQL} & self.shared.keys():
            raise Refusal(
                obj="window_store",
                problem=f"it has {', '.join(sorted(self.shared))}, and one store is one kind",
                next_step=f"Give a connection below one of {KUBERNETES} and {POSTGRESQL}",
            )
        ((kind, connection),) = self.shared.items()
        if not isinstance(connection, Mapping):
            raise Refusal(
                obj=f"window_store.{kind}", problem="it is no dictionary", next_step="Give the options of a connection"
            )
        if not self.site:
            raise Refusal(
                obj="window_site",
                problem="it is empty, and sites share the store",
                next_step="Name the site, by a name that no other site has there",
            )
        return connect(
            {"kind": kind, "connection": dict(connection), "site": self.site, "ttl": SHARED_TTL, "folder": folder}
        )


def connect(place: Mapping[str, Any]) -> Store:
    """Return the store that :meth:`.store.Store.describe_place` has described; nothing is sent yet."""
    if place["kind"] == "file":
        return FileStore(Path(place["directory"]), ttl=place["ttl"])
    if place["kind"] == POSTGRESQL:
        return PostgresqlStore(place["connection"], site=place["site"], ttl=place["ttl"])
    return KubernetesStore(place["connection"], site=place["site"], ttl=place["ttl"], folder=Path(place["folder"]))
