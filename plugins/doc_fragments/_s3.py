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
      - Address of the S3 server, for example V(https://s3.example.com:9000); see O(addressing_style).
      - Unset means C(AWS_ENDPOINT_URL_S3), C(AWS_ENDPOINT_URL) or the profile's C(endpoint_url), and else AWS, in whichever
        partition O(region) is.
      - C(HTTPS_PROXY), C(HTTP_PROXY) and C(NO_PROXY) are honoured.
    type: str
  region:
    description:
      - Region of the bucket; servers other than AWS mostly accept any.
      - Unset means C(AWS_DEFAULT_REGION), then the profile's, then V(us-east-1).
    type: str
  addressing_style:
    description:
      - Whether the bucket is part of the path (V(path)) or of the host name (V(virtual)), or boto3 decides (V(auto)).
      - Unset means the profile's C(addressing_style), then V(path) for a server that is named by an address, and else
        what boto3 decides. Some servers, such as Alibaba Cloud OSS, take V(virtual) only.
    type: str
    choices: [auto, path, virtual]
  access_key:
    description:
      - Access key; goes together with O(secret_key).
      - Without the two, O(profile) and O(credentials_file) are used, then whatever boto3 finds on this host, in its order.
        Credentials that expire are renewed by boto3 also in the middle of a long run.
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
    description: >-
      Profile in O(credentials_file) or in the files of the AWS tools, of any kind that boto3 knows (keys, C(role_arn), single
      sign-on, C(credential_process)).
    type: str
  ca_bundle:
    description: Certificate authority to verify the server's TLS certificate with, in PEM, instead of the system's.
    type: path
  validate_certs:
    description: Whether to verify the server's TLS certificate. V(false) is reported as a warning at each run.
    type: bool
    default: true
requirements:
  - boto3 >= 1.36 (botocore >= 1.36). Debian 12's python3-boto3 (1.26) is enough for all but the conditional deletion
    of M(lowtide.ops.s3_expiry)
"""
