# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Say what an S3 answer means for a person. Private to lowtide.ops: do not import from other collections."""

from __future__ import annotations

import typing as t

from .._common.errors import OpsError, Refusal

# Error code -> (what is wrong, what to do next). Codes: Amazon S3 API reference, "List of error codes".
_KNOWN: dict[str, tuple[str, str]] = {
    "NoSuchBucket": ("the bucket does not exist", "Create the bucket or correct the option bucket"),
    "InvalidBucketName": ("this is not a valid bucket name", "Correct the option bucket"),
    "NoSuchKey": (
        "the object does not exist",
        "List the prefix with lowtide.ops.pg_backup_info; somebody may have removed it",
    ),
    "InvalidAccessKeyId": (
        "the server does not know the access key",
        "Correct access_key, profile or credentials_file",
    ),
    "SignatureDoesNotMatch": (
        "the server refused the signature: the secret key is wrong",
        "Correct secret_key, profile or credentials_file (and check that no proxy rewrites the request)",
    ),
    "ExpiredToken": ("the session token has expired", "Renew session_token or the profile's credentials"),
    "InvalidToken": ("the session token is not valid", "Correct session_token"),
    "AccessDenied": ("access denied", "Grant these credentials {action} on {resource}, or use others"),
    "AllAccessDisabled": ("access to the bucket is disabled", "Ask the owner of the bucket"),
    "RequestTimeTooSkewed": (
        "the clocks of this host and of the server differ by too much",
        "Set this host's clock by NTP",
    ),
    "PermanentRedirect": (
        "the bucket lives in another region or behind another endpoint",
        "Correct region or endpoint_url",
    ),
    "AuthorizationHeaderMalformed": ("the request was signed for the wrong region", "Correct the option region"),
    "PreconditionFailed": (
        "the object exists already, or is not the one that was read before",
        "Find out who else writes below this prefix",
    ),
    "SlowDown": ("the server asks to slow down, also after retries", "Run again when the server is less busy"),
    "ServiceUnavailable": ("the server is unavailable, also after retries", "Run again when the server is back"),
    "QuotaExceeded": ("the server's quota is used up", "Free space in the bucket or raise the quota"),
}

# For HEAD-like answers that carry no body, and therefore no code.
_BY_STATUS: dict[int, str] = {
    301: "PermanentRedirect",
    403: "AccessDenied",
    404: "NoSuchKey",
    412: "PreconditionFailed",
    503: "SlowDown",
}

# The right that an operation needs, as policies of IAM and of servers like it name it.
ACTIONS = {
    "AbortMultipartUpload": "s3:AbortMultipartUpload",
    "CompleteMultipartUpload": "s3:PutObject",
    "CreateMultipartUpload": "s3:PutObject",
    "DeleteObject": "s3:DeleteObject",
    "DeleteObjects": "s3:DeleteObject",
    "GetBucketVersioning": "s3:GetBucketVersioning",
    "GetObject": "s3:GetObject",
    "GetObjectTagging": "s3:GetObjectTagging",
    "HeadObject": "s3:GetObject",
    "ListMultipartUploads": "s3:ListBucketMultipartUploads",
    "ListObjectVersions": "s3:ListBucketVersions",
    "ListObjectsV2": "s3:ListBucket",
    "PutObject": "s3:PutObject",
    "UploadPart": "s3:PutObject",
}

# What botocore itself asks STS and IAM Identity Center for, in the middle of any request, to have credentials.
_CREDENTIAL_OPERATIONS = {
    "AssumeRole",
    "AssumeRoleWithSAML",
    "AssumeRoleWithWebIdentity",
    "CreateOAuth2Token",
    "CreateToken",
    "GetCredentialsForIdentity",
    "GetRoleCredentials",
    "GetSessionToken",
}


class S3Error(OpsError):
    """An S3 request was answered with an error, or not answered at all. ``code`` is the server's own ("" if none)."""

    def __init__(self, *, obj: str, problem: str, next_step: str, code: str = "") -> None:
        super().__init__(obj=obj, problem=problem, next_step=next_step)
        self.code = code


def answer_error(*, obj: str, operation: str, status: int, code: str, message: str, action: str = "") -> S3Error:
    """Return the error for an answer with ``status`` (HTTP) and the server's ``code`` and ``message`` ("" for none).

    ``action`` is the right that the request needs, where that is known.
    """
    code = _BY_STATUS.get(status, code) if not code or code.isdigit() else code
    problem, next_step = _KNOWN.get(
        code, ("the server refused the request", "Read the server's message and log; it names the cause")
    )
    next_step = next_step.replace("{action}", action or "the action").replace("{resource}", name_resource(obj, action))
    said = ", ".join(part for part in (code, f"HTTP {status}" if status else "", message.strip().rstrip(".")) if part)
    return S3Error(obj=obj, problem=f"{operation}: {problem} ({said})", next_step=next_step, code=code)


def name_resource(obj: str, action: str) -> str:
    """Return on what a policy has to allow an action: as an ARN, for objects all of the same database."""
    bucket, _slash, key = obj.removeprefix("s3://").partition("/")
    if not obj.startswith("s3://") or not bucket:
        return "the bucket"
    if action.startswith("s3:ListBucket") or key.count("/") < 2:
        return f"the bucket (arn:aws:s3:::{bucket}{'' if action.startswith('s3:ListBucket') else '/*'})"
    return f"arn:aws:s3:::{bucket}/{key.rsplit('/', 2)[0]}/*, or on the prefix before it"


def connection_error(*, endpoint: str, error: BaseException) -> S3Error:
    """Return the error for a request that got no answer of S3: name, refused connection, timeout, TLS, credentials."""
    kind = type(error).__name__
    obj = f"S3 endpoint {endpoint}"
    reason = explain_cause(error)
    if kind == "SSLError":
        if "CERTIFICATE_VERIFY_FAILED" in reason or "doesn't match" in reason:
            return S3Error(
                obj=obj,
                problem=f"its TLS certificate is not trusted: {reason}",
                next_step="Name the signing authority's certificate in ca_bundle, or correct endpoint_url to a name in"
                " the certificate",
                code="TLS",
            )
        return S3Error(
            obj=obj,
            problem=f"TLS failed: {reason}",
            next_step="Check that endpoint_url has the right scheme (https or http) and port",
            code="TLS",
        )
    # botocore says by a RuntimeError that a source of credentials has handed out ones that are over already.
    if "Credential" in kind or "Token" in kind or (kind == "RuntimeError" and "redentials" in reason):
        return credentials_error(reason)
    if kind == "ResponseParserError":
        return not_s3(endpoint=endpoint, problem="the answer is not XML of S3")
    if kind in ("ParamValidationError", "InvalidConfigError", "UnknownServiceError"):
        return S3Error(obj=obj, problem=reason, next_step="Correct the option that it names", code="Options")
    return S3Error(
        obj=obj,
        problem=f"no answer: {reason}",
        next_step="Check endpoint_url, the name resolution, the proxy, and that the server is up",
        code="Connection",
    )


def credentials_error(problem: str) -> S3Error:
    """Return the error for credentials that cannot be had, or not any more."""
    return S3Error(
        obj="S3 credentials",
        problem=problem,
        next_step="Renew them, or correct access_key, profile or credentials_file, and see that their source answers;"
        " then run again",
        code="Credentials",
    )


def not_s3(*, endpoint: str, problem: str) -> S3Error:
    """Return the error for an answer that S3 does not give."""
    return S3Error(
        obj=f"S3 endpoint {endpoint}",
        problem=problem,
        next_step="Check that endpoint_url is the address of an S3 API, not of a console or a proxy's page",
        code="Answer",
    )


def explain_cause(error: BaseException) -> str:
    """Return what is at the bottom of an error of botocore, whose own text names only the address.

    urllib3 wraps the cause in ``reason`` or says ``<connection object>: Failed to establish ...: [Errno 111] ...``.
    """
    inner: t.Any = getattr(error, "kwargs", {}).get("error")
    while isinstance(getattr(inner, "reason", None), BaseException):
        inner = inner.reason
    text = str(inner or error) or type(error).__name__
    return text.rpartition(">: ")[2] if ">: " in text else text


def sdk_error(*, obj: str, operation: str, endpoint: str, error: BaseException) -> S3Error:
    """Return the error for an exception of boto3/botocore: a ClientError carries the server's answer, others got none."""
    response: t.Any = getattr(error, "response", None)
    if isinstance(response, dict) and "Error" in response:
        status = int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
        said = response["Error"]
        asked = str(getattr(error, "operation_name", ""))
        if asked in _CREDENTIAL_OPERATIONS:
            message = str(said.get("Message", "")).strip().rstrip(".")
            return credentials_error(f"{asked} was refused: {message} ({said.get('Code', '')}, HTTP {status})")
        return answer_error(
            obj=obj,
            operation=operation,
            status=status,
            code=str(said.get("Code", "")),
            message=str(said.get("Message", "")),
            action=ACTIONS.get(asked, ""),
        )
    return connection_error(endpoint=endpoint, error=error)


def no_credentials(*, why: str) -> Refusal:
    """Return the refusal for a site that gave no credentials at all."""
    return Refusal(
        obj="S3 credentials",
        problem=why,
        next_step="Set access_key and secret_key, or profile and credentials_file, or the AWS_* environment of the host that runs this",
    )
