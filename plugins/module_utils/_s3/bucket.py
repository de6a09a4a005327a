# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One bucket through a boto3 client: list, read, write, delete. Private to lowtide.ops: do not import from other collections.

A stream goes up as a multipart upload, part by part from memory, so that nothing touches the local disk and nothing
exists under any name before its end. A long read that breaks off goes on at the byte reached, bound to the same ETag.
"""

from __future__ import annotations

import hashlib
import typing as t
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from .._common.dependencies import require
from .._common.errors import OpsError
from .errors import S3Error, not_s3, sdk_error

WORKERS = 3
CHUNK = 1 << 20
READ_ATTEMPTS = 5
MEMORY = 256 << 20
"""Bytes of parts that may wait in memory, of all uploads of a run; at least two parts of each do."""


@dataclass(frozen=True)
class Listed:
    """One object of a listing; ``size`` in bytes, ``modified`` by the server's clock."""

    key: str
    size: int
    etag: str
    modified: datetime


@dataclass(frozen=True)
class Upload:
    """One unfinished multipart upload."""

    key: str
    upload_id: str
    initiated: datetime


@dataclass(frozen=True)
class Encryption:
    """Server-side encryption asked for: ``AES256`` or ``aws:kms``, with a key's id for the latter (None: the bucket's)."""

    method: str
    kms_key_id: str | None = None

    def arguments(self) -> dict[str, str]:
        """Return it as boto3 takes it."""
        own = {"ServerSideEncryption": self.method}
        return own | {"SSEKMSKeyId": self.kms_key_id} if self.kms_key_id else own

    def matches(self, method: str | None, key: str) -> bool:
        """Return whether a server's answer is what was asked for. It tells an alias' key, which nobody else knows."""
        if method != self.method:
            return False
        asked = self.kms_key_id or ""
        is_alias = asked.startswith("alias/") or ":alias/" in asked
        return not asked or is_alias or key.endswith(asked.rpartition("/")[2])


class HashingReader:
    """A readable object for boto3 that counts and hashes what passes; ``finish`` is called at the end of the source.

    It raises if the producer failed: then boto3 aborts the upload, and no object comes to be.
    """

    def __init__(self, source: t.IO[bytes], finish: t.Callable[[], None]) -> None:
        self._source = source
        self._finish = finish
        self._digest = hashlib.sha256()
        self._ended = False
        self.size = 0

    def read(self, amount: int = -1) -> bytes:
        """Return ``amount`` bytes, fewer only at the end."""
        body = b"" if self._ended else self._source.read(amount)
        self._digest.update(body)
        self.size += len(body)
        if not self._ended and (amount < 0 or len(body) < amount):
            self._ended = True
            self._finish()
        return body

    @property
    def sha256(self) -> str:
        """The SHA-256 of what was read, in hexadecimal."""
        return self._digest.hexdigest()


class Bucket:
    """One bucket. ``server_time`` is the clock of the last answer; ``encryption`` is asked for and read back."""

    def __init__(self, client: t.Any, name: str, *, encryption: Encryption | None = None) -> None:
        self._client = client
        self.name = name
        self._encryption = encryption
        self.server_time: datetime | None = None
        exceptions = require("botocore.exceptions", package="botocore", why="to talk to S3")
        self._errors: tuple[type[Exception], ...] = (exceptions.BotoCoreError, exceptions.ClientError)
        parsers = require("botocore.parsers", package="botocore", why="to talk to S3")
        # A RuntimeError says that a source of credentials has handed out ones that are over already.
        self._errors += (parsers.ResponseParserError, RuntimeError)
        # botocore wraps some errors of a body that breaks off, and lets others pass as they are: TLS is among these.
        urllib3 = require("urllib3.exceptions", package="urllib3", why="to talk to S3")
        self._read_errors: tuple[type[Exception], ...] = (*self._errors, urllib3.HTTPError)

    @property
    def endpoint(self) -> str:
        """The server's address, for messages."""
        return str(self._client.meta.endpoint_url)

    def url(self, key: str) -> str:
        """Return ``key`` as a person writes it."""
        return f"s3://{self.name}/{key}"

    def _explain(self, operation: str, key: str, error: BaseException) -> S3Error:
        obj = self.url(key) if key else f"bucket {self.name} at {self.endpoint}"
        return sdk_error(obj=obj, operation=operation, endpoint=self.endpoint, error=error)

    def _call(self, operation: str, key: str, method: str, /, **arguments: t.Any) -> t.Any:
        try:
            answer = getattr(self._client, method)(Bucket=self.name, **arguments)
        except self._errors as error:
            raise self._explain(operation, key, error) from error
        date = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("date")
        if date:
            self.server_time = parsedate_to_datetime(date).astimezone(UTC)
        return answer

    def list_objects(self, prefix: str) -> list[Listed]:
        """Return every object below ``prefix``, in key order; 1,000 a request."""
        operation = f"list objects below {prefix!r}"
        listed: list[Listed] = []
        arguments: dict[str, t.Any] = {"Prefix": prefix}
        while True:
            page = self._call(operation, "", "list_objects_v2", **arguments)
            if "IsTruncated" not in page:
                raise not_s3(endpoint=self.endpoint, problem="the answer to a listing is none")
            listed += [
                Listed(entry["Key"], entry["Size"], entry["ETag"].strip('"'), entry["LastModified"])
                for entry in page.get("Contents", [])
            ]
            if not page["IsTruncated"]:
                return listed
            token = page.get("NextContinuationToken")
            if not token:
                raise not_s3(endpoint=self.endpoint, problem="a listing is incomplete and does not say how it goes on")
            arguments["ContinuationToken"] = token

    def list_uploads(self, prefix: str) -> list[Upload]:
        """Return every multipart upload below ``prefix`` that is neither completed nor aborted."""
        operation = f"list multipart uploads below {prefix!r}"
        uploads: list[Upload] = []
        arguments: dict[str, t.Any] = {"Prefix": prefix}
        while True:
            page = self._call(operation, "", "list_multipart_uploads", **arguments)
            uploads += [
                Upload(entry["Key"], entry["UploadId"], entry["Initiated"]) for entry in page.get("Uploads", [])
            ]
            if not page.get("IsTruncated"):
                return uploads
            arguments["KeyMarker"] = page.get("NextKeyMarker", "")
            arguments["UploadIdMarker"] = page.get("NextUploadIdMarker", "")

    def read(self, key: str) -> bytes:
        """Return a small object, whole."""
        return b"".join(self.stream(key))

    def stream(self, key: str, *, etag: str | None = None) -> t.Iterator[bytes]:
        """Yield an object in chunks of at most 1 MiB; with ``etag``, another object under that key is an error."""
        done, size, failures = 0, -1, 0
        while size < 0 or done < size:
            arguments = {"IfMatch": f'"{etag}"'} if etag is not None else {}
            if done:
                arguments["Range"] = f"bytes={done}-"
            answer = self._call("read", key, "get_object", Key=key, **arguments)
            etag = etag or str(answer.get("ETag", "")).strip('"') or None
            skip = 0 if "ContentRange" in answer else done  # a server that ignores Range answers with all of it
            length = answer.get("ContentLength")
            size = done - skip + length if length is not None else -1
            error: Exception | None = None
            try:
                while chunk := answer["Body"].read(CHUNK):
                    passed, skip = chunk[skip:], max(0, skip - len(chunk))
                    done += len(passed)
                    failures = 0 if passed else failures
                    if passed:
                        yield passed
                if length is None:
                    return
            except self._read_errors as broken:
                error = broken
            if done < size:
                failures += 1
                if failures >= READ_ATTEMPTS:
                    raise self._explain("read", key, error or ConnectionError(f"it ends after {done} of {size} bytes"))

    def put(self, key: str, body: bytes, *, content_type: str) -> str:
        """Write a small object that must not exist yet, check its encryption, and return its ETag.

        A server that does not know the condition (501), and a botocore that does not, is asked without it: run names
        are unique by themselves.
        """
        arguments = {"Key": key, "Body": body, "ContentType": content_type, **self._encryption_arguments()}
        members = self._client.meta.service_model.operation_model("PutObject").input_shape.members
        condition = {"IfNoneMatch": "*"} if "IfNoneMatch" in members else {}
        try:
            self._call("write", key, "put_object", **condition, **arguments)
        except S3Error as error:
            if error.code == "NotImplemented":
                self._call("write", key, "put_object", **arguments)
            elif error.code != "PreconditionFailed" or self.read(key) != body:
                raise  # an answer that was lost makes boto3 repeat a write that had been done: then it holds ``body``
        return self.check(key, len(body))

    def _encryption_arguments(self) -> dict[str, str]:
        return {} if self._encryption is None else self._encryption.arguments()

    def upload(
        self, key: str, source: HashingReader, *, part_bytes: int, content_type: str, memory: int = MEMORY
    ) -> str:
        """Upload ``source`` to its end and return the object's ETag. After an error the upload is aborted.

        ``memory`` is how many bytes of parts may wait, beside the one that is being read.
        """
        transfer = require("boto3.s3.transfer", package="boto3", why="to write to S3")
        config = transfer.TransferConfig(
            multipart_threshold=part_bytes, multipart_chunksize=part_bytes, max_concurrency=WORKERS
        )
        config.max_in_memory_upload_chunks = max(2, min(WORKERS, memory // part_bytes))
        extra = {"ContentType": content_type, **self._encryption_arguments()}
        try:
            self._client.upload_fileobj(source, self.name, key, ExtraArgs=extra, Config=config)
        except self._errors as error:
            refusal = self._explain("upload", key, error)
            if refusal.code != "NoSuchUpload" or not self._is_there(key):
                raise refusal from error
            # The answer to the completion was lost, and boto3 has repeated it: whether it is our object tells its size.
        return self.check(key, source.size)

    def _is_there(self, key: str) -> bool:
        """Ask whether there is an object under ``key``."""
        try:
            self._call("read back", key, "head_object", Key=key)
        except S3Error as error:
            if error.code != "NoSuchKey":
                raise
            return False
        return True

    def check(self, key: str, size: int) -> str:
        """Read back size and encryption of an object and return its ETag; anything else than asked for is an error."""
        head = self._call("read back", key, "head_object", Key=key)
        if head["ContentLength"] != size:
            raise OpsError(
                obj=self.url(key),
                problem=f"the server holds {head['ContentLength']} bytes of {size}",
                next_step="Run again; what was written does not count",
            )
        method, kms_key = head.get("ServerSideEncryption"), str(head.get("SSEKMSKeyId", ""))
        if self._encryption is not None and not self._encryption.matches(method, kms_key):
            raise OpsError(
                obj=self.url(key),
                problem=f"encryption {self._encryption.method} was asked for, the server reports {method or 'none'}"
                + (f" with key {kms_key}" if kms_key else ""),
                next_step="Use a server that encrypts, or leave the option encryption unset to store it as the bucket does",
            )
        return str(head["ETag"]).strip('"')

    def delete(self, key: str) -> None:
        """Delete one object. One by one: not every server has a request for many, or wants it as boto3 sends it."""
        self._call("delete", key, "delete_object", Key=key)

    def abort(self, upload: Upload) -> None:
        """Abort a multipart upload. One that is gone already is as it should be."""
        try:
            self._call(
                "abort the upload",
                upload.key,
                "abort_multipart_upload",
                Key=upload.key,
                UploadId=upload.upload_id,
            )
        except S3Error as error:
            if error.code != "NoSuchUpload":
                raise
