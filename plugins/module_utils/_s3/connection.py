# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The S3 connection options and what they resolve to. Private to lowtide.ops: do not import from other collections.

Credentials are looked for in this order, the first that is complete counts: the options ``access_key`` and
``secret_key``; the named ``profile`` or ``credentials_file``; the environment (``AWS_ACCESS_KEY_ID``, ...); the
default shared credentials file. Whatever needs more than reading them (single sign-on, instance roles, assumed
roles, credential processes) is boto3's business, which is imported only then.
"""

from __future__ import annotations

import os
import typing as t
from dataclasses import dataclass
from urllib.parse import urlsplit

from .._common.dependencies import require
from .._common.errors import Refusal
from .errors import no_credentials
from .signing import Credentials

if t.TYPE_CHECKING:
    from ansible.module_utils.basic import AnsibleModule

# Mirrored by plugins/doc_fragments/_s3.py.
ARGUMENT_SPEC: dict[str, dict[str, t.Any]] = {
    "endpoint_url": {"type": "str"},
    "region": {"type": "str", "default": "us-east-1"},
    "access_key": {"type": "str", "no_log": False},
    "secret_key": {"type": "str", "no_log": True},
    "session_token": {"type": "str", "no_log": True},
    "credentials_file": {"type": "path"},
    "profile": {"type": "str"},
    "ca_bundle": {"type": "path"},
    "validate_certs": {"type": "bool", "default": True},
}
REQUIRED_TOGETHER = [("access_key", "secret_key")]
# A profile with one of these needs a conversation before it yields keys (AWS SDKs reference, "shared config").
_NEEDS_SDK = ("role_arn", "sso_session", "sso_start_url", "credential_process", "web_identity_token_file")


@dataclass(frozen=True)
class Connection:
    """Where an S3 server is and who asks. ``endpoint_url`` is None for AWS itself; ``sdk_profile`` is for boto3 alone."""

    endpoint_url: str | None
    region: str
    credentials: Credentials
    ca_bundle: str | None = None
    validate_certs: bool = True
    refreshable: bool = False
    profile: str | None = None

    @property
    def endpoint(self) -> str:
        """The endpoint's address, for messages."""
        return self.endpoint_url or f"https://s3.{self.region}.amazonaws.com"


def connection_from(module: AnsibleModule) -> Connection:
    """The connection that ``module``'s options (and this host's environment) mean; warns when TLS is not verified."""
    params = module.params
    endpoint = params["endpoint_url"]
    if endpoint is not None:
        parts = urlsplit(endpoint)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.path.strip("/") or parts.query:
            raise Refusal(
                obj="option endpoint_url",
                problem=f"{endpoint!r} is not an address of the shape https://host[:port]",
                next_step="Correct it; the bucket is an option of its own",
            )
    if not params["validate_certs"]:
        module.warn(f"The TLS certificate of {endpoint or 'S3'} is not verified: validate_certs is false.")
    credentials, refreshable = resolve_credentials(params, os.environ)
    return Connection(
        endpoint_url=endpoint,
        region=params["region"],
        credentials=credentials,
        ca_bundle=params["ca_bundle"],
        validate_certs=params["validate_certs"],
        refreshable=refreshable,
        profile=params["profile"],
    )


def resolve_credentials(params: t.Mapping[str, t.Any], environ: t.Mapping[str, str]) -> tuple[Credentials, bool]:
    """The credentials, and whether boto3 found them (it then renews them by itself during long uploads)."""
    if params["access_key"] and params["secret_key"]:
        return Credentials(params["access_key"], params["secret_key"], params["session_token"] or None), False
    named = bool(params["profile"] or params["credentials_file"])
    if not named and environ.get("AWS_ACCESS_KEY_ID") and environ.get("AWS_SECRET_ACCESS_KEY"):
        return Credentials(
            environ["AWS_ACCESS_KEY_ID"], environ["AWS_SECRET_ACCESS_KEY"], environ.get("AWS_SESSION_TOKEN") or None
        ), False
    profile = params["profile"] or environ.get("AWS_PROFILE") or "default"
    path = (
        params["credentials_file"]
        or environ.get("AWS_SHARED_CREDENTIALS_FILE")
        or os.path.expanduser("~/.aws/credentials")
    )
    found = _from_file(path, profile, must_exist=params["credentials_file"] is not None)
    if found is not None:
        return found, False
    if params["credentials_file"] is not None:
        raise no_credentials(why=f"{path} has no profile {profile!r} with aws_access_key_id and aws_secret_access_key")
    return _from_sdk(params["profile"]), True


def _from_file(path: str, profile: str, *, must_exist: bool) -> Credentials | None:
    import configparser

    if not os.path.exists(path) and not must_exist:
        return None
    parser = configparser.RawConfigParser()
    try:
        with open(path, encoding="utf-8") as stream:
            parser.read_file(stream)
    except (OSError, configparser.Error, UnicodeDecodeError) as error:
        # The parser's own text quotes the offending line, which may be a secret.
        reason = error.strerror if isinstance(error, OSError) else f"not a credentials file ({type(error).__name__})"
        raise Refusal(
            obj=f"credentials file {path}",
            problem=f"it cannot be read: {reason}",
            next_step="Correct credentials_file or its permissions",
        ) from None
    if not parser.has_section(profile) or any(parser.has_option(profile, option) for option in _NEEDS_SDK):
        return None
    section = dict(parser.items(profile))
    access, secret = section.get("aws_access_key_id"), section.get("aws_secret_access_key")
    return Credentials(access, secret, section.get("aws_session_token") or None) if access and secret else None


def _from_sdk(profile: str | None) -> Credentials:
    boto3 = require(
        "boto3",
        package="boto3",
        why="to obtain S3 credentials that are not in the options, the environment or a credentials file",
    )
    exceptions = require("botocore.exceptions", package="botocore", why="with boto3")
    try:
        found = boto3.Session(profile_name=profile).get_credentials()
        frozen = None if found is None else found.get_frozen_credentials()
    except exceptions.BotoCoreError as error:
        raise no_credentials(why=str(error)) from error
    if frozen is None:
        raise no_credentials(why="none were given and none were found")
    return Credentials(frozen.access_key, frozen.secret_key, frozen.token)


def write_client(connection: Connection) -> t.Any:
    """A boto3 client for the same server and credentials, with the SDK's own bounded retries.

    Checksums are computed only where the operation demands one: servers other than AWS refuse the trailing form,
    and what is uploaded here is read back and compared as a whole anyway.
    """
    why = "to write to S3"
    boto3 = require("boto3", package="boto3", why=why)
    config = require("botocore.config", package="botocore", why=why)
    options: dict[str, t.Any] = {
        "retries": {"mode": "standard", "total_max_attempts": 5},
        "connect_timeout": 10,
        "read_timeout": 120,
        "request_checksum_calculation": "when_required",
        "response_checksum_validation": "when_required",
    }
    if connection.endpoint_url is not None:
        options["s3"] = {"addressing_style": "path"}
    if connection.refreshable:
        session = boto3.Session(profile_name=connection.profile)
    else:
        keys = connection.credentials
        session = boto3.Session(
            aws_access_key_id=keys.access_key,
            aws_secret_access_key=keys.secret_key,
            aws_session_token=keys.session_token,
        )
    verify = (connection.ca_bundle or True) if connection.validate_certs else False
    return session.client(
        "s3",
        endpoint_url=connection.endpoint_url,
        region_name=connection.region,
        verify=verify,
        config=config.Config(**options),
    )
