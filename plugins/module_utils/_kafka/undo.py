# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The undo record of a change of offsets. Private to lowtide.ops: do not import from other collections.

A group cannot hold its own before-state, so it is in a file at the path the caller names, written before the change.
The first record of a change stays: a run that repeats an interrupted one finds it, and never overwrites the offsets
from before the interruption with those from after it.
"""

from __future__ import annotations

import datetime
import json
import os
import tempfile
import typing as t

from .._common.errors import Refusal
from .api import TopicPartition

if t.TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from .plan import OffsetChange

FORMAT = "lowtide.ops/rpk_group/undo/1"


class Record(t.NamedTuple):
    """Offsets ``before`` (None: no commit) and ``after`` a change of ``group``; ``declared`` is what asked for it."""

    group: str
    cluster_id: str
    written: str
    declared: t.Any
    before: dict[TopicPartition, int | None]
    after: dict[TopicPartition, int]

    def as_json(self) -> str:
        """The file's text."""
        rows = [
            {
                "topic": partition.topic,
                "partition": partition.partition,
                "before": self.before[partition],
                "after": after,
            }
            for partition, after in sorted(self.after.items())
        ]
        head = {
            "format": FORMAT,
            "group": self.group,
            "cluster_id": self.cluster_id,
            "written": self.written,
            "declared": self.declared,
        }
        return json.dumps({**head, "offsets": rows}, indent=1) + "\n"


def record(group: str, cluster_id: str, declared: t.Any, changes: Iterable[OffsetChange]) -> Record:
    """The record of a change that is about to be made."""
    needed = [change for change in changes if change.needed]
    return Record(
        group=group,
        cluster_id=cluster_id,
        written=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        declared=declared,
        before={change.partition: change.before for change in needed},
        after={change.partition: change.after for change in needed},
    )


def parse(text: str, path: str) -> Record:
    """A record from its text; anything else is refused."""
    try:
        data = json.loads(text)
        if data["format"] != FORMAT:
            raise _unusable(path, f"its format is {data['format']!r}, not {FORMAT!r}")
        rows = [
            (TopicPartition(str(row["topic"]), int(row["partition"])), row["before"], row["after"])
            for row in data["offsets"]
        ]
        if not all(
            isinstance(after, int) and (before is None or isinstance(before, int)) for _partition, before, after in rows
        ):
            raise _unusable(path, "an offset in it is no number")
        return Record(
            group=str(data["group"]),
            cluster_id=str(data["cluster_id"]),
            written=str(data["written"]),
            declared=data["declared"],
            before={partition: before for partition, before, _after in rows},
            after={partition: after for partition, _before, after in rows},
        )
    except (ValueError, KeyError, TypeError) as error:
        raise _unusable(path, f"it cannot be read as an undo record ({type(error).__name__}: {error})") from error


def _unusable(path: str, problem: str) -> Refusal:
    return Refusal(
        obj=f"file {path}", problem=problem, next_step="Name a file which rpk_group has written, or another path"
    )


def load(path: str) -> Record | None:
    """The record at ``path``, None when there is no such file."""
    try:
        with open(path, encoding="utf-8") as file:
            return parse(file.read(), path)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _unusable(path, f"it cannot be read ({error.strerror})") from error


def explain_mismatch(
    earlier: Record, *, group: str, cluster_id: str, declared: t.Any, committed: Mapping[TopicPartition, int]
) -> str:
    """Why ``earlier`` is not the record of this same change, done, half done or not begun; empty when it is."""
    if (earlier.group, earlier.cluster_id) != (group, cluster_id):
        return f"it holds the undo of group {earlier.group} in cluster {earlier.cluster_id}"
    if earlier.declared != declared:
        return f"it holds the undo of another declaration for this group, of {earlier.written}"
    for partition, before in earlier.before.items():
        if committed.get(partition) not in (before, earlier.after[partition]):
            return (
                f"it holds the undo of {earlier.written}, and the group has since moved "
                f"(it is at {committed.get(partition)} in {partition}, not at {before} or {earlier.after[partition]})"
            )
    return ""


def in_use(path: str, why: str) -> Refusal:
    """The path holds what this run must not overwrite."""
    return Refusal(
        obj=f"undo_file {path}", problem=why, next_step="Name another undo_file, or remove that one if it is not needed"
    )


def merged(earlier: Record | None, new: Record) -> Record:
    """What to keep: for every partition the oldest offset before, and the newest after."""
    if earlier is None:
        return new
    return earlier._replace(before={**new.before, **earlier.before}, after={**earlier.after, **new.after})


def check_place(path: str) -> None:
    """Refuse a place where no file can be written. Writes nothing."""
    folder = os.path.dirname(os.path.abspath(path))
    if os.path.isdir(path) or not os.path.isdir(folder):
        problem = "it is a folder" if os.path.isdir(path) else f"there is no folder {folder}"
        raise Refusal(obj=f"undo_file {path}", problem=problem, next_step="Name a file in a folder that exists")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise Refusal(
            obj=f"undo_file {path}",
            problem=f"the folder {folder} cannot be written to",
            next_step="Name a file in another folder",
        )


def save(path: str, content: Record) -> None:
    """Write it whole or not at all, readable by its owner only, and on disk when this returns."""
    folder = os.path.dirname(os.path.abspath(path))
    try:
        handle, temporary = tempfile.mkstemp(dir=folder, prefix=f".{os.path.basename(path)}.")
        try:
            with open(handle, "w", encoding="utf-8") as file:
                file.write(content.as_json())
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            os.unlink(temporary)
            raise
        directory = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
    except OSError as error:
        raise Refusal(
            obj=f"undo_file {path}",
            problem=f"it cannot be written ({error.strerror}), so nothing was changed",
            next_step="Free space there, or name a file elsewhere",
        ) from error
