# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The client against the real API server, directly and through a proxy that fails: faults F5, F6 and F7.

What the double of unit tests (``support.memory_kubernetes``) says is said here by the server itself.
"""

from __future__ import annotations

import http.client
import json
import ssl
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from ansible_collections.lowtide.ops.plugins.module_utils._common.retry import Deadline
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.access import resolve_access
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.client import APPLY_PATCH, JSON_PATCH, Client
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.errors import (
    ApiError,
    Conflict,
    Forbidden,
    Invalid,
    NotFound,
    Unauthorized,
    WriteUnknown,
)
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.patches import Write, build_json_patch
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.resources import (
    collection_path,
    find_resource,
    object_path,
)
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.reviews import Right, require_rights
from support.http_proxy import upstream
from support.kubernetes_proxy import Fault, KubernetesProxy

from .conftest import Namespace

pytestmark = pytest.mark.lab("kubernetes")
Json = dict[str, Any]
OBJ = "ConfigMap x"
LATE = 25.0
"""Seconds that an end by a deadline of some takes on a busy machine at most; without it, it would be 30 and more."""
NOTE = "lowtide.ops/stopped"


class Place:
    """ConfigMaps of a test's namespace, seen by a client of its own."""

    def __init__(self, namespace: Namespace) -> None:
        self.namespace = namespace
        self.all = collection_path("ConfigMap", namespace.name)
        self.path = object_path("ConfigMap", namespace.name, "x")
        self.client = self.make_client()

    def make_client(self, *, host: str | None = None, seconds: float = 120, **options: Any) -> Client:
        """Directly as the administrator, or with ``host`` through a proxy."""
        connection = {"host": host} if host else {"kubeconfig": self.namespace.facts["kubeconfig"]}
        access = resolve_access({**connection, **options}, environ={})
        return Client(access, run_id="faults", deadline=Deadline(seconds))

    def create(self, name: str = "x", **data: str) -> Json:
        """A ConfigMap."""
        return self.client.create(self.all, make_map(name, **data), obj=name)


@pytest.fixture
def place(namespace: Namespace) -> Place:
    """A namespace with a client, after Kubernetes has added the ConfigMap that every namespace gets."""
    namespace.wait("its kube-root-ca.crt", lambda: bool(namespace.list("ConfigMap")))
    return Place(namespace)


def make_map(name: str, **data: str) -> Json:
    """A ConfigMap."""
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}


def set_value(value: str) -> Callable[[Json], Write | None]:
    """A decision that depends on the value that is there."""
    return lambda current: Write({"data": {"a": value}}, (("data", "a"),)) if current["data"]["a"] != value else None


# --- what the server means by a patch -------------------------------------------------------------------------------


def test_a_failed_test_of_a_json_patch_is_a_conflict(place: Place) -> None:
    """Of a value, of an absence, of another object; an invalid object is none."""
    current = place.create(a="1")

    def patch(*operations: Json) -> Json:
        return place.client.patch(place.path, list(operations), obj=OBJ, content_type=JSON_PATCH)

    for test in (
        {"op": "test", "path": "/data/a", "value": "2"},
        {"op": "test", "path": "/data/a", "value": None},
        {"op": "test", "path": "/data/none", "value": "1"},
        {"op": "test", "path": "/metadata/uid", "value": "other"},
        {"op": "test", "path": "/metadata/annotations/a", "value": None},
        {"op": "remove", "path": "/data/none"},
    ):
        with pytest.raises(Conflict, match="it is no longer as it was read"):
            patch(test, {"op": "add", "path": "/data/a", "value": "9"})
    for wrong in ({"path": "/metadata/labels", "value": {"a": "!"}}, {"path": "/data/a", "value": 5}):
        with pytest.raises(Invalid):
            patch({"op": "add", **wrong})
    assert place.client.get(place.path, obj=OBJ)["data"] == {"a": "1"}
    assert current["metadata"]["uid"]
    assert not Place(place.namespace).client.write_attempted


def test_a_test_for_null_is_a_test_for_absence(place: Place) -> None:
    """Of a key, and of a branch; and what was not there when it was read is set as a whole."""
    current = place.create(a="1")
    note = ("metadata", "annotations", NOTE)
    write = Write({"metadata": {"annotations": {NOTE: "1"}}}, (note, ("data", "none")))
    operations = build_json_patch(current, write)
    assert {"op": "test", "path": "/metadata/annotations", "value": None} in operations
    assert {"op": "test", "path": "/data/none", "value": None} in operations
    answer = place.client.patch(place.path, operations, obj=OBJ, content_type=JSON_PATCH)
    assert answer["metadata"]["annotations"] == {NOTE: "1"}
    with pytest.raises(Conflict):
        place.client.patch(place.path, operations, obj=OBJ, content_type=JSON_PATCH)
    write = Write({"metadata": {"annotations": {NOTE: None, "b/c": "~"}}}, (note,))
    answer, _sent = place.client.patch_with_retry(place.path, lambda _current: write, obj=OBJ)
    assert answer["metadata"]["annotations"] == {"b/c": "~"}


def test_any_text_can_be_tested(place: Place) -> None:
    """The server compares it as it is written, escapes and all."""
    text = '<é&>\u2028\u2029"\\ \n\t\r\x7f€ 🌊'
    place.create(a=text)
    answer, sent = place.client.patch_with_retry(place.path, set_value("plain"), obj=OBJ)
    assert (answer["data"], sent) == ({"a": "plain"}, True)


def test_the_field_manager_is_always_the_same(place: Place) -> None:
    """So that GitOps tools can name it."""
    place.create(a="1")
    place.client.patch(place.path, {"data": {"b": "2"}}, obj=OBJ)
    place.client.patch_with_retry(place.path, set_value("3"), obj=OBJ)
    managed = place.client.get(place.path, obj=OBJ)["metadata"]["managedFields"]
    assert {entry["manager"] for entry in managed} == {"lowtide.ops"}


def test_server_side_apply(place: Place) -> None:
    """Another manager's field is a conflict, unless it is taken over."""
    place.create(a="1")
    with pytest.raises(Conflict):
        place.client.patch(place.path, make_map("x", a="3"), obj=OBJ, content_type=APPLY_PATCH)
    forced = place.client.patch(place.path, make_map("x", a="3"), obj=OBJ, content_type=APPLY_PATCH, force=True)
    assert forced["data"] == {"a": "3"}


def test_the_scale_of_a_workload(place: Place) -> None:
    """Conditional on its replicas."""
    place.namespace.apply(place.namespace.workload("w", kind="Deployment", replicas=0))
    path = object_path("Deployment", place.namespace.name, "w", "scale")
    write = Write({"spec": {"replicas": 1}}, (("spec", "replicas"),))
    answer, sent = place.client.patch_with_retry(path, lambda _scale: write, obj="w")
    assert (answer["kind"], answer["spec"]["replicas"], sent) == ("Scale", 1, True)


def test_a_dry_run_changes_nothing(place: Place) -> None:
    """Of every kind of write; the server checks it all the same."""
    client = place.client
    assert client.create(place.all, make_map("x"), obj=OBJ, dry_run=True)["metadata"]["name"] == "x"
    with pytest.raises(NotFound):
        client.get(place.path, obj=OBJ)
    with pytest.raises(Invalid):
        client.create(place.all, make_map("X!"), obj=OBJ, dry_run=True)
    assert not client.write_attempted
    uid = place.create(a="1")["metadata"]["uid"]
    client = place.make_client()
    assert client.patch(place.path, {"data": {"a": "2"}}, obj=OBJ, dry_run=True)["data"] == {"a": "2"}
    assert client.patch_with_retry(place.path, set_value("2"), obj=OBJ, dry_run=True)[0]["data"] == {"a": "2"}
    client.delete(place.path, obj=OBJ, uid=uid, dry_run=True)
    assert (client.get(place.path, obj=OBJ)["data"], client.write_attempted) == ({"a": "1"}, False)


def test_deleting_has_preconditions(place: Place) -> None:
    """Another object, or another version of it, stays."""
    made = place.create()["metadata"]
    with pytest.raises(Conflict):
        place.client.delete(place.path, obj=OBJ, uid="other")
    with pytest.raises(Conflict):
        place.client.delete(place.path, obj=OBJ, version="1")
    place.client.delete(place.path, obj=OBJ, uid=made["uid"], version=made["resourceVersion"], grace_seconds=0)
    with pytest.raises(NotFound):
        place.client.delete(place.path, obj=OBJ)
    place.create()
    with pytest.raises(Conflict) as caught:
        place.create()
    assert caught.value.reason == "AlreadyExists"


def test_logs_are_read_as_lines(place: Place) -> None:
    """As the container wrote them."""
    container = {"name": "main", "image": place.namespace.facts["images"][0], "command": ["sh", "-c", "echo a; echo b"]}
    spec = {"containers": [container], "restartPolicy": "Never"}
    pods = collection_path("Pod", place.namespace.name)
    place.client.create(pods, {"kind": "Pod", "apiVersion": "v1", "metadata": {"name": "p"}, "spec": spec}, obj="p")
    place.namespace.wait("pod done", lambda: place.namespace.get("Pod", "p")["status"]["phase"] == "Succeeded")
    path = object_path("Pod", place.namespace.name, "p", "log")
    assert list(place.client.read_lines(path, obj="p", params={"follow": "true"})) == ["a", "b"]


# --- lists ----------------------------------------------------------------------------------------------------------


def test_lists_in_pages(place: Place, proxy: KubernetesProxy) -> None:
    """All of it once, also when a continuation has expired; and the version is one to watch from."""
    for number in range(5):
        place.create(f"m{number}")
    names = [f"m{number}" for number in range(5)]
    client = place.make_client(host=proxy.url)
    proxy.faults.append(Fault("LIST", path="continue=", status=410))
    listing = client.list(
        place.all, obj="ConfigMaps", params={"fieldSelector": "metadata.name!=kube-root-ca.crt"}, page=2
    )
    assert [item["metadata"]["name"] for item in listing.items] == names
    assert proxy.verbs["LIST"] == 2 + 3
    params = {"watch": "true", "resourceVersion": listing.version, "timeoutSeconds": "1"}
    assert list(client.stream(place.all, obj="ConfigMaps", params=params)) == []


# --- F5: down, failing, hanging, cut ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fault",
    [
        Fault("GET", times=3, status=500),
        Fault("GET", times=3, status=503),
        Fault("GET", times=3, reset="before"),
        Fault("GET", times=3, reset="after"),
        Fault("GET", times=3, reset="middle"),
    ],
    ids=["500", "503", "before", "after", "middle"],
)
def test_a_read_survives(place: Place, proxy: KubernetesProxy, fault: Fault) -> None:
    """Three faults in a row."""
    place.create(a="1")
    proxy.faults.append(fault)
    client = place.make_client(host=proxy.url)
    assert client.get(place.path, obj=OBJ)["data"] == {"a": "1"}
    assert (proxy.verbs["GET"], client.write_attempted) == (4, False)


@pytest.mark.parametrize(
    "fault",
    [
        Fault("GET", times=10_000, status=500),
        Fault("GET", times=10_000, reset="before"),
        Fault("GET", times=10_000, reset="middle"),
        Fault("GET", times=10_000, hang=30),
    ],
    ids=["500", "before", "middle", "hang"],
)
def test_a_read_ends_at_the_deadline(place: Place, proxy: KubernetesProxy, fault: Fault) -> None:
    """And without a storm of requests."""
    place.create(a="1")
    proxy.faults.append(fault)
    client = place.make_client(host=proxy.url, seconds=2)
    begun = time.monotonic()
    with pytest.raises(ApiError):
        client.get(place.path, obj=OBJ)
    assert time.monotonic() - begun < LATE
    assert proxy.verbs["GET"] <= 12


def test_a_server_that_is_down_ends_at_the_deadline(place: Place) -> None:
    """For writes too: nothing was sent."""
    with KubernetesProxy(place.namespace.facts["kubeconfig"]) as gone:
        url = gone.url
    for write in (False, True):
        client = place.make_client(host=url, seconds=1)
        begun = time.monotonic()
        with pytest.raises(ApiError, match="Connection refused") as caught:
            client.patch(place.path, {}, obj=OBJ) if write else client.get(place.path, obj=OBJ)
        assert time.monotonic() - begun < LATE
        assert (isinstance(caught.value, WriteUnknown), client.write_attempted) == (False, False)


@pytest.mark.parametrize("reset", ["before", "after", "middle"])
def test_a_write_whose_answer_is_lost_is_in_doubt(place: Place, proxy: KubernetesProxy, reset: str) -> None:
    """It is never sent twice; a decision that is made anew finds out."""
    place.create(a="1")
    proxy.faults.append(Fault("PATCH", reset=reset))
    client = place.make_client(host=proxy.url)
    with pytest.raises(WriteUnknown):
        client.patch(place.path, {"data": {"b": "1"}}, obj=OBJ)
    assert (proxy.verbs["PATCH"], client.write_attempted) == (1, True)
    proxy.faults.append(Fault("PATCH", reset=reset))
    answer, sent = client.patch_with_retry(place.path, set_value("2"), obj=OBJ)
    assert (answer["data"]["a"], sent) == ("2", True)
    assert proxy.verbs["PATCH"] == (3 if reset == "before" else 2)


def test_an_object_is_never_created_twice(place: Place, proxy: KubernetesProxy) -> None:
    """A lost answer leaves one."""
    proxy.faults.append(Fault("POST", reset="after"))
    body = {**make_map(""), "metadata": {"generateName": "made-"}}
    with pytest.raises(WriteUnknown):
        place.make_client(host=proxy.url).create(place.all, body, obj="new")
    made = [
        item for item in place.client.list(place.all, obj="x").items if item["metadata"]["name"].startswith("made-")
    ]
    assert (len(made), proxy.verbs["POST"]) == (1, 1)


def test_a_delete_of_one_uid_is_repeated(place: Place, proxy: KubernetesProxy) -> None:
    """That the object is gone by then is success."""
    uid = place.create()["metadata"]["uid"]
    proxy.faults.append(Fault("DELETE", reset="after"))
    proxy.faults.append(Fault("DELETE", status=503))
    assert place.make_client(host=proxy.url).delete(place.path, obj=OBJ, uid=uid)["status"] == "Success"
    assert proxy.verbs["DELETE"] == 3
    with pytest.raises(NotFound):
        place.client.get(place.path, obj=OBJ)


# --- F6: conflicts and 429 --------------------------------------------------------------------------------------------


def test_a_rival_is_decided_about_anew(place: Place) -> None:
    """A decision that was made about another value is not carried out."""
    place.create(a="1")
    values: list[str] = []

    def decide(current: Json) -> Write | None:
        values.append(current["data"]["a"])
        if len(values) == 1:
            Place(place.namespace).client.patch(place.path, {"data": {"a": "rival"}}, obj=OBJ)
        return set_value("mine of " + current["data"]["a"])(current)

    answer, sent = place.client.patch_with_retry(place.path, decide, obj=OBJ)
    assert (values, answer["data"]["a"], sent) == (["1", "rival"], "mine of rival", True)


def test_a_change_elsewhere_in_the_object_is_no_conflict(place: Place) -> None:
    """One request is enough, although the object's version is another one."""
    first = place.create(a="1")
    Place(place.namespace).client.patch(place.path, {"data": {"b": "theirs"}}, obj=OBJ)
    before = place.client.requests
    answer, _sent = place.client.patch_with_retry(place.path, set_value("2"), obj=OBJ, first=first)
    assert (answer["data"], place.client.requests - before) == ({"a": "2", "b": "theirs"}, 1)


def test_a_rival_who_never_stops_is_no_busy_loop(place: Place) -> None:
    """Until the deadline, with pauses."""
    place.create(a="0")
    rival = place.make_client()
    client = place.make_client(seconds=2)

    def decide(current: Json) -> Write | None:
        write = set_value("mine")(current)
        rival.patch(place.path, {"data": {"a": str(int(current["data"]["a"]) + 1)}}, obj=OBJ)
        return write

    begun = time.monotonic()
    with pytest.raises(Conflict):
        client.patch_with_retry(place.path, decide, obj=OBJ)
    assert time.monotonic() - begun < LATE
    assert client.deadline.passed
    assert client.requests <= 24
    assert not client.write_attempted


@pytest.mark.parametrize("verb", ["GET", "PATCH", "WATCH"])
def test_retry_after_is_obeyed(place: Place, proxy: KubernetesProxy, verb: str) -> None:
    """By writes too: nothing was carried out. One that is past the deadline is an error at once."""
    place.create(a="1")
    client = place.make_client(host=proxy.url, seconds=40)
    calls: dict[str, Callable[[], object]] = {
        "GET": lambda: client.get(place.path, obj=OBJ),
        "PATCH": lambda: client.patch(place.path, {"data": {"a": "2"}}, obj=OBJ),
        "WATCH": lambda: client.stream(place.all, obj=OBJ, params={"watch": "true"}).close(),
    }
    proxy.faults.append(Fault(verb, status=429, headers={"Retry-After": "1"}))
    begun = time.monotonic()
    calls[verb]()
    assert 1 <= time.monotonic() - begun < LATE
    proxy.faults.append(Fault(verb, status=429, headers={"Retry-After": "60"}))
    begun = time.monotonic()
    with pytest.raises(ApiError, match="asks to wait 60 s"):
        calls[verb]()
    assert time.monotonic() - begun < LATE
    assert proxy.verbs[verb] == 3


# --- F7: watches ------------------------------------------------------------------------------------------------------


def test_a_watch_goes_on_without_a_gap(place: Place, proxy: KubernetesProxy) -> None:
    """From the version of a list, and from that of the last event when it was cut."""
    client = place.make_client(host=proxy.url)
    params = {"watch": "true", "resourceVersion": client.list(place.all, obj="x").version}
    for number in range(4):
        place.create(f"m{number}")
    names = []
    proxy.faults += [Fault("WATCH", end_after=1), Fault("WATCH", status=503), Fault("WATCH", end_after=2)]
    for count in (1, 2, 1):
        stream = client.stream(place.all, obj="x", params=params)
        for _event, event in zip(range(count), stream, strict=False):
            names.append(event["object"]["metadata"]["name"])
            params["resourceVersion"] = event["object"]["metadata"]["resourceVersion"]
        stream.close()
    assert names == ["m0", "m1", "m2", "m3"]
    assert proxy.verbs["WATCH"] == 4


def test_a_version_that_is_too_old_is_an_event(place: Place) -> None:
    """The reader lists again."""
    stream = place.client.stream(place.all, obj="x", params={"watch": "true", "resourceVersion": "1"})
    assert [(event["type"], event["object"]["code"]) for event in stream] == [("ERROR", 410)]


def test_bookmarks_come_without_changes(place: Place) -> None:
    """So that a silent watch can be told from a dead one."""
    version = place.client.list(place.all, obj="x").version
    params = {"watch": "true", "resourceVersion": version, "allowWatchBookmarks": "true", "timeoutSeconds": "4"}
    events = list(place.client.stream(place.all, obj="x", params=params))
    assert {event["type"] for event in events} == {"BOOKMARK"}


# --- who we are -------------------------------------------------------------------------------------------------------


class Account:
    """A service account of the namespace that may read ConfigMaps, and tokens that live as long as a Secret."""

    def __init__(self, place: Place, folder: Path) -> None:
        self.place = place
        self.name = place.namespace.name
        self.file = folder / "token"
        group = "rbac.authorization.k8s.io"
        rules = [{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "list", "watch"]}]
        subject = {"kind": "ServiceAccount", "name": "reader", "namespace": self.name}
        role = {"apiGroup": group, "kind": "Role", "name": "reader"}
        for path, body in (
            (f"/api/v1/namespaces/{self.name}/serviceaccounts", {"apiVersion": "v1", "kind": "ServiceAccount"}),
            (
                f"/apis/{group}/v1/namespaces/{self.name}/roles",
                {"apiVersion": f"{group}/v1", "kind": "Role", "rules": rules},
            ),
            (
                f"/apis/{group}/v1/namespaces/{self.name}/rolebindings",
                {"apiVersion": f"{group}/v1", "kind": "RoleBinding", "roleRef": role, "subjects": [subject]},
            ),
        ):
            place.client.create(path, {**body, "metadata": {"name": "reader"}}, obj=path)

    def issue(self, secret: str) -> str:
        """A token that ends with a Secret, put into the file."""
        base = f"/api/v1/namespaces/{self.name}"
        body = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": secret}}
        made = self.place.client.create(f"{base}/secrets", body, obj=secret)
        bound = {"apiVersion": "v1", "kind": "Secret", "name": secret, "uid": made["metadata"]["uid"]}
        request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"boundObjectRef": bound}}
        answer = self.place.client.create(f"{base}/serviceaccounts/reader/token", request, obj="token")
        token = str(answer["status"]["token"])
        self.file.write_text(token + "\n", encoding="utf-8")
        return token

    def end(self, secret: str, token: str) -> None:
        """Delete the Secret, and wait until the server has noticed that the token is none any more."""
        self.place.client.delete(f"/api/v1/namespaces/{self.name}/secrets/{secret}", obj=secret)
        host, port, _administrator = upstream(self.place.namespace.facts["kubeconfig"])
        context = ssl.create_default_context(cadata=self.place.client.access.trust.ca.read())

        def is_refused() -> bool:
            connection = http.client.HTTPSConnection(host, port, context=context)
            connection.request("GET", self.place.all, headers={"Authorization": f"Bearer {token}"})
            status = connection.getresponse().status
            connection.close()
            return status == 401

        self.place.namespace.wait("the token has ended", is_refused)

    def make_client(self, folder: Path) -> Client:
        """With a kubeconfig whose user has the token's file."""
        document = yaml.safe_load(Path(self.place.namespace.facts["kubeconfig"]).read_text(encoding="utf-8"))
        document["users"] = [{"name": user["name"], "user": {"tokenFile": "token"}} for user in document["users"]]
        path = folder / "kubeconfig"
        path.write_text(json.dumps(document), encoding="utf-8")
        return self.place.make_client(kubeconfig=str(path))


@pytest.fixture
def account(place: Place, tmp_path: Path) -> Account:
    """A restricted account."""
    return Account(place, tmp_path)


def test_a_token_that_ends_is_read_again(place: Place, account: Account, tmp_path: Path) -> None:
    """Once for each refusal, by requests and streams; when the file has no better one, the server's word counts."""
    first = account.issue("s1")
    client = account.make_client(tmp_path)
    assert client.list(place.all, obj="x").items
    second = account.issue("s2")
    account.end("s1", first)
    before = client.requests
    client.stream(place.all, obj="x", params={"watch": "true"}).close()
    client.list(place.all, obj="x")
    assert client.requests - before == 3
    account.end("s2", second)
    with pytest.raises(Unauthorized):
        client.list(place.all, obj="x")
    assert set(client.access.secrets()) == {first, second}


def test_rights_are_asked_beforehand(place: Place, account: Account, tmp_path: Path) -> None:
    """And what is missing is what the server refuses then."""
    account.issue("s1")
    client = account.make_client(tmp_path)
    maps, sets = find_resource("ConfigMap"), find_resource("StatefulSet")
    allowed = [Right(verb, maps, place.namespace.name) for verb in ("get", "list", "watch")]
    missing = [
        Right("patch", maps, place.namespace.name, "x"),
        Right("list", maps, "default"),
        Right("patch", sets, place.namespace.name, "w", "scale"),
    ]
    assert require_rights(client, [*allowed, *missing]) == missing
    assert not client.write_attempted
    place.create()
    client.get(place.path, obj=OBJ)
    with pytest.raises(Forbidden):
        client.patch(place.path, {"data": {}}, obj=OBJ)
    assert not client.write_attempted


def test_impersonation_has_the_rights_of_the_other(place: Place, account: Account) -> None:
    """By options; several groups are several headers."""
    assert account.name == place.namespace.name
    place.create()
    name = f"system:serviceaccount:{place.namespace.name}:reader"
    reader = place.make_client(impersonate_user=name)
    assert reader.get(place.path, obj=OBJ)["kind"] == "ConfigMap"
    with pytest.raises(Forbidden, match=name):
        reader.patch(place.path, {"data": {"a": "1"}}, obj=OBJ)
    grouped = place.make_client(impersonate_user="jane", impersonate_groups=["nobody", "system:masters"])
    assert grouped.patch(place.path, {"data": {"a": "1"}}, obj=OBJ)["data"] == {"a": "1"}
