# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the module file_expiry calls. Private to lowtide.ops: do not import from other collections."""

from __future__ import annotations

import os
import time
import typing as t
from datetime import date

from .._common.amounts import parse_duration
from .._common.caps import Amount, read_caps, refuse_excess
from .._common.errors import OpsError, Refusal
from .._common.outcome import Blocker, PlanItem
from .._common.series import explain_alike, find_alike, name_series, read_series
from .._common.text import format_count, format_size, join_some
from .._common.timestamps import format_utc
from .listing import (
    File,
    check_folder,
    explain_unproven,
    find_open_files,
    list_files,
    remove_file,
)

if t.TYPE_CHECKING:
    from ansible.module_utils.basic import AnsibleModule

    from .._common.outcome import Outcome
    from .._common.series import Pattern

FILES_SPEC: dict[str, dict[str, t.Any]] = {
    "path": {"type": "str", "required": True},
    "patterns": {"type": "list", "elements": "str", "required": True},
    "recurse": {"type": "bool", "default": False},
    "older_than": {"type": "str", "required": True},
    "keep": {"type": "int", "required": True},
    "series": {"type": "str"},
    "checksum_suffix": {"type": "str"},
    "max_files": {"type": "int", "default": 1000},
    "max_bytes": {"type": "str"},
    "max_share": {"type": "int", "default": 90},
}


class Decision(t.NamedTuple):
    """Which files go, which stay whatever their age, and why others that are old enough stay."""

    due: list[File]
    kept: list[File]
    blockers: list[Blocker]


def expire_files(module: AnsibleModule, outcome: Outcome) -> None:
    """Do the work of module file_expiry: list, decide, compare with the caps, and remove."""
    params = module.params
    caps = read_caps(params, "max_files")
    age = parse_duration(params["older_than"], option="older_than")
    check_options(params)
    pattern = read_series(params["series"])
    path, suffix = params["path"].rstrip("/"), params["checksum_suffix"] or ""
    check_folder(path)
    names = [name + end for name in params["patterns"] for end in ("", suffix)]
    files, orphans = split_checksums(list_files(path, names, recurse=params["recurse"]), suffix)
    series, now = group_series(files, pattern), time.time()
    decision = decide(series, now=now, age=age, keep=params["keep"], suffix=suffix)
    decision.due.extend(file for file in orphans if now - file.modified > age)
    files += orphans
    due = Amount.from_sizes(file.size for file in decision.due)
    total = Amount.from_sizes(file.size for file in files)
    words = "{} of {} ({})".format(due.number, format_count(total.number, "file"), format_size(due.size))
    outcome.blockers = decision.blockers
    outcome.facts.update(
        {
            "path": path,
            "listed": {"files": total.number, "bytes": total.size},
            "expired": [report_file(file) for file in decision.due],
            "kept": [file.path for file in decision.kept],
            "series": {name: len(members) for name, members in series.items()},
            "removed": [],
            "not_removed": [],
        }
    )
    outcome.evidence = [f"kept whatever its age: {describe_file(file)}" for file in decision.kept[:5]]
    outcome.evidence += [describe_file(file) for file in decision.due[:20]]
    outcome.summary = "none of {} in {} is due".format(format_count(total.number, "file"), path)
    if decision.due:
        outcome.summary = f"would remove {words} in {path}"
        why = "older than {}, and {} newer of {} series stay".format(
            params["older_than"], len(decision.kept), len(series)
        )
        outcome.plan = [PlanItem(path, f"remove {words}", why, reversible=False)]
        outcome.before = {"files": [file.path for file in decision.due]}
        outcome.after = {"files": []}
    refuse_excess(caps, location=path, due=due, total=total, noun="file")
    outcome.changed = bool(decision.due) and module.check_mode
    if decision.due and not module.check_mode:
        remove_files(outcome, decision.due, path, suffix)


def check_options(params: t.Mapping[str, t.Any]) -> None:
    """Refuse options that cannot be meant."""
    if params["keep"] < 0:
        raise Refusal(obj="option keep", problem="it is {}".format(params["keep"]), next_step="Give 0 or more")
    for name in params["patterns"]:
        if not name or "/" in name:
            raise Refusal(
                obj="option patterns",
                problem=f"{name!r} is no pattern of a file's name",
                next_step="Give names as the shell would, such as *.dump; the folder is path",
            )
    suffix = params["checksum_suffix"] or ""
    if "/" in suffix:
        raise Refusal(
            obj="option checksum_suffix",
            problem=f"{suffix!r} leads to another folder",
            next_step="Give what the name of the file is followed by, such as .sha256",
        )
    if not params["patterns"]:
        raise Refusal(obj="option patterns", problem="it is empty", next_step="Name the files, such as *.dump")


def group_series(files: t.Iterable[File], pattern: Pattern) -> dict[str, list[File]]:
    """Return files by series, in their order: by folder, and by what of the name tells one series from another."""
    series: dict[str, list[File]] = {}
    for file in files:
        folder, name = os.path.split(file.path)
        written = date(*time.gmtime(file.modified)[:3])
        series.setdefault(os.path.join(folder, name_series(name, pattern, written)), []).append(file)
    return series


def split_checksums(files: t.Sequence[File], suffix: str) -> tuple[list[File], list[File]]:
    """Return the files, and the checksums that lie there without their file; those beside a file go with it."""
    if not suffix:
        return list(files), []
    rest = [file for file in files if not file.path.endswith(suffix)]
    checksums = [file for file in files if file.path.endswith(suffix)]
    return rest, [file for file in checksums if not os.path.lexists(file.path[: -len(suffix)])]


def decide(series: t.Mapping[str, t.Sequence[File]], *, now: float, age: int, keep: int, suffix: str) -> Decision:
    """Decide which files go, each series newest first. The newest ``keep`` of each stay.

    An empty one does not count, and with ``suffix`` only proven ones do. Of a series that has fewer, none goes: whoever
    makes them has stopped, or makes bad ones.
    """
    blockers: list[Blocker] = []
    kept: list[File] = []
    old: list[File] = []
    short: list[str] = []
    whole: list[str] = []
    for name, files in series.items():
        too_old = [file for file in files if now - file.modified > age]
        if not too_old:
            kept += [file for file in files if not file.is_empty][:keep] if not suffix else []
            continue
        own, problems = choose_kept(files, keep, suffix)
        kept += own
        blockers += problems
        if len(own) < keep:
            short.append(f"{name} has {len(own)}")
            continue
        going = [file for file in too_old if file not in own]
        old += going
        if not going:
            whole.append(name)
    if short:
        what = "proven files" if suffix else "files with content"
        blockers.append(
            Blocker(
                f"{len(short)} of {len(series)} series",
                f"there are fewer {what} than have to stay ({keep}), so none of them is removed: {join_some(short)}",
                "options keep and series",
                "Make new ones first, then run again; where names of one series differ in more than dates, say by"
                " series what tells one from another",
            )
        )
    alike = find_alike(whole)
    if alike:
        blockers.append(explain_alike(alike, f"{len(alike)} of {len(series)} series"))
    in_use = find_open_files()
    due = []
    for file in old:
        if (file.device, file.inode) in in_use:
            blockers.append(
                Blocker(
                    file.path,
                    "a process has it open, so its removal would free nothing",
                    "that process",
                    "Have the service open a new one (logrotate), then run again",
                )
            )
        else:
            due.append(file)
    return Decision(due, kept, blockers)


def choose_kept(files: t.Sequence[File], keep: int, suffix: str) -> tuple[list[File], list[Blocker]]:
    """Return the newest ``keep`` of a series that count, and why newer ones do not."""
    kept: list[File] = []
    blockers: list[Blocker] = []
    for file in files:
        if len(kept) == keep:
            break
        problem = "it is empty" if file.is_empty else explain_unproven(file, suffix) if suffix else ""
        if not problem:
            kept.append(file)
            continue
        blockers.append(
            Blocker(
                file.path,
                f"it does not count as one that stays: {problem}",
                "whoever writes it",
                "Find out why it is not whole, or write its SHA-256 beside it by sha256sum"
                if suffix
                else "Find out why nothing was written to it, and make a new one",
            )
        )
    return kept, blockers


def report_file(file: File) -> dict[str, t.Any]:
    """Return a file as the result shows it."""
    return {"path": file.path, "bytes": file.size, "modified": format_utc(file.modified)}


def describe_file(file: File) -> str:
    """Return path, size and age of a file, the path so that white space in it can be seen."""
    return f"{file.path!r} ({format_size(file.size)}), written {format_utc(file.modified)}"


def remove_files(outcome: Outcome, due: t.Sequence[File], path: str, suffix: str) -> None:
    """Remove what is due, oldest first, and say what became of each."""
    failed: list[dict[str, str]] = []
    size = 0
    outcome.write_attempted = True
    for file in sorted(due, key=lambda file: file.modified):
        problem = remove_file(file, suffix)
        if problem:
            failed.append({"path": file.path, "problem": problem})
            continue
        outcome.changed = True
        size += file.size if file.links == 1 else 0
        outcome.facts["removed"].append(file.path)
    outcome.facts["not_removed"] = failed
    outcome.after = {"files": [entry["path"] for entry in failed]}
    outcome.summary = "removed {} of {} in {}, {} are free".format(
        len(outcome.facts["removed"]), format_count(len(due), "expired file"), path, format_size(size)
    )
    if failed:
        words = ["{!r} ({})".format(entry["path"], entry["problem"]) for entry in failed]
        raise OpsError(
            obj="{} of {} in {}".format(len(failed), format_count(len(due), "file"), path),
            problem=f"they were not removed: {join_some(words, limit=3)}",
            next_step="Run as an account that may write {}, and see what else writes there; then run again".format(
                os.path.dirname(failed[0]["path"])
            ),
        )
