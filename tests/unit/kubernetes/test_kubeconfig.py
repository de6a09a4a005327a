# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Kubeconfigs are read as kubectl reads them, and what is not understood is refused by name."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.lowtide.ops.plugins.module_utils._common.errors import Refusal
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.files import PemSource, extract_certificates
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.kubeconfig import (
    Entry,
    Kubeconfig,
    find_secrets,
    limit_masking,
)

from .access_cases import make_document, write_kubeconfig, write_text

CERTIFICATE = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{", "it is not YAML in line"),
        ("a: 1\n\tb: 2", "it is not YAML in line 2, column 1"),
        ("[]", "it holds a list, not a mapping"),
        ("words", "it holds a str, not a mapping"),
        ("", "it has no current-context, and the option context is not given; it has no contexts"),
        ("contexts: [{name: a}, {name: b}]", "it has a, b. Set the option context"),
        ("current-context: a", "it has no context 'a'; it has none"),
        ("current-context: a\ncontexts: [{name: b}]", "it has no context 'a'; it has b"),
        ("current-context: a\ncontexts: {a: 1}", "its contexts are not a list of mappings"),
        ("current-context: a\ncontexts: [1]", "its contexts are not a list of mappings"),
        ("current-context: a\ncontexts: [{name: a, context: x}]", "context 'a' of kubeconfig .* it is a str"),
        ("current-context: a\ncontexts: [{name: a}]", "it has no cluster ''; it has none"),
        ("current-context: a\ncontexts: [{name: a, context: {cluster: 1}}]", "its cluster is a int, not a text"),
        (
            "current-context: a\ncontexts: [{name: a, context: {cluster: c, user: u}}]\nclusters: [{name: c}]",
            "it has no user 'u'; it has none",
        ),
    ],
)
def test_broken_files_are_refused(tmp_path: Path, text: str, problem: str) -> None:
    """With the path, and what there is instead."""
    path = write_text(tmp_path / "config", text)
    with pytest.raises(Refusal, match=problem) as caught:
        Kubeconfig([path]).select("")
    assert path in str(caught.value)


def test_broken_yaml_is_not_quoted(tmp_path: Path) -> None:
    """The line may hold a token."""
    path = write_text(tmp_path / "config", "users:\n- user: {token: canary\n- x")
    with pytest.raises(Refusal, match="not YAML") as caught:
        Kubeconfig([path])
    assert "canary" not in str(caught.value)


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    """With the reason."""
    with pytest.raises(Refusal, match=f"file {tmp_path}: it cannot be read: Is a directory"):
        Kubeconfig([str(tmp_path)])
    with pytest.raises(Refusal, match="null byte"):
        Kubeconfig(["a\0b"])


@pytest.mark.parametrize(
    ("part", "title"), [("user", "user 'u'"), ("cluster", "cluster 'c'"), ("context", "context 'demo'")]
)
def test_unknown_keys_are_refused_by_name(part: str, title: str) -> None:
    """Ignoring one could mean another identity or another server; their values are not shown."""
    document = make_document(**{part: {"toke": "canary", "zz": "canary", "extensions": []}})
    with pytest.raises(Refusal, match=f"{title} of kubeconfig given as a mapping: it has toke, zz, which") as caught:
        Kubeconfig(document).select("")
    assert "canary" not in str(caught.value)


def test_every_key_that_kubectl_writes_is_known() -> None:
    """Of clusters, users and contexts."""
    user = dict.fromkeys(
        [
            "client-certificate",
            "client-certificate-data",
            "client-key",
            "client-key-data",
            "token",
            "tokenFile",
            "as",
            "as-uid",
            "as-groups",
            "as-user-extra",
            "username",
            "password",
            "auth-provider",
            "exec",
            "extensions",
        ]
    )
    cluster = dict.fromkeys(
        [
            "tls-server-name",
            "insecure-skip-tls-verify",
            "certificate-authority",
            "certificate-authority-data",
            "proxy-url",
            "disable-compression",
            "extensions",
        ]
    )
    document = make_document(user=user, cluster=cluster, context={"namespace": "n", "extensions": None})
    selection = Kubeconfig(document).select("demo")
    assert (
        selection.name,
        selection.user.get_text("token"),
        selection.cluster.get_flag("insecure-skip-tls-verify"),
    ) == (
        "demo",
        "",
        False,
    )


def test_a_context_without_a_user_is_nobody() -> None:
    """As kubectl proxy is used."""
    assert Kubeconfig(make_document(context={"user": ""})).select("").user.values == {}


@pytest.mark.parametrize(
    ("key", "value", "problem"),
    [
        ("get_text", 12345, "its k is a int, not a text. Write it in quotes"),
        ("get_flag", "true", "its k is 'true'. Write true or false"),
        ("get_texts", "a", "its k is not a list of texts"),
        ("get_texts", [1], "its k is not a list of texts"),
        ("get_mapping", [], "its k is a list, not a mapping"),
        ("get_path", "ca.crt", "its k is the relative path ca.crt"),
    ],
)
def test_values_of_another_type_are_refused(key: str, value: Any, problem: str) -> None:
    """By the title of their entry."""
    with pytest.raises(Refusal, match=f"user 'u': {problem}"):
        getattr(Entry({"k": value}, title="user 'u'", folder=None), key)("k")


def test_values_that_are_not_there() -> None:
    """Null is the same as nothing."""
    entry = Entry({"k": None}, title="user 'u'", folder="/f")
    assert (entry.get_text("k"), entry.get_flag("k"), entry.get_texts("k"), entry.get_mapping("k")) == (
        "",
        False,
        [],
        {},
    )
    assert entry.get_path("k") is None
    assert not entry.get_pem("k")


def test_paths_are_those_of_the_file_that_names_them() -> None:
    """Absolute ones stay; inline data wins over a file."""
    entry = Entry({"a": "x/y", "b": "/z", "b-data": base64.b64encode(b"pem").decode()}, title="t", folder="/f")
    assert (entry.get_path("a"), entry.get_path("b")) == ("/f/x/y", "/z")
    assert (entry.get_pem("a"), entry.get_pem("b")) == (PemSource(path="/f/x/y"), PemSource(text="pem"))


def test_relative_kubeconfig_and_its_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the folder of the kubeconfig, not of the process."""
    write_kubeconfig(tmp_path / "sub", cluster={"certificate-authority": "ca.crt"})
    monkeypatch.chdir(tmp_path)
    cluster = Kubeconfig(["sub/config"]).select("").cluster
    monkeypatch.chdir("/")
    assert cluster.get_path("certificate-authority") == str(tmp_path / "sub" / "ca.crt")


def test_wrapped_base64_is_understood() -> None:
    """As a YAML block has it; UTF-8 in it is no fault."""
    data = base64.encodebytes(("é" * 80).encode()).decode().replace("\n", "\r\n")
    assert Entry({"k-data": data}, title="t", folder=None).get_pem("k").text == "é" * 80


@pytest.mark.parametrize("data", ["canary!", "abc"])
def test_data_that_is_no_base64_is_refused(data: str) -> None:
    """And not shown."""
    with pytest.raises(Refusal, match="k-data of user 'u': it is not base64") as caught:
        Entry({"k-data": data}, title="user 'u'", folder=None).get_pem("k")
    assert "canary" not in str(caught.value)


def test_certificates_are_taken_out_of_a_bundle() -> None:
    """Comments in any language stay behind."""
    text = f"# Zürich\n{CERTIFICATE}\nsubject=é\n{CERTIFICATE.replace('AAAA', 'BBBB')}\n-----BEGIN CERTIFICATE-----\n"
    assert extract_certificates(text) == f"{CERTIFICATE}\n{CERTIFICATE.replace('AAAA', 'BBBB')}"
    assert extract_certificates("nothing") == ""


SECRETS = {
    "token": "s-token",
    "password": "s-password",
    "client-key-data": "s-key",
    "exec": {"env": [{"name": "AWS_PROFILE", "value": "prod"}, {"name": "APP_SECRET", "value": "s-env"}]},
    "auth-provider": {"config": {"id-token": "s-id", "refresh-token": "s-refresh", "client-secret": "s-client"}},
}


def test_secrets_of_a_kubeconfig_are_found() -> None:
    """Of every user in it; a profile's name is none."""
    assert find_secrets(make_document(user={**SECRETS, "username": "me"})) == {
        "s-token",
        "s-password",
        "s-key",
        "s-env",
        "s-id",
        "s-refresh",
        "s-client",
    }
    assert find_secrets({"token": " ", "password": None}) == set()


def test_masking_is_limited_to_secrets() -> None:
    """Ansible masks every text of an option that holds some, also paths and ``v1``."""
    masked = {"demo", "c", "u", "t0ken", "https://10.0.0.1:6443", "other"}
    limit_masking(masked, make_document())
    assert masked == {"t0ken", "other"}
    for value in ("/etc/config", ["/etc/config"]):
        masked = {"/etc/config", "other"}
        limit_masking(masked, value)
        assert masked == {"other"}
    limit_masking(masked, None)
    assert masked == {"other"}
