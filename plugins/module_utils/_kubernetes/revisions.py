# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Revisions of a workload: a Deployment's ReplicaSets, and the ControllerRevisions of a StatefulSet or DaemonSet.

Private to lowtide.ops: do not import from other collections.
"""

from __future__ import annotations

import typing as t

from .._common.errors import Refusal
from .._common.text import join_some
from .._common.timestamps import format_utc
from .fields import Json, as_dict, as_text, get_path
from .objects import ReplicaSet, Revision, Workload
from .pod_templates import clean_template, fingerprint, list_images

HISTORY_ANNOTATION = "deployment.kubernetes.io/revision-history"
"""The numbers that a ReplicaSet had before it was rolled out again."""
KINDS_OF_REVISIONS = {
    "Deployment": "ReplicaSet",
    "StatefulSet": "ControllerRevision",
    "DaemonSet": "ControllerRevision",
}


class Known(t.NamedTuple):
    """One revision: its number, the object that holds it, the hash that its pods carry, and its template."""

    number: int
    name: str
    hash: str
    template: Json
    created_at: float | None = None
    former: tuple[int, ...] = ()

    def as_dict(self) -> Json:
        """Return it as plain data, for the result."""
        created = None if self.created_at is None else format_utc(self.created_at)
        return {"number": self.number, "name": self.name, "images": list_images(self.template), "created": created}


def read_revisions(workload: Workload, objects: t.Iterable[Json]) -> list[Known]:
    """Return the revisions that the workload owns, newest first."""
    known = [_read_revision(workload, obj) for obj in objects]
    return sorted((entry for entry in known if entry is not None), key=lambda entry: -entry.number)


def _read_revision(workload: Workload, obj: Json) -> Known | None:
    if workload.kind == "Deployment":
        replica_set = ReplicaSet.from_object(obj)
        if replica_set.owner_uid != workload.uid or not replica_set.revision:
            return None
        history = as_text(get_path(obj, "metadata", "annotations", HISTORY_ANNOTATION))
        return Known(
            number=replica_set.revision,
            name=replica_set.name,
            hash=replica_set.template_hash,
            template=clean_template(as_dict(get_path(obj, "spec", "template"))),
            created_at=replica_set.created_at,
            former=tuple(int(number) for number in history.split(",") if number.strip().isdigit()),
        )
    revision = Revision.from_object(obj)
    if revision.owner_uid != workload.uid:
        return None
    template = clean_template(as_dict(get_path(obj, "data", "spec", "template")))
    return Known(revision.revision, revision.name, revision.template_hash, template, revision.created_at)


def find_current(revisions: t.Sequence[Known], workload: Workload) -> Known | None:
    """Return the revision of the present template, with the template as the server shows it; None when it is not known.

    A ControllerRevision keeps the template as it was written then: without fields that have got a default since, and
    which its controller takes for the same. So it is the one that the controller names, or has numbered last; where
    the controller has not come to the present template yet, the one with the same text.
    """
    current: Known | None = None
    if workload.is_observed and workload.kind == "StatefulSet":
        current = find_by_name(revisions, workload.revision)
    elif workload.is_observed and workload.kind == "DaemonSet":
        current = max(revisions, key=lambda entry: entry.number, default=None)
    if current is None:
        return find_by_template(revisions, workload.template)
    return current._replace(template=clean_template(workload.template))


def find_by_template(revisions: t.Sequence[Known], template: Json) -> Known | None:
    """Return the newest revision with the same template; None when there is none."""
    mark = fingerprint(template)
    return next((entry for entry in revisions if fingerprint(entry.template) == mark), None)


def make_unnumbered(template: Json) -> Known:
    """Return what stands for a revision that is not known but by its template."""
    return Known(0, "", "", clean_template(template))


def find_by_name(revisions: t.Sequence[Known], name: str) -> Known | None:
    """Return the revision that an object of this name holds; None when it is gone."""
    return next((entry for entry in revisions if entry.name == name), None)


def find_by_number(revisions: t.Sequence[Known], number: int, *, title: str, declared: tuple[int, str] | None) -> Known:
    """Return the revision of a number, also of one that it had before it was rolled out again.

    ``declared`` are number and name of what was rolled out last by its number, since a StatefulSet forgets the number
    that a revision had. A Refusal lists what there is.
    """
    for entry in revisions:
        if entry.number == number or number in entry.former:
            return entry
    if declared is not None and declared[0] == number:
        again = find_by_name(revisions, declared[1])
        if again is not None:
            return again
    raise Refusal(
        obj=f"revision {number} of {title}",
        problem=f"it has no such revision; it has {describe_revisions(revisions)}",
        next_step="Set revision to the number of one of these",
    )


def describe_revisions(revisions: t.Sequence[Known]) -> str:
    """Return all revisions in words, each with its images."""
    words = [f"{entry.number} ({', '.join(list_images(entry.template).values())})" for entry in revisions]
    return join_some(words, limit=10) or "none"


def parse_revision(value: str | None, revisions: t.Sequence[Known], current: Known | None, title: str) -> int | None:
    """Return the declared number of a revision. A Refusal says why ``previous`` is none, and which number it is."""
    if value is None:
        return None
    text = str(value).strip()
    if text.isascii() and text.isdigit() and int(text) > 0:
        return int(text)
    older = [entry for entry in revisions if current is None or entry.number < current.number]
    number = f"; the one before the present one is {older[0].number}" if older else ""
    raise Refusal(
        obj=f"option revision {text!r} of {title}",
        problem=f"it is no number, and would mean another revision at each run; there are {describe_revisions(revisions)}",
        next_step=f"Write the number of the revision that is meant{number}",
    )
