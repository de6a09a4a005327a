# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The rights in PostgreSQL and S3 that the documentation gives: what the code asks for, and named where it is used."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from labkit.versitygw_setup import APPENDING, PRUNING, make_policy

from ansible_collections.lowtide.ops.plugins.module_utils._s3.errors import ACTIONS
from support.checkout import text

RIGHTS = Path("docs/postgresql-rights.sql")
EXPIRY = "s3-policy-expiry.json"


def read_actions(name: str) -> set[str]:
    """Return the actions of a policy of the documentation."""
    policy = json.loads(text(Path("docs") / name))
    return {action for statement in policy["Statement"] for action in statement["Action"]}


def test_policies_allow_what_the_code_asks_for() -> None:
    """Nothing else; and only one of them to delete."""
    assert read_actions(PRUNING) == {"s3:DeleteObject"}
    of_versions = {"s3:GetObjectVersion", "s3:GetObjectVersionTagging", "s3:DeleteObjectVersion"}
    assert of_versions <= read_actions(EXPIRY)
    allowed = read_actions(APPENDING) | read_actions(PRUNING) | (read_actions(EXPIRY) - of_versions)
    assert allowed == set(ACTIONS.values())
    assert "s3:PutObject" not in read_actions(EXPIRY)
    assert "s3:DeleteObject" not in read_actions(APPENDING)


def test_policies_name_the_bucket_of_the_readme() -> None:
    """What is printed fits together, and a test's bucket takes its place everywhere."""
    readme = text(Path("roles/backup/README.md"))
    assert "backup_bucket: feature-backups\n        backup_prefix: postgresql\n" in readme
    policy = make_policy("other", "key", APPENDING, PRUNING, prefix="team/")
    assert "feature-backups" not in policy
    assert "arn:aws:s3:::other/team/*" in policy


def test_how_to_run_names_every_account() -> None:
    """Each variable of the file is in the command and explained; and no other."""
    head, _set, statements = text(RIGHTS).partition("\\set ON_ERROR_STOP")
    used = set(re.findall(r":['\"{]\??(\w+)", statements)) - {"DBNAME"}
    assert set(re.findall(r"-v (\w+)=", head)) == used
    assert set(re.findall(r"^--   (\w+)  ", head, re.MULTILINE)) == used


@pytest.mark.parametrize(
    ("page", "name"),
    [
        ("README.md", RIGHTS.name),
        ("README.md", APPENDING),
        ("docs/site-variables.md", RIGHTS.name),
        ("docs/site-variables.md", APPENDING),
        ("roles/backup/README.md", RIGHTS.name),
        ("roles/backup/README.md", APPENDING),
        ("roles/backup/README.md", PRUNING),
        ("roles/cleanup/README.md", EXPIRY),
        ("roles/corruption_triage/README.md", RIGHTS.name),
        ("roles/corruption_triage/README.md", APPENDING),
        ("roles/database_maintenance/README.md", RIGHTS.name),
        ("roles/event_reconciliation/README.md", RIGHTS.name),
        ("roles/health/README.md", RIGHTS.name),
        ("roles/health/README.md", APPENDING),
    ],
)
def test_pages_lead_to_the_rights(page: str, name: str) -> None:
    """And to no superuser."""
    assert name in text(Path(page))
    assert "login_user: postgres" not in text(Path(page))
