# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""S3's XML answers as typed values; pure. Private to lowtide.ops: do not import from other collections.

Element names: Amazon S3 API reference, ListObjectsV2 and ListMultipartUploads. Keys come percent-encoded
(``encoding-type=url`` is always asked for, because XML cannot carry every byte of a key). Expat resolves no
external entity, and entity expansion is bounded by expat itself (>= 2.4.1).
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from dataclasses import dataclass
from urllib.parse import unquote_plus

from .._common.errors import OpsError


@dataclass(frozen=True)
class Listed:
    """One object of a listing; ``size`` in bytes, ``modified`` as the server writes it (ISO 8601, UTC)."""

    key: str
    size: int
    etag: str
    modified: str


@dataclass(frozen=True)
class Upload:
    """One unfinished multipart upload."""

    key: str
    upload_id: str
    initiated: str


def _root(body: bytes, expected: str) -> ET.Element:
    problem = ""
    try:
        root = ET.fromstring(body)  # noqa: S314  # see the module's docstring
    except ET.ParseError as error:
        problem = f"the answer is not XML ({error}): {body[:80]!r}"
    else:
        for element in root.iter():
            element.tag = element.tag.rpartition("}")[2]
        if root.tag == expected:
            return root
        problem = f"the answer is a {root.tag}, not a {expected}"
    raise OpsError(
        obj="S3 endpoint",
        problem=problem,
        next_step="Check that endpoint_url is the address of an S3 API, not of a console or a proxy's page",
    )


def _text(element: ET.Element, name: str) -> str:
    return (element.findtext(name) or "").strip()


def _key(element: ET.Element, *, encoded: bool) -> str:
    raw = element.findtext("Key") or ""
    return unquote_plus(raw) if encoded else raw


def objects_page(body: bytes) -> tuple[list[Listed], str | None]:
    """The objects of one ListObjectsV2 answer, and the token of the next page (None at the end)."""
    root = _root(body, "ListBucketResult")
    encoded = _text(root, "EncodingType") == "url"
    found = [
        Listed(
            key=_key(entry, encoded=encoded),
            size=int(_text(entry, "Size")),
            etag=_text(entry, "ETag").strip('"'),
            modified=_text(entry, "LastModified"),
        )
        for entry in root.findall("Contents")
    ]
    return found, (_text(root, "NextContinuationToken") or None) if _text(root, "IsTruncated") == "true" else None


def uploads_page(body: bytes) -> tuple[list[Upload], dict[str, str] | None]:
    """The uploads of one ListMultipartUploads answer, and the query of the next page (None at the end)."""
    root = _root(body, "ListMultipartUploadsResult")
    encoded = _text(root, "EncodingType") == "url"
    found = [
        Upload(
            key=_key(entry, encoded=encoded), upload_id=_text(entry, "UploadId"), initiated=_text(entry, "Initiated")
        )
        for entry in root.findall("Upload")
    ]
    if _text(root, "IsTruncated") != "true":
        return found, None
    marker = _text(root, "NextKeyMarker")
    return found, {
        "key-marker": unquote_plus(marker) if encoded else marker,
        "upload-id-marker": _text(root, "NextUploadIdMarker"),
    }


def error_of(body: bytes) -> tuple[str, str, str]:
    """Code, message and region of an Error answer; empty strings for whatever it does not say."""
    if not body.lstrip().startswith(b"<"):
        return "", body[:200].decode("utf-8", "replace"), ""
    try:
        root = ET.fromstring(body)  # noqa: S314  # see the module's docstring
    except ET.ParseError:
        return "", body[:200].decode("utf-8", "replace"), ""
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
    return _text(root, "Code"), _text(root, "Message"), _text(root, "Region")
