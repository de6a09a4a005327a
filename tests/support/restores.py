# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What tests of restores share: a shop with something of everything, its backup, and questions to the server."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from labkit.postgresql_programs import DEBIAN_VERSION

from support.backups import PATIENCE, Site, make_site, quoted
from support.modules import ModuleRun, run_module
from support.postgresql_rights import grant_documented_rights
from support.postgresql_servers import Server

OWN_PUBLIC = 15
"""From this version on the schema public is the database owner's; before, it is the superuser's."""
LET_IN = 0x4C455431
"""The key of a lock."""
PASSWORD = "canary-of-a-restore"  # noqa: S105 - of a role that a test makes
SEED = """
CREATE SCHEMA shop;
CREATE TABLE shop.orders (id int PRIMARY KEY, amount int NOT NULL, note text,
  at timestamptz DEFAULT now());
INSERT INTO shop.orders SELECT g, g % 50, md5(g::text) FROM generate_series(1, 500) g;
CREATE INDEX orders_amount ON shop.orders (amount);
CREATE TABLE shop.lines (orders int REFERENCES shop.orders, number int, note text);
INSERT INTO shop.lines SELECT g, 1, E'tab\\t \\\\. new\\nline' FROM generate_series(1, 300) g;
CREATE TABLE shop.empty (i int);
COMMENT ON TABLE shop.empty IS E'x\\n--\\n-- Name: shop; Type: DATABASE; Schema: -; Owner: o\\n--\\n'
  '\\nALTER ROLE nobody SUPERUSER;\\n';
CREATE SEQUENCE shop.counter START 41;
SELECT nextval('shop.counter');
CREATE EXTENSION citext;
CREATE FUNCTION shop.twice(i int) RETURNS int LANGUAGE sql AS 'SELECT 2 * i';
CREATE VIEW shop.large AS SELECT * FROM shop.orders WHERE amount > 40;
SELECT lo_from_bytea(900001, convert_to(repeat('large ', 5000), 'UTF8'));
SELECT lo_from_bytea(900002, '');
"""


@dataclass(frozen=True)
class Shop:
    """A site on one server; ``owner`` owns database and tables, ``reader`` may read them, ``account`` restores."""

    site: Site
    server: Server
    owner: str
    reader: str
    account: str
    programs: str
    run_id: str = ""

    @property
    def name(self) -> str:
        """The live database."""
        return self.site.database

    @property
    def copy(self) -> str:
        """The name of the copy beside."""
        return f"{self.name}_restore_{self.run_id.lower().replace('-', '_')}"

    @property
    def kept(self) -> str:
        """The name of the original after a swap."""
        return f"{self.name}_before_{self.run_id.lower().replace('-', '_')}"

    def replace_run(self, run_id: str) -> Shop:
        """The same with another backup."""
        return replace(self, run_id=run_id)

    def params(self, **more: Any) -> dict[str, Any]:
        """Options of pg_restore, as the account that may do no more."""
        own = {**self.site.params(bin_dir=self.programs), "login_user": self.account, "login_password": PASSWORD}
        del own["passfile"]
        return {**own, "maintenance_db": "lowtide", **more}

    def restore(self, *, check: bool = False, **more: Any) -> ModuleRun:
        """Run pg_restore."""
        return run_module("pg_restore", self.params(**more), check=check)

    def back_up(self, **more: Any) -> str:
        """Make a backup as superuser; its name."""
        done = run_module("pg_backup", self.site.params(bin_dir=self.programs, max_age="0", **more))
        assert done.changed, done.msg
        return str(done["backup"]["run_id"])

    def databases(self) -> list[str]:
        """The names of the databases that belong to this shop."""
        rows = self.site.sql(
            "SELECT datname FROM pg_database WHERE starts_with(datname, %(name)s) ORDER BY 1",
            database="postgres",
            values={"name": self.name},
        )
        return [row[0] for row in rows]

    def oid(self, name: str) -> int:
        """Which database has a name."""
        return int(self.site.sql(f"SELECT oid FROM pg_database WHERE datname = '{name}'", database="postgres")[0][0])

    def count(self, table: str = "shop.orders", database: str | None = None) -> int:
        """The rows of a table."""
        return int(self.site.sql(f"SELECT count(*) FROM {table}", database=database)[0][0])

    def wait_left(self) -> None:
        """Until no session of a killed run is left."""
        end = time.monotonic() + PATIENCE
        question = (
            "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'lowtide.ops pg_restore%' AND usename = "
        )
        while self.site.sql(f"{question}'{self.account}'", database="postgres")[0][0]:
            assert time.monotonic() < end, "a session of a killed run does not end"
            time.sleep(0.05)

    def drop(self) -> None:
        """Drop every database of this shop but the live one."""
        for name in self.databases():
            if name != self.name:
                self.site.sql(f"DROP DATABASE {quoted(name)} WITH (FORCE)", database="postgres")


def assert_done(run: ModuleRun) -> None:
    """It has changed something, and did not fail."""
    assert not run.failed, run.msg
    assert run.changed


def find_programs(server: Server, lab: dict[str, Any]) -> str:
    """The oldest client programs that there are for a server, so that old and new ones are used."""
    if server.version <= int(DEBIAN_VERSION):
        return f"/usr/lib/postgresql/{DEBIAN_VERSION}/bin"
    return str(lab["postgresql_versions"]["client_programs"])


@contextmanager
def make_shop(
    server: Server, lab: dict[str, Any], unique_name: Callable[..., str], *, seed: str = SEED, **options: Any
) -> Iterator[Shop]:
    """A shop with a backup; all of it is removed afterwards."""
    facts = lab["postgresql_versions"]
    own = {"hosts": [server.host], "port": server.port, **{name: facts[name] for name in ("superuser", "passfile")}}
    with make_site({**lab, "postgresql": own}, "versitygw", unique_name, seed="SELECT") as site:
        owner, reader, account = roles = [f"{site.database}_{purpose}" for purpose in ("owner", "reader", "account")]
        shop = Shop(site, server, owner, reader, account, programs=find_programs(server, lab))
        try:
            for role in (shop.owner, shop.reader):
                site.sql(f"CREATE ROLE {role}")
            fill_shop(shop, seed)
            grant_documented_rights(server.superuser, site.database, owner=shop.owner, restore=shop.account)
            let_in(site, f"GRANT CONNECT ON DATABASE lowtide TO {shop.account}")
            more = "" if server.version >= OWN_PUBLIC else " SUPERUSER"
            site.sql(f"ALTER ROLE {shop.account} PASSWORD '{PASSWORD}'{more}")
            site.sql(f"ALTER ROLE {shop.account} SET TimeZone = 'Asia/Tokyo'")
            yield replace(shop, run_id=shop.back_up(**options))
        finally:
            shop.drop()
            site.sql(f"DROP DATABASE {quoted(site.database)} WITH (FORCE)", database="postgres")
            let_in(site, f"REVOKE CONNECT ON DATABASE lowtide FROM {shop.account}")
            for role in roles:
                site.sql(f"DROP ROLE IF EXISTS {role}", database="postgres")


def let_in(site: Site, statement: str) -> None:
    """Change who may come into the database that all tests share, one at a time: the server refuses two at once."""
    site.sql(f"SELECT pg_advisory_lock({LET_IN}); {statement}", database="postgres")


def fill_shop(shop: Shop, seed: str) -> None:
    """Fill the database as its owner would, with grants to the reader."""
    site, database = shop.site, quoted(shop.name)
    site.sql(f"ALTER DATABASE {database} OWNER TO {shop.owner}")
    site.sql(f"ALTER DATABASE {database} SET work_mem TO '5MB'")
    site.sql(f"ALTER DATABASE {database} CONNECTION LIMIT 20")
    site.sql(f"COMMENT ON DATABASE {database} IS E'the shop\\n\\nof the team'")
    site.sql(f"REVOKE ALL ON DATABASE {database} FROM PUBLIC; GRANT CONNECT ON DATABASE {database} TO {shop.reader}")
    site.sql(f"SET SESSION AUTHORIZATION {shop.owner}; {seed}")
    if "shop.orders" in seed:
        site.sql(f"SET SESSION AUTHORIZATION {shop.owner}; GRANT USAGE ON SCHEMA shop TO {shop.reader}")
        site.sql(f"SET SESSION AUTHORIZATION {shop.owner}; GRANT SELECT ON shop.orders TO {shop.reader}")


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


def check_whole(shop: Shop, original: int) -> bool:
    """Under the live name is all of the original or all of the restored one; return whether it is the latter."""
    live = shop.oid(shop.name)
    assert (shop.count(), shop.count("shop.lines")) == (500, 300)
    if live != original:
        assert shop.oid(shop.kept) == original
        assert shop.copy not in shop.databases()
    return live != original
