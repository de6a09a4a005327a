# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Keys: every name stays in its folder, and different names in different ones."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.lowtide.ops.plugins.module_utils._backup import keys
from ansible_collections.lowtide.ops.plugins.module_utils._common.errors import Refusal

NAMES = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=63)
RUN = "20261121T020000Z-5f1c2a77"


def place(database: str, prefix: str = "team/pg") -> keys.Place:
    """A place for ``database``."""
    return keys.Place(bucket="b", prefix=prefix, database=database, system_identifier="7462919812386541234")


@settings(deadline=None)
@given(
    NAMES,
    st.sampled_from([*keys.ORDER, keys.MAIN, "data-1.pgc.zst", "data-15.pgc.zst"]),
    st.sampled_from(["", "team", "team/pg x"]),
)
def test_a_key_can_be_taken_apart_again(name: str, part: str, prefix: str) -> None:
    """Whatever the database is called, byte for byte."""
    key = place(name, prefix).key(RUN, part)
    assert keys.parse_key(key, prefix) == keys.Address(name, "7462919812386541234", RUN, part)


@settings(deadline=None)
@given(NAMES)
def test_no_name_leaves_its_folder(name: str) -> None:
    """One segment, of plain characters only, and never one that starts with a dot."""
    segment = keys.encode_name(name)
    assert "/" not in segment
    assert not segment.startswith(".")
    assert segment.isascii()
    assert segment.isprintable()


@settings(deadline=None)
@given(NAMES, NAMES)
def test_different_names_have_different_folders(one: str, other: str) -> None:
    """Also those that look alike once encoded."""
    assert (one == other) == (keys.encode_name(one) == keys.encode_name(other))


@pytest.mark.parametrize(
    "key",
    [
        "x",
        "db/1/run/manifest.json",
        f"db/1/{RUN}/other",
        f"other/db/1/{RUN}/manifest.json",
        f"db/x/{RUN}/manifest.json",
        f"db/1/{RUN}/data-0.pgc.zst",
        f"db/1/{RUN}/data-01.pgc.zst",
        f"db/1/{RUN}/data-1.pgc",
        "",
    ],
)
def test_other_objects_are_not_ours(key: str) -> None:
    """They are neither listed nor removed."""
    assert keys.parse_key(key, "") is None


@pytest.mark.parametrize(
    ("given_prefix", "clean"), [("", ""), ("/", ""), ("a/b/", "a/b"), ("/a b", "a b"), ("ü/%", "ü/%")]
)
def test_prefix_is_cleaned(given_prefix: str, clean: str) -> None:
    """Slashes at the ends mean nothing."""
    assert keys.clean_prefix(given_prefix) == clean


@pytest.mark.parametrize("bad", ["a//b", "a/../b", "..", "./a", "a\nb", "a/\x7f"])
def test_prefix_that_is_refused(bad: str) -> None:
    """The value is in the message."""
    with pytest.raises(Refusal) as caught:
        keys.clean_prefix(bad)
    assert repr(bad) in str(caught.value)


def test_run_id_is_its_time_stamp_and_a_token() -> None:
    """To the second, in UTC."""
    made = keys.run_id(datetime(2026, 11, 21, 2, 0, 0, 999, tzinfo=UTC), "5f1c2a77deadbeef")
    assert made == RUN
    assert keys.is_run_id(made)
    assert not keys.is_run_id(made + "0")


@pytest.mark.parametrize("main", [keys.MAIN, keys.DUMP])
def test_further_objects_have_their_place_in_the_order(main: str) -> None:
    """After the main one, by their number; a manifest vouches for all of them, without a gap. Older ones have a main dump."""
    further = [keys.name_data(number) for number in range(1, keys.MAX_JOBS)]
    ordered = [keys.STARTED, keys.GLOBALS, main, *further, keys.TABLES, keys.MANIFEST]
    assert keys.order_parts([*sorted(ordered), "other.txt"]) == ordered
    assert keys.list_dumps(reversed(ordered)) == [main, *further]
    assert keys.name_main(ordered) == main
    whole = {main, keys.GLOBALS, keys.TABLES, *further}
    assert keys.is_complete(whole)
    assert keys.is_complete(keys.PARTS)
    for names in (
        [],
        [main],
        [keys.MAIN, keys.GLOBALS, keys.TABLES],
        whole - {further[0]},
        [*keys.PARTS, keys.MANIFEST],
        whole - {main},
        {*whole, keys.DUMP, keys.MAIN},
    ):
        assert not keys.is_complete(names)
