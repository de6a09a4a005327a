# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The ETags by which later runs compare: those of a listing, if they are of the objects that were read back."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from ansible_collections.lowtide.ops.plugins.module_utils._backup import keys
from ansible_collections.lowtide.ops.plugins.module_utils._backup.manifest import Part
from ansible_collections.lowtide.ops.plugins.module_utils._backup.verify import NotVerified, adopt_etags
from ansible_collections.lowtide.ops.plugins.module_utils._s3.bucket import Listed

NOW = datetime(2026, 11, 21, 2, 0, tzinfo=UTC)


class KnownETags:
    """A listing with one object, and what a HEAD of it says."""

    def __init__(self, listed: Listed | None, head: str) -> None:
        self.listed, self.head = listed, head

    def url(self, key: str) -> str:
        """As a bucket."""
        return f"s3://b/{key}"

    def list_objects(self, prefix: str) -> list[Listed]:
        """As a bucket."""
        return [] if self.listed is None or not self.listed.key.startswith(prefix) else [self.listed]

    def check(self, _key: str, _size: int) -> str:
        """As a bucket."""
        return self.head


def test_parts_are_published_with_the_etag_that_a_listing_gives() -> None:
    """Some servers give another one in answer to HEAD; if HEAD does not give the one of before, it is another object."""
    parts = {keys.DUMP: Part(size=5, sha256="0" * 64, etag="head")}
    folder = "p/shop/1/20261121T020000Z-5f1c2a77/"
    listed = Listed(key=folder + keys.DUMP, size=5, etag="list", modified=NOW)
    assert adopt_etags(KnownETags(listed, "head"), folder, parts)[keys.DUMP].etag == "list"
    same = replace(listed, etag="head")
    assert adopt_etags(KnownETags(same, "not asked"), folder, parts)[keys.DUMP].etag == "head"
    for found, head, words in (
        (listed, "list", "replaced since it was verified"),
        (replace(same, size=6), "head", "replaced since it was verified"),
        (None, "head", "removed since it was verified"),
    ):
        with pytest.raises(NotVerified, match=words):
            adopt_etags(KnownETags(found, head), folder, parts)
