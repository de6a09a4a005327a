# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The accounts of the feature service's procedures: what each may, and what it may not."""

from __future__ import annotations

import contextlib
from typing import Any

import psycopg2
import pytest
from psycopg2 import errors

pytestmark = pytest.mark.lab("feature_service", "postgresql")
Json = dict[str, Any]


def ask(lab: Json, account: str, statement: str, *, database: str = "") -> list[tuple[Any, ...]]:
    """The rows of a statement, by an account of the feature service, where writes are taken."""
    who = lab["feature_service"]["accounts"][account]
    facts = lab["postgresql"]
    connection = psycopg2.connect(
        host=",".join(facts["hosts"]),
        port=facts["port"],
        target_session_attrs="read-write",
        dbname=database or lab["feature_service"]["database"],
        **who,
    )
    connection.autocommit = True
    with contextlib.closing(connection), connection.cursor() as cursor:
        cursor.execute(statement)
        return list(cursor.fetchall()) if cursor.description else []


def test_maintenance_account(lab: Json) -> None:
    """It may vacuum what the service owns and look at its sessions; it is no superuser."""
    ask(lab, "maintenance", "VACUUM feature_executions")
    superuser = "SELECT rolsuper, pg_has_role('pg_read_all_stats', 'USAGE') FROM pg_roles WHERE rolname = current_user"
    assert ask(lab, "maintenance", superuser) == [(False, True)]


def test_backup_account(lab: Json) -> None:
    """It reads every row and writes none, and comes into no other database."""
    ((rows,),) = ask(lab, "backup", "SELECT count(*) FROM feature_executions")
    assert rows > 0
    with pytest.raises(errors.InsufficientPrivilege):
        ask(lab, "backup", "DELETE FROM feature_executions")
    with pytest.raises(psycopg2.OperationalError, match=r"pg_hba\.conf rejects connection"):
        ask(lab, "backup", "SELECT 1", database="postgres")
