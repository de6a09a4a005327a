# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What mariadb-dump writes is read line by line, and cut anywhere it is no whole dump."""

from __future__ import annotations

from pathlib import Path

import pytest

from ansible_collections.lowtide.ops.plugins.module_utils._mysql.dump_text import DumpText, Table

DUMP = (Path(__file__).parent / "dump.sql").read_bytes()


def read(text: bytes, *, chunk: int = 1 << 20) -> DumpText:
    """Read a text in chunks."""
    dump = DumpText()
    for start in range(0, len(text), chunk):
        dump.feed(text[start : start + chunk])
    dump.finish()
    return dump


@pytest.mark.parametrize("chunk", [1, 7, 1 << 20])
def test_a_dump_is_read_in_any_pieces(chunk: int) -> None:
    """Rows with quotes, line breaks and statements in their values; definitions by kind and name; the position."""
    dump = read(DUMP, chunk=chunk)
    assert dump.explain_end() is None
    assert {name: table.rows for name, table in dump.tables.items()} == {"a": 2, "empty_one": 0, "we`ird": 2}
    assert sorted(dump.scripts) == [
        ("EVENT", "ev"),
        ("FUNCTION", "f"),
        ("PROCEDURE", "p"),
        ("SEQUENCE", "sq"),
        ("TRIGGER", "tr"),
        ("VIEW", "v"),
    ]
    assert (dump.log_file, dump.log_position, dump.gtid) == ("bin.000002", 2744, "0-1-12")
    assert dump.definers == {"root@localhost"}


def test_events_are_withheld_and_all_else_is_not() -> None:
    """What is restored at once makes everything but the event, whose script is kept."""
    dump = DumpText()
    lines = b"".join(dump.feed(DUMP))
    assert b"EVENT `ev`" not in lines
    for words in (b"trigger tr", b"FUNCTION `f`", b"PROCEDURE `p`", b"VIEW `v` AS select", b"INSERT INTO `a`"):
        assert words in lines
    script = dump.scripts["EVENT", "ev"]
    assert b"EVENT `ev` ON SCHEDULE" in script
    assert b"SET time_zone             = 'SYSTEM'" in script


def test_a_script_sets_what_its_maker_had() -> None:
    """And makes the definition anew when it is there already."""
    script = dump_script("TRIGGER", "tr")
    assert script.index(b"SET sql_mode") < script.index(b"DROP TRIGGER IF EXISTS") < script.index(b"trigger tr before")
    assert b"@saved" not in script


def dump_script(kind: str, name: str) -> bytes:
    """The script of a definition in the dump."""
    return read(DUMP).scripts[kind, name]


def test_every_cut_is_noticed() -> None:
    """After each of its lines, and in the middle of each."""
    ends = [index for index, byte in enumerate(DUMP) if byte == 10]
    for end in [*ends[:-1], *(end - 3 for end in ends[:-1])]:
        assert read(DUMP[:end]).explain_end() is not None, DUMP[:end][-80:]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"(1,'x", b"(1,'y"),
        (b"(2,'y;", b"(3,'y;"),
        (b"DEFAULT NULL,\n  `b`", b"NOT NULL,\n  `b`"),
        (b"n,'!')", b"n,'?')"),
        (b"return x+1", b"return x+2"),
        (b"where id < 0", b"where id < 9"),
        (b"DEFINER=`root`@`localhost` PROCEDURE", b"DEFINER=`other`@`localhost` PROCEDURE"),
        (b"SETVAL(`sq`, 41", b"SETVAL(`sq`, 42"),
        (b"DEFINER=`root`@`localhost` SQL SECURITY", b"DEFINER=`root`@`other` SQL SECURITY"),
    ],
)
def test_every_change_is_another_dump(old: bytes, new: bytes) -> None:
    """A value, a column, a body, a definer, the value of a sequence."""
    assert DUMP.count(old) == 1
    first, second = read(DUMP), read(DUMP.replace(old, new))
    assert (first.tables, first.scripts) != (second.tables, second.scripts)


def test_the_order_of_rows_and_a_counter_are_no_change() -> None:
    """Two dumps of equal tables are equal."""
    rows = b"(1),\n(2);\n"
    assert DUMP.count(rows) == 1
    text = DUMP.replace(rows, b"(2),\n(1);\n").replace(b" AUTO_INCREMENT=3", b" AUTO_INCREMENT=300")
    assert read(text).tables == read(DUMP).tables


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (b"INSERT INTO `gone` VALUES\n(1);\n", "rows without a table"),
        (b"INSERT INTO gone VALUES (1);\n", "rows without a table"),
        (b"CREATE TABLE x (\n", "a table whose name cannot be read"),
        (b"CREATE TABLE `x` (\n  `a` int\n);\nINSERT INTO `x` VALUES\nnone\n", "a line among rows is none"),
        (b"DELIMITER ;;\nSELECT 1;;\nDELIMITER ;\n", "a definition without a name"),
    ],
)
def test_what_the_client_never_writes_is_named(text: bytes, problem: str) -> None:
    """So that a dump of another program, or of another version, is not taken for verified."""
    assert problem in str(read(text + b"-- Dump completed\n").explain_end())


def test_equal_tables_are_equal() -> None:
    """Two rows that are alike count twice."""
    assert Table(2, 5, "d").digest != Table(2, 10, "d").digest
