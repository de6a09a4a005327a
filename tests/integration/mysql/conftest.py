# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A MariaDB database and a bucket for each test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from support.modules import run_module
from support.mysql_sites import MySqlSite, make_mysql_site, quoted


@pytest.fixture
def site(lab: dict[str, Any], unique_name: Callable[..., str]) -> Iterator[MySqlSite]:
    """On versitygw, which checks signatures and conditions, and does not encrypt."""
    with make_mysql_site(lab, "versitygw", unique_name) as made:
        yield made


@pytest.fixture
def moto_site(lab: dict[str, Any], unique_name: Callable[..., str]) -> Iterator[MySqlSite]:
    """On moto, which has server-side encryption."""
    with make_mysql_site(lab, "s3", unique_name) as made:
        yield made


@pytest.fixture
def backup(site: MySqlSite) -> str:
    """A backup of the seeded database; then something is lost in it."""
    name = quoted(site.database)
    site.sql(f"CREATE TRIGGER {name}.named BEFORE UPDATE ON {name}.log FOR EACH ROW SET new.said = upper(new.said)")
    site.sql(
        f"ALTER DATABASE {name} CHARACTER SET latin1 COLLATE latin1_swedish_ci"
    )  # as one that has been moved since
    made = run_module("mysql_backup", site.params())
    assert made.changed, made.msg
    site.sql("DELETE FROM child WHERE id > 40")
    site.sql("DROP VIEW early")
    return str(made["backup"]["run_id"])
