# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The rights that docs/postgresql-rights.sql gives the account for restores: each is needed, and missed by its statement."""

from __future__ import annotations

from pathlib import Path

import pytest
from labkit.postgresql_accounts import RIGHTS

from support.postgresql_rights import find_grants, grant_all_but
from support.restores import OWN_PUBLIC, PASSWORD, Shop, let_in

OWN_SET = 16
"""From this version on a grant says itself whether its rights are inherited, and handed on by SET ROLE."""
pytestmark = pytest.mark.lab("postgresql_versions", "versitygw")


@pytest.mark.procedure("A24", "C21")
def test_each_grant_is_needed_and_named(shop: Shop, tmp_path: Path) -> None:
    """Before anything is written, in check mode too."""
    if shop.server.version < OWN_PUBLIC:
        return  # a superuser restores
    grants = [
        grant
        for grant in find_grants(RIGHTS.read_text(encoding="utf-8"))
        if "'restore'" in grant or '"restore"' in grant
    ]
    shop.site.sql("ALTER TABLE shop.lines ENABLE ROW LEVEL SECURITY; ALTER TABLE shop.lines FORCE ROW LEVEL SECURITY")
    shop = shop.replace_run(shop.back_up())
    expected = {
        "CREATEDB": f"ALTER ROLE {shop.account} CREATEDB",
        "GRANT": f"GRANT {shop.owner} TO {shop.account}"
        + (" WITH INHERIT TRUE, SET TRUE" if shop.server.version >= OWN_SET else ""),
        "BYPASSRLS": f"ALTER ROLE {shop.account} BYPASSRLS",
    }
    assert len(grants) == len(expected)
    for grant, statement in zip(grants, expected.values(), strict=True):
        let_in(shop.site, f"REVOKE CONNECT ON DATABASE lowtide FROM {shop.account}")
        shop.site.sql(f"DROP ROLE {shop.account}")
        grant_all_but(shop.server.superuser, shop.name, tmp_path, grant, owner=shop.owner, restore=shop.account)
        shop.site.sql(f"ALTER ROLE {shop.account} PASSWORD '{PASSWORD}'")
        let_in(shop.site, f"GRANT CONNECT ON DATABASE lowtide TO {shop.account}")
        for check in (True, False):
            run = shop.restore(check=check)
            assert run["error"]["refused"] is True
            assert statement in run.msg
            assert statement in [blocker["next_step"] for blocker in run["blockers"]]
            assert shop.databases() == [shop.name]
        shop.site.sql(statement)
        assert not shop.restore(check=True).failed
