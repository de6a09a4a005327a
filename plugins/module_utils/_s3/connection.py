# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The S3 connection options and the boto3 client that they mean. Private to lowtide.ops: do not import from other collections.

Whatever the options leave open is boto3's own decision, as it is for every other tool on that host: credentials (and
their renewal), assumed roles, region, endpoints of AWS' partitions, ``AWS_ENDPOINT_URL_S3``, proxies.
"""

from __future__ import annotations

import base64
import hashlib
import os
import typing as t
from urllib.parse import urlsplit

from .._common.dependencies import require
from .._common.errors import Refusal
from .errors import no_credentials

if t.TYPE_CHECKING:
    from ansible.module_utils.basic import AnsibleModule

# Mirrored by plugins/doc_fragments/_s3.py.
ARGUMENT_SPEC: dict[str, dict[str, t.Any]] = {
    "endpoint_url": {"type": "str"},
    "region": {"type": "str"},
    "addressing_style": {"type": "str", "choices": ["auto", "path", "virtual"]},
    "access_key": {"type": "str", "no_log": False},
    "secret_key": {"type": "str", "no_log": True},
    "session_token": {"type": "str", "no_log": True},
    "credentials_file": {"type": "path"},
    "profile": {"type": "str"},
    "ca_bundle": {"type": "path"},
    "validate_certs": {"type": "bool", "default": True},
}
REQUIRED_TOGETHER = [("access_key", "secret_key")]
DEFAULT_REGION = "us-east-1"
CONNECTIONS = 10
"""What botocore keeps by default."""
OLDEST_BOTOCORE = (1, 29)
"""Debian 12 has botocore 1.29.27 and boto3 1.26.27."""
ENDPOINT_VARIABLES = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
ENDPOINTS_SINCE = (1, 31)
"""From this version on botocore reads ``ENDPOINT_VARIABLES``."""
CHECKSUM_OPTIONS_SINCE = (1, 36)
"""From this version on botocore adds checksums of its own to each request, unless it is told not to."""
WHY = "to talk to S3"


def make_client(module: AnsibleModule, *, connections: int = CONNECTIONS) -> t.Any:
    """Return a boto3 client for what ``module``'s options and this host say; warns when TLS is not verified.

    It keeps as many ``connections`` open for its next requests.
    """
    params = module.params
    check_endpoint(params["endpoint_url"])
    if not params["validate_certs"]:
        module.warn(
            f"The TLS certificate of {params['endpoint_url'] or 'S3'} is not verified: validate_certs is false."
        )
    boto3 = require("boto3", package="boto3", why=WHY)
    botocore = require("botocore", package="botocore", why=WHY)
    version = parse_version(botocore.__version__)
    check_version(version, {} if params["endpoint_url"] else os.environ)
    exceptions = require("botocore.exceptions", package="botocore", why=WHY)
    try:
        core = make_core(params)
        session = make_session(boto3, core, params)
        if session.get_credentials() is None:
            raise no_credentials(why="none were given and none were found")
        config = require("botocore.config", package="botocore", why=WHY)
        client = session.client(
            "s3",
            endpoint_url=params["endpoint_url"],
            region_name=params["region"] or session.region_name or DEFAULT_REGION,
            verify=(params["ca_bundle"] or None) if params["validate_certs"] else False,
            config=config.Config(
                max_pool_connections=max(CONNECTIONS, connections),
                **choose_options(params, version, os.environ, profile_style=read_addressing_style(core)),
            ),
        )
    except exceptions.BotoCoreError as error:
        raise no_credentials(why=str(error)) from error
    for operation in ("PutObject", "UploadPart", "DeleteObjects"):
        client.meta.events.register(f"before-call.s3.{operation}", add_content_md5)
    return client


def check_endpoint(endpoint: str | None) -> None:
    """Refuse what is no address of a server."""
    if endpoint is None:
        return
    parts = urlsplit(endpoint)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.path.strip("/") or parts.query:
        raise Refusal(
            obj="option endpoint_url",
            problem=f"{endpoint!r} is not an address of the shape https://host[:port]",
            next_step="Correct it; the bucket is an option of its own",
        )


def parse_version(text: str) -> tuple[int, ...]:
    """Return the leading numbers of a version."""
    numbers = []
    for piece in text.split("."):
        if not piece.isdigit():
            break
        numbers.append(int(piece))
    return tuple(numbers)


def check_version(version: tuple[int, ...], environ: t.Mapping[str, str]) -> None:
    """Refuse a botocore that is too old, or too old for what the environment asks of it."""
    words = ".".join(str(number) for number in version)
    if version < OLDEST_BOTOCORE:
        raise Refusal(
            obj="Python library botocore",
            problem=f"its version is {words}, and {'.'.join(map(str, OLDEST_BOTOCORE))} is the oldest that is supported",
            next_step="Install boto3 1.26 or newer (Debian 12: package python3-boto3) for the interpreter of this task",
        )
    given = [name for name in ENDPOINT_VARIABLES if environ.get(name)]
    if given and version < ENDPOINTS_SINCE:
        raise Refusal(
            obj=f"environment variable {given[0]}",
            problem=f"botocore {words} does not read it, and would talk to AWS",
            next_step="Set endpoint_url instead, or install boto3 1.28 or newer",
        )


def make_session(boto3: t.Any, core: t.Any, params: t.Mapping[str, t.Any]) -> t.Any:
    """Return the boto3 session of the credentials that the options name, or of this host's."""
    if params["access_key"] and params["secret_key"]:
        return boto3.Session(
            botocore_session=core,
            aws_access_key_id=clean_secret("access_key", params["access_key"]),
            aws_secret_access_key=clean_secret("secret_key", params["secret_key"]),
            aws_session_token=clean_secret("session_token", params["session_token"] or "") or None,
        )
    return boto3.Session(botocore_session=core)


def make_core(params: t.Mapping[str, t.Any]) -> t.Any:
    """Return botocore's session, which knows the profile that the options name."""
    make = require("botocore.session", package="botocore", why=WHY).Session
    if params["access_key"] and params["secret_key"]:
        return make()
    path, profile = params["credentials_file"], params["profile"]
    if path is None:
        return make(profile=profile)
    try:
        with open(path, "rb"):
            pass
    except OSError as error:
        raise Refusal(
            obj=f"credentials file {path}",
            problem=f"it cannot be read: {error.strerror}",
            next_step="Correct credentials_file or its permissions",
        ) from None
    # A profile that is named is the only source then: an absent one is an error, and the environment does not count.
    core = make(profile=profile or "default")
    core.set_config_variable("credentials_file", path)
    return core


def read_addressing_style(core: t.Any) -> str | None:
    """Return how the profile wants buckets to be addressed; None where it does not say."""
    own = core.get_scoped_config().get("s3")
    return own.get("addressing_style") if isinstance(own, dict) else None


def clean_secret(option: str, value: str) -> str:
    """Return ``value`` without white space around it; one that no header can carry is refused without being shown."""
    stripped = value.strip()
    if not stripped.isascii() or not stripped.isprintable():
        raise Refusal(
            obj=f"option {option}",
            problem="it has a control character or one outside ASCII in it",
            next_step=f"Correct {option}; it is most likely not the whole value, or two lines of a file",
        )
    return stripped


def choose_options(
    params: t.Mapping[str, t.Any],
    version: tuple[int, ...],
    environ: t.Mapping[str, str],
    *,
    profile_style: str | None = None,
) -> dict[str, t.Any]:
    """Return the arguments of botocore's Config: bounded retries, and for other servers than AWS the bucket in the path.

    An option, or the profile's ``addressing_style``, may want it elsewhere.

    No checksum of botocore's own is added: other servers refuse it in the form that it has. Instead Content-MD5 is
    sent, which all know and a bucket with Object Lock demands, and what was uploaded is read back as a whole.
    """
    options: dict[str, t.Any] = {
        "retries": {"mode": "standard", "total_max_attempts": 5},
        "connect_timeout": 10,
        "read_timeout": 120,
    }
    if version >= CHECKSUM_OPTIONS_SINCE:
        options["request_checksum_calculation"] = "when_required"
        options["response_checksum_validation"] = "when_required"
    is_elsewhere = params["endpoint_url"] or any(environ.get(name) for name in ENDPOINT_VARIABLES)
    style = params["addressing_style"] or ("path" if is_elsewhere and profile_style is None else None)
    if style is not None:
        options["s3"] = {"addressing_style": style}
    return options


def add_content_md5(params: dict[str, t.Any], **_event: t.Any) -> None:
    """Add Content-MD5 to a request of botocore that has a body."""
    body = params["body"]
    if isinstance(body, (bytes, bytearray)):
        digest = hashlib.md5(body, usedforsecurity=False)
    else:
        start = body.tell()
        digest = hashlib.md5(usedforsecurity=False)
        while chunk := body.read(1 << 20):
            digest.update(chunk)
        body.seek(start)
    params["headers"]["Content-MD5"] = base64.b64encode(digest.digest()).decode("ascii")
