# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Rules for ``support.s3_proxy``: they make a real S3 server answer as others in the field do, for what those lack."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from http import HTTPStatus
from typing import Any
from urllib.parse import unquote, urlsplit
from xml.etree import ElementTree
from xml.sax import saxutils

from support.s3_proxy import Fault, Request

RETURN = {"\r": "&#13;"}
"""What XML would make a newline of."""
Rule = Callable[[Request], Fault | None]
DENIED = Fault(status=HTTPStatus.FORBIDDEN, code="AccessDenied", message="Access Denied")


def escape(key: str) -> str:
    """A key as it stands in XML."""
    return saxutils.escape(key, RETURN)


def require_content_md5(request: Request) -> Fault | None:
    """Refuse DeleteObjects without Content-MD5, as older MinIO, CubeFS and others do: a checksum is not enough."""
    if not request.is_bulk_deletion or "content-md5" in request.headers:
        return None
    message = "Missing required header for this request: Content-Md5."
    return Fault(status=HTTPStatus.BAD_REQUEST, code="MissingContentMD5", message=message)


def deny_deletion(request: Request) -> Fault | None:
    """Refuse each deletion of an object, as for credentials without s3:DeleteObject. Uploads may be aborted.

    DeleteObjects succeeds all the same: the refusal of each key is in its answer.
    """
    if request.is_deletion:
        return DENIED
    if not request.is_bulk_deletion:
        return None
    keys = [key.text or "" for key in ElementTree.fromstring(request.body).findall(".//{*}Key")]  # noqa: S314 - own client
    errors = "".join(
        f"<Error><Key>{escape(key)}</Key><Code>{DENIED.code}</Code><Message>{DENIED.message}</Message></Error>"
        for key in keys
    )
    return Fault(status=HTTPStatus.OK, body=f"<DeleteResult>{errors}</DeleteResult>".encode())


def answer_deletions(client: Any, bucket: str, refuse: Callable[[str, str], str]) -> Rule:
    """Return a rule: each object of a DeleteObjects is deleted, or refused by the code that ``refuse`` gives for it.

    It is called with key and ETag. ``client`` deletes past the proxy. Versions are not looked at.
    """

    def rule(request: Request) -> Fault | None:
        if not request.is_bulk_deletion:
            return None
        parts, allowed = [], []
        for entry in ElementTree.fromstring(request.body).findall("{*}Object"):  # noqa: S314 - own client
            key, etag = entry.findtext("{*}Key") or "", (entry.findtext("{*}ETag") or "").strip('"')
            code = refuse(key, etag)
            allowed += [] if code else [{"Key": key}]
            name = "Error" if code else "Deleted"
            parts.append(f"<{name}><Key>{escape(key)}</Key>{f'<Code>{code}</Code>' if code else ''}</{name}>")
        if allowed:
            client.delete_objects(Bucket=bucket, Delete={"Objects": allowed})
        return Fault(status=HTTPStatus.OK, body=f"<DeleteResult>{''.join(parts)}</DeleteResult>".encode())

    return rule


def look_at_etags(client: Any, bucket: str) -> Rule:
    """Return a rule: DeleteObjects looks at the ETags in it, as AWS says that it does."""

    def refuse(key: str, etag: str) -> str:
        listed = client.list_objects_v2(Bucket=bucket, Prefix=key, MaxKeys=1).get("Contents", [])
        if not listed or listed[0]["Key"] != key:
            return "NoSuchKey" if etag else ""
        return "" if etag in ("", listed[0]["ETag"].strip('"')) else "PreconditionFailed"

    return answer_deletions(client, bucket, refuse)


class ExpiringKeys:
    """Let each key sign so many requests; after them it has expired, as a token of STS does.

    ``requests`` counts by access key. A client that has fetched new credentials begins anew.
    """

    def __init__(self, after: int) -> None:
        self.after = after
        self.requests: Counter[str] = Counter()
        self._lock = threading.Lock()

    def __call__(self, request: Request) -> Fault | None:
        """Answer ExpiredToken where the key has signed enough."""
        with self._lock:
            self.requests[request.access_key] += 1
            if self.requests[request.access_key] <= self.after:
                return None
        message = "The provided token has expired."
        return Fault(status=HTTPStatus.BAD_REQUEST, code="ExpiredToken", message=message)


def ignore_ranges(client: Any) -> Rule:
    """Return a rule: a read of a part is answered by the whole object and 200, as a server without ranges does.

    ``client`` reads it past the proxy, which cannot alter a signed request.
    """

    def rule(request: Request) -> Fault | None:
        if request.method != "GET" or "range" not in request.headers:
            return None
        bucket, key = unquote(urlsplit(request.target).path).lstrip("/").split("/", 1)
        found = client.get_object(Bucket=bucket, Key=key)
        return Fault(status=HTTPStatus.OK, body=found["Body"].read(), headers={"ETag": found["ETag"]})

    return rule


def leave_out_length(request: Request) -> Fault | None:
    """Answer reads of objects in chunks, as a proxy that transforms bodies does: there is no Content-Length."""
    return Fault(has_length=False) if request.method == "GET" and not request.query else None


def break_lists(request: Request) -> Fault | None:
    """Say of each list that there is more of it, and not where."""
    if not request.is_list:
        return None
    return Fault(replace=("<IsTruncated>false</IsTruncated>", "<IsTruncated>true</IsTruncated>"))


def name_key_by_arn(arn: str) -> Rule:
    """Return a rule: what was encrypted by an alias is answered with the key's ARN, as S3 does."""

    def rule(request: Request) -> Fault | None:
        names = {"x-amz-server-side-encryption": "aws:kms", "x-amz-server-side-encryption-aws-kms-key-id": arn}
        is_object = request.method in {"GET", "HEAD"} and not request.query
        is_written = request.headers.get("x-amz-server-side-encryption") == "aws:kms"
        return Fault(headers=names) if is_object or is_written else None

    return rule


def apply_first(*rules: Rule) -> Rule:
    """Return a rule: the first of ``rules`` that has a fault for a request. All of them see each request."""

    def rule(request: Request) -> Fault | None:
        faults = [fault for fault in (rule(request) for rule in rules) if fault is not None]
        return faults[0] if faults else None

    return rule
