# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""docs/window-store.sql, executed as it is: an account with its grants has whole windows, and needs each of them."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from labkit.ansible_versions import VERSIONS as ANSIBLE_VERSIONS

from ansible_collections.lowtide.ops.plugins.plugin_utils._window.store import StoreUnreachable
from ansible_collections.lowtide.ops.plugins.plugin_utils._window.store_postgresql import PostgresqlStore
from support.checkout import text
from support.fast_window import END, FastWindow
from support.store_contract import make_opened, make_planned
from support.window_stores import NAME, append, me, take

from .conftest import SITE, PostgresqlPlace

pytestmark = pytest.mark.lab("postgresql_versions")
SCRIPT = Path("docs/window-store.sql")
PASSWORD = "canary-5b0c7f12"  # noqa: S105 - of a role that lives for one test
GRANT = re.compile(r"^GRANT ([A-Z, ]+) ON (.+) TO lowtide_operator;$", re.MULTILINE)


def list_grants(script: str) -> list[tuple[str, str]]:
    """Return each right by itself, and what it is on."""
    return [
        (right, on)
        for rights, names in GRANT.findall(script)
        for on in names.split(", ")
        for right in rights.split(", ")
    ]


@pytest.fixture
def place(postgresql_place: PostgresqlPlace) -> PostgresqlPlace:
    """A database with the tables, which another owns, and an account that has nothing but the documented grants."""
    database = postgresql_place.database
    script = text(SCRIPT)
    database.administer(
        f"CREATE ROLE \"{database.name}\" LOGIN PASSWORD '{PASSWORD}'",
        f'GRANT CONNECT ON DATABASE "{database.name}" TO "{database.name}"',
        script.replace("lowtide_operator", f'"{database.name}"'),
    )
    own = {"login_user": database.name, "login_password": PASSWORD, "passfile": None}
    return replace(postgresql_place, changes=own)


def have_windows(place: PostgresqlPlace) -> None:
    """Do to a store what windows do: open, plan, renew, report twice, close; open again, and remove the first one."""
    store: PostgresqlStore = place.connect()
    append(store, make_opened())
    append(store, make_planned("db1"))
    held = store.read_lease()
    assert held is not None
    store.renew(held.token)
    with store.lock():
        for contents in ("{}", "[]"):
            store.write_report(NAME, held.token, {".json": contents})
        store.release(held.token)
    take(store, me(), "weekly@tuesday")
    assert len(store.load(NAME)) == 2
    with store.lock():
        store.remove([NAME])
    assert NAME not in store.list_occurrences()


def is_able(place: PostgresqlPlace) -> bool:
    """Return whether the account may do all of that."""
    try:
        have_windows(place)
    except StoreUnreachable as error:
        if "permission denied" not in str(error):
            raise
        return False
    return True


def test_the_documented_grants_are_enough(place: PostgresqlPlace, tmp_path: Path) -> None:
    """For a real window with its report, and for what a later one does with it."""
    variables = {"window_store": {"postgresql": place.connection}, "window_site": SITE}
    window = FastWindow(tmp_path / "fast", ANSIBLE_VERSIONS[0], shared=place.connect(), variables=variables)
    run = window.play()
    assert run.rc == 0, run.out
    assert window.world() == END
    assert place.database.administer("SELECT count(*) > 0 FROM lowtide_window.report") == [(True,)]
    assert is_able(place)


def test_each_grant_is_needed(place: PostgresqlPlace) -> None:
    """Without any of them some of it is refused, and with it again all is done."""
    user, needless = f'"{place.database.name}"', []
    grants = list_grants(text(SCRIPT))
    assert len(grants) == 11
    for right, on in grants:
        place.database.administer(f"REVOKE {right} ON {on} FROM {user}", "DELETE FROM lowtide_window.lease")
        if is_able(place):
            needless.append((right, on))
        place.database.administer(
            f"GRANT {right} ON {on} TO {user}", "DELETE FROM lowtide_window.lease", "DELETE FROM lowtide_window.event"
        )
    assert needless == []
    assert is_able(place)
