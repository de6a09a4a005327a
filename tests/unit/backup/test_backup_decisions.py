# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""When a backup is due, which one counts, and what may be removed."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.lowtide.ops.plugins.module_utils._backup import catalogue, keys
from ansible_collections.lowtide.ops.plugins.module_utils._backup.manifest import (
    Manifest,
    NotAManifest,
    Part,
    read_manifest,
)
from ansible_collections.lowtide.ops.plugins.module_utils._backup.plan import (
    SKEW,
    decide,
    parse_age,
    part_size,
    plan,
    readable_age,
)
from ansible_collections.lowtide.ops.plugins.module_utils._common.errors import Refusal
from ansible_collections.lowtide.ops.plugins.module_utils._s3.parse import Listed, Upload

NOW = datetime(2026, 11, 21, 4, 0, 0, tzinfo=UTC)
RUN = "20261121T020000Z-5f1c2a77"
SYSTEM = "7462919812386541234"
MANIFEST = Manifest(
    run_id=RUN,
    database="d/b",
    system_identifier=SYSTEM,
    server_version="15.18",
    client_version="15.18",
    taken_at=datetime(2026, 11, 21, 2, 0, 0, tzinfo=UTC),
    finished_at=datetime(2026, 11, 21, 2, 0, 4, tzinfo=UTC),
    verified_at=datetime(2026, 11, 21, 2, 0, 4, tzinfo=UTC),
    dump_seconds=3.5,
    verify_seconds=0.5,
    tables=2,
    rows=10,
    role_passwords=False,
    encryption=None,
    parts={name: Part(size=10 + index, sha256="0" * 64, etag=f"e{index}") for index, name in enumerate(keys.PARTS)},
)
PLACE = keys.Place(bucket="b", prefix="p", database="d/b", system_identifier=SYSTEM)


def listing(
    run: str = RUN, *, incoming: bool = False, parts: tuple[str, ...] = (*keys.PARTS, keys.MANIFEST)
) -> list[Listed]:
    """What a server lists for one run."""
    found = []
    for name in parts:
        size, etag = (MANIFEST.parts[name].size, MANIFEST.parts[name].etag) if name in MANIFEST.parts else (1, "m")
        found.append(Listed(key=PLACE.key(run, name, incoming=incoming), size=size, etag=etag, modified=""))
    return found


def test_a_manifest_is_read_as_it_was_written() -> None:
    """To the last field."""
    assert read_manifest(MANIFEST.to_json()) == MANIFEST


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_other_bytes_are_no_manifest(body: bytes) -> None:
    """And no other error."""
    with pytest.raises(NotAManifest):
        read_manifest(body)


@settings(deadline=None)
@given(
    st.sampled_from(sorted(json.loads(MANIFEST.to_json()))),
    st.one_of(st.none(), st.integers(), st.text(max_size=5), st.lists(st.integers(), max_size=2)),
)
def test_a_field_of_another_kind_never_passes_as_an_error_of_ours(field: str, value: object) -> None:
    """Read it is, or NotAManifest says why not."""
    document = json.loads(MANIFEST.to_json()) | {field: value}
    try:
        read: Manifest | None = read_manifest(json.dumps(document).encode())
    except NotAManifest:
        read = None
    assert read is None or read.run_id == RUN


def test_a_later_format_is_named() -> None:
    """So that nobody takes it for damage."""
    document = json.loads(MANIFEST.to_json()) | {"format_version": 2}
    with pytest.raises(NotAManifest, match="format_version is 2; this release reads 1"):
        read_manifest(json.dumps(document).encode())


@pytest.mark.parametrize(
    ("age", "allowed", "due"),
    [
        (timedelta(0), timedelta(0), False),
        (timedelta(seconds=1), timedelta(0), True),
        (timedelta(hours=24), timedelta(hours=24), False),
        (timedelta(hours=24, seconds=1), timedelta(hours=24), True),
        (-SKEW, timedelta(hours=1), False),
        (-SKEW - timedelta(seconds=1), timedelta(hours=1), True),
    ],
)
def test_due_by_age(age: timedelta, allowed: timedelta, due: bool) -> None:
    """From the snapshot on; a date far in the future is not believed."""
    decision = decide(newest=replace(MANIFEST, taken_at=NOW - age), now=NOW, max_age=allowed)
    assert decision.due is due
    assert RUN in decision.why


def test_due_without_any() -> None:
    """And nothing else to say."""
    assert decide(newest=None, now=NOW, max_age=timedelta(days=1)).due


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("0", 0), ("3600", 3600), ("90m", 5400), ("24h", 86400), ("7d", 604800), ("2w", 1209600), ("5s", 5)],
)
def test_ages(text: str, seconds: int) -> None:
    """Whole numbers with a unit."""
    assert parse_age(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize("text", ["", "h", "-1h", "1.5h", "1 day", "24H ", "nan", "9" * 30])
def test_no_ages(text: str) -> None:
    """Refused, with the option's name."""
    with pytest.raises(Refusal, match="option max_age"):
        parse_age(text)


def test_age_is_readable() -> None:
    """Two units."""
    assert readable_age(timedelta(days=1, hours=2, minutes=3)) == "1 d 2 h"
    assert readable_age(timedelta(0)) == "0 s"


@settings(deadline=None)
@given(st.integers(min_value=0, max_value=4 << 40))
def test_parts_are_few_enough(size: int) -> None:
    """Within S3's limits of 10,000 parts of at least 5 MiB, even at twice the database's size."""
    part = part_size(size)
    assert part >= 16 << 20
    assert -(-2 * size // part) <= 10_000


def test_a_whole_run_counts() -> None:
    """Manifest readable, objects as listed then."""
    (run,) = catalogue.group(listing(), "p")
    assert catalogue.judge(run, MANIFEST.to_json()).verified


@pytest.mark.parametrize("part", keys.PARTS)
def test_a_run_with_a_missing_or_other_object_does_not_count(part: str) -> None:
    """The problem names the object."""
    for change in ({"size": 1}, {"etag": "other"}, None):
        objects = [
            replace(one, **change) if change and one.key.endswith(part) else one
            for one in listing()
            if change or not one.key.endswith(part)
        ]
        (run,) = catalogue.group(objects, "p")
        judged = catalogue.judge(run, MANIFEST.to_json())
        assert not judged.verified
        assert part in (judged.problem or "")


def test_a_manifest_of_another_run_does_not_count() -> None:
    """Copied by hand from elsewhere."""
    (run,) = catalogue.group(listing("20261121T030000Z-00000000"), "p")
    assert not catalogue.judge(run, MANIFEST.to_json()).verified


def test_leftovers_are_incoming_objects_and_what_their_run_had_copied() -> None:
    """Killed between copy and manifest: both go. Published: only the incoming go."""
    half = [*listing(incoming=True, parts=keys.PARTS), *listing(parts=(keys.DUMP,))]
    found = catalogue.leftovers(catalogue.group(half, "p"), [Upload("k", "u", "")])
    assert set(found.keys) == {one.key for one in half}
    assert len(found.uploads) == 1
    whole = [*listing(incoming=True, parts=(keys.DUMP,)), *listing()]
    assert catalogue.leftovers(catalogue.group(whole, "p"), []).keys == (PLACE.key(RUN, keys.DUMP, incoming=True),)


def test_a_dump_that_has_only_lost_its_manifest_is_left_alone() -> None:
    """Somebody may still want it."""
    assert not catalogue.leftovers(catalogue.group(listing(parts=keys.PARTS), "p"), [])


@settings(deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.sampled_from([*keys.PARTS, keys.MANIFEST])), unique=True))
def test_a_manifest_and_its_parts_are_never_removed(state: list[tuple[bool, str]]) -> None:
    """Whatever lies around: what has a manifest stays."""
    objects = [one for incoming, part in state for one in listing(incoming=incoming, parts=(part,))]
    doomed = catalogue.leftovers(catalogue.group(objects, "p"), []).keys
    if (False, keys.MANIFEST) in state:
        assert all("/.incoming/" in key for key in doomed)


def test_plan_says_what_why_and_how_long() -> None:
    """Removal first, then the backup, with the last one's time as the estimate."""
    decision = decide(newest=MANIFEST, now=NOW, max_age=timedelta(0))
    items = plan(PLACE, decision, catalogue.Leftovers(keys=("k",), uploads=()), MANIFEST)
    assert [item.reversible for item in items] == [False, True]
    assert items[1].estimate == 4.0
    assert "2 h old" in items[1].why
