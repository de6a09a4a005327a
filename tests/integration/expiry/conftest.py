# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A bucket of its own for each test of expiry, on one S3 server or the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from support.expiry import Artifacts, make_artifacts


@pytest.fixture(params=["s3", "versitygw"])
def artifacts(
    request: pytest.FixtureRequest, lab: dict[str, Any], unique_name: Callable[..., str]
) -> Iterator[Artifacts]:
    """An empty bucket on moto and on versitygw in turn."""
    with make_artifacts(lab, request.param, unique_name) as made:
        yield made


@pytest.fixture
def real_artifacts(lab: dict[str, Any], unique_name: Callable[..., str]) -> Iterator[Artifacts]:
    """An empty bucket on versitygw, which checks signatures and takes any key."""
    with make_artifacts(lab, "versitygw", unique_name) as made:
        yield made


@pytest.fixture
def moto_artifacts(lab: dict[str, Any], unique_name: Callable[..., str]) -> Iterator[Artifacts]:
    """An empty bucket on moto."""
    with make_artifacts(lab, "s3", unique_name) as made:
        yield made


@pytest.fixture(params=["s3", "versitygw"])
def locked(request: pytest.FixtureRequest, lab: dict[str, Any], unique_name: Callable[..., str]) -> Iterator[Artifacts]:
    """An empty bucket with Object Lock."""
    with make_artifacts(lab, request.param, unique_name, is_locked=True) as made:
        yield made
