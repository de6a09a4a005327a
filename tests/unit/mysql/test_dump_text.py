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


def test_events_behind_the_first_are_read_too() -> None:
    """Between two of them mariadb-dump writes no DELIMITER back; each gets a script that stands by itself."""
    start = DUMP.index(b"/*!50106 DROP EVENT IF EXISTS `ev` */;\n")
    end = DUMP.index(b"DELIMITER ;\n", start)
    second = DUMP[start:end].replace(b"`ev`", b"`e``w`").replace(b"`e``w` */;\n", b"`e``w` */;;\n", 1)
    text = DUMP[:end] + second + DUMP[end:]
    for chunk in (7, 1 << 20):
        dump = read(text, chunk=chunk)
        assert dump.explain_end() is None
        assert dump.scripts["EVENT", "ev"] == dump_script("EVENT", "ev")
        assert dump.scripts["EVENT", "e`w"] == dump_script("EVENT", "ev").replace(b"`ev`", b"`e``w`")
    assert b"EVENT" not in b"".join(DumpText().feed(text))


def test_an_older_client_gets_no_line_that_it_does_not_know() -> None:
    """Newer dumps begin with one that asks for a sandbox."""
    first = b"/*M!999999\\- enable the sandbox mode */ \n"
    assert b"".join(DumpText().feed(first + DUMP)) == b"".join(DumpText().feed(DUMP))


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


SWITCH = b"ALTER DATABASE `shop` CHARACTER SET latin1 COLLATE latin1_swedish_ci ;\n"
BACK = b"ALTER DATABASE `shop` CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci ;\n"


def add_switches(text: bytes) -> bytes:
    """Return the dump as it is where its routines, trigger and event were made under another default character set."""
    for mark in (b"/*!50003 DROP FUNCTION IF EXISTS `f` */;\n", b"/*!50003 DROP PROCEDURE IF EXISTS `p` */;\n"):
        assert text.count(mark) == 1
        text = text.replace(mark, mark + SWITCH)
    trigger, event = text.index(b"/*!50003 SET @saved_cs_client"), text.index(b"DELIMITER ;;\n/*!50003 SET @saved_cs")
    event += len(b"DELIMITER ;;\n")
    text = text[:trigger] + SWITCH + text[trigger:event] + SWITCH.replace(b";", b";;") + text[event:]
    end = text.index(b"DELIMITER ;\n", event + len(SWITCH))
    text = text[:end] + BACK.replace(b";", b";;") + text[end:]
    back = b"/*!50003 SET collation_connection  = @saved_col_connection */ ;\n"
    return text.replace(back, back + BACK)


def test_a_dump_alters_no_other_database() -> None:
    """Not the one that it is of: the default character set is changed where it is restored, by the script."""
    text = add_switches(DUMP)
    dump = DumpText()
    lines = b"".join(dump.feed(text))
    dump.finish()
    assert dump.explain_end() is None
    assert lines.count(b"ALTER DATABASE CHARACTER SET latin1 COLLATE latin1_swedish_ci ;\n") == 3
    assert b"DATABASE `shop`" not in lines
    for key in (("TRIGGER", "tr"), ("FUNCTION", "f"), ("PROCEDURE", "p"), ("EVENT", "ev")):
        script = dump.scripts[key]
        assert script.index(b"SET latin1") < script.rindex(b"CREATE") < script.index(b"SET utf8mb4 COLLATE"), key
        assert b"`shop`" not in script
        assert b"IF EXISTS `" + key[1].encode() in script
        assert script != read(DUMP).scripts[key]


@pytest.mark.parametrize(
    "header", [b"trigger shop.tr before insert on `shop`.a for", b"trigger tr before insert on a for"]
)
def test_a_trigger_is_made_where_it_is_restored(header: bytes) -> None:
    """Its text is kept as it was written, with the name of the database if that was given."""
    text = DUMP.replace(b"trigger tr before insert on a for", header)
    dump = DumpText()
    lines = b"".join(dump.feed(text))
    assert b"trigger tr before insert on a for each row" in lines
    assert dump.scripts == read(DUMP).scripts
    assert dump.unclear == []


def test_a_trigger_that_cannot_be_told_is_passed_on_by_nobody() -> None:
    """A comment in its head may hide the name."""
    dump = DumpText()
    lines = b"".join(dump.feed(DUMP.replace(b"trigger tr before", b"trigger /* x */ shop.tr before")))
    assert b"shop.tr" not in lines
    assert b"FUNCTION `f`" in lines
    assert dump.unclear == ["tr"]


@pytest.mark.parametrize(
    "statement",
    [
        b"USE `shop`;",
        b"ALTER DATABASE `shop` COMMENT 'x';",
        b"/*!40000 DROP DATABASE IF EXISTS `shop`*/;",
        b"CREATE DATABASE /*!32312 IF NOT EXISTS*/ `shop`;",
        b"DROP TABLE IF EXISTS `shop`.`a`;",
        b"CREATE SEQUENCE `shop`.`s` start with 1;",
    ],
)
def test_a_statement_that_names_a_database_ends_a_dump(statement: bytes) -> None:
    """Neither it nor what follows is passed on."""
    dump = DumpText()
    lines = b"".join(dump.feed(b"SET @a = 1;\n" + statement + b"\nDROP TABLE IF EXISTS `a`;\n"))
    assert lines == b"SET @a = 1;\n"
    assert "names a database" in str(dump.explain_end())


def test_equal_tables_are_equal() -> None:
    """Two rows that are alike count twice."""
    assert Table(2, 5, "d").digest != Table(2, 10, "d").digest
