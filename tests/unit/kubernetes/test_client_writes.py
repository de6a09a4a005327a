# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Writes: which are sent again, what is known after a lost answer, and rivals."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from ansible_collections.lowtide.ops.plugins.module_utils._common.errors import OutcomeUnknown, Refusal
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.client import APPLY_PATCH, JSON_PATCH, Client
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.errors import (
    ApiError,
    Conflict,
    Invalid,
    NotFound,
    TooManyRequests,
    WriteUnknown,
)
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.fields import Json
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.patches import Write
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.resources import collection_path, object_path
from support.memory_kubernetes import MemoryServer

from .test_client import Clock, make_client

SETS, WORKER = collection_path("StatefulSet", "n"), object_path("StatefulSet", "n", "w")
OBJ = "StatefulSet n/w"
STOPPED = "lowtide.ops/stopped"
NEW = {"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"generateName": "x-"}, "spec": {"replicas": 1}}


@pytest.fixture
def uid(memory: MemoryServer) -> str:
    """The uid of a workload that is there."""
    worker = {"kind": "StatefulSet", "metadata": {"name": "w", "namespace": "n"}, "spec": {"replicas": 3}}
    return str(memory.put(worker)["metadata"]["uid"])


def count_replicas(memory: MemoryServer) -> Any:
    """What is there now."""
    return memory.read("StatefulSet", "n", "w")["spec"]["replicas"]


WRITES: dict[str, Callable[[Client], Json]] = {
    "merge": lambda client: client.patch(WORKER, {"spec": {"replicas": 1}}, obj=OBJ),
    "json": lambda client: client.patch(
        WORKER, [{"op": "add", "path": "/spec/replicas", "value": 1}], obj=OBJ, content_type=JSON_PATCH
    ),
    "apply": lambda client: client.patch(
        WORKER, {"spec": {"replicas": 1}}, obj=OBJ, content_type=APPLY_PATCH, force=True
    ),
    "create": lambda client: client.create(SETS, NEW, obj="new StatefulSet"),
    "delete": lambda client: client.delete(WORKER, obj=OBJ),
}


# --- what is sent ---------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("uid")
def test_patches(memory: MemoryServer) -> None:
    """With their content type, and always by the same manager, whom GitOps tools can name."""
    client = memory.client(run_id="nightly")
    for name, replicas in (("merge", 1), ("json", 1), ("apply", 1)):
        assert WRITES[name](client)["spec"]["replicas"] == replicas
    assert client.patch(WORKER, {"spec": {"replicas": 7}}, obj=OBJ, dry_run=True)["spec"]["replicas"] == 7
    assert [(request.method, request.content_type, request.query) for request in memory.log] == [
        ("PATCH", "application/merge-patch+json", {"fieldManager": "lowtide.ops"}),
        ("PATCH", "application/json-patch+json", {"fieldManager": "lowtide.ops"}),
        ("PATCH", "application/apply-patch+yaml", {"fieldManager": "lowtide.ops", "force": "true"}),
        ("PATCH", "application/merge-patch+json", {"fieldManager": "lowtide.ops", "dryRun": "All"}),
    ]
    assert count_replicas(memory) == 1


def test_creating(memory: MemoryServer) -> None:
    """Also in a dry run, which is no write."""
    client = memory.client()
    client.create(SETS, NEW, obj="new", dry_run=True)
    assert (memory.read_all("StatefulSet"), client.write_attempted) == ([], False)
    made = client.create(SETS, NEW, obj="new")
    assert (made["metadata"]["name"][:2], client.write_attempted) == ("x-", True)
    assert [(request.method, request.query) for request in memory.log] == [
        ("POST", {"fieldManager": "lowtide.ops", "dryRun": "All"}),
        ("POST", {"fieldManager": "lowtide.ops"}),
    ]
    assert memory.log[0].content_type == "application/json"
    with pytest.raises(Conflict, match="already exists") as caught:
        client.create(SETS, {**NEW, "metadata": {"name": made["metadata"]["name"]}}, obj="new")
    assert caught.value.reason == "AlreadyExists"


def test_deleting(memory: MemoryServer, uid: str) -> None:
    """With preconditions and options; what is not given is not sent."""
    client = memory.client()
    version = memory.read("StatefulSet", "n", "w")["metadata"]["resourceVersion"]
    client.delete(WORKER, obj=OBJ, uid=uid, version=version, propagation="Foreground", grace_seconds=0, dry_run=True)
    assert (count_replicas(memory), client.write_attempted) == (3, False)
    assert memory.log[0].body == {
        "apiVersion": "v1",
        "kind": "DeleteOptions",
        "preconditions": {"uid": uid, "resourceVersion": version},
        "propagationPolicy": "Foreground",
        "gracePeriodSeconds": 0,
        "dryRun": ["All"],
    }
    with pytest.raises(Conflict, match="Precondition failed"):
        client.delete(WORKER, obj=OBJ, uid="other")
    with pytest.raises(Conflict, match="Precondition failed"):
        client.delete(WORKER, obj=OBJ, version="1")
    assert not client.write_attempted
    assert client.delete(WORKER, obj=OBJ)["status"] == "Success"
    assert memory.log[-1].body == {"apiVersion": "v1", "kind": "DeleteOptions"}
    assert client.write_attempted
    with pytest.raises(NotFound):
        client.delete(WORKER, obj=OBJ)


@pytest.mark.usefixtures("uid")
def test_refused_writes_are_no_attempts(memory: MemoryServer) -> None:
    """Nothing was carried out, and the server says why."""
    client = memory.client()
    with pytest.raises(Invalid, match=r"spec.replicas: Invalid value: -1"):
        client.patch(WORKER, {"spec": {"replicas": -1}}, obj=OBJ)
    with pytest.raises(Conflict, match="the object has been modified"):
        client.patch(WORKER, {"metadata": {"resourceVersion": "1"}, "spec": {"replicas": 1}}, obj=OBJ)
    for status in (400, 401, 403, 404, 405):
        memory.fail_next(status)
        with pytest.raises(ApiError):
            WRITES["merge"](client)
    assert (client.write_attempted, len(memory.log)) == (False, 7)


@pytest.mark.usefixtures("uid")
def test_a_json_patch_whose_test_fails_is_a_conflict(memory: MemoryServer) -> None:
    """An invalid object is not, although both are 422; nor is the same answer to another kind of patch."""
    client = memory.client()
    operations: list[Json] = [
        {"op": "test", "path": "/spec/replicas", "value": 9},
        {"op": "remove", "path": "/spec/replicas"},
    ]
    with pytest.raises(Conflict, match="it is no longer as it was read") as caught:
        client.patch(WORKER, operations, obj=OBJ, content_type=JSON_PATCH)
    assert (caught.value.status, client.write_attempted) == (422, False)
    with pytest.raises(Invalid):
        client.patch(WORKER, [{"op": "add", "path": "/spec/replicas", "value": -1}], obj=OBJ, content_type=JSON_PATCH)
    memory.answer_next(422, '{"message": "the server rejected our request due to an error in our request"}')
    with pytest.raises(Invalid):
        WRITES["merge"](client)


# --- what is sent again ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", WRITES)
@pytest.mark.usefixtures("uid")
def test_a_write_whose_answer_is_lost_is_in_doubt(memory: MemoryServer, name: str) -> None:
    """It is not sent again: it may have been carried out."""
    for when in ("after", "middle", "before"):
        memory.lose_next(when)
        client = memory.client()
        with pytest.raises(WriteUnknown, match="the connection was lost after the write was sent") as caught:
            WRITES[name](client)
        assert isinstance(caught.value, OutcomeUnknown)
        assert client.write_attempted
        if name == "delete" and when == "after":
            break
    assert len(memory.log) == (1 if name == "delete" else 3)


@pytest.mark.parametrize("status", [500, 501, 502, 503, 504])
@pytest.mark.parametrize("name", WRITES)
@pytest.mark.usefixtures("uid")
def test_a_write_that_is_answered_by_a_server_error_is_in_doubt(memory: MemoryServer, name: str, status: int) -> None:
    """So it is not sent again either; Retry-After makes no difference."""
    memory.fail_next(status, is_after=True, retry_after=0)
    client = memory.client()
    with pytest.raises(WriteUnknown, match=f"the server answered a write with {status}: injected"):
        WRITES[name](client)
    assert (client.write_attempted, len(memory.log)) == (True, 1)


@pytest.mark.parametrize("name", WRITES)
@pytest.mark.usefixtures("uid")
def test_a_write_that_was_not_carried_out_is_sent_again(memory: MemoryServer, name: str) -> None:
    """429 says so; until the deadline, and then nothing was attempted."""
    clock = Clock()
    memory.fail_next(429, times=2)
    client = make_client(memory.url, clock.deadline(20))
    WRITES[name](client)
    assert (clock.pauses, len(memory.log)) == ([1, 2], 3)
    memory.fail_next(429, times=1000)
    clock = Clock()
    client = make_client(memory.url, clock.deadline(5))
    with pytest.raises(TooManyRequests):
        WRITES[name](client)
    assert (clock.pauses, client.write_attempted) == ([1, 2, 2], False)


@pytest.mark.parametrize("lost", ["before", "after", "middle"])
def test_a_delete_of_one_uid_is_sent_again(memory: MemoryServer, uid: str, lost: str) -> None:
    """It cannot hit another object; that it is gone by then is success."""
    memory.lose_next(lost)
    memory.fail_next(503)
    client = memory.client()
    assert client.delete(WORKER, obj=OBJ, uid=uid)["status"] == "Success"
    assert (memory.read_all("StatefulSet"), len(memory.log), client.write_attempted) == ([], 3, True)


def test_a_delete_of_one_uid_hits_no_other_object(memory: MemoryServer, uid: str) -> None:
    """One of the same name that was made meanwhile stays."""
    memory.lose_next("after")
    memory.add_rival(
        lambda: memory.put({"kind": "StatefulSet", "metadata": {"name": "w", "namespace": "n"}}),
        when="after",
        verb="delete",
    )
    with pytest.raises(Conflict, match="uid in precondition"):
        memory.client().delete(WORKER, obj=OBJ, uid=uid)
    assert len(memory.read_all("StatefulSet")) == 1


def test_an_object_that_was_gone_from_the_start_is_not_found(memory: MemoryServer) -> None:
    """Only after a doubt is that success."""
    with pytest.raises(NotFound):
        memory.client().delete(WORKER, obj=OBJ, uid="u")
    memory.fail_next(429)
    with pytest.raises(NotFound):
        memory.client().delete(WORKER, obj=OBJ, uid="u")


def test_a_delete_of_one_version_is_not_sent_again(memory: MemoryServer, uid: str) -> None:
    """After it, the version is another one, and a conflict would say nothing."""
    version = memory.read("StatefulSet", "n", "w")["metadata"]["resourceVersion"]
    memory.lose_next("after")
    with pytest.raises(WriteUnknown):
        memory.client().delete(WORKER, obj=OBJ, uid=uid, version=version)
    assert len(memory.log) == 1


@pytest.mark.parametrize("fault", ["before", "after", "503", "429"])
def test_a_repeated_delete_stays_in_doubt_at_the_deadline(memory: MemoryServer, uid: str, fault: str) -> None:
    """Whatever the last answer was."""
    clock = Clock()
    if fault == "429":
        memory.lose_next("before")
        memory.fail_next(429, times=1000)
    elif fault == "503":
        memory.fail_next(503, times=1000)
    else:
        memory.lose_next(fault, times=1000)
    client = make_client(memory.url, clock.deadline(3))
    if fault == "after":
        memory.add_rival(
            lambda: memory.put({"kind": "StatefulSet", "metadata": {"name": "w", "namespace": "n", "uid": uid}}),
            verb="delete",
            times=99,
        )
    with pytest.raises(WriteUnknown):
        client.delete(WORKER, obj=OBJ, uid=uid)
    assert (clock.pauses, client.write_attempted) == ([1, 2], True)


@pytest.mark.parametrize("when", ["before", "middle", "after"])
def test_a_delete_stays_in_doubt_when_the_server_goes_down(memory: MemoryServer, uid: str, when: str) -> None:
    """Although the last attempts could not be sent at all."""
    clock = Clock()
    memory.lose_next(when)
    memory.add_rival(memory.close, verb="delete")
    client = make_client(memory.url, clock.deadline(3))
    with pytest.raises(WriteUnknown, match="Connection refused"):
        client.delete(WORKER, obj=OBJ, uid=uid)
    assert (clock.pauses, client.requests) == ([1, 2], 1)


# --- read, decide, write --------------------------------------------------------------------------------------------


def stop(current: Json) -> Write | None:
    """A decision like that of a real stop: depends on the replicas, notes them."""
    replicas = current["spec"]["replicas"]
    if replicas == 0:
        return None
    note = {"metadata": {"annotations": {STOPPED: str(replicas)}}, "spec": {"replicas": 0}}
    return Write(note, (("spec", "replicas"),))


def find_note(memory: MemoryServer) -> Any:
    """What was noted."""
    return memory.read("StatefulSet", "n", "w")["metadata"].get("annotations", {}).get(STOPPED)


def test_one_look_and_one_write(memory: MemoryServer, uid: str) -> None:
    """With the object at hand, only the write."""
    client = memory.client()
    answer, sent = client.patch_with_retry(WORKER, stop, obj=OBJ)
    assert (answer["spec"]["replicas"], sent, find_note(memory)) == (0, True, "3")
    assert [request.method for request in memory.log] == ["GET", "PATCH"]
    answer, sent = client.patch_with_retry(WORKER, stop, obj=OBJ)
    assert (answer["spec"]["replicas"], sent, len(memory.log)) == (0, False, 3)
    client.patch_with_retry(WORKER, lambda _current: Write({"spec": {"replicas": 5}}), obj=OBJ, first=answer)
    assert (len(memory.log), count_replicas(memory)) == (4, 5)
    assert memory.log[1].body[:2] == [
        {"op": "test", "path": "/metadata/uid", "value": uid},
        {"op": "test", "path": "/spec/replicas", "value": 3},
    ]


@pytest.mark.usefixtures("uid")
def test_a_write_without_a_change_is_not_sent(memory: MemoryServer) -> None:
    """Removing what is not there is nothing to do."""
    client = memory.client()
    _answer, sent = client.patch_with_retry(
        WORKER, lambda _current: Write({"metadata": {"annotations": {STOPPED: None}}}), obj=OBJ
    )
    assert (sent, len(memory.log), client.write_attempted) == (False, 1, False)


@pytest.mark.usefixtures("uid")
def test_a_dry_run_changes_nothing(memory: MemoryServer) -> None:
    """And says what it would do."""
    client = memory.client()
    answer, sent = client.patch_with_retry(WORKER, stop, obj=OBJ, dry_run=True)
    assert (answer["spec"]["replicas"], sent) == (0, True)
    assert (count_replicas(memory), client.write_attempted) == (3, False)


@pytest.mark.usefixtures("uid")
def test_a_status_that_changes_meanwhile_is_no_conflict(memory: MemoryServer) -> None:
    """The condition is what was decided about, not the whole object."""
    memory.add_rival(lambda: memory.change("StatefulSet", "n", "w", lambda obj: obj.update(status={"replicas": 1})))
    memory.client().patch_with_retry(WORKER, stop, obj=OBJ)
    assert [request.method for request in memory.log] == ["GET", "PATCH"]


@pytest.mark.usefixtures("uid")
def test_a_rival_is_decided_about_anew(memory: MemoryServer) -> None:
    """The note has what was there when it was written."""
    memory.add_rival(lambda: memory.change("StatefulSet", "n", "w", lambda obj: obj["spec"].update(replicas=7)))
    answer, sent = memory.client().patch_with_retry(WORKER, stop, obj=OBJ)
    assert (answer["spec"]["replicas"], sent, find_note(memory)) == (0, True, "7")
    assert [request.method for request in memory.log] == ["GET", "PATCH", "GET", "PATCH"]


@pytest.mark.usefixtures("uid")
def test_a_rival_who_has_done_it_leaves_nothing_to_do(memory: MemoryServer) -> None:
    """No write of ours took effect."""
    memory.add_rival(lambda: memory.change("StatefulSet", "n", "w", lambda obj: obj["spec"].update(replicas=0)))
    client = memory.client()
    answer, sent = client.patch_with_retry(WORKER, stop, obj=OBJ)
    assert (answer["spec"]["replicas"], sent, find_note(memory), client.write_attempted) == (0, False, None, False)


def test_another_object_of_the_same_name_is_decided_about_anew(memory: MemoryServer, uid: str) -> None:
    """A write is never made for an object that was not looked at."""

    def replace() -> None:
        memory.remove("StatefulSet", "n", "w")
        memory.put({"kind": "StatefulSet", "metadata": {"name": "w", "namespace": "n"}, "spec": {"replicas": 3}})

    def decide(current: Json) -> Write | None:
        if current["metadata"]["uid"] != uid:
            raise Refusal(obj=OBJ, problem="it is another one", next_step="Look")
        return stop(current)

    memory.add_rival(replace)
    with pytest.raises(Refusal, match="it is another one"):
        memory.client().patch_with_retry(WORKER, decide, obj=OBJ)
    assert count_replicas(memory) == 3


@pytest.mark.parametrize("fault", ["lost", "503"])
@pytest.mark.usefixtures("uid")
def test_a_write_in_doubt_that_was_carried_out_is_not_repeated(memory: MemoryServer, fault: str) -> None:
    """It is seen at the next look, and said to have been sent."""
    memory.lose_next("after", verb="patch") if fault == "lost" else memory.fail_next(503, verb="patch", is_after=True)
    client = memory.client()
    answer, sent = client.patch_with_retry(WORKER, stop, obj=OBJ)
    assert (answer["spec"]["replicas"], sent, find_note(memory), client.write_attempted) == (0, True, "3", True)
    assert [request.method for request in memory.log] == ["GET", "PATCH", "GET"]


@pytest.mark.parametrize("fault", ["lost", "503"])
@pytest.mark.usefixtures("uid")
def test_a_write_in_doubt_that_was_not_carried_out_is_made(memory: MemoryServer, fault: str) -> None:
    """After another look."""
    memory.lose_next("before", verb="patch") if fault == "lost" else memory.fail_next(503, verb="patch")
    answer, sent = memory.client().patch_with_retry(WORKER, stop, obj=OBJ)
    assert (answer["spec"]["replicas"], sent, find_note(memory)) == (0, True, "3")
    assert [request.method for request in memory.log] == ["GET", "PATCH", "GET", "PATCH"]


@pytest.mark.parametrize(("fault", "kind"), [("rival", Conflict), ("lost", WriteUnknown), ("409", Conflict)])
@pytest.mark.usefixtures("uid")
def test_conflicts_are_tried_until_the_deadline(memory: MemoryServer, fault: str, kind: type[ApiError]) -> None:
    """With pauses that grow: no busy loop."""
    clock = Clock()
    if fault == "rival":
        memory.add_rival(
            lambda: memory.change(
                "StatefulSet", "n", "w", lambda obj: obj["spec"].update(replicas=obj["spec"]["replicas"] + 1)
            ),
            times=1000,
        )
    elif fault == "lost":
        memory.lose_next("before", verb="patch", times=1000)
    else:
        memory.fail_next(409, verb="patch", times=1000)
    client = make_client(memory.url, clock.deadline(20))
    with pytest.raises(kind) as caught:
        client.patch_with_retry(WORKER, stop, obj=OBJ)
    assert type(caught.value) is kind
    assert clock.pauses == [1, 2, 4, 8, 5]
    assert [request.method for request in memory.log] == ["GET", "PATCH"] * 6
    assert client.write_attempted == (fault == "lost")


@pytest.mark.usefixtures("uid")
def test_an_object_that_vanishes_is_an_error(memory: MemoryServer) -> None:
    """Whoever removed it."""
    memory.add_rival(lambda: memory.remove("StatefulSet", "n", "w"))
    with pytest.raises(NotFound):
        memory.client().patch_with_retry(WORKER, stop, obj=OBJ)


@pytest.mark.usefixtures("uid")
def test_an_invalid_change_is_not_repeated(memory: MemoryServer) -> None:
    """It would be invalid again."""
    with pytest.raises(Invalid):
        memory.client().patch_with_retry(WORKER, lambda _current: Write({"spec": {"replicas": -1}}), obj=OBJ)
    assert len(memory.log) == 2


@pytest.mark.usefixtures("uid")
def test_the_scale_of_an_object(memory: MemoryServer) -> None:
    """A subresource has the uid of its object."""
    path = object_path("StatefulSet", "n", "w", "scale")
    answer, sent = memory.client().patch_with_retry(
        path, lambda _scale: Write({"spec": {"replicas": 2}}, (("spec", "replicas"),)), obj=OBJ
    )
    assert (answer["kind"], answer["spec"], sent, count_replicas(memory)) == ("Scale", {"replicas": 2}, True, 2)
