# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Versions, tags and metadata of a bucket's objects, and their removal. Private to lowtide.ops: do not import from other collections."""

from __future__ import annotations

import typing as t
from dataclasses import dataclass

from .bucket import Bucket
from .errors import S3Error, not_s3

if t.TYPE_CHECKING:
    from datetime import datetime

PAGE = 1000
"""Objects of one listing, and of one DeleteObjects."""
NO_VERSIONING = ("NotImplemented", "MethodNotAllowed")
"""Answers of a server that knows no versions."""
UNKNOWN = "Unknown"
REPLACED = ("PreconditionFailed", "ConditionalRequestConflict")
GONE = ("NoSuchKey", "NoSuchVersion")


@dataclass(frozen=True)
class Version:
    """One version of an object, or a delete marker. ``version_id`` is None where only the current one was listed.

    ``modified`` is by the server's clock; ``superseded`` is when the next newer one came, None of the current one.
    """

    key: str
    size: int
    etag: str
    modified: datetime
    version_id: str | None = None
    is_current: bool = True
    is_marker: bool = False
    superseded: datetime | None = None


@dataclass(frozen=True)
class Answer:
    """What became of one version: ``code`` is the server's, "" when it was removed."""

    version: Version
    code: str = ""
    message: str = ""

    @property
    def is_removed(self) -> bool:
        """Return whether it was removed by this request."""
        return not self.code

    @property
    def is_gone(self) -> bool:
        """Return whether it was not there any more."""
        return self.code in GONE

    @property
    def is_replaced(self) -> bool:
        """Return whether another object is there in its place, which stays."""
        return self.code in REPLACED


def fits_xml(key: str) -> bool:
    """Return whether a key can be written in XML, as DeleteObjects has to; no escape helps the others."""
    return all(char in "\t\n\r" or (char >= " " and char not in "\ufffe\uffff\ufffd") for char in key)


class VersionedBucket(Bucket):
    """A bucket whose objects are removed by version, or under the condition that they are the ones that were listed."""

    def read_versioning(self) -> str:
        """Return ``Enabled``, ``Suspended``, "" for a bucket that has never had versions, or ``Unknown`` where it is not told.

        versitygw 1.7 tells it to nobody but the owner of the bucket, whatever the policy says.
        """
        try:
            answer = self._call("read the versioning", "", "get_bucket_versioning")
        except S3Error as error:
            if error.code in NO_VERSIONING:
                return ""
            if error.code == "AccessDenied":
                return UNKNOWN
            raise
        return str(answer.get("Status", ""))

    def list_current(self, prefix: str) -> list[Version]:
        """Return the current version of every object below ``prefix``."""
        return [Version(listed.key, listed.size, listed.etag, listed.modified) for listed in self.list_objects(prefix)]

    def list_versions(self, prefix: str) -> list[Version]:
        """Return every version and delete marker below ``prefix``, by key, those of a key newest first."""
        operation = f"list versions below {prefix!r}"
        versions: list[Version] = []
        arguments: dict[str, t.Any] = {"Prefix": prefix}
        while True:
            page = self._call(operation, "", "list_object_versions", **arguments)
            if "IsTruncated" not in page:
                raise not_s3(endpoint=self.endpoint, problem="the answer to a listing of versions is none")
            versions += [read_version(entry, is_marker=False) for entry in page.get("Versions", [])]
            versions += [read_version(entry, is_marker=True) for entry in page.get("DeleteMarkers", [])]
            if not page["IsTruncated"]:
                return order_versions(versions)
            position = (page.get("NextKeyMarker"), page.get("NextVersionIdMarker", ""))
            if not position[0] or position == (arguments.get("KeyMarker"), arguments.get("VersionIdMarker", "")):
                raise not_s3(endpoint=self.endpoint, problem="a listing is incomplete and does not say how it goes on")
            arguments["KeyMarker"], arguments["VersionIdMarker"] = position

    def read_tags(self, version: Version) -> dict[str, str] | None:
        """Return the tags of a version; None if it is gone."""
        try:
            answer = self._call("read the tags", version.key, "get_object_tagging", **_address(version))
        except S3Error as error:
            if error.code in GONE:
                return None
            raise
        return {tag["Key"]: tag["Value"] for tag in answer["TagSet"]}

    def read_metadata(self, version: Version) -> dict[str, str] | None:
        """Return the metadata of a version, names in lower case; None if it is gone, or another one in its place."""
        condition = {"IfMatch": f'"{version.etag}"'} if version.version_id is None else {}
        try:
            answer = self._call("read the metadata", version.key, "head_object", **_address(version), **condition)
        except S3Error as error:
            if error.code in GONE or error.code in REPLACED:
                return None
            raise
        return {name.lower(): value for name, value in answer.get("Metadata", {}).items()}

    def delete_version(self, version: Version, *, etag: str | None = None) -> Answer:
        """Delete one version. With ``etag`` only if that is the ETag of what is there."""
        condition = {} if etag is None else {"IfMatch": f'"{etag}"'}
        try:
            self._call("delete", version.key, "delete_object", **_address(version), **condition)
        except S3Error as error:
            if error.code in ("Connection", "Credentials", "TLS", "Answer", "Options"):
                raise
            return Answer(version, error.code or "Unknown", error.problem)
        return Answer(version)

    def delete_versions(self, versions: t.Sequence[Version], *, with_etags: bool) -> list[Answer]:
        """Delete up to 1,000 versions by one request. One that the answer does not mention has the code ``Unanswered``.

        ``with_etags`` sends with each object without a version the ETag that it was listed with. Not every server
        looks at it.
        """
        objects = [
            _address(version) | ({"ETag": f'"{version.etag}"'} if with_etags and version.version_id is None else {})
            for version in versions
        ]
        answer = self._call(f"delete {len(objects)} objects", "", "delete_objects", Delete={"Objects": objects})
        removed = {(entry.get("Key"), entry.get("VersionId")) for entry in answer.get("Deleted", [])}
        errors = {(entry.get("Key"), entry.get("VersionId") or None): entry for entry in answer.get("Errors", [])}
        return [_find_answer(version, removed, errors) for version in versions]

    @property
    def knows_conditions(self) -> bool:
        """Return whether this botocore can send the condition of a deletion."""
        model = self._client.meta.service_model
        return (
            "IfMatch" in model.operation_model("DeleteObject").input_shape.members
            and "ETag" in model.shape_for("ObjectIdentifier").members
        )


def _address(version: Version) -> dict[str, str]:
    return {"Key": version.key} | ({} if version.version_id is None else {"VersionId": version.version_id})


def _find_answer(
    version: Version,
    removed: t.Collection[tuple[t.Any, t.Any]],
    errors: t.Mapping[tuple[t.Any, t.Any], t.Mapping[str, t.Any]],
) -> Answer:
    identity = (version.key, version.version_id)
    # Some servers leave the version out of an error, or name one for an object that was asked for without.
    error = errors.get(identity) or errors.get((version.key, None))
    if error is not None:
        return Answer(version, str(error.get("Code") or "Unknown"), str(error.get("Message", "")))
    if identity in removed or (version.version_id is None and any(key == version.key for key, _id in removed)):
        return Answer(version)
    return Answer(version, "Unanswered", "the server's answer does not mention it")


def read_version(entry: t.Mapping[str, t.Any], *, is_marker: bool) -> Version:
    """Return an entry of a listing of versions."""
    return Version(
        key=entry["Key"],
        size=0 if is_marker else entry["Size"],
        etag="" if is_marker else entry["ETag"].strip('"'),
        modified=entry["LastModified"],
        version_id=entry["VersionId"],
        is_current=bool(entry["IsLatest"]),
        is_marker=is_marker,
    )


def order_versions(versions: t.Iterable[Version]) -> list[Version]:
    """Return versions by key, those of a key newest first, each with the moment at which the next newer one came."""
    # The current one is newest whatever the clocks say.
    ordered = sorted(versions, key=lambda version: (version.key, not version.is_current, -version.modified.timestamp()))
    result: list[Version] = []
    for version in ordered:
        newer = result[-1] if result and result[-1].key == version.key else None
        superseded = None if newer is None else newer.modified
        result.append(Version(**{**vars(version), "superseded": superseded}))
    return result
