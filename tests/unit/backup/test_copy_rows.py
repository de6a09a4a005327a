# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Rows of each table, counted in the text of a dump, whatever is in names, literals and rows."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.lowtide.ops.plugins.module_utils._pg_backup.copy_rows import RowCounter, parse_copy

NAMES = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=20)
ESCAPED = {"\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"}
ROWS = st.lists(st.lists(st.none() | st.text(max_size=8), min_size=1, max_size=3), max_size=4)
LITERALS = ["it's; COPY public.t (a) FROM stdin;\n1\n\\.\n", '"', "--", "-", ";\n"]


def quote(name: str) -> str:
    """An SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def copy_text(schema: str, name: str, rows: list[list[str | None]]) -> str:
    """One table as pg_restore writes it."""
    lines = [
        "\t".join("\\N" if value is None else "".join(ESCAPED.get(char, char) for char in value) for value in row)
        for row in rows
    ]
    comment = name.replace("\n", " ").replace("\r", " ")
    body = "".join(f"{line}\n" for line in lines)
    return f"--\n-- Data for Name: {comment}; Type: TABLE DATA\n--\n\nCOPY {quote(schema)}.{quote(name)} (a, b) FROM stdin;\n{body}\\.\n\n\n"


def count(text: bytes, size: int) -> RowCounter:
    """Read a text in pieces of ``size`` bytes."""
    counter = RowCounter()
    for first in range(0, len(text), size):
        counter.feed(text[first : first + size])
    return counter


@settings(deadline=None)
@given(st.dictionaries(st.tuples(NAMES, NAMES), ROWS, max_size=3), st.sampled_from(LITERALS), st.integers(1, 40))
def test_rows_are_those_that_were_written(
    tables: dict[tuple[str, str], list[list[str | None]]], literal: str, size: int
) -> None:
    """Whatever the pieces are, and whatever stands between the tables."""
    between = "SELECT pg_catalog.setval('{}', 1, true);\n\n".format(literal.replace("'", "''"))
    text = "\\restrict abc\n\nSET x = 0;\n" + between
    for (schema, name), rows in tables.items():
        text += copy_text(schema, name, rows) + between
    counter = count((text + "\\unrestrict abc\n\n").encode(), size)
    assert counter.rows == {(schema.encode(), name.encode()): len(rows) for (schema, name), rows in tables.items()}
    assert counter.explain_end() is None


def test_partitions_that_are_copied_into_their_root_are_counted_together() -> None:
    """One COPY for each of them, behind a comment that says so."""
    text = "".join(
        f"--\n-- Data for Name: p{number}; Type: TABLE DATA\n--\n\n-- load via partition root public.t\n"
        f"COPY public.t (a) FROM stdin;\n{'x' * number}\n\\.\n\n"
        for number in range(3)
    )
    counter = count(text.encode(), 9)
    assert (counter.rows, counter.copies) == ({(b"public", b"t"): 3}, {(b"public", b"t"): 3})


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("COPY public.t (a) FROM stdin;\n1\n2", "inside the rows of public.t"),
        ("COPY public.t (a) FROM stdin;\n1\n\\.", "inside the rows of public.t"),
        ("COPY public.t (a) FROM", "inside a statement"),
        ("SELECT 'open", "inside a statement"),
    ],
)
def test_a_text_that_is_cut_off_is_found_out(text: str, words: str) -> None:
    """In rows, at their end mark, in a statement, in a literal."""
    assert words in (count(text.encode(), 7).explain_end() or "")


@pytest.mark.parametrize(
    ("statement", "table"),
    [
        (b"\nCOPY public.no_columns  FROM stdin", (b"public", b"no_columns")),
        (b'COPY "a.b"."c ""d" (x) FROM stdin', (b"a.b", b'c "d')),
        (b"COPY public.t (a) TO stdout", None),
        (b"SELECT 1", None),
    ],
)
def test_a_copy_names_its_table(statement: bytes, table: tuple[bytes, bytes] | None) -> None:
    """Quoted or not, with columns or without."""
    assert parse_copy(statement) == table
