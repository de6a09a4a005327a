# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What tests of expiry share: a bucket of artifacts and questions to it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from labkit.versitygw_setup import connect, read_keys

PAST, FUTURE = "1700000000", "4000000000"


@dataclass(frozen=True)
class Artifacts:
    """One bucket. ``client`` is a boto3 client that may do all; ``server`` the facts of the S3 server."""

    bucket: str
    client: Any
    server: dict[str, Any]

    def params(self, **more: Any) -> dict[str, Any]:
        """Options of s3_expiry, with limits that let everything go."""
        names = ("endpoint_url", "region", "credentials_file", "profile")
        own = {"bucket": self.bucket, "prefix": "", "max_share": 100}
        return {**own, **{name: self.server[name] for name in names}, **more}

    def put(self, key: str, body: bytes = b"x", *, expires_at: str | None = None, tags: str = "") -> str:
        """Write an object and return its ETag."""
        more: dict[str, Any] = {"Metadata": {"expires_at": expires_at}} if expires_at is not None else {}
        if tags:
            more["Tagging"] = tags
        return str(self.client.put_object(Bucket=self.bucket, Key=key, Body=body, **more)["ETag"])

    def put_many(self, bodies: Mapping[str, bytes]) -> None:
        """Write many objects, some at a time."""
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda item: self.put(*item), bodies.items()))

    def names(self) -> set[str]:
        """Every key in the bucket."""
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket)
        return {entry["Key"] for page in pages for entry in page.get("Contents", [])}

    def get(self, key: str) -> bytes:
        """An object."""
        body: bytes = self.client.get_object(Bucket=self.bucket, Key=key)["Body"].read()
        return body

    def turn_on_versions(self, status: str = "Enabled") -> None:
        """Let the bucket keep versions."""
        self.client.put_bucket_versioning(Bucket=self.bucket, VersioningConfiguration={"Status": status})

    def list_versions(self) -> list[tuple[str, str, bool]]:
        """Every version and delete marker: key, id, and whether it is a marker."""
        pages = list(self.client.get_paginator("list_object_versions").paginate(Bucket=self.bucket))
        return [
            (entry["Key"], entry["VersionId"], kind == "DeleteMarkers")
            for kind in ("Versions", "DeleteMarkers")
            for page in pages
            for entry in page.get(kind, [])
        ]

    def clear(self) -> None:
        """Remove everything."""
        names = sorted(self.names())
        for start in range(0, len(names), 1000):
            self._delete_many([{"Key": key} for key in names[start : start + 1000] if key.isprintable()])
        for key in self.names():
            self.client.delete_object(Bucket=self.bucket, Key=key)
        versions = self.list_versions()
        for key, version, is_marker in versions:
            if not is_marker:
                self.hold(key, version, status="OFF")
        for start in range(0, len(versions), 1000):
            page = versions[start : start + 1000]
            self._delete_many([{"Key": key, "VersionId": version} for key, version, _marker in page])

    def _delete_many(self, objects: list[dict[str, str]]) -> None:
        if objects:
            self.client.delete_objects(Bucket=self.bucket, Delete={"Objects": objects})

    def let_retention_be_ended(self) -> None:
        """Have a policy that lets a retention of mode GOVERNANCE be ended, which versitygw asks of its root, too."""
        statement = {
            "Effect": "Allow",
            "Principal": "*",
            "Action": ["s3:BypassGovernanceRetention", "s3:DeleteObject", "s3:DeleteObjectVersion"],
            "Resource": [f"arn:aws:s3:::{self.bucket}/*"],
        }
        policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
        self.client.put_bucket_policy(Bucket=self.bucket, Policy=policy)

    def hold(self, key: str, version: str, *, status: str) -> None:
        """Put a version under legal hold, where the bucket has Object Lock, or release it."""
        if "locked" in self.bucket:
            hold = {"Status": status}
            self.client.put_object_legal_hold(Bucket=self.bucket, Key=key, VersionId=version, LegalHold=hold)


@contextmanager
def make_artifacts(
    lab: dict[str, Any], server: str, unique_name: Callable[..., str], *, is_locked: bool = False
) -> Iterator[Artifacts]:
    """An empty bucket on the lab's ``server``, removed afterwards."""
    facts = lab[server]
    client = connect(facts["endpoint_url"], read_keys(facts["credentials_file"]))
    made = Artifacts(unique_name("locked" if is_locked else "expiry").lower(), client, facts)
    client.create_bucket(Bucket=made.bucket, ObjectLockEnabledForBucket=is_locked)
    try:
        yield made
    finally:
        made.clear()
        client.delete_bucket(Bucket=made.bucket)
