# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run one statement that only reads, for the module pg_query_info.

Private to lowtide.ops: do not import from other collections.

The statement is opened as a cursor on the server, in a transaction that is read only. So it is the server, which knows
its own grammar, that refuses a second statement, one that returns no rows, and any write; and no more rows are fetched
than the caller asked for. It is handed over as a setting of the transaction, since a DO block takes no parameters.
"""

from __future__ import annotations

import re
import typing as t

from ..._common.dependencies import require
from ..._common.errors import OpsError, Refusal
from ..._common.text import format_count
from ..connection import CONNECTION_SPEC, Session, driver_error, new_run_id, settings_from
from ..errors import one_line, sqlstate
from ..json_values import register_casters, to_json_value

if t.TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ansible.module_utils.basic import AnsibleModule

    from ..._common.outcome import Outcome

QUERY_SPEC: dict[str, dict[str, t.Any]] = {
    **CONNECTION_SPEC,
    "query": {"type": "str", "required": True},
    "values": {"type": "dict", "default": {}},
    "max_rows": {"type": "int", "default": 1000},
    "timeout": {"type": "float", "default": 60.0},
    "target": {"type": "str", "choices": ["primary", "any"], "default": "primary"},
}

MAX_INT = 2**31 - 1

# After the first statement of a transaction its mode is fixed: what follows cannot make it writable.
_PREPARE = """
SELECT pg_catalog.set_config('lowtide_ops.statement', %(statement)s, true),
       pg_catalog.set_config('statement_timeout', %(milliseconds)s, true)
"""
_OPEN = """
DO $lowtide$
DECLARE opened refcursor := 'lowtide_ops';
BEGIN
  OPEN opened NO SCROLL FOR EXECUTE pg_catalog.current_setting('lowtide_ops.statement');
END
$lowtide$ LANGUAGE plpgsql
"""
_FETCH = "FETCH FORWARD %(rows)s FROM lowtide_ops"

_NOT_A_CURSOR = "42P11"
_NEXT_STEP = {
    _NOT_A_CURSOR: "Give exactly one statement, and one that returns rows, such as SELECT or SHOW",
    "25006": "Give a statement that only reads; the transaction is read only",
    "25001": "Give a statement that only reads; the transaction is read only",
    "57014": "Raise timeout or make the statement cheaper, unless somebody cancelled it",
    "42501": "Grant login_user the right that the server names (such as SELECT on the table), or use another one",
    "55000": "Have the server's administrator prepare what the message names (an extension: shared_preload_libraries)",
    "55P03": "Run again when whoever holds the lock has finished",
    "40001": "Run again; a standby ends queries that stand in the way of its recovery",
}


class Rows(t.NamedTuple):
    """What a statement returned: the names of its columns, and its rows as the driver gives them."""

    columns: tuple[str, ...]
    rows: list[tuple[t.Any, ...]]

    def list_objects(self) -> list[dict[str, t.Any]]:
        """Return the rows by the names of their columns, as JSON can hold them."""
        # Managed hosts may have Python 3.8, whose zip takes no strict; the server sends as many values as it names columns.
        return [dict(zip(self.columns, map(to_json_value, row))) for row in self.rows]  # noqa: B905


def run_query(module: AnsibleModule, outcome: Outcome) -> None:
    """Run the module's statement and report its rows."""
    params = module.params
    check_options(params)
    settings = settings_from(params)
    primary = params["target"] == "primary"
    with Session(settings, module="pg_query_info", run_id=new_run_id(), primary=primary, writes=False) as session:
        server = session.server
        outcome.facts.update(
            database=server.database,
            server=server.address,
            server_version="{}.{}".format(*divmod(server.version, 10000)),
            system_identifier=server.system_identifier,
            in_recovery=server.in_recovery,
        )
        answer = read_rows(session, params)
    outcome.facts.update(columns=list(answer.columns), rows=answer.list_objects(), row_count=len(answer.rows))
    outcome.summary = summarize_rows(len(answer.rows), server.database)
    outcome.evidence = [f"{outcome.summary} (cluster {server.system_identifier})"]


def summarize_rows(count: int, database: str) -> str:
    """Return the one line that says what was read."""
    return f"{format_count(count, 'row')} from database {database}"


def check_options(params: Mapping[str, t.Any]) -> None:
    """Refuse options that cannot be meant."""
    if not params["query"].strip():
        raise Refusal(obj="option query", problem="it is empty", next_step="Give one statement that returns rows")
    for option in ("max_rows", "timeout"):
        if params[option] <= 0:
            raise Refusal(obj=f"option {option}", problem=f"it is {params[option]:g}", next_step="Set it above 0")


def read_rows(session: Session, params: Mapping[str, t.Any]) -> Rows:
    """Return what the statement returns, or raise with the server's message and the place in the statement."""
    why = "to talk to PostgreSQL"
    extensions = require("psycopg2.extensions", package="psycopg2-binary", why=why)
    target = session.settings.target
    with session.connection.cursor() as cursor:
        statement = bind_values(extensions, cursor, params["query"], params["values"], target)
        register_casters(extensions, cursor)
        try:
            cursor.execute("SET default_transaction_read_only = on")
            cursor.execute("BEGIN TRANSACTION READ ONLY")
            # Names are looked up as the role has it set, not with the empty path of our own statements.
            cursor.execute("SET LOCAL search_path TO DEFAULT")
            cursor.execute("SET LOCAL jit TO DEFAULT")
            milliseconds = str(min(max(1, round(params["timeout"] * 1000)), MAX_INT))
            cursor.execute(_PREPARE, {"statement": statement, "milliseconds": milliseconds})
            cursor.execute(_OPEN)
            cursor.execute(_FETCH, {"rows": params["max_rows"] + 1})
            columns = tuple(str(column.name) for column in cursor.description)
            rows: list[tuple[t.Any, ...]] = cursor.fetchall()
            cursor.execute("ROLLBACK")
        except driver_error() as error:
            raise describe_failure(target, statement, error) from error
    refuse_ambiguous_columns(target, columns)
    if len(rows) > params["max_rows"]:
        raise OpsError(
            obj=target,
            problem=f"the statement returns more than {params['max_rows']} rows (max_rows)",
            next_step="Have it return fewer, for example by LIMIT or an aggregate, or raise max_rows",
        )
    return Rows(columns, rows)


def bind_values(extensions: t.Any, cursor: t.Any, query: str, values: Mapping[str, t.Any], target: str) -> str:
    """Return the statement with ``values`` quoted into it by the driver; without values it is left as it is."""
    if not values:
        return query
    try:
        bound: bytes = cursor.mogrify(query, {name: adapt_value(value) for name, value in values.items()})
    except KeyError as error:
        raise Refusal(
            obj=f"option query on {target}",
            problem=f"it uses %({error.args[0]})s, and values has only {', '.join(sorted(values))}",
            next_step="Add the value, or correct the name",
        ) from error
    except (TypeError, ValueError, IndexError, driver_error()) as error:
        raise Refusal(
            obj=f"option query on {target}",
            problem=f"its values cannot be bound: {one_line(str(error))}",
            next_step="Write %(name)s for a value, and %% for a percent sign, since values are given",
        ) from error
    return bound.decode(extensions.encodings[cursor.connection.encoding])


def adapt_value(value: t.Any) -> t.Any:
    """Return a value as the driver can quote it: dictionaries, and lists of them, as JSON; other lists are arrays."""
    items = value if isinstance(value, list) else [value]
    is_document = any(isinstance(item, dict) for item in items)
    if not is_document:
        return value
    return require("psycopg2.extras", package="psycopg2-binary", why="to bind JSON values").Json(value)


def refuse_ambiguous_columns(target: str, columns: Sequence[str]) -> None:
    """Refuse two columns of one name, since a row is a dictionary and would hold only one of them."""
    repeated = sorted({name for name in columns if columns.count(name) > 1})
    if repeated:
        raise OpsError(
            obj=target,
            problem=f"the statement returns more than one column named {', '.join(repeated)}",
            next_step="Give each column a name of its own with AS",
        )


def describe_failure(target: str, statement: str, error: Exception) -> OpsError:
    """Return the server's refusal of ``statement`` with its own words, its SQLSTATE and the place it points at."""
    code = sqlstate(error)
    diagnosis = getattr(error, "diag", None)
    said = one_line(str(getattr(diagnosis, "message_primary", None) or error))
    more = [getattr(diagnosis, key, None) for key in ("message_detail", "message_hint")]
    detail = "".join(f" {one_line(text)}" for text in more if text)
    position = getattr(diagnosis, "internal_position", None)
    # A function that the statement calls has texts and positions of its own.
    is_ours = getattr(diagnosis, "internal_query", None) == statement
    place = f" {locate(statement, int(position))}" if position and is_ours else ""
    if not code:
        return OpsError(obj=target, problem=said, next_step="The connection was lost; run again")
    return OpsError(
        obj=target,
        problem=f"the server refused the statement{place}: {said}{detail} (SQLSTATE {code})",
        next_step=_NEXT_STEP.get(code, "Correct the statement"),
    )


def locate(statement: str, position: int) -> str:
    """Return line, column and first word at ``position``, which counts characters from 1.

    >>> locate("SELECT 1\\nFROM nosuch", 15)
    "at line 2, column 6, near 'nosuch'"
    """
    before = statement[: position - 1]
    line = before.count("\n") + 1
    column = len(before) - (before.rfind("\n") + 1) + 1
    word = re.match(r"\w{1,30}|\S|$", statement[position - 1 :])
    near = f", near {word[0]!r}" if word and word[0] else ""
    return f"at line {line}, column {column}{near}"
