# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The options workloads and tiers: what they mean, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.lowtide.ops.plugins.module_utils._common.errors import Refusal
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.objects import Workload
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.summary import describe_workload
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.tiers import (
    INFO_KEYS,
    Entry,
    parse_tiers,
    parse_workloads,
)

W = {"kind": "StatefulSet", "name": "w"}
D = {"kind": "Deployment", "name": "d"}
ROLLOUT = {"kind": "Rollout", "name": "r", "api_version": "argoproj.io/v1alpha1"}


def tiers(declared: Any, option: str = "tiers") -> list[tuple[Entry, ...]]:
    """The tiers of an option of k8s_workload."""
    return parse_tiers({"namespace": "n", "workloads": None, "tiers": None, option: declared})


def test_a_flat_list_is_one_tier() -> None:
    """Of either option; a list of lists keeps its order."""
    entries = (Entry("StatefulSet", "w"), Entry("Deployment", "d"))
    assert tiers([W, D]) == tiers([W, D], "workloads") == tiers([[W, D]]) == [entries]
    assert tiers([[D], [W]]) == [(entries[1],), (entries[0],)]


def test_a_workload_of_another_api() -> None:
    """With its API, and the plural where it is given; the API of a kind that is known says nothing new."""
    entry = Entry("Rollout", "r", api_version="argoproj.io/v1alpha1")
    assert tiers([ROLLOUT]) == [(entry,)]
    assert tiers([{**ROLLOUT, "plural": "rollouts"}]) == [(entry._replace(plural="rollouts"),)]
    assert tiers([{**ROLLOUT, "plural": None, "replicas": 2}]) == [(entry._replace(replicas=2),)]
    assert tiers([{**W, "api_version": "apps/v1", "plural": "statefulsets"}]) == tiers([W])
    core = {"kind": "ReplicationController", "name": "c", "api_version": "v1"}
    assert tiers([core]) == [(Entry("ReplicationController", "c", api_version="v1"),)]


def test_what_is_only_read_may_be_a_daemon_set() -> None:
    """It has pods, and no number that could be set."""
    agent = {"kind": "DaemonSet", "name": "agent"}
    assert parse_workloads([agent, ROLLOUT], "n") == [
        Entry("DaemonSet", "agent"),
        Entry("Rollout", "r", api_version="argoproj.io/v1alpha1"),
    ]
    with pytest.raises(Refusal, match="it names DaemonSet/agent more than once"):
        parse_workloads([agent, agent], "n")


@pytest.mark.parametrize(("given", "expected"), [(3, 3), ("3", 3), (None, None)])
def test_replicas(given: Any, expected: int | None) -> None:
    """A number, as text as well."""
    assert tiers([{**W, "replicas": given}])[0][0].replicas == expected


def test_what_the_info_module_returns_is_accepted() -> None:
    """All of its keys; the replicas that it saw are not those that are to run."""
    stopped = {"metadata": {"name": "w", "namespace": "n"}, "spec": {"replicas": 0}}
    described = describe_workload(Workload.from_object(stopped, "StatefulSet"))
    assert described.keys() == {"kind", "api_version", "name", "replicas", *INFO_KEYS}
    assert tiers([described]) == [(Entry("StatefulSet", "w"),)]
    with pytest.raises(Refusal, match="is in namespace n, and the option namespace is other"):
        parse_tiers({"namespace": "other", "workloads": [described], "tiers": None})


@pytest.mark.parametrize(
    ("declared", "words"),
    [
        ([], "option tiers: it names nothing"),
        ([[W], []], r"option tiers\[1\]: this tier is empty"),
        ([[W], D], "it mixes tiers"),
        ([["w"]], r"option tiers\[0\]\[0\]: it is 'w', not a mapping"),
        ([[W], [[D]]], r"option tiers\[1\]\[0\]: it is \[.*\], not a mapping"),
        ([{"kind": "Deployment"}], "its name is None"),
        ([{"name": "d"}], "its kind is None"),
        (
            [{"kind": "ReplicaSet", "name": "d"}],
            "its kind is 'ReplicaSet'. Use one of StatefulSet, Deployment, CronJob",
        ),
        ([{"kind": "DaemonSet", "name": "d"}], r"\(DaemonSet d\): a DaemonSet has no number .* a nodeSelector that no"),
        (
            [{"kind": "Rollout", "name": "r"}],
            "its kind is 'Rollout'. Use one of .*, or give the api_version of another",
        ),
        ([{**ROLLOUT, "api_version": "argoproj.io"}], "its api_version is 'argoproj.io'. Write it .*: GROUP/VERSION"),
        ([{**ROLLOUT, "api_version": 1}], "its api_version is 1"),
        ([{**ROLLOUT, "plural": "a/b"}], "plural 'a/b': this is not a Kubernetes name"),
        ([{**W, "api_version": "apps.example.org/v1"}], "its kind is 'StatefulSet' of apps.example.org/v1"),
        (
            [{"kind": "Job", "name": "j", "api_version": "batch.volcano.sh/v1"}],
            "its kind is 'Job' of batch.volcano.sh/v1",
        ),
        (
            [{**ROLLOUT, "plural": "rollouts"}, {**ROLLOUT, "name": "s"}],
            "it has the kind Rollout of different APIs: argo",
        ),
        ([{**W, "replica": 2}], "it has the unknown keys replica"),
        ([{**W, "replicas": 0}], "its replicas are 0"),
        ([{**W, "replicas": True}], "its replicas are True"),
        ([{**W, "replicas": "many"}], "its replicas are 'many'"),
        ([{**W, "name": "W/../x"}], "this is not a Kubernetes name"),
        ([[W], [D, W]], "it names StatefulSet/w more than once"),
    ],
)
def test_what_cannot_be_meant_is_refused(declared: Any, words: str) -> None:
    """With its place, the value and what to write."""
    with pytest.raises(Refusal, match=words):
        tiers(declared)
