# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A MariaDB database and a bucket for each test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from support.mysql_sites import MySqlSite, make_mysql_site


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
