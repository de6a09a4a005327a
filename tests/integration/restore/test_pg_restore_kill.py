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
from support.restores import Shop

pytestmark = pytest.mark.lab("postgresql_versions", "versitygw")

SHARES = 24
"""Of how many tests the sweep is made, each of which takes every so manieth statement."""
ROUNDS: list[Any] = (
    list(range(SHARES)) if os.environ.get("LOWTIDE_EXHAUSTIVE") == "1" else ["COPY shop.lines", "RENAME TO LIVE"]
)


def wanted(shop: Shop, state: str, proxy: StatementProxy | None = None) -> dict[str, Any]:
    """Options of a run that makes the copy (beside) or brings it under the live name, through a proxy if there is one."""
    way = {} if proxy is None else {"login_host": proxy.host, "login_port": proxy.port}
    return shop.params(state=state, backup=shop.run_id, ssl_mode="disable", **way)


def put_back(shop: Shop) -> None:
    """Have the original under the live name again, and no copy."""
    if shop.kept in shop.databases():
        for statement in (
            f"DROP DATABASE {quoted(shop.name)} WITH (FORCE)",
            f"ALTER DATABASE {quoted(shop.kept)} RENAME TO {quoted(shop.name)}",
            f"COMMENT ON DATABASE {quoted(shop.name)} IS 'the shop'",
        ):
            shop.site.sql(statement, database="postgres")
    shop.drop()


def kill_before(shop: Shop, state: str, is_due: Callable[[Statement], bool]) -> bool:
    """Run the module and SIGKILL it as a statement is about to reach the server, which then never has it; was it killed?"""
    started: list[subprocess.Popen[str]] = []

    def before(statement: Statement) -> bool:
        if not is_due(statement):
            return True
        os.kill(started[0].pid, signal.SIGKILL)
        return False

    with StatementProxy(shop.server.host, shop.server.port, before) as proxy:
        process = start_module("pg_restore", wanted(shop, state, proxy))
        started.append(process)
        process.communicate(timeout=120)
    shop.wait_left()
    return process.returncode == -signal.SIGKILL


def check_whole(shop: Shop, original: int) -> bool:
    """Under the live name is all of the original or all of the restored one; return whether it is the latter."""
    live = shop.oid(shop.name)
    assert (shop.count(), shop.count("shop.lines")) == (500, 300)
    if live != original:
        assert shop.oid(shop.kept) == original
        assert shop.copy not in shop.databases()
    return live != original


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
        killed = kill_before(shop, state, is_due)
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
