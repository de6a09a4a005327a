# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Which cluster is reached, as whom, and through what; and what is said of credentials."""

from __future__ import annotations

import base64
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from support.forward_proxy import ForwardProxy
from support.kubernetes_account import (
    AuditLog,
    describe_account,
    describe_kubeconfig,
    name_user,
    read_cluster_entry,
    read_rules,
    request_token,
    write_kubeconfig,
)
from support.kubernetes_server import ApiServer
from support.modules import MAIN, ModuleRun, finish_module, start_module
from support.playbooks import write_yaml
from support.tls_server import TlsServer, make_chain

from .conftest import Namespace
from .steps import INFO, apply_ready, read_replicas, start, stop, tell
from .test_workload import cron_job

pytestmark = pytest.mark.lab("kubernetes")
Json = dict[str, Any]
CANARY = "canary-5be1f0c2"
IN_POD = MAIN.with_name("_in_pod.py")
NO_PROXY_SET = {"HTTPS_PROXY": "", "https_proxy": "", "NO_PROXY": "", "no_proxy": ""}


@pytest.fixture
def token(namespace: Namespace, server: ApiServer) -> str:
    """A token of an account with the documented rights, and something for it to see."""
    namespace.apply(*describe_account(namespace.name, read_rules("Role", "lowtide")), cron_job(namespace, "c"))
    return request_token(server, namespace.name)


@pytest.fixture
def cluster(namespace: Namespace) -> Json:
    """The cluster's entry in a kubeconfig."""
    return read_cluster_entry(namespace.facts)


def read_administrator(namespace: Namespace) -> Json:
    """Return the administrator's entry in a kubeconfig."""
    document = yaml.safe_load(Path(namespace.facts["kubeconfig"]).read_text(encoding="utf-8"))
    user: Json = document["users"][0]["user"]
    return user


def look(namespace: Namespace, **params: Any) -> ModuleRun:
    """Read what runs in the namespace."""
    return namespace.module(INFO, timeout=15, **params)


# -- in a pod ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def in_pod(namespace: Namespace, token: str, cluster: Json, tmp_path: Path) -> Callable[..., ModuleRun]:
    """Run the module that reads workloads as a process in a pod would run it: ``in_pod(context="prod")``."""
    folder = tmp_path / "account"
    folder.mkdir()
    authority = base64.b64decode(cluster["certificate-authority-data"])
    for name, content in {"token": token.encode(), "ca.crt": authority, "namespace": namespace.name.encode()}.items():
        (folder / name).write_bytes(content)
    host, _colon, port = namespace.facts["server"].removeprefix("https://").rpartition(":")
    home = tmp_path / "home"
    home.mkdir()

    def run(environment: dict[str, str] | None = None, **params: Any) -> ModuleRun:
        given = {
            "HOME": str(home),
            "KUBECONFIG": "",
            "KUBERNETES_SERVICE_HOST": host,
            "KUBERNETES_SERVICE_PORT": port,
            **(environment or {}),
        }
        wrapper = ["unshare", "--mount", "--propagation", "private", sys.executable, str(IN_POD), str(folder)]
        params = {"namespace": namespace.name, "timeout": 15, **params}
        return finish_module(start_module(INFO, params, env=given, wrapper=wrapper))

    return run


def test_in_a_pod_its_account_is_used(namespace: Namespace, in_pod: Callable[..., ModuleRun]) -> None:
    """Where nothing else is said; the server's own log says who it was."""
    audit = AuditLog(namespace.facts)
    run = in_pod()
    assert not run.failed, run.msg
    namespace.wait("it is in the log", lambda: bool(audit.read(name_user(namespace.name))))


@pytest.mark.parametrize(
    ("environment", "params", "words"),
    [
        ({}, {"context": "production"}, ["production"]),
        ({"KUBECONFIG": "/nowhere/production.yaml"}, {}, ["/nowhere/production.yaml"]),
        ({"KUBECONFIG": "/nowhere/production.yaml"}, {"context": "production"}, ["/nowhere/production.yaml"]),
    ],
    ids=["context", "KUBECONFIG", "both"],
)
def test_in_a_pod_another_cluster_that_is_asked_for_is_not_replaced(
    namespace: Namespace, in_pod: Callable[..., ModuleRun], environment: dict[str, str], params: Json, words: list[str]
) -> None:
    """The pod's own cluster would be another one, without a word."""
    audit = AuditLog(namespace.facts)
    run = in_pod(environment, **params)
    assert run.failed, tell(run)
    assert run["error"]["refused"] is True
    assert [word for word in words if word not in run.msg] == []
    assert audit.read(name_user(namespace.name)) == []


def test_in_a_pod_options_come_before_its_account(namespace: Namespace, in_pod: Callable[..., ModuleRun]) -> None:
    """A token and an authority that are given are the ones that are used."""
    audit = AuditLog(namespace.facts)
    rejected = in_pod(api_key=CANARY)
    assert rejected.failed, tell(rejected)
    assert "401" in rejected.msg
    assert CANARY not in tell(rejected)
    missing = in_pod(ca_cert="/nowhere/ca.pem")
    assert missing.failed
    assert "/nowhere/ca.pem" in missing.msg
    assert audit.read(name_user(namespace.name)) == []


# -- credentials ------------------------------------------------------------------------------------------------------

PLUGIN = """\
import json, pathlib, sys
count = pathlib.Path(sys.argv[1])
calls = int(count.read_text()) if count.exists() else 0
count.write_text(str(calls + 1))
token = pathlib.Path(sys.argv[2]).read_text() if calls else "expired"
status = {"token": token}
print(json.dumps({"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": status}))
"""


def describe_plugin(folder: Path, program: str, *arguments: str) -> Json:
    """Write a credential plugin, and return the user who has it."""
    path = folder / "plugin.py"
    path.write_text(program, encoding="utf-8")
    return {
        "exec": {
            "apiVersion": "client.authentication.k8s.io/v1",
            "command": sys.executable,
            "args": [str(path), *arguments],
            "interactiveMode": "Never",
        }
    }


def test_a_token_that_has_expired_is_asked_for_again(
    namespace: Namespace, token: str, cluster: Json, tmp_path: Path
) -> None:
    """The plugin is run a second time when the server answers 401, and not a third time."""
    (tmp_path / "token").write_text(token, encoding="utf-8")
    count = tmp_path / "count"
    user = describe_plugin(tmp_path, PLUGIN, str(count), str(tmp_path / "token"))
    run = look(namespace, kubeconfig=str(write_kubeconfig(tmp_path / "kubeconfig", cluster, user)))
    assert not run.failed, run.msg
    assert count.read_text(encoding="utf-8") == "2"


def test_options_come_before_a_plugin(namespace: Namespace, token: str, cluster: Json, tmp_path: Path) -> None:
    """A token that is given is used, and the plugin that fails is not run at all."""
    user = describe_plugin(tmp_path, "raise SystemExit('no such profile')")
    kubeconfig = str(write_kubeconfig(tmp_path / "kubeconfig", cluster, user))
    run = look(namespace, kubeconfig=kubeconfig, api_key=token)
    assert not run.failed, run.msg
    failed = look(namespace, kubeconfig=kubeconfig)
    assert failed.failed
    assert "no such profile" in failed.msg


def test_a_user_acts_as_whom_the_kubeconfig_says(namespace: Namespace, cluster: Json, tmp_path: Path) -> None:
    """With ``as``, the rights of that account count and not those of the certificate, and the log names it."""
    apply_ready(namespace, namespace.workload("w"))
    reading = [{"apiGroups": ["apps"], "resources": ["statefulsets"], "verbs": ["get", "list", "watch"]}]
    namespace.apply(*describe_account(namespace.name, reading))
    user = {**read_administrator(namespace), "as": name_user(namespace.name)}
    kubeconfig = str(write_kubeconfig(tmp_path / "kubeconfig", cluster, user))
    looked = look(namespace, kubeconfig=kubeconfig, workloads=[{"kind": "StatefulSet", "name": "w"}])
    assert not looked.failed, looked.msg
    run = stop(namespace, "StatefulSet/w", kubeconfig=kubeconfig, guards=[], timeout=15)
    assert run.failed, tell(run)
    assert run.changed is False
    assert read_replicas(namespace, "StatefulSet", "w") == [1]


@pytest.mark.parametrize("end", ["\n", "\r\n", " \n"], ids=repr)
def test_a_token_with_an_end_of_line_is_used_without_it(
    namespace: Namespace, token: str, cluster: Json, tmp_path: Path, end: str
) -> None:
    """As a block of YAML and a file have it."""
    given: list[Json] = [
        {"kubeconfig": str(write_kubeconfig(tmp_path / "kubeconfig", cluster, {"token": token + end}))},
        {"kubeconfig": str(write_kubeconfig(tmp_path / "other", cluster, {})), "api_key": token + end},
    ]
    for connection in given:
        run = look(namespace, **connection)
        assert not run.failed, run.msg


def test_a_token_that_cannot_be_sent_is_not_printed(namespace: Namespace, cluster: Json, tmp_path: Path) -> None:
    """With a line break inside it is refused; nothing of it is in the result or on standard error."""
    given: list[Json] = [
        {"kubeconfig": str(write_kubeconfig(tmp_path / "a", cluster, {"token": f"{CANARY}\n{CANARY}"}))},
        {"kubeconfig": str(write_kubeconfig(tmp_path / "b", cluster, {})), "api_key": f"{CANARY}\x00{CANARY}"},
    ]
    for connection in given:
        run = look(namespace, **connection)
        assert run.failed
        assert run["error"]["refused"] is True
        assert CANARY not in tell(run) + run.stderr


def test_a_token_file_comes_before_a_token(namespace: Namespace, token: str, cluster: Json, tmp_path: Path) -> None:
    """As kubectl has it."""
    (tmp_path / "token").write_text(f"{token}\n", encoding="utf-8")
    user = {"token": CANARY, "tokenFile": str(tmp_path / "token")}
    run = look(namespace, kubeconfig=str(write_kubeconfig(tmp_path / "kubeconfig", cluster, user)))
    assert not run.failed, run.msg


ADDRESS = "10.77.0.1"
"""Of the lab's network: what is sent to loopback does not leave the machine, and is allowed."""


@pytest.fixture
def listener() -> Iterator[tuple[str, list[bytes]]]:
    """A server without TLS, by its URL, and all that it was sent."""
    received: list[bytes] = []
    server = socket.create_server((ADDRESS, 0))

    def accept() -> None:
        while True:
            try:
                connection, _address = server.accept()
            except OSError:
                return  # the test is over
            with connection:
                received.append(connection.recv(65536))
                connection.sendall(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    yield f"http://{ADDRESS}:{server.getsockname()[1]}", received
    server.shutdown(socket.SHUT_RDWR)
    server.close()
    thread.join(10)


def test_a_token_is_never_sent_without_tls(
    namespace: Namespace, listener: tuple[str, list[bytes]], tmp_path: Path
) -> None:
    """Neither as option nor from a kubeconfig: a refusal, and nothing of it on the wire."""
    url, received = listener
    kubeconfig = write_kubeconfig(tmp_path / "kubeconfig", {"server": url}, {"token": CANARY})
    for connection in ({"host": url, "api_key": CANARY}, {"kubeconfig": str(kubeconfig)}):
        run = look(namespace, **connection)
        assert run.failed
        assert CANARY not in tell(run)
    assert CANARY.encode() not in b"".join(received)


# -- kubeconfigs that kubectl takes -----------------------------------------------------------------------------------


def wrap(text: str) -> str:
    """Return base64 in lines, as a block of YAML has it."""
    return "\n".join(text[start : start + 64] for start in range(0, len(text), 64)) + "\n"


def test_base64_in_lines_and_comments_that_are_not_ascii(
    namespace: Namespace, token: str, cluster: Json, tmp_path: Path
) -> None:
    """The authority as a block of YAML, and after a comment with an umlaut."""
    authority = cluster["certificate-authority-data"]
    commented = base64.b64encode("# Zürich, CA für alles\n".encode() + base64.b64decode(authority)).decode()
    for data in (wrap(authority), commented):
        entry = {**cluster, "certificate-authority-data": data}
        run = look(namespace, kubeconfig=str(write_kubeconfig(tmp_path / "kubeconfig", entry, {"token": token})))
        assert not run.failed, run.msg


def test_an_empty_file_among_several_is_no_obstacle(
    namespace: Namespace, token: str, cluster: Json, tmp_path: Path
) -> None:
    """Nor one that does not exist: the others have what is needed."""
    empty = tmp_path / "empty"
    empty.touch()
    filled = write_kubeconfig(tmp_path / "filled", cluster, {"token": token})
    env = {"KUBECONFIG": f"{empty}:{tmp_path / 'absent'}:{filled}"}
    run = look(namespace, kubeconfig=None, env=env)
    assert not run.failed, run.msg


def test_users_clusters_and_contexts_may_be_in_files_of_their_own(
    namespace: Namespace, token: str, cluster: Json, tmp_path: Path
) -> None:
    """With paths relative to the file that names them."""
    whole = describe_kubeconfig({"server": cluster["server"], "certificate-authority": "ca.pem"}, {"token": token})
    folder = tmp_path / "cluster"
    folder.mkdir()
    (folder / "ca.pem").write_bytes(base64.b64decode(cluster["certificate-authority-data"]))
    parts = {"clusters": folder / "config", "users": tmp_path / "users", "contexts": tmp_path / "contexts"}
    for key, path in parts.items():
        write_yaml(path, {"apiVersion": "v1", "kind": "Config", key: whole[key]})
    write_yaml(tmp_path / "current", {"apiVersion": "v1", "kind": "Config", "current-context": "lab"})
    env = {"KUBECONFIG": ":".join(map(str, [*parts.values(), tmp_path / "current"]))}
    run = look(namespace, kubeconfig=None, env=env)
    assert not run.failed, run.msg


def test_an_intermediate_authority_is_enough(namespace: Namespace, tmp_path: Path) -> None:
    """The certificate-authority need not be one that signs itself; the client of Kubernetes takes it."""
    chain = make_chain(tmp_path)
    with TlsServer(chain) as url:
        connection = {"server": url, "certificate-authority": str(chain / "intermediate.crt")}
        run = look(namespace, kubeconfig=str(write_kubeconfig(tmp_path / "kubeconfig", connection, {})))
        other = {"server": url, "certificate-authority": str(chain / "stranger.crt")}
        untrusted = look(namespace, kubeconfig=str(write_kubeconfig(tmp_path / "other", other, {})))
    assert "404" in run.msg, run.msg
    assert "certificate" in untrusted.msg


# -- proxies ----------------------------------------------------------------------------------------------------------


def test_the_proxy_of_the_environment_is_used(namespace: Namespace, token: str, cluster: Json, tmp_path: Path) -> None:
    """HTTPS_PROXY as kubectl has it, in small letters too; NO_PROXY by address, by network and by port."""
    kubeconfig = str(write_kubeconfig(tmp_path / "kubeconfig", cluster, {"token": token}))
    target = namespace.facts["server"].removeprefix("https://")
    host = target.partition(":")[0]
    with ForwardProxy() as proxy:
        for name in ("HTTPS_PROXY", "https_proxy"):
            proxy.targets.clear()
            run = look(namespace, kubeconfig=kubeconfig, env={**NO_PROXY_SET, name: proxy.url})
            assert not run.failed, run.msg
            assert set(proxy.targets) == {target}, name
        proxy.targets.clear()
        for exception in (host, "10.0.0.0/8", f"example.com,{target}", "*"):
            env = {**NO_PROXY_SET, "HTTPS_PROXY": proxy.url, "NO_PROXY": exception}
            run = look(namespace, kubeconfig=kubeconfig, env=env)
            assert not run.failed, run.msg
            assert proxy.targets == [], exception


def test_the_proxy_of_the_kubeconfig_comes_first(
    namespace: Namespace, token: str, cluster: Json, tmp_path: Path
) -> None:
    """With credentials of its own, which are in no message."""
    target = namespace.facts["server"].removeprefix("https://")
    with ForwardProxy(credentials=f"user:{CANARY}") as proxy:
        entry = {**cluster, "proxy-url": f"http://user:{CANARY}@{proxy.address}"}
        kubeconfig = str(write_kubeconfig(tmp_path / "kubeconfig", entry, {"token": token}))
        env = {**NO_PROXY_SET, "HTTPS_PROXY": "http://127.0.0.1:1"}
        run = look(namespace, kubeconfig=kubeconfig, env=env)
        assert not run.failed, run.msg
        assert set(proxy.targets) == {target}
        wrong = {**cluster, "proxy-url": f"http://user:{CANARY}x@{proxy.address}"}
        refused = look(namespace, kubeconfig=str(write_kubeconfig(tmp_path / "wrong", wrong, {"token": token})))
    assert refused.failed
    assert "407" in refused.msg
    assert CANARY not in tell(refused)


def test_a_start_is_waited_for_through_a_proxy(namespace: Namespace, token: str, cluster: Json, tmp_path: Path) -> None:
    """Watches go through it as well."""
    apply_ready(namespace, namespace.workload("w"))
    kubeconfig = str(write_kubeconfig(tmp_path / "kubeconfig", cluster, {"token": token}))
    with ForwardProxy() as proxy:
        options: Json = {"kubeconfig": kubeconfig, "env": {**NO_PROXY_SET, "HTTPS_PROXY": proxy.url}, "timeout": 120}
        for run in (stop(namespace, "StatefulSet/w", **options), start(namespace, "StatefulSet/w", **options)):
            assert not run.failed, run.msg
        assert proxy.targets
