# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Which server: options, environment, kubeconfigs, pods; and never silently another one."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from ansible_collections.lowtide.ops.plugins.module_utils._common.errors import Refusal
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.access import (
    ClusterAccess,
    resolve_access,
)
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.files import PemSource
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.proxies import ProxyUrl

from .access_cases import make_document, read_authorization, resolve, write_kubeconfig, write_text

POD = {"KUBERNETES_SERVICE_HOST": "10.96.0.1", "KUBERNETES_SERVICE_PORT": "6443"}


def resolve_in_pod(folder: Path, options: dict[str, Any], environ: dict[str, str] | None = None) -> ClusterAccess:
    """In a pod whose service account is in ``sa``."""
    write_text(folder / "sa" / "token", "podtoken\n")
    environment = {"HOME": str(folder), **POD, **(environ or {})}
    return resolve_access(options, environ=environment, in_pod_root=str(folder / "sa"))


# --- which server ---------------------------------------------------------------------------------------------------


def test_kubeconfig_says_everything(tmp_path: Path) -> None:
    """Server, authority, name, proxy, identity."""
    cluster = {
        "server": "https://api:6443/k8s/clusters/c-1/",
        "certificate-authority": "ca.crt",
        "tls-server-name": "kubernetes",
        "proxy-url": "http://proxy:3128",
    }
    access = resolve(tmp_path, {"kubeconfig": write_kubeconfig(tmp_path, cluster=cluster)})
    assert (access.server, access.address) == ("https://api:6443/k8s/clusters/c-1", ("api", 6443))
    assert (access.base_path, access.secure, access.verify) == ("/k8s/clusters/c-1", True, True)
    assert (access.server_name, access.proxy) == ("kubernetes", ProxyUrl("http", "proxy", 3128))
    assert access.trust.ca == PemSource(path=str(tmp_path / "ca.crt"))
    assert access.source == f"context 'demo' of kubeconfig {tmp_path}/config"
    assert read_authorization(access) == "Bearer t0ken"
    assert (access.can_renew, access.warnings, access.impersonation) == (False, [], ())


def test_options_override_the_kubeconfig(tmp_path: Path) -> None:
    """Each of them."""
    cluster = {
        "certificate-authority": "ca.crt",
        "tls-server-name": "kubernetes",
        "proxy-url": "http://proxy:3128",
        "insecure-skip-tls-verify": True,
    }
    options = {
        "kubeconfig": write_kubeconfig(tmp_path, cluster=cluster),
        "ca_cert": "/my/ca",
        "tls_server_name": "mine",
        "proxy": "socks5://my-proxy",
        "validate_certs": True,
        "api_key": "mine",
    }
    access = resolve(tmp_path, options)
    assert (access.trust.ca.path, access.server_name, access.verify) == ("/my/ca", "mine", True)
    assert access.proxy == ProxyUrl("socks5", "my-proxy", 1080)
    assert read_authorization(access) == "Bearer mine"
    assert not resolve(tmp_path, {"kubeconfig": options["kubeconfig"]}).verify
    assert not resolve(tmp_path, {"host": "https://h", "validate_certs": False}).verify


def test_a_certificate_that_is_not_verified_is_a_warning(tmp_path: Path) -> None:
    """Each time, whoever said so; without TLS there is none."""
    access = resolve(tmp_path, {"host": "https://h", "validate_certs": False})
    assert access.warnings == ["The certificate of API server https://h is not verified (validate_certs is false)"]
    assert resolve(tmp_path, {"host": "http://127.0.0.1", "validate_certs": False}).warnings == []


def test_host_wins_over_the_kubeconfig(tmp_path: Path) -> None:
    """And nothing of it is used; IPv6 and ports are understood."""
    path = write_kubeconfig(tmp_path)
    access = resolve(tmp_path, {"kubeconfig": path, "host": "https://[fd00::1]"})
    assert (access.address, access.source, read_authorization(access)) == (("fd00::1", 443), "the option host", "")
    assert resolve(tmp_path, {"host": "http://127.0.0.1"}).address == ("127.0.0.1", 80)


@pytest.mark.parametrize("name", ["kubeconfig", "context", "host", "api_key", "username", "client_cert", "ca_cert"])
def test_an_empty_option_is_refused(tmp_path: Path, name: str) -> None:
    """It would mean something else than what was meant."""
    with pytest.raises(Refusal, match=f"option {name}: it is empty"):
        resolve(tmp_path, {"host": "https://h", name: ""})


def test_host_and_context_contradict(tmp_path: Path) -> None:
    """No kubeconfig is read with host."""
    with pytest.raises(Refusal, match="context 'prod' from the option context: the option host is given as well"):
        resolve(tmp_path, {"host": "https://h", "context": "prod"})


def test_nothing_given(tmp_path: Path) -> None:
    """The refusal names the options, and where it looked."""
    with pytest.raises(Refusal, match=r"KUBECONFIG is not set, and there is no ~/.kube/config. Set kubeconfig"):
        resolve(tmp_path)


def test_usual_place(tmp_path: Path) -> None:
    """~/.kube/config; one that was only touched is none."""
    write_kubeconfig(tmp_path / ".kube")
    assert resolve(tmp_path).server == "https://10.0.0.1:6443"
    for text in ("", "# nothing\n", "apiVersion: v1\nkind: Config\nclusters: []\ncontexts: null\n"):
        write_text(tmp_path / ".kube" / "config", text)
        with pytest.raises(Refusal, match=r"there is no ~/\.kube/config"):
            resolve(tmp_path)


def test_kubeconfig_variable(tmp_path: Path) -> None:
    """Several files, of which some may be missing or empty; of two contexts or entries the first counts."""
    write_kubeconfig(tmp_path / ".kube")
    first = write_text(tmp_path / "first", "")
    second = write_text(tmp_path / "second", "current-context: demo\nusers: [{name: u, user: {token: second}}]\n")
    third = write_kubeconfig(tmp_path / "sub", "third", cluster={"certificate-authority": "ca.crt"})
    access = resolve(tmp_path, {}, {"KUBECONFIG": f"{first}:/nowhere::{second}:{third}"})
    assert read_authorization(access) == "Bearer second"
    assert access.trust.ca.path == str(tmp_path / "sub" / "ca.crt")
    assert access.source == f"context 'demo' of kubeconfig {first}:{second}:{third}"


def test_the_first_current_context_counts(tmp_path: Path) -> None:
    """As with kubectl; contexts of the later files are there as well."""
    first = write_kubeconfig(tmp_path, "first")
    other = make_document(cluster={"server": "https://other"})
    other["current-context"] = other["contexts"][0]["name"] = "other"
    other["contexts"][0]["context"]["cluster"] = other["clusters"][0]["name"] = "d"
    second = write_text(tmp_path / "second", yaml.safe_dump(other))
    assert resolve(tmp_path, {}, {"KUBECONFIG": f"{first}:{second}"}).server == "https://10.0.0.1:6443"
    assert resolve(tmp_path, {}, {"KUBECONFIG": f"{second}:{first}"}).server == "https://other"
    assert resolve(tmp_path, {"context": "other"}, {"KUBECONFIG": f"{first}:{second}"}).server == "https://other"


@pytest.mark.parametrize("context", [None, "prod"])
def test_kubeconfig_variable_without_a_file_is_refused(tmp_path: Path, context: str | None) -> None:
    """~/.kube/config is not read instead."""
    write_kubeconfig(tmp_path / ".kube")
    with pytest.raises(
        Refusal, match="kubeconfig /nowhere:/neither from the environment variable KUBECONFIG: there is no"
    ):
        resolve(tmp_path, {"context": context}, {"KUBECONFIG": "/nowhere:/neither"})


def test_kubeconfig_option(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A path with ~ and variables, a list, several in one text, a mapping."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PLACE", "place")
    path = write_kubeconfig(tmp_path / "place")
    empty = write_text(tmp_path / "empty", "")
    with_colon = write_kubeconfig(tmp_path / "a:b")
    for value in ("~/place/config", "~/$PLACE/config", [empty, path], (path,), f"{empty}:{path}", with_colon):
        assert resolve(tmp_path, {"kubeconfig": value}).server == "https://10.0.0.1:6443"
    access = resolve(tmp_path, {"kubeconfig": make_document()})
    assert access.source == "context 'demo' of kubeconfig given as a mapping"


@pytest.mark.parametrize("value", ["/nowhere", ["/nowhere"], "CONFIG:/nowhere", ["CONFIG", "/nowhere"]])
def test_kubeconfig_option_that_names_no_file_is_refused(tmp_path: Path, value: Any) -> None:
    """Each file must be there, unlike those of the variable."""
    path = write_kubeconfig(tmp_path)
    value = (
        value.replace("CONFIG", path) if isinstance(value, str) else [item.replace("CONFIG", path) for item in value]
    )
    with pytest.raises(Refusal, match="kubeconfig /nowhere from the option kubeconfig: there is no such file"):
        resolve(tmp_path, {"kubeconfig": value})


def test_kubeconfig_option_without_files_is_refused(tmp_path: Path) -> None:
    """An empty list is no way to say nothing."""
    write_kubeconfig(tmp_path / ".kube")
    with pytest.raises(Refusal, match="it is empty"):
        resolve(tmp_path, {"kubeconfig": []})
    with pytest.raises(Refusal, match=r"it has no contexts\. Set the option context"):
        resolve(tmp_path, {"kubeconfig": {}})


def test_context_without_a_kubeconfig_is_refused(tmp_path: Path) -> None:
    """Outside of a pod too."""
    with pytest.raises(
        Refusal, match="context 'prod' from the option context: there is no kubeconfig that could have it"
    ):
        resolve(tmp_path, {"context": "prod"})


# --- the environment of kubernetes.core -----------------------------------------------------------------------------


def test_environment_of_awx(tmp_path: Path) -> None:
    """What its credential type for bearer tokens sets."""
    environ = {
        "K8S_AUTH_HOST": "https://h:6443",
        "K8S_AUTH_API_KEY": "fromenv",
        "K8S_AUTH_VERIFY_SSL": "False",
        "K8S_AUTH_SSL_CA_CERT": "/env/ca",
    }
    access = resolve(tmp_path, {}, environ)
    assert (access.server, access.source) == ("https://h:6443", "the environment variable K8S_AUTH_HOST")
    assert (read_authorization(access), access.verify, access.trust.ca.path) == ("Bearer fromenv", False, "/env/ca")
    override = {"api_key": "mine", "validate_certs": True, "ca_cert": "/my/ca"}
    access = resolve(tmp_path, override, environ)
    assert (read_authorization(access), access.verify, access.trust.ca.path) == ("Bearer mine", True, "/my/ca")


def test_environment_of_every_option(tmp_path: Path) -> None:
    """With kubernetes.core's names, of which some are not the options'."""
    environ = {
        "K8S_AUTH_KUBECONFIG": write_kubeconfig(tmp_path),
        "K8S_AUTH_CONTEXT": "demo",
        "K8S_AUTH_USERNAME": "me",
        "K8S_AUTH_PASSWORD": "pw",
        "K8S_AUTH_CERT_FILE": "/env/cert",
        "K8S_AUTH_KEY_FILE": "/env/key",
        "K8S_AUTH_PROXY": "http://proxy",
        "K8S_AUTH_NO_PROXY": "example.org",
        "K8S_AUTH_TLS_SERVER_NAME": "name",
        "K8S_AUTH_IMPERSONATE_USER": "jane",
        "K8S_AUTH_IMPERSONATE_GROUPS": "a, b,",
    }
    access = resolve(tmp_path, {}, environ)
    assert (read_authorization(access), access.server_name) == ("Basic bWU6cHc=", "name")
    assert access.proxy == ProxyUrl("http", "proxy", 80)
    assert access.impersonation == (
        ("Impersonate-User", "jane"),
        ("Impersonate-Group", "a"),
        ("Impersonate-Group", "b"),
    )
    assert resolve(tmp_path, {}, {**environ, "K8S_AUTH_NO_PROXY": "10.0.0.0/8"}).proxy is None


@pytest.mark.parametrize(
    ("variable", "other"),
    [("K8S_AUTH_VERIFY_SSL", "K8S_AUTH_VALIDATE_CERTS"), ("K8S_AUTH_VALIDATE_CERTS", "K8S_AUTH_VERIFY_SSL")],
)
@pytest.mark.parametrize(("text", "verify"), [("no", False), ("0", False), ("OFF", False), ("true", True), ("1", True)])
def test_environment_flags(tmp_path: Path, variable: str, other: str, text: str, verify: bool) -> None:
    """Under both names; an empty one is none."""
    assert resolve(tmp_path, {"host": "https://h"}, {variable: text, other: ""}).verify is verify


def test_environment_flag_that_is_none(tmp_path: Path) -> None:
    """Not guessed."""
    with pytest.raises(Refusal, match="the environment variable K8S_AUTH_VERIFY_SSL: it is 'maybe', not a boolean"):
        resolve(tmp_path, {"host": "https://h"}, {"K8S_AUTH_VERIFY_SSL": "maybe"})


FOREIGN = {"K8S_AUTH_HOST": "https://env", "K8S_AUTH_API_KEY": "envtoken", "K8S_AUTH_CA_CERT": "/env/ca"}


def test_a_kubeconfig_of_the_task_gets_nothing_of_another_cluster(tmp_path: Path) -> None:
    """Neither its address nor its token, which would be sent to the wrong server; its proxy it does."""
    options = {"kubeconfig": write_kubeconfig(tmp_path)}
    access = resolve(tmp_path, options, {**FOREIGN, "K8S_AUTH_PROXY": "http://proxy"})
    assert (access.server, read_authorization(access)) == ("https://10.0.0.1:6443", "Bearer t0ken")
    assert access.trust.ca.path is None
    assert access.proxy is not None
    with pytest.raises(Refusal, match="no context 'other'"):
        resolve(tmp_path, options, {**FOREIGN, "K8S_AUTH_CONTEXT": "other"})


def test_a_context_of_the_task_is_looked_up_in_the_environments_kubeconfig(tmp_path: Path) -> None:
    """And not at the host that the environment names."""
    environ = {**FOREIGN, "K8S_AUTH_KUBECONFIG": write_kubeconfig(tmp_path)}
    access = resolve(tmp_path, {"context": "demo"}, environ)
    assert (access.server, read_authorization(access)) == ("https://10.0.0.1:6443", "Bearer t0ken")
    with pytest.raises(Refusal, match="there is no kubeconfig that could have it"):
        resolve(tmp_path, {"context": "demo"}, FOREIGN)


def test_a_host_of_the_task_takes_the_environments_identity(tmp_path: Path) -> None:
    """It has none of its own; the environment's context belongs to a kubeconfig that is not read."""
    access = resolve(tmp_path, {"host": "https://h"}, {**FOREIGN, "K8S_AUTH_CONTEXT": "x", "K8S_AUTH_KUBECONFIG": "/x"})
    assert (access.server, read_authorization(access)) == ("https://h", "Bearer envtoken")


# --- in a pod -------------------------------------------------------------------------------------------------------


def test_service_account_of_the_pod(tmp_path: Path) -> None:
    """Its address, authority and token, which is read again when it is renewed."""
    access = resolve_in_pod(tmp_path, {})
    assert (access.server, access.source) == ("https://10.96.0.1:6443", "the pod's service account")
    assert (access.trust.ca.path, access.verify) == (str(tmp_path / "sa" / "ca.crt"), True)
    assert read_authorization(access) == "Bearer podtoken"
    write_text(tmp_path / "sa" / "token", "renewed")
    assert (access.can_renew, read_authorization(access)) == (True, "Bearer podtoken")
    assert read_authorization(access, renew=True) == "Bearer renewed"
    assert resolve_in_pod(tmp_path, {}, {"KUBERNETES_SERVICE_HOST": "fd00::1"}).address == ("fd00::1", 6443)
    assert resolve_in_pod(tmp_path, {}, {"KUBERNETES_SERVICE_PORT": ""}).address == ("10.96.0.1", 443)


def test_options_override_the_pods_own(tmp_path: Path) -> None:
    """Each of them."""
    options = {"api_key": "mine", "ca_cert": "/my/ca", "validate_certs": False, "impersonate_user": "jane"}
    access = resolve_in_pod(tmp_path, options)
    assert (read_authorization(access), access.trust.ca.path, access.verify) == ("Bearer mine", "/my/ca", False)
    assert access.impersonation == (("Impersonate-User", "jane"),)
    assert access.server == "https://10.96.0.1:6443"


def test_in_a_pod_another_cluster_is_never_taken_silently(tmp_path: Path) -> None:
    """A context or a KUBECONFIG that cannot be found is not the pod's own cluster."""
    with pytest.raises(Refusal, match="context 'prod'"):
        resolve_in_pod(tmp_path, {"context": "prod"})
    with pytest.raises(Refusal, match="context 'prod'"):
        resolve_in_pod(tmp_path, {}, {"K8S_AUTH_CONTEXT": "prod"})
    with pytest.raises(Refusal, match="kubeconfig /nowhere"):
        resolve_in_pod(tmp_path, {}, {"KUBECONFIG": "/nowhere"})
    with pytest.raises(Refusal, match="kubeconfig /nowhere"):
        resolve_in_pod(tmp_path, {"kubeconfig": "/nowhere"})
    with pytest.raises(Refusal, match="no contexts"):
        resolve_in_pod(tmp_path, {}, {"KUBECONFIG": write_text(tmp_path / "empty", "")})
    with pytest.raises(Refusal, match="KUBERNETES_SERVICE_HOST is not set"):
        resolve_in_pod(tmp_path, {}, {"KUBERNETES_SERVICE_HOST": ""})


def test_in_a_pod_a_kubeconfig_or_host_wins(tmp_path: Path) -> None:
    """The service account is for when nothing else is said."""
    assert resolve_in_pod(tmp_path, {"host": "https://h"}).server == "https://h"
    write_text(tmp_path / ".kube" / "config", "")
    assert resolve_in_pod(tmp_path, {}).server == "https://10.96.0.1:6443"
    write_kubeconfig(tmp_path / ".kube")
    assert resolve_in_pod(tmp_path, {}).server == "https://10.0.0.1:6443"


# --- addresses and proxies ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "server",
    ["ftp://h", "h:6443", "https://", "https://h:64x3", "https://[fd00::1:6443", "https://h/\t", "https://h:0"],
)
def test_addresses_that_are_none_are_refused(tmp_path: Path, server: str) -> None:
    """By option and by kubeconfig, before anything is sent."""
    with pytest.raises(Refusal, match="API server from the option host"):
        resolve(tmp_path, {"host": server})
    with pytest.raises(Refusal, match="API server from context 'demo'"):
        resolve(tmp_path, {"kubeconfig": make_document(cluster={"server": server})})


@pytest.mark.parametrize(
    "server", ["https://me:canary@h:6443", "https://me:canary@h:x", "me:canary@h", "https://:canary@h"]
)
def test_credentials_in_an_address_are_refused_and_not_printed(tmp_path: Path, server: str) -> None:
    """They have options of their own."""
    with pytest.raises(Refusal) as caught:
        resolve(tmp_path, {"host": server})
    assert "canary" not in str(caught.value)
    with pytest.raises(Refusal, match="it names no server"):
        resolve(tmp_path, {"kubeconfig": make_document(cluster={"server": ""})})


@pytest.mark.parametrize("server", ["https://h?x=1", "https://h/#x"])
def test_queries_in_an_address_are_refused(tmp_path: Path, server: str) -> None:
    """They would be lost."""
    with pytest.raises(Refusal, match="holds a user name, a query or a fragment"):
        resolve(tmp_path, {"host": server})


def test_precedence_of_proxies(tmp_path: Path) -> None:
    """Option, then proxy-url, then environment; no_proxy exempts from all of them, the variable only from the last."""
    environ = {"HTTPS_PROXY": "http://env", "NO_PROXY": "x"}
    with_proxy = {"kubeconfig": make_document(cluster={"proxy-url": "http://cluster"})}
    without = {"kubeconfig": make_document()}

    def find_host(options: dict[str, Any], environment: dict[str, str]) -> str | None:
        proxy = resolve(tmp_path, options, environment).proxy
        return proxy and proxy.host

    assert find_host({**with_proxy, "proxy": "http://option"}, environ) == "option"
    assert find_host(with_proxy, environ) == "cluster"
    assert find_host({**with_proxy, "proxy": ""}, environ) == "cluster"
    assert find_host(without, environ) == "env"
    assert find_host(without, {}) is None
    for options in ({**with_proxy, "proxy": "http://option"}, with_proxy, without):
        assert find_host({**options, "no_proxy": "a,10.0.0.0/8"}, environ) is None
    assert find_host({**without, "no_proxy": "a"}, {**environ, "NO_PROXY": "*"}) == "env"
    assert find_host(with_proxy, {**environ, "NO_PROXY": "*"}) == "cluster"
    assert find_host(without, {**environ, "NO_PROXY": "10.0.0.0/8"}) is None


@pytest.mark.parametrize(
    ("options", "problem"),
    [({"proxy": "ftp://me:canary@h"}, "proxy from the option proxy"), ({}, "proxy from proxy-url of cluster 'c'")],
)
def test_proxies_that_are_none_are_refused(tmp_path: Path, options: dict[str, str], problem: str) -> None:
    """Without their password."""
    cluster = {} if options else {"proxy-url": "http://me:canary@h:x"}
    with pytest.raises(Refusal, match=problem) as caught:
        resolve(tmp_path, {"kubeconfig": make_document(cluster=cluster), **options})
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize("environ_only", [True, False])
def test_the_real_environment_is_the_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, environ_only: bool
) -> None:
    """When none is handed in."""
    for name in list(os.environ):
        if name.startswith("K8S_AUTH_"):
            monkeypatch.delenv(name)
    path = write_kubeconfig(tmp_path)
    monkeypatch.setenv("KUBECONFIG", path if environ_only else "/nowhere")
    assert resolve_access({} if environ_only else {"kubeconfig": path}).server == "https://10.0.0.1:6443"
