# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Writing to the bucket. Private to lowtide.ops: do not import from other collections.

A stream goes up as a multipart upload, part by part from memory: nothing touches the local disk, and until the
last moment nothing exists under any name. Size and SHA-256 are computed on the way.
"""

from __future__ import annotations

import hashlib
import typing as t
from concurrent.futures import Future, ThreadPoolExecutor

from .._common.dependencies import require
from .._common.errors import OpsError
from .._s3.errors import S3Error, sdk_error
from .manifest import Part

if t.TYPE_CHECKING:
    from .catalogue import Leftovers
    from .ensure import Encryption

WORKERS = 3
# Above this S3 copies only part by part (Amazon S3 API reference, CopyObject: 5 GB).
COPY_LIMIT = 5_000_000_000


class Bucket:
    """Write access to one bucket through a boto3 client. ``has_removed``: a removal may have taken effect."""

    def __init__(
        self, client: t.Any, *, name: str, endpoint: str, encryption: Encryption | None, metadata: dict[str, str]
    ) -> None:
        self._client = client
        self._name = name
        self._endpoint = endpoint
        self._encryption = encryption
        self.has_removed = False
        self._create = {"Metadata": metadata} | ({} if encryption is None else encryption.arguments())
        errors = require("botocore.exceptions", package="botocore", why="to write to S3")
        self._errors: tuple[type[Exception], ...] = (errors.BotoCoreError, errors.ClientError)

    def _call(self, operation: str, key: str, method: str, /, **arguments: t.Any) -> t.Any:
        try:
            return getattr(self._client, method)(Bucket=self._name, **arguments)
        except self._errors as error:
            raise sdk_error(
                obj=f"s3://{self._name}/{key}", operation=operation, endpoint=self._endpoint, error=error
            ) from error

    def put(self, key: str, body: bytes, *, content_type: str) -> str:
        """Write a small object that must not exist yet, check its encryption, and return its ETag.

        A server that does not know the condition (501) is asked without it: run names are unique by themselves.
        """
        arguments = {"Key": key, "Body": body, "ContentType": content_type, **self._create}
        try:
            self._call("write", key, "put_object", IfNoneMatch="*", **arguments)
        except S3Error as error:
            if error.code == "NotImplemented":
                self._call("write", key, "put_object", **arguments)
            elif error.code != "PreconditionFailed" or not self._is(key, body):
                raise
        return self.check(key, len(body))

    def _is(self, key: str, body: bytes) -> bool:
        """Whether ``key`` holds ``body``: an answer that was lost makes the SDK repeat a write that had been done."""
        return bool(self._call("read back", key, "get_object", Key=key)["Body"].read() == body)

    def check(self, key: str, size: int) -> str:
        """Read back size and encryption of an object and return its ETag; anything else than asked for is an error."""
        head = self._call("read back", key, "head_object", Key=key)
        if head["ContentLength"] != size:
            raise OpsError(
                obj=f"s3://{self._name}/{key}",
                problem=f"the server holds {head['ContentLength']} bytes of {size}",
                next_step="Run again; nothing has been published",
            )
        self._check_encryption(key, head)
        return str(head["ETag"]).strip('"')

    def _check_encryption(self, key: str, head: t.Mapping[str, t.Any]) -> None:
        if self._encryption is None:
            return
        method, key_id = head.get("ServerSideEncryption"), head.get("SSEKMSKeyId", "")
        wanted = self._encryption.kms_key_id
        if method != self._encryption.method or (
            wanted is not None and not str(key_id).endswith(wanted.rpartition("/")[2])
        ):
            raise OpsError(
                obj=f"s3://{self._name}/{key}",
                problem=f"encryption {self._encryption.method} was asked for, the server reports {method or 'none'}"
                + (f" with key {key_id}" if key_id else ""),
                next_step="Use a server that encrypts, or leave the option encryption unset to store it as the bucket does",
            )

    def upload(self, key: str, source: t.IO[bytes], *, part_bytes: int, ended: t.Callable[[], None]) -> Part:
        """Upload ``source`` to its end. ``ended`` is called there and raises if the producer failed: then, and after
        any other error, the upload is aborted and no object exists. Returns size, SHA-256 and ETag."""
        started = self._call(
            "start the upload", key, "create_multipart_upload", Key=key, ContentType="application/zstd", **self._create
        )
        upload_id = started["UploadId"]
        pool = ThreadPoolExecutor(max_workers=WORKERS)
        try:
            size, digest, parts = self._send_parts(pool, key, upload_id, source, part_bytes)
            ended()
            self._call(
                "complete the upload",
                key,
                "complete_multipart_upload",
                Key=key,
                UploadId=upload_id,
                MultipartUpload={"Parts": parts},
            )
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)  # a part still on its way would outlive the abort
            self._call("abort the upload", key, "abort_multipart_upload", Key=key, UploadId=upload_id)
            raise
        pool.shutdown()
        return Part(size=size, sha256=digest, etag=self.check(key, size))

    def _send_parts(
        self, pool: ThreadPoolExecutor, key: str, upload_id: str, source: t.IO[bytes], part_bytes: int
    ) -> tuple[int, str, list[dict[str, t.Any]]]:
        digest, size = hashlib.sha256(), 0
        sent: list[Future[dict[str, t.Any]]] = []
        while True:
            body = source.read(part_bytes)
            if not body and sent:
                break
            digest.update(body)
            size += len(body)
            sent.append(pool.submit(self._send_part, key, upload_id, len(sent) + 1, body))
            if len(sent) > WORKERS:
                sent[-1 - WORKERS].result()  # bounds memory, and finds out early that the server refuses
            if len(body) < part_bytes:
                break
        return size, digest.hexdigest(), [future.result() for future in sent]

    def _send_part(self, key: str, upload_id: str, number: int, body: bytes) -> dict[str, t.Any]:
        answer = self._call(
            f"upload part {number}", key, "upload_part", Key=key, UploadId=upload_id, PartNumber=number, Body=body
        )
        return {"PartNumber": number, "ETag": answer["ETag"]}

    def copy(self, source: str, target: str, part: Part) -> Part:
        """Copy an object inside the server, only if it still is the one with ``part``'s ETag; check and return the copy's part."""
        if part.size <= COPY_LIMIT:
            self._call(
                "publish",
                target,
                "copy_object",
                Key=target,
                CopySource={"Bucket": self._name, "Key": source},
                CopySourceIfMatch=f'"{part.etag}"',
                **(self._encryption.arguments() if self._encryption else {}),
            )
        else:
            self._copy_parts(source, target, part)
        return Part(size=part.size, sha256=part.sha256, etag=self.check(target, part.size))

    def _copy_parts(self, source: str, target: str, part: Part) -> None:
        started = self._call(
            "publish", target, "create_multipart_upload", Key=target, ContentType="application/zstd", **self._create
        )
        upload_id = started["UploadId"]
        step = COPY_LIMIT // 5
        try:
            parts = []
            for number, first in enumerate(range(0, part.size, step), start=1):
                answer = self._call(
                    f"publish part {number}",
                    target,
                    "upload_part_copy",
                    Key=target,
                    UploadId=upload_id,
                    PartNumber=number,
                    CopySource={"Bucket": self._name, "Key": source},
                    CopySourceIfMatch=f'"{part.etag}"',
                    CopySourceRange=f"bytes={first}-{min(first + step, part.size) - 1}",
                )
                parts.append({"PartNumber": number, "ETag": answer["CopyPartResult"]["ETag"]})
            self._call(
                "publish",
                target,
                "complete_multipart_upload",
                Key=target,
                UploadId=upload_id,
                MultipartUpload={"Parts": parts},
            )
        except BaseException:
            self._call("abort the copy", target, "abort_multipart_upload", Key=target, UploadId=upload_id)
            raise

    def remove(self, found: Leftovers) -> None:
        """Delete keys and abort uploads. An upload that is gone already is as it should be."""
        for upload in found.uploads:
            try:
                self._remove("abort", upload.key, "abort_multipart_upload", Key=upload.key, UploadId=upload.upload_id)
            except S3Error as error:
                if error.code != "NoSuchUpload":
                    raise
        for first in range(0, len(found.keys), 1000):
            chunk = found.keys[first : first + 1000]
            answer = self._remove(
                "delete", chunk[0], "delete_objects", Delete={"Objects": [{"Key": key} for key in chunk], "Quiet": True}
            )
            for refused in answer.get("Errors", []):
                raise OpsError(
                    obj=f"s3://{self._name}/{refused.get('Key')}",
                    problem=f"the server refused to delete it: {refused.get('Code')} {refused.get('Message', '')}".rstrip(),
                    next_step="Grant these credentials s3:DeleteObject below the prefix, or remove it by hand",
                )

    def _remove(self, operation: str, key: str, method: str, /, **arguments: t.Any) -> t.Any:
        """Call a removing method. Without an answer, or with one that is an error in part only, it may have removed."""
        try:
            answer = self._call(operation, key, method, **arguments)
        except S3Error as error:
            self.has_removed = self.has_removed or error.code == "Connection"
            raise
        keys = len(arguments.get("Delete", {}).get("Objects", [key]))
        self.has_removed = self.has_removed or len(answer.get("Errors", [])) < keys
        return answer
