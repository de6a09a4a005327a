# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The store in PostgreSQL, as far as no server is needed."""

from __future__ import annotations

import re
from pathlib import Path

from ansible_collections.lowtide.ops.plugins.plugin_utils._window.store_postgresql import SCHEMA
from support.checkout import text


def list_statements(script: str) -> list[str]:
    """Return the statements of a script, without comments and line ends."""
    plain = re.sub(r"--[^\n]*", "", script)
    return [" ".join(statement.split()) for statement in plain.split(";") if statement.strip()]


def test_the_documented_tables_are_those_that_a_window_makes() -> None:
    documented = list_statements(text(Path("docs/window-store.sql")))
    assert [statement for statement in documented if statement.startswith("CREATE ")] == list_statements(SCHEMA)
