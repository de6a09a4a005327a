# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Which block an error of the server is about: pure. Messages as servers of several versions and languages have written them."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from ansible_collections.lowtide.ops.plugins.module_utils._postgresql.integrity import find_block


class ServerError(Exception):
    """An error of the driver."""

    def __init__(self, message: str, detail: str | None) -> None:
        super().__init__(message)
        self.diag = SimpleNamespace(message_primary=message, message_detail=detail)


@pytest.mark.parametrize(
    ("message", "detail", "block", "path"),
    [
        ("invalid page in block 3 of relation base/5/16390", None, 3, "base/5/16390"),
        ('invalid page in block 3 of relation "base/5/16390"', None, 3, "base/5/16390"),
        ("ungültige Seite in Block 3 von Relation base/5/16390", None, 3, "base/5/16390"),
        ("リレーション base/5/16390 の 3 番目のブロックのページが不正です", None, 3, "base/5/16390"),
        (
            'could not read block 131080 in file "base/5/16390.1": read only 0 of 8192 bytes',
            None,
            131080,
            "base/5/16390",
        ),
        (
            'could not read blocks 4..7 in file "global/1262": Input/output error',
            None,
            4,
            "global/1262",
        ),
        (
            '2 invalid pages among blocks 4..7 of relation "base/5/16390"',
            "Block 6 held the first invalid page.",
            6,
            "base/5/16390",
        ),
        (
            "invalid page in block 2 of relation pg_tblspc/16384/PG_15_202209061/5/16390",
            None,
            2,
            "pg_tblspc/16384/PG_15_202209061/5/16390",
        ),
        ('could not open file "base/5/16390": No such file or directory', None, None, "base/5/16390"),
        ('item order invariant violated for index "orders_2024"', None, None, None),
        ('index "orders_7" contains unexpected zero page at block 9', None, 9, None),
        ("could not access status of transaction 123456", None, None, None),
    ],
)
def test_block_and_file_are_read_in_every_language(
    message: str, detail: str | None, block: int | None, path: str | None
) -> None:
    assert find_block(ServerError(message, detail)) == (block, path)
