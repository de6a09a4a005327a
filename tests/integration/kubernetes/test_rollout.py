# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""k8s_rollout against a real cluster: what is declared is rolled out, once, and everything that can be declared."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from ansible_collections.lowtide.ops.plugins.module_utils._common.timestamps import format_utc
from support.node_images import name_by_digest

from .conftest import Namespace
from .rollout_steps import (
    KINDS,
    RULES,
    check_done,
    list_running_images,
    put,
    read_image,
    read_note,
    roll_out,
)

pytestmark = pytest.mark.lab("kubernetes")
Json = dict[str, Any]


@pytest.mark.procedure("C17", "C23")
@pytest.mark.parametrize("kind", [*KINDS, "DaemonSet"])
def test_check_real_check_real(namespace: Namespace, connect: Callable[..., Json], kind: str) -> None:
    """With the documented rights: the first run rolls out, the others find it so. It ends when no old pod is left."""
    old, new = namespace.facts["images"]
    account = connect(RULES)
    kind = put(namespace, kind)
    change: Json = {"containers": [{"name": "main", "image": new, "env": {"SETTING": "1"}}], **account}
    predicted = check_done(roll_out(namespace, kind, check=True, **change))
    assert read_image(namespace, kind) == old
    done = check_done(roll_out(namespace, kind, **change))
    assert (predicted["plan"], predicted["diff"]) == (done["plan"], done["diff"])
    assert (predicted.changed, done.changed, done["rolled_back"]) == (True, True, False)
    assert list_running_images(namespace) == {new}
    assert done["revision"] == {"before": 1, "after": 2}
    assert {pod["image"] for pod in done["pods"]} == {new}
    assert read_note(namespace, kind)["completed"] is True
    generation = namespace.get(kind, "w")["metadata"]["generation"]
    for check in (True, False):
        again = check_done(roll_out(namespace, kind, check=check, **change))
        assert (again.changed, again["plan"]) == (False, [])
        assert again["summary"].startswith(f"{kind} {namespace.name}/w is as declared: revision 2")
    assert namespace.get(kind, "w")["metadata"]["generation"] == generation


@pytest.mark.procedure("A20", "B6")
def test_amounts_of_one_container_are_set_and_checked(namespace: Namespace) -> None:
    """Request and limit, of the named container only; what does not fit together or into a quota is refused before."""
    kind = put(namespace, "StatefulSet", 1)
    bounds = {"type": "Container", "max": {"memory": "1Gi"}}
    namespace.apply(
        {"apiVersion": "v1", "kind": "LimitRange", "metadata": {"name": "l"}, "spec": {"limits": [bounds]}},
        {
            "apiVersion": "v1",
            "kind": "ResourceQuota",
            "metadata": {"name": "q"},
            "spec": {"hard": {"requests.memory": "512Mi"}},
        },
    )
    namespace.wait("counted", lambda: "used" in namespace.get("ResourceQuota", "q").get("status", {}))

    def declare(request: str, limit: str, container: str = "main") -> Json:
        amounts = {"requests": {"memory": request}, "limits": {"memory": limit}}
        return {"containers": [{"name": container, "resources": amounts}]}

    refusals = {
        "is limited to": declare("64Mi", "32Mi"),
        "LimitRange l allows at most 1Gi": declare("64Mi", "2Gi"),
        "ResourceQuota": declare("600Mi", "700Mi"),
        "it has no such container; it has main": declare("1Mi", "1Mi", "mian"),
    }
    for said, change in refusals.items():
        refused = roll_out(namespace, kind, **change)
        assert (refused.failed, refused["error"]["refused"]) == (True, True)
        assert said in refused.msg
    assert namespace.get(kind, "w")["metadata"]["generation"] == 1
    done = check_done(roll_out(namespace, kind, **declare("65536Ki", "131072Ki")))
    resources = namespace.list("Pod")[0]["spec"]["containers"][0]["resources"]
    assert resources == {"requests": {"memory": "64Mi"}, "limits": {"memory": "128Mi"}}
    assert "main: limits memory none -> 128Mi" in done["plan"][0]["what"]
    assert check_done(roll_out(namespace, kind, **declare("64Mi", "0.125Gi"))).changed is False


@pytest.mark.procedure("B5")
def test_a_variable_is_added_and_removed(namespace: Namespace) -> None:
    """By its name, and the others stay where they are."""
    kind = put(namespace, "Deployment", 1, env=[{"name": "A", "value": "1"}, {"name": "B", "value": "$(A)2"}])
    check_done(roll_out(namespace, kind, containers=[{"name": "main", "env": {"SETTING": 5, "B": None}}]))
    env = namespace.get(kind, "w")["spec"]["template"]["spec"]["containers"][0]["env"]
    assert env == [{"name": "A", "value": "1"}, {"name": "SETTING", "value": "5"}]


def test_a_canary_by_partition_and_its_promotion(namespace: Namespace) -> None:
    """Done when the pods above the partition are new; promoted without another change of the template."""
    old, new = namespace.facts["images"]
    kind = put(namespace, "Parallel", 3)
    canary = check_done(roll_out(namespace, kind, image=new, partition=2))
    images = {pod["metadata"]["name"]: pod["spec"]["containers"][0]["image"] for pod in namespace.list("Pod")}
    assert images == {"w-0": old, "w-1": old, "w-2": new}
    assert canary["summary"].endswith("1 of 3 replicas are of revision 2 and serve (partition 2)")
    assert check_done(roll_out(namespace, kind, image=new, partition=2)).changed is False
    assert read_note(namespace, kind)["canary"] == 2
    promoted = check_done(roll_out(namespace, kind, image=new, partition=0))
    assert (promoted["plan"][0]["what"], list_running_images(namespace)) == ("partition 2 -> 0", {new})


def test_an_image_by_its_digest(namespace: Namespace) -> None:
    """Each new pod runs it, which is part of the evidence."""
    kind = put(namespace, "Deployment", 1)
    with name_by_digest(namespace.facts, namespace.facts["images"][1]) as image:
        done = check_done(roll_out(namespace, kind, image=image))
        assert [pod["image_id"] for pod in done["pods"]] == [image]
        assert check_done(roll_out(namespace, kind, image=image)).changed is False
        check_done(roll_out(namespace, kind, revision="1"))


@pytest.mark.procedure("C2", "C23")
@pytest.mark.parametrize("kind", ["Deployment", "OrderedReady"])
def test_older_pods_are_replaced_once(namespace: Namespace, kind: str) -> None:
    """By a moment, so that a second run does nothing, whoever runs it."""
    kind = put(namespace, kind)
    before = {pod["metadata"]["uid"]: pod["metadata"]["creationTimestamp"] for pod in namespace.list("Pod")}
    newest = max(before.values())
    assert check_done(roll_out(namespace, kind, restarted_after=min(before.values()))).changed is False
    namespace.wait("a second later", lambda: format_utc(time.time()) > newest)
    moment = format_utc(time.time())
    assert check_done(roll_out(namespace, kind, restarted_after=moment)).changed is True
    after = {pod["metadata"]["uid"] for pod in namespace.list("Pod") if "deletionTimestamp" not in pod["metadata"]}
    assert (len(after), after & before.keys()) == (2, set())
    assert check_done(roll_out(namespace, kind, restarted_after=moment)).changed is False


@pytest.mark.procedure("B19")
@pytest.mark.parametrize("kind", [*KINDS, "DaemonSet"])
def test_an_earlier_revision_as_declared_state(namespace: Namespace, kind: str) -> None:
    """By its number, which stays good after it was rolled out again; with the same hash as before."""
    old, new = namespace.facts["images"]
    kind = put(namespace, kind)
    hashes = list_hashes(namespace)
    check_done(roll_out(namespace, kind, image=new, pod_annotations={"a": "b"}))
    back = check_done(roll_out(namespace, kind, revision="1"))
    assert (list_running_images(namespace), list_hashes(namespace)) == ({old}, hashes)
    assert back["revision"] == {"before": 2, "after": 3}
    assert check_done(roll_out(namespace, kind, revision="1")).changed is False
    for value, said in (("9", f"it has 3 ({old}), 2 ({new})"), ("previous", "the one before the present one is 2")):
        refused = roll_out(namespace, kind, revision=value)
        assert (refused.failed, refused["error"]["refused"]) == (True, True)
        assert said in refused.msg


def list_hashes(namespace: Namespace) -> set[str]:
    """Return the revisions of pods that are not being deleted."""
    labels = [pod["metadata"]["labels"] for pod in namespace.list("Pod") if "deletionTimestamp" not in pod["metadata"]]
    return {entry.get("pod-template-hash") or entry["controller-revision-hash"] for entry in labels}


@pytest.mark.procedure("C9")
def test_a_temporary_change_is_taken_back_at_its_end(namespace: Namespace) -> None:
    """Not before; the end can be moved. Only its own value: what was rolled out since stays."""
    new = namespace.facts["images"][1]
    kind = put(namespace, "Deployment", 1)
    until = format_utc(time.time() + 3600)
    raised: Json = {"containers": [{"name": "main", "resources": {"limits": {"memory": "256Mi"}}}]}
    done = check_done(roll_out(namespace, kind, until=until, **raised))
    assert done["temporary"] == [{"until": until, "what": ["main: limits memory none -> 256Mi"]}]
    check_done(roll_out(namespace, kind, image=new))
    early = check_done(roll_out(namespace, kind, state="expired"))
    assert (early.changed, early["temporary"]) == (False, done["temporary"])
    until = format_utc(time.time() + 20)
    moved = check_done(roll_out(namespace, kind, until=until, **raised))
    assert (moved.changed, moved["temporary"][0]["until"]) == (True, until)
    namespace.wait("its end", lambda: format_utc(time.time()) > until)
    late = check_done(roll_out(namespace, kind, state="expired"))
    assert late["plan"][0]["what"] == "main: limits memory 256Mi -> none"
    container = namespace.get(kind, "w")["spec"]["template"]["spec"]["containers"][0]
    assert (container["image"], container["resources"]) == (new, {"requests": {"memory": "16Mi"}})
    assert check_done(roll_out(namespace, kind, state="expired")).changed is False


@pytest.mark.procedure("C25")
def test_a_runtime_that_is_told_to_take_more_than_its_limit_is_refused(namespace: Namespace) -> None:
    """The kernel would kill it."""
    kind = put(namespace, "Deployment", 1, resources={"limits": {"memory": "256Mi"}})
    for env in ({"GOMEMLIMIT": "1GiB"}, {"JAVA_OPTS": "-Xmx512m"}):
        refused = roll_out(namespace, kind, containers=[{"name": "main", "env": env}])
        assert (refused.failed, refused["error"]["refused"]) == (True, True)
        assert "its memory limit is 268435456" in refused.msg
    check_done(roll_out(namespace, kind, containers=[{"name": "main", "env": {"GOMEMLIMIT": "200MiB"}}]))
