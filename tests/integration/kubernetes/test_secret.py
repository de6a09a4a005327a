# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""k8s_secret on a real cluster: only declared keys change, and no value is ever told."""

from __future__ import annotations

import base64
import datetime
import itertools
import json
from collections.abc import Callable
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from support.kubernetes_account import read_rules
from support.playbooks import PlaybookRun
from support.rival_proxy import Rival, RivalProxy

from .conftest import Namespace

pytestmark = pytest.mark.lab("kubernetes")
Json = dict[str, Any]
Connect = Callable[..., Json]
CANARY = "canary-98f13708"
CREATING = [{"apiGroups": [""], "resources": ["secrets"], "verbs": ["create"]}]


def read_values(namespace: Namespace, name: str = "api") -> dict[str, str]:
    """Return what the Secret has."""
    data = namespace.get("Secret", name).get("data") or {}
    return {key: base64.b64decode(value).decode() for key, value in data.items()}


def put(namespace: Namespace, values: dict[str, str], **fields: Any) -> None:
    """Have a Secret with these values."""
    data = {key: base64.b64encode(value.encode()).decode() for key, value in values.items()}
    namespace.apply({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "api"}, "data": data, **fields})


@pytest.mark.procedure("C27")
def test_made_changed_and_removed_by_key(namespace: Namespace, connect: Connect) -> None:
    """Predicted, done, and nothing to do: with the documented rights, and the right to create where it is made."""
    account = connect([*read_rules("Role", "lowtide-credentials"), *CREATING])
    texts = []
    for options, keys in (
        ({"data": {"token": CANARY}, "generate": ["session-key"]}, ["session-key", "token"]),
        ({"data": {"token": f"{CANARY}-2"}, "generate": ["session-key"]}, ["session-key", "token"]),
        ({"remove": ["token", "never-there"]}, ["session-key"]),
    ):
        before = {secret["metadata"]["name"] for secret in namespace.list("Secret")}
        predicted = namespace.module("k8s_secret", check=True, name="api", **options, **account)
        assert (predicted.rc, predicted.changed) == (0, True), predicted.result
        assert {secret["metadata"]["name"] for secret in namespace.list("Secret")} == before
        done = namespace.module("k8s_secret", name="api", **options, **account)
        assert (done.rc, done.changed, done["keys"]) == (0, True, keys), done.result
        assert (done["plan"], done["diff"]) == (predicted["plan"], predicted["diff"])
        values = read_values(namespace)
        assert sorted(values) == keys
        again = namespace.module("k8s_secret", name="api", **options, **account)
        assert (again.rc, again.changed) == (0, False), again.result
        assert read_values(namespace) == values
        results = [{**run.result, "invocation": None} for run in (predicted, done, again)]
        texts.append(json.dumps(results))
        assert not any(value in text for value in values.values() for text in texts)
    assert CANARY not in "".join(texts)


def test_what_others_have_set_stays(namespace: Namespace) -> None:
    """Also where they set it between the reading and the write: that fails, and nothing is written over it."""
    put(namespace, {"theirs": "1", "old": "x"}, type="Opaque")
    namespace.request("PATCH", "Secret", "api", {"metadata": {"labels": {"a": "b"}}}, type_="merge-patch+json")
    done = namespace.module("k8s_secret", name="api", data={"ours": CANARY})
    assert done.changed, done.result
    assert read_values(namespace) == {"theirs": "1", "old": "x", "ours": CANARY}
    assert namespace.get("Secret", "api")["metadata"]["labels"] == {"a": "b"}
    numbers = itertools.count(1)

    def interfere() -> None:
        if next(numbers) == 1:
            put(namespace, {"theirs": "2", "old": "x"})

    with RivalProxy(namespace.facts, Rival("PATCH", "/secrets/api", interfere, times=100)) as proxy:
        run = namespace.module("k8s_secret", name="api", data={"ours": f"{CANARY}-2"}, host=proxy.url)
    assert "another client has changed it" in run.msg, run.result
    assert read_values(namespace)["theirs"] == "2"
    assert read_values(namespace)["ours"] == CANARY


@pytest.mark.procedure("C27")
def test_refused_by_name(namespace: Namespace, connect: Connect) -> None:
    """Nothing has been changed then."""
    put(namespace, {"key": "1"}, immutable=True)
    owner = {
        "apiVersion": "external-secrets.io/v1",
        "kind": "ExternalSecret",
        "name": "x",
        "uid": "1",
        "controller": True,
    }
    data = {"key": base64.b64encode(b"1").decode()}
    metadata = {"name": "made", "ownerReferences": [owner]}
    namespace.apply({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": data})
    cases: list[tuple[Json, str]] = [
        ({"data": {"key": "2"}}, "it is immutable"),
        ({"name": "made", "data": {"key": "2"}}, "belongs to ExternalSecret"),
        ({"name": "nosuch", "data": {"key": "2"}, "create": False}, "it does not exist"),
        ({"data": {"key": ""}}, "its value is empty"),
        ({"data": {"key": "2"}, "remove": ["key"]}, "named twice"),
        ({"data": {"a/b": "2"}}, "not a key that a Secret can have"),
        ({}, "all of them are empty"),
        ({"data": {"key": "2"}, "type": "kubernetes.io/tls"}, "a type cannot be changed"),
    ]
    for options, words in cases:
        run = namespace.module("k8s_secret", **{"name": "api", **options})
        assert run.failed, options
        assert run["error"]["refused"], run.result
        assert words in run.msg, run.msg
    account = connect(read_rules("Role", "lowtide-credentials"))
    run = namespace.module("k8s_secret", check=True, name="new", generate=["key"], **account)
    assert "may not create secrets" in run.msg, run.result
    assert read_values(namespace) == {"key": "1"}


def make_certificate(name: str, days: float) -> str:
    """Return a certificate that is valid for so many days from now, in PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(now - datetime.timedelta(days=90))
    made = builder.not_valid_after(now + datetime.timedelta(days=days)).sign(key, hashes.SHA256())
    return made.public_bytes(serialization.Encoding.PEM).decode()


@pytest.mark.procedure("A10")
def test_certificates_and_passwords_are_checked_by_the_role_health(
    namespace: Namespace, connect: Connect, ansible_playbook: Callable[..., PlaybookRun]
) -> None:
    """With the right to get these Secrets; in check mode the same."""
    chain = make_certificate("shop.example.org", 5) + make_certificate("authority", 400)
    put(namespace, {"tls.crt": chain, "tls.key": CANARY})
    account = connect([{"apiGroups": [""], "resources": ["secrets"], "resourceNames": ["api"], "verbs": ["get"]}])
    told = namespace.module("k8s_secret_info", names=["api"], **account)
    assert [entry["subject"] for entry in told["secrets"][0]["certificates"]] == ["CN=shop.example.org", "CN=authority"]
    assert CANARY not in json.dumps(told.result)
    inputs = {
        "health_checks": ["secrets"],
        "health_kubernetes_connection": account,
        "health_namespace": namespace.name,
    }
    for valid_for, words in (("4d", "WARN Secret"), ("30d", "FAIL Secret")):
        variables = {**inputs, "health_secrets": [{"name": "api", "valid_for": valid_for}]}
        tasks = [{"include_role": {"name": "lowtide.ops.health"}, "name": "Check"}]
        plays = [{"hosts": "localhost", "gather_facts": False, "vars": variables, "tasks": tasks}]
        run = ansible_playbook(plays, "--check")
        text = " ".join(run.stdout.split())
        assert (run.rc == 0) is (valid_for == "4d"), run.stdout
        assert f"{words} {namespace.name}/api, CN=shop.example.org: valid for 5.0 d" in text, run.stdout
        assert f"OK Secret {namespace.name}/api, CN=authority: valid for 400.0 d" in text
