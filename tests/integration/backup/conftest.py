# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A database of its own and a bucket of its own for each test of backups."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from support.backups import Site, make_site


@pytest.fixture(params=["s3", "versitygw"])
def site(request: pytest.FixtureRequest, lab: dict[str, Any], unique_name: Callable[..., str]) -> Iterator[Site]:
    """A seeded database and an empty bucket, on moto and on versitygw in turn."""
    with make_site(lab, request.param, unique_name) as made:
        yield made


@pytest.fixture
def real_site(lab: dict[str, Any], unique_name: Callable[..., str]) -> Iterator[Site]:
    """The same on versitygw only, which checks signatures and conditions."""
    with make_site(lab, "versitygw", unique_name) as made:
        yield made


@pytest.fixture
def moto_site(lab: dict[str, Any], unique_name: Callable[..., str]) -> Iterator[Site]:
    """The same on moto only, which has server-side encryption."""
    with make_site(lab, "s3", unique_name) as made:
        yield made
