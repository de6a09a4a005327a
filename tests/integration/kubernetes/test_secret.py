# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""k8s_secret on a real cluster: only declared keys change, and no value is ever told."""

from __future__ import annotations

import base64
import itertools
import json
from collections.abc import Callable
from typing import Any

import pytest

from support.kubernetes_account import read_rules
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
