# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""pg_restore SIGKILLed before a statement of its own or of its programs; then run again.

By default at two of them, in the middle of the rows and between the two renames; LOWTIDE_EXHAUSTIVE=1 takes all.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable
from typing import Any

import pytest

from support.backups import quoted
from support.modules import run_module, start_module
from support.postgresql_proxy import Statement, StatementProxy
from support.restores import Shop, check_whole, put_back
from support.turns import is_sweep

pytestmark = pytest.mark.lab("postgresql_versions", "versitygw")

SHARES = 24
"""Of how many tests the sweep is made, each of which takes every so manieth statement."""
ROUNDS: list[Any] = list(range(SHARES)) if is_sweep() else ["COPY shop.lines", "RENAME TO LIVE"]


def wanted(shop: Shop, state: str, proxy: StatementProxy | None = None) -> dict[str, Any]:
    """Options of a run that makes the copy (beside) or brings it under the live name, through a proxy if there is one."""
    way = {} if proxy is None else {"login_host": proxy.host, "login_port": proxy.port}
    return shop.params(state=state, backup=shop.run_id, ssl_mode="disable", **way)


def kill_before(shop: Shop, is_due: Callable[[Statement], bool], options: dict[str, Any]) -> bool:
    """Run the module and SIGKILL it as a statement is about to reach the server, which then never has it; was it killed?"""
    started: list[subprocess.Popen[str]] = []

    def before(statement: Statement) -> bool:
        if not is_due(statement):
            return True
        os.kill(started[0].pid, signal.SIGKILL)
        return False

    with StatementProxy(shop.server.host, shop.server.port, before) as proxy:
        way = {"login_host": proxy.host, "login_port": proxy.port}
        process = start_module("pg_restore", {**options, **way})
        started.append(process)
        process.communicate(timeout=120)
    shop.wait_left()
    return process.returncode == -signal.SIGKILL


@pytest.mark.procedure("A24", "C21")
@pytest.mark.parametrize("share", ROUNDS)
def test_killed_anywhere_the_live_name_is_whole_and_the_rerun_ends_right(shop: Shop, share: int | str) -> None:
    """The original or the restored one; the next run completes, and the one after it has nothing to do."""
    original = shop.oid(shop.name)
    points: list[tuple[str, Callable[[Statement], bool]]]
    if isinstance(share, str):
        text = share.replace("LIVE", quoted(shop.name))
        points = [("beside" if "COPY" in share else "live", lambda statement: text in statement.text)]
    else:
        points = []
        for state in ("beside", "live"):
            with StatementProxy(shop.server.host, shop.server.port, lambda _statement: True) as proxy:
                assert run_module("pg_restore", wanted(shop, state, proxy)).changed
                numbers = [number for number in range(1, len(proxy.statements) + 1) if number % SHARES == share]
            points += [(state, lambda statement, number=number: statement.number == number) for number in numbers]  # type: ignore[misc]
        put_back(shop)
    for number, (state, is_due) in enumerate(points):
        if state == "live":
            assert run_module("pg_restore", wanted(shop, "beside")).changed
        killed = kill_before(shop, is_due, wanted(shop, state))
        assert killed or not isinstance(share, str), "the statement never came"
        is_restored = check_whole(shop, original)
        if state == "beside":
            assert not is_restored
            copied = run_module("pg_restore", wanted(shop, "beside"))
            assert not copied.failed, (number, copied.msg)
        again = run_module("pg_restore", wanted(shop, "live"))
        assert not again.failed, (number, again.msg)
        assert again.changed is not is_restored, number
        assert check_whole(shop, original), number
        assert shop.databases() == sorted([shop.name, shop.kept]), number
        put_back(shop)
    assert shop.oid(shop.name) == original


def drop_reader(shop: Shop) -> None:
    """Have the reader gone, as on a server that has lost it, and no copy."""
    shop.drop()
    if shop.site.sql(f"SELECT 1 FROM pg_roles WHERE rolname = '{shop.reader}'"):
        shop.site.sql(f"DROP OWNED BY {shop.reader}")
        shop.site.sql(f"DROP ROLE {shop.reader}")


def read_reader(shop: Shop) -> list[tuple[Any, ...]]:
    """What the reader is: its limit, its end, its settings, and of what it is a member."""
    rows: list[tuple[Any, ...]] = shop.site.sql(
        "SELECT rolconnlimit, rolvaliduntil::text, rolinherit, (SELECT setconfig FROM pg_db_role_setting"
        " WHERE setrole = r.oid AND setdatabase = 0), ARRAY(SELECT roleid::regrole::text FROM pg_auth_members"
        f" WHERE member = r.oid) FROM pg_roles r WHERE rolname = '{shop.reader}'"
    )
    return rows


@pytest.mark.procedure("A24", "C21")
def test_killed_while_roles_are_made_none_is_half_made(shop: Shop) -> None:
    """Before each statement of it: the reader is not there or whole, and the next run completes it and the copy."""
    site, reader = shop.site, shop.reader
    site.sql(f"ALTER ROLE {reader} CONNECTION LIMIT 7 VALID UNTIL '2040-01-01 00:00:00+00' NOINHERIT")
    site.sql(f"ALTER ROLE {reader} SET work_mem = '6MB'; GRANT pg_monitor TO {reader}")
    whole = read_reader(shop)
    run_id = shop.back_up()
    options = site.params(
        maintenance_db="lowtide", bin_dir=shop.programs, roles="created", backup=run_id, ssl_mode="disable"
    )
    drop_reader(shop)
    with StatementProxy(shop.server.host, shop.server.port, lambda _statement: True) as proxy:
        way = {"login_host": proxy.host, "login_port": proxy.port}
        assert run_module("pg_restore", {**options, **way}).changed
        texts = [statement.text for statement in proxy.statements]
    assert read_reader(shop) == whole
    first = next(number for number, text in enumerate(texts, 1) if text.startswith("CREATE ROLE "))
    last = texts.index("COMMIT", first) + 1
    assert last - first > 3
    for number in range(first - 1, last + 2) if is_sweep() else [last]:
        drop_reader(shop)
        assert kill_before(shop, lambda statement, due=number: statement.number == due, options)  # type: ignore[misc]
        assert read_reader(shop) in ([], whole), number
        assert (read_reader(shop) == whole) is (number > last), number
        again = run_module("pg_restore", options)
        assert again.changed, (number, again.msg)
        assert read_reader(shop) == whole, number
        copies = [name for name in shop.databases() if name != shop.name]
        assert len(copies) == 1
        granted = site.sql(f"SELECT has_table_privilege('{reader}', 'shop.orders', 'SELECT')", database=copies[0])
        assert granted == [(True,)], number
        assert not run_module("pg_restore", options).changed, number
