# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Accounts of the lab's PostgreSQL servers, each with exactly the rights that the documentation asks for."""

from __future__ import annotations

import json
import secrets
from pathlib import Path

from labkit.private import write_private

RIGHTS = Path(__file__).resolve().parents[3] / "docs/postgresql-rights.sql"
"""What users run; the accounts have no rights but those of this file."""
SUPERUSER = "postgres"
OWNER = "lowtide_owner"
"""Owns the database and its tables; sees nothing of other users' sessions."""
MAINTENANCE = "lowtide_maintenance"
"""For pg_maintenance."""
BACKUP = "lowtide_backup"
"""For pg_backup: reads all, and comes into no other database than its own."""
LIMITED = "lowtide_limited"
"""A test makes a member of it, with the name of its database: that account comes into no other database."""
ACCOUNTS = {"owner": OWNER, "maintenance": MAINTENANCE, "backup": BACKUP}
DATABASE = "lowtide"
FEATURE_DATABASE = "feature_db"
LIMITED_ACCOUNTS = {DATABASE: BACKUP, FEATURE_DATABASE: "feature_backup"}
"""Accounts that come into this database only: the feature service's is on the servers under Patroni."""
HAS_PG_MAINTAIN = 17
"""From this version on the maintenance account may read no row."""


def make_passwords(place: Path) -> dict[str, str]:
    """Return the password of each account, made once; each is also in a libpq passfile of its own in ``place``."""
    path = place / "passwords.json"
    if not path.exists():
        write_private(path, json.dumps({name: secrets.token_hex(16) for name in (SUPERUSER, *ACCOUNTS.values())}))
    passwords: dict[str, str] = json.loads(path.read_text())
    for name, password in passwords.items():
        write_private(find_passfile(place, name), f"*:*:*:{name}:{password}\n")
    return passwords


def find_passfile(place: Path, account: str) -> Path:
    """Return the path of an account's passfile."""
    return place / f"{account}.passfile"


def make_access_rules(networks: tuple[str, ...]) -> list[str]:
    """Return the lines of ``pg_hba.conf`` for clients from the networks."""
    lines = []
    for network in networks:
        lines += [f"host {name} {account} {network} scram-sha-256" for name, account in LIMITED_ACCOUNTS.items()]
        lines.append(f"host sameuser +{LIMITED} {network} scram-sha-256")
    lines.append(f"host all {','.join(LIMITED_ACCOUNTS.values())},+{LIMITED} all reject")
    lines += [f"host all all {network} scram-sha-256" for network in networks]
    return lines


def make_grant_arguments(**names: str) -> list[str | Path]:
    """Return the arguments by which psql grants the accounts of these purposes what the documentation says."""
    variables = [part for purpose, name in names.items() for part in ("-v", f"{purpose}={name}")]
    return ["-X", "-q", "-f", RIGHTS, *variables]


def make_statements(passwords: dict[str, str]) -> str:
    """Return what psql executes as superuser to have accounts and database; run again, it changes nothing else."""
    names = (*ACCOUNTS.values(), LIMITED)
    return "\n".join(
        [
            *(
                f"SELECT 'CREATE ROLE {name}' WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{name}') \\gexec"
                for name in names
            ),
            *(f"ALTER ROLE {name} LOGIN PASSWORD '{passwords[name]}';" for name in ACCOUNTS.values()),
            f"SELECT 'CREATE DATABASE {DATABASE} OWNER {OWNER}'"
            f" WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = '{DATABASE}') \\gexec",
            f"REVOKE ALL ON DATABASE {DATABASE}, postgres, template1 FROM PUBLIC;",
            f"\\connect {DATABASE}",
            "SET client_min_messages = warning;",
            "CREATE EXTENSION IF NOT EXISTS pgstattuple;",
            "CREATE EXTENSION IF NOT EXISTS amcheck;",
        ]
    )
