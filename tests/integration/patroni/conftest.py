# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Patroni clusters of the tests' own, over TLS and with passwords."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.patroni_sites import TAGS, Cluster, Region, make_region


@pytest.fixture(scope="session")
def region() -> Iterator[Region]:
    """A DCS, certificates and passwords."""
    with make_region() as made:
        yield made


@pytest.fixture(scope="session")
def shared_east(region: Region) -> Cluster:
    """Three members, of which the third must not lead."""
    return region.make("east", list(TAGS), tags=TAGS)


@pytest.fixture
def east(shared_east: Cluster) -> Iterator[Cluster]:
    """The cluster, whole before the test and after it."""
    shared_east.wait_whole()
    yield shared_east
    shared_east.wait_whole()
