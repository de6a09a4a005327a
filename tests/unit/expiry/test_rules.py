# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Which objects go: moments, ages, versions that hang together, limits, and keys of backups."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from ansible_collections.lowtide.ops.plugins.module_utils._backup import keys
from ansible_collections.lowtide.ops.plugins.module_utils._common.amounts import parse_duration, parse_size
from ansible_collections.lowtide.ops.plugins.module_utils._common.caps import Amount, Caps, refuse_excess
from ansible_collections.lowtide.ops.plugins.module_utils._common.errors import Refusal
from ansible_collections.lowtide.ops.plugins.module_utils._common.series import name_series
from ansible_collections.lowtide.ops.plugins.module_utils._expiry.rules import (
    Due,
    Labels,
    Rules,
    Unreadable,
    choose_kept,
    complete_keys,
    drop_null_versions,
    find_backups,
    judge,
    list_candidates,
    order_removal,
    parse_moment,
    select_versions,
)
from ansible_collections.lowtide.ops.plugins.module_utils._s3.versions import Version, fits_xml, order_versions

NOW = datetime(2026, 11, 27, 12, 0, tzinfo=UTC)


def make_version(key: str, *, days: float, version_id: str | None = None, **more: Any) -> Version:
    """A version that was written so many days ago."""
    return Version(key, 1, "e", NOW - timedelta(days=days), version_id, **more)


def list_due(versions: list[Version], rules: Rules) -> list[Version]:
    """What the listing alone lets go."""
    return list_candidates(versions, choose_kept(versions, rules, NOW), rules, NOW)


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("1700000000", datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)),
        (" 1700000000000 ", datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)),
        ("2026-11-27T00:00:00Z", datetime(2026, 11, 27, tzinfo=UTC)),
        ("2026-11-27T02:00:00+02:00", datetime(2026, 11, 27, tzinfo=UTC)),
        ("2026-11-27", None),
        ("2026-11-27T00:00:00", None),
        ("null", None),
        ("", None),
        ("-1", None),
        ("0", None),
        ("2027", None),
        ("20271231", None),
        ("202712312359", None),
        ("2027123123", None),
        ("20271231235959", None),
        ("0001-01-01T00:00:00Z", None),
        ("0001-01-01T00:00:00+02:00", None),
        ("1970-01-01T00:00:00Z", None),
        ("9999999999999999", None),
    ],
)
def test_moments_are_epochs_or_have_an_offset(text: str, moment: datetime | None) -> None:
    """The guide compared text by ``test -lt``."""
    assert parse_moment(text) == moment


def test_an_age_is_reached_by_the_second_and_the_newest_stay() -> None:
    """Older than, not as old as."""
    keys = ["a20261126", "a20261125T10:00", "a20261125"]
    versions = [make_version(key, days=days) for key, days in zip(keys, (1, 1.1, 2), strict=True)]
    assert [version.key for version in list_due(versions, Rules(older_than=86400))] == keys[1:]
    assert [version.key for version in list_due(versions, Rules(older_than=0, keep=2))] == keys[2:]


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("shop-20261127.dump", "shop-20261201.dump", True),
        ("shop_2026-11-27_02-00-59.sql.gz", "shop_2026-12-01_02-05-00.sql.gz", True),
        ("shop-2026.11.27 02:00.csv", "shop-2026.12.01 02:05.csv", True),
        ("2026-11-27T02:00:01Z-shop", "2026-11-27T02:00:02Z-shop", True),
        ("20261127T020000Z-shop", "20261201T0230Z-shop", True),
        ("x20261127020000.tar", "x202612010200.tar", True),
        ("db1-20261127.dump", "db2-20261127.dump", False),
        ("tenant17-2026-11-27.csv", "tenant18-2026-11-27.csv", False),
        ("tenant201101-20261127.csv", "tenant201102-20261127.csv", False),
        ("t-20110101.csv", "t-20110102.csv", False),
        ("t-1000000001.csv", "t-1000000002.csv", False),
        ("t-1795744800.csv", "t-1795744801.csv", False),
        ("20261127-1001.csv", "20261127-1002.csv", False),
        ("20261127_100101.csv", "20261127_100102.csv", False),
        ("20261127-10-01.csv", "20261127-10-02.csv", False),
        ("20261127999.csv", "20261127998.csv", False),
        ("920261127.csv", "920261128.csv", False),
        ("20261131.csv", "20261132.csv", False),
        ("2026-1127.csv", "2026-1128.csv", False),
        ("2026-11.csv", "2026-12.csv", False),
        ("saga.log.1", "saga.log.2", False),
        ("port8080.log", "port9090.log", False),
    ],
)
def test_names_are_of_one_series_by_their_dates_only(one: str, other: str, same: bool) -> None:
    """The last backup of a host or a tenant that has stopped must not go because another's are newer."""
    written = NOW.date() + timedelta(days=2)
    assert (name_series(one, None, written) == name_series(other, None, written)) is same


def test_a_day_far_from_the_one_it_was_written_on_is_a_number() -> None:
    """The number of a customer may be one; that of the day of a backup is near."""
    day = NOW.date()
    for days, is_day in ((-8, False), (-7, True), (7, True), (8, False)):
        series = name_series("shop-20261127.dump", None, day + timedelta(days=days))
        assert (series == "shop-#.dump") is is_day, days


def test_series_that_may_be_one_are_told_where_all_of_them_is_kept() -> None:
    """Else the disk fills, and nobody is told: moments that look like no other thing's numbers are few."""
    keys = [f"shop-{number}.dump" for number in range(100100, 100104)]
    versions = [make_version(key, days=90) for key in [*keys, "one.dump", "two.dump"]]
    versions.append(make_version("shop-100105.dump", days=1))
    assert choose_kept(versions, Rules(older_than=86400 * 30, keep=1), NOW).alike == tuple(keys)
    short = choose_kept(versions, Rules(older_than=86400 * 30, keep=2), NOW)
    assert (len(short.short), short.alike) == (6, ())


def test_the_newest_of_each_series_stay_whatever_another_has_that_is_newer() -> None:
    """By folder and name without dates; a pattern is searched in the whole key, and says what is counted together."""
    keys = [f"{folder}/{name}-2026112{day}.csv" for folder in ("a/2026", "b/2026") for name in "xy" for day in (1, 2)]
    versions = [make_version(key, days=5 - number / 2) for number, key in enumerate(keys)]
    rules = Rules(older_than=86400, keep=1)
    assert [version.key for version in list_due(versions, rules)] == keys[::2]
    by_name = replace(rules, series=re.compile(r"/([xy])-"))
    assert choose_kept(versions, by_name, NOW).series == {"x": 4, "y": 4}
    assert choose_kept(versions, by_name, NOW).keys == {keys[5], keys[7]}
    together = replace(rules, series=re.compile("^"), keep=3)
    assert choose_kept(versions, together, NOW).keys == set(keys[-3:])
    few = choose_kept(versions, replace(rules, keep=3, series=re.compile("(.)/2026/(x)")), NOW)
    assert few.keys == set(keys)
    assert few.short[:2] == ("'a' 'x' has 2", f"{keys[2]} (not like series) has 1")
    assert choose_kept(versions, replace(rules, older_than=86400 * 100, keep=3), NOW).short == ()


def test_a_label_that_cannot_be_read_keeps_its_object() -> None:
    """One that is missing, too."""
    rules, version = Rules(expiry_metadata="expires_at"), make_version("a", days=1)
    assert judge(version, Labels(), rules, NOW) is None
    assert isinstance(judge(version, Labels(metadata={"expires_at": "soon"}), rules, NOW), Unreadable)
    assert isinstance(judge(version, Labels(metadata={"expires_at": "1700000000"}), rules, NOW), Due)
    assert judge(version, Labels(metadata={"expires_at": "4000000000"}), rules, NOW) is None


def test_versions_go_in_an_order_in_which_none_comes_back() -> None:
    """Those that are not current first, markers last; a marker only if nothing is left below it."""
    rules = Rules(older_than=86400)
    listed = order_versions(
        [
            make_version("a", days=9, version_id="1", is_current=False),
            make_version("a", days=5, version_id="2", is_current=False),
            make_version("a", days=3, version_id="3", is_marker=True),
            make_version("b", days=9, version_id="4", is_current=False),
            make_version("b", days=0.5, version_id="5", is_marker=True),
            make_version("c", days=9, version_id="6", is_current=False),
            make_version("c", days=8, version_id="7"),
        ]
    )
    due = [
        verdict
        for version in list_due(listed, rules)
        if isinstance(verdict := judge(version, Labels(), rules, NOW), Due)
    ]
    phases = order_removal(complete_keys(due, listed, rules, NOW))
    assert [[entry.version.version_id for entry in phase] for phase in phases] == [["2", "1", "6"], ["7"], ["3"]]


def test_a_current_version_stays_while_an_older_one_does() -> None:
    """It would be the current one again."""
    old = make_version("a", days=9, version_id="1", is_current=False)
    new = make_version("a", days=8, version_id="2")
    assert complete_keys([Due(new, "")], [new, old], Rules(tags={"x": "y"}), NOW) == []


def test_what_the_next_write_may_replace_stays() -> None:
    """In a bucket that does not keep versions the id null is taken by the next write: below it, and as a marker."""
    rules = Rules(older_than=86400)
    listed = drop_null_versions(
        order_versions(
            [
                make_version("a", days=9, version_id="null", is_current=False),
                make_version("a", days=8, version_id="1"),
                make_version("b", days=9, version_id="2", is_current=False),
                make_version("b", days=8, version_id="null", is_marker=True),
                make_version("c", days=9, version_id="null"),
            ]
        )
    )
    due = [
        verdict
        for version in list_due(listed, rules)
        if isinstance(verdict := judge(version, Labels(), rules, NOW), Due)
    ]
    selection = select_versions(due, listed, rules, NOW)
    assert [(entry.version.key, entry.version.version_id) for entry in selection.going] == [("b", "2"), ("c", None)]
    assert [(entry.version.key, entry.version.version_id) for entry in selection.incomplete] == [("a", "1")]
    assert [entry.version.key for entry in selection.exposed] == ["a", "b"]


def test_keys_of_backups_are_known_by_their_form() -> None:
    """Whatever the folder and the prefix."""
    place = keys.Place(bucket="b", prefix="team a/pg", database="shop", system_identifier="7428119042137459183")
    names = [place.key("20261121T020000Z-5f1c2a77", part) for part in (keys.DUMP, keys.MANIFEST, "data-1.pgc.zst")]
    names += ["mysql/shop/1/20261121T020000Z-5f1c2a77/dump.sql.zst", "r/archive/main/archive.info"]
    names += ["archive/main/15-1/0000000100000000/0.zst", "repo/backup/main/20261121-020000F/backup.manifest"]
    others = ["manifest.json", "x/manifest.json", "archive/2026/a.tar", "backup/main/a.tar", "dump.pgc.zst"]
    assert find_backups([make_version(key, days=1) for key in [*names, *others]]) == names


def test_keys_that_xml_cannot_hold() -> None:
    """They are removed one by one."""
    assert [
        key for key in ("a\tb", "a\nb", "a\rb", "a\x01b", "a\ufffdb", "\U0001f600", "%+ ") if not fits_xml(key)
    ] == [
        "a\x01b",
        "a\ufffdb",
    ]


@pytest.mark.parametrize(
    ("caps", "words"),
    [
        (Caps("max_objects", 2, None, 100), "raise max_objects"),
        (Caps("max_objects", 9, 20, 100), "raise max_bytes"),
        (Caps("max_objects", 9, None, 49), "raise max_share"),
    ],
)
def test_limits_name_number_and_option(caps: Caps, words: str) -> None:
    """All of it is refused."""
    with pytest.raises(Refusal, match=words) as caught:
        refuse_excess(caps, location="s3://b/", due=Amount(3, 30), total=Amount(6, 60), noun="object")
    assert "3 objects (30 B) would be removed" in str(caught.value)
    refuse_excess(
        Caps("max_objects", 3, 30, 50), location="s3://b/", due=Amount(3, 30), total=Amount(6, 60), noun="object"
    )


def test_amounts_have_units() -> None:
    """And nothing else."""
    assert (parse_duration("90m", option="x"), parse_duration("2w", option="x")) == (5400, 1209600)
    assert (parse_size("10GiB", option="x"), parse_size("512 kib", option="x"), parse_size("7", option="x")) == (
        10 << 30,
        512 << 10,
        7,
    )
    for text in ("", "1.5h", "-1d", "1y"):
        with pytest.raises(Refusal, match="option x"):
            parse_duration(text, option="x")
    for text in ("", "1GB", "many", "-1"):
        with pytest.raises(Refusal, match="option x"):
            parse_size(text, option="x")
