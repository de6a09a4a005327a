# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""pg_credential on real servers: two roles that take turns, one role, refusals, and what is left of a killed run."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from psycopg2 import sql

from ansible_collections.lowtide.ops.plugins.module_utils._credentials.operations.credential import find_role_key
from ansible_collections.lowtide.ops.plugins.module_utils._postgresql.connection import Session, Settings
from ansible_collections.lowtide.ops.plugins.module_utils._postgresql.locks import ClusterLock
from support.credential_site import CredentialSite
from support.http_proxy import CutOffError
from support.kubernetes_account import AuditLog, expand, name_user, read_rules
from support.modules import start_module
from support.postgresql_servers import Server, make_database, start_server
from support.rival_proxy import Rival, RivalProxy

pytestmark = pytest.mark.lab("kubernetes", "postgresql_versions")
EXHAUSTIVE = os.environ.get("LOWTIDE_EXHAUSTIVE") == "1"
Json = dict[str, Any]
Point = tuple[str, int, str]
POINTS: list[Point] = [
    ("rotated", 1, "after"),  # it is noted, and nothing is done yet
    ("rotated", 2, "before"),  # the role has the password, the Secret has not
    ("rotated", 2, "after"),  # the Secret has it; with one role, the server has not
    ("rotated", 3, "after"),  # it is proven, and no client has been restarted
    ("finished", 1, "before"),  # the old one is dead, which is not noted yet
]
"""Which patch of the Secret: the run is killed before it reaches the server, or before the answer comes back."""
ONE_ROLE = {"method": "one_role", "owner": None, "accept_interruption": True}


@pytest.mark.procedure("C27", "A10")
def test_the_idle_role_takes_over_and_the_other_is_ended(credentials: CredentialSite) -> None:
    site = credentials
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
    assert rotated["diff"] == predicted["diff"]
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


def test_the_roles_take_turns(credentials: CredentialSite) -> None:
    """The second rotation goes back to the first role; a key that contains the credential follows."""
    site = credentials
    template = "postgresql://{username}:{password}@db/shop"
    for role, state in ((site.b, "rotated"), (site.b, "finished"), (site.a, "rotated"), (site.a, "finished")):
        run = site.run(state=state, max_age="0s", templates={"uri": template})
        assert run.changed, run.result
        values = site.values()
        assert values["username"] == role
        assert values["uri"] == f"postgresql://{role}:{values['password']}@db/shop"
        assert site.works()


@pytest.mark.procedure("C27")
def test_the_only_role_gets_another_password_where_that_is_accepted(credentials: CredentialSite) -> None:
    site, old = credentials, credentials.values()
    options: Json = {**ONE_ROLE, "roles": [site.a]}
    with contextlib.closing(site.connect(site.a, old["password"])):
        refused = site.run(**{**options, "accept_interruption": False})
    assert refused["error"]["refused"], refused.result
    assert "every new login with the password that clients have now is refused" in refused.msg
    assert "1 session of it" in refused.msg
    assert site.values() == old
    assert site.works()

    rotated = site.run(**options)
    assert rotated.rc == 0, rotated.result
    assert site.values()["username"] == site.a
    assert site.works()
    assert not site.may_login(site.a, old["password"])
    finished = site.run(state="finished", **options)
    assert finished.rc == 0, finished.result
    assert sorted(site.values()) == ["other", "password", "username"]


def kill_at(site: CredentialSite, point: Point, **options: Any) -> None:
    """Run what leads to a point, and kill it there."""
    state, number, when = point
    if state != "rotated":
        assert site.run(**options).rc == 0
    started: list[subprocess.Popen[str]] = []
    counted = itertools.count(1)

    def kill() -> None:
        if next(counted) == number:
            os.kill(started[0].pid, signal.SIGKILL)
            raise CutOffError

    with RivalProxy(site.space.facts, Rival("PATCH", "", kill, when, times=100)) as proxy:
        params = site.params(state=state, kubernetes_connection={"host": proxy.url}, **options)
        started.append(start_module("pg_credential", params))
        started[0].communicate(timeout=120)
    assert started[0].returncode == -signal.SIGKILL


@pytest.mark.procedure("C27")
@pytest.mark.parametrize("point", POINTS if EXHAUSTIVE else POINTS[1:2], ids=str)
def test_killed_with_two_roles_either_credential_works_and_in_the_end_exactly_one(
    credentials: CredentialSite, point: Point
) -> None:
    site, old = credentials, credentials.values()
    kill_at(site, point)
    assert site.works()
    assert site.may_login(site.a, old["password"]) is (point[0] == "rotated")
    check_end(site, old)


@pytest.mark.parametrize("point", POINTS if EXHAUSTIVE else POINTS[2:3], ids=str)
def test_killed_with_one_role_it_ends_with_the_password_of_the_secret(
    credentials: CredentialSite, point: Point
) -> None:
    """Where the Secret was changed and the server was not, clients that run have the old password, and it works."""
    site, old = credentials, credentials.values()
    options: Json = {**ONE_ROLE, "roles": [site.a]}
    kill_at(site, point, **options)
    assert site.works() is (point != POINTS[2])
    assert site.may_login(site.a, old["password"]) is (point in POINTS[:3])
    check_end(site, old, **options)


def check_end(site: CredentialSite, old: Json, **options: Any) -> None:
    """The next run of both states ends it, and one more changes nothing."""
    for state in ("rotated", "finished"):
        run = site.run(state=state, **options)
        assert run.rc == 0, run.msg
    assert sorted(site.values()) == ["other", "password", "username"]
    assert site.works()
    assert not site.may_login(old["username"], old["password"])
    for state in ("rotated", "finished"):
        again = site.run(state=state, **options)
        assert (again.rc, again.changed) == (0, False), again.result


METHODS: dict[str, Json] = {"two_roles": {}, "one_role": ONE_ROLE}
BACK: list[Point] = [
    ("reverted", 1, "before"),  # the server takes the old one; with one role the patch is inside of the transaction
    ("reverted", 1, "after"),  # the Secret has the old one; with one role, the server has not
    ("reverted", 2, "after"),  # it is proven
]


def choose_options(site: CredentialSite, method: str) -> Json:
    """Options of the module for a method."""
    return {**METHODS[method], "roles": [site.a]} if METHODS[method] else {}


@pytest.mark.procedure("C27")
@pytest.mark.parametrize("method", METHODS)
def test_a_rotation_is_taken_back(credentials: CredentialSite, method: str) -> None:
    """The Secret has the old credential again, which works, then the new one is ended, and another one is due."""
    site, old = credentials, credentials.values()
    options = choose_options(site, method)
    nothing = site.run(state="reverted", **options)
    assert (nothing.rc, nothing.changed) == (0, False), nothing.result
    assert site.run(**options).rc == 0
    new = site.values()

    predicted = site.run(state="reverted", check=True, **options)
    assert predicted.changed, predicted.result
    assert site.values() == new
    reverted = site.run(state="reverted", **options)
    assert reverted.rc == 0, reverted.msg
    assert reverted["plan"] == predicted["plan"]
    assert reverted["diff"] == predicted["diff"]
    assert {key: value for key, value in site.values().items() if "previous" not in key} == old
    assert site.works()
    assert site.may_login(new["username"], new["password"]) is (method == "two_roles")
    held = site.run(**options)
    assert (held.rc, held.changed, held["rotating"], held["phase"]) == (0, False, False, "reverting"), held.result

    finished = site.run(state="finished", **options)
    assert finished.rc == 0, finished.msg
    assert site.values() == old
    assert site.works()
    assert not site.may_login(new["username"], new["password"])
    for state in ("reverted", "finished"):
        again = site.run(state=state, **options)
        assert (again.rc, again.changed) == (0, False), again.result
    texts = json.dumps([held.result, reverted.result, finished.result, site.note()])
    assert new["password"] not in texts
    assert old["password"] not in texts
    assert site.run(**options).changed
    assert site.works()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "point", [BACK[1], *(pytest.param(point, marks=pytest.mark.sweep) for point in (BACK[0], BACK[2]))], ids=str
)
def test_killed_on_the_way_back_it_ends_with_the_old_one(
    credentials: CredentialSite, point: Point, method: str
) -> None:
    site, old = credentials, credentials.values()
    options = choose_options(site, method)
    kill_at(site, point, **options)
    values = site.values()
    pairs = [(values["username"], values["password"])]
    pairs.append((values["lowtide.previous-username"], values["lowtide.previous-password"]))
    # With two roles both work at any time; with one role the server has the one or the other of the Secret.
    assert [site.may_login(*pair) for pair in pairs].count(True) == (2 if method == "two_roles" else 1)
    for state in ("reverted", "finished"):
        run = site.run(state=state, **options)
        assert run.rc == 0, run.msg
    assert site.values() == old
    assert site.works()


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_patch_without_an_answer_is_read_before_it_is_repeated(credentials: CredentialSite, when: str) -> None:
    site, lost = credentials, itertools.count()

    def lose() -> None:
        if next(lost) == 1:
            raise CutOffError

    with RivalProxy(site.space.facts, Rival("PATCH", "", lose, when, times=100)) as proxy:
        run = site.run(kubernetes_connection={"host": proxy.url})
    assert run.rc == 0, run.msg
    assert site.values()["username"] == site.b
    assert site.works()


def test_nothing_is_written_over_what_another_client_has_set(credentials: CredentialSite) -> None:
    """The Secret is changed between the note and the switch: the other client's key stays, and the next run goes on."""
    site, numbers = credentials, itertools.count(1)

    def interfere() -> None:
        if next(numbers) == 2:
            site.put({**site.values(), "other": "theirs"})

    with RivalProxy(site.space.facts, Rival("PATCH", "", interfere, times=100)) as proxy:
        run = site.run(kubernetes_connection={"host": proxy.url})
    assert run.failed
    assert "another client has changed it" in run.msg
    assert site.values()["username"] == site.a
    assert site.works()
    assert site.run().rc == 0
    assert (site.values()["username"], site.values()["other"]) == (site.b, "theirs")


def differ(site: CredentialSite, statement: str) -> None:
    """Make the roles differ, or unusable."""
    for part in statement.split(";"):
        site.execute(part.format(a=site.a, b=site.b, owner=site.owner, account=site.account))


REFUSALS = {
    "no member": ("REVOKE {owner} FROM {b}", "is no member of"),
    "acts as itself": ("ALTER ROLE {b} RESET role", "do not act as"),
    "owns": ("CREATE TABLE t (id int); ALTER TABLE t OWNER TO {a}", "owns 1 object (table public.t in database "),
    "attributes": ("ALTER ROLE {b} CONNECTION LIMIT 3", "differ in their attributes"),
    "settings": ("ALTER ROLE {a} SET work_mem = '64MB'", "differ in their settings"),
    "grants": ("CREATE TABLE t (id int); GRANT SELECT ON t TO {a}", "differ in their privileges of their own"),
    "superuser": ("ALTER ROLE {b} SUPERUSER", "is a superuser"),
    "no login": ("ALTER ROLE {b} NOLOGIN", "may not log in"),
    "expired": ("ALTER ROLE {b} VALID UNTIL '2020-01-01'", "VALID UNTIL"),
    "no right": ("REVOKE {b} FROM {account}", "GRANT {b} TO {account}"),
}


@pytest.mark.procedure("C27")
def test_roles_that_are_not_alike_or_not_usable_are_refused(credentials: CredentialSite) -> None:
    """Each is mended again before the next."""
    site, old = credentials, credentials.values()
    mend = {
        "no member": "GRANT {owner} TO {b}",
        "acts as itself": "ALTER ROLE {b} SET role = {owner}",
        "owns": "DROP TABLE t",
        "attributes": "ALTER ROLE {b} CONNECTION LIMIT -1",
        "settings": "ALTER ROLE {a} RESET work_mem",
        "grants": "DROP TABLE t",
        "superuser": "ALTER ROLE {b} NOSUPERUSER",
        "no login": "ALTER ROLE {b} LOGIN",
        "expired": "ALTER ROLE {b} VALID UNTIL 'infinity'",
        "no right": "GRANT {b} TO {account}",
    }
    for name, (statement, words) in REFUSALS.items():
        differ(site, statement)
        run = site.run()
        assert run.failed, name
        assert run["error"]["refused"], run.msg
        assert words.format(b=site.b, account=site.account) in run.msg, run.msg
        differ(site, mend[name])
    assert site.values() == old
    assert site.run(check=True).rc == 0


def test_a_secret_that_cannot_or_must_not_be_changed_is_refused(credentials: CredentialSite) -> None:
    site, old = credentials, credentials.values()
    cases: list[tuple[Json, str]] = [
        ({"secret": "nosuch"}, "it does not exist in cluster"),
        ({"username_key": "user"}, "missing, empty or no text"),
        ({"roles": [site.a]}, "needs 2"),
        ({"owner": None}, "option owner"),
        ({"templates": {"uri": "postgresql://db"}}, "does not contain {password}"),
        ({"max_age": "soon"}, "is not a duration"),
        ({"state": "finished", "timeout": 0}, "option timeout"),
        ({"logins": [{"host": site.server.host, "port": 1}]}, "Connection refused"),
        ({"logins": [{"host": str(site.server.folder / "nosuch")}]}, "no such socket"),
    ]
    for options, words in cases:
        run = site.run(**options)
        assert run.failed, options
        assert run["error"]["refused"], run.msg
        assert words in run.msg, run.msg
    site.put({**old, "username": "nobody"})
    assert "names the role 'nobody', which is not one of roles" in site.run().msg
    applied = {"kubectl.kubernetes.io/last-applied-configuration": json.dumps({"stringData": {"password": "x"}})}
    site.put(old, metadata={"name": "database", "annotations": applied})
    assert "Take the password out of the file" in str(site.run(check=True)["warnings"])
    site.put(old, immutable=True)
    immutable = site.run()
    assert "it is immutable" in immutable.msg
    assert site.values() == old


def test_the_idle_role_that_is_in_use_and_the_old_one_that_still_is(credentials: CredentialSite) -> None:
    """Nobody is locked out: not who uses the idle role already, and not who has not been restarted."""
    site, old = credentials, credentials.values()
    site.set_password(site.b, "canary")
    with contextlib.closing(site.connect(site.b, "canary")):
        run = site.run()
    assert run["error"]["refused"], run.result
    assert f"role {site.b}: it is to be the idle one" in run.msg
    assert site.may_login(site.b, "canary")
    assert site.run().rc == 0
    with contextlib.closing(site.connect(site.a, old["password"])):
        run = site.run(state="finished", timeout=6)
    assert run.failed
    assert "sessions of it are open: pid" in run.msg
    assert site.may_login(site.a, old["password"])
    assert site.run(state="finished").rc == 0


@pytest.fixture
def trusting_server(lab: Json) -> Iterator[Server]:
    """A server that asks nobody for a password."""
    facts = lab["postgresql_versions"]
    programs = Path(facts["servers"]["15"]["programs"])
    with start_server("15", programs, Path(facts["passfile"]).parent) as server:
        access = server.folder / "data/pg_hba.conf"
        access.write_text("host all all 127.0.0.1/32 trust\n" + access.read_text())
        server.administer("SELECT pg_reload_conf()")
        yield server


def test_an_address_that_asks_for_no_password_is_refused(credentials: CredentialSite, trusting_server: Server) -> None:
    site, there = credentials, trusting_server
    there.administer(sql.SQL("CREATE ROLE {} LOGIN").format(sql.Identifier(site.b)))
    run = site.run(logins=[{"host": there.host, "port": there.port, "database": "postgres"}])
    assert run["error"]["refused"], run.result
    assert "lets this role in with a wrong password" in run.msg


@pytest.mark.every_version
@pytest.mark.lab("pgbouncer")
@pytest.mark.parametrize("postgresql", ["18"], indirect=True)
def test_a_pooler_that_does_not_know_the_new_role_is_found_before_the_secret_is_changed(
    credentials: CredentialSite, lab: Json
) -> None:
    """The lab's PgBouncer has a list of users, which cannot be changed from here."""
    site, old = credentials, credentials.values()
    run = site.run(logins=[lab["pgbouncer"]["session"]], timeout=8)
    assert run.failed
    assert "the new password is refused there" in run.msg
    assert "give it auth_query, or the role in its userlist" in run.msg
    assert site.values() == old
    assert site.works()
    assert site.note() is not None
    assert site.run().rc == 0


@pytest.mark.procedure("C27")
def test_the_server_has_a_verifier_and_its_log_no_password(credentials: CredentialSite) -> None:
    """Whatever it logs: the statement itself carries the verifier."""
    site = credentials
    site.execute(f"ALTER ROLE {site.account} SET log_statement = 'all'")
    site.execute(f"ALTER ROLE {site.account} SET log_min_messages = 'log'")
    assert site.run().rc == 0
    password = site.values()["password"]
    ((verifier,),) = site.execute(f"SELECT rolpassword FROM pg_authid WHERE rolname = '{site.b}'")
    assert verifier.startswith("SCRAM-SHA-256$")
    log = site.find_log()
    assert verifier in log
    assert password not in log


def test_documented_rights_are_what_is_used(credentials: CredentialSite) -> None:
    """And with none of them left over: the API server's log has exactly these verbs on these resources."""
    site = credentials
    audit = AuditLog(site.space.facts)
    for state in ("rotated", "finished"):
        assert site.run(state=state).rc == 0
    documented = expand(read_rules("Role", "lowtide-credentials"))
    assert audit.wait_for_rights(name_user(site.space.name), documented) == documented


def test_a_missing_right_is_found_before_anything_is_changed(
    credentials: CredentialSite, connect: Callable[..., Json]
) -> None:
    site = credentials
    rules = [{"apiGroups": [""], "resources": ["secrets"], "verbs": ["get", "patch"]}]
    run = site.run(kubernetes_connection=connect(rules))
    assert run["error"]["refused"], run.result
    assert "list pods in namespace" in run.msg
    assert site.note() is None


def test_rotations_of_the_same_roles_exclude_each_other_whatever_database_they_name(
    credentials: CredentialSite, unique_name: Callable[..., str]
) -> None:
    """Roles are of all databases: a run through another one is seen. Another pair of roles is nobody's business."""
    site, old = credentials, credentials.values()
    stranger = unique_name("stranger", separator="_")
    with make_database(site.server, unique_name) as elsewhere, ExitStack() as stack:
        settings = Settings(
            host=site.server.host,
            port=site.server.port,
            user=site.a,
            password=old["password"],
            dbname=elsewhere.name,
        )
        site.sql("GRANT CONNECT ON DATABASE {} TO {}", elsewhere.name, site.owner)
        session = stack.enter_context(Session(settings, module="pg_credential", run_id="1"))
        assert ClusterLock(session, find_role_key(stranger)).try_acquire()
        assert site.run(check=True).rc == 0
        assert ClusterLock(session, find_role_key(site.b)).try_acquire()
        for check in (True, False):
            refused = site.run(check=check)
            assert refused["error"]["refused"], refused.result
            assert "another rotation of one of these roles is at work" in refused.msg
            assert f"pid {session.server.pid}" in refused.msg
            assert f"in database {elsewhere.name}" in refused.msg
        assert site.values() == old
    assert site.run().rc == 0
