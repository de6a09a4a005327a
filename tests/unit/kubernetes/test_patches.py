# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""JSON patches: conditional on what was decided about, and on nothing else."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.patches import (
    Write,
    build_json_patch,
    changes_something,
    encode_json,
    format_pointer,
)
from support.memory_objects import Rejected, apply_operations, merge

UID = {"op": "test", "path": "/metadata/uid", "value": "u1"}
STOP = "lowtide.ops/stopped"


def make_object(**metadata: Any) -> dict[str, Any]:
    """A stopped object."""
    return {"metadata": {"uid": "u1", "resourceVersion": "7", **metadata}, "spec": {"replicas": 3}}


def test_it_tests_the_uid_and_what_was_decided_about() -> None:
    """Not the resourceVersion, so that a status that changes meanwhile is no conflict."""
    write = Write({"spec": {"replicas": 0}}, (("spec", "replicas"),))
    assert build_json_patch(make_object(), write) == [
        UID,
        {"op": "test", "path": "/spec/replicas", "value": 3},
        {"op": "add", "path": "/spec/replicas", "value": 0},
    ]


def test_what_is_not_there_is_tested_as_null() -> None:
    """At the first part of the path that is missing: a test below what is not there cannot be made."""
    annotation = ("metadata", "annotations", STOP)
    operations = build_json_patch(make_object(annotations={"a": "b"}), Write({}, (annotation,)))
    assert operations == [
        UID,
        {"op": "test", "path": "/metadata/annotations/lowtide.ops~1stopped", "value": None},
    ]
    assert build_json_patch(make_object(), Write({}, (annotation,))) == [
        UID,
        {"op": "test", "path": "/metadata/annotations", "value": None},
    ]
    assert not changes_something(operations)


def test_fields_are_set_one_by_one() -> None:
    """What others have beside them, or set at the same time, stays."""
    current = make_object(annotations={"theirs": "1"})
    operations = build_json_patch(current, Write({"metadata": {"annotations": {STOP: "x"}}}))
    assert operations == [UID, {"op": "add", "path": "/metadata/annotations/lowtide.ops~1stopped", "value": "x"}]
    assert changes_something(operations)
    current["metadata"]["annotations"]["theirs"] = "2"
    assert apply_operations(current, operations)["metadata"]["annotations"] == {"theirs": "2", STOP: "x"}


def test_a_new_branch_never_replaces_a_rivals_branch() -> None:
    """Two clients annotate an object without annotations: the second one is told, instead of the first one's being lost."""
    current = make_object()
    operations = build_json_patch(current, Write({"metadata": {"annotations": {STOP: "x", "gone": None}}}))
    assert operations == [
        UID,
        {"op": "test", "path": "/metadata/annotations", "value": None},
        {"op": "add", "path": "/metadata/annotations", "value": {STOP: "x"}},
    ]
    assert apply_operations(current, operations)["metadata"]["annotations"] == {STOP: "x"}
    with pytest.raises(Rejected):
        apply_operations(make_object(annotations={"theirs": "1"}), operations)


def test_removing() -> None:
    """What is there is removed, what is not there is no change."""
    body = {"metadata": {"annotations": {STOP: None}}}
    there = build_json_patch(make_object(annotations={STOP: "x"}), Write(body))
    assert there[1:] == [{"op": "remove", "path": "/metadata/annotations/lowtide.ops~1stopped"}]
    assert changes_something(there)
    assert build_json_patch(make_object(annotations={"a": "b"}), Write(body)) == [UID]
    assert build_json_patch(make_object(), Write(body)) == [UID]
    assert build_json_patch(make_object(annotations=None), Write(body)) == [UID]


def test_values_that_are_no_objects_are_replaced_whole() -> None:
    """Lists as merge patches do it, an empty object as such, a text by an object."""
    current = make_object(finalizers=["a"], labels="odd")
    body = {"metadata": {"finalizers": [], "labels": {"a": "b"}}, "spec": {"empty": {}}}
    operations = build_json_patch(current, Write(body))
    assert {"op": "test", "path": "/metadata/labels", "value": "odd"} in operations
    patched = apply_operations(current, operations)
    assert (patched["metadata"]["finalizers"], patched["metadata"]["labels"]) == ([], {"a": "b"})
    assert patched["spec"] == {"replicas": 3, "empty": {}}


def test_the_object_that_was_read_stays_as_it_is() -> None:
    """Nothing is changed in place."""
    current = make_object(annotations={"a": "b"})
    before = copy.deepcopy(current)
    build_json_patch(current, Write({"metadata": {"annotations": {"a": None, "c": "d"}}}, (("spec", "paused"),)))
    assert current == before


@pytest.mark.parametrize("current", [{}, {"metadata": {}}, {"metadata": {"uid": ""}}, {"metadata": None}])
def test_an_object_without_uid_is_an_error(current: dict[str, Any]) -> None:
    """There would be no condition."""
    with pytest.raises(ValueError, match="uid"):
        build_json_patch(current, Write({"spec": {"replicas": 1}}))


def test_a_path_through_a_value_is_an_error() -> None:
    """It is no path of this object."""
    with pytest.raises(ValueError, match=r"/spec/replicas is no object, so /spec/replicas/count"):
        build_json_patch(make_object(), Write({}, (("spec", "replicas", "count"),)))


def test_pointers_are_escaped() -> None:
    """First the tilde, then the slash."""
    assert format_pointer(("a~b/c", "")) == "/a~0b~1c/"


def test_texts_are_written_as_the_server_writes_them() -> None:
    """Otherwise a test of such an annotation would always fail."""
    text = '<é&>\u2028\u2029\n"\\'
    assert encode_json({"a": text}) == (b'{"a":"\\u003c\xc3\xa9\\u0026\\u003e\\u2028\\u2029\\n\\"\\\\"}')
    assert json.loads(encode_json({"a": text})) == {"a": text}


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from(["", "a", "/~"]),
    lambda children: st.dictionaries(st.sampled_from("abc/~"), children, max_size=3) | st.lists(children, max_size=2),
    max_leaves=8,
)
OBJECTS = st.dictionaries(st.sampled_from("abc/~"), VALUES, max_size=3)


def drop_empty(value: Any) -> Any:
    """A value without nulls and empty objects, which removing from nothing may or may not leave behind."""
    if not isinstance(value, dict):
        return value
    items = {key: drop_empty(item) for key, item in value.items()}
    return {key: item for key, item in items.items() if item not in (None, {})}


@given(current=OBJECTS, body=OBJECTS)
def test_it_makes_what_the_merge_patch_would_make(current: dict[str, Any], body: dict[str, Any]) -> None:
    """For every object and body."""
    current = {**current, "metadata": {"uid": "u1"}}
    patched = apply_operations(current, build_json_patch(current, Write(body)))
    assert drop_empty(patched) == drop_empty(merge(current, body))


@given(current=OBJECTS, body=OBJECTS)
def test_it_refuses_another_object(current: dict[str, Any], body: dict[str, Any]) -> None:
    """One of the same name that was made in its place."""
    operations = build_json_patch({**current, "metadata": {"uid": "u1"}}, Write(body))
    with pytest.raises(Rejected):
        apply_operations({**current, "metadata": {"uid": "u2"}}, operations)
