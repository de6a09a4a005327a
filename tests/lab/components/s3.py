# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""moto's S3 server on 10.77.0.1:5000: quick, complete, and it believes every signature and checksum."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from labkit import probe
from labkit.component import Component
from labkit.credentials import aws_credentials
from labkit.network import CONTROL

if TYPE_CHECKING:
    from labkit.lab import Lab

PORT = 5000
BUCKET = "lowtide-backups"
ADDRESS = f"{CONTROL}:{PORT}"


class S3(Component):
    """An object store in memory: what it holds ends with its process."""

    name = "s3"

    def install(self, lab: Lab) -> None:
        """moto is part of the lab's Python environment, which is there before any component."""

    def start(self, lab: Lab) -> None:
        """Run the server."""
        aws_credentials(lab.state(self.name))
        lab.spawn(self.name, "moto", [lab.cache / "venv/bin/moto_server", "--host", CONTROL, "--port", str(PORT)])

    def ready(self, lab: Lab) -> None:
        """It answers requests and has a bucket (creating one that exists changes nothing in us-east-1)."""

        def has_bucket() -> bool:
            return probe.request(ADDRESS, f"/{BUCKET}", method="PUT").status == HTTPStatus.OK

        lab.wait_for(f"moto at {ADDRESS}", has_bucket, 300, *lab.processes(self.name))

    def facts(self, lab: Lab) -> dict[str, Any]:
        """Endpoint and credentials, in the form that every S3 component has."""
        return {
            "endpoint_url": f"http://{ADDRESS}",
            "credentials_file": str(aws_credentials(lab.state(self.name)).file),
            "profile": "default",
            "region": "us-east-1",
            "bucket": BUCKET,
        }
