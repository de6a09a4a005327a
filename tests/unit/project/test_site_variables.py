# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""docs/site-variables.md is what roles, playbooks and connections say; and what would differ is found."""

from __future__ import annotations

from pathlib import Path

import pytest

from support import site_variables
from support.checkout import load_yaml, role_names, text
from support.site_variables import SITE_VARIABLES, collect_inputs, find_inputs, make_plain, write_tables


def test_page_is_current() -> None:
    """The committed page is what ``tests/site_variables.py`` would write."""
    assert text(site_variables.PAGE) == site_variables.make_page()


def test_page_has_every_table() -> None:
    """A table without its place in the page would be written nowhere."""
    page = text(site_variables.PAGE)
    assert [name for name in site_variables.make_tables() if f"<!-- table {name} -->\n|" not in page] == []


def test_every_site_variable_is_read_by_a_role() -> None:
    """One that no input defaults to is none."""
    assert [name for name, inputs in collect_inputs().items() if not inputs] == []


def test_every_default_from_a_site_variable_is_in_the_page() -> None:
    """A default in ``defaults/main.yml`` that names a site variable, against the table."""
    inputs = collect_inputs()
    for role in role_names():
        defaults = load_yaml(Path(f"roles/{role}/defaults/main.yml")) or {}
        for name, template in defaults.items():
            for variable in SITE_VARIABLES:
                if f"{{{{ {variable} " in str(template):
                    assert name in inputs[variable], (role, name, variable)


def test_inputs_are_found_by_their_descriptions() -> None:
    """The site variable that a description names; other code in it is none."""
    options = {
        "r_bucket": {"description": ["The bucket.", "Without it, the site variable C(bucket)."]},
        "r_other": {"description": "Sets C(r_result) and C(buckets)."},
    }
    assert list(find_inputs("r", {"main": {"options": options}})) == [("bucket", "r_bucket")]


def test_markup_becomes_code() -> None:
    """Options, values, files and modules; a bar would end the cell."""
    words = ["Set O(a) to V(b|c),", "as M(lowtide.ops.window) does,", "to C(f() + 1)."]
    assert make_plain(words) == "Set `a` to `b\\|c`, as `lowtide.ops.window` does, to `f() + 1`."


def test_tables_are_written_between_their_marks() -> None:
    """The prose around them stays; a mark of an unknown table is an error."""
    page = "# x\n<!-- table a -->\nold\n<!-- end a -->\ny\n"
    written = write_tables(page, {"a": "| new |\n"})
    assert written == "# x\n<!-- table a -->\n| new |\n<!-- end a -->\ny\n"
    assert write_tables(written, {"a": "| new |\n"}) == written
    with pytest.raises(KeyError):
        write_tables(page, {})
