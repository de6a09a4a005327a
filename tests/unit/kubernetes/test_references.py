# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a pod uses of Secrets and ConfigMaps, and what of it is missing."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.references import (
    Contents,
    find_missing,
    find_missing_variables,
    list_references,
)

Json = dict[str, Any]
SPEC: Json = {
    "initContainers": [{"name": "init", "envFrom": [{"configMapRef": {"name": "c", "optional": True}}]}],
    "containers": [
        {
            "name": "app",
            "env": [
                {"name": "PLAIN", "value": "x"},
                {"name": "A", "valueFrom": {"secretKeyRef": {"name": "s", "key": "a"}}},
                {"name": "B", "valueFrom": {"configMapKeyRef": {"name": "c", "key": "b", "optional": True}}},
                {"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
            ],
            "envFrom": [{"secretRef": {"name": "more"}, "prefix": "X_"}],
        }
    ],
    "volumes": [
        {"name": "v1", "secret": {"secretName": "tls"}},
        {"name": "v2", "configMap": {"name": "c", "items": [{"key": "k1"}, {"key": "k2"}]}},
        {
            "name": "v3",
            "projected": {"sources": [{"secret": {"name": "p", "items": [{"key": "z"}]}}, {"downwardAPI": {}}]},
        },
        {"name": "v4", "emptyDir": {}},
    ],
}
USE_A = "variable A of container app"


def test_everything_that_a_pod_uses_is_listed() -> None:
    """By variables and volumes of every form."""
    assert [tuple(reference) for reference in list_references(SPEC)] == [
        ("ConfigMap", "c", "", "variables of container init", True),
        ("Secret", "s", "a", USE_A, False),
        ("ConfigMap", "c", "b", "variable B of container app", True),
        ("Secret", "more", "", "variables of container app", False),
        ("Secret", "tls", "", "volume v1", False),
        ("ConfigMap", "c", "k1", "volume v2", False),
        ("ConfigMap", "c", "k2", "volume v2", False),
        ("Secret", "p", "z", "volume v3", False),
    ]


@pytest.mark.parametrize(
    ("contents", "missing"),
    [
        ({}, []),
        ({("Secret", "s"): None}, [("Secret n/s", f"it does not exist, and {USE_A} needs it", "")]),
        ({("Secret", "s"): set()}, [("Secret n/s", f"it has no key a, which {USE_A} needs; it has none", "a")]),
        ({("Secret", "s"): {"y", "b"}}, [("Secret n/s", f"it has no key a, which {USE_A} needs; it has b, y", "a")]),
        ({("Secret", "s"): {"a"}, ("Secret", "tls"): set(), ("Secret", "more"): set()}, []),
        (
            {("ConfigMap", "c"): {"k1"}},
            [("ConfigMap n/c", "it has no key k2, which volume v2 needs; it has k1", "k2")],
        ),
        ({("ConfigMap", "c"): None}, [("ConfigMap n/c", "it does not exist, and volume v2 needs it", "")]),
    ],
)
def test_what_is_missing_is_named_once(contents: Contents, missing: list[tuple[str, str, str]]) -> None:
    """What is optional is not missed, and of what could not be read nothing is said."""
    assert [tuple(lack) for lack in find_missing(list_references(SPEC), contents, "n")] == missing


@pytest.mark.parametrize(
    ("required", "contents", "missing", "untold"),
    [
        ({"app": ["PLAIN", "A", "NODE"]}, {}, [], []),
        ({"app": ["X_U"]}, {("Secret", "more"): {"U"}}, [], []),
        ({"app": ["U"]}, {("Secret", "more"): {"U"}}, ["container app has no variable U, which is required"], []),
        ({"app": ["X_U"]}, {}, [], ["whether container app has X_U: Secret more could not be read"]),
        ({"app": ["X_U"]}, {("Secret", "more"): None}, ["container app has no variable X_U, which is required"], []),
        ({"none": ["U"]}, {}, ["it has no container none, whose variables are required; it has init, app"], []),
    ],
)
def test_required_variables(
    required: dict[str, list[str]], contents: Contents, missing: list[str], untold: list[str]
) -> None:
    """By env, and by envFrom with its prefix, whose keys have to be known."""
    lacks, unknown = find_missing_variables(SPEC, required, contents, "Deployment n/w")
    assert ([lack.message for lack in lacks], unknown) == (missing, untold)
