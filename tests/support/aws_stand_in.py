#!/usr/bin/env python3
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Stands in for ``aws s3 cp --recursive s3://BUCKET/FOLDER/ DIRECTORY``, which the lab does not have."""

from __future__ import annotations

import sys
from pathlib import Path
from urllib.parse import urlsplit

import boto3


def main(arguments: list[str]) -> None:
    """Fetch every object of the folder."""
    if arguments[:3] != ["s3", "cp", "--recursive"] or len(arguments) != 5:
        raise SystemExit(f"aws {' '.join(arguments)}: this program copies a folder of a bucket only")
    source, directory = urlsplit(arguments[3]), Path(arguments[4])
    client, folder = boto3.client("s3"), source.path.lstrip("/")
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=source.netloc, Prefix=folder)
    for key in [entry["Key"] for page in pages for entry in page.get("Contents", [])]:
        path = directory / key.removeprefix(folder)
        path.parent.mkdir(parents=True, exist_ok=True)
        client.download_file(source.netloc, key, str(path))


if __name__ == "__main__":
    main(sys.argv[1:])
