# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Have versitygw's account that may not delete, a bucket for it, and one whose objects stay for a day.

    versitygw_setup.py ENDPOINT ROOT_CREDENTIALS APPENDER_CREDENTIALS APPENDED_BUCKET LOCKED_BUCKET

A program of its own, in the lab's Python environment: it signs requests by botocore. Run again, it changes nothing.
What the account may is what docs/s3-policy.json says, which tests give buckets of their own as well (``make_policy``).
versitygw has no policies of accounts, only those of buckets: so the account is added to it as the principal.
"""

from __future__ import annotations

import configparser
import json
import sys
from http import HTTPStatus
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import boto3
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.client import BaseClient
from botocore.credentials import Credentials
from botocore.httpsession import URLLib3Session

REGION = "us-east-1"
DOCS = Path(__file__).resolve().parents[3] / "docs"
APPENDING = "s3-policy.json"
PRUNING = "s3-policy-pruning.json"
DOCUMENTED_BUCKET = "feature-backups"
DOCUMENTED_PREFIX = "postgresql/"
EXISTS = frozenset({HTTPStatus.CREATED, HTTPStatus.OK, HTTPStatus.CONFLICT})


def make_policy(
    bucket: str, access_key: str, *names: str, prefix: str = "", documented: str = DOCUMENTED_BUCKET
) -> str:
    """Return the policy of a bucket that gives an account what these files of the documentation say.

    Without a name it is that of the account that only adds objects. Only the names differ: of the bucket, and of the
    folder in it that ``prefix`` names with its slash. ``documented`` is the bucket that the files name.
    """
    documents = []
    for name in names or (APPENDING,):
        text = (DOCS / name).read_text(encoding="utf-8")
        text = text.replace(f"{DOCUMENTED_BUCKET}/{DOCUMENTED_PREFIX}", f"{DOCUMENTED_BUCKET}/{prefix}")
        documents.append(json.loads(text.replace(documented, bucket)))
    principal = {"AWS": [access_key]}
    statements = [
        {**statement, "Principal": principal} for document in documents for statement in document["Statement"]
    ]
    return json.dumps({**documents[0], "Statement": statements})


def read_keys(path: str) -> Credentials:
    """Return the key pair of a shared credentials file's default profile."""
    parser = configparser.RawConfigParser()
    if not parser.read(path):
        raise SystemExit(f"credentials file {path}: it cannot be read")
    profile = parser["default"]
    return Credentials(profile["aws_access_key_id"], profile["aws_secret_access_key"])


def send_admin_request(endpoint: str, root: Credentials, call: str, body: str = "") -> int:
    """Send a request to versitygw's own interface for accounts; its status."""
    request = AWSRequest("PATCH", f"{endpoint}/{call}", data=body.encode())
    S3SigV4Auth(root, "s3", REGION).add_auth(request)
    answer: Any = URLLib3Session().send(request.prepare())
    status: int = answer.status_code
    return status


def create_account(endpoint: str, root: Credentials, account: Credentials, *, role: str = "user") -> None:
    """Have an account: a ``user`` has no right but what policies of buckets give it, an ``admin`` all of them."""
    fields = {"Access": account.access_key, "Secret": account.secret_key, "Role": role}
    body = "".join(f"<{name}>{escape(value)}</{name}>" for name, value in fields.items())
    status = send_admin_request(endpoint, root, "create-user", f"<Account>{body}</Account>")
    if status not in EXISTS:
        raise SystemExit(f"versitygw account {account.access_key}: create-user answered {status}")


def delete_account(endpoint: str, root: Credentials, access_key: str) -> None:
    """Delete an account: its keys are refused from now on."""
    status = send_admin_request(endpoint, root, f"delete-user?access={access_key}")
    if status != HTTPStatus.OK:
        raise SystemExit(f"versitygw account {access_key}: delete-user answered {status}")


def connect(endpoint: str, keys: Credentials) -> Any:
    """Return a client."""
    session = boto3.Session(keys.access_key, keys.secret_key)
    client: BaseClient = session.client("s3", endpoint_url=endpoint, region_name=REGION)
    return client


def create_bucket(client: Any, name: str, *, is_locked: bool = False) -> None:
    """Have a bucket; nobody can delete a version of an object in a locked one before it is a day old."""
    if name not in {bucket["Name"] for bucket in client.list_buckets()["Buckets"]}:
        client.create_bucket(Bucket=name, ObjectLockEnabledForBucket=is_locked)
    if is_locked:
        retention = {"Mode": "COMPLIANCE", "Days": 1}
        lock = {"ObjectLockEnabled": "Enabled", "Rule": {"DefaultRetention": retention}}
        client.put_object_lock_configuration(Bucket=name, ObjectLockConfiguration=lock)


def main(arguments: list[str]) -> None:
    """Entry point."""
    endpoint, root_file, appender_file, appended, locked = arguments
    root, appender = read_keys(root_file), read_keys(appender_file)
    create_account(endpoint, root, appender)
    client = connect(endpoint, root)
    create_bucket(client, appended)
    create_bucket(client, locked, is_locked=True)
    for bucket in (appended, locked):
        client.put_bucket_policy(Bucket=bucket, Policy=make_policy(bucket, appender.access_key))


if __name__ == "__main__":
    main(sys.argv[1:])
