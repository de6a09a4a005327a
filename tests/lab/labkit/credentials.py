# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Credentials that the lab makes for its S3 servers."""

from __future__ import annotations

import configparser
import secrets
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class AwsCredentials:
    """A key pair and the AWS shared credentials file (profile ``default``) that holds it."""

    file: Path
    access_key: str
    secret_key: str


def aws_credentials(state: Path, name: str = "credentials") -> AwsCredentials:
    """The key pair of the server whose state directory is ``state``, made once, readable by its owner only.

    Another account of the same server has a file of another ``name``.
    """
    path = state / name
    if not path.exists():
        partial = state / f"{name}.partial"
        partial.touch(mode=0o600)
        partial.write_text(
            f"[default]\naws_access_key_id = LAB{secrets.token_hex(8).upper()}\n"
            f"aws_secret_access_key = {secrets.token_hex(20)}\n"
        )
        partial.rename(path)
    parser = configparser.ConfigParser()
    parser.read(path)
    profile = parser["default"]
    return AwsCredentials(
        file=path, access_key=profile["aws_access_key_id"], secret_key=profile["aws_secret_access_key"]
    )
