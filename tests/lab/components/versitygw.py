# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""versitygw on 10.77.0.1:7070: an S3 server that checks signatures, checksums and conditions, over a directory."""

from __future__ import annotations

import shutil
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any

from labkit import probe
from labkit.component import Component
from labkit.credentials import aws_credentials
from labkit.network import CONTROL
from labkit.packages import go_binary, go_environment

if TYPE_CHECKING:
    from labkit.lab import Lab

VERSION = "1.7.0"
ADDRESS = f"{CONTROL}:7070"
APPENDER = "append-only-credentials"
APPENDED = "lowtide-append-only"
LOCKED = "lowtide-locked"
"""A bucket with Object Lock: what is in it stays for a day, whoever asks."""
SETUP = Path(__file__).resolve().parents[1] / "labkit" / "versitygw_setup.py"


class Versitygw(Component):
    """No lifecycle rules and no bucket encryption (use ``s3`` for these); everything about integrity is real."""

    name = "versitygw"

    def install(self, lab: Lab) -> None:
        """Built from its Go module."""
        target = self._folder(lab)
        if target.is_dir():
            return
        partial = target.with_name(f".{target.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        lab.build(
            f"versitygw: go install {VERSION}",
            [
                go_binary(lab),
                "install",
                "-p",
                "2",
                "-trimpath",
                f"github.com/versity/versitygw/cmd/versitygw@v{VERSION}",
            ],
            env={**go_environment(lab), "GOBIN": str(partial)},
        )
        partial.rename(target)

    @staticmethod
    def _folder(lab: Lab) -> Path:
        return lab.cache / f"versitygw-{VERSION}"

    def start(self, lab: Lab) -> None:
        """Run it over a directory, with accounts of its own and versioning."""
        state = lab.state(self.name)
        for folder in ("data", "versions", "accounts"):
            (state / folder).mkdir(exist_ok=True)
        keys = aws_credentials(state)
        command: list[str | Path] = [
            self._folder(lab) / "versitygw",
            "--port",
            ADDRESS,
            "--iam-dir",
            state / "accounts",
        ]
        command += ["--quiet", "posix", "--versioning-dir", state / "versions", state / "data"]
        lab.spawn(
            self.name,
            "versitygw",
            command,
            env={"ROOT_ACCESS_KEY": keys.access_key, "ROOT_SECRET_KEY": keys.secret_key},
        )

    def ready(self, lab: Lab) -> None:
        """It refuses a request without a signature; the account that may not delete, and the buckets, are there."""

        def refuses() -> bool:
            return probe.request(ADDRESS, "/").status == HTTPStatus.FORBIDDEN

        lab.wait_for(f"versitygw at {ADDRESS}", refuses, 300, *lab.processes(self.name))
        state = lab.state(self.name)
        files = [aws_credentials(state).file, aws_credentials(state, APPENDER).file]
        python = lab.cache / "venv/bin/python"
        lab.run([python, SETUP, f"http://{ADDRESS}", *map(str, files), APPENDED, LOCKED])

    def facts(self, lab: Lab) -> dict[str, Any]:
        """Endpoint and credentials, in the form that every S3 component has, and the account that may not delete."""
        state = lab.state(self.name)
        appender = aws_credentials(state, APPENDER)
        return {
            "endpoint_url": f"http://{ADDRESS}",
            "credentials_file": str(aws_credentials(state).file),
            "profile": "default",
            "region": "us-east-1",
            "append_only": {
                "credentials_file": str(appender.file),
                "profile": "default",
                "access_key": appender.access_key,
                "bucket": APPENDED,
            },
            "locked_bucket": LOCKED,
        }
