# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""pg_credential where somebody else has had a hand in it: no client is locked out, and each error names a step that works."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from labkit.postgresql_programs import DEBIAN_VERSION

from support.credential_site import ANNOTATION, SECRET, CredentialSite, make_site
from support.kubernetes_server import ApiServer
from support.postgresql_servers import Server, start_server, start_standby

from .conftest import Namespace

pytestmark = pytest.mark.lab("kubernetes", "postgresql_versions")
Json = dict[str, Any]
ONE_ROLE: Json = {"method": "one_role", "owner": None, "accept_interruption": True}
# Its programs are complete (pg_basebackup, the messages in other languages).
PROGRAMS = Path(f"/usr/lib/postgresql/{DEBIAN_VERSION}/bin")


def replace(site: CredentialSite, values: dict[str, str]) -> None:
    """Have these values and no annotations, as ``kubectl replace`` of an old file does."""
    previous = {key: None for key in site.values() if key not in values}
    site.edit({**previous, **values}, keeps_note=False)


def make_pod(site: CredentialSite, name: str = "client") -> None:
    """Make a pod that gets the credential, and wait until what is changed from now on is younger."""
    container = {"name": "main", "image": "none", "envFrom": [{"secretRef": {"name": SECRET}}]}
    spec = {"containers": [container], "nodeSelector": {"no": "such"}}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}
    site.space.apply(pod)
    made = time.time()
    while int(time.time()) <= int(made):
        time.sleep(0.05)


def remove_pod(site: CredentialSite, name: str = "client") -> None:
    """Remove it, and wait until it is gone."""
    site.space.request("DELETE", "Pod", name, {"gracePeriodSeconds": 0}, type_="json")
    end = time.monotonic() + 120
    while any(pod["metadata"]["name"] == name for pod in site.space.list("Pod")):
        assert time.monotonic() < end
        time.sleep(0.1)


def choose_options(site: CredentialSite, method: str) -> Json:
    return {**ONE_ROLE, "roles": [site.a]} if method == "one_role" else {}


def check_end(site: CredentialSite, ended: tuple[str, str], **options: Any) -> None:
    """The Secret's credential works, and the other does not."""
    run = site.run(state="finished", **options)
    assert run.rc == 0, run.msg
    assert sorted(site.values()) == ["other", "password", "username"]
    assert site.works()
    assert not site.may_login(*ended)


@pytest.mark.procedure("C27")
@pytest.mark.parametrize("method", ["two_roles", "one_role"])
def test_a_rotation_whose_note_is_gone_is_gone_on_with(credentials: CredentialSite, method: str) -> None:
    """The keys of the previous credential show it: no other password is made, and who has the old one goes on."""
    site, old = credentials, credentials.values()
    options = choose_options(site, method)
    assert site.run(**options).rc == 0
    new = site.values()
    site.edit({}, keeps_note=False)
    early = site.run(state="finished", **options)
    assert early["error"]["refused"], early.result
    assert "Run with state rotated first" in early.msg

    predicted = site.run(check=True, **options)
    assert (predicted.rc, predicted["rotating"]) == (0, True), predicted.result
    run = site.run(**options)
    assert run.rc == 0, run.msg
    assert (run["phase"], run["rotating"]) == ("proven", True)
    assert site.values() == new
    assert site.may_login(site.a, old["password"]) is (method == "two_roles")
    check_end(site, (site.a, old["password"]), **options)


def test_a_rotation_whose_note_is_gone_is_taken_back(credentials: CredentialSite) -> None:
    site, old = credentials, credentials.values()
    assert site.run().rc == 0
    new = site.values()
    site.edit({}, keeps_note=False)
    run = site.run(state="reverted")
    assert run.rc == 0, run.msg
    assert site.works()
    check_end(site, (new["username"], new["password"]))
    assert site.values() == old


@pytest.mark.procedure("C27")
def test_pods_that_may_have_another_credential_than_the_secret_are_not_locked_out(credentials: CredentialSite) -> None:
    """An old file has taken the place of the Secret in the middle: what pods got since is nowhere any more."""
    site, old = credentials, credentials.values()
    assert site.run().rc == 0
    new = site.values()
    make_pod(site)
    replace(site, old)
    for check in (True, False):
        run = site.run(check=check)
        assert run["error"]["refused"], run.result
        assert f"Pod {site.space.name}/client" in run.msg
        assert "Restart the workloads" in run.msg
    assert site.may_login(site.b, new["password"])
    remove_pod(site)
    assert site.run().rc == 0
    assert site.works()

    check_end(site, (site.a, old["password"]))
    live = site.values()
    make_pod(site)
    replace(site, old)
    run = site.run()
    assert run["error"]["refused"], run.result
    assert "the server refuses its credential" in run.msg
    assert "Put the credential that they have" in run.msg
    assert site.may_login(site.b, live["password"])
    site.edit({"username": site.b, "password": live["password"]})
    assert "Restart the workloads" in site.run().msg
    remove_pod(site)
    assert site.run().rc == 0
    assert site.works()


MISHAPS: dict[str, Callable[[CredentialSite, Json], Json]] = {
    "another password": lambda _site, _old: {"password": "wrong"},
    "the old password": lambda _site, old: {"password": old["password"]},
    "the old credential": lambda _site, old: {"username": old["username"], "password": old["password"]},
    "another password of the old role": lambda site, _old: {"username": site.a, "password": "wrong"},
}


CASES = [(mishap, phase) for phase in ("proven", "switched") for mishap in MISHAPS]


@pytest.mark.procedure("C27")
@pytest.mark.parametrize(
    ("mishap", "phase"),
    [CASES[0], CASES[-2], *(pytest.param(*case, marks=pytest.mark.sweep) for case in (*CASES[1:-2], CASES[-1]))],
)
def test_a_rotation_whose_secret_was_changed_is_taken_back(
    credentials: CredentialSite, mishap: str, phase: str
) -> None:
    """Whatever somebody has put there, both roles go on working until clients have been brought back."""
    site, old = credentials, credentials.values()
    assert site.run().rc == 0
    new = site.values()
    values = MISHAPS[mishap](site, old)
    site.edit(values)
    if phase == "switched":
        note = {**(site.note() or {}), "phase": phase, "rotated_at": ""}
        site.write_note(note)
    for max_age in ("90d", "0s"):
        run = site.run(max_age=max_age)
        assert run.failed, run.result
        assert "with state reverted" in run.msg, run.msg
        assert site.may_login(site.a, old["password"])
        assert site.may_login(site.b, new["password"])
    if phase == "proven":
        run = site.run(state="finished")
        assert "with state reverted" in run.msg, run.result
    run = site.run(state="reverted")
    assert run.rc == 0, run.msg
    assert site.works()
    assert site.may_login(site.b, new["password"])
    check_end(site, (site.b, new["password"]))
    assert site.values() == old
    assert site.run().changed
    assert site.works()


@pytest.mark.parametrize("mishap", ["another password", "the old password"])
def test_with_one_role_it_is_taken_back_as_well(credentials: CredentialSite, mishap: str) -> None:
    site, old = credentials, credentials.values()
    options = choose_options(site, "one_role")
    assert site.run(**options).rc == 0
    new = site.values()
    site.edit(MISHAPS[mishap](site, old))
    run = site.run(**options)
    assert "with state reverted" in run.msg, run.result
    run = site.run(state="reverted", **options)
    assert run.rc == 0, run.msg
    check_end(site, (site.a, new["password"]), **options)
    assert site.values() == old


@pytest.mark.procedure("C27")
def test_a_password_that_is_in_the_secret_no_more_comes_from_a_pod(credentials: CredentialSite) -> None:
    """Neither of the two is kept anywhere else; what there was to be refused is not known any more then."""
    site, old = credentials, credentials.values()
    assert site.run().rc == 0
    new = site.values()
    site.edit({"password": "wrong", "lowtide.previous-password": None, "lowtide.previous-username": None})
    for state in ("rotated", "finished"):
        run = site.run(state=state)
        assert "Put the password that running pods have" in run.msg, run.result
    assert "lowtide.previous-password" in site.run(state="reverted").msg
    site.edit({"password": new["password"]})
    assert site.run()["rotating"]
    run = site.run(state="finished")
    assert run.rc == 0, run.msg
    assert "no login with it was tried" in str(run["evidence"])
    assert site.works()
    assert not site.may_login(site.a, old["password"])


def test_on_the_way_back_a_changed_secret_is_gone_on_with(credentials: CredentialSite) -> None:
    """Another password is put back from a pod; whoever puts the new role there again goes on with that one."""
    site, old = credentials, credentials.values()
    assert site.run().rc == 0
    new = site.values()
    assert site.run(state="reverted").rc == 0
    site.edit({"password": "wrong"})
    assert "Put the password that running pods have" in site.run(state="finished").msg
    site.edit({"password": old["password"]})
    assert site.run()["phase"] == "reverting"
    site.edit({"username": site.b, "password": new["password"]})
    for state in ("rotated", "reverted", "finished"):
        assert f"remove annotation {ANNOTATION}" in site.run(state=state).msg
    site.edit({}, keeps_note=False)
    run = site.run()
    assert (run.rc, run["phase"]) == (0, "proven"), run.result
    assert site.may_login(site.a, old["password"])
    check_end(site, (site.a, old["password"]))


def test_the_way_back_needs_the_templates_of_the_rotation(credentials: CredentialSite) -> None:
    """Else a key would keep the password that is to be ended."""
    site, templates = credentials, {"uri": "{username}:{password}"}
    assert site.run(templates=templates).rc == 0
    run = site.run(state="reverted")
    assert run["error"]["refused"], run.result
    assert "Give the templates that the rotation had" in run.msg
    assert site.run(state="reverted", templates=templates).rc == 0
    values = site.values()
    assert values["uri"] == f"{values['username']}:{values['password']}"


@pytest.mark.procedure("C27")
def test_an_old_credential_that_is_put_back_after_the_end_locks_nobody_out(credentials: CredentialSite) -> None:
    """The note says whom clients log in as: that role keeps its password until they have been restarted."""
    site, old = credentials, credentials.values()
    for state in ("rotated", "finished"):
        assert site.run(state=state).rc == 0
    live = site.values()
    site.edit({"username": site.a, "password": old["password"]})
    for max_age in ("90d", "0s"):
        run = site.run(max_age=max_age)
        assert run["error"]["refused"], run.result
        assert f"it should name '{site.b}'" in run.msg
        assert f"Put {site.b} there again" in run.msg
    site.edit({"username": site.b})
    run = site.run()
    assert "with max_age 0s" in run.msg, run.result
    run = site.run(max_age="0s")
    assert run.rc == 0, run.msg
    assert site.works()
    assert site.may_login(site.b, live["password"])
    check_end(site, (site.b, live["password"]))


@pytest.mark.procedure("C27")
def test_a_secret_of_pg_credential_is_not_changed_by_k8s_secret(credentials: CredentialSite) -> None:
    """The inventory's old password would lock clients out; other keys are free."""
    site, old = credentials, credentials.values()
    uri = {"uri": "{username}:{password}"}
    for state in ("rotated", "finished"):
        assert site.run(state=state, templates=uri).rc == 0
        values = site.values()
        cases: list[Json] = [
            {"data": {"password": old["password"]}},
            {"data": {"username": site.a}},
            {"remove": ["uri"]},
            {"data": {"lowtide.previous-password": "x"}},
            {"data": {"password": old["password"]}, "guards": []},
        ]
        for options in cases:
            run = site.space.module("k8s_secret", name=SECRET, **options)
            assert run["error"]["refused"], run.result
            assert "pg_credential" in run.msg
        assert site.values() == values
        run = site.space.module("k8s_secret", name=SECRET, data={"other": state, "password": values["password"]})
        assert (run.rc, run.changed) == (0, True), run.result


def test_the_role_that_clients_use_is_never_tried_with_a_wrong_password(credentials: CredentialSite) -> None:
    """Where failed logins lock an account, the rotation would lock the application out."""
    site = credentials
    for check in (True, False):
        assert site.run(check=check).rc == 0
    assert site.run().rc == 0
    assert site.run(state="finished").rc == 0
    failed = [line for line in site.find_log().splitlines() if "password authentication failed" in line]
    assert any(f'"{site.b}"' in line for line in failed), "a wrong password is tried"
    # The last one is the proof that its old password has ended.
    assert [f'"{site.a}"' in line for line in failed].count(True) == 1


def test_what_each_role_has_for_itself_and_nobody_uses_is_no_obstacle(credentials: CredentialSite) -> None:
    """Default privileges and user mappings are those of the role that sessions act as; REASSIGN OWNED leaves them."""
    site = credentials
    site.execute(f"ALTER DEFAULT PRIVILEGES FOR ROLE {site.a} GRANT SELECT ON TABLES TO {site.owner}")
    site.execute("CREATE FOREIGN DATA WRAPPER w")
    site.execute("CREATE SERVER elsewhere FOREIGN DATA WRAPPER w")
    site.execute(f"CREATE USER MAPPING FOR {site.b} SERVER elsewhere")
    assert site.run(check=True).rc == 0
    site.execute("CREATE TABLE t (id int)")
    site.execute(f"ALTER TABLE t OWNER TO {site.a}")
    run = site.run(check=True)
    assert f"it owns 1 object (table public.t in database {site.database.name})" in run.msg, run.result
    step = run["error"]["next_step"].partition(" in ")[0]
    site.execute(step)
    assert site.run().rc == 0


@pytest.mark.procedure("C27")
def test_sessions_on_standbys_count(
    lab: Json, namespace: Namespace, server: ApiServer, unique_name: Callable[..., str], tmp_path: Path
) -> None:
    """Clients that read from a standby have the old credential too; it is asked by whatever option names it."""
    folder = Path(lab["postgresql_versions"]["passfile"]).parent
    with contextlib.ExitStack() as stack:
        primary = stack.enter_context(start_server(str(DEBIAN_VERSION), PROGRAMS, folder))
        standby = stack.enter_context(start_standby(primary))
        site = stack.enter_context(make_site(namespace, primary, server, unique_name, tmp_path))
        old = site.values()
        logins = [{"host": one.host, "port": one.port} for one in (primary, standby)]
        assert site.run(logins=logins).rc == 0
        reader = stack.enter_context(contextlib.closing(connect_to(standby, site, site.a, old["password"])))
        run = site.run(state="finished", logins=logins, timeout=6)
        assert run.failed, run.result
        assert f"sessions of it are open: pid {reader.info.backend_pid}" in run.msg
        assert f"at {standby.host}:{standby.port}" in run.msg
        connect_to(standby, site, site.a, old["password"]).close()
        reader.close()
        run = site.run(state="finished", logins=logins)
        assert run.rc == 0, run.msg
        assert f"no session of {site.a} at {primary.host}:{primary.port}, {standby.host}:{standby.port}" in str(
            run["evidence"]
        )
        # Where the other role is in use on a standby, it is not the idle one.
        site.set_password(site.a, "canary")
        wait_for_login(standby, site, "canary")
        reader = stack.enter_context(contextlib.closing(connect_to(standby, site, site.a, "canary")))
        run = site.run(check=True, logins=logins, max_age="0s")
        assert run["error"]["refused"], run.result
        assert "it is to be the idle one" in run.msg


def connect_to(there: Server, site: CredentialSite, user: str, password: str) -> Any:
    """Return a session of a client at a server."""
    return site.connect(user, password, host=there.host, port=there.port)


def wait_for_login(there: Server, site: CredentialSite, password: str) -> None:
    """Wait until a standby has a password."""
    end = time.monotonic() + 120
    while not site.may_login(site.a, password, host=there.host, port=there.port):
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.fixture
def german_server(lab: Json, unique_name: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A server that says in German why it lets nobody in."""
    folder = Path(lab["postgresql_versions"]["passfile"]).parent
    languages = folder / unique_name("locale")
    languages.mkdir(mode=0o755)
    # It warns of characters, and says so by its exit code.
    subprocess.run(["localedef", "-i", "de_DE", "-f", "UTF-8", str(languages / "de_DE.UTF-8")], check=False)
    monkeypatch.setenv("LOCPATH", str(languages))
    with start_server(str(DEBIAN_VERSION), PROGRAMS, folder) as running:
        running.administer("ALTER SYSTEM SET lc_messages = 'de_DE.UTF-8'")
        running.administer("SELECT pg_reload_conf()")
        yield running
    shutil.rmtree(languages)


@pytest.mark.procedure("C27")
def test_a_refusal_is_understood_in_another_language(
    german_server: Server, namespace: Namespace, server: ApiServer, unique_name: Callable[..., str], tmp_path: Path
) -> None:
    """That there is no such database, or no room for the role, is no refusal of a password there either."""
    there = german_server
    with make_site(namespace, there, server, unique_name, tmp_path) as site:
        old = site.values()
        with pytest.raises(Exception, match="fehlgeschlagen"):
            site.connect(site.a, "wrong")
        login = {"host": there.host, "port": there.port, "database": "nosuch"}
        run = site.run(logins=[login])
        assert "existiert nicht" in run.msg, run.result
        for role in (site.a, site.b):
            site.execute(f"ALTER ROLE {role} CONNECTION LIMIT 0")
        run = site.run()
        assert "zu viele Verbindungen" in run.msg, run.result
        assert site.note() is None
        for role in (site.a, site.b):
            site.execute(f"ALTER ROLE {role} CONNECTION LIMIT -1")
        for state in ("rotated", "finished"):
            run = site.run(state=state)
            assert run.rc == 0, run.msg
        assert site.works()
        assert not site.may_login(site.a, old["password"])
