# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Which statement gives a role the right that a dump needs."""

from __future__ import annotations

import pytest

from ansible_collections.lowtide.ops.plugins.module_utils._pg_backup.rights import Lack, Membership, explain_lacks

SIX = [f"s.t{number}" for number in range(6)]
BYPASS = (
    "ALTER ROLE saver BYPASSRLS /* takes a superuser, or a role that has it; tables without FORCE are opened by"
    " GRANT app TO saver, too */"
)
MORE = "/* where more are stored all the time, GRANT app TO saver, which gives it all their rights, instead of: */ "


@pytest.mark.parametrize(
    ("kind", "names", "what", "statement"),
    [
        (
            "schema",
            ["app", '"odd one"'],
            'it may not use 2 schemas (app, "odd one")',
            "GRANT USAGE ON SCHEMA {} TO saver",
        ),
        ("table", ["s.t"], "it may not read 1 table (s.t)", "GRANT SELECT ON TABLE {} TO saver"),
        (
            "table",
            SIX,
            "it may not read 6 tables (s.t0, s.t1, s.t2, s.t3, s.t4 and 1 more)",
            "GRANT pg_read_all_data TO saver",
        ),
        ("sequence", ["s.q"], "it may not read 1 sequence (s.q)", "GRANT SELECT ON SEQUENCE {} TO saver"),
        ("policy", ["s.t"], "row-level security hides rows of 1 table from it (s.t)", BYPASS),
        (
            "policy",
            SIX,
            "row-level security hides rows of 6 tables from it (s.t0, s.t1, s.t2, s.t3, s.t4 and 1 more)",
            BYPASS,
        ),
        (
            "large object",
            ["16401", "16402"],
            "it may not read 2 large objects (16401, 16402)",
            MORE + "GRANT SELECT ON LARGE OBJECT {} TO saver",
        ),
        (
            "large object",
            [str(number) for number in range(6)],
            "it may not read 6 large objects (0, 1, 2, 3, 4 and 1 more)",
            MORE
            + "SELECT format('GRANT SELECT ON LARGE OBJECT %s TO %I', oid, 'saver') FROM pg_largeobject_metadata \\gexec",
        ),
        (
            "password",
            [""],
            "it may not read the hashes of role_passwords",
            "GRANT SELECT ON pg_catalog.pg_authid TO saver",
        ),
    ],
)
def test_what_is_lacking_is_said_with_the_statement_that_gives_it(
    kind: str, names: list[str], what: str, statement: str
) -> None:
    """As it can be run; of many objects, one for all."""
    (blocker,) = explain_lacks([Lack(kind, name, "app") for name in names], role="saver")
    assert blocker.what == what
    assert blocker.next_step == statement.format(", ".join(names))


def test_each_kind_has_a_statement_of_its_own() -> None:
    """In the order in which they were read, and for a role of any name."""
    blockers = explain_lacks([Lack("schema", "app"), Lack("table", "app.t"), Lack("policy", "app.t")], role='"o\'d""d"')
    assert [blocker.next_step.partition(" /*")[0] for blocker in blockers] == [
        'GRANT USAGE ON SCHEMA app TO "o\'d""d"',
        'GRANT SELECT ON TABLE app.t TO "o\'d""d"',
        'ALTER ROLE "o\'d""d" BYPASSRLS',
    ]
    (many,) = explain_lacks([Lack("large object", str(number)) for number in range(6)], role='"o\'d""d"')
    assert "oid, 'o''d\"d')" in many.next_step


def test_later_large_objects_are_opened_where_the_server_can() -> None:
    """From 18 on by default privileges of each role that has stored some."""
    lacks = [Lack("large object", "1", "app"), Lack("large object", "2", '"B c"')]
    (blocker,) = explain_lacks(lacks, role="saver", version=180001)
    assert blocker.next_step == (
        'ALTER DEFAULT PRIVILEGES FOR ROLE "B c", app GRANT SELECT ON LARGE OBJECTS TO saver;'
        " GRANT SELECT ON LARGE OBJECT 1, 2 TO saver"
    )


@pytest.mark.parametrize(
    ("version", "statement"),
    [(160000, "GRANT pg_read_all_data TO saver WITH INHERIT TRUE"), (150018, "ALTER ROLE saver INHERIT")],
)
def test_a_role_that_does_not_inherit_is_told_so(version: int, statement: str) -> None:
    """Instead of a grant that it has already; what that does not open is granted as ever."""
    idle = Membership("saver", is_idle=True)
    lacks = [Lack("schema", "app"), Lack("table", "app.t", "app"), Lack("password", "")]
    blockers = explain_lacks(lacks, role="saver", version=version, inherit=idle.explain_idle(version))
    assert [blocker.next_step for blocker in blockers] == [
        statement,
        statement,
        "GRANT SELECT ON pg_catalog.pg_authid TO saver",
    ]
    assert Membership("saver", is_idle=False).explain_idle(version) is None
