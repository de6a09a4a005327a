# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Container images without a registry and without a build tool: directory trees into OCI image archives.

Equal trees give equal bytes (names sorted, owner root, time zero), so an image keeps its digest between builds.
The format is the OCI image specification 1.0: an image layout in a tar file, layers uncompressed.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

PLATFORM = {"architecture": "amd64", "os": "linux"}


@dataclass(frozen=True)
class Image:
    """What an image runs: its full name, its command, its environment (``NAME=value``) and its numeric user."""

    name: str
    command: tuple[str, ...]
    environment: tuple[str, ...] = ("PATH=/usr/bin:/bin",)
    user: str = "65532:65532"
    labels: dict[str, str] = field(default_factory=dict)


def layer(tree: Path) -> bytes:
    """``tree`` as an uncompressed layer."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for path in sorted(tree.rglob("*")):
            entry = archive.gettarinfo(str(path), arcname=str(path.relative_to(tree)))
            entry.uid = entry.gid = 0
            entry.uname = entry.gname = ""
            entry.mtime = 0
            if entry.isreg():
                with path.open("rb") as content:
                    archive.addfile(entry, content)
            else:
                archive.addfile(entry)
    return buffer.getvalue()


class Archive:
    """Several images in one archive that ``ctr image import`` takes; what they share is in it once."""

    def __init__(self) -> None:
        self._blobs: dict[str, bytes] = {}
        self._manifests: list[dict[str, object]] = []

    def _blob(self, content: bytes, media_type: str) -> dict[str, object]:
        digest = hashlib.sha256(content).hexdigest()
        self._blobs[f"blobs/sha256/{digest}"] = content
        return {
            "mediaType": f"application/vnd.oci.image.{media_type}",
            "digest": f"sha256:{digest}",
            "size": len(content),
        }

    def _document(self, content: Mapping[str, object], media_type: str) -> dict[str, object]:
        return self._blob(json.dumps(content, sort_keys=True).encode(), media_type)

    def add(self, image: Image, layers: Sequence[bytes]) -> None:
        """Add ``image``, made of ``layers``, lowest first."""
        descriptors = [self._blob(content, "layer.v1.tar") for content in layers]
        configuration = {
            **PLATFORM,
            "config": {
                "User": image.user,
                "Env": list(image.environment),
                "Cmd": list(image.command),
                "WorkingDir": "/",
                "Labels": image.labels,
            },
            "rootfs": {"type": "layers", "diff_ids": [descriptor["digest"] for descriptor in descriptors]},
        }
        config = self._document(configuration, "config.v1+json")
        manifest = self._document({"schemaVersion": 2, "config": config, "layers": descriptors}, "manifest.v1+json")
        annotations = {"io.containerd.image.name": image.name}
        self._manifests.append({**manifest, "platform": PLATFORM, "annotations": annotations})

    def write(self, target: Path) -> None:
        """Write the archive; it is there whole or not at all."""
        index = json.dumps({"schemaVersion": 2, "manifests": self._manifests}, sort_keys=True).encode()
        files = {"oci-layout": b'{"imageLayoutVersion": "1.0.0"}', "index.json": index, **self._blobs}
        partial = target.with_suffix(".partial")
        with tarfile.open(partial, "w") as archive:
            for name, content in files.items():
                entry = tarfile.TarInfo(name)
                entry.size = len(content)
                archive.addfile(entry, io.BytesIO(content))
        partial.replace(target)
