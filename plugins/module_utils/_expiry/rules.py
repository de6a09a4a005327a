# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which objects a site lets go; pure. Private to lowtide.ops: do not import from other collections.

Objects of a bucket are judged in two steps: by what the listing says (age, number that stays), and, only if a rule
asks for it, by tags and metadata, which take a request for each object.
"""

from __future__ import annotations

import re
import typing as t
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from .._backup import keys
from .._common.amounts import parse_duration
from .._common.errors import Refusal
from .._common.series import find_alike, name_series, read_series
from .._common.timestamps import format_utc

if t.TYPE_CHECKING:
    from .._common.series import Pattern
    from .._s3.versions import Version

NULL = "null"
"""The id of what was written while a bucket kept no versions."""
_EARLIEST = datetime(2000, 1, 1, tzinfo=UTC)
"""A moment before it is what programs write for none: 1970, or the year 1."""
_PGBACKREST = re.compile(
    r"(?:^|/)(?:archive/[^/]+/(?:archive\.info|\d+-\d+/)|backup/[^/]+/(?:backup\.info|\d{8}-\d{6}F))"
)
_EPOCH = re.compile(r"[0-9]{10}(?P<milliseconds>[0-9]{3})?(?:\.[0-9]+)?")
_CALENDAR = re.compile(r"20[0-9]{2}(?:0[1-9]|1[0-2])(?:0[1-9]|[12][0-9]|3[01])(?:[01][0-9]|2[0-3])")


@dataclass(frozen=True)
class Rules:
    """What has to hold of an object that goes; all of it. ``older_than`` in seconds.

    Of each series the newest ``keep`` stay; ``series`` tells one from another, None by folder and name without dates.
    """

    older_than: int | None = None
    tags: t.Mapping[str, str] = field(default_factory=dict)
    metadata: t.Mapping[str, str] = field(default_factory=dict)
    expiry_tag: str | None = None
    expiry_metadata: str | None = None
    keep: int = 0
    series: Pattern = None

    @property
    def needs_tags(self) -> bool:
        """Return whether the tags of an object have to be read."""
        return bool(self.tags) or self.expiry_tag is not None

    @property
    def needs_metadata(self) -> bool:
        """Return whether the metadata of an object has to be read."""
        return bool(self.metadata) or self.expiry_metadata is not None


@dataclass(frozen=True)
class Labels:
    """Tags and metadata of one object; empty where no rule asks for them."""

    tags: t.Mapping[str, str] = field(default_factory=dict)
    metadata: t.Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Due:
    """An object that goes, and why."""

    version: Version
    why: str


@dataclass(frozen=True)
class Unreadable:
    """An object that stays, because what it says of its expiry is no moment."""

    version: Version
    problem: str


@dataclass(frozen=True)
class Kept:
    """The keys that stay as the newest of their series, how many objects each series has, and which have too few.

    ``alike`` are those that are kept whole though old enough, and differ from another one in digits only.
    """

    keys: frozenset[str]
    series: t.Mapping[str, int]
    short: tuple[str, ...]
    alike: tuple[str, ...] = ()


@dataclass(frozen=True)
class Selection:
    """What goes, and what is due and stays: ``incomplete`` for an older version, ``exposed`` for the id ``null``.

    ``covering`` is what lies over an older version of that id, which its delete marker would replace.
    """

    going: list[Due]
    incomplete: list[Due]
    exposed: list[Due]
    covering: list[Due] = field(default_factory=list)


def read_rules(params: t.Mapping[str, t.Any]) -> Rules:
    """Return the rules that the module's options give; refuse what cannot be meant."""
    older_than = params["older_than"]
    if params["keep"] < 0:
        raise Refusal(obj="option keep", problem=f"it is {params['keep']}", next_step="Give 0 or more")
    rules = Rules(
        older_than=None if older_than is None else parse_duration(older_than, option="older_than"),
        tags={str(name): str(value) for name, value in params["tags"].items()},
        metadata={str(name).lower(): str(value) for name, value in params["metadata"].items()},
        expiry_tag=params["expiry_tag"],
        expiry_metadata=params["expiry_metadata"].lower() if params["expiry_metadata"] else None,
        keep=params["keep"],
        series=read_series(params["series"]),
    )
    if rules.older_than is None and not rules.needs_tags and not rules.needs_metadata:
        raise Refusal(
            obj="options of s3_expiry",
            problem="no rule says what goes, so every object would",
            next_step="Give older_than, tags, metadata, expiry_tag or expiry_metadata; older_than=0 means every object",
        )
    return rules


def parse_moment(text: str) -> datetime | None:
    """Return the moment that a label names, and None for what can be meant otherwise.

    It is seconds (10 digits) or milliseconds (13) since the epoch, or ISO 8601 with an offset. No other number is read:
    ``20271231`` is a day, ``0`` says that there is no end, and ``2027123123`` may be an hour.
    """
    stripped = text.strip()
    number = _EPOCH.fullmatch(stripped)
    try:
        if number is None:
            moment = datetime.fromisoformat(stripped)
            if moment.tzinfo is None or stripped.isdigit():
                return None
            moment = moment.astimezone(UTC)
        elif _CALENDAR.fullmatch(stripped):
            return None
        else:
            moment = datetime.fromtimestamp(float(stripped) / (1000 if number["milliseconds"] else 1), UTC)
    except (ValueError, OverflowError):
        return None
    return moment if moment >= _EARLIEST else None


def find_backups(versions: t.Iterable[Version]) -> list[str]:
    """Return the keys that lie where our modules or pgBackRest put backups, whatever folders are above."""
    return [version.key for version in versions if is_of_backup(version.key)]


def is_of_backup(key: str) -> bool:
    """Return whether a key is in a folder as the modules of backups name them, or in a repository of pgBackRest."""
    segments = key.split("/")
    return (len(segments) > 1 and keys.is_run_id(segments[-2])) or _PGBACKREST.search(key) is not None


def refuse_backups(versions: t.Iterable[Version], location: str) -> None:
    """Refuse a location that holds backups: an age says nothing of whether a later one has been verified."""
    backups = find_backups(versions)
    if backups:
        raise Refusal(
            obj=location,
            problem=f"{len(backups)} of its objects are parts of backups, such as {backups[0]!r},"
            " and expiry by age removes the last verified one when backups have stopped",
            next_step="Give a prefix that leaves them out; pg_backup's keep and keep_for, or pgBackRest, remove them",
        )


def drop_null_versions(versions: t.Iterable[Version]) -> list[Version]:
    """Return versions so that no current one goes by the id ``null``, for a bucket that is not known to keep versions.

    The next write there gets the same id. So it goes as an object without versions does, under a condition.
    """
    return [
        replace(version, version_id=None)
        if version.version_id == NULL and version.is_current and not version.is_marker
        else version
        for version in versions
    ]


def find_series(version: Version, pattern: Pattern) -> str:
    """Return the series of an object: its folder and its name without dates, or what a pattern finds in its key."""
    written = version.modified.date()
    if pattern is not None:
        return name_series(version.key, pattern, written)
    folder, slash, name = version.key.rpartition("/")
    return folder + slash + name_series(name, None, written)


def choose_kept(versions: t.Iterable[Version], rules: Rules, now: datetime) -> Kept:
    """Return what stays of each series whatever the other rules say: its newest ``keep`` objects.

    Only series of which something is old enough to go are called short.
    """
    if not rules.keep:
        return Kept(frozenset(), {}, ())
    series: dict[str, list[Version]] = {}
    for version in versions:
        if version.is_current and not version.is_marker:
            series.setdefault(find_series(version, rules.series), []).append(version)
    kept: set[str] = set()
    for members in series.values():
        members.sort(key=lambda version: (version.modified, version.key), reverse=True)
        kept.update(version.key for version in members[: rules.keep])
    old = [
        (name, len(members))
        for name, members in series.items()
        if len(members) <= rules.keep and any(is_old_enough(version, rules, now) for version in members)
    ]
    return Kept(
        frozenset(kept),
        {name: len(members) for name, members in series.items()},
        tuple(f"{name} has {number}" for name, number in old if number < rules.keep),
        tuple(find_alike(name for name, number in old if number == rules.keep)),
    )


def is_old_enough(version: Version, rules: Rules, now: datetime) -> bool:
    """Return whether the age of a version lets it go."""
    return not rules.older_than or get_age(version, now) > rules.older_than


def list_candidates(versions: t.Iterable[Version], kept: Kept, rules: Rules, now: datetime) -> list[Version]:
    """Return the versions that the listing alone lets go: old enough, and of no key that stays."""
    return [
        version
        for version in versions
        if not version.is_marker and version.key not in kept.keys and is_old_enough(version, rules, now)
    ]


def get_age(version: Version, now: datetime) -> float:
    """Return for how many seconds a version has been there, or has not been the current one any more."""
    since = version.modified if version.superseded is None else version.superseded
    return (now - since).total_seconds()


def judge(version: Version, labels: Labels, rules: Rules, now: datetime) -> Due | Unreadable | None:
    """Return whether a candidate goes: None if a label says that it stays."""
    reasons = []
    if rules.older_than is not None:
        what = "not current since" if version.superseded is not None else "written"
        reasons.append(f"{what} {format_utc((version.superseded or version.modified).timestamp())}")
    for kind, expected, actual in (("tag", rules.tags, labels.tags), ("metadata", rules.metadata, labels.metadata)):
        for name, value in expected.items():
            if actual.get(name) != value:
                return None
            reasons.append(f"{kind} {name}={value}")
    for kind, label, actual in (
        ("tag", rules.expiry_tag, labels.tags),
        ("metadata", rules.expiry_metadata, labels.metadata),
    ):
        if label is None:
            continue
        text = actual.get(label)
        if text is None:
            return None
        moment = parse_moment(text)
        if moment is None:
            return Unreadable(version, f"{kind} {label} is {text!r}, which is no moment with an offset")
        if moment > now:
            return None
        reasons.append(f"{kind} {label}={text}")
    return Due(version, ", ".join(reasons))


def select_versions(due: t.Sequence[Due], versions: t.Sequence[Version], rules: Rules, now: datetime) -> Selection:
    """Return what of ``due`` may go for good, after :func:`drop_null_versions` where the bucket may not keep versions.

    What still has the id ``null`` there stays: the next write takes that id, and no condition goes with a version's id,
    so the request would remove an object that was written after the listing.
    """
    held = [entry for entry in due if entry.version.version_id == NULL]
    rest = [entry for entry in due if entry.version.version_id != NULL]
    selection = select_complete(rest, versions, rules, now)
    going = [entry for entry in selection.going if entry.version.version_id != NULL]
    held += [entry for entry in selection.going if entry.version.version_id == NULL]
    return Selection(going, selection.incomplete, held)


def select_complete(due: t.Sequence[Due], versions: t.Sequence[Version], rules: Rules, now: datetime) -> Selection:
    """Return what of ``due`` may go for good where each version has an id of its own."""
    going = complete_keys(due, versions, rules, now)
    names = {(entry.version.key, entry.version.version_id) for entry in going}
    return Selection(going, [entry for entry in due if (entry.version.key, entry.version.version_id) not in names], [])


def select_current(due: t.Sequence[Due], versions: t.Iterable[Version]) -> Selection:
    """Return which current objects may go while versions are suspended, given all versions.

    A delete marker that is written then has the id ``null``, and replaces for good the version that has it. So a key
    stays whose version of that id is an older one (Amazon S3, Working with objects in a versioning-suspended bucket).
    """
    hidden = {
        version.key
        for version in versions
        if version.version_id == NULL and not version.is_current and not version.is_marker
    }
    return Selection(
        [entry for entry in due if entry.version.key not in hidden],
        [],
        [],
        [entry for entry in due if entry.version.key in hidden],
    )


def complete_keys(due: t.Sequence[Due], versions: t.Sequence[Version], rules: Rules, now: datetime) -> list[Due]:
    """Return what of ``due`` may go for good, with the delete markers that nothing is left behind.

    To remove a current version, or a marker, for good brings back the version below it. So they go only with all of
    those; a current version whose older ones stay, stays as well. A marker has to be old enough by itself.
    """
    going = {(entry.version.key, entry.version.version_id) for entry in due}
    by_key: dict[str, list[Version]] = {}
    for version in versions:
        by_key.setdefault(version.key, []).append(version)
    result = []
    for entry in due:
        others = [version for version in by_key[entry.version.key] if not version.is_marker]
        if not entry.version.is_current or all((other.key, other.version_id) in going for other in others):
            result.append(entry)
    for members in by_key.values():
        rest = [version for version in members if not version.is_marker]
        markers = [version for version in members if version.is_marker]
        if not markers or not all((version.key, version.version_id) in going for version in rest):
            continue
        if rules.older_than is None:
            continue
        if rules.older_than == 0 or all(get_age(marker, now) > rules.older_than for marker in markers):
            result += [Due(marker, "delete marker of an object of which nothing is left") for marker in markers]
    return result


def order_removal(due: t.Iterable[Due]) -> list[list[Due]]:
    """Return what goes in the order in which it may: what is not current, then what is, then delete markers.

    Killed in between, no older version comes back.
    """
    phases: list[list[Due]] = [[], [], []]
    for entry in due:
        phases[2 if entry.version.is_marker else 1 if entry.version.is_current else 0].append(entry)
    return [phase for phase in phases if phase]
