# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""pg_credential on real servers: two roles that take turns, one role, refusals, and what is left of a killed run."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from labkit.postgresql_programs import VERSIONS

from support.credential_site import CredentialSite, make_site
from support.kubernetes_server import ApiServer
from support.postgresql_servers import Server, find_server

pytestmark = pytest.mark.lab("kubernetes", "postgresql_versions")


@pytest.fixture(params=VERSIONS)
def postgresql(request: pytest.FixtureRequest, lab: dict[str, Any]) -> Server:
    """The lab's server of a version, by turns."""
    return find_server(lab, request.param)


@pytest.fixture
def site_of_roles(
    postgresql: Server, namespace: Any, server: ApiServer, unique_name: Callable[..., str], tmp_path: Path
) -> Iterator[CredentialSite]:
    """An application whose Secret has the credential of the first of two roles."""
    with make_site(namespace, postgresql, server, unique_name, tmp_path) as site:
        yield site


@pytest.mark.procedure("C27", "A10")
def test_the_idle_role_takes_over_and_the_other_is_ended(site_of_roles: CredentialSite) -> None:
    site = site_of_roles
    old = site.values()

    predicted = site.run(check=True)
    assert predicted.rc == 0, predicted.msg
    assert predicted.changed, predicted.result
    assert predicted["rotating"]
    assert site.values() == old
    assert site.note() is None

    rotated = site.run()
    assert rotated.rc == 0, rotated.result
    new = site.values()
    assert (new["username"], new["other"], new["lowtide.previous-username"]) == (site.b, "kept", site.a)
    assert rotated["plan"] == predicted["plan"]
    assert site.works()
    assert site.may_login(site.a, old["password"])
    again = site.run()
    assert not again.changed, again.result
    assert again["rotating"]

    finished = site.run(state="finished")
    assert finished.changed, finished.result
    assert sorted(site.values()) == ["other", "password", "username"]
    assert site.works()
    assert not site.may_login(site.a, old["password"])
    assert "refuses the old password" in finished["evidence"][-1]

    for state in ("rotated", "finished"):
        again = site.run(state=state)
        assert again.rc == 0, again.result
        assert not again.changed, again.result
    texts = json.dumps([predicted.result, rotated.result, finished.result, site.note()])
    assert new["password"] not in texts
    assert old["password"] not in texts
