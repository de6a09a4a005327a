# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The store in Kubernetes: its objects, its clock, and an API server that fails in the middle."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import pytest

from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes import client
from ansible_collections.lowtide.ops.plugins.plugin_utils._window import store_kubernetes
from ansible_collections.lowtide.ops.plugins.plugin_utils._window.lease import TTL
from ansible_collections.lowtide.ops.plugins.plugin_utils._window.store import StoreUnreachable
from ansible_collections.lowtide.ops.plugins.plugin_utils._window.store_kubernetes import KubernetesStore
from support.http_proxy import Exchange
from support.kubernetes_proxy import Fault, KubernetesProxy
from support.store_contract import elsewhere, make_planned
from support.window_stores import NAME, append, me, take

from .conftest import KubernetesPlace

pytestmark = pytest.mark.lab("kubernetes")


def test_a_large_journal_has_several_config_maps(
    kubernetes_place: KubernetesPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_kubernetes, "PART_BYTES", 3000)
    monkeypatch.setattr(store_kubernetes, "LAST_BYTES", 500)
    store = kubernetes_place.connect()
    written = [append(store, make_planned(f"db{number}", "x" * (900 if number % 3 else 10))) for number in range(9)]
    assert kubernetes_place.connect().load(NAME) == written
    again = kubernetes_place.connect()
    assert again.list_occurrences() == [NAME]
    assert again.read_last_event(NAME) == written[-1]
    assert len(kubernetes_place.list("ConfigMap")) > 3
    with store.lock():
        monkeypatch.setattr(store_kubernetes, "REPORT_BYTES", 3000)
        where = store.write_report(NAME, 1, {".html": "<p>" + "x" * 5000, ".json": "{}"})
    (report,) = [one for one in kubernetes_place.list("ConfigMap") if one["metadata"]["name"] in where.split()]
    assert sorted(report["binaryData"]) == ["report.html.gz", "report.json.gz"]
    with store.lock():
        store.remove([NAME])
    assert [one["metadata"]["name"] for one in kubernetes_place.list("ConfigMap")] == ["kube-root-ca.crt"]


def test_a_run_reads_an_object_of_a_journal_that_is_full_once(
    kubernetes_place: KubernetesPlace, lab: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_kubernetes, "PART_BYTES", 3000)
    with KubernetesProxy(lab["kubernetes"]["kubeconfig"]) as proxy:
        read: list[str] = []
        own = proxy.respond

        def note(exchange: Exchange) -> None:
            read.append(exchange.path)
            own(exchange)

        monkeypatch.setattr(proxy, "respond", note)
        for number in range(12):  # each task of a run is a process of its own
            store = kubernetes_place.connect_through(proxy.url)
            append(store, make_planned(f"db{number}", "x" * 900))
        read.clear()
        store = kubernetes_place.connect_through(proxy.url)
        assert [event.host for event in store.load(NAME)] == [f"db{number}" for number in range(12)]  # type: ignore[attr-defined]
        journals = [path.partition("?")[0].rpartition("/")[2] for path in read if "configmaps" in path]
        assert len(journals) == 2, "the list of their metadata, and the last one"
        assert journals[1].endswith("-5")
        another_run = replace(kubernetes_place, folder=kubernetes_place.folder / "..")
        elsewhere = another_run.connect_through(proxy.url)
        assert elsewhere.load(NAME) == store.load(NAME)


def test_a_line_that_no_object_can_hold_is_refused_by_the_server(kubernetes_place: KubernetesPlace) -> None:
    store = kubernetes_place.connect()
    append(store, make_planned("db1"))
    written = append(store, make_planned("db2", "x" * 900_000))
    with pytest.raises(StoreUnreachable, match=r"Too long: may not be more than 1048576 bytes"):
        append(store, make_planned("db3", "x" * 1_100_000))
    assert store.load(NAME)[-1] == written


def test_an_answer_without_a_date_is_no_clock(
    kubernetes_place: KubernetesPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A proxy before the API server takes the header away: this machine's clock must not judge."""
    token = take(kubernetes_place.connect(), elsewhere()).token
    (before,) = kubernetes_place.list("Lease")
    monkeypatch.setattr(client, "parse_http_date", lambda _text: None)
    store = kubernetes_place.connect()
    for call in (
        store.is_expired,
        store.read_clock,
        lambda: store.renew(token),
        lambda: append(store, make_planned("a")),
    ):
        with pytest.raises(StoreUnreachable, match="its answers have no Date, by which a lease expires"):
            call()
    assert kubernetes_place.list("Lease") == [before]


def test_the_time_of_an_acquisition_is_that_of_no_renewal(kubernetes_place: KubernetesPlace) -> None:
    store = kubernetes_place.connect()
    token = take(store, me()).token
    (first,) = kubernetes_place.list("Lease")
    kubernetes_place.expire()
    store.renew(token)
    (renewed,) = kubernetes_place.list("Lease")
    assert renewed["spec"]["acquireTime"] == first["spec"]["acquireTime"]
    assert renewed["spec"]["renewTime"] > "2026-01-02"  # to which it was set back


def test_a_renewal_that_did_not_happen_is_told(kubernetes_place: KubernetesPlace, lab: dict[str, Any]) -> None:
    """The server answers writes with 500, as where an admission webhook is down; the record is as it was."""
    with KubernetesProxy(lab["kubernetes"]["kubeconfig"]) as proxy:
        store = kubernetes_place.connect_through(proxy.url)
        token = take(store, me()).token
        append(store, make_planned("db1"))
        store.patience = 1.0
        proxy.faults.append(Fault("PATCH", times=10_000, status=500))
        for write in (lambda: store.renew(token), lambda: append(store, make_planned("db2"))):
            begin = time.monotonic()
            with pytest.raises(StoreUnreachable):
                write()
            assert time.monotonic() - begin < 30
        assert proxy.faults[0].times > 9_000, "it was asked without a pause"


def test_an_api_server_that_keeps_silent_is_an_oserror_in_time(
    kubernetes_place: KubernetesPlace, lab: dict[str, Any]
) -> None:
    """It accepts the question, as one does whose storage hangs."""
    with KubernetesProxy(lab["kubernetes"]["kubeconfig"]) as proxy:
        store = kubernetes_place.connect_through(proxy.url)
        token = take(store, me()).token
        store.patience = 0.5
        for verb, call in (
            ("GET", lambda: store.check(token)),
            ("GET", lambda: store.renew(token)),
            ("LIST", lambda: append(store, make_planned("db1"))),
        ):
            proxy.faults[:] = [Fault(verb, times=100, hang=30)]
            begin = time.monotonic()
            with pytest.raises(StoreUnreachable):
                call()
            assert time.monotonic() - begin < 20
        proxy.faults.clear()
        store.patience = 30.0
        append(store, make_planned("db2"))


def test_another_cluster_is_not_asked_again(kubernetes_place: KubernetesPlace, lab: dict[str, Any]) -> None:
    uid = "00000000-0000-0000-0000-000000000000"
    connection = {
        "kubeconfig": lab["kubernetes"]["kubeconfig"],
        "namespace": kubernetes_place.namespace,
        "cluster_uid": uid,
    }
    store = KubernetesStore(connection, site="shop/prod", ttl=TTL, folder=kubernetes_place.folder, patience=1e6)
    with pytest.raises(StoreUnreachable, match=f"not the expected {uid}"):
        store.read_lease()
