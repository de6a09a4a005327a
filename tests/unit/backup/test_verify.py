# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A dump that is not what was sent is found out, in whatever place it was altered or cut.

``dump.b64`` is a dump of PostgreSQL 15 with hostile names, made by ``pg_dump -Fc -Z0 | zstd -19``. By default some dozens
of seeded alterations are tried; LOWTIDE_EXHAUSTIVE=1 takes a thousand.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import random
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ansible_collections.lowtide.ops.plugins.module_utils._backup import verify
from ansible_collections.lowtide.ops.plugins.module_utils._backup.manifest import Part
from ansible_collections.lowtide.ops.plugins.module_utils._backup.pipeline import Stopped
from ansible_collections.lowtide.ops.plugins.module_utils._backup.streams import Streams
from ansible_collections.lowtide.ops.plugins.module_utils._common.errors import WaitTimeout
from ansible_collections.lowtide.ops.plugins.module_utils._common.retry import Deadline
from ansible_collections.lowtide.ops.plugins.module_utils._pg_backup import dump_rows
from ansible_collections.lowtide.ops.plugins.module_utils._pg_backup.copy_rows import Expected, RowCounter
from ansible_collections.lowtide.ops.plugins.module_utils._pg_backup.making import name_rows, read_tables, write_tables

DUMP = base64.b64decode(Path(__file__).with_name("dump.b64").read_bytes())
SEED = 20261127
TRIALS = 1000 if os.environ.get("LOWTIDE_EXHAUSTIVE") == "1" else 40
HOSTILE = b"COPY public.x (a) FROM stdin;\n1\n\\."
ROWS = {
    (b"public", b"feature"): 300,
    (b"public", b'we"ird\nname'): 1,
    (b"public", b"parted_1"): 100,
    (b"public", b"empty_one"): 0,
    (b"public", HOSTILE): 4,
    (b"public", b"no_columns"): 2,
}


class Stored:
    """A bucket with one object, given back in pieces of 1000 bytes; ``pause`` is called before each of them."""

    def __init__(self, body: bytes, pause: Callable[[], None] = lambda: None) -> None:
        self.body = body
        self.pause = pause
        self.pieces = 0

    def url(self, key: str) -> str:
        """As a bucket writes it."""
        return f"s3://b/{key}"

    def read(self, key: str) -> bytes:
        """The object."""
        assert key
        return self.body

    def stream(self, key: str, *, etag: str | None = None) -> Iterator[bytes]:
        """The object in pieces."""
        assert (key, etag) == ("k", "e")
        for first in range(0, len(self.body), 1000):
            self.pause()
            self.pieces += 1
            yield self.body[first : first + 1000]


def programs() -> tuple[str, str]:
    """What decodes."""
    restore, zstd = shutil.which("pg_restore"), shutil.which("zstd")
    assert restore
    assert zstd
    return restore, zstd


def decompress(body: bytes) -> bytes:
    """What zstd makes of it."""
    return subprocess.run(["zstd", "-d", "-q", "-c"], input=body, capture_output=True, check=True).stdout


def part(body: bytes) -> Part:
    """What was sent."""
    return Part(size=len(body), sha256=hashlib.sha256(body).hexdigest(), etag="e")


def decode(body: bytes, expected: Part, seconds: float = 60) -> dict[tuple[bytes, bytes], int]:
    """Verify ``body``."""
    counted = dump_rows.verify_dump(
        Stored(body), "k", expected, programs=programs(), deadline=Deadline(seconds), etag="e", streams=Streams()
    )
    return counted.rows


def alter(body: bytes, chance: random.Random) -> bytes:
    """Flip one bit, or cut at a random place."""
    place = chance.randrange(len(body))
    if chance.random() < 0.3:
        return body[:place]
    return body[:place] + bytes([body[place] ^ (1 << chance.randrange(8))]) + body[place + 1 :]


@pytest.mark.procedure("D27")
def test_a_whole_dump_gives_the_rows_of_each_table() -> None:
    """Names, rows, functions and large objects that look like the beginning or the end of a table's rows included."""
    assert decode(DUMP, part(DUMP)) == ROWS


@pytest.mark.procedure("D27")
def test_every_flip_and_every_cut_is_found_out() -> None:
    """By its checksum and size; the seed is fixed, so that a failure comes again."""
    chance = random.Random(SEED)  # noqa: S311  # a seed, no secret
    for trial in range(TRIALS):
        altered = alter(DUMP, chance)
        with pytest.raises(verify.NotVerified):
            print(trial, decode(altered, part(DUMP)))


@pytest.mark.procedure("D27")
def test_decoding_alone_finds_out_what_alters_the_content() -> None:
    """Where the checksum was taken of what was altered already. A few bits of zstd's header mean nothing."""
    chance = random.Random(SEED + 1)  # noqa: S311  # a seed, no secret
    harmless = 0
    for _trial in range(TRIALS):
        altered = alter(DUMP, chance)
        try:
            assert decode(altered, part(altered)) == ROWS
        except verify.NotVerified:
            continue
        assert decompress(altered) == decompress(DUMP)
        harmless += 1
    assert harmless <= TRIALS // 100


def test_a_dump_that_lost_its_end_before_it_was_compressed_is_found_out() -> None:
    """pg_dump died, and zstd made a whole frame of what there was: pg_restore reads it and comes to its end."""
    plain = decompress(DUMP)
    for share in (0.3, 0.6, 0.9, 0.999):
        cut = plain[: int(len(plain) * share)]
        body = subprocess.run(["zstd", "-1", "-q", "-c"], input=cut, capture_output=True, check=True).stdout
        with pytest.raises(verify.NotVerified, match="cannot be decoded"):
            decode(body, part(body))


def test_data_behind_the_end_is_no_dump() -> None:
    """A second object stuck to the first one."""
    body = DUMP + DUMP
    with pytest.raises(verify.NotVerified):
        decode(body, part(DUMP))


def test_a_deadline_that_passes_is_no_damage() -> None:
    """And ends the reading at once."""
    ticks = iter(range(0, 1000, 1))
    deadline = Deadline(8, clock=lambda: float(next(ticks)))
    stored = Stored(DUMP)
    with pytest.raises(WaitTimeout, match="not finished within the time allowed"):
        dump_rows.verify_dump(
            stored, "k", part(DUMP), programs=programs(), deadline=deadline, etag="e", streams=Streams()
        )
    assert stored.pieces < 9


def test_a_table_that_the_database_had_must_be_in_the_dump() -> None:
    """Others may be: rows of an extension's own tables."""
    copies = dict.fromkeys(ROWS, 1)
    tables = [Expected(table) for table in ROWS]
    dump_rows.compare_tables("x", copies, tables[1:])
    with pytest.raises(verify.NotVerified, match=r"1 tables of the database are not in it: public\.gone"):
        dump_rows.compare_tables("x", copies, [*tables, Expected((b"public", b"gone"))])


def test_partitions_may_be_there_by_the_name_of_their_root() -> None:
    """Each is a COPY of its own, by either name; one too few is a table that is missing."""
    root, other = (b"public", b"root"), (b"public", b"t")
    parts = [Expected((b"public", f"part_{number}".encode()), root) for number in range(3)]
    dump_rows.compare_tables("x", {root: 3, other: 1}, [*parts, Expected(other)])
    dump_rows.compare_tables("x", {part.table: 1 for part in parts}, parts)
    dump_rows.compare_tables("x", {root: 2, parts[1].table: 1}, parts)
    with pytest.raises(verify.NotVerified, match=r"1 tables of the database are not in it: public\.part_2"):
        dump_rows.compare_tables("x", {root: 2}, parts)
    with pytest.raises(verify.NotVerified, match=r"public\.root"):
        dump_rows.compare_tables("x", {other: 2}, [Expected(root), Expected(other, root)])


def test_rows_must_be_those_that_were_counted_before() -> None:
    """More, fewer, none, and a table that was not there."""
    a, b = ("s", "a"), ("s", "b")
    dump_rows.compare_rows("x", {a: 1}, {a: 1})
    for rows in ({a: 2}, {}, {a: 1, b: 0}):
        with pytest.raises(verify.NotVerified, match=r"table s\.[ab] has .* rows"):
            dump_rows.compare_rows("x", rows, {a: 1})


@pytest.mark.procedure("D27")
def test_tables_whose_names_join_to_the_same_are_two() -> None:
    """In whatever order the dump has them, and where only one of them differs."""
    inner, outer = (b"a", b"b.c"), (b"a.b", b"c")
    recorded = read_tables(write_tables({inner: 400, outer: 7}, {}))
    for rows in ({inner: 400, outer: 7}, {outer: 7, inner: 400}):
        dump_rows.compare_rows("x", name_rows(rows), recorded)
    for rows in ({inner: 401, outer: 7}, {inner: 400, outer: 8}):
        with pytest.raises(verify.NotVerified, match=r"table a\.b\.c has"):
            dump_rows.compare_rows("x", name_rows(rows), recorded)


def count(**tables: int) -> RowCounter:
    """What was counted in an object: tables of the schema s, with their rows."""
    counted = RowCounter()
    counted.rows = {(b"s", name.encode()): rows for name, rows in tables.items()}
    counted.copies = dict.fromkeys(counted.rows, 1)
    return counted


def test_a_table_is_in_one_object_of_a_dump() -> None:
    """In the one that it was meant for, and in no other."""
    main, data = count(a=1, b=2), count(c=3)
    assert dump_rows.join_counts({"main": main, "data": data}) == {(b"s", b"a"): 1, (b"s", b"b"): 2, (b"s", b"c"): 3}
    with pytest.raises(verify.NotVerified, match=r"data: it has rows of s\.b, and so has main"):
        dump_rows.join_counts({"main": main, "data": count(b=2)})
    dump_rows.compare_share("data", data.copies, [(b"s", b"c")])
    with pytest.raises(verify.NotVerified, match=r"1 tables of the database are not in it: s\.d"):
        dump_rows.compare_share("data", data.copies, [(b"s", b"c"), (b"s", b"d")])
    with pytest.raises(verify.NotVerified, match=r"rows of s\.b, which another object"):
        dump_rows.compare_share("data", main.copies, [(b"s", b"a")])


def test_the_document_of_the_tables_names_the_object_of_those_that_are_elsewhere() -> None:
    """Who reads it for the rows only, as before, reads the same."""
    rows = {(b"s", b"a"): 1, (b"s", b"c"): 3}
    body = write_tables(rows, {(b"s", b"c"): "data-1.pgc.zst"})
    assert read_tables(body) == {("s", "a"): 1, ("s", "c"): 3}
    assert [entry.get("object") for entry in json.loads(body)] == [None, "data-1.pgc.zst"]


def test_a_verification_that_is_stopped_is_no_damage() -> None:
    """Another object of the same dump was damaged; this one is not read to its end."""
    stored = Stored(DUMP)
    stopped = Streams()
    stopped._failure = verify.NotVerified(obj="other", problem="p", next_step="n")
    with pytest.raises(Stopped):
        dump_rows.verify_dump(
            stored, "k", part(DUMP), programs=programs(), deadline=Deadline(60), etag="e", streams=stopped
        )
    assert stored.pieces <= 1
