# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""How a dump is divided into streams, and how their tables are named."""

from __future__ import annotations

import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.lowtide.ops.plugins.module_utils._backup import keys
from ansible_collections.lowtide.ops.plugins.module_utils._pg_backup import packing
from ansible_collections.lowtide.ops.plugins.module_utils._pg_backup.copy_rows import Table

MIB = 1 << 20


def tables(*sizes: int) -> dict[Table, int]:
    """Tables of so many MiB."""
    return {(b"public", f"t{number}".encode()): size * MIB for number, size in enumerate(sizes)}


def sizes_of(sizes: dict[Table, int], *, rest: int, jobs: int) -> list[int]:
    """MiB of each stream."""
    return [stream.size // MIB for stream in packing.plan_streams(sizes, rest=rest * MIB, jobs=jobs)]


@pytest.mark.parametrize(
    ("sizes", "rest", "jobs", "expected"),
    [
        # One stream only where one is asked for, and where nothing is worth more.
        ((1000, 1000), 0, 1, [2000]),
        ((), 0, 4, [0]),
        ((), 5000, 4, [5000]),
        ((10, 10), 1, 4, [21]),
        ((20, 20), 0, 4, [20, 20]),
        # The main one has its rest already.
        ((100, 100, 100), 100, 4, [100, 100, 100, 100]),
        ((300, 100, 100), 100, 2, [300, 300]),
        # One table is never divided: more streams than two would not be faster.
        ((1000, 100, 100, 50), 50, 4, [300, 1000]),
        # A fourth one that hardly shortens the longest is left out.
        ((500, 480, 470, 20, 10), 10, 4, [490, 500, 500]),
    ],
)
def test_streams_are_about_as_large_as_each_other_and_as_few_as_do(
    sizes: tuple[int, ...], rest: int, jobs: int, expected: list[int]
) -> None:
    """By the size of their tables."""
    assert sorted(sizes_of(tables(*sizes), rest=rest, jobs=jobs)) == sorted(expected)


SIZES = st.dictionaries(
    st.tuples(st.binary(min_size=1, max_size=63), st.binary(min_size=1, max_size=63)),
    st.integers(0, 4 << 40) | st.integers(0, 64 * MIB),
    max_size=60,
)


@settings(deadline=None)
@given(SIZES, st.integers(0, 1 << 40), st.integers(1, keys.MAX_JOBS))
def test_each_table_is_in_one_stream(sizes: dict[Table, int], rest: int, jobs: int) -> None:
    """What the main stream leaves out is in exactly one other, nothing else is, and no stream is longer than one alone."""
    main, *further = packing.plan_streams(sizes, rest=rest, jobs=jobs)
    assert main.part == (keys.MAIN if further else keys.DUMP)
    assert [stream.part for stream in further] == [keys.name_data(number) for number in range(1, len(further) + 1)]
    assert len(further) < jobs
    moved = [table for stream in further for table in stream.tables]
    assert sorted(moved) == sorted(main.tables)
    assert len(moved) == len(set(moved))
    assert set(moved) <= set(sizes)
    assert all(sizes[table] >= packing.MIN_TABLE for table in moved)
    assert all(stream.tables for stream in further)
    assert all(stream.size == sum(sizes[table] for table in stream.tables) for stream in further)
    assert main.size == rest + sum(sizes.values()) - sum(stream.size for stream in further)
    if further:
        # Greedy packing is less than twice the best, which is no less than the largest table or an equal share.
        whole = [size for table, size in sizes.items() if table in moved or size >= packing.MIN_TABLE]
        fixed = rest + sum(size for size in sizes.values() if size < packing.MIN_TABLE)
        best = max(*whole, fixed, (fixed + sum(whole)) / jobs)
        assert max(stream.size for stream in (main, *further)) <= 2 * best * (1 + packing.GAIN)


@settings(deadline=None, max_examples=20)
@given(st.integers(1, 5000), st.integers(1, 63))
def test_a_command_line_names_no_more_than_fits(count: int, length: int) -> None:
    """The largest ones, whatever their names are; the others stay in the main stream."""
    sizes = {(b'"' * length, f"{number}".encode() + b'"' * 57): (count - number) * MIB for number in range(count)}
    main, *further = packing.plan_streams(sizes, rest=0, jobs=4)
    for stream in (main, *further):
        assert sum(len(os.fsencode(option)) + 1 for option in stream.options) <= packing.ARGUMENT_BYTES
    chosen = packing.choose_large(sizes)
    assert chosen == sorted(sizes, key=lambda table: -sizes[table])[: len(chosen)]
    assert set(main.tables) <= set(chosen)


def test_tables_are_named_by_patterns_in_which_no_character_means_anything() -> None:
    """Quotes are doubled; bytes that are no UTF-8 are as they were once they are on a command line."""
    names = ((b"a.b", b'x"y*?$\n'), '"a.b"."x""y*?$\n"'), ((b"s", b"caf\xe9"), None)
    for table, expected in names:
        pattern = packing.name_pattern(table)
        assert expected in (None, pattern)
        assert os.fsencode(pattern) == b".".join(b'"' + name.replace(b'"', b'""') + b'"' for name in table)
    main, data = packing.plan_streams({(b"s", b"t"): 40 * MIB}, rest=40 * MIB, jobs=2)
    assert main.options == ('--exclude-table-data="s"."t"',)
    assert data.options == ("--data-only", '--table="s"."t"')
    (only,) = packing.plan_streams({}, rest=0, jobs=2)
    assert only.options == ()
