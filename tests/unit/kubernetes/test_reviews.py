# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What an account may do is asked once, and before anything is done."""

from __future__ import annotations

from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.resources import find_resource
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.reviews import Right, can_i, require_rights
from support.memory_kubernetes import MemoryServer

PATH = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
SETS, PODS = find_resource("StatefulSet"), find_resource("Pod")


def test_rights_are_asked_with_all_their_attributes(memory: MemoryServer) -> None:
    """One request each, and once."""
    client = memory.client()
    for _time in range(2):
        assert can_i(client, verb="patch", resource=SETS, namespace="n", name="w", subresource="scale")
    assert [(request.method, request.path) for request in memory.log] == [("POST", PATH)]
    assert memory.log[0].body["spec"] == {
        "resourceAttributes": {
            "verb": "patch",
            "group": "apps",
            "version": "v1",
            "resource": "statefulsets",
            "subresource": "scale",
            "namespace": "n",
            "name": "w",
        }
    }
    assert not client.write_attempted


def test_what_is_not_given_is_not_sent(memory: MemoryServer) -> None:
    """An empty name or namespace would mean another right; the core group has no name."""
    can_i(memory.client(), verb="list", resource=PODS, namespace="")
    attributes = memory.log[0].body["spec"]["resourceAttributes"]
    assert attributes == {"verb": "list", "version": "v1", "resource": "pods"}


def test_missing_rights_are_returned_in_order(memory: MemoryServer) -> None:
    """Each once; the others not at all."""
    memory.deny("watch", "statefulsets.apps")
    memory.deny("create", "pods/eviction", "n")
    rights = [
        Right("get", SETS, "n"),
        Right("create", PODS, "n", subresource="eviction"),
        Right("watch", SETS, "n"),
        Right("watch", SETS, "n"),
        Right("create", PODS, "m", subresource="eviction"),
    ]
    client = memory.client()
    assert require_rights(client, rights) == [rights[1], rights[2]]
    assert (client.requests, client.warnings) == (4, [])


def test_an_answer_without_a_word_is_no_right(memory: MemoryServer) -> None:
    """Only a plain yes counts."""
    client = memory.client()
    memory.review_status = {"reason": "no opinion"}
    assert not can_i(client, verb="get", resource=PODS, namespace="n")
    memory.review_status = {"allowed": "true"}
    assert not can_i(client, verb="get", resource=PODS, namespace="m")


def test_reviews_that_are_forbidden_are_a_warning(memory: MemoryServer) -> None:
    """The first refusal of the server says the rest."""
    memory.deny("create", "selfsubjectaccessreviews")
    client = memory.client()
    assert require_rights(client, [Right("get", PODS, "n")]) == []
    assert len(client.warnings) == 1
    assert (
        "could not be asked beforehand: right to get pods in namespace n: the server answered 403" in client.warnings[0]
    )


def test_reviews_are_repeated_like_reads(memory: MemoryServer) -> None:
    """They keep nothing on the server."""
    memory.lose_next("after")
    memory.fail_next(503)
    assert require_rights(memory.client(), [Right("get", PODS, "n")]) == []
    assert len(memory.log) == 3


def test_rules_for_messages() -> None:
    """What to grant, as kubectl names it."""
    assert Right("watch", SETS, "n").rule == "watch statefulsets.apps in namespace n"
    assert Right("patch", SETS, "n", "w", "scale").rule == "patch statefulsets/scale.apps w in namespace n"
    assert Right("create", PODS, "n", subresource="eviction").rule == "create pods/eviction in namespace n"
    assert Right("get", find_resource("Node"), "", "n1").rule == "get nodes n1"
