# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How an S3 server is reached. Private to lowtide.ops: do not import from other collections.

Mirrors ``plugins/module_utils/_s3/connection.py``.
"""

from __future__ import annotations


class ModuleDocFragment:
    """The connection options of every module that speaks S3."""

    DOCUMENTATION = r"""
options:
  endpoint_url:
    description:
      - Address of the S3 server, for example V(https://s3.example.com:9000); the bucket is then part of the path.
      - Unset means AWS.
    type: str
  region:
    description: Region of the bucket; servers other than AWS mostly accept the default.
    type: str
    default: us-east-1
  access_key:
    description:
      - Access key; goes together with O(secret_key).
      - Without the two, O(profile) and O(credentials_file) are used, then C(AWS_ACCESS_KEY_ID) and its siblings of
        the environment, then the default shared credentials file, and last whatever boto3 finds.
    type: str
  secret_key:
    description: Secret key to O(access_key).
    type: str
  session_token:
    description: Session token to O(access_key), for temporary credentials.
    type: str
  credentials_file:
    description: A shared credentials file in the format of the AWS tools.
    type: path
  profile:
    description:
      - Profile in O(credentials_file) or the default shared credentials file; V(default) if unset.
      - A profile that needs a conversation (single sign-on, an assumed role, a credential process) is resolved by boto3.
    type: str
  ca_bundle:
    description: Certificate authority to verify the server's TLS certificate with, in PEM, instead of the system's.
    type: path
  validate_certs:
    description: Whether to verify the server's TLS certificate. V(false) is reported as a warning at each run.
    type: bool
    default: true
requirements:
  - boto3, only to write and for credentials that the options, the environment and the credentials file do not hold
"""
