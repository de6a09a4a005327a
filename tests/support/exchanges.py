# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A rule for ``support.s3_proxy``: another client exchanges a dump, at a moment between its upload and its manifest."""

from __future__ import annotations

from collections.abc import Callable

from support.backups import Site
from support.s3_proxy import Fault, Request

MOMENTS: dict[str, Callable[[Request, str], bool]] = {
    "uploaded": lambda request, part: request.method == "HEAD" and request.target.endswith(part),
    "read back": lambda request, part: request.method == "GET" and request.target.endswith(part),
    "verified": lambda request, _part: request.is_list and "Z-" in request.query.get("prefix", [""])[0],
    "published": lambda request, _part: request.method == "PUT" and request.target.endswith("manifest.json"),
}
"""Before which request."""


class Exchange:
    """The rule. ``done`` has the key of the object that now has one bit more or less, and the same size."""

    def __init__(self, bucket: Site, part: str, moment: str) -> None:
        self._bucket = bucket
        self._part = part
        self._is_due = MOMENTS[moment]
        self.done: list[str] = []

    def __call__(self, request: Request) -> Fault | None:
        """Exchange it once; disturb nothing else."""
        if self.done or not self._is_due(request, self._part):
            return None
        keys = [key for key in self._bucket.names() if key.endswith(self._part)]
        if len(keys) == 1:
            body = bytearray(self._bucket.get(keys[0]))
            body[len(body) // 2] ^= 1
            self._bucket.client.put_object(Bucket=self._bucket.bucket, Key=keys[0], Body=bytes(body))
            self.done += keys
        return None


PROBLEMS = {
    "uploaded": "its SHA-256 is ",
    "read back": "dump",
    "verified": "has been replaced since it was verified",
    "published": "published, but ",
}
"""What a run says then."""
