# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The page of permissions: it leads to every file of rights, and has every role, with what files and READMEs name."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from support.checkout import below, load_yaml, role_names, text

PAGE = Path("docs/permissions.md")
CODE = re.compile(r"`([^`]+)`")
ROLE = re.compile(r"`(lowtide-[a-z-]+)`")
FILES = re.compile(r"rights\.(?:sql|yml)$|acls\.yml$|policy[a-z-]*\.json$|store\.sql$")
APART = {"awx", "window", "service", "pgbackrest_backup", "pgbackrest_restore_drill", "failover", "site_failover"}
"""Roles whose rights are no accounts of these systems: the first table leads to their READMEs."""
KUBERNETES = {item["metadata"]["name"] for item in load_yaml(Path("docs/kubernetes-rights.yml"))["items"]}
ACCOUNTS = {
    *re.findall(r"^--   (\w+)  ", text(Path("docs/postgresql-rights.sql")), re.MULTILINE),
    *re.findall(r"^--   (lowtide_\w+)  ", text(Path("docs/mysql-rights.sql")), re.MULTILINE),
}
ACLS = set(load_yaml(Path("docs/kafka-acls.yml")))


def read_table() -> list[list[str]]:
    """Return the cells of each row of the table of roles; the last rows are of no role."""
    lines = text(PAGE).partition("## What each role needs")[2].splitlines()
    _heading, _rule, *rows = (line for line in lines if line.startswith("|"))
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]


TABLE = read_table()
ROWS = {name: cells for first, *cells in TABLE if first.startswith("`") for name in CODE.findall(first)}


def test_leads_to_every_file_of_rights() -> None:
    """Those of docs; and each is there."""
    linked = set(re.findall(r"\]\(([a-z0-9-]+\.(?:yml|sql|json))\)", text(PAGE)))
    assert linked == {path.name for path in below("docs") if path.parent == Path("docs") and FILES.search(path.name)}


def test_has_every_role() -> None:
    """In a row, or by its README."""
    assert set(role_names()) - ROWS.keys() == APART
    assert {name for name in APART - {"window"} if f"roles/{name}/README.md" not in text(PAGE)} == set()


def test_names_what_the_files_have() -> None:
    """Roles and accounts of the file of each column; each Role and each account of Kafka is somebody's."""
    _names, *columns = zip(*TABLE, strict=True)
    kubernetes, databases, kafka, _s3 = ({name for cell in cells for name in CODE.findall(cell)} for cells in columns)
    assert kubernetes == KUBERNETES
    assert {name for name in databases if name != "window-store.sql"} <= ACCOUNTS
    assert kafka == ACLS


@pytest.mark.parametrize("role", sorted(set(role_names()) - APART))
def test_fits_the_readme_of_a_role(role: str) -> None:
    """The same Roles of Kubernetes, but that of cluster_uid, which all may have; accounts of Kafka where it has any."""
    readme = text(Path(f"roles/{role}/README.md"))
    kubernetes, _databases, kafka, _s3 = ROWS[role]
    assert set(ROLE.findall(readme)) & KUBERNETES - {"lowtide-identity"} == set(ROLE.findall(kubernetes))
    assert ("kafka-acls.yml" in readme) == bool(CODE.findall(kafka))
