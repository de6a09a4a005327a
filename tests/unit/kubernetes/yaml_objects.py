# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Objects of ``data/*.yaml`` for the tests of this directory, whole or with some fields replaced."""

from __future__ import annotations

import copy
import functools
from pathlib import Path
from typing import Any

import yaml

from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.autoscalers import Autoscaler
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.objects import Workload
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.snapshot import Snapshot

Json = dict[str, Any]
NOW = 1777629660.0
"""2026-05-01T10:01:00Z, a minute after most of what happens in the data."""
SINCE = 1777629600.0
"""2026-05-01T10:00:00Z, when a wait began in them."""


class _Loader(yaml.SafeLoader):
    """A loader to which times are text, as JSON has them."""

    yaml_implicit_resolvers = {  # noqa: RUF012 (the base class has it so)
        first: [entry for entry in entries if entry[0] != "tag:yaml.org,2002:timestamp"]
        for first, entries in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


@functools.cache
def _parse(name: str) -> list[Json]:
    path = Path(__file__).with_name("data") / f"{name}.yaml"
    return list(yaml.load_all(path.read_text(encoding="utf-8"), Loader=_Loader))


def read_documents(name: str) -> list[Json]:
    """All documents of a file, as copies."""
    return copy.deepcopy(_parse(name))


def load(name: str) -> list[Json]:
    """The objects of a file."""
    return read_documents(name)


def find(objects: list[Json], kind: str, name: str = "") -> Json:
    """The object of this kind and name in a list; the first one of the kind without a name."""
    return next(obj for obj in objects if obj["kind"] == kind and name in ("", obj["metadata"]["name"]))


def replace(obj: Json, **fields: Any) -> Json:
    """A copy with fields replaced, named by their path: ``status__replicas=2``; None removes one."""
    changed = copy.deepcopy(obj)
    for path, value in fields.items():
        *parents, last = path.split("__")
        target = changed
        for key in parents:
            target = target.setdefault(key, {})
        if value is None:
            target.pop(last, None)
        else:
            target[last] = value
    return changed


def swap(objects: list[Json], kind: str, name: str = "", **fields: Any) -> list[Json]:
    """The list with fields of one of its objects replaced."""
    target = find(objects, kind, name)
    return [replace(obj, **fields) if obj is target else obj for obj in objects]


def without(objects: list[Json], *kinds: str) -> list[Json]:
    """The list without the objects of these kinds."""
    return [obj for obj in objects if obj["kind"] not in kinds]


def take(objects: list[Json], *known: str, at: float = NOW) -> Snapshot:
    """A snapshot of these objects, in which the kinds ``known`` have been read even if there is none."""
    return Snapshot.from_objects(objects, known=known, at=at)


def describe_event(uid: str, reason: str, message: str = "", *, at: str = "2026-05-01T10:00:00Z") -> Json:
    """An event about the object with this uid."""
    name = f"{uid}-{reason}-{at}"
    return {
        "kind": "Event",
        "metadata": {"name": name, "namespace": "shop", "uid": name},
        "involvedObject": {"uid": uid},
        "reason": reason,
        "message": message,
        "lastTimestamp": at,
    }


def workload(obj: Json, **fields: Any) -> Workload:
    """The typed form of an object with fields replaced."""
    return Workload.from_object(replace(obj, **fields))


def scale_between(minimum: int, maximum: int) -> list[Autoscaler]:
    """An HPA with these bounds."""
    spec = {"scaleTargetRef": {"kind": "StatefulSet", "name": "db"}, "minReplicas": minimum, "maxReplicas": maximum}
    return [
        Autoscaler.from_object(
            {"metadata": {"namespace": "shop", "name": "h"}, "spec": spec}, "HorizontalPodAutoscaler"
        )
    ]
