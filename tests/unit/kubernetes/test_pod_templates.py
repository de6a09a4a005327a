# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Values of pod templates: named, compared by effect, changed and taken back."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from ansible_collections.lowtide.ops.plugins.module_utils._common.errors import Refusal
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.pod_templates import (
    ANNOTATION,
    ENV,
    IMAGE,
    LIMITS,
    REQUESTS,
    SCHEMA_VERSIONS,
    Edit,
    Place,
    apply_edits,
    clean_template,
    diff_template,
    find_digest,
    find_schema_problem,
    fingerprint,
    plan_edits,
)
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.quantities import canonicalize_quantity

Json = dict[str, Any]

TEMPLATE: Json = {
    "metadata": {"labels": {"app": "w"}},
    "spec": {
        "containers": [
            {
                "name": "main",
                "image": "i:1",
                "env": [
                    {"name": "A", "value": "1"},
                    {"name": "B", "value": "$(A)2"},
                    {"name": "S", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}},
                    {"name": "EMPTY"},
                ],
                "resources": {"requests": {"cpu": "500m", "memory": "1Gi"}, "limits": {"memory": "1Gi"}},
            },
            {"name": "sidecar", "image": "s:1", "resources": {}},
        ],
        "initContainers": [{"name": "prepare", "image": "p:1"}],
    },
}
MAIN, SIDE = "main", "sidecar"


def change(values: dict[Place, Any]) -> Json:
    """Return the template with these values."""
    return apply_edits(TEMPLATE, plan_edits(TEMPLATE, values, "T"), "T")


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (Place(MAIN, IMAGE), "i:1"),
        (Place(MAIN, ENV, "A"), {"value": "1"}),
        (Place(MAIN, ENV, "EMPTY"), {"value": ""}),
        (Place(MAIN, ENV, "ABSENT"), None),
        (Place(MAIN, REQUESTS, "cpu"), "0.5"),
        (Place(MAIN, LIMITS, "memory"), "1024Mi"),
        (Place(MAIN, LIMITS, "cpu"), None),
        (Place("", ANNOTATION, "note"), None),
    ],
)
def test_what_has_the_same_effect_is_no_change(place: Place, value: Any) -> None:
    """Amounts are compared as amounts, an empty variable is one without a value."""
    assert plan_edits(TEMPLATE, {place: value}, "T") == []


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (Place(MAIN, IMAGE), "i:01"),
        (Place(SIDE, IMAGE), "s:2"),
        (Place("prepare", IMAGE), "p:2"),
        (Place(MAIN, ENV, "A"), {"value": "1.0"}),
        (Place(MAIN, ENV, "S"), {"value": "plain"}),
        (Place(MAIN, ENV, "A"), None),
        (Place(MAIN, ENV, "NEW"), {"value": ""}),
        (Place(MAIN, REQUESTS, "cpu"), "501m"),
        (Place(MAIN, LIMITS, "cpu"), "1"),
        (Place(SIDE, LIMITS, "memory"), "1Gi"),
        (Place(MAIN, LIMITS, "memory"), None),
        (Place("", ANNOTATION, "note"), "x"),
    ],
)
def test_a_change_is_one_value_and_can_be_taken_back(place: Place, value: Any) -> None:
    """Exactly the template that was there comes of it again, by what is saved as JSON."""
    (edit,) = plan_edits(TEMPLATE, {place: value}, "T")
    before = copy.deepcopy(TEMPLATE)
    changed = apply_edits(TEMPLATE, [edit], "T")
    assert before == TEMPLATE
    assert fingerprint(changed) != fingerprint(TEMPLATE)
    saved = Edit.from_dict(edit.as_dict())
    assert saved == edit
    back = apply_edits(changed, [Edit(edit.place, edit.after, edit.before)], "T")
    if (place, value) != (Place(MAIN, ENV, "A"), None):  # a variable that was removed comes back at the end
        assert back == TEMPLATE
    assert plan_edits(back, {place: edit.before}, "T") == []


def test_a_variable_keeps_its_place() -> None:
    """Since those after it may refer to it; a new one comes last."""
    changed = change({Place(MAIN, ENV, "A"): {"value": "9"}, Place(MAIN, ENV, "Z"): {"value": ""}})
    assert changed["spec"]["containers"][0]["env"] == [
        {"name": "A", "value": "9"},
        *TEMPLATE["spec"]["containers"][0]["env"][1:],
        {"name": "Z"},
    ]


def test_an_unknown_container_is_refused_with_those_there_are() -> None:
    """By its name, never by an index."""
    with pytest.raises(Refusal) as caught:
        change({Place("mian", IMAGE): "x"})
    assert str(caught.value) == (
        "container 'mian' of T: it has no such container; it has main, sidecar, prepare. Correct the name in containers."
    )


def test_values_of_variables_are_not_told() -> None:
    """They may be secrets."""
    assert (
        Edit(Place(MAIN, ENV, "PASSWORD"), {"value": "old"}, {"value": "new"}).describe() == "change main: env PASSWORD"
    )
    assert Edit(Place(MAIN, ENV, "A"), None, {"value": "new"}).describe() == "set main: env A"
    assert Edit(Place(MAIN, ENV, "A"), {"value": "old"}, None).describe() == "remove main: env A"
    assert Edit(Place(MAIN, LIMITS, "memory"), None, "1Gi").describe() == "main: limits memory none -> 1Gi"


def test_a_template_of_a_revision_is_that_of_its_workload() -> None:
    """Whatever its ReplicaSet or ControllerRevision has added, and whatever the server writes amounts like."""
    kept = copy.deepcopy(TEMPLATE)
    kept["$patch"] = "replace"
    kept["metadata"] |= {"creationTimestamp": None, "labels": {"app": "w", "pod-template-hash": "h"}}
    kept["spec"]["containers"][0]["resources"]["limits"]["memory"] = "1024Mi"
    assert fingerprint(kept) == fingerprint(TEMPLATE)
    kept["spec"]["containers"][0]["resources"]["limits"]["memory"] = "1Gi"
    assert clean_template(kept) == TEMPLATE


def test_a_diff_makes_the_other_template() -> None:
    """Keys that are gone are nulls, lists are whole."""
    other = change({Place(MAIN, IMAGE): "i:2", Place("", ANNOTATION, "a"): "b"})
    assert diff_template(TEMPLATE, TEMPLATE) == {}
    assert diff_template(TEMPLATE, other) == {
        "metadata": {"annotations": {"a": "b"}},
        "spec": {"containers": other["spec"]["containers"]},
    }
    assert diff_template(other, TEMPLATE)["metadata"] == {"annotations": None}


@pytest.mark.parametrize(
    ("image", "digest"),
    [
        (f"r:5000/i@sha256:{'a' * 64}", f"sha256:{'a' * 64}"),
        (f"i:1@sha256:{'a' * 64}", f"sha256:{'a' * 64}"),
        ("i:1", None),
        (f"i@sha256:{'a' * 63}", None),
    ],
)
def test_a_digest_is_read_from_a_name(image: str, digest: str | None) -> None:
    """A tag is none."""
    assert find_digest(image) == digest


@pytest.mark.parametrize(
    ("declared", "version", "problem"),
    [
        (None, None, ""),
        ("42", 42, ""),
        ("40-42", 40, ""),
        ("40 - 42", 42, ""),
        (None, 42, "has no annotation lowtide.ops/schema-versions"),
        ("42", None, "schema_version does not say which one there is"),
        ("40-42", 43, "it works with schema versions 40-42, and the schema is of version 43"),
        ("40-42", 39, "the schema is of version 39"),
        ("latest", 42, "not a version such as 42"),
        ("", 42, "not a version such as 42"),
    ],
)
def test_a_schema_that_the_code_does_not_know_is_a_problem(
    declared: str | None, version: int | None, problem: str
) -> None:
    """Newer or older, and also where one side says nothing."""
    annotations = {} if declared is None else {SCHEMA_VERSIONS: declared}
    found = find_schema_problem({"metadata": {"annotations": annotations}}, version)
    assert problem in found
    assert bool(problem) is bool(found)


@pytest.mark.parametrize(
    ("written", "canonical"),
    [
        ("1000m", "1"),
        ("0.5", "500m"),
        ("1024Mi", "1Gi"),
        ("1.5Gi", "1536Mi"),
        ("0.5Ki", "512"),
        ("1000", "1k"),
        ("1024", "1024"),
        ("0", "0"),
        ("2e3", "2e3"),
        (2, "2"),
        ("0.0001", "100u"),
    ],
)
def test_a_quantity_is_written_as_the_server_writes_it(written: Any, canonical: str) -> None:
    """So that a test of a patch, and the comparison of its answer, hold."""
    assert canonicalize_quantity(written) == canonical
